#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Boots one kernel in QEMU, without KVM, and judges what came of it: kernel.sh BUILD_FOLDER KERNEL SUITE
#
# The guest's root is BUILD_FOLDER/vm/image.cpio (image.sh). Its console and all that it sent are left in
# BUILD_FOLDER/vm/KERNEL. Cases as tests/run.sh reads them.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)

build=$(cd "${1:?usage: kernel.sh BUILD_FOLDER KERNEL SUITE}" && pwd)
kernel=${2:?usage: kernel.sh BUILD_FOLDER KERNEL SUITE}
suite=${3:?usage: kernel.sh BUILD_FOLDER KERNEL SUITE}
out=$build/vm/$kernel
if [ "$(uname -m)" != x86_64 ]; then
	echo "cannot run - Debian's kernel $kernel: the guests are x86-64, this machine is $(uname -m)"
	exit 0
fi
rm -rf "$out"
mkdir -p "$out"

if ! folder=$("$here/fetch.sh" "$kernel" "$suite"); then
	echo "not ok - Debian's kernel of $suite is fetched"
	exit 1
fi
echo "# $(cat "$folder/package")" >&2

# No cx16: QEMU 7.2 puts a register into the flags when a timer's interrupt follows cmpxchg16b, which the kernel's
# allocator then dies of.
# A guest that hangs is a failure like any other: the time is many times what it takes.
timeout -k 10 1200 qemu-system-x86_64 -accel tcg,thread=multi -cpu qemu64,-cx16 -smp 2 -m 1024 -nodefaults -display none -no-reboot \
	-kernel "$folder/vmlinuz" -initrd "$build/vm/image.cpio" \
	-append "console=ttyS0 panic=-1 oops=panic loglevel=4 rdinit=/init" \
	-serial "file:$out/console.log" -serial "file:$out/out.tar.gz" </dev/null >"$out/qemu.log" 2>&1
status=$?
cat "$out/qemu.log" >&2
if ! tar -x -z -f "$out/out.tar.gz" -C "$out" --strip-components=1 2>>"$out/qemu.log"; then
	echo "# qemu: exit status $status; the console's end:" >&2
	tail -n 60 "$out/console.log" | tr -d '\000\r' >&2
	echo "not ok - the guest ran its tests to the end"
	exit 1
fi
exec python3 "$here/judge.py" "$out" "$kernel"
