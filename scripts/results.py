#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""results.py: which KUnit cases fail on the base, and which topic makes each of them pass.

All test patches are on the base, and all suites run on UML, each in a boot of its own, and again
with all topics. Where a suite is not clean its cases run in boots of their own, so that a splat
counts for the case that made it. The topic that makes a case pass is searched by halves, among
those that change what UML builds: what passes once is taken to pass from there on. For that the
cases run alone. What a kernel said is kept by what was built, so that an interrupted run goes on,
and a change of something else does not count. The table is results/topics.md.
The selftests in userspace want modules and devices that UML lacks: 'make boot' runs them.
"""

import datetime, json, os, re, subprocess, sys
from types import SimpleNamespace
import objects, stack
from objects import KUNIT, bash
from stack import build, commits, die, git, logs, open_store, pick, say, short, standing, top

work, out, kept = build / "results", build / "results.kunit-um", build / "results-topics"
config = build / "results.config"
ok = ("passes", "skipped")
BOOT = ["--kernel_args", "seccomp=on", "--kernel_args", "ncpus=2",
        "--kernel_args", "kasan_multi_shot"]


def build_kernel(commit):
    """Returns what tells one kernel from another."""
    bash('own_tree "$1" "$2" >&2', work, commit)
    bash('cd "$1"; quietly "$logs/results-build.log" "building the KUnit kernel" '
         '$kunit build --build_dir="$2" --kunitconfig="$3" --jobs="$jobs" >&2', work, out, config,
         env=objects.same_objects())
    return git("hash-object", out / "linux")


def boot(glob, seconds, *options):
    """What each case says, and the splats of the boot."""
    log = out / "test.log"
    log.unlink(missing_ok=True)
    run = subprocess.run([KUNIT, "exec", f"--build_dir={out}", *BOOT, f"--timeout={seconds}",
                          *options, glob],
                         cwd=work, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    (logs / "results.log").write_text(run.stdout + run.stderr)
    text = log.read_text(errors="replace") if log.exists() else ""
    splats = subprocess.run([top / "scripts/splats.sh", log], capture_output=True, text=True).stdout
    said, suite = {}, ""
    for line in text.split("\n"):
        line = re.sub(r"^\[[ \d.]*\] ", "", line.rstrip("\r"))
        if match := re.match(r"    # Subtest: (\S+)", line):
            suite = match[1]
        elif match := re.match(r"    (not ok|ok) \d+ (\S+)(.*)", line):
            skipped = "# SKIP" in match[3]
            said[f"{suite}.{match[2]}"] = "skipped" if skipped else \
                "fails" if match[1] == "not ok" else "passes"
    return said, [s.split(": ", 1)[1] for s in splats.strip().split("\n") if s]


def cases():
    """All cases that the kernel has of the suites of the stack."""
    run = subprocess.run([KUNIT, "exec", f"--build_dir={out}", *BOOT, "--timeout=60",
                          "--list_tests"], cwd=work, capture_output=True, text=True,
                         stdin=subprocess.DEVNULL)
    globs = [re.compile(re.escape(g).replace(r"\*", ".*")) for g in
             bash('printf "%s\\n" "${kunit_suites[@]}"')]
    names = re.findall(r"(?m)^([\w-]+)\.(\S+)$", run.stdout)
    return [f"{s}.{c}" for s, c in names if any(g.fullmatch(s) for g in globs)]


def known(kernel):
    """Where it is kept what a kernel's cases said, and whether all of them ran."""
    path = kept / f"{kernel}.json"
    return path, *(json.loads(path.read_text()) if path.exists() else (False, {}))


def alone(case):
    """What a case says in a boot of its own."""
    said, splats = boot(case, 120)
    return f"splat: {splats[0]}" if splats else said.get(case, "never ends")


def all_alone(names):
    """{case: verdict}, a boot for each."""
    result = {}
    for case in names:
        result[case] = alone(case)
        print(":" if result[case] in ok else "x", end="", flush=True)
    return result


