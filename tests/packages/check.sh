#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The packages themselves: check.sh BUILD_FOLDER [deb|rpm|run|arm64|sums|twice ...]      (default: all but twice)
#
#   deb    lintian, size, what is in it, installed and removed and purged in roots of Debian
#   rpm    rpmlint, what it requires, its files against the deb's, installed and erased by rpm itself
#   run    every program in roots of Debian 11, 12, 13 and the newest: two seconds of profiles in each
#   arm64  lintian, its files against the other deb's, its programs run by an emulated processor, and a profile in a guest
#          with a kernel for arm64 (QEMU)
#   sums   checksums, and a signature by a key made for that
#   twice  two builds of each, same bytes (slow)
#
# Packages are taken from BUILD_FOLDER/dist and built first where they are missing. Needs root. Cases as tests/run.sh
# reads them.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
mkdir -p "${1:?usage: check.sh BUILD_FOLDER [deb|rpm|run|arm64|sums|twice ...]}"
build=$(cd "$1" && pwd)
shift
groups=${*:-deb rpm run arm64 sums}
version=${VERSION:-$(cat VERSION)}
dist=$build/dist
deb=$dist/odi_${version}_amd64.deb
rpm=$dist/odi-$version-1.x86_64.rpm
arm=$dist/odi_${version}_arm64.deb
work=$(mktemp -d)
copies=()
# shellcheck disable=SC2154 # c is the trap's own
trap 'for c in "${copies[@]}"; do rm -rf "$c"; done; rm -rf "$work"' EXIT
# shellcheck source=tests/lib/verdict.sh
. tests/lib/verdict.sh

wanted() {
	case " $groups " in
	*" $1 "*) return 0 ;;
	*) return 1 ;;
	esac
}

# Commands in a root, in a name space of mounts of their own, so that nothing of it is left behind.
inside() { # ROOT COMMAND...
	# shellcheck disable=SC2016 # the inner shell's own variables
	unshare -m -- bash -c 'root=$1; shift
		mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" && mount --rbind /sys "$root/sys" &&
		exec chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/root \
		DEBIAN_FRONTEND=noninteractive "$@"' inside "$@"
}

# A copy of a plain root, by hard work and not by links: what is installed must not reach the cached one.
copy_of() { # SUITE: sets $root
	local plain
	plain=$(tests/packages/root.sh "$1") || return 1
	root=$(mktemp -d "${plain%/*}/copy-$1.XXXXXX")
	copies+=("$root")
	cp -a --reflink=auto "$plain/." "$root/"
}

install_deb() {
	cp "$deb" "$root/tmp/odi.deb"
	inside "$root" sh -c 'apt-get -qq update && apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 \
		-o APT::Sandbox::User=root install /tmp/odi.deb' >"$work/apt.log" 2>&1 || {
		tail -n 30 "$work/apt.log" >&2
		return 1
	}
}

if wanted deb || wanted run || wanted rpm || wanted arm64 || wanted sums; then
	[ -s "$deb" ] || make B="$build" VERSION="$version" deb >&2
	verdict "the deb is there" "$([ -s "$deb" ]; echo $?)"
fi
if wanted rpm; then
	[ -s "$rpm" ] || make B="$build" VERSION="$version" rpm >&2
	verdict "the rpm is there" "$([ -s "$rpm" ]; echo $?)"
fi
if wanted arm64; then
	[ -s "$arm" ] || make B="$build" VERSION="$version" deb-arm64 >&2
	verdict "the deb for arm64 is there" "$([ -s "$arm" ]; echo $?)"
fi

# ---- deb -------------------------------------------------------------------------------------------------------------

files_of_deb() { # DEB
	dpkg-deb --fsys-tarfile "$1" | tar -tvf - | awk '$1 !~ /^d/ { print $6 }' | sed 's,^\./,/,' | sort
}

