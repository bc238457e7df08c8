# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# An arm64 kernel in QEMU, without KVM (sourced).

# Boots a kernel with OUT/image.cpio as its only file system, until /init there ends. What it said is in
# OUT/console.txt, and on standard error. QEMU's exit status.
boot_arm64() { # OUT KERNEL
	local out=$1 kernel=$2 status=0
	timeout -k 10 1000 qemu-system-aarch64 -M virt -cpu cortex-a57 -accel tcg,thread=multi -smp 2 -m 1024 -nodefaults \
		-display none -no-reboot -kernel "$kernel" -initrd "$out/image.cpio" \
		-append "console=ttyAMA0 panic=-1 oops=panic loglevel=4 rdinit=/init" \
		-serial "file:$out/console.log" </dev/null >&2 || status=$?
	tr -d '\000\r' <"$out/console.log" >"$out/console.txt"
	cat "$out/console.txt" >&2
	return $status
}
