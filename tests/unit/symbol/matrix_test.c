/* SPDX-License-Identifier: Apache-2.0 */

/* Small programs in all the ways that debug information comes: by gcc, clang and rustc, DWARF 4 and 5, position
 * independent, static and shared; then stripped with a debug file by link or by build id, with mini debug information,
 * compressed by zlib and zstd, and made smaller by dwz, alone and with a file in common. All through the real sandbox,
 * against llvm-symbolizer on the program as it was linked.
 *
 * Rules. Where llvm-symbolizer knows no path of a file, it has the name from the symbol table, and only that is compared. A
 * suffix of the outermost name (f.cold, f.constprop.0) is the symbol table's; constructors whose variants share their code
 * are equal. Mini debug information and .dynsym name functions, and no more: what they name is compared. At most 0.5 % of
 * addresses may differ beyond that. */

#include "agentd/elf/elf_file.h"
#include "tests/unit/symbol/support.h"

#define TEXT_MAX    16384
#define ADDRESSES   400
#define ALLOWED_PPM 5000

static const char c_source[] =
	"#include <stdio.h>\n#include <stdlib.h>\n"
	"struct node { struct node *next; int value; };\n"
	"static inline __attribute__((always_inline)) int inner(int x) { __asm__ volatile(\"nop\"); return x * 7; }\n"
	"static inline __attribute__((always_inline)) int middle(int x)\n{\n\tfor (int i = 0; i < 3; i++)\n\t\tx += inner(x);\n\treturn x;\n}\n"
	"static __attribute__((noinline)) int hidden(int x) { __asm__(\"\"); return middle(x) + inner(3); }\n"
	"__attribute__((noinline)) int shown(int x) { __asm__(\"\"); return hidden(x) + 1; }\n"
	"__attribute__((noinline)) int listed(struct node *n)\n{\n\tint s = 0;\n\tfor (; n; n = n->next)\n\t\ts += middle(n->value);\n\treturn s;\n}\n"
	"int main(int c, char **v)\n{\n\tstruct node n = {0, c};\n\tprintf(\"%d %d\\n\", shown(c), listed(&n));\n\treturn 0;\n}\n";

static const char cxx_source[] =
	"#include <algorithm>\n#include <string>\n#include <vector>\n"
	"namespace app { namespace { int hidden(int x) { return x * 3; } }\n"
	"template <class T> struct Box { std::vector<T> v; Box(int n) { while (n--) v.emplace_back(); }\n"
	" __attribute__((noinline)) T sum(T a) { T s{}; for (auto &x : v) s = s + x;\n"
	"  std::sort(v.begin(), v.end()); return s + a; } }; }\n"
	"int main(int c, char **a) { app::Box<int> b(c); app::Box<std::string> s(c);\n"
	" auto f = [&](int q) { return b.sum(q) + app::hidden(q); };\n"
	" return f(c) + s.sum(a[0]).size(); }\n";

static const char rust_source[] =
	"struct Square(u64);\n"
	"impl Square { #[inline(never)] fn area(&self) -> u64 { self.0 * self.0 } }\n"
	"fn main() { let n = std::env::args().count() as u64;\n"
	" let mut v: Vec<u64> = (0..n).map(|i| Square(i).area()).collect(); v.sort();\n"
	" println!(\"{:?}\", v.iter().sum::<u64>()); }\n";

/* ---- what has to come ---- */

struct truth {
	uint64_t offset;
	char *chain; /* "name\nfile:line\n" a function, innermost first */
	char *name;  /* of the outermost */
	bool lines;
};

static struct truth truths[ADDRESSES];
static size_t n_truths;

PRINTF(1, 2) static bool may(const char *format, ...)
{
	char command[1600];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	work_path("");
	return shell("cd %s && { %s; } >log 2>&1", work_dir, command) == 0;
}

