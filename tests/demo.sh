#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# make demo: profiles this host for ten seconds and draws what it saw. demo.sh BUILD_FOLDER
#
# The daemon is private (own socket, own state folder) and gone afterwards, whatever happens; what stays is
# BUILD_FOLDER/flamegraph.html.
set -euo pipefail
cd "$(dirname "$0")/.."
build=$(cd "${1:?usage: demo.sh BUILD_FOLDER}" && pwd)
seconds=${ODI_DEMO_SECONDS:-10}

if [ "$(id -u)" != 0 ]; then
	echo "demo: the profiler loads BPF programs, which needs root: sudo make demo" >&2
	exit 1
fi

folder=$(mktemp -d "${TMPDIR:-/tmp}/odi-demo.XXXXXX")
agentd=
work=()
clean_up() {
	trap - EXIT
	trap '' INT TERM
	[ ${#work[@]} = 0 ] || kill "${work[@]}" 2>/dev/null || true
	[ -z "$agentd" ] || kill "$agentd" 2>/dev/null || true
	wait || true
	rm -rf "$folder"
}
trap clean_up EXIT
trap 'echo; exit 130' INT
trap 'exit 143' TERM

# Ends with what agentd said last, where it is of use.
fail() {
	echo "demo: $1" >&2
	tail -n 15 "$folder/agentd.log" >&2 || true
	exit 1
}

export ODI_SOCKET=$folder/agentd.sock
odictl() { "$build/bin/odictl" "$@"; }

tests/workloads/build.sh "$build/workloads" shares_c threads

"$build/bin/agentd" --socket "$ODI_SOCKET" --state-dir "$folder/state" >"$folder/agentd.log" 2>&1 &
agentd=$!
for _ in $(seq 600); do
	[ ! -S "$ODI_SOCKET" ] || break
	kill -0 "$agentd" 2>/dev/null || fail "agentd did not start"
	sleep 0.05
done
[ -S "$ODI_SOCKET" ] || fail "agentd is not ready after 30 s"

echo "\$ odictl profiling enable --all"
odictl profiling enable --all || fail "profiling cannot be enabled here"

"$build/workloads/shares_c" >"$folder/work.log" 2>&1 &
work+=($!)
"$build/workloads/threads" >>"$folder/work.log" 2>&1 &
work+=($!)
echo
echo "Two small programs run beside whatever this host does:"
echo "  shares_c  60 % leaf_sixty, 30 % leaf_thirty, 10 % leaf_ten"
echo "  threads   three threads: 50 % alpha_work, 30 % beta_work, 20 % gamma_work"
echo

for ((i = 1; i <= seconds; i++)); do
	sleep 1
	kill -0 "$agentd" 2>/dev/null || fail "agentd ended"
	if [ -t 1 ]; then
		bar=$(printf '%*s' "$i" '')
		printf '\rsampling  [%-*s] %2d of %d s ' "$seconds" "${bar// /#}" "$i" "$seconds"
	else
		echo "sampling, $i of $seconds s"
	fi
done
echo

echo
echo "\$ odictl top --by service"
odictl top --by service -n 8
for service in shares_c threads; do
	echo
	echo "\$ odictl top --by function --service $service"
	odictl top --by function --service "$service" -n 6
done
echo
echo "\$ odictl status"
odictl status || true
odictl flamegraph -o "$build/flamegraph.html" >/dev/null
echo
echo "The flame graph of all that ran here:"
echo "  $build/flamegraph.html"
