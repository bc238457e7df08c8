/* SPDX-License-Identifier: Apache-2.0 */

/* Code without a name of its own, through the real sandbox: stubs that call other files, against objdump; the function
 * that a stripped program begins with; and functions that nothing names, which have one frame each, not one an
 * instruction. */

#include "agentd/elf/elf_file.h"
#include "tests/unit/symbol/support.h"

#define SYMBOLS_MAX 20000

static const char source[] =
	"#include <stdio.h>\n#include <stdlib.h>\n"
	"__attribute__((noinline)) static int secret(int n)\n"
	"{ volatile int x = n; x += rand(); puts(\"\"); return x * 3; }\n"
	"int main(void) { return secret(1) + secret(2) + getenv(\"x\")[0]; }\n";

/* The program, and where `secret` is in it, as the file that still has symbols says. */
static const char *build(const char *name, const char *how, uint64_t *secret, uint64_t *size)
{
	static char path[256];
	char line[256], command[512];
	FILE *f;

	write_file(work_path("bare.c"), source);
	snprintf(path, sizeof(path), "%s", work_path(name));
	assert_int_equal(shell("${CC:-gcc} -O1 %s -o %s %s && cp %s %s.full && strip %s", how, path,
				 work_path("bare.c"), path, path, path),
		0);
	snprintf(command, sizeof(command), "nm -S %s.full | grep ' secret'", path);
	f = popen(command, "re");
	assert_true(f && fgets(line, sizeof(line), f));
	pclose(f);
	assert_int_equal(sscanf(line, "%lx %lx", secret, size), 2);
	return path;
}

/* As the linker lays these out: code at the offset that its address says, less what programs are linked at. */
static uint64_t offset_of(const char *path, uint64_t vaddr)
{
	CLEANUP(elf_file_closep) struct elf_file *elf = NULL;
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	const struct elf_segment *s;
	size_t n;

	assert_int_equal(elf_file_open(&elf, fd, NULL), 0);
	s = elf_file_segments(elf, &n);
	for (size_t i = 0; i < n; i++)
		if (vaddr >= s[i].vaddr && vaddr - s[i].vaddr < s[i].file_size)
			return vaddr - s[i].vaddr + s[i].offset;
	fail_msg("%lx is nowhere in %s", vaddr, path);
	return 0;
}

static void test_functions(void **state)
{
	static const char *const how[] = {"-pie -fPIE", "-no-pie", "-static", "-static-pie"};

	for (size_t i = 0; i < ARRAY_SIZE(how); i++) {
		uint64_t secret, size;
		const char *path = build("bare", how[i], &secret, &size);
		uint64_t begin = offset_of(path, secret);
		char expected[64];
		struct room room;

		room_init(&room, &(struct symbol_config){0});
		room_set(&room, 3, open(path, O_RDONLY | O_CLOEXEC), "bare");
		snprintf(expected, sizeof(expected), "bare+0x%lx", begin);
		assert_true(size > 8);
		for (uint64_t at = 0; at < size; at++) {
			struct symbol_query q = {.file = 3, .offset = begin + at};

			assert_string_equal(room_name(&room, 3, begin + at), expected);
			/* It is a beginning, and no name. */
			assert_true(symbol_chain(room.s, &q)->fallback);
		}
		assert_int_equal(symbol_facts(room.s, 3)->named, 0);
		assert_string_not_equal(room_name(&room, 3, begin + size + 64), expected);
		room_deinit(&room);
	}
}

#ifdef __x86_64__
static uint64_t main_of(const char *path)
{
	char command[256], line[64] = "";
	uint64_t at = 0;
	FILE *f;

	snprintf(command, sizeof(command), "nm %s.full | grep ' T main$'", path);
	f = popen(command, "re");
	assert_true(f && fgets(line, sizeof(line), f));
	pclose(f);
	assert_int_equal(sscanf(line, "%lx", &at), 1);
	return at;
}
#endif

static uint64_t entry_of(const char *path)
{
	char command[256], line[64] = "";
	uint64_t entry = 0;
	FILE *f;

	snprintf(
		command, sizeof(command), "readelf -h %s | sed -n 's/.*Entry point.*: *//p'", path);
	f = popen(command, "re");
	assert_true(f && fgets(line, sizeof(line), f));
	pclose(f);
	assert_int_equal(sscanf(line, "%lx", &entry), 1);
	return entry;
}

/* What a library's entry is, is not for us to say. */
static void test_start(void **state)
{
	static const char *const how[] = {"-pie -fPIE", "-no-pie", "-static", "-shared -fPIC"};

	for (size_t i = 0; i < ARRAY_SIZE(how); i++) {
		uint64_t secret, size, entry;
		const char *path = build("start", how[i], &secret, &size);
		bool library = strstr(how[i], "-shared");
		struct room room;

		entry = library ? secret : entry_of(path);
		if (library)
			assert_int_equal(shell("printf '%%b' '\\x%02x\\x%02x' | dd of=%s bs=1 "
					       "seek=24 conv=notrunc 2>/dev/null",
						 (unsigned)(secret & 0xff),
						 (unsigned)(secret >> 8 & 0xff), path),
				0);
		room_init(&room, &(struct symbol_config){0});
		room_set(&room, 3, open(path, O_RDONLY | O_CLOEXEC), "start");
		entry = offset_of(path, entry);
		if (library)
			assert_string_not_equal(room_name(&room, 3, entry), "_start");
		else
			assert_string_equal(room_name(&room, 3, entry + 3), "_start");
#ifdef __x86_64__ /* by what _start does */
		if (!library)
			assert_string_equal(
				room_name(&room, 3, offset_of(path, main_of(path)) + 1), "main");
#endif
		room_deinit(&room);
	}
}

