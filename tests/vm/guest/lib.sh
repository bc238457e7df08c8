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

stop_receiver() {
	systemctl stop receiver
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
