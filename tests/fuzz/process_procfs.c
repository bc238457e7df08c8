/* SPDX-License-Identifier: Apache-2.0 */

/* Any text as the files of /proc/PID and as OpenTelemetry's variables; the first byte says which. libFuzzer; the
 * first corpus is in tests/fuzz/corpus/process_procfs. */

#include "agentd/base/text.h"
#include "agentd/process/process.h"
#include "agentd/process/procfs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_maps(char *text)
{
	char *rest = text, *line;

	while ((line = strsep(&rest, "\n"))) {
		struct procfs_map m;

		if (procfs_map(line, &m) == 0 && (m.start >= m.end || m.path < line))
			abort();
	}
}

/* In one piece and in small ones: the same. */
static void fuzz_environ(const char *data, size_t size, size_t piece)
{
	static struct environ_scan whole, pieces;

	environ_scan_init(&whole);
	environ_scan_init(&pieces);
	environ_scan_feed(&whole, data, size);
	environ_scan_end(&whole);
	for (size_t at = 0; at < size; at += piece)
		environ_scan_feed(&pieces, data + at, MIN(piece, size - at));
	environ_scan_end(&pieces);
	if (whole.have_service_name != pieces.have_service_name ||
		whole.too_long != pieces.too_long ||
		strcmp(whole.service_name, pieces.service_name) != 0 ||
		strcmp(whole.attributes, pieces.attributes) != 0)
		abort();
}

static void fuzz_otel(const char *text)
{
	struct attribute *list;
	size_t n;
	int r = otel_parse(text, &list, &n);

	if (r < 0)
		return;
	if (n > OTEL_ATTRIBUTES_MAX)
		abort();
	for (size_t i = 0; i < n; i++)
		if (!*list[i].key || !text_is_clean(list[i].key, OTEL_KEY_MAX) ||
			!text_is_clean(list[i].value, OTEL_VALUE_MAX))
			abort();
	otel_free(list, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct procfs_stat stat;
	char *text = size ? malloc(size) : NULL;

	if (!text)
		return 0;
	memcpy(text, data + 1, size - 1);
	text[size - 1] = 0;
	switch (data[0] % 5) {
	case 0:
		(void)procfs_stat(text, &stat);
		break;
	case 1:
		(void)procfs_strip_deleted(text);
		break;
	case 2:
		fuzz_maps(text);
		break;
	case 3:
		fuzz_environ(text, size - 1, 1 + (size_t)data[0] / 5);
		break;
	case 4:
		fuzz_otel(text);
		break;
	}
	free(text);
	return 0;
}
