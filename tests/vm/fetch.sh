#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Prints the folder of one of Debian's kernels: fetch.sh KERNEL SUITE [ARCHITECTURE]
#
# KERNEL is a version, such as 6.1, or newest: whatever the suite has now. In the folder lie vmlinuz, and package
# (name and version). Fetched once (apt.sh); remove the folder to have it fetched anew.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=tests/vm/apt.sh
. "$here/apt.sh"

kernel=${1:?usage: fetch.sh KERNEL SUITE [ARCHITECTURE]}
suite=${2:?usage: fetch.sh KERNEL SUITE [ARCHITECTURE]}
arch=${3:-$(dpkg --print-architecture)}
folder=$cache/$kernel-$arch

if [ -s "$folder/vmlinuz" ]; then
	echo "$folder"
	exit 0
fi
own_apt "$suite" "$arch"

# The smaller build for virtual machines; the metapackage names the newest one.
package=$(apt-cache "${apt_options[@]}" depends "linux-image-cloud-$arch" |
	sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
[ -n "$package" ] || die "$suite has no linux-image-cloud-$arch"
case $package in
"linux-image-$kernel."*) ;;
linux-image-*) [ "$kernel" = newest ] || die "the kernel of $suite is $package, not $kernel" ;;
*) die "the kernel of $suite is $package, not $kernel" ;;
esac

work=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
# Of 7.3 and later, the kernel itself is in a package of its own.
binary=$(apt-cache "${apt_options[@]}" depends "$package" | sed -n 's/^ *Depends: \(linux-binary-[0-9].*\)/\1/p' | head -n 1)
(cd "$work" && apt-get "${apt_options[@]}" -qq download "${binary:-$package}" >&2) ||
	die "apt cannot fetch ${binary:-$package}"
mkdir "$work/new"
dpkg-deb --fsys-tarfile "$work"/*.deb | tar -x -C "$work/new" --wildcards '*/vmlinuz*'
find "$work/new" -type f -name 'vmlinuz*' -exec mv {} "$work/vmlinuz" \;
rm -rf "$work/new"
mkdir "$work/new"
mv "$work/vmlinuz" "$work/new/"
# shellcheck disable=SC2016 # dpkg's own variables
dpkg-deb -W --showformat '${Package} ${Version}\n' "$work"/*.deb >"$work/new/package"
rm -rf "$folder"
mv "$work/new" "$folder"
echo "$folder"
