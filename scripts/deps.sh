#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0
# deps.sh GROUP...: install the Debian packages that a target needs and the
# machine lacks: as root, through sudo, or else print the command.
# It is what brings python3 and git, which the names of places want.
no_places=1
. "$(dirname "$0")/common.sh"

declare -A group=(
	[source]="git python3 xz-utils"
	[build]="gcc libc6-dev make flex bison bc libelf-dev libssl-dev python3 perl cpio rsync"
	[again]="ccache"
	[arm64]="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-system-arm"
	[x86_64]="qemu-system-x86"
	[arm]="gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-system-arm"
	[riscv64]="gcc-riscv64-linux-gnu"
	[ppc64]="gcc-powerpc64-linux-gnu"
	[clang]="${CLANG:-clang}"
	[coccinelle]="coccinelle"
	[lint]="shellcheck"
	[docs]="python3-sphinx python3-yaml graphviz"
	[mail]="git-email libmailtools-perl libauthen-sasl-perl"
	[sink]="python3 python3-aiosmtpd"
)

missing=()
for g; do
	[ -n "${group[$g]:-}" ] || die "deps.sh: no group '$g'"
	for p in ${group[$g]}; do
		dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed ||
			missing+=("$p")
	done
done
[ ${#missing[@]} -gt 0 ] || exit 0

command -v apt-get >/dev/null ||
	die "this machine has no apt; install what corresponds to: ${missing[*]}"

run=()
if [ "$(id -u)" -ne 0 ]; then
	sudo -n true 2>/dev/null ||
		die "missing packages; run: sudo apt-get install --no-install-recommends" \
			"${missing[*]}"
	run=(sudo)
fi
install_missing() {
	"${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qy \
		-o DPkg::Lock::Timeout=300 install --no-install-recommends "${missing[@]}"
}
# A fresh machine has no package lists, an old one has stale ones: retry once.
install_or_update() {
	install_missing || { "${run[@]}" apt-get -qy update && install_missing; }
}
quietly "$logs/deps.log" "installing ${missing[*]}" install_or_update ||
	die "try by hand: apt-get install --no-install-recommends ${missing[*]}"
