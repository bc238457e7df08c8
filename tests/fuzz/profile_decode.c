/* SPDX-License-Identifier: Apache-2.0 */

/* profile_decode() on any bytes; what it takes can be walked, encoded, decoded again to the same
 * totals, merged and made into a call tree. Corpus: tests/fuzz/corpus/profile_decode. */

#include "agentd/profile/batch_private.h"
#include "agentd/profile/tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct query everything = {.to_unix_ns = UINT64_MAX, .max_nodes = 50};
	CLEANUP(batch_freep) struct batch *b = NULL, *again = NULL, *merged = NULL;
	CLEANUP(tree_freep) struct tree *tree = NULL;
	uint64_t totals[PROFILE_TYPES], totals_again[PROFILE_TYPES];
	struct query_result result;
	_cleanup_buf_ struct buf bytes;
	int r;

	buf_init(&bytes, 0);
	if (profile_decode(data, size, &b, NULL) < 0)
		return 0;
	check(profile_encode(b, NULL, NULL, 0, &bytes) == 0);
	check(profile_decode(bytes.data, bytes.len, &again, NULL) == 0);
	batch_totals(b, totals);
	batch_totals(again, totals_again);
	check(memcmp(totals, totals_again, sizeof(totals)) == 0);
	check(batch_new(&merged) == 0);
	r = batch_merge(merged, b, 1000, 1000);
	check(r == 0 || r == -ERANGE || r == -EEXIST);
	check(tree_new(&tree, &everything) == 0);
	r = tree_add(tree, b);
	check(r == 0 || r == -EBADMSG);
	check(tree_finish(tree, &result) == 0);
	check(result.nodes[0].total_ns == result.total_ns);
	return 0;
}
