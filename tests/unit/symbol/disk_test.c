/* SPDX-License-Identifier: Apache-2.0 */

/* Names over restarts: a client whose disk is a table in memory, and a second client after it, which is to ask the
 * symbolizer nothing. Then what makes names from before worthless, a disk that is full or damaged, and bytes that
 * nobody wrote. */

#include "tests/unit/symbol/elf_builder.h"
#include "tests/unit/symbol/support.h"
#include "agentd/symbol/diskcache.h"

#define DISK_ROWS 256

struct disk {
	struct {
		uint8_t key[32];
		uint8_t facts[DISK_FACTS_MAX];
		size_t len;
	} files[8];
	size_t n_files;
	struct {
		uint64_t file, address;
		uint8_t value[512];
		size_t len;
	} rows[DISK_ROWS];
	size_t n_rows;
	unsigned puts, gets;
	bool full, moving; /* moving: no file is at rest */
	uint8_t identity;  /* of every file's contents */
};
static struct disk disk;

static int disk_key(void *userdata, uint32_t file, uint8_t ret[static 32])
{
	memset(ret, disk.identity, 32);
	memcpy(ret, &file, sizeof(file));
	return 0;
}

static int disk_at_rest(void *userdata, uint32_t file)
{
	return !disk.moving;
}

static int disk_find(
	void *userdata, const uint8_t key[static 32], uint64_t *id, const void **facts, size_t *len)
{
	for (size_t i = 0; i < disk.n_files; i++)
		if (memcmp(disk.files[i].key, key, 32) == 0) {
			*id = i;
			*facts = disk.files[i].facts;
			*len = disk.files[i].len;
			return 0;
		}
	return -ENOENT;
}

static int disk_put_file(
	void *userdata, const uint8_t key[static 32], const void *facts, size_t len, uint64_t *id)
{
	size_t i;

	if (disk.full)
		return -ENOSPC;
	for (i = 0; i < disk.n_files; i++)
		if (memcmp(disk.files[i].key, key, 32) == 0)
			break;
	assert_true(i < ARRAY_SIZE(disk.files) && len <= DISK_FACTS_MAX);
	for (size_t k = 0; k < disk.n_rows; k++)
		if (disk.rows[k].file == i)
			disk.rows[k].file = UINT64_MAX;
	memcpy(disk.files[i].key, key, 32);
	memcpy(disk.files[i].facts, facts, len);
	disk.files[i].len = len;
	disk.n_files = MAX(disk.n_files, i + 1);
	*id = i;
	return 0;
}

static int disk_get(void *userdata, uint64_t id, uint64_t address, const void **value, size_t *len)
{
	disk.gets++;
	for (size_t i = 0; i < disk.n_rows; i++)
		if (disk.rows[i].file == id && disk.rows[i].address == address) {
			*value = disk.rows[i].value;
			*len = disk.rows[i].len;
			return 0;
		}
	return -ENOENT;
}

static int disk_begin(void *userdata)
{
	return 0;
}

static int disk_put(void *userdata, uint64_t id, uint64_t address, const void *value, size_t len)
{
	if (disk.full)
		return -ENOSPC;
	assert_true(disk.n_rows < DISK_ROWS && len <= sizeof(disk.rows[0].value));
	disk.rows[disk.n_rows].file = id;
	disk.rows[disk.n_rows].address = address;
	disk.rows[disk.n_rows].len = len;
	if (len)
		memcpy(disk.rows[disk.n_rows].value, value, len);
	disk.n_rows++;
	disk.puts++;
	return 0;
}

static const struct symbol_disk disk_ops = {.key = disk_key,
	.at_rest = disk_at_rest,
	.find = disk_find,
	.put_file = disk_put_file,
	.get = disk_get,
	.begin = disk_begin,
	.put = disk_put,
	.commit = disk_begin,
	.tidy = disk_begin};

/* ---- two runs ---------------------------------------------------------------------------------------------- */

static struct symbol_ops ops_with_disk;

static void open_run(struct room *room)
{
	struct err_text err;

	ops_with_disk = room_ops;
	ops_with_disk.disk = &disk_ops;
	memset(room, 0, sizeof(*room));
	assert_true(sd_event_new(&room->loop) >= 0);
	assert_int_equal(symbol_new(&room->s, room->loop, &(struct symbol_config){}, &ops_with_disk,
				 room, &err),
		0);
}

/* A program without symbols, of which libc's startup code, main and one more are known by their tables; and what its
 * offsets are. */
