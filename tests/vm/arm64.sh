#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Whether an arm64 kernel's verifier takes the programs: arm64.sh BUILD_FOLDER KERNEL SUITE
#
# Its guest runs tests/unit/sampler/verifier_test.c, compiled across and linked to Debian's libraries for arm64,
# and nothing else: agentd as a whole is not built across here. Cases as tests/run.sh reads them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/vm/apt.sh
. "$here/apt.sh"

build=$(cd "${1:?usage: arm64.sh BUILD_FOLDER KERNEL SUITE}" && pwd)
kernel=${2:?usage: arm64.sh BUILD_FOLDER KERNEL SUITE}
suite=${3:?usage: arm64.sh BUILD_FOLDER KERNEL SUITE}
out=$build/vm/$kernel-arm64
cd "$here/../.."

# The newest libraries, so that they are not older than what the cross compiler was made for.
libraries=trixie
packages=(busybox-static libc6 libbpf1 libbpf-dev libelf1t64 zlib1g libzstd1 libcmocka0 libcmocka-dev)
triplet=aarch64-linux-gnu
sysroot=$cache/root-$libraries-arm64

fetch_libraries() {
	local work deb
	own_apt "$libraries" arm64
	work=$(mktemp -d "$cache/fetch.XXXXXX")
	# shellcheck disable=SC2064 # this folder
	trap "rm -rf '$work'" EXIT
	(cd "$work" && apt-get "${apt_options[@]}" -qq download "${packages[@]}" >&2)
	for deb in "$work"/*.deb; do
		dpkg-deb -x "$deb" "$work/root"
	done
	mv "$work/root" "$sysroot"
}

make_image() {
	local root=$out/root f
	make -s B="$build" bpf-arm64
	mkdir -p "$out/gen/bpf" "$root"/{bin,dev,proc,sys,tmp,lib}
	PATH="$PATH:/usr/sbin" bpftool gen skeleton "$build/bpf-arm64/sampler.bpf.o" name sampler_bpf \
		>"$out/gen/bpf/sampler.skel.h"
	$triplet-gcc -std=gnu17 -D_GNU_SOURCE -O2 -g -I. -I"$out/gen" -I"$sysroot/usr/include" \
		-o "$root/bin/verifier_test" tests/unit/sampler/verifier_test.c -L"$sysroot/usr/lib/$triplet" \
		-Wl,--unresolved-symbols=ignore-in-shared-libs -lbpf -lcmocka
	cp "$sysroot/bin/busybox" "$root/bin/" 2>/dev/null || cp "$sysroot/usr/bin/busybox" "$root/bin/"
	for f in ld-linux-aarch64.so.1 libc.so.6 libbpf.so.1 libelf.so.1 libz.so.1 libzstd.so.1 libcmocka.so.0; do
		cp -L "$(find "$sysroot" -name "$f" | head -n 1)" "$root/lib/"
	done
	cp "$here/guest/init-arm64" "$root/init"
	(cd "$root" && find . -print0 | cpio --quiet -0 -o -H newc -R 0:0) >"$out/image.cpio"
}

rm -rf "$out"
mkdir -p "$out" "$cache"
folder=$("$here/fetch.sh" "$kernel" "$suite" arm64)
echo "# $(cat "$folder/package")" >&2
[ -d "$sysroot" ] || fetch_libraries
make_image >&2
status=0
timeout -k 10 200 qemu-system-aarch64 -M virt -cpu cortex-a57 -accel tcg,thread=multi -smp 2 -m 1024 -nodefaults \
	-display none -no-reboot -kernel "$folder/vmlinuz" -initrd "$out/image.cpio" \
	-append "console=ttyAMA0 panic=-1 oops=panic loglevel=4 rdinit=/init" \
	-serial "file:$out/console.log" </dev/null >&2 || status=$?
tr -d '\000\r' <"$out/console.log" >"$out/console.txt"
cat "$out/console.txt" >&2
grep -E '^(not ok|ok|1\.\.)' "$out/console.txt" || true
if [ $status != 0 ] || ! grep -q '^guest: exit status 0$' "$out/console.txt"; then
	echo "not ok - the guest ran its test to the end"
	exit 1
fi
