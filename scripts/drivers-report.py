#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""drivers-report.py BASE DISPLAY...: what the logs of 'make drivers' say, with the stack, and
without it where 'make drivers SERIES=none' has been run; and those of 'make boot', which has
displays on arm64. The table is results/drivers.md. What has no log here stays there as it was.
"""

import datetime, itertools, re, subprocess, sys, textwrap
from pathlib import Path
import reports
from stack_lib import build, say, top

CASE = re.compile(r"(?m)^(not ok|ok) \d+ (?:global|gone|waits)\.([a-z_]+?)(?:\.then_used)?"
                  r"(?: # SKIP (.*))?$")
SAID = re.compile(r"(?m)^# drm_device_gone\.c:\d+:\w+:"
                  r"(?!Expected|\d+ rounds|\d+ moves|pending: flip|[a-z ]+: \d+ ms)"
                  r"(?:[\w, .>&*()-]+\): )?(.*)$")
ALL_ROUNDS = "20"
ROUNDS = re.compile(r"(?m)^# drm_device_gone\.c:\d+:\w+:(\d+) rounds")
BEGUN = re.compile(r"(?:global|gone|waits)\.([a-z_]+?)(?:\.then_used)? \.\.\.$", re.M)
KERNELS = {"base": "-unpatched", "stack": ""}
ON_ARM64 = {f"{what}, arm64": f"boot-drm_device_gone{suffix}" for what, suffix in (
    ("virtio", ""), ("virtio-pci", "-pci"), ("simpledrm", "-simpledrm"), ("gud", "-gud"))}
HEAD = """# Displays that go while they are used

{head}

Displays of QEMU, and one on USB that is a gadget, are taken away while pages are flipped and the
cursor moves. Then their fences are used, and they come back. The base is what
`make drivers SERIES=none` boots, the stack is all topics.

- ok: every fence signaled and could be used, the display came back, the kernel did not complain.
  fails: one of that was not so; dies: the kernel did not come to the end of the case; skipped: this
  display cannot go that way, see below; '-': not run, or there is no such case.
- closed: its files were closed before; in use: a client flips pages meanwhile. once and again: each
  case in one boot, the second one with 20 rounds, or at most 5 where each takes another PCI slot,
  see below for how many there were.
- unbind: from the driver; remove: from its bus; power off: its slot; unplug: by QEMU; unload: the
  module of the driver; deaf: it may not read memory any more; for submission: a wait for a point
  that nobody has submitted yet.
- No fence is one of execbuf: virtio's returns -ENOSYS without virgl, and qxl's gives no descriptor.
  There is no vmwgfx: it finds QEMU's vmware-svga and gives up with "Hardware has no pitchlock", as
  it wants SVGA_CAP_PITCHLOCK, or SVGA_FIFO_CAP_PITCHLOCK of the FIFO.
- Logs: build/logs/drivers-DISPLAY[-N][-unpatched].log, N is the boot after one that ended early.

