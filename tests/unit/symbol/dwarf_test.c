/* SPDX-License-Identifier: Apache-2.0 */

/* Debug information against another reader of it, llvm-symbolizer: programs by gcc, clang and rustc,
 * DWARF 4 and 5, compressed or with link-time optimisation; thousands of addresses spread over the
 * code. Chains must be the same, inlined functions and lines included.
 *
 * Two differences are rules. llvm-symbolizer takes the outermost name from the symbol table, where a
 * piece of a function has a suffix of its own (f.cold, f.part.0): ours is the name without it; where debug
 * information has no mangled name for it, we leave the name to the symbol table, too. And it
 * names code that debug information does not describe (start files), where we say nothing. */

#include <sys/stat.h>

#include "agentd/elf/dwarf_file.h"
#include "tests/unit/symbol/support.h"

static const char cxx_source[] =
	"#include <algorithm>\n#include <functional>\n#include <iostream>\n#include <map>\n"
	"#include <regex>\n#include <string>\n#include <vector>\n"
	"namespace app { namespace { int hidden(int x) { return x * 3; } }\n"
	"template <class T> struct Box { std::vector<T> v;\n"
	" __attribute__((noinline)) T sum(T a) { T s{}; for (auto &x : v) s = s + x;\n"
	"  std::sort(v.begin(), v.end()); return s + a; } }; }\n"
	"int main(int c, char **a) { app::Box<int> b; app::Box<std::string> s;\n"
	" for (int i = 0; i < 999; i++) b.v.push_back(app::hidden(i) + c);\n"
	" for (int i = 0; i < 99; i++) s.v.push_back(std::to_string(i));\n"
	" std::map<std::string, std::function<int(int)>> m;\n"
	" m[\"x\"] = [&](int q) { return b.sum(q); };\n"
	" std::regex r(\"a(b|c)*d+\");\n"
	" std::cout << m[\"x\"](c) << s.sum(\"x\") << std::regex_match(a[0], r); }\n";

static const char rust_source[] =
	"use std::collections::HashMap;\n"
	"struct Square(u64);\n"
	"impl Square { #[inline(never)] fn area(&self) -> u64 { self.0 * self.0 } }\n"
	"fn main() { let mut m = HashMap::new(); let n = std::env::args().count() as u64;\n"
	" for i in 0..n * 100 { m.insert(i.to_string(), Square(i)); }\n"
	" let mut v: Vec<u64> = m.values().map(|s| s.area()).collect(); v.sort();\n"
	" println!(\"{:?}\", v.iter().sum::<u64>()); }\n";

#define STEP        11
#define TEXT_MAX    65536
#define ALLOWED_PPM 5000 /* of addresses, beyond the rules */

struct chain {
	char text[TEXT_MAX]; /* "name\nfile:line\n" for each function */
	size_t len;
	bool unqualified; /* the outermost name */
};

static int add(void *userdata, const struct dwarf_file_function *f)
{
	struct chain *c = userdata;
	const char *slash = strrchr(f->file, '/');

	c->unqualified = f->unqualified && !f->inlined;
	c->len += (size_t)snprintf(c->text + c->len, sizeof(c->text) - c->len, "%s\n%s:%u\n",
		f->name, slash ? slash + 1 : f->file, f->line);
	assert_true(c->len < sizeof(c->text));
	return 0;
}

/* One answer of llvm-symbolizer, "name\nfile:line:column\n"... up to an empty line, in our form. */
static bool read_answer(FILE *from, struct chain *c)
{
	static char line[TEXT_MAX];

	c->len = 0;
	c->text[0] = '\0';
	for (bool name = true; fgets(line, sizeof(line), from) && line[0] != '\n'; name = !name) {
		char *slash = strrchr(line, '/'), *column = strrchr(line, ':');

		if (!name)
			*column = '\0';
		c->len += (size_t)snprintf(c->text + c->len, sizeof(c->text) - c->len,
			name ? "%s" : "%s\n", !name && slash ? slash + 1 : line);
		assert_true(c->len < sizeof(c->text));
	}
	return c->len > 0;
}

