#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""mail.py: one topic as one thread of mails in build/outgoing/TOPIC/, with the identity and the
sign-off of the one who sends. patches/ stays as it is. Nothing is sent unless SEND=1 asks for it,
and then not before a question.

  TOPIC=NAME         which; without it the topics are listed
  KSRC=DIR           the sender's tree, on the branch that the topic is for
  TO="A <a@b>, c@d"  recipients besides those of get_maintainer.pl and of the trailers
  TRAILERS="Tag: value; Tag: value"   for each patch, above the Signed-off-by
  COVER=FILE         another cover letter: subject, empty line, text
  VERSION=2 CHANGELOG=FILE   [PATCH v2], and what has changed
  SINCE=REV          this repository when v1 was sent, for a range-diff (default: the tag
                     sent/TOPIC/v1 that SEND=1 left)
  LINK=URL           v1 in an archive
  SEND=1             send; CONFIRM=yes answers the question
  PUBLIC=1           a topic of patches/security goes to the lists; without it, to
                     security@kernel.org and to maintainers, and to no list

mail_test.py sets SINK=PORT: mails go to that port of this machine and nowhere else.

git format-patch and send-email do it all. b4 would want a branch of its own for each topic, and
bookworm's 0.12 knows no prerequisites. The lines change-id and prerequisite-change-id are b4's.
"""

import hashlib, os, re, shutil, subprocess, sys, tempfile
from pathlib import Path
from types import SimpleNamespace
import stack
from stack_lib import *
from topics import *

ADDRESS = r"[^\s<>@,]+@[^\s<>@,]+"
CHECKPATCH = ("./scripts/checkpatch.pl", "--strict", "--no-tree", "--terse", "--show-types",
              "--ignore", "FILE_PATH_CHANGES,GIT_COMMIT_ID,UNKNOWN_COMMIT_ID")
MAINTAINERS = ("./scripts/get_maintainer.pl", "--no-rolestats", "--no-git", "--no-git-fallback",
               "--no-fixes")
MOST_ADDRESSES = 25


# ---- what is asked for ------------------------------------------------------------------

def content(variable):
    """What is in the file that it names, or nothing if it names none."""
    name, text = os.environ.get(variable, ""), ""
    try:
        text = Path(name).read_text(errors="surrogateescape") if name else ""
    except OSError:
        pass
    if name and not text:
        die(f"{variable}={name}: no such file, or an empty one")
    return text.replace("\0", "")


def several(variable, separator, pattern, what):
    """The parts of a variable, checked."""
    text = os.environ.get(variable, "").replace(separator, "\n")
    parts = [part.strip() for part in text.split("\n") if part.strip()]
    for part in parts:
        if not re.match(pattern, part):
            die(f"{variable}: '{part}' is no {what}")
    return parts


def asked():
    """The variables, checked."""
    ask = SimpleNamespace(**{v.lower(): os.environ.get(v, "") for v in (
        "TOPIC", "VERSION", "SINCE", "LINK", "PUBLIC", "SEND", "SINK", "CONFIRM")})
    ask.version = ask.version or "1"
    for variable, pattern, wrong in (
            ("VERSION", "[1-9][0-9]?", "give a number, up to 99"),
            ("SINK", "[0-9]*", "give a port of this machine"),
            ("PUBLIC", "1?", "PUBLIC=1 is for a topic of patches/security"),
            ("SEND", "1?", "SEND=1 sends, without it nothing is sent")):
        value = getattr(ask, variable.lower())
        if not re.fullmatch(pattern, value):
            die(f"{variable}={value}: {wrong}")
    ask.version = int(ask.version)
    ask.changelog, ask.cover = content("CHANGELOG"), content("COVER")
    for variable in "CHANGELOG", "SINCE", "LINK":
        if ask.version == 1 and getattr(ask, variable.lower()):
            die(f"{variable} is about a version before: say VERSION=2")
    if ask.version > 1 and not ask.changelog:
        die(f"VERSION={ask.version}: say with CHANGELOG=FILE what has changed")
    return ask


def security(topic):
    """Why it is not for a list yet."""
    path = patches / "security"
    text = path.read_text() if path.is_file() else ""
    return "\n".join(re.findall(rf"(?m)^{topic}[ \t]+(.*)", text))


def choose(topics, name):
    if name and name not in topics:
        die(f"TOPIC={name}: no such topic; 'make mail' lists them")
    if name and topics[name].kind == "post":
        return topics[name]
    print("topics for the lists:")
    for n, t in enumerate(topics.values()):
        if t.kind != "post":
            continue
        needs = "all before" if len(t.needs) == n else ",".join(t.needs)
        after = f", after {needs}" if t.needs else ""
        first = ", security@kernel.org first" if security(t.name) else ""
        print(f"    {t.name:<24} {t.tree}{after}{first}")
    die(f"TOPIC={name}: is only for this repository" if name else
        "give one: make mail TOPIC=NAME")


def identity(home):
    """That, and how to send, are what git is told in the sender's own tree."""
    name, email = (git("config", f"user.{what}", at=home, env=os.environ,
                       rc=True).stdout.decode().strip() for what in ("name", "email"))
    if not name:
        die("the mails need a sender: git config --global user.name 'Your Name', and user.email")
    if not re.fullmatch(ADDRESS, email) or "." not in email.split("@")[1]:
        die(f"user.email is '{email}': nobody can answer to that")
    return name, email


