/* SPDX-License-Identifier: Apache-2.0 */

/* Code that lies whole in one page of its file and calls nothing outside of it, so that it runs wherever that page is
 * mapped. Part of pieces.c; as a library of its own its text is moved behind 4 GiB of the file. */

#include <stdint.h>
#define PIECE __attribute__((noipa, noinline, used, section(".text.piece")))

PIECE uint64_t piece_leaf(uint64_t units)
{
	uint64_t x = units ^ 0x1234567;

	for (uint64_t i = 0; i < units; i++)
		x = (x ^ (x >> 29)) * 6364136223846793005u;
	return x;
}

PIECE uint64_t piece_mid(uint64_t units)
{
	uint64_t a = units * 3, b = a ^ 5;

	return piece_leaf(units) + a + b;
}

PIECE uint64_t piece_entry(uint64_t units)
{
	return piece_mid(units) + piece_mid(units + 1);
}
