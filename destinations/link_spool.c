/* SPDX-License-Identifier: Apache-2.0 */

/* The spool as agentd sees it: its folder, what an exporter finds in it at its start, the numbers that outlive both.
 *
 * An exporter begins with totals (what each destination settled since the spool is there), then the batches that are
 * not through, then says that this was all. agentd takes a batch that it knows by its identity (boot id, serial), and
 * makes one that it does not know: it is agentd that was started anew. Each gets a number (ADOPT), with how far
 * agentd knows it to be; what is further counts. Nothing new is handed over before.
 *
 * What agentd knows to be in the spool and was not told of is through: the totals say how. What they do not account
 * for was lost with the disk and counts as evicted. In the first round of agentd's life the totals have grown, beside,
 * by what was settled after the ledger was saved for the last time: the store has, for each destination, all that was
 * settled and the part of it that was in the spool's totals then.
 *
 * The exporter is believed about its own deliveries, as ever; not that one became undone, nor counts that a batch
 * cannot have. Runs in agentd. */

#include <fcntl.h>
#include <inttypes.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "agentd/base/clock.h"
#include "agentd/base/fdpass.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "destinations/link_private.h"

#define SAVE_AFTER_NS (10 * NSEC_PER_SEC)
#define SAVE_RETRY_NS (60 * NSEC_PER_SEC)
#define MAX_DROPPED   1000000000ULL

struct link_drop_run {
	uint64_t id, before_unix_ns;
	bool sent;
	void (*done)(void *userdata, int error, uint64_t batches, uint64_t samples);
	void *userdata;
};

struct identity { /* of a batch */
	uint8_t boot_id[16];
	uint64_t serial;
};

static const char *const fate_names[FATES] = {"delivered", "rejected", "evicted", "shaped"};

/* ---- beginning and end --------------------------------------------------------------------------- */

static int open_folder(struct link *l, struct err_text *err)
{
	const char *path = l->config.spool_folder;
	int r = io_mkdir_p(path, 0700, err);

	if (r < 0)
		return r;
	l->spool_folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (l->spool_folder < 0)
		return err_set(err, -errno, "%s: %m", path);
	/* Without privileges the exporter runs as we do. */
	if (geteuid() == 0 && fchown(l->spool_folder, LINK_EXPORTER_UID, LINK_EXPORTER_UID) < 0)
		return err_set(err, -errno, "%s: cannot be given to the exporter's user: %m", path);
	return 0;
}

static int save_value(struct link *l, const char *key, uint64_t value)
{
	struct link_value v = {.value = value};

	if (!l->config.store)
		return 0;
	snprintf(v.key, sizeof(v.key), "%s", key);
	return l->config.store->set(l->config.store_userdata, &v, 1);
}

static uint64_t get_value(struct link *l, const char *key, uint64_t fallback)
{
	uint64_t value;

	if (!l->config.store || l->config.store->get(l->config.store_userdata, key, &value) < 0)
		return fallback;
	return value;
}

void link_spool_problem(struct link *l, const char *text)
{
	l->spool = (struct link_spool){.known = true};
	snprintf(l->spool.problem, sizeof(l->spool.problem), "%.500s", text);
}

int link_spool_init(struct link *l, struct err_text *err)
{
	struct err_text why = {};

	if (l->config.spool_folder && !l->config.exporter_socket && open_folder(l, &why) < 0) {
		/* Profiling goes on; what waits does so in memory, and status says so. */
		log_error("spool: %s; batches are held in memory", why.text);
		closep(&l->spool_folder);
		link_spool_problem(l, why.text);
	}
	l->spool_wanted = l->spool_folder >= 0 || l->config.exporter_socket;
	l->next_dest = (uint32_t)get_value(l, "exporter/next-destination", 1);
	l->instance = get_value(l, "exporter/instance", 0);
	if (l->instance)
		return 0;
	if (getrandom(&l->instance, sizeof(l->instance), 0) != (ssize_t)sizeof(l->instance))
		return err_set(err, -EIO, "there are no random numbers");
	l->instance |= 1;
	if (save_value(l, "exporter/instance", l->instance) < 0)
		log_warning(
			"the number of this installation cannot be saved; what waits is lost at "
			"the next start");
	return 0;
}

static void end_drop(struct link *l, int error, uint64_t batches, uint64_t samples)
{
	struct link_drop_run *d = TAKE_PTR(l->drop);

	if (!d)
		return;
	if (d->done)
		d->done(d->userdata, error, batches, samples);
	free(d);
}

