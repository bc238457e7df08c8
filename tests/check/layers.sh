#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# The room table: which folder may include what, of ours and of others. Includes are written from the root, so an
# include line says whose room it is. layers.sh [ROOT]
#
# A row: folder | rooms of ours | foreign libraries. Every user-space room may include itself, agentd/base, the
# C library, the kernel's uapi headers, and sd-event. A foreign library's header may stand in a header that never
# leaves its room. The process table reads the sampler's events; the sampler checks rows by the unwinder's
# checker; destinations share the option tables of sources; settings name the modes of demangling.
set -euo pipefail
cd "$(dirname "$0")/../.."
cd "${1:-.}"

table='
bpf                |                                        | libbpf
agentd             | *                                      | systemd libcap
agentd/base        |                                        | systemd seccomp libcap zlib zstd
agentd/wire        |                                        | protobuf-c
agentd/elf         |                                        | elfutils zstd lzma
agentd/api         | wire                                   |
agentd/control     | api wire config store                  |
agentd/config      | store sources destinations symbol      | yaml
agentd/store       |                                        | sqlite
agentd/sampler     | bpf gen/bpf unwind                     | libbpf
agentd/container   |                                        | json-c
agentd/process     | bpf container sampler unwind           |
agentd/unwind      | elf bpf                                |
agentd/symbol      | elf unwind bpf                         | iberty
agentd/profile     | wire bpf                               | protobuf-c
sources            | process bpf                            |
destinations       | profile wire config sources            | curl yaml protobuf-c
odictl             | api                                    | json-c
tests/bpf          | bpf gen/bpf elf unwind                 | libbpf
'

# Headers of other libraries by what an include line says. A line that no pattern knows is the C library's or the
# kernel's.
foreign='
bpf/.*                    libbpf
(libelf|gelf|dwarf)\.h    elfutils
elfutils/.*               elfutils
curl/.*                   curl
yaml\.h                   yaml
sqlite3\.h                sqlite
(google/)?protobuf-c/.*   protobuf-c
systemd/sd-event\.h       -
systemd/.*                systemd
seccomp\.h                seccomp
sys/capability\.h         libcap
zlib\.h                   zlib
zstd.*\.h                 zstd
lzma\.h                   lzma
json-c/.*                 json-c
json\.h                   json-c
(libiberty/)?demangle\.h  iberty
libiberty.*               iberty
cmocka\.h                 cmocka
'

{ find bpf agentd sources destinations odictl tests/unit -name "*.[ch]" -print 2>/dev/null || true; } | sort |
	xargs -r grep -HnE '^[[:space:]]*#[[:space:]]*include[[:space:]]*["<]' -- |
	awk -v table="$table" -v foreign="$foreign" '
	BEGIN {
		n = split(table, rows, "\n")
		for (i = 1; i <= n; i++) {
			if (split(rows[i], f, "|") != 3)
				continue
			gsub(/ /, "", f[1])
			ours[f[1]] = " " f[2] " "
			theirs[f[1]] = " " f[3] " "
		}
		n = split(foreign, rows, "\n")
		for (i = 1; i <= n; i++)
			if (split(rows[i], f, " ") == 2) {
				patterns++
				pattern[patterns] = "^" f[1] "$"
				library[patterns] = f[2]
			}
	}
	# The room of a path: agentd/x, agentd for files right in it, else the first folder.
	function room_of(path,   p) {
		split(path, p, "/")
		if (p[1] == "agentd")
			return p[3] == "" ? "agentd" : "agentd/" p[2]
		return p[1]
	}
	function bad(text) {
		print place ": " text
		failed = 1
	}
	{
		split($0, part, ":")
		place = part[1] ":" part[2]
		path = part[1]
		test = 0
		if (match($0, /include[ \t]*["<][^">]*/) == 0)
			next
		inc = substr($0, RSTART, RLENGTH)
		quoted = inc ~ /"/
		sub(/^include[ \t]*["<]/, "", inc)
		room = room_of(path)
		if (path ~ /^tests\/unit\//) {
			split(path, p, "/")
			room = p[3] == "bpf" ? "tests/bpf" : p[3]
			if (!(room in ours))
				room = "agentd/" room
			test = 1
		}
		if (!(room in ours)) {
			bad("room " room " is not in the table of tests/check/layers.sh")
			next
		}
		header = path ~ /\.h$/
		if (quoted) {
			edges++
			from[edges] = path
			to[edges] = inc
			where[edges] = place
		}

		# a program that a test builds by itself
		if (test && path ~ /\.c$/ && inc ~ /^[a-z_]+\.c$/)
			next
		if (quoted && inc !~ /\//) {
			bad("\"" inc "\" is not written from the root")
			next
		}
		if (inc ~ /^(agentd|sources|destinations|odictl|tests)\// || (quoted && inc ~ /^bpf\//)) {
			other = room_of(inc)
			if (inc ~ /\.skel\.h$/)
				other = "gen/bpf"
			if (inc ~ /\.embed\.h$/ || inc ~ /\/catalogue\.inc$/)
				next
			if (other == "tests" && test)
				next
			if (other == room || ours[room] ~ / \* /)
				next
			if (room == "bpf") {
				bad("bpf includes " inc ": nothing else here")
				next
			}
			if (other == "agentd/base")
				next
			if (inc == "bpf/sample.h")
				next
			short = other
			sub(/^agentd\//, "", short)
			if (index(ours[room], " " short " "))
				next
			bad(room " may not include " inc " (" short ")")
			next
		}
		for (i = 1; i <= patterns; i++) {
			if (inc !~ pattern[i])
				continue
			if (library[i] == "-")
				next
			if (library[i] == "cmocka") {
				if (!test)
					bad("cmocka outside of the tests")
				next
			}
			if (room == "bpf")
				next
			# what judges our reading of files is another reader
			if (library[i] == "elfutils" && test)
				next
			if (header && !test)
				exposes[path] = exposes[path] " " library[i]
			if (!index(theirs[room], " " library[i] " "))
				bad(room " may not use " library[i] " (" inc ")")
			next
		}
	}
	END {
		# a header that includes one with a foreign library in it has it too
		do {
			changed = 0
			for (i = 1; i <= edges; i++)
				if (to[i] in exposes && from[i] ~ /\.h$/ && !(from[i] in exposes)) {
					exposes[from[i]] = exposes[to[i]]
					changed = 1
				}
		} while (changed)
		for (i = 1; i <= edges; i++)
			if (to[i] in exposes && room_of(from[i]) != room_of(to[i]) && from[i] !~ /^tests\//) {
				place = where[i]
				bad(to[i] " brings a foreign library (" substr(exposes[to[i]], 2) ") out of its room")
			}
		exit failed
	}'
