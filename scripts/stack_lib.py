# SPDX-License-Identifier: GPL-2.0
"""What stack.py and its likes share: git, patches/, and the branches of build/linux.git."""

import contextlib, difflib, fcntl, hashlib, json, multiprocessing, os, re, shutil, signal
import subprocess, sys, tempfile, time
from pathlib import Path
from types import SimpleNamespace

top = Path(__file__).resolve().parent.parent
build, patches = top / "build", top / "patches"
store, logs, main_tree = build / "linux.git", build / "logs", build / "linux"
ours = "series <series@localhost>"
date = "2026-01-01T00:00:00Z"

# Nobody's git configuration has a say in it.
clean_env = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
clean_env |= dict(GIT_CONFIG_GLOBAL="/dev/null", GIT_CONFIG_NOSYSTEM="1", LC_ALL="C",
                  GIT_COMMITTER_NAME="series", GIT_COMMITTER_EMAIL="series@localhost",
                  GIT_COMMITTER_DATE=date, GIT_AUTHOR_NAME="series", GIT_EDITOR="true",
                  GIT_AUTHOR_EMAIL="series@localhost", GIT_CONFIG_COUNT="1",
                  GIT_CONFIG_KEY_0="safe.directory", GIT_CONFIG_VALUE_0="*")
by_am = {k: v for k, v in clean_env.items() if not k.startswith("GIT_AUTHOR")}

TEST_FILES = re.compile(r"drivers/dma-buf/(st-|\.kunitconfig)|drivers/gpu/drm/(scheduler/)?tests/"
                        r"|drivers/usb/gadget/udc/dummy_hcd|tools/testing/|Documentation/"
                        r"|scripts/coccinelle/|MAINTAINERS$")
TEST_BUILD = re.compile(r"drivers/(dma-buf|gpu/drm|gpu/drm/scheduler)/"
                        r"(Makefile|Kconfig(\.debug)?|\.gitignore)$")


def say(text):
    print("==", text, flush=True)


def die(text):
    sys.stdout.flush()
    sys.exit("error: " + text)


def short(path):
    return os.path.relpath(path, top)


class Dots:
    """A dot every ten seconds of what goes on in steps, and in the end of the line."""

    def __enter__(self):
        self.last, self.any = time.monotonic(), False
        return self

    def step(self):
        if time.monotonic() - self.last > 10:
            self.last, self.any = time.monotonic(), True
            print(".", end="", flush=True)

    def __exit__(self, *why):
        if self.any:
            print(flush=True)


class Ended(BaseException):
    """By the signal with this number."""


def run_main(main):
    """What a signal ends ends its children first, and then by the signal: a caller notices."""
    def end(number, frame):
        raise Ended(number)

    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, end)
    try:
        main()
    except Ended as ended:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        signal.signal(ended.args[0], signal.SIG_DFL)
        os.kill(os.getpid(), ended.args[0])


