#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# mail-test.sh: send every topic with mail.sh and an identity that is made up, to a mail server
# that runs for this test only and keeps what it gets. Look at the mails, apply them with git am,
# and compare. The same with a topic that is made up, which has the patch of another author.
# Nothing leaves this machine: mail.sh with SINK= knows no other server than a port of 127.0.0.1.
. "$(dirname "$0")/common.sh"
. "$top/scripts/topics.sh"

for v in SEND TO TRAILERS TOPIC KSRC VERSION CHANGELOG COVER SINCE LINK PUBLIC; do
	[ -z "${!v:-}" ] || die "$v=${!v}: mail-test makes up its own, leave $v out"
done

tmp=$(mktemp -d "$build/mail-test.XXXXXX")
sink=
stop() {
	[ -z "$sink" ] || kill "$sink" 2>/dev/null || true
	rm -rf "$tmp"
}
trap stop EXIT

me='Jörg Tester <tester@example.org>'
export GIT_CONFIG_COUNT=2 GIT_CONFIG_KEY_0=user.name GIT_CONFIG_VALUE_0=${me% <*} \
	GIT_CONFIG_KEY_1=user.email GIT_CONFIG_VALUE_1=tester@example.org
export GIT_COMMITTER_NAME=${me% <*} GIT_COMMITTER_EMAIL=tester@example.org

# Debian's python3, which has Debian's aiosmtpd, whatever else is in the PATH.
python=/usr/bin/python3
[ -x $python ] || python=python3

# The server of aiosmtpd, with a port that was free a moment ago.
port=$($python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0))
print(s.getsockname()[1])')
$python -m aiosmtpd -n -l "127.0.0.1:$port" -c aiosmtpd.handlers.Mailbox "$tmp/sink" \
	2>"$logs/mail-sink.log" &
sink=$!
for _ in {1..100}; do
	if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
	kill -0 $sink 2>/dev/null || die "no mail server: $(tail -n 1 "$logs/mail-sink.log")"
	sleep 0.2
done

