/* SPDX-License-Identifier: Apache-2.0 */

/* Names of Go functions from the table that Go's runtime needs, so that they are there in stripped programs,
 * too: with file, line, the functions that were inlined (each with the line of its call), and since 1.20 the
 * line that each begins at, which profile-guided optimisation asks for.
 *
 * It comes before debug information: it says the same of Go's functions, and opening it costs a few reads.
 * Names stay as Go's linker wrote them: main.Sum[go.shape.int], main.Sum[...] before 1.21.
 *
 * A chain is made as the runtime makes it: the value of pcinline at a pc is the innermost call there; its
 * parent is another pc of the same function, with the file and line of the call. Nothing in the format makes
 * that end, so it is counted; what is too long is answered by its outermost function alone.
 *
 * Functions of C that Go's own linker put in (cgo) are in the table without lines: those are left to other
 * sources, unless nobody else names them. Runs in the symbolizer. */

#include "agentd/elf/gopclntab.h"
#include "agentd/symbol/resolver.h"

#define WORK_MAX (4 << 20) /* bytes of tables walked for one address; real ones take up to 100 KB */

static int go_open(void **ret, const struct elf_file *elf, const char **named_by,
	uint64_t *functions, struct err_text *problem)
{
	struct gopclntab *g = NULL;
	int r = gopclntab_open(&g, elf);

	if (r == -ENOMEM)
		return r;
	if (r < 0)
		return 0;
	if (gopclntab_find_inlines(g) < 0)
		err_set(problem, -ENOENT, "Go's inlined functions cannot be told");
	*ret = g;
	*named_by = "gopclntab";
	*functions = gopclntab_functions(g);
	return 0;
}

static void *go_close(void *state)
{
	gopclntab_free(state);
	return NULL;
}

struct place {
	struct gopclntab *table;
	struct gopclntab_function function;
	uint64_t pc, work;
	struct found *found;
};

/* Adds a function at place: innermost first. */
static int add(struct place *p, int32_t name, uint32_t start_line, bool inlined)
{
	char text[SYMBOL_NAME_MAX], file[SYMBOL_NAME_MAX];
	int64_t number, line;
	bool cut = false;

	if (gopclntab_name(p->table, name, text, sizeof(text), &cut) <= 0)
		return -EBADMSG;
	if (cut)
		memcpy(text + sizeof(text) - 4, "...", 4);
	number = gopclntab_value(p->table, &p->function, p->function.pcfile, p->pc, &p->work);
	line = gopclntab_value(p->table, &p->function, p->function.pcln, p->pc, &p->work);
	if (gopclntab_file(p->table, &p->function, number, file, sizeof(file)) < 0)
		file[0] = '\0';
	return found_add(p->found, text, file, line < 0 ? 0 : (uint32_t)line, start_line, inlined);
}

/* The functions inlined at p->pc, which is then where the outermost one calls. -errno: they cannot be told. */
static int add_inlined(struct place *p)
{
	const struct gopclntab_function *f = &p->function;
	struct gopclntab_call call;
	int r;

	while (f->pcinline) {
		int64_t i = gopclntab_value(p->table, f, f->pcinline, p->pc, &p->work);

		if (i < 0)
			return p->work ? 0 : -E2BIG;
		if (p->found->n == SYMBOL_CHAIN_MAX - 1)
			return -ELOOP;
		r = gopclntab_call(p->table, f, i, &call);
		if (r == 0)
			r = add(p, call.name, call.start_line, true);
		if (r < 0)
			return r;
		p->pc = call.parent;
	}
	return 0;
}

static bool find_function(struct place *p)
{
	const struct gopclntab_function *f = &p->function;
	uint64_t i;

	return gopclntab_find(p->table, p->pc, &i) == 0 &&
		gopclntab_function(p->table, i, &p->function) == 0 && p->pc >= f->start &&
		p->pc < f->end;
}

static int add_outermost(struct place *p)
{
	if (add(p, p->function.name, p->function.start_line, false) == 0)
		return 1;
	found_reset(p->found);
	return 0;
}

static int go_find(void *state, uint64_t vaddr, struct found *found)
{
	struct place p = {.table = state, .pc = vaddr, .work = WORK_MAX, .found = found};

	if (!find_function(&p) || (!p.function.pcln && !p.function.pcfile))
		return 0;
	if (add_inlined(&p) < 0) {
		found_reset(found);
		p.pc = vaddr;
		p.work = WORK_MAX;
	}
	return add_outermost(&p);
}

static int go_find_bare(void *state, uint64_t vaddr, struct found *found)
{
	struct place p = {.table = state, .pc = vaddr, .work = WORK_MAX, .found = found};

	return find_function(&p) ? add_outermost(&p) : 0;
}

static size_t go_memory(const void *state)
{
	return gopclntab_memory(state);
}

const struct native_source source_go = {
	.name = "Go's function table",
	.alone = true,
	.open = go_open,
	.close = go_close,
	.find = go_find,
	.find_bare = go_find_bare,
	.memory = go_memory,
};
