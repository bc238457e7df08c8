#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the guests' root file system of a build: image.sh BUILD_FOLDER OUTPUT
#
# One cpio archive that the kernel unpacks into memory: busybox, tests/vm/guest/init, the build's programs and
# tests under /odi as they lie in the build folder, and every shared library that they name.
set -euo pipefail
cd "$(dirname "$0")/../.."

build=$(cd "${1:?usage: image.sh BUILD_FOLDER OUTPUT}" && pwd)
output=${2:?usage: image.sh BUILD_FOLDER OUTPUT}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

mkdir -p "$root"/{bin,dev,proc,sys,tmp,run,etc,odi,out,var/lib/odi,root}
cp "$(command -v busybox)" "$root/bin/busybox"
if ldd "$root/bin/busybox" >/dev/null 2>&1; then
	echo "image.sh: busybox is not a static one: apt install busybox-static" >&2
	exit 1
fi
cp tests/vm/guest/{init,run.sh} "$root/"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"

add() { # FILE: keeps its path below the build folder
	mkdir -p "$root/odi/$(dirname "$1")"
	cp "$build/$1" "$root/odi/$1"
	files+=("$build/$1")
}

files=()
add bin/agentd
add bin/odictl
for t in tests/unit/sampler/*_test.c tests/unit/bpf/*_test.c; do
	[ -e "$t" ] && add "${t%.c}"
done
add tests/unit/bpf/chain
for f in "$build"/vm/workloads/*; do
	add "vm/workloads/${f##*/}"
done

# Where the tests' libraries lie is where the guests' dynamic linker looks, too: same paths.
for f in "${files[@]}"; do
	ldd "$f" 2>/dev/null || true # a static one
done | awk '/not found/ { print > "/dev/stderr"; exit 1 } $2 == "=>" { print $3 } $1 ~ /^\// { print $1 }' |
	sort -u >"$root/libraries"
while IFS= read -r library; do
	mkdir -p "$root/$(dirname "$library")"
	cp -L "$library" "$root/$library"
done <"$root/libraries"
rm "$root/libraries"

(cd "$root" && find . -print0 | cpio --quiet -0 -o -H newc -R 0:0) >"$output.tmp"
mv "$output.tmp" "$output"
