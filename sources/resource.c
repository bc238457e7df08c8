/* SPDX-License-Identifier: Apache-2.0 */

/* The resource of a sample: who it belongs to, in OpenTelemetry's words.
 *
 * Attributes come from six places, the nearer to the administrator's will for this very source the
 * stronger: facts of the host < labels of the host < what agentd found out (container, Kubernetes,
 * unit) < what the process says in its environment < what the source asks for (pid, executable) <
 * labels of the source. service.name has a ladder of its own. The list is sorted by key and has
 * each key once, so that equal resources are equal byte by byte. Every value is checked again here,
 * however it came: this is the last gate before it leaves the host. Names: OpenTelemetry semantic
 * conventions 1.3x. Pure; runs in agentd. */

#include "agentd/base/text.h"
#include "sources/kind.h"

#define VALUE_MAX 1024 /* bytes; a path may be longer and is cut */

struct list {
	struct resource_attribute *items;
	size_t n, size;
	int failed;
};

/* Puts key in its place, over what an earlier, weaker source of attributes said. */
static void set(struct list *l, const char *key, const char *value, bool is_int)
{
	char text[VALUE_MAX + 1];
	size_t at = 0;
	char *copy;

	if (l->failed || !value || !*value)
		return;
	snprintf(text, sizeof(text), "%s", value);
	text_clean(text);
	for (; at < l->n; at++) {
		int c = strcmp(l->items[at].key, key);

		if (c == 0) {
			copy = strdup(text);
			if (!copy) {
				l->failed = -ENOMEM;
				return;
			}
			free(l->items[at].value);
			l->items[at].value = copy;
			l->items[at].is_int = is_int;
			return;
		}
		if (c > 0)
			break;
	}
	if (l->n == l->size) {
		size_t size = l->size ? l->size * 2 : 16;
		struct resource_attribute *items = realloc(l->items, size * sizeof(*items));

		if (!items) {
			l->failed = -ENOMEM;
			return;
		}
		l->items = items;
		l->size = size;
	}
	memmove(&l->items[at + 1], &l->items[at], (l->n - at) * sizeof(*l->items));
	l->items[at] = (struct resource_attribute){strdup(key), strdup(text), is_int};
	l->n++;
	if (!l->items[at].key || !l->items[at].value)
		l->failed = -ENOMEM;
}

void resource_attributes_free(struct resource_attribute *list, size_t n)
{
	for (size_t i = 0; list && i < n; i++) {
		free(list[i].key);
		free(list[i].value);
	}
	free(list);
}

static const char *otel(const struct image *image, const char *key)
{
	for (size_t i = 0; i < image->n_otel; i++)
		if (streq(image->otel[i].key, key))
			return image->otel[i].value;
	return "";
}

/* What a process says of itself, but for what is decided elsewhere (the name), what would break a
 * backend (see label.c), and what makes one series of each process (the instance id, per-process'
 * business). */
static void set_otel(struct list *l, const struct image *image)
{
	static const char *const refused[] = {
		"service.name", "service_name", "service.instance.id"};

	for (size_t i = 0; i < image->n_otel; i++) {
		const char *key = or_empty(image->otel[i].key);
		bool ok = source_label_key_ok(key) && !text_starts(key, SOURCE_OWN_PREFIX);

		for (size_t k = 0; k < ARRAY_SIZE(refused); k++)
			ok = ok && !streq(key, refused[k]);
		if (ok)
			set(l, key, image->otel[i].value, false);
	}
}

static void set_found(struct list *l, const struct image *image)
{
	set(l, "container.id", image->container_id, false);
	set(l, "container.name", image->container_name, false);
	set(l, "systemd.unit", image->unit, false);
	for (size_t i = 0; i < image->n_k8s; i++)
		if (text_starts(image->k8s[i].key, "k8s.") &&
			source_label_key_ok(image->k8s[i].key))
			set(l, image->k8s[i].key, image->k8s[i].value, false);
}

static void set_service(struct list *l, const struct source *source, const struct image *image)
{
	char name[SOURCE_SERVICE_MAX + 1] = "";

	if (*or_empty(source->service_name))
		snprintf(name, sizeof(name), "%s", source->service_name);
	else if (*or_empty(image->otel_service_name))
		snprintf(name, sizeof(name), "%s", image->otel_service_name);
	else if (*otel(image, "service.name"))
		snprintf(name, sizeof(name), "%s", otel(image, "service.name"));
	else
		source->kind->default_service(source, image, name, sizeof(name));
	set(l, "service.name", *name ? name : "unknown", false);
}

int source_resource(const struct source *source, const struct image *image,
	const struct host_facts *host, struct resource_attribute **ret, size_t *n)
{
	struct list l = {0};
	char pid[16];

	if (host) {
		set(&l, "host.name", host->name, false);
		set(&l, "host.id", host->id, false);
		for (size_t i = 0; i < host->n_labels; i++)
			set(&l, host->labels[i].name, host->labels[i].value, false);
	}
	set_found(&l, image);
	set_otel(&l, image);
	if (source->per_process) {
		snprintf(pid, sizeof(pid), "%u", image->key.tgid);
		set(&l, "process.pid", pid, true);
		set(&l, "process.executable.path", image->exe, false);
		set(&l, "process.executable.name", source_basename(or_empty(image->exe)), false);
	}
	for (size_t i = 0; i < source->n_labels; i++)
		set(&l, source->labels[i].name, source->labels[i].value, false);
	set_service(&l, source, image);
	if (l.failed) {
		resource_attributes_free(l.items, l.n);
		return l.failed;
	}
	*ret = l.items;
	*n = l.n;
	return 0;
}
