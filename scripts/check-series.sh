#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# check-series.sh: what can be said about the series without a long build. Prints
# one line a check, and counts.
. "$(dirname "$0")/common.sh"

[ -d "$tree" ] || die "there is no work tree yet: run 'make tree' first"

passed=0
failed=0
check() {	# NAME COMMAND...
	local name=$1 log rc=0 start=$SECONDS
	log=$logs/check-$(tr -cs 'a-z0-9\n' - <<<"${1,,}").log
	check_log=$log
	shift
	"$@" >"$log" 2>&1 </dev/null || rc=$?
	if [ $rc -eq 0 ]; then
		passed=$((passed + 1))
		printf 'ok       %s (%s s)\n' "$name" $((SECONDS - start))
	else
		failed=$((failed + 1))
		printf 'FAILED   %s\n' "$name"
		tail -n 10 "$log" | sed 's/^/    /'
		echo "    log: ${log#"$top"/}"
	fi
}

# git am, patch by patch, onto the untouched base, without fuzz or 3-way.
applies() {
	local dir=$build/check-am p
	rm -rf "$dir"
	git -C "$base_tree" worktree prune
	git -C "$base_tree" worktree add -q --detach "$dir" base
	for p in $(list_patches); do
		git -C "$dir" -c user.name=series -c user.email=series@localhost am -q "$p" ||
			{ echo "$(basename "$p") does not apply"; return 1; }
	done
	git -C "$dir" diff --quiet HEAD "$(git -C "$tree" rev-parse HEAD)" ||
		{ echo "patches/ and ${tree#"$top"/} give different trees"; return 1; }
	rm -rf "$dir"
	git -C "$base_tree" worktree prune
}

labelled() {
	local p rc=0 n
	for p in $(list_patches); do
		case $(patch_subset "$(patch_subject "$p")") in
		fixes|core|drivers|i915|xe|usb|iio|tests) ;;
		*) echo "no subset, or an unknown one: $p"; rc=1 ;;
		esac
	done
	n=$(grep -c . "$top/patches/subsets")
	[ "$n" = "$(list_patches | wc -l)" ] || { echo "patches/subsets has $n lines for $(list_patches | wc -l) patches"; rc=1; }
	! grep -l '^Signed-off-by:' "$top"/patches/*.patch || { echo "a Signed-off-by is the sender's to add"; rc=1; }
	return $rc
}

if [ -z "$ksrc" ]; then
	# tree.sh has applied them to KSRC, and skipped what it has already.
	check "git am applies every patch" applies
fi
check "every patch has a subset and no sign-off" labelled
if [ -z "$ksrc" ]; then
	check "in-tree files match the patches" "$top/scripts/export.sh" --check
fi
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