#define MUST(...)                                                                                  \
	do {                                                                                       \
		if (!may(__VA_ARGS__)) {                                                           \
			shell("cat %s/log >&2", work_dir);                                         \
			fail_msg(__VA_ARGS__);                                                     \
		}                                                                                  \
	} while (0)

/* Addresses of what the sources define, spread over the code: in static programs most of it is the library's. */
static void choose(uint64_t addresses[ADDRESSES])
{
	char command[400], line[256];
	FILE *f;
	size_t n = 0;

	snprintf(command, sizeof(command),
		"cd %s && nm -S --defined-only w | awk '$3 ~ /[tTwW]/ && "
		"/inner|middle|hidden|shown|listed|main|app|Square|sort|area|vector/ {print $1, $2}' | sort -u",
		work_dir);
	f = popen(command, "re");
	assert_non_null(f);
	while (n < ADDRESSES && fgets(line, sizeof(line), f)) {
		unsigned long long start, size;

		if (sscanf(line, "%llx %llx", &start, &size) != 2)
			continue;
		for (uint64_t at = 0; at < size && n < ADDRESSES; at += MAX(size / 12, 3ULL))
			addresses[n++] = start + at;
	}
	pclose(f);
	assert_true(n > 8);
	n_truths = n;
}

static void forget_truths(void)
{
	for (size_t i = 0; i < n_truths; i++) {
		free(truths[i].chain);
		free(truths[i].name);
	}
	memset(truths, 0, sizeof(truths));
}

/* "name\nfile:line:column\n"..., an empty line. */
static void read_truth(FILE *from, struct truth *t)
{
	static char line[TEXT_MAX], chain[TEXT_MAX];
	size_t len = 0;

	chain[0] = '\0';
	for (bool name = true; fgets(line, sizeof(line), from) && line[0] != '\n'; name = !name) {
		char *slash = strrchr(line, '/'), *column = strrchr(line, ':');

		if (name) {
			free(t->name);
			t->name = strdup(line);
			t->name[strcspn(t->name, "\n")] = '\0';
		} else {
			*column = '\0';
			t->lines = slash != NULL;
		}
		len += (size_t)snprintf(chain + len, sizeof(chain) - len, name ? "%s" : "%s\n",
			!name && slash ? slash + 1 : line);
		assert_true(len < sizeof(chain));
	}
	t->chain = strdup(chain);
	assert_non_null(t->name);
}

static void learn(void)
{
	uint64_t addresses[ADDRESSES];
	_cleanup_close_ int fd = open(work_path("w"), O_RDONLY | O_CLOEXEC);
	CLEANUP(elf_file_closep) struct elf_file *elf = NULL;
	const struct elf_segment *s;
	char command[300];
	FILE *f;
	size_t n;

	forget_truths();
	choose(addresses);
	assert_int_equal(elf_file_open(&elf, fd, NULL), 0);
	s = elf_file_segments(elf, &n);
	f = fopen(work_path("addresses"), "we");
	assert_non_null(f);
	for (size_t i = 0; i < n_truths; i++)
		fprintf(f, "0x%llx\n", (unsigned long long)addresses[i]);
	fclose(f);
	snprintf(command, sizeof(command),
		"cd %s && llvm-symbolizer --no-demangle --output-style=LLVM --inlines -f -e w <addresses",
		work_dir);
	f = popen(command, "re");
	assert_non_null(f);
	for (size_t i = 0; i < n_truths; i++) {
		read_truth(f, &truths[i]);
		for (size_t k = 0; k < n; k++)
			if (addresses[i] >= s[k].vaddr &&
				addresses[i] - s[k].vaddr < s[k].file_size)
				truths[i].offset = addresses[i] - s[k].vaddr + s[k].offset;
	}
	pclose(f);
}

/* ---- what comes ---- */

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
	if (*theirs == '.' && (*ours == '\n' || !*ours)) {
		theirs += strcspn(theirs, "\n");
		return streq(ours, theirs);
	}
	return !*ours && !*theirs;
}

