#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""glue_test.py [STORY...]: tree, export, rebase, backport, mail and the choice of topics, on a
kernel of a few files that comes as a Debian package like the real one; what is made of the console
of a guest; and what is left when a signal ends it all. Less than a minute.

A story is a few cases in order, each of which goes on where the one before it ended, in a
repository of its own. Stories run side by side. A check that fails says what it ran and what came
of that, and the case goes on; a command between the checks that fails ends the case.
"""

import email, fcntl, hashlib, json, os, re, shlex, shutil, signal, subprocess, sys, tarfile
import tempfile, time, traceback, unittest, zlib
from email.header import decode_header, make_header
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import judge
from stack_lib import build, die, top

ASKS = "BASE", "KSRC", "SERIES", "TOPICS", "SCOPE"
OURS = "GIT_", "MAKE", "SERIES_"
env = {k: v for k, v in os.environ.items() if k not in ASKS and not k.startswith(OURS)}
env |= dict(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1", LC_ALL="C")
GIT = "git", "-c", "user.name=series", "-c", "user.email=series@localhost"
AS_X = "-c", "user.name=x", "-c", "user.email=x@y"
OTHER = "Änne Other <a@other.org>"
BY_OTHER = f"--author={OTHER}", "--date=2026-03-04T05:06:07 +0100", "-m", \
    "fence: Set line 20\n\nCc: dma@vger.kernel.org\nReviewed-by: R <r@r.org>\n" \
    f"Signed-off-by: {OTHER}"
FENCE, DRM = "drivers/dma-buf/dma-fence.c", "drivers/gpu/drm/drm_drv.c"
LAB = "patches/lab/0001-fence-Add-a-lab.patch"
OLD = 1577880000    # a time in 2020
SELFTEST = "tools/testing/selftests/drivers/dma-buf/out_fence_lifetime.c"
GONE = "tools/testing/selftests/drivers/dma-buf/drm_device_gone.c"

# Instead of what builds and boots a kernel: that is no more than dma-fence.c, and the guest passes
# its selftest if there is $FIXED in it. Then it may $SKIP a case. The compiler has something to say
# if there is $ODD. A guest of soak says $SAYS, or never ends. $ORDER gets what happens.
FAKES = {
    "make": """
        for last; do
            case $last in
            O=*) out=${last#O=} boot=$out/arch/arm64/boot; mkdir -p "$boot" ;;
            KCONFIG_ALLCONFIG=*) cp "${last#*=}" "$out/.config" ;;
            Image) cp "$2/drivers/dma-buf/dma-fence.c" "$boot/Image"; echo build >>"$ORDER" ;;
            linux) cp "${0%/*}/linux" "$out/linux"; echo build >>"$ORDER" ;;
            *.o) ! grep -q "$ODD" "$2/${last%o}c" || echo "$2/${last%o}c:1:1: warning: odd" ;;
            */out_fence_lifetime) touch "$last" ;;
            esac
        done
        """,
    "aarch64-linux-gnu-gcc": 'while [ "$1" != -o ]; do shift; done; touch "$2"',
    "qemu-system-aarch64": """
        while [ $# -gt 0 ]; do
            case $1 in
            -kernel) kernel=$2 ;;
            -serial) log=${2#file:} ;;
            esac
            shift
        done
        [ -z "$SAYS" ] || exec "${0%/*}/linux" >"$log"
        code=0 ok=ok skip=$SKIP
        grep -q "$FIXED" "$kernel" || code=1 ok="not ok" skip=
        printf '%s 1 case%s\\r\\n' "$ok" "$skip" >"$log"
        [ -z "${ONCE:-}" ] || [ $code = 1 ] || [ -e "$log.once" ] || echo "$ONCE" >>"$log"
        touch "$log.once"
        printf 'ok 2 other\\r\\nboot-init: selftest exit=%s\\r\\n' $code >>"$log"
        """,
    "linux": """
        echo boot >>"$ORDER"
        if [ "$SAYS" = nothing ]; then
            echo $$ >>"$ORDER.pids"
            exec /bin/sleep 60
        fi
        echo "$SAYS"
        """,
    "hang": """
        /bin/sleep 60 &
        echo $$ $! >"$ORDER.pids"
        wait
        """,
    "sleep": "exec /bin/sleep 0.05",
    "checkpatch.pl": """
        for last; do
            case $last in *.patch) ! grep 'Acked-by: nobody$' "$last" || exit 1 ;; esac
        done
        """,
    "get_maintainer.pl": 'echo "Some Body <some@body.org>"; echo linux-mm@kvack.org',
    "git-send-email": 'for last; do case $last in *.patch) cat "$last" ;; esac; done',
}
FAKES["gcc"] = FAKES["aarch64-linux-gnu-gcc"]

# What kernels say, of which configs/splats has to find each line, and nothing below.
SPLATS = """\
[    1.000000] BUG: KASAN: slab-use-after-free in _raw_spin_lock_irqsave+0xb4/0xec
BUG: KCSAN: data-race in dma_fence_signal / dma_fence_wait
BUG: scheduling while atomic: kworker/0:1/12/0x00000002
BUG: sleeping function called from invalid context at kernel/locking/mutex.c:580
BUG: spinlock bad magic on CPU#1, out_fence_lifet/52
BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 40s!
watchdog: BUG: soft lockup - CPU#1 stuck for 26s! [fence_uapi:61]
[ BUG: Invalid wait context ]
BUG: MAX_LOCKDEP_CHAINS too low!
kernel BUG at drivers/gpu/drm/drm_crtc.c:160!
WARNING: drivers/dma-buf/dma-fence.c:500 at dma_fence_release+0x1c/0x2a0, CPU#1: test/33
WARNING: possible circular locking dependency detected
WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected
WARNING: bad unlock balance detected!
WARNING: suspicious RCU usage
WARNING: held lock freed!
Internal error: synchronous external abort: 0000000096000010 [#1] SMP
Oops: general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP KASAN
divide error: 0000 [#12] PREEMPT SMP
Unable to handle kernel NULL pointer dereference at virtual address 0000000000000008
Kernel panic - not syncing: Segfault with no mm
KASAN: null-ptr-deref in range [0x0000000000000008-0x000000000000000f]
UBSAN: shift-out-of-bounds in drivers/dma-buf/dma-fence-array.c:80:12
ODEBUG: object 00000000c0ffee is on stack 00000000abad1dea, but NOT annotated.
ODEBUG: free active (active state 0) object: 000000006b6b6b6b object type: work_struct
kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)
[   36.676810] kmemleak: 16 suspected memory leaks
[   36.676810] WARNING: kmemleak sees 1 of what was lost on purpose
BUG kmalloc-64 (Not tainted): Poison overwritten
BUG dma-fence cache (Tainted: G    B             ): Object already free
pagealloc: memory corruption
pagealloc: single bit error
list_add corruption. prev->next should be next (ffff0000), but was 6b6b6b6b. (prev=ffff0001).
list_del corruption, ffff0000->next is LIST_POISON1 (dead000000000100)
list_add double add: new=ffff0000, prev=ffff0000, next=ffff0001.
refcount_t: underflow; use-after-free.
kobject (00000000c0ffee): tried to init an initialized object, something is seriously wrong.
[ INFO: possible recursive locking detected ]
[ INFO: inconsistent lock state ]
[ INFO: suspicious RCU usage. ]
[ INFO: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected ]
INFO: trying to register non-static key.
INFO: lockdep is turned off.
DEBUG_LOCKS_WARN_ON(lock->magic != lock)
Voluntary context switch within RCU read-side critical section!
rcu: __call_rcu_common(): Double-freed CB 00000000c0ffee->dma_fence_free+0x0/0x40()!!!
rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:
rcu: INFO: rcu_preempt self-detected stall on CPU
rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 1-...D } 6000 jiffies s: 61
INFO: task fence_uapi:61 blocked for more than 240 seconds.
INFO: task fence_uapi:61 blocked in I/O wait for more than 240 seconds.
watchdog: CPU0: Watchdog detected hard LOCKUP on cpu 1
unregister_netdevice: waiting for lo to become free. Usage count = 2
"""
NO_SPLATS = """\
[    0.000000] rcu: \tRCU lockdep checking is enabled.
rcu: \tTasks-RCU CPU stall warnings timeout set to 0 (rcu_task_stall_timeout).
Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar
kasan: KernelAddressSanitizer initialized (generic)
kcsan: selftest: 3/3 tests passed
kmemleak: Kernel memory leak detector initialized (mem pool available: 11591)
kmemleak: Kernel memory leak detector disabled
workqueue: commit_work hogged CPU for >10000us 4 times, consider switching to WQ_UNBOUND
watchdog: Delayed init of the lockup detector failed: -19
CPU: 1 UID: 0 PID: 33 Comm: test Not tainted 7.3.0 #1 PREEMPT
INFO: NMI handler (perf_event_nmi_handler) took too long to run: 1.204 msecs
fence_faults: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL), nodemask=(null)
FAULT_INJECTION: forcing a failure.
clocksource: Marking clocksource 'tsc' as unstable because the skew is too large:
[drm] pci: virtio-gpu-pci detected at 0000:00:04.0
WARNING: arch/um/drivers/virtio_pcidev.c:600 at virtio_pcidev_virtio_probe+0x1/0x2, CPU#0
    ok 3 the kernel reports BUG: KASAN: slab-use-after-free
