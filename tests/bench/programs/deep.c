/* SPDX-License-Identifier: Apache-2.0 */

/* A user stack of so many frames, without frame pointers, that burns CPU time for as long as it is let:
 *
 *   deep FRAMES [fixed|varied] [COUNTER_FILE SLOT [CPU]]
 *
 * FRAMES are all that an unwinder finds from the leaf to _start. They alternate between 32 functions
 * whose frames differ in size, so that neither a row nor a rule repeats from one frame to the next.
 * fixed: one stack for ever. varied: another path through the functions each tenth of a millisecond or so.
 * COUNTER_FILE: work done is counted in its 64-bit number SLOT (a cache line each), for who
 * measures slow-down. */

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

/* _start, __libc_start_main, __libc_start_call_main, main, and the leaf */
#define OTHERS 5

static int varied;
static uint64_t random_state = 88172645463325252ULL;
static uint64_t own_counter;
static volatile uint64_t *counter = &own_counter;
static volatile uint64_t sink;

/* About half a microsecond a unit: a chain that no compiler shortens. */
__attribute__((noinline, noipa)) static void leaf(uint64_t units)
{
	uint64_t x = units;

	for (uint64_t u = 0; u < units; u++) {
		for (int i = 0; i < 256; i++)
			x = (x ^ (x >> 29)) * 6364136223846793005u;
		*counter = *counter + 1;
	}
	sink = x;
}

typedef void level_function(int left);
static level_function *const levels[32];

static inline unsigned pick(int left)
{
	if (!varied)
		return (unsigned)left * 7 % 32;
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (unsigned)(random_state >> 20) % 32;
}

#define LEVEL(n)                                                                                   \
	__attribute__((noinline, noipa)) static void level_##n(int left)                           \
	{                                                                                          \
		volatile char room[16 + 8 * (n)];                                                  \
                                                                                                   \
		room[n] = (char)left;                                                              \
		if (left <= 1)                                                                     \
			leaf(varied ? 200 : 20000000);                                             \
		else                                                                               \
			levels[pick(left)](left - 1);                                              \
		sink += (uint64_t)room[n];                                                         \
	}
#define EIGHT(a)                                                                                   \
	LEVEL(a##0)                                                                                \
	LEVEL(a##1) LEVEL(a##2) LEVEL(a##3) LEVEL(a##4) LEVEL(a##5) LEVEL(a##6) LEVEL(a##7)
EIGHT()
EIGHT(1)
EIGHT(2)
EIGHT(3)
#define NAMES(a)                                                                                   \
	level_##a##0, level_##a##1, level_##a##2, level_##a##3, level_##a##4, level_##a##5,        \
		level_##a##6, level_##a##7
static level_function *const levels[32] = {NAMES(), NAMES(1), NAMES(2), NAMES(3)};

int main(int argc, char **argv)
{
	int frames = argc > 1 ? atoi(argv[1]) : 104;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	varied = argc > 2 && strcmp(argv[2], "varied") == 0;
	if (argc > 4) {
		int fd = open(argv[3], O_RDWR | O_CLOEXEC);
		char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

		if (fd < 0 || shared == MAP_FAILED)
			return 1;
		counter = (uint64_t *)(void *)(shared + 64 * atoi(argv[4]));
	}
	if (argc > 5) {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(atoi(argv[5]), &set);
		sched_setaffinity(0, sizeof(set), &set);
	}
	if (frames <= OTHERS) {
		fprintf(stderr, "deep: at least %d frames\n", OTHERS + 1);
		return 1;
	}
	for (;;)
		levels[pick(frames)](frames - OTHERS);
}
