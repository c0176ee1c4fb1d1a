#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# boot.sh: cross-build the tree for arm64, boot it in QEMU with 2 CPUs and run the
# selftests and the KUnit suites inside, each in a boot of its own. Ends with a
# table; fails if anything failed, on any splat, and on a guest that never reports.
# TESTS= picks some, by the names of selftests and KUnit suites; NAME.CASE
# or NAME.FIXTURE.VARIANT.CASE is one case of a selftest.
# With KCSAN=1 the kernel has KCSAN in place of KASAN, and fails on the data races
# that KCSAN reports in code that this series touches.
. "$(dirname "$0")/common.sh"

# The default of writeback_fence_lifetime, 1000, is for machines that are not emulated.
rounds=${WRITEBACK_FENCE_ROUNDS:-100}
kcsan=${KCSAN:-0}

guest_config=(arm64-boot.config)
if [ "$kcsan" = 1 ]; then
	guest_config+=(arm64-kcsan.config)
	guest_suffix=arm64-kcsan
fi
. "$top/scripts/guest.sh"
have_tree
suites=('dma-buf*' drm_fence 'drm_sched_lifetime*')
mapfile -t programs < <(guest_programs)
tests=("${programs[@]}")
if [ -n "${TESTS:-}" ]; then
	read -ra wanted <<<"${TESTS//,/ }"
	all=" ${programs[*]} "
	tests=() suites=()
	for name in "${wanted[@]}"; do
		if [[ $all == *" ${name%%.*} "* ]]; then
			[[ $name != *.* ]] || grep -qE "^TEST.*\b${name##*.}\b" "$tree/$selftest/${name%%.*}.c" ||
				die "there is no case '${name#*.}' in ${name%%.*}.c"
			tests+=("$name")
		elif kunit_known "$tree" "$name"; then
			suites+=("$name")
		else
			die "there is no selftest or suite '$name' in ${tree#"$top"/}; it has:$all$(kunit_names "$tree" | paste -sd' ')"
		fi
	done
	mapfile -t programs < <(printf '%s\n' "${tests[@]%%.*}" | sort -u | grep .)
fi
guest_build

# guest NAME SECONDS APPEND [QEMU-OPTION...]: boot, with the console in a log.
guest() {
	local name=$1
	guest_log=$logs/boot-$name
	[ "$kcsan" = 0 ] || guest_log=$guest_log-kcsan
	guest_log=$guest_log${variant:+-$variant}.log
	guest_rc=0
	guest_start=$SECONDS
	shift
	: >"$guest_log"
	quietly "$guest_log.qemu" "booting for $name (limit $1 s)" guest_boot "$guest_log" "$@" || guest_rc=$?
}

results=()
failed=0
total=0
result() {	# NAME OK? DETAIL
	local word=passed
	total=$((total + 1))
	if [ "$2" != 0 ]; then word=FAILED; failed=$((failed + 1)); fi
	results+=("$(printf '%-7s %-24s %s' "$word" "$1" "$3")")
}

# What a splat or a silent guest makes of a result that looked good.
judge() {	# NAME OK? DETAIL
	local splats detail=$3 ok=$2 time=$((SECONDS - guest_start))
	if [ "$kcsan" = 1 ]; then
		"$top/scripts/races.sh" "$guest_log" "$out/vmlinux" >"$guest_log.races" || ok=1
		detail="$detail; KCSAN: $(tail -n 1 "$guest_log.races")"
		grep -v 'BUG: KCSAN' "$guest_log" >"$guest_log.rest" || true
		splats=$("$top/scripts/splats.sh" "$guest_log.rest") || true
	else
		splats=$("$top/scripts/splats.sh" "$guest_log") || true
	fi
	if [ -n "$splats" ]; then
		ok=1
		detail="$detail; $(wc -l <<<"$splats") splats: $(head -n 1 <<<"$splats" | cut -d: -f2- | cut -c1-90)"
	fi
	result "$1" "$ok" "$detail (${time} s)"
	[ "$ok" = 0 ] || results+=("        log: ${guest_log#"$top"/}")
}

