#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# kunit.sh [SUITE-GLOB...]: build the KUnit kernel with the kernel's own kunit.py
# and run the suites, each glob in a boot of its own, on two CPUs. Fails if a
# case fails, if a suite is skipped as a whole, or on any splat in a log.
# ARCH=um (default), arm64 or x86_64 (both under QEMU).
. "$(dirname "$0")/common.sh"

arch=${ARCH:-um}
out=$tree.kunit-$arch
globs=("$@")
[ ${#globs[@]} -gt 0 ] || globs=("${kunit_suites[@]}")

config=$build/kunit-$arch.config
case $arch in
um)
	target=()
	boot=(--kernel_args seccomp=on --kernel_args ncpus=2)
	cp "$top/configs/kunit-uml.config" "$config"
	;;
arm64|x86_64)
	target=(--arch="$arch")
	[ "$arch" = "$(uname -m | sed 's/aarch64/arm64/')" ] || [ "$arch" = x86_64 ] ||
		target+=(--cross_compile=aarch64-linux-gnu-)
	boot=(--qemu_args='-smp 2 -m 2G')
	# UML's own options do not exist there.
	{ grep -vE 'UML|CONFIG_64BIT' "$top/configs/kunit-uml.config"; echo CONFIG_PCI=y; } >"$config"
	;;
*)
	die "ARCH=$arch: use um, arm64 or x86_64"
	;;
esac

[ -d "$tree" ] || die "there is no work tree yet: run 'make tree' first"
need_space 4000 "the KUnit kernel"
cd "$tree"
kunit=./tools/testing/kunit/kunit.py
quietly "$logs/kunit-build-$arch.log" "building the KUnit kernel for $arch (4 minutes from cold on 2 cores)" \
	$kunit build --build_dir="$out" --kunitconfig="$config" --jobs="$jobs" "${target[@]}"

passed=0
failed=0
for glob in "${globs[@]}"; do
	name=kunit-$arch-$(tr -dc 'a-z0-9_-' <<<"$glob")
	[ "$series" = all ] || name=$name-unpatched
	start=$SECONDS
	rc=0
	$kunit exec --build_dir="$out" "${target[@]}" "${boot[@]}" --kernel_args kasan_multi_shot \
		--timeout 600 "$glob" >"$logs/$name.log" 2>&1 </dev/null || rc=$?
	cp -f "$out/test.log" "$logs/$name.kernel.log" 2>/dev/null || : >"$logs/$name.kernel.log"
	splats=$("$top/scripts/splats.sh" "$logs/$name.kernel.log") || true
	cases=$(sed -n 's/.*Testing complete\. //p' "$logs/$name.log" | tail -n 1)
	ran=$(sed -n 's/.*Ran \([0-9]*\) tests.*/\1/p' <<<"$cases" | tail -n 1)
	if [ $rc -eq 0 ] && [ -z "$splats" ] && [ "${ran:-0}" -gt 0 ]; then
		passed=$((passed + 1))
		result=ok
	else
		failed=$((failed + 1))
		result=FAILED
	fi
	printf '%-8s %-19s %s (%s s)\n' "$result" "$glob" "${cases:-no result}" $((SECONDS - start))
	if [ "$result" != ok ]; then
		grep -E '\[(FAILED|ERROR|CRASHED|TIMED_OUT)\]' "$logs/$name.log" | sed 's/^\[[0-9:]*\] */    /' | head -n 40 || true
		[ -z "$splats" ] || { echo "    splats in the kernel log: $(wc -l <<<"$splats"), the first:"; head -n 3 <<<"$splats" | sed 's/^/      /'; }
		echo "    logs: ${logs#"$top"/}/$name.log and $name.kernel.log"
	fi
	grep -hE '# (drm_test_fence_race|drm_sched_lifetime_race|race_)[a-z_]*: [0-9]+ signals' "$logs/$name.kernel.log" | sed 's/^ *# /    /' || true
	grep -hE '\[SKIPPED\]' "$logs/$name.log" | grep -vE 'provoke|fence-violations' | sed 's/^\[[0-9:]*\] */    /' | head || true
done
echo "$passed $failed" >"$logs/kunit-$arch.result"
[ $failed -eq 0 ]