| display | way | base, once | base, again | stack, once | stack, again |
|---|---|---|---|---|---|
"""


WHEN = re.compile(r"- booted on (\S+), commit (\S+): (.*)")
NOTE = re.compile(r"- ([\w-]+(?:, arm64)?), (base|stack)(?:, ([^:]*))?: (.*)")
COLUMNS = [(kernel, again) for kernel in KERNELS for again in (False, True)]


def kept(text):
    """What the table had: {(display, kernel): (day, commit)}, {(display, case): {column: verdict}},
    and {(display, kernel, reason): cases}."""
    when = {tuple(what.rsplit(" ", 1)): (day, commit) for day, commit, whats in WHEN.findall(text)
            for what in whats.split("; ")}
    cases, why = {}, {}
    for line in text.splitlines():
        cells = line.strip("| ").split(" | ")
        if len(cells) == 6 and cells[0] != "display":
            cases[cells[0], cells[1].replace(" ", "_")] = dict(zip(COLUMNS, cells[2:]))
        elif m := NOTE.fullmatch(line):
            why[m[1], m[2], m[4]] = m[3].split(", ") if m[3] else []
    return when, cases, why


def verdicts(log):
    """{case: (verdict, why)} of what the selftest says, and the splats of the kernel. It says all
    in the log of the kernel, too, for the guest that does not come to its end."""
    text = log.read_text(errors="replace").replace("\r", "")
    text = re.sub(r"(?m)^\[ *[\d.]+\] test: ", "", text)
    found = {}
    for case in re.split(r"(?m)^# +RUN +", text)[1:]:
        if not (m := CASE.search(case)):
            if m := BEGUN.match(case):
                found[m[1]] = "**dies**", ""
            continue
        said = SAID.search(case[:m.start()])
        if m[3] and m[3].startswith("no display of"):
            continue    # it did not come back, and the case has another boot
        if m[3]:
            found[m[2]] = "skipped", m[3]
        elif m[1] == "ok":
            rounds = ROUNDS.search(case[:m.start()])
            few = m[2].endswith("_again") and rounds and rounds[1] != ALL_ROUNDS
            found[m[2]] = "ok", f"{rounds[1]} round{'s' * (rounds[1] != '1')}" if few else ""
        else:
            found[m[2]] = "**fails**", said[1] if said else "see its log"
    splats = subprocess.run([top / "scripts/splats.sh", log], capture_output=True, text=True).stdout
    # without what is another one each time; the selftest quotes some of them
    splats = [re.sub(r"^\S+ (\[ *[\d.]+\] )?(test: # kernel: )?|\+0x\S+|( on|,)? CPU#.*|\+ .*"
                     r"|( for| in)? (address|non-canonical|range).*"
                     r"|\d+ (?=(new )?suspected|of what was lost)", "", s)
              for s in splats.splitlines()]
    return found, dict.fromkeys(splats)


def main():
    base, *displays = sys.argv[1:]
    report = top / "results/drivers.md"
    when, cases, why = kept(report.read_text() if report.exists() else "")
    names = {display: "drivers-" + display for display in displays} | ON_ARM64
    for (display, name), (kernel, suffix) in itertools.product(names.items(), KERNELS.items()):
        # one for each boot, where the kernel died
        logs = [log for n in range(1, 100)
                if (log := build / f"logs/{name}{f'-{n}' * (n > 1)}{suffix}.log").exists()]
        # guest-run.sh has left what it is of
        of = Path(f"{logs[-1]}.commit") if logs else None
        if not of or not of.exists():
            continue
        booted = int(logs[-1].stat().st_mtime)
        when[display, kernel] = (str(datetime.date.fromtimestamp(booted)), of.read_text().strip())
        cases = {key: {column: verdict for column, verdict in cells.items()
                       if key[0] != display or column[0] != kernel}
                 for key, cells in cases.items()}
        why = {key: on for key, on in why.items() if key[:2] != (display, kernel)}
        found, splats = {}, {}
        for log in logs:
            in_log = verdicts(log)
            found |= in_log[0]
            splats |= in_log[1]
        for case, (verdict, reason) in found.items():
            once = re.sub("_again$", "", case)
            cases.setdefault((display, once), {})[kernel, once != case] = verdict
            if reason:
                why.setdefault((display, kernel, reason), []).append(case.replace("_", " "))
        if not found:
            why[display, kernel, "the guest did not come to its end"] = []
        for splat in splats:
            why[display, kernel, "the kernel says " + splat] = []
    order = list(names)
    rows = [f"| {display} | {case.replace('_', ' ')} | "
            + " | ".join(cells.get(column, "-") for column in COLUMNS) + " |"
            for (display, case), cells in sorted(
                cases.items(), key=lambda it: order.index(it[0][0]))]
    failed = sum("**" in verdict for cells in cases.values() for (kernel, _), verdict
                 in cells.items() if kernel == "stack")
    notes = [f"- {display}, {kernel}{', ' if on else ''}{', '.join(on)}: {text}" for (
        display, kernel, text), on in sorted(why.items(), key=lambda it: (
            order.index(it[0][0]), it[0][1]))]
    booted = {}
    for what, at in sorted(when.items(), key=lambda it: order.index(it[0][0])):
        booted.setdefault(at, []).append(" ".join(what))
    # of the displays here, or seen with them
    bugs = re.findall(r"(?m)^([\w-]+): (.*)\n(?:from .*\n)?open (.*)",
                      (top / "patches/bugs").read_text())
    stays = [f"- {name}: {what}: {reason}" for name, what, reason in bugs
             if name.split("-")[0] in displays or "make drivers" in reason]
    head = textwrap.fill(f"Made by `make drivers UPDATE=1`, {reports.made(base)}.", 100,
                         break_on_hyphens=False, break_long_words=False)
    reports.write(report, HEAD.format(head=head) + "\n".join([
        *rows, "", "What was booted when, each with the commit of this repository:", "",
        *(f"- booted on {day}, commit {commit}: {'; '.join(whats)}"
          for (day, commit), whats in sorted(booted.items())),
        "", "What stays, of `patches/bugs`:", "", *stays,
        "", "Why something is not ok, or had less than 20 rounds:", "", *notes, ""]))
    say(f"{failed} cases fail with the stack; written to results/drivers.md")


if __name__ == "__main__":
    main()
