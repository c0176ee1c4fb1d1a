#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# mail.sh: one topic as one thread of mails in build/outgoing/TOPIC/, with the identity and the
# sign-off of the one who sends. patches/ stays as it is. Nothing is sent unless SEND=1 asks for
# it, and then not before a question.
#   TOPIC=NAME         which; without it the topics are listed
#   KSRC=DIR           the sender's tree, on the branch that the topic is for
#   TO="A <a@b>, c@d"  recipients besides those of get_maintainer.pl and of the trailers
#   TRAILERS="Tag: value; Tag: value"   for each patch, above the Signed-off-by
#   COVER=FILE         another cover letter: subject, empty line, text
#   VERSION=2 CHANGELOG=FILE   [PATCH v2], and what has changed
#   SINCE=REV          this repository when v1 was sent, for a range-diff (default: the tag
#                      sent/TOPIC/v1 that SEND=1 left)
#   LINK=URL           v1 in an archive
#   SEND=1             send; CONFIRM=yes answers the question
# A topic of patches/security goes to security@kernel.org and to maintainers, and to no list.
#   PUBLIC=1           that is over: it goes to the lists
# mail-test.sh sets SINK=PORT: mails go to that port of this machine and nowhere else.
#
# git format-patch and send-email do it all. b4 would want a branch of its own for each topic, and
# bookworm's 0.12 knows no prerequisites. The lines change-id and prerequisite-change-id are b4's.
. "$(dirname "$0")/common.sh"
. "$top/scripts/topics.sh"

topic=${TOPIC:-}
version=${VERSION:-1}
since=${SINCE:-}
send=${SEND:-}
public_now=${PUBLIC:-}
sink=${SINK:-}
out=$build/outgoing${sink:+-test}/$topic

[[ $version =~ ^[1-9][0-9]?$ ]] || die "VERSION=$version: give a number, up to 99"
[[ $sink =~ ^[0-9]*$ ]] || die "SINK=$sink: give a port of this machine"
[[ $public_now =~ ^1?$ ]] || die "PUBLIC=$public_now: PUBLIC=1 is for a topic of patches/security"
[[ $send =~ ^1?$ ]] || die "SEND=$send: SEND=1 sends, without it nothing is sent"
for f in CHANGELOG COVER; do
	[ -z "${!f:-}" ] || [ -s "${!f}" ] || die "$f=${!f}: no such file, or an empty one"
done
for f in CHANGELOG SINCE LINK; do
	[ "$version" != 1 ] || [ -z "${!f:-}" ] || die "$f is about a version before: say VERSION=2"
done
[ "$version" = 1 ] || [ -n "${CHANGELOG:-}" ] ||
	die "VERSION=$version: say with CHANGELOG=FILE what has changed"

security() { sed -n "s/^$1[[:space:]]\{1,\}//p" "$top/patches/security" 2>/dev/null || true; }
series=$("$top/scripts/stack.py" list)
kind=$(awk -F '\t' -v t="$topic" '$1 == t { print $3, $4 }' <<<"$series")
[ -z "$topic" ] || [ -n "$kind" ] || die "TOPIC=$topic: no such topic; 'make mail' lists them"
if [[ $kind != post\ * ]]; then
	echo "topics for the lists:"
	while IFS=$'\t' read -r t where k _ needs; do
		[ "$k" = post ] || continue
		[ "$needs" = - ] || where+=", after $needs"
		[ -z "$(security "$t")" ] || where+=", security@kernel.org first"
		printf '    %-24s %s\n' "$t" "$where"
	done <<<"$series"
	[ -n "$topic" ] || die "give one: make mail TOPIC=NAME"
	die "TOPIC=$topic: is only for this repository"
fi

secret=$([ -n "$public_now" ] || security "$topic")

