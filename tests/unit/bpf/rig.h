/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The sampling programs without the sampler: their maps filled by the test itself, from real files
 * by agentd/unwind or with whatever the test likes; clocks on the CPUs; every record kept. */

#include <fcntl.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <cmocka.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "agentd/base/macros.h"
#include "agentd/elf/elf_file.h"
#include "agentd/unwind/slot.h"
#include "bpf/sampler.skel.h"

#define RIG_ROWS   (16U << 20)
#define RIG_BITS   10
#define RIG_SPACES 4096
#define RIG_FILES  64

/* Turns of 10 ms: what does not come meanwhile does not come at all. */
#define RIG_PATIENCE 6000

struct rig_file {
	char path[200];
	uint64_t inode;
};

struct rig {
	struct sampler_bpf *k;
	struct ring_buffer *ring;
	unsigned cpus;
	int *clocks; /* a CPU */
	uint8_t *rows;
	struct rows_set *index;
	struct space_map *spaces;
	struct count_table *counts;
	struct sample_counters *counters;
	uint32_t unit, space_unit, serial, tag;
	struct rig_file files[RIG_FILES]; /* id: index + 1 */
	unsigned n_files;
	struct record_sample **records;
	size_t n, size;
	pid_t only; /* records of other processes are not kept; 0: all are */
	pid_t task; /* not 0: its clock ticks, not those of the CPUs */
};

struct rig_config {
	uint32_t max_user, stack_bytes, slices_a_second, ring_bytes;
	bool no_kernel;
};

static void *rig_map(const struct bpf_map *map)
{
	size_t size = (size_t)bpf_map__value_size(map) * bpf_map__max_entries(map);
	void *at = mmap(NULL, (size + 4095) & ~(size_t)4095, PROT_READ | PROT_WRITE, MAP_SHARED,
		bpf_map__fd(map), 0);

	assert_true(at != MAP_FAILED);
	return at;
}

static int rig_on_record(void *userdata, void *data, size_t size)
{
	struct rig *g = userdata;
	const struct record_header *h = data;
	struct record_sample *copy;

	assert_true(size >= sizeof(*h) && h->size == size);
	if (h->kind != RECORD_SAMPLE)
		return 0;
	copy = data;
	assert_int_equal(
		size, sizeof(*copy) + copy->n_frames * sizeof(copy->frames[0]) + copy->stack);
	if (g->only && (pid_t)copy->image.tgid != g->only)
		return 0;
	if (g->n == g->size) {
		g->size = g->size ? 2 * g->size : 256;
		g->records = reallocarray(g->records, g->size, sizeof(*g->records));
		assert_non_null(g->records);
	}
	copy = malloc(size);
	assert_non_null(copy);
	memcpy(copy, data, size);
	g->records[g->n++] = copy;
	return 0;
}

static int rig_silent(enum libbpf_print_level level, const char *format, va_list ap)
{
	return level == LIBBPF_WARN ? vfprintf(stderr, format, ap) : 0;
}

