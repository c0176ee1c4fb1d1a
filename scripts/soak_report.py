#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""soak_report.py LOG [GUEST EXIT STATE MINUTES SEED] | --refresh: what a guest of soak has done.

With LOG alone a line of figures. Else the verdict on a guest that has ended with EXIT, and below it
what was wrong, and what it did not run. Fails if that is not good. STATE says how it ended if it
said nothing at its end. UPDATE=1 puts its row into results/soak.md, or on another base into a file
in build/. With --refresh nothing is read, and the table has the rows that there are.
"""

import datetime, os, re, sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
import judge, reports
from objects import places
from stack import die, git, run_main, short, top

# Those of the table. Others are added when they have run.
GUESTS = "um", "arm64", "arm64-rt"
FIGURES = "signals names races unbinds unloads ioctls faults".split()


def guests():
    """Those that there may be: GUESTS, and arm64 with a configuration of its own."""
    return {*GUESTS, *(f"arm64-{path.stem.removeprefix('boot-')}"
                       for path in (top / "configs").glob("boot-[a-z]*.config"))}


def read(log):
    """The sums of "figures: a=1 b=2" of all tests, and the splats and failures so far."""
    text = log.read_bytes().decode(errors="replace").replace("\r", "") if log.exists() else ""
    sums = Counter()
    for line in re.findall(r"figures: (.*)", text):
        sums.update({name: int(n) for name, n in re.findall(r"(\w+)=(\d+)\b", line)})
    runs = re.findall(r"boot-init: soak \S+ round=(\d+) failed=(\d+)", text)
    return SimpleNamespace(
        text=text, sums=sums, runs=len(runs), rounds=int(runs[-1][0]) if runs else 0,
        failed=sum(n != "0" for _, n in runs), splats=judge.splats(log),
        end=re.findall(r"boot-init: soak rounds=\d+ failed=(\d+)", text)[-1:])


def line(said):
    return (f"round {said.rounds}, {said.runs} runs: " +
            "".join(f"{name} {said.sums[name]}, " for name in FIGURES) +
            f"failed {said.failed}, splats {len(said.splats)}")


def verdict(said, guest, code, state):
    """Whether it is good, in so many lines."""
    good = said.end == ["0"] and code == 0 and not said.splats and not said.failed and \
        said.sums["signals"] > 0 and said.sums["unbinds"] > 0
    print(f"{'passed' if good else 'FAILED'} {guest}: {line(said)}")
    last = [text for text in said.text.split("\n") if text][-1:]
    if not said.end:
        print(f"    the guest did not get to its end ({state}); last line: {''.join(last)[:90]}")
    elif code:
        print(f"    the guest got to its end, but did not power off (exit {code})")
    wrong = re.findall(r"(?m)^(?:\[[ 0-9.]*\] )?((?:test: )?not ok \d.*|boot-init: .* took more "
                       r"than .*|boot-init: soak .*failed=[1-9].*)", said.text)
    for text in [*wrong[:10], *said.splats[:3]]:
        print(f"    {text}")
    for text in sorted(set(re.findall(r"ok \d+ (.* # SKIP.*)", said.text)))[:20]:
        print(f"    not run here: {text}")
    return good


def row(said, guest, minutes, seed, good):
    sums = [said.sums[name] for name in FIGURES]
    return [guest, minutes, seed, said.rounds, said.runs, *sums, said.failed, len(said.splats),
            "ok" if good else "**fails**", datetime.date.today(), reports.commit()]


def write(report, when, mine=()):
    """The row in place of the one that there is for that guest, or none."""
    rows = {guest: [guest, reports.NOT, *["-"] * 15] for guest in GUESTS}
    rows |= {r[0]: r for r in [*reports.rows_of(report), *mine] if r[0] in guests()}
    titles = ["guest", "minutes asked for", "seed", "rounds", "runs", *FIGURES, "failed", "splats",
              "", "on", "commit"]
    reports.write(report, reports.head(
        "Everything in a loop", "make soak UPDATE=1", when, reports.share(rows.values()),
        "Each guest runs every selftest and the KUnit suites until the time is over, and comes to "
        "the end of a test then. KERNEL=rt has a guest of its own.") +
        reports.lines([titles, ["---"] + ["---:"] * 13 + ["---"] * 3, *rows.values()]))


def main(log="", *how):
    if log == "--refresh":
        report = reports.path_of("soak.md")
        return write(report, reports.made_before(report))
    if not log or len(how) not in (0, 5):
        die("usage: " + __doc__.partition(":")[0])
    said = read(Path(log))
    if not how:
        return print(line(said))
    guest, code, state, minutes, seed = how
    good = verdict(said, guest, int(code), state)
    if os.environ.get("UPDATE") == "1":
        at = places()
        report = reports.path_of("soak.md", at)
        write(report, reports.made(git("log", "-1", "--format=%s", at.tag, at=at.tree)),
              [row(said, guest, minutes, seed, good)])
        print(f"    this is in {short(report)}")
    return sys.exit(not good)


if __name__ == "__main__":
    run_main(lambda: main(*sys.argv[1:]))
