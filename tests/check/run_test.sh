#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The runner itself, on programs that fail in every way that a test can: what it counts, what it says, what it
# lets run twice. They stand in a tree of their own with a copy of run.sh. Cases as tests/run.sh reads them.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1

tree=$(mktemp -d /tmp/odi-run-XXXXXX)
trap 'rm -rf "$tree"' EXIT
bad=0

# A new tree; programs are added by `program`.
fresh() {
	rm -rf "${tree:?}"/*
	mkdir -p "$tree/tests/check" "$tree/tests/receivers"
	cp tests/run.sh "$tree/tests/"
}

program() { # NAME, the script on standard input
	{
		echo '#!/usr/bin/env bash'
		cat
	} >"$tree/tests/check/$1_test.sh"
	chmod +x "$tree/tests/check/$1_test.sh"
}

# Its first run fails, the next ones pass.
program_unsteady() { # NAME
	program "$1" <<-END
		if [ -e "$tree/$1.ran" ]; then echo "ok 1 - chance"; exit 0; fi
		touch "$tree/$1.ran"
		echo "not ok 1 - chance"
		exit 1
	END
}

run() { # [GROUP]
	"$tree/tests/run.sh" "$tree/build" "${1:-tools}" >"$tree/out" 2>&1
	status=$?
}

expect() { # CASE STATUS LINE...: the exit status, and lines that the output has, the last of them last
	local name=$1 want=$2 line
	shift 2
	if [ "$status" != "$want" ] || [ "$(tail -n 1 "$tree/out")" != "${*: -1}" ]; then
		wrong "$name" "exit status $status"
		return
	fi
	for line in "$@"; do
		grep -qxF -- "$line" "$tree/out" || {
			wrong "$name" "no line: $line"
			return
		}
	done
	echo "ok - $name"
}

wrong() { # CASE WHY
	echo "not ok - $1"
	echo "$2; the runner printed:" >&2
	cat "$tree/out" >&2
	bad=1
}

fresh
program good <<<'echo 1..3; echo "ok 1 - one"; echo "ok 2 - two"; echo "cannot run - three: no moon"'
run
expect "what passes is counted, what cannot run has its reason" 0 \
	"PASS check/good_test.sh: two" "  check/good_test.sh: three: no moon" "2 passed, 0 failed"

fresh
program never <<<'echo "ok 1 - one"; echo "not ok 2 - two"; exit 1'
run
expect "what fails twice failed" 1 \
	"FAIL check/never_test.sh: two" "  check/never_test.sh: two" "1 passed, 1 failed"

fresh
program_unsteady a
run
expect "what passes at the second run is called unsteady" 0 \
	"PASS check/a_test.sh: chance" \
	"unsteady, passed at the second run (the first one's log ends in .log.first):" \
	"  check/a_test.sh: chance" "1 passed, 0 failed"

fresh
for i in a b c d; do program_unsteady $i; done
run
expect "three programs have a second run, the fourth has none" 1 \
	"FAIL check/d_test.sh: chance" "3 passed, 1 failed"

fresh
# shellcheck disable=SC2016 # its own process id
program dies <<<'echo "ok 1 - one"; [ -e "$0.ran" ] && exit 0; touch "$0.ran"; kill -SEGV $$'
run
expect "a crash is not run again" 1 "FAIL check/dies_test.sh: ended by signal 11" "1 passed, 1 failed"

fresh
# shellcheck disable=SC2016 # its own name
program leaks <<<'[ -e "$0.ran" ] && { echo "ok 1 - one"; exit 0; }; touch "$0.ran"
echo "==1==ERROR: LeakSanitizer: detected memory leaks" >&2; echo "ok 1 - one"; exit 23'
# shellcheck disable=SC2016 # its own name
program writes <<<'[ -e "$0.ran" ] && { echo "ok 1 - one"; exit 0; }; touch "$0.ran"
echo "==1==ERROR: AddressSanitizer: heap-use-after-free" >&2; echo "not ok 1 - one"; exit 1'
run
expect "a sanitizer's finding is not run again" 1 "FAIL check/leaks_test.sh: exit status 23" \
	"FAIL check/writes_test.sh: one" "1 passed, 2 failed"

fresh
# shellcheck disable=SC2016 # its own name
program stops <<<'[ -e "$0.ran" ] && { echo "ok 1 - one"; exit 0; }; touch "$0.ran"
echo "==1==ERROR: LeakSanitizer: detected memory leaks" >&2; echo "not ok 1 - one"; exit 1'
run
expect "what a case that failed left unfreed is none" 0 "  check/stops_test.sh: one" "1 passed, 0 failed"

fresh
program silent <<<'exit 0'
program short <<<'echo 1..2; echo "ok 1 - one"'
program status <<<'echo "ok 1 - one"; exit 3'
run
expect "no case, too few cases and a bad exit status are failures" 1 \
	"FAIL check/silent_test.sh: 0 of 0 cases ran" "FAIL check/short_test.sh: 1 of 2 cases ran" \
	"FAIL check/status_test.sh: exit status 3" "2 passed, 3 failed"

# Guests: the first two wait for each other, the third fails once, of the last one even its runner is killed.
fresh
mkdir "$tree/tests/vm"
echo '#!/bin/sh' | tee "$tree/tests/vm/root.sh" >"$tree/tests/vm/system.sh"
cat >>"$tree/tests/vm/system.sh" <<'END'
touch "$1/$2.began"
meet() {
	for i in $(seq 600); do
		[ -e "$1" ] && return
		sleep 0.1
	done
	echo "not ok 1 - the other one runs, too"
	exit 1
}
case $2 in
5.10) meet "$1/6.1.began" ; meet "$1/6.1.ended" ;;
6.1) meet "$1/5.10.began"; touch "$1/6.1.ended"; echo "not ok 1 - sound"; exit 1 ;;
6.12) [ -e "$1/tried" ] || { touch "$1/tried"; echo "not ok 1 - sound"; exit 1; } ;;
newest) kill -KILL "$(ps -o ppid= "$PPID" | tr -d ' ')"; exit 1 ;;
esac
echo "ok 1 - sound"
END
chmod +x "$tree"/tests/vm/*.sh
run vm
expect "guests run two at a time, and one takes no other along" 1 \
	"PASS vm/5.10: sound" "FAIL vm/6.1: sound" "PASS vm/6.12: sound" "  vm/6.12: sound" \
	"FAIL vm_system.newest.trixie-backports.said: was ended before its end" "6 passed, 2 failed"
order=$(sed -n 's/^\(PASS\|FAIL\) vm[^ ]*[/.]\(5.10\|6.1\|6.12\|newest\)[.:].* \(sound\|end\)$/\2/p' "$tree/out" | tr '\n' ' ')
if [ "$order" = "5.10 6.1 6.12 newest " ]; then
	echo "ok - what guests say is told in their order"
else
	wrong "what guests say is told in their order" "$order"
fi

exit $bad
