/* SPDX-License-Identifier: Apache-2.0 */

/* Address spaces for the programs: for each image a sorted list of what it has mapped executable, in
 * one array that never grows.
 *
 * Images with equal maps (workers of one server, forked) share a block. A block stays as long as an
 * image has it; when there is no room, images go, the one first that was set least recently, and
 * where many small blocks would have to go for one large one, the neighbours of the first to go
 * instead. An image that lost its block is no loss but a miss: its next sample says so, and
 * whoever knows its maps sets them again.
 *
 * A verdict names its block by unit and tag. Tags are never given twice, so that a verdict whose
 * block went finds another tag there: the tag is cleared first, and what lay behind it is written
 * over only when no program that began before is at work (quiet.h). A later look at that place may
 * find the middle of another block: tags are odd, addresses even, so no map looks like a head with
 * a tag. An image's tags rise (by serial number arithmetic): equal maps of another image are not
 * shared with it when their tag is older than what it had, since its samples are told apart by
 * tags.
 *
 * Invariants: unit 0 belongs to nobody; a block's units are marked in taken; refs is the number of
 * images that name it, never 0 outside of a call. Bounded by n_units and max_images. Runs in
 * agentd. */

#include "agentd/base/hash.h"
#include "agentd/sampler/spaces.h"

#define QUIET_NS     (20 * NSEC_PER_MSEC)
#define NOWHERE      UINT32_MAX
#define FILE_BIT(id) (1ULL << (((id)*0x9e3779b97f4a7c15ULL) >> 58))
#define UNITS_OF(n)  ((uint32_t)(n) + 1) /* the head */

struct space_image {
	struct sample_image key;
	struct space_block *block;
	struct space_image *newer, *older;
};

int spaces_init(struct spaces *s, struct space_map *units, uint32_t n_units, size_t max_images,
	struct quiet *quiet)
{
	*s = (struct spaces){
		.units = units,
		.n_units = n_units,
		.max_images = MAX(max_images, (size_t)1),
		.quiet = quiet,
		.tag = 1,
		.taken = calloc((n_units + 63) / 64, sizeof(uint64_t)),
	};
	if (!s->taken || map_new(&s->images, sizeof(struct sample_image)) < 0 ||
		map_new(&s->blocks, sizeof(uint64_t)) < 0) {
		spaces_deinit(s);
		return -ENOMEM;
	}
	s->taken[0] = 1; /* unit 0 */
	return 0;
}

void spaces_deinit(struct spaces *s)
{
	while (s->first) {
		struct space_image *image = s->first;

		s->first = image->older;
		if (--image->block->refs == 0)
			free(image->block);
		free(image);
	}
	map_free(s->images);
	map_free(s->blocks);
	free(s->taken);
	*s = (struct spaces){0};
}

static struct space_head *head_of(const struct spaces *s, uint32_t unit)
{
	return (struct space_head *)&s->units[unit];
}

/* ---- memory ---------------------------------------------------------------------------------- */

static bool is_taken(const struct spaces *s, uint32_t unit)
{
	return s->taken[unit / 64] >> (unit % 64) & 1;
}

static void mark(struct spaces *s, uint32_t unit, uint32_t n, bool taken)
{
	for (uint32_t i = unit; i < unit + n; i++) {
		if (taken)
			s->taken[i / 64] |= 1ULL << (i % 64);
		else
			s->taken[i / 64] &= ~(1ULL << (i % 64));
	}
}

/* Free units side by side, searched from where the last search ended. */
static uint32_t find_free(struct spaces *s, uint32_t n)
{
	uint32_t at = s->next, run = 0;

	for (uint32_t passed = 0; passed < s->n_units + n;) {
		if (at >= s->n_units)
			at = run = 0;
		if (at % 64 == 0 && s->taken[at / 64] == UINT64_MAX) {
			at += 64;
			passed += 64;
			run = 0;
			continue;
		}
		run = is_taken(s, at) ? 0 : run + 1;
		at++;
		passed++;
		if (run < n)
			continue;
		s->next = at;
		return at - n;
	}
	return NOWHERE;
}

/* ---- blocks and images ----------------------------------------------------------------------- */

static void unref(struct spaces *s, struct space_block *block)
{
	if (--block->refs)
		return;
	__atomic_store_n(&head_of(s, block->unit)->tag, 0, __ATOMIC_RELEASE);
	s->retired = true;
	mark(s, block->unit, UNITS_OF(block->n), false);
	if (map_get(s->blocks, &block->hash, sizeof(block->hash)) == block)
		map_remove(s->blocks, &block->hash, sizeof(block->hash));
	s->n_blocks--;
	s->n_maps -= block->n;
	free(block);
}

static void unlink_image(struct spaces *s, struct space_image *image)
{
	*(image->newer ? &image->newer->older : &s->first) = image->older;
	*(image->older ? &image->older->newer : &s->last) = image->newer;
	image->newer = image->older = NULL;
}

static void link_first(struct spaces *s, struct space_image *image)
{
	image->older = s->first;
	*(s->first ? &s->first->newer : &s->last) = image;
	s->first = image;
}

static void drop(struct spaces *s, struct space_image *image)
{
	map_remove(s->images, &image->key, sizeof(image->key));
	unlink_image(s, image);
	s->n_images--;
	if (image->block)
		unref(s, image->block);
	free(image);
}

static void evict(struct spaces *s, struct space_image *image)
{
	s->evicted++;
	drop(s, image);
}