def own_git(*args):
    """What git says in this repository with its owner's configuration, or nothing if it fails."""
    run = git(*args, at=top, rc=True, env=os.environ)
    return run.stdout.decode(errors="replace").strip() if run.returncode == 0 else ""


def check_repository(ask):
    """Whether what is sent can be found again. Returns the commit that v1 was sent from."""
    if ask.send or ask.sink:
        if not ask.at.ksrc and not ask.sink:
            die("SEND=1 needs KSRC=, your tree: nobody else has the commit of the default base")
        if ask.confirm != "yes" and not os.isatty(0):
            die("SEND=1 asks before it sends, and there is no terminal; CONFIRM=yes answers")
    if own_git("status", "--porcelain", "--", "patches"):
        if ask.send:
            die("patches/ has changes: commit them, so that what is sent can be found")
        say("patches/ has changes that are not committed: they are used like the rest")
    if not ask.sink and main_tree.is_dir():
        env = {k: v for k, v in os.environ.items() if k not in ("KSRC", "BASE")}
        if not quietly(logs / "mail-check.log", "comparing build/linux with patches/", run_command,
                       top / "scripts/stack.py", "export", "--check", env=env):
            sys.exit(1)
    tag = f"sent/{ask.topic}/v{ask.version - 1}"
    since = ask.since or (own_git("rev-parse", "-q", "--verify", tag) and tag)
    if since and git("cat-file", "-e", f"{since}:patches/{ask.topic}", at=top, rc=True).returncode:
        die(f"SINCE={since}: this repository has no patches/{ask.topic} there")
    return since


def public_base(ksrc, head):
    """The base that others have, too: commits that are only the sender's are prerequisites."""
    if not ksrc:
        say("others do not have the base-commit: with KSRC= it is that of your tree")
        return head
    run = git("merge-base", head, "@{upstream}", at=ksrc, rc=True)
    if run.returncode:
        say(f"the branch in KSRC has no upstream: make sure that others have {head}")
    return head if run.returncode else run.stdout.decode().strip()


# ---- the mails --------------------------------------------------------------------------

def said_besides(ask, topic):
    """What is not in the messages: in the cover letter, or below the --- of a single patch."""
    before = ask.version - 1
    return ("\nNeeds:\n" if topic.needs else "") + \
        "".join(f" - {title(t)}\n" for t in topic.needs) + \
        (f"\nChanges since v{before}:\n{ask.changelog}" if ask.changelog else "") + \
        (f"\nv{before}: {ask.link}\n" if ask.link else "")


def identifiers(topic):
    lines = [f"change-id: {change_id(topic.name)}"]
    for t in topic.needs:
        tags = own_git("tag", "-l", f"sent/{t}/v*", "--sort=version:refname")
        lines.append(f"prerequisite-change-id: {change_id(t)}:v{tags.rpartition('/v')[2] or 1}")
    return "".join(line + "\n" for line in lines)


def insert(path, line, text):
    """TEXT after the first such LINE of a mail."""
    add = text.encode(errors="surrogateescape")
    path.write_bytes(re.sub(rb"(?m)^%b\n" % line, lambda m: m[0] + add, path.read_bytes(), count=1))


def applied(ask, topic, work, root):
    """The topic on the base and what it needs, signed: a range of commits."""
    work.git("checkout", "-q", "-f", "--detach", ask.head)
    for t in needs(root, topic.name):
        work.apply(root, t, *ask.trailers)
    start = work.git("rev-parse", "HEAD")
    work.apply(root, topic.name, *ask.trailers)
    return f"{start}..{work.git('rev-parse', 'HEAD')}"


