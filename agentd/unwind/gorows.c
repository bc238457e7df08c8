/* SPDX-License-Identifier: Apache-2.0 */

/* Go's own table of functions, as a source of rows.
 *
 * Go programs are often stripped of .debug_frame, and then nothing but the runtime's pclntab tells
 * how deep the stack is: for every pc the distance from the stack pointer to the return address
 * (pcsp). That is the CFA, and exact, also in leaf functions without a frame, which frame pointers
 * lose.
 *
 * The frame pointer: code that makes a frame saves it right under the return address (the compiler
 * always; assembly unless NOFRAME, told by the instruction that made the frame). Functions that
 * set the stack pointer to another stack (flag SPWRITE) keep it across the switch, by design of
 * the runtime since 1.21: behind their prologue they are unwound by it, which crosses from a
 * system stack back to the goroutine. mcall, morestack and gogo clear or replace it: there the
 * walk ends, and says so.
 *
 * Source: Go's src/runtime/{symtab,traceback}.go, src/cmd/link/internal/ld/pcln.go and the assembler's
 * src/cmd/internal/obj/x86/obj6.go of 1.16, 1.18, 1.20 and 1.26. Sandbox only. */

#include <elf.h>

#include "agentd/unwind/unwind_private.h"

#define NAME_LEN_MAX 48

struct go_function {
	struct gopclntab_function table;
	const struct elf_file *elf;
	bool x86;
	uint8_t flags;
	bool frame_saved; /* fp lies under the return address wherever there is a frame */
	enum { FUNCTION_PLAIN, FUNCTION_END, FUNCTION_SWITCH, FUNCTION_BY_FP } how;
};

/* ---- functions
 * -------------------------------------------------------------------------------------------- */

/* Stack switches that keep no frame pointer, by name: ids changed from version to version. */
static bool switches_for_good(const char *name)
{
	static const char *const list[] = {"runtime.mcall", "runtime.morestack", "runtime.gogo",
		"runtime.switchToCrashStack0", "runtime.morestackc"};

	for (size_t i = 0; i < ARRAY_SIZE(list); i++)
		if (streq(name, list[i]))
			return true;
	return false;
}

/* 1.16 has no flags: what its traceback looks for, by name. */
static uint8_t flags_by_name(const char *name)
{
	static const struct {
		const char *name;
		uint8_t flags;
	} list[] = {{"runtime.goexit", GOPCLNTAB_TOP_FRAME},
		{"runtime.mstart", GOPCLNTAB_TOP_FRAME}, {"runtime.rt0_go", GOPCLNTAB_TOP_FRAME},
		{"runtime.mcall", GOPCLNTAB_SP_WRITE}, {"runtime.morestack", GOPCLNTAB_SP_WRITE},
		{"runtime.gogo", GOPCLNTAB_SP_WRITE}, {"runtime.asmcgocall", GOPCLNTAB_SP_WRITE},
		{"runtime.systemstack", GOPCLNTAB_SP_WRITE},
		{"runtime.cgocallback", GOPCLNTAB_SP_WRITE}};

	for (size_t i = 0; i < ARRAY_SIZE(list); i++)
		if (streq(name, list[i].name))
			return list[i].flags | GOPCLNTAB_ASM;
	return GOPCLNTAB_ASM;
}

static int read_function(
	struct gopclntab *g, const struct unwind_machine *m, uint64_t i, struct go_function *f)
{
	char name[NAME_LEN_MAX] = "";
	bool cut = false;

