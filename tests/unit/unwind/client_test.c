/* SPDX-License-Identifier: Apache-2.0 */

/* The client against an unwinder that is killed, hangs, lies, or is given files made to hurt it. The
 * child is the real one in its real sandbox, but for the liar, which is this program under another
 * name: the page that it is asked for says what it does. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/socket.h>

#include "tests/unit/unwind/fixture.h"
#include "agentd/base/clock.h"
#include "agentd/base/fdpass.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/sandbox.h"
#include "agentd/elf/elf_file.h"
#include "agentd/unwind/client.h"
#include "agentd/unwind/protocol.h"
#include "agentd/unwind/slot.h"

#define LIBC      "/lib/x86_64-linux-gnu/libc.so.6"
#define FILES     64
#define GOT_MAX   4096
#define PATIENCE  (20 * USEC_PER_SEC)
#define GOOD_PAGE 9000 /* and beyond: the liar is honest */

struct got {
	uint32_t file, page, rows;
	uint8_t cfa; /* of its first row */
	size_t size;
};

struct room {
	sd_event *loop;
	struct unwinder *u;
	int fds[FILES]; /* the id is the index; -1: cannot be opened */
	unsigned opened, idles;
	struct got got[GOT_MAX];
	size_t n;
	bool inside; /* of a call of ours */
	/* asked from within on_page, and from within on_idle */
	uint32_t ask_on_page, ask_on_idle;
	union {
		struct rows_slot slot;
		uint8_t bytes[ROWS_SLOT_MAX];
	} last;
};

static int open_file(void *userdata, uint32_t file)
{
	struct room *room = userdata;

	room->opened++;
	return file < FILES && room->fds[file] >= 0 ? room->fds[file] : -ENOENT;
}

static void on_page(
	void *userdata, uint32_t file, uint32_t page, const struct rows_slot *slot, size_t size)
{
	struct room *room = userdata;

	assert_false(room->inside);
	assert_int_equal(rows_slot_check(slot, size), 0);
	assert_true(room->n < GOT_MAX);
	room->got[room->n++] = (struct got){.file = file,
		.page = page,
		.rows = slot->n_rows,
		.cfa = rows_slot_rule(slot, 0)->cfa,
		.size = size};
	memcpy(room->last.bytes, slot, size);
	if (room->ask_on_page) {
		uint32_t next = room->ask_on_page;

		room->ask_on_page = 0;
		assert_int_equal(unwinder_ask(room->u, file, next), 0);
	}
}

static void on_idle(void *userdata)
{
	struct room *room = userdata;

	assert_false(room->inside);
	room->idles++;
	if (room->ask_on_idle) {
		uint32_t next = room->ask_on_idle;

		room->ask_on_idle = 0;
		assert_int_equal(unwinder_ask(room->u, 1, next), 0);
	}
}

static const char *file_name(void *userdata, uint32_t file)
{
	return file == 1 ? "a file" : "";
}

static const struct unwinder_ops ops = {
	.open_file = open_file, .on_page = on_page, .on_idle = on_idle, .file_name = file_name};

static void room_init(struct room *room, const struct unwinder_config *config)
{
	struct err_text err;

	memset(room, 0, sizeof(*room));
	for (size_t i = 0; i < FILES; i++)
		room->fds[i] = -1;
	assert_true(sd_event_new(&room->loop) >= 0);
	assert_int_equal(unwinder_new(&room->u, room->loop, config, &ops, room, &err), 0);
}

static void room_deinit(struct room *room)
{
	room->u = unwinder_free(room->u);
	for (size_t i = 0; i < FILES; i++)
		closep(&room->fds[i]);
	room->loop = sd_event_unref(room->loop);
}

static int ask(struct room *room, uint32_t file, uint32_t page)
{
	int r;

	room->inside = true;
	r = unwinder_ask(room->u, file, page);
	room->inside = false;
	return r;
}

static void turn(struct room *room, uint64_t usec)
{
	assert_true(sd_event_run(room->loop, usec) >= 0);
}

/* Until so many pages have come in all. */
static void run_until(struct room *room, size_t n)
{
	uint64_t end = clock_monotonic_ns() + PATIENCE * 1000;

	while (room->n < n) {
		assert_true(clock_monotonic_ns() < end);
		turn(room, 100000);
	}
}

static void run_for(struct room *room, uint64_t ms)
{
	uint64_t end = clock_monotonic_ns() + ms * NSEC_PER_MSEC;

	while (clock_monotonic_ns() < end)
		turn(room, 1000);
}

static const struct got *find(const struct room *room, uint32_t file, uint32_t page)
{
	for (size_t i = room->n; i-- > 0;)
		if (room->got[i].file == file && room->got[i].page == page)
			return &room->got[i];
	fail_msg("page %u of file %u did not come", page, file);
	return NULL;
}

static struct unwinder_counters counters(struct room *room)
{
	struct unwinder_counters c;

	unwinder_counters(room->u, &c);
	return c;
}

/* ---- what it is for
 * ------------------------------------------------------------------------------------ */

struct compare {
	struct room *room;
	struct unwind_file *file;
	size_t pages;
};

