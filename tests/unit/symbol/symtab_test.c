/* SPDX-License-Identifier: Apache-2.0 */

/* The rules of symtab.c on tables made for each, read in this process: the reader itself. */

#include "tests/unit/symbol/elf_builder.h"
#include "tests/unit/symbol/support.h"
#include "agentd/elf/elf_file.h"
#include "agentd/symbol/resolver.h"

struct opened {
	struct built built;
	int fd;
	void *native;
	struct symbol_facts_message facts;
	struct found found;
};

static struct opened *open_built(const struct built_symbol *symbols, size_t n)
{
	struct opened *o = calloc(1, sizeof(*o));

	assert_non_null(o);
	built_init(&o->built, symbols, n);
	o->fd = memfd_of(o->built.data, o->built.len);
	assert_int_equal(resolver_native.open(&o->native,
				 &(struct resolver_input){.fd = o->fd, .debug_fd = -1}, &o->facts),
		0);
	return o;
}

static void close_built(struct opened **o)
{
	resolver_native.close((*o)->native);
	close((*o)->fd);
	built_free(&(*o)->built);
	free(*o);
}

/* The name at an offset of .text; "-" none. */
static const char *at(struct opened *o, uint64_t offset)
{
	int r;

	found_reset(&o->found);
	r = resolver_native.find(o->native, BUILT_TEXT + offset, &o->found);
	assert_in_range(r, 0, 1);
	return r ? o->found.functions[0].name : "-";
}

#define OPENED(...)                                                                                \
	const struct built_symbol symbols[] = {__VA_ARGS__};                                       \
	CLEANUP(close_built) struct opened *o = open_built(symbols, ARRAY_SIZE(symbols))

static void test_size_bounds_reach(void **state)
{
	OPENED({"first", 0, 16, STT_FUNC, STB_GLOBAL}, {"second", 64, 8, STT_FUNC, STB_LOCAL});

	assert_string_equal(at(o, 0), "first");
	assert_string_equal(at(o, 15), "first");
	assert_string_equal(at(o, 16), "-");
	assert_string_equal(at(o, 63), "-");
	assert_string_equal(at(o, 71), "second");
	assert_string_equal(at(o, 72), "-");
	assert_string_equal(o->facts.named_by, ".symtab");
	assert_int_equal(o->facts.functions, 2);
}

static void test_nested(void **state)
{
	OPENED({"outer", 0, 100, STT_FUNC, STB_GLOBAL}, {"inner", 20, 10, STT_FUNC, STB_GLOBAL},
		{"head", 0, 5, STT_FUNC, STB_LOCAL}, {"over", 90, 20, STT_FUNC, STB_GLOBAL});

	assert_string_equal(at(o, 4), "head");
	assert_string_equal(at(o, 5), "outer");
	assert_string_equal(at(o, 20), "inner");
	assert_string_equal(at(o, 29), "inner");
	assert_string_equal(at(o, 30), "outer");
	assert_string_equal(at(o, 90), "over");
	assert_string_equal(at(o, 109), "over");
	assert_string_equal(at(o, 110), "-");
}

static void test_labels(void **state)
{
	OPENED({"function", 0, 32, STT_FUNC, STB_GLOBAL}, {"inside", 8, 0, STT_NOTYPE, STB_LOCAL},
		{"typed_inside", 12, 4, STT_NOTYPE, STB_GLOBAL},
		{"label", 40, 0, STT_NOTYPE, STB_GLOBAL}, {"sizeless", 60, 0, STT_FUNC, STB_GLOBAL},
		{"next", 100, 4, STT_FUNC, STB_GLOBAL}, {"last", 200, 0, STT_FUNC, STB_GLOBAL},
		{"end", BUILT_TEXT_SIZE, 0, STT_NOTYPE, STB_GLOBAL},
		{"$x", 44, 0, STT_NOTYPE, STB_LOCAL}, {".Ltmp", 48, 0, STT_NOTYPE, STB_LOCAL});

	assert_string_equal(at(o, 8), "function");
	assert_string_equal(at(o, 13), "function");
	assert_string_equal(at(o, 39), "-");
	assert_string_equal(at(o, 40), "label");
	assert_string_equal(at(o, 59), "label");
	assert_string_equal(at(o, 60), "sizeless");
	assert_string_equal(at(o, 99), "sizeless");
	assert_string_equal(at(o, 103), "next");
	assert_string_equal(at(o, 104), "-");
	assert_string_equal(at(o, BUILT_TEXT_SIZE - 1), "last");
	assert_string_equal(at(o, BUILT_TEXT_SIZE), "-");
}

