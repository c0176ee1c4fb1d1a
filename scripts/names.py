#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""names.py [--soon] TREE [NAME...]: the KUnit suites of a work tree, or whether it has what is
named: a suite or SUITE.CASE, and either may be a glob. With --soon a suite may still be in patches/
alone, cases are not looked at, and selftests are known, too; without a tree only what is very near
to one of these is refused.
"""

import difflib, fnmatch, re, sys
from pathlib import Path
import reports
from stack import die, patches, top


def main(tree, *names, soon=False):
    cases = [c for c, file in reports.kunit_cases(Path(tree)).items() if "/ttm/" not in file]
    suites = sorted({c.partition(".")[0] for c in cases})
    if not names:
        return print(*suites, sep="\n")
    there, what = cases + suites, "suite or case"
    if soon:
        names, what = [n.partition(".")[0] for n in names], "selftest or suite"
        there = suites + [p.stem for p in (top / reports.SELFTESTS).glob("*.c")] + ["sync_test"]
        for path in patches.glob("*/*.patch"):
            there += re.findall(r'kunit_suite \w+ = \{\n\+\s*\.name = "(.*)"', path.read_text())
    known = not soon or Path(tree).is_dir()
    for name in names:
        if not fnmatch.filter(there, name):
            near = difflib.get_close_matches(name, dict.fromkeys(there), 4, 0.6 if known else 0.9)
            if not known and not near:
                continue
            die(f"there is no {what} '{name}'; " + ("near it: " if near else "there are: ")
                + " ".join(near or suites))


if __name__ == "__main__":
    soon = sys.argv[1:2] == ["--soon"]
    main(*sys.argv[1 + soon:], soon=soon)