void link_spool_deinit(struct link *l)
{
	end_drop(l, -ECANCELED, 0, 0);
	l->by_identity = map_free(l->by_identity);
	free(l->refused);
	l->refused = NULL;
	closep(&l->spool_folder);
}

void link_spool_begin(struct link *l)
{
	l->session++;
	l->spool_given = l->ready = l->unopened = false;
	l->spool_dirty = true;
	l->n_refused = 0;
	for (size_t i = 0; i < l->n_dests; i++) {
		l->dests[i]->told = (struct message_counts){0};
		l->dests[i]->has_told = false;
	}
}

void link_spool_end(struct link *l)
{
	l->ready = false;
	l->by_identity = map_free(l->by_identity);
	if (l->drop && l->drop->sent)
		end_drop(l, -EPIPE, 0, 0);
}

/* ---- what goes out ------------------------------------------------------------------------------- */

static int send_spool(struct link *l)
{
	struct message_spool m = {
		.header = protocol_header(MESSAGE_SPOOL, sizeof(m)),
		.instance = l->instance,
		.max_bytes = l->spool_settings.max_bytes,
		.max_age_ns = l->spool_settings.max_age_ns,
		.min_free_permille = l->spool_settings.min_free_permille,
	};
	bool first = !l->spool_given && l->spool_folder >= 0;
	int r;

	memcpy(m.boot_id, l->config.boot_id, sizeof(m.boot_id));
	r = fdpass_send(l->child.sock, &m, sizeof(m), &l->spool_folder, first ? 1 : 0);
	if (r == 0) {
		l->spool_given = true;
		l->spool_dirty = false;
	}
	return r;
}

static int send_adopt(struct link *l, struct link_batch *b)
{
	static union {
		struct message_adopt adopt;
		uint8_t bytes[FDPASS_MAX_MESSAGE];
	} m;
	size_t len;
	int r;

	m.adopt = (struct message_adopt){.seq = b->seq, .id = b->id};
	for (size_t i = 0; i < b->n_routes; i++)
		if (!b->routes[i].final && !b->routes[i].unseen)
			m.adopt.routes[m.adopt.n_routes++] = (struct message_route){
				.destination = b->routes[i].destination,
				.row = b->routes[i].row,
				.counts = *ledger_route_counts(&b->routes[i]),
			};
	len = sizeof(m.adopt) + m.adopt.n_routes * sizeof(m.adopt.routes[0]);
	m.adopt.header = protocol_header(MESSAGE_ADOPT, len);
	r = fdpass_send(l->child.sock, &m, len, NULL, 0);
	if (r == 0)
		b->adopt = false;
	return r;
}

static int send_drop(struct link *l)
{
	struct message_spool_drop m = {
		.header = protocol_header(MESSAGE_SPOOL_DROP, sizeof(m)),
		.id = l->drop->id,
		.before_unix_ns = l->drop->before_unix_ns,
	};
	int r = fdpass_send(l->child.sock, &m, sizeof(m), NULL, 0);

	if (r == 0)
		l->drop->sent = true;
	return r;
}

int link_feed_spool(struct link *l)
{
	int r = 0;

	if (!l->spool_wanted)
		return 0;
	if (!l->spool_given || l->spool_dirty)
		r = send_spool(l);
	while (r == 0 && l->n_refused) {
		struct message_adopt m = {
			.header = protocol_header(MESSAGE_ADOPT, sizeof(m)),
			.seq = l->refused[l->n_refused - 1],
		};

		r = fdpass_send(l->child.sock, &m, sizeof(m), NULL, 0);
		l->n_refused -= r == 0;
	}
	for (size_t i = 0; i < l->n_batches && r == 0 && l->spool_given; i++)
		if (l->batches[i]->adopt)
			r = send_adopt(l, l->batches[i]);
	if (r == 0 && l->drop && !l->drop->sent && l->ready)
		r = send_drop(l);
	return r;
}

/* ---- what an exporter finds ---------------------------------------------------------------------- */

