/* SPDX-License-Identifier: Apache-2.0 */

/* Go's own table of functions, as a source of rows.
 *
 * Go programs are often stripped of .debug_frame, and then nothing but the runtime's pclntab tells
 * how deep the stack is: for every pc the distance from the stack pointer to the return address
 * (pcsp). That is the CFA, and exact, also in leaf functions without a frame, which frame pointers
 * lose. Functions are sorted, so a look-up is a search in place.
 *
 * The frame pointer: code that makes a frame saves it right under the return address (the compiler
 * always; assembly unless NOFRAME, told by the instruction that made the frame). Functions that
 * set the stack pointer to another stack (flag SPWRITE) keep it across the switch, by design of
 * the runtime since 1.21: behind their prologue they are unwound by it, which crosses from a
 * system stack back to the goroutine. mcall, morestack and gogo clear or replace it: there the
 * walk ends, and says so.
 *
 * Invariants: an entry's numbers are used as offsets into the section only through view_get(); pcs
 * rise.
 *
 * Source: Go's src/internal/abi/symtab.go, src/runtime/symtab.go (step(), pcHeader),
 * src/cmd/link/internal/ld/pcln.go and the assembler's src/cmd/internal/obj/x86/obj6.go of 1.16,
 * 1.18, 1.20 and 1.26. Sandbox only. */

#include <elf.h>

#include "agentd/unwind/unwind_private.h"

enum go_layout {
	GO_116 = 0,
	GO_118 = 1,
	GO_120 = 2,
};

static const uint32_t magics[] = {
	[GO_116] = 0xfffffffa, [GO_118] = 0xfffffff0, [GO_120] = 0xfffffff1};

#define FLAG_TOP_FRAME 1
#define FLAG_SP_WRITE  2
#define FLAG_ASM       4
#define NAME_MAX_LEN   48

struct gopclntab {
	const struct elf_file *elf;
	const struct unwind_machine *machine;
	enum go_layout layout;
	struct view index, functions, steps; /* the same section by three windows */
	uint64_t n, text, quantum;
	uint64_t names, pctab, pcln; /* offsets in the section */
	uint32_t entry_size;         /* bytes of one number of the index */
};

struct go_function {
	uint64_t entry, end;
	uint32_t pcsp;
	uint8_t id, flags;
	bool frame_saved; /* fp lies under the return address wherever there is a frame */
	enum { FUNCTION_PLAIN, FUNCTION_END, FUNCTION_SWITCH, FUNCTION_BY_FP } how;
};

struct gopclntab *gopclntab_free(struct gopclntab *g)
{
	if (g) {
		view_deinit(&g->index);
		view_deinit(&g->functions);
		view_deinit(&g->steps);
		free(g);
	}
	return NULL;
}

size_t gopclntab_memory(const struct gopclntab *g)
{
	return g ? sizeof(*g) + g->index.room + g->functions.room + g->steps.room : 0;
}

/* Number i of the index: where function i begins (i may be n: where the last one ends), and its
 * record. */
static int index_get(struct gopclntab *g, uint64_t i, uint64_t *start, uint64_t *offset)
{
	size_t size = g->entry_size;
	const uint8_t *p = view_get(&g->index, g->pcln + i * 2 * size, i == g->n ? size : 2 * size);
	uint64_t pc = 0, at = 0;

	if (!p)
		return -EBADMSG;
	memcpy(&pc, p, size);
	if (i < g->n)
		memcpy(&at, p + size, size);
	*start = g->text + pc;
	*offset = at;
	return 0;
}

/* ---- opening
 * ------------------------------------------------------------------------------------------ */

