# shellcheck shell=dash
# SPDX-License-Identifier: Apache-2.0
#
# What a guest runs (sourced by init). Nothing here waits for a time that a slow machine might not keep: only for
# what happens, up to a bound. `/out/PASS/...`: a pass is one way of loading the programs.

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

run_unit() { # OUTPUT_FOLDER [WORD]: of those alone that know this word
	local t name
	for t in /odi/tests/unit/*/*_test; do
		[ -z "$2" ] || grep -q "$2" "$t" || continue
		name=${t#/odi/tests/unit/}
		name=$(echo "$name" | tr / .)
		tell "$1 $name"
		CMOCKA_MESSAGE_OUTPUT=TAP ODI_TEST_HOTPLUG=1 ODI_BUILD=/odi timeout -s KILL 120 "$t" >"$1/$name.tap" 2>"$1/$name.log"
		echo $? >"$1/$name.status"
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

run_agentd() { # OUTPUT_FOLDER OPTION...
	local out=$1 agentd w pids=
	shift
	tell "$out agentd"
	rm -rf /var/lib/odi/* /run/odi/*
	/odi/bin/agentd --log-level debug "$@" >"$out/agentd.log" 2>&1 </dev/null &
	agentd=$!
	await 20 odictl status --json >/dev/null 2>&1
	for w in /odi/vm/workloads/*; do
		$w >"$out/${w##*/}.report" &
		pids="$pids $!"
	done
	odictl profiling enable --all >"$out/enable.txt" 2>&1
	echo $? >"$out/enable.status"
	await 60 enough 600
	# a name, once shown, is kept; the first look asks for it
	odictl status --verbose --json >"$out/status.json" 2>"$out/status.err"
	odictl status --verbose >"$out/status.txt" 2>&1
	odictl top --lines 1000 --json >"$out/top.json" 2>"$out/top.err"
	odictl flamegraph --format folded -o - >"$out/stacks.folded" 2>"$out/flamegraph.err"
	odictl flamegraph --format svg -o "$out/flamegraph.svg" >>"$out/flamegraph.err" 2>&1
	program_count >"$out/programs.on"
	# shellcheck disable=SC2086 # a list of numbers
	kill $pids
	# shellcheck disable=SC2086
	wait $pids
	await 30 sh -c '/odi/bin/odictl status --json | grep -q "\"closes\": true"'
	odictl status --json >"$out/status-end.json" 2>>"$out/status.err"
	odictl profiling disable >"$out/disable.txt" 2>&1
	echo $? >"$out/disable.status"
	program_count >"$out/programs.off"
	kill -TERM $agentd
	wait $agentd
	echo $? >"$out/agentd.status"
}

uname -r >/out/release
uname -v >/out/version
mkdir -p /out/default
run_unit /out/default
run_agentd /out/default
