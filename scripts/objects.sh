# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by what compiles single objects with W=1: which ones, and how their object
# directory is configured; and by what builds and tests KUnit kernels for UML. um has dma-buf and the DRM core, x86_64 the drivers, arm64
# those that do not build for x86.

core='^drivers/(dma-buf|gpu/drm/[^/]*\.c|gpu/drm/tests|gpu/drm/scheduler)'
arm='^drivers/gpu/drm/imagination/'

# Every C file that the series touches, and every issuer of fences.
object_files() {	# ARCH
	{
		git -C "$tree" diff --name-only "$base_ref" HEAD -- 'drivers/*.c'
		git -C "$tree" grep -lE '\<dma_fence_init(64)?\(' HEAD -- 'drivers/*.c' | sed 's/^HEAD://'
	} | grep -v '/i915/selftests/' | sort -u | objects_of "$1"
}

# Of the files on standard input those that ARCH is to build.
objects_of() {	# ARCH
	case $1 in
	um) grep -E "$core" ;;
	arm64) grep -vE "$core" | grep -E "$arm" ;;
	x86_64) grep -vE "$core" | grep -vE "$arm" ;;
	esac || true
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

# One line a message, with the types that sparse puts on lines of their own.
join_messages() {
	awk '
		function flush() { if (text != "") print text; text = "" }
		/: (warning|error): / { flush(); text = $0; next }
		text != "" && /^[^ ]+:[0-9]+:[0-9]+:    / { sub(/^[^ ]+:[0-9]+:[0-9]+: +/, ""); text = text " | " $0; next }
		{ flush() }
		END { flush() }'
}

# Objects of the same source have to be the same, so that a kernel that has passed its
# tests is known again. What was compiled before, for another topic, comes from ccache.
same_objects() {
	export PATH=/usr/lib/ccache:$PATH CCACHE_DIR=$build/ccache CCACHE_MAXSIZE=8G
	export LOCALVERSION='' KBUILD_BUILD_VERSION=1 KBUILD_BUILD_USER=series KBUILD_BUILD_HOST=localhost
	export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 2026'
}

uml_config() { cat "$top/configs/kunit-uml.config"; echo '# CONFIG_LOCALVERSION_AUTO is not set'; }

# What a result depends on besides the source: FILE... and the compilers.
how_built() {
	{
		uml_config
		cat "$top/scripts/objects.sh" "$@"
		gcc --version
		aarch64-linux-gnu-gcc --version 2>&1
	} | git hash-object --stdin
}

# With W=1, the KUnit kernel for UML.
uml_build() (	# SRC OUT CONFIG
	cd "$1" || exit
	# W=1 makes the test of an option fail while a directory for generated headers is
	# missing, and then KASAN is left out without a word: make those without it.
	if [ ! -f "$2/.prepared" ]; then
		$kunit config --build_dir="$2" --kunitconfig="$3" &&
		make ARCH=um O="$2" -j"$jobs" prepare && touch "$2/.prepared" || exit 1
	fi
	$kunit build --build_dir="$2" --kunitconfig="$3" --jobs="$jobs" --make_options W=1 || exit 1
	grep -q -e -fsanitize=kernel-address "$2/init/.main.o.cmd" || { echo "error: this kernel has no KASAN"; exit 1; }
)

# The suites that a kernel has, each glob in a boot of its own: $total is the number of
# tests. Fails if one does, or leaves a splat, and then $bad says which and $bad_log where.
uml_test() {	# SRC OUT LOG
	local src=$1 out=$2 log=$3 glob rc one=0
	total=0 bad=
	kunit_exec "$src" "$out" "$log-list" '' --list_tests || true
	for glob in "${kunit_suites[@]}"; do
		grep -qE "^${glob/\*/.*}\." "$log-list.log" || continue
		rc=0
		one=$((one + 1))
		kunit_exec "$src" "$out" "$log-$one" "$glob" --kernel_args kasan_multi_shot --timeout 600 || rc=$?
		total=$((total + ran))
		if [ $rc -ne 0 ] || [ -n "$splats" ] || [ "$ran" -eq 0 ]; then
			bad+="$glob: $(grep -E '\[(FAILED|ERROR|CRASHED|TIMED_OUT)\]' "$log-$one.log" | head -n 5)$splats"$'\n'
			bad_log=$log-$one.log
		fi
	done
	if [ $total -eq 0 ]; then bad="no suite ran" bad_log=$log-list.log; fi
	[ -z "$bad" ]
}
