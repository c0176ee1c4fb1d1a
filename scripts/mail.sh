#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# mail.sh: the series, or the part of it for some trees, as mails in build/outgoing/,
# with the identity and the sign-off of the one who sends. patches/ stays as it is.
# Nothing is sent unless SEND=1 asks for it, and then not before a question.
#   KSRC=DIR           the sender's tree, on the branch that the patches are for
#   SUBSET=fixes,usb   only these parts, by the labels in patches/subsets
#   TO="A <a@b>, c@d"  recipients besides those of get_maintainer.pl
#   TRAILERS="Tag: value; Tag: value"   for each patch, above the Signed-off-by
#   VERSION=2          [PATCH v2], needs a CHANGELOG
#   CHANGELOG=FILE     what changed since the last version, for the cover letter
#   COVER=FILE         another cover letter: subject, empty line, text
#   SEND=1             send; CONFIRM=yes answers the question
# mail-test.sh sets SINK=PORT: mails go to that port of this machine and nowhere else.
. "$(dirname "$0")/common.sh"

subset=${SUBSET:-all}
version=${VERSION:-1}
send=${SEND:-}
sink=${SINK:-}
out=$build/outgoing

# Which parts a part builds on, where git would not notice. What else it needs to
# apply is found by applying it.
declare -A needs=(
	[fixes]="" [usb]="" [core]="" [drivers]=core [i915]=core [xe]=core [iio]=core
	[tests]="fixes usb core drivers i915 xe iio"
)

