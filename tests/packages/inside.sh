#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# What the units of the installed package may and may not do, tried from inside: inside.sh
#
# Runs as root where systemd is PID 1 and odi is installed. Each unit is copied under another name with everything that
# takes something away, and a probe in the place of its program: so it is what systemd of this system makes of the unit that
# is judged. Needs perl, which every Debian has. Cases as tests/run.sh reads them.
set -u
work=/run/odi-inside
rm -rf $work
mkdir -p $work
chmod 755 $work
cat >$work/probe.pl <<'PERL'
# probe.pl RESULT_PREFIX: tries, and says of each "NAME yes" or "NAME no"
use strict;
use warnings;
my $aarch = `uname -m` =~ /aarch64/;
my %nr = $aarch ? (bpf => 280, ptrace => 117, perf => 241, mount => 40, setuid => 146, init_module => 105, reboot => 142, unshare => 97)
	: (bpf => 321, ptrace => 101, perf => 298, mount => 165, setuid => 105, init_module => 175, reboot => 169, unshare => 272);
sub say_of { my ($name, $ok) = @_; print "$name ", $ok ? "yes" : "no", "\n"; }
sub readable { open(my $f, '<', $_[0]) or return 0; my $x; return defined(sysread($f, $x, 1)); }
sub writable { open(my $f, '>', $_[0]) or return 0; close $f; unlink $_[0]; return 1; }
# BPF_MAP_CREATE of an array: type 2, key 4, value 4, one entry
my $attr = pack("L4 x112", 2, 4, 4, 1);
say_of("load-bpf", syscall($nr{bpf}, 0, $attr, length $attr) >= 0);
# PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY, disabled; itself
my $perf = pack("L2 Q5 x72", 1, 112, 9, 0, 0, 0, 1);
say_of("perf", syscall($nr{perf}, $perf, 0, -1, -1, 0) >= 0);
say_of("ptrace", syscall($nr{ptrace}, 16, 1, 0, 0) >= 0);
# syscall() takes no literal texts
my ($none, $mnt, $tmpfs, $empty) = ("none", "/mnt", "tmpfs", "");
say_of("mount", syscall($nr{mount}, $none, $mnt, $tmpfs, 0, 0) >= 0);
say_of("setuid", syscall($nr{setuid}, 0) >= 0);
say_of("unshare", syscall($nr{unshare}, 0x10000000) >= 0);
say_of("module", syscall($nr{init_module}, 0, 0, $empty) >= 0 || $!{EFAULT} || $!{ENOEXEC});
socket(my $s, 2, 1, 0) and say_of("socket", 1) or say_of("socket", 0);
say_of("write-etc", writable("/etc/odi/probe"));
say_of("write-usr", writable("/usr/lib/odi/probe"));
say_of("write-own", writable("$ENV{STATE_DIRECTORY}/probe"));
say_of("read-home", readable("/root/odi-probe") || readable("/home/odi-probe"));
say_of("read-shadow", readable("/etc/shadow"));
say_of("read-environ", readable("/proc/1/environ"));
say_of("read-agent-state", readable("/var/lib/odi/odi.db"));
say_of("write-sysctl", writable("/proc/sys/kernel/core_pattern") || open(my $c, '>>', "/proc/sys/kernel/core_pattern"));
# the first ones may truly be 0
my $seen = 0;
if (open(my $k, '<', "/proc/kallsyms")) { while (!$seen && defined(my $l = <$k>)) { $seen = $l =~ /^[0-9a-f]*[1-9a-f][0-9a-f]* /; } }
say_of("kernel-addresses", $seen);
PERL

try() { # UNIT
	sed -e 's,^ExecStart=.*,ExecStart=/usr/bin/perl /run/odi-inside/probe.pl,' -e 's/^Type=.*/Type=oneshot/' \
		-e '/^WatchdogSec=/d' -e '/^Restart/d' -e '/^ExecReload=/d' -e '/^\[Install\]/,$d' -e '/^Requires=/d' -e '/^Wants=/d' \
		-e '/^\[Service\]/a StandardOutput=file:/run/odi-inside/'"$1"'.out' \
		"/usr/lib/systemd/system/$1.service" >"/run/systemd/system/$1-probe.service"
	systemctl daemon-reload
	systemctl start "$1-probe.service" >&2 || journalctl -u "$1-probe.service" --no-pager -n 20 >&2
	rm -f "/run/systemd/system/$1-probe.service"
}

expect() { # UNIT yes|no NAME...
	unit=$1 wanted=$2
	shift 2
	for name in "$@"; do
		if grep -qx "$name $wanted" "$work/$unit.out" 2>/dev/null; then
			echo "ok - $unit, $name: $wanted"
		else
			echo "not ok - $unit, $name: $wanted"
			status=1
		fi
	done
}

status=0
echo x >/root/odi-probe
try odi
try odi-exporter
rm -f /root/odi-probe
systemctl daemon-reload
expect odi yes load-bpf perf write-own kernel-addresses read-environ
expect odi no ptrace mount setuid unshare module socket write-etc write-usr read-home write-sysctl
expect odi-exporter yes socket write-own
expect odi-exporter no load-bpf perf ptrace mount setuid unshare module write-etc write-usr read-home read-shadow read-environ \
	read-agent-state write-sysctl kernel-addresses
rm -rf $work
exit $status
