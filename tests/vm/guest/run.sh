# shellcheck shell=dash
# SPDX-License-Identifier: Apache-2.0
#
# What a guest runs (sourced by init). Nothing here waits for a time that a slow machine might not keep: only for
# what happens, up to a bound.

tell() {
	echo "guest: $*" >/dev/console
}

await() { # SECONDS COMMAND...: until it succeeds
	local left=$1
	shift
	while ! "$@"; do
		[ "$left" -gt 0 ] || return 1
		left=$((left - 1))
		sleep 1
	done
}

run_unit() {
	local t name
	for t in /odi/tests/unit/*/*_test; do
		name=${t#/odi/tests/unit/}
		name=$(echo "$name" | tr / .)
		tell "$name"
		CMOCKA_MESSAGE_OUTPUT=TAP ODI_TEST_HOTPLUG=1 ODI_BUILD=/odi timeout -s KILL 120 "$t" >"/out/$name.tap" 2>"/out/$name.log"
		echo $? >"/out/$name.status"
	done
}

odictl() {
	/odi/bin/odictl "$@"
}

# Samples of the workloads, as the open interval has them.
enough() {
	[ "$(odictl top --by process --json 2>/dev/null | sed -n 's/.*"total_samples": *\([0-9]*\).*/\1/p')" -ge "$1" ] 2>/dev/null
}

program_count() {
	grep -c 'bpf_prog_[0-9a-f]*_\(sample\|follow\)' /proc/kallsyms
}

run_agentd() {
	local agentd w pids=
	tell agentd
	/odi/bin/agentd --log-level debug >/out/agentd.log 2>&1 </dev/null &
	agentd=$!
	await 20 odictl status --json >/dev/null 2>&1
	# No budget: emulated, profiling costs tens of percents, and the rate would be lowered step by step. Workloads
	# come when the children of agentd run: on two busy emulated CPUs, their start takes longer than the /proc
	# reader may for an answer.
	odictl profiling enable --all --budget 0 >/out/enable.txt 2>&1
	echo $? >/out/enable.status
	await 60 enough 20
	for w in /odi/vm/workloads/*; do
		$w >"/out/${w##*/}.report" &
		pids="$pids $!"
	done
	await 60 enough 1200
	# a name, once shown, is kept; the first look asks for it
	odictl status --verbose --json >/out/status.json 2>/out/status.err
	odictl status --verbose >/out/status.txt 2>&1
	odictl top --lines 1000 --json >/out/top.json 2>/out/top.err
	odictl flamegraph --format folded -o - >/out/stacks.folded 2>/out/flamegraph.err
	odictl flamegraph --format svg -o /out/flamegraph.svg >>/out/flamegraph.err 2>&1
	program_count >/out/programs.on
	# shellcheck disable=SC2086 # a list of numbers
	kill $pids
	# shellcheck disable=SC2086
	wait $pids
	await 30 sh -c '/odi/bin/odictl status --json | grep -q "\"closes\": true"'
	odictl status --json >/out/status-end.json 2>>/out/status.err
	odictl profiling disable >/out/disable.txt 2>&1
	echo $? >/out/disable.status
	program_count >/out/programs.off
	kill -TERM $agentd
	wait $agentd
	echo $? >/out/agentd.status
}

uname -r >/out/release
uname -v >/out/version
run_unit
run_agentd
