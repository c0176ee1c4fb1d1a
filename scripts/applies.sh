#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# applies.sh: where the series goes with git am: the newest 7.2.x and 7.3.x of Debian,
# and KSRC if it is set. Says of each part of the series how many of its patches apply,
# apply with --3way, are there already, or do not apply, and where the first of those
# stumbles. A patch that does not apply is left out, and later ones may miss it.
# Fails only if one of the fixes does not go on 7.3 or KSRC: 7.2 lacks what much of the
# series builds on, and what is missing there is for `make backport` to say.
. "$(dirname "$0")/common.sh"

mapfile -t patches < <(list_patches)
parts=$(cut -f 1 "$top/patches/subsets" | awk '!seen[$0]++')
touched=$(cat "${patches[@]}" | sed -nE 's|^diff --git a/(.*) b/.*|\1|p' | sort -u)
export GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z'
chain_tmp=$(mktemp -d "$build/applies.XXXXXX")
trap 'rm -rf "$chain_tmp"' EXIT

# An older kernel is only asked for the files that the series touches. $at is a git with
# one commit of these.
partial_base() {	# VERSION
	local deb tmp=$chain_tmp/linux
	deb=$("$top/scripts/debian.sh" source "$1") || return 1
	name=$(basename "$deb" _all.deb)
	at=$build/applies-$name-$(cksum <<<"$touched" | cut -d' ' -f1)
	[ ! -d "$at" ] || return 0
	unpack() {
		mkdir -p "$tmp" && plain_git init -q "$tmp" &&
		# Not all of them are there, which tar calls an error.
		{ dpkg-deb --fsys-tarfile "$deb" | tar -xO "./usr/src/linux-source-$1.tar.xz" |
			tar -xJ -C "$tmp" --strip-components=1 -T <(sed "s|^|linux-source-$1/|" <<<"$touched") 2>/dev/null || true; } &&
		[ -f "$tmp/drivers/dma-buf/dma-fence.c" ] &&
		plain_git -C "$tmp" add -A -f &&
		plain_git -C "$tmp" -c user.name=series -c user.email=series@localhost commit -q -m "$name"
	}
	quietly "$logs/applies-unpack.log" "unpacking what the series touches of $name" unpack "$1" || return 1
	rm -rf "$build/applies-linux-source-$1_"*
	mv "$tmp" "$at"
}

# The whole series on the commit: $list has what does not simply apply, $fixes counts
# the fixes among what does not apply.
onto() {	# GIT COMMIT
	local p subject part what
	local -A count=()
	list=()
	fixes=0
	chain_start "$1" "$2"
	for p in "${patches[@]}"; do
		subject=$(patch_subject "$p")
		part=$(patch_subset "$subject")
		where=''
		chain_add "$p" || true
		count[$part,$how]=$((${count[$part,$how]:-0} + 1))
		case $how in
		applied) continue ;;
		3-way)	what="3-way" ;;
		already) what="already" ;;
		failed)	what="does not apply ${where:-see build/logs/apply.log}"
			[ "$part" != fixes ] || fixes=$((fixes + 1)) ;;
		esac
		list+=("$(basename "$p" | cut -c1-4) $subject: $what")
	done
	printf '%-10s %8s %8s %8s %15s\n' part applies 3-way already 'does not apply'
	for part in $parts; do
		printf '%-10s %8s %8s %8s %15s\n' "$part" "${count[$part,applied]:-0}" "${count[$part,3-way]:-0}" "${count[$part,already]:-0}" "${count[$part,failed]:-0}"
	done
	[ ${#list[@]} -eq 0 ] || printf '    %s\n' "${list[@]}"
}

summary=() bad=0
judge() {	# NAME MUST
	local failed
	failed=$(printf '%s\n' "${list[@]}" | grep -c ': does not apply' || true)
	summary+=("$1 $((${#patches[@]} - failed)) of ${#patches[@]}")
	[ "$2" != must ] || [ "$fixes" -eq 0 ] || { echo "error: fixes that do not apply to $1: $fixes" >&2; bad=1; }
}

# First where the patches were made: the others need the files of that for --3way.
env -u BASE -u KSRC "$top/scripts/tree.sh" --base
home=$build/linux-$default_base.base
say "the series on $(cat "$home/.git/imported")"
onto "$home" "$(git -C "$home" rev-parse base)"
judge "$default_base" must
export GIT_ALTERNATE_OBJECT_DIRECTORIES=$home/.git/objects
if [ "$base_tree" != "$home" ]; then
	"$top/scripts/tree.sh" --base
	say "the series on $(git -C "$base_tree" log -1 --format='%h ("%s")' base)"
	onto "$base_tree" "$(git -C "$base_tree" rev-parse base)"
	if [ -n "$ksrc" ]; then judge KSRC must; else judge "$base" may; fi
fi
if partial_base 7.2; then
	say "the series on $name"
	onto "$at" "$(git -C "$at" rev-parse HEAD)"
	judge 7.2 may
else
	summary+=("7.2 cannot be had")
fi
(IFS=';'; echo "${summary[*]}" | sed 's/;/, /g')
exit $bad
