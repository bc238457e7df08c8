/* SPDX-License-Identifier: Apache-2.0 */

/* Rows out of descriptions that were written here byte by byte: every instruction, encoding and
 * shape, and what hostile files would do. Real files are compared in differential_test.c. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/unwind/fixture.h"
#include "tests/unit/unwind/model.h"
#include "agentd/base/compress.h"
#include "agentd/elf/elf_file.h"
#include "agentd/unwind/dwarf.h"

/* ---- a file under test
 * ---------------------------------------------------------------------------------- */

struct under_test {
	int fd;
	struct elf_file *elf;
	struct unwind_file *file;
	struct unwind_rules rules;
	struct unwind_page page;
};

static void open_fixture(struct under_test *t, const struct fixture *f)
{
	struct err_text err = {0};

	t->fd = fixture_fd(f);
	assert_int_equal(elf_file_open(&t->elf, t->fd, &err), 0);
	assert_int_equal(unwind_file_open(&t->file, t->elf, &err), 0);
	assert_int_equal(unwind_rules_init(&t->rules), 0);
	assert_int_equal(unwind_file_page(t->file, 0, &t->rules, &t->page), 0);
}

static void close_fixture(struct under_test *t)
{
	unwind_rules_deinit(&t->rules);
	unwind_file_close(t->file);
	elf_file_close(t->elf);
	close(t->fd);
}

/* The rule at this many bytes into .text. */
static const struct unwind_rule *at(struct under_test *t, uint64_t offset)
{
	offset += FIXTURE_TEXT;
	if (offset >> UNWIND_PAGE_SHIFT != t->page.page)
		assert_int_equal(unwind_file_page(t->file, (uint32_t)(offset >> UNWIND_PAGE_SHIFT),
					 &t->rules, &t->page),
			0);
	return &t->rules.rules[unwind_page_find(&t->page, offset)];
}

static uint64_t problems(const struct under_test *t, int kind)
{
	return unwind_file_counts(t->file)->problems[kind];
}

static uint64_t all_problems(const struct under_test *t)
{
	uint64_t sum = 0;

	for (int i = 0; i < UNWIND_PROBLEM_KINDS; i++)
		sum += problems(t, i);
	return sum;
}

/* ---- call frame information by the byte
 * ----------------------------------------------------------------- */

struct section {
	struct bytes b;
	bool debug;
	size_t cie, length_at;
};

static void begin(struct section *s, bool wide)
{
	if (wide)
		put32(&s->b, UINT32_MAX);
	s->length_at = s->b.len;
	if (wide)
		put64(&s->b, 0);
	else
		put32(&s->b, 0);
}

static void finish(struct section *s, bool wide)
{
	uint64_t len;

	while (s->b.len % 8)
		put8(&s->b, CFA_NOP);
	len = s->b.len - s->length_at - (wide ? 8 : 4);
	memcpy(s->b.data + s->length_at, &len, wide ? 8 : 4);
}

struct cie_words {
	unsigned version;
	const char *augmentation;
	unsigned encoding; /* of addresses, behind 'R' */
	unsigned ra;       /* 0: 16 */
	bool wide;
	bool bare; /* without the usual first row */
};

static void put_cie(struct section *s, struct cie_words w)
{
	s->cie = s->b.len;
	begin(s, w.wide);
	if (s->debug && w.wide)
		put64(&s->b, UINT64_MAX);
	else
		put32(&s->b, s->debug ? UINT32_MAX : 0);
	put8(&s->b, w.version);
	bytes_put(&s->b, w.augmentation, strlen(w.augmentation) + 1);
	if (w.version == 4) {
		put8(&s->b, 8);
		put8(&s->b, 0);
	}
	if (streq(w.augmentation, "eh"))
		put64(&s->b, 0x1234);
	put_uleb(&s->b, 1);
	put_sleb(&s->b, -8);
	put_uleb(&s->b, w.ra ? w.ra : 16);
	if (w.augmentation[0] == 'z') {
		size_t at = s->b.len;

		put8(&s->b, 0);
		for (const char *l = w.augmentation + 1; *l; l++) {
			if (*l == 'R')
				put8(&s->b, w.encoding);
			else if (*l == 'L')
				put8(&s->b, PE_PCREL | PE_SDATA4);
			else if (*l == 'P') {
				put8(&s->b, PE_PCREL | PE_SDATA4);
				put32(&s->b, 0x55);
			}
		}
		s->b.data[at] = (uint8_t)(s->b.len - at - 1);
	}
	if (!w.bare) {
		put8(&s->b, CFA_DEF);
		put_uleb(&s->b, 7);
		put_uleb(&s->b, 8);
		put8(&s->b, CFA_OFFSET | 16);
		put_uleb(&s->b, 1);
	}
	finish(s, w.wide);
}

/* The head of a function's entry; offset: where the section will lie. */
static void begin_fde(
	struct section *s, struct cie_words w, uint64_t offset, uint64_t start, uint64_t len)
{
	uint64_t field;

	begin(s, w.wide);
	if (s->debug && w.wide)
		put64(&s->b, s->cie);
	else
		put32(&s->b, s->debug ? s->cie : s->b.len - s->cie);
	field = FIXTURE_BASE + offset + s->b.len;
	if ((w.encoding & PE_APPLICATION) == PE_PCREL)
		start -= field;
	switch (w.encoding & PE_FORMAT) {
	case PE_UDATA2:
		put16(&s->b, (unsigned)start);
		put16(&s->b, (unsigned)len);
		break;
	case PE_UDATA4:
	case PE_SDATA4:
		put32(&s->b, start);
		put32(&s->b, len);
		break;
	case PE_ULEB:
		put_uleb(&s->b, start);
		put_uleb(&s->b, len);
		break;
	case PE_SLEB:
		put_sleb(&s->b, (int64_t)start);
		put_sleb(&s->b, (int64_t)len);
		break;
	default:
		put64(&s->b, start);
		put64(&s->b, len);
	}
	if (w.augmentation[0] == 'z')
		put_uleb(&s->b, 0);
}

static const struct cie_words usual = {
	.version = 1, .augmentation = "zR", .encoding = PE_PCREL | PE_SDATA4};

static uint8_t text[4096];

/* A file whose .eh_frame (or .debug_frame) is s; text of 4096 bytes of something that is no
 * padding. */
static struct fixture file_of(const struct section *s)
{
	memset(text, 0x41, sizeof(text));
	return (struct fixture){.sections = {
					{".text", text, sizeof(text), SHF_ALLOC | SHF_EXECINSTR, 0},
					{s->debug ? ".debug_frame" : ".eh_frame", s->b.data,
						s->b.len, s->debug ? 0 : SHF_ALLOC, 0},
				}};
}

#define SECTION_OFFSET (FIXTURE_TEXT + sizeof(text))

/* One function of 256 bytes at .text + 16, described by these instructions. */
static void open_code(
	struct under_test *t, struct section *s, struct cie_words w, const void *code, size_t len)
{
	struct fixture f;