if wanted deb; then
	lintian --tag-display-limit 0 --fail-on error,warning --info "$deb" "$dist/odi-dbgsym_${version}_amd64.deb" >&2
	verdict "lintian has no error and no warning, and nothing is overridden" $?
	dpkg-deb -x "$deb" "$work/deb"
	size=$(find "$work/deb" -type f -printf '%s\n' | awk '{ s += $1 } END { print s }')
	echo "# $size bytes of files, $(stat -c %s "$deb") packed" >&2
	verdict "its own files are at most 5 MB" "$([ "$size" -le 5000000 ]; echo $?)"
	file "$work/deb/usr/bin/odictl" "$work/deb/usr/lib/odi/agentd" | grep -c 'not stripped' >"$work/unstripped"
	verdict "programs have no debug symbols: these are in odi-dbgsym" \
		"$([ "$(cat "$work/unstripped")" = 0 ] && [ -s "$dist/odi-dbgsym_${version}_amd64.deb" ]; echo $?)"
	readelf -VW "$work/deb/usr/bin/odictl" "$work/deb/usr/lib/odi/agentd" | grep -oE 'Name: GLIBC_[0-9.]+' |
		sed 's/.*_//' | sort -uV | tail -n 1 >"$work/glibc"
	verdict "it takes glibc $(cat "$work/glibc"), not later than 2.31" \
		"$([ "$(printf '%s\n2.31\n' "$(cat "$work/glibc")" | sort -V | tail -n 1)" = 2.31 ]; echo $?)"
	if copy_of bookworm; then
		install_deb
		verdict "apt installs it" $?
		inside "$root" sh -c 'getent passwd odi-agent odi-exporter && getent group odi odi-view' >&2
		verdict "its users and groups are there" $?
		[ -L "$root/etc/systemd/system/multi-user.target.wants/odi.service" ] &&
			[ -L "$root/etc/systemd/system/sockets.target.wants/odi.socket" ]
		verdict "its units are enabled" $?
		mkdir -p "$root/var/lib/odi" && echo state >"$root/var/lib/odi/odi.db"
		echo '# mine' >>"$root/etc/odi/agentd.yaml"
		inside "$root" dpkg -i --force-confold /tmp/odi.deb >"$work/again.log" 2>&1 &&
			grep -q '^# mine' "$root/etc/odi/agentd.yaml"
		verdict "installed again: a changed file of settings is kept" $?
		inside "$root" dpkg -r odi >>"$work/again.log" 2>&1 && [ -s "$root/var/lib/odi/odi.db" ] &&
			grep -q '^# mine' "$root/etc/odi/agentd.yaml" && [ ! -e "$root/usr/bin/odictl" ]
		verdict "remove keeps state and settings" $?
		inside "$root" dpkg -i --force-confold /tmp/odi.deb >>"$work/again.log" 2>&1 &&
			[ -z "$(find "$root/etc/systemd/system" -lname /dev/null)" ] &&
			[ -L "$root/etc/systemd/system/multi-user.target.wants/odi.service" ]
		verdict "installed after that: enabled, and no unit is masked" $?
		inside "$root" dpkg -P odi >>"$work/again.log" 2>&1
		left=$(find "$root/etc" "$root/usr" "$root/var/lib" "$root/run" \( -name '*odi.*' -o -name 'odi' -o -name 'odi-*' \) \
			! -path '*/dpkg/*' ! -path '*/apt/*' 2>/dev/null)
		[ -z "$left" ] || echo "$left" >&2
		verdict "purge removes all that was made" "$([ -z "$left" ]; echo $?)"
	else
		verdict "a root of Debian 12" 1
	fi
fi

# ---- rpm -------------------------------------------------------------------------------------------------------------

