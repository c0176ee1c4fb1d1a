#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# mutants.sh [--list] [NAME|NUMBER...]: break the series in one point at a time, as the
# patches in mutants/ say, and see that the test each of them names notices. A
# survivor is a missing test. What kills a mutant is one of
#   kunit SUITE.CASE	a KUnit case on UML: it fails, hangs, or leaves a splat
#   violation CASE	see violations.sh: what an issuer must not do goes unnoticed
#   litmus NAME		herd7, on a test that the same patch weakens like the code
#   sparse FILE		a new message
#   cocci FILE		a report of the series' semantic patch
# The named tests have to pass without a mutant first. Last line: 'N killed, N survived'.
# --list only says which ones it would be.
. "$(dirname "$0")/common.sh"

work=$build/mutants
out=$build/mutants.kunit-um
config=$build/mutants.config
log=$logs/mutant

[ "$series" = all ] || die "mutants.sh breaks the series: without it there is nothing to break"

list=
if [ "${1:-}" = --list ]; then list=1; shift; fi
# shellcheck disable=SC2086
[ $# -gt 0 ] || { set -f; set -- ${MUTANTS:-}; set +f; }
known=" "
patches=()
for p in "$top"/mutants/[0-9]*.patch; do
	name=$(basename "$p" .patch)
	known+="$name ${name#*-} ${name%%-*} $((10#${name%%-*})) "
	[ $# -eq 0 ] || case " $* " in *" $name "*|*" ${name#*-} "*|*" ${name%%-*} "*|*" $((10#${name%%-*})) "*) ;; *) continue ;; esac
	patches+=("$p")
done
for n; do [[ $known == *" $n "* ]] || die "there is no mutant '$n' in mutants/"; done
if [ -n "$list" ]; then printf '%s\n' "${patches[@]#"$top"/}"; exit; fi

have_tree
[ -z "$(git -C "$tree" status --porcelain -uno | head -n 1)" ] ||
	say "${tree#"$top"/} has uncommitted changes: they are not used, only HEAD is"

header() { sed -n "/^---/q; s/^$2: //p" "$1"; }

commit=$(git -C "$tree" rev-parse HEAD)
own_tree "$work" "$commit"
cd "$work"
reset() { git reset -q --hard "$commit"; }
reset
trap reset EXIT

build_kernel() { $kunit build --build_dir="$out" --kunitconfig="$config" --jobs="$jobs"; }
build_object() { make -s ARCH=um O="$out" -j"$jobs" W=1 "$@"; }

# run KIND ARG: 0 if the test passes. Else $why says why not, unless it did not
# run at all, which is no verdict.
run() {
	local kind=$1 arg=$2 rc=0 report='' got want
	why=''
	case $kind in
	violation)
		# The report that the case has to end with.
		report=$(awk -F '\t+' -v c="$arg" '$1 == c { print $2 }' "$top/scripts/violations.sh")
		[ -n "$report" ] || die "violations.sh has no case '$arg'"
		run_kunit "dma-buf-fence-violations.$arg" --kernel_args dmabuf_kunit.provoke=1 || return 1
		grep -aqF "$report" "$log.kernel.log" || { why="not reported: $report"; return 1; }
		;;
	kunit)
		run_kunit "$arg" || return 1
		got=$("$top/scripts/splats.sh" "$log.kernel.log" | head -n 1) || true
		[ -z "$got" ] || { why=${got#*: }; return 1; }
		;;
	litmus)
		want=$(sed -n 's/^[( ]\* Result: *//p' "Documentation/litmus-tests/dma-fence/$arg.litmus")
		got=$(cd tools/memory-model && timeout 300 "$build/tools/bin/herd7" -conf linux-kernel.cfg \
			"../../Documentation/litmus-tests/dma-fence/$arg.litmus" 2>&1 | tee "$log.log" | awk '$1 == "Observation" { print $3 }')
		[ -n "$got" ] || return 2
		[ "$got" = "$want" ] || { why="$got, has to be $want"; return 1; }
		;;
	sparse)
		rm -f "$out/${arg%.c}.o"
		build_object C=1 CHECK="$build/tools/bin/sparse" "${arg%.c}.o" >"$log.log" 2>&1 || return 2
		why=$(grep -m 1 -E ': (warning|error): ' "$log.log" | sed 's/.*\(warning\|error\): //') || return 0
		return 1
		;;
	cocci)
		# shellcheck disable=SC2046
		spatch -D report --very-quiet --no-show-diff --timeout 120 \
			--cocci-file scripts/coccinelle/misc/dma_fence.cocci \
			$(sed -n 's|^// Options: ||p' scripts/coccinelle/misc/dma_fence.cocci) \
			-I include "$arg" >"$log.log" 2>&1 || return 2
		why=$(grep -m 1 -F "$arg:" "$log.log" | sed 's/^[^ ]* //') || return 0
		return 1
		;;
	*)
		die "'$kind $arg': use kunit, violation, litmus, sparse or cocci"
		;;
	esac
}

