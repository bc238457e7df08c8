/* SPDX-License-Identifier: Apache-2.0 */

/* The destinations that there are, as agentd said last.
 *
 * A configuration always names them all: one that is not in it leaves, which takes as long as its request under way,
 * and still answers for what it holds; so there may be more of them than a configuration can name. The folders that
 * destinations write to come before it. Behind the first one, before anything is sent, this process gives up all other
 * files for good (confine.c); where that fails it ends.
 *
 * Runs in the exporter. */

#include "agentd/base/log.h"
#include "destinations/confine.h"
#include "destinations/exporter_private.h"
#include "destinations/metrics_push.h"

static struct deliver *destinations[2 * PROTOCOL_DESTINATIONS]; /* those that leave among them */
static size_t n_destinations;
static uint64_t queue_bytes; /* the bound of each one's queue */
static bool confined;        /* or that is not to be had here */

struct deliver *exporter_find(uint32_t id)
{
	for (size_t i = 0; i < n_destinations; i++)
		if (deliver_id(destinations[i]) == id)
			return destinations[i];
	return NULL;
}

struct deliver *exporter_at(size_t i)
{
	return i < n_destinations ? destinations[i] : NULL;
}

static int configure_one(const struct destination_spec *spec)
{
	struct deliver *d = exporter_find(spec->id);
	int r;

	if (d)
		return deliver_configure(d, spec, queue_bytes);
	if (n_destinations == ARRAY_SIZE(destinations))
		return -ENOSPC;
	r = deliver_new(&d, spec, exporter_tell);
	if (r < 0)
		return r;
	destinations[n_destinations++] = d;
	return deliver_configure(d, spec, queue_bytes);
}

/* The first configuration has come, and its folders before it. Nothing has been sent yet: there is one thread. */
static int confine(void)
{
	int folders[2 * PROTOCOL_DESTINATIONS + 1], n = 0, r;
	struct err_text err = {};

	folders[n++] = keep_folder();
	for (int fd;
		(size_t)n < ARRAY_SIZE(folders) && (fd = transport_folder_at((size_t)n - 1)) >= 0;)
		folders[n++] = fd;
	r = confine_enter(folders, (size_t)n, &err);
	if (r < 0)
		log_error("%s", err.text);
	if (r > 0)
		log_info(
			"this kernel has no Landlock: what every user can read the exporter can, too");
	confined = r >= 0;
	return MIN(r, 0);
}

int exporter_on_config(const struct message_config *m, int fd)
{
	_cleanup_buf_ struct buf bytes;
	struct destination_spec *specs = NULL;
	size_t n = 0;
	int r;

	buf_init(&bytes, PROTOCOL_CONFIG_MAX + 1);
	r = exporter_read_memfd(fd, PROTOCOL_CONFIG_MAX, &bytes);
	if (r == 0)
		r = protocol_get_specs((const char *)bytes.data, bytes.len, &specs, &n);
	if (r == 0 && !confined)
		r = confine();
	if (r < 0) {
		protocol_free_specs(specs, n);
		return r;
	}
	queue_bytes = m->queue_bytes;
	for (size_t i = 0; i < n_destinations; i++) {
		bool stays = false;

		for (size_t k = 0; k < n; k++)
			stays |= specs[k].id == deliver_id(destinations[i]);
		if (stays)
			continue;
		deliver_leave(destinations[i]);
		transport_set_folder(deliver_id(destinations[i]), -1);
	}
	for (size_t k = 0; k < n && r == 0; k++)
		r = configure_one(&specs[k]);
	if (r == 0)
		r = metrics_push_configure(specs, n);
	protocol_free_specs(specs, n);
	if (r == 0)
		keep_configured();
	return r;
}

bool exporter_sends(void)
{
	for (size_t i = 0; i < n_destinations; i++)
		if (deliver_busy(destinations[i]))
			return true;
	return false;
}

void exporter_run_destinations(uint64_t now_ns, uint64_t *wake_ns)
{
	for (size_t i = 0; i < n_destinations;) {
		deliver_run(destinations[i], now_ns, wake_ns);
		if (deliver_gone(destinations[i])) {
			deliver_free(destinations[i]);
			destinations[i] = destinations[--n_destinations];
		} else {
			i++;
		}
	}
}

void exporter_free_destinations(void)
{
	while (n_destinations)
		deliver_free(destinations[--n_destinations]);
}