static void rig_open(struct rig *g, const struct rig_config *config)
{
	*g = (struct rig){.unit = 1, .space_unit = 1, .tag = 1};
	libbpf_set_print(rig_silent);
	g->cpus = (unsigned)libbpf_num_possible_cpus();
	g->clocks = malloc(g->cpus * sizeof(*g->clocks));
	assert_non_null(g->clocks);
	for (unsigned i = 0; i < g->cpus; i++)
		g->clocks[i] = -1;
	g->k = sampler_bpf__open();
	assert_non_null(g->k);
	g->k->rodata->max_user_frames = config->max_user ? config->max_user : SAMPLE_DEFAULT_USER;
	g->k->rodata->index_bits = RIG_BITS;
	g->k->rodata->spaces_mask = RIG_SPACES - 1;
	g->k->rodata->stack_bytes = config->stack_bytes ? config->stack_bytes : 32 << 10;
	g->k->rodata->hash_key[0] = 0x1234567;
	g->k->rodata->hash_key[1] = 0x89abcdef;
	g->k->data->settings.slices_a_second = config->slices_a_second;
	g->k->data->settings.kernel_frames = !config->no_kernel;
	g->k->data->settings.space_generation = 7;

	bpf_program__set_autoload(g->k->progs.follow_exec, false);
	bpf_program__set_autoload(g->k->progs.follow_fork, false);
	bpf_program__set_autoload(g->k->progs.follow_exit, false);
	bpf_program__set_autoload(g->k->progs.follow_cgroup, false);
	if (config->ring_bytes)
		assert_int_equal(bpf_map__set_max_entries(g->k->maps.ring, config->ring_bytes), 0);
	assert_int_equal(bpf_map__set_max_entries(g->k->maps.counters, g->cpus), 0);
	assert_int_equal(bpf_map__set_max_entries(g->k->maps.scratch, g->cpus), 0);
	assert_int_equal(bpf_map__set_max_entries(g->k->maps.counts, g->cpus), 0);
	assert_int_equal(
		bpf_map__set_max_entries(g->k->maps.rows, RIG_ROWS >> ROWS_CHUNK_SHIFT), 0);
	assert_int_equal(bpf_map__set_max_entries(g->k->maps.rows_index, 1 << RIG_BITS), 0);
	assert_int_equal(
		bpf_map__set_value_size(g->k->maps.spaces, RIG_SPACES * sizeof(struct space_map)),
		0);
	assert_int_equal(sampler_bpf__load(g->k), 0);
	g->rows = rig_map(g->k->maps.rows);
	g->index = rig_map(g->k->maps.rows_index);
	g->spaces = rig_map(g->k->maps.spaces);
	g->counts = rig_map(g->k->maps.counts);
	g->counters = rig_map(g->k->maps.counters);
	g->ring = ring_buffer__new(bpf_map__fd(g->k->maps.ring), rig_on_record, g, NULL);
	assert_non_null(g->ring);
}

static inline void rig_drop_records(struct rig *g)
{
	(void)ring_buffer__consume(g->ring);
	for (size_t i = 0; i < g->n; i++)
		free(g->records[i]);
	g->n = 0;
}

static void rig_unmap(void *at, const struct bpf_map *map)
{
	size_t size = (size_t)bpf_map__value_size(map) * bpf_map__max_entries(map);

	munmap(at, (size + 4095) & ~(size_t)4095);
}

static void rig_close(struct rig *g)
{
	for (unsigned i = 0; i < g->cpus; i++)
		if (g->clocks[i] >= 0)
			close(g->clocks[i]);
	free(g->clocks);
	rig_drop_records(g);
	free(g->records);
	ring_buffer__free(g->ring);
	rig_unmap(g->rows, g->k->maps.rows);
	rig_unmap(g->index, g->k->maps.rows_index);
	rig_unmap(g->spaces, g->k->maps.spaces);
	rig_unmap(g->counts, g->k->maps.counts);
	rig_unmap(g->counters, g->k->maps.counters);
	sampler_bpf__destroy(g->k);
}

static void rig_start(struct rig *g, unsigned rate_hz)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE,
		.size = sizeof(attr),
		.config = PERF_COUNT_SW_CPU_CLOCK,
		.sample_period = 1000000000ULL / rate_hz};
	struct bpf_program *p = g->k->progs.sample_cpu;

	for (unsigned i = 0; i < (g->task ? 1 : g->cpus); i++) {
		int fd = (int)syscall(SYS_perf_event_open, &attr, g->task ? g->task : -1,
			g->task ? -1 : (int)i, -1, PERF_FLAG_FD_CLOEXEC);

		if (fd < 0)
			continue; /* not online */
		assert_int_equal(ioctl(fd, PERF_EVENT_IOC_SET_BPF, bpf_program__fd(p)), 0);
		assert_int_equal(ioctl(fd, PERF_EVENT_IOC_ENABLE, 0), 0);
		g->clocks[i] = fd;
	}
}

