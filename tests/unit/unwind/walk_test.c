/* SPDX-License-Identifier: Apache-2.0 */

/* The walk in user space: threads of this test copy their own stacks and are walked from the copy, by
 * the real rows of this program and its libraries. glibc's backtrace(3) says what is right, and the
 * functions of the chain are known. Then slices that end early, have holes, contradict themselves, or are
 * garbage throughout: the walk ends, within its bounds, and says why. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <execinfo.h>
#include <fcntl.h>
#include <pthread.h>

#include "agentd/base/macros.h"
#include "agentd/elf/elf_file.h"
#include "agentd/unwind/slot.h"
#include "agentd/unwind/walk.h"
#include "bpf/unwind_walk.h"

#define KEEP       __attribute__((noinline))
#define FRAMES_MAX 256
#define SLICE      (16 * 1024)
#define PAGES_MAX  512

/* ---- rows of what is mapped here --------------------------------------------------------------------------- */

struct mapped {
	struct space_map map;
	int fd;
	struct elf_file *elf;
	struct unwind_file *file;
};

static struct mapped mapped[64];
static size_t n_mapped;

struct page {
	uint32_t file, page;
	struct rows_slot *slot;
};
static struct page pages[PAGES_MAX];
static size_t n_pages;

static void map_ourselves(void)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[4096];

	n_mapped = 0;
	while (maps && fgets(line, sizeof(line), maps) && n_mapped < ARRAY_SIZE(mapped)) {
		unsigned long start, end, offset;
		char perms[8], path[2048] = "";
		struct mapped *m = &mapped[n_mapped];
		struct err_text err = {};

		if (sscanf(line, "%lx-%lx %7s %lx %*s %*s %2047s", &start, &end, perms, &offset,
			    path) < 4 ||
			perms[2] != 'x')
			continue;
		*m = (struct mapped){.map = {.start = start,
					     .end = end,
					     .bias = offset - start,
					     .file = (uint32_t)n_mapped + 1,
					     .kind = SPACE_FILE},
			.fd = -1};
		if (path[0] == '/')
			m->fd = open(path, O_RDONLY | O_CLOEXEC);
		if (m->fd < 0 || elf_file_open(&m->elf, m->fd, &err) < 0 ||
			unwind_file_open(&m->file, m->elf, &err) < 0) {
			m->map.kind = SPACE_ANON;
			m->map.bias = 0;
		}
		n_mapped++;
	}
	if (maps)
		fclose(maps);
}

static void unmap_ourselves(void)
{
	for (size_t i = 0; i < n_mapped; i++) {
		unwind_file_close(mapped[i].file);
		elf_file_close(mapped[i].elf);
		closep(&mapped[i].fd);
	}
	for (size_t i = 0; i < n_pages; i++)
		free(pages[i].slot);
	n_mapped = n_pages = 0;
}

struct room {
	bool no_rows;     /* -ENOENT for all */
	bool never_ready; /* -EAGAIN for all */
	size_t asked, again;
};

static int find_map(void *userdata, uint64_t address, struct space_map *ret)
{
	for (size_t i = 0; i < n_mapped; i++)
		if (address - mapped[i].map.start < mapped[i].map.end - mapped[i].map.start) {
			*ret = mapped[i].map;
			return 0;
		}
	return -ENOENT;
}

/* A page is there at the second time of asking. */
static int find_rows(void *userdata, uint32_t file, uint32_t page, const struct rows_slot **ret)
{
	struct room *room = userdata;
	static struct unwind_page rows;
	struct unwind_rules rules;
	size_t size;

	room->asked++;
	if (room->no_rows)
		return -ENOENT;
	if (room->never_ready)
		return -EAGAIN;
	for (size_t i = 0; i < n_pages; i++)
		if (pages[i].file == file && pages[i].page == page) {
			*ret = pages[i].slot;
			return 0;
		}
	assert_true(file >= 1 && file <= n_mapped && n_pages < PAGES_MAX);
	pages[n_pages] = (struct page){file, page, malloc(ROWS_SLOT_MAX)};
	assert_int_equal(unwind_rules_init(&rules), 0);
	assert_int_equal(unwind_file_page(mapped[file - 1].file, page, &rules, &rows), 0);
	size = rows_slot_pack(&rows, &rules, pages[n_pages].slot, ROWS_SLOT_MAX);
	assert_int_equal(rows_slot_check(pages[n_pages].slot, size), 0);
	unwind_rules_deinit(&rules);
	n_pages++;
	room->again++;
	return -EAGAIN;
}

