/* SPDX-License-Identifier: Apache-2.0 */

/* The native resolver on any bytes as a file: what it answers fits into a message, and that message is sound to the
 * other side. Corpus: tests/fuzz/corpus/symbol_native. */

#include <sys/mman.h>

#include "agentd/base/io.h"
#include "agentd/symbol/resolver.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct symbol_writer writer;
	static struct found found;
	_cleanup_close_ int fd = memfd_create("fuzz", MFD_CLOEXEC);
	struct symbol_facts_message facts = {.header = {.version = SYMBOL_PROTOCOL,
						     .message = SYMBOL_MESSAGE_FACTS,
						     .size = sizeof(facts)}};
	struct symbol_names_view view;
	uint32_t next = 0, n = 0;
	struct resolver_input in = {.fd = fd, .debug_fd = -1, .alt_fd = -1};
	void *state = NULL;
	size_t len;

	check(fd >= 0 && io_write_all(fd, data, size) == 0);
	if (resolver_native.open(&state, &in, &facts) == 0) {
		for (uint64_t at = 0; at < size + 64 && n < SYMBOL_ADDRESSES_MAX;
			at += 1 + size / 128, n++) {
			int r;

			found_reset(&found);
			r = resolver_native.find(state, at, &found);
			if (r != 1 && r != RESOLVER_BARE)
				continue;
			check(r == 1 ? found.n >= 1 : found.n == 0 && found.before <= at);
			if (symbol_writer_add(&writer, n, &found) < 0)
				break;
		}
		check(resolver_native.memory(state) < (64 << 20));
		resolver_native.close(state);
	}
	check(symbol_decode(&facts, sizeof(facts), 0, n + 1, &next, &view) == 0);
	len = symbol_writer_take(&writer);
	if (len)
		check(symbol_decode(writer.message, len, 0, n + 1, &next, &view) == 0);
	return 0;
}
