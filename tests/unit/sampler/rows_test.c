/* SPDX-License-Identifier: Apache-2.0 */

/* The arena of rows on plain memory: against a model under random work, by the clock, with a CPU
 * that does not leave, and with a reader on another thread that goes by the programs' rules. */

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "agentd/sampler/rows.h"
#include "agentd/unwind/slot.h"

#define BYTES (2U << 20) /* two chunks */
#define UNITS (BYTES / ROWS_UNIT)
#define CHUNK (ROWS_CHUNK / ROWS_UNIT)

struct arena {
	void *bytes;
	struct rows_set *sets;
	struct sample_counters cpu[2];
	struct quiet quiet;
	struct rows rows;
};

static uint64_t seed = 88172645463325252ULL;

static uint32_t below(uint32_t n)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (uint32_t)(seed >> 16) % n;
}

static void arena_open(struct arena *a)
{
	unsigned bits = rows_index_bits(BYTES);

	memset(a, 0, sizeof(*a));
	a->bytes = aligned_alloc(4096, BYTES);
	a->sets = aligned_alloc(64, sizeof(*a->sets) << bits);
	assert_true(a->bytes && a->sets);
	memset(a->bytes, 0, BYTES);
	memset(a->sets, 0, sizeof(*a->sets) << bits);
	assert_int_equal(quiet_init(&a->quiet, a->cpu, 2), 0);
	assert_int_equal(rows_init(&a->rows, a->bytes, BYTES, a->sets, bits, &a->quiet), 0);
}

static void arena_close(struct arena *a)
{
	rows_deinit(&a->rows);
	quiet_deinit(&a->quiet);
	free(a->bytes);
	free(a->sets);
}

static union {
	struct rows_slot slot;
	uint8_t bytes[ROWS_SLOT_MAX];
} page __attribute__((aligned(16)));

/* A page in which every rule behind the fixed ones says which page it is, and which version. */
static size_t make_page(
	uint32_t file, uint32_t number, uint32_t version, uint32_t n_rows, uint32_t n_rules)
{
	uint16_t *pc = (uint16_t *)(&page.slot + 1), *rule = pc + n_rows;
	struct unwind_rule *rules;
	uint32_t at = (uint32_t)(sizeof(page.slot) + n_rows * 4 + 15) & ~15U;

	memset(page.bytes, 0, at);
	page.slot.n_rows = n_rows;
	page.slot.n_rules = n_rules;
	page.slot.rules_at = at;
	page.slot.size = at + n_rules * (uint32_t)sizeof(*rules);
	rules = (struct unwind_rule *)(page.bytes + at);
	for (uint32_t i = 0; i < n_rows; i++) {
		pc[i] = (uint16_t)(i * (65536 / n_rows));
		rule[i] = (uint16_t)(UNWIND_FIXED_RULES + i % (n_rules - UNWIND_FIXED_RULES));
		for (uint32_t part = 0; part <= ROWS_PARTS; part++)
			if (pc[i] <= part << ROWS_PART_SHIFT)
				page.slot.part[part] = (uint16_t)i;
	}
	memset(rules, 0, n_rules * sizeof(*rules));
	for (uint32_t i = 0; i < n_rules; i++) {
		rules[i].cfa = (uint8_t)(i < UNWIND_FIXED_RULES ? i : UNWIND_CFA_SP);
		if (i >= UNWIND_FIXED_RULES)
			rules[i].cfa_offset = (unwind_s32)(file * 1000003 + number * 101 + version);
	}
	assert_int_equal(rows_slot_check(&page.slot, page.slot.size), 0);
	return page.slot.size;
}

static bool is_page(const struct rows_slot *slot, uint32_t file, uint32_t number, uint32_t version)
{
	unwind_s32 says = (unwind_s32)(file * 1000003 + number * 101 + version);

	if (slot->key != ROWS_KEY(file, number) || rows_slot_check(slot, slot->size) < 0)
		return false;
	for (uint32_t at = 0; at < 65536; at += 997)
		if (rows_slot_rule(slot, at)->cfa_offset != says)
			return false;
	return true;
}