not ok 4 refcount_t: is what it says
# WARNING: is what it says
"""

# NAME: how QEMU ends, what it has on its console, and the line of the table.
DONE = "boot-init: selftest exit="
CONSOLES = {
    "passes": (0, "[ 1.0] test: ok 1 a\n  not ok 7 inner\n"
               f"ok 1 a\nok 2 b # SKIP no monitor\n{DONE}0\n",
               r"passed  passes +1 passed, 0 failed, 1 skipped, exit 0 \("),
    "skips": (0, f"ok 1 a\nok 2 b # SKIP no idea\n{DONE}0\n",
              r"FAILED  skips +1 passed, 0 failed, 1 skipped, exit 0; not to be skipped: b # SKI"),
    "skips-all": (0, f"ok 1 a # SKIP no monitor\n{DONE}0\n",
                  r"FAILED  skips-all +0 passed, 0 failed, 1 skipped, exit 0 \("),
    "fails": (0, f"ok 1 a\nnot ok 2 b\n{DONE}0\n",
              r"FAILED  fails +1 passed, 1 failed, 0 skipped, exit 0 \("),
    "exits": (0, f"ok 1 a\n{DONE}124\n",
              r"FAILED  exits +1 passed, 0 failed, 0 skipped, exit 124 \("),
    "silent": (0, "ok 1 a\nand no end\n\n",
               r"FAILED  silent +the guest never reported; last line: and no end \("),
    "hangs": (124, f"ok 1 a\n{DONE}0\n",
              r"FAILED  hangs +1 passed, 0 failed, 0 skipped, exit 0, no power off \("),
    "splats": (0, f"[ 1.0] BUG: bad\n[ 1.1] WARNING: too\nok 1 a\n{DONE}0\n",
               r"FAILED  splats +1 passed, .*, exit 0; 2 splats: \[ 1.0\] BUG: bad \("),
    "races": (0, f"BUG: KCSAN: data-race\nok 1 a\n{DONE}0\n",
              r"FAILED  races +1 passed, .*; 1 splats: BUG: KCSAN: data-race \("),
    "one-cpu": (0, f"ok 1 a\n{DONE}0\n", "FAILED  one-cpu +a guest with one CPU has no races$"),
}
TABLE = """no_places=1; . scripts/common.sh; . scripts/guest-run.sh
    variant='' series=all may_skip='no monitor|no display' out=$logs
    base_name() { echo base; }
    guest_boot() {
        { [[ $1 = *one-cpu* ]] || echo smp: Brought up 1 node, 2 CPUs; cat "$1.says"; } |
            sed 's/$/\\r/' >"$1"
        return "$(cat "$1.ends")"
    }
    for name; do run_selftest "$name" 9 ""; done
    run_table guest"""


def run(at, *argv, **more):
    """A command: what it is, its exit code, and what it says."""
    done = subprocess.run(["timeout", "60", *map(str, argv)], cwd=at,
                          env=env | {k: str(v) for k, v in more.items()}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          encoding="utf-8", errors="replace")
    what = " ".join([*(f"{k}={v}" for k, v in more.items()), shlex.join(map(str, argv))])
    return f"{what} (exit {done.returncode})", done.returncode, done.stdout.rstrip("\n")


def sh(at, *argv, **more):
    what, rc, out = run(at, *argv, **more)
    if rc:
        raise AssertionError(f"{what}\n{out}")
    return out


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def edit(path, old, new):
    text = path.read_text()
    if old not in text:
        raise AssertionError(f"{path} has no '{old}'")
    path.write_text(text.replace(old, new))


def set_line(path, number, value):
    edit(path, f"int line{number};", f"int line{number} = {value};")


def save(at, message, *options):
    sh(at, *GIT, "add", "-A")
    sh(at, *GIT, "commit", "-q", *(options or ["-m", message]))


def fakes(where, *names):
    for name in names or FAKES:
        write(where / name, f"#!/bin/sh\n{FAKES[name]}")
        (where / name).chmod(0o755)


def prepare(tmp):
    """tmp/start, what a story starts with; tmp/linux, a git of the kernel; and tmp/more, another
    patch of alpha. Kernel 9.8 has another line where a patch of beta wants to go, and 9.9 a
    symbolic link."""
    repo, linux = tmp / "start", tmp / "linux"
    fence = linux / FENCE
    write(linux / "Kbuild", "")
    write(linux / ".gitignore", "*.o\n# Debian packaging\n*\n")
    write(linux / "MAINTAINERS",
          "FENCE\nM:\tSomebody <some@body>\nF:\tdrivers/dma-buf/\n\nTHE REST\nF:\t*\n")
    write(fence, "".join(f"int line{n};\n" for n in range(1, 61)))
    write(linux / DRM, "".join(f"int drm{n};\n" for n in range(1, 61)))
    write(linux / "drivers/dma-buf/Makefile", "obj-y += dma-fence.o\n")
    write(linux / "Makefile", "VERSION = 9\nPATCHLEVEL = 8\n")
    fakes(linux / "scripts", "checkpatch.pl", "get_maintainer.pl")

    def package(version, number):
        name = f"linux-source-{version}"
        deb, root = repo / f"build/download/{name}_{number}_all.deb", tmp / name
        write(root / "DEBIAN/control", f"Package: {name}\nVersion: {number}\nArchitecture: all\n"
              "Maintainer: nobody <no@body>\nDescription: none\n")
        (root / "usr/src").mkdir(parents=True)
        with tarfile.open(root / f"usr/src/{name}.tar.xz", "w:xz") as tar:
            tar.add(linux, name)
        sh(tmp, "dpkg-deb", "--root-owner-group", "-b", root, deb)
        return hashlib.sha256(deb.read_bytes()).hexdigest()

    (repo / "build/download").mkdir(parents=True)
    edit(fence, "int line40;", "long line40;")
    package("9.8", "9.8.1-1")
    edit(fence, "long line40;", "int line40;")
    (linux / "drivers/dma-buf/link.c").symlink_to("dma-fence.c")
    write(repo / "patches/base",
          f"9.9 linux-source-9.9 9.9.2-1 sha256:{package('9.9', '9.9.2-1')}\n")

    def git(*args):
        sh(linux, *GIT, *args)

    # Patches: alpha is a fix, beta another one with a test, gamma needs alpha, lab is a test.
    def commit(message):
        save(linux, "", "--date=2026-01-01T00:00:00Z", "-m", message)

    def patches(name, *where):
        git("format-patch", "-q", "--zero-commit", "--no-signature", "--no-numbered",
            "--full-index", "-o", name, *where)

    def topic(name):
        patches(repo / "patches" / name, "mark..HEAD")
        git("tag", "-f", "mark")

    git("init", "-q")
    edit(linux / ".gitignore", "# Debian packaging\n*\n", "")
    commit("base")
    git("tag", "base")
    git("tag", "mark")
    set_line(fence, 10, 1)
    commit("fence: Set line 10")
    git("branch", "more")
    topic("alpha")
    set_line(fence, 40, 1)
    commit("fence: Set line 40")
    write(linux / "drivers/dma-buf/st-beta.c", "int test;\n")
    edit(linux / "drivers/dma-buf/Makefile", "fence.o\n", "fence.o\nobj-y += st-beta.o\n")
    write(linux / "drivers/dma-buf/st-run", "#!/bin/sh\n")
    (linux / "drivers/dma-buf/st-run").chmod(0o755)
    edit(linux / "MAINTAINERS", "dma-buf/\n", "dma-buf/\nF:\tDocumentation/fence/\n")
    commit("fence: Add a test")
    topic("beta")
    set_line(fence, 11, 1)
    commit("fence: Set line 11")
    topic("gamma")
    write(linux / "drivers/dma-buf/st-lab.c", "int lab;\n")
    write(linux / SELFTEST, "int main;\n")
    commit("fence: Add a lab")
    topic("lab")
    git("checkout", "-q", "more")
    set_line(fence, 20, 2)
    save(linux, "", *BY_OTHER)
    patches(tmp / "more", "--start-number=2", "-1")
    write(repo / "patches/series", """\
