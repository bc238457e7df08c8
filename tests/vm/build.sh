#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds what the guests run, and their root file system: build.sh BUILD_FOLDER
set -euo pipefail
cd "$(dirname "$0")/../.."

mkdir -p "${1:?usage: build.sh BUILD_FOLDER}"
build=$(cd "$1" && pwd)
mkdir -p "$build/vm/workloads"

tests=()
for t in tests/unit/sampler/*_test.c tests/unit/bpf/*_test.c; do
	[ -e "$t" ] && tests+=("$build/${t%.c}")
done
make -s -j"$(nproc)" B="$build" all "${tests[@]}"

# Programs of known chains as distributions build theirs: no frame pointers.
flags=(-std=gnu17 -D_GNU_SOURCE -O2 -g -Wall -Wextra -fomit-frame-pointer -fno-optimize-sibling-calls
	-fno-ipa-icf -fasynchronous-unwind-tables)
w=tests/workloads/c
gcc "${flags[@]}" -fPIE -pie -o "$build/vm/workloads/shares_nofp" $w/shares.c
gcc "${flags[@]}" -fno-pie -static -o "$build/vm/workloads/shares_static" $w/shares.c
gcc "${flags[@]}" -fPIE -pie -pthread -o "$build/vm/workloads/threads_nofp" $w/threads.c

tests/vm/image.sh "$build" "$build/vm/image.cpio"
