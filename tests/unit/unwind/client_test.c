/* SPDX-License-Identifier: Apache-2.0 */

/* The client with the real child in its real sandbox: rows of real files, files made to hurt it, and a
 * child that is killed, stopped, or cannot be had. One that lies: liar_test.c. */

#include "tests/unit/unwind/room.h"
#include <signal.h>
#include <sys/auxv.h>
#include "tests/unit/unwind/fixture.h"
#include "agentd/elf/elf_file.h"

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
	for (uint32_t f = 1; f <= 9; f++) {
		/* Facts come behind the pages. */
		RUN_UNTIL(&room, unwinder_file_facts(room.u, f));
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

	room_init(&room, &(struct unwinder_config){.back_off_ms = 1500});
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
	RUN_UNTIL(&room, counters(&room).crashes == 1);
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
	/* It was not the file's fault: rows come after all, also from one that waits for a CPU. */
	RUN_UNTIL(&room, find(&room, 1, 3)->rows > 1);
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
	};

	if (argc >= 3 && streq(argv[1], "--role"))
		return unwind_role_main() < 0 ? 1 : 0;
	log_init("client_test", getenv("LOUD") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
