#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# soak.sh: boot the series on arm64 (QEMU) and on UML side by side, ARCH= picks one,
# and run every selftest and every KUnit suite inside in a loop for MINUTES, each
# round with another seed (SEED= is the first). A line a minute says what has been
# done, and a table at the end. Fails on a failed test, on any splat, and if a guest
# does not report for 15 minutes. Not with kmemleak, which reports what KUnit keeps
# for debugfs: 'make boot' looks for leaks. KERNEL=NAME has configs/boot-NAME.config on top,
# on arm64 alone. UPDATE=1 puts what came of it into results/soak.md.
. "$(dirname "$0")/common.sh"

minutes=${MINUTES:-10}
seed=${SEED:-$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')}
kernel=${KERNEL:+-$KERNEL}
case ${ARCH:-}$kernel in
'') archs=(um arm64) ;;
um|arm64) archs=("$ARCH") ;;
arm64-*|-*) archs=(arm64) ;;
um-*) die "KERNEL=$KERNEL is for arm64" ;;
*) die "ARCH=$ARCH: use um or arm64, or neither for both" ;;
esac
[ "$series" = all ] || die "soak.sh runs the stack: without fixes it fails in the first minute," \
	"see 'make boot SERIES=none'"

# Without dma-buf-fence-chain: its test_wait_backward takes minutes under emulation, and
# fails if the machine is busy, with or without the series.
suites=dma-buf-fence-lifetime,dma-buf-fence-lockdep,dma-buf-fence-array,dma-buf-fence
suites+=,dma-buf-fence-unwrap,dma-buf-resv,drm_fence,drm_sched_lifetime_tests

# use ARCH: what guest.sh calls $out and so on is of that guest.
use() {
	guest_arch=$1 guest_suffix=$1$kernel
	guest_config=(boot.config arm64.config ${KERNEL:+"boot-$KERNEL.config"})
	# UML has no USB. What waits busily takes the CPUs from all others.
	local left_out=sync_test
	if [ "$1" = um ]; then
		guest_suffix=um-soak guest_config=(kunit-uml.config uml-soak.config)
		left_out+='|functionfs'
	fi
	. "$top/scripts/guest.sh"
	[ "$1" = arm64 ] || virtio_gpu=()
	mapfile -t programs < <(guest_programs | grep -vE "$left_out")
}

# Both are built before one boots: they begin together, and there is no guest to end in a build.
for arch in "${archs[@]}"; do
	use "$arch"
	guest_build
done
declare -A pid log state
end_jobs_first
for arch in "${archs[@]}"; do
	use "$arch"
	append="soak=$((minutes * 60)) soak_seed=$seed soak_suites=$suites"
	append+=" selftest=$(IFS=,; echo "${programs[*]}") selftest_timeout=900"
	append+=" WRITEBACK_FENCE_ROUNDS=20 kunit.enable=1 kunit.autorun=0"
	log[$arch]=$logs/soak-$arch$kernel${variant:+-$variant}.log
	: >"${log[$arch]}"
	# A round that has begun a test gets to the end of it. The checkout's lock is not for it.
	guest_boot "${log[$arch]}" $((minutes * 60 + 1200)) "$append" "${virtio_gpu[@]}" \
		>"${log[$arch]}.qemu" 2>&1 9>&- &
	pid[$arch]=$!
	state[$arch]=running
done

say "soaking for $minutes minutes, seed $seed; a round that has begun a test gets to its end"
start=$SECONDS
while :; do
	for _ in {1..60}; do
		alive=0
		for arch in "${archs[@]}"; do ! kill -0 "${pid[$arch]}" 2>/dev/null || alive=1; done
		[ "$alive" = 1 ] || break
		sleep 1
	done
	for arch in "${archs[@]}"; do
		[ "${state[$arch]}" = running ] || continue
		printf '%3d min %-6s %s\n' $(((SECONDS - start) / 60)) "$arch" \
			"$("$top/scripts/soak_report.py" "${log[$arch]}")"
		if ! kill -0 "${pid[$arch]}" 2>/dev/null; then
			state[$arch]=ended
		elif [ $(($(date +%s) - $(stat -c %Y "${log[$arch]}"))) -gt 900 ]; then
			kill "${pid[$arch]}" 2>/dev/null || true
			state[$arch]=silent
		fi
	done
	[ "$alive" = 1 ] || break
done

echo
echo "soak of $(base_name) with the series, $minutes minutes, seed $seed"
for arch in "${archs[@]}"; do
	said=${log[$arch]} rc=0
	wait "${pid[$arch]}" || rc=$?
	"$top/scripts/soak_report.py" "$said" "$arch$kernel" $rc "${state[$arch]}" "$minutes" \
		"$seed" && tally 0 || tally 1
	echo "    log: ${said#"$top"/}"
done
[ $failed -eq 0 ]
