/* SPDX-License-Identifier: Apache-2.0 */

/* Perf maps and jitdumps through the real sandbox, as files that grow and change under it. */

#include "tests/unit/symbol/support.h"
#include "agentd/symbol/jitranges.h"
#include "agentd/symbol/protocol.h"
#include "tests/unit/symbol/jitdump_writer.h"

#define MAP  5
#define DUMP 6

static uint16_t kind_of(void *userdata, uint32_t file)
{
	return file == MAP     ? SYMBOL_KIND_PERFMAP
		: file == DUMP ? SYMBOL_KIND_JITDUMP
			       : SYMBOL_KIND_ELF;
}

static const struct symbol_ops jit_ops = {
	.open_file = room_open_file,
	.file_kind = kind_of,
	.module_name = room_module_name,
	.on_facts = room_on_facts,
};

struct jit_room {
	struct room room;
	int fd; /* ours, to write by */
};

static void jit_init(struct jit_room *j, uint32_t file)
{
	const struct symbol_config config = {0};
	struct err_text err;

	memset(j, 0, sizeof(*j));
	assert_true(sd_event_new(&j->room.loop) >= 0);
	assert_int_equal(
		symbol_new(&j->room.s, j->room.loop, &config, &jit_ops, &j->room, &err), 0);
	j->fd = memfd_create("jit", MFD_CLOEXEC);
	assert_true(j->fd > 0);
	room_set(&j->room, file, dup(j->fd), "jit");
}

static void jit_deinit(struct jit_room *j)
{
	room_deinit(&j->room);
	close(j->fd);
}

static void append(struct jit_room *j, const void *data, size_t len)
{
	assert_true(lseek(j->fd, 0, SEEK_END) >= 0);
	assert_int_equal(io_write_all(j->fd, data, len), 0);
}

static void append_text(struct jit_room *j, const char *text)
{
	append(j, text, strlen(text));
}

/* As the daemon does when it sees that the file is not as it was. */
static void changed(struct jit_room *j, uint32_t file)
{
	symbol_file_changed(j->room.s, file, false);
}

static const struct symbol_function *function_at(
	struct jit_room *j, uint32_t file, uint64_t address)
{
	struct symbol_query q = {.file = file, .offset = address};
	const struct symbol_chain *chain;

	assert_int_equal(room_resolve(&j->room, &q, 1), 0);
	chain = symbol_chain(j->room.s, &q);
	assert_int_equal(chain->n, 1);
	return chain->functions;
}

static void check(struct jit_room *j, uint32_t file, uint64_t address, const char *name)
{
	char fallback[64];

	snprintf(fallback, sizeof(fallback), "jit+0x%llx", (unsigned long long)address);
	assert_string_equal(function_at(j, file, address)->name, name ? name : fallback);
}

/* ---- ranges ------------------------------------------------------------------------------------------------- */

/* Against the obvious way: an array of who holds each address. */
static void test_ranges_random(void **state)
{
	enum { SPACE = 600, ROUNDS = 200 };
	uint32_t seed = 12345;

	for (int round = 0; round < ROUNDS; round++) {
		struct jit_ranges r = {};
		uint32_t truth[SPACE];
		uint64_t best[SPACE] = {};

		memset(truth, 0xff, sizeof(truth));
		for (uint32_t i = 0; i < 60; i++) {
			uint32_t start, len;
			uint64_t rank;

			seed = seed * 1664525 + 1013904223;
			start = (seed >> 8) % (SPACE - 80);
			seed = seed * 1664525 + 1013904223;
			len = (seed >> 8) % 80;
			/* Mostly rising, as in files; sometimes not. */
			rank = round & 1 ? i : (seed >> 20) % 16;
			assert_int_equal(jit_ranges_add(&r, start, len, rank, i), 0);
			for (uint32_t a = start; a < start + len; a++) {
				if (truth[a] != UINT32_MAX && best[a] > rank)
					continue;
				truth[a] = i;
				best[a] = rank;
			}
			if (i % 7 == 0)
				assert_int_equal(jit_ranges_settle(&r), 0);
		}
		assert_int_equal(jit_ranges_settle(&r), 0);
		for (size_t i = 1; i < r.n; i++)
			assert_true(r.v[i - 1].start + r.v[i - 1].len <= r.v[i].start);
		for (uint32_t a = 0; a < SPACE; a++) {
			const struct jit_range *got = jit_ranges_find(&r, a);

			assert_int_equal(got ? got->what : UINT32_MAX, truth[a]);
		}
		jit_ranges_deinit(&r);
	}
}

