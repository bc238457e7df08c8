/* SPDX-License-Identifier: Apache-2.0 */

/* What the exporter holds, and where.
 *
 * A batch that comes is written to the spool together with all others that came in the same turn and synced once; then
 * agentd is told that it is held and durable. Where that fails (no room on the disk, an error, a file system that
 * became read-only) it is held in memory within the queue's bound, agentd is told so and keeps its bytes, too, and
 * writing is tried again a little later, for those in memory as well.
 *
 * Progress: each answer to agentd is noted in the journal first and goes out after the sync (exporter_tell()), so no
 * successor knows less than agentd does, and at most the request whose answer died with us is sent again.
 *
 * What a predecessor left is in exporter_recover.c, how room is made in exporter_room.c. Runs in the exporter. */

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "destinations/exporter_private.h"

#define RETRY_NS       (5 * NSEC_PER_SEC)
#define STATE_EVERY_NS NSEC_PER_SEC
#define BUSY_RETRY_NS  (20 * NSEC_PER_MSEC)
#define BUSY_NS        (5 * NSEC_PER_SEC)
#define UNCOMMITTED    64
#define MOVES_A_TURN   16

static struct {
	bool asked; /* there is to be a spool */
	int dirfd;
	struct message_spool settings;
	struct spool *spool; /* NULL: it could not be opened (yet) */
	bool configured;
	bool resized;      /* its bounds are others, and what is in it may be too much */
	uint64_t retry_ns; /* nothing is written before; 0: now */
	/* A predecessor that was killed may hold the lock so long; 0: not tried yet. */
	uint64_t busy_until_ns;
	char problem[PROTOCOL_TEXT];
	uint64_t uncommitted[UNCOMMITTED]; /* batches that were written and not synced */
	size_t n_uncommitted;
	struct message_spool_state state; /* that was told */
	uint64_t state_told_ns;
} k = {.dirfd = -1};

/* ---- the spool itself ---------------------------------------------------------------------------- */

static void set_problem(const char *text)
{
	/* Once, not with each try. */
	if (!streq(text, k.problem))
		log_warning("%s; batches are held in memory meanwhile", text);
	snprintf(k.problem, sizeof(k.problem), "%.500s", text);
	k.retry_ns = clock_monotonic_ns() + RETRY_NS;
}

static void failed(const char *what, int error)
{
	struct err_text problem = {};

	err_set(&problem, error, "%s: %s", what,
		error == -ENOSPC || error == -EDQUOT ? "the disk is full"
						     : strerrordesc_np(-error));
	set_problem(problem.text);
}

static void works(void)
{
	if (k.problem[0])
		log_info("the spool can be written again");
	k.problem[0] = '\0';
	k.retry_ns = 0;
}

static void try_open(void)
{
	struct spool_config config = {
		.instance = k.settings.instance,
		.max_bytes = k.settings.max_bytes,
		.max_age_ns = k.settings.max_age_ns,
		.min_free_permille = k.settings.min_free_permille,
	};
	struct err_text err = {};
	struct spool_state s;
	int r;

	memcpy(config.boot_id, k.settings.boot_id, sizeof(config.boot_id));
	if (!k.busy_until_ns)
		k.busy_until_ns = clock_monotonic_ns() + BUSY_NS;
	r = k.dirfd < 0 ? err_set(&err, -ENOENT, "there is no folder for the spool")
			: spool_open(&k.spool, k.dirfd, &config, &err);
	if (r == -EBUSY && clock_monotonic_ns() < k.busy_until_ns) {
		k.retry_ns = clock_monotonic_ns() + BUSY_RETRY_NS;
		return;
	}
	k.busy_until_ns = 1;
	if (r < 0) {
		set_problem(err.text);
		return;
	}
	works();
	held_batch_set_spool(k.spool);
	spool_get_state(k.spool, &s);
	if (s.batches || s.damaged || s.foreign)
		log_info("spool: %u batches wait; %llu damaged, %llu files of another installation "
			 "were thrown away",
			s.batches, (unsigned long long)s.damaged, (unsigned long long)s.foreign);
}

int keep_on_spool(const struct message_spool *m, int *fd)
{
	k.settings = *m;
	k.asked = k.resized = true;
	if (*fd >= 0 && k.dirfd < 0)
		k.dirfd = TAKE_FD(*fd);
	if (k.spool)
		spool_configure(k.spool, m->max_bytes, m->max_age_ns, m->min_free_permille);
	else
		try_open();
	return 0;
}

void keep_set_folder(int fd)
{
	closep(&k.dirfd);
	k.dirfd = fd;
}

struct spool *keep_spool(void)
{
	return k.spool;
}

int keep_folder(void)
{
	return k.dirfd;
}

