#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# boot.sh: cross-build the tree for arm64, or ARCH=arm, boot it in QEMU with 2 CPUs and run the
# selftests and the KUnit suites inside, each in a boot of its own. Ends with a
# table; fails if anything failed, on any splat, and on a guest that never reports.
# TESTS= picks some, by the names of selftests and KUnit suites; NAME.CASE
# or NAME.FIXTURE.VARIANT.CASE is one case of a selftest.
# With KCSAN=1 the kernel has KCSAN in place of KASAN, and fails on the data races
# that KCSAN reports in code that this series touches. KERNEL=NAME has configs/boot-NAME.config
# on top.
. "$(dirname "$0")/common.sh"

rounds=${WRITEBACK_FENCE_ROUNDS:-100}
kcsan=${KCSAN:-0}

guest_arch=${ARCH:-arm64}
guest_config=(boot.config "$guest_arch.config")
if [ "$kcsan" = 1 ]; then
	guest_config+=(kcsan.config)
	guest_suffix=$guest_arch-kcsan
fi
if [ -n "${KERNEL:-}" ]; then
	guest_config+=("boot-$KERNEL.config")
	guest_suffix=${guest_suffix:-$guest_arch}-$KERNEL
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
				file=${name%%.*}.c
				grep -qE "^(TEST|FIXTURE).*\b$part\b" "$tree/$selftest/$file" ||
					die "there is no case '${name#*.}' in $file"
			done
			tests+=("$name")
		elif "$top/scripts/names.py" "$tree" "$name" 2>/dev/null; then
			suites+=("$name")
		else
			die "there is no selftest or suite '$name' in ${tree#"$top"/};" \
				"it has:$all$("$top/scripts/names.py" "$tree" | paste -sd' ')"
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
may_skip+='|the device is not on PCI|the driver is built in|the device is in no slot|no monitor'
may_skip+='|has no timelines'
if [ "$kcsan" = 1 ]; then
	may_skip="$may_skip|kernel_reports_use_after_free"
	tests=("${tests[@]/fence_module_unload*/}")
	tests=("${tests[@]/functionfs_fence_lifetime*/}")
fi
# What there is on the machine, and the screen that firmware would have left there.
simple_framebuffer() {
	local name=simple-framebuffer dtc=$out/scripts/dtc
	"$qemu" -machine "$board,dumpdtb=$out/virt.dtb" -cpu max -smp 2 -m 2G \
		-display none -nic none &&
	"$dtc/dtc" -q -@ -I dts -O dtb -o "$out/$name.dtbo" "$top/configs/$name.dtso" &&
	"$dtc/fdtoverlay" -i "$out/virt.dtb" -o "$out/$name.dtb" "$out/$name.dtbo"
}

# KCSAN's kernel could look for leaks, too, but is slow as it is. Allocations leave pointers in the
# sheaves of SLUB, which kmemleak reads. Caches that are debugged have none.
leaks="kmemleak=on slab_debug=F "
grep -sqx CONFIG_DEBUG_KMEMLEAK=y "$out/.config" || leaks=
looks=${leaks:+${leaks}selftest_leaks=1 }
[ "$kcsan" = 0 ] || looks=$leaks
# gone SUFFIX SECONDS DRIVER [QEMU-OPTION...], with $append before
gone() { label=$name$1 run_selftest "$name" "$2" "$append${looks}DRM_DEVICE_GONE=$3" "${@:4}"; }

# shellcheck disable=SC2068
for name in ${tests[@]}; do
	append=
	case ${name%%.*} in
	writeback_fence_lifetime)
		append="${looks}WRITEBACK_FENCE_ROUNDS=$rounds"
		run_selftest "$name" $((300 + rounds)) "$append" ;;
	fence_uapi | fence_error | fence_describe | syncobj_points)
		run_selftest "$name" 600 "" "${virtio_gpu[@]}" ;;
	drm_device_gone)
		gone "" 450 virtio_gpu "${virtio_gpu[@]}" -device virtio-gpu-device
		gone -pci 900 virtio_gpu -device virtio-gpu-pci -device virtio-gpu-pci
		quietly "$logs/boot-simple-framebuffer.log" \
			"making the device tree of a framebuffer" simple_framebuffer
		gone -simpledrm 450 simple-framebuffer -dtb "$out/simple-framebuffer.dtb"
		# the gadget is made of modules
		append="modules=libcomposite,usb_f_fs,dummy_hcd "
		[ "$kcsan" = 1 ] || gone -gud 900 gud ;;
	functionfs_fence_lifetime) run_selftest "$name" 600 "$looks" ;;
	# two of its threads wait busily for each other, on as many CPUs
	sync_test) run_selftest "$name" 1200 "" ;;
	fence_faults) run_selftest "$name" 900 "$looks" "${virtio_gpu[@]}" ;;
	*) run_selftest "$name" 300 "" ;;
	esac
done

# The KUnit suites, at boot.
for suite in "${suites[@]}"; do
	name=kunit-$(tr -dc 'a-z0-9_-' <<<"$suite")
	append="oops=panic kunit.enable=1 kunit.autorun=1 kunit.filter_glob=$suite"
	guest "$name" $((kcsan ? 2400 : 600)) "$append kunit_shutdown=poweroff"
	parsed=$guest_log.parsed
	(cd "$tree" && console "$guest_log" | $kunit parse) >"$parsed" 2>&1 || true
	kunit_count "$parsed"
	ok=0
	[ "$guest_rc" = 0 ] && [ "$ran" -gt 0 ] &&
		! grep -qE 'failed:|crashed:|errors:' <<<"$cases" || ok=1
	judge "$name" $ok "${cases:-no result; last line: $(last_line "$guest_log" 80)}"
	kunit_lines "$parsed" 'FAILED|CRASHED|SKIPPED' | grep -vE "$provoked" | head -n 20 || true
done

run_table "$guest_arch${KERNEL:+, $KERNEL}"