int link_on_totals(struct link *l, const struct message_totals *m, const char **why)
{
	struct link_dest *d = ledger_dest(l, m->destination);

	*why = "totals when it is too late for them";
	if (!l->spool_wanted || l->ready)
		return -EBADMSG;
	*why = "more samples than there can be";
	for (size_t f = 0; f < FATES; f++)
		for (size_t t = 0; t < PROTOCOL_TYPES; t++)
			if (m->settled.samples[f][t] > (t < PROFILE_TYPES ? INT64_MAX / 8 : 0))
				return -EBADMSG;
	if (d) {
		d->told = m->settled;
		d->has_told = true;
	}
	return 0;
}

static int index_batches(struct link *l)
{
	int r = map_new(&l->by_identity, sizeof(struct identity));

	for (size_t i = 0; i < l->n_batches && r >= 0; i++) {
		struct link_batch *b = l->batches[i];
		struct identity id = {.serial = b->header.serial};

		memcpy(id.boot_id, b->header.boot_id, sizeof(id.boot_id));
		r = map_put(l->by_identity, &id, sizeof(id), b, NULL);
	}
	if (r < 0)
		l->by_identity = map_free(l->by_identity);
	return MIN(r, 0);
}

static const char *check_recovered(const struct message_recovered *m, size_t len)
{
	struct link_batch as = {.header = m->batch};
	static const struct link_route none;

	if (!m->n_routes || m->n_routes > PROTOCOL_DESTINATIONS ||
		len != sizeof(*m) + m->n_routes * sizeof(m->routes[0]) || !m->seq)
		return "a batch of a wrong size";
	if (m->size > PROFILE_MAX_ENCODED)
		return "a batch that is too big";
	for (size_t t = 0; t < PROTOCOL_TYPES; t++)
		if (m->batch.samples[t] > (t < PROFILE_TYPES ? INT64_MAX : 0))
			return "more samples than there can be";
	for (size_t i = 0; i < m->n_routes; i++) {
		const char *why = ledger_check_counts(&as, &none, &m->routes[i].counts, false);

		if (why)
			return why;
		for (size_t k = 0; k < i; k++)
			if (m->routes[k].destination == m->routes[i].destination)
				return "a destination twice";
	}
	return NULL;
}

static bool was_given_up(const struct link *l, const struct message_recovered *m)
{
	size_t n = MIN(l->n_given_up, ARRAY_SIZE(l->given_up));

	for (size_t i = 0; i < n; i++)
		if (l->given_up[i].serial == m->batch.serial &&
			memcmp(l->given_up[i].boot_id, m->batch.boot_id, 16) == 0)
			return true;
	return false;
}

static int refuse(struct link *l, uint64_t seq)
{
	uint64_t *grown = reallocarray(l->refused, l->n_refused + 1, sizeof(*grown));

	if (!grown)
		return -ENOMEM;
	l->refused = grown;
	grown[l->n_refused++] = seq;
	return 0;
}

/* One that agentd has. */
static void take_known(struct link *l, struct link_batch *b, const struct message_recovered *m)
{
	ledger_make_durable(l, b);
	b->given = b->held = true;
	for (size_t i = 0; i < b->n_routes; i++)
		b->routes[i].unseen = !b->routes[i].final;
	for (size_t k = 0; k < m->n_routes; k++) {
		const struct message_route *told = &m->routes[k];

		for (size_t i = 0; i < b->n_routes; i++) {
			struct link_route *route = &b->routes[i];

			if (route->destination != told->destination || route->final)
				continue;
			route->unseen = false;
			/* Where it knows less than was told before, agentd's view is sent back. */
			if (told->row < route->row ||
				ledger_check_counts(b, route, &told->counts, false))
				continue;
			route->row = told->row;
			(void)ledger_take(l, b, i, &told->counts, false);
		}
	}
}

int link_on_recovered(
	struct link *l, const struct message_recovered *m, size_t len, const char **why)
{
	struct identity id = {.serial = m->batch.serial};
	struct link_batch *b;
	int r = 0;