/* What must hold at any time. */
static void check_arena(const struct arena *a)
{
	const struct rows *r = &a->rows;
	uint32_t at = 0, pages = 0, free_units = 0;
	uint64_t bytes = 0, ways = 0;
	bool hand = false;

	while (at < UNITS) {
		const struct rows_slot *slot =
			(void *)((uint8_t *)a->bytes + (size_t)at * ROWS_UNIT);
		uint32_t n = r->len[at];

		hand |= at == r->hand;
		if (!n) {
			free_units++;
			at++;
			continue;
		}
		assert_in_range(n, 1, 97);
		assert_int_equal(at / CHUNK, (at + n - 1) / CHUNK);
		assert_int_equal((slot->size + ROWS_UNIT - 1) / ROWS_UNIT, n);
		assert_true(slot->key && slot->seq);
		for (uint32_t i = 1; i < n; i++)
			assert_int_equal(r->len[at + i], 255);
		bytes += slot->size;
		pages++;
		at += n;
	}
	assert_int_equal(at, UNITS);
	assert_true(hand);
	for (size_t i = 0; i < (size_t)1 << r->bits; i++) {
		for (unsigned j = 0; j < ROWS_WAYS; j++) {
			const struct rows_way *way = &a->sets[i].way[j];
			const struct rows_slot *slot;

			if (!way->key)
				continue;
			slot = (void *)((uint8_t *)a->bytes + (size_t)way->unit * ROWS_UNIT);
			assert_int_equal(ROWS_SET(way->key, r->bits), i);
			assert_true(slot->key == way->key && r->len[way->unit] < 255);
			ways++;
		}
	}
	assert_int_equal(ways, pages);
	assert_int_equal(r->pages, pages);
	assert_int_equal(r->used_bytes, bytes);
	assert_int_equal(r->free_units, free_units);
}

enum { FILES = 12, PAGES = 120 };

static void test_model(void **state)
{
	static uint32_t version[FILES][PAGES]; /* last one added; 0: none, or forgotten */
	struct arena a;
	uint64_t adds = 0;

	memset(version, 0, sizeof(version));
	arena_open(&a);
	for (uint32_t step = 1; step <= 20000; step++) {
		uint32_t f = below(FILES), p = below(PAGES), what = below(100);
		const struct rows_slot *slot;

		if (what < 40) {
			/* Mostly as real ones are, some of one unit, some of the largest. */
			uint32_t kind = below(20), n = kind ? 1 + below(1500) : 1 + below(ROWS_MAX);
			size_t size = make_page(f + 1, p, step, kind == 1 ? 1 : n,
				5 + below(kind ? 60 : ROWS_RULES_MAX - 5));

			assert_int_equal(rows_add(&a.rows, f + 1, p, &page, size), 0);
			version[f][p] = step;
			adds++;
			slot = rows_find(&a.rows, f + 1, p);
			assert_true(slot && is_page(slot, f + 1, p, step));
		} else if (what < 99) {
			slot = rows_find(&a.rows, f + 1, p);
			if (slot)
				assert_true(
					version[f][p] && is_page(slot, f + 1, p, version[f][p]));
		} else if (below(4) == 0) {
			rows_forget_file(&a.rows, f + 1);
			memset(version[f], 0, sizeof(version[f]));
			for (p = 0; p < PAGES; p++)
				assert_null(rows_find(&a.rows, f + 1, p));
		}
		if (step % 50 == 0)
			check_arena(&a);
	}
	assert_int_equal(a.rows.added, adds);
	assert_true(a.rows.evicted > adds / 4);
	arena_close(&a);
}

static void test_clock(void **state)
{
	enum { HOT = 100, COLD = 4 * UNITS / 2 };
	struct arena a;
	uint32_t lost = 0;
	size_t size;

	arena_open(&a);
	for (uint32_t p = 0; p < HOT; p++) {
		size = make_page(1, p, 0, 300, 20);
		assert_int_equal(rows_add(&a.rows, 1, p, &page, size), 0);
		assert_non_null(rows_find(&a.rows, 1, p));
	}
	/* Nothing goes before the arena has been full, but for the few that meet in one set. */
	for (uint32_t p = 0; a.rows.free_units > UNITS / 16; p++) {
		size = make_page(2, p, 0, 300, 20);
		assert_int_equal(rows_add(&a.rows, 2, p, &page, size), 0);
	}
	assert_true(a.rows.evicted < a.rows.added / 50);
	/* What is looked at stays, though four times as much comes and goes. */
	for (uint32_t p = 0; p < COLD; p++) {
		size = make_page(3, p, 0, 300, 20);
		assert_int_equal(rows_add(&a.rows, 3, p, &page, size), 0);
		if (p % (UNITS / 8) == 0)
			for (uint32_t h = 0; h < HOT; h++)
				(void)rows_find(&a.rows, 1, h);
	}
	for (uint32_t h = 0; h < HOT; h++)
		lost += !rows_find(&a.rows, 1, h);
	assert_true(lost < HOT / 20); /* too many keys met in one set */
	assert_null(rows_find(&a.rows, 2, 0));
	check_arena(&a);
	arena_close(&a);
}