# A selftest in userspace, on vkms. Without KUnit, which lets kmemleak report what
# its suites keep for debugfs.
run_selftest() {	# PROGRAM[.CASE] SECONDS APPEND [QEMU-OPTION...]
	local name=$1 limit=$2 append=$3 code pass fail skip unexpected ok=0
	shift 3
	[[ $name != *.* ]] || append+=" selftest_only=${name#*.}"
	guest "$name" $((limit + 100)) "kunit.enable=0 selftest=${name%%.*} selftest_timeout=$limit $append" "$@"
	code=$(tr -d '\r' <"$guest_log" | sed -n 's/.*boot-init: selftest exit=\([0-9]*\).*/\1/p' | tail -n 1)
	if [ -z "$code" ]; then
		judge "$name" 1 "the guest never reported; last line: $(tr -d '\r' <"$guest_log" | grep . | tail -n 1 | cut -c1-80)"
	else
		pass=$(tr -d '\r' <"$guest_log" | grep -cE '^ok [0-9]' || true)
		fail=$(tr -d '\r' <"$guest_log" | grep -cE '^not ok [0-9]' || true)
		skip=$(tr -d '\r' <"$guest_log" | grep -cE '^ok [0-9].*# SKIP' || true)
		unexpected=$(tr -d '\r' <"$guest_log" | grep -E '^ok [0-9].*# SKIP' | grep -cvE "$may_skip" || true)
		# a guest that does not power off has hung in the end
		[ "$guest_rc" = 0 ] && [ "$code" = 0 ] && [ "$fail" = 0 ] && [ "$pass" -gt "$skip" ] && [ "$unexpected" = 0 ] || ok=1
		judge "$name" $ok "$((pass - skip)) passed, $fail failed, $skip skipped, exit $code$([ "$guest_rc" = 0 ] || echo ", no power off")"
	fi
	tr -d '\r' <"$guest_log" | grep -E '^not ok|# SKIP|power:' | cut -c1-150 | sed 's/^/    /' || true
}
# What may be skipped: faults while a device comes and goes, since DRM core, vkms and
# configfs do not survive them. KCSAN's kernel has no KASAN, which one case of each
# program asks for, nor modules.
may_skip='no_memory_for_device|no_memory_for_configfs'
if [ "$kcsan" = 1 ]; then
	may_skip="$may_skip|kernel_reports_use_after_free"
	tests=("${tests[@]/fence_module_unload*/}")
	tests=("${tests[@]/functionfs_fence_lifetime*/}")
fi
# shellcheck disable=SC2068
for name in ${tests[@]}; do
	case ${name%%.*} in
	writeback_fence_lifetime) run_selftest "$name" $((300 + rounds)) "kmemleak=on WRITEBACK_FENCE_ROUNDS=$rounds" ;;
	fence_uapi) run_selftest "$name" 600 "" -global virtio-mmio.force-legacy=false -device virtio-gpu-device ;;
	functionfs_fence_lifetime) run_selftest "$name" 400 "" ;;
	fence_faults) run_selftest "$name" 900 "kmemleak=on" ;;
	*) run_selftest "$name" 300 "" ;;
	esac
done

# The KUnit suites, at boot.
for suite in "${suites[@]}"; do
	name=kunit-$(tr -dc 'a-z0-9_-' <<<"$suite")
	guest "$name" $((kcsan ? 2400 : 600)) "oops=panic kunit.enable=1 kunit.autorun=1 kunit.filter_glob=$suite kunit_shutdown=poweroff"
	summary=$(cd "$tree" && tr -d '\r' <"$guest_log" | ./tools/testing/kunit/kunit.py parse 2>&1 | tee "$guest_log.parsed" | sed -n 's/.*Testing complete\. //p' | tail -n 1) || true
	ran=$(sed -n 's/.*Ran \([0-9]*\) tests.*/\1/p' <<<"$summary")
	ok=0
	[ "$guest_rc" = 0 ] && [ "${ran:-0}" -gt 0 ] && ! grep -qE 'failed:|crashed:|errors:' <<<"$summary" || ok=1
	judge "$name" $ok "${summary:-no result; last line: $(tr -d '\r' <"$guest_log" | grep . | tail -n 1 | cut -c1-80)}"
	grep -hE '\[(FAILED|CRASHED|SKIPPED)\]' "$guest_log.parsed" | grep -vE 'provoke|fence-violations' | sed 's/^\[[0-9:]*\] */    /' | head -n 20 || true
done

echo
case $series in
all) with="with the stack" ;;
none) with="without fixes, tests only" ;;
topics) with="with the topics $topics" ;;
esac
echo "arm64, $(base_name), $with"
printf '%s\n' "${results[@]}"
echo "$((total - failed)) passed, $failed failed"
[ $failed -eq 0 ]
