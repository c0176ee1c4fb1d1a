#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""conversions.py: which issuer shared a lock with its fences, what else that lock was for, and what
became of it. Every call of dma_fence_init() in the base that passes a lock is looked up in the
work tree, by file and ops. Fails if one of them still passes a lock. The table is
results/conversions.md.
"""

import re, sys
import reports, stack
from stack import commits, die, git, open_store, say, standing

CALL = re.compile(r"\bdma_fence_init(64)?\(")


def arguments(text, start):
    """Those of the call whose parenthesis ends at start."""
    parts, depth, at = [""], 1, start
    while depth:
        c = text[at]
        depth += (c in "([{") - (c in ")]}")
        if c == "," and depth == 1:
            parts.append("")
        elif depth:
            parts[-1] += c
        at += 1
    return [re.sub(r"\s+", " ", p).strip() for p in parts]


def locks(text):
    """{ops: what the calls pass as a lock, or None}"""
    found = {}
    for match in CALL.finditer(text):
        args = arguments(text, match.end())
        if len(args) in (4, 5) and not args[0].startswith("struct"):
            lock = args[2] if len(args) == 5 and args[2] != "NULL" else None
            found[args[1]] = found.get(args[1]) or lock
    return found


def file_at(commit, name):
    return git("show", f"{commit}:{name}", rc=True).stdout.decode()


def taken(commit, name, lock):
    """In how many places of its directory the lock is taken."""
    pattern = rf"\bspin_(try)?lock(_irq|_irqsave|_nested)?\(&?{re.escape(lock.lstrip('&'))}\b"
    return git("grep", "-hE", pattern, commit, "--", name.rsplit("/", 1)[0] + "/*.c",
               rc=True).stdout.count(b"\n")


def conversion(commits_of, name, ops):
    """The first commit after which the fences of these ops have no lock of their issuer."""
    for topic, commit in commits_of.get(name, []):
        if not locks(file_at(commit.id, name)).get(ops):
            message = git("show", "-s", "--format=%B", commit.id)
            built = re.search(r"ompile-tested|not been run|has not run|Built for", message)
            return topic, "built" if built else "run"
    return "-", "-"


def main():
    topics = stack.read_series()
    open_store()
    base = standing() or die("there is no work tree yet: run 'make tree' first")
    tip = git("rev-parse", f"refs/heads/{list(topics)[-1]}")
    files = git("grep", "-lE", CALL.pattern, base, "--", "drivers/*.c").split()
    commits_of = {}
    for topic, patches in commits(topics, base).items():
        for commit in patches:
            for name in git("diff-tree", "-r", "--no-commit-id", "--name-only", commit.id).split():
                commits_of.setdefault(name, []).append((topic, commit))
    rows, left = [], []
    for name in (f.split(":", 1)[1] for f in files):
        after = locks(file_at(tip, name))
        for ops, lock in sorted(locks(file_at(base, name)).items()):
            if not lock:
                continue
            if after.get(ops):
                left.append(f"{name} passes {after[ops]}")
            topic, tried = conversion(commits_of, name, ops)
            where = name.removeprefix("drivers/").removeprefix("gpu/")
            rows.append([where, ops.lstrip("&"), lock, taken(base, name, lock),
                         "**lock**" if after.get(ops) else "inside", topic, tried])
    text = reports.head(
        "Who shared a lock with its fences", "make conversions",
        reports.made(git("log", "-1", "--format=%s", base)), reports.share(rows),
        "Issuers that pass a lock to dma_fence_init() in the base; in how many places of its "
        "directory that is taken there by the same name; where the lock is now; the topic that "
        "changed it, and whether the message says that it was run or only built. What the lock "
        "protected, field by field, is in that message.") + \
        "| issuer | ops | lock before | taken | now | topic | tried |\n" \
        "|---|---|---|---:|---|---|---|\n" + reports.lines(rows)
    reports.write(reports.path_of("conversions.md"), text)
    print(text)
    for line in left:
        print(line)
    say(f"{len(rows)} issuers, {len(left)} still pass a lock; written to results/conversions.md")
    sys.exit(1 if left else 0)


if __name__ == "__main__":
    main()