/* Equal, but for a suffix of the outermost name, and for constructors and destructors whose variants
 * (C1, C2, D0 to D2) share their code. */
static bool same(const char *ours, const char *theirs)
{
	const char *start = ours;

	while (*ours &&
		(*ours == *theirs ||
			(ours > start && strchr("CD", ours[-1]) && strchr("012", *ours) &&
				*theirs && strchr("012", *theirs)))) {
		ours++;
		theirs++;
	}
	if (*theirs == '.' && *ours == '\n') {
		theirs += strcspn(theirs, "\n");
		return streq(ours, theirs);
	}
	return !*ours && !*theirs;
}

static void text_of(const char *path, uint64_t *start, uint64_t *size)
{
	char command[512], line[128];
	unsigned long long a, s;
	FILE *f;

	snprintf(command, sizeof(command),
		"readelf -SW %s | sed -n 's/.* \\.text  *PROGBITS  *\\([^ ]*\\) [^ ]* \\([^ ]*\\).*/\\1 \\2/p'",
		path);
	f = popen(command, "re");
	assert_non_null(f);
	assert_non_null(fgets(line, sizeof(line), f));
	pclose(f);
	assert_int_equal(sscanf(line, "%llx %llx", &a, &s), 2);
	*start = a;
	*size = s;
}

static void compare(const char *path)
{
	static struct chain ours, theirs;
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	CLEANUP(dwarf_file_closep) struct dwarf_file *f = NULL;
	struct err_text problem = {};
	uint64_t start, size, asked = 0, unknown = 0, wrong = 0, inlined = 0;
	char command[512];
	FILE *list, *answers;

	assert_int_equal(dwarf_file_open(&f, fd, -1, &problem), 0);
	if (!f)
		fail_msg("%s: no debug information: %s", path, problem.text);
	text_of(path, &start, &size);
	list = fopen(work_path("addresses"), "we");
	assert_non_null(list);
	for (uint64_t a = start; a < start + size; a += STEP)
		fprintf(list, "0x%llx\n", (unsigned long long)a);
	fclose(list);
	snprintf(command, sizeof(command),
		"llvm-symbolizer --no-demangle --output-style=LLVM --inlines -f -e %s <%s", path,
		work_path("addresses"));
	answers = popen(command, "re");
	assert_non_null(answers);
	for (uint64_t a = start; a < start + size; a += STEP) {
		int n;

		assert_true(read_answer(answers, &theirs));
		ours.len = 0;
		ours.text[0] = '\0';
		n = dwarf_file_find(f, a, add, &ours);
		assert_true(n >= 0);
		asked++;
		inlined += n > 1;
		if (n == 0)
			unknown += !strstr(theirs.text, ":0\n") &&
				strncmp(theirs.text, "??\n", 3) != 0;
		else if (!ours.unqualified && !same(ours.text, theirs.text) && ++wrong <= 3)
			print_message("%s 0x%llx:\n%sinstead of\n%s", path, (unsigned long long)a,
				ours.text, theirs.text);
	}
	pclose(answers);
	print_message("%s: %llu addresses, %llu within inlined functions, %llu not described, "
		      "%llu different\n",
		path, (unsigned long long)asked, (unsigned long long)inlined,
		(unsigned long long)unknown, (unsigned long long)wrong);
	assert_true(inlined > asked / 20);
	assert_true(wrong * 1000000 <= asked * ALLOWED_PPM);
	assert_true(unknown * 1000000 <= asked * ALLOWED_PPM);
}

