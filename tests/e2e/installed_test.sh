#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# timeout: 540 s
#
# What `make install` puts in place, as a package has it: installed_test.sh BUILD_FOLDER
#
# Programs, pages, completions, units; that an agentd which was not told to profile loads no BPF, takes the socket of a service
# manager, and remembers over a restart that it was told; and that the unit's own user and capabilities are enough to
# profile, and too few for what it is not to do.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
build=${1:-${ODI_BUILD:-build}}
work=$(mktemp -d)
agentd_pid=
stop() {
	if [ -n "$agentd_pid" ]; then
		kill "$agentd_pid" 2>/dev/null
		for _ in $(seq 600); do kill -0 "$agentd_pid" 2>/dev/null && sleep 0.1; done
		kill -9 "$agentd_pid" 2>/dev/null && echo "agentd did not end when it was asked to" >&2
		wait "$agentd_pid" 2>/dev/null
	fi
	agentd_pid=
}
hurry() { # what agentd does not answer must not hold up all tests
	timeout -k 5 120 "$@"
}
trap 'stop; rm -rf "$work"' EXIT
chmod 755 "$work"
# shellcheck source=tests/lib/verdict.sh
. tests/lib/verdict.sh

root=$work/root
make -s B="$build" DESTDIR="$root" PREFIX=/usr SYSCONFDIR=/etc install >"$work/log" 2>&1
verdict "make install" $? || cat "$work/log" >&2
odictl=$root/usr/bin/odictl agentd=$root/usr/lib/odi/agentd

[ "$(find "$root/usr/bin" "$root/usr/sbin" "$root/bin" "$root/sbin" ! -type d -printf '%f\n' 2>/dev/null)" = odictl ]
verdict "odictl alone is on PATH" $?

# Every command of --help has a page of its own or stands in that of its group, and no page is of anything else.
{
	"$odictl" help | sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p' | grep -v '^and$'
	"$odictl" help | sed -n 's/^  and  *//p' | tr ',' '\n' | tr -d ' '
} | sort -u >"$work/commands"
find "$root/usr/share/man/man1" -name 'odictl-*.1' -printf '%f\n' | sed 's/^odictl-//; s/\.1$//' | sort >"$work/pages"
diff "$work/commands" "$work/pages" >&2
verdict "every command of --help has a page, and back" $?
missing=0
while read -r c; do
	"$odictl" "$c" --help | sed -n '/^usage: .* COMMAND/,/^$/d; s/^  \([a-z][a-z-]*\)  .*/\1/p' | while read -r sub; do
		man -l "$root/usr/share/man/man1/odictl-$c.1" 2>/dev/null | col -b | grep -E "odictl $c $sub( |$)" >/dev/null ||
			echo "odictl $c $sub is not in odictl-$c(1)"
	done
done <"$work/commands" >"$work/missing"
[ -s "$work/missing" ] && missing=1 && cat "$work/missing" >&2
verdict "every command of a group stands in the group's page" $missing

complaints=$(find "$root/usr/share/man" -type f | while read -r p; do
	LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=80 man --warnings=w -E UTF-8 -l -Tutf8 -Z "$p" 2>&1 >/dev/null | sed "s,^,${p##*/}: ,"
done)
[ -z "$complaints" ] || echo "$complaints" >&2
verdict "man --warnings has none" "$([ -z "$complaints" ] && echo 0 || echo 1)"
verdict "odi.conf(5) has the settings, odi-destinations(5) the types" \
	"$(grep -q 'profiling/rate' "$root/usr/share/man/man5/odi.conf.5" && grep -q pyroscope "$root/usr/share/man/man5/odi-destinations.5"; echo $?)"
[ -s "$root/usr/share/man/man8/agentd.8" ] && "$agentd" --help | grep -oE '^  --[a-z-]+' | while read -r o; do
	sed 's/\\-/-/g' "$root/usr/share/man/man8/agentd.8" | grep -qF -- "${o#  }" || echo "$o is not in agentd(8)"
done >"$work/options"
cat "$work/options" >&2
verdict "agentd(8) has every option of --help" "$([ -s "$work/options" ] && echo 1 || echo 0)"

# Names of versions that only Debian gives to symbols of libraries: a binary that has one starts on Debian alone.
readelf -VW "$odictl" "$agentd" | grep -oE 'Name: [A-Z][A-Za-z0-9_.]*' | sort -u | cut -d' ' -f2 >"$work/versions"
grep -vE '^(GLIBC_[0-9.]+|LIBSYSTEMD_[0-9]+|ELFUTILS_[0-9.]+|JSONC_[0-9.]+|LIBPROTOBUF_C_[0-9.]+|ZLIB_[0-9.]+|XZ_[0-9.]+|LIBBPF_[0-9.]+|OPENSSL_[0-9.]+)$' \
	"$work/versions" >&2
