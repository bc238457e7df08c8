/* SPDX-License-Identifier: Apache-2.0 */

/* What the control room asks of the others: the table of handlers, what several of them need, and what
 * is said after a change. Each handler fills its reply from borrowed state and sends it, at once or
 * when the child that does the work has answered; a client that goes away meanwhile takes its request
 * with it. Runs in agentd. */

#include "agentd/daemon_metrics.h"
#include "agentd/daemon_handover.h"
#include "agentd/daemon_spool.h"
#include "agentd/daemon_verbs.h"

Control__KeyValue **daemon_key_values(
	struct control_reply *r, const struct option_value *list, size_t n, size_t *ret_n)
{
	Control__KeyValue **out = control_alloc(r, (n + 1) * sizeof(*out));

	*ret_n = 0;
	for (size_t i = 0; out && i < n; i++) {
		Control__KeyValue *kv = control_alloc(r, sizeof(*kv));

		if (!kv)
			break;
		control__key_value__init(kv);
		kv->key = control_strdup(r, list[i].name);
		kv->value = control_strdup(r, list[i].value);
		out[(*ret_n)++] = kv;
	}
	return out;
}

void daemon_fail(struct control_reply *r, int error, const char *text)
{
	struct err_text err = {};

	err_set(&err, error, "%s", text);
	control_fail(r, error, &err);
}

Control__OptionInfo **daemon_options(struct control_reply *r,
	const struct option_desc *const *tables, size_t n_tables, size_t *ret_n)
{
	Control__OptionInfo **out;
	size_t n = 0;

	*ret_n = 0;
	for (size_t t = 0; t < n_tables; t++)
		for (const struct option_desc *o = tables[t]; o && o->name; o++)
			n++;
	out = control_alloc(r, (n + 1) * sizeof(*out));
	for (size_t t = 0; out && t < n_tables; t++) {
		for (const struct option_desc *o = tables[t]; o && o->name; o++) {
			Control__OptionInfo *i = control_alloc(r, sizeof(*i));
			size_t values = 0;

			if (!i)
				return out;
			control__option_info__init(i);
			i->name = control_strdup(r, o->name);
			i->type = control_strdup(r, config_type_name(o->type));
			i->required = o->required;
			i->fallback = control_strdup(r, o->fallback);
			i->help = control_strdup(r, o->help);
			i->secret = o->type == OPTION_SECRET || o->type == OPTION_SECRET_MAP;
			while (o->values && o->values[values])
				values++;
			i->values = control_alloc(r, (values + 1) * sizeof(*i->values));
			for (; i->values && i->n_values < values; i->n_values++)
				i->values[i->n_values] = control_strdup(r, o->values[i->n_values]);
			out[(*ret_n)++] = i;
		}
	}
	return out;
}

/* ---- after a change ---- */

static void describe_effects(void *userdata, struct control_reply *r, const Control__Apply *apply,
	Control__Applied *applied)
{
	struct daemon *d = userdata;
	const struct config *c = d->in_force;
	char **warnings = control_alloc(r, (applied->n_warnings + 4) * sizeof(*warnings));

	if (!warnings)
		return;
	if (applied->n_warnings)
		memcpy(warnings, applied->warnings, applied->n_warnings * sizeof(*warnings));
	applied->warnings = warnings;
	if (c->profiling.enabled && !d->sampler)
		warnings[applied->n_warnings++] = control_printf(
			r, "profiling is enabled but cannot start: %s", d->sampler_problem);
	if (!c->profiling.enabled)
		warnings[applied->n_warnings++] =
			control_strdup(r, "profiling is off: odictl profiling enable");
	else if (!source_set_size(c->sources))
		warnings[applied->n_warnings++] = control_strdup(r,
			"no source yet, so nothing is profiled: odictl source add host, or odictl "
			"source candidates to see what runs here");
}

void daemon_verbs_init(struct daemon *d)
{
	d->control_ops = (struct control_ops){
		.config = d->config,
		.store = d->store,
		.keep_file = daemon_keep_file,
		.forget_files = daemon_forget_files,
		.describe_effects = describe_effects,
		.status = daemon_status,
		.sources = daemon_get_sources,
		.candidates = daemon_candidates,
		.destinations = daemon_get_destinations,
		.spool = daemon_get_spool,
		.drop_spool = daemon_drop_spool,
		.destination_types = daemon_destination_types,
		.source_kinds = daemon_source_kinds,
		.symbols = daemon_get_symbols,
		.metrics = daemon_get_metrics,
		.policy = daemon_get_policy,
		.test_destination = daemon_test_destination,
		.query = daemon_query,
	};
}