# name  tree            kind  stable  needs
alpha   drm-misc-fixes  post  stable  -
beta    drm-misc-next   post  -       -   # alone
gamma   drm-misc-next   post  -       alpha
lab     -               lab   -       *
""")
    write(repo / ".gitignore", "build/\n__pycache__/\n")
    shutil.copy(top / "Makefile", repo)
    for name in "scripts", "configs":
        shutil.copytree(top / name, repo / name, ignore=shutil.ignore_patterns("__pycache__"))
    sh(repo, *GIT, "init", "-q")
    save(repo, "start")


class Story(unittest.TestCase):
    by_make, script, outside = False, "scripts/stack.py", {}

    @classmethod
    def setUpClass(cls):
        """MORE: the second patch of alpha is there. START: the commands to begin with."""
        cls.repo = cls.tmp / cls.__name__
        cls.build, cls.t = cls.repo / "build", cls.repo / "build/linux"
        shutil.copytree(cls.tmp / "start", cls.repo, symlinks=True)
        if cls.more:
            shutil.copytree(cls.tmp / "more", cls.repo / "patches/alpha", dirs_exist_ok=True)
        for command in cls.start:
            sh(cls.repo, "scripts/stack.py", command)
        if cls.start:
            save(cls.repo, "started")

    def git(self, *args, at="build/linux", **more):
        return sh(self.repo / at, *GIT, *args, **more)

    # Each of these is one check, and what follows runs also if it fails.

    def check(self, good, what, *shown):
        with self.subTest():
            if not good:
                self.fail("\n".join([what, *shown]))

    def same(self, what, got, want):
        self.check(got == want, what, f"is {got!r}", f"and not {want!r}")

    def has(self, path, line):
        text = (self.repo / path).read_text() if (self.repo / path).exists() else ""
        self.check(line in text.splitlines(), f"{path} has no line '{line}'")

    def there(self, path, test=Path.exists):
        self.check(test(self.repo / path), f"{path}: not {test.__name__}")

    def works(self, *argv, at="", **more):
        what, rc, out = run(self.repo / at, *argv, **more)
        self.check(not rc, what, out)

    def changes(self, *names):
        status = sh(self.repo, *GIT, "status", "--porcelain", "-uall").splitlines()
        self.same("what has changed", sorted(line[3:] for line in status), sorted(names))

    def makes(self, text, *args, fails=False, **variables):
        """A command with make, or without what is around it, works and says so."""
        if self.by_make:
            given = [f"{k}={v}" for k, v in variables.items()]
            what, rc, out = run(self.repo, "make", *args, *given, **self.outside)
        else:
            what, rc, out = run(self.repo, self.script, *args, **variables)
        why = ("fails", "does not fail")[fails] if bool(rc) != fails else f"does not say '{text}'"
        self.check(bool(rc) == fails and re.search(text, out, re.M), what, out, why)
        return out

    def refuses(self, text, *args, **variables):
        return self.makes(text, *args, fails=True, **variables)


class Words(Story):
    more, start, by_make = False, [], True

    def test_words(self):
        """names of variables, topics and targets are checked"""
        self.refuses("no topic 'alfa'; near it: alpha", "kunit", TOPICS="alfa")
        self.refuses("make mail takes one topic: TOPIC=NAME", "mail", TOPICS="alpha")
        self.refuses("no variable SERIE: did you mean SERIES", "tree", SERIE="none")
        self.refuses("no topic 'foo'; use some of: alpha beta gamma lab", "kunit", TOPICS="foo")
        self.refuses("leave TOPICS out, or SERIES", "test", TOPICS="alpha", SERIES="none")
        self.refuses("leave SERIES out", "sparse", SERIES="none")
        self.refuses("there is no variable zzz; .make help", "tree", zzz=1)
        self.refuses("MINUTES is for make soak", "tree", MINUTES=3)
        self.refuses("TOPIC is for make mail.*; tree, .* take TOPICS", "export", TOPIC="alpha")
        self.refuses("use um, arm64 or x86_64", "kunit", ARCH="'")
        self.refuses("use arm64 or arm", "boot", ARCH="x86_64")
        self.refuses("KERNEL=nonsense: there are: lazy plain rt strict", "boot", KERNEL="nonsense")
        self.refuses("KERNEL=rt: there are: nodebug up", "kunit", KERNEL="rt")
        self.refuses("KERNEL is for make boot and make kunit", "tree", KERNEL="rt")
        self.refuses("leave BASE and KSRC out", "drivers", UPDATE=1, BASE="9.8")
        self.refuses("KERNEL=rt is for arm64", "soak", ARCH="um", KERNEL="rt")
        self.refuses("ARCH is for make boot and make kunit and make soak", "tree", ARCH="arm")
        self.outside = dict(ARCH="riscv")
        self.refuses("not a Linux source tree", "tree", KSRC=self.repo)
        self.refuses("KERNEL=no: there are: lazy plain rt strict", "boot", KERNEL="no")
        self.refuses("leave KERNEL and KCSAN out", "boot", ARCH="arm", KCSAN=1)
        self.refuses("leave KERNEL and KCSAN out", "boot", ARCH="arm", KERNEL="lazy")
        self.outside = dict(KERNEL="kernel8", DRIVERS="mine", GDB="/usr/bin/gdb", UPDATE="often")
        self.refuses("not a Linux source tree", "tree", KSRC=self.repo)
        self.refuses("KERNEL=kernel8: there are: nodebug up", "kunit")
        self.outside = {}
        self.refuses("no display 'wrong'; there are: virtio", "drivers", DRIVERS="virtio,wrong")
        self.refuses("DRIVERS=, names nothing", "drivers", DRIVERS=",")
        write(self.repo / GONE, "TEST(names)\n")
        self.refuses("no case 'nope'; it has: names", "drivers", TESTS="nope")
        self.refuses("TESTS=, names nothing", "drivers", TESTS=",")
        self.refuses("leave TESTS out", "drivers", UPDATE=1, TESTS="names")
        self.refuses("FILE=mine.c is no file", "issuer", FILE="mine.c")
        self.refuses("FILE is for make issuer", "kunit", FILE="mine.c")
        self.refuses("not a Linux source tree", "tree", KSRC=self.repo)

    def test_blank(self):
        """a checkout below a directory with a blank or a colon"""
        for name in "a b", "a:b":
            shutil.copytree(self.tmp / "start", self.repo / name, symlinks=True)
            self.refuses("a blank or a colon", "-C", name, "tree")

    def test_divisions(self):
        """a division that a 32-bit kernel does not have is seen in an object"""
        import matrix
        write(self.build / "d.c", "extern char __udivdi3, __udivsi3; char *p[2] = {"
              "&__udivdi3, &__udivsi3 };\n")
        sh(self.build, shutil.which("gcc"), "-c", "d.c")
        self.same("d.o", matrix.divisions("-", self.build, {"d.o"}),
                  {"d.o: error: wants __udivdi3"})

    def test_search(self):
        """the topic that makes a test pass is found, wherever it is"""
        import results
        wrong = []
        for n in 1, 2, 3, 8, 13:
            names = [None, *map(str, range(1, n + 1)), "all topics"]
            want = {f"case{i}": names[i % (n + 1) + 1] for i in range(40)}
            asked, makers = [], {}

            def verdicts(name, cases):
                asked.append(name)
                at = names.index(name)
                return {c: "passes" if at >= names.index(want[c]) else "fails" for c in cases}

            results.search(names, verdicts, 0, n + 1, set(want), makers)
            if makers != want or not len(asked) == len(set(asked)) == n:
                wrong.append(f"{n} topics, asked for {asked}: {makers}")
        self.check(not wrong, "results.search()", *wrong)


class Cold(Story):
    more, start = False, []

    def test_tree(self):
        """tree from cold waits for another make, and is not made again"""
        self.by_make = True
        # without a tree only what is very near to something
        self.refuses("suite 'sync_tst'; near it: sync_test$", "kunit", SUITES="sync_tst")
        self.check(not self.t.exists(), "build/linux is made for a suite that is not there")
        lock = os.open(self.repo, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        said, holder = self.tmp / "first", self.build / "at-work"
        write(holder, "make other (process 1)\n")
        with open(said, "w") as out:
            first = subprocess.Popen(["timeout", "60", "make", "tree"], cwd=self.repo, env=env,
                                     stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        while "waiting for its end" not in said.read_text() and first.poll() is None:
            time.sleep(0.1)
        self.check(first.poll() is None, "make tree does not wait", said.read_text())
        self.check(not self.t.exists(), "build/linux is made while another make is at work")
        self.check("== make other (process 1) is at work" in said.read_text(), "it does not say "
                   "who has the lock", said.read_text())
        os.close(lock)
        self.check(not first.wait(), "make tree", said.read_text())
        self.check(re.fullmatch(r"make tree \(process \d+\)\n", holder.read_text()),
                   "who had the lock", holder.read_text())
        self.there("build/linux", Path.is_dir)
        self.makes("up to date", "tree")
        lock = os.open(self.repo, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_EX)
        self.refuses("^error: there is no selftest or suite 'other'", "kunit", SUITES="other")
        self.refuses("suite 'sync_tst'; near it: sync_test$", "kunit", SUITES="sync_tst")
        os.close(lock)
        self.by_make = False
        refs = self.git("for-each-ref", "--format=%(refname:short)", "refs/heads").split()
        self.same("branches", refs, ["alpha", "beta", "gamma", "lab"])
        self.same("HEAD", self.git("symbolic-ref", "--short", "HEAD"), "lab")
        log = self.git("log", "--format=%s", "base-9.9..HEAD").splitlines()
        self.check(len(log) == 5, "not 5 commits", *log)
        self.same(".gitignore", (self.t / ".gitignore").read_text(), "*.o\n")
        self.there("build/linux/drivers/dma-buf/link.c", Path.is_symlink)
        self.has(f"build/linux.base/{FENCE}", "int line10;")
        self.makes(r"\Aalpha\nbeta\ngamma\Z", "needs", "lab")
        self.makes(r"\Aalpha\.\.beta\Z", "commits", "beta")
        self.makes(r"\Abase-9\.9\.\.alpha\Z", "commits", "alpha")

    def test_verify(self):
        """a patch file that is no longer what the branch was made of is noticed"""
        patch = self.repo / "patches/beta/0001-fence-Set-line-40.patch"
        text = patch.read_text()
        for old, new, why in (
                ("+int line40 = 1;", "+int line40 = 3;", "give different trees$"),
                ("-int line40;", "-int line4000;", r"^error: patches/beta/0001-.* not apply: ")):
            edit(patch, old, new)
            self.refuses(why, "verify")
            write(patch, text)
        # the branches that 'make tree' has made are believed, but not if a topic needs others now
        state, series = self.build / "linux.applied", self.repo / "patches/series"
        kept = {path: path.read_text() for path in (state, series)}
        made = json.loads(kept[state])
        made["branches"]["lab"] = made["branches"]["beta"]
        write(state, json.dumps(made))
        self.refuses("give different trees$", "verify")
        edit(series, "post  -       alpha\n", "post  -       alpha,beta\n")
        self.works("scripts/stack.py", "verify")
        for path, text in kept.items():
            write(path, text)
        self.works("scripts/stack.py", "verify")

    def test_export(self):
        """the first export writes what is generated, the second nothing"""
        self.makes("topics that changed: beta$", "export")
        self.has("patches/beta/cover-letter.txt", "beta")
        self.check(os.access(self.repo / "drivers/dma-buf/st-run", os.X_OK), "st-run: no program")
        self.same("MAINTAINERS", (self.repo / "MAINTAINERS").read_text(),
                  "FENCE\nM:\tSomebody <some@body>\n"
                  "F:\tdrivers/dma-buf/\nF:\tDocumentation/fence/\n")
        save(self.repo, "exported")
        self.makes("0 files written, 0 removed; topics that changed: none", "export")
        self.changes()
        self.works("scripts/stack.py", "export", "--check")
        self.works("scripts/stack.py", "verify")

    def test_am(self):
        """git am takes what is in the directory of a topic"""
        self.git("worktree", "add", "-q", "--detach", self.build / "am", "base-9.9")
        files = [p for t in ("alpha", "beta")
                 for p in sorted((self.repo / "patches" / t).glob("*.patch"))]
        self.works(*GIT, "am", "-q", *files, at="build/am")
        self.works("git", "diff", "--exit-code", "beta", "HEAD", at="build/am")


class Changes(Story):
    more, start = False, ["tree", "export"]

    def test_user(self):
        """a change of the user stays"""
        set_line(self.t / FENCE, 60, 7)
        self.makes("using build/linux with your changes", "tree", "--keep")
        self.refuses("has changes of its own: commit them", "tree")
        self.refuses("has uncommitted changes", "export")
        self.makes("^build/linux has changes of its own: ", "changed")
        self.has(f"build/linux/{FENCE}", "int line60 = 7;")

    def test_fold(self):
        """folded into alpha it changes alpha alone"""
        self.git("commit", "-q", "-a", f"--fixup={self.git('rev-parse', 'alpha')}")
        self.works(*GIT, "rebase", "-q", "-i", "--autosquash", "base-9.9", at="build/linux",
                   GIT_SEQUENCE_EDITOR="true")
        self.makes("topics that changed: alpha$", "export")
        self.changes("patches/alpha/0001-fence-Set-line-10.patch")
        self.makes("up to date", "tree")
        save(self.repo, "folded")

    def test_earlier(self):
        """a change on an earlier branch, or on one of the user's, is seen and can be dropped"""
        self.git("checkout", "-q", "alpha")
        self.git("commit", "-q", "--amend", "-m", "fence: Another name")
        out = self.refuses("has changes of its own", "tree")
        sh(self.repo, "sh", "-c", re.search("cd build/linux && git checkout -qf .*|$", out)[0])
        self.same("HEAD", self.git("symbolic-ref", "--short", "HEAD"), "lab")
        self.makes("up to date", "tree")
        self.git("checkout", "-q", "-b", "mine")
        self.git("commit", "-q", "--allow-empty", "-m", "fence: Mine")
        self.git("checkout", "-q", "lab")
        self.makes("branch mine of build/linux has commits that are nowhere else", "changed")
        self.git("branch", "-q", "-D", "mine")

    def test_other(self):
        """somebody else's patch keeps its author, date and trailers"""
        self.git("checkout", "-q", "alpha")
        set_line(self.t / FENCE, 20, 2)
        self.git(*AS_X, "commit", "-q", "-a", *BY_OTHER)
        old = self.git("rev-parse", "alpha~")
        self.works("git", *AS_X, "rebase", "-q", "--onto", "alpha", old, "lab", at="build/linux")
        self.makes("topics that changed: alpha$", "export")
        patch = "patches/alpha/0002-fence-Set-line-20.patch"
        self.changes(patch, "patches/alpha/cover-letter.txt")
        text = (self.repo / patch).read_text()
        self.check(re.search("(?m)^From: .*<a@other.org>", text), "not by a@other.org", text)
        self.has(patch, "Date: Wed, 4 Mar 2026 05:06:07 +0100")
        self.has(patch, f"Signed-off-by: {OTHER}")
        self.same("author", self.git("log", "-1", "--format=%an", "alpha"), "Änne Other")
        save(self.repo, "foreign")

    def test_signed(self):
        """our own patch may not be signed off"""
        self.git("commit", "-q", "--amend", "-s", "-m", "fence: Add a lab")
        self.refuses("lab, fence-Add-a-lab has a Signed-off-by, which is the sender's", "export")
        self.changes()
        state = json.loads((self.build / "linux.applied").read_text())
        self.git("reset", "-q", "--hard", state["head"])
        self.makes("up to date", "tree")

    def test_meanwhile(self):
        """patches/ that changed meanwhile is not overwritten"""
        self.git("commit", "-q", "--amend", "-m", "fence: Add a better lab")
        edit(self.repo / LAB, "Add a lab", "Add the lab")
        self.refuses("patches/ has changed since", "export")


