/* SPDX-License-Identifier: Apache-2.0 */

/* Headers, segments, strings and identities of real files against readelf and sha256sum. What hostile files do is
 * tested with the readers, in tests/unit/symbol. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/mman.h>

#include "agentd/elf/elf_file.h"
#include "agentd/base/sha256.h"

static int self_fd(void)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* The first line that a command writes. */
static void output_of(const char *format, char *out, size_t size)
{
	char command[1024], self[256] = "";
	FILE *f;

	assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	snprintf(command, sizeof(command), format, self, self, self);
	f = popen(command, "re");
	assert_non_null(f);
	out[0] = '\0';
	if (fgets(out, (int)size, f))
		out[strcspn(out, "\n")] = '\0';
	pclose(f);
}

static void test_sha256(void **state)
{
	/* FIPS 180-4's examples, and lengths round the block. */
	static const struct {
		const char *text;
		size_t times;
		const char *sum;
	} rows[] = {
		{"", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{"abc", 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 1,
			"248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
		{"a", 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
	};
	uint8_t out[32];
	char hex[65];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct sha256 s;

		sha256_init(&s);
		for (size_t n = 0; n < rows[i].times; n++)
			sha256_add(&s, rows[i].text, strlen(rows[i].text));
		sha256_final(&s, out);
		for (int b = 0; b < 32; b++)
			snprintf(hex + 2 * b, 3, "%02x", out[b]);
		assert_string_equal(hex, rows[i].sum);
	}
	/* However it comes in pieces. */
	for (size_t len = 0; len < 200; len++) {
		uint8_t data[200], whole[32];
		struct sha256 s;

		memset(data, 'q', sizeof(data));
		sha256_init(&s);
		sha256_add(&s, data, len);
		sha256_final(&s, whole);
		sha256_init(&s);
		for (size_t at = 0; at < len; at++)
			sha256_add(&s, data + at, 1);
		sha256_final(&s, out);
		assert_memory_equal(out, whole, 32);
	}
}

static void test_htlhash(void **state)
{
	static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 8192, 100000};
	_cleanup_close_ int self = self_fd();
	char ours[33], theirs[128];

	assert_int_equal(elf_file_htlhash(self, ours), 0);
	output_of(
		"f='%s'; s=$(stat -c %%s \"$f\"); { head -c 4096 \"$f\"; tail -c 4096 \"$f\"; "
		"printf %%016x $s | python3 -c 'import sys; sys.stdout.buffer.write(bytes.fromhex(input()))'; "
		"} | sha256sum | cut -c1-32",
		theirs, sizeof(theirs));
	assert_string_equal(ours, theirs);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		_cleanup_close_ int fd = memfd_create("h", MFD_CLOEXEC);
		uint8_t length[8] = {0}, sum[32];
		uint8_t *data = malloc(sizes[i] + 1);
		size_t n = MIN(sizes[i], (size_t)4096);
		struct sha256 s;
		char hex[33];

		for (size_t at = 0; at < sizes[i]; at++)
			data[at] = (uint8_t)(at * 7 + at / 256);
		assert_int_equal(write(fd, data, sizes[i]), sizes[i]);
		for (int b = 0; b < 8; b++)
			length[7 - b] = (uint8_t)((uint64_t)sizes[i] >> (8 * b));
		sha256_init(&s);
		sha256_add(&s, data, n);
		sha256_add(&s, data + sizes[i] - n, n);
		sha256_add(&s, length, 8);
		sha256_final(&s, sum);
		for (int b = 0; b < 16; b++)
			snprintf(hex + 2 * b, 3, "%02x", sum[b]);
		assert_int_equal(elf_file_htlhash(fd, ours), 0);
		assert_string_equal(ours, hex);
		free(data);
	}
}