	put_cie(s, w);
	begin_fde(s, w, SECTION_OFFSET, FIXTURE_PC + 16, 256);
	bytes_put(&s->b, code, len);
	finish(s, w.wide);
	f = file_of(s);
	open_fixture(t, &f);
}

static void expect(struct under_test *t, uint64_t offset, struct unwind_rule want)
{
	const struct unwind_rule *have = at(t, offset);

	if (have->cfa >= UNWIND_FIXED_RULES && want.cfa >= UNWIND_FIXED_RULES && t->file)
		want.flags |= have->flags & UNWIND_AUX_LOST; /* by file: see test_dynamic_linker */
	if (memcmp(have, &want, sizeof(want)) != 0)
		fail_msg(
			"at %#llx: cfa %u reg %u flags %#x offset %d add %d ra %d fp %d aux %d, not "
			"cfa %u reg %u flags %#x offset %d add %d ra %d fp %d aux %d",
			(unsigned long long)offset, have->cfa, have->reg, have->flags,
			have->cfa_offset, have->cfa_add, have->ra_offset, have->fp_offset,
			have->aux_offset, want.cfa, want.reg, want.flags, want.cfa_offset,
			want.cfa_add, want.ra_offset, want.fp_offset, want.aux_offset);
}

#define SP(n)   ((struct unwind_rule){.cfa = UNWIND_CFA_SP, .cfa_offset = (n), .ra_offset = -1})
#define NOTHING ((struct unwind_rule){.cfa = UNWIND_CFA_NONE})
#define REFUSED ((struct unwind_rule){.cfa = UNWIND_CFA_UNSUPPORTED})

static void test_instructions(void **state)
{
	static const uint8_t code[] = {
		CFA_ADVANCE | 1, CFA_DEF_OFFSET, 16, CFA_OFFSET | 6, 2,    /* 17: push %rbp */
		CFA_ADVANCE1, 3, CFA_DEF_REGISTER, 6,                      /* 20: mov */
		CFA_ADVANCE2, 4, 0, CFA_GNU_ARGS_SIZE, 0x20, CFA_REMEMBER, /* 24 */
		CFA_DEF, 7, 0x90, 0x01, CFA_RESTORE | 6,     /* 24: rsp+144, rbp back */
		CFA_ADVANCE4, 8, 0, 0, 0, CFA_RESTORE_STATE, /* 32: as at 20 */
		CFA_ADVANCE | 8, CFA_DEF_SF, 7, 0x7c,        /* 40: rsp + (-4 * -8) */
		CFA_OFFSET_EXTENDED, 6, 3,                   /*     rbp at c-24 */
		CFA_ADVANCE | 8, CFA_DEF_OFFSET_SF, 0x7b,    /* 48: rsp+40 */
		CFA_OFFSET_EXTENDED_SF, 6, 4,                /*     rbp at c-32 */
		CFA_ADVANCE | 8, CFA_GNU_NEGATIVE_OFFSET, 6, 0x7f - 0x7a,   /* 56: rbp at c+40 */
		CFA_ADVANCE | 8, CFA_SAME_VALUE, 6,                         /* 64: unchanged */
		CFA_ADVANCE | 8, CFA_UNDEFINED, 6,                          /* 72: lost */
		CFA_ADVANCE | 8, CFA_VAL_OFFSET, 6, 2,                      /* 80: lost */
		CFA_ADVANCE | 8, CFA_VAL_OFFSET_SF, 6, 2,                   /* 88: lost */
		CFA_ADVANCE | 8, CFA_REGISTER, 6, 9,                        /* 96: lost */
		CFA_ADVANCE | 8, CFA_RESTORE_EXTENDED, 6,                   /* 104: unchanged */
		CFA_ADVANCE | 8, CFA_EXPRESSION, 6, 2, OP_BREG0 + 6, 0,     /* 112: at rbp+0 */
		CFA_ADVANCE | 8, CFA_VAL_EXPRESSION, 6, 2, OP_BREG0 + 6, 0, /* 120: lost */
		CFA_ADVANCE | 8, CFA_RESTORE | 6, CFA_REGISTER, 16, 5,      /* 128: rip in rdi */
		CFA_ADVANCE | 8, CFA_OFFSET | 16, 2,                        /* 136: rip at c-16 */
		CFA_ADVANCE | 8, CFA_WINDOW_SAVE, CFA_OFFSET | 12, 7, CFA_RESTORE | 13, CFA_NOP,
		CFA_ADVANCE | 8, CFA_UNDEFINED, 16,                         /* 152: the end */
		CFA_ADVANCE | 8, CFA_RESTORE | 16, CFA_SET_LOC, 0, 0, 0, 0, /* relative: refused */
	};
	struct unwind_rule fp16 = {.cfa = UNWIND_CFA_FP,
		.cfa_offset = 16,
		.ra_offset = -1,
		.flags = UNWIND_FP_SAVED,
		.fp_offset = -2};
	struct unwind_rule rule = SP(8), lost = SP(40);
	struct section s = {0};
	struct under_test t = {0};

	open_code(&t, &s, usual, code, sizeof(code));
	lost.flags = UNWIND_FP_LOST;
	expect(&t, 15, NOTHING);
	expect(&t, 16, SP(8));
	rule = SP(16);
	rule.flags = UNWIND_FP_SAVED;
	rule.fp_offset = -2;
	expect(&t, 17, rule);
	expect(&t, 19, rule);
	expect(&t, 20, fp16);
	expect(&t, 23, fp16);
	expect(&t, 24, SP(144));
	expect(&t, 32, fp16);
	rule = SP(32);
	rule.flags = UNWIND_FP_SAVED;
	rule.fp_offset = -3;
	expect(&t, 40, rule);
	rule.cfa_offset = 40;
	rule.fp_offset = -4;
	expect(&t, 48, rule);
	rule.fp_offset = 5;
	expect(&t, 56, rule);
	expect(&t, 64, SP(40));
	expect(&t, 72, lost);
	expect(&t, 80, lost);
	expect(&t, 88, lost);
	expect(&t, 96, lost);
	expect(&t, 104, SP(40));
	rule = SP(40);
	rule.flags = UNWIND_FP_SAVED | UNWIND_SAVED_FP;
	expect(&t, 112, rule);
	expect(&t, 120, lost);
	rule = SP(40);
	rule.flags = UNWIND_RA_LEAF;
	rule.ra_offset = 5;
	expect(&t, 128, rule);
	rule = SP(40);
	rule.ra_offset = -2;
	expect(&t, 136, rule);
	expect(&t, 144, rule);
	expect(&t, 152, (struct unwind_rule){.cfa = UNWIND_CFA_END});
	expect(&t, 160, REFUSED);
	expect(&t, 271, REFUSED);
	expect(&t, 272, NOTHING);
	assert_int_equal(problems(&t, UNWIND_PROBLEM_DAMAGED), 1);
	close_fixture(&t);
	bytes_deinit(&s.b);
}

