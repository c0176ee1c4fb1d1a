#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""matrix.py: the configurations that others would try, a row of configs/matrix each.
ROWS="rt i386" takes some. A row that was ok is kept by content: of the stack, of the base, of what
the row says and of the scripts. results/matrix.md has what came of each. Fails if one that was to
be run is not ok.
"""

import datetime, os, re, subprocess, sys, time
from types import SimpleNamespace
import objects, stack
from objects import all_with_dots, hash_of, jobs, messages, text_of
from stack import build, die, git, logs, run_main, short, top

table, report, work = top / "configs/matrix", top / "results/matrix.md", build / "matrix"
given = dict(os.environ)
HEAD = """# Configurations

Made by `make matrix`, last on {day}, on {base}. A row is run again when the stack, the base, or how
it is run has changed; `ROWS="rt i386"` runs some.

| row | what | result | on | digest |
|---|---|---|---|---|
"""


def read_table():
    rows = {}
    for line in table.read_text().replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            name, kind, what = line.split(None, 2)
            if kind not in ("make", "objects"):
                die(f"{short(table)}: {name} is neither 'make' nor 'objects'")
            rows[name] = SimpleNamespace(kind=kind, what=" ".join(what.split()))
    return rows


def read_report():
    text = report.read_text() if report.exists() else ""
    cells = [line.strip("| ").split(" | ") for line in re.findall(r"(?m)^\| [a-z].*\|$", text)]
    return {c[0]: c for c in cells if len(c) == 5 and c[0] != "row"}


def write_report(rows, known, at):
    lines = ["| " + " | ".join(known.get(name) or [name, f"`{row.what}`", "-", "-", "-"]) + " |\n"
             for name, row in rows.items()]
    base = git("log", "-1", "--format=%s", at.tag, at=at.tree)
    report.write_text(HEAD.format(day=datetime.date.today(), base=base) + "".join(lines))


def run_make(name, row):
    """What the last line of a target says."""
    log = logs / f"matrix-{name}.log"
    ok = all_with_dots(log, ["make", *row.what.split()], cwd=top, env=given_nothing())
    counted = re.findall(r"(?m)^\d+ passed, \d+ failed.*|^\S+ +\S+ +Ran \d+ tests: .*",
                         text_of(log))
    sums = {}
    for number, what in re.findall(r"(?:(?<=: )|(?<=, ))(\w+): (\d+)", ", ".join(counted)):
        sums[number] = sums.get(number, 0) + int(what)
    said = counted[-1] if counted and " passed, " in counted[-1] else \
        ", ".join(f"{n} {what}" for what, n in sums.items())
    return ok, said or "no result", log


def given_nothing():
    """The environment without what was on our own command line, and what begin() adds."""
    mine = ("ROWS", "GIVEN", "MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "MAKELEVEL", "SCOPE")
    return {k: v for k, v in given.items() if k not in mine} | {"SERIES_LOCKED": "1"}


def compile_objects(name, row, src, out, files):
    """The objects that there are then, and the messages."""
    arch, cross, compiler, config, *options = row.what.split()
    with_tools = ["" if cross == "-" else f"CROSS_COMPILE={cross}",
                  "" if compiler == "-" else f"CC={compiler}"]
    make = ["make", "-C", src, f"ARCH={arch}", f"O={out}", f"-j{jobs}", *filter(None, with_tools)]
    # without what needs tools that single objects do not
    less = ("-d WERROR -d MODULE_SIG -d RUST -d GCC_PLUGINS -d DEBUG_INFO_BTF "
            "-d DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT -e DEBUG_INFO_NONE").split()
    log = logs / f"matrix-{name}-{out.name}.log"
    mark = out / ".prepared"
    if text_of(mark) != row.what:
        out.mkdir(parents=True, exist_ok=True)
        configure = [src / "scripts/config", "--file", out / ".config", *less,
                     *(o for o in options if o != "-")]
        if not all_with_dots(log, [*make, config], configure, [*make, "olddefconfig"],
                             [*make, "prepare"]):
            return None, "cannot be configured", log
        mark.write_text(row.what)
    goals = [f.removesuffix(".c") + ".o" for f in files if (src / f).exists()]
    for goal in goals:
        (out / goal).unlink(missing_ok=True)
    # an issuer that is not for this architecture fails, on the base as on the stack
    all_with_dots(log, [*make, "-k", "W=1", *goals])
    return {g for g in goals if (out / g).exists()}, messages(src, text_of(log)), log


def run_objects(name, row, at):
    files = sorted({f for arch in objects.arches
                    for f in objects.object_files(arch, at.tree, at.tag)})
    base, before, log = compile_objects(name, row, at.base_tree, work / name / "base", files)
    if base is None:
        return False, f"the base {before}", log
    mine, after, log = compile_objects(name, row, at.tree, work / name / "stack", files)
    if mine is None:
        return False, f"the stack {after}", log
    lost = base - mine
    new = [m for m in after - before if not any(m.startswith(g[:-1]) for g in lost)]
    said = f"{len(mine)} objects"
    if lost:
        said += f", {len(lost)} do not compile: {' '.join(sorted(lost)[:3])}"
    # files that only the stack has, and that do not compile here
    fails = [m for m in new if "error:" in m]
    if new:
        said += f", {len(new)} new messages: {sorted(fails or new)[0][:120]}"
    return not lost and not new and bool(mine), said, log


def main():
    rows, at = read_table(), objects.begin()
    wanted = os.environ.get("ROWS", "").replace(",", " ").split() or list(rows)
    for name in wanted:
        if name not in rows:
            die(f"there is no row '{name}' in {short(table)}; there are: {' '.join(rows)}")
    known = {name: cells for name, cells in read_report().items() if name in rows}
    trees = git("rev-parse", "HEAD^{tree}", f"{at.tag}^{{tree}}", at=at.tree)
    how = "".join((top / "scripts" / f).read_text() for f in ("matrix.py", "boot.sh", "kunit.sh"))
    failed = 0
    for name in wanted:
        row = rows[name]
        digest = hash_of(f"{trees}\n{row.what}\n{how}{config_of(row)}")[:12]
        if name in known and known[name][4] == digest and known[name][2].startswith("ok"):
            print(f"ok       {name} (before)")
            continue
        start = time.monotonic()
        print(f"== {name}: {row.what} ", end="", flush=True)
        subprocess.run([top / "scripts/deps.sh", *groups(name)], check=True)
        ok, said, log = run_make(name, row) if row.kind == "make" else run_objects(name, row, at)
        print(f" ({time.monotonic() - start:.0f} s)")
        print(f"{'ok      ' if ok else 'FAILED  '} {name}: {said}")
        if not ok:
            failed += 1
            print(f"    log: {short(log)}")
        known[name] = [name, f"`{row.what}`", f"{'ok' if ok else '**fails**'}: {said}",
                       str(datetime.date.today()), digest]
        write_report(rows, known, at)
    print(f"{len(wanted) - failed} passed, {failed} failed; the table is {short(report)}")
    sys.exit(failed > 0)


def groups(name):
    listed = re.findall(r"(?m)^\t\[(\w+)\]=", (top / "scripts/deps.sh").read_text())
    return [name] if name in listed else []


def config_of(row):
    kernel = re.search(r"\bKERNEL=(\w+)", row.what)
    prefix = "kunit" if row.what.startswith("kunit") else "boot"
    return text_of(top / f"configs/{prefix}-{kernel[1]}.config") if kernel else ""


if __name__ == "__main__":
    run_main(main)
