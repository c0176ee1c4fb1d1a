#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# splats.sh LOG...: print every kernel splat in the logs, one line each, and fail
# if there is any. KUnit and kselftest do not see what other threads splat.
no_places=1 SERIES_LOCKED=1
. "$(dirname "$0")/common.sh"

patterns=$top/configs/splats
# where callers see it
[ -s "$patterns" ] || die "splats.sh: no $patterns" 2>&1
[ $# -gt 0 ] || die "usage: splats.sh LOG..."
found=0
for log; do
	[ -f "$log" ] || die "splats.sh: no log $log"
	lines=$(console "$log" | { grep -aEf <(grep '^[^#!]' "$patterns") || [ $? = 1 ]; } |
		{ grep -avEf <(sed -n 's/^!//p' "$patterns") || [ $? = 1 ]; }) ||
		die "splats.sh: $patterns has a wrong pattern" 2>&1
	[ -z "$lines" ] || printf '%s\n' "$lines" | sed "s|^|${log##*/}: |"
	found=$((found + ${#lines}))
done
[ $found -eq 0 ]