# What is required may have these names, and versions of symbols that are upstream's own: Debian gives libcurl's some that nobody
# else has. Which versions each distribution has is in distributions.txt.
allowed_requires='^(/bin/sh|systemd|config\(odi\) = .*|rtld\(GNU_HASH\)|rpmlib\(.*\) <= .*|libc\.so\.6\((GLIBC_2\.[0-9.]+)?\)\(64bit\)
|lib(dl|m|pthread|rt)\.so\.[0-9]\((GLIBC_2\.[0-9.]+)?\)\(64bit\)
|ld-linux-x86-64\.so\.2\((GLIBC_2\.[0-9.]+)?\)\(64bit\)
|lib(elf|dw)\.so\.1\((ELFUTILS_[0-9.]+)?\)\(64bit\)
|libsystemd\.so\.0\((LIBSYSTEMD_[0-9]+)?\)\(64bit\)
|libjson-c\.so\.5\((JSONC_0\.14)?\)\(64bit\)
|libprotobuf-c\.so\.1\((LIBPROTOBUF_C_1\.[0-9.]+)?\)\(64bit\)
|libz\.so\.1\((ZLIB_1\.[0-9.]+)?\)\(64bit\)
|liblzma\.so\.5\((XZ_5\.[0-9.]+)?\)\(64bit\)
|lib(curl\.so\.4|yaml-0\.so\.2|sqlite3\.so\.0|seccomp\.so\.2|cap\.so\.2|zstd\.so\.1)\(\)\(64bit\))$'

files_of_rpm() {
	rpm -qp --qf '[%{FILENAMES} %{FILEMODES:perms}\n]' "$rpm" 2>/dev/null | awk '$2 !~ /^d/ { print $1 }' | sort
}

# rpm of this machine, on the last root.
in_rpm_root() { # OPTION...
	# shellcheck disable=SC2016 # the inner shell's own variables
	unshare -m -- bash -c 'root=$1; shift
		mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" && exec rpm --root "$root" "$@"' in_rpm_root "$root" "$@"
}

if wanted rpm; then
	rpmlint -c packaging/rpm/rpmlint.toml "$rpm" "$dist/odi-debuginfo-$version-1.x86_64.rpm" >"$work/rpmlint" 2>&1
	result=$?
	[ $result = 0 ] || cat "$work/rpmlint" >&2
	verdict "rpmlint has no error and no warning but those that rpmlint.toml explains" $result
	rpm -qp --requires "$rpm" 2>/dev/null | sed 's/ *$//' | sort -u >"$work/requires"
	grep -vE "$(tr -d '\n' <<<"$allowed_requires")" "$work/requires" >"$work/foreign"
	[ -s "$work/foreign" ] && cat "$work/foreign" >&2
	verdict "it requires what all distributions have by the same name" "$([ ! -s "$work/foreign" ]; echo $?)"
	tests/packages/fits.py tests/packages/distributions.txt "$rpm.spdx.json" <"$work/requires" || status=1
	# Licence and documents have their places with each; nothing else may differ.
	diff <(files_of_deb "$deb" | grep -vE '^/usr/share/(doc|lintian|licenses|zsh)/') \
		<(files_of_rpm | grep -vE '^/usr/share/(doc|lintian|licenses|zsh)/') >&2
	verdict "both packages hold the same files" $?
	diff <(dpkg-deb -f "$deb" Depends | tr ',' '\n' | sed -n 's/^ *lib\(elf\|dw\|yaml\|sqlite3\|protobuf-c\|systemd\|seccomp\|cap\|json-c\|zstd\|lzma\|curl\).*/\1/p' | sort -u) \
		<(sed -n 's/^lib\(elf\|dw\|yaml\|sqlite3\|protobuf-c\|systemd\|seccomp\|cap\|json-c\|zstd\|lzma\|curl\)[-.0-9]*so.*/\1/p' "$work/requires" | sort -u) >&2
	verdict "both depend on the same libraries" $?
	if copy_of bookworm; then
		rpm --root "$root" --initdb >&2
		in_rpm_root -i --nodeps "$rpm" >"$work/rpm.log" 2>&1
		verdict "rpm installs it" $? || cat "$work/rpm.log" >&2
		inside "$root" sh -c 'getent passwd odi-agent odi-exporter && getent group odi odi-view' >&2
		verdict "its scriptlets made users and groups" $?
		[ -L "$root/etc/systemd/system/multi-user.target.wants/odi.service" ] &&
			[ -L "$root/etc/systemd/system/sockets.target.wants/odi.socket" ]
		verdict "its scriptlets enabled its units" $?
		echo '# mine' >>"$root/etc/odi/agentd.yaml"
		rm "$root/etc/systemd/system/sockets.target.wants/odi-exporter.socket"
		in_rpm_root -U --nodeps --replacepkgs "$rpm" >>"$work/rpm.log" 2>&1 && grep -q '^# mine' "$root/etc/odi/agentd.yaml" &&
			[ -L "$root/etc/systemd/system/multi-user.target.wants/odi.service" ] &&
			[ ! -L "$root/etc/systemd/system/sockets.target.wants/odi-exporter.socket" ]
		verdict "replaced: changed settings are kept, and what was enabled or not stays so" $?
		in_rpm_root -e --nodeps odi >>"$work/rpm.log" 2>&1 && [ ! -e "$root/usr/lib/odi/agentd" ] &&
			[ ! -L "$root/etc/systemd/system/multi-user.target.wants/odi.service" ] && [ -s "$root/etc/odi/agentd.yaml.rpmsave" ]
		verdict "erased: units are disabled, changed settings are kept" $?
	else
		verdict "a root of Debian 12" 1
	fi
