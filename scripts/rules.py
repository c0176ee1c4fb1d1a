#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""rules.py [FILE... | --refresh]: break what the stack adds, statement by statement, and see a
test notice.

Nobody chooses where: each statement that the stack adds or changes is left out, and swapped with
its neighbour; each jump left out; each condition negated, each number changed, each operator
replaced, the other value returned. All are in one kernel for UML, where "rule_broken=N" picks one,
so that nothing is built again. Each is to make one of the suites or selftests that reach it fail,
hang, or leave a splat. What is found is kept, by content, so the same command goes on where it was
ended. results/rules.md lists those that nobody notices, or on another base a file in build/;
mutants/unnoticed says why they need not be. Fails if less than 95 percent of the others are
noticed, or if mutants/unnoticed is not right. With --refresh nothing runs: the report has the files
that the patches change now, and what is known of them.
"""

import bisect, fnmatch, hashlib, inspect, json, os, re, subprocess, sys
import queue, threading, time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import SimpleNamespace
import judge, objects, reports, stack
from objects import all_with_dots, bash, jobs, text_of
from stack import build, die, git, logs, run_main, short, top

SCOPE = ("drivers/dma-buf/*.c", "include/linux/dma-*.h", "include/linux/sync_file.h",
         "drivers/gpu/drm/*.c", "drivers/gpu/drm/vkms/*.c", "drivers/gpu/drm/vgem/*.c",
         "drivers/gpu/drm/scheduler/*.c")
PROGRAMS = ("out_fence_lifetime", "writeback_fence_lifetime", "fence_module_unload", "fence_error",
            "fence_describe", "fence_uapi", "fence_faults")
work = build / "rules"
# A kernel for KUnit boots in less time than one that has a userspace.
kunit_out, out = build / "rules.um", build / "rules.um-soak"
reasons = top / "mutants/unnoticed"
# A test that waits busily takes two CPUs, and what a fault has stopped takes none.
lanes = max(1, int(jobs) // 2)
SUSPECTS = "value operator init return swap jump negate delete".split()
LONG = 10		# seconds that a suite may take before its cases run one by one
FEW = 4		# units that are tried for each fault before all others are
KINDS = "return init value operator negate delete jump skip swap".split()
CONSTANT = re.compile(r"\b(?:BUILD_BUG\w*|static_assert|lockdep_\w+|sizeof|typeof)\s*(\([^;{}]*)$")
BOUND = re.compile(r"[;{}]\s*(?:(?!return)\w+\s+)+\**\w+\[[^];{}=]*$")
# Functions and files in which coccinelle finds nothing; of a file and a unit, how often it noticed,
# and ran.
WITHOUT, EMPTY = [], []
COUNTS, LANES, STOP = defaultdict(lambda: (0, 0)), queue.SimpleQueue(), threading.Event()
NO_END, NO_BOOT = "it does not come to its end", "it does not boot"
LATE = re.compile("blocked.* for more|stall|soft lockup")
# Checks, and what has to be there for the kernel to build.
NEVER = re.compile(r"^(lockdep_assert\w*|might_\w+|BUILD_BUG\w*|static_assert|guard|scoped_\w+"
                   r"|CLASS|DEFINE_\w+|DECLARE_\w+|LIST_HEAD|__\w*(acquire|release)s?|kunit_\w+)\b"
                   r"|IS_ENABLED|IS_REACHABLE|__builtin")
INVERSE = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "+": "-", "-": "+", "&": "|", "|": "&"}
HEADER = """/* SPDX-License-Identifier: GPL-2.0 */
#ifndef __LINUX_RULES_H
#define __LINUX_RULES_H
extern int rule_broken;
extern unsigned char rule_seen[];
#define RULE(n) (rule_seen[n] = 1, *(volatile int *)&rule_broken == (n))
#define RULE_OTHER(n, e) ({ __auto_type __other = (e); \\
	RULE(n) ? (__typeof__(__other))(unsigned long)!__other : __other; })
