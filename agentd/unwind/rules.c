/* SPDX-License-Identifier: Apache-2.0 */

/* The dictionary of a file's rules.
 *
 * Compilers make few shapes of frames: a library with half a million rows has some hundred
 * different rules. Rows hold an index of 16 bits into this table, which grows while pages are
 * decoded and never changes what it holds, so that tables in the kernel stay valid while it grows.
 * A stranger chooses the rules, so the hash is keyed.
 *
 * Invariants: rules[0..3] are the ends, numbered by enum unwind_cfa; no rule is there twice; n <=
 * UNWIND_RULES_MAX. Made in the sandbox; the array travels. */

#include "agentd/base/hash.h"
#include "agentd/unwind/unwind.h"

#define FIRST_RULES 64 /* with four slots a rule: a power of two */

static int grow(struct unwind_rules *d)
{
	uint32_t size = d->size ? d->size * 2 : FIRST_RULES, n_slots = size * 4;
	uint32_t *slots = calloc(n_slots, sizeof(*slots));
	struct unwind_rule *rules = realloc(d->rules, size * sizeof(*rules));

	if (rules)
		d->rules = rules;
	if (!rules || !slots) {
		free(slots);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < d->n; i++) {
		uint32_t at = (uint32_t)hash_local(&rules[i], sizeof(*rules)) & (n_slots - 1);

		while (slots[at])
			at = (at + 1) & (n_slots - 1);
		slots[at] = i + 1;
	}
	free(d->slots);
	d->slots = slots;
	d->n_slots = n_slots;
	d->size = size;
	return 0;
}

int unwind_rules_add(struct unwind_rules *d, const struct unwind_rule *rule)
{
	uint64_t hash = hash_local(rule, sizeof(*rule));
	uint32_t at;

	for (at = (uint32_t)hash & (d->n_slots - 1); d->n_slots && d->slots[at];
		at = (at + 1) & (d->n_slots - 1)) {
		if (memcmp(&d->rules[d->slots[at] - 1], rule, sizeof(*rule)) == 0)
			return (int)(d->slots[at] - 1);
	}
	if (d->n == UNWIND_RULES_MAX)
		return -ENOSPC;
	if (d->n == d->size) {
		int r = grow(d);

		if (r < 0)
			return r;
		at = (uint32_t)hash & (d->n_slots - 1);
		while (d->slots[at])
			at = (at + 1) & (d->n_slots - 1);
	}
	d->rules[d->n] = *rule;
	d->slots[at] = ++d->n;
	return (int)(d->n - 1);
}

int unwind_rules_init(struct unwind_rules *d)
{
	*d = (struct unwind_rules){0};
	for (unsigned i = 0; i < UNWIND_FIXED_RULES; i++) {
		struct unwind_rule rule = {.cfa = (uint8_t)i};
		int r = unwind_rules_add(d, &rule);

		if (r < 0) {
			unwind_rules_deinit(d);
			return r;
		}
	}
	return 0;
}

void unwind_rules_deinit(struct unwind_rules *d)
{
	free(d->rules);
	free(d->slots);
	*d = (struct unwind_rules){0};
}

int unwind_rules_seed(struct unwind_rules *d, const struct unwind_rule *rules, uint32_t n)
{
	struct unwind_rules fresh;
	int r;

	if (n < UNWIND_FIXED_RULES || n > UNWIND_RULES_MAX)
		return -EINVAL;
	r = unwind_rules_init(&fresh);
	for (uint32_t i = 0; r >= 0 && i < n; i++) {
		r = unwind_rules_add(&fresh, &rules[i]);
		/* Anything else there, or a rule twice, would give later rows another meaning. */
		if (r >= 0 && (uint32_t)r != i)
			r = -EINVAL;
	}
	if (r < 0) {
		unwind_rules_deinit(&fresh);
		return r;
	}
	unwind_rules_deinit(d);
	*d = fresh;
	return 0;
}
