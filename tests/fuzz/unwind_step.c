/* SPDX-License-Identifier: Apache-2.0 */

/* The step on rules, registers and a stack that are garbage: it reads through its reader only,
 * says one of its results, and a walk whose rules stay on one stack ends because the stack pointer
 * rises. Corpus: tests/fuzz/corpus/unwind_step. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct stack;
static int read_stack(struct stack *s, void *to, unsigned size, uint64_t address);
#define UNWIND_READ(ctx, to, size, address) read_stack(ctx, to, size, address)

#include "bpf/unwind_step.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STACK_AT 0x7ffd00000000ULL
#define REACH    65536 /* slots that a return address may lie from the CFA, both ways */

struct stack {
	const uint8_t *data;
	size_t len;
	unsigned reads;
};

static int read_stack(struct stack *s, void *to, unsigned size, uint64_t address)
{
	s->reads++;
	if ((size != 8 && size != 16) || address < STACK_AT || address - STACK_AT > s->len ||
		size > s->len - (address - STACK_AT))
		return -1;
	memcpy(to, s->data + (address - STACK_AT), size);
	return 0;
}

static void check(int ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct unwind_regs r;
	struct unwind_rule rules[8];
	struct stack s;
	uint64_t steps = 0, most;

	if (size < sizeof(rules) + 40)
		return 0;
	memcpy(rules, data, sizeof(rules));
	data += sizeof(rules);
	memset(&r, 0, sizeof(r));
	r.flags = data[0] & 31;
	/* Near the stack, most often: else nothing is ever read. */
	memcpy(&r.pc, data + 1, 8);
	r.sp = STACK_AT + data[9] * 8;
	r.fp = STACK_AT + data[10] * 8;
	r.aux = STACK_AT + data[11] * 8;
	r.fp_at = data[12] ? STACK_AT + data[12] * 8 : 0;
	r.leaf_at = data[8] ? STACK_AT + data[8] * 8 : 0;
	r.aux_at = data[13] ? STACK_AT + data[13] * 8 : 0;
	for (unsigned i = 0; i < UNWIND_LEAF_REGS; i++)
		r.leaf[i] = STACK_AT + data[14 + i % 16] * 4;
	s = (struct stack){.data = data + 30, .len = size - sizeof(rules) - 30};
	most = s.len / 8 + REACH;
	for (;; steps++) {
		const struct unwind_rule *rule = &rules[unwind_lookup_pc(&r) % 8];
		uint64_t sp = r.sp, pc = r.pc;
		int result;

		s.reads = 0;
		result = unwind_step(&r, rule, &s);
		check(result >= UNWIND_OK && result <= UNWIND_BAD_STACK);
		check(s.reads <= 6);
		if (result != UNWIND_OK) {
			check(r.sp == sp && (r.pc == pc || (result == UNWIND_ENDED && r.pc == 0)));
			break;
		}
		check((r.sp & 7) == 0);
		if (rule->flags & UNWIND_MOVES) {
			if (steps > 2000)
				break; /* the walk's own bound on frames */
			most = steps + s.len / 8 + REACH;
			continue;
		}
		check(r.sp >= sp);
		/* Each step rises within the stack, but where the return address was in a
		 * register. */
		check(steps <= 2 * most);
	}
	return 0;
}