static void tell_recovered(void)
{
	keep_tell_recovered(clock_monotonic_ns() < k.busy_until_ns);
}

void keep_configured(void)
{
	k.configured = true;
	if (k.asked)
		tell_recovered();
}

/* ---- batches that come --------------------------------------------------------------------------- */

void keep_answer(uint64_t id, const struct message_route *route, const struct batch_header *header)
{
	struct message_answer a = {
		.header = protocol_header(MESSAGE_ANSWER, sizeof(a)),
		.id = id,
		.destination = route->destination,
		.final = 1,
		.row = route->row,
		.counts = route->counts,
	};

	keep_evict_left(header, &a.counts);
	exporter_tell(&a, sizeof(a));
}

void keep_route_to(struct held_batch *b, const struct message_route *route)
{
	struct deliver *d = exporter_find(route->destination);

	if (!d || deliver_push(d, b, route->row, &route->counts) < 0)
		keep_answer(b->id, route, &b->header);
}

static bool may_write(void)
{
	return k.spool && (!k.retry_ns || clock_monotonic_ns() >= k.retry_ns);
}

/* Into the spool, not synced. -EFBIG: it is larger than the spool may be; others are not held up by that. */
static int put(struct held_batch *b, const uint32_t *destinations, size_t n)
{
	int r;

	if (!spool_could_hold(k.spool, b->size))
		return -EFBIG;
	if (k.n_uncommitted == UNCOMMITTED)
		keep_commit();
	keep_within(b->size);
	if (!spool_has_room(k.spool, b->size))
		r = -ENOSPC;
	else
		r = spool_append(
			k.spool, &b->header, b->bytes, b->size, destinations, n, &b->spool);
	if (r < 0) {
		failed("the spool cannot be written", r);
		return r;
	}
	b->spool->owner = b;
	k.uncommitted[k.n_uncommitted++] = b->id;
	return 0;
}

/* To its destinations that are here. 0 without the spool, too. */
static void put_new(struct held_batch *b, const struct message_batch *m)
{
	uint32_t destinations[PROTOCOL_DESTINATIONS];
	size_t n = 0;
	int r;

	for (size_t i = 0; i < m->n_routes; i++)
		if (exporter_find(m->routes[i].destination))
			destinations[n++] = m->routes[i].destination;
	if (!n || !may_write())
		return;
	r = put(b, destinations, n);
	if (r == -EFBIG)
		log_warning("a batch of %zu bytes is larger than the spool may be, and is held in "
			    "memory: raise exporter/spool-bytes",
			b->size);
	if (r < 0)
		return;
	for (size_t i = 0; i < m->n_routes; i++)
		if (m->routes[i].row)
			(void)spool_progress(k.spool, b->spool, m->routes[i].destination,
				m->routes[i].row, &m->routes[i].counts, false);
}

static void tell_held(uint64_t id, bool durable)
{
	struct message_held held = {.header = protocol_header(MESSAGE_HELD, sizeof(held)),
		.id = id,
		.durable = durable};

	exporter_tell(&held, sizeof(held));
}

int keep_on_batch(const struct message_batch *m, size_t len, int fd)
{
	struct held_batch *b = NULL;
	int r;

	if (m->n_routes > PROTOCOL_DESTINATIONS ||
		len != sizeof(*m) + m->n_routes * sizeof(m->routes[0]))
		return -EBADMSG;
	r = held_batch_new(&b, m->id, &m->batch, fd);
	if (r == -EBADMSG)
		return r;
	if (b)
		put_new(b, m);
	/* Else after the sync. */
	if (!b || !b->spool)
		tell_held(m->id, false);
	for (size_t i = 0; i < m->n_routes; i++) {
		if (b)
			keep_route_to(b, &m->routes[i]);
		else
			keep_answer(m->id, &m->routes[i], &m->batch);
	}
	held_batch_unref(b);
	return 0;
}

/* Those in memory, once writing may work again. true: there are more, for the next turn. */
static bool move_to_spool(void)
{
	uint32_t destinations[PROTOCOL_DESTINATIONS], memory;
	struct held_batch *b = NULL;
	unsigned moved = 0;

	(void)held_batch_memory(&memory);
	while (memory && moved < MOVES_A_TURN && (b = held_batch_next(b))) {
		size_t n = 0;

		if (b->kept || b->spool || !spool_could_hold(k.spool, b->size))
			continue;
		for (size_t i = 0; exporter_at(i) && n < ARRAY_SIZE(destinations); i++)
			if (deliver_find(exporter_at(i), b))
				destinations[n++] = deliver_id(exporter_at(i));
		if (!n || put(b, destinations, n) < 0)
			return false;
		for (size_t i = 0; i < n; i++) {
			const struct queue_item *item =
				deliver_find(exporter_find(destinations[i]), b);

			if (item->row)
				(void)spool_progress(k.spool, b->spool, destinations[i], item->row,
					&item->counts, false);
		}
		moved++;
	}
	return moved == MOVES_A_TURN;
}

