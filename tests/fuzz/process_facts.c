/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as the /proc reader's answer about an image, as if hostile text had taken the reader over: what agentd
 * takes from it is within bounds and clean. libFuzzer; the first corpus is in tests/fuzz/corpus/process_facts. */

#include "agentd/base/text.h"
#include "agentd/process/table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct image *image)
{
	const char *const texts[] = {image->exe, image->argv0, image->cmdline, image->cgroup,
		image->unit, image->slice, image->container_id, image->otel_service_name,
		image->comm};

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		if (!text_is_clean(texts[i], 1u << 20))
			abort();
	if (image->n_otel > 64)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static sd_event *loop;
	struct process_config config = {.max_mappings = 50, .max_images = 10, .max_files = 10};
	struct process_ops ops = {};
	struct client_result r = {.t0 = 10, .t1 = 20, .fd = -1};
	struct sample_image key = {.tgid = 7, .exec = 1, .start_boottime = NSEC_PER_SEC};
	struct process_table *t;
	struct entry *e;

	if (size < 1 || (!loop && sd_event_new(&loop) < 0))
		return 0;
	log_set_level(LOG_LEVEL_ERROR);
	if (process_table_new(&t, loop, &config, &ops, NULL, NULL) < 0)
		return 0;
	r.body = data + 1;
	r.len = size - 1;
	e = image_get(t, &key, 5);
	if (e) {
		(void)facts_apply(e, &r, data[0] & (READER_FACTS | READER_MAPS));
		check(&e->image);
		for (size_t i = 0; e->mappings && i < e->mappings->n; i++)
			if (e->mappings->v[i].start >= e->mappings->v[i].end ||
				(i && e->mappings->v[i - 1].end > e->mappings->v[i].start))
				abort();
		facts_compose(e);
		check(&e->image);
	}
	process_table_free(t);
	return 0;
}
