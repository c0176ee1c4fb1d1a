#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""bugs.py [--check | --kunit | --refresh]: shows each bug of patches/bugs on the base, and gone
with the stack.

Every test that is named there runs twice, on the base with the tests only and with all topics, each
KUnit case on UML and on the base each case of a selftest on arm64 in a boot of its own. The table
is results/bugs.md; the exit code is 1 if a test passes on the base or fails with the stack.
With --kunit the selftests, which take an hour, do not run, and are as the table has them.
With --check nothing runs: all that is named is there, and every patch with a Fixes: tag is named.
With --refresh nothing runs either, and the table is brought up to date.
"""

import json, os, re, subprocess, sys
from types import SimpleNamespace
import objects, reports, results, stack
from reports import cell
from stack import die, ending, git, open_store, patches, pick, run_main, say, standing, top

source, report = patches / "bugs", top / "results/bugs.md"
VIOLATIONS = "dma-buf-fence-violations."
KINDS = ("from", "patch", "test", "untested", "no-bug", "open")
TEXT = """From `patches/bugs`. A row of the first table is of the commit that it names. A KUnit \
case is shown on the base by `make kunit SERIES=none SUITES=CASE`, and its absence after by \
`make kunit SUITES=CASE`; a selftest by `make boot SERIES=none TESTS=PROGRAM.CASE` and \
`make boot TESTS=PROGRAM.CASE`."""
REPORT = """| bug | public report | topic | test | on the base | with the stack | commit |
|---|---|---|---|---|---|---|
{test}
## Built, and run by nobody here

| bug | public report | topic | why |
|---|---|---|---|
{untested}
## Not a bug

| claim | public report | because |
|---|---|---|
{no-bug}
## Known, and left

