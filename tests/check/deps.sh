#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Installs what is missing and nothing else: deps.sh build|test|kernels|vm|packages [BUILD_FOLDER]
#
# Debian 12 and Ubuntu 24.04. Silent and quick where all is there, so that every make target may call it.
# A tool that is on PATH already is used whatever brought it (go, rustc, docker, chromium); only libraries
# are asked for by package.
set -euo pipefail
cd "$(dirname "$0")/../.."

mode=${1:-build}
build=${2:-${B:-build}}
case $mode in
build | test | kernels | vm | packages) ;;
*)
	echo "usage: tests/check/deps.sh build|test|kernels|vm|packages [BUILD_FOLDER]" >&2
	exit 2
	;;
esac

# A command, the package that brings it.
build_commands="clang:clang llvm-strip:llvm gcc:gcc make:make pkg-config:pkg-config protoc-c:protobuf-c-compiler ar:binutils"
build_packages="libc6-dev libbpf-dev libelf-dev libdw-dev libcurl4-openssl-dev libyaml-dev libsqlite3-dev
	libprotobuf-c-dev libsystemd-dev libseccomp-dev libcap-dev libiberty-dev libzstd-dev zlib1g-dev
	liblzma-dev libjson-c-dev"
test_commands="dwz:dwz systemd-analyze:systemd man:man-db col:bsdextrautils xz:xz-utils readelf:binutils clang-format:clang-format shellcheck:shellcheck g++:g++ jq:jq strace:strace curl:curl
	git:git sqlite3:sqlite3 go:golang-go rustc:rustc dockerd:docker.io docker:docker.io openssl:openssl
	musl-gcc:musl-tools node:nodejs javac:default-jdk-headless nginx:nginx-light debuginfod:debuginfod zsh:zsh fish:fish groff:groff-base"
test_packages="libcmocka-dev python3-venv procps ca-certificates"
kernels_commands="qemu-system-x86_64:qemu-system-x86 qemu-system-aarch64:qemu-system-arm cpio:cpio
	aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu python3:python3"
kernels_packages="libcmocka-dev busybox-static debian-archive-keyring libc6-dev-arm64-cross"
vm_commands="qemu-system-x86_64:qemu-system-x86 debootstrap:debootstrap mke2fs:e2fsprogs unshare:util-linux"
vm_packages="debian-archive-keyring python3-venv"

packages_commands="debootstrap:debootstrap lintian:lintian rpm:rpm rpmlint:rpmlint readelf:binutils file:file
	unshare:util-linux qemu-aarch64-static:qemu-user-static qemu-system-aarch64:qemu-system-arm cpio:cpio gpg:gnupg
	python3:python3"
packages_packages="debian-archive-keyring"

missing=""
add() {
	case " $missing " in
	*" $1 "*) ;;
	*) missing="$missing $1" ;;
	esac
}

available() { # PACKAGE: apt knows it and could install it
	[ -n "$(apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: *\([^(].*\)/\1/p')" ]
}

want_commands() {
	local pair
	for pair in "$@"; do
		PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null 2>&1 || add "${pair#*:}"
	done
}

want_packages() {
	local have p
	have=" $(dpkg-query -W -f '${Package}:${db:Status-Status} ' "$@" 2>/dev/null || true)"
	for p in "$@"; do
		case $have in
		*" $p:installed "*) ;;
		*) add "$p" ;;
		esac
	done
}

