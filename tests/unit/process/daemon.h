/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the tests of walks and of spaces share: a daemon's part (rows, what it is told), and samples as the
 * kernel sends them. The processes and their mappings are real, stacks are made: return addresses into real
 * text, one frame pointer above the other, and rows that say so. */

#include "tests/unit/process/harness.h"

#include "agentd/unwind/slot.h"

static struct fixture f;

/* ---- what the daemon does ------------------------------------------------------------------------------------- */

#define PAGES_MAX 64

static struct {
	struct {
		uint32_t file, page;
	} asked[PAGES_MAX];
	size_t n_asked, n_calls, n_waits;
	size_t n_ready; /* of the pages asked for so many are there; */
	bool ready;     /* or all */
	bool refuses;   /* there never will be any */
	struct rows_slot *slot;
	size_t n_space, n_reused, n_file_gone;
	struct sample_image space_of, reused_of;
	uint64_t reused_ns, reused_files, lost_ids[4];
	size_t n_lost_ids;
	bool unwanted;
} d;

/* CFA = fp + 16, return address and fp below it: for all of the page. */
static inline struct rows_slot *fp_slot(void)
{
	static const struct unwind_rule rule = {.cfa = UNWIND_CFA_FP,
		.flags = UNWIND_FP_SAVED,
		.cfa_offset = 16,
		.ra_offset = -1,
		.fp_offset = -2};
	struct rows_slot *slot = calloc(1, ROWS_SLOT_MAX);
	struct unwind_rule rules[UNWIND_FIXED_RULES + 1] = {{0}};
	struct unwind_page page = {.n = 1, .rule = {UNWIND_FIXED_RULES}};
	struct unwind_rules dictionary = {.rules = rules, .n = ARRAY_SIZE(rules)};
	size_t size;

	for (unsigned i = 0; i < UNWIND_FIXED_RULES; i++)
		rules[i].cfa = (uint8_t)i;
	rules[UNWIND_FIXED_RULES] = rule;
	size = rows_slot_pack(&page, &dictionary, slot, ROWS_SLOT_MAX);
	assert_int_equal(rows_slot_check(slot, size), 0);
	return slot;
}

static inline int rows(void *userdata, uint32_t file, uint32_t page, const struct rows_slot **ret)
{
	d.n_calls++;
	if (d.refuses)
		return -ENOENT;
	for (size_t i = 0; i < d.n_asked; i++)
		if (d.asked[i].file == file && d.asked[i].page == page) {
			*ret = d.slot;
			return d.ready || i < d.n_ready ? 0 : -EAGAIN;
		}
	assert_true(d.n_asked < PAGES_MAX);
	d.asked[d.n_asked].file = file;
	d.asked[d.n_asked++].page = page;
	return -EAGAIN;
}

static inline void on_space(void *userdata, struct image *image)
{
	d.n_space++;
	d.space_of = image->key;
}

static inline void on_reused(void *userdata, struct image *image, uint64_t time_ns, uint64_t files)
{
	d.n_reused++;
	d.reused_of = image->key;
	d.reused_ns = time_ns;
	d.reused_files = files;
}

static inline void on_file_gone(void *userdata, uint32_t file)
{
	d.n_file_gone++;
}

static inline void on_lost_id(void *userdata, uint64_t id)
{
	d.lost_ids[d.n_lost_ids++ % ARRAY_SIZE(d.lost_ids)] = id;
}

static inline bool wanted(void *userdata, struct image *image)
{
	assert_ptr_equal(image->assignment, userdata);
	return !d.unwanted;
}

static const struct process_ops ops = {.rows = rows,
	.on_space = on_space,
	.on_reused = on_reused,
	.on_file_gone = on_file_gone,
	.on_lost_id = on_lost_id,
	.wanted = wanted};

static inline int setup_with(const struct process_config *config)
{
	memset(&d, 0, sizeof(d));
	d.slot = fp_slot();
	fixture_start_with(&f, config, &ops);
	return 0;
}

static inline int setup(void **state)
{
	return setup_with(NULL);
}

static inline int teardown(void **state)
{
	fixture_stop(&f);
	free(d.slot);
	return 0;
}

/* Rows of all that was asked for, until nothing more is. */
static inline void rows_come(void)
{
	size_t before;

	d.ready = true;
	do {
		before = d.n_asked;
		process_rows_ready(f.table);
	} while (d.n_asked > before);
}