/* More than are kept: the oldest go, the newest are there, and sizes that no code has are nothing. */
static void test_ranges_bounded(void **state)
{
	struct jit_ranges r = {};
	const uint32_t n = JIT_RANGES_MAX * 2 + 5;

	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(jit_ranges_add(&r, 0x1000 + i * 16ULL, 16, i, i), 0);
	assert_int_equal(jit_ranges_settle(&r), 0);
	assert_true(r.n + r.n_new <= JIT_RANGES_MAX);
	assert_true(r.dropped);
	assert_int_equal(jit_ranges_find(&r, 0x1000 + (n - 1) * 16ULL)->what, n - 1);
	assert_null(jit_ranges_find(&r, 0x1000));
	jit_ranges_deinit(&r);
	assert_int_equal(jit_ranges_add(&r, 0x1000, 0, 1, 1), 0);
	assert_int_equal(jit_ranges_add(&r, 0x1000, 1ULL << 63, 1, 1), 0);
	assert_int_equal(jit_ranges_add(&r, UINT64_MAX - 4, 16, 1, 1), 0);
	assert_int_equal(jit_ranges_settle(&r), 0);
	assert_int_equal(r.n, 0);
	jit_ranges_deinit(&r);
}

/* ---- perf maps ---------------------------------------------------------------------------------------------- */

static void test_map_names(void **state)
{
	struct jit_room j;
	const struct symbol_function *f;

	jit_init(&j, MAP);
	append_text(&j,
		"7f0000001000 100 plain function with blanks\n"
		"0x00007f0000002000 0x0000000000000080 int Hot.fib(int)\n"
		"7f0000003000 40 JS:*get run /app/x y.js:2:14\n"
		"7f0000004000 40 JS:~ /app/x.js:4:53\n"
		"7f0000005000 40 py::fetch:/app/mod.py\n"
		"7f0000006000 40 _ZN3foo3barE\n"
		"7f0000007000 40 bad\x01name\xff\n"
		"7f0000008000 40 LazyCompile:^odd\n");
	check(&j, MAP, 0x7f0000001000, "plain function with blanks");
	check(&j, MAP, 0x7f00000010ff, "plain function with blanks");
	check(&j, MAP, 0x7f0000001100, NULL);
	check(&j, MAP, 0x7f0000000fff, NULL);
	check(&j, MAP, 0x7f0000002010, "int Hot.fib(int)");
	f = function_at(&j, MAP, 0x7f0000003004);
	assert_string_equal(f->name, "get run");
	assert_string_equal(f->system_name, "JS:*get run /app/x y.js:2:14");
	assert_string_equal(f->file, "/app/x y.js");
	assert_int_equal(f->start_line, 2);
	assert_int_equal(f->line, 0);
	f = function_at(&j, MAP, 0x7f0000004004);
	assert_string_equal(f->name, "(anonymous)");
	assert_string_equal(f->file, "/app/x.js");
	assert_int_equal(f->start_line, 4);
	f = function_at(&j, MAP, 0x7f0000005004);
	assert_string_equal(f->name, "fetch");
	assert_string_equal(f->file, "/app/mod.py");
	check(&j, MAP, 0x7f0000006004, "foo::bar");
	check(&j, MAP, 0x7f0000007004, "bad?name?");
	check(&j, MAP, 0x7f0000008004, "odd");
	assert_string_equal(symbol_facts(j.room.s, MAP)->named_by, "perf map");
	assert_int_equal(room_counters(&j.room).crashes, 0);
	jit_deinit(&j);
}

