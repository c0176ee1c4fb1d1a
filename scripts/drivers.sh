#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# drivers.sh: boot a guest for each display that QEMU has, and let a selftest that knows
# nothing of its driver take it away in every way there is while it is used. Ends with a
# table; fails if anything failed, on any splat, and on a guest that never reports.
# DRIVERS= picks some, TESTS= some cases of the selftest, and UPDATE=1 writes the results of this
# and of other runs to results/drivers.md.
. "$(dirname "$0")/common.sh"

guest_arch=x86_64 guest_suffix=x86_64 guest_prefix=drivers
guest_config=(boot.config x86_64.config drivers.config drivers-x86_64.config)
. "$top/scripts/guest.sh"
. "$top/scripts/guest-run.sh"
have_tree
program=drm_device_gone
[ -f "$tree/$selftest/$program.c" ] || die "${tree#"$top"/} does not have $selftest/$program.c"

mapfile -t displays < <(grep -v '^#' "$top/configs/displays")
mapfile -t names < <(printf '%s\n' "${displays[@]%% *}")
wanted=("${names[@]}")
if [ -n "${DRIVERS:-}" ]; then
	given_words DRIVERS
	wanted=("${words[@]}")
fi

drivers_cases "$tree/$selftest/$program.c"

# The cases that a log has come to, with a display.
had_display() {
	local what='(global\.)?([a-z_.]+)'
	console "$1" | sed -nE "s/.*#  RUN +$what \.\.\.$/\2/p" | grep -vxF -f <(console "$1" |
		sed -nE "s/.*ok [0-9]+ $what # SKIP no display of .*/\2/p")
}

# run_display NAME APPEND [QEMU-OPTION...]: where a kernel dies, or its display does not come
# back, the cases that are left have another boot.
run_display() {
	local name=$1 append=$2 boot=1 only left=("${gone_cases[@]}")
	shift 2
	rm -f "$logs/drivers-$name"{,-[0-9],-[0-9][0-9]}"${variant:+-$variant}.log"
	while [ ${#left[@]} -gt 0 ]; do
		only=$(IFS=,; echo "${left[*]}")
		rm -f "$monitor"
		label=$name$([ $boot = 1 ] || echo -$boot) \
			run_selftest "$program.$only" 1500 "$append" "$@"
		mapfile -t left < <(printf '%s\n' "${left[@]}" |
			grep -vxF -f <(had_display "$guest_log"))
		[ "$only" != "$(IFS=,; echo "${left[*]}")" ] || break
		boot=$((boot + 1))
	done
}

# In the background: what it says and what came of it are in FILE and beside it.
run_lane() {	# FILE NAME APPEND [QEMU-OPTION...]
	local said=$1
	shift
	run_display "$@" >"$said" 2>&1
	printf '%s\n' "${results[@]}" >"$said.rows"
	echo "$passed $failed" >"$said.count"
}

# Until no more than N of them run.
wait_for_lanes() {	# N
	local start=$SECONDS
	while [ "$(jobs -rp | wc -l)" -gt "$1" ]; do
		sleep 1
		if (( (SECONDS - start) % 10 == 9 )); then printf '.'; fi
	done
}

programs=("$program")
guest_build
# a thread that is stuck keeps its process, and the selftest waits for that
guest_silence=200
may_skip='the device is in no slot|pluggable device|is not on PCI|is built in'
may_skip+='|no master of the bus|has no timelines'
# those have the next boot
may_skip+='|in a slot before'
at_once=$(nproc) booted=()
end_jobs_first
printf '== booting for %s, %s at a time (limit 1600 s each) ' "${wanted[*]}" "$at_once"
for display in "${displays[@]}"; do
	read -r name driver modules model <<<"$display"
	[[ " ${wanted[*]} " == *" $name "* ]] || continue
	wait_for_lanes $((at_once - 1))
	gone=DRM_DEVICE_GONE
	append="modules=$modules $gone=$driver ${gone}_QMP=/dev/ttyS1 ${gone}_MODEL=$model"
	# acpi: the tables of QEMU take longer to work through, emulated, than it gives them;
	# noapic: interrupts of slots that were empty at boot are in the table for the PIC alone
	append+=" acpi=noirq noapic slab_debug=P oops=panic softlockup_panic=1 nmi_watchdog=panic"
	# with 5 levels KASAN finds an interrupt wild while the CPU is not identified yet
	append+=" kmemleak=on selftest_leaks=1 no5lvl"
	[ "$name" != vesa ] || append+=" vga=0x317"
	slot=4
	# it has no other interrupt than a pin, which the tables of the BIOS know up to slot 6
	[ "$driver" != qxl ] || { slot=2; append+=" ${gone}_LAST_SLOT=6"; }
	# another one, with sync objects, which stays
	second=()
	[ "$driver" != virtio_gpu ] || second=(-device "$model,addr=5")
	monitor=$out/monitor-$name.sock
	booted+=("$out/lane-$name")
	rm -f "$out/lane-$name"{,.rows,.count}
	run_lane "$out/lane-$name" "$name" "$append" \
		-device "$model,id=gpu,addr=$slot" "${second[@]}" \
		-chardev "socket,id=monitor,path=$monitor,server=on,wait=off" \
		-mon chardev=monitor,mode=control -serial "unix:$monitor" &
done
wait_for_lanes 0
echo " done ($SECONDS s)"
for lane in "${booted[@]}"; do
	cat "$lane"
	if [ ! -f "$lane.count" ]; then
		result "${lane##*/lane-}" 1 "its boots have ended early, see above"
		continue
	fi
	read -r good bad <"$lane.count"
	mapfile -t rows <"$lane.rows"
	passed=$((passed + good)) failed=$((failed + bad)) results+=("${rows[@]}")
done

[ "${UPDATE:-0}" = 0 ] || "$top/scripts/drivers-report.py" "$(base_name)" "${names[@]}"
run_table "x86_64"
