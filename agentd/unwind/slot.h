/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A page's rows in the form that the kernel walks by (bpf/tables.h). */

#include "agentd/unwind/unwind.h"
#include "bpf/tables.h"

/* Packs page, whose rules are in d (a dictionary of that page alone), into to. Rules that find no room
 * become UNWIND_CFA_UNSUPPORTED. The size. key and seq are 0. */
size_t rows_slot_pack(const struct unwind_page *page, const struct unwind_rules *d,
	struct rows_slot *to, size_t room /* at least ROWS_SLOT_MAX */);
/* A page of one row, cfa one of the first four. The size. */
size_t rows_slot_empty(struct rows_slot *to, enum unwind_cfa cfa);
/* -EBADMSG: not what tables.h says (sizes, order of pcs, first pc, indices of rules, fixed rules). */
int rows_slot_check(const struct rows_slot *slot, size_t size);
/* The rule for an offset within the page; of a checked slot. */
const struct unwind_rule *rows_slot_rule(const struct rows_slot *slot, uint32_t offset);