static const char *stripped(uint64_t *main_at, uint64_t *secret_at)
{
	static char path[128];
	char command[256], line[128];
	FILE *f;

	write_file(work_path("s.c"),
		"#include <stdlib.h>\n__attribute__((noinline)) static int "
		"secret(int n) { volatile int x = n; return x + rand(); }\n"
		"int main(void) { return secret(1) + secret(2); }\n");
	snprintf(path, sizeof(path), "%s", work_path("s"));
	assert_int_equal(
		shell("${CC:-gcc} -O1 -o %s %s && nm %s >%s.nm && strip %s && touch -d -1hour %s",
			path, work_path("s.c"), path, path, path, path),
		0);
	snprintf(command, sizeof(command), "sort -k3 %s.nm | grep -E ' (main|secret)$'", path);
	f = popen(command, "re");
	assert_true(f && fgets(line, sizeof(line), f) && sscanf(line, "%lx", main_at) == 1);
	assert_true(fgets(line, sizeof(line), f) && sscanf(line, "%lx", secret_at) == 1);
	pclose(f);
	return path;
}

static void test_restart(void **state)
{
	static const struct built_symbol two[] = {{"_ZN3foo3barEv", 0, 32, STT_FUNC, STB_GLOBAL},
		{"alpha", 32, 16, STT_FUNC, STB_GLOBAL}};
	uint64_t main_at, secret_at;
	const char *path = stripped(&main_at, &secret_at);
	char names[2][4][128];
	struct built b;

	memset(&disk, 0, sizeof(disk));
	built_init(&b, two, 2);
	for (int run = 0; run < 2; run++) {
		struct symbol_query nowhere = {.file = 7, .offset = BUILT_TEXT + 100};
		struct symbol_query inside = {.file = 6, .offset = secret_at + 3};
		struct room room;

		open_run(&room);
		room_set(&room, 7, memfd_of(b.data, b.len), "libtwo.so");
		room_set(&room, 6, open(path, O_RDONLY | O_CLOEXEC), "s");
		snprintf(names[run][0], 128, "%s", room_name(&room, 7, BUILT_TEXT + 4));
		snprintf(names[run][1], 128, "%s", room_name(&room, 7, BUILT_TEXT + 33));
		assert_int_equal(room_resolve(&room, &nowhere, 1), 0);
		snprintf(names[run][2], 128, "%s",
			symbol_chain(room.s, &nowhere)->functions[0].name);
		assert_true(symbol_chain(room.s, &nowhere)->fallback);
		snprintf(names[run][3], 128, "%s", room_name(&room, 6, secret_at + 3));
		assert_true(symbol_chain(room.s, &inside)->fallback);
		if (run == 1) {
			assert_int_equal(room_counters(&room).requests, 0);
			assert_int_equal(room_counters(&room).from_disk, 4);
			assert_int_equal(symbol_child_pid(room.s), -1);
			assert_string_equal(symbol_facts(room.s, 7)->named_by, ".symtab");
			assert_int_equal(symbol_facts(room.s, 6)->named, 0);
		}
		room_deinit(&room);
	}
	assert_string_equal(names[0][0], "foo::bar");
	assert_string_equal(names[0][1], "alpha");
	assert_string_equal(names[0][2], "libtwo.so+0x1064");
	assert_true(strncmp(names[0][3], "s+0x", 4) == 0);
	assert_int_equal(strtoull(names[0][3] + 4, NULL, 16), secret_at);
	for (int i = 0; i < 4; i++)
		assert_string_equal(names[0][i], names[1][i]);
	built_free(&b);
}

/* What changed since, and how many requests that makes. */
enum change { SAME, OTHER_FILE, OTHER_MODE, DAMAGED, CUT, WAS_MOVING, WAS_FULL, CHANGES };

static void test_worthless(void **state)
{
	static const struct built_symbol one[] = {
		{"_ZNSt6vectorIiSaIiEE1fEv", 0, 32, STT_FUNC, STB_GLOBAL}};
	struct built b;

	built_init(&b, one, 1);
	for (int change = SAME; change < CHANGES; change++) {
		struct room room;

		memset(&disk, 0, sizeof(disk));
		disk.moving = change == WAS_MOVING;
		disk.full = change == WAS_FULL;
		open_run(&room);
		room_set(&room, 7, memfd_of(b.data, b.len), "lib.so");
		assert_string_equal(room_name(&room, 7, BUILT_TEXT), "std::vector<int>::f");
		room_deinit(&room);
		assert_int_equal(disk.puts, change < WAS_MOVING);
		disk.moving = disk.full = false;
		if (change == OTHER_FILE)
			disk.identity++;
		if (change == DAMAGED)
			disk.rows[0].value[0] = 77;
		if (change == CUT)
			disk.rows[0].len -= 2;
		open_run(&room);
		if (change == OTHER_MODE)
			symbol_set_demangle(room.s, SYMBOL_DEMANGLE_NONE);
		room_set(&room, 7, memfd_of(b.data, b.len), "lib.so");
		assert_string_equal(room_name(&room, 7, BUILT_TEXT),
			change == OTHER_MODE ? "_ZNSt6vectorIiSaIiEE1fEv" : "std::vector<int>::f");
		assert_int_equal(room_counters(&room).requests, change != SAME);
		room_deinit(&room);
	}
	built_free(&b);
}

