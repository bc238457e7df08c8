/* SPDX-License-Identifier: Apache-2.0 */

/* The program that step_test.c runs one instruction at a time: calls of every shape that compilers
 * make, and signals. It prints nothing that matters; its call chain is known by watching its
 * calls. */

#include <alloca.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#define KEEP __attribute__((noinline))

static volatile uint64_t sink;
static jmp_buf back;
static char alternate[65536];

KEEP static uint64_t leaf(uint64_t x)
{
	return x * 3 + 1;
}

KEEP static uint64_t many(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f,
	uint64_t g, uint64_t h)
{
	uint64_t r = leaf(a) + leaf(b) * c;

	return r + leaf(d + e) + f * g + leaf(h);
}

KEEP static uint64_t variadic(int n, ...)
{
	va_list ap;
	uint64_t sum = 0;

	va_start(ap, n);
	for (int i = 0; i < n; i++)
		sum += leaf(va_arg(ap, uint64_t));
	va_end(ap);
	return sum;
}

/* A frame of a size that only the run knows. */
KEEP static uint64_t growing(unsigned n)
{
	char *p = alloca(n);

	memset(p, (int)n, n);
	return leaf((uint64_t)p[n / 2]) + many(1, 2, 3, 4, 5, 6, 7, n);
}

/* A realigned stack; with the allocation beside it gcc keeps the caller's frame in a register and
 * then in the frame. */
KEEP static uint64_t aligned(unsigned n)
{
	uint64_t block[16] __attribute__((aligned(64)));
	char *p = alloca(n);

	for (int i = 0; i < 16; i++)
		block[i] = leaf((uint64_t)i + n);
	memset(p, 1, n);
	sink += block[n % 16];
	return many(block[0], block[1], block[2], block[3], (uint64_t)p[0], 1, 2, 3);
}

KEEP static uint64_t large(void)
{
	volatile char room[70000];

	room[0] = 1;
	room[69999] = 2;
	return leaf((uint64_t)room[0] + (uint64_t)room[69999]) + growing(100);
}

static int compare(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	sink += leaf(*x);
	return *x < *y ? -1 : *x > *y;
}

KEEP static uint64_t sorted(void)
{
	uint64_t v[12];

	for (int i = 0; i < 12; i++)
		v[i] = (uint64_t)(i * 7919 % 13);
	qsort(v, 12, sizeof(v[0]), compare);
	return v[3];
}

KEEP static uint64_t deep(int n)
{
	uint64_t r = n ? deep(n - 1) + 1 : aligned(40);

	return r + (uint64_t)n;
}

KEEP static void jump(int n)
{
	if (n == 0)
		longjmp(back, 1);
	jump(n - 1);
	sink++;
}

static void on_signal(int number)
{
	sink += variadic(2, (uint64_t)number, (uint64_t)3);
	if (number == SIGUSR1)
		raise(SIGUSR2); /* one within the other */
}

KEEP static void signals(void)
{
	stack_t s = {.ss_sp = alternate, .ss_size = sizeof(alternate)};
	struct sigaction a = {.sa_handler = on_signal};

	sigaltstack(&s, NULL);
	sigaction(SIGUSR2, &a, NULL);
	a.sa_flags = SA_ONSTACK | SA_NODEFER;
	sigaction(SIGUSR1, &a, NULL);
	raise(SIGUSR2);
	raise(SIGUSR1);
}

KEEP static uint64_t library(void)
{
	char text[200];
	struct timeval now;

	gettimeofday(&now, NULL); /* the vDSO */
	snprintf(text, sizeof(text), "%d %s %5.2f %llx", 42, "text", 3.14, 0xdeadbeefULL);
	return strlen(text) + (uint64_t)strtol(text, NULL, 10) + (uint64_t)(now.tv_sec & 0);
}

int main(void)
{
	char *volatile p = malloc(100);

	signals(); /* first: from here on the test sends more of them, anywhere */
	free(p);
	sink += many(1, 2, 3, 4, 5, 6, 7, 8) + variadic(3, (uint64_t)1, (uint64_t)2, (uint64_t)3);
	sink += growing(77) + aligned(33) + large() + sorted() + deep(6) + library();
	if (setjmp(back) == 0)
		jump(4);
	return sink == 1;
}
