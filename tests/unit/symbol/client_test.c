/* SPDX-License-Identifier: Apache-2.0 */

/* The client against a symbolizer that is killed, hangs, lies, or is given files made to hurt it. The child is
 * the real one in its real sandbox, but for the liar, which is this program in another role. */

#include "tests/unit/symbol/elf_builder.h"
#include "tests/unit/symbol/support.h"
#include <sys/stat.h>
#include "agentd/base/fdpass.h"
#include "agentd/symbol/protocol.h"

static char self[256];

static const struct built_symbol two[] = {
	{"alpha", 0, 16, STT_FUNC, STB_GLOBAL},
	{"beta", 32, 16, STT_FUNC, STB_GLOBAL},
};

static int built_fd(void (*spoil)(struct built *b))
{
	CLEANUP(built_free) struct built b = {0};

	built_init(&b, two, ARRAY_SIZE(two));
	if (spoil)
		spoil(&b);
	return memfd_of(b.data, b.len);
}

static void test_names_and_fallbacks(void **state)
{
	struct room room;
	struct symbol_query q = {.file = 7, .offset = BUILT_TEXT + 3}, ret = q;
	const struct symbol_chain *chain, *other;

	room_init(&room, &(struct symbol_config){});
	room_set(&room, 7, built_fd(NULL), "libtwo.so");
	/* Before anything is known: a fallback at once. */
	assert_string_equal(symbol_chain(room.s, &q)->functions[0].name, "libtwo.so+0x1003");
	assert_true(symbol_chain(room.s, &q)->fallback);
	assert_string_equal(room_name(&room, 7, BUILT_TEXT + 3), "alpha");
	chain = symbol_chain(room.s, &q);
	assert_false(chain->fallback);
	assert_string_equal(chain->module, "libtwo.so");
	assert_int_equal(chain->n, 1);
	/* Another address of the same function is the same chain. */
	room_name(&room, 7, BUILT_TEXT + 5);
	q.offset = BUILT_TEXT + 5;
	other = symbol_chain(room.s, &q);
	assert_ptr_equal(chain, other);
	/* Behind a function is nobody; a return address there is the function's. */
	assert_string_equal(room_name(&room, 7, BUILT_TEXT + 16), "libtwo.so+0x1010");
	ret = (struct symbol_query){.file = 7, .return_address = true, .offset = BUILT_TEXT + 16};
	assert_int_equal(room_resolve(&room, &ret, 1), 0);
	assert_string_equal(symbol_chain(room.s, &ret)->functions[0].name, "alpha");
	/* Outside of every segment. */
	assert_string_equal(room_name(&room, 7, 1ULL << 40), "libtwo.so+0x10000000000");
	assert_int_equal(symbol_facts(room.s, 7)->n_segments, 1);
	assert_int_equal(symbol_facts(room.s, 7)->segments[0].vaddr, BUILT_BASE);
	assert_true(symbol_facts(room.s, 7)->segments[0].executable);
	assert_string_equal(symbol_facts(room.s, 7)->named_by, ".symtab");
	assert_true(room.facts_calls > 0);
	assert_int_equal(strlen(symbol_facts(room.s, 7)->htlhash), 32);
	room_deinit(&room);
}

static void test_cached_and_counted(void **state)
{
	struct room room;
	struct symbol_query q[] = {{.file = 7, .offset = BUILT_TEXT},
		{.file = 7, .offset = BUILT_TEXT + 32}, {.file = 7, .offset = BUILT_TEXT + 100},
		{.file = 7, .offset = BUILT_TEXT}};
	struct answer a = {0};
	struct symbol_counters c;

	room_init(&room, &(struct symbol_config){});
	room_set(&room, 7, built_fd(NULL), "libtwo.so");
	assert_int_equal(room_resolve(&room, q, 4), 0);
	c = room_counters(&room);
	assert_int_equal(c.asked, 4);
	assert_int_equal(c.named, 2);
	assert_int_equal(c.fallback, 1);
	assert_int_equal(c.requests, 1);
	assert_int_equal(c.entries, 3);
	assert_int_equal(symbol_facts(room.s, 7)->asked, 3);
	assert_int_equal(symbol_facts(room.s, 7)->named, 2);
	/* All there: called back before it returns. */
	assert_int_equal(symbol_resolve(room.s, q, 4, 0, on_answer, &a), 0);
	assert_true(a.done);
	assert_int_equal(room_counters(&room).cached, 4);
	assert_int_equal(room_counters(&room).requests, 1);
	room_deinit(&room);
}

