#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Fuzzes every reader of what strangers write: run.sh BUILD_FOLDER SECONDS [TARGET...]
#
# A target is a file here, named ROOM_WHAT.c, with a LLVMFuzzerTestOneInput(); it is linked with its room. Each runs for
# SECONDS under AddressSanitizer and UBSan, from its folder in corpus/; new inputs go to the build folder, where the
# next run finds them. What fails is left there too, and named. The seed is the same each time, so that what fails has
# to do with a change; ODI_FUZZ_SEED sets another one, 0 a new one each time.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [ $# -lt 2 ]; then
	echo "usage: tests/fuzz/run.sh BUILD_FOLDER SECONDS [TARGET...]" >&2
	exit 2
fi
build=$1/fuzz
seconds=$2
shift 2
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
	for f in tests/fuzz/*.c; do targets+=("$(basename "$f" .c)"); done
fi

rooms_of() { # ROOM: it and those that it may include
	case $1 in
	symbol) echo "symbol unwind elf base" ;;
	elf) echo "elf base" ;;
	profile) echo "profile wire base" ;;
	api) echo "api wire base" ;;
	process) echo "process container unwind elf base" ;;
	unwind) echo "unwind elf base" ;;
	config) echo "config sources destinations process container unwind elf profile wire store base" ;;
	destinations) echo "destinations config sources process container unwind elf profile store wire base" ;;
	*) echo "$1 base" ;;
	esac
}

libs="-lelf -ldw -liberty -lzstd -llzma -lprotobuf-c -ljson-c -lyaml -lsqlite3 -lsystemd -lseccomp -lcap -lz"
failed=0
for t in "${targets[@]}"; do
	archives=()
	names=()
	for r in $(rooms_of "${t%%_*}"); do
		archives+=("$build/lib/$r.a")
		names+=("room-$r")
	done
	make -s B="$build" CC=clang SAN=1 OPT="-O1 -fsanitize=fuzzer-no-link" "${names[@]}"
	mkdir -p "$build/bin" "$build/new/$t" "$build/found"
	# shellcheck disable=SC2086 # a list of words on purpose
	clang -std=gnu17 -O1 -g -D_GNU_SOURCE -I. -I"$build/gen" -DODI_VERSION='"fuzz"' \
		-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -Wl,--as-needed \
		-o "$build/bin/$t" "tests/fuzz/$t.c" -Wl,--start-group "${archives[@]}" -Wl,--end-group $libs
	corpus=("$build/new/$t")
	[ -d "tests/fuzz/corpus/$t" ] && corpus+=("tests/fuzz/corpus/$t")
	if "$build/bin/$t" -seed="${ODI_FUZZ_SEED:-1}" -max_total_time="$seconds" -max_len=65536 -timeout=30 \
		-rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 -artifact_prefix="$build/found/$t-" "${corpus[@]}" >"$build/$t.log" 2>&1; then
		echo "fuzz $t: fine, $(sed -n 's/^stat::number_of_executed_units: *//p' "$build/$t.log") inputs"
	else
		echo "fuzz $t: FAILED" >&2
		tail -n 60 "$build/$t.log" >&2
		failed=1
	fi
done
exit $failed
