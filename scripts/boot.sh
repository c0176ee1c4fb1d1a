#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# boot.sh: cross-build the tree for arm64, boot it in QEMU with 2 CPUs and run the
# selftests and the KUnit suites inside, each in a boot of its own. Ends with a
# table; fails if anything failed, on any splat, and on a guest that never reports.
. "$(dirname "$0")/common.sh"

# The default of writeback_fence_lifetime, 1000, is for machines that are not emulated.
rounds=${WRITEBACK_FENCE_ROUNDS:-100}
[[ $rounds =~ ^[1-9][0-9]*$ ]] || die "WRITEBACK_FENCE_ROUNDS=$rounds: give a number of rounds"

qemu=qemu-system-aarch64
cross=aarch64-linux-gnu-
out=$tree.arm64
kmake() { make -C "$tree" ARCH=arm64 CROSS_COMPILE=$cross O="$out" -j"$jobs" "$@"; }
[ "$(uname -m)" != aarch64 ] || cross=

command -v $qemu >/dev/null || die "$qemu is missing: apt-get install qemu-system-arm"
command -v ${cross}gcc >/dev/null || die "${cross}gcc is missing: apt-get install gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
[ -d "$tree" ] || die "there is no work tree yet: run 'make tree' first"
need_space 4000 "the arm64 kernel"
mkdir -p "$out"

configure() {
	cp "$top/configs/arm64-boot.config" "$out/fragment.config"
	if ! cmp -s "$out/fragment.config" "$out/fragment.used"; then
		kmake KCONFIG_ALLCONFIG="$out/fragment.config" allnoconfig
		cp "$out/fragment.config" "$out/fragment.used"
	fi
}
quietly "$logs/boot-config.log" "configuring arm64" configure
# An option that Kconfig dropped without a word would make a check disappear.
while read -r want; do
	grep -qxF "$want" "$out/.config" || die "configs/arm64-boot.config: '$want' did not make it into the configuration of this tree"
done < <(grep -E '^CONFIG_[A-Z0-9_]+=' "$out/fragment.config")
quietly "$logs/boot-build.log" "building the arm64 kernel (6 minutes from cold on 2 cores)" kmake Image modules

root=$out/initramfs
selftest=tools/testing/selftests/drivers/dma-buf
# Those that this tree has: an older series may have only the first.
programs=()
for name in out_fence_lifetime writeback_fence_lifetime fence_module_unload fence_uapi fence_faults; do
	[ ! -f "$tree/$selftest/$name.c" ] || programs+=("$name")
