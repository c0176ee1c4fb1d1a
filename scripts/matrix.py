#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""matrix.py [--refresh]: the configurations that others would try, a row of configs/matrix each.
ROWS="rt i386" takes some. A row that was ok is kept by content: of the stack, of the base, of what
the row says and of how it is run. results/matrix.md has what came of each, or, on another base or
with KSRC=, a file in build/. The C compiler clang is the newest that Debian has. Fails if a row
that was to be run is not ok. With --refresh nothing runs, and the table has the rows that there
are.
"""

import datetime, inspect, os, re, subprocess, sys, time
from types import SimpleNamespace
import objects, reports, stack
from objects import all_with_dots, hash_of, jobs, messages, text_of
from stack import build, die, git, logs, run_main, short, top

table, work = top / "configs/matrix", build / "matrix"
given = dict(os.environ)


def read_table():
    rows = {}
    for line in table.read_text().replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            name, kind, what = line.split(None, 2)
            if kind not in ("make", "objects"):
                die(f"{short(table)}: {name} is neither 'make' nor 'objects'")
            rows[name] = SimpleNamespace(kind=kind, what=" ".join(what.split()))
    return rows


def known_rows(report, rows):
    """Those of what is run in the same way still."""
    return {row[0]: row for row in reports.rows_of(report) if reports.measured(row) and
            row[0] in rows and plain(row[1].strip("`")) == rows[row[0]].what}


def plain(what):
    return re.sub(r"\bclang-\d+\b", "clang", what)


def write_report(report, when, rows, known):
    cells = [known.get(name) or [name, f"`{row.what}`", reports.NOT, "-", "-"]
             for name, row in rows.items()]
    reports.write(report, reports.head(
        "Configurations", "make matrix", when, reports.share(cells),
        "A row is run again when the stack, the base, or how it is run has changed; "
        '`ROWS="rt i386"` runs some.') +
        "| row | what | result | on | digest |\n|---|---|---|---|---|\n" + reports.lines(cells))


def newest_clang(src):
    """Of those that Debian has, if this kernel takes it."""
    least = subprocess.run([src / "scripts/min-tool-version.sh", "llvm"], capture_output=True,
                           text=True, env=os.environ | {"SRCARCH": "x86"}).stdout.strip()

    def there():
        said = subprocess.run(["apt-cache", "search", "--names-only", r"^clang-[0-9]+$"],
                              capture_output=True, text=True).stdout
        return max(map(int, re.findall(r"(?m)^clang-(\d+) ", said)), default=0)

    try:
        # What is installed in vain brings the lists of packages.
        found = there() or (install("clang") and there())
    except OSError:
        return "clang"    # no Debian
    if found < int(least.partition(".")[0] or 0):
        raise ValueError(f"there is no clang that this kernel takes: {least} or later")
    return f"clang-{found}"


def install(*names, **more):
    """Whether the groups of deps.sh are there then."""
    return subprocess.run([top / "scripts/deps.sh", *names], env=os.environ | more).returncode == 0


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
    built = {g for g in goals if (out / g).exists()}
    return built, messages(src, text_of(log)) | divisions(cross, out, built), log


def divisions(cross, out, built):
    """Nothing is linked, so these are looked for: 64-bit divisions that want libgcc."""
    nm = ("" if cross == "-" else cross) + "nm"
    if not built:
        return set()
    try:
        said = subprocess.run([nm, "-uA", *sorted(built)], cwd=out, capture_output=True, text=True,
                              check=True)
    except (OSError, subprocess.CalledProcessError) as why:
        raise ValueError(f"{nm}: {why}") from None
    wanted = re.findall(r"(?m)^(\S+): +U (__(?:aeabi_u?ldivmod|u?(?:div|mod|divmod)di[34]))$",
                        said.stdout)
    return {f"{file}: error: wants {symbol}" for file, symbol in wanted}


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


def run_row(name, row, at):
    """What is missing is a failure as any other."""
    compiler = re.findall(r" (clang-\d+) ", row.what)
    if not install(*groups(name), **{"CLANG": c for c in compiler}):
        return False, "what it needs cannot be installed", logs / "deps.log"
    return run_make(name, row) if row.kind == "make" else run_objects(name, row, at)


def refresh():
    report, rows = reports.path_of("matrix.md"), read_table()
    write_report(report, reports.made_before(report), rows, known_rows(report, rows))


def main():
    rows, at = read_table(), objects.begin()
    wanted = os.environ.get("ROWS", "").replace(",", " ").split() or list(rows)
    for name in wanted:
        if name not in rows:
            die(f"there is no row '{name}' in {short(table)}; there are: {' '.join(rows)}")
    report = reports.path_of("matrix.md", at)
    known = known_rows(report, rows)
    trees = git("rev-parse", "HEAD^{tree}", f"{at.tag}^{{tree}}", at=at.tree)
    when = reports.made(git("log", "-1", "--format=%s", at.tag, at=at.tree))
    if stack.changed(at.tree):
        die(f"{short(at.tree)} has changes of its own: commit them and 'make export'")
    how = how_it_is_run()
    failed = 0
    for name in wanted:
        row, start, log = rows[name], time.monotonic(), logs / "deps.log"
        try:
            if " clang " in row.what:
                row.what = row.what.replace(" clang ", f" {newest_clang(at.tree)} ")
            digest = hash_of(f"{trees}\n{row.what}\n{how[row.kind]}{config_of(row)}")[:12]
            if name in known and known[name][4] == digest and known[name][2].startswith("ok"):
                print(f"ok       {name} (before)")
                continue
            print(f"== {name}: {row.what} ", end="", flush=True)
            ok, said, log = run_row(name, row, at)
        except ValueError as problem:
            ok, said, digest = False, str(problem), "-"
        print(f" ({time.monotonic() - start:.0f} s)")
        print(f"{'ok      ' if ok else 'FAILED  '} {name}: {said}")
        if not ok:
            failed += 1
            print(f"    log: {short(log)}")
        known[name] = [name, f"`{row.what}`",
                       reports.cell(f"{'ok' if ok else '**fails**'}: {said}", 300),
                       str(datetime.date.today()), digest]
        write_report(report, when, rows, known)
    print(f"{len(wanted) - failed} passed, {failed} failed; the table is {short(report)}")
    sys.exit(failed > 0)


def groups(name):
    listed = re.findall(r"(?m)^\t\[(\w+)\]=", (top / "scripts/deps.sh").read_text())
    return [name] if name in listed else []


def how_it_is_run():
    """{KIND: what the verdict on a row depends on, besides the trees and the row}."""
    parts = ("boot.sh", "kunit.sh", "common.sh", "guest.sh", "guest-run.sh", "judge.py",
             "splats.sh", "races.sh", "boot-init.c")
    texts = [(top / "scripts" / f).read_text() for f in parts]
    texts += [(top / "configs" / f).read_text() for f in (
        "splats", "boot.config", "arm64.config", "arm.config", "kcsan.config", "kunit-uml.config")]
    own = map(inspect.getsource, (run_objects, compile_objects, divisions))
    return {kind: objects.compilers() + "".join(of) for kind, of in (
        ("make", texts), ("objects", own))}


def config_of(row):
    kernel = re.search(r"\bKERNEL=(\w+)", row.what)
    prefix = "kunit" if row.what.startswith("kunit") else "boot"
    return text_of(top / f"configs/{prefix}-{kernel[1]}.config") if kernel else ""


if __name__ == "__main__":
    run_main(refresh if sys.argv[1:] == ["--refresh"] else main)
