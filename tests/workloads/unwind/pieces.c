/* SPDX-License-Identifier: Apache-2.0 */

/* Mappings that are not one piece: `split` changes the protection of a page amid the text, `apart` runs a page of the
 * program's own file mapped somewhere else, `huge` puts the text into anonymous memory (huge pages, where they are to
 * be had), `beyond` runs code from a sparse file, 5 GiB from its start, that is no ELF file at all. */

#include <fcntl.h>
#include <sys/mman.h>
#include "step.h"

uint64_t piece_entry(uint64_t units);
extern const char piece_start[], etext[];
extern const char filler_before[] __attribute__((weak));

__asm__(".section .text.piece,\"ax\",@progbits\n.p2align 12\n.globl piece_start\npiece_start:\n"
	".text\n");

static uint64_t (*entry)(uint64_t units) = piece_entry;

STEP void piece_call(void)
{
	step_sink = entry(STEP_UNITS);
}

STEP void own_leaf(uint64_t units)
{
	STEP_BODY(units, 0x7123456);
}

STEP void own_call(void)
{
	own_leaf(STEP_UNITS);
	STEP_AFTER();
}

STEP void run_round(void)
{
	piece_call();
	own_call();
	STEP_AFTER();
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void split(void)
{
	if (mprotect((void *)piece_start, 4096, PROT_READ | PROT_WRITE | PROT_EXEC))
		fail("mprotect");
}

/* File offset of an address of the text, by the process's own maps. */
static uint64_t offset_of(const char *address)
{
	FILE *f = fopen("/proc/self/maps", "re");
	unsigned long start, end, offset;
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx %*s %lx", &start, &end, &offset) == 3 &&
			(unsigned long)address >= start && (unsigned long)address < end) {
			fclose(f);
			return offset + (unsigned long)address - start;
		}
	}
	exit(1);
}

static void apart(const char *self)
{
	int fd = open(self, O_RDONLY | O_CLOEXEC);
	char *at = mmap(
		NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, (off_t)offset_of(piece_start));

	if (at == MAP_FAILED)
		fail("mmap");
	entry = (uint64_t(*)(uint64_t))(at + ((const char *)piece_entry - piece_start));
}

static void huge(void)
{
	const size_t unit = 2 << 20;
	char *start = (char *)(((uintptr_t)filler_before + unit - 1) & ~(unit - 1));
	char *end = (char *)((uintptr_t)etext & ~(unit - 1)), *room, *at;
	size_t size = (size_t)(end - start);

	if (!filler_before || end <= start)
		fail("text is too small");
	room = mmap(NULL, size + unit, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	at = (char *)(((uintptr_t)room + unit - 1) & ~(unit - 1));
	madvise(at, size, MADV_HUGEPAGE);
	memcpy(at, start, size);
	if (mprotect(at, size, PROT_READ | PROT_EXEC) ||
		mremap(at, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, start) != start)
		fail("mremap");
}

static void beyond(const char *folder)
{
	char path[4096];
	int fd;
	char *at;
	off_t where = 5LL << 30;

	snprintf(path, sizeof(path), "%s/beyond.%d", folder, getpid());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	if (fd < 0 || pwrite(fd, piece_start, 4096, where) != 4096)
		fail(path);
	at = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, where);
	if (at == MAP_FAILED)
		fail("mmap");
	entry = (uint64_t(*)(uint64_t))(at + ((const char *)piece_entry - piece_start));
}

int main(int argc, char **argv)
{
	step_begin(argc, argv);
	if (argc > 2 && !strcmp(argv[1], "split"))
		split();
	else if (argc > 2 && !strcmp(argv[1], "apart"))
		apart("/proc/self/exe");
	else if (argc > 2 && !strcmp(argv[1], "huge"))
		huge();
	else if (argc > 3 && !strcmp(argv[1], "beyond"))
		beyond(argv[2]);
	while (step_on())
		run_round();
	step_report("");
	return 0;
}
