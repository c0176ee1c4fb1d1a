#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""applies.py: which topics go on Linux 7.2, 6.12 and on KSRC with git cherry-pick.

A topic that does not, or that needs one that does not, is left out. Fails only if a fix does not
go on KSRC: what an older kernel lacks is for 'make backport' to say.
"""

import sys
from types import SimpleNamespace
import stack
from stack import Conflict, commits, import_base, open_store, pick, place, standing

topics = stack.read_series()
asked = place(topics)
open_store()
home = standing()
lines = commits(topics, home)
targets = [SimpleNamespace(ksrc="", home=False, base=v, tag=f"base-{v}") for v in ("7.2", "6.12")]
if not asked.home and asked.tag not in [t.tag for t in targets]:
    targets.append(asked)
failed, summary = 0, []
for target in targets:
    at = import_base(target)
    print(f"on {stack.git('log', '-1', '--format=%s', at)}", flush=True)
    out, n = {}, 0
    for name, topic in topics.items():
        if missing := [t for t in topic.needs if t in out]:
            out[name] = f"needs {missing[0]}"
        else:
            try:
                new = pick(at, [(name, c) for c in lines[name]], verbose=False)
                taken = int(stack.git("rev-list", "--count", f"{at}..{new}"))
                word = "applies" if taken == len(lines[name]) else \
                    f"{taken} of {len(lines[name])} patches, the tree has the others" if taken \
                    else "the tree has it"
                at, n = new, n + 1
            except Conflict as conflict:
                out[name] = f"'{conflict.subject}' conflicts in {', '.join(conflict.files)}"
        print(f"    {name:<24} {out.get(name, word)}", flush=True)
        failed += bool(name in out and target.ksrc and topic.stable == "stable")
    summary.append(f"{target.tag[5:]} {n} of {len(topics)}")
print(", ".join(summary))
sys.exit(1 if failed else 0)
