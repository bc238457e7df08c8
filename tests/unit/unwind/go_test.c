/* SPDX-License-Identifier: Apache-2.0 */

/* Go's table of functions in the layouts of 1.16, 1.18 and 1.20, written here by the byte: rows
 * without any call frame information. Programs that Go built are compared with their DWARF in
 * differential_test.c. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/unwind/fixture.h"
#include "agentd/elf/elf_file.h"
#include "agentd/unwind/unwind.h"

#define FUNCTION 128 /* bytes of text of each */

enum { FLAG_TOP = 1, FLAG_SP_WRITE = 2, FLAG_ASM = 4 };

struct step {
	int depth;
	unsigned pcs;
};

struct function {
	const char *name;
	unsigned flags;
	const struct step *steps; /* ends with pcs 0 */
};

static void put_steps(struct bytes *b, const struct step *steps, unsigned quantum)
{
	int value = -1;

	for (; steps->pcs; steps++) {
		int delta = steps->depth - value;

		put_uleb(b, delta < 0 ? ((uint64_t)(-delta - 1) << 1) | 1 : (uint64_t)delta << 1);
		put_uleb(b, steps->pcs / quantum);
		value = steps->depth;
	}
	put8(b, 0);
}

static void put_word(struct bytes *b, unsigned size, uint64_t v)
{
	if (size == 8)
		put64(b, v);
	else
		put32(b, v);
}

static void pad_to(struct bytes *b, size_t align)
{
	while (b->len % align)
		put8(b, 0);
}

/* layout: 116, 118, 120. text: what the header says, where it does. */
static void make_table(struct bytes *b, int layout, const struct function *f, size_t n,
	unsigned quantum, uint64_t text)
{
	struct bytes names = {0}, tab = {0}, functions = {0};
	uint32_t name[16], pcsp[16];
	unsigned size = layout == 116 ? 8 : 4;
	size_t header = layout == 116 ? 64 : 72;
	uint64_t names_at = header, tab_at, functions_at;

	put8(&tab, 0); /* 0: none */
	for (size_t i = 0; i < n; i++) {
		name[i] = (uint32_t)bytes_put(&names, f[i].name, strlen(f[i].name) + 1);
		pcsp[i] = f[i].steps ? (uint32_t)tab.len : 0;
		if (f[i].steps)
			put_steps(&tab, f[i].steps, quantum);
	}
	pad_to(&names, 8);
	pad_to(&tab, 8);
	tab_at = names_at + names.len;
	functions_at = tab_at + tab.len;
	put32(b, layout == 116 ? 0xfffffffa : layout == 118 ? 0xfffffff0 : 0xfffffff1);
	put16(b, 0);
	put8(b, quantum);
	put8(b, 8);
	put64(b, n);
	put64(b, 0);
	if (layout != 116)
		put64(b, text);
	put64(b, names_at);
	put64(b, 0);
	put64(b, 0);
	put64(b, tab_at);
	put64(b, functions_at);
	bytes_put(b, names.data, names.len);
	bytes_put(b, tab.data, tab.len);
	for (size_t i = 0; i < n; i++) {
		uint64_t pc = i * FUNCTION + (layout == 116 ? FIXTURE_PC : 0);

		put_word(b, size, pc);
		put_word(b, size, 2 * size * n + size + functions.len);
		put_word(&functions, size, pc);
		put32(&functions, name[i]);
		put32(&functions, 0);
		put32(&functions, 0);
		put32(&functions, pcsp[i]);
		for (int k = 0; k < 4; k++)
			put32(&functions, 0);
		if (layout == 120)
			put32(&functions, 1);
		put8(&functions, 0);
		put8(&functions, layout == 116 ? 0 : f[i].flags);
		put16(&functions, 0);
	}
	put_word(b, size, n * FUNCTION + (layout == 116 ? FIXTURE_PC : 0));
	bytes_put(b, functions.data, functions.len);
	bytes_deinit(&names);
	bytes_deinit(&tab);
	bytes_deinit(&functions);
}

static uint8_t text[16 * FUNCTION];

struct opened {
	int fd;
	struct elf_file *elf;
	struct unwind_file *file;
	struct unwind_rules rules;
	struct unwind_page page;
};