static int compare_page(void *userdata, const struct unwind_page *page)
{
	static union {
		struct rows_slot slot;
		uint8_t bytes[ROWS_SLOT_MAX];
	} want;
	static struct unwind_page own;
	struct compare *c = userdata;
	CLEANUP(unwind_rules_deinit) struct unwind_rules rules = {0};
	size_t size;

	/* A dictionary of its own, as the child's. */
	assert_int_equal(unwind_rules_init(&rules), 0);
	assert_int_equal(unwind_file_page(c->file, page->page, &rules, &own), 0);
	size = rows_slot_pack(&own, &rules, &want.slot, sizeof(want));
	assert_int_equal(ask(c->room, 1, page->page), 0);
	run_until(c->room, c->room->n + 1);
	assert_int_equal(c->room->last.slot.size, size);
	assert_memory_equal(c->room->last.bytes, want.bytes, size);
	c->pages++;
	return 0;
}

static void test_pages_are_what_the_decoder_says(void **state)
{
	static struct unwind_page page;
	CLEANUP(elf_file_closep) struct elf_file *elf = NULL;
	CLEANUP(unwind_file_closep) struct unwind_file *file = NULL;
	CLEANUP(unwind_rules_deinit) struct unwind_rules rules = {0};
	static struct room room;
	struct compare c = {.room = &room};
	struct unwinder_counters k;
	const struct unwind_file_facts *facts;
	struct err_text err;

	room_init(&room, &(struct unwinder_config){0});
	room.fds[1] = open(LIBC, O_RDONLY | O_CLOEXEC);
	assert_int_equal(elf_file_open(&elf, room.fds[1], &err), 0);
	assert_int_equal(unwind_file_open(&file, elf, &err), 0);
	assert_int_equal(unwind_rules_init(&rules), 0);
	c.file = file;
	assert_null(unwinder_file_facts(room.u, 1));
	assert_int_equal(unwind_file_each_page(file, &rules, &page, compare_page, &c), 0);
	assert_true(c.pages > 10);
	k = counters(&room);
	assert_int_equal(k.asked, c.pages);
	assert_int_equal(k.answered, c.pages);
	assert_int_equal(k.pages, c.pages);
	assert_int_equal(k.pending, 0);
	assert_int_equal(k.crashes + k.timeouts + k.lies + k.refused + k.restarts, 0);
	assert_true(k.cpu_us > 0 && k.child_memory > 0);
	facts = unwinder_file_facts(room.u, 1);
	assert_true(facts->sources & UNWIND_SOURCE_EH_FRAME);
	assert_int_equal(facts->pages, c.pages);
	assert_int_equal(facts->rows, k.rows);
	assert_int_equal(facts->bytes, k.bytes);
	assert_true(facts->rows > 10000 && facts->bytes > facts->rows * 4);
	assert_int_equal(facts->unsupported, k.unsupported);
	/* A file is opened once, for all its pages. */
	assert_int_equal(room.opened, 1);
	assert_true(room.idles > 0);
	room_deinit(&room);
}

static void test_a_page_is_asked_for_once(void **state)
{
	static struct room room;

	room_init(&room, &(struct unwinder_config){.max_pending = 20});
	room.fds[1] = open(LIBC, O_RDONLY | O_CLOEXEC);
	for (uint32_t i = 0; i < 20; i++) {
		assert_int_equal(ask(&room, 1, i), 0);
		assert_int_equal(ask(&room, 1, i), 1);
	}
	assert_int_equal(ask(&room, 1, 20), -ENOBUFS);
	assert_int_equal(ask(&room, 1, 5), 1);
	assert_int_equal(counters(&room).refused, 1);
	assert_int_equal(counters(&room).pending, 20);
	run_until(&room, 20);
	run_for(&room, 50);
	assert_int_equal(room.n, 20);
	/* Together, in order. */
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(room.got[i].page, i);
	assert_true(counters(&room).requests <= 2);
	assert_int_equal(ask(&room, 1, 5), 0);
	run_until(&room, 21);
	room_deinit(&room);
}

static void test_callbacks_may_ask(void **state)
{
	static struct room room;

	room_init(&room, &(struct unwinder_config){0});
	room.fds[1] = open(LIBC, O_RDONLY | O_CLOEXEC);
	room.ask_on_page = 3;
	room.ask_on_idle = 4;
	assert_int_equal(ask(&room, 1, 2), 0);
	run_until(&room, 3);
	find(&room, 1, 3);
	find(&room, 1, 4);
	/* Also where there is nothing to wait for. */
	assert_int_equal(ask(&room, 2, 2), 0);
	room.ask_on_page = 5;
	run_until(&room, 5);
	assert_int_equal(find(&room, 2, 2)->cfa, UNWIND_CFA_NONE);
	assert_int_equal(find(&room, 2, 5)->cfa, UNWIND_CFA_NONE);
	room_deinit(&room);
}