/* Only the new part is read, a line that is not whole waits, newer code takes over the address. */
static void test_map_grows(void **state)
{
	struct jit_room j;

	jit_init(&j, MAP);
	check(&j, MAP, 0x1010, NULL); /* empty as yet */
	append_text(&j, "1000 100 first\n2000 100 other\n3000 100 ha");
	check(&j, MAP, 0x1010, NULL); /* nobody said that it changed */
	changed(&j, MAP);
	check(&j, MAP, 0x1010, "first");
	check(&j, MAP, 0x1090, "first");
	check(&j, MAP, 0x2010, "other");
	check(&j, MAP, 0x3010, NULL);
	append_text(&j, "lf\n1080 40 second\n");
	changed(&j, MAP);
	check(&j, MAP, 0x3010, "half");
	check(&j, MAP, 0x1010, "first");
	check(&j, MAP, 0x1090, "second");
	check(&j, MAP, 0x10c0, "first");
	check(&j, MAP, 0x2010, "other");
	assert_int_equal(room_counters(&j.room).restarts, 0);
	jit_deinit(&j);
}

/* Until the clock by which files' times are kept has gone on. */
static void next_tick(void)
{
	struct timespec was, now;

	clock_gettime(CLOCK_REALTIME_COARSE, &was);
	do {
		usleep(1000);
		clock_gettime(CLOCK_REALTIME_COARSE, &now);
	} while (now.tv_sec == was.tv_sec && now.tv_nsec == was.tv_nsec);
}

/* A dump that is made anew: shorter, or as long, or longer but with other bytes. */
static void test_map_is_rewritten(void **state)
{
	struct jit_room j;

	jit_init(&j, MAP);
	append_text(&j, "1000 100 one\n2000 100 two\n");
	check(&j, MAP, 0x1010, "one");
	check(&j, MAP, 0x2010, "two");
	assert_int_equal(ftruncate(j.fd, 0), 0);
	append_text(&j, "1000 100 uno\n");
	changed(&j, MAP);
	check(&j, MAP, 0x1010, "uno");
	check(&j, MAP, 0x2010, NULL); /* not what it was called before */
	next_tick();
	assert_int_equal(pwrite(j.fd, "1000 100 une\n", 13, 0), 13);
	changed(&j, MAP);
	check(&j, MAP, 0x1010, "une");
	assert_int_equal(ftruncate(j.fd, 0), 0);
	append_text(&j, "4000 100 vier\n5000 100 funf\n");
	changed(&j, MAP);
	check(&j, MAP, 0x1010, NULL);
	check(&j, MAP, 0x4010, "vier");
	jit_deinit(&j);
}

/* Replaced by another file, of which nothing of the first is true. */
static void test_map_is_replaced(void **state)
{
	struct jit_room j;

	jit_init(&j, MAP);
	append_text(&j, "1000 100 one\n");
	check(&j, MAP, 0x1010, "one");
	room_set(&j.room, MAP, memfd_of("2000 100 two\n", 13), "jit");
	symbol_file_changed(j.room.s, MAP, true);
	check(&j, MAP, 0x1010, NULL);
	check(&j, MAP, 0x2010, "two");
	jit_deinit(&j);
}

