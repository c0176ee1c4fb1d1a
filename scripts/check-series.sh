#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# check-series.sh: what can be said about the stack without a long build. Prints one
# line a check, and counts.
. "$(dirname "$0")/common.sh"

have_tree
[ "$series" = all ] ||
	die "check-series.sh is about the whole stack: not with TOPICS or SERIES=none"

check() {	# NAME COMMAND...
	local name=$1 log rc=0 start=$SECONDS
	log=$logs/check-$(tr -cs 'a-z0-9\n' - <<<"${1,,}").log
	shift
	unless_quick=$name with_dots "$log" "$@" || rc=$?
	tally $rc
	if [ $rc -eq 0 ]; then
		printf 'ok       %s (%s s)\n' "$name" $((SECONDS - start))
	else
		printf 'FAILED   %s\n' "$name"
		tail -n 10 "$log" | sed 's/^/    /'
		echo "    log: ${log#"$top"/}"
	fi
}

check "patches/series, cover letters, texts, and the tables in results/" "$top/scripts/lint.py"
check "shellcheck of every script" env -C "$top" sh -c 'shellcheck -x scripts/*.sh .ci/run'
if [ -z "$variant" ]; then
	check "git am applies every patch and gives the work tree" "$top/scripts/stack.py" verify
	check "git apply takes each topic on what it needs" "$top/scripts/stack.py" verify --alone
	check "in-tree files match the patches" "$top/scripts/stack.py" export --check
	check "mutants apply, and their tests are there" "$top/scripts/mutants.py" --check "$tree"
fi
check "patches/bugs names patches and tests that are there" "$top/scripts/bugs.py" --check
check "tree, backport, mail, guests and more, with no real kernel" "$top/scripts/glue_test.py"
check "checkpatch --strict" "$top/scripts/checkpatch.sh"
check "litmus tests with herd7" "$top/scripts/litmus.sh"
"$top/scripts/debian.sh" tool sparse
check "violations of the rules are reported" "$top/scripts/violations.sh"
check "sparse and W=1, dma-buf and DRM core" "$top/scripts/sparse.sh" um
if [ "$(uname -m)" = x86_64 ]; then
	check "sparse and W=1, drivers for x86-64" "$top/scripts/sparse.sh" x86_64
fi

echo "$passed $failed" >"$logs/check-series.result"
[ $failed -eq 0 ]