def lock_checkout():
    """One at a time in a checkout: they share work trees and objects."""
    if os.environ.get("SERIES_LOCKED"):
        return
    lock = os.open(top, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        who = (build / "at-work").read_text() if (build / "at-work").exists() else "another make"
        say(f"{who.strip()} is at work in this checkout; waiting for its end")
        fcntl.flock(lock, fcntl.LOCK_EX)
    os.environ["SERIES_LOCKED"] = "1"
    (build / "at-work").write_text(f"{Path(sys.argv[0]).name} (process {os.getpid()})\n")


def git(*args, at=None, rc=False, raw=False, env=clean_env, data=b""):
    """What git prints; with rc= the whole result, whatever its exit code is. It reads DATA."""
    run = subprocess.run(["git", *map(str, args)], cwd=at or store, env=env,
                         capture_output=True, input=data)
    if rc:
        return run
    if run.returncode:
        die(f"git {args[0]}: " + run.stderr.decode(errors="replace").strip().split("\n")[-1])
    return run.stdout if raw else run.stdout.decode(errors="replace").rstrip("\n")


def rev(name, at=None):
    return git("rev-parse", "-q", "--verify", f"{name}^{{commit}}", at=at,
               rc=True).stdout.decode().strip() if (at or store).is_dir() else ""


def branches():
    """Of each branch the commit: one git for all of them."""
    if not store.is_dir():
        return {}
    found = git("for-each-ref", "--format=%(refname:lstrip=2) %(objectname)", "refs/heads")
    return dict(line.split() for line in found.splitlines())


def update_refs(lines):
    if lines:
        git("update-ref", "--stdin", data="".join(f"{line}\n" for line in lines).encode())


def is_ancestor(a, b):
    return git("merge-base", "--is-ancestor", a, b, rc=True).returncode == 0


def last(mapping):
    return next(reversed(mapping), None)


def run_command(*argv, **how):
    """Ends with what a command ends with."""
    code = subprocess.run(list(map(str, argv)), stdin=subprocess.DEVNULL, **how).returncode
    sys.exit(code if code >= 0 else 128 - code)


@contextlib.contextmanager
def ending(child, wait, dots):
    """What ends us ends a child before, with its group if it leads one."""
    try:
        yield
    except BaseException:
        try:
            os.killpg(child.pid, signal.SIGTERM)
        except ProcessLookupError:
            child.terminate()
        wait()
        with contextlib.suppress(OSError):    # who reads it may be gone, too
            if dots:
                print(" interrupted; the same command goes on from here", file=sys.stderr)
        raise


def with_dots(log, run, *args, **how):
    """The exit code of a long step: a function, with its output in LOG and a dot every ten
    seconds. It runs in a process group of its own, so that ^C ends all of it."""
    def work():
        os.setpgid(0, 0)
        with open(os.devnull) as nothing, open(log, "w") as out:
            for number, file in enumerate((nothing, out, out)):
                os.dup2(file.fileno(), number)
        run(*args, **how)

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    with ending(child, child.join, True):
        while child.join(10) or child.is_alive():
            print(".", end="", flush=True)
    return child.exitcode if child.exitcode >= 0 else 128 - child.exitcode


def quietly(log, what, run, *args, **how):
    """The same, and says what is done: whether it was. On failure it shows the end of LOG."""
    print(f"== {what} ", end="", flush=True)
    begin = time.time()
    if not (code := with_dots(log, run, *args, **how)):
        print(f" done ({time.time() - begin:.0f} s)", flush=True)
        return True
    print(" FAILED")
    for line in log.read_text(errors="replace").splitlines()[-15:]:
        print("   ", line)
    sys.stdout.flush()
    if shutil.disk_usage(build).free >> 20 < 10:
        print("error: no space is left under build/", file=sys.stderr)
    print(f"error: {what} failed (exit {code}); the whole log is {short(log)}", file=sys.stderr)
    return False


def step(what, *argv):
    """A long command: its output in a log, and a dot every ten seconds."""
    print(f"== {what} ", end="", flush=True)
    begin, log = time.time(), logs / "step.log"
    if with_dots(log, run_command, *argv, env=clean_env):
        print(" FAILED")
        die(f"{what} failed: " + (log.read_text().strip().split("\n")[-1] or f"see {short(log)}"))
    print(f" done ({time.time() - begin:.0f} s)", flush=True)


def need_space(megabytes, what):
    free = shutil.disk_usage(build).free >> 20
    if free < megabytes:
        die(f"{what} needs {megabytes} MiB under build/, only {free} MiB are free")


# ---- patches/ -------------------------------------------------------------------------

def read_series():
    """The lines of patches/series as topics, in order."""
    topics, where = {}, "patches/series"
    if not (patches / "series").is_file():
        die("no patches/series")
    for n, line in enumerate((patches / "series").read_text().splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) != 5:
            die(f"{where}, line {n}: give name, tree, kind, stable and needs")
        name, needs = words[0], words[4].split(",") if words[4] != "-" else []
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", name) or name.startswith("base-"):
            die(f"{where}, line {n}: '{name}' is no name for a topic")
        if name in topics:
            die(f"{where}, line {n}: '{name}' is there twice")
        if needs == ["*"]:
            needs = list(topics)
        for other in needs:
            if other not in topics:
                die(f"{where}, line {n}: {name} needs '{other}', which is not before it")
        full = {o for need in needs for o in [need, *topics[need].needs]}
        topics[name] = SimpleNamespace(name=name, tree=words[1], kind=words[2], stable=words[3],
                                       direct=needs, needs=[t for t in topics if t in full])
    if not topics:
        die(f"{where} has no topic")
    for directory in sorted(patches.iterdir()):
        if directory.is_dir() and directory.name not in topics:
            die(f"patches/{directory.name} has no line in {where}")
    return topics


def known(names, topics):
    for name in names:
        if name not in topics:
            near = difflib.get_close_matches(name, topics, 4)
            die(f"there is no topic '{name}'; " + (
                f"near it: {' '.join(near)}" if near else f"use some of: {' '.join(topics)}"))
    return [t for t in topics if t in names]


def patch_files(topic, root=patches):
    found = sorted((root / topic).glob("[0-9][0-9][0-9][0-9]-*.patch"))
    numbers = [p.name[:4] for p in found]
    for n in numbers:
        if numbers.count(n) > 1:
            die(f"patches/{topic} has two patches with the number {n}: "
                "'git status patches' says which is left over")
    return found


def cover_letter(topic):
    return patches / topic / "cover-letter.txt"


def digest(files):
    return hashlib.sha1(b"".join(f.name.encode() + f.read_bytes() for f in files)).hexdigest()


def wanted(topics):
    """What the branches are made from."""
    return [base_line(), *([t, digest(patch_files(t))] for t in topics if patch_files(t))]


def base_line():
    try:
        line = (patches / "base").read_text().split()
    except OSError:
        die("no patches/base")
    if len(line) != 4:
        die("patches/base: give version, package, its version, and sha256:SUM")
    return " ".join(line)


# ---- the branches ---------------------------------------------------------------------

@contextlib.contextmanager
def scratch(commit):
    """A work tree without files, in which git am and git cherry-pick are quick."""
    path = Path(tempfile.mkdtemp(dir=build, prefix="stack."))
    git("worktree", "add", "-q", "--no-checkout", "--detach", path, commit)
    run = lambda *args, **how: git("-c", "core.sparseCheckout=true", *args, at=path, **how)
    try:
        info = Path(run("rev-parse", "--absolute-git-dir"), "info")
        info.mkdir(exist_ok=True)
        (info / "sparse-checkout").write_text("/MAINTAINERS\n")
        run("read-tree", "-mu", "HEAD")
        yield run
    finally:
        shutil.rmtree(path)
        git("worktree", "prune")


def reason(done):
    """Why a command of git failed, or nothing."""
    if not done.returncode:
        return ""
    text = (done.stdout + done.stderr).decode(errors="replace")
    for what in (r"Applied patch to '(.*)' with conflicts",
                 r"(?:error: (?:patch failed: )?|CONFLICT )(.*)"):
        if why := re.findall(f"^{what}", text, re.M):
            return why[0]
    return text.strip().split("\n")[0] or f"it ended with {done.returncode}"


def fails(run, *args):
    return reason(run(*args, rc=True, env=by_am))


class Index:
    """git apply in an index of only the files that patches touch, which is quick."""

    def __init__(self, base, directory, files):
        self.base, self.names = base, {
            name for f in files for name in re.findall(
                rb"(?m)^(?:diff --git a/.* b/|rename from )(.*)", f.read_bytes())}
        self.kept, self.used = Path(directory, ".kept"), Path(directory, ".used")
        self.env = clean_env | dict(GIT_INDEX_FILE=str(self.used))
        git("read-tree", "--empty", env=self.env)
        there = git("ls-tree", "-r", "--full-tree", base, raw=True).splitlines(True)
        self.add(line for line in there if line.split(b"\t")[1].rstrip() in self.names)
        self.used.rename(self.kept)

    def add(self, lines):
        git("update-index", "--add", "--index-info", env=self.env, data=b"".join(lines))

    def apply(self, files, *how):
        return files and reason(git("apply", "--cached", *how, *files, rc=True, env=self.env))

    def merges(self, needs):
        """Why the topics before do not apply, or nothing. They are commits, as not all that patch
        files name is there."""
        files = []
        shutil.copy(self.kept, self.used)
        for commits in needs:
            where = self.kept.with_name(commits)
            if not where.is_dir():
                where.mkdir()
                git("format-patch", "-q", "--full-index", "-o", where, commits)
            files += sorted(where.iterdir())
        return self.apply(files, "--3way")

    def fails(self, needs, files):
        """Why the patches in FILES do not apply on the topics before, or nothing. Only these are
        merged, if they have to be."""
        return self.merges(needs) or self.apply(files)

    @contextlib.contextmanager
    def scratch(self, topic, needs):
        """A work tree as scratch() gives one, on the base with what a topic needs."""
        if why := self.merges(needs):
            die(f"what {topic} needs does not apply without the rest: {why}")
        made = git("ls-files", "-s", env=self.env, raw=True).splitlines(True)
        git("read-tree", self.base, env=self.env)
        self.add(b"0 %s\t%s\n" % (b"0" * 40, name) for name in self.names)
        self.add(made)
        tree = git("write-tree", env=self.env)
        with scratch(git("commit-tree", "-p", self.base, "-m", "needed", tree)) as run:
            yield run


def ranges_of(ends, base):
    return {t: f"{start}..{ends[t]}" for t, start in zip(ends, [base, *ends.values()])}


def am_all(base, topics, root=patches, state=None):
    """git am of every patch, in order: the commit that each topic ends with. The patches of a topic
    are for the base and what it needs, so where more is there they may have to be merged."""
    files = {t: patch_files(t, root) for t in topics if patch_files(t, root)}
    needs = {t.name: t.needs for t in read_series().values()}
    ends, at = {}, base
    # What the state of the stack has of it already, if that has the same base.
    if state and state.get("want") and rev("refs/series/base") == base:
        for topic, was in zip(files, state["want"][1:]):
            if was != [topic, digest(files[topic])] or not rev(state["branches"][topic]):
                break
            ends[topic] = at = state["branches"][topic]
    with tempfile.TemporaryDirectory(dir=build, prefix="stack.") as tmp, scratch(at) as run, \
            Dots() as dots:
        for topic in list(files)[len(ends):]:
            dots.step()
            if why := fails(run, "am", "-q", "--keep-non-patch", *files[topic]):
                n = int(run("rev-list", "--count", f"{at}..HEAD"))
                run("am", "--abort", rc=True)
                index = Index(base, tempfile.mkdtemp(dir=tmp), sum(files.values(), []))
                needed = [r for t, r in ranges_of(ends, base).items() if t in needs[topic]]
                with index.scratch(topic, needed) as aside:
                    other = fails(aside, "am", "-q", "--keep-non-patch", *files[topic])
                    own = aside("rev-list", "--reverse", f"{base}..HEAD").split("\n")[1:]
                if other or fails(run, "cherry-pick", *own):
                    die(f"{short(files[topic][n])} does not apply: {why}")
            ends[topic] = at = run("rev-parse", "HEAD")
    return ends


def rebasing(tree):
    return any(Path(git("rev-parse", "--path-format=absolute", "--git-path", d, at=tree)).is_dir()
               for d in ("rebase-merge", "rebase-apply"))


def not_rebasing(tree):
    if tree.is_dir() and rebasing(tree):
        die(f"a rebase is in progress in {short(tree)}: there, 'git rebase --continue' goes on "
            "and 'git rebase --abort' drops it")


def state_of(tree):
    try:
        return json.loads(Path(f"{tree}.applied").read_text())
    except (OSError, ValueError):
        return {}


def keep_branches(ends):
    """The branches as they are made of patches/, so that 'make tree' can tell how to get back."""
    update_refs(git("for-each-ref", "--format=delete %(refname)", "refs/made").splitlines())
    update_refs([f"update refs/made/{t} {c}" for t, c in ends.items()])


def keep_state(tree, **state):
    new = Path(f"{tree}.applied.new")
    new.write_text(json.dumps(state, indent=1) + "\n")
    new.rename(f"{tree}.applied")


def standing():
    """The base that the stack stands on now, also after a rebase by hand."""
    head = rev("HEAD", at=main_tree) or rev(last(state_of(main_tree).get("branches", {})) or "")
    found = [c for ref in ("onto", "base") if head and (c := rev(f"refs/series/{ref}"))
             and is_ancestor(c, head)]
    # Both, if one is a later commit of the same git.
    return next((c for c in found if all(is_ancestor(o, c) for o in found)), "")


def line_of(commit):
    """What patches/base says of a base that was imported."""
    return git("config", f"base.{commit}.line", rc=True).stdout.decode().strip() if commit else ""


def set_branches(ends, old, base):
    """All but the last, which moves with the work tree."""
    there = branches()
    update_refs([*(f"update refs/heads/{t} {c}" for t, c in list(ends.items())[:-1]),
                 *(f"delete refs/heads/{t}" for t in old if t not in ends and t in there),
                 f"update refs/series/base {base}", "delete refs/series/onto"])


def ends_of(topics, base):
    """The commit that each topic ends with, if the branches lie on each other in order."""
    before, ends, there = base, {}, branches()
    for topic in topics:
        ends[topic] = there.get(topic, "")
        if not ends[topic]:
            commits([topic], base)
        if not is_ancestor(before, ends[topic]):
            die(f"branch {topic} is not on top of the topic before it: patches/series and the "
                f"branches have to be in the same order, see 'git log --oneline --decorate'")
        before = ends[topic]
    head, end = rev("HEAD", at=main_tree), last(topics)
    if head != before:
        where = git("symbolic-ref", "-q", "--short", "HEAD", at=main_tree, rc=True).stdout.decode()
        die(f"{short(main_tree)} is on {where.strip() or head[:12]}, and the last topic ends with "
            f"branch {end}: 'git checkout {end}' there, or give {where.strip() or 'what is on top'}"
            " a line in patches/series")
    return ends


def commits(topics, base):
    """The commits of each topic: id, subject, and whether it is a test patch."""
    result, before, there = {}, base, branches()
    for topic in topics:
        end = there.get(topic)
        if not end:
            die(f"there is no branch {topic} in {short(main_tree)}: 'git branch {topic} COMMIT' "
                f"there makes one; or take patches/{topic} and its line away")
        result[topic] = []
        text = git("log", "--reverse", "--topo-order", "--no-renames", "--name-only",
                   "--format=%x01%H%x02%s", f"{before}..{end}")
        for entry in text.split("\x01")[1:]:
            head, *files = [line for line in entry.split("\n") if line]
            result[topic].append(SimpleNamespace(
                id=head.split("\x02")[0], subject=head.split("\x02")[1],
                text=all(re.match(r"Documentation/.*\.(rst|svg)$|MAINTAINERS$", f) for f in files),
                test=any(TEST_FILES.match(f) for f in files) and
                ("Add KUnit tests" in head or      # with what they export
                 all(TEST_FILES.match(f) or TEST_BUILD.match(f) for f in files))))
        before = end
    return result