static void test_file_that_cannot_be_opened(void **state)
{
	struct room room;
	struct answer a = {0};
	struct symbol_query q = {.file = 9, .offset = 0x42};

	room_init(&room, &(struct symbol_config){});
	assert_string_equal(room_name(&room, 9, 0x42), "[anon]+0x42");
	assert_string_not_equal(symbol_facts(room.s, 9)->last_problem, "");
	/* Left alone for a while: no wait. */
	assert_int_equal(symbol_resolve(room.s, &q, 1, 0, on_answer, &a), 0);
	assert_true(a.done);
	/* A frame of no file at all. */
	assert_string_equal(room_name(&room, 0, 0x42), "[anon]+0x42");
	/* What cannot have been opened yet is no problem of the file's. */
	room.files[8].fd = -EBADF;
	assert_string_equal(room_name(&room, 8, 0x42), "[anon]+0x42");
	assert_string_equal(symbol_facts(room.s, 8)->last_problem, "");
	room_deinit(&room);
}

static void test_kernel(void **state)
{
	struct room room;
	FILE *f = fopen("/proc/kallsyms", "re");
	char line[512], name[256] = "", module[64];
	unsigned long long address = 0, at = 0;
	char type;
	const struct symbol_chain *chain;
	struct symbol_query q = {.file = SYMBOL_FILE_KERNEL};

	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		module[0] = '\0';
		if (sscanf(line, "%llx %c %255s [%63[^]]", &at, &type, name, module) >= 3 &&
			streq(name, "vfs_read") && !*module)
			address = at;
	}
	fclose(f);
	room_init(&room, &(struct symbol_config){});
	q.offset = address + 4;
	assert_int_equal(room_resolve(&room, &q, 1), 0);
	chain = symbol_chain(room.s, &q);
	assert_string_equal(chain->module, "vmlinux");
	if (address) {
		assert_string_equal(chain->functions[0].name, "vfs_read");
		assert_string_equal(symbol_facts(room.s, SYMBOL_FILE_KERNEL)->named_by, "kallsyms");
		symbol_forget_kernel(room.s);
		assert_string_equal(room_name(&room, SYMBOL_FILE_KERNEL, address + 4), "vfs_read");
		/* What the kernel proper has stays; what nobody named may be new code's. */
		assert_int_equal(room_counters(&room).requests, 1);
		/* An answer is for all of the function, and for nothing before it. */
		assert_string_equal(room_name(&room, SYMBOL_FILE_KERNEL, address), "vfs_read");
		assert_string_equal(room_name(&room, SYMBOL_FILE_KERNEL, address + 9), "vfs_read");
		assert_int_equal(room_counters(&room).requests, 1);
		assert_string_not_equal(
			room_name(&room, SYMBOL_FILE_KERNEL, address - 1), "vfs_read");
		assert_int_equal(room_counters(&room).requests, 2);
		room_name(&room, SYMBOL_FILE_KERNEL, 0x1234);
		symbol_forget_kernel(room.s);
		room_name(&room, SYMBOL_FILE_KERNEL, 0x1234);
		assert_int_equal(room_counters(&room).requests, 4);
	} else {
		print_message(
			"kernel addresses are hidden here: only the sentence about it is tested\n");
		assert_non_null(strstr(
			symbol_facts(room.s, SYMBOL_FILE_KERNEL)->last_problem, "kptr_restrict"));
	}
	assert_string_equal(room_name(&room, SYMBOL_FILE_KERNEL, 0x1234), "vmlinux+0x1234");
	room_deinit(&room);
}

/* ---- hostile files ------------------------------------------------------------------------------------------------ */

