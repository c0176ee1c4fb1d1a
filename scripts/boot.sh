#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# boot.sh: cross-build the tree for arm64, boot it in QEMU with 2 CPUs and run the
# selftests and the KUnit suites inside, each in a boot of its own. Ends with a
# table; fails if anything failed, on any splat, and on a guest that never reports.
# TESTS= picks some, by the names of selftests and KUnit suites; NAME.CASE
# or NAME.FIXTURE.VARIANT.CASE is one case of a selftest.
# With KCSAN=1 the kernel has KCSAN in place of KASAN, and fails on the data races
# that KCSAN reports in code that this series touches. KERNEL=NAME has configs/boot-NAME.config
# on top.
. "$(dirname "$0")/common.sh"

# The default of writeback_fence_lifetime, 1000, is for machines that are not emulated.
rounds=${WRITEBACK_FENCE_ROUNDS:-100}
kcsan=${KCSAN:-0}

guest_config=(boot.config arm64.config)
if [ "$kcsan" = 1 ]; then
	guest_config+=(kcsan.config)
	guest_suffix=arm64-kcsan
fi
if [ -n "${KERNEL:-}" ]; then
	guest_config+=("boot-$KERNEL.config")
	guest_suffix=${guest_suffix:-arm64}-$KERNEL
fi
. "$top/scripts/guest.sh"
. "$top/scripts/guest-run.sh"
have_tree
suites=('dma-buf*' drm_fence 'drm_sched_lifetime*')
mapfile -t programs < <(guest_programs)
tests=("${programs[@]}")
if [ -n "${TESTS:-}" ]; then
	given_words TESTS
	all=" ${programs[*]} "
	tests=() suites=()
	for name in "${words[@]}"; do
		if [[ $all == *" ${name%%.*} "* ]]; then
			IFS=. read -ra parts <<<"$name"
			for part in "${parts[@]:1}"; do
				grep -qE "^(TEST|FIXTURE).*\b$part\b" "$tree/$selftest/${name%%.*}.c" ||
					die "there is no case '${name#*.}' in ${name%%.*}.c"
			done
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

# What may be skipped: faults while a device comes and goes, since DRM core, vkms and
# configfs do not survive them. KCSAN's kernel has no KASAN, which one case of each
# program asks for, nor modules.
may_skip='no_memory_for_device|no_memory_for_configfs'
# What is built in and not on PCI can only be unbound.
may_skip+='|the device is not on PCI|the driver is built in|the device is in no slot|no monitor|has no timelines'
if [ "$kcsan" = 1 ]; then
	may_skip="$may_skip|kernel_reports_use_after_free"
	tests=("${tests[@]/fence_module_unload*/}")
	tests=("${tests[@]/functionfs_fence_lifetime*/}")
fi
# What there is on the machine, and the screen that firmware would have left there.
simple_framebuffer() {
	"$qemu" -machine "virt,dumpdtb=$out/virt.dtb" -cpu max -smp 2 -m 2G -display none -nic none &&
	"$out/scripts/dtc/dtc" -q -@ -I dts -O dtb -o "$out/simple-framebuffer.dtbo" "$top/configs/simple-framebuffer.dtso" &&
	"$out/scripts/dtc/fdtoverlay" -i "$out/virt.dtb" -o "$out/simple-framebuffer.dtb" "$out/simple-framebuffer.dtbo"
}

# shellcheck disable=SC2068
for name in ${tests[@]}; do
	case ${name%%.*} in
	writeback_fence_lifetime) run_selftest "$name" $((300 + rounds)) "kmemleak=on WRITEBACK_FENCE_ROUNDS=$rounds" ;;
	fence_uapi | fence_error | fence_describe) run_selftest "$name" 600 "" -global virtio-mmio.force-legacy=false -device virtio-gpu-device ;;
	drm_device_gone) run_selftest "$name" 300 "DRM_DEVICE_GONE=virtio_gpu" -global virtio-mmio.force-legacy=false \
		-device virtio-gpu-device -device virtio-gpu-device
		label=$name-pci run_selftest "$name" 600 "DRM_DEVICE_GONE=virtio_gpu" -device virtio-gpu-pci -device virtio-gpu-pci
		quietly "$logs/boot-simple-framebuffer.log" "making the device tree of a framebuffer" simple_framebuffer
		label=$name-simpledrm run_selftest "$name" 300 "DRM_DEVICE_GONE=simple-framebuffer" -dtb "$out/simple-framebuffer.dtb"
		# the gadget is made of modules
		[ "$kcsan" = 1 ] || label=$name-gud run_selftest "$name" 600 "modules=libcomposite,usb_f_fs,dummy_hcd DRM_DEVICE_GONE=gud" ;;
	functionfs_fence_lifetime) run_selftest "$name" 400 "" ;;
	# two of its threads wait busily for each other, on as many CPUs
	sync_test) run_selftest "$name" 1200 "" ;;
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

run_table "arm64${KERNEL:+, $KERNEL}"
