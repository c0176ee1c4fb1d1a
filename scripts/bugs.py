#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""bugs.py [--check | --kunit]: shows each bug of patches/bugs on the base, and gone with the stack.

Every test that is named there runs twice, on the base with the tests only and with all topics, each
KUnit case on UML and on the base each case of a selftest on arm64 in a boot of its own. The table
is results/bugs.md; the exit code is 1 if a test passes on the base or fails with the stack.
With --kunit the selftests, which take an hour, do not run, and are as they were in the last run.
With --check nothing runs: all that is named is there, and every patch with a Fixes: tag is named.
"""

import datetime, json, os, re, subprocess, sys
from types import SimpleNamespace
import objects, results, stack
from stack import build, commits, die, git, open_store, patches, pick, say, standing, top

source = patches / "bugs"
SELFTESTS = "tools/testing/selftests/drivers/dma-buf"
VIOLATIONS = "dma-buf-fence-violations."
KINDS = ("from", "patch", "test", "untested", "no-bug", "open")
REPORT = """# Bug by bug

Made by `make bugs` on {day}, commit {commit}, \
on {base}, from `patches/bugs`; the selftests ran on commit {boots}. \
A KUnit case is shown on the base by `make kunit SERIES=none SUITES=CASE`, \
and its absence after by `make kunit SUITES=CASE`; \
a selftest by `make boot SERIES=none TESTS=PROGRAM.CASE` and `make boot TESTS=PROGRAM.CASE`.

| bug | said in | topic | test | on the base | with the stack |
|---|---|---|---|---|---|
{test}
## Built, and run by nobody here

| bug | said in | topic | why |
|---|---|---|---|
{untested}
## Not a bug

| claim | said in | because |
|---|---|---|
{no-bug}
## Known, and left

| bug | said in | because |
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


def cases(tip):
    """All KUnit cases, as SUITE.CASE, and those of selftests, as PROGRAM.FIXTURE.VARIANT.CASE."""
    kunit, selftests = set(), set()
    for path in git("grep", "-l", "struct kunit_case ", tip, "--", "drivers/dma-buf",
                    "drivers/gpu/drm/*.c").split("\n"):
        text = git("show", path)
        for array, body in re.findall(r"struct kunit_case (\w+)\[\] = \{(.*?)\n\};", text, re.S):
            for suite in re.findall(rf'\.name = "([^"]+)"[^}}]*\.test_cases = {array}\b', text):
                kunit |= {f"{suite}.{c}" for c in re.findall(r"\w*CASE\w*\((\w+)", body)}
    for path in (top / SELFTESTS).glob("*.c"):
        text, name = path.read_text(), path.stem
        variants = re.findall(r"(?m)^FIXTURE_VARIANT_ADD\((\w+), (\w+)\)", text)
        selftests |= {name} | {f"{name}.global.{c}" for c in re.findall(r"(?m)^TEST\((\w+)", text)}
        for fixture, case in re.findall(r"(?m)^TEST_F\w*\((\w+),\s*(\w+)", text):
            of = [v for f, v in variants if f == fixture]
            named = {f"{name}.{fixture}.{v}.{case}" for v in of}
            selftests |= named or {f"{name}.{fixture}.{case}"}
    return kunit, selftests


def check(bugs, bad, tip):
    patch, (kunit, selftests) = subjects(), cases(tip)
    for bug in bugs:
        lost = [s for s in bug.lines["patch"] if s not in patch]
        bad += [f"{bug.name}: there is no patch '{s}'" for s in lost]
        for test in bug.lines["test"]:
            kind, _, name = test.partition(" ")
            if name not in {"kunit": kunit, "selftest": selftests}.get(kind, ()):
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