static void test_encodings(void **state)
{
	static const struct cie_words list[] = {
		{.version = 1, .augmentation = ""},
		{.version = 3, .augmentation = ""},
		{.version = 4, .augmentation = ""},
		{.version = 1, .augmentation = "eh"},
		{.version = 1, .augmentation = "zR", .encoding = PE_ABSPTR},
		{.version = 3, .augmentation = "zR", .encoding = PE_UDATA4},
		{.version = 1, .augmentation = "zR", .encoding = PE_UDATA8},
		{.version = 1, .augmentation = "zR", .encoding = PE_ULEB},
		{.version = 1, .augmentation = "zR", .encoding = PE_SLEB},
		{.version = 1, .augmentation = "zR", .encoding = PE_PCREL | PE_SDATA4},
		{.version = 1, .augmentation = "zR", .encoding = PE_PCREL | PE_SDATA8},
		{.version = 1, .augmentation = "zR", .encoding = PE_PCREL | PE_ABSPTR},
		{.version = 1, .augmentation = "zPLR", .encoding = PE_PCREL | PE_SDATA4},
		{.version = 1, .augmentation = "zRSB", .encoding = PE_PCREL | PE_SDATA4},
		{.version = 4, .augmentation = "zRG", .encoding = PE_SDATA4},
	};
	static const uint8_t code[] = {CFA_ADVANCE | 4, CFA_DEF_OFFSET, 24};

	for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
		for (int kind = 0; kind < 4; kind++) {
			struct section s = {.debug = kind & 1};
			struct cie_words w = list[i];
			struct under_test t = {0};
			struct unwind_rule rule = SP(24);

			w.wide = kind & 2;
			open_code(&t, &s, w, code, sizeof(code));
			if (strchr(w.augmentation, 'S'))
				rule.flags = UNWIND_SIGNAL | UNWIND_MOVES;
			expect(&t, 20, rule);
			expect(&t, 271, rule);
			expect(&t, 272, NOTHING);
			assert_int_equal(all_problems(&t), 0);
			close_fixture(&t);
			bytes_deinit(&s.b);
		}
	}
}

static void test_refused_headers(void **state)
{
	static const struct {
		struct cie_words w;
		int kind;
	} list[] = {
		{{.version = 2, .augmentation = ""}, UNWIND_PROBLEM_AUGMENTATION},
		{{.version = 1, .augmentation = "zRQ"}, UNWIND_PROBLEM_AUGMENTATION},
		{{.version = 1, .augmentation = "armcc+"}, UNWIND_PROBLEM_AUGMENTATION},
		{{.version = 1, .augmentation = "", .ra = 5}, UNWIND_PROBLEM_RETURN_RULE},
		{{.version = 1, .augmentation = "zR", .encoding = PE_INDIRECT | PE_SDATA4},
			UNWIND_PROBLEM_ENCODING},
		{{.version = 1, .augmentation = "zR", .encoding = 0x20 | PE_SDATA4},
			UNWIND_PROBLEM_ENCODING},
		{{.version = 1, .augmentation = "zR", .encoding = 0x07}, UNWIND_PROBLEM_DAMAGED},
		{{.version = 1, .augmentation = "", .bare = true}, UNWIND_PROBLEM_DAMAGED},
	};

	for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
		struct section s = {0};
		struct under_test t = {0};

		open_code(&t, &s, list[i].w, "", 0);
		assert_true(at(&t, 20)->cfa < UNWIND_FIXED_RULES);
		assert_true(problems(&t, list[i].kind) > 0);
		close_fixture(&t);
		bytes_deinit(&s.b);
	}
}

/* ---- expressions
 * ---------------------------------------------------------------------------------------- */

static void test_shapes(void **state)
{
	static const struct {
		uint8_t code[16];
		size_t len;
		struct unwind_rule rule; /* cfa UNSUPPORTED: refused */
	} list[] = {
		{{OP_BREG0 + 7, 8}, 2, {.cfa = UNWIND_CFA_SP, .cfa_offset = 8, .ra_offset = -1}},
		{{OP_BREGX, 7, 8}, 3, {.cfa = UNWIND_CFA_SP, .cfa_offset = 8, .ra_offset = -1}},
		{{OP_BREG0 + 6, 0x78, OP_DEREF}, 3,
			{.cfa = UNWIND_CFA_FP,
				.cfa_offset = -8,
				.flags = UNWIND_DEREF,
				.ra_offset = -1}},
		{{OP_BREG0 + 7, 0x28, OP_DEREF, OP_PLUS_UCONST, 8}, 5,
			{.cfa = UNWIND_CFA_SP,
				.cfa_offset = 40,
				.cfa_add = 8,
				.flags = UNWIND_DEREF,
				.ra_offset = -1}},
		{{OP_BREG0 + 7, 0, OP_DEREF, OP_LIT0 + 8, OP_PLUS}, 5,
			{.cfa = UNWIND_CFA_SP,
				.cfa_add = 8,
				.flags = UNWIND_DEREF,
				.ra_offset = -1}},
		{{OP_BREG0 + 7, 0, OP_DEREF, OP_CONST1S, 0xf8, OP_PLUS}, 6,
			{.cfa = UNWIND_CFA_SP,
				.cfa_add = -8,
				.flags = UNWIND_DEREF,
				.ra_offset = -1}},
		{{OP_BREG0 + 10, 0}, 2, {.cfa = UNWIND_CFA_LEAF, .reg = 10, .ra_offset = -1}},
		{{OP_BREG0 + 7, 8, OP_BREG0 + 16, 0, OP_LIT0 + 15, OP_AND, OP_LIT0 + 11, OP_GE,
			 OP_LIT0 + 3, OP_SHL, OP_PLUS},
			11,
			{.cfa = UNWIND_CFA_SP,
				.cfa_offset = 8,
				.reg = 11,
				.flags = UNWIND_PLT,
				.ra_offset = -1}},
		{{OP_BREG0 + 7, 8, OP_BREG0 + 9, 0, OP_LIT0 + 8, OP_MUL, OP_PLUS, OP_DEREF,
			 OP_PLUS_UCONST, 8},
			10,
			{.cfa = UNWIND_CFA_SCALED,
				.reg = 9,
				.cfa_offset = 8,
				.cfa_add = 8,
				.flags = UNWIND_DEREF,
				.ra_offset = -1}},
		/* by 4; from fp; not read; something behind it */
		{{OP_BREG0 + 7, 8, OP_BREG0 + 9, 0, OP_LIT0 + 4, OP_MUL, OP_PLUS, OP_DEREF}, 8,
			{.cfa = UNWIND_CFA_UNSUPPORTED}},
		{{OP_BREG0 + 6, 8, OP_BREG0 + 9, 0, OP_LIT0 + 8, OP_MUL, OP_PLUS, OP_DEREF}, 8,
			{.cfa = UNWIND_CFA_UNSUPPORTED}},
		{{OP_BREG0 + 7, 8, OP_BREG0 + 9, 0, OP_LIT0 + 8, OP_MUL, OP_PLUS}, 7,
			{.cfa = UNWIND_CFA_UNSUPPORTED}},
		{{OP_BREG0 + 7, 8, OP_BREG0 + 9, 0, OP_LIT0 + 8, OP_MUL, OP_PLUS, OP_DEREF,
			 OP_DEREF},
			9, {.cfa = UNWIND_CFA_UNSUPPORTED}},
		{{OP_BREG0 + 7, 8, OP_BREG0 + 9, 1, OP_LIT0 + 8, OP_MUL, OP_PLUS, OP_DEREF}, 8,
			{.cfa = UNWIND_CFA_UNSUPPORTED}},
		/* not quite a PLT; two registers; nothing; cut short; a vector register */
		{{OP_BREG0 + 7, 8, OP_BREG0 + 16, 0, OP_LIT0 + 15, OP_AND, OP_LIT0 + 11, OP_GE,
			 OP_LIT0 + 4, OP_SHL, OP_PLUS},
			11, {.cfa = UNWIND_CFA_UNSUPPORTED}},
		{{OP_BREG0 + 7, 8, OP_BREG0 + 9, 0, OP_PLUS}, 5, {.cfa = UNWIND_CFA_UNSUPPORTED}},
		{{0}, 0, {.cfa = UNWIND_CFA_UNSUPPORTED}},
		{{OP_BREG0 + 7}, 1, {.cfa = UNWIND_CFA_UNSUPPORTED}},
		{{OP_BREG0 + 17, 0}, 2, {.cfa = UNWIND_CFA_UNSUPPORTED}},
		{{OP_BREG0 + 7, 0, OP_DEREF, OP_DEREF}, 4, {.cfa = UNWIND_CFA_UNSUPPORTED}},
	};

	for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
		struct section s = {0};
		struct under_test t = {0};
		uint8_t code[32] = {CFA_DEF_EXPRESSION, (uint8_t)list[i].len};

		memcpy(code + 2, list[i].code, list[i].len);
		open_code(&t, &s, usual, code, list[i].len + 2);
		expect(&t, 20, list[i].rule);
		assert_int_equal(all_problems(&t), list[i].rule.cfa == UNWIND_CFA_UNSUPPORTED);
		close_fixture(&t);
		bytes_deinit(&s.b);
	}
}

