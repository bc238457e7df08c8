#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Runs all tests: run.sh BUILD_FOLDER [GROUP...]     (groups: build lint tools unit san fuzz e2e; default: these;
#                                             kernels: on kernels in QEMU; vm: the package in systems in QEMU)
#
# One line a test case, PASS or FAIL; the log of a test that failed follows it, and all logs stay under
# BUILD_FOLDER/test-logs. A case that this machine cannot run says why, is listed again at the end and counted
# apart. The last line is `N passed, N failed`.
#
# A test is a program that prints `ok - NAME`, `not ok - NAME` or `cannot run - NAME: REASON` for each of its
# cases (cmocka does, told to speak TAP) and exits 0 when none failed. A comment `timeout: N s` in an end-to-end
# test sets how long it may take (120 s else). One that prints no case, or fails without naming one, failed.
#
# A program that failed is run once more, as a whole, up to SECOND_CHANCES programs a run: samples and schedulers
# have chance in them, and one verdict in thousands by chance would say nothing about a change. What fails again,
# failed. What passed at the second run is called unsteady: its first log is shown, it is listed again at the end,
# and it is a fault of the test or of the program to be mended. A crash or a sanitizer's finding is never excused.
SECOND_CHANCES=3
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
export LC_ALL=C.UTF-8

if [ $# -lt 1 ]; then
	echo "usage: tests/run.sh BUILD_FOLDER [GROUP...]" >&2
	exit 2
fi
mkdir -p "$1"
build=$(cd "$1" && pwd)
shift
groups=${*:-build lint tools unit san fuzz e2e}
unset MAKEFLAGS MFLAGS MAKELEVEL
export CI=1

logs=$build/test-logs
rm -rf "$logs"
mkdir -p "$logs"
passed=0
failed=0
cannot=()
failures=()
unsteady=()
second_chances=$SECOND_CHANCES
started=$SECONDS

wanted() {
	case " $groups " in
	*" $1 "*) return 0 ;;
	*) return 1 ;;
	esac
}

lane= # of in_pairs, whose reports are counted when they are told

report() { # PASS|FAIL|NONE|UNSTEADY TEXT
	if [ -n "$lane" ]; then
		printf '\036%s\n' "$*"
		return
	fi
	case $1 in
	PASS) passed=$((passed + 1)) ;;
	FAIL)
		failed=$((failed + 1))
		failures+=("$2")
		;;
	NONE) cannot+=("$2") ;;
	UNSTEADY) unsteady+=("$2") ;;
	esac
	case $1 in
	NONE) echo "cannot run $2" ;;
	UNSTEADY) ;; # said when it happened
	*) echo "$1 $2" ;;
	esac
}

show_log() {
	echo "---- $1 (the last 150 lines)"
	tail -n 150 "$1" | cut -c 1-400
	echo "----"
}

