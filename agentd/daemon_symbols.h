/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How well each binary is named, for `odictl symbols`: counted batch by batch, since agentd started. Of at most
 * FIGURES_MAX binaries; of those beyond, the ones that were not seen for longest are summed in one row. Values are
 * samples. */

#include "agentd/profile/profile.h"
#include "agentd/symbol/symbol.h"

#define FIGURES_MAX    4096
#define FIGURES_KERNEL "[kernel]" /* path of the row of all kernel frames, modules included */

/* One binary: a path, and a build id where it has one. */
struct figure {
	char *path;
	char build_id[41];
	uint64_t samples;       /* with a frame of it */
	uint64_t frames, named; /* its frames, by sample; those with a name */
	uint64_t batch;         /* the last one that it was in; counts from 1 */
	/* As the symbolizer last said of it; seen: it did. */
	bool seen, has_debug_info, has_symtab, has_debug_file;
	uint32_t file; /* its id then */
	char named_by[32], problem[192];
	uint64_t cpu_us;
	uint64_t cpu_before_us; /* of it, spent under ids before this one */
};

struct figures_totals {
	uint64_t samples, frames, named; /* of all batches; markers are no frames */
	uint64_t other_files;            /* that have no row any more */
	uint64_t other_samples;          /* each counted once for each of those files */
	uint64_t other_frames, other_named;
	uint64_t lost; /* files in batches that could not be counted: no memory */
};

struct figures;
int figures_new(struct figures **ret);
struct figures *figures_free(struct figures *f);
DEFINE_FREEP(figures_freep, struct figures *, figures_free)

/* A batch as it goes out, once. */
void figures_count(struct figures *f, const struct batch *b);
/* What the symbolizer says of a file; path: as the batch's mappings have it. */
void figures_facts(
	struct figures *f, const char *path, uint32_t file, const struct symbol_file_facts *facts);
/* All, most samples first; borrowed until the next call of the others. Caller frees the list. -ENOMEM. */
int figures_list(const struct figures *f, const struct figure ***ret, size_t *ret_n);
const struct figures_totals *figures_totals(const struct figures *f);
