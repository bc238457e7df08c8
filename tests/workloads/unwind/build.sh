#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the programs of known call chains: build.sh OUTDIR [NAME...]. What they must show is in truth.json here.
#
# As ../build.sh: a line `cannot build NAME: reason` for what this machine has no tools for; what is up to date is
# left alone. As many compilers at once as there are processors.
set -euo pipefail
cd "$(dirname "$0")"
out=${1:?usage: build.sh OUTDIR [NAME...]}
shift
only=" $* "
mkdir -p "$out"
out=$(cd "$out" && pwd)
jobs=$(nproc)
pids=()

# Nothing that would hide a function; everything else as it is released: no frame pointer, whatever the level says.
names="-g0 -Wall -Wextra -Wno-unknown-attributes -fno-optimize-sibling-calls"
bare="$names -fomit-frame-pointer"
framed="$names -fno-omit-frame-pointer"
# clang: also in leaves
clang_framed="$framed -mno-omit-leaf-frame-pointer"

build() { # NAME SOURCES COMPILER FLAG...
	local name=$1 sources=$2 s fresh=1
	shift 2
	[ "$only" = "  " ] || [[ $only == *" $name "* ]] || return 0
	for s in $sources step.h build.sh; do
		[ "$out/$name" -nt "$s" ] || fresh=0
	done
	[ $fresh = 0 ] || return 0
	if ! command -v "$1" >/dev/null 2>&1; then
		echo "cannot build $name: no $1 on this machine"
		return 0
	fi
	while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do
		wait -n || true
	done
	# shellcheck disable=SC2086 # a list of words on purpose
	case $sources in
	*.go) (cd "$(dirname "$sources")" && GOFLAGS=-buildvcs=false "$@" -o "$out/$name.new" "$(basename "$sources")") &&
		mv "$out/$name.new" "$out/$name" || ! echo "$name failed" >&2 ;;
	*) "$@" -o "$out/$name.new" $sources ${late:-} && mv "$out/$name.new" "$out/$name" || ! echo "$name failed" >&2 ;;
	esac &
	pids+=($!)
}

c() { # NAME SOURCES COMPILER FLAG...: C
	local name=$1 sources=$2 compiler=$3
	shift 3
	build "$name" "$sources" "$compiler" -std=gnu17 -D_GNU_SOURCE "$@"
}

# shellcheck disable=SC2086 # lists of words on purpose, all through
chains() {
	local level
	for level in 0 1 2 3; do
		c chain_gcc_o$level chain.c gcc -O$level $bare
		c chain_clang_o$level chain.c clang -O$level $bare
	done
	c chain_gcc_fp chain.c gcc -O2 $framed
	c chain_clang_fp chain.c clang -O2 $clang_framed
	c chain_gcc_lto chain.c gcc -O2 -flto $bare
	c chain_clang_lto chain.c clang -O2 -flto -fuse-ld=gold $bare
	c chain_nopie chain.c gcc -O2 -fno-pie -no-pie $bare
	c chain_stripped chain.c gcc -O2 -s $bare
	c chain_static chain.c gcc -O2 -static -fno-pie $bare
	c chain_static_pie chain.c gcc -O2 -static-pie -fPIE $bare
	c chain_static_stripped chain.c gcc -O2 -static -fno-pie -s $bare
	# only .debug_frame tells of it
	c chain_debug_frame chain.c gcc -O2 $bare -g -fno-asynchronous-unwind-tables -fno-unwind-tables
	# nothing does, but there are frame pointers
	c chain_no_tables chain.c gcc -O2 $framed -mno-omit-leaf-frame-pointer -fno-asynchronous-unwind-tables \
		-fno-unwind-tables
	c chain_musl chain.c musl-gcc -O2 $bare
	c chain_musl_static chain.c musl-gcc -O2 -static $bare
}

# shellcheck disable=SC2086
particular() {
	c signals signals.c gcc -O2 $bare
	c signals_altstack signals.c clang -O2 -DALTSTACK $bare
	c signals_musl signals.c musl-gcc -O2 $bare
	c pieces "pieces.c piece.c" gcc -O2 $bare -fPIE -pie -fcf-protection=none
	# text large and aligned enough to hold huge pages whole
	c pieces_huge "pieces.c piece.c filler.S" gcc -O2 $bare -fPIE -pie -Wl,-z,max-page-size=0x200000
	c libpiece.so piece.c gcc -O2 $bare -shared -fPIC
	c libturn_alpha.so libturn.c gcc -O2 $bare -shared -fPIC
	c libturn_beta.so libturn.c gcc -O2 -DBETA $bare -shared -fPIC
	c turns turns.c gcc -O2 $bare
	c far far.c gcc -O2 $bare
	c processes processes.c gcc -O2 $bare -pthread
	c switches switches.c gcc -O2 $bare
	c assembly assembly.c gcc -O2 $framed
	c libcalls.so libcalls.c gcc -O2 $bare -shared -fPIC
	c liblazy.so libcalls.c gcc -O1 -DLAZY $bare -shared -fPIC -Wl,-z,lazy
	c nothing nothing.c gcc -O2 -nostdlib -static
	late="$out/libcalls.so"
	[ -e "$late" ] || wait
	local here
	# shellcheck disable=SC2016 # $ORIGIN is the dynamic linker's
	here='-Wl,-rpath,$ORIGIN'
	c calls calls.c gcc -O2 $bare -pthread -Wl,-z,lazy "$here"
	c calls_now calls.c clang -O2 $bare -pthread -Wl,-z,now "$here"
	late=
}

# shellcheck disable=SC2086
languages() {
	build tower_cpp deep.cpp g++ -std=c++17 -O2 $names
	build tower_clang deep.cpp clang++ -std=c++17 -O2 $names
	build tower_rust tower.rs rustc --edition 2021 --crate-name tower_rust -O
	build pure_go pure.go env CGO_ENABLED=0 go build
	build cgo_go cgo/cgo.go env CGO_ENABLED=1 go build
}

languages
chains
particular
failed=0
for p in "${pids[@]}"; do
	wait "$p" || failed=1
done
exit $failed
