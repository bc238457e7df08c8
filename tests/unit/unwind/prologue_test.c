/* SPDX-License-Identifier: Apache-2.0 */

/* Walks out of code that nothing describes, compared with the truth at every instruction.
 *
 * chain.c is built with frame pointers and without any tables, and run an instruction at a time
 * (victim.h). At each instruction of it the whole walk is made, and has to go through all calls that
 * have not returned: before the frame pointer is set, behind the frame, and in between, where stacks are
 * full of addresses that calls left behind. Once as the file that it is, once as if it had been made
 * at run time, when only the code at the interrupted place can be looked at. And each time in user space
 * too, from a slice of the stack and what the look at the code left in the flags: the frames must be
 * the same.
 *
 * A realigned stack of gcc has instructions from which no caller is found, and how compilers mix
 * instructions into prologues is theirs to change: two of a thousand places may be wrong. Without the look at
 * the code 40 are, and 100 without the doubt in what lies on the stack. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#if defined(__x86_64__)

#include "tests/unit/unwind/victim.h"

#include "agentd/unwind/slot.h"
#include "agentd/unwind/walk.h"
#include "bpf/tables.h"

static uint32_t find_map(struct victim *v, uint64_t address, struct space_map *ret);
static uint32_t find_rows(struct victim *v, uint64_t key, uint32_t offset, struct unwind_rule *ret);
static uint32_t emit(struct victim *v, struct sample_frame frame);
#define UNWIND_FIND_MAP(ctx, address, map)       find_map(ctx, address, map)
#define UNWIND_FIND_RULE(ctx, key, offset, rule) find_rows(ctx, key, offset, rule)
#define UNWIND_CODE(ctx, map, address, to, size) read_victim(ctx, to, size, address)
#define UNWIND_EMIT(ctx, frame)                  emit(ctx, frame)
#include "bpf/unwind_walk.h"

#define SLICE (56 << 10)

static char folder[] = "/tmp/odi-prologue-XXXXXX";

/* Of the program that runs. */
static const char *program;
static bool made; /* its code is taken for memory without a file */
static uint64_t main_at;
static size_t main_depth; /* calls when main() began; 0: not yet, SIZE_MAX: it is over */
static struct rows_slot *slots[MAX_FILES][64];
static struct sample_frame ours[MAX_FRAMES], sliced[MAX_FRAMES];
static size_t n_ours;
static uint64_t agreed, differed;

static uint32_t find_map(struct victim *v, uint64_t address, struct space_map *ret)
{
	const struct mapping *m = find_mapping(v, address);

	if (!m)
		return WALK_UNMAPPED;
	*ret = (struct space_map){.start = m->start,
		.end = m->end,
		.bias = m->offset - m->start,
		.file = (uint32_t)(m->file - v->files) + 1,
		.kind = SPACE_FILE};
	if (made && streq(m->file->path, program)) {
		ret->bias = ret->file = 0;
		ret->kind = SPACE_ANON;
	}
	return 0;
}

static const struct rows_slot *slot_of(struct victim *v, uint32_t file, uint32_t page)
{
	static _Alignas(16) uint8_t room[ROWS_SLOT_MAX + 64];
	static struct unwind_page rows;
	struct rows_slot **slot = &slots[file - 1][page];
	struct file *f = &v->files[file - 1];
	CLEANUP(unwind_rules_deinit) struct unwind_rules rules = {0};
	size_t size;

	assert_true(page < ARRAY_SIZE(slots[0]));
	if (*slot)
		return *slot;
	assert_int_equal(unwind_rules_init(&rules), 0);
	assert_int_equal(unwind_file_page(f->file, page, &rules, &rows), 0);
	size = rows_slot_pack(&rows, &rules, (struct rows_slot *)(void *)room, sizeof(room));
	*slot = malloc(size);
	assert_non_null(*slot);
	return memcpy(*slot, room, size);
}

static uint32_t find_rows(struct victim *v, uint64_t key, uint32_t offset, struct unwind_rule *ret)
{
	*ret = *rows_slot_rule(slot_of(v, (uint32_t)(key >> 32), (uint32_t)key), offset);
	return 0;
}

static uint32_t emit(struct victim *v, struct sample_frame frame)
{
	(void)v;
	if (n_ours == MAX_FRAMES)
		return WALK_DEPTH;
	ours[n_ours++] = frame;
	return 0;
}

