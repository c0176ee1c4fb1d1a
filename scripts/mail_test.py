#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""mail_test.py: send every topic with mail.py and an identity that is made up, to a mail server
that runs for this test only and keeps what it gets. Look at the mails, apply them with git am, and
compare. The same with a topic that is made up, which has the patch of another author. Nothing
leaves this machine: mail.py with SINK= knows no other server than a port of 127.0.0.1.
"""

import contextlib, email, mailbox, os, re, shutil, socket, subprocess, sys, tempfile, time
from email.header import decode_header, make_header
from email.utils import getaddresses
from pathlib import Path
import stack
from stack_lib import *
from topics import *

NAME, EMAIL = "Jörg Tester", "tester@example.org"
ME = f"{NAME} <{EMAIL}>"
OWN_VARIABLES = ("SEND", "TO", "TRAILERS", "TOPIC", "KSRC", "VERSION", "CHANGELOG", "COVER",
                 "SINCE", "LINK", "PUBLIC")
CHANGED = "drivers/dma-buf/sync_file.c"
MADE_UP = "20261126-dma-fence-made-up-0123456789ab"


# ---- the mails that arrived -------------------------------------------------------------

def header(mail, name):
    return str(make_header(decode_header(mail[name])))


def addresses(text):
    return {a for _, a in getaddresses([text or ""]) if a}


def trailers(text):
    """Of a message, up to its ---."""
    last_part = text.split("\n---\n")[0].rstrip().split("\n\n")[-1].split("\n")
    return [line for line in last_part if re.fullmatch("[A-Z][A-Za-z-]*: .+", line)]


def named(lines):
    """The addresses in trailers."""
    return {a for line in lines if "@" in line and re.match("Cc:|[A-Za-z-]+-by:", line)
            for a in addresses(line.split(": ", 1)[1].split("#")[0])}


def is_stable(address):
    return address.startswith("stable")


def received(box, count, wrong):
    """The mails by their numbers."""
    mails = {}
    for mail in mailbox.Maildir(box):
        found = re.search(r"\[PATCH(?: v(\d+))?(?: (\d+)/(\d+))?\]", header(mail, "Subject"))
        mails[int(found[2] or 1)] = mail
        if int(found[3] or 1) != count:
            wrong.append(f"a mail is one of {found[3]}, not of {count}")
    if sorted(mails) != list(range(0 if count > 1 else 1, count + 1)):
        die(f"mails {sorted(mails)} for {count} patches")
    return mails


def look(root, topic, box, base, secret):
    """What is wrong with the mails. Writes the patches to BOX.mbox."""
    files, wrong, everybody = patch_files(topic, root / "patches"), [], set()
    mails = received(box, len(files), wrong)
    first, needed = min(mails), len(needs(root, topic))
    people = {n: addresses(mail["X-RcptTo"]) for n, mail in mails.items()}

    def check(ok, n, what):
        if not ok:
            wrong.append(f"mail {n}: {what}")

    for n, mail in mails.items():
        text = mail.get_payload(decode=True).decode()
        check(header(mail, "From") == ME, n, f"From: {header(mail, 'From')}")
        lists = [a for a in people[n] if re.search(r"@(lists|vger)\.", a)]
        if secret:
            check(not lists and "security@kernel.org" in people[n], n, f"is no secret: {lists}")
        else:
            check(mail["To"] and not all(map(is_stable, lists)), n, "goes to no list")
        check("series@localhost" not in mail.as_string() + text, n,
              "has the placeholder for an author")
        check("***" not in text, n, "has a gap")
        if n == first:
            check(not mail["In-Reply-To"], n, "is a reply")
            check(text.count(f"\nbase-commit: {base}\n") == 1, n, "no base-commit")
            ids = re.findall(r"(?m)^change-id: \d{8}-\S+-[0-9a-f]{12}$", text)
            check(len(ids) == 1, n, "no change-id")
            ids = re.findall(r"(?m)^prerequisite-change-id: \S+:v\d+$", text)
            check(len(ids) == needed, n, f"not {needed} prerequisites")
        else:
            check(mail["In-Reply-To"] == mails[first]["Message-Id"], n, "is no reply to the first")
        if not n:
            check(not any(map(is_stable, people[n])), n, "goes to stable")
            continue
        source = email.message_from_bytes(files[n - 1].read_bytes())
        author = header(source, "From")
        old, new = trailers(source.get_payload(decode=True).decode()), trailers(text)
        if secret:
            old = [line.replace("stable@vger.", "stable@") for line in old]
        inside = re.match(r"(?:From: (.*)\n\n)?", text)[1]
        want = None if author == ours else author
        check(inside == want, n, f"the author is {inside}, not {want}")
        check(new == [*old, f"Signed-off-by: {ME}"], n, f"trailers {new}")
        everybody |= {a for a in named(old) if not is_stable(a)} | addresses(want)
        if not secret and any("stable@vger" in line for line in old):
            check("stable@vger.kernel.org" in people[n], n, "not to stable")
    for n in mails:
        check(everybody <= people[n], n, f"not to {everybody - people[n]}")
    if len({mail["Message-Id"] for mail in mails.values()}) != len(mails):
        wrong.append("two mails have the same Message-Id")
    Path(f"{box}.mbox").write_bytes(b"".join(
        b"From mail Thu Jan  1 00:00:00 2026\n" + mails[n].as_bytes() + b"\n"
        for n in range(1, len(files) + 1)))
    return wrong


# ---- the test ---------------------------------------------------------------------------

class Test:
    def __init__(self, tmp, work, base, port):
        self.tmp, self.work, self.base, self.port = tmp, work, base, port
        self.copy, self.passed, self.failed = tmp / "copy", 0, 0

    def case(self, name, run, *args, **how):
        print(f"{name:<24} ", end="", flush=True)
        log = logs / "mail-test.log"
        code = with_dots(log, run, *args, **how)
        said = log.read_text(errors="replace")
        if code:
            print("FAILED")
            for line in said.splitlines()[-10:]:
                print("   ", line)
            self.failed += 1
        else:
            counts = re.findall(r"(?m)^== (.* mails? to .* addresses) ", said)
            print("ok" + "".join(f": {c}" for c in counts[-1:]), flush=True)
            self.passed += 1

    def send(self, root, topic, secret=False, **variables):
        """Send it, look at it, apply what arrived on the base and what it needs, and compare."""
        box, git = self.tmp / topic, self.work.git
        shutil.rmtree(box, ignore_errors=True)
        for part in "cur", "new", "tmp":
            (box / part).mkdir(parents=True)
        if not run_mail(root, TOPIC=topic, SINK=self.port, CONFIRM="yes",
                        PUBLIC="" if secret else "1", **variables):
            sys.exit(1)
        for mail in (self.tmp / "sink/new").iterdir():
            mail.rename(box / "new" / mail.name)
        if wrong := look(root, topic, box, self.base, secret):
            sys.exit("\n".join(wrong))
        git("checkout", "-q", "-f", "--detach", self.base)
        for t in needs(root, topic):
            self.work.apply(root, t)
        start = git("rev-parse", "HEAD")
        done = git("am", "-q", f"{box}.mbox", rc=True)
        if done.returncode:
            git("am", "--abort", rc=True)
            die("git am of what arrived: " + done.stderr.decode(errors="replace").strip())
        tree = git("rev-parse", "HEAD^{tree}")
        git("checkout", "-q", "-f", "--detach", start)
        self.work.apply(root, topic)
        if git("rev-parse", "HEAD^{tree}") != tree:
            die("the trees differ")

    def refuses(self, topic, why, **variables):
        if run_mail(top, TOPIC=topic, **variables):
            die("it does not refuse that")
        said = (logs / "mail-test.log").read_text()
        if not re.search(rf"(?m)^error: .*{why}", said):
            die(f"it does not say '{why}'")

    def leaves_nothing(self, topic):
        """What checkpatch does not like is not left half done, nor what was there before."""
        self.refuses(topic, "not ready to be sent", TRAILERS="Acked-by: nobody", SINK=self.port,
                     CONFIRM="yes")
        if (build / "outgoing-test" / topic).exists():
            die("there are mails all the same")

    def commit(self, text, author, *tags):
        with open(self.work.path / CHANGED, "a") as file:
            file.write(f"\n/* {text}. */\n")
        message = "\n".join([f"dma-buf: {text}", "", "Made up by mail-test.", "", *tags, ""])
        self.work.git("commit", "-q", "-a", "-F", "-", f"--author={author}", data=message.encode())

    def make_up(self):
        """A copy of patches/ with one more topic: a patch of another author, reviewed, and ours."""
        copy, topic = self.copy, self.copy / "patches/made-up"
        for name in "scripts", "patches":
            shutil.copytree(top / name, copy / name)
        (copy / "build").symlink_to(build)
        self.work.git("checkout", "-q", "-f", "--detach", self.base)
        self.commit("By somebody else", "Ada Löwe <ada@example.com>",
                    'Fixes: 0123456789ab ("made up")', "Cc: stable@vger.kernel.org",
                    "Reviewed-by: Bob B. Bee <bob@example.net>",
                    "Signed-off-by: Ada Löwe <ada@example.com>")
        self.commit("By us", ours, "Reported-by: Cy <cy@example.net>",
                    "Closes: https://example.net/1")
        self.work.git("format-patch", "-q", "--zero-commit", "-o", topic, "HEAD~2")
        (topic / "cover-letter.txt").write_text(
            f"dma-buf: Made up\n\nThis is made up.\n\nchange-id: {MADE_UP}\n")
        with open(copy / "patches/series", "a") as series:
            series.write("made-up drm-misc-next post stable -\n")
        git("init", "-q", copy, at=copy)
        (copy / ".gitignore").write_text("/build\n")
        git("add", "-A", at=copy)
        git("commit", "-q", "-m", "v1", at=copy)
        second = next(topic.glob("0002-*"))
        second.write_text(second.read_text().replace("By us", "By us again"))

    def second_version(self):
        changelog = self.tmp / "changelog"
        changelog.write_text("the wording\n")
        self.send(self.copy, "made-up", VERSION="2", CHANGELOG=str(changelog), SINCE="HEAD",
                  LINK="https://example.net/2")
        cover = (build / "outgoing-test/made-up/v2-0000-cover-letter.patch").read_text()
        for want in (r"Subject: \[PATCH v2 0/2\] ", "Changes since v1:$", "the wording$",
                     "v1: https://example.net/2$", "Range-diff against v1:$",
                     "1: .* = 1: .* By somebody else$", "2: .* ! 2: .* By us$"):
            if not re.search(f"(?m)^{want}", cover):
                die(f"no '{want}' in the cover letter")

    def to_security(self, topic):
        if topic not in read_series():
            die(f"patches/security: no topic '{topic}'")
        self.send(top, topic, secret=True)


def run_mail(root, **variables):
    """Whether mail.py succeeds. What ends us ends it, too, and it removes what it has begun."""
    sys.stdout.flush()
    run = subprocess.Popen([root / "scripts/mail.py"], env=os.environ | variables)
    try:
        return run.wait() == 0
    except BaseException:
        run.wait()
        raise


@contextlib.contextmanager
def server(box):
    """That of Debian's aiosmtpd, which Debian's python3 has, with a port that was free a moment
    ago."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = logs / "mail-sink.log"
    with open(log, "w") as out:
        run = subprocess.Popen([sys.executable, "-m", "aiosmtpd", "-n", "-l", f"127.0.0.1:{port}",
                                "-c", "aiosmtpd.handlers.Mailbox", box], stderr=out)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            if run.poll() is not None:
                die("no mail server: " + log.read_text().strip().split("\n")[-1])
            time.sleep(0.2)
        yield str(port)
    finally:
        run.terminate()
        run.wait()


