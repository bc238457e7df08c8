/* SPDX-License-Identifier: Apache-2.0 */
/* What an image is: taken from the /proc reader's answer, or put together from what is left.
 *
 * The texts come from the profiled process: lengths are checked against the answer's, control characters are
 * replaced. Of the environment only OpenTelemetry's two variables have come this far, of argv all of
 * it, for matching on this host; what leaves the host is for others to choose.
 *
 * An image that ended before it could be read is put together from its exec or fork record (name, cgroup),
 * from the mappings that events told of (the executable is what lies lowest) and from its parent: the cgroup
 * where the record's hierarchy says nothing (hybrid layouts), and all of it after a fork without exec.
 * Runs in agentd. */

#include "agentd/base/text.h"
#include "agentd/process/procfs.h"
#include "agentd/process/table.h"

static char empty[1] = "";

static char **const *strings_of(struct image *image, char **list[8])
{
	list[0] = &image->exe;
	list[1] = &image->argv0;
	list[2] = &image->cmdline;
	list[3] = &image->cgroup;
	list[4] = &image->unit;
	list[5] = &image->slice;
	list[6] = &image->otel_service_name;
	list[7] = NULL;
	return list;
}

void facts_init(struct image *image)
{
	char **list[8];

	strings_of(image, list);
	for (size_t i = 0; list[i]; i++)
		*list[i] = empty;
	image->container_id = image->container_runtime = image->container_name = empty;
	image->container_image = empty;
	image->uid = (uid_t)-1;
}

/* No memory leaves it empty: a fact less. */
static void set(char **to, const char *s, size_t len)
{
	char *copy = len ? strndup(s, len) : empty;

	if (*to != empty)
		free(*to);
	*to = copy ? copy : empty;
	text_clean(*to);
}

static void set_str(char **to, const char *s)
{
	set(to, s, strlen(s));
}

static void free_k8s(struct image *image)
{
	otel_free(image->k8s, image->n_k8s);
	image->k8s = NULL;
	image->n_k8s = 0;
}

static void free_otel(struct image *image)
{
	otel_free(image->otel, image->n_otel);
	image->otel = NULL;
	image->n_otel = 0;
}

void facts_free(struct image *image)
{
	char **list[8];

	strings_of(image, list);
	for (size_t i = 0; list[i]; i++)
		set(list[i], "", 0);
	set(&image->container_id, "", 0);
	set(&image->container_runtime, "", 0);
	set(&image->container_name, "", 0);
	set(&image->container_image, "", 0);
	free_k8s(image);
	free_otel(image);
}

void facts_set_name(struct image *image, const char *name, const char *container_image)
{
	set_str(&image->container_name, name);
	set_str(&image->container_image, container_image);
}

static void set_cgroup(struct entry *e, const char *path)
{
	struct image *image = &e->image;
	struct cgroup_facts f;

	cgroup_parse(path, &f);
	set_str(&image->cgroup, path);
	set_str(&image->unit, f.unit);
	set_str(&image->slice, f.slice);
	if (streq(f.container_id, image->container_id))
		return;
	set_str(&image->container_id, f.container_id);
	set_str(&image->container_runtime, f.runtime);
	set(&image->container_name, "", 0);
	set(&image->container_image, "", 0);
	free_k8s(image);
	e->name_asked = false;
}

static void set_comm(struct image *image, const char *comm, size_t len)
{
	len = MIN(len, sizeof(image->comm) - 1);
	memset(image->comm, 0, sizeof(image->comm));
	memcpy(image->comm, comm, len);
	text_clean(image->comm);
}

/* argv with blanks between; argv[0] apart. */
static void set_cmdline(struct image *image, const char *argv, size_t len)
{
	_cleanup_free_ char *line = NULL;

	set(&image->argv0, argv, strnlen(argv, len));
	while (len && !argv[len - 1])
		len--;
	line = len ? malloc(len + 1) : NULL;
	if (line) {
		for (size_t i = 0; i < len; i++)
			line[i] = argv[i] ? argv[i] : ' ';
		line[len] = 0;
	}
	set_str(&image->cmdline, line ? line : "");
}

static void set_otel(
	struct process_table *t, struct image *image, const char *service, const char *attributes)
{
	int r;

