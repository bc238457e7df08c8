/* SPDX-License-Identifier: Apache-2.0 */

/* The walk in user space: what the kernel could not finish, from the registers and the slice of the
 * stack that it sent along.
 *
 * The walk itself is bpf/unwind_walk.h, the same text as in the kernel; here is what it reads from.
 * Memory is the slice and nothing else: an address in a page that was not resident when the sample
 * was taken is unreadable, one outside ends the walk as WALK_SLICE. Code is the mapped file's, read
 * through its descriptor. Neither the slice nor the registers are believed: every bound is checked, and
 * the walk has its own bound on turns.
 *
 * A try that meets something that is not there yet (-EAGAIN) keeps no state: the frames it made are made
 * again by the next one, which costs some 50 ns each. Runs in agentd. */

#include "agentd/unwind/walk.h"

#include "agentd/unwind/slot.h"

struct walker {
	const struct sample_stack *stack;
	const struct unwind_walk_ops *ops;
	void *userdata;
	struct sample_frame *frames;
	size_t n, n_user, max, max_user;
	/* Something will be there later: WALK_MISS_MAP, or _ROWS. A guess may have wanted it, whose walk
	 * has not ended by that. */
	uint32_t again;
	bool beyond; /* this frame wanted memory outside of the slice */
};

/* All of [address, address + size) or nothing. */
static int read_slice(struct walker *k, void *to, size_t size, uint64_t address)
{
	const struct sample_stack *s = k->stack;
	uint64_t at = address - s->start, first, last;

	if (address < s->start || at > s->len || size > s->len - at) {
		k->beyond = true;
		return -1;
	}
	first = address / SAMPLE_STACK_PAGE - s->start / SAMPLE_STACK_PAGE;
	last = (address + size - 1) / SAMPLE_STACK_PAGE - s->start / SAMPLE_STACK_PAGE;
	for (uint64_t i = first; i <= last; i++)
		if (!(s->present >> i & 1))
			return -1;
	memcpy(to, s->bytes + at, size);
	return 0;
}

static uint32_t find_map(struct walker *k, uint64_t address, struct space_map *map)
{
	struct space_map found = {};
	int r = k->ops->map(k->userdata, address, &found);

	if (r == 0) {
		*map = found;
		return 0;
	}
	if (r == -EAGAIN)
		k->again = WALK_MISS_MAP;
	return r == -EAGAIN ? WALK_MISS_MAP : WALK_UNMAPPED;
}

static uint32_t find_rule(struct walker *k, uint64_t key, uint32_t offset, struct unwind_rule *rule)
{
	const struct rows_slot *slot = NULL;
	int r = k->ops->rows(k->userdata, (uint32_t)(key >> 32), (uint32_t)key, &slot);

	if (r == -EAGAIN) {
		k->again = k->again ? k->again : WALK_MISS_ROWS;
		return WALK_MISS_ROWS;
	}
	/* A page that cannot be had is one of which nothing is known. */
	if (r == 0)
		*rule = *rows_slot_rule(slot, offset);
	return 0;
}

/* Bytes before the mapping are taken for zeros: the call that is looked for lies within. */
static int read_code(
	struct walker *k, const struct space_map *map, uint64_t address, void *to, size_t size)
{
	size_t skip = address < map->start ? (size_t)MIN(map->start - address, size) : 0;

	if (map->kind != SPACE_FILE || !k->ops->code || address + size > map->end)
		return -1;
	memset(to, 0, skip);
	return k->ops->code(k->userdata, map->file, address + skip + map->bias,
		       (uint8_t *)to + skip, size - skip) == (ssize_t)(size - skip)
		? 0
		: -1;
}

static uint32_t emit(struct walker *k, struct sample_frame frame)
{
	if (k->n_user >= k->max_user || k->n >= k->max)
		return WALK_DEPTH;
	k->frames[k->n++] = frame;
	k->n_user++;
	k->beyond = false;
	return 0;
}

#define UNWIND_READ(ctx, to, size, address)      read_slice(ctx, to, size, address)
#define UNWIND_FIND_MAP(ctx, address, map)       find_map(ctx, address, map)
#define UNWIND_FIND_RULE(ctx, key, offset, rule) find_rule(ctx, key, offset, rule)
#define UNWIND_CODE(ctx, map, address, to, size) read_code(ctx, map, address, to, size)
#define UNWIND_EMIT(ctx, frame)                  emit(ctx, frame)

#include "bpf/unwind_walk.h"

_Static_assert(sizeof(struct unwind_regs) == sizeof(((struct sample_stack *)0)->state),
	"what the kernel sends is what the walk goes on from");

static bool sound(const struct sample_stack *s, size_t len)
{
	if (len < sizeof(*s) || s->len > len - sizeof(*s) || s->start % 8)
		return false;
	if (s->start + s->len < s->start)
		return false;
	return s->start % SAMPLE_STACK_PAGE + s->len <= SAMPLE_STACK_PAGES * SAMPLE_STACK_PAGE;
}

/* Whether the end is one of those for which more of the stack would have helped. */
static bool for_want_of_stack(uint32_t end)
{
	return end == WALK_UNREADABLE || end == WALK_NO_INFORMATION || end == WALK_UNSUPPORTED ||
		end == WALK_JIT;
}

int unwind_walk(const struct sample_stack *stack, size_t len, const struct unwind_walk_ops *ops,
	void *userdata, struct sample_frame *frames, size_t n, size_t max_user, size_t max,
	struct unwind_walk_result *ret)
{
	struct walker k = {.stack = stack,
		.ops = ops,
		.userdata = userdata,
		.frames = frames,
		.n = n,
		.max = max ? max - 1 : 0, /* the marker's */
		.max_user = max_user};
	struct unwind_walk w = {};
	uint32_t marker;

	if (!sound(stack, len))
		return -EBADMSG;
	for (size_t i = 0; i < n; i++)
		k.n_user += frames[i].kind != FRAME_KERNEL;
	memcpy(&w.regs, stack->state, sizeof(w.regs));
	for (size_t i = UNWIND_WALK_TURNS(max_user); i > 0; i--)
		if (unwind_walk_turn(&w, &k) || k.again)
			break;
	if (k.again)
		w.end = k.again;
	else if (!w.end)
		w.end = WALK_DEPTH;
	else if (k.beyond && for_want_of_stack(w.end))
		w.end = WALK_SLICE;
	marker = unwind_walk_marker(w.end);
	if (marker && k.n < max)
		frames[k.n++] = (struct sample_frame){.kind = FRAME_MARKER, .offset = marker};
	*ret = (struct unwind_walk_result){.n_frames = k.n,
		.end = (uint8_t)w.end,
		.guessed = (uint16_t)w.guessed,
		.end_file = w.end_file};
	return k.again ? -EAGAIN : 0;
}
