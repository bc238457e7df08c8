/* SPDX-License-Identifier: Apache-2.0 */

/* Names from .symtab and .dynsym: which symbol does an address belong to?
 *
 * What was stripped from .symtab may be in a separate debug file, or packed in .gnu_debugdata (without the
 * names that .dynsym has); the one table that is richest is taken, and .dynsym. Both are walked once into an array of disjoint ranges of 16 bytes each, sorted by address; names stay
 * in the file and are read when asked for. So the index of a program with 100,000 functions takes 1.6 MB.
 *
 * The rules, which decide alike for the same file always:
 * 1. Symbols count that are defined, lie in code and are functions, indirect functions, or have no type (hand
 *    written assembly). Without a type they must lie in their own section, which leaves out markers of its end.
 * 2. A function with a size reaches that far and not further: beyond it, and before the next, is nobody's, as
 *    perf and gdb have it. In a stripped library that is where the private functions are.
 * 3. Where sized functions overlap, the one that begins last has the address; at one beginning, the shorter.
 * 4. A symbol without a size, or without a type, is a label: it has what no sized function covers, up to the
 *    next symbol or the end of its section.
 * 5. Of several names for one range (aliases) the best is: with a type before without, exported before local,
 *    fewer leading underscores (write, not __write; a mangled name counts as none), strong before weak,
 *    shorter, first in byte order (the complete constructor C1 before the base one C2).
 * 6. Versions (name@VER, name@@VER) are cut off.
 *
 * Invariants. Memory is bounded by SYMTAB_MAX functions; a table that breaks a rule of the format costs that
 * table, the other still counts. Runs in the symbolizer. Source: gABI chapter 4. */

#include <elf.h>

#include "agentd/elf/elf_file.h"
#include "agentd/symbol/resolver.h"
#include "agentd/symbol/sort.h"

#define SYMTAB_MAX  2000000
#define NESTED_MAX  64
#define TABLES      4  /* see tables_of() */
#define TABLE_SHIFT 30 /* range.name: number of the table << 30 | offset of the string */
#define NAME_MASK   ((1U << TABLE_SHIFT) - 1)
#define WINDOW      4096
#define WALK_WINDOW 16384     /* while a table is walked, in the order of its names; */
#define WALK_WHOLE  (8 << 20) /* one that is not larger is held as a whole: see elf/symbols.c */

/* While building. */
struct entry {
	uint64_t start;
	uint32_t size, name;
	bool label;   /* rule 4 */
	uint8_t rank; /* rule 5; less is better */
};

struct range {
	uint64_t start;
	uint32_t size, name;
};

struct symtab {
	struct elf_strings strings[TABLES];
	struct range *ranges;
	size_t n_ranges;
};

struct build {
	struct symtab *s;
	struct entry *entries;
	size_t n, size;
	const struct elf_file *own;
	/* The table that is being read, and its file. */
	const struct elf_file *elf;
	uint32_t table;
	/* The section of the last symbol, which is most often the next one's too. */
	uint64_t code_start, code_end;
};

/* ---- rule 5 ---------------------------------------------------------------------------------------------- */

static ssize_t read_name(struct symtab *s, uint32_t name, char *out, size_t size, bool *cut)
{
	return elf_strings_get(&s->strings[name >> TABLE_SHIFT], name & NAME_MASK, out, size, cut);
}

static uint8_t rank(const struct elf_symbol *symbol, const char *name)
{
	unsigned underscores = (unsigned)strspn(name, "_");

	if (underscores && (name[underscores] == 'Z' || name[underscores] == 'R'))
		underscores = 0;
	return (uint8_t)((symbol->type == STT_NOTYPE) << 7 | (symbol->bind == STB_LOCAL) << 6 |
		MIN(underscores, 7U) << 3 | (symbol->bind == STB_WEAK) << 2);
}

static bool entry_less(const struct entry *a, const struct entry *b)
{
	if (a->start != b->start)
		return a->start < b->start;
	if (a->label != b->label)
		return b->label;
	if (a->size != b->size)
		return a->size > b->size;
	if (a->rank != b->rank)
		return a->rank < b->rank;
	return a->name < b->name;
}