/* Whatever it holds, others keep their names, and the process that reads lives. */
static void test_map_hostile(void **state)
{
	struct jit_room j;
	_cleanup_free_ char *big = malloc(3 << 20);

	assert_non_null(big);
	jit_init(&j, MAP);
	append_text(&j,
		"0 8000000000000000 everything\n"
		"1000 ffffffffffffffff wraps\n"
		"ffffffffffffffff 10 high\n"
		"1000 0 empty\n"
		"11111111111111111 10 seventeen digits\n"
		"1000\n1000 \n1000 10\n1000 10 \n -1000 10 minus\n"
		"1000 10x not hex\n\n\n"
		"2000 10 fine\n");
	/* A line without an end, longer than any buffer; then one that is fine. */
	memset(big, 'a', 3 << 20);
	memcpy(big, "3000 100 ", 9);
	append(&j, big, 3 << 20);
	append_text(&j, "\n4000 100 after\n");
	append(&j, "5000 100 nul\0tail\n", 18);
	append_text(&j, "6000 100 last");
	check(&j, MAP, 0x500, NULL);
	check(&j, MAP, 0x1001, NULL);
	check(&j, MAP, 0x2001, "fine");
	check(&j, MAP, 0x4001, "after");
	check(&j, MAP, 0x5001, "nul");
	check(&j, MAP, 0x6001, NULL);
	assert_non_null(strstr(symbol_facts(j.room.s, MAP)->last_problem, "not understood"));
	/* Lines over lines over lines. */
	for (unsigned i = 0; i < 3000; i++) {
		char line[64];

		snprintf(line, sizeof(line), "\n%x %x nested%u", 0x100000 + i, 0x10000 - 2 * i, i);
		append_text(&j, line);
	}
	append_text(&j, "\n");
	changed(&j, MAP);
	check(&j, MAP, 0x100000, "nested0");
	check(&j, MAP, 0x100000 + 1500, "nested1500");
	check(&j, MAP, 0x10ffff, "nested0");
	check(&j, MAP, 0x100000 + 3000, "nested2999");
	/* Cut short while it is in use. */
	assert_int_equal(ftruncate(j.fd, 10), 0);
	changed(&j, MAP);
	check(&j, MAP, 0x100000, NULL);
	assert_int_equal(room_counters(&j.room).crashes, 0);
	assert_int_equal(room_counters(&j.room).restarts, 0);
	jit_deinit(&j);
}

/* The end of its child is no loss: it is read anew. */
static void test_map_survives_child(void **state)
{
	struct jit_room j;

	jit_init(&j, MAP);
	append_text(&j, "1000 100 one\n");
	check(&j, MAP, 0x1010, "one");
	assert_int_equal(kill(symbol_child_pid(j.room.s), SIGKILL), 0);
	append_text(&j, "2000 100 two\n");
	changed(&j, MAP);
	check(&j, MAP, 0x2010, "two");
	check(&j, MAP, 0x1010, "one");
	jit_deinit(&j);
}

/* ---- jitdumps ------------------------------------------------------------------------------------------------ */

static void append_record(struct jit_room *j, const struct jitdump_writer *w)
{
	append(j, w->bytes, w->len);
}

static void dump_header(struct jit_room *j)
{
	struct jitdump_writer w = {};

	jitdump_header(&w, 1);
	append_record(j, &w);
}

static void dump_load(struct jit_room *j, uint64_t time, uint64_t address, uint64_t size,
	uint64_t index, const char *name)
{
	struct jitdump_writer w = {};

	jitdump_load(&w, time, address, size, index, name, NULL);
	append_record(j, &w);
}

static void dump_move(struct jit_room *j, uint64_t time, uint64_t from, uint64_t to, uint64_t size,
	uint64_t index)
{
	struct jitdump_writer w = {};

	jitdump_move(&w, time, from, to, size, index);
	append_record(j, &w);
}

static void dump_lines(
	struct jit_room *j, uint64_t address, const struct jitdump_line *lines, size_t n)
{
	struct jitdump_writer w = {};

	jitdump_lines(&w, 1, address, lines, n);
	append_record(j, &w);
}