	free_otel(image);
	set(&image->otel_service_name, "", 0);
	if (*service && text_is_clean(service, OTEL_VALUE_MAX))
		set_str(&image->otel_service_name, service);
	else if (*service)
		t->counters.otel_refused++;
	r = *attributes ? otel_parse(attributes, &image->otel, &image->n_otel) : 0;
	if (r > 0)
		t->counters.otel_refused += (uint64_t)r;
}

/* ---- READ's body ------------------------------------------------------------------------------------------- */

struct cursor {
	const uint8_t *at;
	size_t left;
};

static const void *take(struct cursor *c, size_t len)
{
	const void *p = c->at;

	if (len > c->left)
		return NULL;
	c->at += len;
	c->left -= len;
	return p;
}

static int apply_maps(struct entry *e, struct cursor *c, uint32_t n, uint64_t t0)
{
	struct process_table *t = e->table;
	CLEANUP(mappings_unrefp) struct mappings *m = mappings_new();

	if (!m)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		struct reader_map row;
		struct mapping map;
		char path[READER_PATH_MAX + 1];
		const void *p = take(c, sizeof(row));

		if (!p)
			return -EBADMSG;
		memcpy(&row, p, sizeof(row));
		p = row.path_len <= READER_PATH_MAX ? take(c, row.path_len) : NULL;
		if (!p)
			return -EBADMSG;
		memcpy(path, p, row.path_len);
		path[row.path_len] = 0;
		if (row.start < row.end &&
			opens_mapping(t, &map, row.start, row.end - row.start, row.pgoff,
				&(struct file_key){
					.inode = row.inode, .major = row.major, .minor = row.minor},
				path))
			(void)mappings_replace(&m, &map, t->config.max_mappings);
	}
	/* What waiting samples have before them was not so yet: those ranges stay as they were, and come with
	 * their events. */
	for (struct queued *q = e->first; q; q = q->next)
		if (q->is_map)
			(void)mappings_restore(
				&m, e->mappings, q->map.start, q->map.end, t->config.max_mappings);
	mappings_fill_copied_text(m);
	mappings_carry_files(m, e->mappings);
	if (e->mappings && e->mappings->program)
		m->program = path_ref(e->mappings->program);
	else if (*e->image.exe)
		m->program = path_get(t->paths, e->image.exe);
	e->maps_at = t0;
	if (mappings_equal(m, e->mappings))
		return 0;
	e->refresh_gap = 0; /* reading was worth it */
	e->image.mapping_epoch++;
	mappings_unref(e->mappings);
	e->mappings = TAKE_PTR(m);
	spaces_changed(e);
	return 0;
}

static void link_parent(struct entry *e, const struct reader_facts *f)
{
	struct entry *p;

	e->image.ppid = (pid_t)f->ppid;
	if (e->parent || !f->ppid || !f->parent_start_ticks || e->image.kernel_thread)
		return;
	e->reading = true; /* adding one may evict another: not this one */
	p = image_add_surrogate(e->table, (pid_t)f->ppid, f->parent_start_ticks);
	e->reading = false;
	if (p)
		image_set_parent(e, p);
}

static int apply_facts(
	struct entry *e, const struct reader_facts *f, const char *const *text, uint64_t t0)
{
	struct image *image = &e->image;

	set_comm(image, text[TEXT_COMM], f->len[TEXT_COMM]);
	image->kernel_thread = f->flags & FACT_KERNEL_THREAD;
	if (f->uid != UINT32_MAX)
		image->uid = f->uid;
	link_parent(e, f);
	e->facts_at = t0;
	e->facts_changed = true;
	if (f->len[TEXT_CGROUP]) {
		_cleanup_free_ char *cgroup = strndup(text[TEXT_CGROUP], f->len[TEXT_CGROUP]);

		if (cgroup)
			set_cgroup(e, cgroup);
	}
	if (f->flags & FACT_NO_MEMORY) {
		/* Ending: the rest is gone, if it was not known before. */
		e->unreadable = true;
		return 0;
	}
	if (f->len[TEXT_EXE]) {
		set(&image->exe, text[TEXT_EXE], f->len[TEXT_EXE]);
		procfs_strip_deleted(image->exe);
	}
	set_cmdline(image, text[TEXT_CMDLINE], f->len[TEXT_CMDLINE]);
	if (f->flags & FACT_OTEL_TOO_LONG)
		e->table->counters.otel_refused++;
	{
		_cleanup_free_ char *service = strndup(text[TEXT_SERVICE], f->len[TEXT_SERVICE]);
		_cleanup_free_ char *attributes =
			strndup(text[TEXT_ATTRIBUTES], f->len[TEXT_ATTRIBUTES]);

		if (service && attributes)
			set_otel(e->table, image, service, attributes);
	}
	image->state = IMAGE_READY;
	e->facts_known = true;
	return 0;
}

