/* SPDX-License-Identifier: Apache-2.0 */

/* Names over restarts. An address that the memory does not know is looked up on the disk before the symbolizer is
 * asked, and what the symbolizer answered is written down, in batches, when the loop has nothing else to do; so a
 * steady workload is named after a restart without any file being read.
 *
 * What names are valid for: the file as its key says (the owner of symbol_ops.disk makes it of the file's identity),
 * how names are written, the version of this program, and the debug files that there were when they were made. The
 * last is looked at once for each file and run, without reading any: if another set of debug files is found
 * than the names were made with, they are not used and give way to the next.
 *
 * Not kept: the kernel's (module and BPF addresses mean other things tomorrow, and /proc/kallsyms is read in a tenth of
 * a second), the vDSO's (a copy in memory), those of code that was made at run time, those made with less effort than
 * all (a crash may have been chance; the next run tries again), and addresses without a name of a file that
 * had a problem. Nothing is shared by build id: the key is the identity and the owner, which needs no reading of
 * the file.
 *
 * Invariants: a file's names are written only if it was at rest when it was handed to the symbolizer, so that its
 * identity stands for what was read. What waits to be written is bounded; what finds no room there is
 * made again after a restart. Runs in agentd. */

#include <sys/stat.h>

#include "agentd/base/clock.h"
#include "agentd/base/hash.h"
#include "agentd/base/sha256.h"
#include "agentd/symbol/diskcache.h"

#define WRITES_MAX     32768 /* addresses that wait */
#define WRITES_A_TURN  256
#define WRITE_AFTER_US (500 * 1000)

static bool is_kept(struct symbolizer *s, const struct symbol_file *f)
{
	return s->ops->disk && f->id != SYMBOL_FILE_KERNEL && f->id != SYMBOL_FILE_VDSO &&
		symbol_file_kind(s, f->id) == SYMBOL_KIND_ELF;
}

/* ---- what a file's names go with ------------------------------------------------------------------------------ */

static int make_key(struct symbolizer *s, struct symbol_file *f)
{
	const char version[] = ODI_VERSION " 2";
	uint8_t mode = (uint8_t)s->demangle, own[32];
	struct sha256 h;
	int r = s->ops->disk->key(s->userdata, f->id, own);

	if (r < 0)
		return r;
	sha256_init(&h);
	sha256_add(&h, own, sizeof(own));
	sha256_add(&h, &mode, sizeof(mode));
	sha256_add(&h, version, sizeof(version));
	sha256_final(&h, f->disk_key);
	f->disk_mode = s->demangle;
	return 0;
}

/* Of all debug files that there are for it, in their order. The same after a restart if they are the same. No place
 * behind the last one is asked for, which would say that what was there is not the right one. */
