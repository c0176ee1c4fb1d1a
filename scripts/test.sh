#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# test.sh: the KUnit suites on UML and the checks on the stack, these not if it is only a part
# of it. Last line: 'N passed, N failed'.
. "$(dirname "$0")/common.sh"

rm -f "$logs/kunit-um.result" "$logs/check-series.result"
ARCH=um with_us "$top/scripts/kunit.sh" || true
[ "$series" != all ] || with_us "$top/scripts/check-series.sh" || true

for part in kunit-um check-series; do
	[ "$series" = all ] || [ $part != check-series ] || continue
	# What ended before it could count has said why.
	p=0 f=1
	[ ! -f "$logs/$part.result" ] || read -r p f <"$logs/$part.result"
	passed=$((passed + p))
	failed=$((failed + f))
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