def all_cases(test, topics):
    refused = set()
    for topic in topics.values():
        if topic.kind == "post":
            test.case(topic.name, test.send, top, topic.name)
        elif topic.kind not in refused:
            test.case(f"{topic.name}, which stays", test.refuses, topic.name,
                      "only for this repository")
            refused.add(topic.kind)
    test.case("no topic", test.refuses, "", "give one")
    test.case("unknown topic", test.refuses, "no-such-topic", "no such topic")
    test.case("a tag for nobody", test.leaves_nothing, next(iter(topics)))
    test.make_up()
    test.case("another's patch", test.send, test.copy, "made-up")
    test.case("its second version", test.second_version)
    path = patches / "security"
    for line in path.read_text().splitlines() if path.is_file() else ():
        if words := line.split("#")[0].split():
            test.case(f"security: {words[0]}", test.to_security, words[0])


def main():
    topics = read_series()
    at = stack.place(topics)
    logs.mkdir(parents=True, exist_ok=True)
    lock_checkout()
    for variable in OWN_VARIABLES:
        if value := os.environ.get(variable):
            die(f"{variable}={value}: mail-test makes up its own, leave {variable} out")
    os.environ |= dict(GIT_CONFIG_COUNT="2", GIT_CONFIG_KEY_0="user.name", GIT_CONFIG_VALUE_0=NAME,
                       GIT_CONFIG_KEY_1="user.email", GIT_CONFIG_VALUE_1=EMAIL)
    with tempfile.TemporaryDirectory(dir=build, prefix="mail-test.") as tmp, \
            server(Path(tmp, "sink")) as port:
        stack.tree("--base")
        test = Test(Path(tmp), Work(Path(tmp, "work"), NAME, EMAIL), rev(f"refs/tags/{at.tag}"),
                    port)
        if not quietly(logs / "mail-test-work.log", "preparing git am", test.work.make, top):
            sys.exit(1)
        test.work.git("sparse-checkout", "add", f"/{CHANGED}")
        all_cases(test, topics)
    print(f"{test.passed} passed, {test.failed} failed")
    sys.exit(1 if test.failed else 0)


if __name__ == "__main__":
    run_main(main)