static void spoil_cut_header(struct built *b)
{
	b->len = 40;
}
static void spoil_cut_sections(struct built *b)
{
	b->len -= 100;
}
static void spoil_empty(struct built *b)
{
	b->len = 0;
}
static void spoil_not_elf(struct built *b)
{
	memset(b->data, 'x', b->len);
}
static void spoil_other_order(struct built *b)
{
	b->ehdr->e_ident[EI_DATA] = ELFDATA2MSB;
}
static void spoil_class(struct built *b)
{
	b->ehdr->e_ident[EI_CLASS] = 77;
}
static void spoil_32_bit_claim(struct built *b)
{
	b->ehdr->e_ident[EI_CLASS] = ELFCLASS32;
}
static void spoil_symtab_4g(struct built *b)
{
	b->shdr[BUILT_SYMTAB].sh_size = 4ULL << 30;
}
static void spoil_symtab_wraps(struct built *b)
{
	b->shdr[BUILT_SYMTAB].sh_offset = UINT64_MAX - 8;
	b->shdr[BUILT_SYMTAB].sh_size = 1024;
}
static void spoil_entsize_0(struct built *b)
{
	b->shdr[BUILT_SYMTAB].sh_entsize = 0;
}
static void spoil_entsize_huge(struct built *b)
{
	b->shdr[BUILT_SYMTAB].sh_entsize = UINT64_MAX;
}
static void spoil_link_itself(struct built *b)
{
	b->shdr[BUILT_SYMTAB].sh_link = BUILT_SYMTAB;
}
static void spoil_link_beyond(struct built *b)
{
	b->shdr[BUILT_SYMTAB].sh_link = 0xffffffff;
}
static void spoil_link_nowhere(struct built *b)
{
	b->shdr[BUILT_SYMTAB].sh_link = 0;
}
static void spoil_strings_are_headers(struct built *b)
{
	b->shdr[BUILT_STRTAB].sh_offset = 0;
	b->shdr[BUILT_STRTAB].sh_size = b->len;
}
static void spoil_strings_4g(struct built *b)
{
	b->shdr[BUILT_STRTAB].sh_size = 4ULL << 30;
}
static void spoil_everything_overlaps(struct built *b)
{
	for (int i = 1; i < BUILT_SECTIONS; i++) {
		b->shdr[i].sh_offset = b->ehdr->e_shoff;
		b->shdr[i].sh_size = BUILT_SECTIONS * sizeof(Elf64_Shdr);
		b->shdr[i].sh_addr = BUILT_BASE;
	}
}
static void spoil_shnum_huge(struct built *b)
{
	b->ehdr->e_shnum = 0xfeff;
}
static void spoil_shnum_extended(struct built *b)
{
	b->ehdr->e_shnum = 0;
	b->shdr[0].sh_size = 0x7fffffffffffffff;
}
static void spoil_shoff_beyond(struct built *b)
{
	b->ehdr->e_shoff = UINT64_MAX - 100;
}
static void spoil_shoff_odd(struct built *b)
{
	b->ehdr->e_shoff = 3;
}
static void spoil_shentsize(struct built *b)
{
	b->ehdr->e_shentsize = 1;
}
static void spoil_phnum(struct built *b)
{
	b->ehdr->e_phnum = 0xffff;
}
static void spoil_phoff(struct built *b)
{
	b->ehdr->e_phoff = UINT64_MAX - 4;
}
static void spoil_segment_wraps(struct built *b)
{
	b->phdr->p_vaddr = UINT64_MAX - 4096;
	b->phdr->p_memsz = UINT64_MAX;
}
static void spoil_segment_size(struct built *b)
{
	b->phdr->p_filesz = b->phdr->p_memsz = 1ULL << 62;
}
static void spoil_symbol_sizes(struct built *b)
{
	for (size_t i = 1; i < b->n_symbols; i++) {
		b->symbols[i].st_size = UINT64_MAX;
		b->symbols[i].st_value = UINT64_MAX - i;
	}
}
static void spoil_names_beyond(struct built *b)
{
	for (size_t i = 1; i < b->n_symbols; i++)
		b->symbols[i].st_name = 0xfffffff0;
}
static void spoil_shstrndx(struct built *b)
{
	b->ehdr->e_shstrndx = SHN_XINDEX;
	b->shdr[0].sh_link = 0xffffff;
}

static void (*const spoils[])(struct built *b) = {spoil_cut_header, spoil_cut_sections, spoil_empty,
	spoil_not_elf, spoil_other_order, spoil_class, spoil_32_bit_claim, spoil_symtab_4g,
	spoil_symtab_wraps, spoil_entsize_0, spoil_entsize_huge, spoil_link_itself,
	spoil_link_beyond, spoil_link_nowhere, spoil_strings_are_headers, spoil_strings_4g,
	spoil_everything_overlaps, spoil_shnum_huge, spoil_shnum_extended, spoil_shoff_beyond,
	spoil_shoff_odd, spoil_shentsize, spoil_phnum, spoil_phoff, spoil_segment_wraps,
	spoil_segment_size, spoil_symbol_sizes, spoil_names_beyond, spoil_shstrndx};

/* All at once, between two good files: every spoilt one gets names or fallbacks, the good ones their names. */
static void test_hostile_files(void **state)
{
	struct symbol_query q[ARRAY_SIZE(spoils) + 2];
	const size_t n = ARRAY_SIZE(q);
	struct symbol_counters c;
	struct room room;

	room_init(&room, &(struct symbol_config){});
	for (size_t i = 0; i < n; i++) {
		bool good = i == 0 || i == n - 1;
		char name[32];

		snprintf(name, sizeof(name), "file%zu", i);
		room_set(&room, (uint32_t)i + 3, built_fd(good ? NULL : spoils[i - 1]), name);
		q[i] = (struct symbol_query){.file = (uint32_t)i + 3, .offset = BUILT_TEXT + 4};
	}
	assert_int_equal(room_resolve(&room, q, n), 0);
	assert_string_equal(symbol_chain(room.s, &q[0])->functions[0].name, "alpha");
	assert_string_equal(symbol_chain(room.s, &q[n - 1])->functions[0].name, "alpha");
	for (size_t i = 1; i < n - 1; i++) {
		const char *name = symbol_chain(room.s, &q[i])->functions[0].name;
		char fallback[64];

		snprintf(fallback, sizeof(fallback), "file%zu+0x1004", i);
		/* Where the string table lies over the header, the name is what is written there. */
		if (!streq(name, fallback) && !streq(name, "alpha") && strncmp(name, "ELF", 3) != 0)
			fail_msg("spoilt file %zu is called %s", i, name);
		assert_true(symbol_facts(room.s, q[i].file)->seen);
	}
	/* What is not believable is told apart from what has no names. */
	assert_string_equal(symbol_facts(room.s, 3 + 4)->last_problem, "not an ELF file");
	/* Not one of these may even end the child. */
	c = room_counters(&room);
	assert_int_equal(c.crashes + c.timeouts + c.refused, 0);
	room_deinit(&room);
}

