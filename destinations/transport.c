/* SPDX-License-Identifier: Apache-2.0 */

/* The table of transports, and the one wait of the exporter.
 *
 * One libcurl multi handle for all that goes over the network: requests run side by side, connections are kept,
 * names are resolved in libcurl's threads, so that a backend that hangs in any phase holds up only its own
 * destination. What needs no waiting (files, the log) is deferred to the next wait, so that no sender ever calls back
 * from within send().
 *
 * Source: libcurl-multi(3). Runs in the exporter. */

#include <curl/curl.h>

#include "agentd/base/compress.h"
#include "agentd/base/clock.h"
#include "destinations/transport.h"
#include "destinations/transports.h"
#include "destinations/write_raw.h"

#define MAX_CONNECTIONS 256L

static CURLM *multi;
static struct transport_job *deferred;

static struct folder {
	uint64_t key;
	int fd;
} * folders;
static size_t n_folders;

static const struct transport *const transports[] = {&transport_otlphttp, &transport_otlpgrpc,
	&transport_parca, &transport_file, &transport_debug};

const struct transport *transport_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(transports); i++)
		if (streq(transports[i]->name, name))
			return transports[i];
	return NULL;
}

enum shape_packing sender_packing(const struct sender_setup *u)
{
	const char *text = sender_option(u, "compression");

	text = *text ? text : u->type->compression;
	return streq(text, "gzip") ? SHAPE_GZIP : streq(text, "zstd") ? SHAPE_ZSTD : SHAPE_PLAIN;
}

int transport_probe(const struct transport *t, const struct sender *s, struct buf *out)
{
	struct shape_limits limits = {0};
	_cleanup_buf_ struct buf raw;
	int r;

	t->shape(s, &limits);
	buf_init(&raw, 1 << 20);
	r = limits.form == SHAPE_WRITE_RAW ? write_raw_encode_empty(&raw)
					   : profile_encode_empty("odi", clock_unix_ns(), &raw);
	if (r < 0)
		return r;
	if (limits.packing == SHAPE_PLAIN)
		buf_add(out, raw.data, raw.len);
	else
		r = shape_pack(raw.data, raw.len, limits.packing, out);
	return r < 0 ? r : buf_error(out);
}

/* ---- the wait ---- */

int transport_init(void)
{
	if (multi)
		return 0;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return -ENOMEM;
	multi = curl_multi_init();
	if (!multi)
		return -ENOMEM;
	curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, MAX_CONNECTIONS);
	/* One request at a time and destination: nothing to multiplex, and destinations stay apart. */
	curl_multi_setopt(multi, CURLMOPT_PIPELINING, CURLPIPE_NOTHING);
	return 0;
}

void transport_deinit(void)
{
	if (multi)
		curl_multi_cleanup(multi);
	multi = NULL;
	curl_global_cleanup();
	for (size_t i = 0; i < n_folders; i++)
		close(folders[i].fd);
	free(folders);
	folders = NULL;
	n_folders = 0;
}

int transport_add(void *handle, struct transport_job *job)
{
	curl_easy_setopt(handle, CURLOPT_PRIVATE, job);
	return curl_multi_add_handle(multi, handle) == CURLM_OK ? 0 : -ENOMEM;
}

void transport_remove(void *handle)
{
	curl_multi_remove_handle(multi, handle);
}

void transport_defer(struct transport_job *job)
{
	struct transport_job **end = &deferred;

	while (*end)
		end = &(*end)->next;
	job->next = NULL;
	*end = job;
}

void transport_forget(struct transport_job *job)
{
	for (struct transport_job **at = &deferred; *at; at = &(*at)->next) {
		if (*at == job) {
			*at = job->next;
			return;
		}
	}
}

/* A round at most: what they defer in turn may wait. */
static void run_deferred(void)
{
	for (size_t n = 0; deferred && n < 2 * PROTOCOL_DESTINATIONS; n++) {
		struct transport_job *j = deferred;

		deferred = j->next;
		j->finish(j, 0);
	}
}

int transport_wait(int fd, unsigned timeout_ms, bool *readable)
{
	struct curl_waitfd extra = {.fd = fd, .events = CURL_WAIT_POLLIN};
	struct CURLMsg *m;
	int running, left;

	*readable = false;
	if (curl_multi_poll(multi, &extra, 1, deferred ? 0 : (int)timeout_ms, NULL) != CURLM_OK)
		return -EIO;
	*readable = extra.revents != 0;
	if (curl_multi_perform(multi, &running) != CURLM_OK)
		return -EIO;
	while ((m = curl_multi_info_read(multi, &left))) {
		struct transport_job *job = NULL;
		CURLcode code = m->data.result;
		CURL *easy = m->easy_handle;

		if (m->msg != CURLMSG_DONE)
			continue;
		/* m is gone when the handle is taken out. */
		curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&job);
		curl_multi_remove_handle(multi, easy);
		job->finish(job, (int)code);
	}
	run_deferred();
	return 0;
}

/* ---- folders ---- */

int transport_set_folder(uint64_t key, int fd)
{
	struct folder *longer;

	for (size_t i = 0; i < n_folders; i++) {
		if (folders[i].key != key)
			continue;
		close(folders[i].fd);
		if (fd >= 0)
			folders[i].fd = fd;
		else
			folders[i] = folders[--n_folders];
		return 0;
	}
	if (fd < 0)
		return 0;
	longer = n_folders < 2 * PROTOCOL_DESTINATIONS
		? reallocarray(folders, n_folders + 1, sizeof(*longer))
		: NULL;
	if (!longer) {
		close(fd);
		return -ENOMEM;
	}
	folders = longer;
	folders[n_folders++] = (struct folder){key, fd};
	return 0;
}

int transport_folder(uint64_t key)
{
	for (size_t i = 0; i < n_folders; i++)
		if (folders[i].key == key)
			return folders[i].fd;
	return -1;
}

int transport_folder_at(size_t i)
{
	return i < n_folders ? folders[i].fd : -1;
}
