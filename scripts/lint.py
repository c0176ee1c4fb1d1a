#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""lint.py: what patches/series, the cover letters, the texts and the lines of scripts have to be.

Topics are posted one at a time, so no text may name a patch by a number or by its place.
"""

import re, sys
import stack

MOST_PATCHES, MOST_LINES, MOST_COLUMNS = 12, 60, 100
# What is written by hand, and no patch.
GLUE = "scripts/*.py", "scripts/*.sh", "scripts/*.[ch]", "mutants/*.py", "configs/*", "Makefile", \
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
# What the tables in results/ name has to be there, and each topic, row and display has its line.
TESTS = "drivers/dma-buf", "drivers/gpu/drm/tests", "drivers/gpu/drm/scheduler/tests", \
    "drivers/gpu/drm/ttm/tests", "tools/testing/selftests/drivers/dma-buf"
sources = "".join(p.read_text() for d in TESTS for p in (stack.main_tree / d).glob("*.c"))
cases = set(re.findall(r"\w+", sources))
posted = {name for name, topic in topics.items() if topic.kind == "post"}


def words(path):
    """The first word of each line."""
    text = (stack.top / path).read_text()
    return {line.split()[0] for line in text.splitlines() if re.match("[a-z]", line)}


def column(name, number, several=False):
    """What a column of the first table in a file of results/ has."""
    path = stack.top / "results" / name
    text = path.read_text() if path.exists() else ""
    first = re.search(r"(?m)^\|.*\|\n\|[-:| ]+\|\n((\|.*\|\n)*)", text)
    rows = [row.strip("| ").split(" | ") for row in (first[1] if first else "").splitlines()]
    cells = {row[number] for row in rows if not row[number].startswith("**")}
    return {part for cell in cells for part in (cell.split(", ") if several else [cell])}


def table(name, number, known, needed=frozenset(), **how):
    there = column(name, number, **how)
    for other in sorted(there - known):
        bad.append(f"results/{name} names {other}, which is not there")
    for missing in sorted(needed - there) if there else ():
        bad.append(f"results/{name} has no line of {missing}")


def tests(name, number):
    """Each that looks like one."""
    for test in column(name, number):
        found = re.fullmatch(r"(?:(?:kunit|selftest) )?[\w-]+\.(?:[\w]+\.)*(\w+)", test)
        if cases and found and found[1] not in cases:
            bad.append(f"results/{name} names the test {test}, which is not there")


displays = words("configs/displays")
table("topics.md", 0, set(topics))
table("topics-check.md", 0, set(topics), posted)
table("bugs.md", 2, set(topics) | {"", "-"}, several=True)
table("matrix.md", 0, words("configs/matrix"), words("configs/matrix"))
table("drivers.md", 0, displays | {f"{d}, arm64" for d in ("virtio", "virtio-pci", "simpledrm",
                                                           "gud")}, displays)
tests("topics.md", 1)
tests("bugs.md", 3)
print(*bad, sep="\n")
print(f"{count} patches in {len(topics)} topics")
sys.exit(1 if bad else 0)
