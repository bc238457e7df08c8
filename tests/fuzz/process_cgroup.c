/* SPDX-License-Identifier: Apache-2.0 */

/* Any text as /proc/PID/cgroup: a path comes of it, clean and within its bounds, and so do its facts. libFuzzer; the
 * first corpus is in tests/fuzz/corpus/process_cgroup. */

#include "agentd/base/text.h"
#include "agentd/process/process.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const char *path)
{
	struct cgroup_facts f;

	cgroup_parse(path, &f);
	if (strnlen(f.unit, sizeof(f.unit)) == sizeof(f.unit) ||
		strnlen(f.slice, sizeof(f.slice)) == sizeof(f.slice))
		abort();
	/* Ids become parts of paths. */
	if (f.container_id[strspn(f.container_id, "0123456789abcdef-")])
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size), path[4096], small[8];

	if (!text)
		return 0;
	cgroup_best(text, path, sizeof(path));
	if (path[0] != '/' || !text_is_clean(path, sizeof(path)))
		abort();
	check(path);
	check(text);
	cgroup_best(text, small, sizeof(small));
	free(text);
	return 0;
}
