#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""bisect_check.py: whether `git bisect` can stop at any patch of the stack. Fails if
  - a patch does not build: the KUnit kernel for UML, the objects of objects.py for x86-64 and
    arm64, the selftests if it touches them;
  - one of these gives a message with W=1 that the commit before it did not give;
  - a KUnit suite that is there at that patch fails on UML, or leaves a splat.
TOPICS=a,b checks the patches of these. A result is kept by content of the commit, of its parent,
and of what decides how they are built, so that an interrupted run goes on, and a second one only
says 'ok before'.
"""

import sys, time
from pathlib import Path
import objects, stack
from objects import all_with_dots, arches, bash, complaints, hash_of, jobs
from stack import build, die, git, logs, run_main, short

work, kept, config = build / "bisect", build / "bisect-results", build / "bisect.config"
SELFTESTS = "tools/testing/selftests"


class Stack:
    """The patches of the tree: the commit of patch i, the one before, and what it is called."""

    def __init__(self, at):
        self.at, self.now, self.known, self.problems = at, -2, {}, []
        lines = git("log", "--reverse", "--format=%H %T %s", f"{at.tag}..HEAD", at=at.tree)
        base = git("log", "-1", "--format=%H %T", at.tag, at=at.tree) + " "
        patches = [line.split(" ", 2) for line in [base, *lines.split("\n")] if line]
        self.commits, self.trees, self.subjects = map(list, zip(*patches))
        # Topic and number, which on another base than that of the stack goes by the subject.
        start, names = "base-" + stack.home_name(), {}
        for topic in at.topics:
            mine = git("log", "--reverse", "--format=%s", f"{start}..{topic}", at=at.tree)
            names |= {s: f"{topic}/{n}" for n, s in enumerate(mine.split("\n"), 1)}
            start = topic
        self.labels = ["base", *(names.get(subject, f"?/{i}")
                                 for i, subject in enumerate(self.subjects[1:], 1))]
        self.chosen = [i for i in range(1, len(self.commits)) if not at.selected or
                       self.labels[i].rpartition("/")[0] in at.selected] or \
            die(f"none of the patches of {' '.join(at.selected)} is in {short(at.tree)}")
        self.objects = {arch: objects.object_files(arch, at.tree, at.tag) for arch in arches}
        # What a result depends on besides the commits.
        listed = "".join(f"{f}\n" for arch in sorted(arches) for f in self.objects[arch])
        self.how = objects.how_built(__file__, listed)
        self.todo = {i for i in self.chosen if not self.mark(i).exists()}

    def mark(self, i):
        return kept / hash_of(f"{self.trees[i - 1]}\n{self.trees[i]}\n{self.how}\n")

    def changed(self, i, *paths):
        names = git("diff", "--name-only", self.commits[i - 1], self.commits[i], "--", *paths,
                    at=self.at.tree)
        return names.split("\n") if names else []

    def concerns(self, i, arch):
        """A C file that is on the list of one architecture is of no concern to the others."""
        others = {file for other in arches if other != arch for file in self.objects[other]}
        return not others.issuperset(self.changed(i, ".", ":!Documentation", ":!tools",
                                                  ":!scripts/coccinelle", ":!MAINTAINERS"))

    def problem(self, what, log, text):
        self.problems += [f"     {what}, log: {short(log)}",
                          *objects.excerpt(text, work, 5, " " * 9, 180)]

    def log(self, i, what):
        return logs / f"bisect-{self.labels[i].replace('/', '-')}-{what}"

    def builds(self, arch, log):
        """Whether it does. What is checked out is built."""
        out = Path(f"{work}.{arch}")
        if arch == "um":
            return objects.uml_build(log, work, out, config)
        if arch == "selftests":
            out = Path(f"{work}.headers")
            return all_with_dots(
                log, objects.make("x86", work, out, f"-j{jobs}", "headers"),
                ["make", "-C", f"{work}/{SELFTESTS}/drivers/dma-buf", f"OUTPUT={out}", f"-j{jobs}",
                 f"KHDR_INCLUDES=-isystem {out}/usr/include"])
        before = [] if (out / ".prepared").exists() else objects.prepare(arch, work, out)
        there = [f"{file[:-2]}.o" for file in self.objects[arch] if (work / file).exists()]
        argv = objects.make(arch, work, out, f"-j{jobs}", "W=1", *there)
        return all_with_dots(log, *before, ["make", "-k", *argv[1:]], env=objects.with_cross(arch))

    def compile(self, i, arch):
        """Messages that are not known yet are a problem."""
        log, start = self.log(i, f"{arch}.log"), time.time()
        print(f" {arch} ", end="", flush=True)
        built = self.builds(arch, log)
        said = objects.messages(work, objects.text_of(log))
        new = said - self.known[arch]
        self.known[arch] |= said
        print(f"{time.time() - start:.0f} s,", end="", flush=True)
        if not built:
            self.problem(f"does not build for {arch}", log,
                         complaints(log, "error: |undefined reference", r"\*\*\* "))
        elif new:
            self.problem(f"new messages for {arch}", log, "\n".join(sorted(new)))
        return built

    def test_kernel(self, i):
        start, out = time.time(), Path(f"{work}.um")
        passed = kept / f"kernel-{self.how}-{git('hash-object', out / 'linux')}"
        if passed.exists():
            print(" same kernel,", end="", flush=True)
            return
        total, bad, bad_log = objects.uml_test(work, out, self.log(i, "kunit"))
        if bad:
            self.problem("KUnit fails", bad_log, bad)
        else:
            passed.touch()
        print(f" {total} tests {time.time() - start:.0f} s,", end="", flush=True)

    def checkout(self, i):
        objects.checkout(work, self.commits[i])
        # A symbol may come or go with the patch, or with a jump to another one.
        if self.now + 1 != i or self.changed(i, "*Kconfig*"):
            for mark in build.glob(f"{work.name}.*/.prepared"):
                mark.unlink()
        self.now = i

    def start_at(self, i):
        """The commit before the first of several patches: what these may touch is compiled anew, as
        only what is compiled gives messages."""
        self.checkout(i - 1)
        for name in git("diff", "--name-only", self.at.tag, "HEAD", at=self.at.tree).split("\n"):
            if (work / name).is_file():
                (work / name).touch()
        print(f"{self.labels[i - 1]:<22.22} {'(where this starts)':<50}", end="", flush=True)
        end = next(j for j in range(i, len(self.commits) + 1) if j not in self.todo)
        for arch in arches:
            self.known[arch] = set()
            if any(self.concerns(j, arch) for j in range(i, end)) and \
                    not self.compile(i - 1, arch):
                print(" which does not build, see build/logs,", end="", flush=True)
        print(" done", flush=True)

    def verify(self, i):
        """What is wrong with a patch, why and where to look."""
        self.problems = []
        self.checkout(i)
        for arch in arches:
            if self.concerns(i, arch) and self.compile(i, arch) and arch == "um":
                self.test_kernel(i)
        if self.changed(i, SELFTESTS):
            self.known["selftests"] = set()
            self.compile(i, "selftests")
        return self.problems


def main():
    at = objects.begin()
    kept.mkdir(exist_ok=True)
    config.write_text(objects.uml_config())
    patches, before, failed = Stack(at), 0, []
    if patches.todo:
        bash('own_tree "$@"', work, patches.commits[0], stdout=None)
    for i in patches.chosen:
        line = f"{patches.labels[i]:<22.22} {patches.subjects[i]:<50.50}"
        if i not in patches.todo:
            print(line, "ok before", flush=True)
            before += 1
            continue
        if patches.now + 1 != i:
            patches.start_at(i)
        print(line, end="", flush=True)
        if problems := patches.verify(i):
            print(" FAILED", *problems, sep="\n", flush=True)
            failed.append(patches.labels[i])
        else:
            print(" ok", flush=True)
            patches.mark(i).touch()
    n = len(patches.chosen)
    print(f"{n - len(failed)} of {n} patches ok, {before} of them before" +
          (f"; not ok: {' '.join(failed)}" if failed else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    run_main(main)
