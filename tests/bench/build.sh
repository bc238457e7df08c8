#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds the programs that are measured: build.sh OUTDIR. What is up to date is left alone; a line `cannot build NAME:
# reason` for what this machine has no tools for.
set -euo pipefail
cd "$(dirname "$0")/programs"
out=${1:?usage: build.sh OUTDIR}
mkdir -p "$out"
out=$(cd "$out" && pwd)

newer() { # NAME SOURCE: is it there and newer?
	[ "$out/$1" -nt "$2" ] && [ "$out/$1" -nt ../build.sh ]
}

# As programs are released: no frame pointers, whatever the compiler's default is.
flags=(-O2 -fomit-frame-pointer)
newer deep deep.c || gcc -std=gnu17 -D_GNU_SOURCE "${flags[@]}" -o "$out/deep" deep.c
newer brief brief.c || gcc -std=gnu17 -D_GNU_SOURCE "${flags[@]}" -o "$out/brief" brief.c
newer storm storm.c || gcc -std=gnu17 -D_GNU_SOURCE "${flags[@]}" -o "$out/storm" storm.c
newer nothing nothing.c || gcc -std=gnu17 -O2 -static -s -o "$out/nothing" nothing.c
newer release_cpp release.cpp || g++ -std=c++17 "${flags[@]}" -s -o "$out/release_cpp" release.cpp
newer yardstick yardstick.c || gcc -std=gnu17 -O2 -D_GNU_SOURCE -o "$out/yardstick" yardstick.c -lbpf
newer yardstick.bpf.o yardstick.bpf.c || clang -target bpf -O2 -g -Wall -I"/usr/include/$(uname -m)-linux-gnu" \
	-c -o "$out/yardstick.bpf.o" yardstick.bpf.c
if ! command -v rustc >/dev/null 2>&1; then
	echo "cannot build release_rust: no rustc on this machine"
elif ! newer release_rust release.rs; then
	rustc --edition 2021 --crate-name release_rust -O -C strip=symbols -o "$out/release_rust" release.rs
fi

# One part that is linked so often that 100 MB come of it: symbols and call frame information of each copy are its own.
if ! newer large large.py; then
	echo "building a program of 100 MB" >&2
	copies=110
	folder=$(mktemp -d)
	trap 'rm -rf "$folder"' EXIT
	python3 large.py "$folder" $copies
	gcc "${flags[@]}" -falign-functions=512 -fno-stack-protector -c -o "$folder/part.o" "$folder/large_part.c"
	for ((i = 0; i < copies; i++)); do
		objcopy --redefine-sym "large_table=large_table_$i" "$folder/part.o" "$folder/part_$i.o"
	done
	gcc "${flags[@]}" -o "$out/large" "$folder/large_main.c" "$folder"/part_*.o
fi
