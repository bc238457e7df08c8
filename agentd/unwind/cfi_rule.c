/* SPDX-License-Identifier: Apache-2.0 */

/* From a row of call frame information to a rule of ours.
 *
 * A row may say anything, by expressions of a stack machine; a rule says what real code needs.
 * Expressions that compilers, linkers and hand-written assembly make are known by their shape: a
 * PLT's, a signal frame's, the frame of a function that realigned its stack, a saved stack pointer
 * (OpenSSL). What has another shape is reported, never approximated: a wrong caller is worse than
 * none.
 *
 * A register whose place cannot be told is lost and the row stays: most callers never need it.
 *
 * Source: DWARF 5, 2.5 and 6.4.2; the shapes are from gcc, binutils, glibc, the kernel's vDSO and
 * OpenSSL's perlasm. Sandbox only. */

#include "agentd/unwind/unwind_private.h"

/* [breg R, offset] [deref] [plus]: what most expressions are. */
struct shape {
	uint64_t reg;
	int64_t offset, add;
	bool deref;
};

static bool read_breg(struct cursor *in, uint64_t *reg, int64_t *offset)
{
	uint8_t op = cursor_u8(in);

	if (op >= OP_BREG0 && op < OP_BREG0 + 32)
		*reg = op - OP_BREG0;
	else if (op == OP_BREGX)
		*reg = cursor_uleb(in);
	else
		return false;
	*offset = cursor_sleb(in);
	return !in->bad;
}

static bool read_small(struct cursor *in, uint64_t *value)
{
	uint8_t op = cursor_u8(in);

	if (op >= OP_LIT0 && op < OP_LIT0 + 32)
		*value = op - OP_LIT0;
	else if (op == OP_CONST1U)
		*value = cursor_u8(in);
	else if (op == OP_CONST2U)
		*value = cursor_u16(in);
	else
		return false;
	return !in->bad;
}

/* plus_uconst N; lit N, plus; const N, plus. Nothing: 0. */
static bool read_plus(struct cursor *in, int64_t *add)
{
	uint64_t value;

	*add = 0;
	if (in->at == in->end)
		return true;
	if (*in->at == OP_PLUS_UCONST) {
		in->at++;
		value = cursor_uleb(in);
	} else if (*in->at == OP_CONST1S) {
		in->at++;
		value = (uint64_t)(int64_t)(int8_t)cursor_u8(in);
		if (cursor_u8(in) != OP_PLUS)
			return false;
	} else if (*in->at == OP_CONST2S) {
		in->at++;
		value = (uint64_t)(int64_t)(int16_t)cursor_u16(in);
		if (cursor_u8(in) != OP_PLUS)
			return false;
	} else {
		if (!read_small(in, &value) || cursor_u8(in) != OP_PLUS)
			return false;
	}
	*add = (int64_t)value;
	return !in->bad && in->at == in->end;
}

static bool read_shape(const uint8_t *expression, size_t len, struct shape *s)
{
	struct cursor in = {expression, expression + len, false};

	*s = (struct shape){0};
	if (!read_breg(&in, &s->reg, &s->offset))
		return false;
	if (in.at < in.end && *in.at == OP_DEREF) {
		in.at++;
		s->deref = true;
	}
	if (!read_plus(&in, &s->add))
		return false;
	if (!s->deref && __builtin_add_overflow(s->offset, s->add, &s->offset))
		return false;
	return true;
}

/* breg SP offset; breg PC 0; lit15; and; lit N; ge; lit3; shl; plus: how far into a slot of 16
 * bytes of the PLT? Behind the push at N the stack is one deeper. */
static bool read_plt(const struct unwind_machine *m, const uint8_t *expression, size_t len,
	int64_t *offset, uint64_t *threshold)
{
	struct cursor in = {expression, expression + len, false};
	uint64_t reg, value;
	int64_t zero;

	if (!read_breg(&in, &reg, offset) || reg != m->sp)
		return false;
	if (!read_breg(&in, &reg, &zero) || reg != m->ra || zero != 0)
		return false;
	if (!read_small(&in, &value) || value != 15 || cursor_u8(&in) != OP_AND)
		return false;
	if (!read_small(&in, threshold) || *threshold > 15 || cursor_u8(&in) != OP_GE)
		return false;
	if (!read_small(&in, &value) || value != 3 || cursor_u8(&in) != OP_SHL)
		return false;
	return cursor_u8(&in) == OP_PLUS && !in.bad && in.at == in.end;
}

