# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Makes a folder of packages one that apt reads as `deb [trusted=yes] file:FOLDER ./` (sourced, here and in guests).

index_packages() { # FOLDER
	local deb
	(
		cd "$1" || exit 1
		for deb in *.deb; do
			[ -e "$deb" ] || continue
			dpkg-deb -f "$deb"
			printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$deb" "$(stat -c %s "$deb")" \
				"$(sha256sum "$deb" | cut -d ' ' -f 1)"
		done >Packages
	)
}
