/* SPDX-License-Identifier: Apache-2.0 */

/* Programs as compilers and linkers make them: C, C++, Rust and Go; position independent and not, static, shared,
 * stripped, by several linkers; and the vDSO. What is asked is a file offset inside a function that nm shows; what
 * has to come is its name as its language writes it. A compiler that is not there is said. */

#include <sys/auxv.h>
#include "tests/unit/symbol/support.h"
#include "agentd/elf/elf_file.h"

static const char c_source[] =
	"#include <stdio.h>\n"
	"__attribute__((noinline)) static int hidden_one(int x) { __asm__(\"\"); return x * 3; }\n"
	"__attribute__((noinline)) int open_one(int x) { __asm__(\"\"); return hidden_one(x) + 1; }\n"
	"__attribute__((noinline)) int weak_target(int x) { __asm__(\"\"); return x - 1; }\n"
	"int alias_one(int x) __attribute__((weak, alias(\"weak_target\")));\n"
	"int main(int c, char **v) { printf(\"%d\\n\", open_one(c) + weak_target(c)); return 0; }\n";

static const char cxx_source[] =
	"#include <vector>\n"
	"namespace shapes {\n"
	"template <typename T> struct Circle { T r; __attribute__((noinline)) T area(T by) const; };\n"
	"template <typename T> T Circle<T>::area(T by) const { __asm__(\"\"); return r * by; }\n"
	"namespace { __attribute__((noinline)) int inner(std::vector<int> &v) { v.push_back(2); return v[0]; } }\n"
	"__attribute__((noinline)) int outer(std::vector<int> &v) { __asm__(\"\"); return inner(v); }\n"
	"}\n"
	"int main() { std::vector<int> v{1}; shapes::Circle<int> c{2}; return shapes::outer(v) + c.area(3); }\n";

static const char rust_source[] =
	"mod shapes { pub trait Area { fn area(&self) -> u64; }\n"
	" pub struct Square(pub u64);\n"
	" impl Area for Square { #[inline(never)] fn area(&self) -> u64 { self.0 * unsafe { std::ptr::read_volatile(&self.0) } } }\n"
	" #[inline(never)] pub fn total<T: Area>(list: &[T]) -> u64 { list.iter().map(|s| s.area()).sum() } }\n"
	"fn main() { let l = [shapes::Square(std::env::args().count() as u64)]; println!(\"{}\", shapes::total(&l)); }\n";

/* The address and size of the first symbol whose raw name contains this. */
static void find_symbol(const char *path, const char *part, uint64_t *address, uint64_t *size)
{
	char command[1024], line[4096];
	unsigned long long a = 0, s = 0;
	FILE *f;

	snprintf(command, sizeof(command),
		"{ nm -S %s; nm -D -S %s; } 2>/dev/null | grep -F -m1 -- '%s'", path, path, part);
	f = popen(command, "re");
	assert_non_null(f);
	if (!fgets(line, sizeof(line), f) || sscanf(line, "%llx %llx", &a, &s) != 2)
		fail_msg("nm shows no %s in %s", part, path);
	pclose(f);
	*address = a;
	*size = s;
}

static uint64_t to_offset(const char *path, uint64_t address)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	CLEANUP(elf_file_closep) struct elf_file *elf = NULL;
	const struct elf_segment *s;
	size_t n;

	assert_int_equal(elf_file_open(&elf, fd, NULL), 0);
	s = elf_file_segments(elf, &n);
	for (size_t i = 0; i < n; i++)
		if (s[i].executable && address >= s[i].vaddr &&
			address - s[i].vaddr < s[i].file_size)
			return address - s[i].vaddr + s[i].offset;
	fail_msg("%s: 0x%llx is in no executable segment", path, (unsigned long long)address);
	return 0;
}

/* The name that file gives to the middle of the function that symbols_of (an unstripped twin) calls by part. */
static void check(struct room *room, const char *file, const char *symbols_of, const char *part,
	const char *expected)
{
	static uint32_t next = 3;
	uint32_t id = next++ % (ROOM_FILES - 3) + 3;
	uint64_t address, size;
	const char *name;

	find_symbol(symbols_of, part, &address, &size);
	symbol_forget_file(room->s, id);
	room_set_path(room, id, file);
	name = room_name(room, id, to_offset(file, address + size / 2));
	if (!streq(name, expected))
		fail_msg("%s: %s is called %s, not %s", file, part, name, expected);
}

