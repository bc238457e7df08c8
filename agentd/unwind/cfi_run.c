/* SPDX-License-Identifier: Apache-2.0 */

/* Running the instructions of call frame information.
 *
 * They describe a table, a row for each piece of a function, as differences from row to row. We
 * follow four of its columns besides the CFA: return address, frame pointer, aux and stack pointer
 * (bpf/unwind.h says why these); the operands of all others are read and dropped.
 *
 * Invariants: every instruction takes at least one byte from *work, so a page ends however its
 * entries overlap; addresses never run backwards; an unknown instruction ends the function's rows
 * there, since its length is not known. Source: DWARF 5, 6.4.2 and 6.4.3; GNU's additions as
 * binutils reads them. Sandbox only. */

#include "agentd/unwind/unwind_private.h"

struct run {
	struct cfi *cfi;
	const struct cfi_cie *cie;
	const struct cfi_state *initial; /* NULL: these are the initial instructions */
	struct cursor in;
	struct cfi_state now;
	uint64_t pc;
	unsigned depth;
	struct cfi_state states[CFI_STATES];
};

static struct cfi_loc *track(struct run *r, uint64_t reg)
{
	const struct unwind_machine *m = r->cfi->machine;

	if (reg == m->ra)
		return &r->now.loc[TRACK_RA];
	if (reg == m->fp)
		return &r->now.loc[TRACK_FP];
	if (reg == m->aux && !m->ra_is_aux)
		return &r->now.loc[TRACK_AUX];
	if (reg == m->sp)
		return &r->now.loc[TRACK_SP];
	return NULL;
}

static void set_loc(struct run *r, uint64_t reg, uint8_t kind, int64_t value)
{
	struct cfi_loc *loc = track(r, reg);

	if (loc)
		*loc = (struct cfi_loc){.kind = kind, .value = value};
}

static void set_expression(struct run *r, uint64_t reg, uint8_t kind)
{
	uint64_t len = cursor_uleb(&r->in);
	const uint8_t *p = cursor_take(&r->in, len);
	struct cfi_loc *loc = track(r, reg);

	if (loc && p)
		*loc = (struct cfi_loc){.kind = kind, .len = (uint32_t)len, .expression = p};
}

static void restore(struct run *r, uint64_t reg)
{
	struct cfi_loc *loc = track(r, reg);

	if (loc)
		*loc = r->initial ? r->initial->loc[loc - r->now.loc] : (struct cfi_loc){0};
}

static void set_cfa(struct run *r, uint64_t reg, int64_t offset)
{
	r->now.has_cfa = true;
	r->now.reg = reg;
	r->now.offset = offset;
	r->now.expression = NULL;
	r->now.expression_len = 0;
}

static int64_t factored(const struct run *r, uint64_t offset)
{
	return (int64_t)(offset * (uint64_t)r->cie->data_align);
}

/* Instructions on the CFA. -1: not one of these. */
static int run_cfa(struct run *r, uint8_t op)
{
	uint64_t reg, len;

	switch (op) {
	case CFA_DEF:
		reg = cursor_uleb(&r->in);
		set_cfa(r, reg, (int64_t)cursor_uleb(&r->in));
		return 0;
	case CFA_DEF_SF:
		reg = cursor_uleb(&r->in);
		set_cfa(r, reg, factored(r, (uint64_t)cursor_sleb(&r->in)));
		return 0;
	case CFA_DEF_REGISTER:
		set_cfa(r, cursor_uleb(&r->in), r->now.offset);
		return 0;
	case CFA_DEF_OFFSET:
		set_cfa(r, r->now.reg, (int64_t)cursor_uleb(&r->in));
		return 0;
	case CFA_DEF_OFFSET_SF:
		set_cfa(r, r->now.reg, factored(r, (uint64_t)cursor_sleb(&r->in)));
		return 0;
	case CFA_DEF_EXPRESSION:
		len = cursor_uleb(&r->in);
		r->now.expression = cursor_take(&r->in, len);
		r->now.expression_len = (uint32_t)len;
		r->now.has_cfa = true;
		return 0;
	default:
		return -1;
	}
}

/* Instructions on registers. -1: not one of these. */
static int run_register(struct run *r, uint8_t op)
{
	uint64_t reg;

	if (op < CFA_OFFSET_EXTENDED || (op > CFA_REGISTER && op < CFA_EXPRESSION) ||
		(op > CFA_VAL_EXPRESSION && op != CFA_GNU_NEGATIVE_OFFSET))
		return -1;
	if (op == CFA_DEF_SF || op == CFA_DEF_OFFSET_SF)
		return -1;
	reg = cursor_uleb(&r->in);
	switch (op) {
	case CFA_OFFSET_EXTENDED:
		set_loc(r, reg, LOC_AT_CFA, factored(r, cursor_uleb(&r->in)));
		return 0;
	case CFA_OFFSET_EXTENDED_SF:
		set_loc(r, reg, LOC_AT_CFA, factored(r, (uint64_t)cursor_sleb(&r->in)));
		return 0;
	case CFA_GNU_NEGATIVE_OFFSET:
		set_loc(r, reg, LOC_AT_CFA, factored(r, -cursor_uleb(&r->in)));
		return 0;
	case CFA_VAL_OFFSET:
		set_loc(r, reg, LOC_VAL_CFA, factored(r, cursor_uleb(&r->in)));
		return 0;
	case CFA_VAL_OFFSET_SF:
		set_loc(r, reg, LOC_VAL_CFA, factored(r, (uint64_t)cursor_sleb(&r->in)));
		return 0;
	case CFA_RESTORE_EXTENDED:
		restore(r, reg);
		return 0;
	case CFA_UNDEFINED:
		set_loc(r, reg, LOC_UNDEFINED, 0);
		return 0;
	case CFA_SAME_VALUE:
		set_loc(r, reg, LOC_SAME, 0);
		return 0;
	case CFA_REGISTER:
		set_loc(r, reg, LOC_REGISTER, (int64_t)cursor_uleb(&r->in));
		return 0;
	case CFA_EXPRESSION:
		set_expression(r, reg, LOC_EXPRESSION);
		return 0;
	case CFA_VAL_EXPRESSION:
		set_expression(r, reg, LOC_VAL_EXPRESSION);
		return 0;
	default:
		return -1;
	}
}