/* Sparse files of 4 GB and more, whose headers tell the truth: no limit of memory or time may be passed. */
static void test_big_sparse_files(void **state)
{
	CLEANUP(built_free) struct built b = {0};
	struct room room;
	int fd;

	built_init(&b, two, ARRAY_SIZE(two));
	b.shdr[BUILT_SYMTAB].sh_offset = 1 << 20;
	b.shdr[BUILT_SYMTAB].sh_size = (4ULL << 30) / sizeof(Elf64_Sym) * sizeof(Elf64_Sym);
	b.shdr[BUILT_STRTAB].sh_offset = 1 << 20;
	b.shdr[BUILT_STRTAB].sh_size = 4ULL << 30;
	fd = memfd_of(b.data, b.len);
	assert_int_equal(ftruncate(fd, 5LL << 30), 0);
	room_init(&room, &(struct symbol_config){});
	room_set(&room, 3, fd, "sparse");
	room_set(&room, 4, built_fd(NULL), "good");
	assert_string_equal(room_name(&room, 3, BUILT_TEXT), "sparse+0x1000");
	assert_string_equal(
		symbol_facts(room.s, 3)->last_problem, "its symbol table has too many entries");
	assert_string_equal(room_name(&room, 4, BUILT_TEXT), "alpha");
	room_deinit(&room);
}

/* More functions than the symbolizer's memory: said, and the others go on. */
static void test_too_many_functions(void **state)
{
	const size_t n = 4000000;
	CLEANUP(built_free) struct built b = {0};
	_cleanup_free_ Elf64_Sym *symbols = malloc(n * sizeof(*symbols));
	struct room room;
	int fd;

	built_init(&b, two, ARRAY_SIZE(two));
	for (size_t i = 0; i < n; i++) {
		symbols[i] = b.symbols[1];
		symbols[i].st_value = BUILT_BASE + BUILT_TEXT + (n - i) % BUILT_TEXT_SIZE;
	}
	b.shdr[BUILT_SYMTAB].sh_offset = 1 << 20;
	b.shdr[BUILT_SYMTAB].sh_size = n * sizeof(*symbols);
	fd = memfd_of(b.data, b.len);
	assert_int_equal(pwrite(fd, symbols, n * sizeof(*symbols), 1 << 20), n * sizeof(*symbols));
	room_init(&room, &(struct symbol_config){});
	room_set(&room, 3, fd, "many");
	room_set(&room, 4, built_fd(NULL), "good");
	assert_string_equal(room_name(&room, 3, BUILT_TEXT), "many+0x1000");
	assert_string_not_equal(symbol_facts(room.s, 3)->last_problem, "");
	assert_string_equal(room_name(&room, 4, BUILT_TEXT), "alpha");
	room_deinit(&room);
}

/* Two million functions, in turn at the ends of ten thousand sections: finding out where each lies takes minutes. The
 * child's own limit ends it, since the clock on the wall has more patience here. */
static void test_costs_too_much(void **state)
{
	const size_t n = 1900000, sections = 10000;
	CLEANUP(built_free) struct built b = {0};
	_cleanup_free_ Elf64_Sym *symbols = malloc(n * sizeof(*symbols));
	_cleanup_free_ Elf64_Shdr *headers = calloc(sections, sizeof(*headers));
	struct room room;
	int fd;

	built_init(&b, two, ARRAY_SIZE(two));
	b.shdr[BUILT_SYMTAB].sh_offset = 2 << 20;
	b.shdr[BUILT_SYMTAB].sh_size = n * sizeof(*symbols);
	memcpy(headers, b.shdr, BUILT_SECTIONS * sizeof(*headers));
	for (size_t i = BUILT_SECTIONS; i < sections; i++) {
		headers[i] = b.shdr[BUILT_CODE];
		headers[i].sh_addr = BUILT_BASE + (i << 20);
		headers[i].sh_size = 1;
	}
	for (size_t i = 0; i < n; i++) {
		symbols[i] = b.symbols[1];
		symbols[i].st_value = headers[sections - 1 - i % 2].sh_addr;
	}
	b.ehdr->e_shoff = 1 << 20;
	b.ehdr->e_shnum = sections;
	fd = memfd_of(b.data, b.len);
	assert_int_equal(pwrite(fd, headers, sections * sizeof(*headers), 1 << 20),
		sections * sizeof(*headers));
	assert_int_equal(pwrite(fd, symbols, n * sizeof(*symbols), 2 << 20), n * sizeof(*symbols));
	room_init(&room, &(struct symbol_config){.file_deadline_ms = 300000});
	room_set(&room, 3, fd, "costly");
	room_set(&room, 4, built_fd(NULL), "good");
	assert_string_equal(room_name(&room, 3, BUILT_TEXT), "costly+0x1000");
	/* Nobody knew that it is not its debug information: asked again without. */
	assert_int_equal(room_counters(&room).timeouts, 2);
	assert_non_null(strstr(symbol_facts(room.s, 3)->last_problem, "CPU time"));
	assert_string_equal(room_name(&room, 4, BUILT_TEXT), "alpha");
	room_deinit(&room);
}

