/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Counts of stacks in the kernel (bpf/tables.h), brought together with the samples that they are
 * further ones of. Pure: what is due is handed back to be booked. Runs in agentd.
 *
 * In samples, each function says what became of them; over a table's life
 *   counts_add(): given = due + waiting + refused (negative), and
 *   waiting = due later (counts_placed) + given up (counts_dropped, counts_turned, counts_clear).
 */

#include "agentd/base/macros.h"
#include "bpf/sample.h"

struct counts;
struct source;

enum counts_fate {
	COUNTS_PLACED,  /* in the open aggregate, at slot */
	COUNTS_IGNORED, /* of nobody's image, or not wanted */
	COUNTS_LOST,    /* it found no room */
};

/* What became of the sample that was sent. */
struct counts_place {
	enum counts_fate fate;
	uint32_t slot;
	struct source *source; /* borrowed; NULL unless placed */
	uint64_t value;        /* of one sample, see enum sample_type */
	uint8_t end;           /* enum walk_end */
	uint16_t guessed;
	uint32_t end_file;
	uint64_t files; /* that the walk met: PROCESS_FILE_BIT() */
};

/* Samples to be booked as that one was. */
struct counts_due {
	uint64_t samples, last_ns;
	struct sample_image image;
	struct counts_place place;
	bool reused; /* the stack may be another one: addresses were given to another file */
};

/* max: ids known at once; 0: 524,288. */
int counts_new(struct counts **ret, size_t max);
struct counts *counts_free(struct counts *c);
DEFINE_FREEP(counts_freep, struct counts *, counts_free)

/* A record with that id came out of the sampler. */
void counts_sent(struct counts *c, uint64_t id);
/* Its sample is through. True: *due has what was counted before. */
bool counts_placed(struct counts *c, uint64_t id, const struct sample_image *image,
	uint64_t time_ns, const struct counts_place *place, struct counts_due *due);
/* It never will be. Samples that are given up by that. */
uint64_t counts_dropped(struct counts *c, uint64_t id);

enum { COUNTS_WAIT = 1 };
/* 0: due; COUNTS_WAIT: until the sample is placed; -ENOBUFS, -ENOMEM: refused. */
int counts_add(
	struct counts *c, uint64_t id, uint64_t samples, uint64_t last_ns, struct counts_due *due);
/* Addresses of the image went at that time from these files (bits as in counts_place) to another. */
void counts_reused(
	struct counts *c, const struct sample_image *image, uint64_t time_ns, uint64_t files);

/* Before and after sampler_collect(). nothing_waits: no record is between the sampler and counts_placed().
 * Samples that are given up. */
void counts_turn(struct counts *c);
uint64_t counts_turned(struct counts *c, bool nothing_waits);
/* Every id is done with: the sampler is gone. Samples that are given up. */
uint64_t counts_clear(struct counts *c);
/* Each place that counts may still be booked to; it may be changed. */
void counts_each(struct counts *c, void (*visit)(void *userdata, struct counts_place *place),
	void *userdata);

uint64_t counts_waiting(const struct counts *c); /* samples */
size_t counts_ids(const struct counts *c);
