#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes the root in which packages are built, once, and prints its path: root.sh amd64|arm64
#
# Debian 11 as it was last released (no suite of updates: what is linked dynamically comes from the system it runs on,
# and a suite that never changes gives the same bytes next year). What is too old there comes from Debian 13: the
# headers of the kernel, and the source of libbpf, which is built here and linked statically, since no two
# distributions have the same one. For arm64 it is the same root with the cross compiler and that architecture's libraries
# added.
#
# Roots are kept below ODI_PACKAGING (default: odi/packaging in the user's cache folder). The archive is the one
# that this machine's apt uses for Debian, else ODI_DEBIAN_MIRROR.
set -euo pipefail

architecture=${1:?usage: root.sh amd64|arm64}
base=${ODI_PACKAGING:-${XDG_CACHE_HOME:-$HOME/.cache}/odi/packaging}
root=$base/bullseye
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
newer=trixie
triplet=x86_64-linux-gnu
[ "$architecture" = amd64 ] || triplet=aarch64-linux-gnu

# What builds, by its name in Debian 11. clang-13 makes BPF objects; they are bytecode, the same for every machine.
tools=(build-essential cpio debhelper fakeroot clang-13 llvm-13 bpftool protobuf-c-compiler pkg-config rpm debugedit
	lintian python3)
libraries=(libcurl4-openssl-dev libelf-dev libdw-dev libyaml-dev libsqlite3-dev libprotobuf-c-dev libsystemd-dev
	libseccomp-dev libcap-dev libiberty-dev libzstd-dev zlib1g-dev liblzma-dev libjson-c-dev)
# Of libjson-c-dev there can be one only, and the other architecture's must stay: its headers are the same.
others=("${libraries[@]/libjson-c-dev/libjson-c5}")
declare -A packages=([amd64]="${tools[*]} ${libraries[*]}" [arm64]="crossbuild-essential-arm64 ${others[*]/%/:arm64}")

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

inside() {
	# shellcheck disable=SC2016 # the inner shell's own variables
	unshare -m -- bash -c 'root=$1; shift
		mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" && exec chroot "$root" env -i \
		PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root DEBIAN_FRONTEND=noninteractive "$@"' \
		inside "$root.new" "$@"
}

# What an architecture takes; its list is kept, so that a root made before the list grew is completed.
install_for() { # ARCHITECTURE
	# shellcheck disable=SC2086 # many words
	inside apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 -o Dpkg::Options::=--force-unsafe-io \
		-o Acquire::Retries=3 -o Acquire::Languages=none -o APT::Sandbox::User=root install ${packages[$1]} &&
		mkdir -p "$root.new/build/newer" && echo "${packages[$1]}" >"$root.new/build/newer/packages.$1"
}

# Not under a build that runs there (build.sh).
take_root() {
	exec 8>"$base/build.lock"
	flock 8
	mv "$root" "$root.new"
}

complete() { # ARCHITECTURE
	[ "$(cat "$root/build/newer/packages.$1" 2>/dev/null)" != "${packages[$1]}" ] || return 0
	echo "adding what $1 takes by now to $root" >&2
	begin
	take_root
	install_for "$1" || {
		mv "$root.new" "$root"
		die "it could not be completed; removing that folder has it made anew"
	}
	mv "$root.new" "$root"
	exec 8>&-
}

# Names of a folder's packages that its own apt must not mix with those of Debian 11.
make_newer() {
	local options=(-o Dir::Etc::sourcelist=/build/newer/sources.list -o Dir::Etc::sourceparts=/dev/null
		-o Dir::State::lists=/build/newer/lists -o Acquire::Languages=none -o APT::Sandbox::User=root
		-o Acquire::Retries=3)
	mkdir -p "$root.new/build/newer/lists/partial"
	printf '%s [signed-by=%s] %s %s main\n' deb "$keyring" "$mirror" $newer deb-src "$keyring" "$mirror" $newer \
		>"$root.new/build/newer/sources.list"
	inside apt-get "${options[@]}" -qq update
	inside bash -c 'cd /build/newer && apt-get "$@" -qq download linux-libc-dev && apt-get "$@" -qq source \
		--download-only libbpf' newer "${options[@]}"
	inside bash -c 'cd /build/newer && dpkg-source --no-check -x libbpf_*.dsc libbpf && mkdir -p headers &&
		dpkg-deb -x linux-libc-dev_*.deb headers && dpkg-deb -f linux-libc-dev_*.deb Version >headers.version &&
		sed -n "s/^Version: //p" libbpf_*.dsc | head -n 1 >libbpf.version && rm -rf lists'
}

make_libbpf() { # ARCHITECTURE COMPILER_PREFIX
	inside make -s -C /build/newer/libbpf/src BUILD_STATIC_ONLY=y PREFIX=/usr LIBDIR=/usr/lib \
		OBJDIR="/build/newer/objects-$1" DESTDIR="/build/newer/$1" CC="$2gcc" AR="$2ar" \
		EXTRA_CFLAGS="-O2 -g -ffile-prefix-map=/build/newer=/usr/src -fstack-protector-strong -D_FORTIFY_SOURCE=2" \
		install
}

prepare() {
	cp "$keyring" "$root.new$keyring"
	[ ! -e /etc/resolv.conf ] || cp -L /etc/resolv.conf "$root.new/etc/resolv.conf"
	echo "deb $mirror bullseye main" >"$root.new/etc/apt/sources.list"
	# Nobody reads them there, and indexing thousands of pages takes minutes.
	printf 'path-exclude=/usr/share/%s/*\n' man locale doc >"$root.new/etc/dpkg/dpkg.cfg.d/small"
	inside apt-get -qq -o Acquire::Languages=none -o APT::Sandbox::User=root update
}

begin() {
	[ "$(id -u)" = 0 ] || die "a root of Debian is made by debootstrap, which needs root: put sudo before the command"
	command -v debootstrap >/dev/null 2>&1 || die "debootstrap is missing: apt install debootstrap"
	[ -e "$keyring" ] || die "Debian's keys are missing: apt install debian-archive-keyring"
	mirror=$("$(dirname "$0")/mirror.sh") || exit 1
	mkdir -p "$base"
}

make_native() {
	echo "making the root of Debian 11 in which packages are built ($root)" >&2
	rm -rf "$root.new"
	debootstrap --variant=minbase --keyring="$keyring" bullseye "$root.new" "$mirror" >&2
	prepare
	install_for amd64
	make_newer
	make_libbpf amd64 ""
	mv "$root.new" "$root"
}

make_cross() {
	echo "adding what arm64 takes to it" >&2
	take_root
	inside dpkg --add-architecture arm64
	inside apt-get -qq -o Acquire::Languages=none -o APT::Sandbox::User=root update
	install_for arm64
	make_libbpf arm64 $triplet-
	ln -s /usr/lib/$triplet/libjson-c.so.5 "$root.new/build/newer/arm64/usr/lib/libjson-c.so"
	mv "$root.new" "$root"
}

(
	flock 9
	if [ ! -e "$root/build/newer/amd64/usr/lib/libbpf.a" ]; then
		begin
		make_native
	fi
	complete amd64
	if [ "$architecture" = arm64 ] && [ ! -e "$root/build/newer/arm64/usr/lib/libbpf.a" ]; then
		begin
		make_cross
	fi
	[ "$architecture" = amd64 ] || complete arm64
) 9>"$(mkdir -p "$base" && echo "$base/lock")" >&2
echo "$root"
