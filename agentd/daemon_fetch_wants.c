/* SPDX-License-Identifier: Apache-2.0 */

/* Which debug files are wanted: the build ids for which the symbolizer asked, what they weigh, what is known of each, and
 * that told to people. The asking is daemon_fetch.c's, and what both hold to stands atop of it.
 *
 * Invariant: at most MAX_WANTS are remembered, and the one under way is never given up for another. Runs in agentd. */

#include "agentd/base/log.h"
#include "agentd/daemon_fetch_private.h"

#define MAX_WANTS 2048

/* ---- what is wanted ---- */

struct fetch_want *fetch_find(const struct fetching *f, const char *build_id)
{
	return map_get_str(f->wants, build_id);
}

static void drop(struct fetching *f, struct fetch_want *w)
{
	map_remove(f->wants, w->build_id, strlen(w->build_id));
	free(w);
}

/* Makes room for one: the one that matters least goes, if none of its answers need be remembered. */
static bool make_room(struct fetching *f)
{
	struct map_iter it = {0};
	struct fetch_want *least = NULL;

	if (map_size(f->wants) < MAX_WANTS)
		return true;
	f->figures.dropped++;
	while (map_next(f->wants, &it)) {
		struct fetch_want *w = it.value;

		if (!streq(w->build_id, f->build_id) && (!least || w->weight < least->weight))
			least = w;
	}
	if (!least)
		return false;
	drop(f, least);
	return true;
}

static struct fetch_want *want(struct fetching *f, const char *build_id)
{
	struct fetch_want *w = fetch_find(f, build_id);

	if (w || !protocol_build_id_ok(build_id) || !make_room(f))
		return w;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	snprintf(w->build_id, sizeof(w->build_id), "%s", build_id);
	if (map_put_str(f->wants, w->build_id, w, NULL) < 0) {
		free(w);
		return NULL;
	}
	return w;
}

/* Remembers that the file has this build id; of too many, the oldest is forgotten. Its index. */
static size_t note_file(struct fetch_want *w, uint32_t id)
{
	for (size_t i = 0; i < w->n_files; i++)
		if (w->files[i].id == id)
			return i;
	if (w->n_files == FETCH_MAX_FILES) {
		memmove(&w->files[0], &w->files[1], (FETCH_MAX_FILES - 1) * sizeof(w->files[0]));
		w->n_files--;
	}
	w->files[w->n_files].id = id;
	w->files[w->n_files].given = false;
	return w->n_files++;
}

/* What was in the cache was not what its name says. */
static void refuse(struct fetching *f, struct fetch_want *w)
{
	uint64_t now = clock_monotonic_ns();

	if (!fetched_has(f->cache, w->build_id))
		return;
	fetched_remove(f->cache, w->build_id);
	w->refused = true;
	w->not_before = now + FETCH_DAY_NS;
	f->figures.refused++;
	f->figures.last_error_unix_ns = clock_unix_ns();
	snprintf(f->figures.last_error, sizeof(f->figures.last_error),
		"a debug file that was fetched is not the one of build id %s and was removed; is "
		"that the address of a debuginfod server that can be trusted?",
		w->build_id);
	log_warning("%s", f->figures.last_error);
	for (size_t i = 0; i < w->n_files; i++)
		w->files[i].given = false;
}

int daemon_fetch_open(struct daemon *d, uint32_t file, const char *build_id, unsigned *n)
{
	struct fetching *f = d->fetching;
	struct fetch_want *w = f ? want(f, build_id) : NULL;
	size_t i;
	int fd;

	if (!w || !f->cache)
		return -ENOENT;
	i = note_file(w, file);
	if (*n > FETCH_PLACE) {
		if (w->files[i].given)
			refuse(f, w);
		return -ENOENT;
	}
	fd = fetched_open(f->cache, build_id);
	if (fd >= 0) {
		*n = FETCH_PLACE;
		w->files[i].given = true;
	}
	return fd;
}

void daemon_fetch_on_facts(struct daemon *d, uint32_t file, const struct symbol_file_facts *facts)
{
	struct fetching *f = d->fetching;
	struct fetch_want *w = f && *facts->build_id ? fetch_find(f, facts->build_id) : NULL;

	/* It has one now that we did not give: of a package that was installed meanwhile. */
	if (w && facts->has_debug_file && f->cache && !fetched_has(f->cache, w->build_id) &&
		!streq(w->build_id, f->build_id))
		drop(f, w);
}

/* ---- samples ---- */

bool daemon_fetch_cares(const struct daemon *d)
{
	return d->fetching && map_size(d->fetching->wants) > 0;
}

void daemon_fetch_weigh(struct daemon *d, const char *build_id, uint64_t samples)
{
	struct fetch_want *w = d->fetching ? fetch_find(d->fetching, build_id) : NULL;

	if (w)
		w->weight += samples;
}

/* ---- for people ---- */

enum fetch_state daemon_fetch_state(const struct daemon *d, const char *build_id)
{
	const struct fetching *f = d->fetching;
	const struct fetch_want *w;
	size_t not_found = 0, failed = 0;

	if (!f || !f->cache || !*build_id)
		return FETCH_STATE_NONE;
	if (fetched_has(f->cache, build_id))
		return FETCH_STATE_HERE;
	if (streq(f->build_id, build_id))
		return FETCH_STATE_UNDER_WAY;
	w = fetch_find(f, build_id);
	if (!w)
		return FETCH_STATE_NONE;
	if (w->refused)
		return FETCH_STATE_REFUSED;
	for (size_t s = 0; s < f->n_servers; s++) {
		not_found += w->answers[s].not_found;
		failed += w->answers[s].failures > 0;
	}
	if (f->n_servers && not_found == f->n_servers)
		return FETCH_STATE_NOT_FOUND;
	return failed ? FETCH_STATE_FAILED : FETCH_STATE_WANTED;
}

void daemon_fetch_figures(const struct daemon *d, struct fetch_figures *ret)
{
	const struct fetching *f = d->fetching;
	struct fetched_figures cached = {0};
	struct map_iter it = {0};

	*ret = (struct fetch_figures){0};
	if (!f)
		return;
	*ret = f->figures;
	ret->on = f->on;
	snprintf(ret->under_way, sizeof(ret->under_way), "%s", f->build_id);
	while (map_next(f->wants, &it)) {
		const struct fetch_want *w = it.value;

		ret->wanted += daemon_fetch_state(d, w->build_id) == FETCH_STATE_WANTED;
	}
	if (!f->cache)
		return;
	fetched_figures(f->cache, &cached);
	ret->cached_files = cached.files;
	ret->cached_bytes = cached.bytes;
	ret->evicted = cached.evicted;
	ret->expired = cached.expired;
}
