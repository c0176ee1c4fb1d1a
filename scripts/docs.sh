#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# docs.sh kernel-doc|html: what the series does to the documentation. Fails on a message
# that the base does not give. kernel-doc: the kernel's kernel-doc -Wall on every C file
# and header that the series touches. html: `make htmldocs` of the documents that it
# touches, of those that take a comment out of a file it touches, and of the indexes
# above them. The rest of Documentation/ would take an hour.
. "$(dirname "$0")/common.sh"

# The Makefile exports it empty, which the kernel's does not take.
unset ARCH

[ "$series" = all ] || die "docs.sh compares the base with the series: not with SERIES=$series"
have_tree
case ${1:-} in kernel-doc|html) ;; *) die "usage: docs.sh kernel-doc|html" ;; esac
log=$logs/docs-$1
touched=$(git -C "$tree" diff --name-only "$base_ref" HEAD)
sources=$(grep -E '^(drivers|include|lib|kernel|mm)/.*\.[ch]$' <<<"$touched" || true)

kernel_doc() (	# SRC
	script=scripts/kernel-doc
	cd "$1"
	[ ! -x tools/docs/kernel-doc ] || script=tools/docs/kernel-doc
	mapfile -t files < <(xargs -d '\n' ls -d 2>/dev/null <<<"$sources")
	[ ${#files[@]} -eq 0 ] || "./$script" -none -Wall "${files[@]}" 2>&1 || true
)

documents() {
	grep -E '^Documentation/.*\.rst$' <<<"$touched" || true
	cd "$tree"
	grep -rE '^ *\.\. kernel-doc:: ' Documentation --include='*.rst' |
		grep -wF "${sources:-no source}" | cut -d: -f1 || true
}
indexes() {
	local file
	while read -r file; do
		while file=$(dirname "$file"); [[ $file == */* ]]; do echo "$file/index.rst"; done
	done
}
documents=$(documents | grep -v /translations/ | sort -u) || true
figure="$(wc -w <<<"$sources") files"
if [ "$1" = html ]; then
	figure="$(wc -w <<<"$documents") documents"
	documents=$({ echo "$documents"; indexes <<<"$documents"; } | sort -u)
fi

html() {	# SRC
	# SPHINXDIRS= keeps to some directories, include_patterns to some files there.
	local dirs patterns
	[ -n "$documents" ] || return 0
	dirs=$(cut -s -d/ -f2 <<<"$documents" | sort -u | paste -sd' ')
	patterns=$(cut -d/ -f3- <<<"$documents" | sort -u | paste -sd,)
	rm -rf "$build/docs"
	make -s -C "$1" O="$build/docs" SPHINXDIRS="$dirs" \
		SPHINXOPTS="-j$jobs -D include_patterns=$patterns" htmldocs
}

# A reference to what was not read here is no mistake if that exists.
exists() {	# MESSAGE
	local name
	name=$(sed -nE "s/.*(undefined label|unknown document): '([^']*)'.*/\2/p" <<<"$1")
	[ -n "$name" ] || return 1
	[ -f "$tree/Documentation/${name#/}.rst" ] ||
		git -C "$tree" grep -qiF ".. _$name:" -- Documentation
}

for which in base series; do
	src=$tree
	[ $which = series ] || src=$base_tree
	case ${1:-} in
	kernel-doc) kernel_doc "$src" >"$log.$which.raw" ;;
	html)	html "$src" >"$log.$which.raw" 2>&1 ||
			{ tail -n 10 "$log.$which.raw"; die "htmldocs failed on the $which"; } ;;
	esac
	"$top/scripts/objects.py" messages "$src" <"$log.$which.raw" >"$log.$which"
done
new=$(comm -13 "$log.base" "$log.series" |
	while read -r message; do exists "$message" || echo "$message"; done)
[ -z "$new" ] || { echo "new with the stack:"; echo "$new"; }
echo "$figure, messages: base $(wc -l <"$log.base"), series $(wc -l <"$log.series")"
[ -z "$new" ]
