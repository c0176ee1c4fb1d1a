#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# races.sh LOG VMLINUX: the data races that KCSAN reported in LOG, each with the
# lines of code on both sides. Fails if one is in a file that this series touches, or
# if it cannot tell; the last line counts.
. "$(dirname "$0")/common.sh"

[ $# -eq 2 ] && [ -f "$1" ] && [ -f "$2" ] || die "usage: races.sh LOG VMLINUX"
cross=
! file -b "$2" | grep -q aarch64 || [ "$(uname -m)" = aarch64 ] || cross=aarch64-linux-gnu-
touched=$(git -C "$tree" diff --name-only "$base_ref" HEAD -- '*.[ch]')

without_time() { console "$1" | sed 's/^\[[ 0-9.]*\] *//'; }
# "function+0x1/0x2" of the access on each side, one report a line
reports=$(without_time "$1" | awk '
	/^BUG: KCSAN/ { n = 0; line = ""; inside = 1; next }
	inside && /^(read|write|read-write)[a-z() -]* to .* by / { want = 1; next }
	inside && /^race at unknown origin/ { want = 1; next }
	inside && want && /\+0x[0-9a-f]+\/0x[0-9a-f]+/ { line = line " " $1; want = 0 }
	inside && /^Reported by/ { print line; inside = 0 }' | sort | uniq -c | sort -rn)
ours=0 elsewhere=0
titles=$(without_time "$1" | grep -ac '^BUG: KCSAN' || true)
whole=$(awk '{ n += $1 } END { print n + 0 }' <<<"$reports")
if [ "$titles" != "$whole" ]; then
	ours=$((titles - whole))
	echo "$ours reports that cannot be read"
fi
while read -r count sides; do
	[ -n "$count" ] || continue
	unknown=
	where=$(for side in $sides; do
		echo "$side"
		CROSS_COMPILE=$cross "$tree/scripts/faddr2line" "$2" "$side" 2>&1 |
			sed -n 's/^.* at \([^ ]*:[0-9?]*\).*/\1/p' |
			sed "s|^$tree/||; s|^.*/\./||; s/^/    /"
	done)
	located=$(grep -B 1 '^ ' <<<"$where" | grep -c '^[^ -]') || true
	[ "$(grep -c '^[^ ]' <<<"$where")" = "$located" ] || unknown=', or who knows where'
	if [ -n "$unknown" ] ||
		sed -n 's/^ *\([^:]*\):.*/\1/p' <<<"$where" | grep -qxFf <(echo "$touched"); then
		ours=$((ours + 1))
		echo "RACE in a touched file$unknown, reported $count times:"
	else
		elsewhere=$((elsewhere + 1))
		echo "race elsewhere, reported $count times:"
	fi
	# shellcheck disable=SC2001
	sed 's/^/    /' <<<"$where"
done <<<"$reports"
echo "$ours races in files of the series, $elsewhere elsewhere"
[ $ours -eq 0 ]