	*why = "a batch of a spool when it is too late for it";
	if (!l->spool_wanted || l->ready)
		return -EBADMSG;
	*why = check_recovered(m, len);
	if (*why)
		return -EBADMSG;
	*why = "more batches than a spool can have";
	if (l->n_batches > 4 * PROTOCOL_BATCHES)
		return -EBADMSG;
	if (was_given_up(l, m))
		return refuse(l, m->seq);
	if (!l->by_identity)
		r = index_batches(l);
	if (r < 0)
		return r;
	memcpy(id.boot_id, m->batch.boot_id, sizeof(id.boot_id));
	b = map_get(l->by_identity, &id, sizeof(id));
	/* This one opened its spool late, and was given the batch meanwhile: it has it in memory and delivers it once. */
	if (b && b->given && !b->durable)
		return refuse(l, m->seq);
	if (b) {
		*why = "a batch that is not as it was";
		if (b->size != m->size || memcmp(&b->header, &m->batch, sizeof(m->batch)) != 0)
			return -EBADMSG;
		*why = "a batch twice";
		if (b->durable && b->session == l->session)
			return -EBADMSG;
		take_known(l, b, m);
	} else {
		r = ledger_add_recovered(l, m, &b);
		if (r < 0) /* nowhere to go, or no memory */
			return refuse(l, m->seq);
		(void)map_put(l->by_identity, &id, sizeof(id), b, NULL);
	}
	b->seq = m->seq;
	b->session = l->session;
	b->adopt = true;
	return 0;
}

static uint64_t left_of(const struct link_batch *b, const struct message_counts *c, size_t t)
{
	uint64_t left = b->header.samples[t];

	for (size_t f = 0; f < FATES; f++)
		left -= MIN(left, c->samples[f][t]);
	return left;
}

/* What the totals have grown by beyond what is known goes to routes that are through unseen. */
static uint64_t settle_unseen(struct link *l, struct link_batch *b, size_t i, bool *gone)
{
	struct message_counts counts = *ledger_route_counts(&b->routes[i]);
	struct link_dest *d = ledger_dest(l, b->routes[i].destination);
	uint64_t lost = 0;

	for (size_t t = 0; t < PROTOCOL_TYPES; t++) {
		uint64_t left = left_of(b, &counts, t);

		for (size_t f = 0; d && d->has_told && f < FATES; f++) {
			uint64_t more = d->told.samples[f][t] -
				MIN(d->spooled.samples[f][t], d->told.samples[f][t]);
			uint64_t n = MIN(left, more);

			counts.samples[f][t] += n;
			left -= n;
		}
		counts.samples[FATE_EVICTED][t] += left;
		lost += left;
	}
	/* Adds to what is known as spooled; what was lost was never in the totals, which count next. */
	*gone = ledger_take(l, b, i, &counts, true);
	return lost;
}

static uint64_t reconcile_batches(struct link *l)
{
	uint64_t lost = 0;

	for (size_t at = 0; at < l->n_batches;) {
		struct link_batch *b = l->batches[at];
		bool gone = false;

		for (size_t i = 0; !gone && b->durable && i < b->n_routes; i++)
			if (!b->routes[i].final &&
				(b->session != l->session || b->routes[i].unseen))
				lost += settle_unseen(l, b, i, &gone);
		at += !gone;
	}
	return lost;
}

static void reconcile_dest(struct link *l, struct link_dest *d)
{
	for (size_t t = 0; t < PROFILE_TYPES && d->has_told; t++) {
		uint64_t more[FATES];

		for (size_t f = 0; f < FATES; f++) {
			more[f] = d->told.samples[f][t] -
				MIN(d->spooled.samples[f][t], d->told.samples[f][t]);
			/* Later rounds: agentd was there all the time and knows. */
			more[f] = l->reconciled ? 0 : more[f];
			d->row.ledger[t].routed += more[f];
		}
		d->row.ledger[t].delivered += more[FATE_DELIVERED];
		d->row.ledger[t].rejected += more[FATE_REJECTED];
		d->row.ledger[t].evicted += more[FATE_EVICTED];
		d->row.ledger[t].shaped += more[FATE_SHAPED];
	}
	d->spooled = d->told;
	link_save_soon(l, d);
}

int link_on_ready(struct link *l, const struct message_ready *m, const char **why)
{
	uint64_t lost;

	*why = "that it is ready, twice";
	if (!l->spool_wanted || l->ready)
		return -EBADMSG;
	*why = "an answer that there is not";
	if (m->spool > 1)
		return -EBADMSG;
	l->by_identity = map_free(l->by_identity);
	if (!m->spool) {
		/* New batches must not wait for a spool that cannot be opened. What it has waits. */
		l->unopened = true;
		return 0;
	}
	l->unopened = false;
	lost = reconcile_batches(l);
	for (size_t i = 0; i < l->n_dests; i++)
		reconcile_dest(l, l->dests[i]);
	if (lost)
		log_error("spool: %llu samples that were in it are not there any more",
			(unsigned long long)lost);
	l->newest_unix_ns = MAX(l->newest_unix_ns, m->newest_unix_ns);
	l->ready = l->reconciled = true;
	return 0;
}