def verdicts(commit, wanted=None):
    """{case: verdict} of a stack, of some cases or all, from what is kept or from a run."""
    tree = kept / f"{git('rev-parse', f'{commit}^{{tree}}')}-{git('hash-object', config)}"
    for kernel in ([tree.read_text()] if tree.exists() else []) + [None]:
        if not kernel:
            kernel = build_kernel(commit)
            tree.write_text(kernel)
        path, whole, result = known(kernel)
        if whole or wanted is not None and wanted <= set(result):
            return result
    there = cases() or die(f"no KUnit case was found; see {short(logs)}/results-build.log")
    for suite in dict.fromkeys(c.split(".")[0] for c in there) if wanted is None else []:
        mine = [c for c in there if c.split(".")[0] == suite]
        said, splats = boot(suite, 600)
        if not splats and all(said.get(c) in ok for c in mine):
            result |= {c: said[c] for c in mine}
            print(".", end="", flush=True)
        else:
            result |= all_alone(mine)
    if wanted:
        result |= {case: "is not there" for case in wanted - set(there)}
        result |= all_alone(sorted(wanted - set(result)))
    print(flush=True)
    path.write_text(json.dumps([wanted is None, result], indent=1))
    return result


def search(names, run, low, high, cases, makers):
    """Which of the names makes each case pass: they fail with those up to low, not up to high."""
    if high - low == 1 or not cases:
        makers.update(dict.fromkeys(cases, names[high]))
        return
    middle = (low + high) // 2
    result = run(names[middle], cases)
    passing = {c for c in cases if result.get(c) in ok}
    search(names, run, low, middle, passing, makers)
    search(names, run, middle, high, cases - passing, makers)


def concerns_uml(topic, lines):
    """Whether it changes code that UML builds."""
    built = re.compile(r"include/|lib/|kernel/|drivers/(dma-buf|gpu/drm(/scheduler|/vkms|/tests)?)/"
                       r"[^/]*\.[ch]$")
    return any(built.match(name) for commit in lines[topic] if not commit.test for name in git(
        "diff-tree", "-r", "--no-commit-id", "--name-only", commit.id).split("\n"))


def table(first, last, makers, names, base):
    """Cases that fail at first, by the topic from which on they pass."""
    rows = {}
    for case in first | last:
        if first.get(case, "is not there") in ok or case not in last:
            continue
        said = first.get(case, "comes with the topic")
        rows.setdefault(makers.get(case), []).append((case, said))
    short_case = lambda text: re.sub(r"\s+", " ", text).replace("|", "\\|")[:90]
    text = ["# Which topic makes which test pass", "",
            f"Made by `make results-topics` on {datetime.date.today()}, commit "
            f"{git('describe', '--always', '--dirty', at=top)}, "
            f"on {git('log', '-1', '--format=%s', base)}. "
            f"KUnit on UML with {len(last)} cases, of which "
            f"{sum(v in ok for v in first.values())} pass without the topics and "
            f"{sum(v in ok for v in last.values())} with all of them. "
            "`make kunit SERIES=none SUITES=CASE` shows one of them fail, "
            "`make kunit TOPICS=TOPIC SUITES=CASE` shows it pass.", "",
            "| topic | case | without it |", "|---|---|---|"]
    for topic in names[1:]:
        text += [f"| {topic} | {c} | {short_case(v)} |" for c, v in rows.get(topic, [])]
    text += [f"| **none** | {c} | {short_case(last[c])} |" for c, _ in rows.get(None, [])]
    lost = [c for c in first if first[c] in ok and last.get(c, "passes") not in ok]
    text += [f"| **breaks** | {c} | {short_case(last[c])} |" for c in lost]
    return "\n".join(text) + "\n", not rows.get(None) and not lost


def main():
    topics = stack.read_series()
    open_store()
    base = standing() or die("there is no work tree yet: run 'make tree' first")
    kept.mkdir(exist_ok=True)
    config.write_text(objects.uml_config())
    lines = commits(topics, base)
    steps = [t for t in topics if topics[t].kind == "post" and concerns_uml(t, lines)]

    def run(name, series, whole, wanted=None):
        chosen, partly = stack.selection(SimpleNamespace(topics=whole, series=series), topics, base)
        commit = pick(base, chosen, partly=partly, verbose=False)
        print(f"== {name} ", end="", flush=True)
        result = verdicts(commit, wanted)
        bad = sum(v not in ok for v in result.values())
        say(f"{len(result)} cases, {bad} fail")
        return result

    def after(topic, wanted):
        return run(topic, "topics", list(topics)[:list(topics).index(topic) + 1], wanted)

    last = run("all topics", "topics", list(topics))
    first = run("tests without fixes", "none", [])
    names, makers = [None, *steps, "all topics"], {}
    search(names, after, 0, len(names) - 1,
           {c for c in last if last[c] in ok and first.get(c) not in ok}, makers)
    text, good = table(first, last, makers, names, base)
    (top / "results").mkdir(exist_ok=True)
    (top / "results/topics.md").write_text(text)
    print(text)
    say("written to results/topics.md")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
