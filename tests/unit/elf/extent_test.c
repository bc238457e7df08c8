/* SPDX-License-Identifier: Apache-2.0 */

/* Where functions of real files begin and end, against readelf; and files that lie about it, which cost a wrong answer
 * at most. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "agentd/elf/extent.h"

/* Every entry: its first and its last address, and what lies behind it if that is nobody's. */
static void compare(const char *path, size_t at_least)
{
	CLEANUP(elf_file_closep) struct elf_file *elf = NULL;
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct elf_extents *x = NULL;
	uint64_t from, to, f, t;
	char command[512], line[512];
	size_t n = 0;
	FILE *p;

	snprintf(command, sizeof(command),
		"readelf --wide --debug-dump=frames %s 2>/dev/null | "
		"sed -n 's/.* FDE .* pc=\\([0-9a-f]*\\)\\.\\.\\([0-9a-f]*\\)$/\\1 \\2/p'",
		path);
	assert_true(fd >= 0);
	assert_int_equal(elf_file_open(&elf, fd, NULL), 0);
	assert_int_equal(elf_extents_open(&x, elf), 0);
	assert_non_null(x);
	p = popen(command, "re");
	assert_non_null(p);
	while (fgets(line, sizeof(line), p)) {
		assert_int_equal(sscanf(line, "%lx %lx", &from, &to), 2);
		if (from == to)
			continue; /* left over, of functions that the linker dropped */
		n++;
		if (!elf_extents_find(x, from, &f, &t) || f != from || t != to ||
			!elf_extents_find(x, to - 1, &f, &t) || f != from || t != to)
			fail_msg("%s: %lx to %lx", path, from, to);
		if (elf_extents_find(x, to, &f, &t) && f < to)
			fail_msg("%s: %lx is behind the end", path, to);
	}
	pclose(p);
	print_message("%s: %zu functions\n", path, n);
	assert_true(n >= at_least);
	assert_false(elf_extents_find(x, 0, &f, &t));
	assert_false(elf_extents_find(x, UINT64_MAX, &f, &t));
	elf_extents_close(x);
}

/* A static program has no table; this one has one of its own made. */
static void test_static(void **state)
{
	char folder[] = "/tmp/odi-extent-XXXXXX", command[512], path[128];

	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/static", folder);
	snprintf(command, sizeof(command),
		"echo 'int main(void) { return 0; }' | ${CC:-gcc} -static -x c -o %s - && strip %s",
		path, path);
	assert_int_equal(system(command), 0);
	compare(path, 500);
	snprintf(command, sizeof(command), "rm -r %s", folder);
	assert_int_equal(system(command), 0);
}

static void test_real(void **state)
{
	static const struct {
		const char *path;
		size_t at_least;
	} files[] = {
		{"/bin/bash", 1000},
		{"/usr/bin/git", 2000},
		{"/lib/x86_64-linux-gnu/libc.so.6", 2000},
		{"/usr/lib/x86_64-linux-gnu/libcrypto.so.3", 5000},
		{"/lib/aarch64-linux-gnu/libc.so.6", 2000},
		{"/proc/self/exe", 20},
	};
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		char path[256], self[256];
		ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);

		assert_true(len > 0);
		self[len] = '\0';
		snprintf(path, sizeof(path), "%s",
			streq(files[i].path, "/proc/self/exe") ? self : files[i].path);
		if (access(path, R_OK) < 0)
			continue; /* of the other machine */
		compare(path, files[i].at_least);
		n++;
	}
	assert_true(n >= 3);
}

/* Every byte of the tables spoilt in turn: whatever is answered holds the address, and is no longer than code may be. */
static void test_hostile(void **state)
{
	_cleanup_close_ int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	CLEANUP(elf_file_closep) struct elf_file *whole = NULL;
	const struct elf_section *s[2];
	uint64_t state_of = 88172645463325252ULL;
	size_t answered = 0, refused = 0;
	struct stat st;
	uint8_t *data;

	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(elf_file_open(&whole, fd, NULL), 0);
	s[0] = elf_file_find_name(whole, ".eh_frame_hdr");
	s[1] = elf_file_find_name(whole, ".eh_frame");
	assert_true(s[0] && s[1]);
	data = malloc((size_t)st.st_size);
	assert_int_equal(elf_file_read(whole, data, (size_t)st.st_size, 0), 0);
	for (unsigned i = 0; i < 3000; i++) {
		uint8_t *copy = malloc((size_t)st.st_size);
		struct elf_file *elf = NULL;
		struct elf_extents *x = NULL;

		memcpy(copy, data, (size_t)st.st_size);
		for (unsigned k = 0; k < 1 + i % 40; k++) {
			const struct elf_section *in = s[i % 2];

			state_of ^= state_of << 13;
			state_of ^= state_of >> 7;
			state_of ^= state_of << 17;
			copy[in->offset + (state_of >> 8) % (i % 4 ? in->size : 16)] =
				(uint8_t)state_of;
		}
		assert_int_equal(elf_file_open_memory(&elf, copy, (size_t)st.st_size, NULL), 0);
		assert_int_equal(elf_extents_open(&x, elf), 0);
		for (uint64_t at = 0; x && at < 0x20000; at += 977) {
			uint64_t from, to;
			bool found = elf_extents_find(x, at, &from, &to);

			answered += found;
			refused += !found;
			if (found && (from > at || to <= at || to - from > 64 << 20))
				fail_msg("%lx in %lx to %lx", at, from, to);
		}
		elf_extents_close(x);
		elf_file_close(elf);
	}
	free(data);
	assert_true(answered > 10000 && refused > 10000);
}

/* Nothing to search: no table, or none of the usual kind. */
static void test_none(void **state)
{
	uint8_t *data = calloc(1, 4096);
	Elf64_Ehdr *h = (void *)data;
	struct elf_file *elf = NULL;
	struct elf_extents *x = (void *)1;

	memcpy(h->e_ident, ELFMAG, SELFMAG);
	h->e_ident[EI_CLASS] = ELFCLASS64;
	h->e_ident[EI_DATA] = ELFDATA2LSB;
	h->e_ident[EI_VERSION] = EV_CURRENT;
	h->e_type = ET_DYN;
	h->e_version = EV_CURRENT;
	h->e_phoff = sizeof(*h);
	h->e_phentsize = sizeof(Elf64_Phdr);
	h->e_phnum = 1;
	*(Elf64_Phdr *)(void *)(data + sizeof(*h)) =
		(Elf64_Phdr){.p_type = PT_LOAD, .p_filesz = 4096, .p_memsz = 4096};
	assert_int_equal(elf_file_open_memory(&elf, data, 4096, NULL), 0);
	assert_int_equal(elf_extents_open(&x, elf), 0);
	assert_null(x);
	assert_int_equal(elf_extents_memory(x), 0);
	assert_null(elf_extents_close(x));
	elf_file_close(elf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_real),
		cmocka_unit_test(test_static),
		cmocka_unit_test(test_hostile),
		cmocka_unit_test(test_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