static uint64_t debug_files(struct symbolizer *s, uint32_t file, const struct symbol_file_facts *f)
{
	static const struct hash_key fixed = {{1, 2}};
	uint64_t hash = 0;

	if (f->has_debug_info || !s->ops->open_debug)
		return 0;
	for (unsigned n = 0; n <= SYMBOL_DEBUG_LAST_PLACE; n++) {
		_cleanup_close_ int fd =
			s->ops->open_debug(s->userdata, file, f->build_id, f->debuglink, &n);
		struct stat st;

		if (fd < 0 || fstat(fd, &st) < 0)
			break;
		hash = hash_bytes(&fixed,
			(uint64_t[]){hash, n, st.st_dev, st.st_ino, (uint64_t)st.st_size,
				(uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec,
				(uint64_t)st.st_ctim.tv_sec, (uint64_t)st.st_ctim.tv_nsec},
			9 * sizeof(uint64_t));
	}
	return hash;
}

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static void take_facts(struct symbolizer *s, struct symbol_file *f, const struct disk_facts *d)
{
	struct symbol_file_facts *to = &f->facts;
	const uint64_t asked = to->asked, named = to->named, cpu_us = to->cpu_us;
	const uint32_t crashes = to->crashes, timeouts = to->timeouts;

	if (to->seen)
		return;
	*to = d->facts;
	to->asked = asked;
	to->named = named;
	to->cpu_us = cpu_us;
	to->crashes = crashes;
	to->timeouts = timeouts;
	snprintf(f->named_by, sizeof(f->named_by), "%s", d->named_by);
	to->named_by = f->named_by;
	snprintf(f->problem, sizeof(f->problem), "%s", d->problem);
	to->last_problem = f->problem;
	free(f->debuglink);
	f->debuglink = *d->debuglink ? strdup(d->debuglink) : NULL;
	to->debuglink = f->debuglink ? f->debuglink : "";
	f->costly = d->costly;
	to->seen = true;
	if (s->ops->on_facts)
		s->ops->on_facts(s->userdata, f->id, to);
}

static void write_soon(struct symbolizer *s);

/* Once for each file and mode. */
static void look(struct symbolizer *s, struct symbol_file *f)
{
	const struct symbol_disk *disk = s->ops->disk;
	struct disk_facts facts;
	const void *data;
	size_t len;

	f->disk = DISK_OFF;
	if (!is_kept(s, f) || make_key(s, f) < 0)
		return;
	f->disk = DISK_REPLACE;
	write_soon(s); /* and tidies */
	if (disk->find(s->userdata, f->disk_key, &f->disk_id, &data, &len) < 0 ||
		disk_decode_facts(data, len, &facts) < 0 ||
		debug_files(s, f->id, &facts.facts) != facts.debug_files)
		return;
	f->disk = DISK_HAS;
	f->disk_debug_files = facts.debug_files;
	take_facts(s, f, &facts);
}

int disk_name(struct symbolizer *s, struct symbol_file *f, struct symbol_entry *e)
{
	struct symbol_function functions[SYMBOL_CHAIN_MAX];
	struct symbol_chain like;
	const void *data;
	uint64_t start;
	size_t len;

	if (!s->ops->disk)
		return 0;
	if (f->disk == DISK_UNKNOWN || (f->disk != DISK_OFF && f->disk_mode != s->demangle))
		look(s, f);
	if (f->disk != DISK_HAS ||
		s->ops->disk->get(s->userdata, f->disk_id, e->address, &data, &len) < 0)
		return 0;
	if (disk_decode_bare(data, len, &start)) {
		const struct symbol_chain *chain = symbol_fallback_chain(s, f->id, start);

		if (!chain)
			return 0;
		e->chain = chain;
		len = 0;
	} else if (len) {
		const struct symbol_chain *chain;

		if (disk_decode_chain(data, len, symbol_module_name(s, f->id), &like, functions) <
			0)
			return 0;
		chain = symbol_cache_chain(s->cache, &like);
		if (!chain)
			return 0;
		f->facts.named += !e->chain || e->chain->fallback;
		e->chain = chain;
	} else if (e->chain && !e->chain->fallback) {
		e->chain = NULL;
	}
	f->facts.asked += e->state == SYMBOL_NONE;
	e->state = len ? SYMBOL_NAMED : SYMBOL_FALLBACK;
	s->counters.from_disk++;
	return 1;
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

/* Its facts, in place of what was there. */
static int put_file(struct symbolizer *s, struct symbol_file *f)
{
	struct disk_facts d = {.debug_files = f->disk_debug_files, .facts = f->facts};
	uint8_t bytes[DISK_FACTS_MAX];
	int r;

	d.costly = f->costly;
	r = s->ops->disk->put_file(
		s->userdata, f->disk_key, bytes, disk_encode_facts(&d, bytes), &f->disk_id);
	if (r == 0)
		f->disk = DISK_HAS;
	return r;
}

/* Of a chain without a name: it is in the text. */
static uint64_t start_of(const struct symbol_chain *fallback)
{
	const char *at = strrchr(fallback->functions[0].name, '+');

	return at ? strtoull(at + 1, NULL, 16) : 0;
}

static int write_one(struct symbolizer *s, const struct symbol_key *key)
{
	static uint8_t bytes[DISK_VALUE_MAX];
	struct symbol_file *f = map_get(s->files, &key->file, sizeof(key->file));
	const struct symbol_entry *e = symbol_cache_find(s->cache, key->file, key->address);
	int len = 0, r = 0;

	if (!f || !f->disk_write || f->disk_mode != s->demangle || !e)
		return 0;
	if (e->state == SYMBOL_NAMED && e->chain)
		len = disk_encode_chain(e->chain, symbol_module_name(s, key->file), bytes);
	else if (e->state != SYMBOL_FALLBACK || *f->facts.last_problem)
		return 0;
	else if (e->chain && e->chain->fallback)
		len = disk_encode_bare(start_of(e->chain), bytes);
	if (len < 0)
		return 0;
	for (int try = 0; try < 2; try++) {
		if (f->disk == DISK_REPLACE)
			r = put_file(s, f);
		if (r == 0 && f->disk == DISK_HAS)
			r = s->ops->disk->put(
				s->userdata, f->disk_id, key->address, bytes, (size_t)len);
		if (r != -ESTALE)
			break;
		f->disk = DISK_REPLACE; /* it went for room or age, or all of it did */
		r = 0;
	}
	s->counters.to_disk += r == 0;
	return r;
}

/* One slice. What the disk refuses is not tried again. */
static void write_some(struct symbolizer *s)
{
	size_t n = MIN(s->disk_n, (size_t)WRITES_A_TURN);
	int r;

	if (!n)
		return;
	r = s->ops->disk->begin(s->userdata);
	for (size_t i = 0; i < n && r >= 0; i++)
		r = write_one(s, &s->disk_keys[s->disk_head + i]);
	if (r >= 0)
		r = s->ops->disk->commit(s->userdata);
	s->disk_head += n;
	s->disk_n -= n;
	if (!s->disk_n) {
		free(s->disk_keys);
		s->disk_keys = NULL;
		s->disk_head = s->disk_size = 0;
	}
}

static int on_write(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct symbolizer *s = userdata;

	write_some(s);
	/* The next slice after whatever else there is to do. */
	if (s->disk_n || s->ops->disk->tidy(s->userdata) > 0) {
		sd_event_source_set_time(source, usec);
		sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
	}
	return 0;
}

static void write_soon(struct symbolizer *s)
{
	uint64_t at = clock_monotonic_ns() / 1000 + WRITE_AFTER_US;
	int enabled = SD_EVENT_OFF;

	if (!s->disk_timer) {
		if (sd_event_add_time(
			    s->loop, &s->disk_timer, CLOCK_MONOTONIC, at, 250000, on_write, s) < 0)
			s->disk_timer = NULL;
		else
			sd_event_source_set_priority(s->disk_timer, SD_EVENT_PRIORITY_IDLE);
		return;
	}
	sd_event_source_get_enabled(s->disk_timer, &enabled);
	if (enabled != SD_EVENT_OFF)
		return;
	sd_event_source_set_time(s->disk_timer, at);
	sd_event_source_set_enabled(s->disk_timer, SD_EVENT_ONESHOT);
}

static int queue_write(struct symbolizer *s, uint32_t file, uint64_t address)
{
	if (s->disk_n >= WRITES_MAX)
		return -ENOBUFS;
	if (s->disk_head + s->disk_n == s->disk_size) {
		size_t size = s->disk_size ? s->disk_size * 2 : 256;
		struct symbol_key *grown;

		if (s->disk_head >= s->disk_n && s->disk_head) {
			memcpy(s->disk_keys, s->disk_keys + s->disk_head,
				s->disk_n * sizeof(*s->disk_keys));
			s->disk_head = 0;
		} else {
			grown = reallocarray(s->disk_keys, size, sizeof(*grown));
			if (!grown)
				return -ENOMEM;
			s->disk_keys = grown;
			s->disk_size = size;
		}
	}
	s->disk_keys[s->disk_head + s->disk_n++] =
		(struct symbol_key){.file = file, .address = address};
	return 0;
}

/* The symbolizer read the file afresh: may its names be kept, and do those from before still fit? */
static void check_source(struct symbolizer *s, struct symbol_file *f)
{
	uint64_t hash;

	f->disk_write = f->effort == EFFORT_ALL && is_kept(s, f) &&
		s->ops->disk->at_rest(s->userdata, f->id) > 0;
	if (f->disk_write && f->disk_mode != s->demangle)
		f->disk = DISK_REPLACE;
	f->disk_write = f->disk_write && make_key(s, f) == 0;
	if (!f->disk_write)
		return;
	hash = debug_files(s, f->id, &f->facts);
	if (f->disk != DISK_HAS || hash != f->disk_debug_files)
		f->disk = DISK_REPLACE;
	f->disk_debug_files = hash;
}

void disk_answered(struct symbolizer *s, struct symbol_file *f, size_t n)
{
	if (!s->ops->disk)
		return;
	if (s->current_had_fd)
		check_source(s, f);
	if (!f->disk_write || f->effort != EFFORT_ALL || s->current_demangle != s->demangle)
		return;
	if (f->disk_mode != s->demangle)
		look(s, f);
	for (size_t i = 0; i < n; i++)
		if (queue_write(s, f->id, s->current_addresses[i]) < 0)
			s->counters.not_to_disk++;
	if (s->disk_n)
		write_soon(s);
}

void disk_named(struct symbolizer *s, struct symbol_file *f, uint64_t address)
{
	if (!s->ops->disk || !f->disk_write || f->effort != EFFORT_ALL ||
		f->disk_mode != s->demangle)
		return;
	if (queue_write(s, f->id, address) < 0)
		s->counters.not_to_disk++;
	else
		write_soon(s);
}

void disk_outdated(struct symbol_file *f)
{
	if (f->disk == DISK_HAS)
		f->disk = DISK_REPLACE;
}

void disk_deinit(struct symbolizer *s)
{
	uint64_t until = clock_monotonic_ns() + NSEC_PER_SEC;

	while (s->disk_n && clock_monotonic_ns() < until)
		write_some(s);
	s->disk_timer = sd_event_source_disable_unref(s->disk_timer);
	free(s->disk_keys);
}