/* NULL: it does not build here. */
static const char *build(
	const char *command, const char *source, const char *suffix, const char *out)
{
	const char *path = work_path(out), *from;
	char name[64];

	snprintf(name, sizeof(name), "%s%s", out, suffix);
	from = work_path(name);
	write_file(from, source);
	if (shell("cd %s && %s -o %s %s >%s/log 2>&1", work_dir, command, path, from, work_dir) !=
		0)
		return NULL;
	return path;
}

static const char *must_build(
	const char *command, const char *source, const char *suffix, const char *out)
{
	const char *path = build(command, source, suffix, out);

	if (!path) {
		shell("cat %s/log >&2", work_dir);
		fail_msg("%s does not build", command);
	}
	return path;
}

static bool have(const char *tool)
{
	if (shell("command -v %s >/dev/null 2>&1", tool) == 0)
		return true;
	print_message("not run here: %s is not installed\n", tool);
	return false;
}

static void test_c(void **state)
{
	static const char *const ways[] = {"cc -O1 -pie -fPIE", "cc -O1 -no-pie -fno-pie",
		"cc -O1 -static", "cc -O1 -static-pie", "cc -O1 -Wl,-z,noseparate-code",
		"cc -O1 -Wl,--build-id=none", "cc -O1 -shared -fPIC", "clang -O1",
		"clang -O1 -fuse-ld=lld", "cc -O1 -fuse-ld=gold"};
	struct room room;
	size_t built = 0;

	room_init(&room, &(struct symbol_config){});
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		char out[32];
		const char *path;

		snprintf(out, sizeof(out), "c%zu", i);
		path = build(ways[i], c_source, ".c", out);
		if (!path) {
			print_message("not run here: %s\n", ways[i]);
			continue;
		}
		built++;
		check(&room, path, path, "hidden_one", "hidden_one");
		check(&room, path, path, " open_one", "open_one");
		/* A strong name before a weak one. */
		check(&room, path, path, "alias_one", "weak_target");
	}
	assert_true(built >= 6);
	assert_int_equal(room_counters(&room).crashes, 0);
	room_deinit(&room);
}

/* A 32-bit program needs no 32-bit libraries to be read. */
static void test_32_bit(void **state)
{
	static const char source[] =
		"__attribute__((noinline)) int small_one(int x) { return x * 3; }\n"
		"void _start(void) { small_one(2); for (;;) ; }\n";
	const char *path = build("cc -O0 -m32 -nostdlib -static", source, ".c", "c32");
	struct room room;

	if (!path) {
		print_message("not run here: cc -m32\n");
		return;
	}
	room_init(&room, &(struct symbol_config){});
	check(&room, path, path, "small_one", "small_one");
	check(&room, path, path, " _start", "_start");
	room_deinit(&room);
}

static void test_stripped(void **state)
{
	const char *twin = must_build("cc -O1 -shared -fPIC", c_source, ".c", "whole.so");
	const char *path = work_path("stripped.so");
	struct room room;
	uint64_t address, size;
	char expected[64];

	assert_int_equal(shell("strip -o %s %s", path, twin), 0);
	room_init(&room, &(struct symbol_config){});
	check(&room, path, twin, " open_one", "open_one");
	/* Private functions have no name any more, and not their neighbour's: where they begin. */
	find_symbol(twin, "hidden_one", &address, &size);
	snprintf(expected, sizeof(expected), "stripped.so+0x%llx",
		(unsigned long long)to_offset(path, address));
	room_set_path(&room, 2 + ROOM_FILES / 2, path);
	assert_string_equal(
		room_name(&room, 2 + ROOM_FILES / 2, to_offset(path, address + 1)), expected);
	assert_string_equal(symbol_facts(room.s, 2 + ROOM_FILES / 2)->named_by, ".dynsym");
	assert_int_equal(strlen(symbol_facts(room.s, 2 + ROOM_FILES / 2)->build_id), 40);
	room_deinit(&room);
}

