# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2034,SC2154
# Sourced by the scripts that boot a kernel for userspace checks: builds the
# kernel, its selftests and an initramfs, and boots them with 2 CPUs.
# Set guest_arch (arm64, arm or x86_64 under QEMU, or um) and guest_config (files in configs/)
# before guest_build. $programs are the selftests for it, of those that guest_programs says.

guest_arch=${guest_arch:-arm64}
guest_suffix=${guest_suffix:-$guest_arch}
out=$tree.$guest_suffix
root=$out/initramfs
selftest=tools/testing/selftests/drivers/dma-buf
sync_selftest=tools/testing/selftests/sync
virtio_gpu=(-global virtio-mmio.force-legacy=false -device virtio-gpu-device)

qemu='' cross='' defaults=allnoconfig
case $guest_arch in
arm64) machine=aarch64 board=virt image=Image ;;
arm) machine=arm board=virt,highmem=off image=zImage ;;
x86_64) machine=x86_64 board=pc image=bzImage ;;
um) machine='' image=linux defaults=alldefconfig ;;	# as kunit.py does
*) die "$guest_arch: use arm64, arm, x86_64 or um" ;;
esac
if [ -n "$machine" ]; then
	qemu=qemu-system-$machine
	[ "$(uname -m)" = "$machine" ] || cross=$machine-linux-gnu-
	[ "$guest_arch" != arm ] || cross=arm-linux-gnueabihf-
fi

kmake() { make -C "$tree" ARCH="$guest_arch" CROSS_COMPILE="$cross" O="$out" -j"$jobs" "$@"; }

guest_configure() {
	(cd "$top/configs" && cat "${guest_config[@]}") >"$out/fragment.config"
	if ! cmp -s "$out/fragment.config" "$out/fragment.used"; then
		kmake KCONFIG_ALLCONFIG="$out/fragment.config" "$defaults"
		cp "$out/fragment.config" "$out/fragment.used"
	fi
}

guest_userspace() {
	local arch=$guest_arch modules built name dir
	case $arch in um|x86_64) arch=x86 ;; esac
	rm -rf "$root"
	mkdir -p "$root/dev"
	"${cross}gcc" -static -O2 -Wall -Wextra -Werror \
		-o "$root/init" "$top/scripts/boot-init.c" &&
	make -C "$tree" ARCH="$arch" O="$out.headers" headers || return 1
	# The selftests exactly as kselftest builds them, but static.
	for name in "${programs[@]}"; do
		[ "$name" = sync_test ] && dir=$sync_selftest || dir=$selftest
		# a Makefile of selftests has a TESTS of its own
		env -u TESTS -u MAKEFLAGS make -C "$tree/$dir" ARCH="$arch" CROSS_COMPILE="$cross" \
			KHDR_INCLUDES="-isystem $out.headers/usr/include" LDFLAGS=-static \
			OUTPUT="$out" "$out/$name" &&
		cp "$out/$name" "$root/" || return 1
	done
	for built in "$out" "${modules_of[@]-}"; do
		[ -f "$built/modules.order" ] || continue
		modules=$root/lib/modules/$(cat "$built/include/config/kernel.release")
		mkdir -p "$modules"
		sed "s|^|$built/|; s|\.o$|.ko|" "$built/modules.order" | xargs -r cp -t "$modules"
	done
	(cd "$root" && find . | sort | cpio --quiet -o -H newc -R 0:0) >"$out/initramfs.cpio"
}

# The kernel alone. $guest_name is what messages and logs call it.
guest_kernel() {
	local want tool name=${guest_name:-$guest_suffix}
	for tool in $qemu "${cross}gcc"; do
		command -v "$tool" >/dev/null ||
			die "$tool is missing; scripts/deps.sh $guest_arch installs it"
	done
	have_tree
	need_space 4000 "the $name kernel"
	mkdir -p "$out"
	quietly "$logs/boot-config-$name.log" "configuring $name" guest_configure
	# An option that Kconfig dropped without a word would make a check disappear.
	want=$(sed 's/^# \(CONFIG_[A-Z0-9_]*\) is not set/# CONFIG_=\1/' "$out/fragment.config" |
		awk -F= '/^CONFIG_/ { last[$1] = $0 } /^# CONFIG_/ { delete last[$2] }
			END { for (o in last) print last[o] }' |
		{ grep -vxFf "$out/.config" || [ $? = 1 ]; })
	[ -z "$want" ] ||
		die "configs/: not in the configuration of this tree: ${want//$'\n'/, }"
	quietly "$logs/boot-build-$name.log" \
		"building the $name kernel (10 to 20 minutes from cold)" \
		kmake "$image" modules
}

# The selftests that this tree has.
guest_programs() {
	local name
	for name in out_fence_lifetime writeback_fence_lifetime fence_module_unload \
		functionfs_fence_lifetime drm_device_gone fence_error fence_describe fence_uapi \
		syncobj_points fence_faults; do
		[ ! -f "$tree/$selftest/$name.c" ] || echo "$name"
	done
	[ ! -f "$tree/$sync_selftest/sync_fdinfo.c" ] || echo sync_test
}

# The kernel, and an initramfs with $programs.
guest_build() {
	guest_kernel
	quietly "$logs/boot-userspace-$guest_suffix.log" "building the userspace checks" \
		guest_userspace
}

# guest_boot LOG SECONDS APPEND [QEMU-OPTION...]: with the console in LOG. Takes the
# place of the shell, so call it in the background. 124: not through in time. With
# $guest_silence it also ends where the log has been silent for so many seconds.
guest_boot() {
	local log=$1 limit=$2 append="panic=-1 kasan_multi_shot $3" self=$BASHPID
	shift 3
	[ -z "${guest_silence:-}" ] || while sleep 10 && kill -0 "$self" 2>/dev/null; do
		[ $(($(date +%s) - $(stat -c %Y "$log"))) -lt "$guest_silence" ] || kill "$self"
	done 9>&- &
	case $guest_arch in
	arm*) append="console=ttyAMA0 $append" ;;
	x86_64) append="console=ttyS0 $append"; set -- -vga none "$@" ;;
	um)
		# shellcheck disable=SC2086
		exec timeout -k 5 "$limit" "$out/linux" mem=2G seccomp=on ncpus=2 \
			initrd="$out/initramfs.cpio" console=tty $append >"$log" 2>&1 </dev/null ;;
	esac
	exec timeout -k 5 "$limit" "$qemu" -machine "$board" -cpu max -smp 2 -m 2G \
		-accel tcg,thread=multi -display none -monitor none -nic none -no-reboot \
		-serial "file:$log" -kernel "$out/arch/${guest_arch%_64}/boot/$image" \
		-initrd "$out/initramfs.cpio" -append "$append" "$@"
}
