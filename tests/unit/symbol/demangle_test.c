/* SPDX-License-Identifier: Apache-2.0 */

#include <sys/resource.h>
#include "tests/unit/symbol/support.h"
#include "agentd/symbol/demangle.h"
#include "agentd/symbol/protocol.h"

static void test_table(void **state)
{
	static const struct {
		const char *mangled, *templates, *full;
	} rows[] = {
		{"_ZN3foo3barEv", "foo::bar", "foo::bar()"},
		{"_ZNSt6vectorIiSaIiEE9push_backERKi",
			"std::vector<int, std::allocator<int> >::push_back",
			"std::vector<int, std::allocator<int> >::push_back(int const&)"},
		{"_ZNK3foo3barEi", "foo::bar", "foo::bar(int) const"},
		{"_ZN12_GLOBAL__N_14workEv", "(anonymous namespace)::work",
			"(anonymous namespace)::work()"},
		{"_Z4workv.cold", "work", "work() [clone .cold]"},
		{"_ZThn16_N3foo3barEv", "non-virtual thunk to foo::bar()",
			"non-virtual thunk to foo::bar()"},
		/* Rust: legacy (its hash left out) and v0. */
		{"_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad",
			"core::fmt::Formatter::pad"},
		{"_RNvCs15kBYyAo9fc_7mycrate7example", "mycrate::example", "mycrate::example"},
		{"_RNvXCs15kBYyAo9fc_7mycrateNtB2_3FooNtB2_5Trait3run",
			"<mycrate::Foo as mycrate::Trait>::run",
			"<mycrate::Foo as mycrate::Trait>::run"},
		/* Not mangled. */
		{"main", NULL, NULL},
		{"_start", NULL, NULL},
		{"__libc_start_main", NULL, NULL},
		{"net/http.(*conn).serve", NULL, NULL},
		{"_Z", NULL, NULL},
		{"_ZN", NULL, NULL},
		{"_R", NULL, NULL},
		{"", NULL, NULL},
	};
	char out[SYMBOL_NAME_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const char *expected[] = {rows[i].templates, rows[i].full, rows[i].templates, NULL};

		for (int style = SYMBOL_DEMANGLE_TEMPLATES; style <= SYMBOL_DEMANGLE_NONE;
			style++) {
			bool ok = demangle(rows[i].mangled, style, out, sizeof(out));

			assert_int_equal(ok, expected[style] != NULL);
			if (ok && style == SYMBOL_DEMANGLE_TEMPLATES &&
				strstr(rows[i].mangled, ".cold"))
				assert_int_equal(strncmp(out, "work", 4), 0);
			else if (ok)
				assert_string_equal(out, expected[style]);
		}
	}
}

/* Every mangled name of the C++ library against nm -C, which is another front of the same rules: what is tested is
 * that nothing is lost on our way round it (the callback, the limits). */
static void test_against_nm(void **state)
{
	FILE *f = popen("p=$(ldconfig -p | awk '$1 == \"libstdc++.so.6\" {print $NF; exit}'); "
			"bash -c \"paste <(nm -D -p --defined-only $p | cut -c20-) "
			"<(nm -D -p -C --defined-only $p | cut -c20-)\"",
		"re");
	char line[65536], out[SYMBOL_NAME_MAX];
	size_t n = 0, wrong = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		char *expected = strchr(line, '\t');

		assert_non_null(expected);
		*expected++ = '\0';
		expected[strcspn(expected, "\n@")] = '\0';
		line[strcspn(line, "@")] = '\0';
		if (strlen(expected) >= sizeof(out) || streq(line, expected))
			continue;
		n++;
		if (!demangle(line, SYMBOL_DEMANGLE_FULL, out, sizeof(out)) ||
			!streq(out, expected)) {
			if (wrong++ < 5)
				print_error("%s: %s, not %s\n", line, out, expected);
		}
	}
	pclose(f);
	assert_true(n > 3000);
	assert_int_equal(wrong, 0);
}

/* Names made to be long, deep or huge: cut, refused or right, and back soon. */
static void test_hostile(void **state)
{
	_cleanup_free_ char *name = malloc(SYMBOL_NAME_MAX + 1);
	char out[SYMBOL_NAME_MAX];
	struct rlimit cpu = {.rlim_cur = 60, .rlim_max = RLIM_INFINITY};
	static const char repeated[] = "PRKFNSTIXLEMDYNvXCs_";

	/* A bound for this test as a whole: the child has its own. */
	setrlimit(RLIMIT_CPU, &cpu);
	for (size_t c = 0; repeated[c]; c++) {
		snprintf(name, SYMBOL_NAME_MAX, "_Z1f%0*d", SYMBOL_NAME_MAX - 10, 0);
		memset(name + 4, repeated[c], SYMBOL_NAME_MAX - 10);
		demangle(name, SYMBOL_DEMANGLE_FULL, out, sizeof(out));
		memcpy(name, "_RNv", 4);
		demangle(name, SYMBOL_DEMANGLE_FULL, out, sizeof(out));
		assert_true(strlen(out) < sizeof(out));
	}
	/* Each substitution doubles the text before it. */
	strcpy(name, "_Z1f1pIiiE");
	for (int i = 0; i < 30; i++) {
		char more[32];

		snprintf(more, sizeof(more), "S_IS%c_S%c_E", i < 10 ? '0' + i : 'A' + i - 10,
			i < 10 ? '0' + i : 'A' + i - 10);
		strcat(name, more);
	}
	assert_true(demangle(name, SYMBOL_DEMANGLE_FULL, out, sizeof(out)));
	assert_int_equal(strlen(out), sizeof(out) - 1);
	assert_string_equal(out + sizeof(out) - 4, "...");
	/* Longer than libiberty takes by itself. */
	strcpy(name, "_Z");
	for (int i = 0; i < 1; i++)
		strcat(name, "N");
	for (int i = 0; i < 150; i++)
		strcat(name, "10namespaced");
	strcat(name, "1fEv");
	assert_true(demangle(name, SYMBOL_DEMANGLE_TEMPLATES, out, sizeof(out)));
	assert_int_equal(strlen(out), 150 * 12 + 1);
	/* libiberty hands out a piece of no length, at NULL. */
	demangle("_RNvCs_0Train", SYMBOL_DEMANGLE_FULL, out, sizeof(out));
	/* A small buffer is kept. */
	assert_true(demangle("_ZN3foo3barEv", SYMBOL_DEMANGLE_TEMPLATES, out, 8));
	assert_string_equal(out, "foo:...");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_against_nm),
		cmocka_unit_test(test_hostile),
	};

	dispatch_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
