#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds packages in a Debian 11 root (root.sh): build.sh deb|rpm amd64|arm64 VERSION OUT_FOLDER
#
# Two builds of the same sources give the same bytes: one root, one path in it, one clock (SOURCE_DATE_EPOCH: of the last
# commit unless it is set), nothing of this machine's environment. The sources are the files that git knows, as
# they lie here; in an unpacked archive, all files but build/.
set -euo pipefail
cd "$(dirname "$0")/.."

what=${1:?usage: build.sh deb|rpm amd64|arm64 VERSION OUT_FOLDER}
architecture=${2:?}
version=${3:?}
mkdir -p "${4:?}"
out=$(cd "$4" && pwd)

case $version in
*[!0-9A-Za-z.+~]* | [!0-9]*)
	echo "build.sh: '$version' is no version: digits first, then letters, digits and .+~" >&2
	exit 2
	;;
esac
root=$(packaging/root.sh "$architecture")

sources() {
	if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
		git ls-files -z | while IFS= read -r -d '' f; do
			if [ -f "$f" ]; then printf '%s\0' "$f"; fi
		done
	else
		find . -path ./build -prune -o -type f -print0
	fi
}

if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
	SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || stat -c %Y VERSION)
fi

# Builds of one root take turns: the path in it is the same for all; while root.sh adds to it, it has another name. What is
# mounted goes with the name space.
exec 9>"${root%/*}/build.lock"
flock 9
work=$root/build/odi
rm -rf "$work" "$root/build/out"
mkdir -p "$work" "$root/build/out"
sources | LC_ALL=C sort -z | tar --no-recursion --null -T - --mtime="@$SOURCE_DATE_EPOCH" \
	--mode=u=rwX,go=rX -cf - | tar -C "$work" -xf -
# shellcheck disable=SC2016 # the inner shell's own variables
unshare -m -- bash -c 'root=$1; shift
	mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" && exec chroot "$root" env -i "$@"' build "$root" \
	PATH=/usr/lib/llvm-13/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 TZ=UTC HOME=/root \
	SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" ODI_JOBS="${ODI_JOBS:-$(nproc)}" \
	/build/odi/packaging/inside.sh "$what" "$architecture" "$version" >"$out/$what-$architecture.log" 2>&1 || {
	tail -n 60 "$out/$what-$architecture.log" >&2
	echo "build.sh: the $what could not be built; all of it is in $out/$what-$architecture.log" >&2
	exit 1
}
cp "$root/build/out/"* "$out/"
ls -l "$out" >&2
rm -rf "$work" "$root/build/out"
