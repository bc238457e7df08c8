/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Images as the process table would have them, made by hand, and a table that is an array: what sources ask a
 * table is who is above whom, and that is all it can answer. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "agentd/process/process.h"
#include "sources/source.h"

#define CONTAINER_ID "4f1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8"

struct made_image {
	struct image image;
	struct cgroup_facts cgroup;
};

/* comm is the start of the executable's name, argv[0] its path; the rest is as the cgroup's path says. */
static inline struct image *made(
	struct made_image *m, unsigned pid, const char *exe, const char *cgroup)
{
	const char *name = strrchr(exe, '/');

	memset(m, 0, sizeof(*m));
	cgroup_parse(cgroup, &m->cgroup);
	m->image.key = (struct sample_image){.tgid = pid, .start_boottime = pid * 1000ULL};
	m->image.state = IMAGE_READY;
	snprintf(m->image.comm, sizeof(m->image.comm), "%.15s", name ? name + 1 : exe);
	m->image.exe = (char *)exe;
	m->image.argv0 = (char *)exe;
	m->image.cmdline = (char *)exe;
	m->image.cgroup = (char *)cgroup;
	m->image.unit = m->cgroup.unit;
	m->image.slice = m->cgroup.slice;
	m->image.container_id = m->cgroup.container_id;
	m->image.container_runtime = m->cgroup.runtime;
	m->image.container_name = (char *)"";
	m->image.otel_service_name = (char *)"";
	return &m->image;
}

/* A set with one source; options and labels as "k=v" behind each other, ended by NULL. */
static inline int add_source(struct source_set *set, const char *name, const char *kind,
	const char *match, uint64_t order, const char *const *options, struct err_text *err)
{
	struct option_value list[8];
	char names[8][64];
	struct source_spec spec = {.name = name,
		.kind = kind,
		.match = match,
		.service_name = "",
		.enabled = true,
		.order = order,
		.options = list};

	for (; options && options[spec.n_options]; spec.n_options++) {
		const char *o = options[spec.n_options], *eq = strchr(o, '=');

		snprintf(names[spec.n_options], 64, "%.*s", (int)(eq - o), o);
		list[spec.n_options] = (struct option_value){names[spec.n_options], eq + 1};
	}
	return source_set_add(set, &spec, err);
}
#define OPTIONS(...) ((const char *const[]){__VA_ARGS__, NULL})
