#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the programs of known shape, or those that are named: build.sh OUTDIR [NAME...]
#
# Prints one line for each program that this machine cannot build (`cannot build NAME: reason`); fails where
# the C or C++ ones do not build. Anything up to date is left alone.
set -euo pipefail
cd "$(dirname "$0")"
out=${1:?usage: build.sh OUTDIR [NAME...]}
shift
only=" $* "
mkdir -p "$out"
out=$(cd "$out" && pwd)

# Exact call chains: no function is inlined, folded, split, cloned or jumped to in tail position, and the frame
# pointer is set up at the first instruction, in leaves too.
flags=(-O2 -g -Wall -Wextra -fno-omit-frame-pointer -mno-omit-leaf-frame-pointer
	-fno-optimize-sibling-calls -fno-shrink-wrap -fno-schedule-insns2 -fno-ipa-icf -fcf-protection=none)

wanted() {
	[ "$only" = "  " ] || [[ $only == *" $1 "* ]]
}

newer() { # OUTPUT SOURCE...: is the output there and newer than all?
	local o=$out/$1 s
	shift
	[ -e "$o" ] || return 1
	for s in "$@" build.sh; do
		[ "$o" -nt "$s" ] || return 1
	done
}

c() { # NAME SOURCE [FLAG...]
	local name=$1 source=$2
	shift 2
	wanted "$name" || return 0
	newer "$name" "$source" c/work.h c/libwork.h && return 0
	gcc -std=gnu17 -D_GNU_SOURCE "${flags[@]}" -o "$out/$name" "$source" "$@"
}

c shares_c c/shares.c -fPIE -pie
c shares_c_nopie c/shares.c -fno-pie -no-pie
c shares_c_static c/shares.c -fno-pie -static
c shares_c_stripped c/shares.c -fPIE -pie -s
c threads c/threads.c -fPIE -pie -pthread
c kernel_work c/kernel_work.c -fPIE -pie
c exec_first c/exec_first.c -fPIE -pie
c exec_second c/exec_second.c -fPIE -pie
c brief c/brief.c -fPIE -pie
c launch c/launch.c -fPIE -pie
c bare c/bare.c -g0 -fPIE -pie -fomit-frame-pointer -momit-leaf-frame-pointer -fno-asynchronous-unwind-tables -fno-unwind-tables
c libwork.so c/libwork.c -fPIC -shared -Wl,-soname,libwork.so
# shellcheck disable=SC2016 # $ORIGIN is the dynamic linker's
c shared c/shared.c -fPIE -pie "$out/libwork.so" '-Wl,-rpath,$ORIGIN'
c plugin c/plugin.c -fPIE -pie -ldl
c jit c/jit.c -fno-pie -static

if wanted shares_cpp && ! newer shares_cpp cpp/shares.cpp c/work.h; then
	g++ -std=c++17 -D_GNU_SOURCE "${flags[@]}" -fPIE -pie -o "$out/shares_cpp" cpp/shares.cpp
fi

if ! wanted shares_rust; then
	:
elif ! command -v rustc >/dev/null 2>&1; then
	echo "cannot build shares_rust: no rustc on this machine"
elif ! newer shares_rust rust/shares.rs; then
	rustc --edition 2021 --crate-name shares_rust -O -g -C force-frame-pointers=yes \
		-o "$out/shares_rust" rust/shares.rs
fi

if ! wanted shares_go; then
	:
elif ! command -v go >/dev/null 2>&1; then
	echo "cannot build shares_go: no go on this machine"
elif ! newer shares_go go/shares.go; then
	if ! (cd go && CGO_ENABLED=0 GOFLAGS=-buildvcs=false go build -o "$out/shares_go" shares.go); then
		echo "cannot build shares_go: $(go version) is too old or broken"
	fi
fi

if [ "$only" = "  " ]; then
	unwind/build.sh "$out"
else
	unwind/build.sh "$out" "$@"
fi