static void test_aliases(void **state)
{
	OPENED({"__libc_write", 0, 8, STT_FUNC, STB_GLOBAL}, {"write", 0, 8, STT_FUNC, STB_WEAK},
		{"a_local", 0, 8, STT_FUNC, STB_LOCAL}, {"_ZN3FooC2Ev", 16, 8, STT_FUNC, STB_WEAK},
		{"_ZN3FooC1Ev", 16, 8, STT_FUNC, STB_WEAK},
		{"longer_name", 32, 8, STT_FUNC, STB_GLOBAL}, {"name", 32, 8, STT_FUNC, STB_GLOBAL},
		{"weak", 48, 8, STT_FUNC, STB_WEAK}, {"strong_one", 48, 8, STT_FUNC, STB_GLOBAL},
		{"untyped", 64, 8, STT_NOTYPE, STB_GLOBAL}, {"__typed", 64, 8, STT_FUNC, STB_LOCAL},
		{"ifunc", 80, 8, STT_GNU_IFUNC, STB_GLOBAL},
		{"object", 96, 8, STT_OBJECT, STB_GLOBAL},
		{"versioned@@GLIBC_2.2", 112, 8, STT_FUNC, STB_GLOBAL});

	assert_string_equal(at(o, 0), "write");
	found_reset(&o->found);
	assert_int_equal(resolver_native.find(o->native, BUILT_TEXT + 16, &o->found), 1);
	assert_string_equal(o->found.functions[0].system_name, "_ZN3FooC1Ev");
	assert_string_equal(o->found.functions[0].name, "Foo::Foo");
	assert_string_equal(at(o, 32), "name");
	assert_string_equal(at(o, 48), "strong_one");
	assert_string_equal(at(o, 64), "__typed");
	assert_string_equal(at(o, 80), "ifunc");
	assert_string_equal(at(o, 96), "-");
	assert_string_equal(at(o, 112), "versioned");
}

static void test_order_of_the_table_does_not_matter(void **state)
{
	struct built_symbol symbols[200];
	char names[200][16];
	uint64_t seed = 42;

	for (size_t i = 0; i < 200; i++) {
		snprintf(names[i], sizeof(names[i]), "f%zu", i % 50);
		symbols[i] = (struct built_symbol){names[i], i % 50 * 20, 15, STT_FUNC, STB_GLOBAL};
	}
	for (int round = 0; round < 5; round++) {
		for (size_t i = 199; i > 0; i--) {
			size_t with = (seed = seed * 6364136223846793005ULL + 1) % (i + 1);
			struct built_symbol t = symbols[i];

			symbols[i] = symbols[with];
			symbols[with] = t;
		}
		CLEANUP(close_built) struct opened *o = open_built(symbols, 200);

		for (size_t i = 0; i < 50; i++) {
			char name[16];

			snprintf(name, sizeof(name), "f%zu", i);
			assert_string_equal(at(o, i * 20), name);
			assert_string_equal(at(o, i * 20 + 14), name);
			assert_string_equal(at(o, i * 20 + 15), "-");
		}
	}
}