/* Everything marked: the hand still ends, and finds room. */
static void test_all_marked(void **state)
{
	struct arena a;
	size_t size;

	arena_open(&a);
	for (uint32_t p = 0; p < 3 * UNITS; p++) {
		size = make_page(1, p, 0, 1, 5);
		assert_int_equal(rows_add(&a.rows, 1, p, &page, size), 0);
	}
	for (size_t i = 0; i < (size_t)1 << a.rows.bits; i++)
		for (unsigned j = 0; j < ROWS_WAYS; j++)
			a.sets[i].way[j].used = 1;
	size = make_page(2, 0, 0, ROWS_MAX, ROWS_RULES_MAX);
	assert_int_equal(size, ROWS_SLOT_MAX);
	assert_int_equal(rows_add(&a.rows, 2, 0, &page, size), 0);
	assert_true(is_page(rows_find(&a.rows, 2, 0), 2, 0, 0));
	check_arena(&a);
	arena_close(&a);
}

static void test_refused(void **state)
{
	struct arena a;
	size_t size;

	arena_open(&a);
	size = make_page(1, 7, 1, 40, 9);
	assert_int_equal(rows_add(&a.rows, 1, 7, &page, size), 0);
	assert_int_equal(rows_add(&a.rows, 0, 7, &page, size), -EBADMSG);
	assert_int_equal(rows_add(&a.rows, 1, 7, &page, size - 1), -EBADMSG);
	page.slot.n_rows++;
	assert_int_equal(rows_add(&a.rows, 1, 7, &page, size), -EBADMSG);
	assert_true(is_page(rows_find(&a.rows, 1, 7), 1, 7, 1)); /* as it was */
	assert_null(rows_find(&a.rows, 0, 0));
	rows_forget_file(&a.rows, 0);
	assert_int_equal(a.rows.pages, 1);
	check_arena(&a);
	arena_close(&a);
}

/* What a program may still read is not written over. */
static void test_cpu_stays(void **state)
{
	const struct rows_slot *old;
	struct arena a;
	uint32_t seq;
	size_t size;

	arena_open(&a);
	size = make_page(1, 0, 1, 700, 30);
	assert_int_equal(rows_add(&a.rows, 1, 0, &page, size), 0);
	old = rows_find(&a.rows, 1, 0);
	seq = old->seq;
	a.cpu[1].of[COUNT_TAKEN] = 5;
	a.cpu[1].of[COUNT_IN_HALF] = 1;
	/* Memory that nobody had is free at once. */
	size = make_page(2, 0, 1, 700, 30);
	assert_int_equal(rows_add(&a.rows, 2, 0, &page, size), 0);

	rows_forget_file(&a.rows, 1);
	assert_true(old->key == 0 && old->seq != seq);
	assert_int_equal(rows_add(&a.rows, 1, 0, &page, size), -EAGAIN);
	assert_null(rows_find(&a.rows, 1, 0));
	for (uint32_t at = 0; at < 65536; at += 97)
		assert_int_equal(rows_slot_rule(old, at)->cfa_offset, 1000003 + 1);
	check_arena(&a);

	/* It is in another run by now. */
	a.cpu[1].of[COUNT_TAKEN]++;
	size = make_page(1, 0, 2, 700, 30);
	a.cpu[1].of[COUNT_IN_HALF] = 0;
	assert_int_equal(rows_add(&a.rows, 1, 0, &page, size), 0);
	assert_true(is_page(rows_find(&a.rows, 1, 0), 1, 0, 2));
	check_arena(&a);
	arena_close(&a);
}

static void test_index_bits(void **state)
{
	assert_int_equal(rows_index_bits(1U << 20), 9);
	assert_int_equal(rows_index_bits(8U << 20), 12);
	assert_int_equal(rows_index_bits(1U << 30), 19);
}

/* ---- another CPU ----------------------------------------------------------------------------- */

enum { KEYS = 2600 };

struct reader {
	struct arena *a;
	bool declares; /* in COUNT_IN_HALF; else it looks again after the search */
	bool stop;
	uint64_t found, changed, wrong;
};

