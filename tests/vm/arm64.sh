#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Whether an arm64 kernel takes the programs and walks stacks whose callers are known: arm64.sh BUILD_FOLDER KERNEL
# SUITE
#
# Its guest runs some of the unit tests of the programs, compiled across and linked to Debian's libraries for
# arm64: the verifier's, and those of the walk and of what is counted. Cases as tests/run.sh reads
# them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/vm/apt.sh
. "$here/apt.sh"
# shellcheck source=tests/vm/boot_arm64.sh
. "$here/boot_arm64.sh"

build=$(cd "${1:?usage: arm64.sh BUILD_FOLDER KERNEL SUITE}" && pwd)
kernel=${2:?usage: arm64.sh BUILD_FOLDER KERNEL SUITE}
suite=${3:?usage: arm64.sh BUILD_FOLDER KERNEL SUITE}
out=$build/vm/$kernel-arm64
cd "$here/../.."

# Not miss_test: what it runs is x86 code.
tests=(sampler/verifier_test bpf/walk_test bpf/count_test bpf/agree_test)

# The newest libraries, so that they are not older than what the cross compiler was made for.
libraries=trixie
packages=(busybox-static libc6 libc6-dev linux-libc-dev libbpf1 libbpf-dev libelf1t64 libelf-dev libdw1t64 libdw-dev
	zlib1g zlib1g-dev libzstd1 libzstd-dev liblzma5 liblzma-dev libbz2-1.0 libsystemd0 libsystemd-dev libseccomp2
	libseccomp-dev libcap2 libcap-dev libcmocka0 libcmocka-dev libgcc-s1)
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
	echo "${packages[@]}" >"$work/root/packages"
	rm -rf "$sysroot"
	mv "$work/root" "$sysroot"
}

# Into the guest: a library, and what it needs.
add_libraries() { # FILE...
	local name file
	for name in $($triplet-readelf -d "$@" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u); do
		[ ! -e "$root/lib/$name" ] || continue
		file=$(find "$sysroot" -name "$name" | head -n 1)
		[ -n "$file" ] || die "no package of $libraries here has $name"
		cp -L "$file" "$root/lib/"
		add_libraries "$file"
	done
}

make_image() {
	local t
	root=$out/root
	mkdir -p "$root"/{bin,dev,proc,sys,tmp,run,lib,odi/tests/unit/bpf}
	make -s -j"$(nproc)" B="$build/arm64" CC="$triplet-gcc --sysroot=$sysroot" ARCH=arm64 \
		LDFLAGS=-Wl,--unresolved-symbols=ignore-in-shared-libs "${tests[@]/#/$build/arm64/tests/unit/}" \
		"$build/arm64/tests/unit/bpf/chain"
	for t in "${tests[@]}" bpf/chain; do
		mkdir -p "$root/odi/tests/unit/${t%/*}"
		cp "$build/arm64/tests/unit/$t" "$root/odi/tests/unit/$t"
	done
	cp "$sysroot/bin/busybox" "$root/bin/" 2>/dev/null || cp "$sysroot/usr/bin/busybox" "$root/bin/"
	add_libraries "$root"/odi/tests/unit/*/*
	cp -L "$(find "$sysroot" -name ld-linux-aarch64.so.1 | head -n 1)" "$root/lib/"
	cp "$here/guest/init-arm64" "$root/init"
	(cd "$root" && find . -print0 | cpio --quiet -0 -o -H newc -R 0:0) >"$out/image.cpio"
}

rm -rf "$out"
mkdir -p "$out" "$cache"
folder=$("$here/fetch.sh" "$kernel" "$suite" arm64)
echo "# $(cat "$folder/package")" >&2
[ "$(cat "$sysroot/packages" 2>/dev/null)" = "${packages[*]}" ] || fetch_libraries
make_image >&2
status=0
boot_arm64 "$out" "$folder/vmlinuz" || status=$?
# each test's own cases, under its name
awk '/^guest: test / { name = $3 ": " }
	/^(not ok|ok) [0-9]+/ { sub(/ok [0-9]+ (- )?/, "&" name) }
	/^(not ok|ok) / { print }' "$out/console.txt"
for t in "${tests[@]}"; do
	if grep -q "^guest: test ${t#*/} ends with 0\$" "$out/console.txt"; then
		echo "ok - ${t#*/}: came to its end"
	else
		echo "not ok - ${t#*/}: came to its end (QEMU: $status)"
		failed=1
	fi
done
exit "${failed:-0}"
