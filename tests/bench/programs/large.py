#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""large.py FOLDER COPIES: writes the C sources of a large program: large_part.c, functions of many shapes that call each
other through a table, which is linked so many times over, and large_main.c."""

import os
import sys

FUNCTIONS = 1500

BODY = """static int part_function_{n}(unsigned x, int left)
{{
	volatile unsigned v[{room}];

	for (unsigned i = 0; i < {turns}; i++)
		v[i % {room}] = x * {odd}u + i;
	{nested}return left ? large_call(v[{at}], left - 1) + {n} : (int)v[0];
}}
"""
NESTED = "if (x % 3 == 0) v[0] += (unsigned)(large_call(x + v[1], left / 2) * large_call(v[1], left / 3));\n\t"


def write(folder, copies):
    with open(os.path.join(folder, "large_part.c"), "w") as f:
        f.write("int large_call(unsigned x, int left);\n")
        for n in range(FUNCTIONS):
            room = 2 + n * 7919 % 37
            f.write(BODY.format(n=n, room=room, turns=3 + n % 61, odd=2 * n + 1, at=n % room, nested=NESTED if n % 4 == 0 else ""))
        f.write("int (*const large_table[])(unsigned, int) = {\n")
        f.write(",\n".join(f"\tpart_function_{n}" for n in range(FUNCTIONS)) + "};\n")
    with open(os.path.join(folder, "large_main.c"), "w") as f:
        for part in range(copies):
            f.write(f"extern int (*const large_table_{part}[{FUNCTIONS}])(unsigned, int);\n")
        f.write("static int (*const *const tables[])(unsigned, int) = {")
        f.write(", ".join(f"large_table_{part}" for part in range(copies)) + "};\n")
        f.write(f"""int large_call(unsigned x, int left)
{{
	x = (x ^ x >> 15) * 2654435761u;
	return left < 1 ? 1 : tables[x % {copies}][(x >> 8) % {FUNCTIONS}](x, left);
}}

int main(void)
{{
	static volatile int sum;

	for (unsigned x = 1;; x++)
		sum += large_call(x, 24);
}}
""")


write(sys.argv[1], int(sys.argv[2]))
