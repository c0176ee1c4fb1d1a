# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2154
# Sourced by what compiles single objects with W=1: which ones, and how their object
# directory is configured. um has dma-buf and the DRM core, x86_64 the drivers, arm64
# those that do not build for x86.

core='^drivers/(dma-buf|gpu/drm/[^/]*\.c|gpu/drm/tests|gpu/drm/scheduler)'
arm='^drivers/gpu/drm/imagination/'

# Every C file that the series touches, and every issuer of fences.
object_files() {	# ARCH
	{
		git -C "$tree" diff --name-only "$base_ref" HEAD -- 'drivers/*.c'
		git -C "$tree" grep -lE '\<dma_fence_init(64)?\(' HEAD -- 'drivers/*.c' | sed 's/^HEAD://'
	} | grep -v '/i915/selftests/' | sort -u | case $1 in
	um) grep -E "$core" ;;
	arm64) grep -vE "$core" | grep -E "$arm" ;;
	x86_64) grep -vE "$core" | grep -vE "$arm" ;;
	esac
}

cross_compile() {	# ARCH
	[ "$1" != arm64 ] || [ "$(uname -m)" = aarch64 ] || echo aarch64-linux-gnu-
}

object_prepare() {	# ARCH SRC OUT
	local arch=$1 src=$2 out=$3
	mkdir -p "$out"
	if [ "$arch" = um ]; then
		make -C "$src" ARCH=um O="$out" KCONFIG_ALLCONFIG="$top/configs/kunit-uml.config" alldefconfig
	else
		# Without what needs tools that single objects do not.
		make -C "$src" ARCH="$arch" O="$out" allmodconfig &&
		"$src/scripts/config" --file "$out/.config" -d WERROR -d MODULE_SIG -d RUST -d GCC_PLUGINS \
			-d DEBUG_INFO_BTF -d DEBUG_INFO_DWARF_TOOLCHAIN_DEFAULT -e DEBUG_INFO_NONE &&
		make -C "$src" ARCH="$arch" O="$out" olddefconfig
	fi &&
	make -C "$src" ARCH="$arch" O="$out" -j"$jobs" prepare &&
	touch "$out/.prepared"
}

# The messages of a compiler, kernel-doc or Sphinx on standard input about the tree SRC,
# without line numbers, so that those of two trees can be compared.
messages() {	# SRC
	{ grep -aiE ': (warning|error|severe|critical): |^(warning|error): ' || true; } |
		sed -E "s|$1/||g; s|:[0-9]+\\>||g" | sort -u
}