/* ---- samples -------------------------------------------------------------------------------------------------- */

#define STACK 0x7ffc00001000ULL

struct made {
	struct sample_image key;
	uint64_t time_ns, id, pc;
	const uint64_t *returns; /* n of them, then a return address 0 */
	size_t n;
	enum walk_end end;
	bool slice;
	uint32_t space, slice_bytes; /* more bytes than it needs */
	const struct sample_frame *frames;
	size_t n_frames;
	uint16_t guessed;
};

/* As the kernel sends it: frames, then the walk's state and the stack. */
static inline void send_made(const struct made *m)
{
	size_t frames = m->n_frames * sizeof(*m->frames);
	uint32_t words = (uint32_t)(2 * (m->n + 1)), len = words * 8 + m->slice_bytes;
	size_t stack = m->slice ? sizeof(struct sample_stack) + len : 0;
	struct record_sample *s = calloc(1, sizeof(*s) + frames + stack);
	struct sampler_event event = {.kind = SAMPLER_SAMPLE, .time_ns = m->time_ns, .sample = s};

	s->header = (struct record_header){.kind = RECORD_SAMPLE,
		.version = SAMPLE_VERSION,
		.time = m->time_ns,
		.size = (uint32_t)(sizeof(*s) + frames + stack)};
	s->image = m->key;
	s->tid = m->key.tgid;
	s->n_frames = (uint16_t)m->n_frames;
	s->value = 10101010;
	s->count = 1;
	s->id = m->id;
	s->end = (uint8_t)m->end;
	s->guessed = m->guessed;
	s->space = m->space;
	s->stack = (uint32_t)stack;
	if (frames)
		memcpy(s->frames, m->frames, frames);
	if (m->slice) {
		struct sample_stack *to = (void *)&s->frames[m->n_frames];
		struct unwind_regs regs = {
			.pc = m->pc, .sp = STACK, .fp = STACK, .flags = UNWIND_REGS_LEAF};

		memcpy(to->state, &regs, sizeof(regs));
		to->start = STACK;
		to->len = len;
		to->present = ~0U;
		for (size_t i = 0; i <= m->n; i++) {
			uint64_t pair[2] = {STACK + 16 * (i + 1), i < m->n ? m->returns[i] : 0};

			memcpy(to->bytes + 16 * i, pair, sizeof(pair));
		}
	}
	process_on_event(f.table, &event);
	free(s);
}

static inline struct procfs_map map_of(pid_t pid, const char *end)
{
	struct procfs_map m;

	if (!find_mapping(pid, end, &m, NULL, 0))
		fail_msg("no mapping of %s in %d", end, pid);
	return m;
}

static inline struct process_counters counters(void)
{
	struct process_counters n;

	process_counters(f.table, &n);
	return n;
}

static inline size_t space_of(struct sample_image key, struct space_map *maps)
{
	struct image *image = process_find(f.table, &key);

	assert_non_null(image);
	return process_space(f.table, image, maps, 4096);
}

static inline void space_set(struct sample_image key, uint32_t tag)
{
	process_space_set(f.table, process_find(f.table, &key), tag);
}

static inline const struct space_map *map_at(
	const struct space_map *maps, size_t n, uint64_t address)
{
	for (size_t i = 0; i < n; i++)
		if (address - maps[i].start < maps[i].end - maps[i].start)
			return &maps[i];
	return NULL;
}

static struct space_map maps[4096];

static inline void sorted(size_t n)
{
	for (size_t i = 0; i < n; i++) {
		assert_true(maps[i].start < maps[i].end);
		assert_true(i == 0 || maps[i - 1].end <= maps[i].start);
		assert_int_equal(maps[i].kind == SPACE_UNKNOWN, maps[i].file == 0);
		if (maps[i].kind != SPACE_FILE)
			assert_int_equal(maps[i].bias, 0);
	}
}

/* ---- the workload ---------------------------------------------------------------------------------------------- */

static inline int child_main(const char *mode)
{
	if (streq(mode, "anon"))
		(void)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (streq(mode, "fork") && fork() == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause();
	}
	if (streq(mode, "memfd")) {
		int fd = memfd_create("odi-walks", MFD_CLOEXEC);

		if (fd < 0 || ftruncate(fd, 8192) < 0 ||
			mmap(NULL, 8192, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) == MAP_FAILED)
			_exit(9);
		close(fd);
	}
	child_ready();
	child_wait();
	pause();
	return 0;
}
