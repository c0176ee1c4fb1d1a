#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# run.sh [-t] "PACKAGES" SCRIPT [ARGUMENT...]: what a target of the Makefile does, with
# the checkout to itself: install what it needs (groups of deps.sh), with -t make the work
# tree, then run SCRIPT. What is wrong on the command line is refused before all that.
command -v git >/dev/null && command -v python3 >/dev/null || "$(dirname "$0")/deps.sh" source
tree_first=
if [ "$1" = -t ]; then tree_first=1; shift; fi
read -ra groups <<<"$1"
script=$2
shift 2
target=${script%.*}
target=${target//_/-}
declare -A takers=([SUITES]=kunit [TESTS]="boot backport drivers" [DRIVERS]=drivers [KCSAN]=boot
	[WRITEBACK_FENCE_ROUNDS]=boot [KERNEL]="boot kunit soak" [MINUTES]=soak [SEED]=soak
	[GDB]=shell [MUTANTS]=mutants [ROUNDS]=bench [ROWS]=matrix [UPDATE]="bench drivers soak"
	[ARCH]="boot kunit soak" [CHECKS]=check [NOBOOT]=backport [FILE]=issuer)
for v in TOPIC TO TRAILERS VERSION CHANGELOG COVER SINCE LINK PUBLIC SEND CONFIRM; do
	takers[$v]="mail mail-test"
done
# Of the environment, which may have others of these names, only what the target takes.
for v in "${!takers[@]}"; do
	[[ " ${takers[$v]} " == *" $target "* || " ${GIVEN:-} " == *" $v "* ]] || unset "$v"
done
# What builds kernels all day may have this one, too.
[[ $target != boot || " ${GIVEN:-} " == *" ARCH "* ]] || unset ARCH
lock_later=1
. "$(dirname "$0")/common.sh"

arch=${ARCH:-}
case $script:$arch in
boot.sh:) groups+=(arm64) ;;
kunit.sh:um|soak.sh:um|*.sh:|*.py:) ;;
kunit.sh:arm64|kunit.sh:x86_64|soak.sh:arm64|boot.sh:arm64|boot.sh:arm) groups+=("$arch") ;;
kunit.sh:*) die "ARCH=$arch: use um, arm64 or x86_64" ;;
soak.sh:*) die "ARCH=$arch: use um or arm64, or neither for both" ;;
boot.sh:*) die "ARCH=$arch: use arm64 or arm" ;;
esac
[ "$script" != soak.sh ] || [ "$arch" = um ] || groups+=(arm64)
declare -A other=([TOPIC]="; tree, boot, shell, drivers, test, kunit and check take TOPICS")
for v in ${GIVEN:-}; do
	[[ " ${takers[$v]:-$target} " == *" $target "* ]] ||
		die "$v is for make ${takers[$v]// / and make }${other[$v]:-}"
done
[[ $target != mail || " ${GIVEN:-} " != *" TOPICS "* ]] ||
	die "make mail takes one topic: TOPIC=NAME"
# Their names do not need a tree.
names() { sed -n "s/^\([a-z][a-z-]*\) .*/\1/p" "$top/configs/displays" | paste -sd' '; }
if [ -n "${DRIVERS:-}" ]; then
	given_words DRIVERS
	for v in "${words[@]}"; do
		[[ " $(names) " == *" $v "* ]] ||
			die "there is no display '$v'; there are: $(names)"
	done
fi
[ -d "$tree" ] && v=$tree || v=$top
v+=/tools/testing/selftests/drivers/dma-buf/drm_device_gone.c
[ "$target" != drivers ] || drivers_cases "$v"
# What nobody has heard of is not waited for. The script looks closer.
v=SUITES
[ "$target" != boot ] || v=TESTS
if [[ $target =~ ^(boot|kunit)$ && -n ${!v:-} ]]; then
	given_words "$v"
	"$top/scripts/names.py" --soon "$tree" "${words[@]}"
fi
if [ -n "${KERNEL:-}" ]; then
	kernels=$(cd "$top/configs" && printf '%s\n' "${target/soak/boot}"-[a-z]*.config)
	kernels=$(sed "s/[a-z]*-\(.*\).config/\1/; /^uml$/d" <<<"$kernels" | paste -sd' ')
	[[ " $kernels " == *" $KERNEL "* ]] || die "KERNEL=$KERNEL: there are: $kernels"
fi
[ "$target" != issuer ] || [ -f "${FILE:-}" ] ||
	die "FILE=${FILE:-} is no file; drivers/dma-buf/st-dma-fence-issuer.c is one to begin with"
[[ $script:$arch != soak.sh:um || -z ${KERNEL:-} ]] ||
	die "KERNEL=$KERNEL is for arm64"
[[ $script:$arch != boot.sh:arm || ${KERNEL:-}${KCSAN:-0} = 0 ]] ||
	die "ARCH=arm: leave KERNEL and KCSAN out, they are for arm64"
if [ "${UPDATE:-0}" = 1 ]; then
	[ -z "$ksrc" ] && [ "$base" = "$default_base" ] ||
		die "UPDATE=1 is for the base of patches/base: leave BASE and KSRC out"
	[ -z "${TESTS:-}" ] || die "UPDATE=1 is for whole displays: leave TESTS out"
fi
[ "$script" != bench.sh ] || [ "$base" != 6.12 ] ||
	die "BASE=6.12: bench compares with 6.12 anyway, leave BASE out"
[ "$script" != mutants.py ] || "$top/scripts/mutants.py" --list >/dev/null

lock_checkout
[ ${#groups[@]} -eq 0 ] || with_us "$top/scripts/deps.sh" "${groups[@]}"
[ -z "$tree_first" ] || with_us "$top/scripts/stack.py" tree --keep
# what a report is of that is written at the end
SERIES_COMMIT=$("$top/scripts/reports.py" --commit)
export SERIES_COMMIT
exec "$top/scripts/$script" "$@"