static ssize_t read_code(void *userdata, uint32_t file, uint64_t offset, void *to, size_t n)
{
	return pread(mapped[file - 1].fd, to, n, (off_t)offset);
}

static const struct unwind_walk_ops ops = {find_map, find_rows, read_code};

/* ---- our own stack ------------------------------------------------------------------------------------------ */

struct shot {
	struct sample_stack *stack;
	size_t len, n_right;
	void *right[FRAMES_MAX]; /* return addresses, from the caller of copy_stack() on */
	uint64_t limit;          /* of the stack */
};

/* With the registers of its caller's call: as if it had been interrupted right behind that. ASan has
 * red zones in the frames above, which are copied, too. */
KEEP __attribute__((no_sanitize("address"))) static void copy_stack(struct shot *s)
{
	struct unwind_regs r = {.flags = UNWIND_REGS_EXACT};
	uint64_t *frame = __builtin_frame_address(0), end;

	r.pc = (uint64_t)(uintptr_t)__builtin_return_address(0);
	r.fp = frame[0];
	r.sp = (uint64_t)(uintptr_t)(frame + 2);
	r.flags |= UNWIND_REGS_AUX_LOST;
	s->stack = calloc(1, sizeof(*s->stack) + SLICE);
	memcpy(s->stack->state, &r, sizeof(r));
	s->stack->start = r.sp - 128;
	end = MIN(s->limit, s->stack->start + SLICE);
	s->stack->len = (uint32_t)(end - s->stack->start);
	s->stack->present = ~0U;
	s->len = sizeof(*s->stack) + s->stack->len;
	for (uint64_t at = s->stack->start, i = 0; at < end; at += 8, i += 8) {
		uint64_t word = *(volatile uint64_t *)(uintptr_t)at;

		memcpy(s->stack->bytes + i, &word, 8);
	}
	s->n_right = (size_t)backtrace(s->right, FRAMES_MAX);
	/* The first are of this function, and ASan's. */
	while (s->n_right && (uint64_t)(uintptr_t)s->right[0] != r.pc)
		memmove(s->right, s->right + 1, --s->n_right * sizeof(s->right[0]));
}

KEEP static int chain_c(struct shot *s, int n)
{
	volatile char room[200];

	room[n & 127] = 1;
	if (n > 0)
		return chain_c(s, n - 1) + room[n & 127];
	copy_stack(s);
	return room[0];
}

KEEP static int chain_b(struct shot *s)
{
	return chain_c(s, 5) + 1;
}

KEEP static int by_qsort(const void *a, const void *b)
{
	struct shot *s = *(struct shot *const *)a;

	if (!s->stack)
		(void)chain_b(s);
	return 0;
}

/* Through libc's qsort(), which keeps no frame pointer. */
KEEP static void *chain_a(void *arg)
{
	struct shot *s = arg, *list[3] = {s, s, s};
	pthread_attr_t attr;
	void *low;
	size_t size;

	pthread_getattr_np(pthread_self(), &attr);
	pthread_attr_getstack(&attr, &low, &size);
	pthread_attr_destroy(&attr);
	s->limit = (uint64_t)(uintptr_t)low + size;
	qsort(list, 3, sizeof(list[0]), by_qsort);
	return arg;
}