done
userspace() {
	rm -rf "$root"
	mkdir -p "$root/dev"
	${cross}gcc -static -O2 -Wall -Wextra -Werror -o "$root/init" "$top/scripts/boot-init.c"
	kmake headers
	# The selftests exactly as kselftest builds them, but static.
	make -C "$tree/$selftest" ARCH=arm64 CROSS_COMPILE=$cross OUTPUT="$out" \
		KHDR_INCLUDES="-isystem $out/usr/include" LDFLAGS=-static \
		"${programs[@]/#/$out/}"
	cp "${programs[@]/#/$out/}" "$root/"
	modules=$root/lib/modules/$(cat "$out/include/config/kernel.release")
	mkdir -p "$modules"
	cp "$out"/drivers/gpu/drm/{vgem/vgem,vkms/vkms}.ko "$modules/"
	(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$out/initramfs.cpio"
}
quietly "$logs/boot-userspace.log" "building the userspace checks" userspace

# guest NAME SECONDS APPEND: boot, with the console in a log.
guest() {
	local log=$logs/boot-$1.log
	[ "$series" = all ] || log=$logs/boot-$1-unpatched.log
	guest_log=$log
	guest_rc=0
	guest_start=$SECONDS
	# A guest that is stopped at its limit has already failed to report.
	quietly "$log.qemu" "booting for $1 (limit $2 s)" timeout -k 5 "$2" $qemu -machine virt -cpu max -smp 2 -m 2G \
		-accel tcg,thread=multi -display none -monitor none -nic none -serial "file:$log" -no-reboot \
		-kernel "$out/arch/arm64/boot/Image" -initrd "$out/initramfs.cpio" \
		-append "console=ttyAMA0 panic=-1 kasan_multi_shot $3" || guest_rc=$?
}

results=()
failed=0
result() {	# NAME OK? DETAIL
	local word=passed
	if [ "$2" != 0 ]; then word=FAILED; failed=$((failed + 1)); fi
	results+=("$(printf '%-7s %-24s %s' "$word" "$1" "$3")")
}

# What a splat or a silent guest makes of a result that looked good.
judge() {	# NAME OK? DETAIL
	local splats detail=$3 ok=$2 time=$((SECONDS - guest_start))
	splats=$("$top/scripts/splats.sh" "$guest_log") || true
	if [ -n "$splats" ]; then
		ok=1
		detail="$detail; $(wc -l <<<"$splats") splats: $(head -n 1 <<<"$splats" | cut -d: -f2- | cut -c1-90)"
	fi
	result "$1" $ok "$detail (${time} s)"
	[ $ok = 0 ] || results+=("        log: ${guest_log#"$top"/}")
}

# A selftest in userspace, on vkms.
run_selftest() {	# PROGRAM SECONDS APPEND
	local code pass fail skip ok=0
	guest "$1" $(($2 + 100)) "selftest=$1 selftest_timeout=$2 $3"
	code=$(tr -d '\r' <"$guest_log" | sed -n 's/.*boot-init: selftest exit=\([0-9]*\).*/\1/p' | tail -n 1)
	if [ -z "$code" ]; then
		judge "$1" 1 "the guest never reported; last line: $(tr -d '\r' <"$guest_log" | grep . | tail -n 1 | cut -c1-80)"
	else
		pass=$(tr -d '\r' <"$guest_log" | grep -cE '^ok [0-9]' || true)
		fail=$(tr -d '\r' <"$guest_log" | grep -cE '^not ok [0-9]' || true)
		skip=$(tr -d '\r' <"$guest_log" | grep -cE '^ok [0-9].*# SKIP' || true)
		[ "$code" = 0 ] && [ "$fail" = 0 ] && [ "$pass" -gt 0 ] && [ "$skip" = 0 ] || ok=1
		judge "$1" $ok "$((pass - skip)) passed, $fail failed, $skip skipped, exit $code"
	fi
	tr -d '\r' <"$guest_log" | grep -E '^not ok|# SKIP|power:' | cut -c1-150 | sed 's/^/    /' || true
}
for name in "${programs[@]}"; do
	case $name in
	writeback_fence_lifetime) run_selftest "$name" $((300 + rounds)) "kmemleak=on WRITEBACK_FENCE_ROUNDS=$rounds" ;;
	*) run_selftest "$name" 300 "" ;;
	esac
done

# The KUnit suites, at boot.
for suite in 'dma-buf*' drm_fence 'drm_sched_lifetime*'; do
	name=kunit-$(tr -dc 'a-z0-9_-' <<<"$suite")
	guest "$name" 600 "oops=panic kunit.enable=1 kunit.autorun=1 kunit.filter_glob=$suite kunit_shutdown=poweroff"
	summary=$(cd "$tree" && tr -d '\r' <"$guest_log" | ./tools/testing/kunit/kunit.py parse 2>&1 | tee "$guest_log.parsed" | sed -n 's/.*Testing complete\. //p' | tail -n 1) || true
	ran=$(sed -n 's/.*Ran \([0-9]*\) tests.*/\1/p' <<<"$summary")
	ok=0
	[ "$guest_rc" = 0 ] && [ "${ran:-0}" -gt 0 ] && ! grep -qE 'failed:|crashed:|errors:' <<<"$summary" || ok=1
	judge "$name" $ok "${summary:-no result; last line: $(tr -d '\r' <"$guest_log" | grep . | tail -n 1 | cut -c1-80)}"
	grep -hE '\[(FAILED|CRASHED|SKIPPED)\]' "$guest_log.parsed" | grep -vE 'provoke|fence-violations' | sed 's/^\[[0-9:]*\] */    /' | head -n 20 || true
done

echo
echo "arm64, $(cat "$base_tree/.git/imported"), $([ "$series" = all ] && echo "with the series" || echo "without fixes, tests only")"
printf '%s\n' "${results[@]}"
echo "$((${#programs[@]} + 3 - failed)) passed, $failed failed"
[ $failed -eq 0 ]
