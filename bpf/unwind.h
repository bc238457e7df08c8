/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Unwinding by rows: their formats, and the registers that a walk carries. bpf/unwind_step.h has
 * the search among them and the step from a frame to its caller.
 *
 * A file's text is cut into pages of 64 KiB of file offset. A page is two arrays, pc (offset
 * within the page, rising, the first is 0) and rule (index into the file's dictionary); a row
 * holds up to the next. Dictionaries only grow, so that rows stay valid while others of the file
 * are loaded.
 *
 * Source: DWARF 5, 6.4; System V ABI AMD64 1.0, 3.2.1; AAPCS64; signal frames:
 * arch/x86/include/asm/sigframe.h and arch/arm64/kernel/signal.c. */

#include "bpf/sample.h"

#ifndef __bpf__
typedef int16_t unwind_s16;
typedef int32_t unwind_s32;
typedef int64_t unwind_s64;
#else
typedef short unwind_s16;
typedef int unwind_s32;
typedef long long unwind_s64;
#endif

/* What happens to few frames goes out of the way of the others. */
#define UNWIND_RARE(x) __builtin_expect(!!(x), 0)

#define UNWIND_PAGE_SHIFT 16
#define UNWIND_PAGE_SIZE  (1 << UNWIND_PAGE_SHIFT)
#define UNWIND_RULES_MAX  65535 /* in one dictionary */
#define UNWIND_SLOT       8     /* saved registers lie at multiples of this */

/* How the canonical frame address, the stack pointer of the caller, is made. The first four are
 * ends. */
enum unwind_cfa {
	UNWIND_CFA_NONE = 0,        /* nothing is known of this code */
	UNWIND_CFA_UNSUPPORTED = 1, /* what the file says is not understood */
	UNWIND_CFA_END = 2,         /* the outermost frame, says the file */
	UNWIND_CFA_SWITCH = 3,      /* another stack goes on elsewhere (Go's mcall, morestack) */
	UNWIND_CFA_SP = 4,          /* sp + cfa_offset */
	UNWIND_CFA_FP = 5,          /* fp + cfa_offset */
	UNWIND_CFA_AUX = 6,         /* the second register that is followed + cfa_offset */
	UNWIND_CFA_LEAF = 7,   /* DWARF register `reg` + cfa_offset: interrupted frames, callers */
	UNWIND_CFA_SCALED = 8, /* sp + 8 * DWARF register `reg` + cfa_offset: the same */
};

enum unwind_rule_flag {
	UNWIND_DEREF = 1,       /* CFA = *(what enum unwind_cfa makes) + cfa_add */
	UNWIND_PLT = 2,         /* CFA += (pc & 15) >= reg ? 8 : 0 */
	UNWIND_SIGNAL = 4,      /* the caller was interrupted: its pc is no return address */
	UNWIND_MOVES = 8,       /* the caller's stack may lie anywhere */
	UNWIND_RA_SP = 16,      /* ra_offset counts from sp, not from the CFA */
	UNWIND_RA_LEAF = 32,    /* return address in DWARF register ra_offset: interrupted frames */
	UNWIND_RA_AUX = 64,     /* return address in aux (arm64: lr), which is lost by it */
	UNWIND_FP_SAVED = 128,  /* at fp_offset from the base below; not: unchanged */
	UNWIND_AUX_SAVED = 256, /* at aux_offset from the base below */
	UNWIND_SAVED_SP = 512,  /* that base is sp; */
	UNWIND_SAVED_FP = 1024, /* or fp; else the CFA */
	UNWIND_FP_LOST = 2048,
	UNWIND_AUX_LOST = 4096,
	UNWIND_APPROXIMATE = 8192, /* made from convention, not from what the file says */
};

struct unwind_rule {
	sample_u8 cfa;                               /* enum unwind_cfa */
	sample_u8 reg;                               /* DWARF number, or the PLT's threshold */
	sample_u16 flags;                            /* enum unwind_rule_flag */
	unwind_s32 cfa_offset;                       /* bytes */
	unwind_s16 cfa_add;                          /* bytes */
	unwind_s16 ra_offset, fp_offset, aux_offset; /* in UNWIND_SLOTs */
};
_Static_assert(sizeof(struct unwind_rule) == 16, "rule");

/* The first rules of every dictionary: their index is their enum unwind_cfa. */
#define UNWIND_FIXED_RULES 4

/* ---- machines
 * ------------------------------------------------------------------------------------------ */

#define UNWIND_LEAF_REGS 32 /* leaf[], by DWARF number; a power of two */

#if defined(__TARGET_ARCH_arm64) || (!defined(__bpf__) && defined(__aarch64__))
#define UNWIND_DW_FP  29
#define UNWIND_DW_AUX 30 /* lr */
#define UNWIND_DW_SP  31
/* Return address authentication (and tags) lie above bit 47 of a user pointer. */
#define UNWIND_CODE_POINTER(p) ((p)&0x0000ffffffffffffULL)
/* Where the kernel's struct sigcontext keeps register n, and pc, in slots from its first register. */
#define UNWIND_SIGNAL_SLOT(n) ((n)&31)
#define UNWIND_SIGNAL_PC      32
/* A call overwrites lr: it is known of the innermost frame and of interrupted ones. */
#define UNWIND_AUX_SURVIVES 0
/* from: bpf_user_pt_regs_t or struct user_pt_regs */
#define UNWIND_REGS_LOAD(r, from)                                                                  \
	do {                                                                                       \
		(r)->pc = (from)->pc;                                                              \
		(r)->sp = (from)->sp;                                                              \
		(r)->fp = (from)->regs[29];                                                        \
		(r)->aux = (from)->regs[30];                                                       \
		__builtin_memcpy((r)->leaf, (from)->regs, 31 * 8);                                 \
		(r)->leaf[31] = (from)->sp;                                                        \
		(r)->fp_at = (r)->aux_at = (r)->leaf_at = 0;                                       \
		(r)->flags = UNWIND_REGS_LEAF;                                                     \
	} while (0)
#else
#define UNWIND_DW_FP           6 /* rbp */
#define UNWIND_DW_AUX          3 /* rbx: the dynamic linker's trampoline keeps its frame there */
#define UNWIND_DW_SP           7
#define UNWIND_CODE_POINTER(p) (p)
#define UNWIND_AUX_SURVIVES    1 /* callee-saved */
/* Where struct sigcontext keeps DWARF's register n (r8 to r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp),
 * and rip, in slots from its first register: a nibble each. */
#define UNWIND_SIGNAL_SLOT(n)  ((0x76543210fa89becdULL >> (4 * ((n)&15))) & 15)
#define UNWIND_SIGNAL_PC       16
/* from: bpf_user_pt_regs_t, struct user_regs_struct */
#define UNWIND_REGS_LOAD(r, from)                                                                  \
	do {                                                                                       \
		(r)->pc = (from)->rip;                                                             \
		(r)->sp = (from)->rsp;                                                             \
		(r)->fp = (from)->rbp;                                                             \
		(r)->aux = (from)->rbx;                                                            \
		(r)->leaf[0] = (from)->rax;                                                        \
		(r)->leaf[1] = (from)->rdx;                                                        \
		(r)->leaf[2] = (from)->rcx;                                                        \
		(r)->leaf[3] = (from)->rbx;                                                        \
		(r)->leaf[4] = (from)->rsi;                                                        \
		(r)->leaf[5] = (from)->rdi;                                                        \
		(r)->leaf[6] = (from)->rbp;                                                        \
		(r)->leaf[7] = (from)->rsp;                                                        \
		(r)->leaf[8] = (from)->r8;                                                         \
		(r)->leaf[9] = (from)->r9;                                                         \
		(r)->leaf[10] = (from)->r10;                                                       \
		(r)->leaf[11] = (from)->r11;                                                       \
		(r)->leaf[12] = (from)->r12;                                                       \
		(r)->leaf[13] = (from)->r13;                                                       \
		(r)->leaf[14] = (from)->r14;                                                       \
		(r)->leaf[15] = (from)->r15;                                                       \
		(r)->fp_at = (r)->aux_at = (r)->leaf_at = 0;                                       \
		(r)->flags = UNWIND_REGS_LEAF;                                                     \
	} while (0)
#endif

enum unwind_regs_flag {
	UNWIND_REGS_LEAF = 1,     /* pc was interrupted and leaf[] is of this frame */
	UNWIND_REGS_EXACT = 2,    /* pc was interrupted; its registers lie at leaf_at, unless 0 */
	UNWIND_REGS_FP_LOST = 4,  /* fp is not known */
	UNWIND_REGS_AUX_LOST = 8, /* aux is not known */
	UNWIND_REGS_GUESSED = 16, /* a rule with UNWIND_APPROXIMATE led here */
	/* The caller of a frame with UNWIND_REGS_LEAF: leaf[] is still what it was, unless that frame
	 * used those registers without a word. Assembly calls its own helpers so. */
	UNWIND_REGS_INHERITED = 32,
	/* With UNWIND_REGS_LEAF: the code at pc was looked at, and may say where its return address is. */
	UNWIND_REGS_SEEN = 64,
	UNWIND_REGS_TOP = 128,  /* at sp: the frame is not begun, or is gone */
	UNWIND_REGS_NEXT = 256, /* behind the word at sp, which is the caller's frame pointer */
};

struct unwind_regs {
	sample_u64 pc, sp;
	sample_u64 fp, fp_at;   /* fp_at not 0: fp is what lies there */
	sample_u64 aux, aux_at; /* the same */
	sample_u64 leaf_at;    /* UNWIND_REGS_EXACT: the interrupted registers, in a signal frame */
	sample_u32 flags, pad; /* enum unwind_regs_flag */
	sample_u64 leaf[UNWIND_LEAF_REGS];
};

enum unwind_result {
	UNWIND_OK = 0,
	UNWIND_ENDED = 1, /* by rule, or return address 0: the frame before was the outermost */
	UNWIND_NO_INFORMATION = 2,
	UNWIND_UNSUPPORTED = 3,
	UNWIND_SWITCHED = 4,      /* UNWIND_CFA_SWITCH */
	UNWIND_LOST_REGISTER = 5, /* the rule counts from a register that is not known here */
	UNWIND_UNREADABLE = 6,
	UNWIND_BAD_STACK = 7, /* the caller's stack pointer does not lie above, or is not aligned */
};

/* The address whose row is wanted: within the call for a return address. */
static __inline__ __attribute__((always_inline)) sample_u64 unwind_lookup_pc(
	const struct unwind_regs *r)
{
	return r->flags & (UNWIND_REGS_LEAF | UNWIND_REGS_EXACT) ? r->pc : r->pc - 1;
}
