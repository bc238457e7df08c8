/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What an encoding will hold, and under which index: the first of the encoder's two passes.
 * Private to agentd/profile. */

#include "agentd/profile/batch_private.h"

/* From an index in the batch to one in the message, and back. */
struct remap {
	uint32_t *to;   /* by index in the batch; 0 not used (or the zero entry) */
	uint32_t *from; /* by index in the message */
	uint32_t n;     /* in the message, the zero entry among them */
};

enum attribute_kind { ATTRIBUTE_STRING, ATTRIBUTE_INT, ATTRIBUTE_BOOL };

struct out_attribute {
	uint32_t key; /* string of the message */
	uint32_t kind;
	uint64_t value; /* ATTRIBUTE_STRING: pointer to the text */
};

struct encoder {
	const struct batch *b;
	struct remap strings, mappings, functions, locations, stacks;
	const char *extra[32];    /* strings of the message that the batch does not have */
	uint32_t extra_index[32]; /* theirs in the message */
	uint32_t n_extra;
	struct out_attribute *attributes;
	uint32_t n_attributes, attributes_room;
	struct intern attribute_index;
	uint32_t *sample_attributes;       /* by attribute of the batch */
	uint32_t (*mapping_attributes)[3]; /* by mapping of the message */
	uint32_t frame_types[PROFILE_FRAME_TYPES], approximate;
	struct {
		uint32_t sample_type, sample_unit, period_type, period_unit;
	} types[PROFILE_TYPES];
};

/* Starts a plan over b, which it borrows. 0 or -errno; encoder_deinit() in any case. */
int encoder_init(struct encoder *e, const struct batch *b);
void encoder_deinit(struct encoder *e);
/* Takes in all that a part uses. */
int encoder_use_part(struct encoder *e, const struct profile_part *p);
/* The message's index of a string of the batch, and of a text of our own (which must live as long as
 * the plan; there is room for 32), or -errno. */
uint32_t encoder_take_string(struct encoder *e, uint32_t i);
int64_t encoder_take_text(struct encoder *e, const char *text);
/* A string of the message. */
const char *encoder_string(const struct encoder *e, uint32_t i);