/* Its module goes by another path now: what has no name is called after that. */
static void test_renamed(void **state)
{
	struct built b;

	memset(&disk, 0, sizeof(disk));
	built_init(&b, NULL, 0);
	for (int run = 0; run < 2; run++) {
		struct room room;

		open_run(&room);
		room_set(&room, 7, memfd_of(b.data, b.len), run ? "new.so" : "old.so");
		assert_string_equal(room_name(&room, 7, BUILT_TEXT + 5),
			run ? "new.so+0x1005" : "old.so+0x1005");
		room_deinit(&room);
	}
	built_free(&b);
}

/* ---- bytes ------------------------------------------------------------------------------------------------- */

static void test_round_trip(void **state)
{
	static uint8_t bytes[DISK_VALUE_MAX];
	const char *const file = "a/b.cc", *const name = "f";
	struct symbol_function functions[3] = {{.name = "in",
						       .system_name = "_Z2inv",
						       .file = file,
						       .line = 3,
						       .start_line = 1,
						       .inlined = true},
		{.name = name, .system_name = name, .file = file, .line = 70000},
		{.name = "out", .system_name = "out", .file = ""}};
	struct symbol_function read[SYMBOL_CHAIN_MAX];
	struct symbol_chain chain = {.n = 3, .module = "lib.so", .functions = functions}, got;
	uint64_t start = 0;
	int len;

	len = disk_encode_chain(&chain, "lib.so", bytes);
	assert_true(len > 0);
	assert_int_equal(disk_decode_chain(bytes, (size_t)len, "lib2.so", &got, read), 0);
	assert_int_equal(got.n, 3);
	assert_string_equal(got.module, "lib2.so"); /* the file's own, whatever it is called now */
	for (int i = 0; i < 3; i++) {
		assert_string_equal(read[i].name, functions[i].name);
		assert_string_equal(read[i].system_name, functions[i].system_name);
		assert_string_equal(read[i].file, functions[i].file);
		assert_int_equal(read[i].line, functions[i].line);
		assert_int_equal(read[i].start_line, functions[i].start_line);
		assert_int_equal(read[i].inlined, functions[i].inlined);
	}
	/* Any part of it is nothing, and never a beginning of a function. */
	for (size_t part = 0; part < (size_t)len; part++)
		assert_int_equal(disk_decode_chain(bytes, part, "lib.so", &got, read), -EBADMSG);
	assert_false(disk_decode_bare(bytes, (size_t)len, &start));
	len = disk_encode_bare(0x123456789abcULL, bytes);
	assert_true(disk_decode_bare(bytes, (size_t)len, &start));
	assert_int_equal(start, 0x123456789abcULL);
	assert_int_equal(disk_decode_chain(bytes, (size_t)len, "lib.so", &got, read), -EBADMSG);
	assert_false(disk_decode_bare(bytes, (size_t)len - 1, &start));
}

/* Bytes turned at random: refused, or texts that lie within and are clean. */
static void test_garbage(void **state)
{
	static uint8_t bytes[DISK_VALUE_MAX];
	struct symbol_function functions[2] = {
		{.name = "inner", .system_name = "inner", .file = "x.c", .line = 1},
		{.name = "outer", .system_name = "outer", .file = "x.c", .line = 2}};
	struct symbol_chain chain = {.n = 2, .module = "m", .functions = functions};
	uint64_t random = 88172645463325252ULL;
	size_t taken = 0, refused = 0;

	for (unsigned i = 0; i < 20000; i++) {
		size_t len = (size_t)disk_encode_chain(&chain, "", bytes);
		struct symbol_function read[SYMBOL_CHAIN_MAX];
		uint8_t *copy = malloc(len);
		struct symbol_chain got;

		memcpy(copy, bytes, len);
		for (unsigned k = 0; k <= i % 3; k++) {
			random ^= random << 13;
			random ^= random >> 7;
			random ^= random << 17;
			copy[(random >> 8) % len] = (uint8_t)random;
		}
		if (disk_decode_chain(copy, len, "m", &got, read) < 0) {
			refused++;
			free(copy);
			continue;
		}
		taken++;
		for (size_t k = 0; k < got.n; k++) {
			assert_true(strlen(read[k].name) > 0 && strlen(read[k].name) < len);
			assert_true(strlen(read[k].file) < len);
		}
		free(copy);
	}
	assert_true(taken > 100 && refused > 100);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_restart),
		cmocka_unit_test(test_worthless),
		cmocka_unit_test(test_renamed),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_garbage),
	};

	dispatch_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