static void test_names_of_all_lengths(void **state)
{
	_cleanup_free_ char *longest = malloc(20001);
	const size_t lengths[] = {1, 4094, 4095, 4096, 20000};

	for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
		memset(longest, 'x', lengths[i]);
		longest[lengths[i]] = '\0';
		OPENED({longest, 0, 8, STT_FUNC, STB_GLOBAL},
			{"behind", 8, 8, STT_FUNC, STB_GLOBAL});
		const char *name = at(o, 0);

		assert_int_equal(strlen(name), MIN(lengths[i], (size_t)SYMBOL_NAME_MAX - 1));
		if (lengths[i] >= SYMBOL_NAME_MAX)
			assert_string_equal(name + strlen(name) - 4, "x...");
		assert_string_equal(at(o, 8), "behind");
	}
}

static void test_names_are_clean(void **state)
{
	OPENED({"esc\033[31m", 0, 8, STT_FUNC, STB_GLOBAL},
		{"bad\xff\xfe", 8, 8, STT_FUNC, STB_GLOBAL},
		{"gr\xc3\xb6\xc3\x9f"
		 "e",
			16, 8, STT_FUNC, STB_GLOBAL});

	assert_string_equal(at(o, 0), "esc?[31m");
	assert_string_equal(at(o, 8), "bad??");
	assert_string_equal(at(o, 16),
		"gr\xc3\xb6\xc3\x9f"
		"e");
}

static void test_only_dynsym(void **state)
{
	const struct built_symbol symbols[] = {{"exported", 0, 8, STT_FUNC, STB_GLOBAL}};
	struct symbol_facts_message facts = {0};
	CLEANUP(built_free) struct built b = {0};
	_cleanup_close_ int fd = -1;
	void *native = NULL;

	built_init(&b, symbols, 1);
	b.shdr[BUILT_SYMTAB].sh_type = SHT_DYNSYM;
	fd = memfd_of(b.data, b.len);
	assert_int_equal(resolver_native.open(&native,
				 &(struct resolver_input){.fd = fd, .debug_fd = -1}, &facts),
		0);
	assert_string_equal(facts.named_by, ".dynsym");
	resolver_native.close(native);
}

/* The strings of one symbol have no end, or lie outside: it has no name, the others do. */
static void test_spoilt_strings(void **state)
{
	const struct built_symbol symbols[] = {{"good", 0, 8, STT_FUNC, STB_GLOBAL},
		{"outside", 16, 8, STT_FUNC, STB_GLOBAL}, {"endless", 32, 8, STT_FUNC, STB_GLOBAL}};
	struct symbol_facts_message facts = {0};
	CLEANUP(built_free) struct built b = {0};
	_cleanup_close_ int fd = -1;
	void *native = NULL;
	struct found *found = calloc(1, sizeof(*found));

	built_init(&b, symbols, 3);
	b.symbols[2].st_name = 0x7fffffff;
	b.strings[b.shdr[BUILT_STRTAB].sh_size - 1] = 'x';
	fd = memfd_of(b.data, b.len);
	assert_int_equal(resolver_native.open(&native,
				 &(struct resolver_input){.fd = fd, .debug_fd = -1}, &facts),
		0);
	found_reset(found);
	assert_int_equal(resolver_native.find(native, BUILT_TEXT, found), 1);
	assert_string_equal(found->functions[0].name, "good");
	assert_int_equal(resolver_native.find(native, BUILT_TEXT + 16, found), 0);
	assert_int_equal(resolver_native.find(native, BUILT_TEXT + 32, found), 0);
	resolver_native.close(native);
	free(found);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_size_bounds_reach),
		cmocka_unit_test(test_nested),
		cmocka_unit_test(test_labels),
		cmocka_unit_test(test_aliases),
		cmocka_unit_test(test_order_of_the_table_does_not_matter),
		cmocka_unit_test(test_names_of_all_lengths),
		cmocka_unit_test(test_names_are_clean),
		cmocka_unit_test(test_only_dynsym),
		cmocka_unit_test(test_spoilt_strings),
	};

	dispatch_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