/* ---- hostile descriptions
 * ----------------------------------------------------------------------------- */

static void refuse_code(const void *code, size_t len, int kind, uint64_t where)
{
	struct section s = {0};
	struct under_test t = {0};

	open_code(&t, &s, usual, code, len);
	expect(&t, where, REFUSED);
	expect(&t, 271, REFUSED);
	assert_int_equal(problems(&t, kind), 1);
	close_fixture(&t);
	bytes_deinit(&s.b);
}

static void test_bad_instructions(void **state)
{
	static const uint8_t unknown[] = {CFA_ADVANCE | 4, 0x3e};
	static const uint8_t underflow[] = {CFA_ADVANCE | 4, CFA_RESTORE_STATE};
	static const uint8_t huge[] = {
		CFA_ADVANCE | 4, CFA_DEF_OFFSET, 0x80, 0x80, 0x80, 0x80, 0x10};
	static const uint8_t vector[] = {CFA_ADVANCE | 4, CFA_DEF_REGISTER, 17};
	static const uint8_t odd[] = {CFA_ADVANCE | 4, CFA_VAL_OFFSET, 16, 1};
	static const uint8_t other_sp[] = {CFA_ADVANCE | 4, CFA_REGISTER, 7, 8};
	static const uint8_t long_block[] = {CFA_ADVANCE | 4, CFA_DEF_EXPRESSION, 0x7f};
	uint8_t nested[64] = {CFA_ADVANCE | 4};

	memset(nested + 1, CFA_REMEMBER, sizeof(nested) - 1);
	refuse_code(unknown, sizeof(unknown), UNWIND_PROBLEM_OPCODE, 20);
	refuse_code(underflow, sizeof(underflow), UNWIND_PROBLEM_STATE_STACK, 20);
	refuse_code(nested, sizeof(nested), UNWIND_PROBLEM_STATE_STACK, 20);
	refuse_code(huge, sizeof(huge), UNWIND_PROBLEM_OFFSET, 20);
	refuse_code(vector, sizeof(vector), UNWIND_PROBLEM_CFA_REGISTER, 20);
	refuse_code(odd, sizeof(odd), UNWIND_PROBLEM_RETURN_RULE, 20);
	refuse_code(other_sp, sizeof(other_sp), UNWIND_PROBLEM_STACK_RULE, 20);
	refuse_code(long_block, sizeof(long_block), UNWIND_PROBLEM_DAMAGED, 20);
}

/* A description cut at every length, and with every byte changed: it ends, in bounds, and rows
 * stay rows. */
static void test_every_damage(void **state)
{
	static const uint8_t code[] = {CFA_ADVANCE | 1, CFA_DEF_OFFSET, 16, CFA_OFFSET | 6, 2,
		CFA_ADVANCE1, 3, CFA_DEF_REGISTER, 6, CFA_REMEMBER, CFA_ADVANCE | 9,
		CFA_DEF_EXPRESSION, 3, OP_BREG0 + 6, 0x78, OP_DEREF, CFA_ADVANCE | 3,
		CFA_RESTORE_STATE};
	struct section s = {0};

	put_cie(&s, usual);
	begin_fde(&s, usual, SECTION_OFFSET, FIXTURE_PC + 16, 256);
	bytes_put(&s.b, code, sizeof(code));
	finish(&s, false);
	for (size_t cut = 0; cut < s.b.len; cut++) {
		for (int change = 0; change < 3; change++) {
			struct section damaged = {0};
			struct under_test t = {0};
			struct fixture f;

			bytes_put(&damaged.b, s.b.data, change == 0 ? cut : s.b.len);
			if (change)
				damaged.b.data[cut] ^= change == 1 ? 0xff : 0x08;
			f = file_of(&damaged);
			open_fixture(&t, &f);
			assert_true(t.page.n > 0 && t.page.pc[0] == 0);
			for (uint32_t i = 1; i < t.page.n; i++) {
				assert_true(t.page.pc[i] > t.page.pc[i - 1]);
				assert_true(t.page.rule[i] < t.rules.n);
			}
			close_fixture(&t);
			bytes_deinit(&damaged.b);
		}
	}
	bytes_deinit(&s.b);
}

/* A row an instruction: the page's bound holds, and the rest of the page says that nothing is
 * known. */