static void rig_stop(struct rig *g)
{
	for (unsigned i = 0; i < g->cpus; i++)
		if (g->clocks[i] >= 0) {
			close(g->clocks[i]);
			g->clocks[i] = -1;
		}
	(void)ring_buffer__consume(g->ring);
}

static inline uint64_t rig_counter(const struct rig *g, enum sample_counter which)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < g->cpus; i++)
		sum += __atomic_load_n(&g->counters[i].of[which], __ATOMIC_RELAXED);
	return sum;
}

static inline void rig_run(struct rig *g, unsigned ms)
{
	for (unsigned i = 0; i < ms; i += 10) {
		struct timespec t = {.tv_nsec = 10000000};

		nanosleep(&t, NULL);
		(void)ring_buffer__consume(g->ring);
	}
}

/* Until n records are there that have a slice, or all, if that is wanted; however busy this host is. */
static inline void rig_await(struct rig *g, size_t n, bool with_slice)
{
	size_t found = 0, at = 0;

	for (unsigned i = 0; i < RIG_PATIENCE && found < n; i++) {
		rig_run(g, 10);
		for (; at < g->n; at++)
			found += !with_slice || g->records[at]->stack;
	}
	assert_true(found >= n);
}

/* ---- rows
 * -------------------------------------------------------------------------------------------------- */

/* Enters a slot; its key and seq are set. */
static void rig_add_slot(
	struct rig *g, uint32_t file, uint32_t page, const struct rows_slot *slot, size_t size)
{
	uint64_t key = ROWS_KEY(file, page);
	struct rows_set *set = &g->index[ROWS_SET(key, RIG_BITS)];
	uint32_t units = (uint32_t)(size + ROWS_UNIT - 1) / ROWS_UNIT;
	const uint32_t chunk = ROWS_CHUNK / ROWS_UNIT;
	struct rows_slot *to;

	if (g->unit / chunk != (g->unit + units - 1) / chunk)
		g->unit = (g->unit / chunk + 1) * chunk;
	assert_true((g->unit + units) * (size_t)ROWS_UNIT <= RIG_ROWS);
	to = (struct rows_slot *)(g->rows + (size_t)g->unit * ROWS_UNIT);
	memcpy(to, slot, size);
	to->key = key;
	to->seq = g->unit;
	for (unsigned i = 0; i < ROWS_WAYS; i++)
		if (!set->way[i].key || i == ROWS_WAYS - 1) {
			set->way[i].unit = g->unit;
			set->way[i].key = key;
			break;
		}
	g->unit += units;
}

/* All pages of a file that the range of file offsets touches. */
static void rig_add_rows(struct rig *g, uint32_t file, const char *path, uint64_t from, uint64_t to)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct elf_file *elf = NULL;
	struct unwind_file *f = NULL;
	struct unwind_page *page = malloc(sizeof(*page));
	struct rows_slot *slot = malloc(ROWS_SLOT_MAX);
	struct err_text err;

	assert_true(fd >= 0 && page && slot);
	if (elf_file_open(&elf, fd, &err) < 0 || unwind_file_open(&f, elf, &err) < 0)
		fail_msg("%s: %s", path, err.text);
	for (uint64_t p = from >> UNWIND_PAGE_SHIFT; p <= (to - 1) >> UNWIND_PAGE_SHIFT; p++) {
		struct unwind_rules rules;

		assert_int_equal(unwind_rules_init(&rules), 0);
		if (unwind_file_page(f, (uint32_t)p, &rules, page) == 0) {
			size_t size = rows_slot_pack(page, &rules, slot, ROWS_SLOT_MAX);

			assert_int_equal(rows_slot_check(slot, size), 0);
			rig_add_slot(g, file, (uint32_t)p, slot, size);
		}
		unwind_rules_deinit(&rules);
	}
	unwind_file_close(f);
	elf_file_close(elf);
	close(fd);
	free(page);
	free(slot);
}

/* ---- spaces
 * ------------------------------------------------------------------------------------------------ */

