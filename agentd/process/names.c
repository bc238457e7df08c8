/* SPDX-License-Identifier: Apache-2.0 */
/* Containers' names, asked of the container room.
 *
 * The room answers at once what it has read before, so that only a container's first image waits. Its child
 * is started with the first container that is seen: a host without containers never has it. Runs in agentd. */

#include "agentd/container/container.h"
#include "agentd/process/procfs.h"
#include "agentd/process/table.h"

struct name_ask {
	struct name_ask *next;
	struct process_table *table;
	struct sample_image key;
};

static void forget(struct name_ask *ask)
{
	struct name_ask **at = &ask->table->asks;

	while (*at && *at != ask)
		at = &(*at)->next;
	if (*at)
		*at = ask->next;
	free(ask);
}

static void set_k8s(struct image *image, const struct container_facts *f)
{
	if (image->n_k8s || !f->n_k8s)
		return;
	image->k8s = calloc(f->n_k8s, sizeof(*image->k8s));
	for (size_t i = 0; image->k8s && i < f->n_k8s; i++) {
		char *key = strdup(f->k8s[i].key), *value = strdup(f->k8s[i].value);

		if (!key || !value) {
			free(key);
			free(value);
			return;
		}
		image->k8s[image->n_k8s++] = (struct attribute){key, value};
	}
}

static void on_name(void *userdata, const char *id, const struct container_facts *facts)
{
	struct name_ask *ask = userdata;
	struct process_table *t = ask->table;
	struct entry *e = t->freeing ? NULL : image_find(t, &ask->key);

	forget(ask);
	/* It may have moved to another container meanwhile. */
	if (!e || strcmp(e->image.container_id, id) != 0)
		return;
	e->name_deadline = 0;
	if (facts) {
		facts_set_name(&e->image, facts->name, facts->image);
		set_k8s(&e->image, facts);
		e->facts_changed = true;
	}
	if (t->survey)
		table_soon(t);
	/* At once: whoever asked goes on by itself. */
	if (!t->asking_name)
		reads_advance(e);
}

static void add_docker_root(struct process_table *t)
{
	int r;

	if (!t->namer)
		return;
	container_namer_clear_roots(t->namer);
	if (!t->docker_root)
		return;
	r = container_namer_add_root(t->namer, "docker", t->docker_root);
	if (r < 0)
		log_warning("containers/docker-root %s cannot be used: %s", t->docker_root,
			strerror(-r));
}

void process_set_docker_root(struct process_table *t, const char *root)
{
	free(t->docker_root);
	t->docker_root = root && root[0] ? strdup(root) : NULL;
	add_docker_root(t);
}

void names_ask(struct entry *e)
{
	struct process_table *t = e->table;
	struct name_ask *ask;
	int r;

	if (!t->namer && !t->namer_failed) {
		r = container_namer_new(&t->namer, t->loop, t->config.host_root);
		if (r < 0) {
			t->namer_failed = true;
			log_warning(
				"names of containers cannot be read (%s): containers go by their id",
				strerror(-r));
		}
		add_docker_root(t);
	}
	ask = t->namer ? calloc(1, sizeof(*ask)) : NULL;
	if (!ask) {
		e->name_deadline = 0;
		return;
	}
	*ask = (struct name_ask){.next = t->asks, .table = t, .key = e->image.key};
	t->asks = ask;
	t->asking_name = true;
	r = container_ask(
		t->namer, e->image.container_runtime, e->image.container_id, on_name, ask);
	t->asking_name = false;
	if (r < 0) {
		forget(ask);
		e->name_deadline = 0;
	}
}

void names_free(struct process_table *t)
{
	t->namer = container_namer_free(t->namer);
	free(t->docker_root);
	t->docker_root = NULL;
	while (t->asks)
		forget(t->asks);
}