/* ---- the same in user space
 * ---------------------------------------------------------------------------------- */

static int slice_map(void *userdata, uint64_t address, struct space_map *ret)
{
	return find_map(userdata, address, ret) == 0 ? 0 : -ENOENT;
}

static int slice_rows(void *userdata, uint32_t file, uint32_t page, const struct rows_slot **ret)
{
	*ret = slot_of(userdata, file, page);
	return 0;
}

static ssize_t slice_code(void *userdata, uint32_t file, uint64_t offset, void *to, size_t n)
{
	struct victim *v = userdata;

	return pread(v->files[file - 1].fd, to, n, (off_t)offset);
}

/* As programs in the kernel send it whose look-up failed at the interrupted place. */
static void compare_slice(struct victim *v, const struct user_regs_struct *regs, uint32_t end)
{
	static _Alignas(8) uint8_t room[sizeof(struct sample_stack) + SLICE];
	static const struct unwind_walk_ops ops = {slice_map, slice_rows, slice_code};
	struct sample_stack *s = (struct sample_stack *)(void *)room;
	struct iovec here = {s->bytes, SLICE}, there;
	struct unwind_walk w = {0};
	struct unwind_walk_result r;
	ssize_t len;
	size_t n;

	UNWIND_REGS_LOAD(&w.regs, regs);
	unwind_walk_look(&w, v);
	memcpy(s->state, &w.regs, sizeof(s->state));
	s->start = (regs->rsp - 128) & ~7ULL;
	there = (struct iovec){(void *)s->start, SLICE};
	len = process_vm_readv(v->pid, &here, 1, &there, 1, 0);
	assert_true(len > 128);
	s->len = (uint32_t)len & ~7U;
	s->present = ~0U;
	assert_int_equal(
		unwind_walk(s, sizeof(*s) + s->len, &ops, v, sliced, 0, MAX_FRAMES, MAX_FRAMES, &r),
		0);
	n = r.n_frames - (unwind_walk_marker(r.end) ? 1 : 0);
	if (n <= n_ours && memcmp(sliced, ours, n * sizeof(ours[0])) == 0 &&
		(r.end == WALK_SLICE || (n == n_ours && r.end == end)))
		agreed++;
	else
		differed++;
}

/* ---- the walk, and the truth
 * ------------------------------------------------------------------------------------- */

static uint64_t address_of(struct victim *v, const struct sample_frame *f)
{
	if (!f->file)
		return f->offset;
	for (size_t i = 0; i < v->n_mappings; i++) {
		const struct mapping *m = &v->mappings[i];

		if (m->file == &v->files[f->file - 1] && f->offset >= m->offset &&
			f->offset - m->offset <= m->end - m->start)
			return f->offset - m->offset + m->start;
	}
	return 0;
}

static void walk_once(struct victim *v, const struct user_regs_struct *regs)
{
	struct unwind_walk w = {0};
	size_t i, turns = 0;

	n_ours = 0;
	unwind_walk_begin(&w);
	UNWIND_REGS_LOAD(&w.regs, regs);
	while (!unwind_walk_turn(&w, v))
		assert_true(++turns <= UNWIND_WALK_TURNS(MAX_FRAMES));
	for (i = 0; i < v->n_calls && i + 1 < n_ours; i++)
		if (address_of(v, &ours[i + 1]) != v->calls[v->n_calls - 1 - i].address)
			break;
	v->walks++;
	if (i < v->n_calls) {
		const struct mapping *m = find_mapping(v, regs->rip);

		v->wrong++;
		print_message("  at %#llx of %s%s: frame %zu of %zu\n",
			(unsigned long long)(regs->rip - m->start + m->offset), m->file->path,
			made ? ", as if made" : "", i, v->n_calls);
	}
	compare_slice(v, regs, w.end);
}

