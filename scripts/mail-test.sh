#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# mail-test.sh: send the series, and the fixes alone, with mail.sh and an identity that
# is made up, to a mail server that runs for this test only and keeps what it gets. Look
# at the mails, apply them with git am, and compare. Nothing leaves this machine:
# mail.sh with SINK= knows no other server than a port of 127.0.0.1.
. "$(dirname "$0")/common.sh"

for v in SEND TO TRAILERS SUBSET KSRC VERSION CHANGELOG COVER; do
	[ -z "${!v:-}" ] || die "$v=${!v}: mail-test makes up its own, leave $v out"
done
[ -d "$tree" ] || die "there is no work tree yet: run 'make tree' first"

tmp=$(mktemp -d "$build/mail-test.XXXXXX")
sink=
stop() {
	[ -z "$sink" ] || kill "$sink" 2>/dev/null || true
	rm -rf "$tmp"
}
trap stop EXIT

export GIT_CONFIG_COUNT=2 GIT_CONFIG_KEY_0=user.name GIT_CONFIG_VALUE_0='Jörg Tester' \
	GIT_CONFIG_KEY_1=user.email GIT_CONFIG_VALUE_1=tester@example.org

# Debian's python3, which has Debian's aiosmtpd, whatever else is in the PATH.
python=/usr/bin/python3
[ -x $python ] || python=python3

# The server of aiosmtpd, with a port that was free a moment ago.
port=$($python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
start_sink() {	# MAILDIR
	[ -z "$sink" ] || { kill "$sink"; wait "$sink" || true; }
	$python -m aiosmtpd -n -l "127.0.0.1:$port" -c aiosmtpd.handlers.Mailbox "$1" 2>"$logs/mail-sink.log" &
	sink=$!
	for _ in {1..50}; do
		if (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then return; fi
		kill -0 $sink 2>/dev/null || break
		sleep 0.2
	done
	die "the mail server does not start: $(tail -n 1 "$logs/mail-sink.log")"
}

# look MAILDIR COUNT: what is wrong with the mails; writes the patches to MAILDIR.mbox
look() {
	$python - "$1" "$2" "$(git -C "$base_tree" rev-parse base)" <<'END'
import email.policy, mailbox, re, sys
from email.header import decode_header, make_header
where, count, base = sys.argv[1], int(sys.argv[2]), sys.argv[3]
me = "Jörg Tester <tester@example.org>"
wrong = []
patches = {}
for m in mailbox.Maildir(where):
    number, total = map(int, re.search(r"\[PATCH (\d+)/(\d+)\]", str(m["Subject"])).groups())
    patches[number] = m
    text = m.get_payload(decode=True).decode()
    people = m["X-RcptTo"] or ""
    def check(ok, what):
        if not ok:
            wrong.append(f"mail {number}: {what}")
    check(total == count, f"is one of {total}, not of {count}")
    check(str(make_header(decode_header(m["From"]))) == me, f"From: {m['From']}")
    check(m["To"] and people, "no recipients")
    check("series@localhost" not in m.as_string(), "has the placeholder for an author")
    if number == 0:
        check(f"\nbase-commit: {base}\n" in text, "no base-commit")
        check(not m["In-Reply-To"], "the cover letter is a reply")
        check("***" not in text, "the cover letter has a gap")
    else:
        signed = re.findall(r"^Signed-off-by: .*", text.split("\n---\n")[0], re.M)
        check(signed == [f"Signed-off-by: {me}"], f"signed off: {signed}")
    if number == 0 or "\n+++ b/drivers/gpu/drm/" in text:
        check("dri-devel@lists.freedesktop.org" in people, "not to dri-devel")
if sorted(patches) != list(range(count + 1)):
    wrong.append(f"{len(patches)} mails for a cover letter and {count} patches")
else:
    ids = [patches[n]["Message-Id"] for n in range(count + 1)]
    if len(set(ids)) != count + 1:
        wrong.append("two mails have the same Message-Id")
    with open(where + ".mbox", "wb") as f:
        for n in range(1, count + 1):
            if patches[n]["In-Reply-To"] != ids[0] or ids[0] not in str(patches[n]["References"]):
                wrong.append(f"mail {n} is no reply to the cover letter")
            f.write(b"From mail Thu Jan  1 00:00:00 2026\n" + patches[n].as_bytes() + b"\n")
print("\n".join(wrong))
sys.exit(bool(wrong))
END
}

send() { SUBSET=$1 SINK=$port CONFIRM=yes "$top/scripts/mail.sh"; }

# Only the files that the series touches are checked out: git am needs no others.
prepare() {
	git clone -q --shared --no-checkout "$base_tree" "$tmp/git"
	git -C "$base_tree" diff --name-only base "$(git -C "$tree" rev-parse HEAD)" | sed 's|^|/|' |
		git -C "$tmp/git" sparse-checkout set --no-cone --stdin
	git -C "$tmp/git" checkout -q --detach base
}
apply() {
	git -C "$tmp/git" checkout -q -f --detach base
	git -C "$tmp/git" am -q "$1.mbox"
}

passed=0
failed=0
check() {	# NAME COMMAND...
	local name=$1
	shift
	if "$@" >"$logs/mail-test.log" 2>&1 </dev/null; then
		echo "ok       $name"
		passed=$((passed + 1))
	else
		echo "FAILED   $name"
		sed 's/^/    /' "$logs/mail-test.log" | tail -n 10
		failed=$((failed + 1))
	fi
}
same() { [ "$(git -C "$tmp/git" rev-parse 'HEAD^{tree}')" = "$1" ] || { echo "the trees differ"; return 1; }; }

quietly "$logs/mail-test-prepare.log" "checking out what git am needs" prepare
for part in fixes all; do
	start_sink "$tmp/$part"
	count=$(list_patches | wc -l)
	[ $part = all ] || count=$(grep -c "^$part	" "$top/patches/subsets")
	quietly "$logs/mail-test-$part.log" "sending $part: a cover letter and $count patches" send $part
	check "$part: sender, sign-off, threads, recipients, base" look "$tmp/$part" "$count"
	check "$part: git am applies what arrived" apply "$tmp/$part"
	# The fixes are the first of the series.
	at=HEAD
	[ $part = all ] || at=HEAD~$(($(list_patches | wc -l) - count))
	check "$part: the tree is the same" same "$(git -C "$tree" rev-parse "$at^{tree}")"
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
