#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""objects.py COMMAND: what is compiled of a tree with W=1, how, and what that says.

  files ARCH TREE BASE   every C file that TREE changes since BASE, and every issuer of fences
  cross ARCH             the prefix of the compiler
  prepare ARCH SRC OUT   an object directory, configured
  messages SRC           the messages on standard input, of a compiler, kernel-doc or Sphinx, about
                         the tree SRC, without line numbers, so that those of two can be compared
  join                   those of sparse, each on one line

um has dma-buf and the DRM core, x86_64 the drivers, arm64 those that do not build for x86. As a
module it also has what builds and tests KUnit kernels for UML.
"""

import os, re, subprocess, sys
from pathlib import Path
import stack
from stack import build, die, ending, git, run_main, top

CORE = re.compile(r"drivers/(dma-buf|gpu/drm/[^/]*\.c|gpu/drm/tests|gpu/drm/scheduler)")
ARM = re.compile(r"drivers/gpu/drm/imagination/")
KUNIT = "./tools/testing/kunit/kunit.py"
machine = os.uname().machine
arches = ["um", "x86_64", "arm64"] if machine == "x86_64" else ["um", "arm64"]
jobs = os.environ.get("JOBS") or str(len(os.sched_getaffinity(0)))


def text_of(path):
    return path.read_bytes().decode(errors="replace") if path.exists() else ""


def finish(run, dots=False):
    """What a process prints. If we are ended it is, with its group if it leads one."""
    with ending(run, run.wait, dots):
        while True:
            try:
                return run.communicate(timeout=10)[0]
            except subprocess.TimeoutExpired:
                if dots:
                    print(".", end="", flush=True)


def all_with_dots(log, *commands, more=False, dots=True, **how):
    """Whether long commands succeed, one after the other. With a dot every ten seconds, and what
    they print in a log, after what that has if it is MORE."""
    with open(log, "a" if more else "w") as out:
        for argv in commands:
            try:
                run = subprocess.Popen(list(map(str, argv)), stdin=subprocess.DEVNULL, stdout=out,
                                       stderr=out, process_group=0, **how)
            except OSError as why:
                out.write(f"error: {why}\n")
                return False
            finish(run, dots)
            if run.returncode:
                return False
    return True


def bash(script, *args, **how):
    """Something of common.sh, which does without the places: the lines that it prints."""
    run = subprocess.Popen(["bash", "-c", f'no_places=1; . "$0/common.sh"; {script}',
                            top / "scripts", *map(str, args)],
                           **dict(stdout=subprocess.PIPE, text=True, errors="replace") | how)
    lines = (finish(run) or "").split("\n")[:-1]
    return lines if run.returncode == 0 else sys.exit(1)


def object_files(arch, tree, base):
    files = git("diff", "--name-only", base, "HEAD", "--", "drivers/*.c", at=tree).split("\n")
    found = git("grep", "-lE", r"\<dma_fence_init(64)?\(", "HEAD", "--", "drivers/*.c", at=tree,
                rc=True).stdout.decode()
    files += [line.removeprefix("HEAD:") for line in found.split("\n")]
    return objects_of(arch, [f for f in files if "/i915/selftests/" not in f])


def objects_of(arch, files):
    """Those that ARCH is to build."""
    part = lambda file: "um" if CORE.match(file) else "arm64" if ARM.match(file) else "x86_64"
    return sorted({f for f in files if f and part(f) == arch})


def cross_compile(arch):
    return "aarch64-linux-gnu-" if arch == "arm64" and machine != "aarch64" else ""


def with_cross(arch):
    return os.environ | {"CROSS_COMPILE": cross_compile(arch)}


def make(arch, src, out, *what):
    return ["make", "-C", src, f"ARCH={arch}", f"O={out}", *what]


def prepare(arch, src, out):
    """The commands for it. The last one leaves a mark."""
    if arch == "um":
        configure = [make(arch, src, out, f"KCONFIG_ALLCONFIG={top}/configs/kunit-uml.config",
                          "alldefconfig")]
    else:
        # Without what needs tools that single objects do not.
        options = ("-d WERROR -d MODULE_SIG -d RUST -d GCC_PLUGINS -d DEBUG_INFO_BTF "
                   "-d DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT -e DEBUG_INFO_NONE").split()
        configure = [make(arch, src, out, "allmodconfig"),
                     [f"{src}/scripts/config", "--file", f"{out}/.config", *options],
                     make(arch, src, out, "olddefconfig")]
    return [["mkdir", "-p", out], *configure, make(arch, src, out, f"-j{jobs}", "prepare"),
            ["touch", f"{out}/.prepared"]]


def messages(src, text):
    """A set of them."""
    found = re.findall(r"(?im)^(?:.*: (?:warning|error|severe|critical): |(?:warning|error): ).*",
                       text)
    return {re.sub(r"(?a):\d+\b", "", line.replace(f"{src}/", "")) for line in found}


def join_messages(text):
    """A line for each, with the types that sparse puts on lines of their own."""
    joined, more = [], False
    for line in text.split("\n"):
        if re.search(": (warning|error): ", line):
            joined.append(line)
            more = True
        elif more and (part := re.match(r"[^ ]+:[0-9]+:[0-9]+: {4,}(.*)", line)):
            joined[-1] += " | " + part[1]
        else:
            more = False
    return joined


def same_objects():
    """An environment in which objects of the same source are the same, so that a kernel that has
    passed its tests is known again. What another topic compiled before comes from ccache."""
    return os.environ | dict(
        PATH=f"/usr/lib/ccache:{os.environ['PATH']}", CCACHE_DIR=f"{build}/ccache",
        CCACHE_MAXSIZE="8G", LOCALVERSION="", KBUILD_BUILD_VERSION="1", KBUILD_BUILD_USER="series",
        KBUILD_BUILD_HOST="localhost", KBUILD_BUILD_TIMESTAMP="Thu Jan  1 00:00:00 UTC 2026")


def uml_config():
    return (top / "configs/kunit-uml.config").read_text() + \
        "# CONFIG_LOCALVERSION_AUTO is not set\n"


def hash_of(text):
    return git("hash-object", "--stdin", data=text.encode())


def compilers():
    return subprocess.run("gcc --version; aarch64-linux-gnu-gcc --version 2>&1", shell=True,
                          stdout=subprocess.PIPE, text=True).stdout


def how_built(script, more=""):
    """What a result depends on besides the source: the scripts, MORE and the compilers."""
    return hash_of(uml_config() + Path(__file__).read_text() + more + Path(script).read_text() +
                   compilers())


def uml_build(log, src, out, config):
    """With W=1, the KUnit kernel for UML: whether it builds."""
    options, prepared = [f"--build_dir={out}", f"--kunitconfig={config}"], out / ".prepared"
    # W=1 makes the test of an option fail while a directory for generated headers is missing, and
    # then KASAN is left out without a word: make those without it.
    before = [] if prepared.exists() else [
        [KUNIT, "config", *options], ["make", "ARCH=um", f"O={out}", f"-j{jobs}", "prepare"],
        ["touch", prepared]]
    kernel = [KUNIT, "build", *options, f"--jobs={jobs}", "--make_options", "W=1"]
    if not all_with_dots(log, *before, kernel, cwd=src):
        return False
    if "-fsanitize=kernel-address" in text_of(out / "init/.main.o.cmd"):
        return True
    with open(log, "a") as end:
        end.write("error: this kernel has no KASAN\n")
    return False


def kunit_exec(src, out, log, glob, *options):
    """That of common.sh: what kunit.py returns, the number of cases, the splats, and its log."""
    rc, ran, *splats = bash('rc=0; kunit_exec "$@" >/dev/null || rc=$?; '
                            'printf "%s\\n" $rc "$ran" ${splats:+"$splats"}', src, out, log, glob,
                            *options, process_group=0, stdin=subprocess.DEVNULL)
    return int(rc), int(ran), splats, Path(f"{log}.log")


def uml_test(src, out, log):
    """The suites that a kernel has, each glob in a boot of its own: the number of tests, what fails
    or leaves a splat, and a log of that."""
    total, number, bad, bad_log = 0, 0, [], None
    *_, listed = kunit_exec(src, out, f"{log}-list", "", "--list_tests")
    names = text_of(listed)
    for glob in bash('printf "%s\\n" "${kunit_suites[@]}"'):
        if not re.search(rf"(?m)^{glob.replace('*', '.*', 1)}\.", names):
            continue
        number += 1
        rc, ran, splats, path = kunit_exec(src, out, f"{log}-{number}", glob, "--kernel_args",
                                           "kasan_multi_shot", "--timeout", "600")
        total += ran
        if rc or splats or not ran:
            failed = re.findall(r"(?m)^.*\[(?:FAILED|ERROR|CRASHED|TIMED_OUT)\].*", text_of(path))
            bad.append(f"{glob}: " + "\n".join([*failed[:5], *splats]))
            bad_log = path
    return (total, "\n".join(bad), bad_log) if total else (0, "no suite ran", listed)


def places():
    """What is asked for of the stack. Variables and the lock are common.sh's, if no caller had it
    look at them."""
    os.environ["SCOPE"] = "select"
    if not os.environ.get("SERIES_LOCKED"):
        os.execvp("bash", ["bash", "-c", '. "$0/common.sh"; exec "$@"', top / "scripts",
                            os.path.abspath(sys.argv[0]), *sys.argv[1:]])
    return stack.place(stack.read_series())


def begin():
    """The places, for a check of topics."""
    at = places()
    if not at.tree.is_dir() or not at.base_tree.is_dir():
        die("there is no work tree yet: run 'make tree' first")
    os.environ.update(same_objects())
    return at


def checkout(work, commit):
    # Without the refresh it writes files anew that were only touched.
    git("update-index", "-q", "--refresh", at=work, rc=True)
    git("checkout", "-q", "-f", "--detach", commit, at=work)


def excerpt(text, work, most, indent, width):
    """The first lines of what is wrong, without the place of the work tree."""
    return [(indent + line.replace(f"{work}/", ""))[:width] for line in text.split("\n")[:most]]


def complaints(log, *patterns):
    """The lines of a log that say why, by the first pattern that is there, or else its end."""
    text = text_of(log)
    found = (re.findall(rf"(?m)^.*(?:{pattern}).*", text) for pattern in patterns)
    return "\n".join(next(filter(None, found), text.rstrip("\n").split("\n")[-5:]))


def main(command="", *args):
    given = lambda: sys.stdin.buffer.read().decode(errors="replace")
    lines = lambda texts: print("".join(f"{t}\n" for t in texts), end="")
    match command, args:
        case "files", (("um" | "x86_64" | "arm64") as arch, tree, base):
            lines(object_files(arch, Path(tree), base))
        case "cross", (arch,):
            print(cross_compile(arch))
        case "prepare", (("um" | "x86_64" | "arm64") as arch, src, out):
            for argv in prepare(arch, src, out):
                finish(run := subprocess.Popen(argv))
                if run.returncode:
                    sys.exit(run.returncode)
        case "messages", (src,):
            lines(sorted(messages(src, given())))
        case "join", ():
            lines(join_messages(given()))
        case _:
            die("usage:\n" + __doc__.split("\n\n")[1])


if __name__ == "__main__":
    run_main(lambda: main(*sys.argv[1:]))
