/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Random batches of known content, for the tests of agentd/profile. The same seed gives the same
 * batch. */

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agentd/profile/batch_private.h"

static inline uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static inline uint32_t below(uint64_t *state, uint32_t n)
{
	return (uint32_t)(next_random(state) >> 11) % n;
}

static inline uint32_t text(struct batch *b, const char *format, unsigned n)
{
	char s[128];
	int64_t at;

	snprintf(s, sizeof(s), format, n);
	at = batch_string(b, s);
	assert_true(at >= 0);
	return (uint32_t)at;
}

struct shape {
	unsigned services, functions, stacks, depth, samples;
	bool threads, processes, sources;
	uint64_t time_unix_ns, duration_ns, period;
};

static inline uint32_t random_location(struct batch *b, uint64_t *seed, const struct shape *shape)
{
	struct profile_line lines[3];
	struct profile_location l = {.n_lines = 1 + below(seed, 3) / 2 * below(seed, 3)};
	unsigned module = below(seed, 5);
	struct profile_mapping m = {.start = 0x1000, .limit = 0x9000000};
	int64_t at;

	m.filename = text(b, "/usr/lib/lib%u.so", module);
	m.build_id = module ? text(b, "%040x", module) : 0;
	m.htlhash = text(b, "%032x", module);
	at = module == 4 ? 0 : batch_mapping(b, &m);
	assert_true(at >= 0);
	l.mapping = (uint32_t)at;
	l.address = 0x1000 + below(seed, shape->functions) * 16;
	l.frame_type = (uint8_t)(1 + module % (PROFILE_FRAME_TYPES - 1));
	l.approximate = module == 3;
	l.n_lines = l.n_lines ? l.n_lines : 1;
	for (uint32_t i = 0; i < l.n_lines; i++) {
		unsigned f = below(seed, shape->functions);
		struct profile_function function = {.name = text(b, "function_%u", f),
			.system_name = text(b, "_Z%u", f),
			.filename = text(b, "file%u.c", f % 7),
			.start_line = f};

		at = batch_function(b, &function);
		assert_true(at > 0);
		lines[i] = (struct profile_line){(uint32_t)at, f + 3};
	}
	at = batch_location(b, &l, lines);
	assert_true(at > 0);
	return (uint32_t)at;
}

static inline uint32_t random_resource(struct batch *b, const struct shape *shape, unsigned service)
{
	struct profile_resource_attribute list[4] = {
		{text(b, "service.name", 0), text(b, "service-%u", service), false, 0},
		{text(b, "host.name", 0), text(b, "host", 0), false, 0},
	};
	size_t n = 2;
	int64_t at;

	if (shape->processes)
		list[n++] = (struct profile_resource_attribute){
			text(b, "process.pid", 0), 0, true, 100 + service};
	if (shape->sources)
		list[n++] = (struct profile_resource_attribute){
			text(b, "odi.source", 0), text(b, "source-%u", service % 2), false, 0};
	at = batch_resource(b, list, n);
	assert_true(at > 0);
	return (uint32_t)at;
}

static inline struct batch *random_batch(uint64_t seed, const struct shape *shape)
{
	struct batch *b = NULL;
	uint32_t *stacks = calloc(shape->stacks, sizeof(*stacks));
	uint32_t frames[512];

	seed = seed * 0x9e3779b97f4a7c15ULL + 1;
	assert_int_equal(batch_new(&b), 0);
	for (unsigned s = 0; s < shape->stacks; s++) {
		unsigned n = 1 + below(&seed, shape->depth);

		for (unsigned i = 0; i < n; i++)
			frames[i] = random_location(b, &seed, shape);
		stacks[s] = (uint32_t)batch_stack(b, frames, n);
	}
	for (unsigned i = 0; i < shape->samples; i++) {
		struct profile_part *part = NULL;
		uint32_t attributes[4] = {0};
		uint32_t resource = random_resource(b, shape, below(&seed, shape->services));

		if (shape->threads) {
			struct profile_attribute name = {text(b, "thread.name", 0),
				text(b, "worker-%u", below(&seed, 3)), false, 0};
			struct profile_attribute id = {
				text(b, "thread.id", 0), 0, true, 1000 + below(&seed, 3)};

			attributes[0] = (uint32_t)batch_attribute(b, &name);
			attributes[2] = (uint32_t)batch_attribute(b, &id);
		}
		assert_int_equal(batch_part(b, resource, 0, shape->period, shape->time_unix_ns,
					 shape->duration_ns, &part),
			0);
		assert_int_equal(batch_add(b, part, stacks[below(&seed, shape->stacks)], attributes,
					 1 + below(&seed, 5)),
			0);
	}
	free(stacks);
	return b;
}

static const struct shape small_shape = {
	.services = 3,
	.functions = 12,
	.stacks = 8,
	.depth = 6,
	.samples = 30,
	.threads = true,
	.processes = true,
	.sources = true,
	.time_unix_ns = 1700000000ULL * NSEC_PER_SEC,
	.duration_ns = 10 * NSEC_PER_SEC,
	.period = NSEC_PER_SEC / 99,
};