static struct shot shoot(void)
{
	struct shot s = {};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, chain_a, &s), 0);
	pthread_join(thread, NULL);
	assert_non_null(s.stack);
	assert_true(s.n_right > 10);
	return s;
}

static int walk_until_done(const struct sample_stack *stack, size_t len, struct room *room,
	struct sample_frame *frames, size_t n, size_t max_user, struct unwind_walk_result *ret)
{
	for (unsigned i = 0; i < PAGES_MAX; i++) {
		int r = unwind_walk(stack, len, &ops, room, frames, n, max_user, FRAMES_MAX, ret);

		if (r != -EAGAIN)
			return r;
		/* What there is so far. */
		assert_int_equal(ret->end, WALK_MISS_ROWS);
		assert_true(ret->n_frames > n);
		assert_int_equal(frames[ret->n_frames - 1].kind, FRAME_MARKER);
	}
	fail_msg("the walk never ends");
	return 0;
}

static uint64_t address_of(const struct sample_frame *f)
{
	assert_int_equal(f->kind, FRAME_NATIVE);
	assert_true(f->file >= 1 && f->file <= n_mapped);
	return f->offset - mapped[f->file - 1].map.bias;
}

static void same_as_backtrace(
	const struct shot *s, const struct sample_frame *frames, size_t n, size_t limit)
{
	for (size_t i = 0; i < MIN(n, limit); i++) {
		assert_true(i < s->n_right);
		assert_int_equal(address_of(&frames[i]), (uint64_t)(uintptr_t)s->right[i]);
		assert_int_equal(frames[i].flags & FRAME_RETURN, i ? FRAME_RETURN : 0);
	}
}

static int setup(void **state)
{
	map_ourselves();
	return 0;
}

static int teardown(void **state)
{
	unmap_ourselves();
	return 0;
}

static void test_whole(void **state)
{
	struct shot s = shoot();
	struct sample_frame frames[FRAMES_MAX] = {{.kind = FRAME_KERNEL, .offset = 77}};
	struct unwind_walk_result r;
	struct room room = {};

	/* Behind a kernel frame that was there. */
	assert_int_equal(
		walk_until_done(s.stack, s.len, &room, frames, 1, SAMPLE_DEFAULT_USER, &r), 0);
	assert_int_equal(r.end, WALK_ROOT);
	assert_int_equal(r.guessed, 0);
	assert_int_equal(frames[0].kind, FRAME_KERNEL);
	assert_int_equal(frames[0].offset, 77);
	assert_int_equal(r.n_frames - 1, s.n_right);
	same_as_backtrace(&s, frames + 1, r.n_frames - 1, SIZE_MAX);
	assert_true(room.again >= 2); /* this program and libc */
	assert_int_equal(r.end_file, frames[r.n_frames - 1].file);
	free(s.stack);
}

static void test_rows_never_come(void **state)
{
	struct shot s = shoot();
	struct sample_frame frames[FRAMES_MAX];
	struct unwind_walk_result r;
	struct room room = {.never_ready = true};

	assert_int_equal(
		unwind_walk(s.stack, s.len, &ops, &room, frames, 0, 127, FRAMES_MAX, &r), -EAGAIN);
	assert_int_equal(room.asked, 1);
	assert_int_equal(r.end, WALK_MISS_ROWS);
	assert_int_equal(r.n_frames, 1);
	assert_int_equal(frames[0].offset, MARKER_LOST);
	free(s.stack);
}