/* A swap of samplers: nobody runs the loop meanwhile. */
static void test_waiting_without_the_loop(void **state)
{
	static struct room room;
	uint64_t end = clock_monotonic_ns() + PATIENCE * 1000, began;

	room_init(&room, &(struct unwinder_config){0});
	room.fds[1] = open(LIBC, O_RDONLY | O_CLOEXEC);
	assert_false(unwinder_wait(room.u, 20));
	for (uint32_t i = 0; i < 10; i++)
		assert_int_equal(ask(&room, 1, i), 0);
	assert_int_equal(ask(&room, 2, 0), 0); /* cannot be opened */
	room.ask_on_idle = 11;
	while (unwinder_wait(room.u, 20))
		assert_true(clock_monotonic_ns() < end);
	assert_int_equal(room.n, 12);
	assert_true(find(&room, 1, 9)->rows > 1);
	assert_int_equal(find(&room, 2, 0)->cfa, UNWIND_CFA_NONE);
	find(&room, 1, 11);
	/* A child that says nothing costs what was allowed. */
	kill(unwinder_child_pid(room.u), SIGSTOP);
	assert_int_equal(ask(&room, 1, 3), 0);
	began = clock_monotonic_ns();
	assert_true(unwinder_wait(room.u, 20));
	assert_true(clock_monotonic_ns() - began >= 15 * NSEC_PER_MSEC);
	/* One that died: its end is for the loop. */
	kill(unwinder_child_pid(room.u), SIGKILL);
	for (unsigned i = 0; i < 20; i++)
		(void)unwinder_wait(room.u, 1);
	run_until(&room, 13);
	assert_true(find(&room, 1, 3)->rows > 1);
	room_deinit(&room);
}

static void test_more_files_than_the_child_holds(void **state)
{
	static struct room room;
	size_t n = 0;

	room_init(&room, &(struct unwinder_config){0});
	for (uint32_t f = 0; f < 40; f++)
		room.fds[f] = open(LIBC, O_RDONLY | O_CLOEXEC);
	for (uint32_t page = 2; page < 6; page++)
		for (uint32_t f = 0; f < 40; f++, n++)
			assert_int_equal(ask(&room, f, page), 0);
	run_until(&room, n);
	for (uint32_t f = 0; f < 40; f++)
		for (uint32_t page = 2; page < 6; page++)
			assert_int_equal(find(&room, f, page)->rows, find(&room, 0, page)->rows);
	/* Those it closed are opened again. */
	for (uint32_t f = 0; f < 40; f++)
		assert_int_equal(ask(&room, f, 7), 0);
	run_until(&room, n + 40);
	assert_true(find(&room, 0, 7)->rows > 1);
	assert_true(room.opened > 40);
	assert_int_equal(counters(&room).lies + counters(&room).crashes, 0);
	room_deinit(&room);
}

/* ---- files of all kinds
 * ------------------------------------------------------------------------------ */

/* A function of 32 KiB with a row a byte or so: the largest slot there is takes two messages. */
static int many_rows_fd(void)
{
	static uint8_t text[UNWIND_PAGE_SIZE];
	struct bytes b = {0};
	struct fixture f = {
		.sections = {{".text", text, sizeof(text), SHF_ALLOC | SHF_EXECINSTR, 0}}};
	size_t cie, fde;
	uint32_t len;
	int fd;

	cie = b.len;
	put32(&b, 0);
	put32(&b, 0);
	put8(&b, 1);
	put8(&b, 0);
	put_uleb(&b, 1);
	put_sleb(&b, -8);
	put8(&b, 16);
	put8(&b, 0x0c); /* def_cfa rsp 8 */
	put_uleb(&b, 7);
	put_uleb(&b, 8);
	put8(&b, 0x90); /* offset ra at cfa - 8 */
	put_uleb(&b, 1);
	while (b.len % 8 != 4)
		put8(&b, 0);
	len = (uint32_t)(b.len - cie - 4);
	memcpy(b.data + cie, &len, 4);
	fde = b.len;
	put32(&b, 0);
	put32(&b, fde + 4 - cie);
	put64(&b, FIXTURE_PC);
	put64(&b, UNWIND_PAGE_SIZE);
	for (unsigned i = 0; i < 2 * ROWS_MAX; i++) {
		put8(&b, 0x42); /* advance by 2 */
		put8(&b, 0x0e); /* def_cfa_offset */
		put_uleb(&b, 16 + 8 * (i % 3000));
	}
	while (b.len % 8 != 4)
		put8(&b, 0);
	len = (uint32_t)(b.len - fde - 4);
	memcpy(b.data + fde, &len, 4);
	put32(&b, 0);
	f.sections[1] = (struct fixture_section){".eh_frame", b.data, b.len, SHF_ALLOC, 0};
	fd = fixture_fd(&f);
	bytes_deinit(&b);
	return fd;
}

static void test_the_largest_slot(void **state)
{
	static struct room room;

	room_init(&room, &(struct unwinder_config){0});
	room.fds[1] = many_rows_fd();
	assert_int_equal(ask(&room, 1, 0), 0);
	run_until(&room, 1);
	assert_true(room.got[0].size > ROWS_MESSAGE_MAX);
	assert_int_equal(room.got[0].rows, ROWS_MAX);
	assert_int_equal(rows_slot_rule(&room.last.slot, 0x1002)->cfa_offset, 16);
	assert_int_equal(rows_slot_rule(&room.last.slot, 0x1004)->cfa_offset, 24);
	/* Rules that found no room in the slot. */
	assert_int_equal(
		rows_slot_rule(&room.last.slot, 0x1000 + 2 * 2500)->cfa, UNWIND_CFA_UNSUPPORTED);
	assert_true(unwinder_file_facts(room.u, 1)->unsupported > 1000);
	room_deinit(&room);
}

