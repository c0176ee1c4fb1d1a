# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2154
# Sourced after common.sh by what mails topics: what patches/ says of one, and a small work tree
# to apply patches in. Functions with a TOP read TOP/patches, this repository's or an older one.

topic_patches() {	# TOP TOPIC
	find "$1/patches/$2" -maxdepth 1 -name '[0-9]*.patch' | sort
}

# FILE; with -k as it is in the mail, with [PATCH].
subject() { git mailinfo ${2:+"$2"} /dev/null /dev/null <"$1" | sed -n 's/^Subject: //p'; }

# Of a topic: the first line of its cover letter, which a single patch does not have.
cover_letter() { echo "$top/patches/$1/cover-letter.txt"; }
title() {	# TOPIC
	if [ -f "$(cover_letter "$1")" ]; then
		head -n 1 "$(cover_letter "$1")"
	else
		subject "$(topic_patches "$top" "$1" | head -n 1)"
	fi
}

# The change-id of b4. A single patch has no place to keep one in, so it follows from the name.
change_id() {	# TOPIC
	sed -n 's/^change-id: //p' "$(cover_letter "$1")" 2>/dev/null | tail -n 1 | grep . ||
		echo "20261126-dma-fence-$1-$(printf %s "$1" | sha1sum | cut -c1-12)"
}

# Nobody's git configuration has a say in it.
work=
work_git() {
	GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 \
		git -C "$work" -c core.autocrlf=false "$@"
}

# A work tree that has only the files that patches touch: git am needs no others.
work_tree() {	# DIR TOP...
	work=$1
	shift
	git init -q "$work"
	# neither write 90,000 entries nor look for their files each time
	git -C "$work" config core.splitIndex true
	git -C "$work" config sparse.expectFilesOutsideOfPatterns true
	git -C "$build/linux.git" rev-parse --path-format=absolute --git-path objects \
		>"$work/.git/objects/info/alternates"
	[ ! -f "$build/linux.git/shallow" ] || cp "$build/linux.git/shallow" "$work/.git/"
	find "${@/%/\/patches}" -name '*.patch' -exec sed -n 's|^diff --git a/.* b/|/|p' {} + |
		sort -u | work_git sparse-checkout set --no-cone --stdin
}

# apply TOP TOPIC [OPTION...]: a topic on HEAD of the work tree, each message with the options of
# git interpret-trailers. What has no author yet gets the committer for one.
apply() {
	local p before n=0 own='' top=$1 topic=$2
	shift 2
	for p in $(topic_patches "$top" "$topic"); do
		n=$((n + 1))
		before=$(work_git rev-parse HEAD)
		awk '/^$/ { text = 1 }
			!text && $0 == "From: series <series@localhost>" {
				$0 = "From: " ENVIRON["GIT_COMMITTER_NAME"]
				$0 = $0 " <" ENVIRON["GIT_COMMITTER_EMAIL"] ">"
			} 1' "$p" | git interpret-trailers "$@" >"$work/.git/signed"
		if ! work_git am -q -3 --keep-non-patch .git/signed >"$logs/am.log" 2>&1; then
			work_git am --abort
			work_git apply --check -R "$p" 2>/dev/null || merge "$@" || die \
				"${p#"$top"/} does not apply: $(grep -m 1 -E '^CONFLICT|^error: patch failed' "$logs/am.log" ||
					tail -n 1 "$logs/am.log")"
		fi
		[ "$(work_git rev-parse HEAD)" != "$before" ] ||
			say "skipped, the base has it: $(subject "$p")"
	done
}

# Patch $n of the topic as it is on the base and what it needs, merged into a tree that has more.
merge() {	# [OPTION...]
	local author
	own=${own:-$("$top/scripts/stack.py" alone "$topic")} || return 1
	work_git cherry-pick "$(git -C "$build/linux.git" rev-list --reverse "${own/ /..}" | sed -n "${n}p")" \
		>"$logs/am.log" 2>&1 || { work_git cherry-pick --abort; return 1; }
	author=$(work_git log -1 --format='%an <%ae>')
	[ "$author" != 'series <series@localhost>' ] ||
		author="$GIT_COMMITTER_NAME <$GIT_COMMITTER_EMAIL>"
	work_git log -1 --format=%B | git interpret-trailers "$@" |
		work_git commit -q --amend --author="$author" -F -
}