/* Cut at any length: a prefix of the whole, and it says why. */
static void test_short_slices(void **state)
{
	struct shot s = shoot();
	struct sample_frame frames[FRAMES_MAX];
	struct unwind_walk_result r;
	struct room room = {};
	size_t whole;

	assert_int_equal(walk_until_done(s.stack, s.len, &room, frames, 0, 127, &r), 0);
	whole = r.n_frames;
	for (uint32_t len = 0; len < 3000; len += 8) {
		struct sample_stack *cut = malloc(sizeof(*cut) + len); /* to the byte, for ASan */

		memcpy(cut, s.stack, sizeof(*cut) + len);
		cut->len = len;
		assert_int_equal(
			walk_until_done(cut, sizeof(*cut) + len, &room, frames, 0, 127, &r), 0);
		if (r.end != WALK_ROOT) {
			assert_int_equal(r.end, WALK_SLICE);
			assert_true(r.n_frames <= whole);
			assert_int_equal(frames[r.n_frames - 1].kind, FRAME_MARKER);
			assert_int_equal(frames[r.n_frames - 1].offset, MARKER_LOST);
			r.n_frames--;
		}
		same_as_backtrace(&s, frames, r.n_frames, SIZE_MAX);
		free(cut);
	}
	free(s.stack);
}

/* A page that was not resident: what lies before it is there. */
static void test_holes(void **state)
{
	struct shot s = shoot();
	struct sample_frame frames[FRAMES_MAX];
	struct unwind_walk_result r;
	struct room room = {};

	s.stack->present = 0;
	assert_int_equal(walk_until_done(s.stack, s.len, &room, frames, 0, 127, &r), 0);
	assert_int_equal(r.end, WALK_UNREADABLE);
	assert_int_equal(r.n_frames, 2);
	same_as_backtrace(&s, frames, 1, SIZE_MAX);
	assert_int_equal(frames[1].offset, MARKER_LOST);
	free(s.stack);
}

static void test_depth(void **state)
{
	struct shot s = shoot();
	struct sample_frame frames[FRAMES_MAX];
	struct unwind_walk_result r;
	struct room room = {};

	assert_int_equal(walk_until_done(s.stack, s.len, &room, frames, 0, 3, &r), 0);
	assert_int_equal(r.end, WALK_DEPTH);
	assert_int_equal(r.n_frames, 4);
	assert_int_equal(frames[3].kind, FRAME_MARKER);
	assert_int_equal(frames[3].offset, MARKER_TRUNCATED);
	same_as_backtrace(&s, frames, 3, SIZE_MAX);
	/* User frames that were there count. */
	frames[0] = (struct sample_frame){.kind = FRAME_KERNEL};
	frames[1] = frames[2] = (struct sample_frame){.kind = FRAME_NATIVE, .file = 1};
	assert_int_equal(walk_until_done(s.stack, s.len, &room, frames, 3, 3, &r), 0);
	assert_int_equal(r.n_frames, 5);
	/* No room at all, not even for a marker. */
	assert_int_equal(unwind_walk(s.stack, s.len, &ops, &room, frames, 3, 127, 3, &r), 0);
	assert_int_equal(r.n_frames, 3);
	assert_int_equal(r.end, WALK_DEPTH);
	free(s.stack);
}

/* Without any rows: by the frame pointers that this test is built with, marked as what they are. */
static void test_without_rows(void **state)
{
	struct shot s = shoot();
	struct sample_frame frames[FRAMES_MAX];
	struct unwind_walk_result r;
	struct room room = {.no_rows = true};

	assert_int_equal(
		unwind_walk(s.stack, s.len, &ops, &room, frames, 0, 127, FRAMES_MAX, &r), 0);
	assert_true(r.n_frames > 8);
	assert_true(r.guessed >= 7);
	same_as_backtrace(&s, frames, 8, 8); /* the chain up to qsort() */
	for (size_t i = 1; i < 8; i++)
		assert_true(frames[i].flags & FRAME_APPROXIMATE);
	assert_false(frames[0].flags & FRAME_APPROXIMATE);
	free(s.stack);
}

#ifdef __x86_64__
/* Assembly without call frame information, which does not keep the frame pointer, called where that is zero: as it is in
 * programs that keep none, from their root on. That root is further up. */
