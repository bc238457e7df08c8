#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints the folder of one of Debian's systems, ready to boot: root.sh NAME SUITE
#
# In it lie disk (an ext4 file system: Debian's smallest system with systemd, a kernel, Python, certificates and what prints
# manual pages), vmlinuz, initrd, status (dpkg's list of what is installed), package (the kernel's name and
# version). Made once, of Debian's packages only (apt.sh says whence); remove the folder to have it made anew. The
# suite SUITE-backports is the system of SUITE with the kernel of its backports.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/vm/apt.sh
. "$here/apt.sh"

name=${1:?usage: root.sh NAME SUITE}
suite=${2:?usage: root.sh NAME SUITE}
base=${suite%-backports}
arch=$(dpkg --print-architecture)
folder=$cache/system-$name-$arch

packages=systemd,systemd-sysv,dbus,udev,kmod,procps,initramfs-tools,python3,man-db,bash-completion,less,iproute2,ca-certificates
# Another recipe makes another system: a change of this file that does is another number.
recipe="1 $suite $packages $(grep -v '^ *#' "$here/guest/system.sh" | sha256sum)"
if [ "$(cat "$folder/recipe" 2>/dev/null)" = "$recipe" ]; then
	echo "$folder"
	exit 0
fi
[ "$(id -u)" = 0 ] || die "making Debian's systems needs root: put sudo before the command"
own_apt "$base" "$arch"

mkdir -p "$cache"
work=$(mktemp -d "$cache/system.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root
export DPKG_FORCE=unsafe-io
PATH="$PATH:/usr/sbin:/sbin" debootstrap --variant=minbase --arch="$arch" --include="$packages" \
	--keyring="$keyring" "$base" "$root" "$mirror" >&2 || die "debootstrap could not make $base"

{
	echo "deb [signed-by=$keyring] $mirror $base main"
	[ "$suite" = "$base" ] || echo "deb [signed-by=$keyring] $mirror $suite main"
} >"$root/etc/apt/sources.list"
cp "$keyring" "$root$keyring" 2>/dev/null || true
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cp "$here/guest/system.sh" "$root/system.sh"
# /proc in a mount namespace of its own: nothing is left mounted whatever happens
# shellcheck disable=SC2016 # the inner shell's variables
unshare --mount --fork sh -c 'mount -t proc proc "$1/proc" && mount -t sysfs -o ro sysfs "$1/sys" &&
	exec chroot "$1" /bin/bash /system.sh "$2" "$3"' sh "$root" "$suite" "$arch" >&2 ||
	die "the kernel of $suite could not be installed"
rm -f "$root/system.sh"

mkdir "$work/new"
mv "$root"/boot/vmlinuz-* "$work/new/vmlinuz"
mv "$root"/boot/initrd.img-* "$work/new/initrd"
cp "$root/var/lib/dpkg/status" "$work/new/status"
# shellcheck disable=SC2016 # dpkg's own variables
dpkg-query --admindir="$root/var/lib/dpkg" -W --showformat '${Package} ${Version}\n' 'linux-image-[0-9]*' |
	awk 'NF == 2' >"$work/new/package"
size=$(($(du -s --block-size=1M "$root" | cut -f 1) + 700))
PATH="$PATH:/usr/sbin:/sbin" mke2fs -q -F -t ext4 -L root -O ^metadata_csum_seed,^orphan_file -d "$root" \
	"$work/new/disk" "${size}M" >&2 2>/dev/null ||
	PATH="$PATH:/usr/sbin:/sbin" mke2fs -q -F -t ext4 -L root -d "$root" "$work/new/disk" "${size}M" >&2
echo "$recipe" >"$work/new/recipe"
rm -rf "$folder"
mv "$work/new" "$folder"
echo "$folder"
