/* SPDX-License-Identifier: Apache-2.0 */

/* The smallest program: it ends at once. */

__attribute__((noreturn)) void _start(void);
void _start(void)
{
	__asm__ volatile("xor %edi, %edi\nmov $60, %eax\nsyscall");
	__builtin_unreachable();
}