# A case in a boot of its own. The kernel log counts from the case on.
run_kunit() {	# SUITE.CASE KUNIT-OPTIONS...
	local glob=$1 rc=0
	shift
	kunit_exec "$work" "$out" "$log" "$glob" "$@" --kernel_args kasan_multi_shot --timeout 150 || rc=$?
	sed -n "/# Subtest: ${glob%.*}\$/,\$p" "$out/test.log" >"$log.kernel.log" 2>/dev/null || :
	[ -s "$log.kernel.log" ] || return 2
	[[ ! $cases =~ tests:\ skipped:\ [0-9]+$ ]] || return 2
	[ $rc -ne 0 ] || return 0
	why=$("$top/scripts/splats.sh" "$log.kernel.log" | head -n 1 | sed 's/^[^ ]*: //') || true
	[ -n "$why" ] || why=$(grep -a -m 1 -oE '# .*: (EXPECTATION|ASSERTION) FAILED at .*' "$log.kernel.log" | sed 's/^# [^ ]* /failed: /; s/EXPECTATION FAILED at .*\//at /') || true
	why=${why:-the case fails, or never ends}
	return 1
}

cp "$top/configs/kunit-uml.config" "$config"
need_space 4000 "the KUnit kernel"
quietly "$log-build.log" "building the KUnit kernel (4 minutes from cold on 2 cores)" build_kernel
"$top/scripts/debian.sh" tool herd7
"$top/scripts/debian.sh" tool sparse

say "the named tests, without a mutant"
declare -A passes=()
for p in "${patches[@]}"; do
	by=$(header "$p" Killed-by)
	[ -z "${passes[$by]:-}" ] || continue
	rc=0
	# shellcheck disable=SC2086
	run $by || rc=$?
	passes[$by]=$rc
	[ $rc -eq 0 ] || printf 'FAILED   %-62s %s\n' "$by" "${why:-does not run}"
done
echo "${#passes[@]} tests"

killed=0
survived=0
for p in "${patches[@]}"; do
	name=$(basename "$p" .patch)
	by=$(header "$p" Killed-by)
	start=$SECONDS
	why=''
	verdict=SURVIVED
	make=(build_kernel)
	case $by in
	litmus*) make=(build_object drivers/dma-buf/dma-fence.o) ;;
	sparse*|cocci*) make=(true) ;;
	esac
	reset
	if [ "${passes[$by]}" != 0 ]; then
		why="the test does not pass without it"
	elif ! git apply "$p" >"$log.log" 2>&1; then
		why="does not apply: $(head -n 1 "$log.log")"
	elif ! "${make[@]}" >"$log-build.log" 2>&1; then
		why="does not build: $(grep -m 1 -E 'error|Error' "$log-build.log")" || true
	else
		rc=0
		# shellcheck disable=SC2086
		run $by || rc=$?
		case $rc in
		0) ;;
		1) verdict=killed ;;
		*) why="the test did not run" ;;
		esac
	fi
	if [ $verdict = killed ]; then
		killed=$((killed + 1))
	else
		survived=$((survived + 1))
		cp -f "$log.log" "$log-$name.log" 2>/dev/null || true
	fi
	printf '%-8s %-38s %4s s  %s%s\n' "$verdict" "$name" $((SECONDS - start)) "$by" "${why:+: ${why:0:100}}"
done
reset
echo "$killed killed, $survived survived"
[ $survived -eq 0 ]
