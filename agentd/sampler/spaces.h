/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What images have mapped, as blocks in memory that the programs read (bpf/tables.h): who has which
 * block, and which one goes when another needs its place. For this room alone. */

#include "agentd/base/map.h"
#include "agentd/sampler/quiet.h"
#include "bpf/tables.h"

struct space_image;

struct space_block {
	uint64_t hash;      /* of its maps */
	uint64_t files;     /* a bit for each file's hash: whether it may name one */
	uint32_t unit, n;   /* n: maps */
	uint32_t tag, refs; /* refs: images */
};

struct spaces {
	struct space_map *units; /* borrowed */
	struct quiet *quiet;     /* borrowed */
	uint32_t n_units;
	uint64_t *taken;                  /* a bit a unit */
	uint32_t next;                    /* where the last search ended */
	uint32_t tag;                     /* the last one given */
	bool retired;                     /* some free memory may still be read by a program */
	struct map *images, *blocks;      /* by image; by hash (one of equal hash, the newest) */
	struct space_image *first, *last; /* set most recently, least recently */
	size_t n_images, max_images;
	uint64_t n_blocks, n_maps, evicted;
};

/* units: a power of two of them, zeroed. -ENOMEM. */
int spaces_init(struct spaces *s, struct space_map *units, uint32_t n_units, size_t max_images,
	struct quiet *quiet);
void spaces_deinit(struct spaces *s);
/* Where the image's maps are from now on. known_tag: what its verdict names, 0 none: the block's tag is
 * never an older one than that or than what was given to the image before. n is not 0.
 * -E2BIG, -EINVAL, -ENOSPC, -ENOMEM; -EAGAIN: memory is still being read, try again later. */
int spaces_set(struct spaces *s, const struct sample_image *image, const struct space_map *maps,
	size_t n, uint32_t known_tag, uint32_t *unit, uint32_t *tag);
void spaces_forget(struct spaces *s, const struct sample_image *image);
/* All blocks that name it. */
void spaces_forget_file(struct spaces *s, uint32_t file);