fi

# ---- run -------------------------------------------------------------------------------------------------------------

run_in() { # SUITE
	copy_of "$1" || return 1
	install_deb || return 1
	# shellcheck disable=SC2016
	inside "$root" sh -c 'odictl --version && /usr/lib/odi/agentd --version || exit 1
		ldd /usr/lib/odi/agentd /usr/bin/odictl | grep "not found" && exit 1; exit 0' >&2 || return 1
	# Until a program that is busy since profiling began is in what is kept, by its name; spans end every few seconds.
	# shellcheck disable=SC2016
	inside "$root" sh -c 'mkdir -p /run/odi && cp /bin/sh /tmp/odi-busy
		/usr/lib/odi/agentd >/tmp/log 2>&1 & pid=$!
		i=0; until odictl status >/dev/null 2>&1 || [ $((i += 1)) -gt 120 ]; do sleep 0.5; done
		odictl profiling enable --all || { cat /tmp/log; kill $pid; exit 1; }
		/tmp/odi-busy -c "while :; do :; done" & busy=$!
		i=0; until odictl top --since 5m -n 100000 >/tmp/top 2>&1 && grep -q odi-busy /tmp/top || [ $((i += 1)) -gt 120 ]; do
			sleep 0.5
		done
		kill $busy
		head -n 4 /tmp/top; grep odi-busy /tmp/top; seen=$?
		kill $pid; wait $pid; ended=$?
		grep -E " error " /tmp/log && exit 1
		[ $seen = 0 ] && [ $ended = 0 ]' >&2
}

if wanted run; then
	for suite in bullseye bookworm trixie ${ODI_NEWEST:-sid}; do
		run_in "$suite"
		verdict "in $suite ($(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' "$root/etc/os-release" 2>/dev/null)) all programs run, and a profile is taken" $?
	done
fi

# ---- arm64 -----------------------------------------------------------------------------------------------------------

# Libraries for arm64 are in the root that packages are built in, beside its own; nothing of it is changed.
on_arm64() { # COMMAND...
	# shellcheck disable=SC2016 # the inner shell's own variables
	unshare -m -- bash -c 'root=$1 files=$2; shift 2
		mount -t tmpfs none "$root/mnt" && mkdir "$root/mnt/odi" && mount --bind "$files" "$root/mnt/odi" &&
		cp "$(command -v qemu-aarch64-static)" "$root/mnt/qemu" && mount -t proc proc "$root/proc" &&
		exec chroot "$root" env -i PATH=/usr/bin:/bin LC_ALL=C.UTF-8 /mnt/qemu "$@"' \
		arm64 "$arm_root" "$work/arm64" "$@"
}