DEFINE_SORT(sort_entries, struct entry, entry_less)

/* Whether b is a better name than a, of equal rank. */
static bool nicer(struct symtab *s, uint32_t a, uint32_t b)
{
	char names[2][SYMBOL_NAME_MAX];
	ssize_t len_a = read_name(s, a, names[0], sizeof(names[0]), NULL);
	ssize_t len_b = read_name(s, b, names[1], sizeof(names[1]), NULL);

	if (len_a < 0 || len_b < 0)
		return len_a < 0 && len_b >= 0;
	return len_b != len_a ? len_b < len_a : strcmp(names[1], names[0]) < 0;
}

/* Leaves one entry for each (start, label, size). */
static void choose_aliases(struct build *b)
{
	size_t kept = 0;

	for (size_t i = 0; i < b->n; i++) {
		struct entry *best = kept ? &b->entries[kept - 1] : NULL;
		const struct entry *e = &b->entries[i];

		if (!best || best->start != e->start || best->label != e->label ||
			best->size != e->size)
			b->entries[kept++] = *e;
		else if (best->rank == e->rank && nicer(b->s, best->name, e->name))
			best->name = e->name;
	}
	b->n = kept;
}

/* ---- collecting -------------------------------------------------------------------------------------------- */

static bool in_code(struct build *b, uint64_t address)
{
	if (address >= b->code_start && address < b->code_end)
		return true;
	return elf_file_code_range(b->elf, address, &b->code_start, &b->code_end);
}

static bool in_own_section(const struct build *b, const struct elf_symbol *symbol)
{
	const struct elf_section *s;

	if (symbol->section == SHN_XINDEX)
		return true;
	s = elf_file_section(b->elf, symbol->section);
	return s && symbol->value >= s->addr && symbol->value - s->addr < s->size;
}

/* Assemblers' marks: ARM's $x and $d, compilers' local labels. */
static bool is_mark(const char *name)
{
	return name[0] == '\0' || name[0] == '@' || (name[0] == '.' && name[1] == 'L') ||
		(name[0] == '$' && name[1] && strchr("adtx", name[1]) &&
			(!name[2] || name[2] == '.'));
}

