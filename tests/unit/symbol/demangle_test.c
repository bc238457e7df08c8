/* SPDX-License-Identifier: Apache-2.0 */

#include <sys/resource.h>
#include "tests/unit/symbol/support.h"
#include "agentd/symbol/demangle.h"
#include "agentd/symbol/demangle_std.h"
#include "agentd/symbol/protocol.h"

static void test_table(void **state)
{
	static const struct {
		const char *mangled, *templates, *full, *simple;
	} rows[] = {
		{"_ZN3foo3barEv", "foo::bar", "foo::bar()", "foo::bar"},
		{"_ZNSt6vectorIiSaIiEE9push_backERKi", "std::vector<int>::push_back",
			"std::vector<int, std::allocator<int> >::push_back(int const&)",
			"std::vector::push_back"},
		{"_ZNSt6vectorIiSaIiEE9push_backERKi@plt", "std::vector<int>::push_back@plt",
			"std::vector<int, std::allocator<int> >::push_back(int const&)@plt",
			"std::vector::push_back@plt"},
		{"write@plt", NULL, NULL, NULL},
		{"_Z1fv@plt@plt", NULL, NULL, NULL},
		/* What an argument is told by stays: only the default itself goes. */
		{"_ZNSt6vectorIi3BadIiEE1fEv", "std::vector<int, Bad<int> >::f",
			"std::vector<int, Bad<int> >::f()", "std::vector::f"},
		{"_ZNSt6vectorIiSaIlEE1fEv", "std::vector<int, std::allocator<long> >::f",
			"std::vector<int, std::allocator<long> >::f()", "std::vector::f"},
		{"_ZNSt12_Vector_baseIiSaIiEE1fEv",
			"std::_Vector_base<int, std::allocator<int> >::f",
			"std::_Vector_base<int, std::allocator<int> >::f()",
			"std::_Vector_base::f"},
		{"_ZN2my6vectorIiSaIiEE1fEv", "my::vector<int, std::allocator<int> >::f",
			"my::vector<int, std::allocator<int> >::f()", "my::vector::f"},
		{"_ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE6appendEPKc",
			"std::string::append",
			"std::__cxx11::basic_string<char, std::char_traits<char>, "
			"std::allocator<char> >::append(char const*)",
			"std::string::append"},
		{"_ZNSt3__112basic_stringIwNS_11char_traitsIwEENS_9allocatorIwEEE1fEv",
			"std::wstring::f",
			"std::__1::basic_string<wchar_t, std::__1::char_traits<wchar_t>, "
			"std::__1::allocator<wchar_t> >::f()",
			"std::wstring::f"},
		{"_ZNSt3mapINSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEESt6vectorIiSaIiEE"
		 "St4lessIS5_ESaISt4pairIKS5_S8_EEE1fEv",
			"std::map<std::string, std::vector<int> >::f",
			"std::map<std::__cxx11::basic_string<char, std::char_traits<char>, "
			"std::allocator<char> >, std::vector<int, std::allocator<int> >, "
			"std::less<std::__cxx11::basic_string<char, std::char_traits<char>, "
			"std::allocator<char> > >, std::allocator<std::pair<"
			"std::__cxx11::basic_string<char, std::char_traits<char>, "
			"std::allocator<char> > const, std::vector<int, std::allocator<int> > > > "
			">::f()",
			"std::map::f"},
		{"_ZNSt3mapIii7greaterSaISt4pairIKiiEEE1fEv", "std::map<int, int, greater>::f",
			"std::map<int, int, greater, std::allocator<std::pair<int const, int> > "
			">::f()",
			"std::map::f"},
		{"_ZNSt14priority_queueIiSt6vectorIiSaIiEESt4lessIiEE4pushEOi",
			"std::priority_queue<int>::push",
			"std::priority_queue<int, std::vector<int, std::allocator<int> >, "
			"std::less<int> >::push(int&&)",
			"std::priority_queue::push"},
		{"_ZNSt10unique_ptrI1ASt14default_deleteIS0_EED1Ev",
			"std::unique_ptr<A>::~unique_ptr",
			"std::unique_ptr<A, std::default_delete<A> >::~unique_ptr()",
			"std::unique_ptr::~unique_ptr"},
		{"_Z3fooB5cxx11v", "foo", "foo[abi:cxx11]()", "foo"},
		{"_ZNK3foo3barEi", "foo::bar", "foo::bar(int) const", "foo::bar"},
		{"_ZN12_GLOBAL__N_14workEv", "(anonymous namespace)::work",
			"(anonymous namespace)::work()", "(anonymous namespace)::work"},
		{"_Z4workv.cold", "work", "work() [clone .cold]", "work"},
		{"_ZThn16_N3foo3barEv", "non-virtual thunk to foo::bar()",
			"non-virtual thunk to foo::bar()", "non-virtual thunk to foo::bar"},
		{"_ZN3FooD1Ev", "Foo::~Foo", "Foo::~Foo()", "Foo::~Foo"},
		{"_ZTV1AIiE", "vtable for A<int>", "vtable for A<int>", "vtable for A"},
		/* Functions within functions, and what these are called on. */
		{"_ZZ4mainENKUlvE_clEv", "main::{lambda()#1}::operator()",
			"main::{lambda()#1}::operator()() const", "main::{lambda#1}::operator()"},
		{"_ZZN1A3fooIiEEvT_ENKUlS1_E_clEi",
			"A::foo<int>(int)::{lambda(auto:1)#1}::operator()",
			"A::foo<int>(int)::{lambda(auto:1)#1}::operator()(int) const",
			"A::foo::{lambda#1}::operator()"},
		{"_ZZNKO3foo3barEvENKUlvE_clEv", "foo::bar() const &&::{lambda()#1}::operator()",
			"foo::bar() const &&::{lambda()#1}::operator()() const",
			"foo::bar::{lambda#1}::operator()"},
		/* Operators are no brackets. */
		{"_ZN1AlsIiEEvT_", "A::operator<< <int>", "void A::operator<< <int>(int)",
			"A::operator<<"},
		{"_ZN1AltIiEEvv", "A::operator< <int>", "void A::operator< <int>()",
			"A::operator<"},
		{"_ZN1AIiEgtEi", "A<int>::operator>", "A<int>::operator>(int)", "A::operator>"},
		{"_ZN1AIiErsEi", "A<int>::operator>>", "A<int>::operator>>(int)", "A::operator>>"},
		{"_ZN1AIiEptEv", "A<int>::operator->", "A<int>::operator->()", "A::operator->"},
		{"_ZN1AIiEssERKS0_", "A<int>::operator<=>", "A<int>::operator<=>(A<int> const&)",
			"A::operator<=>"},
		{"_ZN1AcvSt6vectorIiSaIiEEEv", "A::operator std::vector<int>",
			"A::operator std::vector<int, std::allocator<int> >()",
			"A::operator std::vector"},
		{"_Z1fIXgtLi1ELi2EEEvv", "f<((1)>(2))>", "void f<((1)>(2))>()", "f"},
		{"_Z1fIXltLi1ELi2EEEvv", "f<(1)<(2)>", "void f<(1)<(2)>()", "f"},
		{"_ZNSt17_Function_handlerIFvvEZ4mainEUlvE_E9_M_invokeERKSt9_Any_data",
			"std::_Function_handler<void (), main::{lambda()#1}>::_M_invoke",
			"std::_Function_handler<void (), main::{lambda()#1}>"
			"::_M_invoke(std::_Any_data const&)",
			"std::_Function_handler::_M_invoke"},
		{"_ZN7operatoIiE1fEv", "operato<int>::f", "operato<int>::f()", "operato::f"},
		/* Rust: legacy (its hash left out) and v0. */
		{"_ZN4core3fmt9Formatter3pad17h0123456789abcdefE", "core::fmt::Formatter::pad",
			"core::fmt::Formatter::pad", "core::fmt::Formatter::pad"},
		{"_ZN4core3ptr46drop_in_place$LT$alloc..vec..Vec$LT$u8$GT$$GT$"
		 "17h0123456789abcdefE",
			"core::ptr::drop_in_place<alloc::vec::Vec<u8>>",
			"core::ptr::drop_in_place<alloc::vec::Vec<u8>>",
			"core::ptr::drop_in_place"},
		{"_ZN70_$LT$alloc..vec..Vec$LT$T$C$A$GT$$u20$as$u20$core..ops..drop..Drop$GT$"
		 "4drop17h0123456789abcdefE",
			"<alloc::vec::Vec<T,A> as core::ops::drop::Drop>::drop",
			"<alloc::vec::Vec<T,A> as core::ops::drop::Drop>::drop",
			"<alloc::vec::Vec as core::ops::drop::Drop>::drop"},
		{"_ZN4core5slice29_$LT$impl$u20$$u5b$T$u5d$$GT$4iter17h0123456789abcdefE",
			"core::slice::<impl [T]>::iter", "core::slice::<impl [T]>::iter",
			"core::slice::<impl [T]>::iter"},
		{"_RNvCs15kBYyAo9fc_7mycrate7example", "mycrate::example", "mycrate::example",
			"mycrate::example"},
		{"_RNvXCs15kBYyAo9fc_7mycrateNtB2_3FooNtB2_5Trait3run",
			"<mycrate::Foo as mycrate::Trait>::run",
			"<mycrate::Foo as mycrate::Trait>::run",
			"<mycrate::Foo as mycrate::Trait>::run"},
		{"_RINvCs15kBYyAo9fc_7mycrate7exampleINtB2_3FooFhEmEhE",
			"mycrate::example::<mycrate::Foo<fn(u8) -> u32>, u8>",
			"mycrate::example::<mycrate::Foo<fn(u8) -> u32>, u8>", "mycrate::example"},
		{"_RNCNvCs15kBYyAo9fc_7mycrate7example0B3_", "mycrate::example::{closure#0}",
			"mycrate::example::{closure#0}", "mycrate::example::{closure#0}"},
		{"_RNvXCs15kBYyAo9fc_7mycrateThFhEhENtB2_5Trait3run",
			"<(u8, fn(u8) -> u8) as mycrate::Trait>::run",
			"<(u8, fn(u8) -> u8) as mycrate::Trait>::run",
			"<(u8, fn(u8) -> u8) as mycrate::Trait>::run"},
		/* Not mangled. */
		{"main", NULL, NULL, NULL},
		{"_start", NULL, NULL, NULL},
		{"__libc_start_main", NULL, NULL, NULL},
		{"net/http.(*conn).serve", NULL, NULL, NULL},
		{"Ljava/util/Map;::<init>", NULL, NULL, NULL},
		{"_Z", NULL, NULL, NULL},
		{"_ZN", NULL, NULL, NULL},
		{"_R", NULL, NULL, NULL},
		{"", NULL, NULL, NULL},
	};
	char out[SYMBOL_NAME_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const char *expected[] = {[SYMBOL_DEMANGLE_TEMPLATES] = rows[i].templates,
			[SYMBOL_DEMANGLE_FULL] = rows[i].full,
			[SYMBOL_DEMANGLE_SIMPLE] = rows[i].simple,
			[SYMBOL_DEMANGLE_NONE] = NULL};

		for (int mode = SYMBOL_DEMANGLE_TEMPLATES; mode <= SYMBOL_DEMANGLE_NONE; mode++) {
			bool ok = demangle(
				rows[i].mangled, (enum symbol_demangle)mode, out, sizeof(out));

			if (ok != (expected[mode] != NULL) || (ok && !streq(out, expected[mode])))
				fail_msg("%s, %d: \"%s\", not \"%s\"", rows[i].mangled, mode,
					ok ? out : "(not mangled)",
					expected[mode] ? expected[mode] : "(not mangled)");
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

/* What two demanglers write differently: "> >" and ">>", {lambda(int)#1} and 'lambda'(int). */
static void fold(char *s)
{
	static const char *const gone[] = {"{lambda", "'lambda", "{unnamed type", "'unnamed"};
	char *out = s;

	while (*s) {
		size_t n = 0;

		for (size_t i = 0; i < ARRAY_SIZE(gone) && !n; i++)
			n = strncmp(s, gone[i], strlen(gone[i])) == 0 ? strlen(gone[i]) : 0;
		if (n && s[0] == '\'') { /* and its number */
			n += strspn(s + n, "0123456789");
			n += s[n] == '\'';
		}
		if (!n && *s == '#')
			n = 1 + strspn(s + 1, "0123456789}");
		if (!n && *s == ' ' && s[1] == '>')
			n = 1;
		if (n)
			s += n;
		else
			*out++ = *s++;
	}
	*out = '\0';
}

/* The text without what stands in angle brackets, told apart without a stack: for names without operators, arrows
 * and comparisons only. */
static bool plainly_simple(const char *templates, char *out)
{
	int depth = 0;

	if (strstr(templates, "operator") || strstr(templates, "->") || strstr(templates, ")>") ||
		strpbrk(templates, "()"))
		return false;
	for (; *templates; templates++) {
		if (*templates == '<')
			depth++;
		else if (*templates == '>')
			depth--;
		else if (!depth)
			*out++ = *templates;
	}
	*out = '\0';
	return true;
}

struct tally {
	size_t n, wrong, simple;
};

/* One line: mangled, llvm-cxxfilt's, c++filt -p's. */
static void compare_line(char *line, bool rust, struct tally *t)
{
	char *llvm = strchr(line, '\t'), *gnu = llvm ? strchr(llvm + 1, '\t') : NULL;
	char out[SYMBOL_NAME_MAX], simple[SYMBOL_NAME_MAX], plain[SYMBOL_NAME_MAX];

	assert_non_null(gnu);
	*llvm++ = *gnu++ = '\0';
	if (strlen(llvm) >= sizeof(out) - 1 || streq(line, llvm))
		return;
	t->n++;
	if (!demangle(line, SYMBOL_DEMANGLE_FULL, out, sizeof(out)))
		out[0] = '\0';
	fold(out);
	fold(llvm);
	if (!streq(out, llvm) && t->wrong++ < 5)
		print_error("%s: %s, not %s\n", line, out, llvm);
	if (rust)
		return;
	demangle_std(gnu); /* which the table tests */
	if (!demangle(line, SYMBOL_DEMANGLE_TEMPLATES, out, sizeof(out)) || !streq(out, gnu))
		fail_msg("%s: %s, not %s", line, out, gnu);
	assert_true(demangle(line, SYMBOL_DEMANGLE_SIMPLE, simple, sizeof(simple)));
	if (!plainly_simple(out, plain))
		return;
	t->simple++;
	if (!streq(simple, plain))
		fail_msg("%s: %s, not %s", line, simple, plain);
}

static void compare(const char *library, bool rust, size_t at_least)
{
	struct tally t = {};
	char command[1024], line[65536];
	FILE *f;

	snprintf(command, sizeof(command),
		"bash -c 'set -o pipefail; d=$(mktemp -d); trap \"rm -r $d\" EXIT; "
		"nm -D -p --defined-only \"%s\" | cut -c20- | sed \"s/@.*//\" | "
		"grep -E \"^_(Z|R)\" | awk \"NR %% 3 == 0\" >$d/raw && llvm-cxxfilt <$d/raw >$d/llvm && "
		"c++filt -p <$d/raw >$d/gnu && paste $d/raw $d/llvm $d/gnu'",
		library);
	f = popen(command, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		compare_line(line, rust, &t);
	}
	assert_int_equal(pclose(f), 0);
	print_message(
		"%zu names, %zu differ; %zu compared without arguments\n", t.n, t.wrong, t.simple);
	assert_true(t.n > at_least && t.wrong * 200 <= t.n);
	assert_true(rust || t.simple > at_least / 2);
}

/* Thousands of names of LLVM's own library against its own demangler, and c++filt. */
static void test_against_llvm(void **state)
{
	compare("$(ldconfig -p | awk \"/libLLVM-?[0-9.]*so/ {print \\$NF; exit}\")", false, 5000);
	if (system("rustc --version >/dev/null 2>&1") != 0)
		print_message("Rust's names not run here: rustc is not installed\n");
	else
		compare("$(ls $(rustc --print sysroot)/lib/rustlib/*/lib/libstd-*.so | head -1)",
			true, 300);
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
	/* Brackets that never close, and many of them. */
	memcpy(name, "_Z1fI", 6);
	for (int i = 0; i < 600; i++)
		strcat(name, "1pI");
	demangle(name, SYMBOL_DEMANGLE_SIMPLE, out, sizeof(out));
	strcpy(name, "_Z1f");
	for (int i = 0; i < 500; i++)
		strcat(name, "I1p");
	for (int i = 0; i < 500; i++)
		strcat(name, "E");
	strcat(name, "vv");
	assert_true(!demangle(name, SYMBOL_DEMANGLE_SIMPLE, out, sizeof(out)) || out[0] == 'f');
	/* A small buffer is kept. */
	assert_true(demangle("_ZN3foo3barEv", SYMBOL_DEMANGLE_TEMPLATES, out, 8));
	assert_string_equal(out, "foo:...");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_against_nm),
		cmocka_unit_test(test_against_llvm),
		cmocka_unit_test(test_hostile),
	};

	dispatch_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