struct stub {
	uint64_t vaddr;
	char name[256];
};

/* Each stub of the file, at its beginning and its last byte but one. */
static void compare_stubs(const char *path, size_t at_least)
{
	static struct stub stubs[SYMBOLS_MAX];
	char command[512], line[1024];
	size_t n = 0, wrong = 0;
	struct room room;
	FILE *f;

	/* objdump adds what it counts from where it knows no name: those are the resolver, and IRELATIVE. */
	snprintf(command, sizeof(command),
		"objdump -d -w -j .plt -j .plt.sec -j .plt.got %s 2>/dev/null | "
		"sed -n 's/^\\([0-9a-f]*\\) <\\(.*\\)@plt>:$/\\1 \\2/p' | grep -v '[*]ABS[*]'",
		path);
	f = popen(command, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f) && n < SYMBOLS_MAX) {
		assert_int_equal(sscanf(line, "%lx %251s", &stubs[n].vaddr, stubs[n].name), 2);
		stubs[n].name[strcspn(stubs[n].name, "@")] = '\0';
		strcat(stubs[n].name, "@plt");
		n++;
	}
	pclose(f);
	room_init(&room, &(struct symbol_config){0});
	room_set(&room, 3, open(path, O_RDONLY | O_CLOEXEC), "stubs");
	for (size_t i = 0; i < n; i++) {
		uint64_t offset = offset_of(path, stubs[i].vaddr);
		struct symbol_query q = {.file = 3, .offset = offset};
		const char *got;

		assert_int_equal(room_resolve(&room, &q, 1), 0);
		got = symbol_chain(room.s, &q)->functions[0].system_name;
		if (!streq(got, stubs[i].name) && wrong++ < 5)
			print_error("%s: %lx is %s, not %s\n", path, stubs[i].vaddr, got,
				stubs[i].name);
		assert_int_equal(streq(room_name(&room, 3, offset + 5),
					 symbol_chain(room.s, &q)->functions[0].name),
			1);
	}
	room_deinit(&room);
	print_message("%s: %zu stubs\n", path, n);
	assert_int_equal(wrong, 0);
	assert_true(n >= at_least);
}

static void test_stubs(void **state)
{
	static const char *const how[] = {"-pie -fPIE -Wl,-z,lazy", "-no-pie -Wl,-z,now",
		"-fcf-protection -Wl,-z,ibtplt", "-fPIE -pie -fno-plt"};

	for (size_t i = 0; i < ARRAY_SIZE(how); i++) {
		uint64_t secret, size;

		compare_stubs(build("stubs", how[i], &secret, &size), i < 3 ? 3 : 0);
	}
	compare_stubs("/usr/bin/git", 100);
	compare_stubs("/bin/bash", 100);
}

/* A word that a function of the same file fills: by the name that it is exported under. */
static void test_chosen(void **state)
{
	static const char text[] =
		"#include <string.h>\n"
		"static void *one(void *a, const void *b, size_t n) { return a; }\n"
		"static void *pick(void) { return one; }\n"
		"void *my_copy(void *a, const void *b, size_t n) "
		"__attribute__((ifunc(\"pick\"), visibility(\"default\")));\n"
		"extern __typeof(my_copy) my_hidden __attribute__((alias(\"my_copy\"), "
		"visibility(\"hidden\")));\n"
		"void *use(void *a) { return my_hidden(a, a, 1) + 1; }\n";
	char path[256], command[512], line[256] = "";
	struct room room;
	uint64_t at;
	FILE *f;

	write_file(work_path("chosen.c"), text);
	snprintf(path, sizeof(path), "%s", work_path("libchosen.so"));
	assert_int_equal(shell("${CC:-gcc} -O1 -shared -fPIC %s -o %s 2>/dev/null && strip %s",
				 work_path("chosen.c"), path, path),
		0);
	snprintf(command, sizeof(command),
		"objdump -d -w -j .plt -j .plt.sec -j .plt.got %s 2>/dev/null | "
		"sed -n 's/^\\([0-9a-f]*\\) <[*]ABS[*].*@plt>:$/\\1/p' | tail -1",
		path);
	f = popen(command, "re");
	assert_true(f && fgets(line, sizeof(line), f));
	pclose(f);
	assert_int_equal(sscanf(line, "%lx", &at), 1);
	room_init(&room, &(struct symbol_config){0});
	room_set(&room, 3, open(path, O_RDONLY | O_CLOEXEC), "chosen");
	assert_string_equal(room_name(&room, 3, offset_of(path, at)), "my_copy@plt");
	room_deinit(&room);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_functions),
		cmocka_unit_test(test_start),
		cmocka_unit_test(test_stubs),
		cmocka_unit_test(test_chosen),
	};

	dispatch_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
