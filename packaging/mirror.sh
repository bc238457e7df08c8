#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints the archive of Debian's that this machine's apt uses (not the one of security updates); ODI_DEBIAN_MIRROR, if it is
# set, comes first.
set -euo pipefail

mirror=${ODI_DEBIAN_MIRROR:-}
if [ -z "$mirror" ]; then
	# shellcheck disable=SC2016 # apt's own variables
	mirror=$(apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
		awk '$1 == "Debian" && $2 == "main" && $3 !~ /security/ { print $4; exit }')
fi
[ -n "$mirror" ] || {
	echo "${0##*/}: apt knows no archive of Debian's here: name one in ODI_DEBIAN_MIRROR" >&2
	exit 1
}
echo "$mirror"
