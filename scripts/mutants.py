#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""mutants.py [--list | --check [TREE] | --refresh]: break the stack in one point at a time, as
mutants/table says, and see that the test named there notices, which has to pass without a mutant
first. results/mutants.md has what came of it. One that was killed is not run again while the code
that it changes, its test, the configuration and the compiler are the same, but those that $MUTANTS
names are. --list prints names and tests. --check says what of the table does not fit TREE,
build/linux by default, and where the code has other primitives than mutants/litmus says.
--refresh brings the names in the report up to date and runs nothing.
"""

import os, re, subprocess, sys, time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
import objects, reports
from objects import all_with_dots, bash, hash_of, jobs, text_of
from reports import ITEM
from stack import build, die, git, logs, main_tree, rev, run_main, say, short, top

table = top / "mutants/table"
EDIT = r"((?:-.*\n)+)((?:\+.*\n)*)"
PLACE = rf"([^-+\s]\S*)(?: (\w+))?\n((?:{EDIT})+)"
STANZA = rf"([a-z0-9-]+): .+\n(\w+) (\S+)\n((?:{PLACE})+)"
TESTS = dict(kunit="{}", violation="dma-buf-fence-violations.{}", sparse="{}", cocci="{}",
             litmus="Documentation/litmus-tests/dma-fence/{}.litmus")


def parse():
    text, mutants = re.sub(r"(?m)^#.*", "", table.read_text()) + "\n", {}
    for found in re.finditer(r"(?:.+\n)+", text):
        at = f"{short(table)}:{text.count(chr(10), 0, found.start()) + 1}: "
        if not (stanza := re.fullmatch(STANZA, found[0])) or stanza[1] in mutants:
            die(f"{at}not 'name: text', a test, a file and edits; or the name is there twice")
        name, kind, test, places, *_ = stanza.groups()
        mutants[name] = SimpleNamespace(at=f"{at}{name}: ", kind=kind, test=test, edits=[
            (file, item, *([line[2:] for line in lines.splitlines()] for lines in edit))
            for file, item, edits, *_ in re.findall(PLACE, places)
            for edit in re.findall(EDIT, edits)])
    return mutants


def applied(mutant, tree):
    """The files that it changes, as they become."""
    files = {}
    for file, item, old, new in mutant.edits:
        if not (tree / file).is_file():
            raise ValueError(f"{mutant.at}there is no {file}")
        text = files.get(file) or (tree / file).read_text()
        spans = [m.span() for m in re.finditer(ITEM.format(item), text)] if item else [(0, None)]
        if not spans:
            raise ValueError(f"{mutant.at}{file} has no {item}")

        def find(lines):
            words = [r"[ \t]+".join(map(re.escape, line.split())) for line in lines]
            search = re.compile(r"(?m)^([ \t]*)" + r"[ \t]*\n[ \t]*".join(words) + r"[ \t]*$")
            return [m for a, b in spans for m in search.finditer(text, a, b or len(text))]

        if len(found := find(old)) != 1:
            gone = [f"no line '{line.strip()}'" for line in old if not find([line])]
            gone += [f"{len(found)} places '{' '.join(' '.join(old).split())}'"]
            raise ValueError(f"{mutant.at}{item and f'{item} in '}{file} has {gone[0]}")
        start, end = found[0].span()
        files[file] = text[:start] + "\n".join(found[0][1] + line for line in new) + text[end:]
    return files


def check(tree):
    known, problems = reports.kunit_cases(tree), []
    violations = (top / "scripts/violations.sh").read_text()
    for m in mutants.values():
        try:
            applied(m, tree)
        except ValueError as problem:
            problems.append(problem)
        test = TESTS.get(m.kind, "").format(m.test)
        if not test:
            problems.append(f"{m.at}'{m.kind}' is no kind of test")
        elif test not in known and not (tree / test).is_file():
            problems.append(f"{m.at}there is no test {test}")
        elif m.kind == "violation" and f"\n{m.test}\t" not in violations:
            problems.append(f"{m.at}violations.sh has no case {m.test}")
    tests = {(m.kind, m.test) for m in mutants.values()}
    models = [m for m in mutants.values() if m.kind == "litmus"]
    print(*problems, f"{len(mutants) - len(models)} mutants of the code, {len(models)} of litmus "
          f"tests only, {len(tests)} tests", sep="\n")
    return bool(problems)


# What a line of a litmus test may stand for, where the code has a primitive at all.
MODELS = {
    r"atomic_fetch_or": r"test_and_set_bit\(",
    r"atomic_read_acquire":
        r"(test_bit_acquire|atomic_read_acquire|dma_fence_(test_signaled_flag|is_signaled))\(",
    r"(spin_lock|xchg_acquire)": r"dma_fence_(lock_irqsave|assert_held)\(",
    r"(spin_unlock|smp_store_release)": r"dma_fence_unlock_irqrestore\(",
    r"(rcu_\w+|atomic_sub_return)": r"\1\(",
}
CODE = "drivers/dma-buf", "include/linux"
LITMUS = "Documentation/litmus-tests/dma-fence"


def inside(tree, file, item):
    """The text of a function without its comments."""
    found = re.search(ITEM.format(item), (tree / file).read_text())
    return found and re.sub(r"/\*[\s\S]*?\*/", "", found[0])


def stanza_problems(tree, test, process, parts):
    litmus = (tree / LITMUS / f"{test}.litmus").read_text()
    body = re.search(rf"(?m)^{process}\([\s\S]*?^\}}", litmus)
    if not body:
        return [f"there is no {process}"]
    body, rest, problems = body[0], 0, []
    for file, item, rows in parts:
        text, at = inside(tree, file, item), 0
        if not text:
            return [f"{file} has no {item}"]
        for code, line in rows:
            if (rest := body.find(line, rest) + len(line)) < len(line):
                return problems + [f"{process} has no '{line}' here"]
            if code == "-":
                continue
            if (at := text.find(code, at) + len(code)) < len(code):
                return problems + [f"{item}() has no '{code}' here"]
            for model, primitive in MODELS.items():
                m = re.search(rf"\b{model}\(", line)
                if m and not re.search(m.expand(primitive), code):
                    problems.append(f"'{code}' is no '{line}'")
    named = [line for _, _, rows in parts for _, line in rows]
    for line in map(str.strip, body.splitlines()[1:]):
        if re.search(r"\w\(|^\*|(?<!int) \*", line) and not any(name in line for name in named):
            problems.append(f"nothing stands for '{line}' of {process}")
    return problems


def check_litmus(tree):
    text, problems, places = (top / "mutants/litmus").read_text(), [], set()
    for stanza in re.findall(r"(?:.+\n)+", re.sub(r"(?m)^#.*", "", text) + "\n"):
        (test, process), *lines = [line.split() for line in stanza.splitlines()
                                   if " ~ " not in line]
        rows = re.split(r"(?m)^[^~\n]*\n", stanza)[2:]
        parts = [(file, item, re.findall(r"(?m)^(.*) ~ (.*)$", row))
                 for (file, item), row in zip(lines, rows)]
        if not (tree / LITMUS / f"{test}.litmus").is_file():
            problems.append(f"there is no litmus test {test}")
            continue
        places |= {(test, item) for _, item, _ in parts}
        problems += [f"{test}: {p}" for p in stanza_problems(tree, test, process, parts)]
    for path in [p for where in CODE for p in (tree / where).glob("dma-fence*.[ch]")]:
        for item in re.finditer(r"(?m)^(?:\w.*?)??(\w+)\([^;{}]*\{[\s\S]*?^\}", path.read_text()):
            for names in re.findall(r"Litmus: ([^.]*)\.", item[0]):
                # a{b,c} is ab, ac
                names = re.sub(r"(\S+)\{(.*)\}",
                               lambda m: ", ".join(m[1] + n for n in m[2].split(",")), names)
                for name in re.split(r",[\s*]+", names):
                    if (name, item[1]) not in places:
                        problems.append(f"mutants/litmus has no place for {name} in {item[1]}()")
    never = [p.stem for p in (tree / LITMUS).glob("*.litmus") if "Result: Never" in p.read_text()]
    problems += [f"{t}: no place in the code" for t in never if t not in {t for t, _ in places}]
    print(*problems, f"{len(places)} places of litmus tests", sep="\n")
    return bool(problems)


# ---- who notices ----------------------------------------------------------------------

work, out, log = build / "mutants", build / "mutants.kunit-um", logs / "mutant"
config, kernel_log = Path(f"{out}.config"), Path(f"{log}.kernel.log")
build_log = logs / "mutant-build.log"
FAILED = r"[A-Z]+ION FAILED at .*"
SURVIVED, COCCI = "**survived**", "scripts/coccinelle/misc/dma_fence.cocci"


def first(pattern, text):
    found = re.search(rf"(?m){pattern}", text)
    return (found[1] if found.re.groups else found[0]) if found else ""


def output(*argv, where=work):
    """What a tool says, and whether it succeeds."""
    run = subprocess.Popen(list(map(str, argv)), cwd=where, stdin=subprocess.DEVNULL, text=True,
                           errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           process_group=0)
    Path(f"{log}.log").write_text(text := objects.finish(run))
    return text, not run.returncode


def splat():
    said = subprocess.run([top / "scripts/splats.sh", kernel_log], capture_output=True, text=True)
    return first(r"^[^ ]*: (.*)", said.stdout)


def kunit(name, *options, judge=True):
    """A case in a boot of its own. The kernel log counts from the case on."""
    suite = name.rpartition(".")[0]
    rc, *cases = bash('rc=0; kunit_exec "$@" || rc=$?; printf "%s\\n" $rc "$cases"', work, out, log,
                      name, "--kernel_args", "kasan_multi_shot", "--timeout", "150", *options,
                      process_group=0, stdin=subprocess.DEVNULL)
    said = first(rf"(# Subtest: {re.escape(suite)}\r?$[\s\S]*)", text_of(out / "test.log"))
    kernel_log.write_text(said)
    if not said or re.search(r"tests: skipped: \d+$", cases[0]):
        return None
    if rc == "0":
        return splat() if judge else ""
    return splat() or first(FAILED, said) or "the case fails, or never ends"


def violation(name):
    """The report that the case has to end with."""
    why = kunit(f"dma-buf-fence-violations.{name}", "--kernel_args", "dmabuf_kunit.provoke=1",
                judge=False)
    if why != "":
        return why
    report = first(rf"^{name}\t+(.*)", (top / "scripts/violations.sh").read_text())
    return "" if report in text_of(kernel_log) else f"not reported: {report}"


def litmus(name):
    said, _ = output("timeout", "300", build / "tools/bin/herd7", "-conf", "linux-kernel.cfg",
                     f"../../{LITMUS}/{name}.litmus", where=work / "tools/memory-model")
    result = first(r"^Observation \S+ (\S+)", said)
    right = first(r"^[( ]\* Result: *(\S+)$", text_of(work / LITMUS / f"{name}.litmus"))
    return None if not result else "" if result == right else f"the result is {result}"


def sparse(name):
    goal = name.removesuffix(".c") + ".o"
    (out / goal).unlink(missing_ok=True)
    said, built = output("make", "-s", "ARCH=um", f"O={out}", "W=1", "C=1",
                         f"CHECK={build}/tools/bin/sparse", goal)
    return first(r": (?:warning|error): (.*)", said) if built else None


def cocci(name):
    options = first(r"^// Options: (.*)", text_of(work / COCCI)).split()
    said, ran = output("spatch", "-D", "report", "--very-quiet", "--no-show-diff", "--timeout",
                       "120", "--cocci-file", COCCI, *options, "-I", "include", name)
    return first(rf"^{re.escape(name)}:[^ ]* (.*)", said) if ran else None


def try_one(mutant, without):
    """Whether it is killed, by what, and the log of that."""
    said = Path(f"{log}.log")
    if without != "":
        return False, "the test does not pass without it", said
    try:
        for file, text in applied(mutant, work).items():
            (work / file).write_text(text)
    except ValueError as problem:
        return False, f"does not apply: {problem}", None
    if mutant.kind in ("kunit", "violation") and not built(dots=False):
        return False, "does not build: " + first(".*[eE]rror.*", text_of(build_log)), build_log
    why = KIND[mutant.kind](mutant.test)
    return bool(why), "the test did not run" if why is None else why, said


def built(dots=True):
    return all_with_dots(build_log, [objects.KUNIT, "build", f"--build_dir={out}",
                                              f"--kunitconfig={config}", f"--jobs={jobs}"],
                         cwd=work, dots=dots)


def digest(mutant, tree, suites):
    """Of what its result depends on: the code, the test, the configuration and the compiler."""
    test = TESTS[mutant.kind].format(mutant.test)
    files = [suites.get(test, test), COCCI] if mutant.kind == "cocci" else [suites.get(test, test)]
    how = [text_of(top / f) for f in ("configs/kunit-uml.config", "scripts/violations.sh")]
    how += [reports.version("gcc", "-dumpfullversion"), mutant.kind, mutant.test]
    return hash_of("\n".join([*how, *(text_of(tree / f) for f in files),
                              *applied(mutant, tree).values()]))[:12]


def write_report(known, when, report):
    """The rows of all mutants, in order; the known ones with what came of them."""
    rows = [known.get(name) or [name, f"{m.kind} {m.test}", reports.NOT, "-", "-"]
            for name, m in mutants.items()]
    count = Counter((row[1].startswith("litmus "), row[2].split(":")[0]) for row in rows)
    reports.write(report, reports.head(
        "The stack, broken in one point at a time", "make mutants", when, reports.share(rows),
        f"{count[False, 'killed']} in the code are killed, {count[False, SURVIVED]} survive; of "
        f"those that are in a litmus test only {count[True, 'killed']} and "
        f"{count[True, SURVIVED]}. `mutants/table` has each with the test that has to notice. "
        'A row is of the commit that it names, and is run again when the code that it changes, '
        "its test, the configuration or the compiler is another; `make mutants MUTANTS=NAME` "
        "runs it in any case.") +
        "| mutant | test | result | commit | digest |\n|---|---|---|---|---|\n" +
        reports.lines(rows))


def known_rows(report):
    """Those of mutants that there are, with the same test."""
    return {row[0]: row for row in reports.rows_of(report) if reports.measured(row) and
            row[0] in mutants and row[1] == f"{mutants[row[0]].kind} {mutants[row[0]].test}"}


def main(names):
    at = objects.places()
    if not at.tree.is_dir():
        die("there is no work tree yet: run 'make tree' first")
    if git("status", "--porcelain", "-uno", at=at.tree):
        say(f"{short(at.tree)} has uncommitted changes: they are not used, only HEAD is")
    list(map(print, bash('own_tree "$1" "$2"', work, rev("HEAD", at.tree))))
    report, suites, digests = reports.path_of("mutants.md", at), reports.kunit_cases(work), {}
    known, count = known_rows(report), Counter()
    when = reports.made(git("log", "-1", "--format=%s", at.tag, at=at.tree))
    for name in names:
        try:
            digests[name] = digest(mutants[name], work, suites)
        except ValueError:
            digests[name] = "-"    # it does not apply: said below
    wanted = {name: mutants[name] for name in names}
    for name in names if not os.environ.get("MUTANTS") else ():
        row = known.get(name)
        if row and row[2].startswith("killed") and row[4] == digests[name]:
            count[wanted.pop(name).kind == "litmus", True] += 1
    if wanted:
        say(f"{len(names) - len(wanted)} of {len(names)} are known from before")
        run_these(wanted, count, known, digests, lambda: write_report(known, when, report))
    print(f"{count[False, True]} killed, {count[False, False]} survived;",
          f"litmus: {count[True, True]}, {count[True, False]}; the table is {short(report)}")
    sys.exit(count[False, False] + count[True, False] > 0)


def run_these(wanted, count, known, digests, keep):
    """One after the other; what came of it is kept at once."""
    if any(m.kind not in ("litmus", "cocci") for m in wanted.values()):
        config.write_text((top / "configs/kunit-uml.config").read_text())
        bash('need_space 4000 "the KUnit kernel"')
        print("== building the KUnit kernel (10 to 15 minutes from cold) ", end="", flush=True)
        if not built():
            die(f"the KUnit kernel does not build; the whole log is {short(build_log)}")
        print(" done")
    for tool in "herd7", "sparse":
        if subprocess.run([top / "scripts/debian.sh", "tool", tool]).returncode:
            die(f"there is no {tool}")
    say("the named tests, without a mutant")
    without, commit = {}, reports.commit()
    for kind, test in {(m.kind, m.test): None for m in wanted.values()}:
        why = without[kind, test] = KIND[kind](test)
        if why != "":
            print(f"FAILED   {f'{kind} {test}':62} {why or 'the test did not run'}", flush=True)
    print(f"{len(without)} tests", flush=True)
    try:
        for name, m in wanted.items():
            start = time.monotonic()
            killed, why, said = try_one(m, without[m.kind, m.test])
            count[m.kind == "litmus", killed] += 1
            if not killed and said and said.exists():
                Path(f"{log}-{name}.log").write_text(text_of(said))
            print(f"{'killed' if killed else 'SURVIVED':8} {name:38} "
                  f"{time.monotonic() - start:4.0f} s  {m.kind} {m.test}{why and ': '}{why[:100]}",
                  flush=True)
            git("reset", "-q", "--hard", at=work)
            result = reports.cell(f"{'killed' if killed else SURVIVED}{why and ': '}{why}")
            known[name] = [name, f"{m.kind} {m.test}", result, commit, digests[name]]
            keep()
    finally:
        git("reset", "-q", "--hard", at=work)


def chosen():
    names = os.environ.get("MUTANTS", "").split() or list(mutants)
    for name in names:
        if name not in mutants:
            die(f"there is no mutant '{name}' in {short(table)}")
    return names


KIND = dict(kunit=kunit, violation=violation, sparse=sparse, cocci=cocci, litmus=litmus)
mutants = parse()
if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--list"]:
            for name in chosen():
                print(name, mutants[name].kind, mutants[name].test)
        case ["--check", *tree]:
            tree = Path(*tree) if tree else main_tree
            sys.exit(check(tree) | check_litmus(tree))
        case ["--refresh"]:
            report = reports.path_of("mutants.md")
            write_report(known_rows(report), reports.made_before(report), report)
        case []:
            run_main(lambda: main(chosen()))
        case _:
            die("usage: mutants.py [--list | --check [TREE] | --refresh]")
