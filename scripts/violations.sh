#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# violations.sh: each case of the KUnit suite dma-buf-fence-violations does what an
# issuer must not do, in a UML boot of its own, as lockdep turns itself off after a
# report. Fails if the case fails, or if the kernel log lacks the report.
. "$(dirname "$0")/common.sh"

out=$tree.kunit-um
[ -x "$out/linux" ] || die "there is no KUnit kernel yet: run 'make kunit' first"

while read -r name report; do
	[ -n "$name" ] || continue
	log=$logs/violation-$name
	rc=0
	kunit_exec "$tree" "$out" "$log" "dma-buf-fence-violations.$name" \
		--kernel_args dmabuf_kunit.provoke=1 --timeout 60 || rc=$?
	if [ $rc -eq 0 ] && [[ $cases == *'tests: passed: 1' ]] &&
		grep -aqF "$report" "$log.kernel.log"; then
		tally 0
		echo "  $name: reported, \"$report\""
	else
		tally 1
		echo "  $name: NOT reported as \"$report\"," \
			"logs: ${log#"$top"/}.log and .kernel.log"
	fi
done <<'TABLE'
list_lock			possible circular locking dependency detected
list_lock_after_nesting		possible circular locking dependency detected
status_under_list_lock		possible circular locking dependency detected
enable_under_list_lock		possible circular locking dependency detected
add_under_list_lock		possible circular locking dependency detected
two_issuers			possible circular locking dependency detected
one_issuer			possible recursive locking detected
sleep_in_enable_signaling	sleeping function called from invalid context
sleep_in_name			sleeping function called from invalid context
name_without_rcu		suspicious RCU usage
signal_without_lock		at dma_fence_signal_timestamp_locked
signal_in_enable_signaling	signaled the fence
drop_lock_in_enable_signaling	releasing a pinned lock
error_after_signal		include/linux/dma-fence.h:
TABLE
echo "$passed violations reported, $failed not"
[ $failed -eq 0 ]
