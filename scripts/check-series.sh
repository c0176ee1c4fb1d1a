#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# check-series.sh: what can be said about the series without a long build. Prints
# one line a check, and counts.
. "$(dirname "$0")/common.sh"

passed=0
failed=0
check() {	# NAME COMMAND...
	local name=$1 log rc=0 start=$SECONDS
	log=$logs/check-$(tr -c 'a-z0-9\n' - <<<"$1").log
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
		[ -n "$(patch_subset "$(patch_subject "$p")")" ] || { echo "no subset: $p"; rc=1; }
	done
	n=$(grep -c . "$top/patches/subsets")
	[ "$n" = "$(list_patches | wc -l)" ] || { echo "patches/subsets has $n lines for $(list_patches | wc -l) patches"; rc=1; }
	! grep -l '^Signed-off-by:' "$top"/patches/*.patch || { echo "a Signed-off-by is the sender's to add"; rc=1; }
	return $rc
}

# The kernel's own checkpatch. No Signed-off-by yet, and no git history to look
# commit ids up in.
checkpatch() {
	cd "$tree"
	# shellcheck disable=SC2046
	./scripts/checkpatch.pl --strict --no-signoff --no-tree --root="$tree" --terse --show-types \
		--ignore FILE_PATH_CHANGES,GIT_COMMIT_ID,UNKNOWN_COMMIT_ID $(list_patches)
}

# sparse, on every C file that the series touches and that $1's configuration
# builds; anything it says about fences or about a file of ours is an error.
sparse_run() {	# ARCH OUT OBJECTS...
	local arch=$1 out=$2 rc=0
	shift 2
	rm -f "${@/#/$out/}"
	make -C "$tree" ARCH="$arch" O="$out" -k -j"$jobs" C=1 W=1 CHECK="$build/tools/bin/sparse" "$@" || rc=$?
	return $rc
}

touched_objects() {	# ARCH
	git -C "$tree" diff --name-only --diff-filter=AM base HEAD -- '*.c' | grep -E "$1" | grep -v '^tools/' | sed 's/c$/o/'
}

no_messages() {	# LOG
	# What W=1 and sparse say about files that the series touches, or about fences.
	local files bad
	files=$(git -C "$tree" diff --name-only --diff-filter=AM base HEAD -- '*.c' '*.h' | paste -sd'|')
	bad=$(grep -E "(warning|error):" "$1" | grep -E "($files)" | grep -vE 'note: in included file' | sort -u || true)
	# In headers that are not ours every object repeats them.
	[ -z "$bad" ] || { echo "$bad"; return 1; }
}

sparse_uml() {
	local out=$tree.kunit-um objects
	[ -f "$out/.config" ] || { echo "no KUnit build at $out: run 'make kunit' first"; return 1; }
	objects=$(touched_objects '^drivers/(dma-buf|gpu/drm/[^/]*\.c|gpu/drm/tests)')
	# shellcheck disable=SC2086
	sparse_run um "$out" $objects && no_messages "$logs/check-sparse-and-w-1--dma-buf-and-drm-core.log"
}

sparse_x86() {
	local out=$tree.x86 objects
	if [ ! -f "$out/.prepared" ]; then
		make -C "$tree" ARCH=x86_64 O="$out" allmodconfig
		# BTF and signing need tools that single objects do not.
		"$tree/scripts/config" --file "$out/.config" -d DEBUG_INFO_BTF -d MODULE_SIG -d GCC_PLUGINS -d WERROR -d RUST \
			-d DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT -e DEBUG_INFO_NONE
		make -C "$tree" ARCH=x86_64 O="$out" olddefconfig
		make -C "$tree" ARCH=x86_64 O="$out" -j"$jobs" prepare
		touch "$out/.prepared"
	fi
	objects=$(touched_objects '^drivers/gpu/drm/[^/]*/.*\.c' | grep -v '/tests/')
	# shellcheck disable=SC2086
	sparse_run x86_64 "$out" $objects && no_messages "$logs/check-sparse-and-w-1--drivers--x86-64-.log"
}

check "git am applies every patch" applies
check "every patch has a subset and no sign-off" labelled
if [ -z "$ksrc" ]; then
	check "in-tree files match the patches" "$top/scripts/export.sh" --check
fi
check "checkpatch --strict" checkpatch
check "litmus tests with herd7" "$top/scripts/litmus.sh"
"$top/scripts/debian.sh" tool sparse
check "sparse and W=1, dma-buf and DRM core" sparse_uml
if [ "$(uname -m)" = x86_64 ]; then
	check "sparse and W=1, drivers (x86-64)" sparse_x86
fi

echo "$passed $failed" >"$logs/check-series.result"
[ $failed -eq 0 ]
