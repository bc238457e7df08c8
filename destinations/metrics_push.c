/* SPDX-License-Identifier: Apache-2.0 */

/* Metrics beside the profiles.
 *
 * A destination that wants metrics has a second sender, of the same options and another path; profiles never wait for
 * it. All of it is cumulative, so a request that is lost costs resolution and no truth: nothing is queued and nothing is
 * tried again. A backend that does not take them is told of once in the log, and again when that changes.
 *
 * Where a URL has a path of its own, /v1/metrics takes the place of the profiles' path at its end, or is added.
 * Source: OTLP specification, "OTLP/HTTP Request" and the metrics service. Runs in the exporter. */

#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "destinations/metrics_push.h"
#include "destinations/transport.h"

#define HTTP_PATH "/v1/metrics"
#define GRPC_PATH "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"

struct target {
	struct buf spec;              /* protocol_put_spec(); what specs borrow from */
	struct destination_type type; /* as its own, but for the path */
	const struct transport *transport;
	struct sender *sender;
	struct buf body; /* under way while `busy` */
	bool busy, failing, stays;
	char name[PROTOCOL_NAME];
};

static struct target *targets[PROTOCOL_DESTINATIONS];
static size_t n_targets;

static void target_free(struct target *t)
{
	if (t->sender)
		t->transport->close(t->sender);
	buf_deinit(&t->spec);
	buf_deinit(&t->body);
	free(t);
}

/* The URL of the metrics; NULL: no memory. agentd hands over the whole URL, with the type's path. */
static char *metrics_url(const char *url, const char *profiles_path, const char *metrics_path)
{
	const char *sep = strstr(url, "://"), *path = sep ? strchr(sep + 3, '/') : NULL;
	size_t len = strlen(url), tail = strlen(profiles_path);
	char *made;

	if (!path || streq(path, "/"))
		return strdup(url); /* the type's path is added to it */
	if (tail && len >= tail && streq(url + len - tail, profiles_path))
		len -= tail;
	while (len && url[len - 1] == '/')
		len--;
	return asprintf(&made, "%.*s%s", (int)len, url, metrics_path) < 0 ? NULL : made;
}

static int open_sender(struct target *t, const struct destination_spec *spec, struct err_text *err)
{
	const struct destination_type *type =
		destination_adopt(spec->type, spec->options, spec->n_options, err);
	_cleanup_free_ struct option_value *options = NULL;
	_cleanup_free_ char *url = NULL;
	struct sender_setup setup = {.name = spec->name,
		.type = &t->type,
		.n_options = spec->n_options,
		.folder = spec->id};

	t->transport = type ? transport_find(type->transport) : NULL;
	if (!t->transport)
		return err_set(err, -EINVAL, "its type is not known");
	t->type = *type;
	t->type.path = streq(type->transport, "otlpgrpc") ? GRPC_PATH : HTTP_PATH;
	options = calloc(spec->n_options + 1, sizeof(*options));
	if (!options)
		return err_set(err, -ENOMEM, "out of memory");
	memcpy(options, spec->options, spec->n_options * sizeof(*options));
	for (size_t i = 0; i < spec->n_options; i++) {
		if (!streq(options[i].name, type->endpoint_option))
			continue;
		url = metrics_url(options[i].value, type->path, t->type.path);
		if (!url)
			return err_set(err, -ENOMEM, "out of memory");
		options[i].value = url;
	}
	setup.options = options;
	return t->transport->open(&t->sender, &setup, err);
}

static bool wants(const struct destination_spec *spec)
{
	bool on = false;

	for (size_t i = 0; i < spec->n_options; i++)
		if (streq(spec->options[i].name, "metrics"))
			(void)text_bool(spec->options[i].value, &on);
	return on;
}

static struct target *find(const struct buf *spec)
{
	for (size_t i = 0; i < n_targets; i++)
		if (targets[i]->spec.len == spec->len &&
			memcmp(targets[i]->spec.data, spec->data, spec->len) == 0)
			return targets[i];
	return NULL;
}

static int configure_one(const struct destination_spec *spec)
{
	_cleanup_buf_ struct buf bytes;
	struct err_text err = {};
	struct target *t;

	buf_init(&bytes, PROTOCOL_CONFIG_MAX);
	protocol_put_spec(&bytes, spec);
	if (buf_error(&bytes))
		return buf_error(&bytes);
	t = find(&bytes);
	if (t) {
		t->stays = true;
		return 0;
	}
	if (n_targets == ARRAY_SIZE(targets))
		return 0;
	t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->stays = true;
	t->spec = bytes;
	bytes = (struct buf){0};
	snprintf(t->name, sizeof(t->name), "%s", spec->name);
	if (open_sender(t, spec, &err) < 0)
		log_warning("destination %s gets no metrics: %s", spec->name, err.text);
	targets[n_targets++] = t;
	return 0;
}

int metrics_push_configure(const struct destination_spec *specs, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < n_targets; i++)
		targets[i]->stays = false;
	for (size_t i = 0; i < n && r == 0; i++)
		if (wants(&specs[i]))
			r = configure_one(&specs[i]);
	for (size_t i = 0; i < n_targets;) {
		if (targets[i]->stays) {
			i++;
			continue;
		}
		target_free(targets[i]);
		targets[i] = targets[--n_targets];
	}
	return r;
}

static void on_done(void *userdata, const struct send_result *result)
{
	struct target *t = userdata;
	bool failed = result->outcome != SEND_TAKEN || result->rejected_profiles;

	t->busy = false;
	buf_deinit(&t->body);
	if (failed && !t->failing)
		log_warning("destination %s: it does not take metrics: %s; %s", t->name,
			result->reason, result->remedy);
	else if (!failed && t->failing)
		log_info("destination %s: it takes metrics again", t->name);
	t->failing = failed;
}

void metrics_push(const void *bytes, size_t len)
{
	for (size_t i = 0; i < n_targets; i++) {
		struct target *t = targets[i];
		struct shape_limits limits = {0};
		int r = 0;

		if (!t->sender || t->busy)
			continue;
		t->transport->shape(t->sender, &limits);
		buf_init(&t->body, 0);
		if (limits.packing == SHAPE_PLAIN)
			buf_add(&t->body, bytes, len);
		else
			r = shape_pack(bytes, len, limits.packing, &t->body);
		if (r == 0)
			r = buf_error(&t->body);
		if (r == 0)
			r = t->transport->send(t->sender, t->body.data, t->body.len, on_done, t);
		t->busy = r == 0;
		if (r < 0)
			buf_deinit(&t->body);
	}
}

void metrics_push_deinit(void)
{
	while (n_targets)
		target_free(targets[--n_targets]);
}
