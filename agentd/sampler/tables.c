/* SPDX-License-Identifier: Apache-2.0 */

/* The memory that the programs and we share: how large it is, said before they are loaded, and
 * where it lies in this process, afterwards.
 *
 * All of it is arrays that are mapped (BPF_F_MMAPABLE): neither side needs a system call to look or
 * to write. Sizes are decided once; nothing of it grows. An index or a mask that the verifier must
 * know is read-only data of the programs. Runs in agentd. */

#include <sys/mman.h>
#include <sys/random.h>
#include <bpf/libbpf.h>
#include "agentd/sampler/internal.h"

static size_t page_up(size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	return (size + page - 1) & ~(page - 1);
}

/* A key for the programs' hash of stacks, another one with each load. */
static int set_hash_key(struct sampler *s)
{
	uint64_t key[2];

	if (getrandom(key, sizeof(key), 0) != sizeof(key))
		return -errno;
	memcpy((void *)s->skel->rodata->hash_key, key, sizeof(key));
	explicit_bzero(key, sizeof(key));
	return 0;
}

int tables_size(struct sampler *s)
{
	struct sampler_bpf *k = s->skel;
	uint32_t cpus = (uint32_t)s->n_cpus, bits = rows_index_bits(s->config.rows_bytes);
	int r;

	k->rodata->max_user_frames = s->config.max_user_frames;
	k->rodata->index_bits = bits;
	k->rodata->spaces_mask = SPACE_UNITS - 1;
	k->rodata->stack_bytes = (uint32_t)s->config.stack_bytes;
	r = set_hash_key(s);
	if (r >= 0)
		r = bpf_map__set_max_entries(k->maps.ring, (uint32_t)s->config.ring_bytes);
	if (r >= 0)
		r = bpf_map__set_max_entries(k->maps.verdicts, s->config.max_verdicts);
	if (r >= 0)
		r = bpf_map__set_max_entries(k->maps.counters, cpus);
	if (r >= 0)
		r = bpf_map__set_max_entries(k->maps.counts, cpus);
	if (r >= 0)
		r = bpf_map__set_max_entries(k->maps.scratch, cpus);
	if (r >= 0)
		r = bpf_map__set_max_entries(
			k->maps.rows, (uint32_t)(s->config.rows_bytes >> ROWS_CHUNK_SHIFT));
	if (r >= 0)
		r = bpf_map__set_max_entries(k->maps.rows_index, 1U << bits);
	if (r >= 0)
		r = bpf_map__set_value_size(
			k->maps.spaces, SPACE_UNITS * (uint32_t)sizeof(struct space_map));
	return r;
}

static int map_one(struct sampler *s, const struct bpf_map *map, struct shared *ret, int prot,
	struct err_text *err)
{
	size_t size = page_up((size_t)bpf_map__value_size(map) * bpf_map__max_entries(map));
	void *at = mmap(NULL, size, prot, MAP_SHARED, bpf_map__fd(map), 0);

	if (at == MAP_FAILED)
		return err_set(err, -errno, "cannot map %s of the sampling programs: %m",
			bpf_map__name(map));
	*ret = (struct shared){.at = at, .size = size};
	return 0;
}

/* The first two pages of a ring. libbpf has mapped them, too, but does not say what is in them (before
 * 1.3). */
static int map_ring(struct sampler *s, const struct bpf_map *map, struct err_text *err)
{
	size_t size = 2 * (size_t)sysconf(_SC_PAGESIZE);
	void *at = mmap(NULL, size, PROT_READ, MAP_SHARED, bpf_map__fd(map), 0);

	if (at == MAP_FAILED)
		return err_set(err, -errno, "cannot map the positions of the samples' ring: %m");
	s->shared[SHARED_RING] = (struct shared){.at = at, .size = size};
	return 0;
}

static int init_tables(struct sampler *s)
{
	int r = quiet_init(&s->quiet, s->counts, s->n_cpus);

	if (r >= 0)
		r = quiet_init(&s->halves.quiet, s->counts, s->n_cpus);
	if (r >= 0)
		r = rows_init(&s->rows, s->shared[SHARED_ROWS].at, s->config.rows_bytes,
			s->shared[SHARED_INDEX].at, rows_index_bits(s->config.rows_bytes),
			&s->quiet);
	if (r >= 0)
		r = spaces_init(&s->spaces, s->shared[SHARED_SPACES].at, SPACE_UNITS,
			s->config.max_verdicts, &s->quiet);
	if (r < 0)
		return r;
	s->halves.tables = s->shared[SHARED_COUNTS].at;
	s->halves.left = calloc(s->n_cpus, sizeof(*s->halves.left));
	return s->halves.left ? 0 : -ENOMEM;
}

int tables_map(struct sampler *s, struct err_text *err)
{
	const struct sampler_bpf *k = s->skel;
	const int both = PROT_READ | PROT_WRITE;
	int r;

	r = map_one(s, k->maps.counters, &s->shared[SHARED_COUNTERS], PROT_READ, err);
	if (r >= 0)
		r = map_one(s, k->maps.counts, &s->shared[SHARED_COUNTS], both, err);
	if (r >= 0)
		r = map_one(s, k->maps.rows, &s->shared[SHARED_ROWS], both, err);
	if (r >= 0)
		r = map_one(s, k->maps.rows_index, &s->shared[SHARED_INDEX], both, err);
	if (r >= 0)
		r = map_one(s, k->maps.spaces, &s->shared[SHARED_SPACES], both, err);
	if (r >= 0)
		r = map_ring(s, k->maps.ring, err);
	if (r < 0)
		return r;
	s->counts = s->shared[SHARED_COUNTERS].at;
	r = init_tables(s);
	return r < 0 ? err_set(err, r, "out of memory") : 0;
}

void tables_unmap(struct sampler *s)
{
	spaces_deinit(&s->spaces);
	rows_deinit(&s->rows);
	quiet_deinit(&s->quiet);
	quiet_deinit(&s->halves.quiet);
	free(s->halves.left);
	for (size_t i = 0; i < ARRAY_SIZE(s->shared); i++)
		if (s->shared[i].at)
			munmap(s->shared[i].at, s->shared[i].size);
}

void tables_features(struct sampler *s)
{
	const struct sampler_config *c = &s->config;

	preflight_feature(
		s, "user stacks: by rows in the kernel, up to %u frames", c->max_user_frames);
	preflight_feature(s, "rows: %zu MiB for pages of text, address spaces: %zu KiB",
		c->rows_bytes >> 20, SPACE_UNITS * sizeof(struct space_map) >> 10);
	preflight_feature(s, "slices of stacks: up to %zu KiB, %u a second and CPU",
		c->stack_bytes >> 10, c->slices_a_second);
	preflight_feature(s, "ring: %zu KiB; counts of stacks: %zu KiB a CPU", c->ring_bytes >> 10,
		sizeof(struct count_table) >> 10);
}
