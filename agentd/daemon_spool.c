/* SPDX-License-Identifier: Apache-2.0 */

/* The exporter's spool, as the daemon sets it up and shows it; and the gap that a killed agentd leaves.
 *
 * What outlives agentd is in the store: numbers of destinations, totals of the ledger, and whether profiling was on. An
 * agentd that finds it on was not stopped but ended: what was sampled after the last batch that anybody kept is not
 * known. That is shown as a gap, from the end of that batch to the beginning of the first interval; never as
 * samples. Runs in agentd. */

#include <inttypes.h>

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/daemon_spool.h"

#define LIST_DEFAULT 1000

/* ---- the store ----------------------------------------------------------------------------------- */

static int get_value(void *userdata, const char *key, uint64_t *value)
{
	struct daemon *d = userdata;

	return store_state_get(d->store, key, value);
}

static int set_values(void *userdata, const struct link_value *list, size_t n)
{
	struct daemon *d = userdata;
	_cleanup_free_ struct store_value *values = calloc(n + 1, sizeof(*values));
	struct err_text err = {};
	int r;

	if (!values)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		values[i] = (struct store_value){list[i].key, list[i].value, list[i].drop};
	r = store_state_set_all(d->store, values, n, &err);
	if (r < 0) {
		snprintf(d->state_problem, sizeof(d->state_problem),
			"the ledger cannot be saved: %.180s", err.text);
		log_warning("%s", d->state_problem);
	}
	return r;
}

static const struct link_store link_store = {get_value, set_values};

int daemon_link_new(struct daemon *d, struct err_text *err)
{
	_cleanup_free_ char *folder = NULL;
	struct link_config c = {
		.exporter_socket = d->exporter_socket,
		.store = &link_store,
		.store_userdata = d,
	};
	int r;

	if (asprintf(&folder, "%s/spool", d->state_dir) < 0)
		return -ENOMEM;
	c.spool_folder = folder;
	memcpy(c.boot_id, d->boot_id, sizeof(c.boot_id));
	daemon_gap_load(d);
	r = link_new(&d->link, d->loop, &c, err);
	if (r == 0)
		daemon_spool_configure(d, d->in_force);
	return r;
}

void daemon_spool_configure(struct daemon *d, const struct config *c)
{
	struct link_spool_settings s = {
		.max_bytes = c->exporter.spool_bytes,
		.max_age_ns = c->exporter.spool_age_ns,
		.min_free_permille = c->exporter.min_free_permille,
	};

	link_configure_spool(d->link, &s);
}

/* ---- the gap ------------------------------------------------------------------------------------- */

static void set_value(struct daemon *d, const char *key, uint64_t value)
{
	struct err_text err = {};

	if (store_state_set(d->store, key, value, &err) < 0)
		log_warning("%s cannot be saved: %s", key, err.text);
}

static uint64_t value_of(struct daemon *d, const char *key)
{
	uint64_t value = 0;

	return store_state_get(d->store, key, &value) < 0 ? 0 : value;
}

void daemon_gap_load(struct daemon *d)
{
	d->gap.count = value_of(d, "gap/count");
	d->gap.from_unix_ns = value_of(d, "gap/from");
	d->gap.to_unix_ns = value_of(d, "gap/to");
	d->gap.open_since_unix_ns = value_of(d, "profiling/on-since");
}

/* The agentd before us did not come to its stop. */
static void note_gap(struct daemon *d, uint64_t now)
{
	struct local_state local = {};

	local_state(d->local, &local);
	d->gap.from_unix_ns = MIN(MAX(d->gap.open_since_unix_ns, local.to_unix_ns), now);
	d->gap.to_unix_ns = now;
	d->gap.count++;
	set_value(d, "gap/from", d->gap.from_unix_ns);
	set_value(d, "gap/to", d->gap.to_unix_ns);
	set_value(d, "gap/count", d->gap.count);
	log_warning("agentd was ended without a stop: what was sampled in the last %.1f s before "
		    "this start is not known",
		(double)(now - d->gap.from_unix_ns) / 1e9);
}

static void set_open_since(struct daemon *d, uint64_t unix_ns)
{
	d->gap.open_since_unix_ns = unix_ns;
	set_value(d, "profiling/on-since", unix_ns);
}

void daemon_gap_profiling(struct daemon *d, bool on)
{
	uint64_t now = clock_unix_ns();

	if (on && d->gap.open_since_unix_ns)
		note_gap(d, now);
	set_open_since(d, on ? now : 0);
}

void daemon_gap_off(struct daemon *d)
{
	if (!d->gap.open_since_unix_ns)
		return;
	note_gap(d, clock_unix_ns());
	set_open_since(d, 0);
}

uint64_t daemon_gap_from(const struct daemon *d)
{
	/* The spool may have more than the local profiles; it is known a moment after the start. */
	uint64_t newest = link_newest_unix_ns(d->link);

	if (d->gap.from_unix_ns && newest > d->gap.from_unix_ns && newest < d->gap.to_unix_ns)
		return newest;
	return d->gap.from_unix_ns;
}

