#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""import-deb.py DEB GIT REF: Debian's linux-source package as one commit of GIT, at REF.

The source goes from the package into git without a work tree in between. The commit is
the same on every machine.
"""

import subprocess, sys, tarfile, time

deb, git, ref = sys.argv[1:]
package, version = deb.rsplit("/", 1)[-1].split("_")[:2]
title = f"{package}_{version}\n".encode()

source = subprocess.Popen(
    ["bash", "-o", "pipefail", "-c",
     'dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/src/$2.tar.xz" | xz -dc', "sh", deb, package],
    stdout=subprocess.PIPE)
sink = subprocess.Popen(["git", "-C", git, "fast-import", "--quiet", "--force"],
                        stdin=subprocess.PIPE)
put = sink.stdin.write
put(f"commit {ref}\nauthor series <series@localhost> 1767225600 +0000\n"
    f"committer series <series@localhost> 1767225600 +0000\n"
    f"data {len(title)}\n".encode() + title + b"\ndeleteall\n")
shown = time.time()
with tarfile.open(fileobj=source.stdout, mode="r|") as tar:
    for entry in tar:
        path = entry.name.split("/", 1)[-1]
        if entry.issym():
            mode, data = "120000", entry.linkname.encode()
        elif entry.isfile():
            mode, data = "100755" if entry.mode & 0o100 else "100644", tar.extractfile(entry).read()
        elif entry.isdir():
            continue
        else:
            sys.exit(f"error: {path} is neither a file nor a link")
        if path == ".gitignore":
            # Debian adds rules that make git ignore every new file.
            data = data.split(b"# Debian packaging")[0]
        put(f"M {mode} inline {path}\ndata {len(data)}\n".encode() + data + b"\n")
        if time.time() - shown > 10:
            shown = time.time()
            print(".", end="", flush=True)
sink.stdin.close()
while source.stdout.read(1 << 20):
    pass
source.stdout.close()
if sink.wait() or source.wait():
    sys.exit(f"error: {deb} could not be read")