static void test_too_many_rows(void **state)
{
	const size_t size = 65536;
	struct section s = {0};
	struct under_test t = {0};
	struct fixture f;
	uint8_t *big = malloc(size);

	assert_non_null(big);
	memset(big, 0x41, size);
	put_cie(&s, usual);
	begin_fde(&s, usual, FIXTURE_TEXT + size, FIXTURE_PC, size);
	for (unsigned i = 0; i < 40000; i++) {
		put8(&s.b, CFA_DEF_OFFSET);
		put_uleb(&s.b, 8 + 8 * (i % 2));
		put8(&s.b, CFA_ADVANCE | 1);
	}
	finish(&s, false);
	f = file_of(&s);
	f.sections[0].data = big;
	f.sections[0].len = size;
	open_fixture(&t, &f);
	assert_int_equal(t.page.n, UNWIND_PAGE_ROWS);
	assert_int_equal(problems(&t, UNWIND_PROBLEM_ROWS_FULL), 1);
	expect(&t, 1000, SP(8));
	expect(&t, 1001, SP(16));
	expect(&t, 30000, NOTHING);
	close_fixture(&t);
	bytes_deinit(&s.b);
	free(big);
}

static int go_on(void *userdata, const struct unwind_page *page)
{
	return 0;
}

/* More different rules than an index can tell apart. */
static void test_too_many_rules(void **state)
{
	const size_t size = 6 * 65536;
	struct section s = {0};
	struct under_test t = {0};
	struct fixture f;
	uint8_t *big = malloc(size);

	assert_non_null(big);
	memset(big, 0x41, size);
	put_cie(&s, usual);
	for (unsigned k = 0; k < 7; k++) {
		begin_fde(&s, usual, FIXTURE_TEXT + size, FIXTURE_PC + k * 50000, 50000);
		for (unsigned i = 0; i < 12000; i++) {
			put8(&s.b, CFA_DEF_OFFSET);
			put_uleb(&s.b, 8 + 8 * (k * 12000 + i));
			put8(&s.b, CFA_ADVANCE | 4);
		}
		finish(&s, false);
	}
	f = file_of(&s);
	f.sections[0].data = big;
	f.sections[0].len = size;
	open_fixture(&t, &f);
	assert_int_equal(unwind_file_each_page(t.file, &t.rules, &t.page, go_on, NULL), 0);
	assert_int_equal(t.rules.n, UNWIND_RULES_MAX);
	assert_true(problems(&t, UNWIND_PROBLEM_RULES_FULL) > 0);
	expect(&t, 400, SP(8 + 8 * 100));
	expect(&t, 6 * 50000 + 40000, NOTHING);
	close_fixture(&t);
	bytes_deinit(&s.b);
	free(big);
}

/* Functions that all lie in one page and each take a megabyte of instructions. */
static void test_too_much_work(void **state)
{
	struct section s = {0};
	struct under_test t = {0};
	struct fixture f;

	put_cie(&s, usual);
	for (unsigned k = 0; k < 20; k++) {
		begin_fde(&s, usual, SECTION_OFFSET, FIXTURE_PC + k * 100, 100);
		for (unsigned i = 0; i < 900000; i++)
			put8(&s.b, CFA_NOP);
		finish(&s, false);
	}
	f = file_of(&s);
	open_fixture(&t, &f);
	assert_int_equal(problems(&t, UNWIND_PROBLEM_WORK), 1);
	expect(&t, 50, SP(8));
	assert_true(at(&t, 1950)->cfa < UNWIND_FIXED_RULES);
	close_fixture(&t);
	bytes_deinit(&s.b);
}

/* ---- the linker's index
 * -------------------------------------------------------------------------------- */

static void open_with_header(
	struct under_test *t, struct section *s, struct bytes *h, bool sorted, uint64_t lie)
{
	struct fixture f;
	uint64_t header, fde[8];

	put_cie(s, usual);
	for (unsigned k = 0; k < 8; k++) {
		fde[k] = s->b.len;
		begin_fde(s, usual, SECTION_OFFSET, FIXTURE_PC + k * 64, 64);
		put8(&s->b, CFA_DEF_OFFSET);
		put8(&s->b, 16 + 8 * k);
		finish(s, false);
	}
	f = file_of(s);
	header = FIXTURE_BASE + fixture_offset(&f, 2);
	put8(h, 1);
	put8(h, PE_PCREL | PE_SDATA4);
	put8(h, PE_UDATA4);
	put8(h, PE_DATAREL | PE_SDATA4);
	put32(h, FIXTURE_BASE + SECTION_OFFSET - (header + 4));
	put32(h, 8);
	for (unsigned k = 0; k < 8; k++) {
		unsigned i = sorted ? k : 7 - k;

		put32(h, FIXTURE_PC + i * 64 - header + lie);
		put32(h, FIXTURE_BASE + SECTION_OFFSET + fde[i] - header);
	}
	f.sections[2] = (struct fixture_section){".eh_frame_hdr", h->data, h->len, SHF_ALLOC, 0};
	f.header = ".eh_frame_hdr";
	open_fixture(t, &f);
}

static void test_header(void **state)
{
	for (int kind = 0; kind < 3; kind++) {
		struct section s = {0};
		struct bytes h = {0};
		struct under_test t = {0};

		open_with_header(&t, &s, &h, kind != 1, kind == 2 ? 4 : 0);
		assert_int_equal(unwind_file_sources(t.file), UNWIND_SOURCE_EH_FRAME);
		if (kind == 0) {
			for (unsigned k = 0; k < 8; k++) {
				expect(&t, k * 64, SP(16 + 8 * (int)k));
				expect(&t, k * 64 + 63, SP(16 + 8 * (int)k));
			}
			expect(&t, 512, NOTHING);
			assert_int_equal(all_problems(&t), 0);
		} else {
			/* Unsorted, or of other addresses than the entries': said, and nothing
			 * made up. */
			assert_true(problems(&t, UNWIND_PROBLEM_DAMAGED) > 0);
			for (unsigned k = 0; k < 8; k++)
				assert_true(at(&t, k * 64)->cfa < UNWIND_FIXED_RULES ||
					at(&t, k * 64)->cfa_offset == 16 + 8 * (int)k);
		}
		close_fixture(&t);
		bytes_deinit(&s.b);
		bytes_deinit(&h);
	}
}

/* ---- compressed sections
 * ------------------------------------------------------------------------------- */

enum packing { ZSTD, ZLIB, OLD_ZLIB, BOMB, BROKEN, PACKINGS };

/* RFC 1950 out of RFC 1952: the same stream within, another head and sum. */
static void pack_zlib(const struct bytes *from, struct bytes *to)
{
	_cleanup_buf_ struct buf z;
	uint32_t a = 1, b = 0, sum;

	buf_init(&z, 0);
	assert_int_equal(compress_gzip(from->data, from->len, 6, &z), 0);
	for (size_t i = 0; i < from->len; i++) {
		a = (a + from->data[i]) % 65521;
		b = (b + a) % 65521;
	}
	sum = __builtin_bswap32(b << 16 | a);
	put8(to, 0x78);
	put8(to, 0x9c);
	bytes_put(to, z.data + 10, z.len - 18);
	put32(to, sum);
}

