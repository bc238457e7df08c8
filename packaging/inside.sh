#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The part of build.sh that runs in the root of Debian 11: inside.sh deb|rpm amd64|arm64 VERSION
#
# The sources are in /build/odi, the packages go to /build/out; libbpf and the headers of the kernel are in /build/newer.
set -euo pipefail
umask 022
cd /build/odi

what=$1 architecture=$2 version=$3
newer=/build/newer

# Seen by every compiler, also that of BPF objects, ahead of what Debian 11 has.
export C_INCLUDE_PATH=$newer/$architecture/usr/include:$newer/headers/usr/include
export ODI_LIBBPF=$newer/$architecture/usr/lib
export ODI_VERSION=$version
maintainer="odi maintainers <maintainers@odi.invalid>"

make_changelog() {
	printf 'odi (%s) unstable; urgency=medium\n\n  * New version; README.md says what it does.\n\n -- %s  %s\n' \
		"$version" "$maintainer" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")"
}

# The programs write their own pages, so some that run here are needed where those that are packaged do not.
native_programs() {
	env C_INCLUDE_PATH="$newer/amd64/usr/include:$newer/headers/usr/include" LDFLAGS="-L$newer/amd64/usr/lib" \
		make -s -j"$ODI_JOBS" B=/build/odi/native VERSION="$version" all >&2 &&
		echo /build/odi/native/bin
}

build_deb() {
	local flags=(-b -us -uc -j"$ODI_JOBS")
	if [ "$architecture" != "$(dpkg --print-architecture)" ]; then
		flags+=(-a"$architecture" "--build-profiles=cross,nocheck" -d)
		ODI_NATIVE=$(native_programs)
		export ODI_NATIVE
	fi
	cp -a packaging/deb debian
	make_changelog >debian/changelog
	dpkg-buildpackage "${flags[@]}"
	mv ../odi*.deb /build/out/
	rm -f ../odi_*.buildinfo ../odi_*.changes
}

build_rpm() {
	local top=/build/odi/rpm
	mkdir -p "$top"
	rpmbuild -bb --target x86_64-linux packaging/rpm/odi.spec --define "_topdir $top" --define "odi_version $version" \
		--define "use_source_date_epoch_as_buildtime 1" --define "clamp_mtime_to_source_date_epoch 1" \
		--define "_buildhost localhost" --define "odi_source /build/odi" --define "odi_jobs $ODI_JOBS"
	mv "$top"/RPMS/*/*.rpm /build/out/
}

"build_$what"
packaging/sbom.py "$what" "$architecture" "$version" $newer /build/out
