#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""lint.py: what patches/series, the cover letters, the texts, the lines of scripts and the tables
in results/ have to be. It needs no work tree.

Topics are posted one at a time, so no text may name a patch by a number or by its place.
"""

import re, sys
import bugs, matrix, mutants, reports, rules, sending, soak_report, stack

MOST_PATCHES, MOST_LINES, MOST_COLUMNS = 12, 60, 100
# What is written by hand, and no patch.
GLUE = "scripts/*.py", "scripts/*.sh", "scripts/*.[ch]", "mutants/*", "configs/*", "Makefile", \
    ".ci/run"
NUMBERED = re.compile(
    r"\bpatch(es)? (no\. ?)?\d+\b|\[PATCH \d[^\]]*\]?|\b0(?!000)\d\d\d-[A-Za-z][\w-]*"
    r"|\b(previous|preceding|next|following|earlier|later) patch(es)?\b"
    r"|\bpatch(es)? (before|after) (it|this|that|them)\b"
    r"|\b(later|earlier|further on|further down|before) in (this|the) (patch )?series\b"
    r"|\b(next|previous) (topic|series)\b", re.I)
bad = []


def wrong(path, text):
    bad.append(f"{stack.short(path)}: {text}")


def texts(path, text, first=1):
    """Across the ends of lines, as texts are filled."""
    for match in NUMBERED.finditer(re.sub(r"\s", " ", text)):
        line = first + text.count("\n", 0, match.start())
        wrong(path, f"line {line}: '{match[0]}': give its subject")


def message(path):
    head, _, rest = path.read_text().partition("\n\n")
    return head, re.split(r"(?m)^---$|^diff --git ", rest)[0]


topics = stack.read_series()
count = 0
for name, topic in topics.items():
    files, directory = stack.patch_files(name), stack.patches / name
    cover = stack.cover_letter(name)
    count += len(files)
    if not files:
        wrong(directory, "has no patches")
    if topic.kind == "post" and len(files) > MOST_PATCHES:
        wrong(directory, f"has {len(files)} patches: nobody reads more than {MOST_PATCHES}")
    if len(files) > 1 and not cover.exists():
        wrong(directory, "has several patches and no cover letter")
    if cover.exists():
        title, text = message(cover)
        if topic.kind == "post" and not re.fullmatch(r"([^\s:]+: )+[A-Z].*", title):
            wrong(cover, "has no title 'subsystem: What it does' and an empty line")
        body, _, ident = text.rstrip().rpartition("\n")
        texts(cover, body, 3)
        if not re.fullmatch(rf"change-id: \d{{8}}-dma-fence-{name}-[0-9a-f]{{12}}", ident):
            wrong(cover, f"has no last line 'change-id: 20261126-dma-fence-{name}-' and 12 digits")
        for line in body.split("\n"):
            if len(line) > 75 and " " in line.strip() and "://" not in line:
                wrong(cover, f"has a line of more than 75 characters: {line[:40]}...")
        if (lines := len(body.strip().split("\n"))) > MOST_LINES:
            wrong(cover, f"has {lines} lines of text: {MOST_LINES} are enough")
    for path in files:
        head, text = message(path)
        if "<series@localhost>" in head and re.search(r"(?m)^Signed-off-by:", text):
            wrong(path, "has a Signed-off-by, which is the sender's to add")
    for path in directory.rglob("*.patch"):
        head, text = message(path)
        texts(path, text, head.count("\n") + 3)
for path in [stack.top / "README.md", *(stack.top / "Documentation").rglob("*")]:
    if path.is_file():
        texts(path, path.read_text())
for path in [p for where in GLUE for p in sorted(stack.top.glob(where))]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if (columns := len(line.expandtabs(8))) > MOST_COLUMNS:
            bad.append(f"{stack.short(path)}:{number}: has {columns} columns: "
                       f"{MOST_COLUMNS} are enough")
# ---- results/ -------------------------------------------------------------------------
# What a table names has to be there, and what there is has its row, measured or not.

REPORTS = {"backport.md", "bench.md", "bench.svg", "bugs.md", "conversions.md", "drivers.md",
           "matrix.md", "mutants.md", "rules.md", "rules.json", "sending.md", "soak.md",
           "topics-check.md", "topics.md"}
# These have no count of what is measured.
PLAIN = {"backport.md", "bench.md", "drivers.md"}
ON_ARM64 = "virtio", "virtio-pci", "simpledrm", "gud"
GONE = "tools/testing/selftests/drivers/dma-buf/drm_device_gone.c"
posted = {name for name, topic in topics.items() if topic.kind == "post"}
before = len(bad)


def say_bad(name, text):
    bad.append(f"results/{name} {text}")


def compare(name, there, known, needed=()):
    """What a report has, what it may have, and what it has to have."""
    for other in dict.fromkeys(t for t in there if t not in known):
        say_bad(name, f"names {other}, which is not there")
    for missing in dict.fromkeys(n for n in needed if n not in there):
        say_bad(name, f"has no row of {missing}")


def text_of(name):
    return reports.text_of(stack.top / "results" / name)


def column(name, number):
    return [row[number] for row in reports.rows_of(stack.top / "results" / name)
            if len(row) > number]


def counts(name):
    """The head says how many rows are measured, and so notices one that is gone."""
    rows = reports.rows_of(stack.top / "results" / name)
    said = reports.MADE.search(re.sub(r"\s+", " ", text_of(name)))
    if name == "rules.md":
        known = [list(map(int, row[1:])) for row in rows if reports.measured(row)]
        sums = [sum(numbers) for numbers in zip(*known[:-1])]
        if not known or rows[-1][0] != "all" or known[-1] != sums:
            return say_bad(name, "has other numbers in the row 'all' than in those above it")
        count = sums[0] - sums[-1], sums[0]
    else:
        count = sum(map(reports.measured, rows)), len(rows)
    if not said:
        say_bad(name, "does not say in its head how much of it is measured")
    elif (int(said[2]), int(said[3])) != count:
        say_bad(name, f"says that {said[2]} of {said[3]} are measured, but has {count[0]} of "
                f"{count[1]}")


def facts(name):
    """What was measured has a date, a commit, a base and a machine, or says that it has not."""
    text = re.sub(r"\s+", " ", text_of(name))
    for what, wanted in (("date", r"\d{4}-\d\d-\d\d"), ("base", r"linux-source-\d"),
                         ("commit", r"commit (?:[0-9a-f]{7}|not recorded)"),
                         ("machine", r"\d CPUs|machine not recorded")):
        if not re.search(wanted, text) and "not run in this form" not in text:
            say_bad(name, f"has no {what}")


def check_cases(name, cases):
    """Without a work tree it is known which cases the patches add, but not to which suite of a file
    of the base."""
    tree = reports.tree_of_cases()
    known, added = reports.kunit_cases(tree), {case for _, case in reports.cases_added()}
    suites = {case.partition(".")[0] for case in known}
    compare(name, cases, known if tree != stack.top else [c for c in cases if c in known or (
        c.partition(".")[0] not in suites and c.partition(".")[2] in added)])


def check_bugs():
    found, problems = bugs.read_bugs()
    bad.extend(f"patches/bugs: {p}" for p in bugs.check(found, problems, tests=False))
    there = reports.tables(text_of("bugs.md")) + [[]] * 4
    for has, (kind, wanted) in zip(there, bugs.tables(found).items()):
        width = 4 if kind == "test" else None
        has, wanted = [row[:width] for row in has], [row[:width] for row in wanted]
        for row in has + wanted:
            if has.count(row) != wanted.count(row):
                word = "has no row" if row in wanted else "has a row that patches/bugs has not"
                say_bad("bugs.md", f"{word}: {row[0]}, {row[-1]}")


def check_backport():
    stable = {name for name, topic in topics.items() if topic.stable == "stable"}
    versions = re.findall(r"boot-(\d+\.\d+)\.config",
                          " ".join(p.name for p in stack.top.glob("configs/*")))
    parts = dict(re.findall(r"(?ms)^## Linux (\S+)\n(.*?)(?=^## |\Z)", text_of("backport.md")))
    compare("backport.md", [f"Linux {v}" for v in parts], [f"Linux {v}" for v in parts],
            [f"Linux {v}" for v in versions])
    programs = {case.partition(".")[0] for case in reports.selftest_cases()}
    for text in parts.values():
        patched, tested = (reports.tables(text) + [[], []])[:2]
        compare("backport.md", [row[0] for row in patched], topics, stable)
        compare("backport.md", [row[0] for row in tested], programs, ["out_fence_lifetime"])


def check_drivers():
    source = (stack.top / GONE).read_text()
    ways = [re.sub("_again$", "", way).replace("_", " ") for way in re.findall(
        r"(?m)^(?:TEST\(|FIXTURE_VARIANT_ADD\(gone, |TEST_F_TIMEOUT\(waits, )(\w+)", source)]
    displays = re.findall(r"(?m)^([a-z]\S*) ", (stack.top / "configs/displays").read_text())
    wanted = [f"{display}: {way}" for display in [*displays, *(f"{d}, arm64" for d in ON_ARM64)]
              for way in ways]
    compare("drivers.md", list(map(": ".join, zip(column("drivers.md", 0),
                                                  column("drivers.md", 1)))), wanted, wanted)


def check_reports():
    compare("", [p.name for p in (stack.top / "results").iterdir()], REPORTS)
    for name in sorted(REPORTS):
        if not text_of(name).strip():
            say_bad(name, "is missing")
        elif name.endswith(".md"):
            facts(name)
            if name not in PLAIN:
                counts(name)
    check_bugs()
    check_backport()
    check_drivers()
    bad.extend(sending.check(topics))
    whole = {"all topics", "**none**", "**breaks**"}
    compare("topics.md", column("topics.md", 0), whole | set(topics),
            [t for t in topics if t in posted])
    check_cases("topics.md", [case for case in column("topics.md", 1) if case != "-"])
    compare("topics-check.md", column("topics-check.md", 0), posted,
            [t for t in topics if t in posted])
    compare("conversions.md", column("conversions.md", 5), {*topics, "-"},
            [t for t in topics if t.startswith("inline-lock-")])
    wanted = [f"{name}: `{row.what}`" for name, row in matrix.read_table().items()]
    compare("matrix.md", [f"{name}: {matrix.plain(what)}" for name, what in
                          zip(column("matrix.md", 0), column("matrix.md", 1))], wanted, wanted)
    wanted = [f"{name}: {m.kind} {m.test}" for name, m in mutants.mutants.items()]
    compare("mutants.md", list(map(": ".join, zip(column("mutants.md", 0),
                                                  column("mutants.md", 1)))), wanted, wanted)
    compare("soak.md", column("soak.md", 0), soak_report.guests(), soak_report.GUESTS)
    files = rules.files_of_patches()
    compare("rules.md", column("rules.md", 0), files | {"all"}, sorted(files))


if (stack.top / "results").is_dir():
    check_reports()
else:
    bad.append("results/ is missing")
if len(bad) > before:
    bad.append("'make refresh' brings the names in most of results/ up to date")
print(*bad, sep="\n")
print(f"{count} patches in {len(topics)} topics, {len(REPORTS)} reports")
sys.exit(1 if bad else 0)