static void pack(const struct bytes *from, enum packing kind, struct bytes *to)
{
	Elf64_Chdr head = {.ch_type = kind == ZLIB ? ELFCOMPRESS_ZLIB : 2,
		.ch_size = kind == BOMB ? UNWIND_DEBUG_FRAME_MAX + 1 : from->len,
		.ch_addralign = 1};
	_cleanup_buf_ struct buf z;

	buf_init(&z, 0);
	if (kind == OLD_ZLIB) {
		bytes_put(to, "ZLIB", 4);
		put64(to, __builtin_bswap64(from->len));
	} else {
		bytes_put(to, &head, sizeof(head));
	}
	if (kind == ZLIB || kind == OLD_ZLIB) {
		pack_zlib(from, to);
		return;
	}
	assert_int_equal(compress_zstd(from->data, from->len, 3, &z), 0);
	if (kind == BROKEN)
		z.data[z.len / 2] ^= 0xff;
	bytes_put(to, z.data, z.len);
}

static void test_compressed(void **state)
{
	static const uint8_t code[] = {CFA_DEF_OFFSET, 24};
	struct section s = {.debug = true};
	struct cie_words w = {.version = 4, .augmentation = ""};

	put_cie(&s, w);
	begin_fde(&s, w, 0, FIXTURE_PC + 16, 256);
	bytes_put(&s.b, code, sizeof(code));
	finish(&s, false);
	for (enum packing kind = 0; kind < PACKINGS; kind++) {
		bool good = kind < BOMB;
		struct under_test t = {0};
		struct bytes packed = {0};
		struct fixture f;

		pack(&s.b, kind, &packed);
		f = file_of(&s);
		f.sections[1] = (struct fixture_section){
			kind == OLD_ZLIB ? ".zdebug_frame" : ".debug_frame", packed.data,
			packed.len, kind == OLD_ZLIB ? 0 : SHF_COMPRESSED, 0};
		open_fixture(&t, &f);
		expect(&t, 20, good ? SP(24) : NOTHING);
		assert_int_equal(problems(&t, UNWIND_PROBLEM_DAMAGED), !good);
		close_fixture(&t);
		bytes_deinit(&packed);
	}
	bytes_deinit(&s.b);
}

/* ---- what the bytes say
 * -------------------------------------------------------------------------------- */

static void test_code_without_description(void **state)
{
	static const uint8_t trampoline[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05};
	static const uint8_t stub[] = {
		0xf3, 0x0f, 0x1e, 0xfa, 0xf2, 0xff, 0x25, 1, 2, 3, 4, 0x0f, 0x1f, 0x44, 0x00, 0x00};
	struct section s = {0};
	struct under_test t = {0};
	struct fixture f;
	const struct unwind_rule *rule;

	put_cie(&s, usual);
	begin_fde(&s, usual, SECTION_OFFSET, FIXTURE_PC + 64, 61);
	finish(&s, false);
	begin_fde(&s, usual, SECTION_OFFSET, FIXTURE_PC + 128, 64);
	finish(&s, false);
	f = file_of(&s);
	f.entry = FIXTURE_PC + 2048;
	memset(text + 125, 0x90, 3); /* padding: no row of its own */
	memcpy(text + 1000, trampoline, sizeof(trampoline));
	memcpy(text + 1504, stub, sizeof(stub));
	memcpy(text + 1520, stub, sizeof(stub));
	open_fixture(&t, &f);
	expect(&t, 63, NOTHING);
	expect(&t, 126, SP(8));
	expect(&t, 191, SP(8));
	expect(&t, 192, NOTHING);
	expect(&t, 998, NOTHING);
	rule = at(&t, 999);
	assert_int_equal(rule->cfa, UNWIND_CFA_SP);
	assert_true(rule->flags & UNWIND_SIGNAL);
	assert_int_equal(rule->cfa_offset, 160);
	assert_int_equal(rule->ra_offset * UNWIND_SLOT, 168);
	assert_int_equal(rule->fp_offset * UNWIND_SLOT, 120);
	assert_int_equal(rule->aux_offset * UNWIND_SLOT, 128);
	assert_ptr_equal(rule, at(&t, 1008));
	expect(&t, 1009, NOTHING);
	expect(&t, 1503, NOTHING);
	expect(&t, 1504, SP(8));
	expect(&t, 1530, SP(8));
	expect(&t, 1536, NOTHING);
	expect(&t, 2047, NOTHING);
	expect(&t, 2048, (struct unwind_rule){.cfa = UNWIND_CFA_END});
	expect(&t, 2304, NOTHING);
	close_fixture(&t);
	bytes_deinit(&s.b);
}

/* ---- arm64
 * ---------------------------------------------------------------------------------------------- */

static void test_arm64(void **state)
{
	/* paciasp; stp x29, x30, [sp, #-32]!; mov x29, sp; ...; ldp; autiasp; ret */
	static const uint8_t code[] = {CFA_ADVANCE | 4, CFA_WINDOW_SAVE, CFA_ADVANCE | 4,
		CFA_DEF_OFFSET, 32, CFA_OFFSET | 29, 4, CFA_OFFSET | 30, 3, CFA_ADVANCE | 4,
		CFA_DEF_REGISTER, 29, CFA_ADVANCE | 32, CFA_RESTORE | 30, CFA_RESTORE | 29, CFA_DEF,
		31, 0};
	static const uint8_t trampoline[] = {0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4};
	struct cie_words w = {.version = 1,
		.augmentation = "zRB",
		.encoding = PE_PCREL | PE_SDATA4,
		.ra = 30,
		.bare = true};
	struct unwind_rule leaf = {.cfa = UNWIND_CFA_SP, .flags = UNWIND_RA_AUX};
	struct unwind_rule framed = {.cfa = UNWIND_CFA_SP,
		.flags = UNWIND_FP_SAVED,
		.cfa_offset = 32,
		.ra_offset = -3,
		.fp_offset = -4};
	struct section s = {0};
	struct under_test t = {0};
	struct fixture f;

	put_cie(&s, w);
	begin_fde(&s, w, SECTION_OFFSET, FIXTURE_PC + 16, 256);
	put8(&s.b, CFA_DEF);
	put8(&s.b, 31);
	put8(&s.b, 0);
	bytes_put(&s.b, code, sizeof(code));
	finish(&s, false);
	f = file_of(&s);
	f.machine = EM_AARCH64;
	memcpy(text + 1000, trampoline, sizeof(trampoline));
	open_fixture(&t, &f);
	expect(&t, 16, leaf);
	expect(&t, 20, leaf);
	expect(&t, 24, framed);
	framed.cfa = UNWIND_CFA_FP;
	expect(&t, 28, framed);
	expect(&t, 60, leaf);
	assert_true(at(&t, 1000)->flags & UNWIND_SIGNAL);
	/* pc, lr and sp of struct sigcontext, behind 128 bytes of siginfo and 176 of ucontext */
	assert_int_equal(at(&t, 1000)->cfa_offset, 128 + 176 + 8 + 31 * 8);
	assert_int_equal(at(&t, 1000)->ra_offset * UNWIND_SLOT, 128 + 176 + 8 + 32 * 8);
	assert_int_equal(at(&t, 1000)->aux_offset * UNWIND_SLOT, 128 + 176 + 8 + 30 * 8);
	assert_int_equal(all_problems(&t), 0);
	close_fixture(&t);
	bytes_deinit(&s.b);
}

