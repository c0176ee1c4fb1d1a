#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The topics in patches/ as branches of one git, build/linux.git, and back.

  stack.py list             the topics: name, tree, kind, stable, needs, in order
  stack.py patches [TOPIC]  their patch files, in order
  stack.py needs TOPIC      the topics that it needs, in order
  stack.py commits TOPIC    its range of commits in build/linux.git
  stack.py alone TOPIC      two commits: the base with what it needs, and with the topic
  stack.py tree [--keep|--base]  the work tree that BASE, KSRC, SERIES and TOPICS ask for;
                            --keep leaves one that somebody has changed, --base only the base
  stack.py verify [--alone] git am of every patch on the base gives what build/linux has; or
                            git apply takes each topic on what it needs
  stack.py export [--check] the branches back to patches/, and the files that they add
  stack.py rebase           the branches onto BASE= or KSRC=, with git rebase
  stack.py env              for common.sh: the names of places
  stack.py changed          the work trees that have changes of their own

build/linux has the stack on the base of patches/base, one branch a topic. All other work
trees are made of its commits with git cherry-pick. README says how to work with them.
"""

import os, re, shlex, sys, tempfile, zlib
from pathlib import Path
from types import SimpleNamespace
from stack_lib import *
from stack_base import *
import stack_export


# ---- what is asked for ------------------------------------------------------------------

def place(topics):
    """BASE, KSRC, SERIES and TOPICS of the environment, and the trees that they mean."""
    ask = {v: os.environ.get(v, "") for v in ("BASE", "KSRC", "SERIES", "TOPICS", "SCOPE")}
    home = base_line().split()[0]
    base, series, name = ask["BASE"] or home, ask["SERIES"] or "all", ""
    if series not in ("all", "none"):
        die(f"SERIES={series}: use 'all' (default) or 'none' (base plus tests only)")
    chosen = known(ask["TOPICS"].replace(",", " ").split(), topics)
    if chosen and series == "none":
        die("SERIES=none is the base with no topic: leave TOPICS out, or SERIES")
    if ask["SCOPE"] == "home" and (ask["KSRC"] or base != home):
        die("BASE, KSRC: this is about the stack on the base of patches/base, leave them out")
    if ask["SCOPE"] in ("all", "select", "home") and series == "none":
        die("SERIES=none: this is about the series, leave SERIES out")
    if ask["SCOPE"] in ("all", "home") and chosen:
        die("TOPICS: this is about the whole series, leave TOPICS out")
    selected = chosen if ask["SCOPE"] == "select" else []
    if selected:
        chosen = []
    if base != home and not re.fullmatch(r"\d+\.\d+", base):
        die(f"BASE={base}: give major.minor, such as 7.3; the newest point release is taken")
    ksrc = os.path.realpath(ask["KSRC"]) if ask["KSRC"] else ""
    if ksrc:
        valid_ksrc(ksrc)
        path = Path(ksrc)
        name = re.sub(r"[^A-Za-z0-9._-]", "-", path.name)
        name = f"ksrc-{name}-{zlib.crc32(ksrc.encode()):08x}"
    elif base != home:
        name = base
    parts = [name] if name else []
    if series == "none":
        parts.append("unpatched")
    elif chosen:
        text = chosen[0] if len(chosen) == 1 else f"{zlib.crc32(' '.join(chosen).encode()):08x}"
        parts.append("topics-" + text)
    tree = build / "-".join(["linux", *parts])
    base_tree = build / ("-".join(["linux", name] if name else ["linux"]) + ".base")
    tag = "base-" + (name or home_name())
    return SimpleNamespace(
        base=base, ksrc=ksrc, series="topics" if chosen else series, selected=selected,
        topics=chosen or list(topics), home=not name, main=not parts, variant="-".join(parts),
        tree=tree, base_tree=base_tree, tag=tag)


def home_name():
    """What the base of the stack is called, also after a rebase that was not exported yet."""
    return (line_of(standing()) or base_line()).split()[0]


def valid_ksrc(ksrc):
    path = Path(ksrc)
    if not path.exists():
        die(f"KSRC={ksrc}: no such directory")
    if not (path / "Kbuild").exists() or not (path / "drivers/dma-buf/dma-fence.c").exists():
        die(f"KSRC={ksrc}: not a Linux source tree (no Kbuild or drivers/dma-buf/dma-fence.c)")
    shown = git("rev-parse", "--show-toplevel", at=path, rc=True).stdout.decode().strip()
    if shown != ksrc or not rev("HEAD", at=path):
        die(f"KSRC={ksrc}: not the top of a git work tree with a commit "
            "(git init && git add -A && git commit)")
    if git("config", "extensions.partialClone", at=path, rc=True).stdout.strip():
        die(f"KSRC={ksrc}: a partial clone, which has not all of its files: take a whole one")


# ---- work trees -------------------------------------------------------------------------

def changed(tree):
    """Whether somebody works there. That is what it is for."""
    state = state_of(tree)
    if not state or state.get("moving"):
        # Without a state, who knows.
        return not state and tree.is_dir()
    if made := state.get("branches"):
        there = branches()
        if any(there.get(topic) != commit for topic, commit in made.items()):
            return True
    if not tree.is_dir():
        return False
    if not rev("HEAD", at=tree):
        die(f"{short(tree)} is no work tree of {short(store)} any more: remove build/ by hand")
    return rev("HEAD", at=tree) != state["head"] or \
        bool(git("status", "--porcelain", "-uno", at=tree))


def move(tree, commit, branch=None):
    """A work tree at COMMIT. Of one that is there only what differs is written."""
    if tree.is_dir() and Path(git("rev-parse", "--path-format=absolute", "--git-common-dir",
                                  at=tree, rc=True).stdout.decode().strip()) != store:
        die(f"{short(tree)} is no work tree of {short(store)}: remove it by hand")
    if tree.is_dir():
        lock = Path(git("rev-parse", "--absolute-git-dir", at=tree), "index.lock")
        if state_of(tree).get("moving"):
            lock.unlink(missing_ok=True)
        if branch:
            git("symbolic-ref", "HEAD", f"refs/heads/{branch}", at=tree)
        git("reset", "-q", "--hard", commit, at=tree)
        return
    need_space(3000, "a work tree")
    tmp = build / "stack.new" / tree.name
    tmp.parent.mkdir(exist_ok=True)
    step(f"checking out {short(tree)}", "git", "-C", store, "worktree", "add", "-q",
         *([] if branch else ["--detach"]), tmp, branch or commit)
    git("worktree", "move", tmp, tree)
    tmp.parent.rmdir()


def base_tree(at, commit):
    if not at.base_tree.is_dir() or rev("HEAD", at=at.base_tree) != commit:
        keep_state(at.base_tree, moving=True)
        move(at.base_tree, commit)
    Path(f"{at.base_tree}.applied").unlink(missing_ok=True)


def refresh_stack(topics, keep, checkout):
    """The branches of the stack, and build/linux on the last one. Returns its base."""
    state, want = state_of(main_tree), wanted(topics)
    waiting = [t for t in topics if not patch_files(t)]
    mine = changed(main_tree) or bool(state and waiting and branches().keys() & set(waiting))
    if mine:
        if not keep:
            not_rebasing(main_tree)
            if not state:
                die(f"nobody knows what {short(main_tree)} was made of: remove it, or commit "
                    "what is yours there and 'make export'")
            die(f"{short(main_tree)} has changes of its own: commit them and 'make export' writes "
                f"them to patches/. To drop them:\n    cd {short(main_tree)} && git checkout -qf "
                f"--detach && git fetch -q . '+refs/made/*:refs/heads/*' && git checkout -q "
                f"{last(state['branches'])}")
        base, end = standing() or rev("refs/series/base"), last(topics)
        if checkout and main_tree.is_dir():
            say(f"using {short(main_tree)} " + (
                "in the middle of a rebase: 'git rebase --continue' or '--abort' there ends it"
                if rebasing(main_tree) else "with your changes in it"))
    else:
        for topic in waiting:
            die(f"patches/{topic} has no patches: make a branch {topic} in {short(main_tree)} "
                "and 'make export', or take its line out of patches/series")
        base = import_base(SimpleNamespace(ksrc="", home=True, base=base_line().split()[0]))
        if state.get("want") != want or state.get("moving"):
            say("applying the topics with git am")
            ends = am_all(base, topics, state=state)
            end = last(ends)
            keep_state(main_tree, moving=True, branches=state.get("branches", {}))
            set_branches(ends, state.get("branches", {}), base)
            if main_tree.is_dir():
                move(main_tree, ends[end], end)
            else:
                git("branch", "-f", end, ends[end])
            keep_branches(ends)
            keep_state(main_tree, head=ends[end], want=want, branches=ends,
                       applied=needs_of(topics) if not state.get("want") else None)
            n = sum(len(patch_files(t)) for t in ends)
            say(f"{n} patches in {len(ends)} topics, on {git('log', '-1', '--format=%s', base)}")
        elif checkout and not keep:
            say(f"{short(main_tree)} is up to date")
        end = last(state_of(main_tree)["branches"])
    if checkout and not main_tree.is_dir():
        move(main_tree, rev(end), end)
    return base


class Conflict(Exception):
    def __init__(self, topic, commit, files):
        self.topic, self.subject, self.files = topic, commit.subject, files
        super().__init__(f"topic {topic}: '{commit.subject}' conflicts in {', '.join(files)}")


def pick(base, chosen, name="", partly=(), verbose=True):
    """git cherry-pick of commits: (topic, commit) in order. Returns the last one. Of topics that
    are there only PARTLY, with their tests, documentation that does not apply is left out."""
    taken, left_out = {}, set()
    with scratch(base) as run:
        for topic, commit in chosen:
            taken.setdefault(topic, 0)
            done = run("cherry-pick", commit.id, rc=True, env=by_am)
            if not done.returncode:
                taken[topic] += 1
                continue
            if files := run("diff", "--name-only", "--diff-filter=U").split():
                if topic not in partly or not commit.text:
                    raise Conflict(topic, commit, files[:3])
                say(f"left out, as it describes what is not there: {commit.subject}")
                run("cherry-pick", "--skip")
                left_out.add(topic)
                continue
            # Nothing is left of it, or else something is wrong.
            if run("rev-parse", "-q", "--verify", "CHERRY_PICK_HEAD", rc=True).returncode:
                die("git cherry-pick: " + done.stderr.decode(errors="replace").strip())
            run("cherry-pick", "--skip")
            if verbose:
                say(f"skipped, the tree has it already: {commit.subject}")
        for topic in (t for t, n in taken.items() if not n and verbose and t not in left_out):
            say(f"nothing is left of topic {topic}: the tree has all of it")
        if verbose:
            say(f"{sum(taken.values())} patches, {len(chosen) - sum(taken.values())} skipped, "
                f"on {name}")
        return run("rev-parse", "HEAD")


def selection(at, topics, base):
    """What of the stack a tree gets: the topics, what they need, and all tests. Also the topics
    of which it gets no more than these."""
    whole = {n for t in at.topics for n in [t, *topics[t].needs]} if at.series != "none" else ()
    return [(t, c) for t, list_ in commits(topics, base).items() for c in list_
            if t in whole or c.test], topics.keys() - whole


def alone(topic, topics, base):
    """What a topic needs on the base, and the topic on that, without any other test. Its files
    have to give that with git am."""
    stack, made = commits(topics, base), [base]
    for part in topics[topic].needs, [topic]:
        chosen = [(t, c) for t in part for c in stack[t]]
        made.append(pick(made[-1], chosen, verbose=False) if chosen else made[-1])
    with scratch(made[1]) as run:
        if why := fails(run, "am", "-q", "--keep-non-patch", *patch_files(topic)):
            die(f"git am patches/{topic}/*.patch on what it needs: {why}")
        if run("diff", "--cached", "--name-only", made[2]):
            die(f"git am patches/{topic}/*.patch does not give what the branch has: 'make export'")
    return made[1:]


def tree(mode=""):
    topics = read_series()
    at = place(topics)
    open_store()
    if mode == "--base":
        return base_tree(at, import_base(at))
    onto = None if at.home else import_base(at)
    base = refresh_stack(topics, mode == "--keep" or not at.main, at.main)
    onto = onto or base
    base_tree(at, onto)
    if at.main:
        return None
    (chosen, partly), state = selection(at, topics, base), state_of(at.tree)
    want = [onto, *(c.id for _, c in chosen)]
    if changed(at.tree):
        if mode == "--keep":
            return say(f"using {short(at.tree)} with your changes in it")
        not_rebasing(at.tree)
        die(f"{short(at.tree)} has changes of its own, which 'make export' does not take; "
            f"to drop them: git -C {short(at.tree)} reset --hard {state.get('head', 'COMMIT')}")
    if state.get("want") == want and at.tree.is_dir() and not state.get("moving"):
        return None if mode == "--keep" else say(f"tree: {short(at.tree)} is up to date")
    try:
        new = pick(onto, chosen, git("log", "-1", "--format=%s", onto), partly)
    except Conflict as conflict:
        die(f"{conflict}\nNothing was changed. 'make rebase' with the same BASE= or KSRC= leaves "
            f"such a conflict in {short(main_tree)} to be mended." if not at.home else
            f"{conflict}\nNothing was changed. It wants another topic first: name that in the "
            "last column of patches/series.")
    if at.tree.is_dir():
        keep_state(at.tree, moving=True)
    move(at.tree, new)
    keep_state(at.tree, head=new, want=want)
    say(f"tree: {short(at.tree)}")


def needs_of(topics):
    return {t.name: list(t.needs) for t in topics.values()}


def verify_alone(topics):
    """Each topic goes on the base and what it needs without the merges of git am -3."""
    files = {t: patch_files(t) for t in topics}
    ranges = ranges_of(ends_of(topics, standing()), standing())
    with tempfile.TemporaryDirectory(dir=build, prefix="stack.") as tmp:
        index = Index(standing(), tmp, sum(files.values(), []))
        mine = [t for t in topics.values() if t.kind == "post"]
        for topic in mine:
            if why := index.merges([ranges[t] for t in topic.needs]):
                die(f"what {topic.name} needs does not apply without the rest: {why}")
            if why := index.apply(files[topic.name]):
                die(f"patches/{topic.name} does not apply on what it needs: {why}; "
                    "'make export' mends that")
    say(f"{len(mine)} topics apply on what they need, without a merge")


def verify(mode=""):
    topics = read_series()
    if mode == "--alone":
        return verify_alone(topics)
    # what 'make tree' has applied from the first patch on, of the same files and needs, is not
    # applied again
    state = state_of(main_tree)
    made = am_all(standing(), topics,
                  state=state if state.get("applied") == needs_of(topics) else None)
    if git("diff", "--name-only", made[last(made)], "HEAD", at=main_tree):
        die(f"patches/ and {short(main_tree)} give different trees")
    chosen, partly = selection(SimpleNamespace(topics=(), series="none"), topics, standing())
    try:
        pick(standing(), chosen, partly=partly, verbose=False)
    except Conflict as conflict:
        die(f"the tests do not apply on the plain base, as SERIES=none wants: {conflict}")
    say(f"{sum(len(patch_files(t)) for t in made)} patches in {len(made)} topics apply, "
        "the tests also on the plain base")


# ---- commands ---------------------------------------------------------------------------

def export(mode=""):
    if not place(read_series()).main:
        die("export works on the stack in build/linux: leave BASE, KSRC, SERIES and TOPICS out")
    open_store()
    stack_export.export(mode)


def rebase(mode=""):
    topics = read_series()
    at, asked = place(topics), os.environ.get("BASE", "")
    if at.series != "all" or not (asked or at.ksrc):
        die("rebase takes the whole stack to BASE=major.minor or KSRC=DIR: give one of them")
    open_store()
    refresh_stack(topics, True, True)
    not_rebasing(main_tree)
    if git("status", "--porcelain", "-uno", at=main_tree):
        die(f"{short(main_tree)} has uncommitted changes: commit them first")
    old = standing()
    ends = ends_of(topics, old)
    new = import_debian(at.base, "newest") if at.home else import_base(at)
    if at.ksrc:
        name = git("describe", "--always", new, at=at.ksrc)
        record(new, f"base-git-{new[:12]}",
               f"git-{new[:12]} {Path(at.ksrc).name.replace(' ', '-')} {name} git:{new}")
    if old == new:
        return say(f"{short(main_tree)} is on {git('log', '-1', '--format=%s', new)} already")
    git("update-ref", "refs/series/base", old)
    git("update-ref", "refs/series/onto", new)
    say(f"git rebase --update-refs --onto {place(topics).tag if at.home else at.tag} {old[:12]}")
    done = git("rebase", "--update-refs", "--onto", new, old, at=main_tree, rc=True)
    text = (done.stdout + done.stderr).decode(errors="replace")
    for subject in re.findall(r"dropping [0-9a-f]+ (.*?) -- patch contents already", text):
        say(f"skipped, the base has it already: {subject}")
    if not done.returncode:
        return say(f"{short(main_tree)} is on {git('log', '-1', '--format=%s', new)} now; "
                   "'make export' writes that to patches/")
    if not rebasing(main_tree):
        die("git rebase: " + text.strip().split("\n")[-1])
    stopped = rev("REBASE_HEAD", at=main_tree)
    topic = next((t for t, end in ends.items() if is_ancestor(stopped, end)), "?")
    files = git("diff", "--name-only", "--diff-filter=U", at=main_tree).split("\n")
    die(f"topic {topic}: '{git('log', '-1', '--format=%s', stopped)}' conflicts in "
        f"{', '.join(files[:3])}. In {short(main_tree)} mend that, 'git add' it and "
        "'git rebase --continue', and 'make export' here; 'git rebase --abort' there drops it")


def env(mode=""):
    at = place(read_series())
    for name, value in dict(base=at.base, default_base=base_line().split()[0], ksrc=at.ksrc,
                            series=at.series, topics=" ".join(at.topics),
                            selected=" ".join(at.selected), variant=at.variant,
                            tree=at.tree, base_tree=at.base_tree, base_ref=at.tag).items():
        print(f"{name}={shlex.quote(str(value))}")


def list_changed(mode=""):
    """What would be lost with build/, and how to keep it."""
    for state in sorted(build.glob("linux*.applied")):
        there = Path(str(state)[:-len(".applied")])
        if changed(there) or there.is_dir() and git("status", "--porcelain", at=there):
            print(f"{short(there)} has changes of its own:",
                  "commit them and 'make export' keeps them" if there == main_tree else
                  "'make export' does not take them, format-patch keeps them")
    if not store.is_dir():
        return
    topics = read_series()
    known_ones = [r for r in git("for-each-ref", "--format=%(refname)").split("\n")
                  if r and not r.startswith("refs/heads/") or r[11:] in topics]
    for name in git("for-each-ref", "--format=%(refname:short)", "refs/heads").split("\n"):
        if name and git("rev-list", "-1", f"refs/heads/{name}", "--not", *known_ones):
            print(f"branch {name} of {short(main_tree)} has commits that are nowhere else:",
                  "format-patch keeps them")


def main():
    command, args = (sys.argv[1:] or [""])[0], sys.argv[2:]
    allowed = {"tree": ("--keep", "--base"), "export": ("--check",), "verify": ("--alone",)}
    run = dict(tree=tree, export=export, verify=verify, rebase=rebase, env=env,
               changed=list_changed).get(command)
    if run:
        if len(args) > 1 or args and args[0] not in allowed.get(command, ()):
            die(f"usage: stack.py {command} {' | '.join(allowed.get(command, ()))}")
        logs.mkdir(parents=True, exist_ok=True)
        if command in ("tree", "export", "rebase"):
            lock_checkout()
        return run(*args)
    topics = read_series()
    names = known(args, topics) or list(topics)
    if command == "list":
        for t in topics.values():
            print(t.name, t.tree, t.kind, t.stable, ",".join(t.needs) or "-", sep="\t")
    elif command == "patches":
        for name in names:
            print("".join(f"{p}\n" for p in patch_files(name)), end="")
    elif command == "needs" and len(args) == 1:
        print("".join(t + "\n" for t in topics[args[0]].needs), end="")
    elif command == "alone" and len(args) == 1:
        open_store()
        try:
            print(*alone(args[0], topics, standing()))
        except Conflict as conflict:
            die(str(conflict))
    elif command == "commits" and len(args) == 1:
        order = list(topics)
        before = order[order.index(args[0]) - 1] if args[0] != order[0] else "base-" + home_name()
        print(f"{before}..{args[0]}")
    else:
        die("usage:\n" + __doc__.split("\n\n")[1])


if __name__ == "__main__":
    run_main(main)
