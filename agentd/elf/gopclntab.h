/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Go's own table of functions (pclntab), which its runtime needs and stripping leaves: for an address the
 * function, its name, file and line, what was inlined there, and how deep the stack is. Go 1.16 to 1.27,
 * programs of 64 bits. Sandbox only.
 *
 * Addresses are the ELF's own; "pc" is one, too. Reads go through small windows: an open table takes
 * GOPCLNTAB_MEMORY at most, whatever the file says. Not known here: functions of C in a program with
 * cgo that the system's linker put together; programs of 1.16 and 1.17 that it made
 * position-independent.
 *
 * Source: Go's src/internal/abi/symtab.go, src/runtime/symtab.go (step(), pcHeader, moduledata,
 * funcdata()), symtabinl.go and runtime2.go (_func) of 1.16 to 1.27. */

#include "agentd/elf/elf_file.h"

#define GOPCLNTAB_MEMORY (64 << 10)

enum gopclntab_layout {
	GOPCLNTAB_116 = 0, /* addresses */
	GOPCLNTAB_118 = 1, /* offsets from where the text begins */
	GOPCLNTAB_120 = 2, /* and lines that functions begin at */
};

/* Bits of a function's flags. */
#define GOPCLNTAB_TOP_FRAME 1
#define GOPCLNTAB_SP_WRITE  2
#define GOPCLNTAB_ASM       4

struct gopclntab;

struct gopclntab_function {
	uint64_t start, end; /* the next one's start */
	int32_t name;        /* for gopclntab_name() */
	uint32_t start_line; /* 0: not known */
	/* Tables of values by pc, for gopclntab_value(); 0: none. */
	uint32_t pcsp, pcfile, pcln, pcinline;
	uint32_t unit;        /* whose files pcfile's numbers are of */
	uint64_t inline_tree; /* address; 0: nothing is inlined, or it was not found */
	uint8_t flags;
};

/* A function that was inlined. */
struct gopclntab_call {
	int32_t name;
	uint32_t start_line; /* 0: not known */
	uint64_t parent;     /* a pc of the function whose file and line are the call's */
};

struct gopclntab *gopclntab_free(struct gopclntab *g);
DEFINE_FREEP(gopclntab_freep, struct gopclntab *, gopclntab_free)
/* Borrows elf. -ENOENT: not a Go program, or of a version that is not known; -ENOMEM; -errno of reading. */
int gopclntab_open(struct gopclntab **ret, const struct elf_file *elf);
/* Looks for what inlined functions need, too; before this, functions have no inline_tree. -ENOENT: it is
 * not found, and nothing will be said of them. */
int gopclntab_find_inlines(struct gopclntab *g);
size_t gopclntab_memory(const struct gopclntab *g);
const struct elf_file *gopclntab_elf(const struct gopclntab *g); /* borrowed */
enum gopclntab_layout gopclntab_layout(const struct gopclntab *g);
uint64_t gopclntab_functions(const struct gopclntab *g);

/* The function at pc, or the first one behind it. -ENOENT. */
int gopclntab_find(struct gopclntab *g, uint64_t pc, uint64_t *i);
/* Where function i is: [*start, *end). -ENOENT beyond the last. */
int gopclntab_range(struct gopclntab *g, uint64_t i, uint64_t *start, uint64_t *end);
/* -EBADMSG. */
int gopclntab_function(struct gopclntab *g, uint64_t i, struct gopclntab_function *ret);

/* NUL-terminated within size bytes; a longer one is cut. Its length, or -EBADMSG, -errno. */
ssize_t gopclntab_name(struct gopclntab *g, int32_t name, char *out, size_t size, bool *cut);
/* Of a value of pcfile: the path as the compiler saw it. The same. */
ssize_t gopclntab_file(struct gopclntab *g, const struct gopclntab_function *f, int64_t number,
	char *out, size_t size);

/* A walk through a table of values: each holds for [from, to). */
struct gopclntab_walk {
	uint64_t at; /* in the section; bytes read are what it goes up by */
	uint64_t start, from, to;
	int64_t value;
};

struct gopclntab_walk gopclntab_walk(
	const struct gopclntab *g, const struct gopclntab_function *f, uint32_t table);
/* False: the table ends here, or is damaged. */
bool gopclntab_next(struct gopclntab *g, struct gopclntab_walk *w);
/* The value at pc, -1: none. *work goes down by the bytes read; at 0 it is none. */
int64_t gopclntab_value(struct gopclntab *g, const struct gopclntab_function *f, uint32_t table,
	uint64_t pc, uint64_t *work);

/* Call number i of f's tree, a value of pcinline. -EBADMSG: there is no such call, or it lies outside
 * of f. That parents end is not checked: count them. */
int gopclntab_call(struct gopclntab *g, const struct gopclntab_function *f, int64_t i,
	struct gopclntab_call *ret);