/* ---- aux, the second register
 * --------------------------------------------------------------------- */

/* Rules say where rbx is saved in files where a frame is kept in it, and in no others: there a
 * stale value would be taken for a good one, so it is lost. */
static void test_aux(void **state)
{
	static const uint8_t plain[] = {CFA_ADVANCE | 4, CFA_DEF_OFFSET, 16, CFA_OFFSET | 3, 2};
	static const uint8_t keeper[] = {CFA_ADVANCE | 4, CFA_DEF_OFFSET, 16, CFA_OFFSET | 3, 2,
		CFA_ADVANCE | 4, CFA_DEF_REGISTER, 3};
	struct section s = {0};
	struct under_test t = {0};

	open_code(&t, &s, usual, plain, sizeof(plain));
	assert_int_equal(at(&t, 16)->flags, UNWIND_AUX_LOST);
	assert_int_equal(at(&t, 20)->flags, UNWIND_AUX_LOST);
	assert_int_equal(at(&t, 20)->aux_offset, 0);
	close_fixture(&t);
	bytes_deinit(&s.b);
	s = (struct section){0};
	open_code(&t, &s, usual, keeper, sizeof(keeper));
	assert_int_equal(at(&t, 16)->flags, 0);
	assert_int_equal(at(&t, 20)->flags, UNWIND_AUX_SAVED);
	assert_int_equal(at(&t, 20)->aux_offset, -2);
	assert_int_equal(at(&t, 24)->cfa, UNWIND_CFA_AUX);
	close_fixture(&t);
	bytes_deinit(&s.b);
}

/* ---- the step
 * ------------------------------------------------------------------------------------------ */

static void test_step_ends(void **state)
{
	static const struct {
		struct unwind_rule rule;
		unsigned flags;
		int result;
	} list[] = {
		{{.cfa = UNWIND_CFA_NONE}, UNWIND_REGS_LEAF, UNWIND_NO_INFORMATION},
		{{.cfa = 200}, UNWIND_REGS_LEAF, UNWIND_NO_INFORMATION},
		{{.cfa = UNWIND_CFA_UNSUPPORTED}, UNWIND_REGS_LEAF, UNWIND_UNSUPPORTED},
		{{.cfa = UNWIND_CFA_END}, UNWIND_REGS_LEAF, UNWIND_ENDED},
		{{.cfa = UNWIND_CFA_SWITCH}, UNWIND_REGS_LEAF, UNWIND_SWITCHED},
		{{.cfa = UNWIND_CFA_SP, .cfa_offset = 8, .ra_offset = -1}, 0, UNWIND_OK},
		{{.cfa = UNWIND_CFA_SP, .cfa_offset = 0, .ra_offset = -1}, 0, UNWIND_BAD_STACK},
		{{.cfa = UNWIND_CFA_SP, .cfa_offset = -8, .ra_offset = -1}, 0, UNWIND_BAD_STACK},
		{{.cfa = UNWIND_CFA_SP, .cfa_offset = 12, .ra_offset = -1}, 0, UNWIND_BAD_STACK},
		{{.cfa = UNWIND_CFA_FP, .cfa_offset = 16, .ra_offset = -1}, UNWIND_REGS_FP_LOST,
			UNWIND_LOST_REGISTER},
		{{.cfa = UNWIND_CFA_AUX, .cfa_offset = 16, .ra_offset = -1}, UNWIND_REGS_AUX_LOST,
			UNWIND_LOST_REGISTER},
		{{.cfa = UNWIND_CFA_LEAF, .reg = 10, .ra_offset = -1}, 0, UNWIND_LOST_REGISTER},
		{{.cfa = UNWIND_CFA_LEAF, .reg = 10, .ra_offset = -1}, UNWIND_REGS_LEAF, UNWIND_OK},
		{{.cfa = UNWIND_CFA_LEAF, .reg = 10, .ra_offset = -1}, UNWIND_REGS_INHERITED,
			UNWIND_OK},
		/* Behind a signal frame without registers those of the innermost one mean nothing. */
		{{.cfa = UNWIND_CFA_LEAF, .reg = 10, .ra_offset = -1},
			UNWIND_REGS_INHERITED | UNWIND_REGS_EXACT, UNWIND_LOST_REGISTER},
		{{.cfa = UNWIND_CFA_SCALED, .reg = 10, .cfa_offset = 8, .ra_offset = -1}, 0,
			UNWIND_LOST_REGISTER},
		{{.cfa = UNWIND_CFA_SP, .flags = UNWIND_RA_LEAF, .ra_offset = 5}, UNWIND_REGS_LEAF,
			UNWIND_OK},
		{{.cfa = UNWIND_CFA_SP, .flags = UNWIND_RA_LEAF, .ra_offset = 5}, 0,
			UNWIND_LOST_REGISTER},
	};

	for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
		struct unwind_regs r, before;

		model_regs(&r, 0x1234);
		r.flags = list[i].flags;
		before = r;
		assert_int_equal(unwind_step(&r, &list[i].rule, NULL), list[i].result);
		if (list[i].result != UNWIND_OK)
			assert_memory_equal(&r, &before, sizeof(r));
		else
			assert_int_equal(r.flags & (UNWIND_REGS_LEAF | UNWIND_REGS_EXACT), 0);
	}
}

/* Assembly calls its own helpers with its frame in a register that nobody saves. */
static void test_step_inherits(void **state)
{
	static const struct unwind_rule usual_call = {
		.cfa = UNWIND_CFA_SP, .cfa_offset = 8, .ra_offset = -1};
	static const struct unwind_rule by_fp = {
		.cfa = UNWIND_CFA_FP, .cfa_offset = 16, .ra_offset = -1};
	static const struct unwind_rule by_r11 = {
		.cfa = UNWIND_CFA_LEAF, .reg = 11, .cfa_offset = 8, .ra_offset = -1};
	static const struct unwind_rule scaled = {.cfa = UNWIND_CFA_SCALED,
		.reg = 9,
		.cfa_offset = 8,
		.cfa_add = 8,
		.flags = UNWIND_DEREF,
		.ra_offset = -1};
	const struct unwind_rule *const first[] = {&usual_call, &by_fp};
	struct unwind_regs r;

	for (size_t i = 0; i < ARRAY_SIZE(first); i++) {
		model_regs(&r, 0x1234);
		assert_int_equal(unwind_step(&r, first[i], NULL), UNWIND_OK);
		assert_int_equal(r.flags, UNWIND_REGS_INHERITED);
		assert_int_equal(unwind_lookup_pc(&r), r.pc - 1);
		assert_int_equal(unwind_step(&r, &by_r11, NULL), UNWIND_OK);
		assert_int_equal(r.sp, model_reg(11) + 8);
		/* Once. */
		assert_int_equal(r.flags, 0);
		assert_int_equal(unwind_step(&r, &by_r11, NULL), UNWIND_LOST_REGISTER);
	}
	model_regs(&r, 0x1234);
	r.leaf[9] = 5;
	assert_int_equal(unwind_step(&r, &scaled, NULL), UNWIND_OK);
	assert_int_equal(r.sp, model_word(MODEL_SP + 5 * 8 + 8) + 8);
	assert_int_equal(r.pc, model_word(r.sp - 8));
}