class Trees(Story):
    more, start = True, ["tree"]

    def test_topics(self):
        """trees of topics, and without any"""
        gamma, none = "build/linux-topics-gamma", "build/linux-unpatched"
        self.makes("tree: build/linux-topics-gamma$", "tree", TOPICS="gamma")
        self.has(f"{gamma}/{FENCE}", "int line10 = 1;")
        self.has(f"{gamma}/{FENCE}", "int line11 = 1;")
        self.has(f"{gamma}/{FENCE}", "int line40;")
        self.there(f"{gamma}/drivers/dma-buf/st-lab.c", Path.is_file)
        self.makes("up to date", "tree", TOPICS="gamma,gamma")
        self.makes("linux-unpatched", "tree", SERIES="none")
        self.same(FENCE, self.git("diff", "base-9.9", "HEAD", "--", FENCE, at=none), "")
        self.there(f"{none}/drivers/dma-buf/st-beta.c", Path.is_file)

    def test_differs(self):
        """only what differs is written anew"""
        kept = self.t / DRM, self.build / "linux-unpatched" / FENCE
        for path in kept:
            os.utime(path, (OLD, OLD))
        edit(self.repo / LAB, "int lab;", "int labs;")
        self.makes("linux-unpatched", "tree", SERIES="none")
        self.has("build/linux-unpatched/drivers/dma-buf/st-lab.c", "int labs;")
        for path in kept:
            self.check(path.stat().st_mtime == OLD, f"{path} is written anew")
        sh(self.repo, "git", "checkout", "-q", "patches")
        self.makes("6 patches in 4 topics", "tree")

    def test_ksrc(self):
        """your own git, which has a patch already"""
        linux, shallow = self.tmp / "linux", self.build / "shallow"
        sh(linux, *GIT, "checkout", "-q", "-b", "mine", "base")
        for number, value in (10, 1), (20, 2), (60, 7):
            set_line(linux / FENCE, number, value)
        save(linux, "fence: Mine")
        sh(self.build, *GIT, "clone", "-q", "--depth=1", f"file://{linux}", shallow)
        self.makes("skipped, the tree has it already: fence: Set line 10", "tree", KSRC=shallow)
        self.same("status", sh(shallow, "git", "status", "--porcelain"), "")
        self.makes("nothing is left of topic alpha", "tree", KSRC=linux, TOPICS="alpha")
        shutil.rmtree(shallow)
        self.makes("up to date", "tree")

    def test_conflict(self):
        """a conflict names topic, patch and file, and leaves nothing"""
        self.refuses(f"topic beta: 'fence: Set line 40' conflicts in {FENCE}", "tree", BASE="9.8")
        self.check(not (self.build / "linux-9.8").exists(), "there is build/linux-9.8")
        self.same("what is left in build/", [p.name for p in self.build.glob("stack.*")], [])