static void test_against_readelf(void **state)
{
	_cleanup_close_ int fd = self_fd();
	CLEANUP(elf_file_closep) struct elf_file *f = NULL;
	const struct elf_section *text, *symtab;
	char line[256], ours[256];
	struct elf_ids ids;
	size_t n, executable = 0;
	const struct elf_segment *segments;

	assert_int_equal(elf_file_open(&f, fd, NULL), 0);
	elf_file_ids(f, &ids);
	output_of("readelf -n %s | sed -n 's/.*Build ID: //p'", line, sizeof(line));
	assert_string_equal(ids.gnu, line);
	output_of(
		"readelf -h %s | sed -n 's/.*Number of section headers: *//p'", line, sizeof(line));
	assert_int_equal(elf_file_sections(f), strtoull(line, NULL, 10));
	text = elf_file_find_name(f, ".text");
	assert_non_null(text);
	output_of(
		"readelf -SW %s | awk '$2 == \".text\" || $3 == \".text\" {sub(/.*PROGBITS */, \"\"); "
		"print $1, $2, $3}'",
		line, sizeof(line));
	snprintf(ours, sizeof(ours), "%016llx %06llx %06llx", (unsigned long long)text->addr,
		(unsigned long long)text->offset, (unsigned long long)text->size);
	assert_string_equal(ours, line);
	symtab = elf_file_find_type(f, SHT_SYMTAB, &n);
	assert_non_null(symtab);
	assert_ptr_equal(symtab, elf_file_section(f, n));
	assert_null(elf_file_find_name(f, ".no_such_section"));
	assert_null(elf_file_section(f, 0));
	assert_null(elf_file_section(f, elf_file_sections(f)));
	segments = elf_file_segments(f, &n);
	for (size_t i = 0; i < n; i++)
		executable += segments[i].executable;
	assert_int_equal(executable, 1);
}

/* The program's own code, found in the file by the address that it runs at. */
static void test_vaddr(void **state)
{
	_cleanup_close_ int fd = self_fd();
	CLEANUP(elf_file_closep) struct elf_file *f = NULL;
	FILE *maps = fopen("/proc/self/maps", "re");
	uint64_t here = (uint64_t)(uintptr_t)test_vaddr, offset = 0, vaddr, start, end;
	char line[512], expected[64];

	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps)) {
		unsigned long long from, to, at;

		if (sscanf(line, "%llx-%llx %*s %llx", &from, &to, &at) == 3 && here >= from &&
			here < to)
			offset = here - from + at;
	}
	fclose(maps);
	assert_true(offset > 0);
	assert_int_equal(elf_file_open(&f, fd, NULL), 0);
	assert_int_equal(elf_file_vaddr(f, offset, &vaddr), 0);
	output_of("nm %s | awk '$3 == \"test_vaddr\" {print $1}'", line, sizeof(line));
	snprintf(expected, sizeof(expected), "%016llx", (unsigned long long)vaddr);
	assert_string_equal(line, expected);
	assert_true(elf_file_code_range(f, vaddr, &start, &end));
	assert_in_range(vaddr, start, end - 1);
	assert_false(elf_file_code_range(f, UINT64_MAX, &start, &end));
	assert_int_equal(elf_file_vaddr(f, UINT64_MAX, &vaddr), -ENOENT);
	assert_int_equal(elf_file_vaddr(f, elf_file_size(f) + 10, &vaddr), -ENOENT);
}

struct seen {
	size_t n, mains;
	struct elf_strings *strings;
};

static int count(void *userdata, const struct elf_symbol *symbol)
{
	struct seen *seen = userdata;
	char name[64];

	seen->n++;
	if (elf_strings_get(seen->strings, symbol->name, name, sizeof(name), NULL) > 0 &&
		streq(name, "main"))
		seen->mains++;
	return 0;
}

static void test_symbols_and_strings(void **state)
{
	_cleanup_close_ int fd = self_fd();
	CLEANUP(elf_file_closep) struct elf_file *f = NULL;
	const struct elf_section *table;
	char line[256], out[8];
	bool cut;

	assert_int_equal(elf_file_open(&f, fd, NULL), 0);
	table = elf_file_find_type(f, SHT_SYMTAB, NULL);
	output_of(
		"readelf -sW %s | sed -n \"s/Symbol table '.symtab' contains \\(.*\\) entries.*/\\1/p\"",
		line, sizeof(line));
	/* However small the window. */
	for (size_t window = 1; window < 100000; window *= 7) {
		struct elf_strings strings;
		struct seen seen = {.strings = &strings};

		assert_int_equal(
			elf_strings_init(&strings, f, elf_file_section(f, table->link), window), 0);
		assert_int_equal(elf_file_each_symbol(f, table, count, &seen), 0);
		assert_int_equal(seen.n, strtoull(line, NULL, 10) - 1);
		assert_int_equal(seen.mains, 1);
		assert_int_equal(
			elf_strings_get(&strings, strings.size, out, sizeof(out), NULL), -EBADMSG);
		assert_int_equal(
			elf_strings_get(&strings, UINT64_MAX, out, sizeof(out), NULL), -EBADMSG);
		assert_int_equal(elf_strings_get(&strings, 0, out, sizeof(out), &cut), 0);
		assert_false(cut);
		elf_strings_deinit(&strings);
	}
	assert_int_equal(elf_strings_init(&(struct elf_strings){}, f, table, 100), -EBADMSG);
	assert_int_equal(elf_strings_init(&(struct elf_strings){}, f, NULL, 100), -EBADMSG);
}

