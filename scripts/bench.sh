#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# bench.sh: what operations on fences cost with the series, without it, and on Linux
# 6.12. Boots the three kernels in turn, ROUNDS times with a clock and twice with QEMU
# counting instructions, and two with the irqsoff tracer. Writes build/bench/report.md
# and .svg. UPDATE=1 copies both to results/. Fails if a goal is missed that does not
# depend on the machine.
. "$(dirname "$0")/common.sh"

rounds=${ROUNDS:-5}
[ "$series" = all ] || die "bench.sh compares the series with its base: leave SERIES out"
[ "$base" != 6.12 ] || die "bench.sh compares with 6.12 anyway: leave BASE out"

lts=6.12 results=$build/bench
dma_buf=drivers/dma-buf bench=st-dma-fence-bench
declare -A trees=([series]=$tree [base]=$tree-unpatched [lts]=$build/linux-$lts-bench)
declare -A display=([series]=bench-vkms [base]=bench-vkms [lts]=bench-lts)
[ -f "$tree/$dma_buf/$bench.c" ] || die "$dma_buf/$bench.c is not in ${tree#"$top"/}"

# What is the same as before keeps its time, so that nothing is built again.
refresh() {
	cat >"$1.new"
	if cmp -s "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1"; fi
}

# The benchmark on Linux 6.12: without the kinds of fence that it does not have.
lts_tree() {
	local dir=${trees[lts]} home=$build/linux-$lts.base
	SCOPE='' BASE=$lts KSRC='' "$top/scripts/stack.py" tree --base
	if [ ! -f "$dir/$dma_buf/Makefile" ]; then own_tree "$dir" "base-$lts"; fi
	sed '/\.inline_lock = true/d' "$tree/$dma_buf/$bench.c" | refresh "$dir/$dma_buf/$bench.c"
	refresh "$dir/$dma_buf/$bench.h" <"$top/scripts/bench-$lts.h"
	{
		git -C "$home" show "base-$lts:$dma_buf/Makefile"
		echo "obj-\$(CONFIG_DMABUF_KUNIT_BENCH) += $bench.o"
		echo "CFLAGS_$bench.o := -include \$(src)/$bench.h"
	} | refresh "$dir/$dma_buf/Makefile"
	{
		git -C "$home" show "base-$lts:$dma_buf/Kconfig"
		printf '\nconfig DMABUF_KUNIT_BENCH\n\ttristate "KUnit benchmark"\n'
		printf '\tdepends on KUNIT\n\tselect DMA_SHARED_BUFFER\n'
	} | refresh "$dir/$dma_buf/Kconfig"
}

# use KERNEL ARCH [CONFIG...]: what guest.sh calls $out and so on is of that kernel.
use() {
	local kernel=$1
	guest_arch=$2
	shift 2
	guest_config=("bench-$guest_arch.config" "${@/%/.config}")
	guest_suffix=bench-$guest_arch
	[[ ! " $* " =~ ' bench-'(debug|irqsoff)' ' ]] || guest_suffix+=-${BASH_REMATCH[1]}
	guest_name=$guest_suffix-$kernel
	tree=${trees[$kernel]}
	. "$top/scripts/guest.sh"
}

arm64() { use "$1" arm64 bench-virtio "${display[$1]}"; }
arm64-debug() { use "$1" arm64 bench-virtio bench-vkms bench-debug; }
arm64-irqsoff() { use "$1" arm64 bench-virtio bench-vkms bench-irqsoff; }
um() { use "$1" um; }

# boot LOG INSTRUMENT: takes the place of the shell.
boot() {
	local log=$1 args="panic=-1 kunit.enable=0"
	[[ $2 == *irqsoff ]] ||
		args="panic=-1 kunit.enable=1 kunit.autorun=1 kunit.filter_glob=dma-buf-fence-bench"
	case $2 in
	um)
		# shellcheck disable=SC2086
		exec timeout -k 5 600 "$out/linux" mem=512M seccomp=on ncpus=2 console=tty $args \
			kunit_shutdown=poweroff >"$log" 2>&1 </dev/null ;;
	# Time is what the CPU has executed, and it passes at once while the CPU sleeps.
	count*)	set -- -smp 1 -accel tcg,thread=single -icount shift=0,sleep=off ;;
	*)	set -- -smp 2 -accel tcg,thread=multi ;;
	esac
	args+=" vkms.create_default_dev=0 selftest=fence_bench selftest_timeout=900"
	exec timeout -k 5 1200 "$qemu" -machine virt -cpu max -m 1G "$@" "${virtio_gpu[@]}" \
		-display none -monitor none -nic none -serial "file:$log" -no-reboot \
		-kernel "$out/arch/arm64/boot/Image" -initrd "$initramfs" \
		-append "console=ttyAMA0 $args"
}

