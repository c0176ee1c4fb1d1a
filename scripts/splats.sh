#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# splats.sh LOG...: print every kernel splat in the logs, one line each, and fail
# if there is any. KUnit and kselftest do not see what other threads splat.
no_places=1 SERIES_LOCKED=1
. "$(dirname "$0")/common.sh"

pattern='BUG:|kernel BUG at|WARNING:|KASAN:|KCSAN:|UBSAN:|ODEBUG:|Oops|Kernel panic|'
pattern+='Unable to handle|possible (circular|recursive) locking|possible irq lock inversion|'
pattern+='inconsistent lock state|bad unlock balance|Invalid wait context|suspicious RCU usage|'
pattern+='DEBUG_LOCKS_WARN_ON|list_(add|del) corruption|refcount_t:|blocked for more than|'
pattern+='detected stall|self-detected stall|soft lockup|hard LOCKUP|scheduling while atomic|'
pattern+='kmemleak: [0-9]'

# Every UML kernel with the emulated PCI bus prints this one at boot.
known='WARNING: arch/um/drivers/virtio_pcidev\.c:[0-9]+ at '

[ $# -gt 0 ] || die "usage: splats.sh LOG..."
found=0
for log; do
	[ -f "$log" ] || die "splats.sh: no log $log"
	lines=$(console "$log" | grep -aE "$pattern" | grep -avE "$known" |
		grep -avE '^ *(ok|not ok|#) ' || true)
	[ -z "$lines" ] || printf '%s\n' "$lines" | sed "s|^|${log##*/}: |"
	found=$((found + ${#lines}))
done
[ $found -eq 0 ]
