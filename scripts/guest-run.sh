# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash disable=SC2154
# Sourced after guest.sh by what boots guests for a table of results.

# guest NAME SECONDS APPEND [QEMU-OPTION...]: boot, with the console in a log.
guest() {
	local name=$1
	guest_log=$logs/${guest_prefix:-boot}-$name
	[ "${kcsan:-0}" = 0 ] || guest_log=$guest_log-kcsan
	guest_log=$guest_log${KERNEL:+-$KERNEL}${variant:+-$variant}.log
	guest_rc=0 guest_start=$SECONDS
	shift
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

# What a splat or a silent guest makes of a result that looked good.
judge() {	# NAME OK? DETAIL
	local splats detail=$3 ok=$2 time=$((SECONDS - guest_start))
	if [ "${kcsan:-0}" = 1 ]; then
		"$top/scripts/races.sh" "$guest_log" "$out/vmlinux" >"$guest_log.races" || ok=1
		detail="$detail; KCSAN: $(tail -n 1 "$guest_log.races")"
		grep -v 'BUG: KCSAN' "$guest_log" >"$guest_log.rest" || true
		splats=$("$top/scripts/splats.sh" "$guest_log.rest") || true
	else
		splats=$("$top/scripts/splats.sh" "$guest_log") || true
	fi
	if [ -n "$splats" ]; then
		ok=1
		detail="$detail; $(wc -l <<<"$splats") splats:"
		detail="$detail $(head -n 1 <<<"$splats" | cut -d: -f2- | cut -c1-90)"
	fi
	result "$1" "$ok" "$detail (${time} s)"
	[ "$ok" = 0 ] || results+=("        log: ${guest_log#"$top"/}")
}

# A selftest in userspace; the table has it as $label if that is set. Without KUnit, which
# lets kmemleak report what its suites keep for debugfs.
run_selftest() {	# PROGRAM[.CASE] SECONDS APPEND [QEMU-OPTION...]
	local name=$1 limit=$2 append=$3 label=${label:-$1} code pass fail skip unexpected off ok=0
	shift 3
	[[ $name != *.* ]] || append+=" selftest_only=${name#*.}"
	append="kunit.enable=0 selftest=${name%%.*} selftest_timeout=$limit $append"
	guest "$label" $((limit + 100)) "$append" "$@"
	code=$(console "$guest_log" | sed -n 's/.*boot-init: selftest exit=\([0-9]*\).*/\1/p' |
		tail -n 1)
	if [ -z "$code" ]; then
		judge "$label" 1 "the guest never reported; last line: $(last_line "$guest_log" 80)"
	else
		pass=$(console "$guest_log" | grep -cE '^ok [0-9]' || true)
		fail=$(console "$guest_log" | grep -cE '^not ok [0-9]' || true)
		skip=$(console "$guest_log" | grep -cE '^ok [0-9].*# SKIP' || true)
		unexpected=$(console "$guest_log" | grep -E '^ok [0-9].*# SKIP' |
			grep -cvE "$may_skip" || true)
		# a guest that does not power off has hung in the end
		off=$([ "$guest_rc" = 0 ] || echo ", no power off")
		[ "$guest_rc $code $fail $unexpected" = "0 0 0 0" ] &&
			[ "$pass" -gt "$skip" ] || ok=1
		judge "$label" $ok \
			"$((pass - skip)) passed, $fail failed, $skip skipped, exit $code$off"
	fi
	console "$guest_log" | grep -E '^not ok|# SKIP|power:' | cut -c1-150 |
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
