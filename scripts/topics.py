# SPDX-License-Identifier: GPL-2.0
"""What mails topics: what patches/ says of one, and a small work tree to apply patches in.

A ROOT has scripts/ and patches/: this repository, an older one, or a copy.
"""

import hashlib, re, shutil, subprocess, sys
from stack_lib import *


def ask_stack(root, *args):
    return subprocess.run([root / "scripts/stack.py", *args], stdout=subprocess.PIPE, text=True)


def needs(root, topic):
    """The topics that it needs, in order."""
    run = ask_stack(root, "needs", topic)
    return sys.exit(1) if run.returncode else run.stdout.split()


def subject(path, *options):
    """Of a patch; with -k as it is in the mail, with [PATCH]."""
    said = git("mailinfo", *options, "/dev/null", "/dev/null", at=top, data=path.read_bytes())
    return re.search(r"(?m)^Subject: (.*)|\Z", said)[1] or ""


def title(topic):
    """The first line of its cover letter, which a single patch does not have."""
    if cover_letter(topic).is_file():
        return cover_letter(topic).read_text().split("\n")[0]
    return subject(patch_files(topic)[0])


def change_id(topic):
    """That of b4. A single patch has no place to keep one in, so it follows from the name."""
    cover = cover_letter(topic)
    found = re.findall(r"(?m)^change-id: (.+)", cover.read_text()) if cover.is_file() else []
    found = found or [f"20261126-dma-fence-{topic}-{hashlib.sha1(topic.encode()).hexdigest()[:12]}"]
    return found[-1]


class Work:
    """A work tree that has only the files that patches touch: git am needs no others."""

    def __init__(self, path, name, email):
        self.path, self.committer, self.known = path, f"{name} <{email}>", {}
        self.env = by_am | dict(GIT_COMMITTER_NAME=name, GIT_COMMITTER_EMAIL=email)
        del self.env["GIT_COMMITTER_DATE"]

    def git(self, *args, **how):
        return git(*args, at=self.path, env=self.env, **how)

    def make(self, *roots):
        git("init", "-q", self.path, at=build)
        # neither write 90,000 entries nor look for their files each time
        self.git("config", "core.splitIndex", "true")
        self.git("config", "sparse.expectFilesOutsideOfPatterns", "true")
        objects = git("rev-parse", "--path-format=absolute", "--git-path", "objects")
        (self.path / ".git/objects/info/alternates").write_text(objects + "\n")
        if (store / "shallow").exists():
            shutil.copy(store / "shallow", self.path / ".git")
        names = {b"/" + name for root in roots for patch in (root / "patches").rglob("*.patch")
                 for name in re.findall(rb"(?m)^diff --git a/.* b/(.*)", patch.read_bytes())}
        self.git("sparse-checkout", "set", "--no-cone", "--stdin", data=b"\n".join(sorted(names)))

    def apply(self, root, topic, *options):
        """A topic on HEAD, each message with the options of git interpret-trailers. What has no
        author yet gets the committer for one."""
        for n, path in enumerate(patch_files(topic, root / "patches")):
            before = self.git("rev-parse", "HEAD")
            head, blank, text = path.read_bytes().partition(b"\n\n")
            said = text.split(b"\n---\n")[0]
            if ours.encode() in head and re.search(rb"(?m)^Signed-off-by:", said):
                die(f"{path.relative_to(root)} has a Signed-off-by, which is the sender's to add")
            head = head.replace(f"\nFrom: {ours}\n".encode(),
                                f"\nFrom: {self.committer}\n".encode())
            signed = self.git("interpret-trailers", *options, data=head + blank + text, raw=True)
            done = self.git("am", "-q", "-3", "--keep-non-patch", data=signed, rc=True)
            if done.returncode:
                self.git("am", "--abort", rc=True)
                has = not self.git("apply", "--check", "-R", path, rc=True).returncode
                if not has and (failed := self.merge(root, topic, n, done, options)):
                    said = (failed.stdout + failed.stderr).decode(errors="replace").strip()
                    why = re.findall(r"(?m)^(?:CONFLICT|error: patch failed).*", said)
                    die(f"{path.relative_to(root)} does not apply: "
                        f"{[*why, said.split(chr(10))[-1]][0]}")
            if self.git("rev-parse", "HEAD") == before:
                say(f"skipped, the base has it: {subject(path)}")

    def merge(self, root, topic, n, failed, options):
        """Patch N of the topic as it is on the base and what it needs, merged into a tree that has
        more. Returns what failed."""
        if (root, topic) not in self.known:
            self.known[root, topic] = ask_stack(root, "alone", topic)
        own = self.known[root, topic]
        if own.returncode:
            return failed
        alone = git("rev-list", "--reverse", own.stdout.strip().replace(" ", ".."))
        done = self.git("cherry-pick", *alone.split("\n")[n:n + 1], rc=True)
        if done.returncode:
            self.git("cherry-pick", "--abort", rc=True)
            return done
        author = self.git("log", "-1", "--format=%an <%ae>")
        text = self.git("log", "-1", "--format=%B", raw=True)
        text = self.git("interpret-trailers", *options, data=text, raw=True)
        author = self.committer if author == ours else author
        self.git("commit", "-q", "--amend", f"--author={author}", "-F", "-", data=text)
        return None
