#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""reports.py [--commit]: what the tables in results/ have in common, and the tests that they name.
Called as a command it brings them up to date and measures nothing: rows of what is gone are
dropped, what is new is 'not measured', all others stay, with the commit that they are of. With
--commit it says what a run that begins now is of.

It is in no digest, so that what was measured stays when a head has another word.
"""

import datetime, os, re, shutil, subprocess, sys, textwrap
from stack import build, changed, die, git, main_tree, say, top

NOT = "not measured"
TABLE = re.compile(r"(?m)^\|.*\|\n\|[-:| ]+\|\n((?:\|.*\|\n)*)")
MADE = re.compile(r"Made by `[^`]*`, (.*?)\. (\d+) of (\d+) (\w+) measured\.")
# A macro, or a function, struct or initializer, up to the '}' in the first column.
ITEM = (r"(?m)^#define {0}\b(?:.*\\\n)*.*|^(?:\w[\w\s*]*?\b)?{0}\b(?:\([^;{{}}]*|[^\n;{{}}(]*)"
        r"\{{(?:.*\}};?$|[\s\S]*?^\}})")
SUITE = r'kunit_suite \w+ = \{[^}]*\.name = "(.+)"[^}]*\.test_cases = (\w+)'
SUITES = "drivers/dma-buf", "drivers/gpu/drm/tests", "drivers/gpu/drm/scheduler/tests", \
    "drivers/gpu/drm/ttm/tests"
SELFTESTS = "tools/testing/selftests/drivers/dma-buf"
WRITERS = ("bugs.py --refresh", "results.py --refresh", "mutants.py --refresh",
           "rules.py --refresh", "topics_check.py --refresh", "matrix.py --refresh",
           "soak_report.py --refresh", "conversions.py")


# ---- tables ---------------------------------------------------------------------------

def path_of(name, at=None):
    """Where a report is. That on another base is none of the repository."""
    path = top / "results" / name
    if at and not at.home:
        path = build / f"{path.stem}-{at.variant}{path.suffix}"
    path.parent.mkdir(exist_ok=True)
    return path


def text_of(path):
    return path.read_text() if path.exists() else ""


def write(path, text):
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.rename(path)


def tables(text):
    """The cells of each row of each table."""
    return [[line[2:-2].split(" | ") for line in body.splitlines()] for body in TABLE.findall(text)]


def rows_of(path):
    """Those of the first table."""
    return next(iter(tables(text_of(path))), [])


def lines(rows):
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)


def cell(text, most=100):
    """Without times and what ends a cell, and not long."""
    text = re.sub(r"\s+", " ", re.sub(r"\[ *[\d.]+\] ", "", text))
    return text.replace("|", "\\|")[:most].strip()


def measured(row):
    return not any(str(c).startswith(NOT) for c in row)


def share(rows):
    return f"{sum(map(measured, rows))} of {len(rows)} rows measured"


# ---- heads ----------------------------------------------------------------------------

def commit():
    """That of this repository, and whether something else than a report differs from it. A long run
    is of what there was when it began, which run.sh tells."""
    if told := os.environ.get("SERIES_COMMIT"):
        return told
    mine = git("status", "--porcelain", "-uno", "--", ".", ":!results", at=top)
    return git("rev-parse", "--short", "HEAD", at=top) + ("-dirty" if mine or main_tree.is_dir() and
                                                          changed(main_tree) else "")


def version(*argv):
    """That of a tool, or nothing."""
    said = subprocess.run(argv, capture_output=True, text=True).stdout if shutil.which(argv[0]) \
        else ""
    return next(iter(re.findall(r"\d+(?:\.\d+)+", said)), "")


def machine():
    """What it is that measures."""
    qemu = version("qemu-system-aarch64", "--version") or version("qemu-system-x86_64", "--version")
    return (f"{len(os.sched_getaffinity(0))} CPUs, {os.uname().machine}, "
            f"gcc {version('gcc', '-dumpfullversion')}, {f'QEMU {qemu}' if qemu else 'no QEMU'}")


def made(base):
    """What a head says of a run that ends now, on a base that is called that."""
    return f"last on {datetime.date.today()}, commit {commit()}, on {base}, {machine()}"


def made_before(path):
    """What it says of the last run."""
    said = MADE.search(re.sub(r"\s+", " ", text_of(path)))
    return said[1] if said else "not run in this form yet"


def head(title, command, when, how_many, text):
    body = f"Made by `{command}`, {when}. {how_many}. {text}"
    whole = re.sub("`[^`]*`", lambda m: m[0].replace(" ", "\0"), body)
    filled = textwrap.fill(whole, 100, break_on_hyphens=False, break_long_words=False)
    return f"# {title}\n\n{filled}\n\n".replace("\0", " ")


# ---- tests ----------------------------------------------------------------------------

def kunit_cases(tree):
    """{SUITE.CASE: file} of each KUnit case."""
    found = {}
    for path in [p for where in SUITES for p in sorted((tree / where).glob("*.c"))]:
        text = path.read_text()
        for suite, name in re.findall(SUITE, text):
            for listed in re.finditer(ITEM.format(name), text):
                found |= {f"{suite}.{c}": str(path.relative_to(tree))
                          for c in re.findall(r"CASE\w*\((\w+)", listed[0])}
    return found


def selftest_cases():
    """PROGRAM, and PROGRAM.FIXTURE.VARIANT.CASE, of each selftest."""
    found = set()
    for path in (top / SELFTESTS).glob("*.c"):
        text, name = path.read_text(), path.stem
        variants = re.findall(r"(?m)^FIXTURE_VARIANT_ADD\((\w+), (\w+)\)", text)
        found |= {name} | {f"{name}.global.{c}" for c in re.findall(r"(?m)^TEST\((\w+)", text)}
        for fixture, case in re.findall(r"(?m)^TEST_F\w*\((\w+),\s*(\w+)", text):
            named = {f"{name}.{f}.{v}.{case}" for f, v in variants if f == fixture}
            found |= named or {f"{name}.{fixture}.{case}"}
    return found


def cases_added(at=None):
    """{(file, case): topic} of the KUnit cases that the patches add, or did in a commit."""
    found, file = {}, ""
    said = git("grep", *([] if at else ["--untracked"]), "-E", "-e", r"^\+\+\+ b/",
               "-e", r"^\+.*CASE[A-Z_]*\([a-z]", *([at] if at else []), "--",
               ":(glob)patches/*/0*.patch", at=top)
    for line in said.splitlines():
        topic, text = re.match(r"(?:\w+:)?patches/([^/]+)/[^:]+:(.*)", line).groups()
        if text.startswith("+++ b/"):
            file = text[6:]
        elif file.endswith(".c"):
            found |= {(file, c): topic for c in re.findall(r"CASE[A-Z_]*\((\w+)", text)}
    return found


def tree_of_cases():
    """Where all cases are, or without a work tree those of whole files."""
    return main_tree if (main_tree / SUITES[0]).is_dir() else top


def main():
    if sys.argv[1:] == ["--commit"]:
        return print(commit())
    failed = []
    for writer in WRITERS:
        name, *options = writer.split()
        if subprocess.run([top / "scripts" / name, *options]).returncode:
            failed.append(name)
    if failed:
        die(f"not up to date: {' '.join(failed)}")
    return say("'git diff results' shows what has changed")


if __name__ == "__main__":
    main()