static void test_not_elf(void **state)
{
	_cleanup_close_ int folder = open("/", O_RDONLY | O_CLOEXEC | O_DIRECTORY),
			    text = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
	struct elf_file *f = NULL;
	struct err_text err;

	assert_int_equal(elf_file_open(&f, folder, &err), -ENOEXEC);
	assert_int_equal(elf_file_open(&f, text, &err), -ENOEXEC);
	assert_string_equal(err.text, "not an ELF file");
	assert_int_equal(elf_file_open(&f, -1, &err), -EBADF);
	assert_null(f);
}

/* Notes made by hand: both kinds, sizes that lie, alignment of 8. */
static void test_notes(void **state)
{
	struct {
		Elf64_Ehdr ehdr;
		Elf64_Phdr phdr[2];
		struct {
			Elf64_Nhdr head;
			char name[4];
			char desc[20];
		} gnu;
		struct {
			Elf64_Nhdr head;
			char name[4];
			char desc[8];
		} go;
	} image = {
		.ehdr = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64,
				 __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB
									   : ELFDATA2MSB,
				 EV_CURRENT},
			.e_type = ET_DYN,
			.e_version = EV_CURRENT,
			.e_phoff = sizeof(Elf64_Ehdr),
			.e_phentsize = sizeof(Elf64_Phdr),
			.e_phnum = 1,
			.e_ehsize = sizeof(Elf64_Ehdr)},
		.gnu = {.head = {4, 20, NT_GNU_BUILD_ID},
			.name = "GNU",
			.desc = {1, 2, (char)0xff}},
		.go = {.head = {4, 8, 4},
			.name = "Go",
			.desc = {'a', 'b', '/', 'c', '\033', 'd', 'e', 'f'}},
	};
	const struct {
		uint32_t gnu_size, go_name, go_type;
		const char *gnu, *go;
	} rows[] = {
		{20, 4, 4, "0102ff0000000000000000000000000000000000", "ab/c?def"},
		{21, 4, 4, "", ""},         /* too long for one, and the rest is read wrong */
		{0xfffffff0, 4, 4, "", ""}, /* beyond the segment */
		{20, 0xffffffff, 4, "0102ff0000000000000000000000000000000000", ""},
		{20, 4, 5, "0102ff0000000000000000000000000000000000", ""},
	};

	image.phdr[0] = (Elf64_Phdr){.p_type = PT_NOTE,
		.p_offset = (uint64_t)((char *)&image.gnu - (char *)&image),
		.p_filesz = sizeof(image.gnu) + sizeof(image.go),
		.p_align = 4};
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		_cleanup_close_ int fd = memfd_create("notes", MFD_CLOEXEC);
		CLEANUP(elf_file_closep) struct elf_file *f = NULL;
		struct elf_ids ids;

		image.gnu.head.n_descsz = rows[i].gnu_size;
		image.go.head.n_namesz = rows[i].go_name;
		image.go.head.n_type = rows[i].go_type;
		assert_int_equal(write(fd, &image, sizeof(image)), sizeof(image));
		assert_int_equal(elf_file_open(&f, fd, NULL), 0);
		elf_file_ids(f, &ids);
		assert_string_equal(ids.gnu, rows[i].gnu);
		assert_string_equal(ids.go, rows[i].go);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sha256),
		cmocka_unit_test(test_htlhash),
		cmocka_unit_test(test_against_readelf),
		cmocka_unit_test(test_vaddr),
		cmocka_unit_test(test_symbols_and_strings),
		cmocka_unit_test(test_not_elf),
		cmocka_unit_test(test_notes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