/* ---- what it says of it -------------------------------------------------------------------------- */

int link_on_spool_state(struct link *l, const struct message_spool_state *m, const char **why)
{
	*why = "texts that do not end";
	if (!memchr(m->problem, 0, sizeof(m->problem)))
		return -EBADMSG;
	l->spool = (struct link_spool){
		.on = m->on != 0,
		.known = true,
		.bytes = m->bytes,
		.max_bytes = m->max_bytes,
		.free_bytes = m->free_bytes,
		.disk_bytes = m->disk_bytes,
		.damaged = m->damaged,
		.write_errors = m->write_errors,
		.sync_errors = m->sync_errors,
		.memory_bytes = m->memory_bytes,
		.recovery_ns = m->recovery_ns,
		.segments = m->segments,
		.batches = m->batches,
		.memory_batches = m->memory_batches,
	};
	memcpy(l->spool.problem, m->problem, sizeof(l->spool.problem));
	text_clean(l->spool.problem);
	return 0;
}

int link_on_spool_dropped(struct link *l, const struct message_spool_dropped *m, const char **why)
{
	*why = "that it gave up what it was not told to";
	if (!m->id || m->id > l->next_drop)
		return -EBADMSG;
	if (l->drop && l->drop->sent && l->drop->id == m->id)
		end_drop(l, 0, MIN(m->batches, MAX_DROPPED), m->samples);
	return 0;
}

void link_configure_spool(struct link *l, const struct link_spool_settings *settings)
{
	if (l->spool_settings.max_bytes == settings->max_bytes &&
		l->spool_settings.max_age_ns == settings->max_age_ns &&
		l->spool_settings.min_free_permille == settings->min_free_permille)
		return;
	l->spool_settings = *settings;
	l->spool_dirty = true;
	link_feed(l);
}

void link_spool(const struct link *l, struct link_spool *ret)
{
	*ret = l->spool;
	if (!ret->max_bytes)
		ret->max_bytes = l->spool_settings.max_bytes;
}

void link_spool_each(
	struct link *l, void (*visit)(void *userdata, const struct link_waiting *w), void *userdata)
{
	const char *names[2 * PROTOCOL_DESTINATIONS];

	for (size_t i = 0; i < l->n_batches; i++) {
		const struct link_batch *b = l->batches[i];
		struct link_waiting w = {.header = &b->header,
			.size = b->size,
			.durable = b->durable,
			.destinations = names};

		for (size_t k = 0; k < b->n_routes; k++) {
			const struct link_dest *d = ledger_dest(l, b->routes[k].destination);
			uint64_t samples = 0;

			if (!d || b->routes[k].final || w.n_destinations == ARRAY_SIZE(names))
				continue;
			names[w.n_destinations++] = d->row.name;
			for (size_t t = 0; t < PROFILE_TYPES; t++)
				samples += left_of(b, ledger_route_counts(&b->routes[k]), t);
			w.samples = MAX(w.samples, samples);
		}
		visit(userdata, &w);
	}
}

int link_spool_drop(struct link *l, uint64_t before_unix_ns,
	void (*done)(void *userdata, int error, uint64_t batches, uint64_t samples), void *userdata)
{
	struct link_drop_run *d;

	if (l->drop)
		return -EBUSY;
	if (!link_alive(l) || !l->ready)
		return -EHOSTDOWN;
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	*d = (struct link_drop_run){.id = ++l->next_drop,
		.before_unix_ns = before_unix_ns,
		.done = done,
		.userdata = userdata};
	l->drop = d;
	link_feed(l);
	return 0;
}

void link_spool_drop_cancel(struct link *l, void *userdata)
{
	if (l->drop && l->drop->userdata == userdata)
		l->drop->done = NULL;
}

uint64_t link_newest_unix_ns(const struct link *l)
{
	return l->newest_unix_ns;
}

/* ---- numbers that outlive agentd ----------------------------------------------------------------- */

static void dest_key(const struct link_dest *d, char out[192])
{
	snprintf(out, 192, "destination/%s/%s", d->row.type, d->row.name);
}

