/* SPDX-License-Identifier: Apache-2.0 */

/* What rows cost: for each file named, rows, rules, memory and the time to decode a page. By hand:
 *   make B=build room-unwind room-elf room-base
 *   gcc -O2 -D_GNU_SOURCE -I. tests/unit/unwind/measure.c build/lib/{unwind,elf,base}.a -lelf -ldw -lzstd -lz \
 *       -llzma -lsystemd -lseccomp -lcap -o build/measure && build/measure FILE... */

#include <fcntl.h>
#include <time.h>

#include "agentd/elf/elf_file.h"
#include "agentd/unwind/unwind.h"

static uint64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

struct sums {
	uint64_t last, slowest, most;
	uint64_t times[65536];
	size_t n;
};

static int visit(void *userdata, const struct unwind_page *page)
{
	struct sums *s = userdata;
	uint64_t now = now_ns(CLOCK_THREAD_CPUTIME_ID), took = now - s->last;

	s->times[s->n++ % ARRAY_SIZE(s->times)] = took;
	s->slowest = MAX(s->slowest, took);
	s->most = MAX(s->most, page->n);
	s->last = now_ns(CLOCK_THREAD_CPUTIME_ID);
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
	uint64_t before, opened;
	const struct unwind_counts *c;

	if (fd < 0 || elf_file_open(&elf, fd, &err) < 0)
		return -EINVAL;
	memset(&s, 0, sizeof(s));
	before = now_ns(CLOCK_THREAD_CPUTIME_ID);
	if (unwind_file_open(&f, elf, &err) < 0 || unwind_rules_init(&rules) < 0)
		return -EINVAL;
	opened = now_ns(CLOCK_THREAD_CPUTIME_ID) - before;
	s.last = now_ns(CLOCK_THREAD_CPUTIME_ID);
	(void)unwind_file_each_page(f, &rules, &page, visit, &s);
	qsort(s.times, MIN(s.n, ARRAY_SIZE(s.times)), sizeof(s.times[0]), compare);
	c = unwind_file_counts(f);
	before = 0;
	for (size_t i = 0; i < s.n; i++)
		before += s.times[i];
	printf("%-28.28s %5zu pages %7llu rows (%7llu before merging) %6.2f MB, %4u rules; a page: "
	       "%5.1f rows, most %llu; %.1f us median, %.1f us mean, %.1f us slowest; open %.1f us; "
	       "all %.1f ms; heap %zu KB\n",
		strrchr(path, '/') + 1, s.n, (unsigned long long)c->rows,
		(unsigned long long)c->rows_read, (double)c->rows * 4 / 1e6, rules.n,
		(double)c->rows / (double)s.n, (unsigned long long)s.most,
		(double)s.times[s.n / 2] / 1e3, (double)before / 1e3 / (double)s.n,
		(double)s.slowest / 1e3, (double)opened / 1e3, (double)before / 1e6,
		unwind_file_memory(f) / 1024);
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
