#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# clean.sh: remove build/, unless a work tree has changes that are nowhere else.
. "$(dirname "$0")/common.sh"

[ -z "$ksrc" ] && [ "$base" = "$default_base" ] || die "clean removes all of build/: leave KSRC and BASE out"
for state in "$build"/*.applied; do
	[ -f "$state" ] || continue
	dir=${state%.applied}
	[ -d "$dir" ] || continue
	tree=$dir
	not_rebasing
	read -r commit _ <"$state"
	[ "$(git -C "$dir" rev-parse HEAD)" = "$commit" ] && [ -z "$(git -C "$dir" status --porcelain | head -n 1)" ] ||
		die "${dir#"$top"/} has changes of its own: commit them and 'make export' keeps them, or remove build/ by hand"
done
# Out of the way first, so that an interrupted clean leaves nothing half there.
gone=$top/build.rm.$$
say "removing build/ (minutes on a slow disk)"
mv "$build" "$gone"
rm -rf "$top"/build.rm.*
