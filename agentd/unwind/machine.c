/* SPDX-License-Identifier: Apache-2.0 */

/* What differs between machines: DWARF's register numbers, and code that is known by its bytes.
 *
 * Signal trampolines of glibc and the vDSO describe themselves; those of musl and of Go do not,
 * and gdb and libgcc know them by their instructions too: nothing else makes this system call.
 * Their frame is the kernel's struct rt_sigframe, found at the stack pointer.
 *
 * Source: System V ABI AMD64 1.0, figure 3.36; DWARF for the Arm 64-bit Architecture; the kernel's
 * arch/x86/include/asm/sigframe.h (ucontext at sp: uc_mcontext at 40) and
 * arch/arm64/kernel/signal.c (siginfo of 128 bytes, then ucontext: uc_mcontext at 176, regs[] 8
 * into it); Intel's SDM on NOP; binutils' tc-i386.c for the sequences in use. Sandbox only. */

#include <elf.h>

#include "agentd/unwind/unwind_private.h"

#define X86_UC     40 /* uc_mcontext: r8..r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip */
#define ARM64_REGS (128 + 176 + 8)

/* A stub has just been called, or jumped to right after the call. */
const struct unwind_rule unwind_stub_rule = {
	.cfa = UNWIND_CFA_SP, .flags = UNWIND_AUX_LOST, .cfa_offset = 8, .ra_offset = -1};

/* mov $15, %rax; syscall   and   mov x8, #139; svc #0 */
static const uint8_t x86_sigreturn[] = {0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05};
static const uint8_t arm64_sigreturn[] = {0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4};

#define SIGNAL_FLAGS                                                                               \
	(UNWIND_DEREF | UNWIND_SIGNAL | UNWIND_MOVES | UNWIND_RA_SP | UNWIND_FP_SAVED |            \
		UNWIND_AUX_SAVED | UNWIND_SAVED_SP)

static const struct unwind_machine machines[] = {
	{.elf = EM_X86_64,
		.sp = 7,
		.fp = 6,
		.ra = 16,
		.aux = 3,
		.leaf = 16,
		.padding = 1,
		.trampoline = x86_sigreturn,
		.trampoline_len = sizeof(x86_sigreturn),
		.signal = {.cfa = UNWIND_CFA_SP,
			.flags = SIGNAL_FLAGS,
			.cfa_offset = X86_UC + 15 * 8,
			.ra_offset = X86_UC / 8 + 16,
			.fp_offset = X86_UC / 8 + 10,
			.aux_offset = X86_UC / 8 + 11}},
	{.elf = EM_AARCH64,
		.sp = 31,
		.fp = 29,
		.ra = 30,
		.aux = 255,
		.leaf = 31,
		.ra_is_aux = true,
		.padding = 4,
		.trampoline = arm64_sigreturn,
		.trampoline_len = sizeof(arm64_sigreturn),
		.signal = {.cfa = UNWIND_CFA_SP,
			.flags = SIGNAL_FLAGS,
			.cfa_offset = ARM64_REGS + 31 * 8,
			.ra_offset = ARM64_REGS / 8 + 32,
			.fp_offset = ARM64_REGS / 8 + 29,
			.aux_offset = ARM64_REGS / 8 + 30}},
};

const struct unwind_machine *unwind_machine_find(uint16_t elf)
{
	for (size_t i = 0; i < ARRAY_SIZE(machines); i++) {
		if (machines[i].elf == elf)
			return &machines[i];
	}
	return NULL;
}

/* The length of the NOP of one or more bytes at code, 0 for anything else: int3 and zeros count
 * too, they stand between functions and end a program that runs into them. */
static size_t x86_nop(const uint8_t *code, size_t len)
{
	size_t at = 0;

	if (code[0] == 0xcc || code[0] == 0x00)
		return 1;
	while (at < len && at < 12 && (code[at] == 0x66 || code[at] == 0x2e))
		at++;
	if (at < len && code[at] == 0x90)
		return at + 1;
	/* 0f 1f /0: a ModRM byte that says how much follows */
	if (at + 3 <= len && code[at] == 0x0f && code[at + 1] == 0x1f) {
		uint8_t modrm = code[at + 2];
		size_t more = 3;

		if (modrm & 0x38)
			return 0;
		if ((modrm & 7) == 4)
			more++;
		more += (modrm >> 6) == 1 ? 1 : (modrm >> 6) == 2 ? 4 : 0;
		return at + more <= len ? at + more : 0;
	}
	/* xchg %ax,%ax and lea 0(%rsi),%rsi are older compilers' */
	if (at == 0 && len >= 7 && code[0] == 0x48 && code[1] == 0x8d && code[2] == 0xb4)
		return len >= 8 ? 8 : 0;
	return 0;
}

/* endbr64, bnd jmp *x(%rip) and their shorter forms. */
size_t unwind_stub(const struct unwind_machine *m, const uint8_t *code, size_t len)
{
	size_t at = 0;

	if (m->elf != EM_X86_64)
		return 0;
	if (len >= 4 && memcmp(code, "\xf3\x0f\x1e\xfa", 4) == 0)
		at = 4;
	if (at < len && code[at] == 0xf2)
		at++;
	return len - at >= 6 && code[at] == 0xff && code[at + 1] == 0x25 ? at + 6 : 0;
}

bool unwind_is_padding(const struct unwind_machine *m, const uint8_t *code, size_t len)
{
	if (m->padding == 4) {
		for (size_t at = 0; at < len; at += 4) {
			uint32_t word;

			if (len - at < 4)
				return false;
			memcpy(&word, code + at, 4);
			/* nop, udf #0, brk #1 */
			if (word != 0xd503201f && word != 0 && word != 0xd4200020)
				return false;
		}
		return true;
	}
	for (size_t at = 0; at < len;) {
		size_t n = x86_nop(code + at, len - at);

		if (n == 0)
			return false;
		at += n;
	}
	return true;
}
