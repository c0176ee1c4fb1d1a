#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""bench-report.py DIR TITLE: DIR/figures to DIR/report.md and DIR/report.svg.

A line of figures is "INSTRUMENT KERNEL OPERATION KIND VALUE"; of several values the
median counts, or the largest if it is how long interrupts were off. Prints what became
of the goals. Fails if one is missed that is about instructions, bytes or grace periods:
nanoseconds depend on the machine.
"""
import math
import re
import statistics
import sys

KINDS = ("external", "external-release", "inline", "inline-release")
KERNELS = {"lts": "6.12", "base": "base", "series": "series"}
# Little but tests of the signaled flag: an acquire in the series, a load in the base.
ACQUIRE = ("test-flag-", "is-signaled-", "timestamp-", "names-")
# What large arrays may take in the worst order, where each group of callbacks is an interrupt.
PRICE = {"array-16": 1.1, "array-128": 1.3}
LIMITS = {"signal": 0.95, "get-status-signaled": 0.3, "wait-signaled": 0.5,
          "add-remove-callback": 1, "is-signaled-unsignaled": 1.15}
TWO_CPUS = {"get-status-signaled": 0.2, "wait-signaled": 0.5}
POINTS = "at-once", "late", "forwards", "backwards"
# Fences in a sync_file, and what it may take in the worst order.
MERGED = {8: 1.02, 16: 1.1, 128: 1.3}
# What has a table of its own.
APART = "vkms", "syncobj", "sync_file", "frame", "contexts"
# What is done to many contexts, and to points that have 512 each.
IOCTLS = "merge", "import", "import-more", "export"
POINT_IOCTLS = "transfer", "import-points"
REASONS = {"is-signaled-unsignaled":
           ", which asks in an RCU section, so that the issuer does not go meanwhile,",
           "2cpu-wait-signaled": ", which takes the lock once where it took it twice,"}
# What the series is compared with.
BOTH, BASE = ("lts", "base"), ("base",)

values, rows = {}, []


def read(path):
    for line in open(path, encoding="ascii"):
        instrument, kernel, op, kind, value = line.split()
        values.setdefault((instrument, kernel, op, kind), []).append(int(value))
        if (instrument, op) == ("arm64", "poll-32"):
            values.setdefault(("fps", kernel, op, kind), []).append(1e12 / int(value))
        if (op, kind) not in rows:
            rows.append((op, kind))
    first = list(dict.fromkeys(op for op, _ in rows))
    rows.sort(key=lambda row: first.index(row[0]))


def get(instrument, kernel, op, kind):
    """What one operation costs, without the loop around it; None if it is not there."""
    found = values.get((instrument, kernel, op, kind))
    if not found:
        return None
    # The tracer loses a section if another CPU has the longest so far meanwhile: it sees less.
    if instrument.startswith("off"):
        return max(found)
    empty = values.get((instrument, kernel, "nothing", kind))
    if not empty or op.startswith(("nothing", "2cpu-", "array-", "chain-")):
        return statistics.median(found)
    return statistics.median(found) - statistics.median(empty)


def ratio(instrument, other, op, kind):
    a, b = get(instrument, "series", op, kind), get(instrument, other, op, kind)
    return None if a is None or not b or b < 0 else a / b


def show(value, form="%.1f", unit=1):
    return "" if value is None else form % (value / unit)


def table(columns, wanted, unit=1000, form="%.1f"):
    """columns: instrument, what it counts, kernels that the series is compared with."""
    head = ["operation", "fence"]
    for _, what, others in columns:
        head += [f"{what}: {KERNELS[k]}" for k in others] + ["series"]
        head += [f"/ {KERNELS[k]}" for k in others]
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2)]
    for op, kind in rows:
        if not wanted(op, kind):
            continue
        line = [op, kind]
        for instrument, _, others in columns:
            line += [show(get(instrument, k, op, kind), form, unit) for k in (*others, "series")]
            line += [show(ratio(instrument, k, op, kind), "%.2f") for k in others]
        lines.append(line)
    return "".join("| " + " | ".join(line) + " |\n" for line in lines) + "\n"


goals, failed = [], False


def goal(text, met, counts=True):
    global failed
    goals.append(f"goal {'met' if met else 'missed'}: {text}")
    failed = failed or (counts and not met)


def worst(instrument, op, kinds=KINDS):
    found = [(r, k) for k in kinds if (r := ratio(instrument, "base", op, k)) is not None]
    return max(found, default=(math.inf, "not measured"))


def worst_of(instrument, prefix, kind, kernel="series"):
    found = [statistics.median(v) for (i, k, op, what), v in values.items()
             if (i, k, what) == (instrument, kernel, kind) and op.startswith(prefix)]
    return max(found, default=math.inf)


def cost(*key):
    return get(*key) or math.inf


def by_base(instrument, op, kind):
    return ratio(instrument, "base", op, kind) or math.inf


def differing():
    """The middle half of differing orders is another half when the timer ticks elsewhere. When a
    frame is tried again depends on the phase of two timers."""
    for (instrument, _, op, kind), found in values.items():
        own_table = kind in APART and kind != "frame"
        if instrument != "count" or own_table or op.endswith("-shuffled"):
            continue
        if max(found) > (1.03 if kind == "frame" else 1.005) * min(found) + 100:
            yield f"{op} ({kind})"


def too_dear():
    for op in dict.fromkeys(op for op, kind in rows if kind not in APART):
        kinds = {kind for name, kind in rows if name == op}
        r, _ = worst("count", op, kinds)
        if r == math.inf and not op.startswith("2cpu-") and kinds & {*KINDS, "sw_sync"}:
            yield f"{op} not measured"
        limit = PRICE.get(re.sub("-[a-z]+$", "", op), 1.02)
        if op != "nothing" and not op.startswith(ACQUIRE) and limit < r < math.inf:
            yield f"{op} {r:.2f}"


def set_goals():
    apart, over = dict.fromkeys(differing()), list(too_dear())
    goal("the counts of instructions agree" + (": not for " + ", ".join(apart) if apart else ""),
         not apart)
    goal("nothing takes more than 1.02 times the instructions, but for an acquire and arrays of "
         "many members" + (": " + ", ".join(over) if over else ""), not over)
    for op, limit in LIMITS.items():
        for instrument, text in (("count", ""), ("count-debug", " with DMABUF_DEBUG")):
            r, kind = worst(instrument, op)
            goal(f"{op}{REASONS.get(op, '')} takes at most {limit:.2f} times the "
                 f"instructions{text}: {r:.2f} ({kind})", r <= limit)
    for op, limit in TWO_CPUS.items():
        r, kind = worst("um", "2cpu-" + op)
        goal(f"2cpu-{op}{REASONS.get('2cpu-' + op, '')} takes at most {limit:.2f} times as long: "
             f"{r:.2f} ({kind})", r <= limit, False)
    r, n = by_base("count", "frames", "frame"), cost("count", "series", "frames", "frame")
    goal(f"a frame takes at most 1.02 times the instructions, {n / 1e3:.0f}: {r:.3f}", r <= 1.02)
    r, n = by_base("count", "poll-32", "frame"), cost("count", "series", "poll-32", "frame")
    goal("a loop that polls 32 fences, of which one signals, makes at least 0.98 times the frames "
         f"with the same instructions, {n / 1e3:.0f} for each: {1 / r:.3f}", r <= 1 / 0.98)
    for n, limit in MERGED.items():
        set_goals_of_sync_file(n, limit)
    for order in POINTS:
        set_goals_of_points(order)
    for ioctl in IOCTLS:
        set_goals_of_contexts(ioctl, 1024, 4096, "contexts")
    for ioctl in POINT_IOCTLS:
        set_goals_of_contexts(ioctl, 10, 50, "points of 512 contexts")
    one, many, before = (get("waits", *key, "vkms") for key in
                         (("series", "unbind-1"), ("series", "unbind-16"), ("base", "unbind-16")))
    if None in (one, many, before):
        goal("the waits of an unbind were not counted", False)
    else:
        goal(f"an unbind waits for RCU once more, however many CRTCs: {one:.0f} with 1, "
             f"{many:.0f} with 16, and {before:.0f} without the series", one == many <= before + 1)
    r, n = ratio("bytes", "base", "dma_fence", "-"), get("bytes", "series", "dma_fence", "-")
    goal(f"struct dma_fence has no more bytes: {n:.0f}", r is not None and r <= 1)
    r = by_base("bytes", "array-128", "-")
    goal(f"an array of 128 fences takes at most a fifth of the memory: {r:.2f}", r <= 0.2)


def set_goals_of_sync_file(n, limit):
    what = f"a sync_file of {n} fences"
    for order, interrupts in ("", -(-n // 12)), ("forwards", 1), ("backwards", 1):
        most = worst_of("irqs", f"merged-{n}-{order}", "sync_file")
        goal(f"{what} that signal {order or 'in any order'} has at most {interrupts} interrupts "
             f"for irq_work: {most:.0f}", most <= interrupts)
    series, base = (cost("count", k, f"apart-{n}", "sync_file") for k in ("series", "base"))
    added = series - base
    pairs = [[get("count", k, op, "sync_file") for k in ("series", "base")]
             for op, _ in rows if op.startswith(f"merged-{n}-")]
    there = pairs and all(map(all, pairs)) and math.isfinite(added)
    r = max((series - added) / base for series, base in pairs) if there else math.inf
    goal(f"{what} takes at most {limit:.2f} times the instructions in any order, but for the "
         f"{added / 1e3:.0f} that sw_sync itself takes more: {r:.2f}", r <= limit)
    most, before = (worst_of("off-count-irqsoff", f"merged-{n}-", "sync_file", k)
                    for k in ("series", "base"))
    goal(f"{what} turns interrupts off for at most 50 thousand instructions: {most / 1e6:.0f}, "
         f"and {before / 1e6:.0f} without the series", most <= 5e7)


def set_goals_of_points(order):
    few, many = (cost("count", "series", f"points-{n}-{order}", "syncobj") for n in (400, 4000))
    goal(f"4000 points {order} take at most 12 times the instructions of 400: {many / few:.1f}",
         many <= 12 * few)
    off, before = (cost("off-count-irqsoff", k, f"points-4000-{order}", "syncobj")
                   for k in ("series", "base"))
    goal(f"4000 points {order} turn interrupts off for at most 1 million instructions: "
         f"{off / 1e9:.3f}, and {before / 1e9:.3f} without the series", off <= 1e9)
    r = by_base("count", f"points-100-{order}", "syncobj")
    goal(f"100 points {order} take at most 1.05 times the instructions, with those of sw_sync: "
         f"{r:.2f}", r <= 1.05)


def set_goals_of_contexts(ioctl, less, more, what):
    few, many = (cost("count", "series", f"{ioctl}-{n}", "contexts") for n in (less, more))
    r, before = many / few, by_base("count", f"{ioctl}-{more}", "contexts")
    goal(f"{ioctl} of {more} {what} takes at most 6 times the instructions of {less}: {r:.1f}, "
         f"and {before:.3f} times those of the base", r <= 6)


CSS = """
text { font: 12px sans-serif; fill: #24292f } .small { font-size: 11px } .grid { stroke: #d0d7de }
.one { stroke: #57606a; stroke-width: 1.5 } circle { stroke-width: 2 }
.external { stroke: #b35900; fill: #b35900 } .inline { stroke: #0b6bcb; fill: #0b6bcb } \
.other { stroke: #57606a; fill: #57606a }
.release { fill: none } .bg { fill: #ffffff }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .grid { stroke: #30363d } \
.one, .other { stroke: #9ea7b3 }
.other { fill: #9ea7b3 } .external { stroke: #f0883e; fill: #f0883e } \
.inline { stroke: #58a6ff; fill: #58a6ff } .release { fill: none } .bg { fill: #0d1117 } }
"""


def plot(path, title):
    left, width, top, step = 200, 420, 64, 18
    shown = {}
    for op, kind in rows:
        instrument = "um" if op.startswith("2cpu-") else "count"
        r = ratio(instrument, "base", op, kind)
        if op != "nothing" and kind not in APART and r:
            shown.setdefault((op, instrument), []).append((kind, r))
    ratios = [r for dots in shown.values() for _, r in dots]
    low, high = math.log(min(ratios) / 1.1), math.log(max(*ratios, 2) * 1.1)

    def x(r):
        return round(left + width * (math.log(r) - low) / (high - low), 1)

    height = top + step * len(shown) + 30
    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 20} {height}" '
           'role="img">',
           f"<title>{title}</title><style>{CSS}</style>",
           f'<rect class="bg" width="100%" height="100%"/><text x="12" y="20">{title}</text>']
    at = 12
    for kind in (*KINDS, "other"):
        lock, *release = kind.split("-")
        text = ", ".join([lock if lock == "other" else f"{lock} lock", *release])
        svg.append(f'<circle class="{kind.replace("-", " ")}" cx="{at + 4}" cy="36" r="4"/>'
                   f'<text class="small" x="{at + 13}" y="40">{text}</text>')
        at += 30 + 6 * len(text)
    for r in (0.002, 0.01, 0.05, 0.2, 0.5, 1, 2, 4):
        if low <= math.log(r) <= high:
            css = "one" if r == 1 else "grid"
            svg.append(f'<line class="{css}" x1="{x(r)}" x2="{x(r)}" '
                       f'y1="{top - 10}" y2="{height - 24}"/>'
                       '<text class="small" text-anchor="middle" '
                       f'x="{x(r)}" y="{height - 8}">{r:g}</text>')
    for n, ((op, instrument), dots) in enumerate(shown.items()):
        y = top + step * n
        unit = " (ns)" if instrument == "um" else ""
        svg.append(f'<text class="small" text-anchor="end" x="{left - 8}" y="{y + 4}">'
                   f'{op}{unit}</text>')
        for kind, r in dots:
            css = kind.replace("-", " ") if kind in KINDS else "other"
            svg.append(f'<circle class="{css}" cx="{x(r)}" cy="{y}" r="4">'
                       f'<title>{kind} {r:.2f}</title></circle>')
    with open(path, "w", encoding="ascii") as out:
        out.write("\n".join(svg) + "\n</svg>\n")


def code(directory, arch, function):
    """The same function of the three kernels side by side."""
    columns = []
    for kernel in KERNELS if arch == "arm64" else ("base", "series"):
        with open(f"{directory}/{arch}-{kernel}-{function}.txt", encoding="ascii") as listing:
            lines = listing.read().expandtabs(8).splitlines()
        columns.append([KERNELS[kernel] + f": {len(lines)} instructions"] + lines)
    width = max(len(line) for column in columns for line in column) + 2
    text = f"`{function}()`, {arch}:\n\n```\n"
    for n in range(max(map(len, columns))):
        text += "".join((c[n] if n < len(c) else "").ljust(width) for c in columns).rstrip() + "\n"
    return text + "```\n\n"


def of(*kinds):
    return lambda op, kind: kind in kinds


def main(directory, title):
    off = ("The longest time with interrupts off, by the irqsoff tracer. By the clock it is the "
           "longest of three\nboots, and includes time in which the host did not run the guest's "
           "CPU:\n\n")
    read(f"{directory}/figures")
    set_goals()
    plot(f"{directory}/report.svg", "Series by base: instructions on arm64, two CPUs: ns on UML")
    with open(f"{directory}/report.md", "w", encoding="ascii") as out:
        out.write(title + "\n")
        out.write("## Goals\n\n" + "".join(f"- {g}\n" for g in goals) + "\n")
        out.write("## One CPU\n\n" + table(
            (("count", "instructions", BOTH), ("um", "ns", BASE)),
            lambda op, kind: kind not in ("-", "text", *APART) and not op.startswith("2cpu-")))
        out.write("## One CPU, with CONFIG_DMABUF_DEBUG\n\n" + table(
            (("count-debug", "instructions", BASE),), lambda op, kind: op in LIMITS))
        out.write("## Two CPUs, the same fence, ns per operation of both\n\n" + table(
            (("um", "UML", BASE), ("arm64", "arm64", BOTH)),
            lambda op, kind: op.startswith("2cpu-")))
        out.write("## Frames\n\nOf vkms with 500 Hz, with an out-fence and two fences merged to "
                  "wait for; and of a loop that polls 32\nfences, one of which signals. By the "
                  "clock: from one to the next, and -cpu is what all processes and\nthreads of the "
                  "kernel ran. Interrupts of an idle CPU are not in that.\n\n" + table(
            (("count", "1000 instructions", BOTH), ("arm64", "us", BOTH)),
            of("frame"), 1e6, "%.2f"))
        out.write(table((("fps", "frames per second", BOTH),),
                        lambda op, kind: op == "poll-32", 1, "%.0f"))
        out.write("## A sync_file of many fences, merged one after the other\n\n" + table(
            (("irqs", "interrupts for irq_work", BOTH),), of("sync_file"), 1, "%.0f"))
        out.write(table(
            (("count", "1000 instructions", BOTH), ("arm64", "us", BOTH)), of("sync_file"), 1e6))
        out.write(off + table(
            (("off-count-irqsoff", "1000 instructions", BASE), ("off-irqsoff", "us", BASE)),
            of("sync_file"), 1e6))
        out.write("## Unbind of a vkms device\n\nVirtual time is a ns for each instruction, and "
                  "what timers say where the CPU slept.\n\n" + table(
            (("waits", "waits", BASE), ("gp", "grace periods", BASE)), of("vkms"), 1, "%.0f"))
        out.write(table(
            (("arm64", "ms", BASE), ("count", "ms of virtual time", BASE)), of("vkms"), 1e9))
        out.write("## Points of a timeline, each waited for with SYNCOBJ_EVENTFD\n\nFor oldest, a "
                  "syncobj has each link, all but the oldest have signaled before anybody waits,\n"
                  "and the waits come newest first; they count.\n\n" + table(
            (("count", "million instructions", BOTH), ("arm64", "ms", BOTH)),
            of("syncobj"), 1e9, "%.2f"))
        out.write(off + table(
            (("off-count-irqsoff", "million instructions", BASE), ("off-irqsoff", "ms", BASE)),
            of("syncobj"), 1e9, "%.3f"))
        out.write("## Sync_files of very many contexts\n\nTwo of n contexts each are merged, "
                  "imported into one buffer, one after the other, and exported.\nOf n points, each "
                  "of the same 512 contexts, the last is transferred, and imported.\n\n" + table(
            (("count", "1000 instructions", BOTH), ("arm64", "us", BOTH)), of("contexts"), 1e6))
        out.write("## Bytes\n\n" + table(
            (("bytes", "bytes", BOTH),), of("-", "text"), 1, "%.0f"))
        out.write("## Code\n\n")
        for function in ("run_test_flag", "run_is_signaled"):
            for arch in ("arm64", "um"):
                out.write(code(directory, arch, function))
    print("\n".join(goals))
    return failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