[ "$series" = all ] || die "mail works on the series, not with SERIES=$series"
[[ $version =~ ^[1-9][0-9]?$ ]] || die "VERSION=$version: give a number, up to 99"
[[ $sink =~ ^[0-9]*$ ]] || die "SINK=$sink: give a port of this machine"
[ -z "$sink" ] || out=$build/outgoing-test
case $send in ''|1) ;; *) die "SEND=$send: SEND=1 sends, without it nothing is sent" ;; esac
subset=${subset// /}
[[ ,$subset, != *,all,* ]] || subset=$(IFS=,; echo "${!needs[*]}")
for s in ${subset//,/ }; do
	[ -n "${needs[$s]+known}" ] || die "SUBSET=$s: use all, or some of fixes core drivers i915 xe usb iio tests"
done
[ -n "${subset//,/}" ] || die "SUBSET=${SUBSET:-}: names no part of the series"
for f in CHANGELOG COVER; do
	[ -z "${!f:-}" ] || { [ -f "${!f}" ] && [ -s "${!f}" ]; } || die "$f=${!f}: no such file, or an empty one"
done
[ "$version" = 1 ] || [ -n "${CHANGELOG:-}" ] || die "VERSION=$version: say with CHANGELOG=FILE what has changed"
[ "$version" != 1 ] || [ -z "${CHANGELOG:-}" ] || die "CHANGELOG=$CHANGELOG: the first version has none, say VERSION=2"

split() {	# SEPARATOR TEXT: one per line
	tr "$1" '\n' <<<"$2" | sed 's/^[[:space:]]*//; s/[[:space:]]*$//; /^$/d'
}
split , "${TO:-}" | while read -r a; do
	[[ $a =~ ^([^\<\>@]*\ )?\<[^[:space:]\<\>@]+@[^[:space:]\<\>@]+\>$|^[^[:space:]\<\>@]+@[^[:space:]\<\>@]+$ ]] ||
		die "TO: '$a' is no mail address; put commas between several"
done
mapfile -t trailers < <(split ';' "${TRAILERS:-}")
for t in "${trailers[@]}"; do
	[[ $t =~ ^[A-Z][A-Za-z-]*:\ *[^\ ] ]] || die "TRAILERS: '$t' is no 'Tag: value'; put semicolons between several"
done

# The identity, and how to send, are what git is told in the sender's own tree.
home=${ksrc:-$top}
[ -d "$home" ] || die "KSRC=$ksrc: no such directory"
name=$(git -C "$home" config user.name || true)
email=$(git -C "$home" config user.email || true)
[ -n "$name" ] && [ -n "$email" ] ||
	die "the mails need a sender: git config --global user.name 'Your Name', and user.email"
[[ $email =~ ^[^@[:space:]]+@[^@[:space:]]+\.[^@[:space:]]+$ ]] || die "user.email is '$email': nobody can answer to that"
[ -x "$(git --exec-path)/git-send-email" ] ||
	die "there is no git send-email: install the package git-email"

if [ -n "$send$sink" ]; then
	[ -n "$ksrc" ] || [ -n "$sink" ] ||
		die "SEND=1 needs KSRC=, your tree on the branch that the patches are for: nobody else has the commit of the default base"
	[ "${CONFIRM:-}" = yes ] || [ -t 0 ] ||
		die "SEND=1 asks before it sends, and there is no terminal; CONFIRM=yes answers"
fi
if [ -f "$tree.applied" ] && [ -d "$tree" ]; then
	read -r applied _ <"$tree.applied"
	[ "$(git -C "$tree" rev-parse HEAD)" = "$applied" ] && [ -z "$(git -C "$tree" status --porcelain -uno | head -n 1)" ] ||
		die "${tree#"$top"/} has changes that patches/ lacks, and patches/ is what is sent: 'make export' first, or git -C ${tree#"$top"/} reset --hard $applied"
fi
[ -z "$(git -C "$top" status --porcelain -- patches 2>/dev/null | head -n 1)" ] ||
	say "patches/ has changes that are not committed: they are sent like the rest"

"$top/scripts/tree.sh" --base
rm -rf "$out"
tmp=$(mktemp -d "$build/mail.XXXXXX")
chain_tmp=$tmp
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/mails"
by=("$name" "$email")
export GIT_COMMITTER_NAME=$name GIT_COMMITTER_EMAIL=$email

# The base is what others have, too: commits that are only the sender's are
# prerequisites like others.
head=$(git -C "$base_tree" rev-parse base)
public=$head
if [ -z "$ksrc" ]; then
	say "base-commit is of $(cat "$base_tree/.git/imported"), which others do not have; KSRC= takes your tree"
else
	public=$(git -C "$ksrc" merge-base HEAD '@{upstream}' 2>/dev/null) || {
		public=$head
		say "the branch in KSRC has no upstream: make sure that others have $(git -C "$ksrc" log -1 --format='%h ("%s")')"
	}
fi

mapfile -t patches < <(list_patches)
label=() subject=() chosen=() first=()
for i in "${!patches[@]}"; do
	subject[i]=$(patch_subject "${patches[i]}")
	label[i]=$(patch_subset "${subject[i]}")
	[ -n "${label[i]}" ] || die "patches/subsets says nothing about '${subject[i]}'"
	[[ ,$subset, != *,${label[i]},* ]] || { chosen[i]=1; last=$i; }
done
for s in ${subset//,/ }; do
	for i in "${!patches[@]}"; do
		[[ " ${needs[$s]} " != *" ${label[i]} "* ]] || [ -n "${chosen[i]:-}" ] || [ "$i" -gt "${last:-0}" ] || first[i]=1
	done
done

# What comes first, and then what is sent, each in the order of the series. If one
# does not apply, the nearest patch before it to the same file has to come first.
apply_chosen() {
	local i j again=1 with
	while [ -n "$again" ]; do
		again=''
		chain_start "$base_tree" "$head"
		: >"$tmp/first"
		: >"$tmp/chosen"
		for i in "${!first[@]}" - "${!chosen[@]}"; do
			[ "$i" != - ] || { echo "$chain" >"$tmp/from"; continue; }
			if chain_add "${patches[i]}" "${trailers[@]}" "Signed-off-by: $name <$email>"; then
				[ $how != already ] || { echo "skipped, the base has it already: ${subject[i]}" >>"$tmp/skipped"; continue; }
				if [ -n "${chosen[i]:-}" ]; then echo "$i" >>"$tmp/chosen"; else echo "$i" >>"$tmp/first"; fi
				continue
			fi
			with=''
			for ((j = i - 1; j >= 0; j--)); do
				grep -qF "diff --git a/${where%%[, ]*} " "${patches[j]}" || continue
				[ -z "${chosen[j]:-}" ] || with=${with:-$j}
				[ -z "${chosen[j]:-}${first[j]:-}" ] || continue
				first[j]=1
				again=1
				continue 3
			done
			[ -z "${first[i]:-}" ] || [ -z "$with" ] ||
				die "'${subject[i]}' is needed first, but needs '${subject[with]}' itself: send them together, SUBSET=$subset,${label[i]}"
			die "$(basename "${patches[i]}") does not apply to $(cat "$base_tree/.git/imported"): ${where:-see build/logs/apply.log}"
		done
	done
	echo "$chain" >"$tmp/to"
}
quietly "$logs/mail-apply.log" "applying the patches, signed off by $name <$email>" apply_chosen ||
	die "no mails were written"
[ ! -f "$tmp/skipped" ] || sort -u "$tmp/skipped" | sed 's/^/== /'
mapfile -t sent <"$tmp/chosen"
mapfile -t before <"$tmp/first"
n=${#sent[@]}
[ "$n" -gt 0 ] || die "the base has all of it already"

opts=(--quiet --base="$public" --from="$name <$email>" --thread=shallow -o "$tmp/mails")
[ "$n" -eq 1 ] || opts+=(--cover-letter)
[ "$version" -eq 1 ] || opts+=(-v "$version")
plain_git -C "$base_tree" format-patch "${opts[@]}" "$(cat "$tmp/from")..$(cat "$tmp/to")" >"$logs/mail-format.log" 2>&1 ||
	die "git format-patch failed: $(tail -n 1 "$logs/mail-format.log")"

# The cover letter. A part says what it is a part of, and what it needs.
numbers() {	# of patches, in words: 1 to 8, 12
	printf '%s\n' "$@" | awk '{ n = $1 + 1 }
		!to || n != to + 1 { out(); from = n } { to = n }
		function out() { if (to) printf "%s%s", (k++ ? ", " : ""), (from == to) ? from : from " to " to }
		END { out() }'
}
note() {
	local i
	[ ${#before[@]} -gt 0 ] || return 0
	echo "Needed first, see prerequisite-patch-id below:"
	echo
	if [ ${#before[@]} -le 10 ]; then
		for i in "${before[@]}"; do echo " - ${subject[i]}"; done
	else
		for i in "${before[@]}"; do echo "${label[i]}"; done | sort | uniq -c | awk '{ printf " - %s of %s\n", $1, $2 }'
	fi
	echo
}
title=$(patch_subject "$top/patches/0000-cover-letter.patch")
[ "$n" -eq ${#patches[@]} ] || title+=" (${subset//,/, })"
[ -z "${COVER:-}" ] || title=$(head -n 1 "$COVER")
{
	if [ -n "${COVER:-}" ]; then
		note
		sed '1d; 2{/^$/d}' "$COVER"
		[ -z "${CHANGELOG:-}" ] || echo
	else
		if [ "$n" -lt ${#patches[@]} ]; then
			echo "These are $n of the ${#patches[@]} patches of a series, its part for: ${subset//,/, }."
			[ ${#before[@]} -gt 0 ] || echo "They need no other patch of it."
			echo
			note
			echo "What follows is about the whole series, where these have the numbers"
			echo "$(numbers "${sent[@]}")."
			echo
		fi
		sed '1,/^$/d' "$top/patches/0000-cover-letter.patch"
	fi | sed '/^Changes since/,$d'
	[ -z "${CHANGELOG:-}" ] || { echo "Changes since v$((version - 1)):"; echo; cat "$CHANGELOG"; }
} >"$tmp/cover"
edit() {	# FILE AWK-PROGRAM
	TITLE=$title awk "$2" "$1" >"$tmp/edited"
	cp "$tmp/edited" "$1"
}
if [ "$n" -eq 1 ]; then
	{ note; [ -z "${CHANGELOG:-}" ] || { echo "Changes since v$((version - 1)):"; echo; cat "$CHANGELOG"; echo; }; } >"$tmp/cover"
	# shellcheck disable=SC2016
	edit "$tmp"/mails/*.patch '{ print } /^---$/ && !done++ { while ((getline line <"'"$tmp/cover"'") > 0) print line }'
else
	# shellcheck disable=SC2016
	edit "$tmp"/mails/*0000-cover-letter.patch '
		(at = index($0, "*** SUBJECT HERE ***")) { print substr($0, 1, at - 1) ENVIRON["TITLE"]; next }
		/^\*\*\* BLURB HERE \*\*\*$/ { while ((getline line <"'"$tmp/cover"'") > 0) print line; next } { print }'
fi

checkpatch() {
	local p mails=()
	for p in "$tmp"/mails/*.patch; do
		[[ $p == *0000-cover-letter.patch ]] || mails+=("$p")
	done
	cd "$base_tree"
	./scripts/checkpatch.pl --strict --no-tree --root="$base_tree" --terse --show-types \
		--ignore FILE_PATH_CHANGES,GIT_COMMIT_ID,UNKNOWN_COMMIT_ID "${mails[@]}"
}
quietly "$logs/mail-checkpatch.log" "checkpatch --strict" checkpatch || die "no mails were written"

# Who gets them: people in To:, lists in Cc:, as MAINTAINERS of the base says. The
# cover letter goes to everybody. Not asked is who changed a file lately.
maintainers() {
	local p
	mkdir -p "$build/recipients"
	cd "$base_tree"
	for p in "$tmp"/mails/*.patch; do
		[[ $p != *0000-cover-letter.patch ]] || continue
		ask "$p" &
		[ "$(jobs -rp | wc -l)" -lt "$jobs" ] || wait -n
	done
	wait
	for p in "$tmp"/mails/*.patch; do
		[[ $p == *0000-cover-letter.patch ]] || [ -s "$p.recipients" ] || { echo "nobody is responsible for $(basename "$p")"; return 1; }
	done
	[ "$n" -eq 1 ] || cat "$tmp"/mails/*.recipients | awk '!seen[$0]++' >"$(ls "$tmp"/mails/*0000-cover-letter.patch).recipients"
}
ask() {	# PATCH; it takes a while, so the answer is kept for the next time
	local key opts=(--no-rolestats --no-git --no-git-fallback)
	[ -n "$ksrc" ] || opts+=(--no-fixes)
	key=$build/recipients/$(sed -n '/^Fixes: /p; /^diff --git /,/^base-commit:/p' "$1" | cat MAINTAINERS - <(echo "${opts[@]}") | cksum | tr ' ' -)
	if [ ! -s "$key" ]; then
		./scripts/get_maintainer.pl "${opts[@]}" "$1" >"$1.asked"
		mv "$1.asked" "$key"
	fi
	cp "$key" "$1.recipients"
}
quietly "$logs/mail-maintainers.log" "asking get_maintainer.pl (half a minute, the first time)" maintainers ||
	die "no mails were written"
for p in "$tmp"/mails/*.patch; do
	{ split , "${TO:-}"; grep '<' "$p.recipients" || true; } | awk '!seen[$0]++ { printf "%s%s", (n++ ? ",\n " : "To: "), $0 } END { if (n) print "" }' >"$tmp/to-cc"
	{ grep -v '<' "$p.recipients" || true; } | awk '{ printf "%s%s", (n++ ? ",\n " : "Cc: "), $0 } END { if (n) print "" }' >>"$tmp/to-cc"
	# shellcheck disable=SC2016
	edit "$p" '/^$/ && !done++ { while ((getline line <"'"$tmp/to-cc"'") > 0) print line } { print }'
	rm "$p.recipients"
done
mv "$tmp/mails" "$out"

# The threading is in the mails. git asks who else shall get them if it is told of
# nobody, so a command tells it of nobody.
mailer=(git -C "$home" send-email --no-thread --confirm=never --8bit-encoding=UTF-8
	--from="$name <$email>" --to-cmd=true)
if [ -n "$sink" ]; then
	# Nor does any configuration, which could name another way out.
	export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_CEILING_DIRECTORIES=$build
	mailer[2]=$out
	mailer+=(--smtp-server=127.0.0.1 --smtp-server-port="$sink" --smtp-encryption=none --smtp-auth=none)
fi
quietly "$logs/mail.log" "git send-email --dry-run" "${mailer[@]}" --dry-run "$out"/*.patch ||
	die "the mails are in ${out#"$top"/}, and were not sent"
# What it says about each: the recipients as they are in the end, and the subject.
awk '/^(To|Cc): / { show = 1; text = text "\n    " $0; next }
	/^[ \t]/ && show { sub(/^[ \t]+/, ""); text = text " " $0; next }
	{ show = 0 }
	/^Subject: / { print substr($0, 10) text; text = "" }' "$logs/mail.log" |
	perl -MEncode -pe 's/(=\?UTF-8\?q\?[^?]*\?=)/encode("UTF-8", decode("MIME-Header", $1))/gie'
people=$(sed -n '/^To: /,/^Subject: /{/^Subject/!p}' "$logs/mail.log" | grep -oE '[^ <>,]+@[^ <>,]+' | sort -u | wc -l)
mails=("$out"/*.patch)
say "${#mails[@]} mails to $people addresses from $name <$email>, in ${out#"$top"/}"
if [ -z "$send$sink" ]; then
	say "nothing was sent: SEND=1 does that"
	exit 0
fi

if [ "${CONFIRM:-}" != yes ]; then
	say "Signed-off-by certifies the origin of each patch, and the other tags are yours to add, too:"
	say "see Documentation/process/submitting-patches.rst of the kernel, and what it refers to"
	read -r -p "Send them now? [y/N] " answer || true
	[[ ${answer:-} =~ ^[yY] ]] || die "nothing was sent"
fi
"${mailer[@]}" --quiet "${mails[@]}" ||
	die "not all were sent; go on by hand with what is left: git send-email --no-thread --to-cmd=true ${out#"$top"/}/NNNN-*"
say "${#mails[@]} mails sent"
