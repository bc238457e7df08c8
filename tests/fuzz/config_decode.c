/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as a stored document: refused, or exactly what encoding makes of it. */

#include "agentd/config/config_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(config_doc_freep) struct config_doc *d = NULL;
	CLEANUP(config_freep) struct config *c = NULL;
	const struct config_doc *docs[LAYERS] = {};
	struct merged m CLEANUP(merged_deinit) = {};
	_cleanup_buf_ struct buf text;
	struct err_text err = {""};

	buf_init(&text, 0);
	if (config_doc_decode((const char *)data, size, &d, &err) < 0)
		return 0;
	if (config_doc_encode(d, &text) < 0 || text.len != size ||
		(size && memcmp(text.data, data, size) != 0))
		abort();
	/* And its meaning, with every check of the sources and destinations. */
	docs[LAYER_LOCAL] = d;
	if (config_merge(docs, &m) < 0)
		abort();
	if (config_build(docs, &m, 1, &c, &err) < 0 && !err.text[0])
		abort();
	return 0;
}