static void test_dump(void **state)
{
	static const struct jitdump_line lines[] = {
		{0x7000, "a.src", 10}, {0x7010, NULL, 12}, {0x7020, "inc.src", 3}};
	const struct symbol_function *f;
	struct jit_room j;

	jit_init(&j, DUMP);
	dump_header(&j);
	dump_lines(&j, 0x7000, lines, ARRAY_SIZE(lines));
	dump_load(&j, 10, 0x7000, 0x40, 1, "alpha");
	dump_load(&j, 11, 0x8000, 0x40, 2, "beta");
	f = function_at(&j, DUMP, 0x7004);
	assert_string_equal(f->name, "alpha");
	assert_string_equal(f->file, "a.src");
	assert_int_equal(f->line, 10);
	f = function_at(&j, DUMP, 0x701f);
	assert_string_equal(f->file, "a.src");
	assert_int_equal(f->line, 12);
	f = function_at(&j, DUMP, 0x703f);
	assert_string_equal(f->file, "inc.src");
	assert_int_equal(f->line, 3);
	f = function_at(&j, DUMP, 0x8000);
	assert_string_equal(f->name, "beta");
	assert_string_equal(f->file, "");
	check(&j, DUMP, 0x7040, NULL);
	assert_string_equal(symbol_facts(j.room.s, DUMP)->named_by, "jitdump");
	/* It moves, and takes its lines along; where it was is nothing now, and then something else. */
	dump_move(&j, 12, 0x7000, 0x9000, 0x40, 1);
	changed(&j, DUMP);
	f = function_at(&j, DUMP, 0x9012);
	assert_string_equal(f->name, "alpha");
	assert_int_equal(f->line, 12);
	check(&j, DUMP, 0x7004, NULL);
	dump_load(&j, 13, 0x7000, 0x20, 3, "gamma");
	dump_move(&j, 14, 0x9000, 0xa000, 0x40, 1);
	changed(&j, DUMP);
	check(&j, DUMP, 0x7004, "gamma");
	check(&j, DUMP, 0x7024, NULL);
	check(&j, DUMP, 0x9012, NULL);
	assert_int_equal(function_at(&j, DUMP, 0xa022)->line, 3);
	/* A move of what is not there is nothing. */
	dump_move(&j, 15, 0xbad0, 0x8000, 0x40, 77);
	dump_move(&j, 15, 0xbad0, 0x8000, 0x40, 1);
	/* By time, whatever the order in the file. */
	dump_load(&j, 5, 0x8000, 0x40, 9, "older");
	changed(&j, DUMP);
	check(&j, DUMP, 0x8004, "beta");
	jit_deinit(&j);
}

/* A record arrives in pieces; what follows the end is not believed. */
static void test_dump_grows(void **state)
{
	struct jitdump_writer w = {};
	struct jit_room j;

	jit_init(&j, DUMP);
	check(&j, DUMP, 0x7004, NULL); /* not even a header */
	dump_header(&j);
	jitdump_load(&w, 1, 0x7000, 0x40, 1, "alpha_of_a_long_name", NULL);
	append(&j, w.bytes, 66); /* within its name */
	changed(&j, DUMP);
	check(&j, DUMP, 0x7004, NULL);
	append(&j, w.bytes + 66, w.len - 66);
	changed(&j, DUMP);
	check(&j, DUMP, 0x7004, "alpha_of_a_long_name");
	w.len = 0;
	jitdump_record(&w, 3, 2, NULL, 0); /* close */
	append_record(&j, &w);
	dump_load(&j, 3, 0x7000, 0x40, 2, "after the end");
	changed(&j, DUMP);
	check(&j, DUMP, 0x7004, "alpha_of_a_long_name");
	jit_deinit(&j);
}