def format_mails(ask, topic, work, commits, old, where):
    count = int(work.git("rev-list", "--count", commits))
    if not count:
        die("the base has all of it already")
    work.git("checkout", "-q", "-B", topic.name)
    options = ["--quiet", f"--base={ask.public_base}", f"--from={ask.sender}", "--abbrev=12",
               "--thread=shallow", "-o", where]
    options += ["-v", ask.version] if ask.version > 1 else []
    options += [f"--range-diff={old}"] if old else []
    more = said_besides(ask, topic)
    if count > 1:
        cover = cover_letter(topic.name)
        if not ask.cover and not cover.is_file():
            die(f"{count} patches and no cover letter: 'make export' writes one")
        text = re.sub(r"(?m)^change-id: .*\n?", "", ask.cover or cover.read_text()).rstrip("\n")
        text += "\n" + more.rstrip("\n")
        work.git("config", f"branch.{topic.name}.description", text)
        options += ["--cover-letter", "--cover-from-description=subject"]
    run = work.git("format-patch", *options, f"{commits.split('.')[0]}..{topic.name}", rc=True)
    if run.returncode:
        said = (run.stdout + run.stderr).decode(errors="replace").strip()
        die("git format-patch failed: " + said.split("\n")[-1])
    mails = sorted(where.glob("*.patch"))
    if count == 1 and more:
        insert(mails[0], b"---", more + "\n")
    insert(mails[0], b"base-commit: .*", identifiers(topic))
    return mails


def ask_maintainers(tree, mails, answer):
    """It takes a while, so the answer is kept for the next time."""
    if answer.is_file():
        return
    run = subprocess.run([*MAINTAINERS, *mails], cwd=tree, stdout=subprocess.PIPE)
    lines = [line for line in run.stdout.splitlines(keepends=True) if b"@" in line]
    if run.returncode or not lines:
        sys.exit(1)
    new = Path(f"{answer}.new")
    new.write_bytes(b"".join(lines))
    new.rename(answer)


def recipients(ask, work, commits, mails):
    """The headers: all get the whole thread. People of MAINTAINERS in To:, its lists and everybody
    in the trailers in Cc:. Not asked is who changed a file lately. stable@ is told by its tag."""
    tree = ask.at.base_tree
    key = (tree / "MAINTAINERS").read_bytes() + work.git("diff", commits, raw=True)
    answer = build / "recipients" / hashlib.sha1(key).hexdigest()
    answer.parent.mkdir(exist_ok=True)
    if not quietly(logs / "mail-recipients.log", "asking get_maintainer.pl", ask_maintainers, tree,
                   mails, answer):
        die("nobody is responsible for this")
    named = answer.read_text().splitlines()
    to = list(dict.fromkeys([*ask.to, *(a for a in named if "<" in a)]))
    text = work.git("log", "--format=By: %an <%ae>%n%B", commits)
    cc = [] if ask.secret else [a for a in named if "<" not in a]
    cc += re.findall(rf"(?m)^(?:By|Cc|[A-Z][A-Za-z-]*-by): ((?:[^<\n]*<)?{ADDRESS}>?)", text)
    own = re.escape(ask.email)
    not_cc = rf"stable(\+.*)?@|[< ]{own}>|^{own}$" + (r"|@vger\.|@lists\." if ask.secret else "")
    cc = [a for a in dict.fromkeys(cc) if not re.search(not_cc, a) and a not in to]
    return "".join(f"{name}: " + ",\n ".join(who) + "\n"
                   for name, who in (("To", to), ("Cc", cc)) if who)


def make_mails(ask, topic):
    """Writes all of them, or none. Returns the recipients, and how many are for stable."""
    shutil.rmtree(ask.out, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=build, prefix="mail.") as tmp:
        work, new = Work(Path(tmp, "work"), ask.name, ask.email), Path(tmp, topic.name)
        old, before = "", Path(tmp, "since")
        if ask.since:
            before.mkdir()
            tar = git("archive", ask.since, "patches", "scripts", at=top, raw=True)
            subprocess.run(["tar", "-x", "-C", before], input=tar, check=True)
        if not quietly(logs / "mail-work.log", "preparing git am", work.make, before, top):
            sys.exit(1)
        if ask.since:
            old = applied(ask, topic, work, before)
        commits = applied(ask, topic, work, top)
        mails = format_mails(ask, topic, work, commits, old, new)
        signed = mails if len(mails) == 1 else mails[1:]
        if not quietly(logs / "mail-checkpatch.log", "checkpatch --strict", run_command,
                       *CHECKPATCH, f"--root={ask.at.base_tree}", *signed, cwd=ask.at.base_tree):
            die("not ready to be sent")
        headers = recipients(ask, work, commits, signed)
        for mail in mails:
            insert(mail, b"Date: .*", headers)
            if ask.secret:      # see stable-kernel-rules.rst: nobody gets those
                mail.write_bytes(re.sub(rb"(?m)^(Cc: .*stable@)vger\.(kernel\.org)", rb"\1\2",
                                        mail.read_bytes()))
        ask.out.parent.mkdir(exist_ok=True)
        new.rename(ask.out)
        tags = work.git("log", "--format=%B", commits)
    return headers, len(re.findall(r"(?m)^Cc: .*stable@", tags))


# ---- sending ----------------------------------------------------------------------------

