#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""results.py [--refresh]: which KUnit cases fail on the base, and which topic makes each of them
pass.

All test patches are on the base, and all suites run on UML, each in a boot of its own, and again
with all topics. Where a suite is not clean its cases run in boots of their own, so that a splat
counts for the case that made it. The topic that makes a case pass is searched by halves, among
those that change what UML builds: what passes once is taken to pass from there on. For that the
cases run alone. What a kernel said is kept by what was built, so that an interrupted run goes on,
and a change of something else does not count. The table is results/topics.md.
The selftests in userspace want modules and devices that UML lacks: 'make boot' runs them.
With --refresh nothing runs, and the table is brought up to date: a case that is new, or came to
another topic, since the commit of the last run is not measured.
"""

import json, re, sys
from pathlib import Path
from types import SimpleNamespace
import objects, reports, stack
from objects import bash
from reports import NOT
from stack import build, commits, die, git, logs, open_store, pick, run_main, say, short, standing
from stack import top

work, out, kept = build / "results", build / "results.kunit-um", build / "results-topics"
config, report = build / "results.config", top / "results/topics.md"
NONE, ELSEWHERE = "makes no case pass", "changes nothing that UML builds"
ok = ("passes", "skipped")


def build_kernel(commit):
    """Returns what tells one kernel from another."""
    bash('own_tree "$1" "$2" >&2', work, commit)
    bash('cd "$1"; quietly "$logs/results-build.log" "building the KUnit kernel" '
         '$kunit build --build_dir="$2" --kunitconfig="$3" --jobs="$jobs" >&2', work, out, config,
         env=objects.same_objects())
    return git("hash-object", out / "linux")


def boot(glob, seconds):
    """What each case says, and the splats of the boot."""
    log = logs / "results"
    splats = objects.kunit_exec(work, out, log, glob, "--kernel_args", "kasan_multi_shot",
                                "--timeout", seconds)[2]
    text = objects.text_of(Path(f"{log}.kernel.log"))
    said, suite = {}, ""
    for line in text.split("\n"):
        line = re.sub(r"^\[[ \d.]*\] ", "", line.rstrip("\r"))
        if match := re.match(r"    # Subtest: (\S+)", line):
            suite = match[1]
        elif match := re.match(r"    (not ok|ok) \d+ (\S+)(.*)", line):
            skipped = "# SKIP" in match[3]
            said[f"{suite}.{match[2]}"] = "skipped" if skipped else \
                "fails" if match[1] == "not ok" else "passes"
    return said, [s.split(": ", 1)[1] for s in splats]


def cases():
    """All cases that the kernel has of the suites of the stack."""
    *_, listed = objects.kunit_exec(work, out, logs / "results-list", "", "--list_tests")
    return of_the_stack(re.findall(r"(?m)^[\w-]+\.\S+$", objects.text_of(listed)))


def of_the_stack(names):
    """The cases of its suites."""
    globs = [re.compile(re.escape(g).replace(r"\*", ".*")) for g in
             bash('printf "%s\\n" "${kunit_suites[@]}"')]
    return [n for n in names if any(g.fullmatch(n.partition(".")[0]) for g in globs)]


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


def table(first, last, makers, topics, built):
    """The rows: cases that fail at first, by the topic from which on they pass. A topic without
    one has a row that says why. And whether all pass in the end."""
    cases, commit = {}, reports.commit()
    said = lambda text: reports.cell(text, 90)
    for case in first | last:
        if first.get(case, "is not there") not in ok and case in last:
            cases.setdefault(makers.get(case), []).append(case)
    rows = []
    for topic in [*topics, "all topics"]:
        rows += [[topic, c, said(first.get(c, "comes with the topic")), commit]
                 for c in cases.get(topic, [])]
        if topic in topics and topic not in cases and topics[topic].kind == "post":
            rows.append([topic, "-", NONE if topic in built else ELSEWHERE, commit])
    rows += [["**none**", c, said(last[c]), commit] for c in cases.get(None, [])]
    lost = [c for c in first if first[c] in ok and last.get(c, "passes") not in ok]
    rows += [["**breaks**", c, said(last[c]), commit] for c in lost]
    return rows, not cases.get(None) and not lost


def write_report(rows, when, counts):
    text = reports.head(
        "Which topic makes which test pass", "make results-topics", when, reports.share(rows),
        f"{counts} A row is of the commit that it names. "
        "`make kunit SERIES=none SUITES=CASE` shows a case fail, "
        "`make kunit TOPICS=TOPIC SUITES=CASE` shows it pass.") + \
        "| topic | case | without it | commit |\n|---|---|---|---|\n" + reports.lines(rows)
    reports.write(report, text)
    return text


def refresh(topics):
    """What the last run said of the cases that there still are, in the topics that add them now."""
    if not stack.main_tree.is_dir():
        die("there is no work tree yet: run 'make tree' first")
    when, old = reports.made_before(report), reports.rows_of(report)
    files = reports.kunit_cases(stack.main_tree)
    commit = next(iter(re.findall(r"\bcommit (\w+)", when)), "")
    now, then = reports.cases_added(), reports.cases_added(commit) if commit else {}
    rows, seen = {t: [] for t in [*topics, "all topics", "**none**", "**breaks**"]}, set()
    for topic, case, *said in old:
        added = files.get(case), case.rpartition(".")[2]
        home = now.get(added)
        seen.add(case)
        if case == "-" or case in files:
            if case != "-" and (topic not in rows or home not in (None, topic, then.get(added))):
                topic, said = home or next(iter(topics)), [NOT, "-"]
            if topic in rows:
                rows[topic].append([topic, case, *said])
    for case in of_the_stack(files):
        added = files[case], case.rpartition(".")[2]
        if case not in seen and added in now and added not in then:
            rows[now[added]].append([now[added], case, NOT, "-"])
    for topic, mine in rows.items():
        if len(mine) > 1:
            mine[:] = [row for row in mine if row[1] != "-"]
        if not mine and topic in topics and topics[topic].kind == "post":
            mine.append([topic, "-", NOT, "-"])
    counts = re.search(r"KUnit on UML with .*? with all of them\.",
                       re.sub(r"\s+", " ", reports.text_of(report)))
    write_report([row for mine in rows.values() for row in mine], when, counts[0] if counts else "")


def main():
    topics = stack.read_series()
    if sys.argv[1:] == ["--refresh"]:
        return refresh(topics)
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
    rows, good = table(first, last, makers, topics, steps)
    print(write_report(rows, reports.made(git("log", "-1", "--format=%s", base)),
                       f"KUnit on UML with {len(last)} cases, of which "
                       f"{sum(v in ok for v in first.values())} pass without the topics and "
                       f"{sum(v in ok for v in last.values())} with all of them."))
    say("written to results/topics.md")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    run_main(main)