static void open_table(struct opened *o, const struct bytes *table, uint16_t machine)
{
	struct fixture f = {.machine = machine,
		.sections = {{".text", text, sizeof(text), SHF_ALLOC | SHF_EXECINSTR, 0},
			{".gopclntab", table->data, table->len, SHF_ALLOC, 0}}};
	struct err_text err;

	o->fd = fixture_fd(&f);
	assert_int_equal(elf_file_open(&o->elf, o->fd, &err), 0);
	assert_int_equal(unwind_file_open(&o->file, o->elf, &err), 0);
	assert_int_equal(unwind_rules_init(&o->rules), 0);
	assert_int_equal(unwind_file_page(o->file, 0, &o->rules, &o->page), 0);
}

static void close_table(struct opened *o)
{
	unwind_rules_deinit(&o->rules);
	unwind_file_close(o->file);
	elf_file_close(o->elf);
	close(o->fd);
}

static const struct unwind_rule *at(const struct opened *o, unsigned function, unsigned pc)
{
	return &o->rules.rules[unwind_page_find(&o->page, FIXTURE_TEXT + function * FUNCTION + pc)];
}

static void expect_sp(
	const struct opened *o, unsigned function, unsigned pc, int cfa, bool fp_saved)
{
	const struct unwind_rule *rule = at(o, function, pc);

	if (rule->cfa != UNWIND_CFA_SP || rule->cfa_offset != cfa || rule->ra_offset != -1 ||
		!(rule->flags & UNWIND_FP_SAVED) == fp_saved || (fp_saved && rule->fp_offset != -2))
		fail_msg("function %u + %u: cfa %u + %d, flags %#x, ra %d, fp %d", function, pc,
			rule->cfa, rule->cfa_offset, rule->flags, rule->ra_offset, rule->fp_offset);
}

/* push %rbp at 9; sub at 13 */
static const struct step framed[] = {{0, 10}, {8, 4}, {104, 80}, {8, 1}, {0, 9}, {0, 0}};
static const struct step flat[] = {{0, 40}, {0, 0}};
/* PUSHFQ and the like: a frame that is none */
static const struct step pushes[] = {{0, 1}, {8, 7}, {64, 60}, {0, 0}};

static const struct function functions[] = {
	{"main.framed", 0, framed},
	{"main.leaf", FLAG_ASM, flat},
	{"runtime.goexit", FLAG_TOP | FLAG_ASM, flat},
	{"runtime.systemstack", FLAG_SP_WRITE | FLAG_ASM, framed},
	{"runtime.mcall", FLAG_SP_WRITE | FLAG_ASM, framed},
	{"crosscall2", FLAG_ASM, pushes},
	{"runtime.sigreturn__sigaction", FLAG_ASM, flat},
	{"runtime.nothing", FLAG_ASM, NULL},
	{"main.last", 0, framed},
};

static void fill_text(void)
{
	static const uint8_t trampoline[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05};

	memset(text, 0x41, sizeof(text));
	for (unsigned i = 0; i < ARRAY_SIZE(functions); i++) {
		/* Between its code and the next function: int3. */
		memset(text + i * FUNCTION + 104, 0xcc, FUNCTION - 104);
		if (functions[i].steps == framed)
			text[i * FUNCTION + 9] = 0x55;
		if (functions[i].steps == pushes)
			text[i * FUNCTION] = 0x9c;
	}
	memcpy(text + 6 * FUNCTION, trampoline, sizeof(trampoline));
}