/* breg SP offset; breg R 0; lit8; mul; plus; deref; plus N: the frame lies behind an array whose
 * length is in a register (OpenSSL's Montgomery multiplication, in its own leaf). */
static bool read_scaled(
	const struct unwind_machine *m, const uint8_t *expression, size_t len, struct shape *s)
{
	struct cursor in = {expression, expression + len, false};
	uint64_t reg, value;
	int64_t zero;

	*s = (struct shape){.deref = true};
	if (!read_breg(&in, &reg, &s->offset) || reg != m->sp)
		return false;
	if (!read_breg(&in, &s->reg, &zero) || s->reg >= m->leaf || zero != 0)
		return false;
	if (!read_small(&in, &value) || value != UNWIND_SLOT || cursor_u8(&in) != OP_MUL)
		return false;
	if (cursor_u8(&in) != OP_PLUS || cursor_u8(&in) != OP_DEREF || in.bad)
		return false;
	return read_plus(&in, &s->add);
}

static int set_base(const struct cfi *c, struct unwind_rule *rule, uint64_t reg)
{
	const struct unwind_machine *m = c->machine;

	if (reg == m->sp)
		rule->cfa = UNWIND_CFA_SP;
	else if (reg == m->fp)
		rule->cfa = UNWIND_CFA_FP;
	else if (reg == m->aux && c->follow_aux)
		rule->cfa = UNWIND_CFA_AUX;
	else if (reg < m->leaf)
		rule->cfa = UNWIND_CFA_LEAF;
	else
		return UNWIND_PROBLEM_CFA_REGISTER + 1;
	if (rule->cfa == UNWIND_CFA_LEAF)
		rule->reg = (uint8_t)reg;
	return 0;
}

static int cfa_rule(const struct cfi *c, const struct cfi_state *state, struct unwind_rule *rule)
{
	const struct unwind_machine *m = c->machine;
	struct shape s = {.reg = state->reg, .offset = state->offset};
	int64_t offset;
	uint64_t threshold;
	bool scaled = false;

	if (!state->has_cfa)
		return UNWIND_PROBLEM_DAMAGED + 1;
	if (state->expression &&
		read_plt(m, state->expression, state->expression_len, &offset, &threshold)) {
		s = (struct shape){.reg = m->sp, .offset = offset};
		rule->flags |= UNWIND_PLT;
		rule->reg = (uint8_t)threshold;
	} else if (state->expression && !read_shape(state->expression, state->expression_len, &s)) {
		scaled = read_scaled(m, state->expression, state->expression_len, &s);
		if (!scaled)
			return UNWIND_PROBLEM_CFA_EXPRESSION + 1;
	}
	if (s.deref)
		rule->flags |= UNWIND_DEREF;
	if (s.offset != (int32_t)s.offset || (s.deref && s.add != (int16_t)s.add))
		return UNWIND_PROBLEM_OFFSET + 1;
	rule->cfa_offset = (int32_t)s.offset;
	rule->cfa_add = s.deref ? (int16_t)s.add : 0;
	if (scaled) {
		rule->cfa = UNWIND_CFA_SCALED;
		rule->reg = (uint8_t)s.reg;
		return 0;
	}
	return set_base(c, rule, s.reg);
}

/* An offset in slots. */
static bool in_slots(int64_t bytes, int16_t *ret)
{
	if (bytes % UNWIND_SLOT != 0 || bytes / UNWIND_SLOT != (int16_t)(bytes / UNWIND_SLOT))
		return false;
	*ret = (int16_t)(bytes / UNWIND_SLOT);
	return true;
}

/* From which register, and how far, does the place count? flag: 0 from the CFA. */
static bool place(
	const struct unwind_machine *m, const struct cfi_loc *loc, int16_t *offset, unsigned *flag)
{
	struct shape s;

	*flag = 0;
	if (loc->kind == LOC_AT_CFA)
		return in_slots(loc->value, offset);
	if (loc->kind != LOC_EXPRESSION || !read_shape(loc->expression, loc->len, &s) || s.deref)
		return false;
	if (s.reg != m->sp && s.reg != m->fp)
		return false;
	*flag = s.reg == m->sp ? UNWIND_SAVED_SP : UNWIND_SAVED_FP;
	return in_slots(s.offset, offset);
}