# measure INSTRUMENT CONFIGURATION ROUNDS KERNEL...
measure() {
	local instrument=$1 config=$2 n=$3 round kernel log want
	shift 3
	for ((round = 1; round <= n; round++)); do
		for kernel; do
			$config "$kernel"
			log=$results/$instrument-$kernel-$round.log
			quietly "$log.boot" "$instrument, round $round of $n: $kernel" \
				boot "$log" "$instrument" ||
				die "the guest did not get to its end;" \
					"its console is ${log#"$top"/}"
			# Linux 6.12 has no vkms that could be unbound, and says SKIP.
			want='selftest exit=0'
			[ "$kernel" != lts ] || want='selftest exit=4'
			[ "$instrument" != um ] || want='bench op='
			! grep -aqE '^ *(\[[ 0-9.]*\] *)?not ok |Kernel panic' "$log" &&
				grep -aq "$want" "$log" ||
				die "the benchmark failed on $kernel; see ${log#"$top"/}"
		done
	done
}

SCOPE='' SERIES=none "$top/scripts/stack.py" tree --keep
lts_tree

for kernel in series base lts; do arm64 $kernel; guest_kernel; done
# Few options apart: what they do not concern is built.
for kernel in series base; do
	arm64 $kernel
	like=$out
	for config in arm64-debug arm64-irqsoff; do
		$config $kernel
		[ -f "$out/vmlinux" ] || { rm -rf "$out"; cp -a "$like" "$out"; }
		guest_kernel
	done
done
for kernel in series base; do um $kernel; guest_kernel; done
# The same program for all, so that what it costs itself is the same.
# Its vkms makes its only device when the module is loaded.
arm64 lts
modules_of=("$out")
arm64 series
programs=(fence_bench)
quietly "$logs/boot-userspace-bench.log" "building fence_bench" guest_userspace
initramfs=$out/initramfs.cpio

rm -rf "$results"
mkdir -p "$results"
measure count arm64 2 series base lts
measure count-debug arm64-debug 2 series base
measure count-irqsoff arm64-irqsoff 1 series base
measure irqsoff arm64-irqsoff 3 series base
measure arm64 arm64 "$rounds" series base lts
measure um um "$rounds" series base

# Each line that says something, once; the console has some twice.
for log in "$results"/*.log; do
	name=$(basename "$log" .log)
	name=${name%-*}
	console "$log" | awk -v by="${name%-*}" -v kernel="${name##*-}" '
		!match($0, /bench (op|bytes)[ =].*/) { next }
		{ n = split(substr($0, RSTART), word, /[ =]/) }
		seen[word[2], word[3], word[5]]++ { next }
		by == "count" && word[2] == "bytes" { print "bytes", kernel, word[3], "-", word[4] }
		word[2] == "op" {
			print by, kernel, word[3], word[5], word[7]
			for (i = 8; i < n; i += 2) {
				what = by == "count" ? word[i] : ""
				if (word[i] == "off") what = "off-" by
				if (what) print what, kernel, word[3], word[5], word[i + 1]
			}
		}'
done >"$results/figures"

# Code: the size of dma-fence.o, and what the check became that is inlined everywhere.
for arch in arm64 um; do
	for kernel in series base lts; do
		[ "$arch-$kernel" != um-lts ] || continue
		$arch $kernel
		built=$out/$dma_buf
		${cross}size -A "$built/dma-fence.o" | awk -v a=$arch -v k=$kernel '
			$1 ~ /^\.text/ { n += $2 }
			END { print "bytes", k, "dma-fence.o-" a, "text", n }' >>"$results/figures"
		for f in run_test_flag run_is_signaled; do
			${cross}objdump -d --no-show-raw-insn --disassemble=$f "$built/$bench.o" |
				sed -n 's/^ *[0-9a-f]*:\t//p' >"$results/$arch-$kernel-$f.txt"
		done
	done
done

lts_name=$(git -C "$build/linux.git" log -1 --format=%s base-$lts)
qemu_version=$(qemu-system-aarch64 --version | sed -n 's/.*version \([0-9.]*\).*/\1/p')
title="# Benchmark of dma_fence

$(base_name) with the series and without it, and $lts_name,
by \`make bench ROUNDS=$rounds\` with gcc $(gcc -dumpfullversion) and QEMU $qemu_version
on $(nproc) CPUs, load $(cut -d' ' -f1 /proc/loadavg), on $(date +%F), commit $SERIES_COMMIT.
"
rc=0
"$top/scripts/bench-report.py" "$results" "$title" || rc=$?
say "the tables are in ${results#"$top"/}/report.md, the plot in report.svg"
if [ "${UPDATE:-0}" = 1 ]; then
	mkdir -p "$top/results"
	for kind in md svg; do
		cp "$results/report.$kind" "$top/results/bench.$kind.new"
		mv "$top/results/bench.$kind.new" "$top/results/bench.$kind"
	done
fi
exit $rc