split() {	# SEPARATOR TEXT: one per line
	tr "$1" '\n' <<<"$2" | sed 's/^[[:space:]]*//; s/[[:space:]]*$//; /^$/d'
}
address='[^[:space:]<>@]+@[^[:space:]<>@]+'
while read -r a; do
	[[ $a =~ ^([^\<\>@]*\ )?\<$address\>$|^$address$ ]] ||
		die "TO: '$a' is no mail address; put commas between several"
done < <(split , "${TO:-}")
trailers=(--if-exists addIfDifferent)
while read -r t; do
	[[ $t =~ ^[A-Z][A-Za-z-]*:\ *[^\ ] ]] ||
		die "TRAILERS: '$t' is no 'Tag: value'; put semicolons between several"
	trailers+=(--trailer "$t")
done < <(split ';' "${TRAILERS:-}")

# The identity, and how to send, are what git is told in the sender's own tree.
home=${ksrc:-$top}
name=$(git -C "$home" config user.name || true)
email=$(git -C "$home" config user.email || true)
[ -n "$name" ] ||
	die "the mails need a sender: git config --global user.name 'Your Name', and user.email"
[[ $email =~ ^$address$ && $email == *@*.* ]] ||
	die "user.email is '$email': nobody can answer to that"
trailers+=(--if-exists addIfDifferentNeighbor --trailer "Signed-off-by: $name <$email>")
export GIT_COMMITTER_NAME=$name GIT_COMMITTER_EMAIL=$email
if [ -n "$send$sink" ]; then
	[ -n "$ksrc$sink" ] ||
		die "SEND=1 needs KSRC=, your tree: nobody else has the commit of the default base"
	[ "${CONFIRM:-}" = yes ] || [ -t 0 ] ||
		die "SEND=1 asks before it sends, and there is no terminal; CONFIRM=yes answers"
fi
if [ -n "$(git -C "$top" status --porcelain -- patches | head -n 1)" ]; then
	[ -z "$send" ] || die "patches/ has changes: commit them, so that what is sent can be found"
	say "patches/ has changes that are not committed: they are used like the rest"
fi
[ -n "$sink" ] || [ ! -d "$build/linux" ] ||
	env -u KSRC -u BASE "$top/scripts/stack.py" export --check || exit 1
last=$((version - 1))
tag=sent/$topic/v$last
[ -n "$since" ] || ! git -C "$top" rev-parse -q --verify "$tag" >/dev/null || since=$tag
[ -z "$since" ] || git -C "$top" cat-file -e "$since:patches/$topic" 2>/dev/null ||
	die "SINCE=$since: this repository has no patches/$topic there"