static void test_cxx(void **state)
{
	static const char *const ways[] = {"c++ -O1", "clang++ -O1", "c++ -O1 -static"};
	struct room room;
	size_t built = 0;

	room_init(&room, &(struct symbol_config){});
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		char out[32];
		const char *path;

		snprintf(out, sizeof(out), "cxx%zu", i);
		path = build(ways[i], cxx_source, ".cc", out);
		if (!path) {
			print_message("not run here: %s\n", ways[i]);
			continue;
		}
		built++;
		check(&room, path, path, "_ZNK6shapes6CircleIiE4areaEi",
			"shapes::Circle<int>::area");
		check(&room, path, path, "_ZN6shapes12_GLOBAL__N_15innerERSt6vectorIiSaIiEE",
			"shapes::(anonymous namespace)::inner");
		check(&room, path, path, "_ZN6shapes5outerERSt6vectorIiSaIiEE", "shapes::outer");
	}
	assert_true(built > 0);
	room_deinit(&room);
}

static void test_rust(void **state)
{
	struct room room;

	if (!have("rustc"))
		return;
	room_init(&room, &(struct symbol_config){});
	/* By default the legacy mangling until some release, v0 from then on. */
	for (int i = 0; i < 2; i++) {
		const char *path =
			build(i ? "rustc -O -C symbol-mangling-version=v0 --crate-name prog"
				: "rustc -O --crate-name prog",
				rust_source, ".rs", i ? "rust1" : "rust0");
		bool v0;

		v0 = shell("nm %s | grep -q ' _R.*shapes5total'", path) == 0;
		check(&room, path, path, v0 ? "shapesNtB2_6SquareNtB2_4Area4area" : "$GT$4area17h",
			"<prog::shapes::Square as prog::shapes::Area>::area");
		check(&room, path, path, "6shapes5total",
			v0 ? "prog::shapes::total::<prog::shapes::Square>" : "prog::shapes::total");
		assert_true(v0 || i == 0);
	}
	room_deinit(&room);
}

static void test_go(void **state)
{
	static const char source[] =
		"package main\nimport \"fmt\"\ntype box struct{ n int }\n"
		"//go:noinline\nfunc (b *box) grow(by int) int { b.n += by; return b.n }\n"
		"func main() { b := box{1}; fmt.Println(b.grow(2)) }\n";
	struct room room;
	const char *path;

	if (!have("go"))
		return;
	shell("mkdir -p %s", work_path(""));
	path = must_build("GOFLAGS=-mod=mod GO111MODULE=off go build", source, ".go", "goprog");
	room_init(&room, &(struct symbol_config){});
	check(&room, path, path, "main.(*box).grow", "main.(*box).grow");
	check(&room, path, path, " runtime.mallocgc", "runtime.mallocgc");
	check(&room, path, path, " runtime.memmove", "runtime.memmove");
	room_set_path(&room, 99, path);
	room_name(&room, 99, 0x1000);
	assert_string_not_equal(symbol_facts(room.s, 99)->go_build_id, "");
	room_deinit(&room);
}

static void test_vdso(void **state)
{
	const uint8_t *image = (void *)getauxval(AT_SYSINFO_EHDR);
	const char *path = work_path("vdso");
	struct room room;
	uint64_t address, size;
	int fd;

	if (!image) {
		print_message("not run here: this kernel maps no vDSO\n");
		return;
	}
	fd = memfd_of(image, 8192);
	assert_int_equal(shell("cp /proc/%d/fd/%d %s", getpid(), fd, path), 0);
	find_symbol(path, "clock_gettime", &address, &size);
	room_init(&room, &(struct symbol_config){});
	room_set(&room, SYMBOL_FILE_VDSO, fd, "ignored");
	/* __vdso_clock_gettime and clock_gettime are one function. */
	assert_string_equal(
		room_name(&room, SYMBOL_FILE_VDSO, to_offset(path, address + 1)), "clock_gettime");
	assert_string_equal(
		symbol_chain(
			room.s, &(struct symbol_query){.file = SYMBOL_FILE_VDSO, .offset = 0xfffff})
			->module,
		"[vdso]");
	assert_string_equal(room_name(&room, SYMBOL_FILE_VDSO, 0xfffff), "[vdso]+0xfffff");
	room_deinit(&room);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_c),
		cmocka_unit_test(test_32_bit),
		cmocka_unit_test(test_stripped),
		cmocka_unit_test(test_cxx),
		cmocka_unit_test(test_rust),
		cmocka_unit_test(test_go),
		cmocka_unit_test(test_vdso),
	};

	dispatch_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
