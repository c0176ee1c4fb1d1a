#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# checkpatch.sh: the kernel's own checkpatch --strict on every patch. They have no
# Signed-off-by yet, and there is no git history to look commit ids up in.
. "$(dirname "$0")/common.sh"

have_tree
mapfile -t patches < <(list_patches)
cd "$tree"
./scripts/checkpatch.pl --strict --no-signoff --no-tree --root="$tree" --terse --show-types \
	--ignore FILE_PATH_CHANGES,GIT_COMMIT_ID,UNKNOWN_COMMIT_ID "${patches[@]}"
echo "${#patches[@]} patches, no error, warning or check"
