/* SPDX-License-Identifier: Apache-2.0 */

/* Names and lines of JIT-compiled code from a jitdump file: records, each with its size and a time, that say when
 * code was loaded (with its name, and its bytes, which are passed over), where it moved to, and which address came
 * of which line.
 *
 * What was said last, by the records' own times, holds. A move leaves a hole where the code was. Records are read
 * once, through a window; names and lines stay in the file. A record that is not whole yet is still being
 * written; what comes later is read later. A file that does not follow its own format is believed up to there.
 *
 * Bounds: OBJECTS_MAX pieces of code (of more the oldest go), RECORDS_MAX records at a time, LINES_BYTES_MAX bytes of
 * lines for one piece. Source: perf's documentation, tools/perf/Documentation/jitdump-specification.txt. V8 writes
 * the addresses of lines as they would lie behind an ELF header (src/diagnostics/perf-jit.cc). Runs in the
 * symbolizer. */

#include <sys/stat.h>

#include "agentd/base/hash.h"
#include "agentd/base/io.h"
#include "agentd/elf/cursor.h"
#include "agentd/symbol/jitname.h"
#include "agentd/symbol/jitranges.h"

#define MAGIC           0x4a695444
#define MAGIC_SWAPPED   0x4454694a
#define HEADER          40
#define RECORD          16
#define OBJECTS_MAX     (1U << 19)
#define RECORDS_MAX     (1U << 22)
#define LINES_BYTES_MAX (256 << 10)
#define WINDOW          (64 << 10)
#define NOWHERE         UINT32_MAX
#define V8_HEADER       0x40

enum record_id {
	CODE_LOAD,
	CODE_MOVE,
	CODE_DEBUG_INFO,
	CODE_CLOSE,
	CODE_UNWINDING_INFO,
};

/* A piece of code. */
struct object {
	uint64_t start; /* where it is now */
	uint64_t made;  /* where it was when its lines were written */
	uint64_t index; /* the runtime's own number for it */
	uint64_t name;  /* offset in the file; 0: a hole */
	uint64_t lines; /* of its debug record; 0: none */
};

struct jitdump {
	int fd;
	struct jit_ranges ranges; /* what: index into objects; rank: time */
	struct object *objects;
	uint32_t n_objects, room;
	uint32_t *by_index; /* open addressing by object.index: the last one; NOWHERE: free */
	uint32_t slots;
	uint64_t read_up_to, n_loads;
	uint64_t lines_at, lines_for; /* a debug record whose code comes next */
	uint8_t header[HEADER];
	bool closed;
	const char *problem; /* "" none */
	/* What was read of the file last. */
	uint8_t window[WINDOW];
	uint64_t window_at;
	size_t window_len;
};

/* Bytes [at, at + n) of the file, n at most WINDOW. NULL: they are not there. */
static const uint8_t *see(struct jitdump *j, uint64_t at, size_t n)
{
	ssize_t got;

	if (at >= j->window_at && at - j->window_at <= j->window_len &&
		n <= j->window_len - (at - j->window_at))
		return j->window + (at - j->window_at);
	got = pread(j->fd, j->window, sizeof(j->window), (off_t)at);
	j->window_at = at;
	j->window_len = got > 0 ? (size_t)got : 0;
	return n <= j->window_len ? j->window : NULL;
}

/* ---- objects by their number ----------------------------------------------------------------------------------- */

static uint32_t *slot_of(const struct jitdump *j, uint64_t index)
{
	uint32_t at = (uint32_t)hash_local(&index, sizeof(index)) & (j->slots - 1);

	while (j->by_index[at] != NOWHERE && j->objects[j->by_index[at]].index != index)
		at = (at + 1) & (j->slots - 1);
	return &j->by_index[at];
}

/* Later ones take the place of earlier ones. */
static int index_all(struct jitdump *j, uint32_t slots)
{
	uint32_t *table = reallocarray(NULL, slots, sizeof(*table));

	if (!table)
		return -ENOMEM;
	memset(table, 0xff, slots * sizeof(*table));
	free(j->by_index);
	j->by_index = table;
	j->slots = slots;
	for (uint32_t i = 0; i < j->n_objects; i++)
		if (j->objects[i].name)
			*slot_of(j, j->objects[i].index) = i;
	return 0;
}

