#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# topics-check.sh: each topic as it will be posted: on the base, after what it needs, without
# any other test. Fails if
#   - it does not apply there with git cherry-pick;
#   - get_maintainer.pl finds nobody or no list for a patch, or more than 25 addresses in all;
#   - the C files that it touches, and users of the headers that it touches, do not build for
#     UML, x86-64 or arm64, or give a message with W=1 and sparse that they did not give before;
#   - it touches what UML builds, and a KUnit suite that this tree has fails, or leaves a splat.
# TOPICS=a,b checks these. What was ok is in results/topics-check.md with a digest of what it
# depends on: the patches, the base, the compilers, this script. It is not checked again
# while that is the same, so that an interrupted run goes on. Ends with the table.
export SCOPE=select
. "$(dirname "$0")/common.sh"
. "$top/scripts/objects.sh"

most=25
work=$build/topics
results=$build/topics-results
config=$build/topics.config
uml='^drivers/(dma-buf|gpu/drm/[^/]*\.[ch]|gpu/drm/tests|gpu/drm/scheduler)|^include/(linux/dma-|drm/|trace/)'
[ "$series" = all ] || die "topics-check.sh works on the stack: not with SERIES=none"
have_tree
report=$top/results/topics-check.md
mkdir -p "$results" "$top/results"
same_objects
uml_config >"$config"
"$top/scripts/debian.sh" tool sparse
arches=(um x86_64 arm64)
[ "$(uname -m)" = x86_64 ] || arches=(um arm64)
how=$(how_built "$top/scripts/topics-check.sh")

problems=()
problem() {	# WHAT LINES
	problems+=("    $1" "$(head -n 8 <<<"$2" | sed "s|$work/||g; s|^|        |" | cut -c1-160)")
}

# What an object directory was configured for.
kconfig() { git -C "$work" ls-tree -r HEAD | grep -E 'Kconfig|/configs/' | git hash-object --stdin; }

recipients() {	# FIRST LAST: addresses, one a line
	local p dir=$results/mails
	rm -rf "$dir"
	git -C "$work" format-patch -q -o "$dir" "$1..$2"
	cd "$base_tree"
	for p in "$dir"/*.patch; do
		./scripts/get_maintainer.pl --no-git --no-git-fallback --no-fixes "$p" >"$p.to" || return 1
		grep -qE '\((maintainer|supporter|odd fixer)[:)]' "$p.to" || echo "no maintainer: $(basename "$p")" >&2
		grep -E ' \(.*list[:)]' "$p.to" | grep -qv '^linux-kernel@' || echo "no list: $(basename "$p")" >&2
	done
	cat "$dir"/*.to | cut -d'(' -f1 | sort -u
}

# The C files that the topic touches and that ARCH is to build, and some that use a header.
# Those of amd/display get their flags from another directory's Makefile. A selftest of i915
# is not compiled, but included.
objects() {	# ARCH TOUCHED
	local file header
	{
		for file in $(grep -E '^drivers/.*\.c$' <<<"$2" || true); do
			git -C "$work" grep -lF "#include \"selftests/$(basename "$file")\"" \
				-- "${file%/selftests/*}/*.c" 2>/dev/null || echo "$file"
		done
		for header in $(grep -E '\.h$' <<<"$2" || true); do
			git -C "$work" grep -lE "#include [<\"](.*/)?$(basename "$header")[>\"]" -- \
				drivers/dma-buf 'drivers/gpu/drm/*.c' ':!drivers/gpu/drm/amd/display' "$(dirname "$header")" |
				grep -E '^drivers/.*\.c$' | head -n 12 || true
		done
	} | sort -u | objects_of "$1"
}

