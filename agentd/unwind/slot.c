/* SPDX-License-Identifier: Apache-2.0 */

/* A page's rows as the kernel walks by them: packed in the sandbox, checked in agentd.
 *
 * A slot stands for itself: its rules come with its rows. So a page can be put in, replaced and
 * dropped without asking who else names a rule, nothing has to be said about a file before its
 * first page, and a child that is started anew owes nobody the numbers that the one before it gave
 * out. Measured over whole files, in MB of slots against rows with one dictionary for the file:
 * libLLVM-14 3.9 and 3.3, libclang-cpp 4.0 and 3.6, node 1.2 and 1.1, libjvm 0.55 and 0.52,
 * libcrypto 0.33 and 0.29, python3 0.30 and 0.24; a page names 8 to 90 rules, at most 154 of the
 * file's 11 to 767. That is 5 to 25 % of the few pages of a file that are ever loaded, and saves a
 * second table in the kernel with its own index, eviction and races (tests/unit/unwind/measure.c).
 *
 * The packing side is fed by a stranger's file, so the checker is the wall: what it lets pass is
 * searched without a further look at a bound. It does not judge rules: the step takes any
 * (bpf/unwind_step.h), and a file may say anything of its own frames.
 *
 * Invariants of a checked slot: the arrays lie one behind the other as tables.h has them, with
 * nothing between or behind; the first pc is 0 and they rise; each row names a rule that is there;
 * each part begins in the row that the head says; the first rules are the fixed ones. Source:
 * bpf/tables.h. */

#define UNWIND_PC(ctx, i) (((const sample_u16 *)(ctx))[i])

#include "agentd/base/macros.h"
#include "agentd/unwind/slot.h"
#include "bpf/unwind_step.h"

#define RULES_ALIGN 16

static uint32_t rules_at(uint32_t n_rows)
{
	uint32_t end = (uint32_t)sizeof(struct rows_slot) + n_rows * 4;

	return (end + RULES_ALIGN - 1) & ~(uint32_t)(RULES_ALIGN - 1);
}

/* The head, and zeroes where nothing else goes. */
static struct rows_slot *begin(struct rows_slot *to, uint32_t n_rows, uint32_t n_rules)
{
	uint32_t at = rules_at(n_rows), end = (uint32_t)sizeof(*to) + n_rows * 4;

	*to = (struct rows_slot){
		.n_rows = n_rows,
		.n_rules = n_rules,
		.rules_at = at,
		.size = at + n_rules * (uint32_t)sizeof(struct unwind_rule),
	};
	memset((uint8_t *)to + end, 0, at - end);
	return to;
}

/* Of a page's rows: the last one that begins at or below the part. */
static void fill_parts(struct rows_slot *to)
{
	const uint16_t *pc = (const void *)(to + 1);
	uint32_t row = 0;

	for (uint32_t i = 0; i <= ROWS_PARTS; i++) {
		while (row + 1 < to->n_rows && pc[row + 1] <= i << ROWS_PART_SHIFT)
			row++;
		to->part[i] = (uint16_t)row;
	}
}

size_t rows_slot_pack(const struct unwind_page *page, const struct unwind_rules *d,
	struct rows_slot *to, size_t room)
{
	uint32_t n_rules = MIN(d->n, (uint32_t)ROWS_RULES_MAX);
	uint8_t *at = (uint8_t *)(to + 1);

	if (room < ROWS_SLOT_MAX || page->n == 0 || page->n > ROWS_MAX ||
		n_rules < UNWIND_FIXED_RULES)
		return rows_slot_empty(to, UNWIND_CFA_NONE);
	begin(to, page->n, n_rules);
	memcpy(at, page->pc, page->n * sizeof(page->pc[0]));
	fill_parts(to);
	at += page->n * sizeof(page->pc[0]);
	for (uint32_t i = 0; i < page->n; i++, at += sizeof(uint16_t)) {
		uint16_t rule = page->rule[i] < n_rules ? page->rule[i] : UNWIND_CFA_UNSUPPORTED;

		memcpy(at, &rule, sizeof(rule));
	}
	memcpy((uint8_t *)to + to->rules_at, d->rules, n_rules * sizeof(d->rules[0]));
	return to->size;
}

size_t rows_slot_empty(struct rows_slot *to, enum unwind_cfa cfa)
{
	struct unwind_rule fixed[UNWIND_FIXED_RULES] = {{0}};
	uint16_t row[2] = {0, (uint16_t)(cfa < UNWIND_FIXED_RULES ? cfa : UNWIND_CFA_NONE)};

	begin(to, 1, UNWIND_FIXED_RULES);
	for (unsigned i = 0; i < UNWIND_FIXED_RULES; i++)
		fixed[i].cfa = (uint8_t)i;
	memcpy(to + 1, row, sizeof(row));
	memcpy((uint8_t *)to + to->rules_at, fixed, sizeof(fixed));
	return to->size;
}

static bool fixed_rules(const struct rows_slot *slot)
{
	for (unsigned i = 0; i < UNWIND_FIXED_RULES; i++) {
		struct unwind_rule want = {.cfa = (uint8_t)i};

		if (memcmp((const uint8_t *)slot + slot->rules_at + i * sizeof(want), &want,
			    sizeof(want)) != 0)
			return false;
	}
	return true;
}

int rows_slot_check(const struct rows_slot *slot, size_t size)
{
	const uint16_t *pc = (const void *)(slot + 1), *rule;

	if (size < sizeof(*slot) || size > ROWS_SLOT_MAX || slot->size != size ||
		slot->n_rows == 0 || slot->n_rows > ROWS_MAX ||
		slot->n_rules < UNWIND_FIXED_RULES || slot->n_rules > ROWS_RULES_MAX ||
		slot->rules_at != rules_at(slot->n_rows) ||
		size != slot->rules_at + slot->n_rules * sizeof(struct unwind_rule))
		return -EBADMSG;
	rule = pc + slot->n_rows;
	if (pc[0] != 0 || !fixed_rules(slot))
		return -EBADMSG;
	for (uint32_t i = 0; i < slot->n_rows; i++)
		if (rule[i] >= slot->n_rules || (i && pc[i] <= pc[i - 1]))
			return -EBADMSG;
	for (uint32_t i = 0; i <= ROWS_PARTS; i++) {
		uint32_t row = slot->part[i], begin = i << ROWS_PART_SHIFT;

		if (row >= slot->n_rows || pc[row] > begin ||
			(row + 1 < slot->n_rows && pc[row + 1] <= begin))
			return -EBADMSG;
	}
	return 0;
}

const struct unwind_rule *rows_slot_rule(const struct rows_slot *slot, uint32_t offset)
{
	const uint16_t *pc = (const void *)(slot + 1), *rule = pc + slot->n_rows;
	const struct unwind_rule *rules = (const void *)((const uint8_t *)slot + slot->rules_at);
	uint32_t part = offset >> ROWS_PART_SHIFT & (ROWS_PARTS - 1), first = slot->part[part];

	return &rules[rule[unwind_search((void *)pc, first, slot->part[part + 1] - first + 1U,
		offset & (UNWIND_PAGE_SIZE - 1), ROWS_PART_TURNS)]];
}