static int memfd_of(const void *data, size_t len)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	assert_true(fd >= 0 && pwrite(fd, data, len, 0) == (ssize_t)len);
	return fd;
}

static void test_files_without_rows(void **state)
{
	Elf32_Ehdr h32 = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
		.e_type = ET_DYN,
		.e_machine = EM_386,
		.e_version = EV_CURRENT,
		.e_ehsize = sizeof(h32),
		.e_phentsize = sizeof(Elf32_Phdr),
		.e_shentsize = sizeof(Elf32_Shdr)};
	Elf64_Ehdr other = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
		.e_type = ET_DYN,
		.e_machine = EM_RISCV,
		.e_version = EV_CURRENT,
		.e_ehsize = sizeof(other),
		.e_phentsize = sizeof(Elf64_Phdr),
		.e_shentsize = sizeof(Elf64_Shdr)};
	static struct room room;
	uint8_t file[256] = {0};
	int pipes[2];

	room_init(&room, &(struct unwinder_config){0});
	room.fds[1] = memfd_of("", 0);
	room.fds[2] = memfd_of("#!/bin/sh\n", 10);
	memcpy(file, &h32, sizeof(h32));
	room.fds[3] = memfd_of(file, sizeof(file));
	h32.e_machine = EM_X86_64; /* x32 */
	memcpy(file, &h32, sizeof(h32));
	room.fds[4] = memfd_of(file, sizeof(file));
	room.fds[5] = memfd_of(&other, sizeof(other));
	assert_int_equal(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
	room.fds[6] = pipes[0];
	room.fds[7] = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	room.fds[8] = open("/bin/true", O_PATH | O_CLOEXEC);
	for (uint32_t f = 1; f <= 9; f++)
		assert_int_equal(ask(&room, f, 1), 0);
	run_until(&room, 9);
	run_for(&room, 50); /* facts come behind the pages */
	for (uint32_t f = 1; f <= 9; f++) {
		assert_int_equal(find(&room, f, 1)->rows, 1);
		assert_int_equal(find(&room, f, 1)->cfa, UNWIND_CFA_NONE);
		assert_string_not_equal(unwinder_file_facts(room.u, f)->problem, "");
	}
	assert_non_null(strstr(unwinder_file_facts(room.u, 3)->problem, "32-bit"));
	assert_non_null(strstr(unwinder_file_facts(room.u, 4)->problem, "32-bit"));
	assert_non_null(strstr(unwinder_file_facts(room.u, 5)->problem, "machine"));
	assert_int_equal(counters(&room).crashes + counters(&room).lies, 0);
	close(pipes[1]);
	/* A page where a file has no text. */
	room.fds[10] = open(LIBC, O_RDONLY | O_CLOEXEC);
	assert_int_equal(ask(&room, 10, UINT32_MAX), 0);
	run_until(&room, 10);
	assert_int_equal(find(&room, 10, UINT32_MAX)->cfa, UNWIND_CFA_NONE);
	room_deinit(&room);
}

static void test_a_file_that_is_cut(void **state)
{
	static struct room room;
	_cleanup_buf_ struct buf whole;

	buf_init(&whole, 64 << 20);
	assert_int_equal(io_read_file(AT_FDCWD, LIBC, &whole, 64 << 20), 0);
	room_init(&room, &(struct unwinder_config){0});
	room.fds[1] = memfd_of(whole.data, whole.len);
	assert_int_equal(ask(&room, 1, 3), 0);
	run_until(&room, 1);
	assert_true(room.got[0].rows > 1);
	assert_int_equal(ftruncate(room.fds[1], 0), 0);
	for (uint32_t page = 4; page < 30; page++)
		assert_int_equal(ask(&room, 1, page), 0);
	run_until(&room, 27);
	assert_int_equal(counters(&room).crashes + counters(&room).lies, 0);
	/* What was read ahead may still be known. */
	assert_int_equal(find(&room, 1, 25)->rows, 1);
	room_deinit(&room);
}

static void test_vdso(void **state)
{
	static struct room room;
	const uint8_t *vdso = (const uint8_t *)getauxval(AT_SYSINFO_EHDR);
	Elf64_Ehdr h;
	bool all = true;

	if (!vdso) {
		print_message("no vDSO here\n");
		return;
	}
	memcpy(&h, vdso, sizeof(h));
	room_init(&room, &(struct unwinder_config){0});
	room.fds[1] = memfd_of(vdso, h.e_shoff + (size_t)h.e_shnum * h.e_shentsize);
	assert_int_equal(ask(&room, 1, 0), 0);
	run_until(&room, 1);
	assert_true(room.got[0].rows > 5);
	assert_int_equal(unwinder_file_facts(room.u, 1)->unsupported, 0);
	/* Every byte of its functions has a rule. */
	for (size_t i = 0; i < h.e_phnum; i++) {
		Elf64_Phdr p;

		memcpy(&p, vdso + h.e_phoff + i * sizeof(p), sizeof(p));
		if (p.p_type == PT_DYNAMIC)
			continue;
		all &= p.p_offset < UNWIND_PAGE_SIZE;
	}
	assert_true(all);
	{
		CLEANUP(elf_file_closep) struct elf_file *elf = NULL;
		const struct elf_section *dynsym;
		struct err_text err;
		size_t n, found = 0;

		assert_int_equal(elf_file_open(&elf, room.fds[1], &err), 0);
		dynsym = elf_file_find_type(elf, SHT_DYNSYM, &n);
		assert_non_null(dynsym);
		for (uint64_t at = dynsym->offset;
			at + sizeof(Elf64_Sym) <= dynsym->offset + dynsym->size;
			at += sizeof(Elf64_Sym)) {
			Elf64_Sym s;

			memcpy(&s, vdso + at, sizeof(s));
			if (ELF64_ST_TYPE(s.st_info) != STT_FUNC || !s.st_size)
				continue;
			found++;
			for (uint64_t k = 0; k < s.st_size; k++)
				assert_in_range(
					rows_slot_rule(&room.last.slot, (uint32_t)(s.st_value + k))
						->cfa,
					UNWIND_CFA_SP, UNWIND_CFA_LEAF);
		}
		assert_true(found >= 3);
	}
	room_deinit(&room);
}

