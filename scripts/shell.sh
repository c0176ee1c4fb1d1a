#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# shell.sh: boot the arm64 guest of boot.sh and give a shell in it, with the selftests in / and
# busybox around them. GDB=1 waits for gdb on localhost:1234 before the kernel starts.
. "$(dirname "$0")/common.sh"

guest_config=(boot.config arm64.config)
. "$top/scripts/guest.sh"
have_tree
mapfile -t programs < <(guest_programs)
guest_build
busybox=$("$top/scripts/debian.sh" static busybox-static arm64 usr/bin/busybox)

rm -rf "$out/shell"
mkdir -p "$out/shell/bin"
cp "$busybox" "$out/shell/bin/busybox"
# the kernel takes one archive after the other
(cd "$out/shell" && find . | cpio --quiet -o -H newc -R 0:0 | cat "$out/initramfs.cpio" -) \
	>"$out/shell.cpio"

# shellcheck disable=SC2054
options=(-machine virt -cpu max -smp 2 -m 2G -accel tcg,thread=multi -display none -nic none
	-serial mon:stdio -no-reboot -kernel "$out/arch/arm64/boot/Image"
	-initrd "$out/shell.cpio" "${virtio_gpu[@]}")
append="console=ttyAMA0 panic=-1 kasan_multi_shot kunit.enable=0 shell=1"
if [ "${GDB:-0}" = 1 ]; then
	options+=(-s -S)
	append+=" nokaslr"
	say "in another terminal: gdb-multiarch ${out#"$top"/}/vmlinux -ex 'target remote :1234'"
fi
say "the selftests are in /, as /out_fence_lifetime; 'exit' powers off, ctrl-a x ends QEMU"
exec "$qemu" "${options[@]}" -append "$append"
