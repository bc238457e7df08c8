#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# make bench: what the profiler costs on this machine and how much it sees. run.sh BUILD_FOLDER [PART...]
set -euo pipefail
cd "$(dirname "$0")/../.."
build=$(cd "${1:?usage: run.sh BUILD_FOLDER [PART...]}" && pwd)
shift
if [ "$(id -u)" != 0 ]; then
	echo "bench: loading BPF needs root: put sudo before the command" >&2
	exit 1
fi
tests/bench/build.sh "$build/bench"
# The one that is made of our own rooms.
[ -x "$build/bench/spooler" ] || make -s B="$build" "$build/bench/spooler"
ODI_BUILD=$build exec "$build/venv/bin/python" tests/bench/bench.py "$@"