/* ---- what cannot be had, and comes later
 * ------------------------------------------------------------- */

static void test_a_file_that_cannot_be_opened_yet(void **state)
{
	static struct room room;

	room_init(&room, &(struct unwinder_config){.back_off_ms = 200});
	assert_int_equal(ask(&room, 1, 3), 0);
	assert_int_equal(room.n, 0);
	run_until(&room, 1);
	assert_int_equal(room.got[0].cfa, UNWIND_CFA_NONE);
	assert_non_null(strstr(unwinder_file_facts(room.u, 1)->problem, "cannot be opened"));
	/* In back-off: at once, and without another try. */
	room.opened = 0;
	assert_int_equal(ask(&room, 1, 4), 0);
	run_until(&room, 2);
	assert_int_equal(room.got[1].cfa, UNWIND_CFA_NONE);
	assert_int_equal(room.opened, 0);
	/* It comes by itself. */
	room.fds[1] = open(LIBC, O_RDONLY | O_CLOEXEC);
	run_until(&room, 4);
	assert_true(find(&room, 1, 3)->rows > 1);
	assert_true(find(&room, 1, 4)->rows > 1);
	run_for(&room, 300);
	assert_null(strstr(unwinder_file_facts(room.u, 1)->problem, "cannot be opened"));
	assert_int_equal(room.n, 4);
	room_deinit(&room);
}

static void test_forgetting(void **state)
{
	static struct room room;
	unsigned idles;

	room_init(&room, &(struct unwinder_config){.back_off_ms = 100});
	room.fds[1] = open(LIBC, O_RDONLY | O_CLOEXEC);
	room.fds[2] = open(LIBC, O_RDONLY | O_CLOEXEC);
	/* Waiting in its queue. */
	for (uint32_t i = 0; i < 10; i++) {
		assert_int_equal(ask(&room, 1, i), 0);
		assert_int_equal(ask(&room, 2, i), 0);
	}
	unwinder_forget_file(room.u, 1);
	assert_int_equal(counters(&room).pending, 10);
	run_until(&room, 10);
	for (size_t i = 0; i < room.n; i++)
		assert_int_equal(room.got[i].file, 2);
	/* Under way. */
	assert_int_equal(ask(&room, 2, 11), 0);
	unwinder_forget_file(room.u, 2);
	assert_int_equal(ask(&room, 2, 12), 0);
	run_until(&room, 11);
	assert_int_equal(room.got[10].page, 12);
	/* Refused and not told yet. */
	idles = room.idles;
	assert_int_equal(ask(&room, 3, 1), 0);
	unwinder_forget_file(room.u, 3);
	run_for(&room, 300);
	assert_int_equal(room.n, 11);
	assert_true(room.idles > idles);
	assert_null(unwinder_file_facts(room.u, 3));
	unwinder_forget_file(room.u, 4);
	assert_int_equal(counters(&room).pending, 0);
	room_deinit(&room);
}

/* ---- the child's ends
 * ---------------------------------------------------------------------------------- */

static void wait_for_child(struct room *room)
{
	run_for(room, 300);
	assert_true(unwinder_child_pid(room->u) > 0);
}

static void test_started_ahead_and_ended_when_idle(void **state)
{
	static struct room room;
	uint64_t cpu;

	room_init(&room, &(struct unwinder_config){.idle_exit_ms = 400});
	assert_true(unwinder_child_pid(room.u) > 0);
	room.fds[1] = open(LIBC, O_RDONLY | O_CLOEXEC);
	assert_int_equal(ask(&room, 1, 3), 0);
	run_until(&room, 1);
	for (int i = 0; i < 100 && unwinder_child_pid(room.u) > 0; i++)
		run_for(&room, 100);
	assert_int_equal(unwinder_child_pid(room.u), -1);
	cpu = counters(&room).cpu_us;
	assert_true(cpu > 0);
	assert_int_equal(ask(&room, 1, 4), 0);
	run_until(&room, 2);
	assert_true(room.got[1].rows > 1);
	assert_true(counters(&room).cpu_us > cpu);
	assert_int_equal(counters(&room).crashes, 0);
	assert_int_equal(counters(&room).restarts, 1);
	room_deinit(&room);
}