static void test_layout(void **state)
{
	int layout = (int)(intptr_t)*state;
	struct bytes table = {0};
	struct opened o = {0};
	const struct unwind_rule *rule;

	fill_text();
	make_table(&table, layout, functions, ARRAY_SIZE(functions), 1,
		layout == 116 ? 0 : FIXTURE_PC);
	open_table(&o, &table, 0);
	assert_int_equal(unwind_file_sources(o.file), UNWIND_SOURCE_GO);
	for (unsigned f = 0; f <= 8; f += 8) {
		expect_sp(&o, f, 0, 8, false);
		expect_sp(&o, f, 9, 8, false);
		expect_sp(&o, f, 10, 16, true);
		expect_sp(&o, f, 14, 112, true);
		expect_sp(&o, f, 93, 112, true);
		expect_sp(&o, f, 94, 16, true);
		expect_sp(&o, f, 95, 8, false);
	}
	expect_sp(&o, 0, 127, 8, false); /* padding up to the next function */
	expect_sp(&o, 1, 0, 8, false);
	expect_sp(&o, 1, 39, 8, false);
	/* Code behind the end of its steps is not described. */
	assert_int_equal(at(&o, 1, 41)->cfa, UNWIND_CFA_NONE);
	assert_int_equal(at(&o, 2, 0)->cfa, UNWIND_CFA_END);
	/* systemstack: by sp up to and with mov %rsp, %rbp, then by the frame pointer that
	 * survives the switch */
	expect_sp(&o, 3, 9, 8, false);
	expect_sp(&o, 3, 12, 16, true);
	rule = at(&o, 3, 13);
	assert_int_equal(rule->cfa, UNWIND_CFA_FP);
	assert_int_equal(rule->cfa_offset, 16);
	assert_int_equal(rule->flags, UNWIND_FP_SAVED | UNWIND_MOVES | UNWIND_APPROXIMATE);
	assert_ptr_equal(rule, at(&o, 3, 60));
	expect_sp(&o, 3, 95, 8, false);
	assert_int_equal(at(&o, 4, 0)->cfa, UNWIND_CFA_SWITCH);
	assert_int_equal(at(&o, 4, 50)->cfa, UNWIND_CFA_SWITCH);
	/* No frame pointer where the code saved none. */
	expect_sp(&o, 5, 8, 72, false);
	expect_sp(&o, 5, 60, 72, false);
	assert_true(at(&o, 6, 0)->flags & UNWIND_SIGNAL);
	assert_true(at(&o, 5, 127)->flags & UNWIND_SIGNAL); /* a byte early */
	assert_false(at(&o, 5, 126)->flags & UNWIND_SIGNAL);
	assert_int_equal(at(&o, 7, 10)->cfa, UNWIND_CFA_NONE);
	assert_int_equal(at(&o, 9, 0)->cfa, UNWIND_CFA_NONE);
	close_table(&o);
	bytes_deinit(&table);
}

/* 1.26 says nothing in the header: the section .text begins with the first function. */
static void test_text_elsewhere(void **state)
{
	struct bytes table = {0};
	struct opened o = {0};

	fill_text();
	make_table(&table, 120, functions, ARRAY_SIZE(functions), 1, 0);
	open_table(&o, &table, 0);
	expect_sp(&o, 0, 14, 112, true);
	expect_sp(&o, 8, 14, 112, true);
	close_table(&o);
	bytes_deinit(&table);
}

/* Takes the sections away, as sstrip does: what is loaded stays, in two segments. */
static void drop_sections(int fd, const struct bytes *table, uint64_t entry)
{
	uint64_t table_at = (FIXTURE_TEXT + sizeof(text) + 15) & ~15ULL;
	Elf64_Phdr p[2] = {{.p_type = PT_LOAD,
				   .p_flags = PF_R | PF_X,
				   .p_vaddr = FIXTURE_BASE,
				   .p_filesz = FIXTURE_TEXT + sizeof(text),
				   .p_memsz = FIXTURE_TEXT + sizeof(text)},
		{.p_type = PT_LOAD,
			.p_flags = PF_R,
			.p_offset = table_at,
			.p_vaddr = FIXTURE_BASE + table_at,
			.p_filesz = table->len,
			.p_memsz = table->len}};
	Elf64_Ehdr h;

	assert_int_equal(pread(fd, &h, sizeof(h), 0), sizeof(h));
	h.e_shoff = 0;
	h.e_shnum = h.e_shstrndx = 0;
	h.e_phnum = 2;
	h.e_entry = entry;
	assert_int_equal(pwrite(fd, &h, sizeof(h), 0), sizeof(h));
	assert_int_equal(pwrite(fd, p, sizeof(p), sizeof(h)), sizeof(p));
	assert_int_equal(ftruncate(fd, (off_t)(table_at + table->len)), 0);
}

/* No section says where the table is, and (since 1.26) nothing but the entry point where the text
 * begins. */
