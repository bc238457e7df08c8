/* SPDX-License-Identifier: Apache-2.0 */

/* Truth: nearly all time in the kernel. `kernel_work zero S`: on top of zero_loop < main lies the system
 * call read of /dev/zero (vfs_read in every chain); `kernel_work random S`: on top of random_loop < main
 * getrandom. The system call is made here and not in the C library, which keeps no frame pointer.
 */

#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>

#include "work.h"

static char buffer[1 << 20];

static inline __attribute__((always_inline)) long call3(long number, long a, long b, long c)
{
#ifdef __x86_64__
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return result;
#else
	return syscall(number, a, b, c);
#endif
}

WORK_NOINLINE void zero_loop(struct work_clock *c)
{
	int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);

	while (work_next(c))
		for (int i = 0; i < 16; i++)
			work_sink += (uint64_t)call3(SYS_read, fd, (long)buffer, sizeof(buffer));
	close(fd);
}

WORK_NOINLINE void random_loop(struct work_clock *c)
{
	while (work_next(c))
		for (int i = 0; i < 4; i++)
			work_sink += (uint64_t)call3(SYS_getrandom, (long)buffer, 1 << 18, 0);
}

int main(int argc, char **argv)
{
	if (argc < 2 || (strcmp(argv[1], "zero") && strcmp(argv[1], "random"))) {
		fprintf(stderr, "usage: kernel_work zero|random [SECONDS]\n");
		return 2;
	}
	struct work_clock c = work_begin(work_seconds(argc - 1, argv + 1));

	if (!strcmp(argv[1], "zero"))
		zero_loop(&c);
	else
		random_loop(&c);
	work_report(&c);
	return 0;
}
