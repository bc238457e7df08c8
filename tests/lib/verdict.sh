# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
#
# Cases of a shell test, as tests/run.sh counts them; the test ends with `exit $status`.

status=0

verdict() { # NAME STATUS
	if [ "$2" = 0 ]; then
		echo "ok - $1"
	else
		echo "not ok - $1"
		# shellcheck disable=SC2034 # whoever sources this ends with it
		status=1
	fi
}