static int collect(void *userdata, const struct elf_symbol *symbol)
{
	struct build *b = userdata;
	char name[32];

	if (symbol->section == SHN_UNDEF || symbol->section == SHN_COMMON ||
		symbol->name > NAME_MASK)
		return 0;
	if (symbol->type != STT_FUNC && symbol->type != STT_GNU_IFUNC && symbol->type != STT_NOTYPE)
		return 0;
	if (!in_code(b, symbol->value) ||
		(symbol->type == STT_NOTYPE && !in_own_section(b, symbol)))
		return 0;
	if (elf_strings_get(&b->s->strings[b->table], symbol->name, name, sizeof(name), NULL) < 0 ||
		is_mark(name))
		return 0;
	if (b->n == SYMTAB_MAX)
		return -E2BIG;
	if (b->n == b->size) {
		size_t size = MIN(b->size ? b->size * 2 : 4096, (size_t)SYMTAB_MAX);
		struct entry *grown = realloc(b->entries, size * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		b->entries = grown;
		b->size = size;
	}
	b->entries[b->n++] = (struct entry){.start = symbol->value,
		.size = (uint32_t)MIN(MIN(symbol->size, b->code_end - symbol->value), UINT32_MAX),
		.name = symbol->name | b->table << TABLE_SHIFT,
		.label = symbol->type == STT_NOTYPE || symbol->size == 0,
		.rank = rank(symbol, name)};
	return 0;
}

/* ---- flattening: rules 2 to 4 -------------------------------------------------------------------------------- */

struct open_symbol {
	uint64_t end;
	uint32_t name;
	bool label;
};

struct sweep {
	struct range *out; /* NULL: only counted */
	size_t n;
	uint64_t at; /* all below is decided */
	struct open_symbol open[NESTED_MAX];
	size_t n_open;
};

/* The innermost open symbol has [at, end). */
static void emit(struct sweep *w, uint64_t end)
{
	const struct open_symbol *top = &w->open[w->n_open - 1];

	if (end > w->at) {
		if (w->out)
			w->out[w->n] = (struct range){.start = w->at,
				.size = (uint32_t)MIN(end - w->at, UINT32_MAX),
				.name = top->name};
		w->n++;
		w->at = end;
	}
}

static void close_until(struct sweep *w, uint64_t address)
{
	while (w->n_open) {
		uint64_t end = w->open[w->n_open - 1].end;

		if (end > address) {
			emit(w, address);
			return;
		}
		emit(w, end);
		w->n_open--;
	}
}

static bool function_covers(const struct sweep *w)
{
	for (size_t i = 0; i < w->n_open; i++)
		if (!w->open[i].label)
			return true;
	return false;
}

static void sweep(struct build *b, struct sweep *w)
{
	uint64_t start, code_end;

	for (size_t i = 0; i < b->n; i++) {
		const struct entry *e = &b->entries[i];
		uint64_t end = e->start + e->size;

		close_until(w, e->start);
		w->at = MAX(w->at, e->start);
		if (e->label && (e->size == 0 ? w->n_open > 0 : function_covers(w)))
			continue;
		if (e->size == 0) {
			if (!elf_file_code_range(b->own, e->start, &start, &code_end))
				continue;
			end = code_end;
			for (size_t next = i + 1; next < b->n; next++)
				if (b->entries[next].start > e->start) {
					end = MIN(end, b->entries[next].start);
					break;
				}
		}
		if (w->n_open < NESTED_MAX)
			w->open[w->n_open++] = (struct open_symbol){
				.end = end, .name = e->name, .label = e->label};
	}
	close_until(w, UINT64_MAX);
}

static int flatten(struct build *b)
{
	struct sweep count = {0}, write = {0};

	sweep(b, &count);
	if (!count.n)
		return 0;
	b->s->ranges = malloc(count.n * sizeof(*b->s->ranges));
	if (!b->s->ranges)
		return -ENOMEM;
	write.out = b->s->ranges;
	sweep(b, &write);
	b->s->n_ranges = write.n;
	return 0;
}

/* ---- the source ------------------------------------------------------------------------------------------------ */

static void *symtab_close(void *state)
{
	struct symtab *s = state;

	if (s) {
		for (size_t i = 0; i < TABLES; i++)
			elf_strings_deinit(&s->strings[i]);
		free(s->ranges);
		free(s);
	}
	return NULL;
}
DEFINE_FREEP(symtab_closep, struct symtab *, symtab_close)

/* A table that may be there, best first. */
struct table {
	const struct elf_file *elf;
	uint32_t type;
	const char *named_by;
	bool bad; /* damaged, or too much */
	size_t n; /* symbols taken */
};

static void tables_of(const struct native_files *files, struct table ret[static TABLES])
{
	ret[0] = (struct table){files->debug, SHT_SYMTAB, ".symtab (debug file)", false, 0};
	ret[1] = (struct table){files->own, SHT_SYMTAB, ".symtab", false, 0};
	ret[2] = (struct table){files->mini, SHT_SYMTAB, ".gnu_debugdata", false, 0};
	ret[3] = (struct table){files->own, SHT_DYNSYM, ".dynsym", false, 0};
}

static int add_table(struct build *b, uint32_t number, const struct table *t)
{
	const struct elf_section *section = elf_file_find_type(t->elf, t->type, NULL);
	const struct elf_section *names;
	size_t window = WALK_WINDOW;
	int r;

	if (!section)
		return 0;
	names = elf_file_section(t->elf, section->link);
	if (names && names->size <= WALK_WHOLE)
		window = MAX((size_t)names->size, (size_t)WINDOW);
	r = elf_strings_init(&b->s->strings[number], t->elf, names, window);
	if (r < 0)
		return r;
	b->elf = t->elf;
	b->table = number;
	b->code_start = b->code_end = 0;
	return elf_file_each_symbol(t->elf, section, collect, b);
}

static void free_entries(struct build *b)
{
	free(b->entries);
}

/* One try over the tables that are not bad; *at: the one that it failed at. */
static int build(struct symtab **ret, const struct elf_file *own, struct table *tables, size_t *at,
	uint64_t *functions)
{
	CLEANUP(symtab_closep) struct symtab *s = calloc(1, sizeof(*s));
	CLEANUP(free_entries) struct build b = {.s = s, .own = own};
	int r = s ? 0 : -ENOMEM;
	bool any = false;

	for (size_t i = 0; i < TABLES && r == 0; i++) {
		struct table *t = &tables[i];
		size_t before = b.n;

		t->n = 0;
		if (!t->elf || t->bad || (any && t->type == SHT_SYMTAB))
			continue;
		*at = i;
		r = add_table(&b, (uint32_t)i, t);
		t->n = b.n - before;
		any |= t->n > 0;
	}
	if (r < 0)
		return r;
	for (size_t i = TABLES; i-- > 0;)
		*at = tables[i].n ? i : *at; /* what would be done without */
	sort_entries(b.entries, b.n);
	choose_aliases(&b);
	for (size_t i = 0; i < TABLES && r == 0; i++)
		if (s->strings[i].data)
			r = elf_strings_resize(&s->strings[i], WINDOW);
	if (r < 0)
		return r;
	*functions = b.n;
	r = flatten(&b);
	if (r < 0)
		return r;
	if (s->n_ranges)
		*ret = TAKE_PTR(s);
	return 0;
}

static int symtab_open(void **ret, const struct native_files *files, const char **named_by,
	uint64_t *functions, struct err_text *problem)
{
	struct table tables[TABLES];
	struct symtab *s = NULL;
	int r = 0, first = 0;
	size_t at = 0;

	tables_of(files, tables);
	/* A table that is damaged or too big is left out: what can be had without it? */
	for (size_t tries = 0; tries <= TABLES; tries++) {
		r = build(&s, files->own, tables, &at, functions);
		if (r == 0)
			break;
		if (!first)
			first = r;
		tables[at].bad = true;
	}
	if (first)
		err_set(problem, first,
			first == -E2BIG ? "its symbol table has too many entries"
				: first == -ENOMEM
				? "its symbol table is too big for the memory allowed"
				: "its symbol table is damaged");
	if (!s)
		return first;
	for (size_t i = TABLES; i-- > 0;)
		if (tables[i].n)
			*named_by = tables[i].named_by;
	*ret = s;
	return 0;
}

static const struct range *find_range(const struct symtab *s, uint64_t vaddr)
{
	size_t low = 0, high = s->n_ranges;

	/* The last range that does not begin behind vaddr. */
	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (s->ranges[middle].start <= vaddr)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == 0 || vaddr - s->ranges[low - 1].start >= s->ranges[low - 1].size)
		return NULL;
	return &s->ranges[low - 1];
}

