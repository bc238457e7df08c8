#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The package for arm64 on a kernel for arm64: arm64_vm.sh DEB OUT_FOLDER
#
# Its files, the libraries they need (Debian 11's, from the root that packages are built in) and a busybox are all that the guest has;
# the kernel is Debian 13's. Cases as tests/run.sh reads them.
set -euo pipefail
deb=$(realpath "${1:?usage: arm64_vm.sh DEB OUT_FOLDER}")
mkdir -p "${2:?usage: arm64_vm.sh DEB OUT_FOLDER}"
out=$(realpath "$2")
cd "$(dirname "$0")/../.."
# shellcheck source=tests/vm/boot_arm64.sh
. tests/vm/boot_arm64.sh
triplet=aarch64-linux-gnu
from=$(packaging/root.sh arm64)
guest=$out/guest

# A library that somebody needs, and what it needs itself.
add_library() { # SONAME
	local folder
	[ ! -e "$guest/lib/$1" ] || return 0
	for folder in lib/$triplet usr/lib/$triplet; do
		if [ -e "$from/$folder/$1" ]; then
			cp -L "$from/$folder/$1" "$guest/lib/"
			add_needed "$guest/lib/$1"
			return 0
		fi
	done
	echo "arm64_vm.sh: $from has no $1 for arm64" >&2
	return 1
}

add_needed() { # FILE...
	local name
	for name in $(readelf -dW "$@" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u); do
		add_library "$name"
	done
}

add_busybox() {
	# shellcheck disable=SC2016 # the inner shell's own variables
	unshare -m -- bash -c 'mount --bind "$2" "$1/mnt" && exec chroot "$1" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh -c \
		"cd /mnt && apt-get -qq -o APT::Sandbox::User=root download busybox-static:arm64"' x "$from" "$out" >&2
	dpkg-deb -x "$out"/busybox-static_*_arm64.deb "$out/busybox"
	cp "$out/busybox/bin/busybox" "$guest/bin/"
}

rm -rf "$out"
mkdir -p "$guest"/{bin,dev,etc,lib,proc,run,sys,tmp,var/lib/odi}
dpkg-deb -x "$deb" "$guest"
rm -rf "${guest:?}/usr/share"
add_busybox
add_library ld-linux-aarch64.so.1
add_library libcurl.so.4
add_needed "$guest/usr/bin/odictl" "$guest/usr/lib/odi/agentd"
cp tests/packages/guest_arm64 "$guest/init"
# the users are what sysusers would make
printf '%s:x:%s:%s::/:/bin/false\n' root 0 0 odi-agent 990 990 odi-exporter 991 991 >"$guest/etc/passwd"
printf '%s:x:%s:\n' root 0 odi-agent 990 odi-exporter 991 odi 992 odi-view 993 >"$guest/etc/group"
(cd "$guest" && find . -print0 | cpio --quiet -0 -o -H newc -R 0:0) >"$out/image.cpio"

folder=$(tests/vm/fetch.sh 6.12 trixie arm64)
echo "# $(cat "$folder/package")" >&2
status=0
boot_arm64 "$out" "$folder/vmlinuz" || status=$?
grep -E '^(not ok|ok) - ' "$out/console.txt" || true
if grep -q '^guest: done$' "$out/console.txt"; then
	echo "ok - arm64 kernel: the guest came to its end"
else
	echo "not ok - arm64 kernel: the guest came to its end (QEMU: $status)"
	exit 1
fi
! grep -q '^not ok' "$out/console.txt"
