#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# check-series.sh: what can be said about the series without a long build. Prints
# one line a check, and counts.
. "$(dirname "$0")/common.sh"

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

# sparse and W=1, on every C file that the series touches, before and after: the
# series may add no message, and there is none at all about the fence core and the ops tests of i915 and xe.
core='drivers/gpu/drm/(i915/i915_request\.h|xe/xe_hw_fence\.c|xe/xe_preempt_fence\.c)|drivers/dma-buf/dma-fence\.c|include/linux/dma-fence\.h|include/trace/events/dma_fence\.h|st-dma-fence-lifetime|drm_fence_test'

objects() {	# SRC PATTERN: what the series touches and SRC has
	local file
	git -C "$tree" diff --name-only base HEAD -- '*.c' | grep -E "$2" | grep -v '^tools/' | while read -r file; do
		[ ! -f "$1/$file" ] || echo "${file%.c}.o"
	done
}

messages() {	# ARCH SRC PATTERN: into $check_log.SRC, without line numbers
	local arch=$1 src=$2 pattern=$3 out=$2.sparse-$1 raw list
	raw=$check_log.$(basename "$src").raw
	if [ ! -f "$out/.prepared" ]; then
		mkdir -p "$out"
		case $arch in
		um)
			make -C "$src" ARCH=um O="$out" KCONFIG_ALLCONFIG="$top/configs/kunit-uml.config" alldefconfig
			;;
		x86_64)
			make -C "$src" ARCH=x86_64 O="$out" allmodconfig
			# What needs tools that single objects do not.
			"$src/scripts/config" --file "$out/.config" -d WERROR -d MODULE_SIG -d RUST -d GCC_PLUGINS \
				-d DEBUG_INFO_BTF -d DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT -e DEBUG_INFO_NONE
			make -C "$src" ARCH=x86_64 O="$out" olddefconfig
			;;
		esac
		make -C "$src" ARCH="$arch" O="$out" -j"$jobs" prepare
		touch "$out/.prepared"
	fi
	list=$(objects "$src" "$pattern")
	[ -n "$list" ] || { echo "nothing to check for $arch"; return 1; }
	# shellcheck disable=SC2086
	(cd "$out" && rm -f $list)
	# shellcheck disable=SC2086
	make -C "$src" ARCH="$arch" O="$out" -j"$jobs" C=1 W=1 CHECK="$build/tools/bin/sparse" $list >"$raw" 2>&1 ||
		{ tail -n 20 "$raw"; return 1; }
	[ "$(grep -c '^  CHECK ' "$raw")" -ge "$(wc -w <<<"$list")" ] || { echo "sparse did not run on every object, see $raw"; return 1; }
	grep -aE '(warning|error): ' "$raw" | sed -E "s|$src/||; s|:[0-9]+:[0-9]+:|:|" | sort -u >"$check_log.$(basename "$src")" || true
}

sparse() {	# ARCH PATTERN
	local new rc=0
	messages "$1" "$base_tree" "$2" && messages "$1" "$tree" "$2" || return 1
	new=$(comm -13 "$check_log.$(basename "$base_tree")" "$check_log.$(basename "$tree")")
	[ -z "$new" ] || { echo "new with the series:"; echo "$new"; rc=1; }
	! grep -E "^($core)" "$check_log.$(basename "$tree")" || { echo "messages about the fence core"; rc=1; }
	echo "messages about fence->ops or names, base: $(grep -cE 'dma_fence|address spaces|noderef' "$check_log.$(basename "$base_tree")"), series: $(grep -cE 'dma_fence|address spaces|noderef' "$check_log.$(basename "$tree")")"
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
check "checkpatch --strict" checkpatch
check "litmus tests with herd7" "$top/scripts/litmus.sh"
"$top/scripts/debian.sh" tool sparse
check "sparse and W=1, dma-buf and DRM core" sparse um '^drivers/(dma-buf|gpu/drm/[^/]*\.c|gpu/drm/tests|gpu/drm/scheduler)'
if [ "$(uname -m)" = x86_64 ]; then
	check "sparse and W=1, drivers for x86-64" sparse x86_64 '^drivers/gpu/drm/(i915|xe|nouveau|amd|radeon|vmwgfx)/'
fi

echo "$passed $failed" >"$logs/check-series.result"
[ $failed -eq 0 ]