static void test_dump_hostile(void **state)
{
	struct jitdump_line many[64];
	struct jitdump_writer w = {};
	struct jit_room j;
	uint32_t zero = 0;

	jit_init(&j, DUMP);
	dump_header(&j);
	dump_load(&j, 1, 0, 1ULL << 63, 1, "everything");
	dump_load(&j, 2, UINT64_MAX - 8, 64, 2, "wraps");
	dump_load(&j, 3, 0x7000, 0x40, 3, "fine");
	/* Round and round. */
	for (unsigned i = 0; i < 2000; i++) {
		dump_move(&j, 10 + 2 * i, 0x7000, 0x8000, 0x40, 3);
		dump_move(&j, 11 + 2 * i, 0x8000, 0x7000, 0x40, 3);
	}
	/* Lines: more than there are, addresses that go round, no end of text. */
	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = (struct jitdump_line){UINT64_MAX - i, i ? NULL : "x", (uint32_t)i};
	dump_lines(&j, 0x9000, many, ARRAY_SIZE(many));
	dump_load(&j, 9000, 0x9000, 0x40, 4, "odd lines");
	jitdump_lines(&w, 9001, 0xa000, many, 1);
	memset(w.bytes + 24, 0xff, 8); /* their number */
	append_record(&j, &w);
	dump_load(&j, 9002, 0xa000, 0x40, 5, "too many lines");
	check(&j, DUMP, 0x10, NULL);
	check(&j, DUMP, 0x7004, "fine");
	check(&j, DUMP, 0x8004, NULL);
	check(&j, DUMP, 0x9004, "odd lines");
	check(&j, DUMP, 0xa004, "too many lines");
	/* A record with a size that is none. */
	w.len = 0;
	jitdump_record(&w, 0, 1, &zero, sizeof(zero));
	w.bytes[4] = 7;
	append_record(&j, &w);
	dump_load(&j, 9003, 0xb000, 0x40, 6, "behind the damage");
	changed(&j, DUMP);
	check(&j, DUMP, 0x7004, "fine");
	check(&j, DUMP, 0xb004, NULL);
	assert_non_null(strstr(symbol_facts(j.room.s, DUMP)->last_problem, "damaged"));
	/* Cut short, written over. */
	assert_int_equal(ftruncate(j.fd, 41), 0);
	changed(&j, DUMP);
	check(&j, DUMP, 0x7004, NULL);
	assert_int_equal(ftruncate(j.fd, 0), 0);
	append_text(&j, "this is not a jitdump file at all, and long enough to be one\n");
	changed(&j, DUMP);
	check(&j, DUMP, 0x7004, NULL);
	assert_string_equal(symbol_facts(j.room.s, DUMP)->last_problem, "it is not a jitdump file");
	assert_int_equal(ftruncate(j.fd, 0), 0);
	dump_header(&j);
	dump_load(&j, 1, 0x7000, 0x40, 1, "again");
	changed(&j, DUMP);
	check(&j, DUMP, 0x7004, "again");
	assert_int_equal(room_counters(&j.room).crashes, 0);
	assert_int_equal(room_counters(&j.room).restarts, 0);
	jit_deinit(&j);
}

/* More code than is kept: the newest has its names. */
static void test_dump_bounded(void **state)
{
	enum { N = (1 << 19) + 1000 };
	struct jitdump_writer w = {};
	_cleanup_free_ uint8_t *all = NULL;
	struct jit_room j;
	size_t len = 0;

	jitdump_load(&w, 1, 0, 16, 0, "n0000000", NULL);
	all = malloc((size_t)N * w.len);
	assert_non_null(all);
	for (uint32_t i = 0; i < N; i++) {
		char name[16];

		snprintf(name, sizeof(name), "n%07u", i);
		w.len = 0;
		jitdump_load(&w, i, 0x10000 + i * 16ULL, 16, i, name, "");
		memcpy(all + len, w.bytes, w.len);
		len += w.len;
	}
	jit_init(&j, DUMP);
	dump_header(&j);
	append(&j, all, len);
	check(&j, DUMP, 0x10000 + (N - 1) * 16ULL, "n0525287");
	check(&j, DUMP, 0x10000, NULL);
	assert_non_null(strstr(symbol_facts(j.room.s, DUMP)->last_problem, "oldest"));
	/* One that was kept still moves by its number. */
	dump_move(&j, N, 0x10000 + (N - 1) * 16ULL, 0x100, 16, N - 1);
	changed(&j, DUMP);
	check(&j, DUMP, 0x104, "n0525287");
	check(&j, DUMP, 0x10000 + (N - 1) * 16ULL, NULL);
	assert_int_equal(room_counters(&j.room).crashes, 0);
	jit_deinit(&j);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ranges_random),
		cmocka_unit_test(test_ranges_bounded),
		cmocka_unit_test(test_map_names),
		cmocka_unit_test(test_map_grows),
		cmocka_unit_test(test_map_is_rewritten),
		cmocka_unit_test(test_map_is_replaced),
		cmocka_unit_test(test_map_hostile),
		cmocka_unit_test(test_map_survives_child),
		cmocka_unit_test(test_dump),
		cmocka_unit_test(test_dump_grows),
		cmocka_unit_test(test_dump_hostile),
		cmocka_unit_test(test_dump_bounded),
	};

	dispatch_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
