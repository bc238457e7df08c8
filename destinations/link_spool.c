/* SPDX-License-Identifier: Apache-2.0 */

/* The spool as agentd sees it: its folder and settings, what goes out about it, what the exporter says of it.
 *
 * The folder is made here and given to the exporter as a descriptor, before all else; then the settings, again with each
 * change. Behind that go the numbers of batches that it found (link_recover.c) and the request to give some up, one at a
 * time, which ends with the exporter. What it says of the disk is for people: nothing rests on it.
 *
 * A folder that cannot be had is no reason not to run: batches wait in memory then, and status says why. Runs in
 * agentd. */

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "agentd/base/fdpass.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "destinations/link_private.h"

#define MAX_DROPPED 1000000000ULL

struct link_drop_run {
	uint64_t id, before_unix_ns;
	bool sent;
	void (*done)(void *userdata, int error, uint64_t batches, uint64_t samples);
	void *userdata;
};

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
	l->next_dest = (uint32_t)link_store_get(l, "exporter/next-destination", 1);
	l->instance = link_store_get(l, "exporter/instance", 0);
	if (l->instance)
		return 0;
	if (getrandom(&l->instance, sizeof(l->instance), 0) != (ssize_t)sizeof(l->instance))
		return err_set(err, -EIO, "there are no random numbers");
	l->instance |= 1;
	if (link_store_set(l, "exporter/instance", l->instance) < 0)
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
				samples += ledger_left(b, ledger_route_counts(&b->routes[k]), t);
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