/* ---- the verbs ----------------------------------------------------------------------------------- */

struct listing {
	struct control_reply *reply;
	Control__Spool *body;
	uint64_t limit;
};

static void add_waiting(void *userdata, const struct link_waiting *w)
{
	struct listing *l = userdata;
	Control__SpoolBatch *b;

	l->body->waiting++;
	if (l->body->n_batches >= l->limit)
		return;
	b = control_alloc(l->reply, sizeof(*b));
	if (!b)
		return;
	control__spool_batch__init(b);
	b->serial = w->header->serial;
	b->from_unix_ns = w->header->from_unix_ns;
	b->to_unix_ns = w->header->to_unix_ns;
	b->bytes = w->size;
	b->samples = w->samples;
	b->durable = w->durable;
	b->destinations =
		control_alloc(l->reply, (w->n_destinations + 1) * sizeof(*b->destinations));
	for (; b->destinations && b->n_destinations < w->n_destinations; b->n_destinations++)
		b->destinations[b->n_destinations] =
			control_strdup(l->reply, w->destinations[b->n_destinations]);
	l->body->batches[l->body->n_batches++] = b;
}

Control__SpoolState *daemon_spool_state(struct daemon *d, struct control_reply *r)
{
	Control__SpoolState *x = control_alloc(r, sizeof(*x));
	struct link_spool s;

	if (!x)
		return NULL;
	link_spool(d->link, &s);
	control__spool_state__init(x);
	x->folder = d->exporter_socket ? control_strdup(r, "(of the exporter's unit)")
				       : control_printf(r, "%s/spool", d->state_dir);
	x->on = s.on;
	x->known = s.known;
	x->problem = control_strdup(r, s.problem);
	x->bytes = s.bytes;
	x->max_bytes = s.max_bytes;
	x->free_bytes = s.free_bytes;
	x->disk_bytes = s.disk_bytes;
	x->damaged = s.damaged;
	x->write_errors = s.write_errors + s.sync_errors;
	x->memory_bytes = s.memory_bytes;
	x->memory_batches = s.memory_batches;
	x->recovery_ns = s.recovery_ns;
	x->segments = s.segments;
	x->batches = s.batches;
	x->max_age_ns = d->in_force->exporter.spool_age_ns;
	return x;
}

void daemon_get_spool(void *userdata, struct control_reply *r, const Control__GetSpool *request)
{
	struct daemon *d = userdata;
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__Spool body = CONTROL__SPOOL__INIT;
	struct listing l = {
		r, &body, request->limit ? MIN(request->limit, LIST_DEFAULT) : LIST_DEFAULT};

	body.batches = control_alloc(r, (l.limit + 1) * sizeof(*body.batches));
	if (body.batches)
		link_spool_each(d->link, add_waiting, &l);
	body.state = daemon_spool_state(d, r);
	reply.body_case = CONTROL__REPLY__BODY_SPOOL;
	reply.spool = &body;
	control_send(r, &reply, true);
}

struct drop_request {
	struct daemon *daemon;
	struct control_reply *reply;
};

static void on_drop_cancelled(void *userdata)
{
	struct drop_request *q = userdata;

	link_spool_drop_cancel(q->daemon->link, q);
	free(q);
}

static void on_dropped(void *userdata, int error, uint64_t batches, uint64_t samples)
{
	_cleanup_free_ struct drop_request *q = userdata;
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__SpoolDropped body = CONTROL__SPOOL_DROPPED__INIT;

	control_on_cancel(q->reply, NULL, NULL);
	if (error < 0) {
		daemon_fail(q->reply, error, "the exporter ended meanwhile; try again in a moment");
		return;
	}
	body.batches = batches;
	body.samples = samples;
	reply.body_case = CONTROL__REPLY__BODY_SPOOL_DROPPED;
	reply.spool_dropped = &body;
	control_send(q->reply, &reply, true);
}

void daemon_drop_spool(void *userdata, struct control_reply *r, const Control__DropSpool *request)
{
	struct daemon *d = userdata;
	struct drop_request *q = calloc(1, sizeof(*q));
	uint64_t now = clock_unix_ns();
	int error;

	if (!q) {
		daemon_fail(r, -ENOMEM, "out of memory");
		return;
	}
	*q = (struct drop_request){d, r};
	control_on_cancel(r, on_drop_cancelled, q);
	error = link_spool_drop(d->link, now - MIN(now, request->older_than_ns), on_dropped, q);
	if (error == 0)
		return;
	control_on_cancel(r, NULL, NULL);
	free(q);
	daemon_fail(r, error,
		error == -EHOSTDOWN
			? "the exporter does not run, or has not read its spool yet; it runs "
			  "while a destination is enabled"
			: "somebody else drops batches right now; try again in a moment");
}
