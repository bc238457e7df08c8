#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What can be said of packaging/ without building a package: units that systemd understands and that take enough away, one
# list of files for both kinds of package, scriptlets that a shell understands. Cases as tests/run.sh reads them.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# shellcheck source=tests/lib/verdict.sh
. tests/lib/verdict.sh

# Keys that systemd of this machine does not know yet, and ignores.
new_keys='RestartSteps|RestartMaxDelaySec'

# Everything but the programs, which are not needed for this.
make -s B="$work/b" DESTDIR="$work/root" PREFIX=/usr SYSCONFDIR=/etc install-system >"$work/log" 2>&1
verdict "what is not built is installed" $? || cat "$work/log" >&2
units=$work/root/usr/lib/systemd/system

if command -v systemd-analyze >/dev/null 2>&1; then
	mkdir -p "$work/verify"
	for u in "$units"/*; do
		# verify wants programs that are there
		sed 's,^ExecStart=[^ ]*,ExecStart=/bin/true,' "$u" >"$work/verify/${u##*/}"
	done
	# Only of our own units: this machine's may have faults.
	systemd-analyze verify --man=no "$work/verify/"* 2>&1 | grep -F "$work/verify/" |
		grep -vE "Unknown key.* '?($new_keys)'?" >"$work/faults"
	cat "$work/faults" >&2
	verdict "systemd finds no fault in the units" "$([ -s "$work/faults" ] && echo 1 || echo 0)"
	for pair in odi.service:22 odi-exporter.service:15; do
		u=${pair%:*}
		systemd-analyze security --offline=true "$units/$u" 2>/dev/null >"$work/score"
		score=$(sed -n 's/.*Overall exposure level for [^:]*: \([0-9]*\)\.\([0-9]\).*/\1\2/p' "$work/score")
		grep '^✗' "$work/score" >&2
		verdict "$u is exposed at most ${pair#*:} tenths" "$([ "${score:-100}" -le "${pair#*:}" ] && echo 0 || echo 1)"
	done
else
	echo "cannot run - units: no systemd-analyze on this machine"
fi

# Debian's scripts have a first line and are found by lint.sh; those of the spec are cut out here.
awk '/^%(post|preun|postun)$/ { name = substr($0, 2); f = FILENAME_OUT "/" name ".sh"; print "#!/bin/sh" >f; next }
	/^%/ { f = ""; next } f { gsub(/%%/, "%"); print >f }' FILENAME_OUT="$work" packaging/rpm/odi.spec
scripts=0
for s in "$work"/post.sh "$work"/preun.sh "$work"/postun.sh; do
	[ -s "$s" ] && scripts=$((scripts + 1))
done
# SC2015: `a && b || :` is meant as it is read. SC2181 and others stay on.
[ $scripts = 3 ] && { ! command -v shellcheck >/dev/null 2>&1 || shellcheck -s sh -e SC2015 "$work"/*.sh >&2; }
verdict "scriptlets of the rpm" $?

# What make installs and the spec does not name fails only when an rpm is built: so it is seen here.
(cd "$work/root" && find . -type f -printf '/%P\n') | while IFS= read -r f; do
	grep -qF -- "$f" packaging/rpm/odi.spec || echo "$f is not in packaging/rpm/odi.spec"
done >"$work/unnamed"
cat "$work/unnamed" >&2
verdict "the spec names what is installed" "$([ -s "$work/unnamed" ] && echo 1 || echo 0)"

# An archive is found in this machine's settings or named by who builds; none stands in the tree.
hosts=$(grep -rnE 'https?://' packaging --include='*.sh' --include=control --include=rules --include='*.spec' |
	grep -vE 'https://(www\.debian\.org/doc|localhost)' || true)
[ -z "$hosts" ] || echo "$hosts" >&2
verdict "no archive's name in packaging/" "$([ -z "$hosts" ] && echo 0 || echo 1)"
exit $status
