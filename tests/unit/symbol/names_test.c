/* SPDX-License-Identifier: Apache-2.0 */

/* Names of real files against nm(1), through the real sandbox: every function of every file listed, at its
 * first byte, in its middle and at its last, and the byte behind its last. A name is right if it is one of
 * the names that nm has for a symbol that holds the address; behind the last, no name of the neighbour. */

#include "tests/unit/symbol/support.h"
#include "agentd/elf/elf_file.h"

struct symbol_line {
	uint64_t address, size;
	char name[512];
};

struct nm {
	struct symbol_line *lines;
	size_t n;
};

static void nm_free(struct nm *nm)
{
	free(nm->lines);
}

/* Function symbols with a size, by `nm` over one table, or both. */
static void nm_read(struct nm *nm, const char *path, const char *options)
{
	char command[512], line[65536];
	FILE *f;

	snprintf(command, sizeof(command),
		"nm -S --defined-only %s %s 2>/dev/null; nm -D -S --defined-only %s %s 2>/dev/null",
		options, path, options, path);
	f = popen(command, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long long address, size;
		char type;
		int at = 0;
		struct symbol_line *l;

		if (sscanf(line, "%llx %llx %c %n", &address, &size, &type, &at) != 3 || !at)
			continue;
		/* A version ends the name; nm shows it for dynamic symbols. */
		line[at + (int)strcspn(line + at, "\n@")] = '\0';
		if (!strchr("tTwWi", type) || strlen(line + at) >= sizeof(l->name) || size == 0)
			continue;
		if (nm->n % 4096 == 0) {
			nm->lines = realloc(nm->lines, (nm->n + 4096) * sizeof(*nm->lines));
			assert_non_null(nm->lines);
		}
		l = &nm->lines[nm->n++];
		l->address = address;
		l->size = size;
		snprintf(l->name, sizeof(l->name), "%s", line + at);
	}
	pclose(f);
}

static int by_address(const void *a, const void *b)
{
	const struct symbol_line *x = a, *y = b;

	return x->address < y->address ? -1 : x->address > y->address;
}

/* Whether name is one of those that hold the address. widest: the size of the longest symbol. */
/* Equal, but for what gcc puts behind the name of a piece of a function (f.part.0), which debug
 * information does not say. */
static bool same_name(const char *nm, const char *ours)
{
	size_t n = strlen(ours);

	return strncmp(nm, ours, n) == 0 && (!nm[n] || nm[n] == '.');
}

