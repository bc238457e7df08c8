/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* From a file's own description of its stack frames to flat rows (bpf/unwind.h), one page of 64
 * KiB of text at a time. Sandbox only: the file is hostile.
 *
 * A page is a piece of the file, numbered by file offset >> 16; what lies in no executable segment
 * has no rows. For each address the first source that knows it is taken: .eh_frame, Go's pclntab,
 * .debug_frame, then code whose meaning is known by its bytes (signal trampolines, the entry
 * point). Everything else is a row that says that nothing is known, so a look-up always finds a
 * row.
 *
 * Bounds, whatever the file says: UNWIND_PAGE_ROWS rows a page, UNWIND_RULES_MAX rules a
 * dictionary, UNWIND_PAGE_WORK bytes of instructions run a page, UNWIND_INDEX_MAX functions in an
 * index that we build ourselves, UNWIND_DEBUG_FRAME_MAX bytes of an inflated section. What is
 * beyond is counted. */

#include "agentd/base/err.h"
#include "bpf/unwind.h"

#define UNWIND_PAGE_ROWS       16384 /* real pages have up to 3,000 or so */
#define UNWIND_PAGE_WORK       (8 << 20)
#define UNWIND_INDEX_MAX       (1 << 20)
#define UNWIND_DEBUG_FRAME_MAX (64 << 20)
#define UNWIND_ENTRY_MAX       (1 << 20) /* bytes of one CIE or FDE */
#define UNWIND_PROBLEMS_KEPT   64

struct elf_file;

/* ---- a file's dictionary of rules
 * ------------------------------------------------------------------------ */

/* It only grows, and its first UNWIND_FIXED_RULES are set by init. Whoever holds pages of a file
 * holds its rules in this order; a process that did not make them starts from theirs by
 * unwind_rules_seed(). */
struct unwind_rules {
	struct unwind_rule *rules;
	uint32_t n, size;
	uint32_t *slots; /* hash table: index + 1, 0 empty */
	uint32_t n_slots;
};

int unwind_rules_init(struct unwind_rules *d); /* -ENOMEM */
void unwind_rules_deinit(struct unwind_rules *d);
/* Replaces what is there by n rules (copied). -EINVAL: the first ones are not the fixed ones, or
 * too many. */
int unwind_rules_seed(struct unwind_rules *d, const struct unwind_rule *rules, uint32_t n);
/* The index of this rule, added if it is new. -ENOSPC: UNWIND_RULES_MAX are in it; -ENOMEM. */
int unwind_rules_add(struct unwind_rules *d, const struct unwind_rule *rule);

/* ---- what could not be read, counted
 * --------------------------------------------------------------------- */

enum unwind_problem_kind {
	UNWIND_PROBLEM_CFA_EXPRESSION, /* of a shape that is not known */
	UNWIND_PROBLEM_CFA_REGISTER,   /* the CFA counts from one that is not followed */
	UNWIND_PROBLEM_RETURN_RULE,    /* the return address is somewhere odd */
	UNWIND_PROBLEM_STACK_RULE,     /* the caller's stack pointer is not the CFA (longjmp) */
	UNWIND_PROBLEM_SAVED_RULE,     /* fp or aux cannot be followed, the row stands */
	UNWIND_PROBLEM_OFFSET,         /* beyond what a rule holds */
	UNWIND_PROBLEM_OPCODE,         /* unknown instruction: the function's rows end before it */
	UNWIND_PROBLEM_STATE_STACK,  /* remembered states nest too deep, or were never remembered */
	UNWIND_PROBLEM_AUGMENTATION, /* unknown augmentation or version of a CIE */
	UNWIND_PROBLEM_ENCODING,     /* pointer encoding that cannot stand in a file */
	UNWIND_PROBLEM_DAMAGED,      /* cut short, out of bounds, contradicting itself */
	UNWIND_PROBLEM_RULES_FULL,
	UNWIND_PROBLEM_ROWS_FULL,
	UNWIND_PROBLEM_WORK, /* the page's bound on instructions was reached */
	UNWIND_PROBLEM_INDEX_FULL,
	UNWIND_PROBLEM_KINDS
};

/* "CFA expression of unknown shape", ...; of any int. */
const char *unwind_problem_name(int kind);

struct unwind_problem {
	uint64_t vaddr;  /* first address concerned; 0 not known */
	uint64_t offset; /* of the entry within its section */
	uint16_t kind;   /* enum unwind_problem_kind */
	uint16_t
		rows; /* rows that say UNWIND_CFA_UNSUPPORTED because of it; 65535 or more: 65535 */
};

/* Counts what was decoded; a page that is decoded twice counts twice. */
struct unwind_counts {
	uint64_t pages, functions;
	uint64_t rows_read; /* as the sources have them, before equal neighbours are merged */
	uint64_t rows;      /* after */
	uint64_t problems[UNWIND_PROBLEM_KINDS]; /* in rows, or entries where they have none */
	struct unwind_problem kept[UNWIND_PROBLEMS_KEPT]; /* the first ones */
	uint32_t n_kept;
};

/* ---- a file
 * ----------------------------------------------------------------------------------------------- */

enum unwind_source {
	UNWIND_SOURCE_EH_FRAME = 1,      /* with the index of .eh_frame_hdr */
	UNWIND_SOURCE_EH_FRAME_SCAN = 2, /* read through once */
	UNWIND_SOURCE_GO = 4,
	UNWIND_SOURCE_DEBUG_FRAME = 8, /* seen; read through when a page needs it */
};

struct unwind_page {
	uint32_t page, n;
	uint16_t pc[UNWIND_PAGE_ROWS], rule[UNWIND_PAGE_ROWS];
};

struct unwind_file;

/* Borrows elf for its life. A file without any description opens (its pages hold one row).
 * -ENOEXEC: a 32-bit file or a machine that is not known; -ENOMEM; -errno of reading. Any machine
 * that bpf/unwind.h knows can be read on any host. */
int unwind_file_open(struct unwind_file **ret, const struct elf_file *elf, struct err_text *err);
struct unwind_file *unwind_file_close(struct unwind_file *f);
DEFINE_FREEP(unwind_file_closep, struct unwind_file *, unwind_file_close)

unsigned unwind_file_sources(const struct unwind_file *f); /* enum unwind_source */
size_t unwind_file_memory(const struct unwind_file *f);    /* heap bytes held */
/* Borrowed; goes on counting. */
const struct unwind_counts *unwind_file_counts(const struct unwind_file *f);

/* Fills *ret, rules added to d as needed. -ENOENT: no executable segment has bytes in this page;
 * -ENOMEM. Damage is never an error: what it covers has no information, and is counted. */
int unwind_file_page(
	struct unwind_file *f, uint32_t page, struct unwind_rules *d, struct unwind_page *ret);
/* All pages that have executable bytes, rising. visit may be given the same *page again each time;
 * a negative return ends it and is returned. For tests and tools. */
int unwind_file_each_page(struct unwind_file *f, struct unwind_rules *d, struct unwind_page *page,
	int (*visit)(void *userdata, const struct unwind_page *page), void *userdata);

/* The rule for a file offset within page->page. */
uint16_t unwind_page_find(const struct unwind_page *page, uint64_t offset);
