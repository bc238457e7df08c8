/* SPDX-License-Identifier: Apache-2.0 */

/* agentd's check of what the unwinder says, on any conversation: messages, each behind its length (16
 * bits), the last one up to the end. What comes through are whole slots in the order asked. Corpus:
 * tests/fuzz/corpus/unwind_answer. */

#include "agentd/base/text.h"
#include "agentd/unwind/protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void look(const struct rows_answer *a, const void *message, int decoded, uint32_t n_before)
{
	switch (decoded) {
	case ROWS_DECODED_READY:
		check(a->n == 0);
		break;
	case ROWS_DECODED_PART:
		check(a->n_done == n_before && a->at > 0 && a->at < ROWS_SLOT_MAX);
		break;
	case ROWS_DECODED_SLOT:
		check(a->n_done == n_before + 1 && a->n_done <= a->n && a->at == 0);
		check(rows_slot_check(&a->in.slot, a->in.slot.size) == 0);
		break;
	case ROWS_DECODED_DONE: {
		const struct rows_done_message *done = message;

		check(done->n_done == n_before && text_is_clean(done->problem, ROWS_PROBLEM_MAX));
		break;
	}
	default:
		check(decoded == -EBADMSG);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct rows_answer a;

	memset(&a, 0, offsetof(struct rows_answer, in));
	a.n = size ? data[0] % (ROWS_REQUEST_PAGES + 1) : 0;
	a.request = a.n ? 7 : 0;
	for (size_t at = 1; at + 2 < size;) {
		size_t len = MIN((size_t)(data[at] | data[at + 1] << 8), size - at - 2);
		_cleanup_free_ uint8_t *message = malloc(len + !len);
		uint32_t n_before = a.n_done;
		int r;

		if (!message)
			return 0;
		memcpy(message, data + at + 2, len);
		at += 2 + len;
		r = rows_decode(&a, message, len);
		look(&a, message, r, n_before);
		if (r < 0)
			return 0;
	}
	return 0;
}