/* Cut short after it was read: what can be read no more has no name, and nothing dies of it. */
static void test_file_shrinks(void **state)
{
	struct room room;
	int fd = built_fd(NULL);

	room_init(&room, &(struct symbol_config){});
	room_set(&room, 3, fd, "shrinking");
	assert_string_equal(room_name(&room, 3, BUILT_TEXT), "alpha");
	assert_int_equal(ftruncate(fd, 64), 0);
	/* The strings may still be in the window that was read ahead: either is right. */
	room_name(&room, 3, BUILT_TEXT + 32);
	assert_int_equal(room_counters(&room).crashes, 0);
	room_deinit(&room);
}

/* ---- a child that dies, hangs, or is not there ---------------------------------------------------------------------- */

static void test_killed_between_requests(void **state)
{
	struct room room;
	pid_t before;

	room_init(&room, &(struct symbol_config){});
	room_set(&room, 3, built_fd(NULL), "lib.so");
	for (uint64_t i = 0; i < 10; i++) {
		symbol_forget_file(room.s, 3); /* for how many addresses the last answer was */
		assert_string_equal(room_name(&room, 3, BUILT_TEXT + i), "alpha");
		before = symbol_child_pid(room.s);
		assert_true(before > 0);
		assert_int_equal(kill(before, SIGKILL), 0);
	}
	assert_string_equal(room_name(&room, 3, BUILT_TEXT + 32), "beta");
	assert_int_equal(room_counters(&room).restarts, 10);
	/* Whatever it was doing, no file was given up for it. */
	assert_int_equal(room_counters(&room).fallback, 0);
	/* And what was named before needs nobody. */
	assert_string_equal(room_name(&room, 3, BUILT_TEXT), "alpha");
	room_deinit(&room);
}

static void test_killed_in_a_request(void **state)
{
	struct room room;
	struct answer a = {0};
	struct symbol_query q[2] = {
		{.file = 3, .offset = BUILT_TEXT}, {.file = 4, .offset = BUILT_TEXT}};

	room_init(&room, &(struct symbol_config){});
	room_set(&room, 3, built_fd(NULL), "lib.so");
	room_set(&room, 4, built_fd(NULL), "other.so");
	room_name(&room, 3, BUILT_TEXT + 32);
	/* Stopped, so that the request is under way for sure when it dies. */
	kill(symbol_child_pid(room.s), SIGSTOP);
	assert_int_equal(symbol_resolve(room.s, q, 2, clock_monotonic_ns() + 60 * NSEC_PER_SEC,
				 on_answer, &a),
		0);
	kill(symbol_child_pid(room.s), SIGKILL);
	room_run(&room, &a);
	assert_int_equal(a.late, 0);
	/* Once may be chance: asked again. */
	assert_string_equal(symbol_chain(room.s, &q[0])->functions[0].name, "alpha");
	assert_string_equal(symbol_chain(room.s, &q[1])->functions[0].name, "alpha");
	assert_int_equal(room_counters(&room).crashes, 1);
	assert_int_equal(symbol_facts(room.s, 3)->crashes, 1);
	assert_int_equal(symbol_facts(room.s, 4)->crashes, 0);
	room_deinit(&room);
}

/* 50 times, anywhere. No wait stays open, every answer is right or a fallback, and in the end all can be had again. */
static void test_killed_at_random(void **state)
{
	enum { FILES = 8, ADDRESSES = 40 };
	struct symbol_query q[FILES * ADDRESSES];
	uint64_t seed = 7;
	size_t right = 0;
	int kills = 0;
	struct room room;

	room_init(&room, &(struct symbol_config){.max_entries = 100});
	for (uint32_t f = 0; f < FILES; f++)
		room_set(&room, f + 3, built_fd(NULL), "lib.so");
	for (int round = 0; kills < 50; round++) {
		struct answer a = {0};

		for (size_t i = 0; i < ARRAY_SIZE(q); i++)
			q[i] = (struct symbol_query){.file = (uint32_t)(i % FILES + 3),
				.offset = BUILT_TEXT + (i / FILES + (size_t)round) % 16};
		assert_int_equal(symbol_resolve(room.s, q, ARRAY_SIZE(q),
					 clock_monotonic_ns() + 60 * NSEC_PER_SEC, on_answer, &a),
			0);
		while (!a.done) {
			seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
			if (symbol_child_pid(room.s) > 0 && seed >> 62 == 0 && kills < 50) {
				kill(symbol_child_pid(room.s), SIGKILL);
				kills++;
			}
			assert_true(sd_event_run(room.loop, 1000000) >= 0);
		}
		assert_int_equal(a.late, 0);
		for (size_t i = 0; i < ARRAY_SIZE(q); i++) {
			const struct symbol_chain *chain = symbol_chain(room.s, &q[i]);

			if (!chain->fallback)
				assert_string_equal(chain->functions[0].name, "alpha");
			right += !chain->fallback;
		}
		/* Everything is forgotten, so that all is asked for again. */
		for (uint32_t f = 0; f < FILES && kills < 50; f++)
			symbol_forget_file(room.s, f + 3);
		for (int i = 0; i < 3; i++)
			symbol_trim(room.s);
		if (kills >= 50)
			break;
	}
	assert_true(right > 0);
	for (uint32_t f = 0; f < FILES; f++) {
		symbol_forget_file(room.s, f + 3);
		assert_string_equal(room_name(&room, f + 3, BUILT_TEXT + 40), "beta");
	}
	room_deinit(&room);
}