static void text_of(const struct symbol_chain *chain, char text[static TEXT_MAX])
{
	size_t len = 0;

	for (uint16_t i = 0; i < chain->n; i++) {
		const struct symbol_function *f = &chain->functions[i];
		const char *slash = strrchr(f->file, '/');

		len += (size_t)snprintf(text + len, TEXT_MAX - len, "%s\n%s:%u\n", f->system_name,
			slash ? slash + 1 : f->file, f->line);
		assert_true(len < TEXT_MAX);
	}
}

enum want { LINES, NAMES, SOME_NAMES };

/* The file v in the work folder, as /opt/app/v. by: what it has to be named by; NULL: any. */
static void check(const char *what, enum want want, const char *by)
{
	static char text[TEXT_MAX];
	struct symbol_query q[ADDRESSES];
	size_t wrong = 0, named = 0;
	struct room room;

	room_init(&room, &(struct symbol_config){});
	room.debug_root = open(work_path("root"), O_PATH | O_DIRECTORY | O_CLOEXEC);
	room_set_path(&room, 3, work_path("v"));
	snprintf(room.files[3].path, sizeof(room.files[3].path), "/opt/app/v");
	for (size_t i = 0; i < n_truths; i++)
		q[i] = (struct symbol_query){.file = 3, .offset = truths[i].offset};
	assert_int_equal(room_resolve(&room, q, n_truths), 0);
	for (size_t i = 0; i < n_truths; i++) {
		const struct symbol_chain *chain = symbol_chain(room.s, &q[i]);
		const char *outer = chain->functions[chain->n - 1].system_name;
		bool good;

		named += !chain->fallback;
		text_of(chain, text);
		if (chain->fallback)
			good = want == SOME_NAMES || streq(truths[i].name, "??");
		else if (want == LINES && truths[i].lines)
			good = same(text, truths[i].chain);
		else
			good = same(outer, truths[i].name) || streq(truths[i].name, "??");
		if (good)
			continue;
		if (!wrong++)
			print_message("%s: at 0x%llx\n%s-- instead of\n%s", what,
				(unsigned long long)truths[i].offset, text, truths[i].chain);
	}
	if (by && !streq(symbol_facts(room.s, 3)->named_by, by))
		fail_msg("%s: named by %s, not %s (%s)", what, symbol_facts(room.s, 3)->named_by,
			by, symbol_facts(room.s, 3)->last_problem);
	if (wrong * 1000000 > n_truths * ALLOWED_PPM || !named)
		fail_msg("%s: %zu of %zu addresses differ, %zu named (%s)", what, wrong, n_truths,
			named, symbol_facts(room.s, 3)->last_problem);
	assert_int_equal(room_counters(&room).crashes + room_counters(&room).refused, 0);
	room_deinit(&room);
}

#define FRESH "rm -rf root v v.debug v2.debug && mkdir -p root/opt/app root/usr/lib/debug/.dwz && "
#define BY_ID                                                                                                           \
	"id=$(readelf -n w | sed -n 's/.*Build ID: //p') && d=root/usr/lib/debug/.build-id/$(echo $id | cut -c1-2) && " \
	"mkdir -p $d && mv v.debug $d/$(echo $id | cut -c3-).debug"