/* ---- progress ------------------------------------------------------------------------------------ */

void keep_note(const struct message_answer *a)
{
	const struct held_batch *b = held_batch_find(a->id);

	if (b && b->spool && k.spool)
		(void)spool_progress(
			k.spool, b->spool, a->destination, a->row, &a->counts, a->final);
}

void keep_commit(void)
{
	size_t n = k.n_uncommitted;
	int r;

	if (!k.spool || (!n && !spool_dirty(k.spool)))
		return;
	r = spool_commit(k.spool);
	k.n_uncommitted = 0;
	if (r < 0)
		failed("the spool cannot be synced", r);
	else if (n)
		works();
	for (size_t i = 0; i < n; i++) {
		struct held_batch *b = held_batch_find(k.uncommitted[i]);

		/* What could not be synced the spool has let go of. */
		if (b && r < 0)
			b->spool = NULL;
		if (b && r == 0)
			held_batch_keep(b);
		if (b)
			tell_held(k.uncommitted[i], r == 0);
	}
	keep_forget_place();
	spool_reap(k.spool);
}

/* ---- time ---------------------------------------------------------------------------------------- */

static void tell_state(uint64_t now_ns, uint64_t *wake_ns)
{
	struct message_spool_state m = {.header = protocol_header(MESSAGE_SPOOL_STATE, sizeof(m))};
	struct spool_state s = {};

	if (k.spool)
		spool_get_state(k.spool, &s);
	m.bytes = s.bytes;
	m.max_bytes = s.max_bytes;
	m.damaged = s.damaged;
	m.write_errors = s.write_errors;
	m.sync_errors = s.sync_errors;
	m.recovery_ns = s.recovery_ns;
	m.on = k.spool && !k.problem[0];
	m.segments = s.segments;
	m.batches = s.batches;
	m.memory_bytes = held_batch_memory(&m.memory_batches);
	snprintf(m.problem, sizeof(m.problem), "%s",
		k.problem[0] ? k.problem
			: s.progress_behind
			? "what was delivered cannot be noted on the disk; after "
			  "a crash some of it is sent again"
			: "");
	/* The disk's room changes all the time: it comes along. */
	m.free_bytes = k.state.free_bytes;
	m.disk_bytes = k.state.disk_bytes;
	if (memcmp(&m, &k.state, sizeof(m)) == 0)
		return;
	if (now_ns - k.state_told_ns < STATE_EVERY_NS) {
		*wake_ns = MIN(*wake_ns, k.state_told_ns + STATE_EVERY_NS);
		return;
	}
	m.free_bytes = s.free_bytes;
	m.disk_bytes = s.disk_bytes;
	k.state = m;
	k.state_told_ns = now_ns;
	exporter_tell(&m, sizeof(m));
}

void keep_run(uint64_t now_ns, uint64_t *wake_ns)
{
	uint64_t expiry, boot = clock_boottime_ns();
	unsigned evicted;

	if (!k.asked)
		return;
	if (!k.spool && now_ns >= k.retry_ns)
		try_open();
	if (k.configured)
		tell_recovered();
	if (k.spool) {
		if (k.resized)
			keep_within(0);
		k.resized = false;
		expiry = spool_next_expiry(k.spool);
		if (expiry <= boot) {
			evicted = keep_make_room(0);
			if (evicted)
				log_warning(
					"%u batches were older than they may be and were given up",
					evicted);
			expiry = spool_next_expiry(k.spool);
		}
		/* One that is spared is looked at again, at leisure. */
		*wake_ns = MIN(*wake_ns,
			now_ns +
				(expiry == UINT64_MAX           ? RETRY_NS * 12
						: expiry > boot ? expiry - boot
								: NSEC_PER_SEC));
		if (may_write() && move_to_spool())
			*wake_ns = MIN(*wake_ns, now_ns + NSEC_PER_MSEC);
	}
	/* Once it is over, what there was to try was tried; what comes then is tried when it comes. */
	if (k.retry_ns > now_ns)
		*wake_ns = MIN(*wake_ns, k.retry_ns);
	tell_state(now_ns, wake_ns);
}

void keep_deinit(void)
{
	spool_close(k.spool);
	held_batch_set_spool(NULL);
	keep_forget_told();
	/* All but the folder: what was told was told to an agentd that is gone. */
	k = (__typeof__(k)){.dirfd = k.dirfd};
}
