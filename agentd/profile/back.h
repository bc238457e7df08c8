/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A protobuf writer that goes from the end to the start, so that a message's length is known
 * when its prefix is due. Fields are put in reverse order; a message is opened by noting
 * back_used() and closed by field_message(). Private to agentd/profile. */

#include "agentd/profile/profile.h"

struct back {
	uint8_t *data;
	size_t size, at; /* what is written is [at, size) */
	int failed;
};

static inline void back_deinit(struct back *w)
{
	free(w->data);
}

static inline size_t back_used(const struct back *w)
{
	return w->size - w->at;
}

static inline uint8_t *back_take(struct back *w, size_t len)
{
	size_t used = back_used(w);

	if (w->failed)
		return NULL;
	if (len > w->at) {
		size_t size = MAX(w->size * 2, MAX(used + len, (size_t)65536));
		uint8_t *data;

		if (used + len > PROFILE_MAX_ENCODED) {
			w->failed = -E2BIG;
			return NULL;
		}
		data = malloc(size);
		if (!data) {
			w->failed = -ENOMEM;
			return NULL;
		}
		if (used)
			memcpy(data + size - used, w->data + w->at, used);
		free(w->data);
		w->data = data;
		w->size = size;
		w->at = size - used;
	}
	w->at -= len;
	return w->data + w->at;
}

static inline void put_varint(struct back *w, uint64_t v)
{
	uint8_t bytes[10], *p;
	size_t n = 0;

	do {
		bytes[n] = (uint8_t)(v | 0x80);
		n++;
		v >>= 7;
	} while (v);
	bytes[n - 1] &= 0x7f;
	p = back_take(w, n);
	if (p)
		memcpy(p, bytes, n);
}

static inline void put_bytes(struct back *w, const void *data, size_t len)
{
	uint8_t *p = back_take(w, len);

	if (p && len)
		memcpy(p, data, len);
}

enum wire { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_LEN = 2 };

static inline void put_tag(struct back *w, unsigned field, enum wire wire)
{
	put_varint(w, field << 3 | wire);
}

/* A varint field; proto3 leaves zero out. */
static inline void field_varint(struct back *w, unsigned field, uint64_t v)
{
	if (!v)
		return;
	put_varint(w, v);
	put_tag(w, field, WIRE_VARINT);
}

static inline void field_fixed64(struct back *w, unsigned field, uint64_t v)
{
	uint8_t le[8];

	if (!v)
		return;
	for (size_t i = 0; i < 8; i++)
		le[i] = (uint8_t)(v >> 8 * i);
	put_bytes(w, le, sizeof(le));
	put_tag(w, field, WIRE_FIXED64);
}

static inline void field_bytes(struct back *w, unsigned field, const void *data, size_t len)
{
	put_bytes(w, data, len);
	put_varint(w, len);
	put_tag(w, field, WIRE_LEN);
}

static inline void field_string(struct back *w, unsigned field, const char *s)
{
	field_bytes(w, field, s, strlen(s));
}

/* Closes a message whose content was written since `back_used(w)` was `mark`. */
static inline void field_message(struct back *w, unsigned field, size_t mark)
{
	put_varint(w, back_used(w) - mark);
	put_tag(w, field, WIRE_LEN);
}