static void ledger_key(
	const struct link_dest *d, size_t type, size_t fate, bool spooled, char out[192])
{
	snprintf(out, 192, "ledger/%" PRIu32 "/%s/%s%s", d->id, profile_types[type].name,
		fate_names[fate], spooled ? "/spooled" : "");
}

int link_load_dest(struct link *l, struct link_dest *d)
{
	struct link_value v[2] = {{.key = "exporter/next-destination"}};
	char key[192];

	dest_key(d, v[1].key);
	d->id = (uint32_t)get_value(l, v[1].key, 0);
	if (!d->id || d->id >= l->next_dest) {
		d->id = l->next_dest++;
		v[0].value = l->next_dest;
		v[1].value = d->id;
		return l->config.store ? l->config.store->set(l->config.store_userdata, v, 2) : 0;
	}
	for (size_t t = 0; t < PROFILE_TYPES; t++) {
		uint64_t n[FATES];

		for (size_t f = 0; f < FATES; f++) {
			ledger_key(d, t, f, false, key);
			n[f] = MIN(get_value(l, key, 0), (uint64_t)INT64_MAX / 8);
			d->row.ledger[t].routed += n[f];
			ledger_key(d, t, f, true, key);
			d->spooled.samples[f][t] = get_value(l, key, 0);
		}
		d->row.ledger[t].delivered = n[FATE_DELIVERED];
		d->row.ledger[t].rejected = n[FATE_REJECTED];
		d->row.ledger[t].evicted = n[FATE_EVICTED];
		d->row.ledger[t].shaped = n[FATE_SHAPED];
	}
	return 0;
}

static size_t put_ledger(const struct link_dest *d, struct link_value *list, bool drop)
{
	size_t n = 0;

	for (size_t t = 0; t < PROFILE_TYPES; t++) {
		const uint64_t all[FATES] = {
			[FATE_DELIVERED] = d->row.ledger[t].delivered,
			[FATE_REJECTED] = d->row.ledger[t].rejected,
			[FATE_EVICTED] = d->row.ledger[t].evicted,
			[FATE_SHAPED] = d->row.ledger[t].shaped,
		};

		for (size_t f = 0; f < FATES; f++)
			for (int spooled = 0; spooled < 2; spooled++, n++) {
				list[n].value = spooled ? d->spooled.samples[f][t] : all[f];
				list[n].drop = drop;
				ledger_key(d, t, f, spooled != 0, list[n].key);
			}
	}
	return n;
}

void link_forget_dest(struct link *l, const struct link_dest *d)
{
	struct link_value list[1 + 2 * FATES * PROFILE_TYPES] = {{.drop = true}};

	if (!l->config.store)
		return;
	dest_key(d, list[0].key);
	if (l->config.store->set(
		    l->config.store_userdata, list, 1 + put_ledger(d, list + 1, true)) < 0)
		log_warning("destination %s: that it was removed cannot be saved", d->row.name);
}

void link_rename_dest(struct link *l, struct link_dest *d, const char *name)
{
	struct link_value list[2] = {{.drop = true}, {.value = d->id}};

	dest_key(d, list[0].key);
	snprintf(d->row.name, sizeof(d->row.name), "%s", name);
	dest_key(d, list[1].key);
	if (l->config.store && l->config.store->set(l->config.store_userdata, list, 2) < 0)
		log_warning("destination %s: its new name cannot be saved", name);
}

void link_save_soon(struct link *l, struct link_dest *d)
{
	d->ledger_dirty = true;
	if (!l->config.store || l->save_at_ns)
		return;
	l->save_at_ns = clock_monotonic_ns() + SAVE_AFTER_NS;
	link_arm(l);
}

void link_save(struct link *l)
{
	struct link_value *list = calloc(l->n_dests + 1, 2 * FATES * PROFILE_TYPES * sizeof(*list));
	size_t n = 0;
	int r = list ? 0 : -ENOMEM;

	l->save_at_ns = 0;
	for (size_t i = 0; i < l->n_dests && list; i++)
		if (l->dests[i]->ledger_dirty && l->dests[i]->configured)
			n += put_ledger(l->dests[i], list + n, false);
	if (n && l->config.store)
		r = l->config.store->set(l->config.store_userdata, list, n);
	for (size_t i = 0; i < l->n_dests && r == 0; i++)
		l->dests[i]->ledger_dirty = false;
	if (r < 0)
		l->save_at_ns = clock_monotonic_ns() + SAVE_RETRY_NS;
	free(list);
}