/* What moves to the next row: sets *to. False: another instruction. */
static bool run_advance(struct run *r, uint8_t op, uint64_t *to)
{
	const struct cfi_cie *cie = r->cie;
	uint64_t delta, field;

	if ((op & 0xc0) == CFA_ADVANCE) {
		delta = op & 0x3f;
	} else if (op == CFA_ADVANCE1) {
		delta = cursor_u8(&r->in);
	} else if (op == CFA_ADVANCE2) {
		delta = cursor_u16(&r->in);
	} else if (op == CFA_ADVANCE4) {
		delta = cursor_u32(&r->in);
	} else if (op == CFA_MIPS_ADVANCE8) {
		delta = cursor_u64(&r->in);
	} else if (op == CFA_SET_LOC) {
		/* Relative encodings count from the field, whose address we no longer know: no
		 * compiler for these machines makes them. */
		field = 0;
		if ((cie->encoding & PE_APPLICATION) != 0)
			r->in.bad = true;
		*to = cfi_pointer(r->cfi, &r->in, cie->encoding, cie->address_size, field);
		return true;
	} else {
		return false;
	}
	if (__builtin_mul_overflow(delta, cie->code_align, &delta) ||
		__builtin_add_overflow(r->pc, delta, to))
		r->in.bad = true;
	return true;
}

/* One instruction that stays in its row. 0 or problem + 1. */
static int run_one(struct run *r, uint8_t op)
{
	uint64_t reg = op & 0x3f;

	if ((op & 0xc0) == CFA_OFFSET) {
		set_loc(r, reg, LOC_AT_CFA, factored(r, cursor_uleb(&r->in)));
		return 0;
	}
	if ((op & 0xc0) == CFA_RESTORE) {
		restore(r, reg);
		return 0;
	}
	switch (op) {
	case CFA_NOP:
	case CFA_WINDOW_SAVE:
	case CFA_AARCH64_RA_STATE_PC:
		return 0;
	case CFA_GNU_ARGS_SIZE:
		(void)cursor_uleb(&r->in);
		return 0;
	case CFA_REMEMBER:
		if (r->depth == CFI_STATES)
			return UNWIND_PROBLEM_STATE_STACK + 1;
		r->states[r->depth++] = r->now;
		return 0;
	case CFA_RESTORE_STATE:
		if (r->depth == 0)
			return UNWIND_PROBLEM_STATE_STACK + 1;
		r->now = r->states[--r->depth];
		return 0;
	default:
		if (run_cfa(r, op) == 0 || run_register(r, op) == 0)
			return 0;
		return UNWIND_PROBLEM_OPCODE + 1;
	}
}

int cfi_run_initial(struct cfi *c, struct cfi_cie *cie, const uint8_t *code, size_t len)
{
	struct run r = {.cfi = c, .cie = cie, .in = {code, code + len, false}};

	while (r.in.at < r.in.end && !r.in.bad) {
		uint8_t op = cursor_u8(&r.in);
		uint64_t to = 0;
		int problem;

		if (run_advance(&r, op, &to))
			return UNWIND_PROBLEM_DAMAGED + 1;
		problem = run_one(&r, op);
		if (problem)
			return problem;
	}
	cie->initial = r.now;
	return r.in.bad ? UNWIND_PROBLEM_DAMAGED + 1 : 0;
}

int cfi_run(struct cfi *c, const struct cfi_entry *e, uint64_t lo, uint64_t hi, uint64_t *work,
	void (*row)(void *userdata, uint64_t from, uint64_t to, const struct cfi_state *state),
	void *userdata)
{
	struct run r; /* not zeroed: states[] is big and its depth is kept */
	uint64_t end = MIN(hi, e->end);

	r.cfi = c;
	r.cie = e->cie;
	r.initial = &e->cie->initial;
	r.in = (struct cursor){e->code, e->code + e->len, false};
	r.now = e->cie->initial;
	r.pc = e->start;
	r.depth = 0;
	while (r.in.at < r.in.end && r.pc < end) {
		const uint8_t *before = r.in.at;
		uint8_t op = cursor_u8(&r.in);
		uint64_t to = r.pc;
		bool advance = run_advance(&r, op, &to);
		int problem = advance ? 0 : run_one(&r, op);
		uint64_t used = (uint64_t)(r.in.at - before);

		if (r.in.bad || (advance && to < r.pc))
			return UNWIND_PROBLEM_DAMAGED + 1;
		if (problem)
			return problem;
		if (used > *work) {
			*work = 0;
			return UNWIND_PROBLEM_WORK + 1;
		}
		*work -= used;
		if (!advance)
			continue;
		if (to > lo && to > r.pc)
			row(userdata, MAX(r.pc, lo), MIN(to, end), &r.now);
		r.pc = to;
	}
	if (r.pc < end)
		row(userdata, MAX(r.pc, lo), end, &r.now);
	return 0;
}