if wanted arm64; then
	lintian --tag-display-limit 0 --fail-on error,warning --info "$arm" "$dist/odi-dbgsym_${version}_arm64.deb" >&2
	verdict "arm64: lintian has no error and no warning" $?
	diff <(files_of_deb "$deb") <(files_of_deb "$arm") >&2
	verdict "arm64: the same files as on amd64" $?
	diff <(dpkg-deb -f "$deb" Depends | tr ',' '\n' | sed 's/ *\((.*\|$\)//' | sort) \
		<(dpkg-deb -f "$arm" Depends | tr ',' '\n' | sed 's/ *\((.*\|$\)//' | sort) >&2
	verdict "arm64: depends on the same packages" $?
	dpkg-deb -x "$arm" "$work/arm64"
	arm_root=$(packaging/root.sh arm64)
	on_arm64 /mnt/odi/usr/lib/odi/agentd --version >"$work/arm64.agentd" && cat "$work/arm64.agentd" >&2 &&
		grep -qF "$version" "$work/arm64.agentd"
	verdict "arm64: agentd runs and tells its version" $?
	# Each key of the settings, as the same program for amd64 has them: tables of the program, read at run time.
	on_arm64 /mnt/odi/usr/lib/odi/agentd --config-keys >"$work/arm64.keys" &&
		dpkg-deb -x "$deb" "$work/amd64" && "$work/amd64/usr/lib/odi/agentd" --config-keys >"$work/amd64.keys" &&
		diff "$work/amd64.keys" "$work/arm64.keys" >&2 && [ "$(wc -l <"$work/arm64.keys")" -gt 10 ]
	verdict "arm64: agentd knows the same settings" $?
	on_arm64 /mnt/odi/usr/bin/odictl --help >"$work/arm64.help" && diff <("$work/amd64/usr/bin/odictl" --help) "$work/arm64.help" >&2
	verdict "arm64: odictl has the same commands" $?
	tests/packages/arm64_vm.sh "$arm" "$build/arm64-vm" || status=1
fi

# ---- sums ------------------------------------------------------------------------------------------------------------

if wanted sums; then
	mkdir -m 700 "$work/gpg" "$work/sums"
	cp "$dist"/*.deb "$dist"/*.json "$work/sums"
	export GNUPGHOME=$work/gpg
	gpg --quiet --batch --passphrase '' --quick-gen-key 'a key for this test <test@odi.invalid>' ed25519 sign 1d >&2
	DIST_KEY=test@odi.invalid packaging/sums.sh "$work/sums" >&2 && (cd "$work/sums" && sha256sum --quiet -c SHA256SUMS) >&2 &&
		[ "$(wc -l <"$work/sums/SHA256SUMS")" = "$(find "$work/sums" -type f ! -name 'SHA256SUMS*' | wc -l)" ]
	verdict "each file has its checksum" $?
	gpg --quiet --batch --verify "$work/sums/SHA256SUMS.asc" "$work/sums/SHA256SUMS" >&2
	verdict "the checksums are signed when DIST_KEY is set" $?
	echo >>"$work/sums/SHA256SUMS"
	! gpg --quiet --batch --verify "$work/sums/SHA256SUMS.asc" "$work/sums/SHA256SUMS" >&2
	verdict "changed checksums are not" $?
	DIST_KEY='' packaging/sums.sh "$work/sums" >&2 && [ ! -e "$work/sums/SHA256SUMS.asc" ]
	verdict "without DIST_KEY no signature is left" $?
	gpgconf --kill all
	unset GNUPGHOME
fi

# ---- twice -----------------------------------------------------------------------------------------------------------

if wanted twice; then
	epoch=$(git log -1 --format=%ct)
	for n in 1 2; do
		for kind in "deb amd64" "rpm amd64" "deb arm64"; do
			# shellcheck disable=SC2086 # two words
			SOURCE_DATE_EPOCH=$epoch packaging/build.sh $kind "$version" "$work/twice$n" >&2
		done
		rm -f "$work/twice$n"/*.log
	done
	diff <(cd "$work/twice1" && sha256sum -- *) <(cd "$work/twice2" && sha256sum -- *) >&2 &&
		[ "$(find "$work/twice1" -name '*.deb' -o -name '*.rpm' | wc -l)" = 6 ]
	verdict "two builds, same bytes" $?
fi
exit $status