/* Start-up code and what runs after main() is not the compiler's. Nor are signals' frames of interest here. */
static bool of_interest(struct victim *v, const struct user_regs_struct *regs)
{
	const struct mapping *m = find_mapping(v, regs->rip);
	const struct unwind_rule *rule;

	if (main_depth && v->n_calls < main_depth)
		main_depth = SIZE_MAX;
	if (!m || !streq(m->file->path, program))
		return false;
	if (!main_depth && regs->rip - m->start + m->offset == main_at)
		main_depth = v->n_calls;
	if (!main_depth || main_depth == SIZE_MAX)
		return false;
	for (size_t i = 0; i < v->n_calls; i++)
		if (v->calls[i].signal)
			return false;
	rule = find_rule(v, regs->rip);
	return rule && rule->cfa == UNWIND_CFA_NONE;
}

static bool both_ways; /* as a file and as if it was made */

static void walk(struct victim *v, const struct user_regs_struct *regs)
{
	if (!of_interest(v, regs))
		return;
	made = false;
	walk_once(v, regs);
	if (!both_ways)
		return;
	made = true;
	walk_once(v, regs);
	made = false;
}

static uint64_t address_of_main(const char *path)
{
	char command[200];
	unsigned long long at = 0;
	FILE *nm;

	snprintf(command, sizeof(command), "nm %s | grep ' main$'", path);
	nm = popen(command, "r");
	assert_non_null(nm);
	assert_int_equal(fscanf(nm, "%llx", &at), 1);
	pclose(nm);
	return at;
}

struct variant {
	const char *name, *compiler, *flags;
	bool frames; /* every function makes one: without rows, nor its code, they would be lost */
	bool extra;  /* with UNWIND_ALL_FILES=1 */
};

#define BARE                                                                                       \
	"-fno-omit-frame-pointer -mno-omit-leaf-frame-pointer -fno-asynchronous-unwind-tables "    \
	"-fno-unwind-tables -fPIE -pie"

static const struct variant variants[] = {
	{"gcc-O0", "gcc", "-O0", true, false},
	{"gcc-O1", "gcc", "-O1", false, true},
	{"gcc-O2-cet", "gcc", "-O2 -fcf-protection=full", false, false},
	{"gcc-O3", "gcc", "-O3", false, true},
	{"gcc-Os", "gcc", "-Os", false, true},
	{"clang-O0", "clang", "-O0", true, true},
	{"clang-O1-cet", "clang", "-O1 -fcf-protection=full", true, false},
	{"clang-O3", "clang", "-O3", true, true},
};

static void test_variant(void **state)
{
	const struct variant *t = *state;
	struct victim *v;
	char command[900], path[128];

	if (t->extra && !getenv("UNWIND_ALL_FILES")) {
		print_message("UNWIND_ALL_FILES is not set: %s is run in check-long\n", t->name);
		return;
	}
	v = calloc(1, sizeof(*v));
	assert_non_null(v);
	snprintf(path, sizeof(path), "%s/%s", folder, t->name);
	snprintf(command, sizeof(command),
		"%s -g0 " BARE " %s -o %s tests/unit/unwind/chain.c -fno-optimize-sibling-calls -w",
		t->compiler, t->flags, path);
	assert_int_equal(system(command), 0);
	program = path;
	main_at = address_of_main(path);
	main_depth = 0;
	agreed = differed = 0;
	both_ways = t->frames;
	v->undisturbed = true;
	run(v, path, 1, true, walk);
	print_message("%s: %llu walks, %llu wrong; in user space %llu are the same, %llu are not\n",
		t->name, (unsigned long long)v->walks, (unsigned long long)v->wrong,
		(unsigned long long)agreed, (unsigned long long)differed);
	for (size_t i = 0; i < MAX_FILES; i++)
		for (size_t p = 0; p < ARRAY_SIZE(slots[0]); p++) {
			free(slots[i][p]);
			slots[i][p] = NULL;
		}
	assert_true(v->walks > 800);
	assert_true(v->wrong * 500 <= v->walks);
	assert_int_equal(differed, 0);
	close_files(v);
	free(v);
	unlink(path);
}

int main(void)
{
	struct CMUnitTest tests[ARRAY_SIZE(variants)];
	int failed;

	if (!mkdtemp(folder))
		return 1;
	for (size_t i = 0; i < ARRAY_SIZE(variants); i++)
		tests[i] = (struct CMUnitTest){.name = variants[i].name,
			.test_func = test_variant,
			.initial_state = (void *)&variants[i]};
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(folder);
	return failed;
}

#else

int main(void)
{
	printf("cannot run - prologue_test: single steps are followed on x86-64 only\n");
	return 0;
}

#endif