static void test_killed_while_idle(void **state)
{
	static struct room room;

	room_init(&room, &(struct unwinder_config){0});
	room.fds[1] = open(LIBC, O_RDONLY | O_CLOEXEC);
	wait_for_child(&room);
	kill(unwinder_child_pid(room.u), SIGKILL);
	run_for(&room, 200);
	assert_int_equal(counters(&room).crashes, 1);
	assert_int_equal(ask(&room, 1, 3), 0);
	run_until(&room, 1);
	assert_true(room.got[0].rows > 1);
	/* Killed with the question on its way. */
	kill(unwinder_child_pid(room.u), SIGSTOP);
	assert_int_equal(ask(&room, 1, 4), 0);
	kill(unwinder_child_pid(room.u), SIGKILL);
	run_until(&room, 2);
	assert_true(room.got[1].rows > 1);
	assert_int_equal(counters(&room).crashes, 2);
	room_deinit(&room);
}

static void test_stopped_child_is_replaced(void **state)
{
	static struct room room;

	room_init(&room, &(struct unwinder_config){.deadline_ms = 1000, .back_off_ms = 100});
	room.fds[1] = open(LIBC, O_RDONLY | O_CLOEXEC);
	wait_for_child(&room);
	kill(unwinder_child_pid(room.u), SIGSTOP);
	assert_int_equal(ask(&room, 1, 3), 0);
	run_until(&room, 1);
	assert_int_equal(room.got[0].cfa, UNWIND_CFA_UNSUPPORTED);
	assert_int_equal(counters(&room).timeouts, 1);
	assert_non_null(strstr(unwinder_file_facts(room.u, 1)->problem, "did not answer"));
	/* It was not the file's fault: rows come after all. */
	run_until(&room, 2);
	assert_true(find(&room, 1, 3)->rows > 1);
	room_deinit(&room);
}

static void test_no_child_to_be_had(void **state)
{
	static struct room room;

	sandbox_set_program("/nonexistent/agentd");
	room_init(&room, &(struct unwinder_config){.back_off_ms = 300});
	room.fds[1] = open(LIBC, O_RDONLY | O_CLOEXEC);
	assert_int_equal(ask(&room, 1, 3), 0);
	run_until(&room, 1);
	assert_int_equal(room.got[0].cfa, UNWIND_CFA_UNSUPPORTED);
	sandbox_set_program("/proc/self/exe");
	run_until(&room, 2);
	assert_true(find(&room, 1, 3)->rows > 1);
	room_deinit(&room);
}

/* ---- a liar
 * -------------------------------------------------------------------------------------------- */

enum lie {
	LIE_EXIT = 1,
	LIE_EXIT_ONCE, /* writes into its file that it did */
	LIE_HANG,
	LIE_CLOSE,
	LIE_GARBAGE,
	LIE_SHORT,
	LIE_TOO_LONG,
	LIE_BAD_SLOT,
	LIE_WRONG_INDEX,
	LIE_WRONG_PART,
	LIE_SMALL_PARTS,
	LIE_TWICE,
	LIE_DONE_TOO_MUCH,
	LIE_DONE_NOTHING,
	LIE_DONE_HALF_A_SLOT,
	LIE_UNKNOWN_FILE,
	LIE_UNKNOWN_FLAG,
	LIE_WRONG_REQUEST,
	LIE_WRONG_VERSION,
	LIE_READY_AGAIN,
	LIE_TEXT,
	LIE_TEXT_WITHOUT_END,
	LIE_DESCRIPTORS,
	LIES
};

static struct rows_header liar_header(uint64_t request, unsigned message, size_t size)
{
	return (struct rows_header){ROWS_PROTOCOL, (uint16_t)message, (uint32_t)size, request};
}

static void liar_send(const void *data, size_t len)
{
	(void)fdpass_send(SANDBOX_FD, data, len, NULL, 0);
}

static union {
	struct rows_slot_message m;
	uint8_t bytes[80000];
} liar_out;

/* A page of one row that says END. */
static size_t liar_slot(uint64_t request, uint32_t index)
{
	static union {
		struct rows_slot slot;
		uint8_t bytes[256];
	} s;
	size_t size = rows_slot_empty(&s.slot, UNWIND_CFA_END), len = sizeof(liar_out.m) + size;

	liar_out.m =
		(struct rows_slot_message){.header = liar_header(request, ROWS_MESSAGE_SLOT, len),
			.index = index,
			.total = (uint32_t)size};
	memcpy(liar_out.m.bytes, s.bytes, size);
	return len;
}

