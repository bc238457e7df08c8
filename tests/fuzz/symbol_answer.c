/* SPDX-License-Identifier: Apache-2.0 */

/* agentd's check of what the symbolizer says, on any bytes: of what it takes, everything is read as the client reads
 * it. Corpus: tests/fuzz/corpus/symbol_answer. */

#include "agentd/base/text.h"
#include "agentd/symbol/protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_text(const struct symbol_names_view *view, const struct symbol_wire_string *s)
{
	const char *text = symbol_view_text(view, s);

	if (strlen(text) != s->len || !text_is_clean(text, SYMBOL_NAME_MAX))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* A block of its own size, so that a step beyond it is seen. */
	_cleanup_free_ uint8_t *message = malloc(size + 1);
	const struct symbol_header *h = (const void *)message;
	struct symbol_names_view view;
	uint32_t next = 0, functions = 0;

	if (!message || size > SYMBOL_MESSAGE_MAX)
		return 0;
	memcpy(message, data, size);
	message[size] = 'x';
	if (symbol_decode(message, size, 1, 100, &next, &view) < 0 ||
		h->message != SYMBOL_MESSAGE_NAMES)
		return 0;
	for (uint32_t i = 0; i < view.n_rows; i++) {
		if (view.rows[i].address >= 100)
			abort();
		read_text(&view, &view.rows[i].module);
		for (uint16_t f = 0; f < view.rows[i].n; f++, functions++) {
			read_text(&view, &view.functions[functions].name);
			read_text(&view, &view.functions[functions].system_name);
			read_text(&view, &view.functions[functions].file);
		}
	}
	if (functions != view.n_functions || next > 100)
		abort();
	return 0;
}