static uint32_t rig_file(struct rig *g, const char *path, bool *new)
{
	*new = false;
	for (unsigned i = 0; i < g->n_files; i++)
		if (streq(g->files[i].path, path))
			return i + 1;
	assert_true(g->n_files < RIG_FILES);
	*new = true;
	snprintf(g->files[g->n_files].path, sizeof(g->files[0].path), "%s", path);
	return ++g->n_files;
}

/* A copy of the vDSO, which is the same in every process: arm64's signal handlers return to it. */
static int rig_vdso(unsigned long long from, unsigned long long to, char *path, size_t size)
{
	const uint8_t *own = (const uint8_t *)getauxval(AT_SYSINFO_EHDR);
	int fd = memfd_create("vdso", MFD_CLOEXEC);

	assert_true(fd >= 0 && own);
	assert_int_equal(write(fd, own, to - from), (ssize_t)(to - from));
	snprintf(path, size, "/proc/self/fd/%d", fd);
	return fd;
}

/* What a process has mapped executable, from /proc; with_rows: its files' rows are loaded, too. The
 * number of maps. */
static uint32_t rig_read_maps(
	struct rig *g, pid_t pid, struct space_map *maps, uint32_t max, bool with_rows)
{
	char name[64], line[600], path[400];
	uint32_t n = 0;
	FILE *f;

	snprintf(name, sizeof(name), "/proc/%d/maps", (int)pid);
	f = fopen(name, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long long start, end, offset, inode;
		char perm[8];
		bool new = false;

		path[0] = 0;
		if (sscanf(line, "%llx-%llx %7s %llx %*s %llu %399[^\n]", &start, &end, perm,
			    &offset, &inode, path) < 5 ||
			perm[2] != 'x' || streq(path, "[vsyscall]"))
			continue;
		assert_true(n < max);
		maps[n] = (struct space_map){.start = start, .end = end, .kind = SPACE_ANON};
		if (streq(path, "[vdso]")) {
			int fd = rig_vdso(start, end, path, sizeof(path));

			maps[n].kind = SPACE_FILE;
			maps[n].bias = -start;
			maps[n].file = rig_file(g, "[vdso]", &new);
			if (with_rows && new)
				rig_add_rows(g, maps[n].file, path, 0, end - start);
			close(fd);
		} else if (inode) {
			maps[n].kind = SPACE_FILE;
			maps[n].bias = offset - start;
			maps[n].file = rig_file(g, path, &new);
			if (with_rows && new)
				rig_add_rows(g, maps[n].file, path, offset, offset + (end - start));
		}
		n++;
	}
	fclose(f);
	return n;
}

/* A verdict that counts, with a space of these maps; n 0: none. Its tag. */
static uint32_t rig_set_space(struct rig *g, const struct sample_image *image,
	const struct space_map *maps, uint32_t n, uint16_t flags)
{
	struct sample_verdict v = {.types = 1 << SAMPLE_TYPE_CPU,
		.generation = 1,
		.flags = flags,
		.serial = ++g->serial,
		.space_generation = 7};

	if (n) {
		struct space_head *head = (struct space_head *)&g->spaces[g->space_unit];

		assert_true(g->space_unit + n + 1 <= RIG_SPACES);
		memcpy(head + 1, maps, n * sizeof(*maps));
		head->n = n;
		g->tag += 2;
		__atomic_store_n(&head->tag, g->tag, __ATOMIC_RELEASE);
		v.space = g->space_unit;
		v.space_tag = g->tag;
		g->space_unit += n + 1;
	}
	assert_int_equal(
		bpf_map_update_elem(bpf_map__fd(g->k->maps.verdicts), image, &v, BPF_ANY), 0);
	return v.space_tag;
}

/* Samples until one of the process comes, of which nothing was known. */
static struct sample_image rig_meet(struct rig *g, pid_t pid)
{
	g->only = pid;
	rig_await(g, 1, false);
	return g->records[0]->image;
}
