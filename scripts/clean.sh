#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# clean.sh: remove build/, unless a work tree has changes that are nowhere else.
. "$(dirname "$0")/common.sh"

[ -z "$variant" ] || die "clean removes all of build/: leave KSRC, BASE, SERIES and TOPICS out"
changed=$("$top/scripts/stack.py" changed | head -n 1)
[ -z "$changed" ] ||
	die "$changed; or remove build/ by hand"
# Out of the way first, so that an interrupted clean leaves nothing half there.
gone=$top/build.rm.$$
say "removing build/ (minutes on a slow disk)"
mv "$build" "$gone"
rm -rf "$top"/build.rm.*
