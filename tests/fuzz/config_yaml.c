/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as a configuration file: a document or a sentence. What is taken has a text form that decodes to the same. */

#include "agentd/config/config_private.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(config_doc_freep) struct config_doc *d = NULL;
	CLEANUP(config_doc_freep) struct config_doc *again = NULL;
	_cleanup_buf_ struct buf text;
	struct err_text err = {""};

	buf_init(&text, 0);
	if (config_doc_from_yaml("f", (const char *)data, size, &d, &err) < 0) {
		if (!err.text[0])
			abort();
		return 0;
	}
	if (config_doc_encode(d, &text) < 0 ||
		config_doc_decode(text.len ? (char *)text.data : "", text.len, &again, &err) < 0 ||
		config_diff(d, again, NULL) != 0)
		abort();
	return 0;
}
