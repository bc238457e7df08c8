#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The room table itself: a small tree in which each kind of trespass is there once.
set -uo pipefail
cd "$(dirname "$0")/../.." || exit 1
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
status=0

put() { # PATH LINE...
	mkdir -p "$tree/$(dirname "$1")"
	local path=$1
	shift
	printf '%s\n' "$@" >"$tree/$path"
}

expect() { # NAME good|bad WORDS: what layers.sh says of the tree, which is emptied
	local out verdict=good
	out=$(tests/check/layers.sh "$tree") || verdict=bad
	if [ $verdict = "$2" ] && case $out in *"$3"*) true ;; *) false ;; esac then
		echo "ok - $1"
	else
		echo "not ok - $1"
		echo "$1: wanted $2 with '$3', got $verdict: $out" >&2
		status=1
	fi
	rm -rf "${tree:?}"/*
}

put agentd/store/store.c '#include "agentd/store/store.h"' '#include "agentd/base/err.h"' '#include <sqlite3.h>' '#include <stdio.h>'
expect "what the table allows" good ""
put agentd/store/store.c '#include "agentd/config/config.h"'
expect "a room that may not be seen" bad "agentd/store may not include agentd/config/config.h"
put odictl/top.c '#include "agentd/profile/local.h"'
expect "odictl sees the client library only" bad "odictl may not include"
put agentd/control/verbs.c '#include <sqlite3.h>'
expect "a foreign library outside of its room" bad "may not use sqlite"
put agentd/config/config.h '#include <yaml.h>'
put agentd/config/yaml.c '#include "agentd/config/config.h"'
expect "a foreign library in a header that stays in its room" good ""
put agentd/config/private.h '#include <yaml.h>'
put agentd/config/config.h '#include "agentd/config/private.h"'
put agentd/control/server.c '#include "agentd/config/config.h"'
expect "a foreign library that leaves its room through two headers" bad "brings a foreign library"
put bpf/sampler.bpf.c '#include "bpf/sample.h"' '#include <bpf/bpf_helpers.h>' '#include "agentd/base/err.h"'
expect "bpf includes nothing else here" bad "nothing else here"
put agentd/symbol/table.c '#include "table.h"'
expect "includes are written from the root" bad "is not written from the root"
put agentd/newroom/x.c '#include <stdio.h>'
expect "a room without a row" bad "is not in the table"
put tests/unit/store/store_test.c '#include "agentd/store/store.h"' '#include <cmocka.h>' '#include "agentd/config/config.h"'
expect "unit tests see what their room sees" bad "agentd/store may not include"
put agentd/daemon.c '#include "destinations/link.h"' '#include "agentd/config/config.h"'
expect "the composition root sees all" good ""
exit $status
