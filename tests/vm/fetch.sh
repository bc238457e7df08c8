#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints the folder of one of Debian's kernels: fetch.sh KERNEL SUITE [ARCHITECTURE]
#
# In it lie vmlinuz, and package (name and version). Fetched by apt once, from the mirror that this machine's
# apt uses for Debian (else ODI_DEBIAN_MIRROR says which), by lists and settings of its own: /etc/apt and what
# is installed are not touched. Kept in ODI_KERNELS (default: odi/kernels in the user's cache folder); remove
# a folder there to have it fetched anew.
set -euo pipefail

kernel=${1:?usage: fetch.sh KERNEL SUITE [ARCHITECTURE]}
suite=${2:?usage: fetch.sh KERNEL SUITE [ARCHITECTURE]}
arch=${3:-$(dpkg --print-architecture)}
cache=${ODI_KERNELS:-${XDG_CACHE_HOME:-$HOME/.cache}/odi/kernels}
folder=$cache/$kernel-$arch

if [ -s "$folder/vmlinuz" ]; then
	echo "$folder"
	exit 0
fi

die() {
	echo "fetch.sh: $*" >&2
	exit 1
}

command -v apt-get >/dev/null 2>&1 || die "Debian's kernels are fetched by apt, which this machine has not"
mirror=${ODI_DEBIAN_MIRROR:-}
if [ -z "$mirror" ]; then
	# the first archive of Debian's that apt knows and that is not the one of security updates
	# shellcheck disable=SC2016 # apt's own variables
	mirror=$(apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
		awk '$1 == "Debian" && $2 == "main" && $3 !~ /security/ { print $4; exit }')
fi
[ -n "$mirror" ] || die "apt knows no archive of Debian's here: name one in ODI_DEBIAN_MIRROR"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e "$keyring" ] || die "Debian's keys are missing: apt install debian-archive-keyring"

apt=$cache/apt/$suite-$arch
mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/parts"
: >"$apt/status"
echo "deb [signed-by=$keyring] $mirror $suite main" >"$apt/sources.list"
options=(
	-o Dir::Etc::sourcelist="$apt/sources.list" -o Dir::Etc::sourceparts="$apt/parts"
	-o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts="$apt/parts"
	-o Dir::State="$apt" -o Dir::State::lists="$apt/lists" -o Dir::State::status="$apt/status"
	-o Dir::Cache="$apt/cache" -o APT::Architecture="$arch" -o APT::Architectures::="$arch"
	-o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
	-o Acquire::Retries=3 -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0
)

# The smaller build for virtual machines; the metapackage names the newest one.
apt-get "${options[@]}" -qq update >&2 || die "apt cannot read $suite of $mirror"
package=$(apt-cache "${options[@]}" depends "linux-image-cloud-$arch" |
	sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
[ -n "$package" ] || die "$suite has no linux-image-cloud-$arch"
case $package in
"linux-image-$kernel."*) ;;
*) die "the kernel of $suite is $package, not $kernel" ;;
esac

work=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get "${options[@]}" -qq download "$package" >&2) || die "apt cannot fetch $package"
mkdir "$work/new"
dpkg-deb --fsys-tarfile "$work"/*.deb | tar -x -C "$work/new" --wildcards './boot/vmlinuz-*'
mv "$work"/new/boot/vmlinuz-* "$work/new/vmlinuz"
rmdir "$work/new/boot"
# shellcheck disable=SC2016 # dpkg's own variables
dpkg-deb -W --showformat '${Package} ${Version}\n' "$work"/*.deb >"$work/new/package"
rm -rf "$folder"
mv "$work/new" "$folder"
echo "$folder"
