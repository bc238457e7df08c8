#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 480 s
#
# make demo does what it says and leaves nothing behind, at its end and at Ctrl-C: demo_test.sh BUILD_FOLDER
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
build=$(cd "${1:-build}" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# shellcheck source=tests/lib/verdict.sh
. tests/lib/verdict.sh

left_behind() {
	local p found=1
	for p in /proc/[0-9]*/cmdline; do
		if tr '\0' ' ' 2>/dev/null <"$p" | grep -q "$folder/tmp"; then
			echo "still runs: ${p%/cmdline}: $(tr '\0' ' ' <"$p")" >&2
			found=0
		fi
	done
	if [ -n "$(ls -A "$folder/tmp")" ]; then
		echo "left in the temporary folder: $(ls -A "$folder/tmp")" >&2
		found=0
	fi
	return $found
}

mkdir "$folder/tmp"
rm -f "$build/flamegraph.html"
TMPDIR=$folder/tmp ODI_DEMO_SECONDS=4 tests/demo.sh "$build" >"$folder/out" 2>&1
verdict "the demo ends well" $?
cat "$folder/out" >&2
grep -q leaf_sixty "$folder/out"
verdict "it prints the hot functions of the workload" $?
grep -qF "$build/flamegraph.html" "$folder/out" && grep -q leaf_sixty "$build/flamegraph.html"
verdict "it draws a flame graph and prints where" $?
! left_behind
verdict "it leaves nothing behind" $?

# A job of its own, so that the signal reaches all of it as a terminal's does (and is not ignored, as it is in
# what a script starts in the background without job control).
set -m
TMPDIR=$folder/tmp tests/demo.sh "$build" >"$folder/out" 2>&1 &
pid=$!
set +m
for _ in $(seq 900); do
	grep -q sampling "$folder/out" && break
	kill -0 $pid 2>/dev/null || break
	sleep 0.1
done
kill -INT -- -$pid 2>/dev/null
for _ in $(seq 600); do
	kill -0 $pid 2>/dev/null || break
	sleep 0.1
done
! kill -0 $pid 2>/dev/null
verdict "it ends at Ctrl-C" $?
for _ in $(seq 100); do
	left_behind 2>/dev/null || break
	sleep 0.1
done
! left_behind
verdict "nothing is left behind after Ctrl-C" $?
exit $status