static bool holds(
	const struct nm *nm, uint64_t address, uint64_t widest, const char *name, bool *any)
{
	size_t low = 0, high = nm->n;

	*any = false;
	while (low < high) {
		size_t middle = (low + high) / 2;

		if (nm->lines[middle].address <= address)
			low = middle + 1;
		else
			high = middle;
	}
	for (size_t i = low; i-- > 0 && address - nm->lines[i].address < widest;) {
		if (address - nm->lines[i].address >= nm->lines[i].size)
			continue;
		*any = true;
		if (same_name(nm->lines[i].name, name))
			return true;
	}
	return false;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The names of functions with a size, sorted. */
static const char **names_of(const struct nm *nm)
{
	const char **names = calloc(nm->n, sizeof(*names));

	assert_non_null(names);
	for (size_t i = 0; i < nm->n; i++)
		names[i] = nm->lines[i].name;
	qsort(names, nm->n, sizeof(*names), by_name);
	return names;
}

static bool to_offset(const struct elf_file *elf, uint64_t vaddr, uint64_t *offset)
{
	size_t n;
	const struct elf_segment *s = elf_file_segments(elf, &n);

	for (size_t i = 0; i < n; i++) {
		if (s[i].executable && vaddr >= s[i].vaddr && vaddr - s[i].vaddr < s[i].file_size) {
			*offset = vaddr - s[i].vaddr + s[i].offset;
			return true;
		}
	}
	return false;
}

#define PROBES 4

static void compare(const char *path, size_t at_least)
{
	CLEANUP(nm_free) struct nm nm = {0};
	CLEANUP(elf_file_closep) struct elf_file *elf = NULL;
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	_cleanup_free_ struct symbol_query *queries = NULL;
	_cleanup_free_ uint64_t *addresses = NULL;
	_cleanup_free_ const char **names = NULL;
	size_t n = 0, wrong = 0, beyond = 0;
	uint64_t widest = 0;
	struct room room;

	assert_true(fd >= 0);
	assert_int_equal(elf_file_open(&elf, fd, NULL), 0);
	nm_read(&nm, path, "");
	assert_true(nm.n >= at_least);
	qsort(nm.lines, nm.n, sizeof(*nm.lines), by_address);
	names = names_of(&nm);
	queries = calloc(nm.n * PROBES, sizeof(*queries));
	addresses = calloc(nm.n * PROBES, sizeof(*addresses));
	for (size_t i = 0; i < nm.n; i++) {
		const struct symbol_line *l = &nm.lines[i];
		const uint64_t probes[PROBES] = {0, l->size / 2, l->size - 1, l->size};

		widest = MAX(widest, l->size);
		for (size_t p = 0; p < PROBES; p++) {
			uint64_t offset;

			if (!to_offset(elf, l->address + probes[p], &offset))
				continue;
			addresses[n] = l->address + probes[p];
			queries[n++] = (struct symbol_query){.file = 5, .offset = offset};
		}
	}
	room_init(&room,
		&(struct symbol_config){.max_entries = 4000000, .max_string_bytes = 1 << 30});
	room_set_path(&room, 5, path);
	for (size_t at = 0; at < n; at += 20000)
		assert_int_equal(room_resolve(&room, queries + at, MIN(n - at, (size_t)20000)), 0);
	for (size_t i = 0; i < n; i++) {
		const struct symbol_chain *chain = symbol_chain(room.s, &queries[i]);
		bool any,
			ok = holds(&nm, addresses[i], widest,
				chain->functions[chain->n - 1].system_name, &any);

		/* Where nm knows nobody with a size there may be a label without one, or nobody; never a
		 * function whose size says that it ended. */
		if (!any)
			ok = chain->fallback ||
				!bsearch(&chain->functions[chain->n - 1].system_name, names, nm.n,
					sizeof(*names), by_name);
		beyond += !any;
		if (!ok && wrong++ < 10)
			print_error("%s: 0x%llx is called %s\n", path,
				(unsigned long long)addresses[i], chain->functions[0].name);
	}
	print_message("%s: %zu symbols, %zu addresses (%zu in none), %zu wrong, by %s\n", path,
		nm.n, n, beyond, wrong, symbol_facts(room.s, 5)->named_by);
	assert_int_equal(wrong, 0);
	assert_true(beyond > 0);
	assert_true(symbol_facts(room.s, 5)->seen);
	assert_string_equal(symbol_facts(room.s, 5)->last_problem, "");
	room_deinit(&room);
}

static const char *library(const char *name)
{
	static char path[256];
	FILE *f;
	char command[128];

	/* Wherever this distribution keeps it. */
	snprintf(command, sizeof(command), "ldconfig -p | awk '$1 == \"%s\" {print $NF; exit}'",
		name);
	f = popen(command, "re");
	assert_non_null(f);
	path[0] = '\0';
	if (fgets(path, sizeof(path), f))
		path[strcspn(path, "\n")] = '\0';
	pclose(f);
	if (!*path)
		fail_msg("%s is not installed", name);
	return path;
}

static void test_libc(void **state)
{
	compare(library("libc.so.6"), 2000);
}

static void test_libstdcxx(void **state)
{
	compare(library("libstdc++.so.6"), 3000);
}

static void test_this_program(void **state)
{
	char path[256] = "";

	assert_true(readlink("/proc/self/exe", path, sizeof(path) - 1) > 0);
	compare(path, 100);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_libc),
		cmocka_unit_test(test_libstdcxx),
		cmocka_unit_test(test_this_program),
	};

	dispatch_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
