#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# mutants.sh [NAME...]: break the stack in one point at a time, as mutants/table says, and see
# that the test named there notices, which has to pass without a mutant first. Last line:
# 'N killed, N survived; litmus: N, N'.
. "$(dirname "$0")/common.sh"

work=$build/mutants
out=$build/mutants.kunit-um
log=$logs/mutant
litmus=Documentation/litmus-tests/dma-fence
cocci=scripts/coccinelle/misc/dma_fence.cocci

[ "$series" = all ] || die "mutants.sh breaks the stack: without it there is nothing to break"
list=$("$top/scripts/mutants.py" --list "$@")
have_tree
[ -z "$(git -C "$tree" status --porcelain -uno | head -n 1)" ] ||
	say "${tree#"$top"/} has uncommitted changes: they are not used, only HEAD is"
own_tree "$work" "$(git -C "$tree" rev-parse HEAD)"
cd "$work"
trap 'git reset -q --hard' EXIT

build_kernel() { $kunit build --build_dir="$out" --kunitconfig="$out.config" --jobs="$jobs"; }
splat() { "$top/scripts/splats.sh" "$log.kernel.log" | head -n 1 | sed 's/^[^ ]*: //' || true; }

# run KIND NAME: 0 if the test passes. Else $why says why not, and 2 that it did not run.
run() {
	local name=$2 report
	why='the test did not run'
	case $1 in
	violation)
		run_kunit "dma-buf-fence-violations.$name" --kernel_args dmabuf_kunit.provoke=1 ||
			return
		# The report that the case has to end with.
		report=$(sed -n "s/^$name\t\+//p" "$top/scripts/violations.sh")
		grep -aqF "$report" "$log.kernel.log" || why="not reported: $report"
		;;
	kunit)
		run_kunit "$name" || return
		why=$(splat)
		;;
	litmus)
		report=$(cd tools/memory-model && timeout 300 "$build/tools/bin/herd7" \
			-conf linux-kernel.cfg "../../$litmus/$name.litmus" 2>&1 | tee "$log.log" |
			awk '$1 == "Observation" { print $3 }')
		[ -n "$report" ] || return 2
		why="the result is $report"
		! grep -q "^[( ]\* Result: *$report\$" "$litmus/$name.litmus" || why=''
		;;
	sparse)
		rm -f "$out/${name%.c}.o"
		make -s ARCH=um O="$out" W=1 C=1 CHECK="$build/tools/bin/sparse" "${name%.c}.o" \
			>"$log.log" 2>&1 || return 2
		why=$(sed -n 's/.*: \(warning\|error\): //p' "$log.log" | head -n 1)
		;;
	cocci)
		# shellcheck disable=SC2046
		spatch -D report --very-quiet --no-show-diff --timeout 120 --cocci-file $cocci \
			$(sed -n 's|^// Options: ||p' $cocci) -I include "$name" >"$log.log" 2>&1 ||
			return 2
		why=$(sed -n "s|^$name:[^ ]* ||p" "$log.log" | head -n 1)
		;;
	esac
	[ -z "$why" ]
}

# A case in a boot of its own. The kernel log counts from the case on.
run_kunit() {	# SUITE.CASE KUNIT-OPTIONS...
	local suite=${1%.*} rc=0
	kunit_exec "$work" "$out" "$log" "$@" --kernel_args kasan_multi_shot --timeout 150 || rc=$?
	sed -n "/# Subtest: $suite\$/,\$p" "$out/test.log" >"$log.kernel.log" 2>/dev/null || :
	[ -s "$log.kernel.log" ] && [[ ! $cases =~ tests:\ skipped:\ [0-9]+$ ]] || return 2
	why=''
	[ $rc -ne 0 ] || return 0
	why=$(splat)
	why=${why:-$(grep -aoE '[A-Z]+ION FAILED at .*' "$log.kernel.log" | head -n 1)}
	why=${why:-the case fails, or never ends}
	return 1
}

if grep -qvE ' (litmus|cocci) ' <<<"$list"; then
	cp "$top/configs/kunit-uml.config" "$out.config"
	need_space 4000 "the KUnit kernel"
	quietly "$log-build.log" "building the KUnit kernel (4 minutes from cold)" build_kernel
fi
"$top/scripts/debian.sh" tool herd7
"$top/scripts/debian.sh" tool sparse

say "the named tests, without a mutant"
mapfile -t mutants <<<"$list"
declare -A without=() count=()
for by in "${mutants[@]#* }"; do
	[ -z "${without[$by]:-}" ] || continue
	# shellcheck disable=SC2086
	run $by && without[$by]=0 || without[$by]=$?
	[ "${without[$by]}" = 0 ] || printf 'FAILED   %-62s %s\n' "$by" "$why"
done
echo "${#without[@]} tests"

for m in "${mutants[@]}"; do
	name=${m%% *} by=${m#* } start=$SECONDS rc=0 verdict=SURVIVED part='' make=build_kernel
	case $by in litmus*|sparse*|cocci*) make=true ;; esac
	git reset -q --hard
	if [ "${without[$by]}" != 0 ]; then
		why="the test does not pass without it"
	elif ! "$top/scripts/mutants.py" --apply "$name" "$work" >"$log.log" 2>&1; then
		why="does not apply: $(<"$log.log")"
	elif ! $make >"$log-build.log" 2>&1; then
		why="does not build: $(grep -m 1 -E 'error|Error' "$log-build.log")" || true
	else
		# shellcheck disable=SC2086
		run $by || rc=$?
		[ $rc -ne 1 ] || verdict=killed
	fi
	[ $verdict = killed ] || cp -f "$log.log" "$log-$name.log" 2>/dev/null || true
	[[ $by != litmus* ]] || part=litmus
	count[$part$verdict]=$((${count[$part$verdict]:-0} + 1))
	printf '%-8s %-38s %4s s  %s%s\n' $verdict "$name" $((SECONDS - start)) "$by" \
		"${why:+: ${why:0:100}}"
done
echo "${count[killed]:-0} killed, ${count[SURVIVED]:-0} survived;" \
	"litmus: ${count[litmuskilled]:-0}, ${count[litmusSURVIVED]:-0}"
[ -z "${count[SURVIVED]:-}${count[litmusSURVIVED]:-}" ]