static void test_without_sections(void **state)
{
	static const struct function list[] = {{"main.framed", 0, framed},
		{"_rt0_amd64", FLAG_ASM, flat}, {"_rt0_amd64_linux", FLAG_ASM, flat},
		{"main.last", 0, framed}};
	static const struct {
		int layout;
		uint64_t text, entry;
		bool found;
	} tries[] = {{116, 0, 0, true}, {118, FIXTURE_PC, 0, true}, {120, FIXTURE_PC, 0, true},
		{120, 0, FIXTURE_PC + 2 * FUNCTION, true},
		/* an entry point that no text could begin before */
		{120, 0, FUNCTION, false}};

	fill_text();
	for (size_t i = 0; i < ARRAY_SIZE(tries); i++) {
		struct bytes table = {0};
		struct opened o = {0};
		struct err_text err;
		struct fixture f = {
			.sections = {{".text", text, sizeof(text), SHF_ALLOC | SHF_EXECINSTR, 0},
				{".gopclntab", NULL, 0, SHF_ALLOC, 0}}};

		make_table(&table, tries[i].layout, list, ARRAY_SIZE(list), 1, tries[i].text);
		f.sections[1].data = table.data;
		f.sections[1].len = table.len;
		o.fd = fixture_fd(&f);
		drop_sections(o.fd, &table, tries[i].entry);
		assert_int_equal(elf_file_open(&o.elf, o.fd, &err), 0);
		assert_int_equal(elf_file_sections(o.elf), 0);
		assert_int_equal(unwind_file_open(&o.file, o.elf, &err), 0);
		assert_int_equal(
			unwind_file_sources(o.file), tries[i].found ? UNWIND_SOURCE_GO : 0);
		assert_int_equal(unwind_rules_init(&o.rules), 0);
		assert_int_equal(unwind_file_page(o.file, 0, &o.rules, &o.page), 0);
		if (tries[i].found) {
			expect_sp(&o, 0, 14, 112, true);
			expect_sp(&o, 2, 0, 8, false);
			expect_sp(&o, 3, 14, 112, true);
		}
		close_table(&o);
		bytes_deinit(&table);
	}
}

static void test_arm64(void **state)
{
	static const struct step steps[] = {{0, 8}, {48, 80}, {0, 8}, {0, 0}};
	static const struct function list[] = {{"main.framed", 0, steps},
		{"runtime.systemstack", FLAG_SP_WRITE | FLAG_ASM, steps}};
	struct bytes table = {0};
	struct opened o = {0};
	const struct unwind_rule *rule;

	memset(text, 0x41, sizeof(text));
	make_table(&table, 120, list, ARRAY_SIZE(list), 4, FIXTURE_PC);
	open_table(&o, &table, EM_AARCH64);
	rule = at(&o, 0, 4);
	assert_int_equal(rule->cfa, UNWIND_CFA_SP);
	assert_int_equal(rule->cfa_offset, 0);
	assert_int_equal(rule->flags, UNWIND_RA_AUX);
	/* lr at sp, fp under it */
	rule = at(&o, 0, 8);
	assert_int_equal(rule->cfa_offset, 48);
	assert_int_equal(rule->ra_offset * UNWIND_SLOT, -48);
	assert_int_equal(rule->fp_offset * UNWIND_SLOT, -56);
	assert_int_equal(at(&o, 1, 40)->cfa, UNWIND_CFA_SWITCH);
	close_table(&o);
	bytes_deinit(&table);
}

/* Cut at every length and changed at every byte: it ends, and rows are rows. */
static void test_every_damage(void **state)
{
	struct bytes table = {0};

	fill_text();
	make_table(&table, 120, functions, ARRAY_SIZE(functions), 1, FIXTURE_PC);
	for (size_t i = 8; i < table.len; i++) {
		for (int change = 0; change < 3; change++) {
			struct bytes damaged = {0};
			struct opened o = {0};

			bytes_put(&damaged, table.data, change == 0 ? i : table.len);
			if (change)
				damaged.data[i] ^= change == 1 ? 0xff : 0x01;
			open_table(&o, &damaged, 0);
			for (uint32_t k = 1; k < o.page.n; k++) {
				assert_true(o.page.pc[k] > o.page.pc[k - 1]);
				assert_true(o.page.rule[k] < o.rules.n);
			}
			close_table(&o);
			bytes_deinit(&damaged);
		}
	}
	bytes_deinit(&table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(test_layout, (void *)116),
		cmocka_unit_test_prestate(test_layout, (void *)118),
		cmocka_unit_test_prestate(test_layout, (void *)120),
		cmocka_unit_test(test_text_elsewhere),
		cmocka_unit_test(test_without_sections),
		cmocka_unit_test(test_arm64),
		cmocka_unit_test(test_every_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
