#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# sparse.sh ARCH...: sparse and W=1 on every C file that the series touches and on
# every issuer of fences, before and after. The series may add no message, and has none
# about dma_fence. objects.py says which architecture has what.
. "$(dirname "$0")/common.sh"

[ $# -gt 0 ] || die "usage: sparse.sh um|x86_64|arm64..."
[ "$series" = all ] || die "sparse.sh compares the base with the series: not with SERIES=$series"
have_tree

objects() { "$top/scripts/objects.py" "$@"; }

sparse_messages() {	# ARCH SRC LOG: into LOG, without line numbers
	local arch=$1 src=$2 log=$3 out=$2.sparse-$1 raw=$3.raw list=() file
	[ -f "$out/.prepared" ] || objects prepare "$arch" "$src" "$out" >"$log.prepare" 2>&1 ||
		{ tail -n 20 "$log.prepare"; return 1; }
	for file in $(objects files "$arch" "$tree" "$base_ref"); do
		[ ! -f "$src/$file" ] || list+=("${file%.c}.o")
	done
	[ ${#list[@]} -gt 0 ] || { echo "nothing to check for $arch"; return 1; }
	(cd "$out" && rm -f "${list[@]}")
	make -k -C "$src" ARCH="$arch" O="$out" -j"$jobs" C=1 W=1 \
		CHECK="$build/tools/bin/sparse" "${list[@]}" >"$raw" 2>&1 ||
		{ grep -E 'error|\*\*\*' "$raw" | head -n 20; echo "see ${raw#"$top"/}"; return 1; }
	[ "$(grep -c '^  CHECK ' "$raw")" -ge ${#list[@]} ] ||
		{ echo "sparse did not run on every object, see ${raw#"$top"/}"; return 1; }
	objects join <"$raw" | sed -E "s|$src/||g; s|:[0-9]+:[0-9]+:|:|" >"$log"
	count=${#list[@]}
}

rc=0
for arch; do
	case $arch in
	um|x86_64|arm64) ;;
	*) die "sparse.sh: use um, x86_64 or arm64, not '$arch'" ;;
	esac
	CROSS_COMPILE=$(objects cross "$arch")
	export CROSS_COMPILE
	log=$logs/sparse-$arch
	sparse_messages "$arch" "$base_tree" "$log.base" &&
		sparse_messages "$arch" "$tree" "$log.series" || { rc=1; continue; }
	new=$(comm -13 <(sort -u "$log.base") <(sort -u "$log.series"))
	[ -z "$new" ] || { echo "new with the series:"; echo "$new"; rc=1; }
	! grep dma_fence "$log.series" || { echo "these are about dma_fence"; rc=1; }
	echo "$arch: $count objects, messages about dma_fence:" \
		"base $(grep -c dma_fence "$log.base"), series $(grep -c dma_fence "$log.series")"
done
exit $rc