# Ubuntu's /usr/sbin/bpftool is a script that looks for the running kernel's own tools and may find none;
# the real one lies under /usr/lib/linux-tools* then, where the Makefile looks too.
bpftool_works() {
	local t
	for t in "$(PATH="$PATH:/usr/sbin" command -v bpftool || true)" /usr/lib/linux-tools*/bpftool \
		/usr/lib/linux-tools/*/bpftool; do
		[ -n "$t" ] && [ -x "$t" ] && "$t" version >/dev/null 2>&1 && return 0
	done
	return 1
}

chromium_works() {
	command -v chromium >/dev/null 2>&1 && command -v chromedriver >/dev/null 2>&1
}

# The run-time libraries of clang's sanitizers and fuzzer are a package of their own, named after its version.
fuzzer_works() {
	[ -e "$(clang -print-file-name="libclang_rt.fuzzer-$(uname -m).a")" ]
}

apt_updated=
apt_update() {
	[ -n "$apt_updated" ] && return 0
	apt_updated=1
	apt-get -qq update >&2
}

need_apt() {
	if ! command -v apt-get >/dev/null 2>&1; then
		echo "deps: this machine has no apt; install by hand what the list names:$missing" >&2
		exit 1
	fi
	if [ "$(id -u)" != 0 ]; then
		echo "deps: these packages are missing:$missing" >&2
		echo "deps: installing them needs root: put sudo before the command" >&2
		exit 1
	fi
}

install_missing() {
	[ -n "$missing" ] || return 0
	need_apt
	echo "deps: installing:$missing"
	apt_update
	# shellcheck disable=SC2086 # a list of words on purpose
	if ! DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 \
		install $missing >"$log" 2>&1; then
		tail -n 40 "$log" >&2
		echo "deps: apt-get could not install:$missing" >&2
		exit 1
	fi
	missing=""
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT

# shellcheck disable=SC2086 # lists of words on purpose
want_commands $build_commands
# shellcheck disable=SC2086
want_packages $build_packages
if [ "$mode" = test ]; then
	# shellcheck disable=SC2086
	want_commands $test_commands
	# shellcheck disable=SC2086
	want_packages $test_packages
	# where the kernel has AppArmor, Docker loads a profile by this package's parser
	if [ "$(cat /sys/module/apparmor/parameters/enabled 2>/dev/null)" = Y ]; then
		want_commands apparmor_parser:apparmor
	fi
fi
if [ "$mode" = kernels ]; then
	# shellcheck disable=SC2086
	want_commands $kernels_commands
	# shellcheck disable=SC2086
	want_packages $kernels_packages
fi
if [ "$mode" = vm ]; then
	# shellcheck disable=SC2086
	want_commands $vm_commands
	# shellcheck disable=SC2086
	want_packages $vm_packages
fi
if [ "$mode" = packages ]; then
	# shellcheck disable=SC2086
	want_commands $packages_commands
	# shellcheck disable=SC2086
	want_packages $packages_packages
fi
if ! bpftool_works; then
	if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
		apt_update
		if available bpftool; then
			add bpftool
		else
			add linux-tools-common
			add linux-tools-generic
		fi
	else
		add bpftool
	fi
fi
install_missing
if ! bpftool_works; then
	echo "deps: no bpftool that works was found; on Ubuntu install linux-tools-generic" >&2
	exit 1
fi
case $mode in
build | kernels) exit 0 ;;
esac

if [ "$mode" = test ] && ! fuzzer_works; then
	add "libclang-rt-$(clang -dumpversion | cut -d. -f1)-dev"
	install_missing
fi

# The browser is for one test. Where the distribution has no package of it (Ubuntu has a snap), that test
# says that it cannot run.
if [ "$mode" = test ] && ! chromium_works && [ "$(id -u)" = 0 ]; then
	apt_update
	if available chromium && available chromium-driver; then
		add chromium
		add chromium-driver
		install_missing
	fi
fi

# Python packages in an environment of their own; the stamp is the list they came from.
venv=$build/venv
if ! cmp -s tests/check/requirements.txt "$venv/installed.txt"; then
	echo "deps: installing the tests' Python packages into $venv"
	python=/usr/bin/python3
	[ -x $python ] || python=python3
	rm -rf "$venv"
	mkdir -p "$build"
	if ! { $python -m venv "$venv" && "$venv/bin/pip" install -q --disable-pip-version-check \
		-r tests/check/requirements.txt; } >"$log" 2>&1; then
		tail -n 40 "$log" >&2
		echo "deps: the Python packages of tests/check/requirements.txt could not be installed" >&2
		exit 1
	fi
	cp tests/check/requirements.txt "$venv/installed.txt"
fi
