/* SPDX-License-Identifier: Apache-2.0 */

/* A destination of the exporter as it is set: made, given options, given others, freed.
 *
 * Other options never touch a request that is under way: it ends as it began, and the sender is opened anew behind it.
 * What waits stays; what was made of the current batch is thrown away, as other rules or limits may shape it otherwise.
 * Options that cannot be used, rules among them, make a destination that queues, sends nothing and says why: rather that
 * than sending what was not to be sent. Runs in the exporter. */

#include "agentd/base/text.h"
#include "destinations/deliver_private.h"

#define QUEUE_BYTES (32ULL << 20)
#define DRAIN_RATE  (1ULL << 20) /* bytes a second, unless it is set */

static int open_transport(struct deliver *d, struct err_text *err)
{
	const struct destination_spec *s = d->spec;
	const struct sender_setup setup = {.name = s->name,
		.type = d->type,
		.options = s->options,
		.n_options = s->n_options,
		.folder = s->id};

	d->oldest_first =
		streq(destination_option(d->type, s->options, s->n_options, "drain"), "oldest");
	d->pace.drain_rate = DRAIN_RATE;
	(void)text_size(destination_option(d->type, s->options, s->n_options, "drain-rate"),
		&d->pace.drain_rate);
	return d->transport->open(&d->sender, &setup, err);
}

void deliver_open_sender(struct deliver *d)
{
	struct err_text err = {};
	bool usable = d->sender;

	d->reopen = false;
	d->sender = d->sender ? d->transport->close(d->sender) : NULL;
	deliver_put_back(d);
	d->rules = shape_rules_unref(d->rules);
	d->probing = false;
	d->soft_bytes = 0;
	d->type = destination_adopt(d->spec->type, d->spec->options, d->spec->n_options, &err);
	d->transport = d->type ? transport_find(d->type->transport) : NULL;
	if (d->type && !d->transport)
		err_set(&err, -EINVAL, "this exporter does not know the type %s", d->spec->type);
	else if (!d->transport)
		; /* err says why */
	/* Rules that cannot be used: nothing is sent, rather than what was not to be. */
	else if (shape_rules_new(&d->rules, d->spec->options, d->spec->n_options,
			 d->type->timestamps, &err) == 0 &&
		open_transport(d, &err) == 0)
		snprintf(d->status.endpoint, sizeof(d->status.endpoint), "%s",
			d->transport->endpoint(d->sender));
	/* Other options, another chance, at once. */
	pace_reset(&d->pace);
	if (!d->sender)
		deliver_set_state(d, "failing", err.text, "");
	else if (!usable)
		deliver_set_state(d, "idle", "", "");
	d->status_changed = true;
}

static int take_spec(struct deliver *d, struct buf *bytes)
{
	struct destination_spec *spec;
	size_t n;
	int r = protocol_get_specs((const char *)bytes->data, bytes->len, &spec, &n);

	if (r < 0)
		return r;
	protocol_free_specs(d->spec, d->spec ? 1 : 0);
	buf_deinit(&d->spec_bytes);
	d->spec = spec;
	d->spec_bytes = *bytes;
	*bytes = (struct buf){0};
	return 0;
}

int deliver_configure(struct deliver *d, const struct destination_spec *spec, uint64_t queue_bytes)
{
	_cleanup_buf_ struct buf bytes;
	int r;

	d->leave_by_ns = 0;
	d->queue_bytes = queue_bytes ? queue_bytes : QUEUE_BYTES;
	buf_init(&bytes, PROTOCOL_CONFIG_MAX);
	protocol_put_spec(&bytes, spec);
	if (buf_error(&bytes))
		return buf_error(&bytes);
	if (d->spec && bytes.len == d->spec_bytes.len &&
		memcmp(bytes.data, d->spec_bytes.data, bytes.len) == 0)
		return 0;
	r = take_spec(d, &bytes);
	if (r < 0)
		return r;
	/* What is under way ends as it began. */
	if (d->request)
		d->reopen = true;
	else
		deliver_open_sender(d);
	return 0;
}

int deliver_new(struct deliver **ret, const struct destination_spec *spec, deliver_tell_fn *tell)
{
	struct deliver *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return -ENOMEM;
	d->tell = tell;
	pace_init(&d->pace, spec->name);
	buf_init(&d->probe, 1 << 20);
	deliver_set_state(d, "idle", "", "");
	r = deliver_configure(d, spec, 0);
	if (r < 0) {
		deliver_free(d);
		return r;
	}
	*ret = d;
	return 0;
}

struct deliver *deliver_free(struct deliver *d)
{
	if (!d)
		return NULL;
	if (d->sender)
		d->transport->close(d->sender);
	encoded_unref(d->encoded);
	buf_deinit(&d->probe);
	shape_rules_unref(d->rules);
	queue_deinit(&d->queue);
	protocol_free_specs(d->spec, d->spec ? 1 : 0);
	buf_deinit(&d->spec_bytes);
	free(d);
	return NULL;
}
