/* SPDX-License-Identifier: Apache-2.0 */

/* Between the configuration's destinations and the exporter.
 *
 * Documents refer to secrets and files; the exporter, which can read neither, gets their contents, in the sealed memory
 * file that carries its configuration and nowhere else. What cannot be read does not stop a destination from being
 * handed over: it goes with the reason, queues, and says it. What the policy forbids is not handed over at all, however
 * it came into the configuration. Files that are named are looked at every few seconds, by their facts, and read again
 * when these change: tokens and certificates are renewed without anybody telling us. Runs in agentd. */

#include <ctype.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "agentd/config/policy.h"
#include "agentd/config/secrets.h"
#include "agentd/daemon_files.h"
#include "agentd/daemon_handover.h"
#include "destinations/destination.h"

#define LOOK_US           (3 * 1000000ULL)
#define ACCURACY_US       (500 * 1000ULL)
#define MAX_WATCHED       256
#define MAX_HANDED        (CATALOGUE_OPTIONS + 64)
#define CATALOGUE_OPTIONS 1024

struct watched {
	char *path;
	struct statx facts;
	bool there;
};

struct handover {
	struct secrets *secrets;
	struct policy policy;
	sd_event_source *timer;
	struct watched watched[MAX_WATCHED];
	size_t n_watched;
	struct watched policy_file;
	char *types_dir;
};

/* ---- files that are watched ------------------------------------------------------------------------ */

static void look(struct watched *w)
{
	w->there = statx(AT_FDCWD, w->path, AT_STATX_DONT_SYNC,
			   STATX_INO | STATX_SIZE | STATX_MTIME | STATX_CTIME, &w->facts) == 0;
}

static bool changed(const struct watched *w)
{
	struct watched now = {.path = w->path};

	look(&now);
	return now.there != w->there ||
		(now.there &&
			(now.facts.stx_ino != w->facts.stx_ino ||
				now.facts.stx_size != w->facts.stx_size ||
				memcmp(&now.facts.stx_mtime, &w->facts.stx_mtime,
					sizeof(now.facts.stx_mtime)) != 0 ||
				memcmp(&now.facts.stx_ctime, &w->facts.stx_ctime,
					sizeof(now.facts.stx_ctime)) != 0));
}

/* Before it is read, so that a change in between is seen. */
static void watch(struct handover *h, const char *path)
{
	struct watched *w = &h->watched[h->n_watched];

	for (size_t i = 0; i < h->n_watched; i++)
		if (streq(h->watched[i].path, path))
			return;
	if (h->n_watched == MAX_WATCHED) {
		log_warning(
			"destinations name more than %d files: %s is not watched for changes; SIGHUP "
			"reads it again",
			MAX_WATCHED, path);
		return;
	}
	w->path = strdup(path);
	if (w->path) {
		look(w);
		h->n_watched++;
	}
}

static void unwatch(struct handover *h)
{
	while (h->n_watched)
		free(h->watched[--h->n_watched].path);
}

