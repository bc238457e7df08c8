#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs the package in one of Debian's systems, as an administrator would, and judges what came of it:
# system.sh BUILD_FOLDER NAME SUITE
#
# A real system (root.sh) with systemd as process 1 runs in QEMU, without KVM and without a network; guest/steps.sh
# is what is done in it, and says its cases on the second serial port. A disk of its own brings the package, one of
# an older version (ODI_PREVIOUS_DEB, else the same with a lower version), what the package needs from the
# distribution, and a workload. Everything that it wrote is left in BUILD_FOLDER/vm/system-NAME. The package is
# ODI_DEB, else the newest of BUILD_FOLDER/dist. Cases as tests/run.sh reads them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/vm/apt.sh
. "$here/apt.sh"
# shellcheck source=tests/vm/guest/index.sh
. "$here/guest/index.sh"
export PATH="$PATH:/usr/sbin:/sbin"

build=$(cd "${1:?usage: system.sh BUILD_FOLDER NAME SUITE}" && pwd)
name=${2:?usage: system.sh BUILD_FOLDER NAME SUITE}
suite=${3:?usage: system.sh BUILD_FOLDER NAME SUITE}
out=$build/vm/system-$name
disk=$out/disk
arch=$(dpkg --print-architecture)
if [ "$(uname -m)" != x86_64 ]; then
	echo "cannot run - the package on Debian's $suite: the guests are x86-64, this machine is $(uname -m)"
	exit 0
fi
rm -rf "$out"
mkdir -p "$disk"/{guest,old,new,needs,workloads}

# shellcheck disable=SC2012 # our own files' names
deb=${ODI_DEB:-$(ls -t "$build"/dist/odi_*_"$arch".deb 2>/dev/null | head -n 1)}
[ -e "$deb" ] || die "there is no package in $build/dist: make deb"
system=$("$here/root.sh" "$name" "$suite")
echo "# $(cat "$system/package"), $(basename "$deb"), $(stat -c %s "$deb") bytes" >&2

older_package() { # a package of a lower version, with the same in it
	dpkg-deb -R "$deb" "$out/older"
	sed -i 's/^Version: .*/&~before/' "$out/older/DEBIAN/control"
	dpkg-deb --root-owner-group -Zgzip -z1 -b "$out/older" "$disk/old/odi_before_$arch.deb" >&2
	rm -rf "$out/older"
}

# What apt would fetch for it on this very system, from the distribution. Systems of one release share apt's folders.
needed_packages() (
	exec 9>"$cache/apt.lock"
	flock 9
	own_apt "${suite%-backports}" "$arch"
	rm -f "$cache/apt/${suite%-backports}-$arch"/cache/archives/*.deb
	apt-get "${apt_options[@]}" -o Dir::State::status="$system/status" -qq -y --no-install-recommends --download-only install \
		"$(realpath "$deb")" sudo >&2
	cp "$cache/apt/${suite%-backports}-$arch"/cache/archives/*.deb "$disk/needs/" 2>/dev/null || true
	rm -f "$disk"/needs/odi_*.deb
	index_packages "$disk/needs"
)

make_disk() {
	cp "$deb" "$disk/new/"
	if [ -n "${ODI_PREVIOUS_DEB:-}" ]; then
		cp "$ODI_PREVIOUS_DEB" "$disk/old/"
	else
		older_package
	fi
	needed_packages
	cp "$here"/guest/{lib,steps,first_boot,second_boot,index}.sh "$here"/guest/{receiver,terminal}.py "$disk/guest/"
	cp README.md tests/packages/inside.sh "$disk/guest/"
	# static, so that it runs on systems older than this one; as distributions build: no frame pointers
	gcc -std=gnu17 -D_GNU_SOURCE -O2 -g -Wall -Wextra -fomit-frame-pointer -fno-optimize-sibling-calls -fno-ipa-icf \
		-fasynchronous-unwind-tables -fno-pie -static -o "$disk/workloads/shares" tests/workloads/c/shares.c
	mke2fs -q -F -t ext4 -O ^has_journal -d "$disk" "$out/test.img" "$(($(du -sm "$disk" | cut -f 1) * 5 / 4 + 24))M" >&2
	rm -rf "$disk"
	truncate -s 256M "$out/results.tar"
}

cd "$here/../.."
make_disk
began=$SECONDS
status=0
# As in kernel.sh, no cx16. What the guest writes to its root goes to a file that ends with QEMU.
TMPDIR=$out timeout -k 10 "${ODI_VM_SECONDS:-1800}" qemu-system-x86_64 -accel tcg,thread=multi -cpu qemu64,-cx16 -smp 2 -m 2048 \
	-nodefaults -display none -kernel "$system/vmlinuz" -initrd "$system/initrd" \
	-append "console=ttyS0 root=/dev/vda rw panic=-1 oops=panic loglevel=4 mitigations=off systemd.show_status=false" \
	-drive "file=$system/disk,format=raw,if=virtio,snapshot=on,cache=unsafe" \
	-drive "file=$out/test.img,format=raw,if=virtio,readonly=on" \
	-drive "file=$out/results.tar,format=raw,if=virtio,cache=unsafe" \
	-serial "file:$out/console.log" -serial "file:$out/cases.log" -serial "file:$out/live.log" </dev/null >"$out/qemu.log" 2>&1 || status=$?
cat "$out/qemu.log" >&2
tr -d '\000\r' <"$out/console.log" | grep '^guest:' >&2 || true
echo "# it took $((SECONDS - began)) s" >&2
rm -f "$out/test.img"
mkdir -p "$out/results"
tr -d '\000\r' <"$out/cases.log" | grep -E '^(not ok|ok) - ' || true
if ! tr -d '\000\r' <"$out/cases.log" | grep -q '^guest: the end$' ||
	! tar -x -f "$out/results.tar" -C "$out/results" 2>>"$out/qemu.log"; then
	echo "# qemu: exit status $status; the console's end:" >&2
	tail -n 60 "$out/console.log" | tr -d '\000\r' >&2
	echo "not ok - the guest came to its end"
	exit 1
fi
rm -f "$out/results.tar"
failed=0
if tr -d '\000\r' <"$out/cases.log" | grep -q '^not ok'; then
	failed=1
	cat "$out/results/log" >&2
fi
"$build/venv/bin/python" "$here/judge_system.py" "$out/results" "$name" "$out/console.log" || failed=1
exit $failed
