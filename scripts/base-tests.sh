#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# base-tests.sh: the tests alone, without a fix, build on the base with lockdep: "SERIES=none" of
# make boot and make kunit is how one sees them fail.
export SERIES=none SCOPE=tree TOPICS=
. "$(dirname "$0")/common.sh"
"$top/scripts/stack.py" tree --keep
out=$tree.um log=$logs/base-tests.raw
[ -f "$out/.prepared" ] || "$top/scripts/objects.py" prepare um "$tree" "$out"
make -C "$tree" ARCH=um O="$out" -j"$jobs" W=1 drivers/dma-buf/ drivers/gpu/drm/tests/ \
	drivers/gpu/drm/scheduler/ 2>&1 | tee "$log"
! "$top/scripts/objects.py" join <"$log" | grep -E 'st-|/tests/' || die "messages about tests"
echo "the tests build on ${tree#"$top"/}, with lockdep and W=1"
