/* SPDX-License-Identifier: Apache-2.0 */

/* What calls.c calls: two functions of a few instructions, and one that makes 200 calls, each through an entry of the
 * procedure linkage table of its own. */

#define EXPORT __attribute__((visibility("default"), noinline, noipa))

int tiny_one(int a);
int tiny_two(int a);
EXPORT int tiny_one(int a)
{
	return a + 1;
}

EXPORT int tiny_two(int a)
{
	return a * 3;
}

#ifdef LAZY
/* clang-format off */
#define TEN(f, n) f(n##0) f(n##1) f(n##2) f(n##3) f(n##4) f(n##5) f(n##6) f(n##7) f(n##8) f(n##9)
#define HUNDRED(f, n) \
	TEN(f, n##0) TEN(f, n##1) TEN(f, n##2) TEN(f, n##3) TEN(f, n##4) \
	TEN(f, n##5) TEN(f, n##6) TEN(f, n##7) TEN(f, n##8) TEN(f, n##9)
/* clang-format on */
#define DEFINE(n)                                                                                  \
	void lazy_##n(void);                                                                       \
	EXPORT void lazy_##n(void)                                                                 \
	{                                                                                          \
		__asm__ volatile("");                                                              \
	}
#define CALL(n) lazy_##n();
HUNDRED(DEFINE, 1)
HUNDRED(DEFINE, 2)

static volatile int done;
void lazy_calls(void);
EXPORT void lazy_calls(void)
{
	HUNDRED(CALL, 1)
	HUNDRED(CALL, 2)
	done++;
}
#endif