int zero_outer(struct shot *s);
int zero_inside(struct shot *s);
void zero_bare(void), zero_bare_end(void), zero_outer_end(void);
__asm__(".text\n"
	".globl zero_bare, zero_outer, zero_bare_end, zero_outer_end\n"
	".hidden zero_bare, zero_bare_end, zero_outer_end\n"
	".type zero_bare, @function\n"
	"zero_bare:\n"
	"	push %rbp\n	push %rbx\n	sub $24, %rsp\n	xor %ebp, %ebp\n"
	"	call zero_inside\n"
	"	add $24, %rsp\n	pop %rbx\n	pop %rbp\n	ret\n"
	"zero_bare_end:\n"
	".type zero_outer, @function\n"
	"zero_outer:\n"
	"	.cfi_startproc\n"
	"	sub $8, %rsp\n	.cfi_adjust_cfa_offset 8\n"
	"	call zero_bare\n"
	"	add $8, %rsp\n	.cfi_adjust_cfa_offset -8\n	ret\n"
	"	.cfi_endproc\n"
	"zero_outer_end:\n");

KEEP int zero_inside(struct shot *s)
{
	copy_stack(s);
	return s->n_right > 0;
}

static bool within(const struct sample_frame *f, void (*from)(void), void (*to)(void))
{
	uint64_t at = address_of(f);

	return at >= (uint64_t)(uintptr_t)from && at < (uint64_t)(uintptr_t)to;
}

KEEP static void *zero_thread(void *arg)
{
	pthread_attr_t attr;
	struct shot *s = arg;
	void *low;
	size_t size;

	pthread_getattr_np(pthread_self(), &attr);
	pthread_attr_getstack(&attr, &low, &size);
	pthread_attr_destroy(&attr);
	s->limit = (uint64_t)(uintptr_t)low + size;
	return zero_outer(s) ? arg : NULL;
}

static void test_zero_frame_pointer(void **state)
{
	struct shot s = {};
	struct sample_frame frames[FRAMES_MAX];
	struct unwind_walk_result r;
	struct room room = {};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, zero_thread, &s), 0);
	pthread_join(thread, NULL);
	assert_non_null(s.stack);
	assert_int_equal(walk_until_done(s.stack, s.len, &room, frames, 0, 127, &r), 0);
	assert_true(r.n_frames >= 3);
	assert_true(within(&frames[1], zero_bare, zero_bare_end));
	assert_true(within(&frames[2], (void (*)(void))(uintptr_t)zero_outer, zero_outer_end));
	assert_true(frames[2].flags & FRAME_APPROXIMATE);
	assert_int_not_equal(r.end, WALK_ROOT); /* its own caller keeps one */
	free(s.stack);
}
#endif

static void test_hostile_heads(void **state)
{
	struct shot s = shoot();
	struct sample_frame frames[FRAMES_MAX];
	struct unwind_walk_result r;
	struct room room = {};
	const struct sample_stack good = *s.stack;
	struct sample_stack *head = malloc(sizeof(*head));

	*head = good;
	assert_int_equal(
		unwind_walk(head, 0, &ops, &room, frames, 0, 127, FRAMES_MAX, &r), -EBADMSG);
	assert_int_equal(
		unwind_walk(head, sizeof(*head) - 1, &ops, &room, frames, 0, 127, FRAMES_MAX, &r),
		-EBADMSG);
	/* It says to have bytes that are not there. */
	assert_int_equal(
		unwind_walk(head, sizeof(*head), &ops, &room, frames, 0, 127, FRAMES_MAX, &r),
		-EBADMSG);
	head->len = UINT32_MAX;
	assert_int_equal(
		unwind_walk(head, SIZE_MAX, &ops, &room, frames, 0, 127, FRAMES_MAX, &r), -EBADMSG);
	*head = good;
	head->len = 0;
	head->start = good.start + 1;
	assert_int_equal(
		unwind_walk(head, sizeof(*head), &ops, &room, frames, 0, 127, FRAMES_MAX, &r),
		-EBADMSG);
	s.stack->start = UINT64_MAX - 7;
	assert_int_equal(
		unwind_walk(s.stack, s.len, &ops, &room, frames, 0, 127, FRAMES_MAX, &r), -EBADMSG);
	/* More pages than there are bits for. */
	s.stack->start = SAMPLE_STACK_PAGE - 8;
	s.stack->len = SAMPLE_STACK_PAGES * SAMPLE_STACK_PAGE;
	assert_int_equal(unwind_walk(s.stack, sizeof(*s.stack) + s.stack->len, &ops, &room, frames,
				 0, 127, FRAMES_MAX, &r),
		-EBADMSG);
	free(head);
	free(s.stack);
}

