/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Records of a jitdump file, for tests and for the program that writes its own. Source: perf's documentation,
 * tools/perf/Documentation/jitdump-specification.txt. */

#include <assert.h>
#include <stdint.h>
#include <string.h>

struct jitdump_writer {
	uint8_t bytes[65536];
	size_t len;
};

struct jitdump_line {
	uint64_t address;
	const char *file; /* NULL: the one before */
	uint32_t line;
};

static inline void jitdump_add(struct jitdump_writer *w, const void *data, size_t n)
{
	assert(w->len + n <= sizeof(w->bytes));
	memcpy(w->bytes + w->len, data, n);
	w->len += n;
}

static inline void jitdump_u32(struct jitdump_writer *w, uint32_t v)
{
	jitdump_add(w, &v, sizeof(v));
}

static inline void jitdump_u64(struct jitdump_writer *w, uint64_t v)
{
	jitdump_add(w, &v, sizeof(v));
}

static inline void jitdump_header(struct jitdump_writer *w, uint32_t pid)
{
	jitdump_u32(w, 0x4a695444);
	jitdump_u32(w, 1);
	jitdump_u32(w, 40);
	jitdump_u32(w, 62); /* EM_X86_64 */
	jitdump_u32(w, 0);
	jitdump_u32(w, pid);
	jitdump_u64(w, 0);
	jitdump_u64(w, 0);
}

static inline void jitdump_record(
	struct jitdump_writer *w, uint32_t id, uint64_t time, const void *body, size_t n)
{
	jitdump_u32(w, id);
	jitdump_u32(w, (uint32_t)(16 + n));
	jitdump_u64(w, time);
	if (n)
		jitdump_add(w, body, n);
}

static inline void jitdump_close_record(struct jitdump_writer *w, size_t start)
{
	uint32_t size = (uint32_t)(w->len - start);

	memcpy(w->bytes + start + 4, &size, sizeof(size));
}

/* code: size bytes of it; NULL: zeroes, at most 64 of them; "": none. */
static inline void jitdump_load(struct jitdump_writer *w, uint64_t time, uint64_t address,
	uint64_t size, uint64_t index, const char *name, const void *code)
{
	static const uint8_t zeroes[64];
	size_t start = w->len, n = size > sizeof(zeroes) ? sizeof(zeroes) : size;

	jitdump_record(w, 0, time, NULL, 0);
	jitdump_u64(w, 1); /* pid, tid */
	jitdump_u64(w, address);
	jitdump_u64(w, address);
	jitdump_u64(w, size);
	jitdump_u64(w, index);
	jitdump_add(w, name, strlen(name) + 1);
	if (!code)
		jitdump_add(w, zeroes, n);
	else if (*(const char *)code)
		jitdump_add(w, code, size);
	jitdump_close_record(w, start);
}

static inline void jitdump_move(struct jitdump_writer *w, uint64_t time, uint64_t from, uint64_t to,
	uint64_t size, uint64_t index)
{
	size_t start = w->len;

	jitdump_record(w, 1, time, NULL, 0);
	jitdump_u64(w, 1); /* pid, tid */
	jitdump_u64(w, to);
	jitdump_u64(w, from);
	jitdump_u64(w, to);
	jitdump_u64(w, size);
	jitdump_u64(w, index);
	jitdump_close_record(w, start);
}

/* Before the load of the code at that address. */
static inline void jitdump_lines(struct jitdump_writer *w, uint64_t time, uint64_t address,
	const struct jitdump_line *lines, size_t n)
{
	size_t start = w->len;

	jitdump_record(w, 2, time, NULL, 0);
	jitdump_u64(w, address);
	jitdump_u64(w, n);
	for (size_t i = 0; i < n; i++) {
		const char *file = lines[i].file ? lines[i].file : "\377";

		jitdump_u64(w, lines[i].address);
		jitdump_u32(w, lines[i].line);
		jitdump_u32(w, 0);
		jitdump_add(w, file, strlen(file) + 1);
	}
	jitdump_close_record(w, start);
}
