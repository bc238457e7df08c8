/* SPDX-License-Identifier: Apache-2.0 */

/* When the configuration files are read again, and what the log says about it: each outcome once, however often the
 * files are touched while it stays the same. Runs in agentd. */

#include <inttypes.h>

#include "agentd/base/log.h"
#include "agentd/config/watch.h"
#include "agentd/daemon.h"
#include "agentd/daemon_files.h"

/* What is wrong, if it is not what was said last; said again where somebody asked. */
static void say_wrong(struct daemon *d, const char *text, bool asked)
{
	if (!asked && streq(d->files_said, text))
		return;
	snprintf(d->files_said, sizeof(d->files_said), "%s", text);
	log_error("configuration files: %s; what they said before stays in force", text);
}

static void read_again(struct daemon *d, bool asked)
{
	struct err_text err = {};
	uint64_t revision = 0;
	int r = config_reload_files(d->config, &revision, &err);
	bool was_wrong = d->files_said[0] != '\0';

	if (r < 0) {
		say_wrong(d, err.text, asked);
		return;
	}
	d->files_said[0] = '\0';
	if (r == 0)
		log_info("configuration files: revision %" PRIu64, revision);
	else if (was_wrong)
		log_info("configuration files: mended");
	else if (asked)
		log_info("configuration files: nothing changed");
}

static void on_changed(void *userdata)
{
	read_again(userdata, false);
}

void daemon_files_reload(struct daemon *d, bool asked)
{
	if (d->files_watch)
		config_watch_look(d->files_watch);
	read_again(d, asked);
}

int daemon_files_new(struct daemon *d, struct err_text *err)
{
	const char *wrong = config_files_wrong(d->config);

	if (wrong)
		say_wrong(d, wrong, true);
	return config_watch_new(&d->files_watch, d->loop, d->config, on_changed, d, err);
}

void daemon_files_free(struct daemon *d)
{
	d->files_watch = config_watch_free(d->files_watch);
}

/* ---- for those who look ---------------------------------------------------------------------------- */

struct hidden {
	size_t n;
	struct err_text *first;
};

static void on_hidden(
	void *userdata, const char *path, const char *file_origin, const char *by_origin)
{
	struct hidden *h = userdata;

	if (!h->n++)
		err_set(h->first, 0, "%s of %s has no effect: %s set it before that file did", path,
			file_origin, by_origin);
}

size_t daemon_files_hidden(struct daemon *d, struct err_text *first)
{
	struct hidden h = {.first = first};

	config_each_hidden(d->config, on_hidden, &h);
	return h.n;
}

const char *daemon_files_unwatched(const struct daemon *d)
{
	return d->files_watch ? config_watch_problem(d->files_watch) : NULL;
}
