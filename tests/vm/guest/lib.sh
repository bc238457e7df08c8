# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What the steps of a guest are made of (sourced): cases as tests/run.sh reads them, on the second serial port, one
# line as soon as it is known. All that commands say goes to /var/lib/test/log, which is sent at the end, and to the
# third serial port.

state=/var/lib/test
mkdir -p "$state"
exec >>"$state/log" 2>&1 </dev/null
# for who waits, and where a guest never ends
tail -n 0 -F "$state/log" >/dev/ttyS2 2>/dev/null &
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive HOME=/root PAGER=cat MANPAGER=cat SYSTEMD_PAGER='' ODI_COLOR=0

tell() {
	echo "$*" >/dev/ttyS0
}

why() { # TEXT: what a case that fails says (the last one counts)
	reason=$*
	return 1
}

# A case is a function; it fails where it does not return 0.
case_of() { # NAME FUNCTION [ARGUMENT...]
	local name=$1 status=0 began=$EPOCHREALTIME
	shift
	echo "==== $name"
	tell "guest: $(cut -d ' ' -f 1 /proc/uptime) s: $name"
	reason=
	"$@" || status=$?
	if [ $status = 0 ]; then
		echo "ok - $name" >/dev/ttyS1
	else
		echo "not ok - $name: ${reason:-exit status $status of ${*}}" >/dev/ttyS1
		systemctl status --no-pager -n 0 'odi*'
		journalctl --no-pager -n 60 -u 'odi*'
		ps -o pid,ppid,user,stat,wchan:20,time,args -C agentd,odictl,exporter
	fi
	echo "---- $name: status $status ($reason), $began to $EPOCHREALTIME"
	return 0
}

# Emulated on a busy machine, a second may hold a twentieth of the work that it does elsewhere.
patience=5

await() { # SECONDS COMMAND...: until it succeeds
	local end=$((SECONDS + $1 * patience))
	shift
	while ! "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 1
	done
}

# The one line of README's commands on installing it that begins so, as a user copies it.
readme_line() { # WORDS
	readme_lines | grep -e "^$1" | tee -a "$state/typed"
}

readme_lines() {
	awk '/^## / { on = $0 == "## Install" } on && /^```/ { code = !code; next } on && code' /test/guest/README.md
}

# What a user sees who types the line at a terminal (terminal.py), in the folder where the package lies.
as_typed() { # SECONDS LINE [TEXT...]: exit status of the line, and not 0 where a text is not seen
	local limit=$(($1 * patience))
	shift
	[ -n "$1" ] || why "README has no such line" || return
	(cd /root && exec python3 /test/guest/terminal.py $limit "$@")
}

# A value of a JSON text by its path: json 'd["profiling"]["enabled"]' <text
json() {
	python3 -c 'import json, sys
d = json.load(sys.stdin)
print(json.dumps(eval(sys.argv[1], {"d": d, "len": len, "sum": sum})))' "$1"
}

status_is() { # EXPRESSION: true of odictl status
	[ "$(odictl status --json 2>/dev/null | json "bool($1)" 2>/dev/null)" = true ]
}

bpf_programs() {
	grep -c 'bpf_prog_[0-9a-f]*_\(sample\|follow\)' /proc/kallsyms
}

main_pid() {
	systemctl show -p MainPID --value odi
}

start_receiver() {
	systemd-run -q --unit=receiver python3 /test/guest/receiver.py 4318 "$state/received"
}

# A request may be under way that it took and does not answer any more: the judge is told when.
stop_receiver() {
	ends_at systemctl stop receiver
}

ends_at() { # COMMAND...: what ends one of both sides of a delivery, and may leave its last request without an answer
	local began=$EPOCHREALTIME status=0
	"$@" || status=$?
	echo "$began $EPOCHREALTIME" >>"$state/ends"
	return $status
}

inside() { # COUNT: of the destination's ledger
	odictl status --json 2>/dev/null | json "d['ledger']['destinations']['inside']['$1']"
}

held_more_than() { # NUMBER
	local n
	n=$(inside held) && [ "$n" -gt "$1" ]
}

# However it was started and stopped since the destination was added: all that was routed is accounted for, and nothing gone.
nothing_lost() {
	await 30 status_is 'd["ledger"]["closes"]' || why "the ledger does not close" || return
	status_is 'd["ledger"]["lost"] == 0' || why "$(odictl status --json | json 'd["ledger"]["lost_by"]') were lost" || return
	[ "$(inside evicted) $(inside rejected)" = "0 0" ] || why "$(inside evicted) evicted, $(inside rejected) rejected"
}

received() { # TEXT SINCE: a body that came after the file SINCE holds the text
	find "$state/received" -name '*.pb' -newer "$2" -exec grep -l -a -F -e "$1" {} + 2>/dev/null | grep -q .
}

# Everything that packages may leave, but for what apt, dpkg, systemd, man and these tests keep.
list_files() {
	find / -xdev \( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/lib/apt -o -path /var/lib/dpkg \
		-o -path /var/cache -o -path /var/log/journal -o -path /var/log/apt -o -path "$state" -o -path /srv \
		-o -path /var/lib/systemd -o -path /var/tmp -o -path /root -o -path /test \) -prune -o -print | sort
	# of those, what bears the name
	find /run /tmp /var/lib/systemd /var/tmp /var/cache /var/log -xdev -path /var/cache/man -prune -o \( -name 'odi*' -o -name 'agentd*' \) -print 2>/dev/null | sort
}
