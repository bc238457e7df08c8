#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes a plain root of a release of Debian, once, and prints its path: root.sh SUITE
#
# Below ODI_PACKAGING (default: odi/packaging in the user's cache folder), from the archive that this machine's apt uses for
# Debian, else ODI_DEBIAN_MIRROR. Nothing is installed into it but what apt itself takes: tests work on copies.
set -euo pipefail

suite=${1:?usage: root.sh SUITE}
base=${ODI_PACKAGING:-${XDG_CACHE_HOME:-$HOME/.cache}/odi/packaging}/plain
mirror=$("$(dirname "$0")/../../packaging/mirror.sh")
mkdir -p "$base"
exec 9>"$base/$suite.lock"
flock 9
if [ ! -d "$base/$suite" ]; then
	rm -rf "$base/$suite.new"
	# sysusers and units come with systemd; dpkg needs not wait for the disk
	debootstrap --variant=minbase --include=systemd,ca-certificates \
		--keyring=/usr/share/keyrings/debian-archive-keyring.gpg "$suite" "$base/$suite.new" "$mirror" >&2
	cp -L /etc/resolv.conf "$base/$suite.new/etc/resolv.conf"
	printf 'force-unsafe-io\n' >"$base/$suite.new/etc/dpkg/dpkg.cfg.d/fast"
	printf '#!/bin/sh\nexit 101\n' >"$base/$suite.new/usr/sbin/policy-rc.d"
	chmod 755 "$base/$suite.new/usr/sbin/policy-rc.d"
	mv "$base/$suite.new" "$base/$suite"
fi
echo "$base/$suite"
