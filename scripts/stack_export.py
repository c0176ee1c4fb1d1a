# SPDX-License-Identifier: GPL-2.0
"""stack.py export: the branches of build/linux back to patches/, and the files they add."""

import hashlib, re, shutil, tempfile
from pathlib import Path
from stack_lib import *

# Places of the kernel that this repository has, too. Its own scripts and configs are not there.
PLACES = ["drivers", "include", "Documentation", "tools", "scripts/coccinelle", "MAINTAINERS"]


def essence(data):
    """A patch without what changes in it when another one does."""
    data = re.sub(rb"(?m)^index [0-9a-f]+\.\.[0-9a-f]+.*\n", b"", data)
    return re.sub(rb"(?m)^@@ -\d+((?:,\d+)?) \+\d+((?:,\d+)?) @@.*", rb"@@ -\1 +\2 @@", data)


def patches_of(topics, kept, base, exact):
    """{topic: {name: content}} of the patch files. Where nothing differs it is the old one. Those
    that do not apply on what the topic needs, without the rest of the stack, are made on that."""
    lines, result = ranges_of(kept, base), {}
    with tempfile.TemporaryDirectory(dir=build, prefix="stack.") as tmp, Dots() as dots:
        def make(topic, commits):
            dots.step()
            old = {} if exact else {essence(p.read_bytes()): p.read_bytes()
                                    for p in patch_files(topic)}
            result[topic] = formatted(topic, commits, old)
            for name, data in result[topic].items():
                Path(tmp, topic).mkdir(exist_ok=True)
                Path(tmp, topic, name).write_bytes(data)

        for topic, commits in lines.items():
            make(topic, commits)
        files = {t: patch_files(t, Path(tmp)) for t in kept}
        index = Index(base, tmp, sum(files.values(), []))
        for n, topic in enumerate(kept):
            dots.step()
            needs = [t for t in topics[topic].needs if t in kept]
            # a lab topic is only applied here
            if topics[topic].kind == "post" and len(needs) < n and \
                    index.fails([lines[t] for t in needs], files[topic]):
                with index.scratch(topic, [lines[t] for t in needs]) as run:
                    start = run("rev-parse", "HEAD")
                    if why := fails(run, "cherry-pick", lines[topic]):
                        die(f"{topic} does not apply on what it needs: {why}")
                    make(topic, f"{start}..{run('rev-parse', 'HEAD')}")
    return result


def formatted(topic, commits, old):
    result = {}
    with tempfile.TemporaryDirectory(dir=build, prefix="stack.") as tmp:
        git("format-patch", "-q", "--no-signature", "--zero-commit", "--no-numbered",
            "--full-index", "--abbrev=12", "-o", tmp, commits, at=main_tree)
        for path in sorted(Path(tmp).iterdir()):
            data = path.read_bytes()
            head, blank, body = data.partition(b"\n\n")
            if re.search(rb"(?m)^From: .*<series@localhost>$", head):
                head = re.sub(rb"(?m)^Date: .*$", b"Date: Thu, 1 Jan 2026 00:00:00 +0000", head)
                if re.search(rb"(?m)^Signed-off-by:", body.split(b"\n---\n")[0]):
                    die(f"{topic}, {path.name[5:-6]} has a Signed-off-by, which is the sender's "
                        "to add: sign in a tree of your own, see README")
            data = head + blank + body
            result[path.name] = old.get(essence(data), data)
    return result


def cover_of(topic, count):
    """The cover letter: title, empty line, text, change-id. It is written by hand."""
    path = cover_letter(topic)
    if count < 2:
        return {}
    ident = f"change-id: 20261126-dma-fence-{topic}-{hashlib.sha1(topic.encode()).hexdigest()[:12]}"
    return {path.name: path.read_bytes() if path.exists() else f"{topic}\n\n{ident}\n".encode()}


def series_file(topics, dropped):
    """patches/series without the topics that have no commit any more."""
    lines = []
    for line in (patches / "series").read_text().splitlines():
        words = line.split("#")[0].split()
        if words and words[0] in dropped:
            continue
        if words and any(t in dropped for t in topics[words[0]].direct) and words[4] != "*":
            needs = [t for t in words[4].split(",") if t not in dropped]
            line = re.sub(r"(\S+)(\s*(#.*)?)$", lambda m: (",".join(needs) or "-") + m[2], line)
        lines.append(line + "\n")
    return "".join(lines).encode()


def added_files(base):
    """Files that the stack adds, whole, and entries of MAINTAINERS: {name: content}."""
    names = git("diff", "--diff-filter=A", "--no-renames", "--name-only", base, "HEAD",
                at=main_tree).split("\n")
    result = {n: (main_tree / n).read_bytes() for n in names if n}
    if (main_tree / "MAINTAINERS").exists():
        old = re.split(rb"\n\n+", git("show", f"{base}:MAINTAINERS", raw=True).strip(b"\n"))
        new = re.split(rb"\n\n+", (main_tree / "MAINTAINERS").read_bytes().strip(b"\n"))
        if own := [entry for entry in new if entry not in old]:
            result["MAINTAINERS"] = b"\n\n".join(own) + b"\n"
    return result