int facts_apply(struct entry *e, const struct client_result *r, uint16_t flags)
{
	struct cursor c = {r->body, r->len};
	struct reader_facts f;
	const char *text[TEXT_COUNT];
	const void *p = take(&c, sizeof(f));
	int e2;

	if (!p)
		return -EBADMSG;
	memcpy(&f, p, sizeof(f));
	for (size_t i = 0; i < TEXT_COUNT; i++) {
		text[i] = take(&c, f.len[i]);
		if (!text[i])
			return -EBADMSG;
	}
	if (e->surrogate || flags & READER_FACTS) {
		e2 = apply_facts(e, &f, text, r->t0);
		if (e2 < 0)
			return e2;
	}
	if (!(flags & READER_MAPS) || f.flags & FACT_KERNEL_THREAD)
		return 0;
	if (f.flags & FACT_NO_MEMORY) {
		e->unreadable = true;
		return 0;
	}
	return apply_maps(e, &c, f.n_maps, r->t0);
}

/* ---- without /proc ----------------------------------------------------------------------------------------- */

void facts_from_event(struct entry *e, const struct record_process *p)
{
	if (!e->facts_known)
		set_comm(&e->image, p->comm, strnlen(p->comm, sizeof(p->comm)));
	if (!p->cgroup_len)
		return;
	free(e->event_cgroup);
	e->event_cgroup = strndup(p->cgroup, p->cgroup_len);
	e->event_cgroup_ns = p->header.time;
}

static void copy_attributes(struct image *to, const struct image *from)
{
	if (to->n_otel || !from->n_otel)
		return;
	to->otel = calloc(from->n_otel, sizeof(*to->otel));
	for (size_t i = 0; to->otel && i < from->n_otel; i++) {
		char *key = strdup(from->otel[i].key), *value = strdup(from->otel[i].value);

		if (!key || !value) {
			free(key);
			free(value);
			return;
		}
		to->otel[to->n_otel++] = (struct attribute){key, value};
	}
}

static const char *lowest_file(const struct mappings *m)
{
	for (size_t i = 0; m && i < m->n; i++)
		if (m->v[i].key.inode)
			return m->v[i].path->text;
	return "";
}

static bool says_something(const char *cgroup)
{
	struct cgroup_facts f;

	if (!cgroup)
		return false;
	cgroup_parse(cgroup, &f);
	return f.unit[0] || f.container_id[0];
}

static void compose_cgroup(struct entry *e, const struct image *parent)
{
	bool newer = !*e->image.cgroup || e->event_cgroup_ns >= e->facts_at;

	if (newer && e->event_cgroup &&
		(says_something(e->event_cgroup) || !parent || !*parent->cgroup))
		set_cgroup(e, e->event_cgroup);
	else if (!*e->image.cgroup && parent)
		set_cgroup(e, parent->cgroup);
}

void facts_compose(struct entry *e)
{
	struct image *image = &e->image;
	const struct image *parent = e->parent ? &e->parent->image : NULL;

	e->facts_changed = true;
	/* Also for one that was known: it moved, and then ended. */
	compose_cgroup(e, parent);
	if (e->facts_known)
		return;
	image->state = IMAGE_PARTIAL;
	e->facts_known = true;
	if (!parent) {
		set_str(&image->exe, lowest_file(e->mappings));
		return;
	}
	if (!image->ppid)
		image->ppid = (pid_t)parent->key.tgid;
	if (image->uid == (uid_t)-1)
		image->uid = parent->uid;
	/* Environments are inherited; a process that had time to read another is known better. */
	if (!*image->otel_service_name)
		set_str(&image->otel_service_name, parent->otel_service_name);
	copy_attributes(image, parent);
	if (!e->forked) {
		set_str(&image->exe, lowest_file(e->mappings));
		return;
	}
	if (!image->comm[0])
		set_comm(image, parent->comm, strlen(parent->comm));
	set_str(&image->exe, parent->exe);
	set_str(&image->argv0, parent->argv0);
	set_str(&image->cmdline, parent->cmdline);
	image->exe_file = parent->exe_file;
	if (!e->mappings)
		e->mappings = mappings_ref(e->parent->mappings);
}
