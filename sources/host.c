/* SPDX-License-Identifier: Apache-2.0 */

/* The whole host: what no other source takes, kernel threads too. Runs in agentd. */

#include "sources/kind.h"

static int parse(struct source *source, struct err_text *err)
{
	if (*source->match)
		return err_set(err, -EINVAL,
			"a host source takes everything and has no MATCH: leave out \"%s\", or use another kind",
			source->match);
	return 0;
}

static enum source_rank rank(const struct source *source)
{
	return SOURCE_RANK_HOST;
}

static bool match(
	const struct source *source, struct process_table *table, const struct image *image)
{
	return true;
}

const struct source_kind source_kind_host = {
	.name = "host",
	.summary =
		"everything on this host that no other source takes; kernel threads are the service `kernel`",
	.example = "odictl source add host",
	.match_help = "none",
	.parse = parse,
	.rank = rank,
	.match = match,
	.default_service = source_default_service,
};