/* Whether it goes on as if nothing had been. */
static bool liar_lie(enum lie lie, uint64_t request, uint32_t index, int fd)
{
	struct rows_slot_message *m = &liar_out.m;
	struct rows_done_message done = {
		.header = liar_header(request, ROWS_MESSAGE_DONE, sizeof(done)), .n_done = index};
	struct rows_ready ready = {
		.header = liar_header(request, ROWS_MESSAGE_READY, sizeof(ready))};
	size_t len = liar_slot(request, index);
	int fds[4] = {1, 1, 2, 2};
	char byte = 0;

	switch (lie) {
	case LIE_EXIT:
		_exit(3);
	case LIE_EXIT_ONCE:
		if (pread(fd, &byte, 1, 0) == 1 && byte == 'x')
			break;
		if (pwrite(fd, "x", 1, 0) != 1)
			break;
		_exit(3);
	case LIE_HANG:
		pause();
		break;
	case LIE_CLOSE:
		close(SANDBOX_FD);
		pause();
		break;
	case LIE_GARBAGE:
		memset(&liar_out, 0xa5, 4096);
		liar_send(&liar_out, 4096);
		break;
	case LIE_SHORT:
		liar_send(&liar_out, 7);
		break;
	case LIE_TOO_LONG:
		(void)!send(SANDBOX_FD, &liar_out, 70000, MSG_NOSIGNAL);
		break;
	case LIE_BAD_SLOT:
		m->bytes[offsetof(struct rows_slot, n_rules)]++;
		liar_send(m, len);
		break;
	case LIE_WRONG_INDEX:
		m->index++;
		liar_send(m, len);
		break;
	case LIE_WRONG_PART:
		m->at = 16;
		m->header.size -= 16;
		liar_send(m, m->header.size);
		break;
	case LIE_SMALL_PARTS:
		m->header.size = sizeof(*m) + 1;
		liar_send(m, m->header.size);
		break;
	case LIE_TWICE:
		liar_send(m, len);
		break; /* and once more as an honest one */
	case LIE_DONE_TOO_MUCH:
		done.n_done++;
		liar_send(&done, sizeof(done));
		break;
	case LIE_DONE_NOTHING:
		done.n_done = 0;
		liar_send(&done, sizeof(done));
		break;
	case LIE_DONE_HALF_A_SLOT:
		m->total = 90000;
		m->header.size = ROWS_MESSAGE_MAX;
		liar_send(m, ROWS_MESSAGE_MAX);
		liar_send(&done, sizeof(done));
		break;
	case LIE_UNKNOWN_FILE:
		done.flags = ROWS_DONE_UNKNOWN_FILE;
		liar_send(&done, sizeof(done));
		return false;
	case LIE_UNKNOWN_FLAG:
		done.flags = 2;
		liar_send(&done, sizeof(done));
		break;
	case LIE_WRONG_REQUEST:
		m->header.request++;
		liar_send(m, len);
		break;
	case LIE_WRONG_VERSION:
		m->header.version++;
		liar_send(m, len);
		break;
	case LIE_READY_AGAIN:
		liar_send(&ready, sizeof(ready));
		break;
	case LIE_TEXT:
	case LIE_TEXT_WITHOUT_END:
		liar_send(m, len);
		done.n_done++;
		memset(done.problem, lie == LIE_TEXT ? 0 : 'x', sizeof(done.problem));
		if (lie == LIE_TEXT)
			snprintf(done.problem, sizeof(done.problem), "a\033[31mb");
		liar_send(&done, sizeof(done));
		pause();
		break;
	case LIE_DESCRIPTORS:
		(void)fdpass_send(SANDBOX_FD, m, len, fds, 4);
		break;
	default:
		break;
	}
	return true;
}

static _Noreturn void liar_main(void)
{
	struct rows_ready ready = {.header = liar_header(0, ROWS_MESSAGE_READY, sizeof(ready))};
	static struct rows_request q;
	int held[FILES];

	memset(held, -1, sizeof(held));
	liar_send(&ready, sizeof(ready));
	for (;;) {
		size_t n = 1, len;
		int fd = -1;
		struct rows_done_message done;
		uint32_t i;

		if (fdpass_recv(SANDBOX_FD, &q, sizeof(q), &fd, &n) <= 0)
			_exit(0);
		if (q.file >= FILES)
			_exit(4);
		if (n) {
			closep(&held[q.file]);
			held[q.file] = fd;
		}
		for (i = 0; i < q.n; i++) {
			if (q.pages[i] < LIES &&
				!liar_lie((enum lie)q.pages[i], q.header.request, i, held[q.file]))
				break;
			len = liar_slot(q.header.request, i);
			liar_send(&liar_out, len);
		}
		if (i < q.n)
			continue;
		done = (struct rows_done_message){
			.header = liar_header(q.header.request, ROWS_MESSAGE_DONE, sizeof(done)),
			.n_done = q.n};
		liar_send(&done, sizeof(done));
	}
}

static char liar_path[128];

static void liar_room(struct room *room, unsigned back_off_ms)
{
	sandbox_set_program(liar_path);
	room_init(room, &(struct unwinder_config){.deadline_ms = 1000, .back_off_ms = back_off_ms});
	for (uint32_t f = 1; f < 10; f++)
		room->fds[f] = memfd_of("-", 1);
	run_for(room, 20);
}