static void check_variants(const char *build)
{
	char what[160];

#define WHAT(variant) (snprintf(what, sizeof(what), "%s, %s", build, variant), what)
	MUST(FRESH "cp w v");
	check(WHAT("as linked"), LINES, "DWARF");
	MUST(FRESH "objcopy --compress-debug-sections=zlib w v");
	check(WHAT("zlib"), LINES, "DWARF");
	if (may(FRESH "objcopy --compress-debug-sections=zstd w v && readelf -t v | grep ZSTD"))
		check(WHAT("zstd"), LINES, "DWARF");
	else
		print_message("not run here: this objcopy knows no zstd\n");
	MUST(FRESH "strip -o v w && objcopy --only-keep-debug w v.debug && objcopy "
		   "--add-gnu-debuglink=v.debug v && mv v.debug root/opt/app/");
	check(WHAT("debug link"), LINES, "DWARF (debug file)");
	MUST(FRESH "strip -o v w && objcopy --only-keep-debug w v.debug && " BY_ID);
	check(WHAT("build id"), LINES, "DWARF (debug file)");
	/* dwz says that it found nothing to do by 1, too. */
	if (may(FRESH "cp w v && dwz v"))
		check(WHAT("dwz"), LINES, "DWARF");
	else
		print_message("not run here: %s: dwz has nothing to do\n", build);
	if (may(FRESH
		    "strip -o v w && objcopy --only-keep-debug w v.debug && cp v.debug v2.debug && "
		    "dwz -m root/usr/lib/debug/.dwz/both -M /usr/lib/debug/.dwz/both v.debug v2.debug && "
		    "readelf -SW v.debug | grep -q gnu_debugaltlink && " BY_ID)) {
		check(WHAT("dwz in common"), LINES, "DWARF (debug file)");
		/* Without it, what is left is named, and nothing wrongly. */
		MUST("rm root/usr/lib/debug/.dwz/both");
		check(WHAT("dwz in common, which is missing"), NAMES, NULL);
	} else {
		print_message("not run here: %s: dwz finds nothing in common\n", build);
	}
	MUST(FRESH
		"objcopy --only-keep-debug w v.debug && nm -D w --format=posix --defined-only | "
		"awk '{print $1}' | sort >dyn; nm w --format=posix --defined-only | awk '$2 ~ /[TtWw]/ {print $1}' "
		"| sort >all; comm -13 dyn all >keep && objcopy -S --keep-symbols=keep v.debug mini && rm -f "
		"mini.xz && xz mini && strip -o v w && objcopy --add-section .gnu_debugdata=mini.xz v");
	check(WHAT("mini debug information"), NAMES, ".gnu_debugdata");
#undef WHAT
}

/* ---- programs ---- */

static void build(const char *compiler, const char *source, const char *suffix)
{
	char name[32];

	snprintf(name, sizeof(name), "w%s", suffix);
	write_file(work_path(name), source);
	if (!may("%s -o w %s", compiler, name)) {
		print_message("not run here: %s does not build\n", compiler);
		return;
	}
	learn();
	check_variants(compiler);
}

static void test_gcc(void **state)
{
	build("g++ -O2 -gdwarf-4 -pie", cxx_source, ".cc");
	build("g++ -O2 -gdwarf-5 -no-pie", cxx_source, ".cc");
	build("gcc -O2 -gdwarf-5 -static -Wl,--build-id", c_source, ".c");
	build("gcc -O1 -gdwarf-4 -fPIC -shared", c_source, ".c");
	build("gcc -O2 -gdwarf-5 -static-pie -fPIE -Wl,--build-id", c_source, ".c");
}

static void test_clang(void **state)
{
	build("clang++ -O2 -gdwarf-5 -fPIE -pie -Wl,--build-id", cxx_source, ".cc");
	build("clang -O2 -gdwarf-4 -static -Wl,--build-id", c_source, ".c");
	build("clang -O2 -gdwarf-4 -fPIC -shared -Wl,--build-id", c_source, ".c");
}

static void test_rust(void **state)
{
	if (shell("command -v rustc >/dev/null 2>&1") != 0)
		print_message("not run here: rustc is not installed\n");
	else
		build("rustc -O -g -C link-arg=-Wl,--build-id", rust_source, ".rs");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_gcc),
		cmocka_unit_test(test_clang),
		cmocka_unit_test(test_rust),
	};
	int r;

	dispatch_role(argc, argv);
	r = cmocka_run_group_tests(tests, NULL, NULL);
	forget_truths();
	return r;
}
