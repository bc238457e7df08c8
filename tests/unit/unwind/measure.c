/* SPDX-License-Identifier: Apache-2.0 */

/* What rows cost: for each file named, rows, rules, memory and the time to decode a page, as the
 * unwinder does it (a dictionary a page, a slot of bpf/tables.h) and, beside it, with one dictionary
 * for the whole file. By hand:
 *   make B=build room-unwind room-elf room-base
 *   gcc -O2 -D_GNU_SOURCE -I. tests/unit/unwind/measure.c build/lib/{unwind,elf,base}.a -lelf -ldw -lzstd -lz \
 *       -llzma -lsystemd -lseccomp -lcap -o build/measure && build/measure FILE... */

#include <fcntl.h>
#include <time.h>

#include "agentd/elf/elf_file.h"
#include "agentd/unwind/slot.h"
#include "agentd/unwind/unwind.h"

static uint64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

struct sums {
	struct unwind_file *file;
	uint64_t slowest, most_rows, most_rules, most_bytes;
	uint64_t rules, bytes, units; /* of all slots; units: as the arena holds them */
	uint64_t times[65536];
	size_t n;
};

/* Of one page that is known to be there: made again, as the unwinder would. */
static int visit(void *userdata, const struct unwind_page *page)
{
	static struct unwind_page own;
	static union {
		struct rows_slot slot;
		uint8_t bytes[ROWS_SLOT_MAX];
	} slot;
	CLEANUP(unwind_rules_deinit) struct unwind_rules rules = {0};
	struct sums *s = userdata;
	uint64_t before = now_ns(CLOCK_THREAD_CPUTIME_ID), took;
	size_t size;

	if (unwind_rules_init(&rules) < 0 ||
		unwind_file_page(s->file, page->page, &rules, &own) < 0)
		return -EINVAL;
	size = rows_slot_pack(&own, &rules, &slot.slot, sizeof(slot));
	took = now_ns(CLOCK_THREAD_CPUTIME_ID) - before;
	s->times[s->n++ % ARRAY_SIZE(s->times)] = took;
	s->slowest = MAX(s->slowest, took);
	s->most_rows = MAX(s->most_rows, own.n);
	s->most_rules = MAX(s->most_rules, rules.n);
	s->most_bytes = MAX(s->most_bytes, size);
	s->rules += rules.n;
	s->bytes += size;
	s->units += (size + ROWS_UNIT - 1) & ~(uint64_t)(ROWS_UNIT - 1);
	return 0;
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static int measure(const char *path)
{
	static struct sums s;
	static struct unwind_page page;
	CLEANUP(elf_file_closep) struct elf_file *elf = NULL;
	CLEANUP(unwind_file_closep) struct unwind_file *f = NULL;
	CLEANUP(unwind_rules_deinit) struct unwind_rules rules = {0};
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct err_text err;
	uint64_t before, opened, all = 0, rows;

	before = now_ns(CLOCK_THREAD_CPUTIME_ID);
	if (fd < 0 || elf_file_open(&elf, fd, &err) < 0)
		return -EINVAL;
	memset(&s, 0, sizeof(s));
	if (unwind_file_open(&f, elf, &err) < 0 || unwind_rules_init(&rules) < 0)
		return -EINVAL;
	opened = now_ns(CLOCK_THREAD_CPUTIME_ID) - before;
	s.file = f;
	/* Every page is made twice: for the dictionary of the whole file, then as it is done. */
	if (unwind_file_each_page(f, &rules, &page, visit, &s) < 0 || s.n == 0)
		return -EINVAL;
	rows = unwind_file_counts(f)->rows / 2;
	qsort(s.times, MIN(s.n, ARRAY_SIZE(s.times)), sizeof(s.times[0]), compare);
	for (size_t i = 0; i < s.n; i++)
		all += s.times[i];
	printf("%-28.28s %5zu pages %7llu rows; open %.1f us; a page %.1f us median, %.1f us mean, "
	       "%.1f us slowest; all %.1f ms; heap %zu KB\n",
		strrchr(path, '/') + 1, s.n, (unsigned long long)rows, (double)opened / 1e3,
		(double)s.times[s.n / 2] / 1e3, (double)all / 1e3 / (double)s.n,
		(double)s.slowest / 1e3, (double)all / 1e6,
		(unwind_file_memory(f) + elf_file_memory(elf)) / 1024);
	printf("    a page: %.0f rows, most %llu; %.0f rules, most %llu; slot %.0f bytes, most %llu\n",
		(double)rows / (double)s.n, (unsigned long long)s.most_rows,
		(double)s.rules / (double)s.n, (unsigned long long)s.most_rules,
		(double)s.bytes / (double)s.n, (unsigned long long)s.most_bytes);
	printf("    whole: slots %.2f MB (%.2f MB in units); with one dictionary of %u rules %.2f "
	       "MB\n",
		(double)s.bytes / 1e6, (double)s.units / 1e6, rules.n,
		((double)rows * 4 + 32 * (double)s.n + 16.0 * rules.n) / 1e6);
	return 0;
}

int main(int argc, char **argv)
{
	int failed = 0;

	for (int i = 1; i < argc; i++) {
		if (measure(argv[i]) < 0) {
			fprintf(stderr, "%s: cannot read it\n", argv[i]);
			failed = 1;
		}
	}
	return failed;
}
