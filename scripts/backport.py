#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""backport.py: the topics that patches/series marks stable on an older kernel, BASE= or KSRC=.
Writes them to build/backport-BASE/ and to the work tree build/linux-BASE-stable, builds that
kernel without and with them, and runs selftests on both in QEMU: what fails before has to pass
after. Ends with a table, and writes it to results/backport.md.
  TOPICS=a,b   only these
  TESTS="..."  these selftests of the stack
  NOBOOT=1     write and build, but boot nothing
A topic is as patches/TOPIC/stable-BASE/ has it, or else as it is for mainline, without its test
patches. A file NOT-NEEDED there says in one line why that kernel does without.
"""

import functools, os, re, shutil, subprocess, sys
from pathlib import Path
import judge, objects, reports, stack
from objects import all_with_dots, bash, finish, text_of
from stack import build, by_am, die, git, logs, patches, quietly, rev, run_main, say, short, top

# What guest.sh wants to know, of tree, version, selftests, and a name. The rest begins with $5.
GUEST = """no_places=1; . "$0/common.sh"
tree=$1 guest_config=(boot.config arm64.config) programs=($3) guest_name=$4
[ ! -f "$top/configs/boot-$2.config" ] || guest_config+=("boot-$2.config")
. "$0/guest.sh"; """


class Port:
    """The work tree, what came of each topic, and what each boot said."""

    def __init__(self, at):
        self.at, self.name, self.rows, self.programs = at, at.variant, {}, []
        self.boots, self.ran = {}, {}
        self.tree, self.w1 = (build / f"linux-{self.name}-stable{end}" for end in ("", ".w1"))
        self.git = functools.partial(git, at=self.tree, env=by_am)
        self.tip = functools.partial(self.git, "rev-parse", "HEAD")
        self.kernel = git("log", "-1", "--format=%s", at.tag, at=at.base_tree)
        self.version = ".".join(re.findall(r"(?m)^(?:VERSION|PATCHLEVEL) = (\S*)",
                                           text_of(at.base_tree / "Makefile")))

    def move(self, commit):
        bash('own_tree "$@"', self.tree, commit, stdout=None)
        # from that stack.py knows whether somebody works in a tree
        stack.keep_state(self.tree, head=self.tip())

    def write_patches(self, where, start):
        """The commits since START."""
        shutil.rmtree(where, ignore_errors=True)
        self.git("format-patch", "-q", "--no-signature", "--zero-commit", "--no-numbered",
                 "--full-index", "--abbrev=12", "-o", where, f"{start}..HEAD")
        for path in where.glob("*"):
            path.write_bytes(re.sub(rb"(?m)^Date: .*", b"Date: Thu, 1 Jan 2026 00:00:00 +0000",
                                    path.read_bytes(), count=1))

    def resume(self):
        """What somebody made of a conflict becomes the form of that topic for this kernel."""
        conflict, tree = Path(f"{self.tree}.conflict"), short(self.tree)
        if conflict.is_file() and self.tree.is_dir():
            topic, start = conflict.read_text().split()
            if any(Path(self.git("rev-parse", "--path-format=absolute", "--git-path", f)).exists()
                   for f in ("CHERRY_PICK_HEAD", "sequencer", "rebase-apply")):
                die(f"the conflict in {tree} waits, see 'git status' there")
            if self.tip() != start:
                self.write_patches(patches / topic / f"stable-{self.version}", start)
                say(f"your work is patches/{topic}/stable-{self.version}/ now")
            stack.keep_state(self.tree, head=self.tip())
        conflict.unlink(missing_ok=True)
        if Path(f"{self.tree}.applied").is_file() and stack.changed(self.tree):
            die(f"{tree} has changes of its own; to drop them: "
                f"git -C {tree} checkout -f {self.at.tag} && rm {tree}.applied")

    def apply(self, topic, fixes):
        """What comes of a topic. FIXES are its commits that are not tests."""
        own, start = patches / topic / f"stable-{self.version}", self.tip()
        log, how = logs / "backport-apply.log", dict(cwd=self.tree, env=by_am)
        if (own / "NOT-NEEDED").is_file():
            return "not needed: " + (own / "NOT-NEEDED").read_text().rstrip("\n")
        if own.is_dir():
            files = sorted(own.glob("*.patch")) or die(f"there are no patches in {short(own)}")
            command, origin = ["am", "-q", "-3", "--keep-non-patch", *files], f"of {own.name}/"
        elif fixes:
            command, origin = ["cherry-pick", *fixes], "as in mainline"
        else:
            return "has only tests"
        done = all_with_dots(log, ["git", *command], **how)
        # what the kernel has already is an empty commit
        while not done and rev("CHERRY_PICK_HEAD", at=self.tree) and \
                not self.git("status", "--porcelain", "-uno"):
            done = all_with_dots(log, ["git", "cherry-pick", "--skip"], more=True, **how)
        if not done:
            Path(f"{self.tree}.conflict").write_text(f"{topic} {start}\n")
            why = self.git("diff", "--name-only", "--diff-filter=U").splitlines()
            why += re.findall(r"(?m)^(?:error|CONFLICT).*", text_of(log))[:5]
            print(f"{topic} does not apply to {self.kernel}, in:", *why, sep="\n    ")
            print(f"{short(self.tree)} has the conflict: mend it there, git add, and\n"
                  f"git {command[0]} --continue. Then the same command as now makes {short(own)}/\n"
                  f"of it, and goes on. If that kernel does without, {short(own)}/NOT-NEEDED"
                  " says why.")
            sys.exit(1)
        n = int(self.git("rev-list", "--count", f"{start}..HEAD"))
        return f"{n} patch{'es' if n > 1 else ''} {origin}" if n else "is there already"

    def apply_all(self):
        """The commits before and after the topics."""
        self.resume()
        self.move(self.at.tag)
        start, topics = self.tip(), stack.read_series()
        commits = stack.commits(topics, rev("refs/series/base"))
        for topic in self.at.selected or topics:
            if topics[topic].stable == "stable":
                self.rows[topic] = self.apply(topic, [c.id for c in commits[topic] if not c.test])
        stack.keep_state(self.tree, head=self.tip())
        rows = [f"{topic:<20} {row}" for topic, row in self.rows.items()]
        print(f"\n== {self.kernel}", *rows or [""], sep="\n")
        if self.tip() == start:
            die("there is nothing to port")
        self.write_patches(where := build / f"backport-{self.name}", start)
        say(f"{len([*where.iterdir()])} patches, not signed off: git am {short(where)}/*.patch")
        return start, self.tip()

    def compile(self, when, files):
        """With W=1. Whether that works is for new_messages() to say."""
        if not (self.w1 / ".prepared").exists() and any(
                subprocess.run(a).returncode for a in objects.prepare("arm64", self.tree, self.w1)):
            sys.exit(1)
        for file in files:
            (self.w1 / f"{file[:-1]}o").unlink(missing_ok=True)
        there = [f"{file[:-1]}o" for file in files if (self.tree / file).is_file()]
        argv = objects.make("arm64", self.tree, self.w1, f"-j{objects.jobs}", "-k", "W=1", *there)
        with open(self.w1 / when, "w") as out:
            if there:
                subprocess.run(argv, stdout=out, stderr=out)

    def new_messages(self, files):
        """Whether the objects say something that they did not say before."""
        before, after = (text_of(self.w1 / when) for when in ("before", "after"))
        other = [f"{file[:-1]}o" for file in files
                 if re.search(f"No rule to make target '.*{re.escape(file[:-1])}o'", after)]
        say(f"W=1: {len(files) - len(other)} objects")
        if other:
            say("not for arm64: " + " ".join(other))
        new = objects.messages(self.tree, after) - objects.messages(self.tree, before)
        if new:
            print("new with the topics:", *sorted(new), sep="\n", flush=True)
        return bool(new)

    def guest(self, when, script, *args):
        """Whether something of guest.sh succeeds."""
        told = self.tree, self.version, " ".join(self.programs), f"{self.name}-{when}", *args
        run = subprocess.Popen(["bash", "-c", GUEST + script, top / "scripts", *told])
        finish(run)
        return run.returncode == 0

    def boot(self, when, program):
        """Runs a selftest, and judges what it says. What ran before may not be skipped after. Up
        to three times, while the kernel says only what it may say without the topics, too."""
        log = logs / f"backport-{self.name}-{program}-{when}.log"
        known = re.findall("(?m)^[^#\n].*", text_of(top / f"configs/splats-{self.version}"))
        for again in range(3):
            ended = self.guest(when, ': >"$5"; quietly "$5.qemu" "booting for $6, $7" guest_boot '
                               '"$5" 700 "kunit.enable=0 selftest=$6 selftest_timeout=500"',
                               log, program, when)
            said = judge.selftest(log, ended, "", self.ran.get(program, ()))
            others = [s for s in said.splats if not any(re.search(k, s) for k in known)]
            if not said.splats or others:
                break
        self.ran[program] = said.ran
        self.boots[when, program] = f"{'green' if said.good else 'red'}: {said.detail}" + \
            f"; boot {again + 1}, see configs/splats-{self.version}" * bool(again)

    def report(self):
        return "\n".join([
            f"## Linux {self.version}", "",
            f"By `make backport`, {reports.made(self.kernel)}:", "",
            "| topic | patches |", "|---|---|", *(f"| {t} | {r} |" for t, r in self.rows.items()),
            "", "| selftest | before | after |", "|---|---|---|",
            *(f"| {p} | {self.boots['before', p]} | {self.boots['after', p]} |"
              for p in self.programs), "", ""])


def write(report):
    """The report in place of the one that there is for that kernel."""
    path, title = top / "results/backport.md", report.split("\n")[0]
    others = re.split(r"(?m)^(?=## )", text_of(path))[1:]
    others = [other for other in others if other.split("\n")[0] != title]
    reports.write(path, "".join(["# The topics for stable kernels\n\n", report, *others]))
    say(f"this is in {short(path)}")


def main():
    at, noboot, tests = objects.places(), *(os.environ.get(v, "") for v in ("NOBOOT", "TESTS"))
    if noboot not in ("", "0", "1"):
        die(f"NOBOOT={noboot}: use 0 or 1")
    if at.home:
        die("give an older kernel: BASE=7.2, or KSRC=")
    # First what Debian may not have.
    stack.tree("--base")
    older = {name: os.environ.pop(name, "") for name in ("BASE", "KSRC", "TOPICS")}
    stack.tree("--keep")
    os.environ.update(older, CROSS_COMPILE=objects.cross_compile("arm64"))
    port, bad = Port(at), False
    start, end = port.apply_all()
    files = port.git("diff", "--name-only", "--diff-filter=d", start, end, "--", "*.c").splitlines()
    for name in (tests or "out_fence_lifetime").split():
        if (stack.main_tree / f"tools/testing/selftests/drivers/dma-buf/{name}.c").is_file():
            port.programs.append(name)
        elif tests:
            die(f"TESTS: the stack has no selftest {name}")
    for when, commit in ("before", start), ("after", end):
        port.move(commit)
        quietly(logs / "backport-w1.log", f"W=1, {when}", port.compile, when, files) or sys.exit(1)
        if when == "after":
            bad = port.new_messages(files)
        elif noboot == "1":
            continue
        port.guest(when, "guest_kernel") or sys.exit(1)
        if noboot == "1":
            sys.exit(1 if bad else 0)
        # The programs are those of the stack, the modules those of this kernel.
        port.guest(when, 'tree=$5; quietly "$6" "building the selftests" guest_userspace',
                   stack.main_tree, logs / f"boot-userspace-{port.name}.log") or sys.exit(1)
        for name in port.programs:
            port.boot(when, name)
    print("", report := port.report(), sep="\n", end="", flush=True)
    if not at.ksrc:
        write(report)
    red = {when for (when, _), text in port.boots.items() if text.startswith("red")}
    # One that passes before says nothing, but one of them has to fail.
    if "before" not in red:
        die("no selftest fails without the topics, so they say nothing")
    if bad or "after" in red:
        die(f"see build/logs/backport-{port.name}-*.log")


if __name__ == "__main__":
    run_main(main)