static int return_rule(
	const struct unwind_machine *m, const struct cfi_loc *loc, struct unwind_rule *rule)
{
	unsigned flag;

	switch (loc->kind) {
	case LOC_UNDEFINED:
		*rule = (struct unwind_rule){.cfa = UNWIND_CFA_END};
		return 0;
	case LOC_SAME:
		if (!m->ra_is_aux)
			return UNWIND_PROBLEM_RETURN_RULE + 1;
		rule->flags |= UNWIND_RA_AUX;
		return 0;
	case LOC_REGISTER:
		if (loc->value < 0 || loc->value >= m->leaf)
			return UNWIND_PROBLEM_RETURN_RULE + 1;
		rule->flags |= UNWIND_RA_LEAF;
		rule->ra_offset = (int16_t)loc->value;
		return 0;
	case LOC_AT_CFA:
	case LOC_EXPRESSION:
		if (!place(m, loc, &rule->ra_offset, &flag) || flag == UNWIND_SAVED_FP)
			return UNWIND_PROBLEM_RETURN_RULE + 1;
		if (flag == UNWIND_SAVED_SP)
			rule->flags |= UNWIND_RA_SP;
		return 0;
	default:
		return UNWIND_PROBLEM_RETURN_RULE + 1;
	}
}

/* The caller's stack pointer has to be the CFA. A signal frame says the same by a second
 * expression. longjmp's and setcontext's last rows say where they jump to, which is not who called
 * them: for some instructions nothing is said that a stack of callers could use. */
static int stack_rule(const struct unwind_machine *m, const struct cfi_state *state,
	const struct unwind_rule *rule)
{
	const struct cfi_loc *loc = &state->loc[TRACK_SP];
	struct shape s;

	if (loc->kind == LOC_SAME || (loc->kind == LOC_VAL_CFA && loc->value == 0))
		return 0;
	if (loc->kind == LOC_EXPRESSION && (rule->flags & UNWIND_DEREF) && rule->cfa_add == 0 &&
		rule->cfa == UNWIND_CFA_SP && read_shape(loc->expression, loc->len, &s) &&
		!s.deref && s.reg == m->sp && s.offset == rule->cfa_offset)
		return 0;
	return UNWIND_PROBLEM_STACK_RULE + 1;
}

static void saved_rules(
	const struct cfi *c, const struct cfi_state *state, struct unwind_rule *rule, bool *lost)
{
	const struct unwind_machine *m = c->machine;
	const struct cfi_loc *fp = &state->loc[TRACK_FP], *aux = &state->loc[TRACK_AUX];
	unsigned fp_base = 0, aux_base = 0;

	if (fp->kind != LOC_SAME) {
		if (place(m, fp, &rule->fp_offset, &fp_base))
			rule->flags |= (uint16_t)(UNWIND_FP_SAVED | fp_base);
		else
			rule->flags |= UNWIND_FP_LOST;
	}
	if (!c->follow_aux && !(m->ra_is_aux || (rule->flags & UNWIND_RA_SP))) {
		rule->flags |= UNWIND_AUX_LOST;
	} else if (aux->kind != LOC_SAME) {
		/* One base serves both. */
		if (place(m, aux, &rule->aux_offset, &aux_base) &&
			(!(rule->flags & UNWIND_FP_SAVED) || aux_base == fp_base))
			rule->flags |= (uint16_t)(UNWIND_AUX_SAVED | aux_base);
		else
			rule->flags |= UNWIND_AUX_LOST;
	}
	*lost = (rule->flags & UNWIND_FP_LOST) ||
		(c->follow_aux && (rule->flags & UNWIND_AUX_LOST));
	/* So that equal rules are equal bytes. */
	if (rule->flags & UNWIND_FP_LOST)
		rule->fp_offset = 0;
	if (rule->flags & UNWIND_AUX_LOST)
		rule->aux_offset = 0;
}

int cfi_rule(const struct cfi *c, const struct cfi_cie *cie, const struct cfi_state *state,
	struct unwind_rule *ret, bool *lost)
{
	const struct unwind_machine *m = c->machine;
	struct unwind_rule rule = {0};
	int problem;

	*lost = false;
	/* No return address: nothing else of the row matters. */
	if (state->loc[TRACK_RA].kind == LOC_UNDEFINED)
		return return_rule(m, &state->loc[TRACK_RA], ret);
	problem = cfa_rule(c, state, &rule);
	if (!problem)
		problem = return_rule(m, &state->loc[TRACK_RA], &rule);
	if (!problem)
		problem = stack_rule(m, state, &rule);
	if (problem)
		return problem;
	saved_rules(c, state, &rule, lost);
	if (cie->signal)
		rule.flags |= UNWIND_SIGNAL | UNWIND_MOVES;
	*ret = rule;
	return 0;
}