def run_selftests(names, again):
    """[commit, {case: (on the base, with the stack)}] of 'make boot', there by whole programs."""
    last = results.kept / "boots.json"
    if not again:
        if not last.exists():
            die("no selftests yet: run 'make bugs' once")
        return json.loads(last.read_text())
    verdicts, programs = [], sorted({n.split(".")[0] for n in names})
    for series, tests in ("none", names), ("all", programs):
        env = {k: v for k, v in os.environ.items() if k not in ("GIVEN", "MAKEFLAGS", "SCOPE")}
        make = ["make", "-C", top, "boot", f"SERIES={series}", f"TESTS={' '.join(tests)}"]
        run = subprocess.Popen(make, env=env | {"SERIES_LOCKED": "1"}, stdout=subprocess.PIPE,
                               text=True)
        said = {}
        for line in run.stdout:
            print(line, end="", flush=True)
            if match := re.match(r"(passed|FAILED) +(\S+) +(.*?) \(\d+ s\)$", line):
                said[match[2]] = "passes" if match[1] == "passed" else match[3]
        if run.wait() and not said:
            die(f"make boot SERIES={series} did not run")
        verdicts.append(said)
    before, after = verdicts
    result = [git("describe", "--always", "--dirty", at=top),
              {f"selftest {n}": (before.get(n, "did not run"),
                                 after.get(n.split(".")[0], "did not run")) for n in names}]
    last.write_text(json.dumps(result, indent=1))
    return result


def clean(said):
    """For a cell: without times, and not long."""
    said = re.sub(r"\s+", " ", re.sub(r"\[ *[\d.]+\] ", "", said))
    return said.replace("|", "\\|")[:100]


def table(bugs, verdict, base, boots):
    patch, wrong = subjects(), 0
    rows = {kind: [] for kind in ("test", "untested", "no-bug", "open")}
    for bug in bugs:
        of = ", ".join(bug.lines["from"])
        topic = ", ".join(dict.fromkeys(patch[s][0] for s in bug.lines["patch"]))
        for test in bug.lines["test"]:
            before, after = verdict.get(test, ("did not run", "did not run"))
            if before in results.ok or after not in results.ok:
                wrong += 1
                before = f"**{clean(before)}**"
            rows["test"].append(f"| {bug.what} | {of} | {topic} | {test} | {clean(before)} "
                                f"| {clean(after)} |")
        for reason in bug.lines["untested"]:
            rows["untested"].append(f"| {bug.what} | {of} | {topic} | {reason} |")
        for kind in "no-bug", "open":
            rows[kind] += [f"| {bug.what} | {of} | {reason} |" for reason in bug.lines[kind]]
    commit = git("describe", "--always", "--dirty", at=top)
    subject = git("log", "-1", "--format=%s", base)
    parts = {kind: "".join(f"{row}\n" for row in of) for kind, of in rows.items()}
    return REPORT.format(day=datetime.date.today(), commit=commit, base=subject, boots=boots,
                         **parts), wrong


def main():
    topics, (bugs, bad) = stack.read_series(), read_bugs()
    open_store()
    base = standing() or die("there is no work tree yet: run 'make tree' first")
    check(bugs, bad, git("rev-parse", f"refs/heads/{list(topics)[-1]}"))
    for line in bad:
        print(f"patches/bugs: {line}", file=sys.stderr)
    if bad:
        sys.exit(1)
    if sys.argv[1:] == ["--check"]:
        return say(f"patches/bugs: {len(bugs)} bugs, all that they name is there")
    tests = {t for b in bugs for t in b.lines["test"]}
    pick_kind = lambda kind: sorted(t.split(" ", 1)[1] for t in tests if t.startswith(kind + " "))
    verdict = run_kunit(pick_kind("kunit"), base, topics)
    boots, selftests = run_selftests(pick_kind("selftest"), sys.argv[1:] != ["--kunit"])
    text, wrong = table(bugs, verdict | selftests, base, boots)
    (top / "results/bugs.md").write_text(text)
    print(text)
    say(f"{len(bugs)} bugs, {len(tests)} tests, {wrong} not as they should be; "
        "written to results/bugs.md")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