| bug | public report | because |
|---|---|---|
{open}"""


def read_bugs():
    bugs, bad = [], []
    for paragraph in re.split(r"\n\s*\n", source.read_text()):
        lines = [l for l in paragraph.split("\n") if l.strip() and not l.startswith("#")]
        if not lines:
            continue
        name, colon, what = lines[0].partition(": ")
        bug = SimpleNamespace(name=name, what=what, lines={k: [] for k in KINDS})
        if not colon or not re.fullmatch(r"[a-z0-9-]+", name):
            bad.append(f"'{lines[0]}' is no 'name: what is wrong'")
        for line in lines[1:]:
            kind, _, rest = line.partition(" ")
            if kind not in KINDS or not rest.strip():
                bad.append(f"{name}: '{line}': give one of {', '.join(KINDS)} and what")
            else:
                bug.lines[kind].append(rest.strip())
        has = {k: bool(v) for k, v in bug.lines.items()}
        if [has["patch"], has["no-bug"], has["open"]].count(True) != 1 or \
                has["patch"] != (has["test"] or has["untested"]):
            bad.append(f"{name}: give patch and test or untested, or no-bug, or open")
        bugs.append(bug)
    names = [b.name for b in bugs]
    bad += [f"{n} is there twice" for n in sorted({n for n in names if names.count(n) > 1})]
    return bugs, bad


def subjects():
    """{subject: (topic, message)} of all patches."""
    found = {}
    for topic in stack.read_series():
        for path in stack.patch_files(topic):
            text = path.read_text()
            subject = re.search(r"(?m)^Subject: (?:\[PATCH\] )?(.*(?:\n[ \t].*)*)", text)[1]
            subject = re.sub(r"\n[ \t]+", " ", subject)
            found[subject] = (topic, text.split("\n---\n")[0])
    return found


def check(bugs, bad, tests=True):
    """Of the patches, and of the tests if all of these can be looked up."""
    patch = subjects()
    known = {"kunit": reports.kunit_cases(stack.main_tree) if tests else {},
             "selftest": reports.selftest_cases()}
    for bug in bugs:
        lost = [s for s in bug.lines["patch"] if s not in patch]
        bad += [f"{bug.name}: there is no patch '{s}'" for s in lost]
        for test in bug.lines["test"]:
            kind, _, name = test.partition(" ")
            if kind not in known or name not in known[kind] and (tests or kind == "selftest"):
                bad.append(f"{bug.name}: there is no test '{test}'")
    named = {s for bug in bugs for s in bug.lines["patch"]}
    bad += [f"{topic}: no bug for '{s}', which has Fixes:" for s, (topic, text) in patch.items()
            if s not in named and re.search(r"(?m)^Fixes: ", text)]
    return bad


def violation(case):
    """It passes if the kernel reports what its issuer does wrong, so a splat is no failure."""
    said, _ = results.boot(case, 120, "--kernel_args", "dmabuf_kunit.provoke=1")
    return {"passes": "passes", "fails": "not reported"}.get(said.get(case), "never ends")


def run_kunit(names, base, topics):
    """{case: (on the base, with the stack)}, of what results-topics keeps or of a run."""
    results.kept.mkdir(exist_ok=True)
    results.config.write_text(objects.uml_config())
    verdicts = []
    for series, whole in ("none", []), ("topics", list(topics)):
        chosen, partly = stack.selection(SimpleNamespace(topics=whole, series=series), topics, base)
        kernel = results.build_kernel(pick(base, chosen, partly=partly, verbose=False))
        path, have, result = results.known(kernel)
        what = "without fixes" if series == "none" else "with all topics"
        print(f"== KUnit, {what} ", end="", flush=True)
        there = results.cases()
        for case in names:
            if case not in result:
                result[case] = "is not there" if case not in there else \
                    violation(case) if case.startswith(VIOLATIONS) else results.alone(case)
                path.write_text(json.dumps([have, result], indent=1))
            print("." if result[case] in results.ok else "x", end="", flush=True)
        print(flush=True)
        verdicts.append(result)
    return {f"kunit {n}": (verdicts[0][n], verdicts[1][n]) for n in names}


def run_selftests(names):
    """{case: (on the base, with the stack)} of 'make boot', there by whole programs."""
    verdicts, programs = [], sorted({n.split(".")[0] for n in names})
    for series, tests in ("none", names), ("all", programs):
        env = {k: v for k, v in os.environ.items() if k not in ("GIVEN", "MAKEFLAGS", "SCOPE")}
        make = ["make", "-C", top, "boot", f"SERIES={series}", f"TESTS={' '.join(tests)}"]
        run = subprocess.Popen(make, env=env | {"SERIES_LOCKED": "1"}, stdout=subprocess.PIPE,
                               stdin=subprocess.DEVNULL, text=True, process_group=0)
        said = {}
        with ending(run, run.wait, False):
            for line in run.stdout:
                print(line, end="", flush=True)
                if match := re.match(r"(passed|FAILED) +(\S+) +(.*?) \(\d+ s\)$", line):
                    said[match[2]] = "passes" if match[1] == "passed" else match[3]
        if run.wait() and not said:
            die(f"make boot SERIES={series} did not run")
        verdicts.append(said)
    before, after = verdicts
    return {f"selftest {n}": (before.get(n, "did not run"),
                              after.get(n.split(".")[0], "did not run")) for n in names}


def known_rows():
    """{test: what its row says} of the table as it is."""
    return {row[3]: row[4:] for row in reports.rows_of(report)
            if len(row) == 7 and reports.measured(row)}


def rows_of(verdict, commit):
    """{test: the cells of its row}, and how many are not as they should be."""
    rows, wrong = {}, 0
    for test, (before, after) in verdict.items():
        good = before not in results.ok and after in results.ok
        wrong += not good
        rows[test] = [cell(before) if good else f"**{cell(before)}**", cell(after), commit]
    return rows, wrong


def tables(bugs, known={}):
    """{kind: rows}, those of tests with what is KNOWN of these."""
    patch, rows = subjects(), {kind: [] for kind in ("test", "untested", "no-bug", "open")}
    for bug in bugs:
        of = ", ".join(bug.lines["from"])
        topic = ", ".join(dict.fromkeys(patch[s][0] for s in bug.lines["patch"] if s in patch))
        rows["test"] += [[bug.what, of, topic, test, *known.get(test, (reports.NOT, reports.NOT,
                                                                       "-"))]
                         for test in bug.lines["test"]]
        rows["untested"] += [[bug.what, of, topic, reason] for reason in bug.lines["untested"]]
        for kind in "no-bug", "open":
            rows[kind] += [[bug.what, of, reason] for reason in bug.lines[kind]]
    return rows


def write_report(bugs, known, when):
    rows = tables(bugs, known)
    text = reports.head("Bug by bug", "make bugs", when, reports.share(rows["test"]), TEXT) + \
        REPORT.format(**{kind: reports.lines(of) for kind, of in rows.items()})
    reports.write(report, text)
    return text


def main():
    topics, (bugs, bad) = stack.read_series(), read_bugs()
    if sys.argv[1:] == ["--refresh"]:
        write_report(bugs, known_rows(), reports.made_before(report))
        return
    open_store()
    base = standing() or die("there is no work tree yet: run 'make tree' first")
    there = stack.main_tree.is_dir()
    for line in check(bugs, bad, there):
        print(f"patches/bugs: {line}", file=sys.stderr)
    if bad:
        sys.exit(1)
    if sys.argv[1:] == ["--check"]:
        return say(f"patches/bugs: {len(bugs)} bugs, all that they name is there" +
                   ("" if there else "; KUnit cases were not looked up, without build/linux"))
    tests = {t for b in bugs for t in b.lines["test"]}
    pick_kind = lambda kind: sorted(t.split(" ", 1)[1] for t in tests if t.startswith(kind + " "))
    verdict, known, commit = run_kunit(pick_kind("kunit"), base, topics), known_rows(), \
        reports.commit()
    if sys.argv[1:] != ["--kunit"]:
        verdict |= run_selftests(pick_kind("selftest"))
    fresh, wrong = rows_of(verdict, commit)
    print(write_report(bugs, known | fresh, reports.made(git("log", "-1", "--format=%s", base))))
    say(f"{len(bugs)} bugs, {len(verdict)} of {len(tests)} tests, {wrong} not as they should be; "
        "written to results/bugs.md")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    run_main(main)