#endif
"""
CODE = """// SPDX-License-Identifier: GPL-2.0
#include <linux/export.h>
#include <linux/init.h>
#include <linux/kernel.h>
#include <linux/reboot.h>
#include <linux/rules.h>
int rule_broken;
EXPORT_SYMBOL(rule_broken);
unsigned char rule_seen[%d];
EXPORT_SYMBOL(rule_seen);
static int __init pick(char *text) { return kstrtoint(text, 0, &rule_broken) ? : 1; }
__setup("rule_broken=", pick);
static int print(struct notifier_block *nb, unsigned long event, void *data)
{
	int n;

	for (n = 0; n < ARRAY_SIZE(rule_seen); n++)
		if (rule_seen[n] && rule_broken < 0)
			pr_info("rule_seen %%d\\n", n);
	return NOTIFY_DONE;
}
static struct notifier_block notifier = { .notifier_call = print };
static int __init start(void) { return register_reboot_notifier(&notifier); }
core_initcall(start);
"""
COLUMNS = "killed", "need", "survived", "never", "todo"
HEAD = ("| file | faults | killed | nobody needs to notice | survived | not reached "
        "| not run yet |\n|---|---:|---:|---:|---:|---:|---:|\n")


# ---- where ----------------------------------------------------------------------------

def sites_of(file):
    """What coccinelle finds in the lines that the stack adds."""
    diff = git("diff", "-U0", at.tag, at.head, "--", file, at=work)
    added = set()
    for start, count in re.findall(r"(?m)^@@ -\S+ \+(\d+)(?:,(\d+))? @@", diff):
        added |= set(range(int(start), int(start) + int(count or 1)))
    said = subprocess.run(["spatch", "-D", "report", "--very-quiet", "--no-show-diff",
                           "--macro-file", top / "scripts/rules-macros.h",
                           "--cocci-file", top / "scripts/rules.cocci", at.tree / file],
                          capture_output=True, text=True)
    if said.returncode:
        die(f"spatch {file}: {said.stderr.strip()[-300:]}")
    text = (at.tree / file).read_text()
    lines = [0, *(m.end() for m in re.finditer("\n", text))]
    sites, found = {}, {}
    for kind, function, *place in map(str.split, said.stdout.splitlines()):
        line, first, end_line, last = map(int, place)
        start, end = lines[line - 1] + first, lines[end_line - 1] + last
        if function != "something_else" and added & set(range(line, end_line + 1)):
            found[kind, start, end] = SimpleNamespace(
                file=file, function=function, kind=kind, start=start, end=end, line=line,
                text=text[start:end])
    returned = {(s, e) for kind, s, e in found if kind == "return"}
    for site in sorted(found.values(), key=lambda s: (s.start, -s.end, KINDS.index(s.kind))):
        if fits(site, text, returned):
            sites[site.kind, site.start, site.end] = site
    for site in [s for s in sites.values() if s.kind == "delete"]:
        if after := neighbour(site, text, sites):
            swap = SimpleNamespace(**vars(site) | dict(kind="swap", after=after))
            swap.text = f"{site.text}; {after.text}"
            sites["swap", site.start, site.end] = swap
    seen = {s.function for s in sites.values()}
    for body in re.finditer(r"(?m)^\w[^;{}=#]*?\b(\w+)\([^;{}]*\)\n\{\n[\s\S]*?^\}", text):
        first = text.count("\n", 0, body.start()) + 1
        mine = [text[lines[n - 1]:lines[n] - 1] for n in added
                if first < n < first + body[0].count("\n")]
        if body[1] not in seen and any(re.search(r"^\s[^/*]*[;)]", line) for line in mine):
            WITHOUT.append(f"{file}:{body[1]}")
    return list(sites.values()), text


def fits(site, text, returned):
    """Whether it can be broken, with RULE(%d) where that decides, in site.form."""
    t, number = site.text, r"\d\w*|\w+_BIT"
    form = ""
    before = text[max(0, site.start - 300):site.start]
    constant = CONSTANT.search(before)
    if constant and constant[1].count("(") > constant[1].count(")") or \
            BOUND.search(before) and site.kind in ("value", "operator"):
        return False
    if NEVER.search(t) or "#" in t or '"' in t and site.kind != "delete":
        return False
    match site.kind:
        case "jump":
            # at the end of a function coccinelle sees one, too
            if not re.match("goto|break|continue|return", t):
                return False
            site.end = text.index(";", site.end) + 1
            form = "{{ if (!RULE({n})) {own} }}"
            if re.match(r"\s*\n\}", text[site.end:]):
                return False
        case "delete":
            form = "({{ if (!RULE({n})) {{ {own}; }} }})"
        case "negate":
            form = "(RULE({n}) ^ !!({own}))"
        case "init" if re.search(r"\w\(|->", t) and not re.match(r"container_of|to_\w+\(", t):
            form = "RULE_OTHER({n}, ({own}))"
        case "return" if re.fullmatch("true|false", t):
            form = "(RULE({n}) ^ {own})"
        case "return" if t != "NULL":
            form = "(RULE({n}) ? -EINVAL : {own})" if t == "0" else \
                "(RULE({n}) ? 0 : {own})" if t.startswith("-E") else "RULE_OTHER({n}, ({own}))"
        case "value" if (site.start, site.end) not in returned and \
                not re.search(r"return -$", text[:site.start]):
            defined = rf"(?m)^(#define {re.escape(t)}\s|\t{re.escape(t)}( =.*)?,$)"
            if re.fullmatch("true|false", t):
                form = "(RULE({n}) ^ {own})"
            elif re.fullmatch(r"E[A-Z0-9]{2,}", t):
                form = "(RULE({n}) ? 0 : {own})"
            elif re.fullmatch(number, t) or re.search(defined, text):
                form = "(({own}) + RULE({n}))"
        case "operator":
            left, op, right = split_operator(t)
            other = braces(f"{left} {INVERSE.get(op)} {right}")
            form = op and f"(RULE({{n}}) ? ({other}) : ({{own}}))"
    site.form = form
    return bool(form)


def split_operator(text):
    """The last operator outside of brackets with the least binding, as C has it."""
    depth, where = 0, {}
    for m in re.finditer(r"->|<<|>>|&&|\|\||<=|>=|==|!=|[-+]{2}|[-+*/%&|<>()\[\]?]", text):
        depth += (m[0] in "([") - (m[0] in ")]")
        unary = not re.search(r"[\w)\]]\s*$", text[:m.start()])
        if not depth and m[0] in INVERSE and not unary:
            where[m[0]] = m
    for rank in ("|", "&", ("<=", ">=", "<", ">"), ("+", "-")):
        if at := [m for op, m in where.items() if op in rank]:
            m = max(at, key=lambda m: m.start())
            return text[:m.start()].strip(), m[0], text[m.end():].strip()
    return "", "", ""


def neighbour(site, text, sites):
    """The statement after it, in the same block. One of them is a call, or it cannot matter."""
    before = re.sub(r"(\s|/\*((?!\*/).)*\*/)*$", "", text[max(0, site.start - 2000):site.start],
                    flags=re.S)
    gap = re.match(r";(\s|/\*.*?\*/)*", text[site.end:], re.S)
    if not gap or not before.endswith((";", "{", "}")):
        return None
    start = site.end + gap.end()
    other = next((s for (kind, where, _), s in sites.items()
                  if kind == "delete" and where == start), None)
    return other if other and ("(" in site.text or "(" in other.text) else None


# ---- the kernel that has them all -----------------------------------------------------

def render(text, start, end, spans):
    """TEXT from START to END, with each of SPANS inside it broken by its number."""
    inside = [s for s in spans if start <= s.start and s.end <= end]
    parts, at_char = [], start
    while inside:
        outer = min(inside, key=lambda s: (s.start, -s.end, -KINDS.index(s.kind)))
        inner = [s for s in inside if s is not outer and s.start >= outer.start and
                 s.end <= outer.end]
        parts.append(text[at_char:outer.start])
        own = render(text, outer.start, outer.end, inner)
        form = outer.form
        if outer.kind == "swap":
            after = outer.after
            other = render(text, after.start, after.end, [
                s for s in spans if s.kind not in ("skip", "swap") and after.start <= s.start and
                s.end <= after.end])
            form = f"({{{{ if (RULE({{n}})) {{{{ {braces(one_line(other))}; }}}} {{own}}; }}}})"
        parts.append(form.format(n=outer.number, own=own))
        at_char = outer.end
        inside = [s for s in inside if s.start >= outer.end]
    return "".join([*parts, text[at_char:end]])


def braces(text):
    return text.replace("{", "{{").replace("}", "}}")


def one_line(text):
    return re.sub(r"\s+", " ", re.sub(r"/\*.*?\*/", "", text, flags=re.S))


def write_broken(file, text, sites):
    # What a swap has done before is not done again.
    spans = sites + [SimpleNamespace(
        kind="skip", start=s.after.start, end=s.after.end, number=s.number,
        form="({{ if (!RULE({n})) {{ {own}; }} }})") for s in sites if s.kind == "swap"]
    write(work / file, "#include <linux/rules.h>\n" + render(text, 0, len(text), spans))


def write(path, text):
    """Not again, or it is built again."""
    if text_of(path) != text:
        path.write_text(text)


def build_kernel(files):
    """Those that the compiler refuses are taken out."""
    objects_of = [f.removesuffix(".c") + ".o" for f in files if f.endswith(".c")]
    set_up = f"""tree={work} guest_config=(kunit-uml.config uml-soak.config) guest_arch=um
        guest_suffix=um-soak; . "$top/scripts/guest.sh"; mkdir -p "$out"
        kmake() {{ make -C "$tree" ARCH=um O="$out" -j"$jobs" KCFLAGS=-w "$@"; }}
        programs=({" ".join(PROGRAMS)})"""
    shell = lambda what: ["bash", "-c", f'no_places=1; . "$0/common.sh"; {set_up}; {what}',
                          top / "scripts"]
    suites = [objects.KUNIT, "build", f"--build_dir={kunit_out}", f"--jobs={jobs}",
              f"--kunitconfig={top}/configs/kunit-uml.config", "--make_options", "KCFLAGS=-w",
              "--kconfig_add", "CONFIG_INIT_STACK_ALL_PATTERN=y"]
    make = ["make", "-C", work, "ARCH=um", f"O={out}", f"-j{jobs}"]
    log = logs / "rules-build.log"
    write(work / "include/linux/rules.h", HEADER)
    refused = load_known().get("refused", [])
    names = {s.name for _, sites in files.values() for s in sites if s.digest in refused}
    for _, sites in files.values():
        sites[:] = [s for s in sites if s.digest not in refused]
    old = git("diff", "--name-only", "HEAD", at=work).split("\n")
    if old := [f for f in old if f and f not in files and f != "lib/Makefile"]:
        git("checkout", "-q", "HEAD", "--", *old, at=work)
    # the name of the kernel says whether the tree has changes
    for file, (text, sites) in files.items():
        write_broken(file, text, sites)
    if not all_with_dots(log, shell("guest_configure"), [*make, "prepare"]):
        die(f"the kernel cannot be configured, see {short(log)}")
    while True:
        for file, (text, sites) in files.items():
            write_broken(file, text, sites)
        number = max(s.number for _, sites in files.values() for s in sites) + 1
        write(work / "lib/rules.c", CODE % number)
        if all_with_dots(log, [*make, "-k", "KCFLAGS=-w", "modules_prepare", "lib/rules.o",
                               *objects_of]):
            break
        wrong = set(re.findall(r"(?m)^\S*?/((?:drivers|include)/\S+?):(\d+):\d+: "
                               "(?:error|note: in expansion)", text_of(log)))
        less = 0
        for file, (text, sites) in files.items():
            lines = [0, *(m.end() for m in re.finditer("\n", text))]
            for bad in {int(line) - 1 for name, line in wrong if name == file}:
                # One kind after the other, so that others on the line are not lost.
                there = [s for s in sites
                         if s.line <= bad <= bisect.bisect_right(lines, s.end - 1)]
                kind = next((k for k in SUSPECTS if any(s.kind == k for s in there)), "")
                gone = [s for s in there if s.kind == kind]
                gone += [s for s in sites if s.kind == "swap" and s.after in gone]
                refused += [s.digest for s in gone]
                names |= {s.name for s in gone}
                sites[:] = [s for s in sites if s not in gone]
                less += len(gone)
        print(f" {less} do not compile", end="", flush=True)
        if not less:
            die(f"a broken file does not compile, see {short(log)}")
    write_known(load_known() | {"refused": refused})
    makefile = git("show", "HEAD:lib/Makefile", at=work)
    write(work / "lib/Makefile", f"{makefile}\nobj-y += rules.o\n")
    if not all_with_dots(log, suites, shell("guest_build"), cwd=work):
        die(f"the kernel does not build, see {short(log)}")
    return refused, names


# ---- who notices ----------------------------------------------------------------------

def run_suite(lane, suite, number, limit):
    """Why it does not pass, and the log of the kernel."""
    log, given = f"{logs}/rules-{lane.name}", []
    for option in "kasan_multi_shot", "kunit.autorun=1", f"rule_broken={number}":
        given += "--kernel_args", option
    # A kernel whose locks are broken may not end when kunit.py asks it to.
    run = (f'kunit="timeout -k 5 {limit + 20} $kunit"; rc=0; kunit_exec "$@" || rc=$?; '
           'printf "%s\\n" "" result $rc "$ran" ${splats:+"$splats"}')
    said = bash(run, work, lane, log, suite, *given, "--timeout", limit, process_group=0,
                stdin=subprocess.DEVNULL)
    # What takes long says so before.
    rc, ran, *splats = said[said.index("result") + 1:]
    end_kernels(lane)
    text, kernel = text_of(Path(f"{log}.log")), text_of(Path(f"{log}.kernel.log"))
    failed = re.search(r"(?m)^.*\[FAILED\] (\w+)\s*$", text)
    # One that is ended from outside complains of that.
    why = NO_END if "timed out after" in text else \
        NO_BOOT if "KTAP version" not in kernel else \
        splats[0].partition(": ")[2] if splats else "" if rc == "0" and int(ran) else \
        f"{failed[1]} fails" if failed else NO_END
    return why, kernel


def end_kernels(lane):
    subprocess.run(["pkill", "-KILL", "-f", f"^{lane}/linux[^ ]* "])


def run_program(lane, unit, number, limit):
    program, _, case = unit.partition(".")
    log = logs / f"rules-{lane.name}.kernel.log"
    argv = [lane / "linux-user", "mem=1G", "seccomp=on", "ncpus=2", "console=tty", "panic=-1",
            f"initrd={out}/initramfs.cpio", "kasan_multi_shot", "kunit.enable=0",
            f"selftest={program}", f"selftest_timeout={limit}", f"rule_broken={number}",
            "WRITEBACK_FENCE_ROUNDS=5", "FENCE_UAPI_SEED=1", "FENCE_FAULTS_SEED=1",
            *([f"selftest_only={case}"] if case else [])]
    with open(log, "w") as to:
        run = subprocess.Popen(["timeout", "-k", "5", str(limit + 10), *map(str, argv)], stdout=to,
                               stderr=to, stdin=subprocess.DEVNULL, process_group=0)
        objects.finish(run)
    end_kernels(lane)
    # what UML lacks is skipped
    said, text = judge.selftest(log, ended=not run.returncode), text_of(log)
    why = NO_END if run.returncode in (124, 137) else NO_BOOT if "TAP version" not in text else \
        said.splats[0] if said.splats else f"{said.failed[0]} fails" if said.failed else \
        "" if said.good else NO_END
    return why, text


def run_unit(lane, unit, number, limit):
    program = unit.partition(".")[0] in PROGRAMS
    return (run_program if program else run_suite)(lane, unit, number, limit)


def in_order(site, units):
    """Those that reach it, first those that often notice."""
    def worth(unit):
        killed, ran = COUNTS[site.file, unit]
        return -(killed + 1) / (ran + 2) / units[unit].seconds

    return sorted((u for u in units if site.number in units[u].seen), key=worth)


def together(names, units):
    """(unit, seconds): what is left of a suite that was taken apart runs in one go if that takes
    less time."""
    apart = defaultdict(list)
    for unit in names:
        apart[unit.partition(".")[0]].append(unit)
    runs = []
    for whole, parts in apart.items():
        took, each = units[parts[0]].whole, sum(units[u].seconds for u in parts)
        runs += [(whole, took)] if took and took < each else [(u, units[u].seconds) for u in parts]
    return runs


def try_site(site, units, tried):
    """The first of these units that notices. With no list of those that were TRIED only a FEW are,
    and found[1] is their list if none does."""
    lane = LANES.get()
    try:
        order = in_order(site, units)
        runs = [(u, units[u].seconds) for u in order[:FEW]] if tried is None else \
            together([u for u in order if u not in tried], units)
        for unit, seconds in runs:
            limit = int(seconds * 3) + 20
            why, _ = run_unit(lane, unit, site.number, limit)
            # Once is chance, of a test or of a busy machine. What KASAN has seen is not.
            if in_doubt(why):
                why, _ = run_unit(lane, unit, site.number, 2 * limit)
            if in_doubt(why):
                other, _ = run_unit(lane, unit, 0, limit)
                if other and not STOP.is_set():
                    print(f"{unit} says of nothing broken: {other}", flush=True)
                    why = ""
            # Or it is us who ended the kernel.
            if STOP.is_set():
                return None
            killed, ran = COUNTS[site.file, unit]
            COUNTS[site.file, unit] = killed + bool(why), ran + 1
            if why:
                source = next(u.source for name, u in units.items()
                              if name.partition(".")[0] == unit.partition(".")[0])
                return [site.digest, unit, why, source]
        if tried is None:
            return [site.digest, [unit for unit, _ in runs], "", ""]
        return [site.digest, "", "reached" if order else "", ""]
    finally:
        LANES.put(lane)


def in_doubt(why):
    return why.endswith(" fails") or why in (NO_END, NO_BOOT) or LATE.search(why)


def name_of(site):
    return " ".join(f"{site.file}:{site.function} {site.kind} {site.text}".split())


def identify(files):
    """A name for each that survives an edit elsewhere, a number, and what it is made of."""
    seen = Counter()
    for file, (text, sites) in files.items():
        for site in sites:
            name = name_of(site)
            seen[name] += 1
            site.name = name + (f" #{seen[name]}" if seen[name] > 1 else "")
            site.number = sum(seen.values())
            whole = text[text.rfind("\n}", 0, site.start) + 1:text.find("\n}", site.end)]
            site.digest = hashlib.sha1(f"{site.name} {site.form} {whole}".encode()).hexdigest()[:12]


def main():
    global at
    at = objects.places()
    os.environ.update(objects.same_objects())
    at.head = stack.rev("HEAD", at.tree)
    if git("status", "--porcelain", "-uno", at=at.tree):
        die(f"{short(at.tree)} has changes of its own: commit them")
    if stack.rev("HEAD", work) != at.head:
        bash('own_tree "$1" "$2"', work, at.head)
    changed = git("diff", "--name-only", "--diff-filter=d", at.tag, at.head, at=work).split("\n")
    files = {}
    for file in changed:
        if may_break(file) and (not sys.argv[1:] or file in sys.argv[1:]):
            sites, text = sites_of(file)
            if sites:
                files[file] = text, sites
            else:
                EMPTY.append(file)
    identify(files)
    if not files:
        die(f"none of these has anything that the stack adds: {' '.join(sys.argv[1:])}")
    total = sum(len(s) for _, s in files.values())
    print(f"== building a kernel with {total} faults ", end="", flush=True)
    refused, names = build_kernel(files)
    print(f" done, {len(names)} do not compile")
    sites = [s for _, kept in files.values() for s in kept]
    for n in range(lanes):
        LANES.put(lane(n))
    units = {}
    state = load_state(sites, refused)
    state.names = names
    todo = [s for s in sites if s.name not in state.found]
    print(f"== {len(sites)} faults, {len(sites) - len(todo)} known from before", flush=True)
    pool = ThreadPoolExecutor(lanes)
    try:
        # KUnit is quick.
        late = [s for s in todo if s.name in state.late]
        if len(late) < len(todo):
            suites = baseline("suites", suites_of())
            units |= suites
            late += run_all(pool, [s for s in todo if s not in late], suites, state, True)
        programs = baseline("programs", PROGRAMS)
        units |= programs
        run_all(pool, late, programs, state, False)
    finally:
        STOP.set()
        pool.shutdown(wait=False, cancel_futures=True)
        end_kernels(f"{build}/rules.lane-[0-9]*")
        bad = write_report(files, state)
    sys.exit(bad)


def run_all(pool, sites, units, state, more):
    """Those that none of these units notices. They have survived, or there are MORE units."""
    start, left = time.monotonic(), []

    def run(sites, tried):
        runs = {pool.submit(try_site, s, units, tried.get(s.name)): s for s in sites}
        for n, done in enumerate(as_completed(runs), 1):
            if found := done.result():
                yield runs[done], found
                save_state(state)
            if n % 50 == 0:
                print(f"{n} of {len(sites)}, {time.monotonic() - start:.0f} s", flush=True)

    few = state.few.setdefault("late" if not more else "first", {})
    tried = {s.name: few[s.name][1:] for s in sites if few.get(s.name, [""])[0] == s.digest}
    for site, found in run([s for s in sites if s.name not in tried], {}):
        if isinstance(found[1], str):
            state.found[site.name] = found
        else:
            tried[site.name] = found[1]
            few[site.name] = [site.digest, *found[1]]
    for site, found in run([s for s in sites if s.name in tried], tried):
        if found[1] or not more:
            found[2] = found[2] or state.reached.get(site.name, "")
            state.found[site.name] = found
        else:
            left.append(site)
            state.late[site.name] = site.digest
            state.reached[site.name] = found[2]
        few.pop(site.name, None)
        if not found[1]:
            print(f"{'not yet ' if more else 'SURVIVED'} line {site.line} {site.name}"[:150],
                  flush=True)
    return left


def lane(number):
    """Where a kernel runs beside others."""
    path = build / f"rules.lane-{number}"
    path.mkdir(exist_ok=True)
    for name, source in (("linux", kunit_out / "linux"), (".config", kunit_out / ".config"),
                         ("linux-user", out / "linux")):
        (path / name).unlink(missing_ok=True)
        os.link(source, path / name)
    return path


def suites_of():
    """Those of the kernel that the stack is tested with."""
    globs, log = bash('printf "%s\n" "${kunit_suites[@]}"'), f"{logs}/rules-list"
    bash('kunit_exec "$@" "" --list_tests', work, kunit_out, log)
    cases = re.findall(r"(?m)^([\w-]+)\.\w+$", text_of(Path(f"{log}.log")))
    return [name for name in dict.fromkeys(cases)
            if any(fnmatch.fnmatchcase(name, glob) for glob in globs)]


def baseline(what, whole):
    """What runs, how long with the others beside it, and what it reaches. All pass if nothing is
    broken. What takes long is taken apart. It is kept as long as the kernels are the same."""
    kept, sources = logs / f"rules-{what}.json", sources_of(whole)
    init = (top / "scripts/boot-init.c").read_text()
    kernels = hashlib.sha1(b"".join((k / "linux").read_bytes() for k in (kunit_out, out)))
    kernels.update(f"{sorted(sources.items())} {LONG} {init}".encode())

    def run(unit):
        lane, start = LANES.get(), time.monotonic()
        try:
            if STOP.is_set():
                return unit, 0, [], []
            why, text = run_unit(lane, unit, -1, 600)
        finally:
            LANES.put(lane)
        seconds = time.monotonic() - start
        seen = list(map(int, re.findall(r"rule_seen (\d+)", text)))
        print(f"{unit:50} {seconds:5.1f} s, reaches {len(seen):4}  {why}", flush=True)
        if why and not STOP.is_set():
            STOP.set()
            die(f"{unit} does not pass with nothing broken")
        ran = re.findall(r"(?m)^#  RUN +(?:global\.)?(\S+) \.\.\.", text)
        return unit, seconds, seen, ran or re.findall(r"(?m)^    ok \d+ (\w+)", text)

    known = json.loads(text_of(kept) or "{}")
    if known.get("kernels") != kernels.hexdigest():
        with ThreadPoolExecutor(lanes) as pool:
            found = list(pool.map(run, whole))
            apart = {unit for unit, seconds, _, ran in found if seconds > LONG and len(ran) > 1}
            wholes = {unit: seconds for unit, seconds, _, _ in found if unit in apart}
            parts = [f"{unit}.{case}" for unit, _, _, ran in found if unit in apart for case in ran]
            rest = list(pool.map(run, parts))
            # what only all of its cases together reach
            alone = {unit: set().union(*(u[2] for u in rest if u[0].startswith(f"{unit}.")))
                     for unit in apart}
            found = [(u, s, sorted(set(seen) - alone.get(u, set())), ran)
                     for u, s, seen, ran in found] + rest
        known = dict(kernels=kernels.hexdigest(), units=[unit[:3] for unit in found], wholes=wholes)
        kept.write_text(json.dumps(known))
    return {unit: SimpleNamespace(seconds=seconds, seen=set(seen),
                                  whole=known["wholes"].get(unit.partition(".")[0]),
                                  source=sources[unit.partition(".")[0]])
            for unit, seconds, seen in known["units"]}


def sources_of(units):
    """What each suite or selftest is made of, and what helps it: a hash."""
    files = git("ls-tree", "-r", "HEAD", "drivers/dma-buf", "drivers/gpu/drm/tests",
                "drivers/gpu/drm/scheduler/tests", "tools/testing/selftests/drivers/dma-buf",
                at=work).splitlines()
    blobs = {line.partition("\t")[2]: line.split()[2] for line in files}
    how = "".join(re.findall(r"(?m)^.*CONFIG_.*\n", "".join(
        text_of(top / f"configs/{f}.config") for f in ("kunit-uml", "uml-soak"))))
    found, helpers = {}, defaultdict(str)
    for file, blob in blobs.items():
        where, name = file.rsplit("/", 1)
        mine = [p for p in PROGRAMS if name == f"{p}.c"]
        if name.endswith((".c", ".h")) and not mine and \
                ("test" in where or name.startswith("st-")):
            mine = re.findall(r'struct kunit_suite \w+ = \{[^}]*?\.name = "([\w-]+)"',
                              text_of(work / file))
            # a selftest that is not one of these is nobody's helper
            if not mine and ("selftests" not in where or "_util." in name):
                helpers[where] += blob
        for unit in mine:
            found.setdefault(unit, (where, blob))
    return {unit: stack.git("hash-object", "--stdin",
                            data=(found[unit][1] + helpers[found[unit][0]] + how).encode())
            for unit in units}


def load_known():
    path = reports.path_of("rules.json", at)
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as why:
        die(f"{short(path)}: {why}; 'git checkout' has what was known before")


def write_known(known):
    new = build / "rules.new"
    new.write_text(json.dumps(known, indent=0, sort_keys=True) + "\n")
    new.rename(reports.path_of("rules.json", at))


def load_state(sites, refused):
    """What was found before, of the same code and the same test. Survivors have another chance when
    any test has changed."""
    known, sources = load_known(), sources_of([*suites_of(), *PROGRAMS])
    made_of = [inspect.getsource(f) for f in (run_suite, run_program, render, judge)]
    made_of += [HEADER, *(text_of(top / f) for f in (
        "configs/splats", "scripts/splats.sh", "scripts/boot-init.c"))]
    tests = hashlib.sha1(json.dumps([sorted(sources.items()), made_of]).encode()).hexdigest()[:12]
    same = known.get("tests") == tests
    if not same:    # whoever survived the tests of before
        known = {k: v for k, v in known.items() if not (isinstance(v, list) and v[3:] == [""])}
    good = set(sources.values()) | ({""} if same else set())
    found = {s.name: known[s.name] for s in sites if s.name in known
             and known[s.name][0] == s.digest and known[s.name][3] in good}
    if known:
        were = sum(isinstance(v, list) and len(v) == 4 for v in known.values())
        print(f"== {were - len(found)} verdicts are of code or tests that have changed")
    for s in sites:    # who noticed what is in a file before
        if (v := found.get(s.name)) and v[1]:
            COUNTS[s.file, v[1]] = COUNTS[s.file, v[1]][0] + 1, COUNTS[s.file, v[1]][1] + 1
    now = {s.name: s.digest for s in sites}
    late = {name: digest for name, digest in known.get("late", {}).items()
            if same and now.get(name, digest) == digest}
    return SimpleNamespace(found=found, tests=tests, refused=refused, known=known, late=late,
                           few=known.get("few", {}) if same else {},
                           reached=known.get("reached", {}) if same else {})


def save_state(state):
    known = state.known | state.found
    write_known(known | {"tests": state.tests, "refused": state.refused, "late": state.late,
                         "few": state.few, "reached": state.reached})


def key_of(site):
    """What excuses this code alone."""
    return f"{site.digest} {site.name}"


def read_reasons():
    """Why nobody needs to notice: a reason, and below it keys with a tab before them."""
    why = {}
    text = reasons.read_text() if reasons.exists() else ""
    for part in text.split("\n\n"):
        lines = [line for line in part.splitlines() if not line.startswith("#")]
        reason = " ".join(line for line in lines if not line.startswith("\t"))
        why |= {line.strip(): reason for line in lines if line.startswith("\t")}
    return why


def first_part(rows, when, refused, late=0):
    """The head and the table. A row has a file, its faults, and COLUMNS."""
    known = [row for row in rows if reports.measured(row)]
    count = dict(zip(("all", *COLUMNS), (sum(int(row[n]) for row in known) for n in range(1, 7))))
    run = count["all"] - count["todo"]
    matter = run - count["need"]
    new = len(rows) - len(known)
    return reports.head(
        "What is broken by rule", "make rules", when,
        f"{run} of {count['all']} faults measured",
        "With the KUnit suites and the selftests on UML; `scripts/rules.py` has the rules. Killed: "
        f"{count['killed'] / max(matter, 1):.1%} of the {matter} that have run to the end "
        "and matter" + (f"; {late} more wait for the selftests" if late else "") + f". {refused}" +
        (f" In {new} files nobody has looked for faults." if new else "")) + HEAD + \
        reports.lines([*rows, ["all", *count.values()]])


def may_break(file):
    """Whether faults are looked for in a file that the stack changes."""
    return not stack.TEST_FILES.match(file) and \
        any(fnmatch.fnmatchcase(file, where) and file.count("/") == where.count("/")
            for where in SCOPE)


def files_of_patches():
    """Those that it is about."""
    return {file for topic in stack.read_series() for path in stack.patch_files(topic)
            for file in re.findall(r"(?m)^\+\+\+ b/(\S+)", path.read_text()) if may_break(file)}


def refresh():
    """Names of files only: what is in them is for the next run to say."""
    report, files = reports.path_of("rules.md"), files_of_patches()
    text = text_of(report)
    known = {row[0]: row for row in reports.rows_of(report)}
    refused = re.search(r"The compiler\s+refused\s+\d+\s+more\.", text)
    rows = [known.get(f) or [f, reports.NOT, *"-----"] for f in sorted(files)]
    gone = {f for f in known if f not in files}
    rest = text.partition("\n## ")
    kept = [line for line in "".join(rest[1:]).splitlines(keepends=True)
            if not any(re.match(rf"- `(\w{{12}} )?{re.escape(f)}:", line) for f in gone)]
    reports.write(report, first_part(rows, reports.made_before(report),
                                     " ".join(refused[0].split()) if refused else "") +
                  "".join(kept))


def write_report(files, state):
    """What came of it: 1 if somebody should have noticed."""
    why, gone = read_reasons(), set()
    rows, left, count = [], defaultdict(list), Counter()
    for file, (_, sites) in files.items():
        mine = Counter()
        for site in sites:
            _, killed, how, _ = state.found.get(site.name, ("", "", "", ""))
            name = key_of(site)
            what = "killed" if killed else "need" if name in why else \
                "todo" if site.name not in state.found else "survived" if how else "never"
            mine[what] += 1
            if name in why:
                gone.add(name)
                if killed:
                    print(f"{short(reasons)}: it is noticed by {killed}: {name}")
            if what in ("survived", "never"):
                left[what].append(f"- `{key_of(site)}`, line {site.line}\n")
        count += mine
        rows.append([file, len(sites), *(mine[k] for k in COLUMNS)])
    left["late"] = [f"- `{s.name}`\n" for _, sites in files.values() for s in sites
                    if s.name in state.late and s.name not in state.found]
    left["refused"] = [f"- `{name}`\n" for name in sorted(state.names)]
    equal = count["need"]
    run = sum(count.values()) - equal - count["todo"]
    share = f"{count['killed'] / max(run, 1):.1%}"
    rows = sorted([*rows, *([file, 0, 0, 0, 0, 0, 0] for file in EMPTY)])
    text = first_part(rows, reports.made(git("log", "-1", "--format=%s", at.tag, at=at.tree)),
                      f"The compiler refused {len(state.names)} more.", len(left["late"]))
    for what, title in (("survived", "Nobody notices"), ("never", "Nothing reaches"),
                        ("late", "KUnit does not notice, and the selftests have not run"),
                        ("refused", "The compiler refuses")):
        if left[what]:
            text += f"\n## {title}\n\n" + "".join(left[what])
    if WITHOUT:
        text += "\n## Functions that the stack changes and the rules do not break\n\n"
        text += "".join(f"- `{name}`\n" for name in WITHOUT)
    by_reason = defaultdict(list)
    for name in sorted(gone):
        by_reason[why[name]].append(name)
    if by_reason:
        text += "\n## Nobody needs to notice\n"
    for reason, names in by_reason.items():
        text += f"\n{reason}\n\n" + "".join(f"- `{n}`\n" for n in names)
    report = reports.path_of("rules.md", at)
    if not sys.argv[1:]:
        reports.write(report, text)
    print(f"{count['killed']} killed, {count['survived']} survived, {count['never']} not reached, "
          f"{equal} that nobody needs to notice: {share}; the list is {short(report)}")
    stale = sorted(set(why) - gone) if not sys.argv[1:] else []
    for name in stale:
        print(f"{short(reasons)}: there is no {name}")
    return int(count["killed"] < 0.95 * run or bool(stale))


at = None
if __name__ == "__main__":
    run_main(refresh if sys.argv[1:] == ["--refresh"] else main)
