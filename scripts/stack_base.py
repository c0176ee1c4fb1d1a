# SPDX-License-Identifier: GPL-2.0
"""The bases in build/linux.git: Debian's kernels as a commit each, and commits of KSRC."""

import hashlib, shutil, subprocess, sys
from pathlib import Path
from stack_lib import *


def open_store():
    """build/linux.git, without what is left of an interrupted run or a KSRC that is gone."""
    if not (store / "series").exists():
        shutil.rmtree(store, ignore_errors=True)
        git("init", "-q", "--bare", store, at=build)
        for key, value in {"gc.auto": "0", "rebase.updateRefs": "true", "user.name": "series",
                           "user.email": "series@localhost", "commit.gpgsign": "false",
                           "core.autocrlf": "false", "pack.compression": "1"}.items():
            git("config", key, value)
        (store / "series").touch()
    for left in build.glob("stack.*"):
        shutil.rmtree(left)
    others = store / "objects/info/alternates"
    if others.exists():
        lines = others.read_text().splitlines()
        if gone := [line for line in lines if not Path(line).is_dir()]:
            others.write_text("".join(line + "\n" for line in lines if line not in gone))
            for tag in git("tag", "-l", "base-ksrc-*", "base-git-*").split():
                if git("cat-file", "-e", f"{tag}^{{tree}}", rc=True).returncode:
                    (store / "refs/tags" / tag).unlink(missing_ok=True)
    git("worktree", "prune")


def record(commit, tag, line):
    git("config", f"base.{commit}.line", line)
    git("tag", "-f", tag, commit)
    return commit


def import_base(at):
    """The base that is asked for, as a commit with a tag."""
    if at.ksrc:
        return import_ksrc(at.ksrc, at.tag)
    if at.home:
        line = base_line()
        tag = "base-" + line.split()[0]
        if (have := rev(f"refs/tags/{tag}")) and line_of(have) == line:
            return have
        if (commit := line.split()[3]).startswith("git:"):
            if not rev(commit[4:]):
                die(f"patches/base is commit {commit[4:]} of {line.split()[1]}: "
                    "run this once with KSRC=DIR, a git that has it")
            return record(commit[4:], tag, line)
        return import_debian(at.base, "source", line)
    return rev(f"refs/tags/{at.tag}") or import_debian(at.base, "source")


def import_ksrc(ksrc, tag):
    head = rev("HEAD", at=Path(ksrc))
    if git("status", "--porcelain", "-uno", at=ksrc):
        say("KSRC has uncommitted changes: they are not used, only HEAD is")
    lend(ksrc)
    git("tag", "-f", tag, head)
    return head


def lend(ksrc):
    """Objects of KSRC are read where they are. A shallow one says where its history ends."""
    path = ["rev-parse", "--path-format=absolute", "--git-path"]
    others, objects = store / "objects/info/alternates", git(*path, "objects", at=ksrc)
    lines = others.read_text().splitlines() if others.exists() else []
    if objects not in lines:
        others.write_text("\n".join([*lines, objects, ""]))
    cut = Path(git(*path, "shallow", at=ksrc))
    if cut.exists():
        old = (store / "shallow").read_text() if (store / "shallow").exists() else ""
        (store / "shallow").write_text("".join(
            sorted(set((old + cut.read_text()).splitlines(keepends=True)))))


def import_debian(version, which, line=""):
    """Debian's source of the kernel. It may be newer than LINE, which then stays as it is."""
    run = subprocess.run([top / "scripts/debian.sh", which, version], stdout=subprocess.PIPE)
    if run.returncode:
        sys.exit(1)
    deb = Path(run.stdout.decode().strip())
    package, number = deb.name.split("_")[:2]
    if not line:
        line = f"{version} {package} {number} sha256:{hashlib.sha256(deb.read_bytes()).hexdigest()}"
    need_space(1500, "importing the base kernel")
    print(f"== importing {package} {number} (2 minutes) ", end="", flush=True)
    if subprocess.run([top / "scripts/import-deb.py", deb, store, "refs/series/import"],
                      env=clean_env).returncode:
        deb.unlink()
        die("the base could not be imported; run the same command again")
    print(" done")
    return record(rev("refs/series/import"), f"base-{version}", line)