	if (gopclntab_function(g, i, &f->table) < 0)
		return -EBADMSG;
	f->elf = gopclntab_elf(g);
	f->x86 = m->elf == EM_X86_64;
	f->flags = f->table.flags;
	if ((gopclntab_layout(g) == GOPCLNTAB_116 && f->flags == 0) ||
		(f->flags & GOPCLNTAB_SP_WRITE))
		if (gopclntab_name(g, f->table.name, name, sizeof(name), &cut) < 0 || cut)
			name[0] = '\0';
	if (gopclntab_layout(g) == GOPCLNTAB_116 && f->flags == 0)
		f->flags = flags_by_name(name);
	f->how = FUNCTION_PLAIN;
	if (f->flags & GOPCLNTAB_TOP_FRAME)
		f->how = FUNCTION_END;
	else if (f->flags & GOPCLNTAB_SP_WRITE)
		f->how = !f->x86 || switches_for_good(name) ? FUNCTION_SWITCH : FUNCTION_BY_FP;
	f->frame_saved = !(f->flags & GOPCLNTAB_ASM);
	return 0;
}

/* ---- rows
 * -------------------------------------------------------------------------------------------- */

/* Did the instruction that ends at pc make a frame the way the assembler does it? sub $N, %rsp;
 * push %rbp; add $-128, %rsp. */
static bool makes_frame(const struct go_function *f, uint64_t pc)
{
	uint64_t offset, len;
	uint8_t b[8];

	if (!f->x86)
		return true;
	if (view_vaddr(f->elf, pc - 7, &offset, &len) < 0 || len < 7 ||
		elf_file_read(f->elf, b, 7, offset) < 0)
		return false;
	return b[6] == 0x55 || (b[0] == 0x48 && b[1] == 0x81 && b[2] == 0xec) ||
		(b[3] == 0x48 && b[4] == 0x83 && (b[5] == 0xec || b[5] == 0xc4));
}

static struct unwind_rule rule_of(const struct go_function *f, int64_t depth)
{
	struct unwind_rule rule = {.cfa = UNWIND_CFA_SP};
	bool x86 = f->x86;

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
static void put_piece(const struct go_function *f, const struct go_out *out, uint64_t from,
	uint64_t to, int64_t depth, bool framed_before)
{
	static const struct unwind_rule by_fp = {.cfa = UNWIND_CFA_FP,
		.flags = UNWIND_FP_SAVED | UNWIND_MOVES | UNWIND_APPROXIMATE,
		.cfa_offset = 16,
		.ra_offset = -1,
		.fp_offset = -2};
	struct unwind_rule rule = rule_of(f, depth);
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

int gorows_run(struct gopclntab *g, const struct unwind_machine *m, uint64_t i, uint64_t lo,
	uint64_t hi, uint64_t *work,
	void (*row)(void *userdata, uint64_t from, uint64_t to, const struct unwind_rule *rule),
	void *userdata)
{
	struct go_function f = {0};
	struct go_out out = {.row = row, .userdata = userdata};
	struct unwind_rule whole = {0};
	struct gopclntab_walk w;
	uint64_t before, start, end;
	bool framed = false;

	if (read_function(g, m, i, &f) < 0 || f.table.start >= f.table.end)
		return UNWIND_PROBLEM_DAMAGED + 1;
	start = f.table.start;
	end = f.table.end;
	out.lo = MAX(lo, start);
	out.hi = MIN(hi, end);
	if (f.how == FUNCTION_END || f.how == FUNCTION_SWITCH) {
		whole.cfa = f.how == FUNCTION_END ? UNWIND_CFA_END : UNWIND_CFA_SWITCH;
		put(&out, start, end, &whole);
		return 0;
	}
	w = gopclntab_walk(g, &f.table, f.table.pcsp);
	while (w.to < out.hi) {
		before = w.at;
		if (!gopclntab_next(g, &w))
			break;
		if (w.at - before > *work) {
			*work = 0;
			return UNWIND_PROBLEM_WORK + 1;
		}
		*work -= w.at - before;
		if (w.value > 0 && !framed && !f.frame_saved && w.from > start)
			f.frame_saved = makes_frame(&f, w.from);
		put_piece(&f, &out, w.from, MIN(w.to, end), w.value, framed);
		framed |= w.value > 0;
	}
	return 0;
}