static void test_hangs(void **state)
{
	struct room room;
	struct answer a = {0};
	struct symbol_query q[2] = {
		{.file = 3, .offset = BUILT_TEXT}, {.file = 4, .offset = BUILT_TEXT}};

	room_init(&room, &(struct symbol_config){.file_deadline_ms = 3000});
	room_set(&room, 3, built_fd(NULL), "slow.so");
	room_set(&room, 4, built_fd(NULL), "other.so");
	room_name(&room, 3, BUILT_TEXT + 32);
	kill(symbol_child_pid(room.s), SIGSTOP);
	assert_int_equal(symbol_resolve(room.s, q, 2, clock_monotonic_ns() + 60 * NSEC_PER_SEC,
				 on_answer, &a),
		0);
	room_run(&room, &a);
	/* The file it was at is given up, the other is not. */
	assert_string_equal(symbol_chain(room.s, &q[0])->functions[0].name, "slow.so+0x1000");
	assert_string_equal(symbol_chain(room.s, &q[1])->functions[0].name, "alpha");
	assert_int_equal(room_counters(&room).timeouts, 1);
	assert_int_equal(symbol_facts(room.s, 3)->timeouts, 1);
	assert_non_null(strstr(symbol_facts(room.s, 3)->last_problem, "3000 ms"));
	/* In its back-off it is not asked for, and what was known stays. */
	a = (struct answer){0};
	assert_int_equal(symbol_resolve(room.s, q, 1, 0, on_answer, &a), 0);
	assert_true(a.done);
	assert_string_equal(room_name(&room, 3, BUILT_TEXT + 32), "beta");
	room_deinit(&room);
}

/* The caller's deadline comes first: told how many are missing, which still come later. */
static void test_late(void **state)
{
	struct room room;
	struct answer a = {0}, b = {0}, none = {0};
	struct symbol_query q[3] = {{.file = 3, .offset = BUILT_TEXT + 1},
		{.file = 3, .offset = BUILT_TEXT + 2}, {.file = 4, .offset = BUILT_TEXT}};

	room_init(&room, &(struct symbol_config){});
	room_set(&room, 3, built_fd(NULL), "lib.so");
	room_set(&room, 4, built_fd(NULL), "other.so");
	room_name(&room, 3, BUILT_TEXT + 32);
	kill(symbol_child_pid(room.s), SIGSTOP);
	assert_int_equal(symbol_resolve(room.s, q, 3, clock_monotonic_ns() + 100 * NSEC_PER_MSEC,
				 on_answer, &a),
		0);
	/* Another caller, whose wait is cancelled. */
	assert_int_equal(symbol_resolve(room.s, q, 3, clock_monotonic_ns() + 50 * NSEC_PER_MSEC,
				 on_answer, &none),
		0);
	symbol_cancel(room.s, &none);
	room_run(&room, &a);
	assert_int_equal(a.late, 3);
	assert_string_equal(symbol_chain(room.s, &q[1])->functions[0].name, "lib.so+0x1002");
	symbol_trim(room.s);
	kill(symbol_child_pid(room.s), SIGCONT);
	assert_int_equal(symbol_resolve(room.s, q, 3, clock_monotonic_ns() + 60 * NSEC_PER_SEC,
				 on_answer, &b),
		0);
	room_run(&room, &b);
	assert_int_equal(b.late, 0);
	assert_string_equal(symbol_chain(room.s, &q[1])->functions[0].name, "alpha");
	assert_false(none.done);
	room_deinit(&room);
}

static void test_no_program(void **state)
{
	struct room room;
	struct answer a = {0};

	sandbox_set_program("/nonexistent/agentd");
	log_set_level(LOG_LEVEL_ERROR);
	room_init(&room, &(struct symbol_config){});
	room_set(&room, 3, built_fd(NULL), "lib.so");
	/* Given up after a few tries, long before the caller's deadline. */
	assert_string_equal(room_name(&room, 3, BUILT_TEXT), "lib.so+0x1000");
	assert_true(room_counters(&room).crashes >= 3);
	/* Once it can be started again, it is. */
	sandbox_set_program("/proc/self/exe");
	for (int i = 0; i < 100 &&
		symbol_chain(room.s, &(struct symbol_query){.file = 3, .offset = BUILT_TEXT})
			->fallback;
		i++)
		room_name(&room, 3, BUILT_TEXT);
	assert_string_equal(room_name(&room, 3, BUILT_TEXT), "alpha");
	assert_false(a.done);
	room_deinit(&room);
}

