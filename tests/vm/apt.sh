# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Debian's packages without touching this machine's apt (sourced): lists and settings of its own below ODI_KERNELS
# (default: odi/kernels in the user's cache folder), from the mirror that this machine's apt uses for Debian, else
# ODI_DEBIAN_MIRROR.

cache=${ODI_KERNELS:-${XDG_CACHE_HOME:-$HOME/.cache}/odi/kernels}
apt_options=()
mirror=
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# After this, `apt-get "${apt_options[@]}" download ...` is about that suite and architecture.
own_apt() { # SUITE ARCHITECTURE
	local folder=$cache/apt/$1-$2
	mirror=${ODI_DEBIAN_MIRROR:-}
	command -v apt-get >/dev/null 2>&1 || die "Debian's packages are fetched by apt, which this machine has not"
	if [ -z "$mirror" ]; then
		# the first archive of Debian's that apt knows and that is not the one of security updates
		# shellcheck disable=SC2016 # apt's own variables
		mirror=$(apt-get indextargets --format '$(ORIGIN) $(COMPONENT) $(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
			awk '$1 == "Debian" && $2 == "main" && $3 !~ /security/ { print $4; exit }')
	fi
	[ -n "$mirror" ] || die "apt knows no archive of Debian's here: name one in ODI_DEBIAN_MIRROR"
	[ -e "$keyring" ] || die "Debian's keys are missing: apt install debian-archive-keyring"
	mkdir -p "$folder/lists/partial" "$folder/cache/archives/partial" "$folder/parts"
	: >"$folder/status"
	echo "deb [signed-by=$keyring] $mirror $1 main" >"$folder/sources.list"
	apt_options=(
		-o Dir::Etc::sourcelist="$folder/sources.list" -o Dir::Etc::sourceparts="$folder/parts"
		-o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts="$folder/parts"
		-o Dir::State="$folder" -o Dir::State::lists="$folder/lists" -o Dir::State::status="$folder/status"
		-o Dir::Cache="$folder/cache" -o APT::Architecture="$2" -o APT::Architectures::="$2"
		-o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
		-o Acquire::Retries=3 -o APT::Sandbox::User=root -o Dpkg::Use-Pty=0
	)
	apt-get "${apt_options[@]}" -qq update >&2 || die "apt cannot read $1 of $mirror"
}
