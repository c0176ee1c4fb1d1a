#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# export.sh [--check]: write the commits of the work tree to patches/ and the files
# they add to their in-tree places here. With --check only say what would change.
. "$(dirname "$0")/common.sh"

case ${1:-} in ''|--check) ;; *) die "usage: export.sh [--check]" ;; esac
[ "$series" = all ] || die "export works on the full series, not with SERIES=$series"
[ -z "$ksrc" ] && [ "$base" = "$default_base" ] || die "export works on the default base, not with KSRC= or BASE="
[ -d "$tree" ] || die "there is no work tree yet: run 'make tree' first"
not_rebasing
[ -z "$(git -C "$tree" status --porcelain | head -n 1)" ] ||
	die "${tree#"$top"/} has uncommitted changes: commit them first"

new=$(mktemp -d "$build/export.XXXXXX")
trap 'rm -rf "$new"' EXIT
mkdir "$new/patches"

# The identity in the mails is the sender's, put in by the one who sends. What
# is kept here names nobody, and does not change with time or git version.
git -C "$tree" format-patch -q --no-signature --zero-commit --no-numbered \
	--full-index --abbrev=12 -o "$new/patches" base..HEAD
for p in "$new"/patches/*.patch; do
	sed -i -e '1,/^---$/{/^From: /s/.*/From: series <series@localhost>/
/^Date: /s/.*/Date: Thu, 1 Jan 2026 00:00:00 +0000/
s/^Subject: \[PATCH\]/Subject: [PATCH]/}' "$p"
	! grep -q '^Signed-off-by:' "$p" ||
		die "$(basename "$p") has a Signed-off-by, which is the sender's to add: sign in a tree of your own, see README"
	subject=$(patch_subject "$p")
	[ -n "$(patch_subset "$subject")" ] ||
		die "patches/subsets says nothing about '$subject': add a line 'fixes|core|drivers|i915|xe|usb|iio|tests<TAB>subject'"
done
cp "$top/patches/subsets" "$new/patches/"
if [ -f "$top/patches/0000-cover-letter.patch" ]; then
	n=$(find "$new/patches" -name '*.patch' | wc -l)
	sed "s|^Subject: \[PATCH 00/[0-9]*\]|Subject: [PATCH 00/$n]|" "$top/patches/0000-cover-letter.patch" >"$new/cover"
	mv "$new/cover" "$new/patches/0000-cover-letter.patch"
fi

# Files that the series adds, whole.
git -C "$tree" diff --diff-filter=A --name-only base HEAD | while read -r file; do
	mkdir -p "$new/$(dirname "$file")"
	cp "$tree/$file" "$new/$file"
done

# Entries of MAINTAINERS that the series adds or changes, in the kernel's format.
git -C "$tree" show base:MAINTAINERS >"$new/MAINTAINERS.base"
awk -v RS= -v ORS='\n\n' 'NR == FNR { old[$0]; next } !($0 in old)' \
	"$new/MAINTAINERS.base" "$tree/MAINTAINERS" | sed '$d' >"$new/MAINTAINERS"
rm "$new/MAINTAINERS.base"
[ -s "$new/MAINTAINERS" ] || rm "$new/MAINTAINERS"

# In-tree places in this repository; its own scripts and configs are not there.
places="patches drivers include Documentation tools scripts/coccinelle MAINTAINERS"

if [ "${1:-}" = --check ]; then
	rc=0
	for place in $places; do
		[ -e "$top/$place" ] || [ -e "$new/$place" ] || continue
		diff -rqN "$top/$place" "$new/$place" | sed "s|$new/|(work tree) |; s|$top/||" || rc=1
	done
	[ $rc -eq 0 ] || die "patches/ and the in-tree files differ from the work tree: 'make export' writes them"
	exit 0
fi

# patches/ may have been edited or pulled since the tree was made from it.
read -r _ made_from <"$tree.applied" || true
[ "$(tree_sum)" = "${made_from:-}" ] ||
	die "patches/ has changed since ${tree#"$top"/} was made from it: export would undo that; see 'git status' and 'git log' here, or remove ${tree#"$top"/}.applied to export all the same"

# Only what git knows of is replaced. Anything else there is yours.
for place in $places; do
	git -C "$top" ls-files -z -- "$place" | (cd "$top" && xargs -0 -r rm -f --)
	[ ! -d "$new/$place" ] || { mkdir -p "$top/$place"; cp -a "$new/$place/." "$top/$place/"; }
	[ ! -f "$new/$place" ] || cp -a "$new/$place" "$top/$place"
	[ ! -d "$top/$place" ] || find "$top/$place" -type d -empty -delete
done
# Patches of an earlier export that git has not seen and that are no more.
for p in "$top"/patches/[0-9][0-9][0-9][0-9]-*.patch; do
	[ -f "$new/patches/$(basename "$p")" ] || rm -f "$p"
done
echo "$(git -C "$tree" rev-parse HEAD) $(tree_sum)" >"$tree.applied"
say "$(list_patches | wc -l) patches written to patches/"
