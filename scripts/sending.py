#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""sending.py [--check]: the topics in the order to post them, for the one who sends:
results/sending.md.

The tree and what has to be there before are from patches/series, who gets it from
get_maintainer.pl on the base and the trailers, what goes to security@kernel.org first from
patches/security, and what to look at before from patches/upstream. With --check it only looks
whether these name topics that are there, and whether the table has them all.
"""

import re, sys
import mail, reports, stack
from stack import build, commits, die, git, open_store, patch_files, patches, place, say, \
    standing, top

report = top / "results/sending.md"
HEAD = ("A topic can be sent when those in its column 'after' are in its tree, or were sent and "
        "are named in its cover letter. `make mail TOPIC=NAME KSRC=TREE` writes the mails and "
        "lists the recipients as they are on that tree.")


def told(name):
    """The lines of a file in patches/ with a topic and a text."""
    lines = reports.text_of(patches / name).splitlines()
    return [tuple(line.split("\t", 1)) for line in lines if line and not line.startswith("#")]


def check(topics):
    bad = [f"patches/{name}: '{line[0]}' is no topic with a tab and a text behind it"
           for name in ("security", "upstream") for line in told(name)
           if len(line) != 2 or line[0] not in topics]
    there = [row[1] for row in reports.rows_of(report)]
    want = [t.name for t in topics.values() if t.kind == "post"]
    if there != want:
        odd = next((n for n in [*want, *there] if n not in there or n not in want), "the order")
        bad.append(f"results/sending.md is not that of patches/series, see {odd}: make sending")
    return bad


def who(topic, tree):
    """People, and lists, as a mail of the topic would have them."""
    files = patch_files(topic.name)
    answer = build / "recipients" / f"plain-{stack.digest(files)}"
    answer.parent.mkdir(exist_ok=True)
    mail.ask_maintainers(tree, files, answer)
    named = answer.read_text().splitlines()
    messages = "\n".join(re.split(r"(?m)^---$", p.read_text())[0] for p in files)
    named += re.findall(r"(?m)^(?:Cc|[A-Z][A-Za-z-]*-by): (.*<.*>)$", messages)
    people = dict.fromkeys(n.split(" <")[0].strip('"') for n in named if "<" in n)
    lists = dict.fromkeys(n.split("@")[0] for n in named if "<" not in n)
    return [*people], [*lists]


def link(text):
    return re.sub(r"(?<![<(])https?://[^\s,;]*[^\s,;:.]", r"<\g<0>>", text)


def main():
    topics = stack.read_series()
    if bad := check(topics) if sys.argv[1:] == ["--check"] else []:
        die("\n".join(bad))
    if sys.argv[1:]:
        return None
    at = place(topics)
    if not at.base_tree.is_dir():
        die("there is no work tree yet: run 'make tree' first")
    open_store()
    lines = commits(topics, standing())
    secret, known = dict(told("security")), told("upstream")
    rows, recipients = [], ""
    print("== asking get_maintainer.pl ", end="", flush=True)
    whole = [t.name for n, t in enumerate(topics.values()) if n and len(t.needs) == n]
    for number, topic in enumerate((t for t in topics.values() if t.kind == "post"), 1):
        people, lists = who(topic, at.base_tree)
        stable = sum("Cc: stable@" in git("log", "-1", "--format=%B", c.id)
                     for c in lines[topic.name])
        rows.append([number, topic.name, topic.tree, len(lines[topic.name]),
                     len(people) + len(lists), "all above" if
                     topic.name in whole else ", ".join(topic.direct) or "-", stable or "-",
                     "security@kernel.org" if topic.name in secret else "lists"])
        recipients += f"- **{topic.name}**: {', '.join(people)}; {', '.join(lists)}\n"
        if not number % 10:
            print(".", end="", flush=True)
    print(" done")
    text = reports.head("The topics, in the order to post them", "make sending", reports.made(
        git("log", "-1", "--format=%s", at.tag)), f"{len(rows)} of {len(rows)} rows measured", HEAD)
    text += "| | topic | tree | patches | addresses | after | for stable | first to |\n"
    text += "|---|---|---|---|---|---|---|---|\n" + reports.lines(rows)
    text += "\n## First to security@kernel.org\n\n"
    text += "".join(f"- **{t}**: {why}\n" for t, why in secret.items())
    text += "\n## To look at before, on the tree of the day\n\n"
    text += "".join(f"- **{t}**: {link(what)}\n" for t, what in known
                    if not what.startswith("by: "))
    text += "\n## What has taken the place of it, where the tree has that\n\n"
    text += "".join(f"- **{t}**: {link(what[4:])}\n" for t, what in known
                    if what.startswith("by: "))
    text += "\n## Recipients\n\n" + recipients
    text += "\n## Never sent\n\n" + "".join(
        f"- **{t.name}**: {len(lines[t.name])} patches\n" for t in topics.values()
        if t.kind != "post")
    reports.write(report, text)
    say(f"{len(rows)} topics, in results/sending.md")


if __name__ == "__main__":
    main()
