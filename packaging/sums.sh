#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# SHA256SUMS of what is in a folder, signed when DIST_KEY names a key of gpg's: sums.sh FOLDER
set -euo pipefail
cd "${1:?usage: sums.sh FOLDER}"
rm -f SHA256SUMS SHA256SUMS.asc ./*.log
find . -maxdepth 1 -type f ! -name 'SHA256SUMS*' -printf '%P\n' | LC_ALL=C sort | xargs sha256sum >SHA256SUMS
if [ -n "${DIST_KEY:-}" ]; then
	gpg --batch --yes --local-user "$DIST_KEY" --armor --detach-sign --output SHA256SUMS.asc SHA256SUMS
else
	echo "SHA256SUMS is not signed: DIST_KEY names no key" >&2
fi
cat SHA256SUMS