static void test_lies_cost_their_page(void **state)
{
	for (int lie = 1; lie < LIES; lie++) {
		static struct room room;
		struct unwinder_counters c;

		liar_room(&room, 60000);
		/* One page before it, others behind it, and another file. */
		assert_int_equal(ask(&room, 1, GOOD_PAGE), 0);
		run_until(&room, 1);
		assert_int_equal(ask(&room, 1, (uint32_t)lie), 0);
		assert_int_equal(ask(&room, 2, GOOD_PAGE), 0);
		run_until(&room, 3);
		run_for(&room, 30); /* the lie may come behind the page */
		assert_int_equal(find(&room, 2, GOOD_PAGE)->cfa, UNWIND_CFA_END);
		c = counters(&room);
		switch (lie) {
		case LIE_EXIT_ONCE:
			assert_int_equal(find(&room, 1, LIE_EXIT_ONCE)->cfa, UNWIND_CFA_END);
			assert_int_equal(c.crashes, 1);
			break;
		case LIE_EXIT:
			assert_int_equal(find(&room, 1, LIE_EXIT)->cfa, UNWIND_CFA_UNSUPPORTED);
			assert_int_equal(c.crashes, 2);
			break;
		case LIE_HANG:
		case LIE_CLOSE:
			assert_int_equal(
				find(&room, 1, (uint32_t)lie)->cfa, UNWIND_CFA_UNSUPPORTED);
			assert_int_equal(c.timeouts, 1);
			break;
		case LIE_TWICE:
		case LIE_TEXT:
		case LIE_TEXT_WITHOUT_END:
			/* Its page came whole. */
			assert_int_equal(find(&room, 1, (uint32_t)lie)->cfa, UNWIND_CFA_END);
			assert_int_equal(c.lies, 1);
			break;
		default:
			if (c.lies != 1)
				fail_msg("lie %d was not seen", lie);
			assert_int_equal(
				find(&room, 1, (uint32_t)lie)->cfa, UNWIND_CFA_UNSUPPORTED);
		}
		assert_int_equal(c.pending, 0);
		assert_int_equal(room.n, 3);
		room_deinit(&room);
	}
}

static void test_the_guilty_page_is_tried_last(void **state)
{
	static struct room room;

	liar_room(&room, 300);
	/* Before and behind it. */
	assert_int_equal(ask(&room, 1, GOOD_PAGE), 0);
	assert_int_equal(ask(&room, 1, LIE_HANG), 0);
	for (uint32_t i = 1; i < 6; i++)
		assert_int_equal(ask(&room, 1, GOOD_PAGE + i), 0);
	run_until(&room, 7);
	for (uint32_t i = 1; i < 6; i++)
		assert_int_equal(find(&room, 1, GOOD_PAGE + i)->cfa, UNWIND_CFA_UNSUPPORTED);
	/* In back-off. */
	assert_int_equal(ask(&room, 1, GOOD_PAGE + 6), 0);
	run_until(&room, 8);
	assert_int_equal(find(&room, 1, GOOD_PAGE + 6)->cfa, UNWIND_CFA_UNSUPPORTED);
	run_until(&room, 15);
	assert_int_equal(find(&room, 1, LIE_HANG)->cfa, UNWIND_CFA_UNSUPPORTED);
	for (uint32_t i = 1; i <= 6; i++)
		assert_int_equal(find(&room, 1, GOOD_PAGE + i)->cfa, UNWIND_CFA_END);
	assert_int_equal(counters(&room).timeouts, 2);
	room_deinit(&room);
}

static void test_back_off_grows(void **state)
{
	static struct room room;
	uint64_t start;

	liar_room(&room, 100);
	start = clock_monotonic_ns();
	assert_int_equal(ask(&room, 1, LIE_GARBAGE), 0);
	/* 100, 200, 400 ms between the four tries at least. */
	run_until(&room, 4);
	assert_true(clock_monotonic_ns() - start >= 700 * NSEC_PER_MSEC);
	assert_int_equal(counters(&room).lies, 4);
	room_deinit(&room);
}

static int teardown(void **state)
{
	sandbox_set_program("/proc/self/exe");
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages_are_what_the_decoder_says),
		cmocka_unit_test(test_a_page_is_asked_for_once),
		cmocka_unit_test(test_callbacks_may_ask),
		cmocka_unit_test(test_waiting_without_the_loop),
		cmocka_unit_test(test_more_files_than_the_child_holds),
		cmocka_unit_test(test_the_largest_slot),
		cmocka_unit_test(test_files_without_rows),
		cmocka_unit_test(test_a_file_that_is_cut),
		cmocka_unit_test(test_vdso),
		cmocka_unit_test(test_a_file_that_cannot_be_opened_yet),
		cmocka_unit_test(test_forgetting),
		cmocka_unit_test(test_started_ahead_and_ended_when_idle),
		cmocka_unit_test(test_killed_while_idle),
		cmocka_unit_test(test_stopped_child_is_replaced),
		cmocka_unit_test_teardown(test_no_child_to_be_had, teardown),
		cmocka_unit_test_teardown(test_lies_cost_their_page, teardown),
		cmocka_unit_test_teardown(test_the_guilty_page_is_tried_last, teardown),
		cmocka_unit_test_teardown(test_back_off_grows, teardown),
	};
	char self[256];
	ssize_t len;
	int r;

	if (argc >= 3 && streq(argv[1], "--role")) {
		const char *name = (const char *)getauxval(AT_EXECFN);

		if (name && strstr(name, "odi-liar"))
			liar_main();
		return unwind_role_main() < 0 ? 1 : 0;
	}
	log_init("client_test", getenv("LOUD") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
	len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (len < 0)
		return 1;
	self[len] = '\0';
	snprintf(liar_path, sizeof(liar_path), "/tmp/odi-liar-%d", getpid());
	if (symlink(self, liar_path) < 0)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(liar_path);
	return r;
}
