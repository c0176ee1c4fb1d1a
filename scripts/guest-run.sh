# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2154
# Sourced after guest.sh by what boots guests for a table of results.

# guest NAME SECONDS APPEND [QEMU-OPTION...]: boot, with the console in a log.
guest() {
	local name=$1
	guest_log=$logs/${guest_prefix:-boot}-$name
	[ "${kcsan:-0}" = 0 ] || guest_log=$guest_log-kcsan
	[ "${guest_arch:-}" != arm ] || guest_log=$guest_log-arm
	guest_log=$guest_log${KERNEL:+-$KERNEL}${variant:+-$variant}.log
	guest_rc=0 guest_start=$SECONDS
	shift
	echo "${SERIES_COMMIT:-not recorded}" >"$guest_log.commit"
	: >"$guest_log"
	quietly "$guest_log.qemu" "booting for $name (limit $1 s)" \
		guest_boot "$guest_log" "$@" || guest_rc=$?
}

results=()
result() {	# NAME OK? DETAIL
	local word=passed
	tally "$2"
	[ "$2" = 0 ] || word=FAILED
	results+=("$(printf '%-7s %-24s %s' "$word" "$1" "$3")")
}

# judge NAME OK? DETAIL, or NAME selftest EXIT MAY-SKIP: what judge.py makes of the boot. The
# races that KCSAN reports are for races.sh to judge.
judge() {
	local name=$1 said=$guest_log races='' detail ok=0 time=$((SECONDS - guest_start))
	shift
	if [ "${kcsan:-0}" = 1 ]; then
		"$top/scripts/races.sh" "$guest_log" "$out/vmlinux" >"$guest_log.races" || ok=1
		races="; KCSAN: $(tail -n 1 "$guest_log.races")" said=$guest_log.rest
		grep -av 'BUG: KCSAN' "$guest_log" >"$said" || true
	fi
	detail=$("$top/scripts/judge.py" "$said" "$@") || ok=1
	result "$name" "$ok" "$detail$races (${time} s)"
	[ "$ok" = 0 ] || results+=("        log: ${guest_log#"$top"/}")
}

# A selftest in userspace; the table has it as $label if that is set. Without KUnit, which
# lets kmemleak report what its suites keep for debugfs.
run_selftest() {	# PROGRAM[.CASE] SECONDS APPEND [QEMU-OPTION...]
	local name=$1 limit=$2 append=$3 label=${label:-$1}
	shift 3
	[[ $name != *.* ]] || append+=" selftest_only=${name#*.}"
	append="kunit.enable=0 selftest=${name%%.*} selftest_timeout=$limit $append"
	guest "$label" $((limit + 100)) "$append" "$@"
	judge "$label" selftest "$guest_rc" "$may_skip"
	console "$guest_log" | grep 'Brought up 1 node, 2 CPUs' >/dev/null ||
		result "$label" 1 "a guest with one CPU has no races"
	console "$guest_log" | grep -aE '^(not ok|ok .*# SKIP|#.*power:)' | cut -c1-150 |
		sed 's/^/    /' || true
}

# run_table WHERE: what came of it all; fails if anything did.
run_table() {
	local with
	case $series in
	all) with="with the stack" ;;
	none) with="without fixes, tests only" ;;
	topics) with="with the topics $topics" ;;
	esac
	echo
	echo "$1, $(base_name), $with"
	printf '%s\n' "${results[@]}"
	echo "$passed passed, $failed failed"
	[ "$failed" -eq 0 ]
}