class Rebase(Story):
    more, start = True, ["tree", "export"]

    def test_abort(self):
        """rebase leaves a conflict in place, and abort drops it"""
        before = self.git("rev-parse", "HEAD")
        self.refuses(f"topic beta: 'fence: Set line 40' conflicts in {FENCE}.*"
                     "git rebase --continue", "rebase", BASE="9.8")
        self.refuses("a rebase is in progress", "export")
        self.makes("using build/linux in the middle of a rebase", "tree", "--keep")
        self.git("rebase", "--abort")
        self.same("HEAD", self.git("rev-parse", "HEAD"), before)
        self.makes("up to date", "tree")
        self.makes("0 files written, 0 removed", "export")
        self.changes()

    def test_mended(self):
        """rebase that is mended goes into patches/ with its base"""
        self.refuses("conflicts in", "rebase", BASE="9.8")
        write(self.t / FENCE, self.git("show", f"base-9.8:{FENCE}") + "\n")
        set_line(self.t / FENCE, 10, 1)
        set_line(self.t / FENCE, 20, 2)
        edit(self.t / FENCE, "long line40;", "long line40 = 1;")
        self.git("add", FENCE)
        self.works(*GIT, "rebase", "--continue", at="build/linux", GIT_EDITOR="true")
        self.makes("topics that changed: beta$", "export")
        line = (self.repo / "patches/base").read_text()
        self.check(line.startswith("9.8 linux-source-9.8 9.8.1-1 sha256:"), "patches/base", line)
        self.changes("patches/base", "patches/beta/0001-fence-Set-line-40.patch")
        self.makes("up to date", "tree")
        self.has(f"build/linux.base/{FENCE}", "long line40;")
        self.refuses("conflicts in", "rebase", BASE="9.9")
        self.git("rebase", "--abort")
        save(self.repo, "rebased")

    def test_next_to(self):
        """a topic next to another one is written for the base, and merged with it"""
        self.git("checkout", "-q", "lab")
        set_line(self.t / FENCE, 13, 5)
        fixed = self.git("log", "-1", "--format=%h", "--grep=Set line 40")
        self.git("commit", "-q", "-a", f"--fixup={fixed}")
        self.works(*GIT, "rebase", "-q", "-i", "--autosquash", "base-9.8", at="build/linux",
                   GIT_SEQUENCE_EDITOR="true")
        self.makes("topics that changed: beta$", "export")
        self.git("worktree", "add", "-q", "--detach", self.build / "am", "base-9.8")
        files = sorted((self.repo / "patches/beta").glob("*.patch"))
        self.works(*GIT, "am", "-q", *files, at="build/am")
        self.has(f"build/am/{FENCE}", "int line13 = 5;")
        self.git("worktree", "remove", "-f", self.build / "am")
        self.works("scripts/stack.py", "verify")
        self.works("scripts/stack.py", "verify", "--alone")
        self.makes("0 files written, 0 removed", "export")
        # as it is after alpha, which git am -3 can merge
        self.git("format-patch", "-q", "--full-index", "--zero-commit", "--no-signature",
                 "--no-numbered", "-o", self.repo / "patches/beta", "alpha..beta")
        self.works("scripts/stack.py", "verify")
        self.script = "scripts/stack.py"
        self.by_make = False
        self.refuses("^error: patches/beta does not apply on what it needs: .*dma-fence.c:\\d+; "
                     "'make export' mends",
                     "verify", "--alone")
        (self.build / "linux.applied").unlink()
        self.makes("topics that changed: beta$", "export")
        self.works("scripts/stack.py", "verify", "--alone")
        # what it was made of is not there, as in a fresh clone, and something needs both
        kept = {p: p.read_text() for p in (files[0], self.repo / "patches/series")}
        write(files[0], re.sub(r"(?m)^index \w+", f"index {'1' * 40}", kept[files[0]]))
        edit(self.repo / "patches/series", "-               lab   -       *",
             "drm-misc-next   post  -       alpha,beta")
        self.works("scripts/stack.py", "verify", "--alone")
        for path, text in kept.items():
            write(path, text)

    def test_moved(self):
        """a topic that moves a file and makes it executable, and one that needs only that"""
        moved = self.t / "drivers/gpu/drm/moved"
        self.git("checkout", "-q", "-b", "move")
        self.git("mv", DRM, moved)
        moved.chmod(0o755)
        save(self.t, "drm: Move")
        self.git("checkout", "-q", "-b", "user")
        set_line(self.t / FENCE, 15, 7)
        write(moved, moved.read_text() + "int user;\n")
        save(self.t, "drm: Use what has moved")
        with open(self.repo / "patches/series", "a") as series:
            series.write("move x post - -\nuser x post - move\n")
        self.makes("topics that changed: move user$", "export")
        self.has("patches/user/0001-drm-Use-what-has-moved.patch", " int line13;")
        self.works("scripts/stack.py", "verify")
        self.works("scripts/stack.py", "verify", "--alone")