# look TOP TOPIC MAILDIR: what is wrong with the mails; writes the patches to MAILDIR.mbox
look() {
	local patches
	mapfile -t patches < <(topic_patches "$1" "$2")
	ME=$me SECRET=${secret:-} $python - "$3" "$base_commit" ${#patches[@]} \
		"$("$1/scripts/stack.py" needs "$2" | wc -l)" "${patches[@]}" <<'END'
import email, mailbox, os, re, sys
from email.header import decode_header, make_header
from email.utils import getaddresses
where, base, count, needs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
me, wrong, mails, secret = os.environ["ME"], [], {}, os.environ["SECRET"]
trailer = re.compile(r"[A-Z][A-Za-z-]*: .+")

def header(m, name):
    return str(make_header(decode_header(m[name])))

def addresses(lines):
    return {a for _, a in getaddresses([t.split(": ", 1)[1].split("#")[0] for t in lines
                                        if "@" in t and re.match(r"Cc:|[A-Za-z-]+-by:", t)])}

def trailers(text):     # of a message, up to its ---
    last = re.split(r"\n---\n", text)[0].rstrip().split("\n\n")[-1].split("\n")
    return [line for line in last if trailer.fullmatch(line)]

for m in mailbox.Maildir(where):
    found = re.search(r"\[PATCH(?: v(\d+))?(?: (\d+)/(\d+))?\]", header(m, "Subject"))
    mails[int(found[2] or 1)] = m
    if int(found[3] or 1) != count:
        wrong.append(f"a mail is one of {found[3]}, not of {count}")
first = 0 if count > 1 else 1
if sorted(mails) != list(range(first, count + 1)):
    sys.exit(f"mails {sorted(mails)} for {count} patches")
people, everybody = {}, set()
for n, m in mails.items():
    text = m.get_payload(decode=True).decode()
    people[n] = {a for _, a in getaddresses([m["X-RcptTo"] or ""])}
    def check(ok, what):
        if not ok:
            wrong.append(f"mail {n}: {what}")
    check(header(m, "From") == me, f"From: {header(m, 'From')}")
    lists = [a for a in people[n] if re.search(r"@(lists|vger)\.", a)]
    if secret:
        check(not lists and "security@kernel.org" in people[n], f"is no secret: {lists}")
    else:
        check(m["To"] and any(not a.startswith("stable") for a in lists), "goes to no list")
    check("series@localhost" not in m.as_string() + text, "has the placeholder for an author")
    check("***" not in text, "has a gap")
    if n == first:
        check(not m["In-Reply-To"], "is a reply")
        check(text.count(f"\nbase-commit: {base}\n") == 1, "no base-commit")
        check(len(re.findall(r"^change-id: \d{8}-\S+-[0-9a-f]{12}$", text, re.M)) == 1,
              "no change-id")
        check(len(re.findall(r"^prerequisite-change-id: \S+:v\d+$", text, re.M)) == needs,
              f"not {needs} prerequisites")
    else:
        check(m["In-Reply-To"] == mails[first]["Message-Id"], "is no reply to the first")
    if not n:
        check(not any(a.startswith("stable") for a in people[n]), "goes to stable")
        continue
    source = email.message_from_binary_file(open(sys.argv[4 + n], "rb"))
    author = header(source, "From")
    old = trailers(source.get_payload(decode=True).decode())
    new = trailers(text)
    inside = re.match(r"From: (.*)\n\n", text)
    want = None if author == "series <series@localhost>" else author
    check((inside and inside[1]) == want, f"the author is {inside and inside[1]}, not {want}")
    check(new == [*old, f"Signed-off-by: {me}"], f"trailers {new}")
    everybody |= {a for a in addresses(old) if not a.startswith("stable")}
    everybody |= {a for _, a in getaddresses([want or ""]) if a}
    for line in old:
        check(secret or "stable@vger" not in line or "stable@vger.kernel.org" in people[n],
              "not to stable")
for n in mails:
    if missing := everybody - people[n]:
        wrong.append(f"mail {n}: not to {missing}")
if len({m["Message-Id"] for m in mails.values()}) != len(mails):
    wrong.append("two mails have the same Message-Id")
with open(where + ".mbox", "wb") as f:
    for n in range(1, count + 1):
        f.write(b"From mail Thu Jan  1 00:00:00 2026\n" + mails[n].as_bytes() + b"\n")
print("\n".join(wrong))
sys.exit(bool(wrong))
END
}

# try TOP TOPIC: send, look, apply what arrived on the base and what the topic needs, compare.
try() {
	local box=$tmp/$2 t needs at
	rm -rf "$box"
	mkdir -p "$box"/{cur,new,tmp}
	TOPIC=$2 SINK=$port CONFIRM=yes PUBLIC=$([ -n "${secret:-}" ] || echo 1) "$1/scripts/mail.sh" ||
		return 1
	find "$tmp/sink/new" -type f -exec mv -t "$box/new" {} +
	look "$1" "$2" "$box" || return 1
	needs=$("$1/scripts/stack.py" needs "$2")
	work_git checkout -q -f --detach "$base_commit"
	for t in $needs; do apply "$1" "$t"; done
	at=$(work_git rev-parse HEAD)
	work_git am -q "$box.mbox" || { work_git am --abort; return 1; }
	t=$(work_git rev-parse 'HEAD^{tree}')
	work_git checkout -q -f --detach "$at"
	apply "$1" "$2"
	[ "$(work_git rev-parse 'HEAD^{tree}')" = "$t" ] || { echo "the trees differ"; return 1; }
}

passed=0
failed=0
check() {	# NAME COMMAND...
	local name=$1 log=$logs/mail-test.log
	shift
	printf '%-24s ' "$name"
	if with_dots "$log" "$@"; then
		echo "ok$(sed -n 's/^== \(.* mails to .* addresses\) .*/: \1/p' "$log" | tail -n 1)"
		passed=$((passed + 1))
	else
		echo FAILED
		sed 's/^/    /' "$log" | tail -n 10
		failed=$((failed + 1))
	fi
}

# In a copy of patches/: a topic with the patch of another author, reviewed, and one of ours.
copy=$tmp/copy
file=drivers/dma-buf/sync_file.c
change() {	# TEXT AUTHOR TRAILER...
	local text=$1 author=$2
	shift 2
	printf '\n/* %s. */\n' "$text" >>"$work/$file"
	printf '%s\n' "dma-buf: $text" '' 'Made up by mail-test.' '' "$@" |
		work_git commit -q -a -F - --author="$author"
}
make_up() {
	mkdir -p "$copy/patches"
	cp -r "$top/scripts" "$top/patches" "$copy/"
	ln -s "$build" "$copy/build"
	work_git checkout -q -f --detach "$base_commit"
	change 'By somebody else' 'Ada Löwe <ada@example.com>' 'Fixes: 0123456789ab ("made up")' \
		'Cc: stable@vger.kernel.org' 'Reviewed-by: Bob B. Bee <bob@example.net>' \
		'Signed-off-by: Ada Löwe <ada@example.com>'
	change 'By us' 'series <series@localhost>' 'Reported-by: Cy <cy@example.net>' \
		'Closes: https://example.net/1'
	work_git format-patch -q --zero-commit -o "$copy/patches/made-up" HEAD~2
	cat >"$copy/patches/made-up/cover-letter.txt" <<-END
	dma-buf: Made up

	This is made up.

	change-id: 20261126-dma-fence-made-up-0123456789ab
	END
	echo 'made-up drm-misc-next post stable -' >>"$copy/patches/series"
	git init -q "$copy"
	echo /build >"$copy/.gitignore"
	git -C "$copy" add -A
	git -C "$copy" commit -q -m v1
	sed -i 's/By us/By us again/' "$copy"/patches/made-up/0002-*
}
second_version() {
	local cover=$build/outgoing-test/made-up/v2-0000-cover-letter.patch want
	echo 'the wording' >"$tmp/changelog"
	VERSION=2 CHANGELOG=$tmp/changelog SINCE=HEAD LINK=https://example.net/2 \
		try "$copy" made-up || return 1
	for want in '^Subject: \[PATCH v2 0/2\] ' '^Changes since v1:$' '^the wording$' \
		'^v1: https://example.net/2$' '^Range-diff against v1:$' \
		'^1: .* = 1: .* By somebody else$' '^2: .* ! 2: .* By us$'; do
		grep -q "$want" "$cover" || { echo "no '$want' in the cover letter"; return 1; }
	done
}
refuses() {	# TOPIC WHY
	! TOPIC=$1 "$top/scripts/mail.sh" >"$tmp/refused" 2>&1 || return 1
	cat "$tmp/refused"
	grep "^error: .*$2" "$tmp/refused"
}
to_security() { cut -f 1 <<<"$series" | grep -x "$1" && secret=1 try "$top" "$1"; }

"$top/scripts/stack.py" tree --base
base_commit=$(git -C "$build/linux.git" rev-parse "$base_ref^{commit}")
quietly "$logs/mail-test-work.log" "preparing git am" work_tree "$tmp/work" "$top"
work=$tmp/work
work_git sparse-checkout add "/$file"
series=$("$top/scripts/stack.py" list)
while IFS=$'\t' read -r topic _ kind _; do
	if [ "$kind" = post ]; then
		check "$topic" try "$top" "$topic"
	elif [ "$kind" != "${refused:-}" ]; then
		check "$topic, which stays" refuses "$topic" 'only for this repository'
		refused=$kind
	fi
done <<<"$series"
check "no topic" refuses '' 'give one'
check "unknown topic" refuses no-such-topic 'no such topic'
make_up
check "another's patch" try "$copy" made-up
check "its second version" second_version
while read -r topic _; do
	check "security: $topic" to_security "$topic"
done < <(sed 's/#.*//; /^[[:space:]]*$/d' "$top/patches/security" 2>/dev/null || true)
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