/* All blocks that lie in a run of units. */
static void evict_run(struct spaces *s, uint32_t from, uint32_t n)
{
	struct space_image *next;

	for (struct space_image *image = s->first; image; image = next) {
		const struct space_block *b = image->block;

		next = image->older;
		if (b->unit < from + n && b->unit + UNITS_OF(b->n) > from)
			evict(s, image);
	}
}

/* Free units side by side; images go for them. */
static uint32_t make_room(struct spaces *s, uint32_t n)
{
	uint32_t freed = 0, at = find_free(s, n);

	while (at == NOWHERE && s->last && freed < 2 * n) {
		struct space_block *b = s->last->block;

		freed += b->refs == 1 ? UNITS_OF(b->n) : 0;
		evict(s, s->last);
		at = find_free(s, n);
	}
	if (at == NOWHERE && s->last) {
		at = MIN(s->last->block->unit, s->n_units - n);
		at = MAX(at, 1U);
		evict_run(s, at, n);
	}
	return at;
}

/* ---- setting --------------------------------------------------------------------------------- */

static int check(const struct spaces *s, const struct space_map *maps, size_t n)
{
	if (n > SPACE_MAPS_MAX || UNITS_OF(n) >= s->n_units)
		return -E2BIG;
	for (size_t i = 0; i < n; i++)
		if (maps[i].start >= maps[i].end || ((maps[i].start | maps[i].end) & 1) ||
			(i && maps[i].start < maps[i - 1].end))
			return -EINVAL;
	return 0;
}

static bool older(uint32_t tag, uint32_t than)
{
	return than && (int32_t)(tag - than) < 0;
}

static struct space_block *find_equal(
	const struct spaces *s, const struct space_map *maps, size_t n, uint64_t hash)
{
	struct space_block *b = map_get(s->blocks, &hash, sizeof(hash));

	return b && b->n == n && memcmp(&s->units[b->unit + 1], maps, n * sizeof(*maps)) == 0
		? b
		: NULL;
}

static int write_block(struct spaces *s, const struct space_map *maps, size_t n, uint64_t hash,
	uint32_t unit, struct space_block **ret)
{
	_cleanup_free_ struct space_block *b = calloc(1, sizeof(*b));
	struct space_head *head = head_of(s, unit);

	if (!b || map_put(s->blocks, &hash, sizeof(hash), b, NULL) < 0)
		return -ENOMEM;
	s->tag += 2;
	*b = (struct space_block){.hash = hash, .unit = unit, .n = (uint32_t)n, .tag = s->tag};
	for (size_t i = 0; i < n; i++)
		b->files |= FILE_BIT(maps[i].file);
	mark(s, unit, UNITS_OF(n), true);
	__atomic_store_n(&head->tag, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	memcpy(head + 1, maps, n * sizeof(*maps));
	head->n = (uint32_t)n;
	__atomic_store_n(&head->tag, b->tag, __ATOMIC_RELEASE);
	s->n_blocks++;
	s->n_maps += n;
	*ret = TAKE_PTR(b);
	return 0;
}

static int new_block(struct spaces *s, const struct space_map *maps, size_t n, uint64_t hash,
	struct space_block **ret)
{
	uint32_t unit = make_room(s, UNITS_OF(n));

	if (unit == NOWHERE)
		return -ENOSPC;
	if (s->retired) {
		if (!quiet_wait(s->quiet, QUIET_NS))
			return -EAGAIN;
		s->retired = false;
	}
	return write_block(s, maps, n, hash, unit, ret);
}

/* The image's entry, with a reference to block (taken over). */
static int give(struct spaces *s, const struct sample_image *key, struct space_block *block)
{
	struct space_image *image = map_get(s->images, key, sizeof(*key));

	if (!image) {
		if (s->n_images >= s->max_images)
			evict(s, s->last);
		image = calloc(1, sizeof(*image));
		if (!image || map_put(s->images, key, sizeof(*key), image, NULL) < 0) {
			free(image);
			return -ENOMEM;
		}
		image->key = *key;
		s->n_images++;
	} else {
		unlink_image(s, image);
		unref(s, image->block);
	}
	image->block = block;
	link_first(s, image);
	return 0;
}

int spaces_set(struct spaces *s, const struct sample_image *image, const struct space_map *maps,
	size_t n, uint32_t known_tag, uint32_t *unit, uint32_t *tag)
{
	const struct space_image *had = map_get(s->images, image, sizeof(*image));
	struct space_block *block;
	int r = check(s, maps, n);
	uint64_t hash;

	if (r < 0)
		return r;
	hash = hash_local(maps, n * sizeof(*maps));
	if (had && !older(had->block->tag, known_tag))
		known_tag = had->block->tag;
	block = find_equal(s, maps, n, hash);
	if (!block || older(block->tag, known_tag)) {
		r = new_block(s, maps, n, hash, &block);
		if (r < 0)
			return r;
	}
	block->refs++;
	*unit = block->unit;
	*tag = block->tag;
	r = give(s, image, block);
	if (r < 0)
		unref(s, block);
	return r;
}

void spaces_forget(struct spaces *s, const struct sample_image *image)
{
	struct space_image *found = map_get(s->images, image, sizeof(*image));

	if (found)
		drop(s, found);
}

void spaces_forget_file(struct spaces *s, uint32_t file)
{
	struct space_image *next;

	for (struct space_image *image = s->first; image; image = next) {
		const struct space_block *b = image->block;
		bool named = false;

		next = image->older;
		for (uint32_t i = 0; (b->files & FILE_BIT(file)) && i < b->n && !named; i++)
			named = s->units[b->unit + 1 + i].file == file;
		if (named)
			drop(s, image);
	}
}