def mailer(ask):
    """How to call git send-email, and its environment. The threading is in the mails. git asks who
    else shall get them if it is told of nobody, so a command tells it of nobody."""
    argv = ["git", "-C", ask.out if ask.sink else ask.home, "send-email", "--no-thread",
            "--confirm=never", "--8bit-encoding=UTF-8", f"--from={ask.sender}", "--to-cmd=true"]
    env = os.environ | dict(GIT_COMMITTER_NAME=ask.name, GIT_COMMITTER_EMAIL=ask.email)
    if ask.secret:
        # Nor does it read the tags, of which Cc: stable is one.
        argv.append("--suppress-cc=body")
    if ask.sink:
        # Nor does any configuration, which could name another way out.
        env |= dict(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1",
                    GIT_CEILING_DIRECTORIES=str(build))
        argv += ["--smtp-server=127.0.0.1", f"--smtp-server-port={ask.sink}",
                 "--smtp-encryption=none", "--smtp-auth=none"]
    return argv, env


def addresses(log):
    """The recipients as they are in the end."""
    text = log.read_text(errors="replace")
    parts = re.findall(r"(?ms)^To: .*?(?=^Subject: |\Z)", text)
    return {a for part in parts for a in re.findall(ADDRESS, part)}


def confirm():
    say("Signed-off-by certifies the origin of each patch, and the other tags are yours, too:")
    say("see Documentation/process/submitting-patches.rst of the kernel, and what it refers to")
    print("Send them now? [y/N] ", end="", file=sys.stderr, flush=True)
    if not re.match("[yY]", sys.stdin.readline().strip()):
        die("nothing was sent")


def main():
    topics = read_series()
    at = stack.place(topics)
    logs.mkdir(parents=True, exist_ok=True)
    lock_checkout()
    ask = asked()
    topic = choose(topics, ask.topic)
    ask.at, ask.secret = at, "" if ask.public else security(topic.name)
    ask.to = ["security@kernel.org"] if ask.secret else []
    ask.to += several("TO", ",", rf"(([^<>@]* )?<{ADDRESS}>|{ADDRESS})\Z",
                      "mail address; put commas between several")
    trailers = several("TRAILERS", ";", "[A-Z][A-Za-z-]*: *[^ ]",
                       "'Tag: value'; put semicolons between several")
    ask.home = Path(at.ksrc or top)
    ask.name, ask.email = identity(ask.home)
    ask.sender = f"{ask.name} <{ask.email}>"
    ask.trailers = ["--if-exists=addIfDifferent", *(f"--trailer={t}" for t in trailers),
                    "--if-exists=addIfDifferentNeighbor",
                    f"--trailer=Signed-off-by: {ask.sender}"]
    ask.since = check_repository(ask)
    stack.tree("--base")
    ask.head = rev(f"refs/tags/{at.tag}")
    ask.public_base = public_base(at.ksrc, ask.head)
    ask.out = build / ("outgoing-test" if ask.sink else "outgoing") / topic.name
    headers, stable = make_mails(ask, topic)
    mails = sorted(ask.out.glob("*.patch"))
    argv, env = mailer(ask)
    if not quietly(logs / "mail.log", "git send-email --dry-run", run_command, *argv, "--dry-run",
                   *mails, env=env):
        die(f"the mails are in {short(ask.out)}, and were not sent")
    for line in headers.splitlines():
        print("   ", line)
    for mail in mails:
        print(" ", subject(mail, "-k"))
    everybody = addresses(logs / "mail.log")
    if others := sorted(everybody - set(re.findall(ADDRESS, headers))):
        print("    and:", ", ".join(others))
    say(f"{len(mails)} mail{'s' * (len(mails) != 1)} to {len(everybody)} addresses from "
        f"{ask.sender}, in {short(ask.out)}")
    if len(everybody) > MOST_ADDRESSES:
        say(f"warning: more than {MOST_ADDRESSES} addresses; many lists hold such a mail back")
    if topic.stable == "stable" and not stable:
        say("warning: the topic is for stable, and no patch has Cc: stable@vger.kernel.org")
    for t in topic.needs:
        say(f"{t} has to be sent before: {title(t)}")
    if ask.secret:
        say(f"to no list yet, see patches/security; PUBLIC=1 later: {ask.secret}")
    if not ask.send and not ask.sink:
        return say("nothing was sent: SEND=1 does that")
    if ask.confirm != "yes":
        confirm()
    if subprocess.run([*argv, "--quiet", *mails], env=env).returncode:
        die("not all were sent; what is left goes on by hand: "
            f"git send-email --no-thread --to-cmd=true {short(ask.out)}/NNNN-*")
    say(f"{len(mails)} mails sent")
    if not ask.sink:
        git("tag", f"sent/{topic.name}/v{ask.version}", at=top, env=os.environ)


if __name__ == "__main__":
    run_main(main)
