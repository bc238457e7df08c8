/* SPDX-License-Identifier: Apache-2.0 */

/* The program whose stack walk_test.c samples: built without frame pointers, so that only rows lead
 * to the callers. What it does is argv[1], how deep argv[2]. Its chain of calls is known: each
 * function leaves its return address in memory that the test has mapped, too (descriptor 3). */

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/unit/bpf/chain.h"

/* No inlining, no clones, no tail calls: a frame each. */
#ifdef __clang__
#define KEEP __attribute__((noinline))
#else
#define KEEP __attribute__((noipa))
#endif

static struct truth *truth;
static volatile uint64_t sink;
static void (*volatile at_the_end)(void);

static void remember(uint64_t pc)
{
	if (truth->n < TRUTH_MAX)
		truth->pc[truth->n++] = pc;
}

#define REMEMBER() remember((uint64_t)__builtin_return_address(0))

KEEP static void spin(void)
{
	REMEMBER();
	__atomic_store_n(&truth->ready, 1, __ATOMIC_RELEASE);
	for (;;)
		for (int i = 0; i < 1000; i++)
			sink += (uint64_t)i * sink;
}

/* read(), whose caller is the function that it stands in, wherever a sample hits: in a C library it may be
 * more than one frame, and its first call may have to be bound. */
static inline __attribute__((always_inline)) long read_here(long fd, void *to, size_t size)
{
#if defined(__x86_64__)
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "0"((long)SYS_read), "D"(fd), "S"(to), "d"(size)
			 : "rcx", "r11", "memory");
	return r;
#elif defined(__aarch64__)
	register long number __asm__("x8") = SYS_read, r __asm__("x0") = fd;
	register void *where __asm__("x1") = to;
	register size_t n __asm__("x2") = size;

	__asm__ volatile("svc #0" : "+r"(r) : "r"(number), "r"(where), "r"(n) : "memory");
	return r;
#endif
}

/* Nearly all of its time is in the kernel. */
KEEP static void in_kernel(void)
{
	int fd = open("/dev/zero", O_RDONLY);
	size_t size = 1 << 20;
	char *to = malloc(size);

	REMEMBER();
	__atomic_store_n(&truth->ready, 1, __ATOMIC_RELEASE);
	for (;;)
		if (read_here(fd, to, size) < 0)
			_exit(1);
}

/* ---- chains
 * ------------------------------------------------------------------------------------------------ */

KEEP static uint64_t second(int n);
KEEP static uint64_t third(int n);

KEEP static uint64_t first(int n)
{
	uint64_t r;

	REMEMBER();
	if (n <= 0)
		at_the_end();
	r = second(n - 1);
	return r * 3 + sink;
}

/* Saves registers, has locals. */
KEEP static uint64_t second(int n)
{
	uint64_t a = sink, b = sink * 3, c = sink * a, d = sink + b, e = sink ^ c, r;
	volatile char local[200];

	REMEMBER();
	local[n & 127] = 1;
	if (n <= 0)
		at_the_end();
	r = n % 3 ? third(n - 1) : first(n - 1);
	return r * a + b * c - d * e + (uint64_t)local[5];
}

/* A stack of a size that only the run knows: counted from the frame pointer. */
KEEP static uint64_t third(int n)
{
	char *local = __builtin_alloca((size_t)(n % 5 + 1) * 48);
	uint64_t r;

	REMEMBER();
	memset(local, n, 48);
	if (n <= 0)
		at_the_end();
	r = first(n - 1);
	return r + (uint64_t)local[n % 48];
}

#ifdef __GNUC__
#pragma GCC diagnostic ignored "-Winfinite-recursion"
#endif
KEEP static uint64_t itself(int n)
{
	uint64_t r;

	REMEMBER();
	if (n <= 0)
		at_the_end();
	r = itself(n - 1);
	return r * 5 + sink;
}

/* ---- code that no file describes
 * --------------------------------------------------------------------------- */

#if defined(__x86_64__)
/* Calls its argument, from a frame with (or without) a frame pointer. */
static const uint8_t with_pointer[] = {0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3};
static const uint8_t without_pointer[] = {
	0x48, 0x83, 0xec, 0x28, 0xff, 0xd7, 0x48, 0x83, 0xc4, 0x28, 0xc3};
static const uint8_t loop_for_ever[] = {0x48, 0x83, 0xec, 0x48, 0xeb, 0xfe};
/* To 32-bit code of the same page. */
static const uint8_t to_compat[] = {0x6a, 0x23, 0x57, 0x48, 0xcb};
static const uint8_t compat_loop[] = {0xeb, 0xfe};

static uint8_t *code_page(int flags)
{
	uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
		MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	if (page == MAP_FAILED)
		_exit(1);
	return page;
}

static void *jit(const uint8_t *code, size_t size)
{
	return memcpy(code_page(0), code, size);
}