static void test_idle_child_is_ended(void **state)
{
	struct room room;
	pid_t pid;

	room_init(&room, &(struct symbol_config){.idle_exit_ns = 100 * NSEC_PER_MSEC});
	room_set(&room, 3, built_fd(NULL), "lib.so");
	room_name(&room, 3, BUILT_TEXT);
	pid = symbol_child_pid(room.s);
	assert_true(pid > 0);
	while (symbol_child_pid(room.s) > 0)
		assert_true(sd_event_run(room.loop, 1000000) >= 0);
	assert_int_equal(kill(pid, 0), -1);
	assert_string_equal(room_name(&room, 3, BUILT_TEXT + 32), "beta");
	assert_int_equal(room_counters(&room).crashes, 0);
	room_deinit(&room);
}

/* More files than the child keeps, asked in turn without descriptors once it knows them. */
static void test_more_files_than_kept(void **state)
{
	struct room room;

	room_init(&room, &(struct symbol_config){});
	for (uint32_t f = 0; f < 20; f++)
		room_set(&room, f + 3, built_fd(NULL), "lib.so");
	for (uint64_t round = 0; round < 4; round++)
		for (uint32_t f = 0; f < 20; f++)
			assert_string_equal(room_name(&room, f + 3, BUILT_TEXT + round), "alpha");
	room_deinit(&room);
}

static void test_forget_file(void **state)
{
	struct room room;
	struct answer a = {0};
	struct symbol_query q = {.file = 3, .offset = BUILT_TEXT + 9};

	room_init(&room, &(struct symbol_config){});
	room_set(&room, 3, built_fd(NULL), "lib.so");
	room_name(&room, 3, BUILT_TEXT);
	kill(symbol_child_pid(room.s), SIGSTOP);
	assert_int_equal(symbol_resolve(room.s, &q, 1, clock_monotonic_ns() + 60 * NSEC_PER_SEC,
				 on_answer, &a),
		0);
	symbol_forget_file(room.s, 3);
	room_run(&room, &a);
	assert_false(symbol_facts(room.s, 3)->seen);
	kill(symbol_child_pid(room.s), SIGCONT);
	assert_string_equal(room_name(&room, 3, BUILT_TEXT + 32), "beta");
	room_deinit(&room);
}

/* ---- a child that lies ------------------------------------------------------------------------------------------------ */

enum lie {
	LIE_GARBAGE,
	LIE_OTHER_REQUEST,
	LIE_ROW_BEYOND,
	LIE_TWO_NAMES,
	LIE_STRING_BEYOND,
	LIE_CONTROL_CHARACTERS,
	LIE_NO_PROGRESS,
	LIE_TOO_FAR,
	LIE_UNKNOWN_THOUGH_GIVEN,
	LIE_BUILD_ID,
	LIE_DESCRIPTORS,
	LIE_CLOSES,
	LIE_BEFORE_ASKED,
	LIES,
};

static void say(const void *data, size_t len)
{
	(void)fdpass_send(SANDBOX_FD, data, len, NULL, 0);
}

static struct symbol_header head(uint64_t request, uint16_t message, size_t size)
{
	return (struct symbol_header){.version = SYMBOL_PROTOCOL,
		.message = message,
		.size = (uint32_t)size,
		.request = request};
}

static void lie_names(enum lie lie, uint64_t request)
{
	struct {
		struct symbol_names_message m;
		struct symbol_row rows[2];
		struct symbol_wire_function functions[2];
		char strings[16];
	} a = {.m = {.header = head(request, SYMBOL_MESSAGE_NAMES, sizeof(a)),
		       .n_rows = 2,
		       .n_functions = 2,
		       .string_bytes = sizeof(a.strings)},
		.rows = {{.address = 0, .n = 1}, {.address = 1, .n = 1}},
		.functions = {{.name = {0, 4}}, {.name = {0, 4}}},
		.strings = "evil"};

	if (lie == LIE_ROW_BEYOND)
		a.rows[1].address = 1000000;
	if (lie == LIE_TWO_NAMES)
		a.rows[1].address = 0;
	if (lie == LIE_STRING_BEYOND)
		a.functions[1].name.offset = 0x7fffffff;
	if (lie == LIE_CONTROL_CHARACTERS)
		memcpy(a.strings, "ev\033l", 4);
	say(&a, sizeof(a));
}

static void lie_done(enum lie lie, uint64_t request)
{
	struct symbol_done_message d = {.header = head(request, SYMBOL_MESSAGE_DONE, sizeof(d))};

	if (lie == LIE_OTHER_REQUEST) {
		d.header.request++;
		d.n_done = 2;
	}
	if (lie == LIE_TOO_FAR)
		d.n_done = 77;
	if (lie == LIE_UNKNOWN_THOUGH_GIVEN)
		d.flags = SYMBOL_DONE_UNKNOWN_FILE;
	say(&d, sizeof(d));
}

