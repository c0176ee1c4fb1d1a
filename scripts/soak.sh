#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# soak.sh: boot the series on arm64 (QEMU) and on UML side by side, ARCH= picks one,
# and run every selftest and every KUnit suite inside in a loop for MINUTES, each
# round with another seed (SEED= is the first). A line a minute says what has been
# done, and a table at the end. Fails on a failed test, on any splat, and if a guest
# does not report for 15 minutes. Not with kmemleak, which reports what KUnit keeps
# for debugfs: 'make boot' looks for leaks.
. "$(dirname "$0")/common.sh"

minutes=${MINUTES:-10}
seed=${SEED:-$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')}
case ${ARCH:-} in
'') archs=(um arm64) ;;
um|arm64) archs=("$ARCH") ;;
*) die "ARCH=$ARCH: use um or arm64, or neither for both" ;;
esac
[ "$series" = all ] || die "soak.sh runs the stack: without fixes it fails in the first minute," \
	"see 'make boot SERIES=none'"

# Without dma-buf-fence-chain: its test_wait_backward takes minutes under emulation, and
# fails if the machine is busy, with or without the series.
suites=dma-buf-fence-lifetime,dma-buf-fence-lockdep,dma-buf-fence-array,dma-buf-fence
suites+=,dma-buf-fence-unwrap,dma-buf-resv,drm_fence,drm_sched_lifetime_tests

# Sums "figures: a=1 b=2" of all tests, and the splats and failures so far.
figures() {	# LOG
	console "$1" | awk '
		/figures: / {
			sub(/.*figures: /, "")
			for (i = 1; i <= split($0, pair, " "); i++) {
				split(pair[i], kv, "=")
				if (kv[2] ~ /^[0-9]+$/) sum[kv[1]] += kv[2]
			}
		}
		/boot-init: soak .* round=/ { runs++; split($0, r, "round="); round = r[2] + 0 }
		/boot-init: soak .*failed=1/ { failed++ }
		END {
			printf "round %d, %d runs:", round, runs
			n = split("signals names races unbinds unloads ioctls faults", order, " ")
			for (i = 1; i <= n; i++) printf " %s %d,", order[i], sum[order[i]]
			printf " failed %d,", failed
		}'
	echo " splats $("$top/scripts/splats.sh" "$1" 2>/dev/null | wc -l)"
}

# use ARCH: what guest.sh calls $out and so on is of that guest.
use() {
	guest_arch=$1 guest_suffix=$1 guest_config=(boot.config arm64.config)
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
	log[$arch]=$logs/soak-$arch.log
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
			"$(figures "${log[$arch]}")"
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
	said=${log[$arch]} rc=0 verdict=passed
	end=$(console "$said" |
		sed -n 's/.*boot-init: soak \(rounds=[0-9]* failed=[0-9]*\).*/\1/p' | tail -n 1)
	splats=$("$top/scripts/splats.sh" "$said") || true
	wait "${pid[$arch]}" || rc=$?
	[ $rc = 0 ] || [ -z "$end" ] || state[$arch]="no power off, exit $rc"
	if [ -z "$end" ] || [ "${end##*=}" != 0 ] || [ -n "$splats" ] || [ $rc != 0 ] ||
		! figures "$said" | grep -q 'signals [1-9].* unbinds [1-9]'; then
		tally 1
		verdict=FAILED
	fi
	echo "$verdict $arch: $(figures "$said")"
	[ $rc = 0 ] && [ -n "$end" ] ||
		echo "    the guest did not get to its end (${state[$arch]});" \
			"last line: $(last_line "$said" 90)"
	wrong='^(\[[ 0-9.]*\] )?(test: )?not ok [0-9]|boot-init: soak .*failed=1'
	console "$said" | grep -aE "$wrong" | head -n 10 | sed 's/^/    /' || true
	[ -z "$splats" ] || head -n 3 <<<"$splats" | sed 's/^/    /'
	console "$said" | grep -aoE 'ok [0-9]+ .* # SKIP.*' |
		sed 's/^ok [0-9]* /    not run here: /' | sort -u | head -n 20 || true
	echo "    log: ${said#"$top"/}"
done
[ $failed -eq 0 ]
