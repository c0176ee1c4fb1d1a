#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# Packages from newer Debian suites, without touching the system's sources:
#   debian.sh source VERSION   newest linux-source-VERSION into build/download
#   debian.sh tool sparse|herd7   a wrapper in build/tools/bin, run through
#                                 that suite's own loader and C library
. "$(dirname "$0")/common.sh"

apt=$build/apt
download=$build/download
tools=$build/tools

opts=(-o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
      -o "Dir::State::Lists=$apt/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
      -o "APT::Sandbox::User=$(id -un)" -o Acquire::Retries=3)

update() {
	local mirror release
	command -v apt-get >/dev/null || die "this machine has no apt; use KSRC=/path/to/a/kernel/git"
	release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	# The mirror that this machine already uses for its own release.
	mirror=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
		awk -v r="$release" '$1 == r { print $2; exit }')
	[ -n "$mirror" ] || die "no Debian mirror found in this machine's apt sources; use KSRC=/path/to/a/kernel/git"
	need_space 500 "reading Debian's package lists"
	mkdir -p "$apt/lists/partial" "$download" || die "cannot create directories under build/"
	for suite in trixie trixie-backports sid; do
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
	done >"$apt/sources.list"
	# One update a day is enough.
	if [ -z "$(find "$apt/updated" -mmin -1440 2>/dev/null)" ]; then
		rm -f "$apt/updated"
		quietly "$logs/apt-update.log" "reading Debian's package lists" \
			apt-get "${opts[@]}" --error-on=any update >&2 ||
			die "package lists could not be fetched; check the network, then run the same command again"
		touch "$apt/updated"
	fi
}

# fetch PACKAGE[=VERSION]: prints the file's name
fetch() {
	local file tmp
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

case ${1:-} in
source)
	version=${2:-}
	[ -n "$version" ] || die "usage: debian.sh source VERSION"
	have=$(ls -t "$download"/linux-source-"$version"_*.deb 2>/dev/null | head -n 1 || true)
	if [ -z "$have" ]; then
		update
		newest=
		while read -r v; do
			if [ -z "$newest" ] || dpkg --compare-versions "$v" gt "$newest"; then newest=$v; fi
		done < <(apt-cache "${opts[@]}" madison "linux-source-$version" | awk -F ' *\\| *' '{ print $2 }')
		[ -n "$newest" ] || die "BASE=$version: Debian has no package linux-source-$version"
		need_space 400 "the download of the base kernel"
		have=$(fetch "linux-source-$version=$newest")
	fi
	echo "$have"
	;;
tool)
	tool=${2:?}
	case $tool in
	sparse)	packages="sparse libc6"; binary=usr/bin/sparse; args= ;;
	herd7)	packages="herdtools7 libc6 libgmp10"; binary=usr/bin/herd7
		args="-set-libdir \$root/usr/share/herdtools7/herd" ;;
	*)	die "debian.sh: no tool '$tool'" ;;
	esac
	[ ! -x "$tools/bin/$tool" ] || exit 0
	update
	need_space 300 "$tool"
	root=$tools/$tool
	rm -rf "$root"
	mkdir -p "$root"
	for p in $packages; do
		deb=$(fetch "$p/sid")
		dpkg-deb -x "$deb" "$root"
		rm -f "$deb"
	done
	mkdir -p "$tools/bin"
	cat >"$tools/bin/$tool.tmp" <<-EOF
	#!/bin/sh
	root=\$(dirname "\$0")/../$tool
	lib=\$(dirname "\$root"/usr/lib/*/libc.so.6)
	exec "\$lib"/ld-linux-*.so.? --library-path "\$lib" "\$root/$binary" $args "\$@"
	EOF
	chmod +x "$tools/bin/$tool.tmp"
	mv "$tools/bin/$tool.tmp" "$tools/bin/$tool"
	;;
*)
	die "usage: debian.sh source VERSION | tool sparse|herd7"
	;;
esac