static void lie_about(enum lie lie, uint64_t request)
{
	struct symbol_facts_message facts = {
		.header = head(request, SYMBOL_MESSAGE_FACTS, sizeof(facts))};
	int fds[4] = {0, 1, 2, 0};

	switch (lie) {
	case LIE_GARBAGE:
		memset(&facts, 0xa5, sizeof(facts));
		say(&facts, sizeof(facts));
		break;
	case LIE_ROW_BEYOND:
	case LIE_TWO_NAMES:
	case LIE_STRING_BEYOND:
	case LIE_CONTROL_CHARACTERS:
		lie_names(lie, request);
		break;
	case LIE_BUILD_ID:
		memset(facts.build_id, 'a', sizeof(facts.build_id));
		say(&facts, sizeof(facts));
		break;
	case LIE_DESCRIPTORS:
		(void)fdpass_send(SANDBOX_FD, &facts, sizeof(facts), fds, 4);
		break;
	case LIE_CLOSES:
		close(SANDBOX_FD);
		break;
	default:
		lie_done(lie, request);
	}
}

/* In place of the symbolizer: believable at first. */
static _Noreturn void liar_main(enum lie lie)
{
	static uint64_t buffer[SYMBOL_MESSAGE_MAX / 8];
	struct symbol_ready ready = {.header = head(0, SYMBOL_MESSAGE_READY, sizeof(ready))};
	const struct symbol_request *q = (const void *)buffer;

	if (lie == LIE_BEFORE_ASKED)
		lie_done(LIE_TOO_FAR, 0);
	say(&ready, sizeof(ready));
	for (;;) {
		int fd = -1;
		size_t n = 1;
		ssize_t len = fdpass_recv(SANDBOX_FD, buffer, sizeof(buffer), &fd, &n);

		if (len <= 0)
			pause();
		lie_about(lie, q->header.request);
	}
}

static void test_lies(void **state)
{
	for (int lie = 0; lie < LIES; lie++) {
		struct symbol_query q[2] = {
			{.file = 3, .offset = BUILT_TEXT}, {.file = 3, .offset = BUILT_TEXT + 32}};
		struct symbol_counters c;
		struct room room;
		const char *path = work_path("liar");
		char script[512];

		snprintf(script, sizeof(script), "#!/bin/sh\nexec %s --lie %d\n", self, lie);
		unlink(path);
		write_file(path, script);
		assert_int_equal(chmod(path, 0700), 0);
		sandbox_set_program(path);
		room_init(&room, &(struct symbol_config){.file_deadline_ms = 1000});
		room_set(&room, 3, built_fd(NULL), "lib.so");
		assert_int_equal(room_resolve(&room, q, 2), 0);
		c = room_counters(&room);
		if (lie == LIE_CLOSES)
			assert_int_equal(
				c.timeouts, 2); /* the second time without debug information */
		else if (c.refused == 0)
			fail_msg("lie %d was believed", lie);
		assert_string_equal(
			symbol_chain(room.s, &q[0])->functions[0].name, "lib.so+0x1000");
		assert_string_equal(
			symbol_chain(room.s, &q[1])->functions[0].name, "lib.so+0x1020");
		assert_false(symbol_facts(room.s, 3)->seen);
		/* Another file, once an honest one is there. */
		sandbox_set_program("/proc/self/exe");
		room_set(&room, 4, built_fd(NULL), "good.so");
		for (int i = 0; i < 200 && symbol_facts(room.s, 4)->asked < 50 &&
			!streq(room_name(&room, 4, BUILT_TEXT), "alpha");
			i++)
			;
		assert_string_equal(room_name(&room, 4, BUILT_TEXT), "alpha");
		room_deinit(&room);
	}
	sandbox_set_program("/proc/self/exe");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_and_fallbacks),
		cmocka_unit_test(test_cached_and_counted),
		cmocka_unit_test(test_file_that_cannot_be_opened),
		cmocka_unit_test(test_kernel),
		cmocka_unit_test(test_hostile_files),
		cmocka_unit_test(test_big_sparse_files),
		cmocka_unit_test(test_too_many_functions),
		cmocka_unit_test(test_costs_too_much),
		cmocka_unit_test(test_file_shrinks),
		cmocka_unit_test(test_killed_between_requests),
		cmocka_unit_test(test_killed_in_a_request),
		cmocka_unit_test(test_killed_at_random),
		cmocka_unit_test(test_hangs),
		cmocka_unit_test(test_late),
		cmocka_unit_test(test_no_program),
		cmocka_unit_test(test_idle_child_is_ended),
		cmocka_unit_test(test_more_files_than_kept),
		cmocka_unit_test(test_forget_file),
		cmocka_unit_test(test_lies),
	};

	if (argc == 3 && streq(argv[1], "--lie"))
		liar_main((enum lie)atoi(argv[2]));
	dispatch_role(argc, argv);
	assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
