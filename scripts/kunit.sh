#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# kunit.sh [SUITE-GLOB...]: build the KUnit kernel with the kernel's own kunit.py
# and run the suites, each glob in a boot of its own, on two CPUs. Fails if a
# case fails, if a suite is skipped as a whole, or on any splat in a log.
# ARCH=um (default), arm64 or x86_64 (both under QEMU). SUITES= names globs as well. KERNEL=NAME
# has configs/kunit-NAME.config on top.
. "$(dirname "$0")/common.sh"

arch=${ARCH:-um}
kernel=$arch${KERNEL:+-$KERNEL}
out=$tree.kunit-$kernel
globs=("$@")
if [ ${#globs[@]} -eq 0 ] && [ -n "${SUITES:-}" ]; then
	given_words SUITES
	globs=("${words[@]}")
fi
have_tree
[ ${#globs[@]} -eq 0 ] || "$top/scripts/names.py" "$tree" "${globs[@]}"
[ ${#globs[@]} -gt 0 ] || globs=("${kunit_suites[@]}")

config=$build/kunit-$kernel.config target=()
case $arch in
um)
	cp "$top/configs/kunit-uml.config" "$config" ;;
arm64|x86_64)
	target=(--arch="$arch")
	[ "$arch" = "$(uname -m | sed 's/aarch64/arm64/')" ] || [ "$arch" = x86_64 ] ||
		target+=(--cross_compile=aarch64-linux-gnu-)
	kunit_boot=(--qemu_args='-smp 2 -m 2G')
	# UML's own options do not exist there.
	grep -vE 'UML|CONFIG_64BIT' "$top/configs/kunit-uml.config" >"$config"
	echo CONFIG_PCI=y >>"$config" ;;
*)
	die "ARCH=$arch: use um, arm64 or x86_64" ;;
esac

[ -z "${KERNEL:-}" ] || cat "$top/configs/kunit-$KERNEL.config" >>"$config"

need_space 4000 "the KUnit kernel"
cd "$tree"
quietly "$logs/kunit-build-$kernel.log" \
	"building the KUnit kernel for $kernel (5 to 15 minutes from cold)" \
	$kunit build --build_dir="$out" --kunitconfig="$config" --jobs="$jobs" "${target[@]}"

for glob in "${globs[@]}"; do
	name=kunit-$kernel-$(tr -dc 'a-z0-9_.-' <<<"$glob")${variant:+-$variant}
	start=$SECONDS rc=0
	kunit_exec "$tree" "$out" "$logs/$name" "$glob" "${target[@]}" \
		--kernel_args kasan_multi_shot --timeout 600 || rc=$?
	result=ok
	[ $rc -eq 0 ] && [ -z "$splats" ] && [ "$ran" -gt 0 ] || rc=1 result=FAILED
	tally $rc
	printf '%-8s %-19s %s (%s s)\n' "$result" "$glob" "${cases:-no result}" $((SECONDS - start))
	if [ $result != ok ]; then
		kunit_lines "$logs/$name.log" 'FAILED|ERROR|CRASHED|TIMED_OUT' | head -n 40 || true
		console "$logs/$name.kernel.log" | grep -aA4 'TION FAILED' | head -n 10 || true
		if [ -n "$splats" ]; then
			echo "    splats in the kernel log: $(wc -l <<<"$splats"), the first:"
			head -n 3 <<<"$splats" | sed 's/^/      /'
		fi
		echo "    logs: ${logs#"$top"/}/$name.log and $name.kernel.log"
	fi
	races='(drm_test_fence_race|drm_sched_lifetime_race|race_)[a-z_]*: [0-9]+ signals'
	grep -E "# $races" "$logs/$name.kernel.log" | sed 's/^ *# /    /' || true
	kunit_lines "$logs/$name.log" SKIPPED | grep -vE "$provoked" | head || true
done
echo "$passed $failed" >"$logs/kunit-$arch.result"
[ $failed -eq 0 ]
