/* SPDX-License-Identifier: Apache-2.0 */

/* The best source of names: debug information, of the file or its separate debug file, with the functions that were inlined at an address and
 * the lines of all. A chain with a function that has no name there is left to the symbol table. Runs
 * in the symbolizer. */

#include "agentd/elf/dwarf_file.h"
#include "agentd/elf/elf_file.h"
#include "agentd/symbol/resolver.h"

static int dwarf_open(void **ret, const struct native_files *files, const char **named_by,
	uint64_t *functions, struct err_text *problem)
{
	struct dwarf_file *f = NULL;
	int r = dwarf_file_open(&f, elf_file_fd(files->own), files->alt_fd, problem);

	*named_by = "DWARF";
	if (r == 0 && !f && files->debug) {
		r = dwarf_file_open(&f, elf_file_fd(files->debug), files->alt_fd, problem);
		*named_by = "DWARF (debug file)";
	}
	*ret = f;
	*functions = f ? dwarf_file_units(f) : 0;
	return r;
}

static void *dwarf_close(void *state)
{
	dwarf_file_close(state);
	return NULL;
}

static int add(void *userdata, const struct dwarf_file_function *function)
{
	struct found *found = userdata;

	if (!*function->name)
		return -ENOENT;
	found->outermost_unqualified = function->unqualified && !function->inlined;
	return found_add(found, function->name, function->file, function->line,
		function->start_line, function->inlined);
}

static int dwarf_find(void *state, uint64_t vaddr, struct found *found)
{
	int r = dwarf_file_find(state, vaddr, add, found);

	if (r > 0) {
		dwarf_file_extent(state, &found->function_from, &found->function_to);
		return 1;
	}
	found_reset(found);
	return r == -EIO ? r : 0;
}

static size_t dwarf_memory(const void *state)
{
	return dwarf_file_memory(state);
}

const struct native_source source_dwarf = {
	.name = "debug information",
	.costly = true,
	.open_files = dwarf_open,
	.close = dwarf_close,
	.find = dwarf_find,
	.memory = dwarf_memory,
};