/* ---- garbage ------------------------------------------------------------------------------------------------ */

static uint64_t seed = 0x9e3779b97f4a7c15ULL;

static uint64_t any(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

struct garbage {
	struct rows_slot *slot; /* allocated to the byte */
	unsigned maps, asked;
	bool file_waits, rows_wait;
};

static int garbage_map(void *userdata, uint64_t address, struct space_map *ret)
{
	struct garbage *g = userdata;
	uint64_t start = address & ~0xffffULL;

	if (++g->maps > 100000)
		fail_msg("a walk without an end");
	if (any() % 8 == 0) {
		if (any() % 4)
			return -ENOENT;
		g->file_waits = true;
		return -EAGAIN;
	}
	*ret = (struct space_map){.start = start,
		.end = start + 0x10000,
		.bias = any() % 2 ? any() : 0 - start,
		.file = (uint32_t)any(),
		.kind = (uint32_t)(any() % 8 ? SPACE_FILE : any() % 5)};
	return 0;
}

static int garbage_rows(void *userdata, uint32_t file, uint32_t page, const struct rows_slot **ret)
{
	struct garbage *g = userdata;

	g->asked++;
	*ret = g->slot;
	if (any() % 16)
		return 0;
	if (any() % 2)
		return -ENOENT;
	g->rows_wait = true;
	return -EAGAIN;
}

static ssize_t garbage_code(void *userdata, uint32_t file, uint64_t offset, void *to, size_t n)
{
	int32_t back = -(int32_t)(any() % 0x8000);

	/* A direct call to somewhere before it. */
	memset(to, 0xe8, n);
	if (n >= 8 && any() % 2)
		memcpy((uint8_t *)to + n - 4, &back, sizeof(back));
	return any() % 4 ? (ssize_t)n : any() % 2 ? -EIO : (ssize_t)(n / 2);
}

/* A slot that the checker lets pass; rules that nobody wrote. */
static struct rows_slot *garbage_slot(void)
{
	static struct unwind_page page;
	struct unwind_rules d;
	struct rows_slot *big = malloc(ROWS_SLOT_MAX), *slot;
	size_t size;

	assert_int_equal(unwind_rules_init(&d), 0);
	page.n = 1 + (uint32_t)(any() % 64);
	for (uint32_t i = 0; i < page.n; i++) {
		struct unwind_rule rule = {.cfa = (uint8_t)(any() % 4 ? 4 : any() % 9),
			.reg = (uint8_t)any(),
			.flags = (uint16_t)(any() % 2 ? UNWIND_FP_SAVED
					: any() % 3   ? 0
						      : any()),
			.cfa_offset = (int32_t)(any() % 8 ? 8 * (any() % 20) : any()),
			.ra_offset = (int16_t)(any() % 8 ? -1 : (int)any()),
			.fp_offset = -2,
			.aux_offset = (int16_t)any()};
		int at = unwind_rules_add(&d, &rule);

		assert_true(at >= 0);
		page.pc[i] = (uint16_t)(i * 1000);
		page.rule[i] = (uint16_t)at;
	}
	size = rows_slot_pack(&page, &d, big, ROWS_SLOT_MAX);
	assert_int_equal(rows_slot_check(big, size), 0);
	unwind_rules_deinit(&d);
	slot = malloc(size);
	memcpy(slot, big, size);
	free(big);
	return slot;
}

static void test_garbage(void **state)
{
	static const struct unwind_walk_ops garbage_ops = {garbage_map, garbage_rows, garbage_code};
	struct sample_frame frames[FRAMES_MAX + 1];
	unsigned by_end[WALK_ENDS] = {0}, again = 0, bad = 0;
	uint64_t made = 0;

	for (unsigned round = 0; round < 20000; round++) {
		struct garbage g = {.slot = garbage_slot()};
		uint32_t len = (uint32_t)(any() % 4096);
		struct sample_stack *s = malloc(sizeof(*s) + len);
		size_t n = any() % 8, max = n + any() % (FRAMES_MAX - 8), max_user = any() % 160;
		uint64_t start = (any() & 0x7ffffffff000ULL) + 8 * (any() % 512);
		struct unwind_regs regs = {.pc = any(),
			.sp = start + (any() % 8 ? 8 * (any() % 32) : any()),
			.fp = start + 8 * (any() % 600),
			.aux = any(),
			.fp_at = any() % 3 ? 0 : start + any() % 5000,
			.leaf_at = any() % 3 ? 0 : start + any() % 5000,
			.flags = (uint32_t)any() % 64};
		struct unwind_walk_result r = {};
		int status;

		for (uint32_t i = 0; i < len; i++)
			s->bytes[i] = (uint8_t)any();
		for (uint32_t i = 0; i + 8 <= len; i += 16) {
			uint64_t in = start + 8 * (any() % 512);

			memcpy(s->bytes + i, &in, 8);
		}
		memcpy(s->state, &regs, sizeof(regs));
		s->start = any() % 64 ? start : any();
		s->len = any() % 64 ? len : (uint32_t)any();
		s->present = any() % 4 ? ~0U : (uint32_t)any();
		for (size_t i = 0; i < n; i++)
			frames[i] = (struct sample_frame){.kind = FRAME_KERNEL};
		memset(&frames[max], 0x5a, sizeof(frames[max]));
		status = unwind_walk(
			s, sizeof(*s) + len, &garbage_ops, &g, frames, n, max_user, max, &r);
		/* What lies behind is not ours. */
		for (size_t i = 0; i < sizeof(frames[max]); i++)
			assert_int_equal(((uint8_t *)&frames[max])[i], 0x5a);
		if (status == -EBADMSG) {
			bad++;
		} else {
			assert_true(status == 0 || status == -EAGAIN);
			assert_true(r.n_frames >= n && r.n_frames <= max);
			assert_true(r.n_frames - n <= max_user + 1);
			assert_true(r.end > 0 && r.end < WALK_ENDS);
			/* Who waits is woken by what was asked for, and by nothing else. */
			if (status == -EAGAIN)
				assert_true(r.end == WALK_MISS_ROWS
						? g.rows_wait
						: r.end == WALK_MISS_MAP && g.file_waits);
			else
				assert_true(r.end != WALK_MISS_ROWS);
			by_end[r.end]++;
			again += status == -EAGAIN;
			made += r.n_frames - n;
		}
		/* Each frame's, and those of the calls that guesses look at. */
		assert_true(g.asked <= max_user + 1 + 4 * 64);
		free(s);
		free(g.slot);
	}
	print_message("%u bad heads, %u to be tried again, %lu frames; ends:", bad, again,
		(unsigned long)made);
	for (size_t i = 0; i < ARRAY_SIZE(by_end); i++)
		print_message(" %u", by_end[i]);
	print_message("\n");
	assert_true(bad > 100 && again > 100 && made > 20000);
	assert_true(by_end[WALK_ROOT] && by_end[WALK_SLICE] && by_end[WALK_UNREADABLE] &&
		by_end[WALK_BAD_STACK] && by_end[WALK_DEPTH]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(test_whole),
		T(test_rows_never_come),
		T(test_short_slices),
		T(test_holes),
		T(test_depth),
		T(test_without_rows),
#ifdef __x86_64__
		T(test_zero_frame_pointer),
#endif
		T(test_hostile_heads),
		T(test_garbage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
