#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# litmus.sh: run the dma-fence litmus tests of the work tree with herd7 against the
# memory model of that tree. Outcome and data race both have to be as the test's
# "Result:" line says. The tree's own checklitmus.sh wants herd7 in the path, leaves
# its output in the tree, and forgives any outcome of a test with a data race.
. "$(dirname "$0")/common.sh"

have_tree
"$top/scripts/debian.sh" tool herd7
# The model's files refer to each other by relative names.
cd "$tree/tools/memory-model"

for t in ../../Documentation/litmus-tests/dma-fence/*.litmus; do
	[ -f "$t" ] || die "no dma-fence litmus tests in ${tree#"$top"/}"
	name=$(basename "$t" .litmus)
	expected=$(sed -n 's/^[( ]\* Result: *//p' "$t" | head -n 1)
	status=0
	out=$(timeout 300 "$build/tools/bin/herd7" -conf linux-kernel.cfg "$t" 2>&1) || status=$?

	got=$(awk '$1 == "Observation" { print $3 }' <<<"$out")
	if grep -q '^Flag data-race$' <<<"$out"; then got+=" DATARACE"; fi
	if [ $status -ne 0 ]; then
		got="herd7 error $status"
	elif ! grep -qF "Test $name Allowed" <<<"$out"; then
		got="another name inside"
	elif grep -q '^Observation .* Never 0 0$' <<<"$out"; then
		got="no execution at all"
	fi

	wrong=0 verdict=ok
	[ -n "$expected" ] && [ "$got" = "$expected" ] || wrong=1 verdict=FAILED
	tally $wrong
	printf '%-8s %-42s expected %-20s got %s\n' "$verdict" "$name" "${expected:-nothing}" "$got"
	[ $status -eq 0 ] || tail -n 5 <<<"$out" | sed 's/^/    /'
done
echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