/* In this file, without any word on its frame; rbp is that of a function farther out. */
__asm__(".text\n"
	".type bare, @function\n"
	"bare:\n"
	"	sub $72, %rsp\n"
	"1:	jmp 1b\n"
	".size bare, . - bare\n");
extern void bare(void);

KEEP static void call_bare(void)
{
	REMEMBER();
	remember(0);
	__atomic_store_n(&truth->ready, 1, __ATOMIC_RELEASE);
	bare();
	sink++;
}

KEEP static void call_jit_leaf(void)
{
	void (*f)(void) = jit(loop_for_ever, sizeof(loop_for_ever));

	REMEMBER();
	remember(0);
	truth->code = (uint64_t)f;
	__atomic_store_n(&truth->ready, 1, __ATOMIC_RELEASE);
	f();
	sink++;
}

static inline __attribute__((always_inline)) void through(const uint8_t *code, size_t size)
{
	void (*f)(void (*)(void)) = jit(code, size);

	REMEMBER();
	remember(0);
	truth->code = (uint64_t)f;
	f(spin);
	sink++;
}

KEEP static void through_pointer(void)
{
	through(with_pointer, sizeof(with_pointer));
	sink++;
}

KEEP static void through_bare(void)
{
	through(without_pointer, sizeof(without_pointer));
	sink++;
}

KEEP static void compat(void)
{
	uint8_t *page = code_page(MAP_32BIT);
	void (*f)(void *);

	memcpy(page, to_compat, sizeof(to_compat));
	memcpy(page + 64, compat_loop, sizeof(compat_loop));
	*(void **)&f = page;
	__atomic_store_n(&truth->ready, 1, __ATOMIC_RELEASE);
	f(page + 64);
}
#endif

/* ---- signals
 * ----------------------------------------------------------------------------------------------- */

static void on_signal(int number)
{
	(void)number;
	remember(0); /* in on_other_stack() */
	remember(0); /* in syscall() */
	REMEMBER();
	spin();
}

/* In a handler on a stack of its own, above which a page is missing, and then comes one with a
 * pattern. */
KEEP static void on_other_stack(void)
{
	const size_t page = 4096;
	uint8_t *area = mmap(NULL, 8 * page, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	stack_t s = {.ss_sp = area, .ss_size = 6 * page};
	struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};

	REMEMBER();
	for (size_t i = 0; i < page; i++)
		area[7 * page + i] = (uint8_t)(i * 7);
	munmap(area + 6 * page, page);
	sigaltstack(&s, NULL);
	sigaction(SIGUSR1, &a, NULL);
	truth->area = (uint64_t)area;
	syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1);
	sink++;
}

/* ---- a stack of no sense
 * ------------------------------------------------------------------------------------ */

KEEP static void on_garbage(void)
{
	const size_t n = 8192;
	uint64_t *area = mmap(NULL, n * 8, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	uint64_t x = 88172645463325252ULL;

	for (size_t i = 0; i < n; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		/* code of ours, places on this stack, and neither */
		area[i] = x % 5 < 2 ? (uint64_t)first + x % 4096
			: x % 5 < 4 ? (uint64_t)&area[x % n] & ~7ULL
				    : x;
	}
	__atomic_store_n(&truth->ready, 1, __ATOMIC_RELEASE);
#if defined(__x86_64__)
	__asm__ volatile("mov %0, %%rsp\n"
			 "mov %1, %%rbp\n"
			 "1: add $8, %%rsp\n"
			 "cmp %2, %%rsp\n"
			 "jb 1b\n"
			 "mov %0, %%rsp\n"
			 "jmp 1b\n"
			 :
			 : "r"(area), "r"(area + 100), "r"(area + n - 1024)
			 : "memory");
#endif
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*end)(void);
		uint64_t (*chain)(int n);
	} what[] = {
		{"itself", spin, itself},
		{"chain", spin, first},
		{"kernel", in_kernel, first},
		{"stack", on_other_stack, first},
		{"garbage", on_garbage, first},
#if defined(__x86_64__)
		{"bare", call_bare, first},
		{"jit-leaf", call_jit_leaf, first},
		{"jit-pointer", through_pointer, first},
		{"jit-bare", through_bare, first},
		{"compat", compat, first},
#endif
	};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	truth = mmap(NULL, sizeof(*truth), PROT_READ | PROT_WRITE, MAP_SHARED, 3, 0);
	if (argc < 3 || truth == MAP_FAILED)
		return 1;
	REMEMBER();
	for (size_t i = 0; i < sizeof(what) / sizeof(what[0]); i++)
		if (strcmp(argv[1], what[i].name) == 0) {
			at_the_end = what[i].end;
			return (int)what[i].chain(atoi(argv[2]));
		}
	return 2;
}