class Backport(Story):
    more, start, script = False, ["tree", "export"], "scripts/backport.py"

    def port(self, text, **more):
        """With FAKES, and an object directory that is configured."""
        variables = dict(BASE="9.8", PATH=f"{self.build}/fakes:{env['PATH']}", FIXED="line10 = 1",
                         ODD="no line is", SAYS="", SKIP="", ORDER="/dev/null")
        return self.makes(text, **variables | more)

    def test_boot(self):
        """a fix on an older kernel is red before and green after"""
        fakes(self.build / "fakes")
        write(self.build / "linux-9.8-stable.w1/.prepared", "")
        report = "results/backport.md"
        write(self.repo / report, "## Linux 9.8\n\nold\n\n## Linux 9.7\n\nkept\n")
        self.port("^== this is in results/backport.md$")
        self.has(report, "| alpha | 1 patch as in mainline |")
        self.has(report, "| out_fence_lifetime | red: 1 passed, 1 failed, 0 skipped, exit 1 "
                 "| green: 2 passed, 0 failed, 0 skipped, exit 0 |")
        titles = re.findall("(?m)^## .*|old|kept", (self.repo / report).read_text())
        self.same(report, titles, ["## Linux 9.8", "## Linux 9.7", "kept"])
        commit = sh(self.repo, "git", "rev-parse", "--short", "HEAD")
        today = time.strftime("%F", time.gmtime())
        head = f"By `make backport`, last on {today}, commit {commit}, on linux-source-9.8_9.8.1-1"
        self.check(f"{head}, " in (self.repo / report).read_text(), "what it is of")
        self.has(f"build/linux-9.8-stable/{FENCE}", "int line10 = 1;")
        self.there("build/backport-9.8/0001-fence-Set-line-10.patch")

    def test_wrong(self):
        """what is red after, or new to the compiler, is an error"""
        self.port("^error: see build/logs/backport-9.8-", fails=True, FIXED="no line is")
        self.port(r"red: .* \| red: 1 passed, 0 failed, 1 skipped, exit 0; not to be skipped: case",
                  fails=True, SKIP=" # SKIP it")
        self.port("^new with the topics:\n.*: warning: odd$", fails=True, NOBOOT=1,
                  ODD="line10 = 1")
        self.port("give an older kernel", fails=True, BASE="9.9")
        log = self.build / "logs/backport-9.8-out_fence_lifetime-after.log"
        write(self.repo / "configs/splats-9.8", "# now and then\nWARNING: .* known\n")
        # the kernel says it by itself: once more; and what is not known is not tried again
        once = Path(f"{log}.once")
        once.unlink()
        self.port("green: .* boot 2, see configs/splats-9.8", ONCE="WARNING: at x.c:1 known")
        once.unlink()
        self.port("red: .*exit 0; 1 splats: WARNING: at x.c:1 other \\|$", fails=True,
                  ONCE="WARNING: at x.c:1 other")

    def test_ksrc(self):
        """a tree of your own, which is not written to, as is results/"""
        mine, report = self.build / "mine", self.repo / "results/backport.md"
        sh(self.build, *GIT, "clone", "-q", "-b", "base", self.tmp / "linux", mine)
        name, before = f"ksrc-mine-{zlib.crc32(str(mine).encode()):08x}", report.read_text()
        write(self.build / f"linux-{name}-stable.w1/.prepared", "")
        self.port("^== 1 patches, not signed off: git am build/backport-ksrc-mine", BASE="",
                  KSRC=mine, NOBOOT=1)
        out = self.port("^## Linux 9.8$", BASE="", KSRC=mine)
        self.check("| alpha | 1 patch as in mainline |" in out, "there is no row", out)
        self.same("status", sh(mine, "git", "status", "--porcelain"), "")
        self.same(report, report.read_text(), before)
        sh(mine, "git", "checkout", "-q", "origin/more")
        self.port("(?s)^alpha +is there already$.*there is nothing to port", fails=True, BASE="",
                  KSRC=mine, NOBOOT=1)

    def test_conflict(self):
        """a conflict waits to be mended, and is then the form of the topic for that kernel"""
        tree = "build/linux-9.8-stable"
        edit(self.repo / "patches/series", "drm-misc-next   post  -     ",
             "drm-misc-next   post  stable")
        self.port(f"^beta does not apply to linux-source-9.8_9.8.1-1, in:\n    {FENCE}$",
                  fails=True)
        self.port(f"the conflict in {tree} waits", fails=True)
        write(self.repo / tree / FENCE, self.git("show", f"HEAD:{FENCE}", at=tree) + "\n")
        edit(self.repo / tree / FENCE, "long line40;", "long line40 = 1;")
        self.git("add", FENCE, at=tree)
        self.works(*GIT, "cherry-pick", "--continue", at=tree, GIT_EDITOR="true")
        out = self.port("^== your work is patches/beta/stable-9.8/ now$", NOBOOT=1,
                        TOPICS="alpha,beta")
        self.check(re.search("(?m)^beta +1 patch of stable-9.8/$", out), "beta is not", out)
        self.has("patches/beta/stable-9.8/0001-fence-Set-line-40.patch", "+long line40 = 1;")
        self.same("patches", len([*(self.build / "backport-9.8").iterdir()]), 2)


class Guest(Story):
    more, start = False, []

    def test_splats(self):
        """each kind of splat is found, and nothing else is"""
        log, table = self.repo / "log", self.repo / "configs/splats"
        write(log, (SPLATS + NO_SPLATS).replace("\n", "\r\n"))
        what, rc, out = run(self.repo, "bash", "-o", "pipefail", "-c",
                            'scripts/splats.sh "$1" | tr "\\r" "#"', "-", log)
        said, want = out.split("\n"), [f"log: {line}" for line in SPLATS.splitlines()]
        for line in want:
            self.check(line in said, "not found", line)
        for line in said:
            self.check(line in want, "no splat", line)
        self.check(rc == 1, what)
        write(log, NO_SPLATS)
        self.works("scripts/splats.sh", log)
        # each has something that only it finds
        wrong = [p for p in table.read_text().splitlines() if p and p[0] not in "#!"]
        none = re.findall("(?m)^!(.*)", table.read_text())
        finds = lambda patterns, line: any(re.search(p, line) for p in patterns)
        for p in wrong:
            self.check(any(finds([p], line) and not finds(set(wrong) - {p}, line)
                           for line in SPLATS.splitlines()), f"no line shows what '{p}' is for")
        for p in none:
            self.check(any(finds(wrong, line) and finds([p], line) and not finds(
                set(none) - {p}, line) for line in NO_SPLATS.splitlines()), f"nor for '!{p}'")
        quiet = "sh", "-c", 'scripts/splats.sh "$1" 2>/dev/null', "-", log
        for pattern in "foo(", "!foo(":
            write(table, f"BUG:\n{pattern}\n")
            what, rc, out = run(self.repo, *quiet)
            self.check(rc == 1 and f"{table} has a wrong pattern" in out, f"{pattern}: {what}", out)
        table.unlink()
        what, rc, out = run(self.repo, *quiet)
        self.check(rc == 1 and f"no {table}" in out, what, out)
        sh(self.repo, "git", "checkout", "-q", "configs")

    def table(self, names, **more):
        """What run_selftest makes of these consoles, in the end and before."""
        fakes(self.build / "fakes")
        for name in names:
            log = f"boot-{name}{'-kcsan' if more else ''}.log"
            code, says, _ = CONSOLES[name]
            write(self.build / "logs" / f"{log}.says", says)
            write(self.build / "logs" / f"{log}.ends", str(code))
        return run(self.repo, "bash", "-c", TABLE, "-", *names,
                   PATH=f"{self.build}/fakes:{env['PATH']}", **more)

    def test_selftest(self):
        """what a guest says of a selftest is judged"""
        what, rc, out = self.table(CONSOLES)
        for name, (*_, row) in CONSOLES.items():
            self.check(re.search(f"(?m)^{row}", out), f"{name}: no row '{row}'", out)
        self.check(rc == 1 and out.endswith(f"\n2 passed, {len(CONSOLES) - 1} failed"), what, out)
        self.check("\n    not ok 2 b\n" in out, "'not ok' is not shown", out)
        what, rc, out = self.table(["passes"])
        self.check(not rc, what, out)

    def test_kcsan(self):
        """a race is for races.sh to judge, any other splat is not"""
        script = self.repo / "scripts/races.sh"
        for code, want in (0, "passed"), (1, "FAILED"):
            script.write_text(f"#!/bin/sh\necho {code} races\nexit {code}\n")
            what, rc, out = self.table(["races", "splats"], kcsan=1)
            row = rf"(?m)^{want}  races .*exit 0; KCSAN: {code} races \("
            self.check(re.search(row, out), f"no row '{row}'", out)
            self.check(re.search(r"(?m)^FAILED  splats .*; 2 splats: ", out), what, out)

    def test_others(self):
        """what other scripts let a guest skip"""
        log = self.repo / "other.log"
        for text, how, good in ((f"ok 1 a # SKIP x\n{DONE}0\n", [True], True),
                                (f"ok 1 a # SKIP x\n{DONE}0\n", [True, ""], False),
                                (f"ok 1 a # SKIP x\nok 2 b\n{DONE}0\n", [True, ""], True),
                                (f"ok 1 a # SKIP x\nok 2 b\n{DONE}0\n", [True, "", ["a"]], False),
                                (f"ok 1 ab # SKIP x\nok 2 b\n{DONE}0\n", [True, "", ["a"]], True),
                                (f"ok 1 a\n{DONE}0\n", [False], False),
                                (f"BUG: x\nok 1 a\n{DONE}0\n", [True], False),
                                (f"ok 1 a\n{DONE}4\n", [True], False), ("", [True], False)):
            write(log, text)
            said = judge.selftest(log, *how)
            self.same(f"{how} of {text!r}", said.good, good)
        write(log, f"not ok 3 c\nok 1 a\n{DONE}1\n")
        self.same("what failed", judge.selftest(log, True).failed, ["c"])
        self.same("what ran", sorted(judge.selftest(log, True).ran), ["a", "c"])