static int symtab_find(void *state, uint64_t vaddr, struct found *found)
{
	struct symtab *s = state;
	const struct range *range = find_range(s, vaddr);
	char name[SYMBOL_NAME_MAX], *version;
	ssize_t len;
	bool cut;

	if (!range)
		return 0;
	len = read_name(s, range->name, name, sizeof(name), &cut);
	if (len < 0)
		return len == -EBADMSG ? 0 : (int)len;
	version = strchr(name, '@');
	if (version && version > name)
		*version = '\0';
	else if (cut)
		memcpy(name + sizeof(name) - 4, "...", 4);
	if (!*name)
		return 0;
	if (found->outermost_unqualified) {
		found_rename(found, name);
		return 1;
	}
	if (found_add(found, name, "", 0, 0, false) < 0)
		return 0;
	found_holds(found, vaddr, range->start, range->start + range->size);
	return 1;
}

static size_t symtab_memory(const void *state)
{
	const struct symtab *s = state;

	return sizeof(*s) + s->n_ranges * sizeof(s->ranges[0]) + 2 * (size_t)WINDOW;
}

const struct native_source source_symtab = {
	.name = "symbol tables",
	.open_files = symtab_open,
	.close = symtab_close,
	.find = symtab_find,
	.memory = symtab_memory,
};
