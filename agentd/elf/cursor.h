/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A cursor over bytes of a stranger: numbers as ELF, DWARF and Go write them. */

#include "agentd/base/macros.h"

/* Reads past the end give 0 and set bad: check it where a decision is made. */
struct cursor {
	const uint8_t *at, *end;
	bool bad;
};

static inline const uint8_t *cursor_take(struct cursor *c, uint64_t n)
{
	const uint8_t *p = c->at;

	if (n > (uint64_t)(c->end - c->at)) {
		c->bad = true;
		c->at = c->end;
		return NULL;
	}
	c->at += n;
	return p;
}

#define CURSOR_FIXED(name, type)                                                                   \
	static inline type name(struct cursor *c)                                                  \
	{                                                                                          \
		const uint8_t *p = cursor_take(c, sizeof(type));                                   \
		type v = 0;                                                                        \
                                                                                                   \
		if (p)                                                                             \
			memcpy(&v, p, sizeof(v));                                                  \
		return v;                                                                          \
	}
CURSOR_FIXED(cursor_u8, uint8_t)
CURSOR_FIXED(cursor_u16, uint16_t)
CURSOR_FIXED(cursor_u32, uint32_t)
CURSOR_FIXED(cursor_u64, uint64_t)

/* Bits beyond the 64th are dropped, as every reader of DWARF does. */
static inline uint64_t cursor_uleb(struct cursor *c)
{
	uint64_t v = 0;

	for (unsigned shift = 0;; shift += 7) {
		uint8_t byte = cursor_u8(c);

		if (shift < 64)
			v |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return v;
	}
}

static inline int64_t cursor_sleb(struct cursor *c)
{
	uint64_t v = 0;

	for (unsigned shift = 0;;) {
		uint8_t byte = cursor_u8(c);

		if (shift < 64)
			v |= (uint64_t)(byte & 0x7f) << shift;
		shift += 7;
		if (byte & 0x80)
			continue;
		if (shift < 64 && (byte & 0x40))
			v |= UINT64_MAX << shift;
		return (int64_t)v;
	}
}
