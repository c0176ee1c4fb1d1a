#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""judge.py LOG selftest EXIT MAY-SKIP | LOG BAD DETAIL: what came of a guest whose console is LOG,
in a line. Fails if that is not good.

A selftest is good if the guest came to its end, with EXIT 0, if some case has passed, none failed,
and none was skipped whose line the regular expression MAY-SKIP does not match. What others judge,
BAD is 0 if it is good, gets no more than the splats of the kernel, which nothing good has.
"""

import re, subprocess, sys
from pathlib import Path
from types import SimpleNamespace
from stack_lib import die, top


def splats(log):
    """What splats.sh finds."""
    run = subprocess.run([top / "scripts/splats.sh", log], stdout=subprocess.PIPE,
                         encoding="utf-8", errors="replace")
    return [line.removeprefix(f"{log.name}: ") for line in run.stdout.splitlines()]


def judge(log, good, detail, **more):
    found = splats(log)
    if found:
        detail += f"; {len(found)} splats: {found[0][:90]}"
    return SimpleNamespace(good=good and not found, detail=detail, splats=found, **more)


def selftest(log, ended, may_skip=None, must_run=()):
    """MUST_RUN are cases that may not be skipped, whatever MAY_SKIP says. Without that all may."""
    text = log.read_bytes().decode(errors="replace").replace("\r", "") if log.exists() else ""
    code = "".join(re.findall(r"boot-init: selftest exit=(\d+)", text)[-1:])
    failed = re.findall(r"(?m)^not ok \d+ (.*)", text)
    ok = re.findall(r"(?m)^ok \d+ (.*)", text)
    skipped = [case for case in ok if "# SKIP" in case]
    passed = [case for case in ok if case not in skipped]
    wrong = [case for case in skipped if case.split(" # SKIP")[0] in must_run or
             not re.search(may_skip or "", case)]
    good = ended and code == "0" and not failed and not wrong and \
        (may_skip is None or bool(passed))
    detail = f"{len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped, exit {code}" + \
        ("" if ended else ", no power off") + \
        (f"; not to be skipped: {', '.join(wrong)[:90]}" if wrong else "")
    if not code:
        last = [line for line in text.split("\n") if line][-1:]
        detail = "the guest never reported; last line: " + "".join(last)[:80]
    return judge(log, good, detail, failed=failed, ran=[*passed, *failed])


def main(log="", *how):
    match how:
        case "selftest", code, may_skip:
            said = selftest(Path(log), code == "0", may_skip)
        case bad, detail:
            said = judge(Path(log), bad == "0", detail)
        case _:
            die("usage: " + __doc__.partition(":")[0])
    print(said.detail)
    sys.exit(not said.good)


if __name__ == "__main__":
    main(*sys.argv[1:])