static void enter(struct sample_counters *c)
{
	__atomic_fetch_add(&c->of[COUNT_TAKEN], 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&c->of[COUNT_IN_HALF], 1, __ATOMIC_SEQ_CST);
}

static void leave(struct sample_counters *c)
{
	__atomic_store_n(&c->of[COUNT_IN_HALF], 0, __ATOMIC_RELEASE);
}

/* As find_rule() of bpf/find.h. */
static void look_up(struct reader *reader, uint32_t number, uint32_t offset)
{
	struct arena *a = reader->a;
	uint64_t key = ROWS_KEY(1, number);
	struct rows_set *set = &a->sets[ROWS_SET(key, a->rows.bits)];
	const volatile struct rows_slot *slot;
	volatile struct rows_way *way = NULL;
	uint32_t unit, seq, n, left, at = 0, rules_at;
	const volatile uint16_t *pc;
	unwind_s32 says;

	for (unsigned i = 0; i < ROWS_WAYS && !way; i++)
		if (__atomic_load_n(&set->way[i].key, __ATOMIC_ACQUIRE) == key)
			way = &set->way[i];
	if (!way)
		return;
	unit = way->unit & (UNITS - 1);
	slot = (void *)((uint8_t *)a->bytes + (size_t)unit * ROWS_UNIT);
	if (__atomic_load_n(&slot->key, __ATOMIC_ACQUIRE) != key)
		return;
	seq = __atomic_load_n(&slot->seq, __ATOMIC_ACQUIRE);
	n = slot->n_rows;
	rules_at = slot->rules_at;
	if (n - 1 >= ROWS_MAX)
		return;
	pc = (const volatile uint16_t *)(slot + 1);
	for (left = n; left > 1;) {
		uint32_t half = left / 2;

		at = pc[(at + half) & 32767] <= offset ? at + half : at;
		left -= half;
	}
	at = rules_at + 16U * pc[(n + at) & 32767];
	at = (unit * ROWS_UNIT + at) & (BYTES - 16);
	says = ((volatile struct unwind_rule *)((uint8_t *)a->bytes + at))->cfa_offset;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (!reader->declares &&
		(slot->key != key || slot->seq != seq || way->key != key || way->unit != unit)) {
		reader->changed++;
		return;
	}
	reader->found++;
	reader->wrong += says != (unwind_s32)(1000003 + number * 101);
	if (!way->used)
		way->used = 1;
}

static void *read_on(void *userdata)
{
	struct reader *reader = userdata;
	struct sample_counters *cpu = &reader->a->cpu[1];
	uint64_t x = 12345;

	while (!__atomic_load_n(&reader->stop, __ATOMIC_ACQUIRE)) {
		if (reader->declares)
			enter(cpu);
		for (unsigned i = 0; i < 8; i++) {
			x = x * 6364136223846793005ULL + 1442695040888963407ULL;
			look_up(reader, (uint32_t)(x >> 33) % KEYS, (uint32_t)(x >> 20) & 65535);
		}
		if (reader->declares)
			leave(cpu);
	}
	return NULL;
}

static void run_reader(bool declares)
{
	struct reader reader = {.declares = declares};
	struct arena a;
	pthread_t thread;

	arena_open(&a);
	reader.a = &a;
	assert_int_equal(pthread_create(&thread, NULL, read_on, &reader), 0);
	for (uint32_t i = 0; i < 30000; i++) {
		uint32_t number = below(KEYS);
		size_t size = make_page(1, number, 0, 1 + below(900), 5 + below(30));
		int r = rows_add(&a.rows, 1, number, &page, size);

		assert_true(r == 0 || r == -EAGAIN);
	}
	/* On a busy machine the reader may have come late. */
	while (__atomic_load_n(&reader.found, __ATOMIC_RELAXED) < 1000)
		sched_yield();
	__atomic_store_n(&reader.stop, true, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	assert_true(a.rows.evicted > 1000);
	assert_int_equal(reader.wrong, 0);
	check_arena(&a);
	arena_close(&a);
}

static void test_reader_declares(void **state)
{
	run_reader(true);
}

static void test_reader_looks_again(void **state)
{
	run_reader(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_all_marked),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_cpu_stays),
		cmocka_unit_test(test_index_bits),
		cmocka_unit_test(test_reader_declares),
		cmocka_unit_test(test_reader_looks_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