verdict "no version of a symbol that only Debian has (CURL_OPENSSL_4, ...)" \
	"$(grep -qE 'CURL|DEBIAN' "$work/versions" && echo 1 || echo 0)"
! readelf -dW "$agentd" "$odictl" | grep NEEDED | grep -q curl
verdict "libcurl is not linked: it is loaded by name" $?

if [ "$(id -u)" != 0 ]; then
	echo "not ok - agentd: needs root, to load BPF: put sudo before the command"
	exit 1
fi

# As odi.service starts it: its user, its capabilities and no others.
caps=$(sed -n 's/^AmbientCapabilities=//p' "$root/usr/lib/systemd/system/odi.service" | tr '\n' ' ' |
	tr '[:upper:]' '[:lower:]' | sed 's/cap_/+/g; s/  */,/g; s/,$//')
bounding=$(sed -n 's/^CapabilityBoundingSet=//p' "$root/usr/lib/systemd/system/odi.service" | tr '\n' ' ' |
	tr '[:upper:]' '[:lower:]' | sed 's/cap_/+/g; s/  */,/g; s/,$//')
user=61234
mkdir -p "$work/state" "$work/config" "$work/run"
chown $user:$user "$work/state"

start() { # with a socket of a service manager's: it is made here, and handed over as descriptor 3
	rm -f "$work/run/agentd.sock"
	python3 - "$work" "$user" "$caps" "$bounding" "$agentd" >"$work/agentd.log" 2>&1 <<'PYTHON' &
import os, socket, sys
work, user, caps, bounding, agentd = sys.argv[1:]
s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
s.bind(work + "/run/agentd.sock")
os.chmod(work + "/run/agentd.sock", 0o666)
s.listen(16)
fd = os.dup(s.fileno())
os.dup2(fd, 3, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="control")
os.execvp("setpriv", ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs",
    "--inh-caps=-all," + caps, "--ambient-caps=-all," + caps, "--bounding-set=-all," + bounding, agentd,
    "--socket", "/nonexistent/agentd.sock", "--state-dir", work + "/state", "--config-dir", work + "/config",
    "--packaged-dir", work + "/config", "--exporter-socket", work + "/run/exporter.sock"])
PYTHON
	agentd_pid=$!
	export ODI_SOCKET=$work/run/agentd.sock
	for _ in $(seq 600); do
		[ -S "$ODI_SOCKET" ] && hurry "$odictl" status >/dev/null 2>&1 && return 0
		kill -0 "$agentd_pid" 2>/dev/null || break
		sleep 0.1
	done
	cat "$work/agentd.log" >&2
	return 1
}

bpf_objects() {
	find "/proc/$agentd_pid/fd" -lname 'anon_inode:bpf*' -o -lname 'anon_inode:\[perf_event\]' 2>/dev/null | wc -l
}

start
verdict "agentd starts with the socket and the capabilities of its unit" $?
[ "$(sed -n 's/^CapEff:\t//p' "/proc/$agentd_pid/status")" != "$(sed -n 's/^CapPrm:\t//p' "/proc/$agentd_pid/status")" ] &&
	[ $((0x$(sed -n 's/^CapEff:\t//p' "/proc/$agentd_pid/status") >> 21 & 1)) = 0 ]
verdict "CAP_SYS_ADMIN is permitted and not effective" $?
[ "$(bpf_objects)" = 0 ]
verdict "idle: no BPF object, no perf event" $?
hurry "$odictl" profiling enable --all >&2
verdict "odictl profiling enable --all" $?
[ "$(bpf_objects)" -gt 0 ]
verdict "then there are some" $?
stop
start
[ "$(bpf_objects)" -gt 0 ] && hurry "$odictl" profiling status --json | grep -q '"enabled": *true'
verdict "profiling enable survives a restart" $?
# until some are named, with work for the kernel meanwhile
for _ in $(seq 30); do
	timeout 1 cat /dev/zero >/dev/null
	hurry "$odictl" top --since 60s -n 200 >"$work/top" 2>&1
	grep -q vmlinux "$work/top" && break
done
cat "$work/top" >&2
grep -q vmlinux "$work/top"
verdict "functions of the kernel have names, without root" $?
[ "$(stat -c %U:%a "$work/state/odi.db")" != "root:600" ] && [ "$(stat -c %a "$work/state/odi.db")" = 600 ]
verdict "the database is agentd's own" $?
stop
exit $status