"$top/scripts/stack.py" tree --base
tmp=$(mktemp -d "$build/mail.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

# The base is what others have of it, too: commits that are only the sender's are prerequisites.
head=$(git -C "$base_tree" rev-parse "$base_ref^{commit}")
public=$head
if [ -z "$ksrc" ]; then
	say "others do not have the base-commit: with KSRC= it is that of your tree"
elif ! public=$(git -C "$ksrc" merge-base "$head" '@{upstream}' 2>/dev/null); then
	public=$head
	say "the branch in KSRC has no upstream: make sure that others have $head"
fi

apply_after_needs() {	# TOP
	local t needs
	needs=$("$1/scripts/stack.py" needs "$topic")
	work_git checkout -q -f --detach "$head"
	for t in $needs; do apply "$1" "$t" "${trailers[@]}"; done
	from=$(work_git rev-parse HEAD)
	apply "$1" "$topic" "${trailers[@]}"
	to=$(work_git rev-parse HEAD)
}
rm -rf "$out"
opts=(--quiet --base="$public" --from="$name <$email>" --thread=shallow --abbrev=12 -o "$out")
[ "$version" = 1 ] || opts+=(-v "$version")
tops=("$top")
if [ -n "$since" ]; then
	tops+=("$tmp/since")
	mkdir "$tmp/since"
	git -C "$top" archive "$since" patches scripts | tar -x -C "$tmp/since"
fi
quietly "$logs/mail-work.log" "preparing git am" work_tree "$tmp/work" "${tops[@]}"
work=$tmp/work
if [ -n "$since" ]; then
	apply_after_needs "$tmp/since"
	opts+=(--range-diff="$from..$to")
fi
apply_after_needs "$top"
n=$(work_git rev-list --count "$from..$to")
[ "$n" -gt 0 ] || die "the base has all of it already"

# What is said besides the messages: in the cover letter, or below the --- of a single patch.
mapfile -t needs < <("$top/scripts/stack.py" needs "$topic")
say_more() {
	local t
	[ ${#needs[@]} -eq 0 ] || printf '\nNeeds:\n'
	for t in "${needs[@]}"; do echo " - $(title "$t")"; done
	[ -z "${CHANGELOG:-}" ] || { printf '\nChanges since v%d:\n' "$last"; cat "$CHANGELOG"; }
	[ -z "${LINK:-}" ] || printf '\nv%d: %s\n' "$last" "$LINK"
}
cover=$(cover_letter "$topic")
work_git checkout -q -B "$topic"
if [ "$n" -gt 1 ]; then
	[ -f "${COVER:-$cover}" ] || die "$n patches and no cover letter: 'make export' writes one"
	text=$(sed '/^change-id: /d' "${COVER:-$cover}")
	work_git config "branch.$topic.description" "$text"$'\n'"$(say_more)"
	opts+=(--cover-letter --cover-from-description=subject)
fi
work_git format-patch "${opts[@]}" "$from..$topic" >"$logs/mail-format.log" 2>&1 ||
	die "git format-patch failed: $(tail -n 1 "$logs/mail-format.log")"
mails=("$out"/*.patch)
if [ "$n" = 1 ]; then
	say_more >"$tmp/more"
	[ ! -s "$tmp/more" ] || echo >>"$tmp/more"
	sed -i -e "0,/^---\$/{/^---\$/r $tmp/more" -e '}' "${mails[0]}"
fi
ids="change-id: $(change_id "$topic")"
for t in "${needs[@]}"; do
	v=$(git -C "$top" tag -l "sent/$t/v*" --sort=version:refname | tail -n 1)
	ids+="\\nprerequisite-change-id: $(change_id "$t"):v${v##*/v}"
	[ -n "$v" ] || ids+=1
done
sed -i "s/^base-commit: .*/&\\n$ids/" "${mails[0]}"

patches=("${mails[@]}")
[ "$n" = 1 ] || patches=("${mails[@]:1}")
ignore=FILE_PATH_CHANGES,GIT_COMMIT_ID,UNKNOWN_COMMIT_ID
checkpatch() {
	cd "$base_tree"
	./scripts/checkpatch.pl --strict --no-tree --root="$base_tree" --terse --show-types \
		--ignore $ignore "${patches[@]}"
}
quietly "$logs/mail-checkpatch.log" "checkpatch --strict" checkpatch || die "not ready to be sent"

# Who gets them: all get the whole thread. People of MAINTAINERS in To:, its lists and everybody
# in the trailers in Cc:. Not asked is who changed a file lately. stable@ is told by its tag.
header() { awk -v h="$1: " '{ printf "%s%s", h, $0; h = ",\n " } END { if (NR) print "" }' "$2"; }
recipients() {
	local answer
	mkdir -p "$build/recipients"
	cd "$base_tree"
	# it takes a while, so the answer is kept for the next time
	answer=$(work_git diff "$from" "$to" | cat MAINTAINERS - | cksum)
	answer=$build/recipients/${answer/ /-}
	if [ ! -s "$answer" ]; then
		./scripts/get_maintainer.pl --no-rolestats --no-git --no-git-fallback --no-fixes \
			"${patches[@]}" | grep @ >"$tmp/asked"
		mv "$tmp/asked" "$answer"
	fi
	{
		[ -z "$secret" ] || echo security@kernel.org
		split , "${TO:-}"
		grep '<' "$answer"
	} | awk '!seen[$0]++' >"$tmp/to"
	{
		[ -n "$secret" ] || grep -v '<' "$answer" || true
		work_git log --format='By: %an <%ae>%n%B' "$from..$to" |
			sed -nE "s/^(By|Cc|[A-Z][A-Za-z-]*-by): (([^<]*<)?$address>?).*/\\2/p"
	} | grep -vE "stable(\+.*)?@|[< ]$email>|^$email\$${secret:+|@vger\.|@lists\.}" |
		grep -vxFf "$tmp/to" | awk '!seen[$0]++' >"$tmp/cc" || true
	cat <(header To "$tmp/to") <(header Cc "$tmp/cc") >"$tmp/headers"
}
quietly "$logs/mail-recipients.log" "asking get_maintainer.pl" recipients ||
	die "nobody is responsible for this"
for p in "${mails[@]}"; do sed -i -e "0,/^Date: /{/^Date: /r $tmp/headers" -e '}' "$p"; done

# The threading is in the mails. git asks who else shall get them if it is told of nobody, so a
# command tells it of nobody.
mailer=(git -C "$home" send-email --no-thread --confirm=never --8bit-encoding=UTF-8
	--from="$name <$email>" --to-cmd=true)
# Nor does it read the tags, of which Cc: stable is one.
[ -z "$secret" ] || mailer+=(--suppress-cc=body)
if [ -n "$sink" ]; then
	# Nor does any configuration, which could name another way out.
	export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_CEILING_DIRECTORIES=$build
	mailer[2]=$out
	mailer+=(--smtp-server=127.0.0.1 --smtp-server-port="$sink" --smtp-encryption=none
		--smtp-auth=none)
fi
quietly "$logs/mail.log" "git send-email --dry-run" "${mailer[@]}" --dry-run "${mails[@]}" ||
	die "the mails are in ${out#"$top"/}, and were not sent"
sed 's/^/    /' "$tmp/headers"
for p in "${mails[@]}"; do echo "  $(subject "$p" -k)"; done
# The recipients as they are in the end.
people=$(sed -n '/^To: /,/^Subject: /{/^Subject/!p}' "$logs/mail.log" | grep -oE "$address" |
	sort -u | wc -l)
say "${#mails[@]} mails to $people addresses from $name <$email>, in ${out#"$top"/}"
[ "$people" -le 25 ] || say "warning: more than 25 addresses; many lists hold such a mail back"
tags=$(work_git log --format=%B "$from..$to" | grep -c '^Cc: .*stable@' || true)
[ "$kind" != "post stable" ] || [ "$tags" != 0 ] ||
	say "warning: the topic is for stable, and no patch has Cc: stable@vger.kernel.org"
for t in "${needs[@]}"; do say "$t has to be sent before: $(title "$t")"; done
[ -z "$secret" ] ||
	say "to no list yet, see patches/security; PUBLIC=1 later: $secret"
if [ -z "$send$sink" ]; then
	say "nothing was sent: SEND=1 does that"
	exit 0
fi
if [ "${CONFIRM:-}" != yes ]; then
	say "Signed-off-by certifies the origin of each patch, and the other tags are yours, too:"
	say "see Documentation/process/submitting-patches.rst of the kernel, and what it refers to"
	read -r -p "Send them now? [y/N] " answer || true
	[[ ${answer:-} =~ ^[yY] ]] || die "nothing was sent"
fi
"${mailer[@]}" --quiet "${mails[@]}" || die "not all were sent; what is left goes on by hand:" \
	"git send-email --no-thread --to-cmd=true ${out#"$top"/}/NNNN-*"
say "${#mails[@]} mails sent"
[ -n "$sink" ] || git -C "$top" tag "sent/$topic/v$version"