/* Behind a signal frame the pc was interrupted: it is looked up as it is, and all is known
 * again. */
static void test_step_signal(void **state)
{
	struct unwind_rule rule = {.cfa = UNWIND_CFA_SP,
		.flags = UNWIND_DEREF | UNWIND_SIGNAL | UNWIND_MOVES | UNWIND_RA_SP |
			UNWIND_FP_SAVED | UNWIND_AUX_SAVED | UNWIND_SAVED_SP,
		.cfa_offset = 160,
		.ra_offset = 21,
		.fp_offset = 15,
		.aux_offset = 16};
	struct unwind_rule call = {.cfa = UNWIND_CFA_FP, .cfa_offset = 16, .ra_offset = -1};
	struct unwind_rule by_r10 = {.cfa = UNWIND_CFA_LEAF, .reg = 10, .ra_offset = -1};
	struct unwind_regs r, again;

	model_regs(&r, 0x1234);
	assert_int_equal(unwind_lookup_pc(&r), 0x1234);
	r.flags = UNWIND_REGS_FP_LOST | UNWIND_REGS_AUX_LOST;
	assert_int_equal(unwind_lookup_pc(&r), 0x1233);
	assert_int_equal(unwind_step(&r, &rule, NULL), UNWIND_OK);
	assert_int_equal(r.sp, model_word(MODEL_SP + 160));
	assert_int_equal(r.pc, model_word(MODEL_SP + 168));
	assert_int_equal(r.fp_at, MODEL_SP + 120);
	assert_int_equal(r.aux_at, MODEL_SP + 128);
	assert_int_equal(r.flags, UNWIND_REGS_EXACT);
	assert_int_equal(unwind_lookup_pc(&r), r.pc);
	assert_int_equal(r.leaf_at, MODEL_SP + 40);
	again = r;
	again.sp = MODEL_SP;
	assert_int_equal(unwind_step(&again, &by_r10, NULL), UNWIND_OK);
	assert_int_equal(again.sp, model_word(MODEL_SP + 40 + 2 * 8)); /* r8, r9, r10 */
	assert_int_equal(again.leaf_at, 0);
	/* Also where the trampoline itself was interrupted: its registers are not its caller's. */
	{
		struct unwind_regs inside;

		model_regs(&inside, 0x1234);
		assert_int_equal(unwind_step(&inside, &rule, NULL), UNWIND_OK);
		assert_int_equal(inside.flags, UNWIND_REGS_EXACT);
	}
	r.sp = MODEL_SP;
	call.flags = UNWIND_APPROXIMATE;
	assert_int_equal(unwind_step(&r, &call, NULL), UNWIND_OK);
	assert_int_equal(r.sp, model_word(MODEL_SP + 120) + 16);
	assert_int_equal(unwind_lookup_pc(&r), r.pc - 1);
	assert_true(r.flags & UNWIND_REGS_GUESSED);
}

/* ---- dictionaries
 * ---------------------------------------------------------------------------------------- */

static void test_rules(void **state)
{
	struct unwind_rules d, other;

	assert_int_equal(unwind_rules_init(&d), 0);
	assert_int_equal(d.n, UNWIND_FIXED_RULES);
	for (unsigned i = 0; i < UNWIND_FIXED_RULES; i++)
		assert_int_equal(d.rules[i].cfa, i);
	for (int pass = 0; pass < 2; pass++) {
		for (int i = 0; i < 5000; i++) {
			struct unwind_rule rule = SP(8 * i);

			assert_int_equal(unwind_rules_add(&d, &rule), UNWIND_FIXED_RULES + i);
		}
	}
	assert_int_equal(unwind_rules_init(&other), 0);
	assert_int_equal(unwind_rules_seed(&other, d.rules, d.n), 0);
	assert_int_equal(other.n, d.n);
	assert_memory_equal(other.rules, d.rules, d.n * sizeof(*d.rules));
	/* Not the fixed ones first; one twice. */
	assert_int_equal(unwind_rules_seed(&other, d.rules + 1, d.n - 1), -EINVAL);
	d.rules[100] = d.rules[101];
	assert_int_equal(unwind_rules_seed(&other, d.rules, d.n), -EINVAL);
	assert_int_equal(unwind_rules_seed(&other, d.rules, 2), -EINVAL);
	assert_int_equal(other.n, 5000 + UNWIND_FIXED_RULES);
	unwind_rules_deinit(&d);
	unwind_rules_deinit(&other);
}

static void test_search(void **state)
{
	static struct unwind_page page;

	for (uint32_t n = 1; n < 300; n++) {
		page.n = n;
		for (uint32_t i = 0; i < n; i++) {
			page.pc[i] = (uint16_t)(i * (65535 / n));
			page.rule[i] = (uint16_t)i;
		}
		for (uint32_t pc = 0; pc < 65536; pc += 37) {
			uint32_t want = MIN(pc / (65535 / n), n - 1);

			assert_int_equal(unwind_page_find(&page, 0x10000 + pc), want);
		}
	}
	page.n = 0;
	assert_int_equal(unwind_page_find(&page, 5), UNWIND_CFA_NONE);
	page.n = UNWIND_PAGE_ROWS + 1;
	assert_int_equal(unwind_page_find(&page, 5), UNWIND_CFA_NONE);
}

static void test_refused_files(void **state)
{
	struct section s = {0};
	struct fixture f = file_of(&s);
	struct elf_file *elf = NULL;
	struct unwind_file *file = NULL;
	struct err_text err = {0};
	int fd;

	f.machine = EM_S390;
	fd = fixture_fd(&f);
	assert_int_equal(elf_file_open(&elf, fd, &err), 0);
	assert_int_equal(unwind_file_open(&file, elf, &err), -ENOEXEC);
	assert_non_null(strstr(err.text, "machine 22"));
	assert_null(file);
	elf_file_close(elf);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_instructions),
		cmocka_unit_test(test_encodings),
		cmocka_unit_test(test_refused_headers),
		cmocka_unit_test(test_shapes),
		cmocka_unit_test(test_bad_instructions),
		cmocka_unit_test(test_every_damage),
		cmocka_unit_test(test_too_many_rows),
		cmocka_unit_test(test_too_many_rules),
		cmocka_unit_test(test_too_much_work),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_compressed),
		cmocka_unit_test(test_code_without_description),
		cmocka_unit_test(test_arm64),
		cmocka_unit_test(test_aux),
		cmocka_unit_test(test_step_ends),
		cmocka_unit_test(test_step_inherits),
		cmocka_unit_test(test_step_signal),
		cmocka_unit_test(test_rules),
		cmocka_unit_test(test_search),
		cmocka_unit_test(test_refused_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
