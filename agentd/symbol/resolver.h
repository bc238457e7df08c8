/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Inside the symbolizer: one resolver a kind of frame (native, kernel, JIT), in the table of
 * role.c. A native file has several sources of names, best first, in the table of native.c; each source is
 * one reader. Adding a kind or a source is adding a file and a row. */

#include "agentd/base/err.h"
#include "agentd/symbol/demangle.h"
#include "agentd/symbol/protocol.h"

#define FOUND_TEXT_MAX 49152 /* of one chain: it has to fit into a message */

struct found_function {
	const char *name, *system_name, *file; /* in found.text, or static; "" not known */
	uint32_t line, start_line;
	bool inlined;
};

/* What one address stands for: innermost function first. */
struct found {
	enum symbol_demangle demangle; /* of the request; found_reset() leaves it */
	const char *module;            /* "" : the file's own name */
	size_t n;
	/* The symbol table may know the outermost function's name better. */
	bool outermost_unqualified;
	struct found_function functions[SYMBOL_CHAIN_MAX];
	uint32_t before, behind; /* addresses before and behind it with just the same answer */
	/* Where its function begins and ends, whose other addresses have other lines; 0, 0: not known. */
	uint64_t function_from, function_to;
	size_t text_len;
	char text[FOUND_TEXT_MAX];
};

void found_reset(struct found *f);
/* Copies s, made clean; a text that does not fit is "". */
const char *found_text(struct found *f, const char *s);
/* The answer holds for [from, to), which address lies in. */
void found_holds(struct found *f, uint64_t address, uint64_t from, uint64_t to);
/* Renames the outermost function. */
void found_rename(struct found *f, const char *system_name);
/* Adds a function by its name as the file has it (clean or not): demangles it. -ENOSPC. */
int found_add(struct found *f, const char *system_name, const char *file, uint32_t line,
	uint32_t start_line, bool inlined);

/* What agentd handed over for a file. Descriptors are borrowed for the life of what is opened. */
struct resolver_input {
	int fd;
	int debug_fd,
		alt_fd; /* a separate debug file and an alternate file, not looked at yet; -1 none */
	uint16_t flags; /* SYMBOL_REQUEST_* */
};

#define RESOLVER_WANTS_DEBUG 1 /* see SYMBOL_DONE_WANTS_DEBUG */
#define RESOLVER_WANTS_ALT   2
#define RESOLVER_BARE        2 /* of find() */

struct resolver {
	const char *name;
	uint16_t kind; /* enum symbol_file_kind */
	/* Sets what it can of facts, also on failure. 0, RESOLVER_WANTS_* (*ret is left alone), -errno. */
	int (*open)(
		void **ret, const struct resolver_input *in, struct symbol_facts_message *facts);
	void *(*close)(void *state);
	/* For files that are written while we read: takes in what is new, before each later request. -errno: it has
	 * to be opened afresh. NULL: they do not change. */
	int (*refresh)(void *state, struct symbol_facts_message *facts);
	/* 1: found is filled; 0: no name; RESOLVER_BARE: no name, but found->before is how far behind its function's
	 * beginning it lies; -errno: the file cannot be read any more. */
	int (*find)(void *state, uint64_t address, struct found *found);
	size_t (*memory)(const void *state);
};

extern const struct resolver resolver_native, resolver_kernel, resolver_perfmap, resolver_jitdump;

struct elf_file;

/* One program or library, in pieces; all have the same addresses. */
struct native_files {
	struct elf_file *own;
	struct elf_file *debug; /* its separate debug file, proven to be; NULL none */
	struct elf_file *mini;  /* what was packed in .gnu_debugdata; NULL none */
	int alt_fd;             /* the alternate file, proven to be; -1 none */
};

struct native_source {
	const char *name;
	bool costly; /* left out where the file was too much before (SYMBOL_REQUEST_CHEAP) */
	bool alone;  /* those behind it are opened when it does not know an address */
	bool late;   /* opened when those before it do not know an address */
	/* *named_by: what to show. 0 with *ret NULL: the file has nothing of the kind. */
	int (*open)(void **ret, const struct elf_file *elf, const char **named_by,
		uint64_t *functions, struct err_text *problem);
	/* In its place, for a source that has use for all pieces. */
	int (*open_files)(void **ret, const struct native_files *files, const char **named_by,
		uint64_t *functions, struct err_text *problem);
	void *(*close)(void *state);
	int (*find)(void *state, uint64_t vaddr, struct found *found);
	/* A name without more, asked for when no source found one. NULL: none. */
	int (*find_bare)(void *state, uint64_t vaddr, struct found *found);
	size_t (*memory)(const void *state);
};

extern const struct native_source source_go, source_dwarf, source_symtab, source_plt;
