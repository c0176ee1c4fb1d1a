#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""issuer.py: try an issuer of fences of your own. FILE= has it, with its KUnit cases, and takes the
place of drivers/dma-buf/st-dma-fence-issuer.c of the stack, which is what to begin with. It is
compiled with W=1, and its suites are run on UML with KASAN and lockdep, against the clients of
st-dma-fence-clients.c. Fails if a case fails, on a splat, and if the compiler has something to say.
"""

import os, re, subprocess, sys
from pathlib import Path
import objects, stack
from objects import bash, text_of
from stack import build, die, logs, run_main, short, top

work, out, log = build / "issuer", build / "issuer.kunit-um", logs / "issuer"
build_log = logs / "issuer-build.log"
config, place = Path(f"{out}.config"), "drivers/dma-buf/st-dma-fence-issuer.c"
OPTIONS = "--kernel_args", "kasan_multi_shot", "--timeout", "900"


def given():
    """The file, and its suites."""
    file = Path(os.environ["FILE"])
    suites = re.findall(r'struct kunit_suite \w+ = \{[^}]*\.name = "([^"]+)"', file.read_text())
    if not suites:
        die(f"{file} has no KUnit suite; copy {place} to begin with")
    return file, suites


def main():
    file, suites = given()
    at = objects.places()
    for line in bash('own_tree "$1" "$2"', work, stack.rev("HEAD", at.tree)):
        print(line)
    (work / place).write_text(file.read_text())
    config.write_text(objects.uml_config())
    print("== building the KUnit kernel (10 to 15 minutes from cold) ", end="", flush=True)
    if not objects.uml_build(build_log, work, out, config):
        print(" FAILED")
        print(objects.complaints(build_log, r"\berror:"))
        die(f"it does not build; the whole log is {short(build_log)}")
    print(" done")
    said = re.findall(rf"(?m)^.*{place}:(\d.*: (?:warning|error): .*)$", text_of(build_log))
    for message in said:
        print(f"{file}:{message}")
    failed = bool(said)
    for suite in suites:
        rc, cases, *splats = bash('rc=0; kunit_exec "$@" || rc=$?; printf "%s\\n" $rc "$cases" '
                                  '${splats:+"$splats"}', work, out, log, suite, *OPTIONS,
                                  process_group=0, stdin=subprocess.DEVNULL)
        bad = rc != "0" or bool(splats) or "passed" not in cases
        failed |= bad
        print("FAILED  " if bad else "ok      ", suite, cases or "no result")
        kernel = text_of(Path(f"{log}.kernel.log"))
        failing = re.findall(r"(?m)^\[[\d:]*\] \[FAILED\] (\w+)", text_of(Path(f"{log}.log")))
        wrong = re.findall(r"(?m)^.*TION FAILED at .*\n(?:.*\n){,3}", kernel)
        for line in [*failing, *splats[:3], *wrong[:3]]:
            print("   ", line.rstrip())
        if bad:
            print(f"    logs: {short(log)}.log and {log.name}.kernel.log")
    sys.exit(failed)


if __name__ == "__main__":
    run_main(main)