# Runs one program; its cases go to `results`, a line each as report() takes them, how many failed to `bad`,
# whether a signal ended it to `died`.
results=()
bad=0
died=no
try_cases() { # NAME SECONDS LOG COMMAND...
	local name=$1 seconds=$2 log=$3 status line plan=0
	shift 3
	results=()
	bad=0
	died=no
	timeout -k 20 "$seconds" "$@" >"$log.out" 2>"$log" </dev/null
	status=$?
	while IFS= read -r line; do
		case $line in
		"1.."*) plan=$((plan + ${line#1..})) ;;
		*"ok "*"# SKIP "*) results+=("NONE $name: ${line#*# SKIP }: skipped by the test itself") ;;
		"not ok"*)
			results+=("FAIL $name: $(case_name "$line")")
			bad=$((bad + 1))
			;;
		"ok "*) results+=("PASS $name: $(case_name "$line")") ;;
		"cannot run - "*) results+=("NONE $name: ${line#cannot run - }") ;;
		esac
	done <"$log.out"
	cat "$log.out" >>"$log"
	rm -f "$log.out"
	if [ $status = 124 ] || [ $status = 137 ]; then
		results+=("FAIL $name: did not end within $seconds s")
		bad=$((bad + 1))
	elif [ $status -gt 128 ]; then
		results+=("FAIL $name: ended by signal $((status - 128))")
		bad=$((bad + 1))
		died=yes
	elif [ $status != 0 ] && [ $bad = 0 ]; then
		results+=("FAIL $name: exit status $status")
		bad=$((bad + 1))
	elif [ ${#results[@]} = 0 ] || [ $plan -gt ${#results[@]} ]; then
		results+=("FAIL $name: ${#results[@]} of $plan cases ran")
		bad=$((bad + 1))
	fi
}

# What a case that failed did not free any more is no finding of its own.
crashed() { # LOG of the program tried last
	[ $died = yes ] ||
		grep -qE 'ERROR: (Address|Thread|Memory)Sanitizer|: runtime error: |Test failed with exception' "$1" ||
		{ grep -q 'ERROR: LeakSanitizer' "$1" && ! grep -q '^not ok' "$1"; }
}

# Runs one program, a second time if it failed, and counts its cases.
run_cases() { # NAME SECONDS COMMAND...
	local name=$1 seconds=$2 log line first=()
	shift 2
	log=$logs/${name//\//.}.log
	try_cases "$name" "$seconds" "$log" "$@"
	if [ $bad -gt 0 ] && [ $second_chances -gt 0 ] && ! crashed "$log"; then
		second_chances=$((second_chances - 1))
		mv "$log" "$log.first"
		for line in "${results[@]}"; do
			case $line in FAIL*) first+=("${line#FAIL }") ;; esac
		done
		printf 'once more, since it went wrong: %s\n' "${first[@]}"
		show_log "$log.first"
		try_cases "$name" "$seconds" "$log" "$@"
		[ $bad -gt 0 ] || unsteady+=("${first[@]}")
	fi
	for line in "${results[@]}"; do
		report "${line%% *}" "${line#* }"
	done
	[ $bad = 0 ] || show_log "$log"
}

case_name() { # from `ok 1 - name`
	local text=${1#not }
	text=${text#ok}
	text=${text# [0-9]*- }
	echo "${text# - }"
}

# Runs one command that is a case of its own.
run_step() { # NAME SECONDS COMMAND...
	local name=$1 seconds=$2 log
	shift 2
	log=$logs/${name//\//.}.log
	if timeout -k 20 "$seconds" "$@" >"$log" 2>&1 </dev/null; then
		report PASS "$name"
		# what a builder could not make, it says
		while IFS= read -r line; do
			report NONE "$name: ${line#cannot build }"
		done < <(grep '^cannot build ' "$log")
		return 0
	fi
	report FAIL "$name"
	show_log "$log"
	return 1
}

# Runs FUNCTION with each list of WORDS, two at a time: what has its own machine in QEMU. What each reports is told in
# their order, whole. One that fails, hangs or dies leaves the others as they are; each has a second chance of its own.
in_pairs() { # FUNCTION WORDS...
	local function=$1 words files=() pids=() i
	shift
	for words; do
		[ ${#pids[@]} -lt 2 ] || wait -n
		files+=("$logs/$function.${words// /.}.said")
		in_lane "$function" "$words" >"${files[-1]}" &
		pids+=($!)
	done
	for i in "${!files[@]}"; do
		wait "${pids[i]}" 2>/dev/null # one that ended long ago is known no more
		tell_lane "${files[i]}"
	done
}

in_lane() { # FUNCTION WORDS
	local line
	lane=$2
	unsteady=()
	second_chances=1
	# shellcheck disable=SC2086 # a list of words on purpose
	"$1" $2
	for line in "${unsteady[@]}"; do
		report UNSTEADY "$line"
	done
	report END
}

tell_lane() { # FILE of what it said
	local line ended=no
	while IFS= read -r line; do
		case $line in
		$'\036END') ended=yes ;;
		$'\036'*)
			line=${line#?}
			report "${line%% *}" "${line#* }"
			;;
		*) printf '%s\n' "$line" ;;
		esac
	done <"$1"
	[ $ended = yes ] || report FAIL "${1##*/}: was ended before its end"
}

build_go_receiver() {
	local version
	if ! command -v go >/dev/null 2>&1; then
		echo "cannot build the collector's receiver: no go on this machine"
		return 0
	fi
	version=$(go env GOVERSION | sed 's/^go//')
	if [ "$(printf '%s\n1.25\n' "$version" | sort -V | head -n 1)" != 1.25 ]; then
		echo "cannot build the collector's receiver: its modules need Go 1.25, this is $version"
		return 0
	fi
	(cd tests/receivers/go && GOFLAGS=-mod=readonly go build -o "$build/go-receiver" .)
}
export -f build_go_receiver
export build

jobs=$(nproc)
python=$build/venv/bin/python

if wanted build; then
	run_step build/gcc 1800 make -s -j"$jobs" B="$build" all
	run_step build/bpf-arm64 480 make -s B="$build" bpf-arm64
	run_step build/clang 1800 make -s -j"$jobs" B="$build/clang" CC=clang all
	run_step build/workloads 900 tests/workloads/build.sh "$build/workloads"
	run_step build/receiver 1200 bash -c build_go_receiver
	run_step build/feeder 900 make -s B="$build" "$build/feeder"
fi
wanted lint && run_cases lint 900 tests/check/lint.sh
if wanted tools; then
	for t in tests/receivers/*_test.py tests/check/*_test.sh; do
		[ -e "$t" ] || continue # the pattern itself
		case $t in
		*.py) run_cases "${t#tests/}" 480 env ODI_BUILD="$build" "$python" "$t" ;;
		*) run_cases "${t#tests/}" 480 "$t" ;;
		esac
	done
fi

# The unit tests of every room, one binary each; a binary that does not build fails alone.
unit_tests() { # GROUP FOLDER MAKE_ARGUMENT...
	local group=$1 folder=$2 t name log
	shift 2
	# shellcheck disable=SC2046 # a list of words on purpose
	make -s -k -j"$jobs" B="$folder" "$@" $(unit_binaries "$folder") >"$logs/$group.build.log" 2>&1 </dev/null
	for t in $(unit_binaries "$folder"); do
		name=$group/${t#"$folder"/tests/unit/}
		log=$logs/${name//\//.}.build.log
		if make -s B="$folder" "$@" "$t" >"$log" 2>&1 </dev/null; then
			rm -f "$log"
			run_cases "$name" 480 env CMOCKA_MESSAGE_OUTPUT=TAP ODI_BUILD="$folder" "$t"
		else
			report FAIL "$name: does not build"
			show_log "$log"
		fi
	done
}

unit_binaries() {
	local t
	for t in tests/unit/*/*_test.c; do
		[ -e "$t" ] && echo "$1/${t%.c}"
	done
}

wanted unit && unit_tests unit "$build"
if wanted san; then
	export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
	run_step build/san 1800 make -s -j"$jobs" B="$build/san" SAN=1 all
	unit_tests san "$build/san" SAN=1
fi

# Long enough to find what is shallow; by hand for longer.
wanted fuzz && run_step fuzz 600 tests/fuzz/run.sh "$build" 2

# End to end: every file on the plain build; on the one with sanitizers those that reach most of the code.
end_to_end() { # GROUP BUILD_FOLDER FILE...
	local group=$1 folder=$2 t seconds
	shift 2
	for t in "$@"; do
		[ -e "$t" ] || continue # the pattern itself
		if [ "$(id -u)" != 0 ]; then
			report FAIL "$group/${t##*/}: needs root, to load BPF: put sudo before the command"
			continue
		fi
		seconds=$(sed -n 's/.*timeout: \([0-9]*\) s.*/\1/p' "$t" | head -n 1)
		case $t in
		*.py) run_cases "$group/${t##*/}" "${seconds:-120}" env ODI_BUILD="$folder" \
			ODI_WORKLOADS="$build/workloads" "$python" "$t" ;;
		*) run_cases "$group/${t##*/}" "${seconds:-120}" "$t" "$folder" ;;
		esac
	done
}

wanted e2e && end_to_end e2e "$build" tests/e2e/*_test.py tests/e2e/*_test.sh
if wanted e2e && wanted san; then
	end_to_end e2e-san "$build/san" tests/e2e/cli_test.py tests/e2e/hostile_test.py tests/e2e/container_test.py
fi

# Debian's kernels in QEMU, oldest first: real BPF, its unit tests and agentd end to end; of arm64, the verifier.
if wanted kernels && run_step kernels/build 900 tests/vm/build.sh "$build"; then
	for t in "5.10 bullseye" "6.1 bookworm" "6.12 trixie" "newest trixie-backports"; do
		# shellcheck disable=SC2086 # two words
		run_cases "kernels/${t% *}" 1500 tests/vm/kernel.sh "$build" $t
		# shellcheck disable=SC2086
		run_cases "kernels/${t% *}-arm64" 600 tests/vm/arm64.sh "$build" $t
	done
fi

# The package in Debian's own systems, from installing it to purging it. Making the systems, once, takes minutes.
vm_system() { # NAME SUITE
	run_cases "vm/$1" 2000 tests/vm/system.sh "$build" "$@"
}
if wanted vm; then
	systems=()
	for t in "5.10 bullseye" "6.1 bookworm" "6.12 trixie" "newest trixie-backports"; do
		# shellcheck disable=SC2086 # two words
		run_step "vm/${t% *}: the system is made" 1800 tests/vm/root.sh $t && systems+=("$t")
	done
	in_pairs vm_system "${systems[@]}"
fi

echo
echo "took $((SECONDS - started)) s; logs are in $logs"
if [ ${#cannot[@]} -gt 0 ]; then
	echo "${#cannot[@]} could not run on this machine:"
	printf '  %s\n' "${cannot[@]}"
fi
if [ ${#unsteady[@]} -gt 0 ]; then
	echo "unsteady, passed at the second run (the first one's log ends in .log.first):"
	printf '  %s\n' "${unsteady[@]}"
fi
if [ ${#failures[@]} -gt 0 ]; then
	echo "failed:"
	printf '  %s\n' "${failures[@]}"
fi
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
