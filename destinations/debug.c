/* SPDX-License-Identifier: Apache-2.0 */

/* The log as a destination: what a batch holds, in a few lines a person can read.
 *
 * For those who want to see what would be sent, without a backend. A line for the request, one for each profile,
 * and its most frequent innermost functions; at most max-lines of them, and what was left out is said.
 * Runs in the exporter. */

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "destinations/at_once.h"
#include "destinations/transports.h"

#define TOP_FUNCTIONS 3

struct debug {
	struct at_once at_once; /* first */
	char name[PROTOCOL_NAME];
	uint64_t max_lines;
};

/* A line of the log, none of which is held back. */
#define SAY(...)                                                                                   \
	do {                                                                                       \
		struct log_site site_ = {0};                                                       \
		log_write(&site_, LOG_LEVEL_INFO, __VA_ARGS__);                                    \
	} while (0)

struct leaf {
	uint32_t name;
	uint64_t samples;
};

static uint32_t leaf_name(const struct batch *b, const struct profile_sample *s)
{
	size_t n;
	const uint32_t *locations = batch_stack_at(b, s->stack, &n);
	const struct profile_location *l = n ? batch_location_at(b, locations[0]) : NULL;

	return l && l->n_lines ? batch_function_at(b, batch_lines(b, l)[0].function)->name : 0;
}

static int by_name(const void *a, const void *b)
{
	const struct leaf *x = a, *y = b;

	return x->name < y->name ? -1 : x->name > y->name;
}

static int by_samples(const void *a, const void *b)
{
	const struct leaf *x = a, *y = b;

	return x->samples > y->samples ? -1 : x->samples < y->samples;
}

/* "main 61%, work 20%, vfs_read 3%" */
static void top_functions(
	const struct batch *b, const struct profile_part *p, char *out, size_t size)
{
	_cleanup_free_ struct leaf *list = calloc(p->n_samples + 1, sizeof(*list));
	size_t n = 0, len = 0;

	*out = 0;
	if (!list || !p->n_samples || !p->total)
		return;
	for (uint32_t i = 0; i < p->n_samples; i++)
		list[i] = (struct leaf){leaf_name(b, &p->samples[i]),
			p->samples[i].value + p->samples[i].n_timestamps};
	qsort(list, p->n_samples, sizeof(*list), by_name);
	for (uint32_t i = 1; i < p->n_samples; i++) {
		if (list[i].name == list[n].name)
			list[n].samples += list[i].samples;
		else
			list[++n] = list[i];
	}
	n++;
	qsort(list, n, sizeof(*list), by_samples);
	for (size_t i = 0; i < MIN(n, (size_t)TOP_FUNCTIONS) && len < size; i++)
		len += (size_t)snprintf(out + len, size - len, "%s%.80s %llu%%", i ? ", " : "",
			list[i].name ? batch_string_at(b, list[i].name) : "(no name)",
			(unsigned long long)(list[i].samples * 100 / p->total));
}

static const char *attribute(const struct batch *b, const struct profile_part *p, const char *key)
{
	size_t n;
	const struct profile_resource_attribute *a = batch_resource_at(b, p->resource, &n);

	for (size_t i = 0; i < n; i++)
		if (!a[i].is_int && streq(batch_string_at(b, a[i].key), key))
			return batch_string_at(b, a[i].value);
	return "";
}

static void print(const struct debug *d, const struct batch *b)
{
	uint64_t totals[PROFILE_TYPES], samples = 0;
	size_t n = batch_parts(b), shown = MIN(n, (size_t)d->max_lines - 1);

	batch_totals(b, totals);
	for (size_t i = 0; i < PROFILE_TYPES; i++)
		samples += totals[i];
	SAY("destination %s: %zu profile%s, %llu samples, %zu stacks, %zu frames%s", d->name, n,
		n == 1 ? "" : "s", (unsigned long long)samples, batch_stacks(b) - 1,
		batch_locations(b) - 1, shown < n ? "; the first profiles:" : "");
	for (size_t i = 0; i < shown; i++) {
		const struct profile_part *p = batch_part_at(b, i);
		char top[300], duration[32];

		top_functions(b, p, top, sizeof(top));
		text_format_duration(p->duration_ns, duration, sizeof(duration));
		SAY("destination %s: %.100s, %s, %llu in %s: %s", d->name,
			attribute(b, p, "service.name"), profile_types[p->type].name,
			(unsigned long long)p->total, duration, top);
	}
}

static int debug_send(
	struct sender *s, const void *body, size_t len, send_done_fn *done, void *userdata)
{
	struct debug *d = (struct debug *)s;
	CLEANUP(batch_freep) struct batch *b = NULL;
	struct send_result *result = &d->at_once.result;
	uint64_t start = clock_monotonic_ns();
	struct err_text err = {};

	if (s->busy)
		return -EBUSY;
	*result = (struct send_result){.sent_bytes = len};
	if (profile_decode(body, len, &b, &err) < 0) {
		result->outcome = SEND_REFUSED;
		snprintf(result->reason, sizeof(result->reason), "%.500s", err.text);
	} else if (!d->at_once.test) {
		print(d, b);
	}
	at_once_end(&d->at_once, start, done, userdata);
	return 0;
}

static struct sender *debug_close(struct sender *s)
{
	if (s && s->busy)
		transport_forget(&s->job);
	free(s);
	return NULL;
}

static int debug_open(struct sender **ret, const struct sender_setup *u, struct err_text *err)
{
	struct debug *d = calloc(1, sizeof(*d));

	if (!d)
		return err_set(err, -ENOMEM, "out of memory");
	snprintf(d->name, sizeof(d->name), "%s", u->name);
	d->at_once.test = u->test;
	if (text_u64(sender_option(u, "max-lines"), 1, 10000, &d->max_lines) < 0)
		d->max_lines = 20;
	*ret = &d->at_once.base;
	return 0;
}

static const char *debug_endpoint(const struct sender *s)
{
	return "the log of agentd";
}

static void debug_shape(const struct sender *s, struct shape_limits *limits)
{
	limits->form = SHAPE_OTLP;
	limits->packing = SHAPE_PLAIN;
}

const struct transport transport_debug = {
	.name = "debug",
	.open = debug_open,
	.close = debug_close,
	.endpoint = debug_endpoint,
	.shape = debug_shape,
	.send = debug_send,
};
