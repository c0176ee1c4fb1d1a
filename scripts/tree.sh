#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# tree.sh: a git work tree under build/: the base, then one commit per patch.
# SERIES=none applies the tests only. KSRC= takes the base from the user's tree,
# which is cloned and never written to. With --base it stops at the base, with --keep
# it leaves a work tree that somebody has changed as it is.
. "$(dirname "$0")/common.sh"

case ${1:-} in ''|--keep|--base) ;; *) die "usage: tree.sh [--keep|--base]" ;; esac

who=(-c user.name=series -c user.email=series@localhost -c core.autocrlf=false -c commit.gpgsign=false)

import_ksrc() {
	local head
	valid_ksrc
	head=$(git -C "$ksrc" rev-parse HEAD)
	[ -z "$(git -C "$ksrc" status --porcelain -uno | head -n 1)" ] ||
		say "KSRC has uncommitted changes: they are not used, only HEAD is"
	if [ "$(cat "$base_tree/.git/imported" 2>/dev/null)" != "$head" ]; then
		need_space 4000 "a work tree"
		if [ -f "$base_tree/.git/imported" ]; then
			git -C "$base_tree" fetch -q "$ksrc" HEAD
		else
			rm -rf "$base_tree"
			git clone -q --shared --no-checkout "$ksrc" "$base_tree" 2>"$logs/clone.log" ||
				die "KSRC=$ksrc: clone failed: $(tail -n 1 "$logs/clone.log")"
		fi
		git -C "$base_tree" checkout -q -f -B base "$head"
		echo "$head" >"$base_tree/.git/imported"
	fi
}

import_debian() {
	local deb name tmp=$base_tree.tmp
	[ ! -f "$base_tree/.git/imported" ] || return 0
	deb=$("$top/scripts/debian.sh" source "$base")
	name=$(basename "$deb" _all.deb)
	need_space 6000 "unpacking the base kernel"
	[ ! -e "$tmp" ] && [ ! -e "$base_tree" ] || quietly "$logs/unpack.log" "removing an interrupted unpack" rm -rf "$tmp" "$base_tree"
	mkdir -p "$tmp/deb" "$tmp/linux"
	unpack() {
		dpkg-deb -x "$deb" "$tmp/deb" &&
		tar -C "$tmp/linux" --strip-components=1 -xf "$tmp/deb/usr/src/linux-source-$base.tar.xz" &&
		# Debian adds rules that make git ignore every new file.
		sed -i '/^# Debian packaging/,$d' "$tmp/linux/.gitignore" &&
		cd "$tmp/linux" && git init -q -b base && git "${who[@]}" add -A -f &&
		git "${who[@]}" commit -q --date='2026-01-01T00:00:00Z' -m "$name"
	}
	quietly "$logs/unpack.log" "unpacking $name" unpack || {
		rm -rf "$tmp"
		rm -f "$deb"
		die "the base could not be unpacked; run the same command again"
	}
	echo "$name" >"$tmp/linux/.git/imported"
	mv "$tmp/linux" "$base_tree"
	rm -rf "$tmp"
}

# apply_series DIR: DIR is a clean checkout of the base. Leaves DIR as it is and
# says which patch and file failed if one does.
apply_series() {
	local dir=$1 p name err failed n=0 skipped=0 kind=all
	[ "$series" = all ] || kind=tests
	export GIT_COMMITTER_DATE='2026-01-01T00:00:00Z'
	for p in $(list_patches $kind); do
		name=$(basename "$p")
		if git -C "$dir" "${who[@]}" am -q --keep-non-patch "$p" >"$logs/am.log" 2>&1; then
			n=$((n + 1))
			continue
		fi
		git -C "$dir" am --abort >/dev/null 2>&1 || true
		if git -C "$dir" apply --check -R "$p" 2>/dev/null; then
			say "skipped, the tree has it already: $name"
			skipped=$((skipped + 1))
			continue
		fi
		if git -C "$dir" "${who[@]}" am -q -3 --keep-non-patch "$p" >"$logs/am.log" 2>&1; then
			say "applied with a 3-way merge (context moved): $name"
			n=$((n + 1))
			continue
		fi
		git -C "$dir" am --abort >/dev/null 2>&1 || true
		err=$(git -C "$dir" apply --check "$p" 2>&1 || true)
		failed=$(sed -n 's/^error: patch failed: \(.*\):\([0-9]*\)$/\1, line \2/p; s/^error: \(.*\): No such file.*/\1 (no such file)/p; s/^error: \(.*\): already exists.*/\1 (exists already)/p' <<<"$err" | head -n 1)
		echo "error: $name does not apply: ${failed:-$(head -n 1 <<<"$err")}" >&2
		failed=$(git -C "$base_tree" log -500 --format=%s base | grep -cxF -f <(cut -f 2 "$top/patches/subsets") || true)
		[ "$failed" -eq 0 ] ||
			echo "This tree has $failed patches of the series already, and not all of them can be told by their content: take a branch without them." >&2
		echo "Nothing was changed. Rebase that patch in a work tree of the default base, or try another KSRC or BASE." >&2
		return 1
	done
	say "$n patches applied, $skipped skipped, on $(cat "$base_tree/.git/imported")"
}

[ -d "$top/patches" ] && [ -n "$(list_patches)" ] || die "no patches in patches/"
twice=$(list_patches | sed 's|.*/||' | cut -c1-4 | uniq -d | head -n 1)
[ -z "$twice" ] || die "patches/ has two patches with the number $twice: 'git status patches' says which is left over"

if [ -n "$ksrc" ]; then import_ksrc; else import_debian; fi
[ "${1:-}" != --base ] || exit 0

state=$tree.applied
want=$(tree_sum)
if [ -f "$state" ] && [ -d "$tree" ]; then
	read -r applied_commit applied_sum <"$state"
	head=$(git -C "$tree" rev-parse HEAD 2>/dev/null) ||
		die "${tree#"$top"/} is no work tree of ${base_tree#"$top"/} any more: remove build/ by hand"
	if [ "$head" != "$applied_commit" ] || [ -n "$(git -C "$tree" status --porcelain -uno | head -n 1)" ]; then
		# The user works here. That is what it is for.
		if [ "${1:-}" = --keep ]; then
			say "using ${tree#"$top"/} with your changes in it"
			exit 0
		fi
		not_rebasing
		die "${tree#"$top"/} has changes of its own: commit them and 'make export' writes them to patches/; to drop them: git -C ${tree#"$top"/} reset --hard $applied_commit"
	fi
	if [ "$applied_sum" = "$want" ]; then
		[ "${1:-}" = --keep ] || say "tree: ${tree#"$top"/} is up to date"
		exit 0
	fi
fi

tmp=$tree.tmp
rm -rf "$tmp"
need_space 3000 "a work tree"
git -C "$base_tree" worktree prune
quietly "$logs/worktree.log" "checking out the base" git -C "$base_tree" worktree add -q --detach "$tmp" base
drop_tmp() { rm -rf "$tmp"; git -C "$base_tree" worktree prune; }
trap drop_tmp EXIT
say "applying the series with git am"
apply_series "$tmp"
new=$(git -C "$tmp" rev-parse HEAD)
if [ -d "$tree" ]; then
	# Move the existing tree, so that only changed files are built again.
	git -C "$tree" reset -q --hard "$new"
else
	git -C "$base_tree" worktree move "$tmp" "$tree"
fi
echo "$new $want" >"$state"
say "tree: ${tree#"$top"/}"