static uint64_t word(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static int read_header(struct gopclntab *g, const struct elf_section *section)
{
	uint8_t h[8 + 8 * 8];
	uint32_t magic;
	size_t more;
	int r;

	if (section->size < sizeof(h))
		return -ENOENT;
	r = elf_file_read(g->elf, h, sizeof(h), section->offset);
	if (r < 0)
		return r;
	memcpy(&magic, h, 4);
	for (g->layout = GO_116; g->layout <= GO_120 && magics[g->layout] != magic;)
		g->layout++;
	if (g->layout > GO_120 || h[4] || h[5] || h[7] != 8)
		return -ENOENT;
	g->quantum = h[6];
	g->n = word(h + 8);
	more = g->layout == GO_116 ? 0 : 8; /* textStart */
	g->names = word(h + 24 + more);
	g->pctab = word(h + 48 + more);
	g->pcln = word(h + 56 + more);
	g->entry_size = g->layout == GO_116 ? 8 : 4;
	if (g->quantum == 0 || g->quantum > 8 || g->pcln > section->size ||
		g->n > (section->size - g->pcln) / (2 * g->entry_size) || g->n == 0)
		return -ENOENT;
	if (g->layout != GO_116)
		g->text = gofind_text(g->elf, section, word(h + 24));
	return 0;
}

/* Without sections, and with nothing about it in the header: what the file says of its entry point is
 * the address of a function whose name is known. Not where the C library's code comes first. */
static int text_by_entry(struct gopclntab *g)
{
	const char *name = g->machine->elf == EM_X86_64 ? "_rt0_amd64_linux" : "_rt0_arm64_linux";
	size_t len = strlen(name) + 1;
	Elf64_Ehdr h;
	int r = elf_file_read(g->elf, &h, sizeof(h), 0);

	if (r < 0)
		return r;
	g->text = 0; /* so that starts are offsets */
	for (uint64_t i = 0; i < g->n; i++) {
		uint64_t start, offset;
		const uint8_t *p;
		int32_t at;

		if (index_get(g, i, &start, &offset) < 0)
			return -ENOENT;
		p = view_get(&g->functions, g->pcln + offset, g->entry_size + 4);
		if (!p || offset > g->functions.size)
			return -ENOENT;
		memcpy(&at, p + g->entry_size, 4);
		p = at < 0 ? NULL : view_get(&g->steps, g->names + (uint64_t)at, len);
		if (!p || memcmp(p, name, len) != 0 || start > h.e_entry)
			continue;
		g->text = h.e_entry - start;
		return 0;
	}
	return -ENOENT;
}

int gopclntab_open(
	struct gopclntab **ret, const struct elf_file *elf, const struct unwind_machine *m)
{
	CLEANUP(gopclntab_freep) struct gopclntab *g = NULL;
	struct elf_section s;
	int r = gofind_table(elf, magics, ARRAY_SIZE(magics), &s);

	if (r < 0)
		return r;
	g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	g->elf = elf;
	g->machine = m;
	r = read_header(g, &s);
	if (r < 0)
		return r;
	view_init(&g->index, elf, s.offset, s.size, s.addr, 4096);
	view_init(&g->functions, elf, s.offset, s.size, s.addr, 8192);
	view_init(&g->steps, elf, s.offset, s.size, s.addr, 8192);
	if (g->layout != GO_116 && !g->text)
		r = text_by_entry(g);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(g);
	return 0;
}

/* ---- functions
 * -------------------------------------------------------------------------------------------- */

int gopclntab_find(struct gopclntab *g, uint64_t vaddr, uint64_t *i)
{
	uint64_t lo = 0, n = g->n, start, offset;

	while (n > 1) {
		uint64_t half = n / 2;

		if (index_get(g, lo + half, &start, &offset) < 0)
			return -ENOENT;
		if (start <= vaddr) {
			lo += half;
			n -= half;
		} else {
			n = half;
		}
	}
	*i = lo;
	return 0;
}

int gopclntab_range(struct gopclntab *g, uint64_t i, uint64_t *start, uint64_t *end)
{
	uint64_t offset;

	if (i >= g->n || index_get(g, i, start, &offset) < 0 ||
		index_get(g, i + 1, end, &offset) < 0)
		return -ENOENT;
	return 0;
}

/* Stack switches that keep no frame pointer, by name: ids changed from version to version. */
static bool switches_for_good(struct gopclntab *g, int32_t name)
{
	static const char *const list[] = {"runtime.mcall", "runtime.morestack", "runtime.gogo",
		"runtime.switchToCrashStack0", "runtime.morestackc"};
	uint64_t at = g->names + (uint64_t)(uint32_t)name;
	const uint8_t *p;
	size_t len;

	if (name < 0 || at >= g->functions.size)
		return false;
	len = (size_t)MIN((uint64_t)NAME_MAX_LEN, g->functions.size - at);
	p = view_get(&g->functions, at, len);
	for (size_t i = 0; p && i < ARRAY_SIZE(list); i++) {
		size_t n = strlen(list[i]) + 1;

		if (n <= len && memcmp(p, list[i], n) == 0)
			return true;
	}
	return false;
}

/* 1.16 has no flags: what its traceback looks for, by name. */
static uint8_t flags_by_name(struct gopclntab *g, int32_t name)
{
	static const struct {
		const char *name;
		uint8_t flags;
	} list[] = {{"runtime.goexit", FLAG_TOP_FRAME}, {"runtime.mstart", FLAG_TOP_FRAME},
		{"runtime.rt0_go", FLAG_TOP_FRAME}, {"runtime.mcall", FLAG_SP_WRITE},
		{"runtime.morestack", FLAG_SP_WRITE}, {"runtime.gogo", FLAG_SP_WRITE},
		{"runtime.asmcgocall", FLAG_SP_WRITE}, {"runtime.systemstack", FLAG_SP_WRITE},
		{"runtime.cgocallback", FLAG_SP_WRITE}};
	uint64_t at = g->names + (uint64_t)(uint32_t)name;
	size_t len = at < g->functions.size
		? (size_t)MIN((uint64_t)NAME_MAX_LEN, g->functions.size - at)
		: 0;
	const uint8_t *p = name >= 0 && len ? view_get(&g->functions, at, len) : NULL;

	for (size_t i = 0; p && i < ARRAY_SIZE(list); i++) {
		size_t n = strlen(list[i].name) + 1;

		if (n <= len && memcmp(p, list[i].name, n) == 0)
			return list[i].flags | FLAG_ASM;
	}
	return FLAG_ASM;
}

static int read_function(struct gopclntab *g, uint64_t i, struct go_function *f)
{
	size_t head = g->entry_size, id = g->layout == GO_118 ? 36 : 40;
	uint64_t offset, end_offset;
	const uint8_t *p;
	int32_t name;

	if (g->layout == GO_116)
		id = 40;
	if (index_get(g, i, &f->entry, &offset) < 0 ||
		index_get(g, i + 1, &f->end, &end_offset) < 0)
		return -EBADMSG;
	p = view_get(&g->functions, g->pcln + offset, id + 4);
	if (!p || offset > g->functions.size)
		return -EBADMSG;
	memcpy(&name, p + head, 4);
	memcpy(&f->pcsp, p + head + 12, 4);
	f->id = p[id];
	f->flags = p[id + 1];
	if (g->layout == GO_116 && f->flags == 0)
		f->flags = flags_by_name(g, name);
	f->how = FUNCTION_PLAIN;
	if (f->flags & FLAG_TOP_FRAME)
		f->how = FUNCTION_END;
	else if (f->flags & FLAG_SP_WRITE)
		f->how = g->machine->elf != EM_X86_64 || switches_for_good(g, name)
			? FUNCTION_SWITCH
			: FUNCTION_BY_FP;
	f->frame_saved = !(f->flags & FLAG_ASM);
	return 0;
}

/* ---- rows
 * -------------------------------------------------------------------------------------------- */

static bool read_step(struct gopclntab *g, uint64_t *at, bool first, int64_t *value, uint64_t *pc)
{
	struct cursor in = {0};
	const uint8_t *before;
	uint64_t v;

	if (*at >= g->steps.size)
		return false;
	in.at = view_get(&g->steps, *at, (size_t)MIN((uint64_t)20, g->steps.size - *at));
	if (!in.at)
		return false;
	in.end = in.at + MIN((uint64_t)20, g->steps.size - *at);
	before = in.at;
	v = cursor_uleb(&in);
	if (in.bad || (v == 0 && !first))
		return false;
	if (v > UINT32_MAX)
		return false;
	*value += v & 1 ? -(int64_t)(v >> 1) - 1 : (int64_t)(v >> 1);
	if (*value < -4096 || *value > INT32_MAX)
		return false;
	v = cursor_uleb(&in);
	if (in.bad || v == 0 || v > UINT32_MAX)
		return false;
	*pc += v * g->quantum;
	*at += (uint64_t)(in.at - before);
	return true;
}

/* Did the instruction that ends at pc make a frame the way the assembler does it? sub $N, %rsp;
 * push %rbp; add $-128, %rsp. */
static bool makes_frame(struct gopclntab *g, uint64_t pc)
{
	uint64_t offset, len;
	uint8_t b[8];

	if (g->machine->elf != EM_X86_64)
		return true;
	if (view_vaddr(g->elf, pc - 7, &offset, &len) < 0 || len < 7 ||
		elf_file_read(g->elf, b, 7, offset) < 0)
		return false;
	return b[6] == 0x55 || (b[0] == 0x48 && b[1] == 0x81 && b[2] == 0xec) ||
		(b[3] == 0x48 && b[4] == 0x83 && (b[5] == 0xec || b[5] == 0xc4));
}

static struct unwind_rule rule_of(struct gopclntab *g, const struct go_function *f, int64_t depth)
{
	struct unwind_rule rule = {.cfa = UNWIND_CFA_SP};
	bool x86 = g->machine->elf == EM_X86_64;

	if (depth < 0 || depth % UNWIND_SLOT ||
		depth > (x86 ? INT32_MAX - 8 : INT16_MAX * UNWIND_SLOT))
		return (struct unwind_rule){.cfa = UNWIND_CFA_UNSUPPORTED};
	/* x86: the return address is above the frame; arm64: in lr, then at its lower end. */
	rule.cfa_offset = (int32_t)(depth + (x86 ? 8 : 0));
	if (x86)
		rule.ra_offset = -1;
	else if (depth == 0)
		rule.flags |= UNWIND_RA_AUX;
	else
		rule.ra_offset = (int16_t)(-depth / UNWIND_SLOT);
	if (depth > 0 && f->frame_saved && rule.ra_offset > INT16_MIN) {
		rule.flags |= UNWIND_FP_SAVED;
		rule.fp_offset = (int16_t)(rule.ra_offset - 1);
	}
	return rule;
}

struct go_out {
	uint64_t lo, hi;
	void (*row)(void *userdata, uint64_t from, uint64_t to, const struct unwind_rule *rule);
	void *userdata;
};

static void put(
	const struct go_out *out, uint64_t from, uint64_t to, const struct unwind_rule *rule)
{
	from = MAX(from, out->lo);
	to = MIN(to, out->hi);
	if (from < to)
		out->row(out->userdata, from, to, rule);
}

/* One piece of equal depth. Behind the prologue (push %rbp; mov %rsp, %rbp: 3 bytes) of a function
 * that leaves its stack, the frame pointer says where the caller's is. */
static void put_piece(struct gopclntab *g, const struct go_function *f, const struct go_out *out,
	uint64_t from, uint64_t to, int64_t depth, bool framed_before)
{
	static const struct unwind_rule by_fp = {.cfa = UNWIND_CFA_FP,
		.flags = UNWIND_FP_SAVED | UNWIND_MOVES | UNWIND_APPROXIMATE,
		.cfa_offset = 16,
		.ra_offset = -1,
		.fp_offset = -2};
	struct unwind_rule rule = rule_of(g, f, depth);
	uint64_t set = framed_before ? from : MIN(from + 3, to);

	if (f->how != FUNCTION_BY_FP || depth <= 0) {
		put(out, from, to, &rule);
		return;
	}
	if (!f->frame_saved) {
		rule = (struct unwind_rule){.cfa = UNWIND_CFA_SWITCH};
		put(out, from, to, &rule);
		return;
	}
	put(out, from, set, &rule);
	put(out, set, to, &by_fp);
}

int gopclntab_run(struct gopclntab *g, uint64_t i, uint64_t lo, uint64_t hi, uint64_t *work,
	void (*row)(void *userdata, uint64_t from, uint64_t to, const struct unwind_rule *rule),
	void *userdata)
{
	struct go_function f = {0};
	struct go_out out = {.row = row, .userdata = userdata};
	struct unwind_rule whole = {0};
	int64_t depth = -1;
	uint64_t at, pc;
	bool framed = false;

	if (read_function(g, i, &f) < 0 || f.entry >= f.end)
		return UNWIND_PROBLEM_DAMAGED + 1;
	out.lo = MAX(lo, f.entry);
	out.hi = MIN(hi, f.end);
	if (f.how == FUNCTION_END || f.how == FUNCTION_SWITCH) {
		whole.cfa = f.how == FUNCTION_END ? UNWIND_CFA_END : UNWIND_CFA_SWITCH;
		put(&out, f.entry, f.end, &whole);
		return 0;
	}
	if (f.pcsp == 0) /* no table: nothing is known */
		return 0;
	at = g->pctab + f.pcsp;
	pc = f.entry;
	while (pc < out.hi) {
		uint64_t from = pc, before = at;

		if (!read_step(g, &at, from == f.entry, &depth, &pc))
			break;
		if (at - before > *work) {
			*work = 0;
			return UNWIND_PROBLEM_WORK + 1;
		}
		*work -= at - before;
		if (depth > 0 && !framed && !f.frame_saved && from > f.entry)
			f.frame_saved = makes_frame(g, from);
		put_piece(g, &f, &out, from, MIN(pc, f.end), depth, framed);
		framed |= depth > 0;
	}
	return 0;
}
