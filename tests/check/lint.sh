#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# What can be said of the sources without running them: format, the room table, shell scripts, licence lines.
# A case a line, as tests/run.sh reads it.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
# shellcheck source=tests/lib/verdict.sh
. tests/lib/verdict.sh

# The files of the tree; outside of a git work tree (an unpacked archive), what lies there.
files() { # PATTERN...
	if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
		git ls-files -co --exclude-standard -- "$@" | while IFS= read -r f; do
			if [ -f "$f" ]; then echo "$f"; fi
		done
	else
		local p
		for p in "$@"; do
			find . -path ./build -prune -o -type f -name "$p" -print | sed 's,^\./,,'
		done
	fi
}

if command -v clang-format >/dev/null 2>&1; then
	unformatted=$(files '*.c' '*.h' '*.cpp' | xargs -r clang-format --dry-run 2>&1 |
		sed -n 's/^\([^: ]*\):[0-9]*:[0-9]*: warning: code should be clang-formatted.*/\1/p' | sort | uniq -c)
	[ -z "$unformatted" ] || printf 'not as .clang-format says (places, file):\n%s\n' "$unformatted" >&2
	verdict "format (make format mends it)" "$([ -z "$unformatted" ] && echo 0 || echo 1)"
else
	echo "cannot run - format: no clang-format on this machine"
fi

if command -v shellcheck >/dev/null 2>&1; then
	{
		files '*.sh'
		files | xargs -r grep -lE -m1 '^#!(/usr/bin/env bash|/bin/(ba)?sh)' --
	} | sort -u | xargs -r shellcheck -x 1>&2
	verdict "shellcheck" $?
else
	echo "cannot run - shellcheck: no shellcheck on this machine"
fi

tests/check/layers.sh 1>&2
verdict "room table (which folder may include what)" $?

without=$(files '*.c' '*.h' '*.cpp' '*.sh' '*.py' '*.rs' '*.go' '*.proto' |
	xargs -r grep -L 'SPDX-License-Identifier' --)
[ -z "$without" ] || printf 'no SPDX line:\n%s\n' "$without" >&2
verdict "licence line in every source file" "$([ -z "$without" ] && echo 0 || echo 1)"

unguarded=$(files '*.h' | xargs -r grep -L '^#pragma once' --)
[ -z "$unguarded" ] || printf 'no #pragma once:\n%s\n' "$unguarded" >&2
verdict "#pragma once in every header" "$([ -z "$unguarded" ] && echo 0 || echo 1)"

# Not an error: where a file grows past what the house aims at, somebody should know.
files '*.c' '*.h' | xargs -r wc -l | awk '$2 != "total" && $1 > 500 { print "note: " $2 " has " $1 " lines" }' >&2
exit $status
