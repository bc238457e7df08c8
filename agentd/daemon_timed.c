/* SPDX-License-Identifier: Apache-2.0 */

/* Whose samples go with their times: the sources that a destination takes whose backend wants each sample for itself
 * (`timestamps` in its type). Their images are not counted in the kernel (VERDICT_UNCOUNTED), since of a count only the
 * last time is known. Other destinations get counts all the same: the exporter adds up. Runs in agentd. */

#include "agentd/daemon.h"
#include "destinations/destination.h"
#include "destinations/shape_rules.h"

/* keep-sources as it is in force for the destination. */
static bool keeps(
	const struct config *c, const struct config_destination *x, const struct source *source)
{
	CLEANUP(shape_rules_unrefp) struct shape_rules *rules = NULL;
	const struct option_value *found = NULL;

	for (size_t i = 0; i < c->n_shaping; i++)
		if (streq(c->shaping[i].name, "keep-sources"))
			found = &c->shaping[i];
	for (size_t i = 0; i < x->n_options; i++)
		if (streq(x->options[i].name, "keep-sources"))
			found = &x->options[i];
	if (!found || shape_rules_new(&rules, found, 1, false, NULL) < 0 || !rules ||
		!rules->n_sources)
		return true;
	for (size_t i = 0; i < rules->n_sources; i++)
		if (streq(rules->sources[i], source->name))
			return true;
	return false;
}

bool daemon_source_timed(const struct daemon *d, const struct source *source)
{
	const struct config *c = d->in_force;

	for (size_t i = 0; source && i < c->n_destinations; i++) {
		const struct config_destination *x = &c->destinations[i];
		const struct destination_type *t =
			x->enabled ? destination_type_find(x->type) : NULL;

		if (t && t->timestamps && keeps(c, x, source))
			return true;
	}
	return false;
}
