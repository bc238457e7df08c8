/* SPDX-License-Identifier: Apache-2.0 */

/* The wall before the kernel's rows, on any bytes: a slot that it lets pass is searched at every offset
 * without a step beyond it. Corpus: tests/fuzz/corpus/unwind_slot. */

#include "agentd/base/macros.h"
#include "agentd/unwind/slot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* A block of its own size, so that a step beyond it is seen. */
	_cleanup_free_ uint8_t *bytes = malloc(size + !size);
	const struct rows_slot *slot = (const void *)bytes;
	uint32_t sum = 0;

	if (!bytes)
		return 0;
	memcpy(bytes, data, size);
	if (rows_slot_check(slot, size) < 0)
		return 0;
	for (uint32_t at = 0; at < UNWIND_PAGE_SIZE; at += at < 512 ? 1 : 61)
		sum += rows_slot_rule(slot, at)->flags;
	sum += rows_slot_rule(slot, UNWIND_PAGE_SIZE - 1)->flags;
	/* Used, so that nothing of it goes. */
	return sum == UINT32_MAX ? 1 : 0;
}