def differences(files, topics):
    """What to write, and what to remove. What git does not know of is somebody else's."""
    there = git("ls-files", "--", *PLACES, at=top, rc=True).stdout.decode().split("\n")[:-1]
    there += [short(p) for t in topics for p in [*patch_files(t), cover_letter(t)]]
    return ([n for n, data in files.items()
             if not (top / n).is_file() or (top / n).read_bytes() != data],
            sorted({n for n in there if (top / n).exists()} - files.keys()))


def compare(files, topics):
    new, gone = differences(files, topics)
    for name in new:
        print(f"{name} {'differs' if (top / name).exists() else 'is missing'}")
    for name in gone:
        print(f"{name} is no more")
    if new or gone:
        die("patches/ and the in-tree files differ from the work tree: 'make export' writes them")


def write(files, topics, dropped):
    new, gone = differences(files, topics)
    for name in new:
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(files[name])
        if (main_tree / name).exists():
            path.chmod((main_tree / name).stat().st_mode & 0o777)
    for name in gone:
        (top / name).unlink()
        for parent in (top / name).parents:
            if parent == top or any(parent.iterdir()):
                break
            parent.rmdir()
    for topic in dropped:
        shutil.rmtree(patches / topic, ignore_errors=True)
    touched = sorted({n.split("/")[1] for n in [*new, *gone] if n.count("/") > 1
                      and n.startswith("patches/")} - {*dropped})
    say(f"{len(new)} files written, {len(gone)} removed; topics that changed: "
        + (" ".join(touched) or "none")
        + (f"; dropped: {' '.join(dropped)}" if dropped else ""))


def export(mode=""):
    topics, state = read_series(), state_of(main_tree)
    if not main_tree.is_dir():
        die("there is no work tree yet: run 'make tree' first")
    not_rebasing(main_tree)
    if git("status", "--porcelain", at=main_tree):
        die(f"{short(main_tree)} has uncommitted changes: commit them first")
    base = standing() or die("no base")
    if gone := [t for t in state.get("branches", {}) if t not in topics and rev(f"refs/heads/{t}")]:
        die(f"{gone[0]} has no line in patches/series any more: put it back, or 'git branch -D "
            f"{gone[0]}' in {short(main_tree)} gives its commits to the topic after it")
    want = state.get("want") or wanted(topics)
    was, now = dict(want[1:]), dict(wanted(topics)[1:])
    if mode != "--check" and (want[0] != base_line() or
                              any(now.get(t) != was.get(t) for t in {*now, *was} & {*topics})):
        die(f"patches/ has changed since {short(main_tree)} was made from it: export would undo "
            f"that; see 'git status' and 'git log' here, or remove {short(main_tree)}.applied "
            "to export all the same")
    if mode != "--check":
        say("looking for what has changed, which takes minutes")
    ends = ends_of(topics, base)
    dropped = [t for t, b in zip(ends, [base, *ends.values()]) if ends[t] == b]
    kept = {t: e for t, e in ends.items() if t not in dropped}
    common = added_files(base) | {"patches/series": series_file(topics, dropped)}
    if (line := line_of(base)) and line != base_line():
        common["patches/base"] = line.encode() + b"\n"
        say(f"patches/base is now {line}")
    for exact in (False, True):
        files = dict(common)
        for topic, made in patches_of(topics, kept, base, exact).items():
            made |= cover_of(topic, len(made))
            files |= {f"patches/{topic}/{name}": data for name, data in made.items()}
        if mode == "--check":
            return compare(files, topics)
        with tempfile.TemporaryDirectory(dir=build, prefix="stack.") as tmp:
            for name, data in files.items():
                if name.startswith("patches/"):
                    Path(tmp, name).parent.mkdir(parents=True, exist_ok=True)
                    Path(tmp, name).write_bytes(data)
            made = am_all(base, kept, Path(tmp, "patches"), state)
        if git("rev-parse", f"{made[last(made)]}^{{tree}}") == \
                git("rev-parse", "HEAD^{tree}", at=main_tree):
            break
    else:
        die("the patches do not give the tree that they were made of")
    write(files, topics, dropped)
    keep_state(main_tree, moving=True, branches=state.get("branches", {}))
    git("symbolic-ref", "HEAD", f"refs/heads/{last(made)}", at=main_tree)
    set_branches(made, ends, base)
    # The same files, so that only the name of the commit is another one.
    git("update-ref", f"refs/heads/{last(made)}", made[last(made)])
    keep_branches(made)
    keep_state(main_tree, head=made[last(made)], branches=made, want=wanted(read_series()))
