#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# bisect.sh [--list]: whether `git bisect` can stop at any patch of the series. Fails if
#   - a patch does not build: the KUnit kernel for UML, the objects of objects.sh for
#     x86-64 and arm64, the selftests if it touches them;
#   - one of these gives a message with W=1 that the commit before it did not give;
#   - a KUnit suite that is there at that patch fails on UML, or leaves a splat.
# PATCHES=12-20,31 checks these, counted as the commits of the work tree on its base,
# which are the numbers in patches/ unless KSRC has some already. A result is kept by
# content of the commit, of its parent, and of what decides how they are built, so that
# an interrupted run goes on, and a second one only says 'ok before'.
# --list prints the numbers, to check PATCHES=.
. "$(dirname "$0")/common.sh"
. "$top/scripts/objects.sh"

work=$build/bisect
results=$build/bisect-results
kunit=./tools/testing/kunit/kunit.py

[ "$series" = all ] || die "bisect.sh works on the series: not with SERIES=$series"
have_tree

mapfile -t commits < <(git -C "$tree" rev-list --reverse base..HEAD)
n=${#commits[@]}
commits=("$(git -C "$tree" rev-parse base)" "${commits[@]}")	# patch i is commits[i]
wrong="PATCHES=${PATCHES:-}: give numbers from 1 to $n and ranges of them, such as 12-20,31"
chosen=()
PATCHES=${PATCHES:-1-$n}
for part in ${PATCHES//,/ }; do
	[[ $part =~ ^([0-9]{1,4})(-([0-9]{1,4}))?$ ]] || die "$wrong"
	from=$((10#${BASH_REMATCH[1]}))
	to=$((10#${BASH_REMATCH[3]:-$from}))
	[ $from -ge 1 ] && [ $from -le $to ] && [ $to -le "$n" ] || die "$wrong"
	for ((i = from; i <= to; i++)); do chosen[i]=1; done
done
[ ${#chosen[@]} -gt 0 ] || die "$wrong"
if [ "${1:-}" = --list ]; then echo "${!chosen[@]}"; exit; fi

# Objects of the same source have to be the same, so that a kernel that has passed
# its tests is known again.
export LOCALVERSION='' KBUILD_BUILD_VERSION=1 KBUILD_BUILD_USER=series KBUILD_BUILD_HOST=localhost
export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 2026'
arches=(um x86_64 arm64)
[ "$(uname -m)" = x86_64 ] || arches=(um arm64)
mkdir -p "$results"
config=$build/bisect.config
{ cat "$top/configs/kunit-uml.config"; echo '# CONFIG_LOCALVERSION_AUTO is not set'; } >"$config"
for arch in "${arches[@]}"; do object_files "$arch" >"$results/objects-$arch"; done

# What a result depends on besides the commits.
how=$({
	cat "$config" "$results"/objects-* "$top/scripts/bisect.sh" "$top/scripts/objects.sh"
	gcc --version
	aarch64-linux-gnu-gcc --version 2>&1
} | git hash-object --stdin)
key() { git -C "$tree" rev-parse "${commits[$1 - 1]}^{tree}" "${commits[$1]}^{tree}" | cat - <(echo "$how") | git hash-object --stdin; }

changed() { git -C "$tree" diff --name-only "${commits[$1 - 1]}" "${commits[$1]}" -- "${@:2}"; }

# A C file that is on the list of one architecture is of no concern to the others.
concerns() {	# NUMBER ARCH
	local arch others=()
	for arch in "${arches[@]}"; do [ "$arch" = "$2" ] || others+=(-f "$results/objects-$arch"); done
	changed "$1" . ':!Documentation' ':!tools' ':!scripts/coccinelle' ':!MAINTAINERS' | grep -qvxF "${others[@]}"
}

build_kernel() (
	cd "$work"
	# W=1 makes the test of an option fail while a directory for generated headers is
	# missing, and then KASAN is left out without a word: make those without it.
	if [ ! -f "$work.um/.prepared" ]; then
		$kunit config --build_dir="$work.um" --kunitconfig="$config" &&
		make ARCH=um O="$work.um" -j"$jobs" prepare && touch "$work.um/.prepared" || exit 1
	fi
	$kunit build --build_dir="$work.um" --kunitconfig="$config" --jobs="$jobs" --make_options W=1 || exit 1
	grep -q -e -fsanitize=kernel-address "$work.um/init/.main.o.cmd" || { echo "error: this kernel has no KASAN"; exit 1; }
)
build_objects() (	# ARCH
	list=()
	CROSS_COMPILE=$(cross_compile "$1")
	export CROSS_COMPILE
	[ -f "$work.$1/.prepared" ] || object_prepare "$1" "$work" "$work.$1" || return 1
	while read -r file; do
		[ ! -f "$work/$file" ] || list+=("${file%.c}.o")
	done <"$results/objects-$1"
	make -k -C "$work" ARCH="$1" O="$work.$1" -j"$jobs" W=1 "${list[@]}"
)
build_selftests() {
	make -C "$work" ARCH=x86 O="$work.headers" -j"$jobs" headers &&
	make -C "$work/tools/testing/selftests/drivers/dma-buf" OUTPUT="$work.headers" -j"$jobs" \
		KHDR_INCLUDES="-isystem $work.headers/usr/include"
}

# What is wrong with a patch, why and where to look.
problem() {	# WHAT LOG FIRST-LINES
	problems+=("     $1, log: ${2#"$top"/}" "$(head -n 5 <<<"$3" | sed "s|$work/||g; s|^|         |" | cut -c1-180)")
}

# Build what is checked out. Messages that are not known yet are a problem.
compile() {	# NUMBER ARCH
	local log=$logs/bisect-$1-$2.log start=$SECONDS rc=0 new
	printf ' %s ' "$2"
	case $2 in
	um)	with_dots "$log" build_kernel || rc=$? ;;
	selftests) with_dots "$log" build_selftests || rc=$? ;;
	*)	with_dots "$log" build_objects "$2" || rc=$? ;;
	esac
	messages "$work" <"$log" >"$results/messages"
	new=$(comm -13 "$results/known-$2" "$results/messages")
	sort -u -o "$results/known-$2" "$results/known-$2" "$results/messages"
	printf '%s s,' $((SECONDS - start))
	if [ $rc -ne 0 ]; then
		problem "does not build for $2" "$log" "$(grep -aE 'error: |undefined reference' "$log" || grep -aF '*** ' "$log" || tail -n 5 "$log")"
	elif [ -n "$new" ]; then
		problem "new messages for $2" "$log" "$new"
	fi
	return $rc
}

# The suites that this kernel has, each glob in a boot of its own, as kunit.sh does.
kunit_exec() { (cd "$work" && $kunit exec --build_dir="$work.um" --kernel_args seccomp=on --kernel_args ncpus=2 --kernel_args kasan_multi_shot "$@" </dev/null 2>&1); }
test_kernel() {	# NUMBER
	local log=$logs/bisect-$1-kunit.log start=$SECONDS passed total=0 glob rc ran bad
	passed=$results/kernel-$how-$(git hash-object "$work.um/linux")
	if [ -f "$passed" ]; then printf ' same kernel,'; return; fi
	kunit_exec --list_tests >"$results/suites" || true
	: >"$log"
	for glob in "${kunit_suites[@]}"; do
		grep -qE "^${glob/\*/.*}\." "$results/suites" || continue
		rc=0
		kunit_exec --timeout 600 "$glob" >"$log.one" || rc=$?
		cat "$log.one" "$work.um/test.log" >>"$log"
		ran=$(sed -n 's/.*Ran \([0-9]*\) tests.*/\1/p' "$log.one" | tail -n 1)
		total=$((total + ${ran:-0}))
		bad=$(grep -E '\[(FAILED|ERROR|CRASHED|TIMED_OUT)\]' "$log.one"; "$top/scripts/splats.sh" "$work.um/test.log") || true
		if [ $rc -ne 0 ] || [ -n "$bad" ] || [ "${ran:-0}" -eq 0 ]; then
			problem "KUnit $glob fails" "$log" "$bad"
			passed=/dev/null
		fi
	done
	rm -f "$log.one"
	printf ' %s tests %s s,' $total $((SECONDS - start))
	if [ $total -eq 0 ]; then problem "no KUnit suite ran" "$results/suites" "$(tail -n 5 "$results/suites")"; else touch "$passed"; fi
}

checkout() {	# NUMBER
	# Without the refresh it writes files anew that were only touched.
	git -C "$work" update-index -q --refresh || true
	git -C "$work" checkout -q -f --detach "${commits[$1]}"
	# A symbol may come or go with the patch, or with a jump to another one.
	if [ $((at + 1)) -eq "$1" ] && [ -z "$(changed "$1" '*Kconfig*')" ]; then at=$1; return; fi
	at=$1
	rm -f "$work".*/.prepared
}

# The commit before the first of several patches: what these may touch is compiled anew,
# as only what is compiled gives messages.
start_at() {	# NUMBER
	local i arch
	checkout $(($1 - 1))
	git -C "$tree" diff --name-only base HEAD | (cd "$work" && xargs -d '\n' touch -c)
	printf '%3d  %-62s' $(($1 - 1)) "(where this starts)"
	for arch in "${arches[@]}"; do
		: >"$results/known-$arch"
		for ((i = $1; i <= n; i++)); do
			[ -n "${todo[i]:-}" ] || break
			concerns "$i" "$arch" || continue
			compile "before-$1" "$arch" || printf ' which does not build, see build/logs/bisect-before-%s-%s.log,' "$1" "$arch"
			break
		done
	done
	echo ' done'
}

verify() {	# NUMBER
	local arch
	checkout "$1"
	for arch in "${arches[@]}"; do
		concerns "$1" "$arch" || continue
		if compile "$1" "$arch" && [ "$arch" = um ]; then test_kernel "$1"; fi
	done
	if [ -n "$(changed "$1" tools/testing/selftests)" ]; then
		: >"$results/known-selftests"
		compile "$1" selftests || true
	fi
}

todo=()
for i in "${!chosen[@]}"; do [ -f "$results/$(key "$i")" ] || todo[i]=1; done
if [ ${#todo[@]} -gt 0 ] && [ "$(realpath -q "$(git -C "$work" rev-parse --git-common-dir 2>/dev/null)")" != "$(realpath "$base_tree/.git")" ]; then
	need_space 4000 "a work tree and its objects"
	rm -rf "$work"
	git -C "$base_tree" worktree prune
	quietly "$logs/worktree.log" "checking out the base" git -C "$base_tree" worktree add -q --detach "$work" base
fi

at=-1 before=0 failed=()
for i in "${!chosen[@]}"; do
	subject=$(git -C "$tree" log -1 --format=%s "${commits[i]}")
	if [ -z "${todo[i]:-}" ]; then
		printf '%3d  %-62.62s ok before\n' "$i" "$subject"
		before=$((before + 1))
		continue
	fi
	[ $((at + 1)) -eq "$i" ] || start_at "$i"
	printf '%3d  %-62.62s' "$i" "$subject"
	problems=()
	verify "$i"
	if [ ${#problems[@]} -eq 0 ]; then
		echo ' ok'
		touch "$results/$(key "$i")"
	else
		echo ' FAILED'
		printf '%s\n' "${problems[@]}"
		failed+=("$i")
	fi
done
echo "$((${#chosen[@]} - ${#failed[@]})) of ${#chosen[@]} patches ok, $before of them before${failed:+; not ok: ${failed[*]}}"
[ ${#failed[@]} -eq 0 ]
