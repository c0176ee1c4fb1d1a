#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Packages from newer Debian suites, without touching the system's sources:
#   debian.sh source VERSION   linux-source-VERSION into build/download: what patches/base
#                              names, or one that is there, or else the newest
#   debian.sh newest VERSION   the newest
#   debian.sh tool sparse|herd7   a wrapper in build/tools/bin, run through
#                                 that suite's own loader and C library
#   debian.sh static PACKAGE ARCH FILE   a file of a static package, for a guest
. "$(dirname "$0")/common.sh"

apt=$build/apt download=$build/download tools=$build/tools

opts=(-o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
      -o "Dir::State::Lists=$apt/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
      -o "APT::Sandbox::User=$(id -un)" -o Acquire::Retries=3)

update() {
	local mirror release keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	command -v apt-get >/dev/null ||
		die "this machine has no apt; use KSRC=/path/to/a/kernel/git"
	release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	# The mirror that this machine already uses for its own release.
	mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
		awk -v r="$release" '$1 == r { print $2; exit }')
	[ -n "$mirror" ] || die "no Debian mirror found in this machine's apt sources;" \
		"use KSRC=/path/to/a/kernel/git"
	need_space 500 "reading Debian's package lists"
	mkdir -p "$apt/lists/partial" "$download" || die "cannot create directories under build/"
	for suite in trixie trixie-backports sid; do
		echo "deb [signed-by=$keyring] $mirror $suite main"
	done >"$apt/sources.list"
	# One update a day is enough.
	if [ -z "$(find "$apt/updated" -mmin -1440 2>/dev/null)" ]; then
		rm -f "$apt/updated"
		quietly "$logs/apt-update.log" "reading Debian's package lists" \
			apt-get "${opts[@]}" --error-on=any update >&2 ||
			die "package lists could not be fetched; check the network," \
				"then run the same command again"
		touch "$apt/updated"
	fi
}

# fetch PACKAGE[=VERSION]: prints the file's name
fetch() {
	local file tmp
	say "downloading $1" >&2
	tmp=$(mktemp -d "$download/partial.XXXXXX")
	if ! (cd "$tmp" && apt-get "${opts[@]}" download "$1") >"$logs/download.log" 2>&1; then
		rm -rf "$tmp"
		tail -n 3 "$logs/download.log" >&2
		# Lists a day old may name a point release that is gone by now.
		rm -f "$apt/updated"
		die "download of $1 failed; run the same command again"
	fi
	file=$(basename "$tmp"/*.deb)
	mv "$tmp/$file" "$download/$file"
	rmdir "$tmp"
	echo "$download/$file"
}

# unpack PACKAGE...: into $root, and nothing else is there
unpack() {
	local package deb
	rm -rf "$root"
	mkdir -p "$root"
	for package; do
		deb=$(fetch "$package")
		dpkg-deb -x "$deb" "$root"
		rm -f "$deb"
	done
}

# The newest of a version that Debian has.
newest() {
	local v found=
	while read -r v; do
		if [ -z "$found" ] || dpkg --compare-versions "$v" gt "$found"; then found=$v; fi
	done < <(apt-cache "${opts[@]}" madison "linux-source-$1" | awk -F ' *\\| *' '{ print $2 }')
	[ -n "$found" ] || die "BASE=$1: Debian has no package linux-source-$1"
	echo "$found"
}

# The package that patches/base names, if it is there or Debian still has it.
pinned() {	# PACKAGE VERSION SUM
	local deb=$download/$1_$2_all.deb
	if [ -f "$deb" ] && ! sha256sum --quiet --status -c <<<"$3  $deb"; then
		say "${deb#"$top"/} is damaged: it is fetched again" >&2
		rm -f "$deb"
	fi
	if [ ! -f "$deb" ]; then
		update
		apt-cache "${opts[@]}" madison "$1" | awk -F ' *\\| *' '{ print $2 }' |
			grep -qxF "$2" || return 1
		need_space 400 "the download of the base kernel"
		deb=$(fetch "$1=$2") || exit 1
		sha256sum --quiet --status -c <<<"$3  $deb" ||
			die "${deb#"$top"/} has not the sha256 that patches/base gives"
	fi
	echo "$deb"
}

case ${1:-} in
source|newest)
	version=${2:-}
	[ -n "$version" ] || die "usage: debian.sh source|newest VERSION"
	read -r pin package wanted sum <"$top/patches/base"
	if [ "$1" = source ] && [ "$pin" = "$version" ]; then
		if pinned "$package" "$wanted" "${sum#sha256:}"; then exit; fi
	elif [ "$1" = source ]; then
		# shellcheck disable=SC2012
		have=$(ls -t "$download/linux-source-${version}_"*.deb 2>/dev/null | head -n 1) || :
		if [ -n "$have" ]; then echo "$have"; exit; fi
	fi
	update
	number=$(newest "$version")
	have=$download/linux-source-${version}_${number}_all.deb
	need_space 400 "the download of the base kernel"
	[ -f "$have" ] || have=$(fetch "linux-source-$version=$number")
	[ "$1" != source ] || [ "$pin" != "$version" ] ||
		say "Debian has no $package $wanted any more, which patches/base names:" \
			"taking $number" >&2
	echo "$have" ;;
tool)
	tool=${2:?}
	case $tool in
	sparse)	packages=(sparse libc6); binary=usr/bin/sparse; args= ;;
	herd7)	packages=(herdtools7 libc6 libgmp10); binary=usr/bin/herd7
		args="-set-libdir \$root/usr/share/herdtools7/herd" ;;
	*)	die "debian.sh: no tool '$tool'" ;;
	esac
	[ ! -x "$tools/bin/$tool" ] || exit 0
	update
	need_space 300 "$tool"
	root=$tools/$tool
	unpack "${packages[@]/%//sid}"
	mkdir -p "$tools/bin"
	cat >"$tools/bin/$tool.tmp" <<-EOF
	#!/bin/sh
	root=\$(dirname "\$0")/../$tool
	lib=\$(dirname "\$root"/usr/lib/*/libc.so.6)
	exec "\$lib"/ld-linux-*.so.? --library-path "\$lib" "\$root/$binary" $args "\$@"
	EOF
	chmod +x "$tools/bin/$tool.tmp"
	mv "$tools/bin/$tool.tmp" "$tools/bin/$tool" ;;
static)
	package=${2:?} arch=${3:?} file=${4:?}
	root=$tools/$arch/$package
	if [ ! -f "$root/$file" ]; then
		# only here, since it has lists of its own
		apt=$build/apt-$arch
		opts+=(-o "Dir::Etc::SourceList=$apt/sources.list" -o "Dir::State::Lists=$apt/lists"
			-o "APT::Architecture=$arch" -o "APT::Architectures=$arch")
		update
		need_space 100 "$package"
		unpack "$package"
		[ -f "$root/$file" ] || die "$package has no $file"
	fi
	echo "$root/$file" ;;
*)
	die "usage: debian.sh source|newest VERSION | tool sparse|herd7 |" \
		"static PACKAGE ARCH FILE" ;;
esac
