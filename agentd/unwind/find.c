/* SPDX-License-Identifier: Apache-2.0 */

/* The search of bpf/unwind_step.h over a page in memory: the same code that the programs in the
 * kernel run over theirs. Any role. */

#define UNWIND_PC(ctx, i) (((const sample_u16 *)(ctx))[i])

#include "agentd/unwind/unwind.h"
#include "bpf/unwind_step.h"

uint16_t unwind_page_find(const struct unwind_page *page, uint64_t offset)
{
	if (page->n == 0 || page->n > UNWIND_PAGE_ROWS)
		return UNWIND_CFA_NONE;
	return page->rule[unwind_search((void *)page->pc, 0, page->n,
		(uint32_t)offset & (UNWIND_PAGE_SIZE - 1), UNWIND_PAGE_SHIFT)];
}