/* Forgets the objects that nothing points at any more, the oldest code first if that is not enough. */
static int make_room(struct jitdump *j)
{
	_cleanup_free_ uint32_t *moved = NULL;
	uint32_t n = 0;
	int r = jit_ranges_settle(&j->ranges);

	if (r < 0)
		return r;
	jit_ranges_drop_oldest(&j->ranges, OBJECTS_MAX / 2);
	moved = calloc(j->n_objects, sizeof(*moved));
	if (!moved)
		return -ENOMEM;
	for (size_t i = 0; i < j->ranges.n; i++)
		moved[j->ranges.v[i].what] = 1;
	for (uint32_t i = 0; i < j->n_objects; i++) {
		if (!moved[i])
			continue;
		j->objects[n] = j->objects[i];
		moved[i] = n++;
	}
	for (size_t i = 0; i < j->ranges.n; i++)
		j->ranges.v[i].what = moved[j->ranges.v[i].what];
	j->n_objects = n;
	return index_all(j, j->slots);
}

static int add_object(struct jitdump *j, const struct object *o, uint64_t size, uint64_t time)
{
	int r = 0;

	if (j->n_objects == OBJECTS_MAX)
		r = make_room(j);
	if (r == 0 && j->n_objects == j->room) {
		uint32_t room = j->room ? j->room * 2 : 64;
		struct object *grown = reallocarray(j->objects, room, sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		j->objects = grown;
		j->room = room;
	}
	if (r == 0 && (j->n_objects + 1) * 2 > j->slots)
		r = index_all(j, j->slots ? j->slots * 2 : 128);
	if (r < 0)
		return r;
	j->objects[j->n_objects] = *o;
	if (o->name)
		*slot_of(j, o->index) = j->n_objects;
	return jit_ranges_add(&j->ranges, o->start, size, time, j->n_objects++);
}

/* ---- records ----------------------------------------------------------------------------------------------------- */

struct record {
	uint32_t id, size;
	uint64_t time, at; /* at: of its body */
};

static int on_load(struct jitdump *j, const struct record *rec, struct cursor *c)
{
	struct object o = {};
	uint64_t size;

	(void)cursor_u64(c); /* pid, tid */
	(void)cursor_u64(c); /* vma: the code's own address but for a JIT that writes elsewhere */
	o.start = o.made = cursor_u64(c);
	size = cursor_u64(c);
	o.index = cursor_u64(c);
	o.name = rec->at + 40;
	if (c->bad)
		return -EBADMSG;
	if (j->lines_at && j->lines_for == o.start)
		o.lines = j->lines_at;
	j->lines_at = 0;
	j->n_loads++;
	return add_object(j, &o, size, rec->time);
}

static int on_move(struct jitdump *j, const struct record *rec, struct cursor *c)
{
	struct object hole = {}, o;
	uint64_t to, size;
	uint32_t was;
	int r;

	(void)cursor_u64(c); /* pid, tid */
	(void)cursor_u64(c); /* vma */
	hole.start = cursor_u64(c);
	to = cursor_u64(c);
	size = cursor_u64(c);
	hole.index = cursor_u64(c);
	if (c->bad)
		return -EBADMSG;
	was = j->slots ? *slot_of(j, hole.index) : NOWHERE;
	if (was == NOWHERE || j->objects[was].start != hole.start)
		return 0; /* of code that nobody told of */
	o = j->objects[was];
	o.start = to;
	r = add_object(j, &hole, size, rec->time);
	return r < 0 ? r : add_object(j, &o, size, rec->time);
}

static int on_record(struct jitdump *j, const struct record *rec)
{
	uint8_t body[48];
	const uint8_t *from;
	size_t n = MIN(rec->size - RECORD, sizeof(body));
	struct cursor c = {body, body + n, false};

	/* Copied: the window moves on. */
	from = see(j, rec->at, n);
	if (!from)
		return -EBADMSG;
	memcpy(body, from, n);
	switch (rec->id) {
	case CODE_LOAD:
		return on_load(j, rec, &c);
	case CODE_MOVE:
		return on_move(j, rec, &c);
	case CODE_DEBUG_INFO:
		j->lines_for = cursor_u64(&c);
		j->lines_at = rec->at;
		return c.bad ? -EBADMSG : 0;
	case CODE_CLOSE:
		j->closed = true;
		return 0;
	default: /* unwinding information, and what is to come */
		return 0;
	}
}

static int read_new(struct jitdump *j, uint64_t size)
{
	for (uint32_t i = 0; i < RECORDS_MAX && !j->closed; i++) {
		const uint8_t *p = see(j, j->read_up_to, RECORD);
		struct cursor c = {p, p, false};
		struct record rec;
		int r;

		if (!p)
			return 0;
		c.end = p + RECORD;
		rec.id = cursor_u32(&c);
		rec.size = cursor_u32(&c);
		rec.time = cursor_u64(&c);
		rec.at = j->read_up_to + RECORD;
		if (rec.size < RECORD) {
			/* Room that was set aside in the file and is not written yet is all zeroes. */
			if (rec.size)
				j->problem = "the jitdump file is damaged: named up to there";
			return 0;
		}
		if (rec.size > size - j->read_up_to)
			return 0;
		r = on_record(j, &rec);
		if (r == -EBADMSG) {
			j->problem = "the jitdump file is damaged: named up to there";
			return 0;
		}
		if (r < 0)
			return r;
		j->read_up_to += rec.size;
	}
	return 0;
}

/* ---- the file ---------------------------------------------------------------------------------------------------- */

static void say(const struct jitdump *j, struct symbol_facts_message *facts)
{
	const char *problem = j->problem;

	if (!*problem && j->ranges.dropped)
		problem = "the jitdump file tells of too much code: its oldest has no names";
	snprintf(facts->named_by, sizeof(facts->named_by), "jitdump");
	snprintf(facts->problem, sizeof(facts->problem), "%s", problem);
	facts->functions = j->n_loads;
}

static void forget(struct jitdump *j)
{
	jit_ranges_deinit(&j->ranges);
	free(j->objects);
	free(j->by_index);
	j->objects = NULL;
	j->by_index = NULL;
	j->n_objects = j->room = j->slots = 0;
	j->read_up_to = j->n_loads = j->lines_at = 0;
	j->closed = false;
	j->problem = "";
}

static int read_header(struct jitdump *j)
{
	struct cursor c = {j->header, j->header + HEADER, false};
	uint32_t magic, version, size;

	j->problem = "";
	if (io_pread_all(j->fd, j->header, HEADER, 0) < 0)
		return 0; /* not written yet */
	magic = cursor_u32(&c);
	version = cursor_u32(&c);
	size = cursor_u32(&c);
	if (magic == MAGIC_SWAPPED)
		j->problem = "the jitdump file is of a machine of the other byte order";
	else if (magic != MAGIC || size < HEADER)
		j->problem = "it is not a jitdump file";
	else if (!version)
		j->problem = "the jitdump file has a version that is not known";
	else
		j->read_up_to = size;
	j->closed = *j->problem;
	return 0;
}

static int jitdump_refresh(void *state, struct symbol_facts_message *facts)
{
	struct jitdump *j = state;
	uint8_t header[HEADER];
	struct stat st;
	int r = 0;

	if (fstat(j->fd, &st) < 0)
		return -errno;
	j->window_len = 0;
	if (j->read_up_to &&
		((uint64_t)st.st_size < j->read_up_to ||
			io_pread_all(j->fd, header, HEADER, 0) < 0 ||
			memcmp(header, j->header, HEADER) != 0))
		forget(j);
	if (!j->read_up_to)
		r = read_header(j);
	if (r == 0 && j->read_up_to && (uint64_t)st.st_size > j->read_up_to)
		r = read_new(j, (uint64_t)st.st_size);
	if (r == 0)
		r = jit_ranges_settle(&j->ranges);
	say(j, facts);
	return r;
}

static void *jitdump_close(void *state)
{
	struct jitdump *j = state;

	if (j) {
		forget(j);
		free(j);
	}
	return NULL;
}

static int jitdump_open(
	void **ret, const struct resolver_input *in, struct symbol_facts_message *facts)
{
	struct jitdump *j = calloc(1, sizeof(*j));
	int r;

	if (!j)
		return -ENOMEM;
	j->fd = in->fd;
	j->problem = "";
	r = jitdump_refresh(j, facts);
	if (r < 0) {
		jitdump_close(j);
		return r;
	}
	*ret = j;
	return 0;
}

/* ---- lines --------------------------------------------------------------------------------------------------------- */

struct line {
	char file[1024];
	uint32_t line;
};

/* "\377" says: as of the entry before. */
static const char *entry_file(const char *s, const char *last)
{
	return s[0] == '\377' && !s[1] ? last : s;
}

/* The line of the last entry at or before an address, as addresses were when they were written. */
static void find_line(
	const uint8_t *bytes, size_t len, uint64_t address, uint64_t shift, struct line *ret)
{
	struct cursor c = {bytes, bytes + len, false};
	const char *last = "", *file = NULL;
	uint64_t best = 0, n;

	(void)cursor_u64(&c); /* the code */
	n = cursor_u64(&c);
	for (uint64_t i = 0; i < n && !c.bad; i++) {
		uint64_t at = cursor_u64(&c) - shift;
		uint32_t line = cursor_u32(&c);
		const uint8_t *text, *nul;

		(void)cursor_u32(&c); /* discriminator */
		if (c.bad || c.at == c.end)
			break;
		text = c.at;
		nul = memchr(text, 0, (size_t)(c.end - text));
		if (!nul)
			break;
		c.at = nul + 1;
		last = entry_file((const char *)text, last);
		if (at <= address && (!file || at >= best)) {
			best = at;
			file = last;
			ret->line = line;
		}
	}
	snprintf(ret->file, sizeof(ret->file), "%s", file ? file : "");
}

static void read_lines(
	struct jitdump *j, const struct object *o, uint64_t address, bool v8, struct line *ret)
{
	_cleanup_free_ uint8_t *bytes = NULL;
	const uint8_t *head = see(j, o->lines - RECORD, RECORD);
	uint32_t size;

	if (!head)
		return;
	memcpy(&size, head + 4, sizeof(size));
	if (size <= RECORD)
		return;
	size = MIN(size - RECORD, (uint32_t)LINES_BYTES_MAX);
	bytes = malloc(size);
	if (bytes && io_pread_all(j->fd, bytes, size, o->lines) == 0)
		find_line(bytes, size, address - o->start + o->made, v8 ? V8_HEADER : 0, ret);
}

static int jitdump_find(void *state, uint64_t address, struct found *found)
{
	struct jitdump *j = state;
	const struct jit_range *range = jit_ranges_find(&j->ranges, address);
	const struct object *o = range ? &j->objects[range->what] : NULL;
	char name[SYMBOL_NAME_MAX];
	struct line line = {};
	ssize_t n;

	if (!o || !o->name)
		return 0;
	n = pread(j->fd, name, sizeof(name) - 1, (off_t)o->name);
	if (n <= 0)
		return n < 0 ? -errno : 0;
	name[n] = '\0';
	if (!*name)
		return 0;
	if (o->lines)
		read_lines(j, o, address, jitname_is_v8(name), &line);
	return jitname_add(found, name, line.file, line.line) == 0;
}

static size_t jitdump_memory(const void *state)
{
	const struct jitdump *j = state;

	return sizeof(*j) + j->ranges.room * sizeof(*j->ranges.v) + j->room * sizeof(*j->objects) +
		j->slots * sizeof(*j->by_index);
}

const struct resolver resolver_jitdump = {
	.name = "jitdump",
	.kind = SYMBOL_KIND_JITDUMP,
	.open = jitdump_open,
	.close = jitdump_close,
	.refresh = jitdump_refresh,
	.find = jitdump_find,
	.memory = jitdump_memory,
};
