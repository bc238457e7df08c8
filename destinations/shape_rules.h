/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a destination wants to have of a batch, and in which shape: the options that all types have (and, for all
 * destinations at once, the settings shaping/NAME), parsed. A destination's own option overrides the setting. */

#include "agentd/base/err.h"
#include "sources/source.h"

#define SHAPE_MAX_RULES  64   /* of one kind */
#define SHAPE_MAX_SAMPLE 1000 /* "1 of" so many */

enum shape_attribute_action { SHAPE_ADD, SHAPE_DROP, SHAPE_RENAME };

struct shape_attribute_rule {
	enum shape_attribute_action action;
	char *key;   /* SHAPE_DROP: a glob */
	char *value; /* SHAPE_ADD: the value; SHAPE_RENAME: the new key; else NULL */
};

struct shape_pattern {
	bool module; /* else of a function's name */
	char *glob;
};

struct shape_rules { /* immutable; shared by references */
	unsigned refs;
	struct shape_attribute_rule *attributes; /* applied in order */
	char **sources;                          /* names of sources; n_sources 0: all are kept */
	struct shape_pattern *exclude;
	size_t n_attributes, n_sources, n_exclude;
	uint64_t min_samples;        /* 0: none is too few */
	uint32_t sample;             /* 1 of so many samples is kept; 1: all */
	bool kernel;                 /* kernel frames are kept */
	bool timestamps;             /* samples keep their times; else they become counts */
	uint64_t upload_interval_ns; /* 0: each batch for itself */
	char *text; /* the rules in canonical form, the interval apart: equal rules have equal texts */
};

/* timestamps: see above; the type's. Of a destination's options those of destination_common_options (destination.h);
 * others are passed over. *ret becomes NULL where nothing is to be shaped. -EINVAL with what is wrong. */
int shape_rules_new(struct shape_rules **ret, const struct option_value *options, size_t n,
	bool timestamps, struct err_text *err);
/* Whether one value can be used; others than those are fine. 0 or -EINVAL. */
int shape_rules_check(const char *name, const char *value, struct err_text *err);
struct shape_rules *shape_rules_ref(struct shape_rules *r); /* NULL is fine */
struct shape_rules *shape_rules_unref(struct shape_rules *r);
DEFINE_FREEP(shape_rules_unrefp, struct shape_rules *, shape_rules_unref)
/* Whether both make the same of every batch; the interval aside. NULL: no rules. */
bool shape_rules_equal(const struct shape_rules *a, const struct shape_rules *b);
