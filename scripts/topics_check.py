#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""topics_check.py [--refresh]: each topic as it will be posted: on the base, after what it needs,
without any other test. Fails if
  - it does not apply there with git cherry-pick;
  - get_maintainer.pl finds nobody or no list for a patch, or more than 25 addresses in all;
  - the C files that it touches, and users of the headers that it touches, do not build for UML,
    x86-64 or arm64, or give a message with W=1 and sparse that they did not give before;
  - it touches what UML builds, and a KUnit suite that this tree has fails, or leaves a splat.
TOPICS=a,b checks these. What was ok is in results/topics-check.md with a digest of what it depends
on: the patches, the base, the compilers, this script. It is not checked again while that is the
same, so that an interrupted run goes on. Ends with the table. On another base, or with KSRC=, that
is in build/. With --refresh nothing is checked, and the table has the topics that there are.
"""

import re, shutil, subprocess, sys
from pathlib import Path
import objects, reports, stack
from objects import all_with_dots, arches, bash, checkout, complaints, hash_of, jobs, text_of
from stack import build, git, logs, run_main, short, top

MOST = 25
UML = re.compile(r"drivers/(dma-buf|gpu/drm/[^/]*\.[ch]|gpu/drm/tests|gpu/drm/scheduler)"
                 r"|include/(linux/dma-|drm/|trace/)")
HEAD = ("| topic | patches | recipients | objects | KUnit tests | | digest |\n"
        "|---|---:|---:|---:|---:|---|---|")
work, kept = build / "topics", build / "topics-results"
config = build / "topics.config"
problems = []


def problem(what, text):
    problems.extend([f"    {what}", *objects.excerpt(text, work, 8, " " * 8, 160)])


def progress(text):
    print(text, end="", flush=True)


def kconfig():
    """What an object directory was configured for."""
    tree = git("ls-tree", "-r", "HEAD", at=work).split("\n")
    return hash_of("".join(f"{line}\n" for line in tree if re.search("Kconfig|/configs/", line)))


def recipients(base_tree, first, last):
    """Addresses, and what is wrong with them."""
    mails, found, wrong = kept / "mails", set(), []
    shutil.rmtree(mails, ignore_errors=True)
    git("format-patch", "-q", "-o", mails, f"{first}..{last}", at=work)
    for patch in sorted(mails.glob("*.patch")):
        run = subprocess.run(["./scripts/get_maintainer.pl", "--no-git", "--no-git-fallback",
                              "--no-fixes", patch], cwd=base_tree, capture_output=True, text=True,
                             errors="replace")
        lines = run.stdout.splitlines()
        wrong += run.stderr.splitlines()
        if run.returncode:
            return set(), [*wrong, f"get_maintainer.pl fails: {patch.name}"]
        if not re.search(r"\((maintainer|supporter|odd fixer)[:)]", run.stdout):
            wrong.append(f"no maintainer: {patch.name}")
        if all(line.startswith("linux-kernel@") or not re.search(r" \(.*list[:)]", line)
               for line in lines):
            wrong.append(f"no list: {patch.name}")
        found |= {line.split("(")[0] for line in lines}
    return found, wrong


def wanted(arch, touched):
    """The C files that the topic touches and that ARCH is to build, and some that use a header.
    Those of amd/display get their flags from another directory's Makefile. A selftest of i915 is
    not compiled, but included."""
    files, grep = [], lambda *args: git("grep", *args, at=work, rc=True).stdout.decode().split()
    for name in touched:
        file = Path(name)
        if re.match(r"drivers/.*\.c$", name):
            files += grep("-lF", f'#include "selftests/{file.name}"', "--",
                          name.rsplit("/selftests/", 1)[0] + "/*.c") or [name]
        elif file.suffix == ".h":
            users = grep("-lE", f'#include [<"](.*/)?{file.name}[>"]', "--", "drivers/dma-buf",
                         "drivers/gpu/drm/*.c", ":!drivers/gpu/drm/amd/display", file.parent)
            files += [user for user in users if re.match(r"drivers/.*\.c$", user)][:12]
    return objects.objects_of(arch, files)


def build_objects(log, arch, files):
    out, env = Path(f"{work}.{arch}"), objects.with_cross(arch)
    want, prepared = kconfig() + "\n", out / ".prepared"
    if fresh := text_of(prepared) != want:
        if not all_with_dots(log, *objects.prepare(arch, work, out), env=env):
            return False
        prepared.write_text(want)
    there = [f"{file[:-2]}.o" for file in files if (work / file).exists()]
    for name in there:
        (out / name).unlink(missing_ok=True)
    argv = objects.make(arch, work, out, f"-j{jobs}", "W=1", "C=1",
                        f"CHECK={build}/tools/bin/sparse", *there)
    return all_with_dots(log, *([["make", "-k", *argv[1:]]] if there else []), more=fresh, env=env)


def broken(log):
    """The objects that make says it could not make; or, if it says of none, that it failed."""
    return set(re.findall(r"(?m)^make.*\*\*\* \[.*: (drivers/.*\.o)\] Error", text_of(log))) or \
        {f"nothing, {log.suffix[1:]}"}


def compare_objects(name, arch, files, before, after, touched):
    """How many objects there are. Some files want a configuration that the architecture does not
    have: what did not build before the topic need not after it, and is not counted, unless the
    topic touches it."""
    progress(f" {arch}")
    failed, said = [], []
    for when, commit in ("before", before), ("after", after):
        log = logs / f"topics-{name}-{arch}.{when}"
        checkout(work, commit)
        failed.append(set() if build_objects(log, arch, files) else broken(log))
        said.append(objects.messages(work, "\n".join(objects.join_messages(text_of(log)))))
    own = {f"{file[:-2]}.o" for file in touched if file.endswith(".c")}
    if new := (failed[1] - failed[0]) | (failed[1] & own):
        problem(f"does not build for {arch}, log: {short(log)}",
                "\n".join([*sorted(new), complaints(log, r"error: |\*\*\* ")]))
    if new := said[1] - said[0]:
        problem(f"new messages for {arch}, log: {short(log)}", "\n".join(sorted(new)))
    return len(files) - len(failed[0])


def run_suites(name, how):
    """The number of tests that passed, or that some failed."""
    log, out = logs / f"topics-{name}-kunit", Path(f"{work}.kunit")
    progress(" kunit")
    now = kconfig() + "\n"
    if text_of(out / ".config-of") != now:
        (out / ".prepared").unlink(missing_ok=True)
    built = Path(f"{log}-build.log")
    if not objects.uml_build(built, work, out, config):
        problem(f"the KUnit kernel does not build, log: {short(built)}",
                complaints(built, "error: "))
        return "failed"
    (out / ".config-of").write_text(now)
    kernel = kept / f"kernel-{how}-{git('hash-object', out / 'linux')}"
    if not kernel.exists():
        total, bad, bad_log = objects.uml_test(work, out, log)
        if bad:
            problem(f"KUnit fails, log: {short(bad_log)}", bad)
            return "failed"
        kernel.write_text(f"{total}\n")
    return kernel.read_text().strip()


def verdict(name, base_tree, how):
    """Its row, but for the last columns."""
    made = subprocess.run([top / "scripts/stack.py", "alone", name], capture_output=True, text=True)
    if made.returncode:
        problem("does not apply", made.stderr.rstrip("\n"))
        return f"| {name} | - | - | - | - |"
    before, after = made.stdout.split()
    bash('own_tree "$@"', work, after, stdout=None)
    touched = git("diff", "--name-only", before, after, at=work).split("\n")
    patches = git("rev-list", "--count", f"{before}..{after}", at=work)
    to, wrong = recipients(base_tree, before, after)
    if wrong:
        problem("recipients", "\n".join(wrong))
    if len(to) > MOST:
        problem(f"{len(to)} recipients, more than {MOST}", "\n".join(sorted(to)))
    count, tests = 0, "-"
    for arch in arches:
        if files := wanted(arch, touched):
            count += compare_objects(name, arch, files, before, after, touched)
    checkout(work, after)
    if any(UML.match(file) for file in touched):
        tests = run_suites(name, how)
    return f"| {name} | {patches} | {len(to)} | {count} | {tests} |"


def find_row(report, name, end):
    """What the report says of a topic, if that is still so."""
    return next((line for line in text_of(report).split("\n")
                 if line.startswith(f"| {name} | ") and line.endswith(f"{end} |")), "")


def write_report(report, when, lines):
    rows = [line or f"| {name} | - | - | - | - | {reports.NOT} in this form | - |"
            for name, line in lines.items()]
    cells = [row[2:-2].split(" | ") for row in rows]
    reports.write(report, reports.head(
        "Each topic on its own", "make check CHECKS=topics", when, reports.share(cells),
        "Each topic on the base and what it needs, without any other test; objects are built with "
        f"W=1 and sparse for {' '.join(arches)}. The digest is of the patches, of those that the "
        "topic needs, of the base, the compilers and the check.") + "\n".join([HEAD, *rows, ""]))


def digests_of(topics, at, how):
    """Of what a result depends on, for each topic that is to be posted."""
    ids, start, base = {}, "base-" + stack.home_name(), git("rev-parse", at.tag, at=at.tree)
    for name in topics:
        patch = git("log", "-p", "-U0", f"{start}..{name}", at=at.tree, raw=True)
        lines = git("patch-id", "--stable", at=at.tree, data=patch).split("\n")
        ids[name], start = "\n".join(line.split(" ")[0] for line in lines), name
    return {t.name: hash_of("\n".join([how, base, *(ids[n] for n in [*t.needs, t.name]), ""]))[:12]
            for t in topics.values() if t.kind == "post"}


def refresh():
    report, topics = reports.path_of("topics-check.md"), stack.read_series()
    write_report(report, reports.made_before(report), {
        t.name: find_row(report, t.name, "") for t in topics.values() if t.kind == "post"})


def main():
    at, topics = objects.begin(), stack.read_series()
    report = reports.path_of("topics-check.md", at)
    kept.mkdir(exist_ok=True)
    config.write_text(objects.uml_config())
    if subprocess.run([top / "scripts/debian.sh", "tool", "sparse"]).returncode:
        sys.exit(1)
    how, when = objects.how_built(__file__), \
        reports.made(git("log", "-1", "--format=%s", at.tag, at=at.tree))
    digests = digests_of(topics, at, how)
    fresh, rows, failed = {}, [], []
    for name in (t for t in at.selected or at.topics if t in digests):
        progress(f"{name:<24}")
        if row := find_row(report, name, f" ok | {digests[name]}"):
            print(" ok before", flush=True)
            rows.append(row)
            continue
        problems.clear()
        row, word = verdict(name, at.base_tree, how), "ok"
        print(" FAILED" if problems else " ok", *problems, sep="\n", flush=True)
        if problems:
            word = f"**{problems[0].strip().partition(', log: ')[0]}**"
            failed.append(name)
        fresh[name] = f"{row} {word} | {digests[name]} |"
        rows.append(fresh[name])
        # The row of a topic takes the place of the one it had; the order is that of the series.
        write_report(report, when, {n: fresh.get(n) or find_row(report, n, f" {digest}")
                                    for n, digest in digests.items()})
    print("", HEAD, *rows or [""], sep="\n")
    print(f"{len(rows) - len(failed)} of {len(rows)} topics ok" +
          (f"; not ok: {' '.join(failed)}" if failed else "") + f"; the table is {short(report)}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    run_main(refresh if sys.argv[1:] == ["--refresh"] else main)