static int on_look(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct daemon *d = userdata;
	struct handover *h = d->handover;
	bool any = false;

	if (changed(&h->policy_file)) {
		daemon_handover_reload(d);
		/* It may be the policy that they were wrong by. */
		if (config_files_wrong(d->config))
			daemon_files_reload(d, false);
		any = true;
	}
	for (size_t i = 0; i < h->n_watched && !any; i++)
		any = changed(&h->watched[i]);
	if (any)
		daemon_hand_over(d, d->in_force);
	sd_event_source_set_time(source, clock_monotonic_ns() / 1000 + LOOK_US);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

/* ---- one destination ------------------------------------------------------------------------------- */

void daemon_handed_free(struct handed *h)
{
	struct config_destination *c = &h->destination;

	for (size_t i = 0; i < c->n_options; i++) {
		char *value = (char *)(uintptr_t)c->options[i].value;

		if (value)
			explicit_bzero(value, strlen(value));
		free(value);
		free((void *)(uintptr_t)c->options[i].name);
	}
	free(c->options);
	*h = (struct handed){};
}

static int put(struct handed *h, const char *name, const char *value)
{
	struct option_value *o = &h->destination.options[h->destination.n_options];

	if (h->destination.n_options == MAX_HANDED)
		return -E2BIG;
	o->name = strdup(name);
	o->value = strdup(value);
	h->destination.n_options++;
	return o->name && o->value ? 0 : -ENOMEM;
}

/* The first problem is the one that is said. */
static void cannot(struct handed *h, const char *option, const char *why)
{
	if (!h->problem[0])
		snprintf(h->problem, sizeof(h->problem), "%.80s: %.500s", option, why);
}

/* What it leads to; a file is watched from then on, also one that is not there yet. */
static int read_reference(
	struct daemon *d, const char *reference, bool text, struct buf *out, struct err_text *err)
{
	if (text_starts(reference, "file:"))
		watch(d->handover, reference + 5);
	return secrets_read(d->handover->secrets, reference, text, out, err);
}

static int put_contents(struct daemon *d, struct handed *h, const char *name, const char *option,
	const char *reference, bool text)
{
	CLEANUP(secrets_wipe) struct buf b = {0};
	struct err_text err = {};

	buf_init(&b, SECRET_MAX_BYTES + 2);
	if (read_reference(d, reference, text, &b, &err) < 0) {
		cannot(h, option, err.text);
		return 0;
	}
	return put(h, name, (const char *)b.data);
}

static int put_url(
	struct handed *h, const struct destination_type *t, const struct config_destination *c)
{
	_cleanup_buf_ struct buf url = {0};

	buf_init(&url, 8192);
	if (destination_url(t, c->options, c->n_options, &url) < 0) {
		cannot(h, t->endpoint_option, "it is not set");
		return 0;
	}
	return put(h, t->endpoint_option, (const char *)url.data);
}

static void put_escaped(struct buf *out, const char *s)
{
	for (; *s; s++)
		buf_printf(out, isalnum((unsigned char)*s) || strchr("-._~", *s) ? "%c" : "%%%02X",
			(unsigned char)*s);
}

/* The environment's, as curl(1) reads it, where the destination has none. */
static const char *environment_proxy(
	const struct destination_type *t, const struct config_destination *c)
{
	char endpoint[600];
	const char *https, *http = getenv("http_proxy");

	destination_endpoint(t, c->options, c->n_options, endpoint, sizeof(endpoint));
	if (!text_starts(endpoint, "https:"))
		return http ? http : "";
	https = getenv("https_proxy");
	https = https ? https : getenv("HTTPS_PROXY");
	return https ? https : "";
}

static int put_proxy(struct daemon *d, struct handed *h, const struct destination_type *t,
	const struct config_destination *c)
{
	const char *proxy = destination_option(t, c->options, c->n_options, "proxy"),
		   *user = destination_option(t, c->options, c->n_options, "proxy-user"),
		   *reference = destination_option(t, c->options, c->n_options, "proxy-password"),
		   *no_proxy = destination_option(t, c->options, c->n_options, "no-proxy");
	CLEANUP(secrets_wipe) struct buf url = {0}, password = {0};
	const char *sep = strstr(proxy, "://");
	struct err_text err = {};
	int r = 0;

	if (!*proxy) {
		proxy = environment_proxy(t, c);
		no_proxy = *no_proxy         ? no_proxy
			: getenv("no_proxy") ? getenv("no_proxy")
			: getenv("NO_PROXY") ? getenv("NO_PROXY")
					     : "";
		user = "";
	}
	if (!*proxy || !option_find(t->options, "proxy"))
		return 0;
	buf_init(&url, 8192);
	buf_init(&password, SECRET_MAX_BYTES + 2);
	if (!*user || !sep) {
		buf_str(&url, proxy);
	} else {
		buf_printf(&url, "%.*s", (int)(sep + 3 - proxy), proxy);
		put_escaped(&url, user);
		if (*reference && read_reference(d, reference, true, &password, &err) < 0)
			cannot(h, "proxy-password", err.text);
		else if (*reference) {
			buf_str(&url, ":");
			put_escaped(&url, (const char *)password.data);
		}
		buf_printf(&url, "@%s", sep + 3);
	}
	if (buf_error(&url))
		return buf_error(&url);
	r = put(h, "proxy", (const char *)url.data);
	return r == 0 && *no_proxy ? put(h, "no-proxy", no_proxy) : r;
}

static int put_option(struct daemon *d, struct handed *h, const struct destination_type *t,
	const struct option_value *o)
{
	const char *slash = strchr(o->name, '/');
	char name[200];
	const struct option_desc *desc;

	snprintf(name, sizeof(name), "%.*s", (int)(slash ? slash - o->name : 150), o->name);
	desc = option_find(t->options, name);
	if (!desc || !*o->value ||
		(destination_is_remote(t) &&
			(streq(name, t->endpoint_option) || streq(name, "insecure") ||
				text_starts(name, "proxy") || streq(name, "no-proxy"))))
		return 0;
	if (desc->type == OPTION_SECRET)
		return put_contents(d, h, o->name, o->name, o->value, true);
	if (desc->type == OPTION_FILE)
		return put_contents(d, h, o->name, o->name, o->value, false);
	if (desc->type == OPTION_SECRET_MAP && slash) {
		snprintf(name, sizeof(name), "headers/%.150s", slash + 1);
		return put_contents(d, h, name, o->name, o->value, true);
	}
	return put(h, o->name, o->value);
}

/* What is set for all destinations and not for this one. */
static int put_shaping(struct daemon *d, struct handed *h, const struct config_destination *c)
{
	const struct config *all = d->in_force;
	int r = 0;

	for (size_t i = 0; i < all->n_shaping && r == 0; i++) {
		bool own = false;

		for (size_t k = 0; k < c->n_options; k++)
			own |= streq(c->options[k].name, all->shaping[i].name);
		if (!own)
			r = put(h, all->shaping[i].name, all->shaping[i].value);
	}
	return r;
}

int daemon_hand(struct daemon *d, const struct config_destination *c, struct handed *ret,
	struct err_text *err)
{
	const struct destination_type *t = destination_type_find(c->type);
	struct handed h CLEANUP(daemon_handed_free) = {.destination = *c};
	int r = policy_check(&d->handover->policy, c->type, c->options, c->n_options, err);

	h.destination.options = NULL;
	h.destination.n_options = 0;
	if (r < 0)
		return r;
	h.destination.options = calloc(MAX_HANDED + 1, sizeof(*h.destination.options));
	if (!t || !h.destination.options)
		return err_set(err, t ? -ENOMEM : -EINVAL, "%s",
			t ? "out of memory" : "its type is not known any more");
	for (size_t i = 0; i < c->n_options && r == 0; i++)
		r = put_option(d, &h, t, &c->options[i]);
	if (r == 0)
		r = put_shaping(d, &h, c);
	if (r == 0 && destination_is_remote(t))
		r = put_url(&h, t, c);
	if (r == 0 && destination_is_remote(t))
		r = put_proxy(d, &h, t, c);
	if (r == 0 && t->yaml)
		r = put(&h, ".type", t->yaml);
	if (r == 0 && h.problem[0])
		r = put(&h, ".problem", h.problem);
	if (r < 0)
		return err_set(err, r, "it has more options than fit, or memory is out");
	*ret = h;
	h = (struct handed){};
	return 0;
}

/* ---- all of them ----------------------------------------------------------------------------------- */

static bool goes_to_exporter(const struct config_destination *c)
{
	const struct destination_type *t = destination_type_find(c->type);

	return t && !streq(t->transport, "local");
}

void daemon_hand_over(struct daemon *d, const struct config *next)
{
	struct handed *handed = calloc(next->n_destinations + 1, sizeof(*handed));
	struct config_destination *list = calloc(next->n_destinations + 1, sizeof(*list));
	struct err_text err = {};
	size_t n = 0;

	unwatch(d->handover);
	for (size_t i = 0; handed && list && i < next->n_destinations; i++) {
		const struct config_destination *c = &next->destinations[i];

		if (!goes_to_exporter(c))
			continue;
		if (daemon_hand(d, c, &handed[n], &err) < 0) {
			if (c->enabled)
				log_error("destination %s is not used: %s", c->name, err.text);
			/* Known, so that what it had is accounted for; nothing new goes there. */
			handed[n] = (struct handed){
				.destination = {
					.name = c->name, .type = c->type, .order = c->order}};
		}
		list[n] = handed[n].destination;
		n++;
	}
	if (!handed || !list)
		log_error("destinations: out of memory");
	else if (link_configure(d->link, list, n, &err) < 0)
		log_error("destinations: %s", err.text);
	while (handed && n)
		daemon_handed_free(&handed[--n]);
	free(handed);
	free(list);
}

const char *daemon_handover_forbidden(struct daemon *d, const struct config_destination *c)
{
	static struct err_text err;

	err.text[0] = 0;
	return policy_check(&d->handover->policy, c->type, c->options, c->n_options, &err) < 0
		? err.text
		: NULL;
}

const struct policy *daemon_policy(const struct daemon *d)
{
	return &d->handover->policy;
}

const char *daemon_policy_file(const struct daemon *d)
{
	return d->handover->policy_file.path;
}

void daemon_forget_files(void *userdata)
{
	struct daemon *d = userdata;

	if (d->config)
		secrets_prune(d->handover->secrets, d->config);
}

/* ---- a change that names files --------------------------------------------------------------------- */

int daemon_keep_file(void *userdata, const char *path, const char *value, int fd, char **ret_value,
	struct err_text *err)
{
	struct daemon *d = userdata;
	char id[SECRET_ID] = "";
	int r;

	if (text_starts(value, "file:/")) {
		r = secrets_may_name(value + 5, fd, err);
		if (r < 0)
			return r == -ENOMEM ? r : err_prefix(err, -EINVAL, "%s", path);
		*ret_value = strdup(value);
		return *ret_value ? 0 : -ENOMEM;
	}
	if (*value)
		return err_set(err, -EINVAL, "%s: a descriptor comes without a value", path);
	r = secrets_keep(d->handover->secrets, fd, id, err);
	if (r < 0)
		return r;
	if (asprintf(ret_value, "secret:%s", id) < 0) {
		secrets_drop(d->handover->secrets, id);
		return -ENOMEM;
	}
	return 0;
}

/* ---- life ------------------------------------------------------------------------------------------ */

static int load_policy(struct daemon *d)
{
	struct handover *h = d->handover;
	struct policy fresh = {};
	int r;

	look(&h->policy_file);
	r = policy_load(&fresh, h->policy_file.path);
	if (r < 0)
		return r;
	if (fresh.problem[0])
		log_error("the policy is refused, so nothing is sent: %s", fresh.problem);
	else if (fresh.found)
		log_info("the policy of %s is in force", h->policy_file.path);
	policy_deinit(&h->policy);
	h->policy = fresh;
	policy_install(&h->policy);
	return 0;
}

void daemon_handover_reload(struct daemon *d)
{
	if (load_policy(d) < 0)
		log_error("the policy cannot be read again: out of memory");
	destination_types_load(d->handover->types_dir, NULL);
}

static char *place(struct daemon *d, const char *given, const char *below)
{
	char *path = NULL;

	if (given) {
		path = realpath(given, NULL);
		return path ? path : strdup(given);
	}
	return asprintf(&path, "%s/%s", d->places.dir, below) < 0 ? NULL : path;
}

int daemon_handover_open(struct daemon *d, struct err_text *err)
{
	struct handover *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return err_set(err, -ENOMEM, "out of memory");
	d->handover = h;
	h->policy_file.path = place(d, d->policy_file, "policy.yaml");
	h->types_dir = place(d, d->types_dir, "destinations.d/types");
	r = h->policy_file.path && h->types_dir ? load_policy(d) : -ENOMEM;
	if (r < 0)
		return err_set(err, r, "out of memory");
	destination_types_load(d->handover->types_dir, NULL); /* logs what it refuses */
	return secrets_open(&h->secrets, d->state_dir, err);
}

int daemon_handover_begin(struct daemon *d)
{
	int r = sd_event_add_time(d->loop, &d->handover->timer, CLOCK_MONOTONIC,
		clock_monotonic_ns() / 1000 + LOOK_US, ACCURACY_US, on_look, d);

	secrets_prune(d->handover->secrets, d->config);
	return r < 0 ? r : 0;
}

void daemon_handover_close(struct daemon *d)
{
	struct handover *h = d->handover;

	if (!h)
		return;
	d->handover = NULL;
	sd_event_source_disable_unref(h->timer);
	unwatch(h);
	free(h->policy_file.path);
	free(h->types_dir);
	policy_deinit(&h->policy);
	secrets_close(h->secrets);
	free(h);
}