build_objects() (	# ARCH FILE...
	arch=$1 out=$work.$1 list=()
	shift
	CROSS_COMPILE=$(cross_compile "$arch")
	export CROSS_COMPILE
	want=$(kconfig)
	if [ "$(cat "$out/.prepared" 2>/dev/null)" != "$want" ]; then
		object_prepare "$arch" "$work" "$out" || exit 1
		echo "$want" >"$out/.prepared"
	fi
	for file; do [ ! -f "$work/$file" ] || list+=("${file%.c}.o"); done
	[ ${#list[@]} -gt 0 ] || exit 0
	cd "$out" && rm -f "${list[@]}"
	make -k -C "$work" ARCH="$arch" O="$out" -j"$jobs" W=1 C=1 CHECK="$build/tools/bin/sparse" "${list[@]}"
)

# The objects that make says it could not make; or, if it says of none, that it failed.
broken() {	# LOG
	sed -nE 's/^make.*\*\*\* \[.*: (drivers\/.*\.o)\] Error.*/\1/p' "$1" | sort -u | grep . || echo "nothing, ${1##*.}"
}

# Some files want a configuration that the architecture does not have: what did not build
# before the topic need not after it, and is not counted, unless the topic touches it.
compare_objects() {	# TOPIC ARCH FILE...
	local topic=$1 arch=$2 log=$logs/topics-$1-$2 commit new
	shift 2
	printf ' %s' "$arch"
	for commit in before after; do
		checkout "${!commit}"
		: >"$log.$commit.broken"
		if ! with_dots "$log.$commit" build_objects "$arch" "$@"; then
			broken "$log.$commit" >"$log.$commit.broken"
		fi
		join_messages <"$log.$commit" | messages "$work" >"$log.$commit.messages"
	done
	files=$((files + $# - $(wc -l <"$log.before.broken")))
	new=$({
		comm -13 "$log.before.broken" "$log.after.broken"
		grep -xFf <(sed -n 's/\.c$/.o/p' <<<"$touched") "$log.after.broken" || true
	} | sort -u)
	[ -z "$new" ] || problem "does not build for $arch, log: ${log#"$top"/}.after" \
		"$new"$'\n'"$(grep -aE 'error: |\*\*\* ' "$log.after" || tail -n 5 "$log.after")"
	new=$(comm -13 "$log.before.messages" "$log.after.messages")
	[ -z "$new" ] || problem "new messages for $arch, log: ${log#"$top"/}.after" "$new"
}

checkout() {
	git -C "$work" update-index -q --refresh || true
	git -C "$work" checkout -q -f --detach "$1"
}

run_suites() {	# TOPIC
	local log=$logs/topics-$1-kunit kernel total=0 bad='' bad_log=''
	printf ' kunit'
	[ "$(cat "$work.kunit/.config-of" 2>/dev/null)" = "$(kconfig)" ] || rm -f "$work.kunit/.prepared"
	if ! with_dots "$log-build.log" uml_build "$work" "$work.kunit" "$config"; then
		problem "the KUnit kernel does not build, log: ${log#"$top"/}-build.log" "$(grep -aE 'error: ' "$log-build.log" || tail -n 5 "$log-build.log")"
		tests=failed
		return
	fi
	kconfig >"$work.kunit/.config-of"
	kernel=$results/kernel-$how-$(git hash-object "$work.kunit/linux")
	if [ -f "$kernel" ]; then
		tests=$(cat "$kernel")
	elif uml_test "$work" "$work.kunit" "$log"; then
		tests=$total
		echo "$tests" >"$kernel"
	else
		tests="failed"
		problem "KUnit fails, log: ${bad_log#"$top"/}" "$bad"
	fi
}

verdict() {	# TOPIC: into $row, $problems
	local topic=$1 touched patches to='' tests=- arch files=0 list ids before after
	if ! ids=$("$top/scripts/stack.py" alone "$topic" 2>"$results/error"); then
		problem "does not apply" "$(cat "$results/error")"
		row="| $topic | - | - | - | - |"
		return
	fi
	read -r before after <<<"$ids"
	own_tree "$work" "$after"
	touched=$(git -C "$work" diff --name-only "$before" "$after")
	patches=$(git -C "$work" rev-list --count "$before..$after")
	to=$(recipients "$before" "$after" 2>"$results/error") || true
	[ ! -s "$results/error" ] || problem "recipients" "$(cat "$results/error")"
	[ "$(wc -l <<<"$to")" -le $most ] || problem "$(wc -l <<<"$to") recipients, more than $most" "$to"
	for arch in "${arches[@]}"; do
		mapfile -t list < <(objects "$arch" "$touched")
		[ ${#list[@]} -eq 0 ] || compare_objects "$topic" "$arch" "${list[@]}"
	done
	checkout "$after"
	if grep -qE "$uml" <<<"$touched"; then run_suites "$topic"; fi
	row="| $topic | $patches | $(wc -l <<<"$to") | $files | $tests |"
}

head="| topic | patches | recipients | objects | KUnit tests | | digest |
|---|---:|---:|---:|---:|---|---|"

# The row of a topic takes the place of the one it had; the order is that of the series.
write_report() {
	local t row
	{
		echo "# Each topic on its own"
		echo
		echo "Made by \`make check CHECKS=topics\`, last on $(date -u +%F), on $(base_name). Each topic on the base and"
		echo "what it needs, without any other test; objects are built with W=1 and sparse for ${arches[*]}."
		echo "The digest is of the patches, of those that the topic needs, of the base, the compilers and the check."
		echo
		echo "$head"
		for t in $post; do
			row=${fresh[$t]:-$(grep -s "^| $t | .* ${digest[$t]} |\$" "$report")} ||
				row="| $t | - | - | - | - | not checked in this form | - |"
			echo "$row"
		done
	} >"$report.new"
	mv "$report.new" "$report"
}

declare -A fresh=() digest=() patches_of=()
post=$("$top/scripts/stack.py" list | awk -F '\t' '$3 == "post" { print $1 }')
for topic in $("$top/scripts/stack.py" list | cut -f1); do
	patches_of[$topic]=$(git -C "$tree" log -p -U0 "$("$top/scripts/stack.py" commits "$topic")" |
		git patch-id --stable | cut -d' ' -f1)
done
for topic in $post; do
	digest[$topic]=$({
		echo "$how"
		git -C "$tree" rev-parse "$base_ref"
		for t in $("$top/scripts/stack.py" needs "$topic") "$topic"; do echo "${patches_of[$t]}"; done
	} | git hash-object --stdin | cut -c1-12)
done
rows=() failed=() n=0
for topic in ${selected:-$topics}; do
	grep -qxF "$topic" <<<"$post" || continue
	n=$((n + 1))
	printf '%-24s' "$topic"
	key=${digest[$topic]}
	if row=$(grep -s "^| $topic | .* ok | $key |\$" "$report"); then
		echo ' ok before'
		rows+=("$row")
		continue
	fi
	problems=()
	verdict "$topic"
	if [ ${#problems[@]} -eq 0 ]; then
		echo ' ok'
		row="$row ok | $key |"
	else
		echo ' FAILED'
		printf '%s\n' "${problems[@]}"
		row="$row **$(sed -n '1s/^ *//; 1s/, log: .*//p' <<<"${problems[0]}")** | $key |"
		failed+=("$topic")
	fi
	rows+=("$row")
	fresh[$topic]=$row
	write_report
done
echo
echo "$head"
printf '%s\n' "${rows[@]}"
echo "$((n - ${#failed[@]})) of $n topics ok${failed:+; not ok: ${failed[*]}}"
[ ${#failed[@]} -eq 0 ]