static void build_and_compare(
	const char *compiler, const char *source, const char *suffix, const char *name)
{
	char from[256];

	snprintf(from, sizeof(from), "%s%s", name, suffix);
	write_file(work_path(from), source);
	if (shell("cd %s && %s -o %s %s >log 2>&1", work_dir, compiler, name, from) != 0) {
		shell("cat %s >&2", work_path("log"));
		fail_msg("%s does not build", compiler);
	}
	compare(work_path(name));
}

static void test_compilers(void **state)
{
	build_and_compare("g++ -O2 -gdwarf-5", cxx_source, ".cc", "gcc5");
	build_and_compare("g++ -O2 -gdwarf-4", cxx_source, ".cc", "gcc4");
	build_and_compare("g++ -O3 -g -flto", cxx_source, ".cc", "gcclto");
	build_and_compare("g++ -O1 -g -gz=zlib", cxx_source, ".cc", "gccz");
	build_and_compare("g++ -O2 -g -ffunction-sections -Wl,--gc-sections", cxx_source, ".cc",
		"gccsections");
	build_and_compare("clang++ -O2 -gdwarf-5", cxx_source, ".cc", "clang5");
	build_and_compare("clang++ -O2 -gdwarf-4", cxx_source, ".cc", "clang4");
}

static void test_rust(void **state)
{
	if (shell("rustc --version >/dev/null 2>&1") != 0)
		print_message("not run here: rustc is not installed\n");
	else
		build_and_compare("rustc -O -g", rust_source, ".rs", "rust");
}

/* Units whose contents are elsewhere. */
static void test_split(void **state)
{
	CLEANUP(dwarf_file_closep) struct dwarf_file *f = NULL;
	struct err_text problem = {};
	_cleanup_close_ int fd = -1;

	write_file(work_path("split.cc"), cxx_source);
	assert_int_equal(shell("cd %s && g++ -O2 -g -gsplit-dwarf -o split split.cc", work_dir), 0);
	fd = open(work_path("split"), O_RDONLY | O_CLOEXEC);
	assert_int_equal(dwarf_file_open(&f, fd, -1, &problem), 0);
	assert_null(f);
	assert_non_null(strstr(problem.text, ".dwo"));
}

/* Every byte of the debug sections of a small program, one after another, is another one: whatever it says then,
 * asking ends, within bounds. (The fuzz target goes further.) */
static void test_damaged(void **state)
{
	const char *path = work_path("damaged");
	struct stat st;
	_cleanup_free_ uint8_t *bytes = NULL;
	_cleanup_close_ int fd = -1;
	uint64_t start, size, debug = 0, seed = 12345;

	write_file(work_path("damaged.c"),
		"static inline int in(int x) { return x * 3 + x / 7; }\n"
		"int main(int c, char **v) { for (int i = 0; i < c; i++) c += in(c); return c; }\n");
	assert_int_equal(shell("cd %s && gcc -O2 -g -o damaged damaged.c", work_dir), 0);
	text_of(path, &start, &size);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_int_equal(fstat(fd, &st), 0);
	bytes = malloc((size_t)st.st_size);
	assert_int_equal(pread(fd, bytes, (size_t)st.st_size, 0), st.st_size);
	debug = (uint64_t)st.st_size / 4;
	for (unsigned i = 0; i < 2000; i++) {
		CLEANUP(dwarf_file_closep) struct dwarf_file *f = NULL;
		struct chain c = {};
		uint64_t at;

		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		at = debug + (seed >> 33) % ((uint64_t)st.st_size - debug);
		assert_int_equal(pwrite(fd, &(uint8_t){(uint8_t)(seed >> 20)}, 1, (off_t)at), 1);
		(void)dwarf_file_open(&f, fd, -1, NULL);
		for (uint64_t a = start; f && a < start + size; a += 16) {
			c.len = 0;
			(void)dwarf_file_find(f, a, add, &c);
		}
		assert_int_equal(pwrite(fd, &bytes[at], 1, (off_t)at), 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_compilers),
		cmocka_unit_test(test_rust),
		cmocka_unit_test(test_split),
		cmocka_unit_test(test_damaged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