class Ends(Story):
    """What is at work when a signal comes ends before what has started it, and so does the lock."""
    more, start = False, ["tree", "export"]

    def locked(self):
        lock = os.open(self.repo, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def until(self, test, seconds=20):
        end = time.monotonic() + seconds
        while not test() and time.monotonic() < end:
            time.sleep(0.02)
        return test()

    def ends(self, *argv, children, signals=(signal.SIGINT, signal.SIGTERM, signal.SIGHUP), **more):
        """By each of the signals, when it has so many children. What it has said until then."""
        order, said = self.build / "order", self.build / "said"
        pids = self.build / "order.pids"
        there = lambda: pids.read_text().split() if pids.exists() else []
        alive = lambda pid: Path("/proc", pid).exists() and \
            not re.search(r"\) [ZX] ", Path("/proc", pid, "stat").read_text())
        more |= dict(PATH=f"{self.build}/fakes:{env['PATH']}", ORDER=order)
        for number in signals:
            for path in order, pids:
                path.unlink(missing_ok=True)
            with open(said, "w") as out:
                # whoever runs this in the background may have it ignore some
                main = subprocess.Popen(["env", "--default-signal", *map(str, argv)], cwd=self.repo,
                                        env=env | {k: str(v) for k, v in more.items()},
                                        stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                        start_new_session=True)
            what = f"{number.name} to {shlex.join(map(str, argv))[:60]}"
            self.check(self.until(lambda: len(there()) >= children or main.poll() is not None) and
                       main.poll() is None, f"{what}: never began", said.read_text())
            self.check(self.locked(), f"{what}: it does not have the lock")
            for pid in there() if argv[0] == "scripts/soak.sh" else ():
                held = [f for f in Path("/proc", pid, "fd").iterdir()      # some come and go
                        if os.path.realpath(f) == str(self.repo.resolve())]
                self.check(not held, f"{what}: a guest has the lock", *held)
            main.send_signal(number)
            try:
                self.same(what, main.wait(20), -number)
            except subprocess.TimeoutExpired:
                self.check(False, f"{what}: it goes on", said.read_text())
                main.kill()
            left = there()
            self.check(self.until(lambda: not any(map(alive, left)), 3), f"{what}: children go on")
            self.check(self.until(lambda: not self.locked(), 3), f"{what}: the lock stays")
            for pid in filter(alive, left):
                os.kill(int(pid), signal.SIGKILL)

    def test_shell(self):
        """a long step of a script"""
        fakes(self.build / "fakes")
        self.ends("bash", "-c", 'no_places=1; . scripts/common.sh; quietly "$logs/x" waiting hang',
                  children=2)

    def test_make(self):
        """a long step of a target, when make alone is ended"""
        path = self.repo / "scripts/clean.sh"
        own = path.read_text()
        write(path, "#!/bin/bash\nno_places=1; . scripts/common.sh\n"
                    'quietly "$logs/x" waiting hang\n')
        self.ends(shutil.which("make"), "clean", children=2, signals=[signal.SIGTERM])
        write(path, own)

    def test_nested(self):
        """a long step of a script that another one waits for"""
        write(self.build / "inner", '. scripts/common.sh; quietly "$logs/x" waiting hang\n')
        self.ends("bash", "-c", ". scripts/common.sh; with_us bash build/inner; exit 5",
                  children=2, signals=(signal.SIGTERM, signal.SIGHUP))

    def test_python(self):
        """a long step of Python"""
        shutil.copy(self.build / "fakes/hang", self.build / "make")
        for step in ('stack_lib.quietly(log, "waiting", stack_lib.run_command, "hang")',
                     'objects.all_with_dots(log, ["hang"])', 'bugs.run_selftests(["a.b"])'):
            self.ends(sys.executable, "-c", f"import os, sys; sys.path.insert(0, 'scripts')\n"
                      "import bugs, objects, stack_lib\nlog = stack_lib.logs / 'x'\n"
                      "os.environ['PATH'] = f'build:{os.environ[\"PATH\"]}'\n"
                      f"stack_lib.run_main(lambda: (stack_lib.lock_checkout(), {step}))",
                      children=2)

    def test_soak(self):
        """two guests, which do not have the lock, and begin when both are built"""
        self.ends("scripts/soak.sh", children=2, SAYS="nothing", SEED=1)
        self.same("the order", (self.build / "order").read_text().split(),
                  ["build", "build", "boot", "boot"])

    def test_soaked(self):
        """guests that come to their end"""
        self.script = "scripts/soak.sh"
        figures = "figures: signals=1 unbinds=1\nboot-init: soak x round=1 failed=0\n"
        end = "boot-init: soak rounds=1 failed="
        for says, want in ((f"{figures}{end}0", "passed um: round 1, 1 runs: signals 1,"),
                           (f"{figures}BUG: x\n{end}0", "FAILED um: .* failed 0, splats 1"),
                           (f"{figures}{end}1", "FAILED um"),
                           (figures, "    the guest did not get to its end"),
                           (f"{end}0", "FAILED um: round 0, 0 runs: ")):
            good = want.startswith("passed")
            self.makes(f"^{want}", fails=not good, SAYS=says, SEED=1, ARCH="" if good else "um",
                       PATH=f"{self.build}/fakes:{env['PATH']}", ORDER="/dev/null")
        more = dict(SAYS=f"{figures}{end}0", PATH=f"{self.build}/fakes:{env['PATH']}",
                    ORDER="/dev/null", UPDATE=1)
        self.makes("^    this is in results/soak.md$", SEED=1, **more)
        self.makes("^passed arm64-rt: ", SEED=2, KERNEL="rt", **more)
        self.makes("^passed um: ", SEED=3, ARCH="um", **more)
        self.refuses("KERNEL=rt is for arm64", KERNEL="rt", ARCH="um")
        import reports
        rows = [row[:5] + row[12:15] for row in reports.rows_of(self.repo / "results/soak.md")]
        self.same("results/soak.md", rows, [[guest, "10", seed, "1", "1", "0", "0", "ok"]
                  for guest, seed in (("um", "3"), ("arm64", "1"), ("arm64-rt", "2"))])


class Mail(Story):
    more, start, script = True, ["tree", "export"], "scripts/mail.py"
    out, me = "build/outgoing/alpha", "Jörg Tester <tester@example.org>"

    @classmethod
    def setUpClass(cls):
        """What git send-email would send nobody gets."""
        super().setUpClass()
        core = Path(sh(cls.repo, "git", "--exec-path"))
        (cls.build / "core").mkdir()
        for path in core.iterdir():
            if path.name != "git-send-email":
                (cls.build / "core" / path.name).symlink_to(path)
        fakes(cls.build / "core", "git-send-email")
        for topic in "alpha", "beta":
            write(cls.repo / f"patches/{topic}/cover-letter.txt", f"fence: Do {topic}\n\nText.\n\n"
                  f"change-id: 20261126-dma-fence-{topic}-0123456789ab\n")
        sh(cls.repo, "git", "config", "user.name", "Jörg Tester")
        sh(cls.repo, "git", "config", "user.email", "tester@example.org")
        write(cls.repo / "README.md", "none\n")
        save(cls.repo, "covers")

    def mail(self, text, **more):
        return self.makes(text, **dict(TOPIC="alpha", GIT_EXEC_PATH=self.build / "core") | more)

    def mails(self):
        """What was written: headers and texts."""
        found = [email.message_from_string(p.read_text())
                 for p in sorted((self.repo / self.out).glob("*.patch"))]
        head = lambda mail, name: str(make_header(decode_header(mail[name] or "")))
        return [({n: head(mail, n) for n in ("From", "Subject", "To", "Cc")},
                 mail.get_payload()) for mail in found]

    def test_mails(self):
        """subjects, recipients, authors and a sign-off"""
        out = self.mail("^== nothing was sent: SEND=1 does that$")
        self.check("== 3 mails to 5 addresses from " + self.me in out, "no count", out)
        mails = self.mails()
        self.same("subjects", [head["Subject"] for head, _ in mails],
                  ["[PATCH 0/2] fence: Do alpha", "[PATCH 1/2] fence: Set line 10",
                   "[PATCH 2/2] fence: Set line 20"])
        for head, text in mails:
            self.same("From:", head["From"], self.me)
            self.same("To:", head["To"], "Some Body <some@body.org>")
            self.same("Cc:", sorted(re.findall("[^ <>,]+@[^ <>,]+", head["Cc"])),
                      ["a@other.org", "dma@vger.kernel.org", "linux-mm@kvack.org", "r@r.org"])
            self.check("series@localhost" not in str(head) + text, "the placeholder is left", text)
        tags = [re.findall("(?m)^[A-Z][a-z-]+-by: .*", text) for _, text in mails]
        mine = f"Signed-off-by: {self.me}"
        self.same("tags", tags,
                  [[], [mine], ["Reviewed-by: R <r@r.org>", f"Signed-off-by: {OTHER}", mine]])
        self.check(mails[2][1].startswith(f"From: {OTHER}\n\n"), "not its author", mails[2][1])
        for line in "^base-commit: [0-9a-f]{40}$", "^change-id: .*-alpha-0123456789ab$", "^Text.$":
            self.check(re.search(f"(?m){line}", mails[0][1]), f"no '{line}'", mails[0][1])
        self.changes()

    def test_security(self):
        """a topic of patches/security goes to no list, until PUBLIC=1"""
        write(self.repo / "patches/security", "# TOPIC\tWHY\nalpha\tusers can\n")
        save(self.repo, "secret")
        stable = dict(TRAILERS="Cc: stable@vger.kernel.org")
        self.mail("^== to no list yet, see patches/security; PUBLIC=1 later: users can$", **stable)
        # not even where somebody sends them by hand
        for _, text in self.mails()[1:]:
            self.check("Cc: stable@kernel.org\n" in text and "stable@vger" not in text,
                       "not as for what is not public", text)
        for head, _ in self.mails():
            self.same("To:", re.findall("[^ <>,]+@[^ <>,]+", head["To"]),
                      ["security@kernel.org", "some@body.org"])
            self.check(not re.search("vger|kvack", str(head)), "to a list", str(head))
        self.mail("nothing was sent", PUBLIC=1, **stable)
        for head, _ in self.mails():
            for list_ in "linux-mm@kvack.org", "dma@vger.kernel.org":
                self.check(list_ in head["Cc"], f"not to {list_}", str(head))
            self.check("security@" not in str(head), "still a secret", str(head))

    def test_version(self):
        """a second version says what has changed"""
        write(self.repo / "build/changes", "- the wording\n")
        self.mail("^  .PATCH v2 1/2. fence: Set line 10$", VERSION=2, SINCE="HEAD", PUBLIC=1,
                  CHANGELOG=self.repo / "build/changes", TRAILERS="Tested-by: T <t@t.org>")
        (_, cover), (head, first), _ = self.mails()
        for line in "^Changes since v1:\n- the wording$", "^Range-diff against v1:$":
            self.check(re.search(f"(?m){line}", cover), f"no '{line}'", cover)
        self.check(first.startswith(f"Tested-by: T <t@t.org>\nSigned-off-by: {self.me}\n---\n"),
                   "no tags", first)
        self.check("t@t.org" in head["Cc"], "not to who is named", head["Cc"])

    def test_refused(self):
        """what is not ready, or not for a list, leaves nothing"""
        self.mail("not ready to be sent", fails=True, TRAILERS="Acked-by: nobody")
        self.check(not (self.repo / self.out).exists(), "there are mails all the same")
        self.mail("lab: is only for this repository", fails=True, TOPIC="lab")
        self.mail("no such topic", fails=True, TOPIC="other")
        self.mail("give one: make mail TOPIC=NAME", fails=True, TOPIC="")
        self.mail("SEND=1 needs KSRC=", fails=True, SEND=1)
        self.mail("say with CHANGELOG=FILE", fails=True, VERSION=2)
        self.mail("'x' is no mail address", fails=True, TO="x")
        patch = self.repo / "patches/alpha/0001-fence-Set-line-10.patch"
        before = patch.read_text()
        edit(patch, "\n---\n", "\nSigned-off-by: X <x@y.org>\n---\n")
        shutil.rmtree(self.t)    # of which patches/ would differ
        self.mail("has a Signed-off-by, which is the sender's to add", fails=True)
        write(patch, before)
        sh(self.repo, "git", "config", "--unset", "user.email")
        self.mail("user.email is ''", fails=True)

    def test_sending(self):
        """what the list of topics to send is made of is checked"""
        self.script = "scripts/sending.py"
        row = "| {0} | {1} |\n"
        report = self.repo / "results/sending.md"
        right = [row.format("", "topic"), "|---|---|\n", *map(row.format, "123", (
            "alpha", "beta", "gamma"))]
        write(report, "".join(right))
        write(self.repo / "patches/upstream", "alpha\tby: somebody\n")
        self.makes(r"\A\Z", "--check")
        write(report, "".join(right[:-1]))
        self.refuses("^error: results/sending.md is not .*, see gamma: make sending", "--check")
        write(report, "".join([*right[:2], *reversed(right[2:])]))
        self.refuses("^error: results/sending.md is not .*, see the order: make", "--check")
        for line in "other\tx", "alpha x":
            write(self.repo / "patches/upstream", f"{line}\n")
            self.refuses(f"patches/upstream: '{line[:5]}.*' is no topic", "--check")
        (self.repo / "patches/upstream").unlink()
        shutil.rmtree(report.parent)

    def test_signed(self):
        """a Signed-off-by of ours in patches/ is none of the sender's"""
        self.script = "scripts/lint.py"
        write(self.repo / "mutants/table", "")
        self.check("Signed-off-by" not in run(self.repo, self.script)[2], "it was there before")
        patch = self.repo / "patches/alpha/0001-fence-Set-line-10.patch"
        edit(patch, "\n---\n", "\nSigned-off-by: X <x@y.org>\n---\n")
        self.refuses("^patches/alpha/0001-.*: has a Signed-off-by, which is the sender's to add$")


class Result(unittest.TestResult):
    """Counts checks."""
    passed = failed = 0

    def addSubTest(self, test, subtest, err):
        if err:
            self.bad(test, err)
        else:
            self.passed += 1

    def bad(self, test, err):
        """A line what, and the end of what there is to see: a caller may show no more than that."""
        self.failed += 1
        said = err[0] is AssertionError
        text = str(err[1]) if said else "".join(traceback.format_exception(*err))
        what, *lines = text.rstrip().splitlines()
        print("\n    ".join([f"FAILED   {test.shortDescription() or test}: {what}", *lines[-8:]]),
              flush=True)

    addError = addFailure = bad


def suite(story):
    """Its cases, in the order in which they are written."""
    return unittest.TestSuite(story(n) for n in vars(story) if n.startswith("test_"))


def main():
    # the longest first
    there = {s.__name__: s for s in
             (Backport, Ends, Rebase, Mail, Trees, Changes, Cold, Guest, Words)}
    for name in sys.argv[1:]:
        if name not in there:
            die(f"there is no story '{name}'; use some of: {' '.join(there)}")
    stories = [there[name] for name in sys.argv[1:] or there]
    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    build.mkdir(exist_ok=True)
    results = [Result() for _ in stories]
    with tempfile.TemporaryDirectory(dir=build, prefix="glue.") as tmp:
        Story.tmp = Path(tmp)
        prepare(Story.tmp)
        with ThreadPoolExecutor() as pool:
            try:
                list(pool.map(unittest.TestSuite.run, map(suite, stories), results))
            except BaseException:
                for result in results:
                    result.stop()
                raise
    passed, failed = sum(r.passed for r in results), sum(r.failed for r in results)
    print(f"glue test: {passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
