#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# coccicheck.sh: run the series' semantic patch on everything that mentions a
# dma_fence, on the base and with the series. Fails if the series has a report, or if
# the base has none, as then nothing was looked at.
. "$(dirname "$0")/common.sh"

[ "$series" = all ] ||
	die "coccicheck.sh compares the base with the series: not with SERIES=$series"
have_tree
cocci=$tree/scripts/coccinelle/misc/dma_fence.cocci
[ -f "$cocci" ] || die "${tree#"$top"/} has no ${cocci#"$tree"/}"
options=$(sed -n 's|^// Options: ||p' "$cocci")
export spatch="spatch -D report --very-quiet --no-show-diff --timeout 120 --cocci-file $cocci"
spatch+=" $options -I include"

look='$spatch "$1" || echo "spatch failed on $1: ERROR: see above"'

reports() {	# TREE LOG
	cd "$1"
	# One spatch a file: several on one command line are matched as one program.
	grep -rlE --include='*.[ch]' 'dma_fence|extern_lock' drivers include | sort |
		xargs -P "$jobs" -n 1 sh -c "$look" sh >"$2.raw" 2>&1
	sort -u "$2.raw" | sed '/^$/d' >"$2"
}

for which in base series; do
	log=$logs/coccicheck.$which
	src=$tree
	[ $which = series ] || src=$base_tree
	quietly "$logs/coccicheck.log" "semantic patch on the $which (3 minutes on 2 cores)" \
		reports "$src" "$log"
done
before=$(wc -l <"$logs/coccicheck.base")
after=$(wc -l <"$logs/coccicheck.series")
[ "$after" = 0 ] || cat "$logs/coccicheck.series"
echo "reports: base $before, series $after (logs: build/logs/coccicheck.base and .series)"
[ "$before" -gt 0 ] && [ "$after" = 0 ]
