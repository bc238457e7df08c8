/* SPDX-License-Identifier: Apache-2.0 */

/* Names of the kernel and its modules, BPF programs and trampolines, from the kernel's own list.
 *
 * The list has no sizes: a function reaches to the next symbol of any kind. The last of a module, whose next
 * symbol is another module's somewhere else, reaches to the end of the page behind the one it begins in, as
 * perf has it. Names are kept once, in one block; data symbols are kept as ends only.
 *
 * What has no file and yet a module in the list is code that the kernel made while it ran: BPF programs (bpf) and
 * trampolines (__builtin__ftrace, __builtin__kprobes). Their modules keep their brackets, which no module's name
 * has. They lie alone or side by side in no order, so each reaches no farther than such code is long.
 *
 * The text is the kernel's, but names in it are a module's or a BPF program's author's, and the reader is in
 * the sandbox with the others: every line is checked, a line that is not understood is left out.
 *
 * Of several names at one address: with fewer leading underscores, global before local before weak, shorter,
 * first in byte order. Source: proc(5), kernel/kallsyms.c (s_show). Runs in the symbolizer. */

#include "agentd/symbol/kallsyms.h"
#include "agentd/symbol/resolver.h"
#include "agentd/symbol/sort.h"

#define SYMBOLS_MAX 2000000
#define NAMES_MAX   (64 << 20)
#define MODULES_MAX 4096
#define LINE_MAX    1024
#define PAGE        4096ULL
#define BPF_REACH   (256ULL << 10) /* the largest programs seen are of some 100 KB */
#define NO_NAME     UINT32_MAX

struct ksym {
	uint64_t address;
	uint32_t name;   /* in names; NO_NAME: not code, an end only */
	uint16_t module; /* in modules; 0 the kernel itself */
	uint8_t rank;    /* less is better */
};

struct kallsyms {
	struct ksym *symbols;
	size_t n, size;
	char *names;
	size_t names_len, names_size;
	char *modules[MODULES_MAX];
	size_t n_modules;
	bool any_address;
	size_t functions;
	char line[LINE_MAX];
	size_t line_len;
	bool line_too_long;
};

int kallsyms_new(struct kallsyms **ret)
{
	CLEANUP(kallsyms_freep) struct kallsyms *k = calloc(1, sizeof(*k));

	if (!k)
		return -ENOMEM;
	k->modules[0] = strdup("vmlinux");
	if (!k->modules[0])
		return -ENOMEM;
	k->n_modules = 1;
	*ret = TAKE_PTR(k);
	return 0;
}

struct kallsyms *kallsyms_free(struct kallsyms *k)
{
	if (k) {
		for (size_t i = 0; i < k->n_modules; i++)
			free(k->modules[i]);
		free(k->symbols);
		free(k->names);
		free(k);
	}
	return NULL;
}

/* ---- reading ------------------------------------------------------------------------------------------------ */

static int add_name(struct kallsyms *k, const char *name, size_t len, uint32_t *ret)
{
	if (k->names_len + len + 1 > k->names_size) {
		size_t size = MAX(k->names_size * 2, (size_t)1 << 20);
		char *grown;

		if (size > NAMES_MAX)
			return -E2BIG;
		grown = realloc(k->names, size);
		if (!grown)
			return -ENOMEM;
		k->names = grown;
		k->names_size = size;
	}
	*ret = (uint32_t)k->names_len;
	memcpy(k->names + k->names_len, name, len);
	k->names[k->names_len + len] = '\0';
	k->names_len += len + 1;
	return 0;
}

static bool is_generated(const char *module, size_t len)
{
	return (len == 3 && memcmp(module, "bpf", 3) == 0) ||
		(len > 11 && memcmp(module, "__builtin__", 11) == 0);
}

/* text: "[name]...". Symbols of a module come together: the last one added is most often it. */
static int find_module(struct kallsyms *k, const char *text, uint16_t *ret)
{
	size_t len = strcspn(text, "]") - 1;

	text++;
	if (is_generated(text, len)) {
		text--;
		len += 2;
	}
	for (size_t i = k->n_modules; i-- > 0;) {
		if (strlen(k->modules[i]) == len && memcmp(k->modules[i], text, len) == 0) {
			*ret = (uint16_t)i;
			return 0;
		}
	}
	if (k->n_modules == MODULES_MAX)
		return -E2BIG;
	k->modules[k->n_modules] = strndup(text, len);
	if (!k->modules[k->n_modules])
		return -ENOMEM;
	*ret = (uint16_t)k->n_modules++;
	return 0;
}

static bool parse_address(const char **at, uint64_t *ret)
{
	const char *p = *at;

	for (*ret = 0; p - *at < 16; p++) {
		if (*p >= '0' && *p <= '9')
			*ret = *ret << 4 | (uint64_t)(*p - '0');
		else if (*p >= 'a' && *p <= 'f')
			*ret = *ret << 4 | (uint64_t)(*p - 'a' + 10);
		else
			break;
	}
	if (p == *at || *p != ' ')
		return false;
	*at = p + 1;
	return true;
}

static uint8_t rank(char type, const char *name)
{
	size_t underscores = strspn(name, "_");

	return (uint8_t)(MIN(underscores, (size_t)7) << 2 |
		(type == 'T'                  ? 0
				: type == 't' ? 1
					      : 2));
}

/* "ffffffff81000000 T _stext" or "ffffffffc0001000 t helper\t[module]" */
static int add_line(struct kallsyms *k, const char *line)
{
	struct ksym symbol = {.name = NO_NAME};
	const char *module;
	size_t len;
	char type;
	int r = 0;

	if (!parse_address(&line, &symbol.address) || !line[0] || line[1] != ' ')
		return 0;
	type = line[0];
	line += 2;
	len = strcspn(line, "\t ");
	if (len == 0)
		return 0;
	module = line + len + strspn(line + len, "\t ");
	if (module[0] == '[' && strchr(module, ']') && module[1] != ']')
		r = find_module(k, module, &symbol.module);
	if (r == 0 && strchr("tTwW", type)) {
		k->any_address |= symbol.address != 0;
		symbol.rank = rank(type, line);
		r = add_name(k, line, len, &symbol.name);
	}
	if (r < 0)
		return r;
	if (k->n == k->size) {
		size_t size = k->size ? k->size * 2 : 16384;
		struct ksym *grown;

		if (k->n >= SYMBOLS_MAX)
			return -E2BIG;
		grown = realloc(k->symbols, size * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		k->symbols = grown;
		k->size = size;
	}
	k->symbols[k->n++] = symbol;
	return 0;
}

int kallsyms_add(struct kallsyms *k, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		int r = 0;

		if (text[i] != '\n') {
			if (k->line_len < sizeof(k->line) - 1)
				k->line[k->line_len++] = text[i];
			else
				k->line_too_long = true;
			continue;
		}
		k->line[k->line_len] = '\0';
		if (!k->line_too_long)
			r = add_line(k, k->line);
		k->line_len = 0;
		k->line_too_long = false;
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- the index ------------------------------------------------------------------------------------------------- */

static bool symbol_less(const struct ksym *a, const struct ksym *b)
{
	if (a->address != b->address)
		return a->address < b->address;
	if ((a->name == NO_NAME) != (b->name == NO_NAME))
		return b->name == NO_NAME;
	if (a->rank != b->rank)
		return a->rank < b->rank;
	return a->name < b->name;
}

DEFINE_SORT(sort_symbols, struct ksym, symbol_less)

static bool nicer(const struct kallsyms *k, const struct ksym *a, const struct ksym *b)
{
	const char *name_a, *name_b;

	if (b->name == NO_NAME || a->name == NO_NAME || a->rank != b->rank)
		return false;
	name_a = k->names + a->name;
	name_b = k->names + b->name;
	return strlen(name_b) != strlen(name_a) ? strlen(name_b) < strlen(name_a)
						: strcmp(name_b, name_a) < 0;
}

int kallsyms_finish(struct kallsyms *k)
{
	struct ksym *smaller;
	char *fewer;
	size_t kept = 0;

	if (!k->any_address)
		return k->names_len ? -EPERM : -ENODATA;
	sort_symbols(k->symbols, k->n);
	for (size_t i = 0; i < k->n; i++) {
		struct ksym *last = kept ? &k->symbols[kept - 1] : NULL;

		if (last && last->address == k->symbols[i].address) {
			if (nicer(k, last, &k->symbols[i]))
				*last = k->symbols[i];
			continue;
		}
		/* Of data behind data only the first is an end. */
		if (k->symbols[i].name == NO_NAME && (!last || last->name == NO_NAME))
			continue;
		k->functions += k->symbols[i].name != NO_NAME;
		k->symbols[kept++] = k->symbols[i];
	}
	k->n = kept;
	smaller = realloc(k->symbols, kept * sizeof(*smaller));
	if (smaller) {
		k->symbols = smaller;
		k->size = kept;
	}
	fewer = realloc(k->names, k->names_len);
	if (fewer) {
		k->names = fewer;
		k->names_size = k->names_len;
	}
	return 0;
}

/* How far a function may reach, from its first page on. */
static uint64_t reach(const struct kallsyms *k, const struct ksym *symbol, const struct ksym *next)
{
	const char *module = k->modules[symbol->module];

	if (streq(module, "[bpf]"))
		return BPF_REACH;
	if (module[0] == '[' || !next || next->module != symbol->module)
		return 2 * PAGE;
	return UINT64_MAX;
}

bool kallsyms_find_range(const struct kallsyms *k, uint64_t address, const char **name,
	const char **module, uint64_t *from, uint64_t *to)
{
	uint64_t base, far;
	const struct ksym *symbol, *next;
	size_t low = 0, high = k->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (k->symbols[middle].address <= address)
			low = middle + 1;
		else
			high = middle;
	}
	symbol = low ? &k->symbols[low - 1] : NULL;
	next = low < k->n ? &k->symbols[low] : NULL;
	if (!symbol || symbol->name == NO_NAME || !symbol->address)
		return false;
	base = symbol->address & ~(PAGE - 1);
	far = reach(k, symbol, next);
	if (address - base >= far)
		return false;
	*from = symbol->address;
	*to = next ? next->address : address + 1;
	if (far != UINT64_MAX)
		*to = next ? MIN(*to, base + far) : base + far;
	*name = k->names + symbol->name;
	*module = k->modules[symbol->module];
	return true;
}

bool kallsyms_find(
	const struct kallsyms *k, uint64_t address, const char **name, const char **module)
{
	uint64_t from, to;

	return kallsyms_find_range(k, address, name, module, &from, &to);
}

size_t kallsyms_functions(const struct kallsyms *k)
{
	return k->functions;
}

size_t kallsyms_memory(const struct kallsyms *k)
{
	return sizeof(*k) + k->size * sizeof(*k->symbols) + k->names_size;
}

/* ---- the resolver ---------------------------------------------------------------------------------------------- */

static void *kernel_close(void *state)
{
	return kallsyms_free(state);
}

static int read_all(struct kallsyms *k, int fd)
{
	_cleanup_free_ char *chunk = malloc(65536);

	while (chunk) {
		ssize_t n = read(fd, chunk, 65536);
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		r = kallsyms_add(k, chunk, (size_t)n);
		if (r < 0)
			return r;
	}
	return -ENOMEM;
}

static int kernel_open(
	void **ret, const struct resolver_input *in, struct symbol_facts_message *facts)
{
	CLEANUP(kallsyms_freep) struct kallsyms *k = NULL;
	int r = kallsyms_new(&k);

	if (r == 0)
		r = read_all(k, in->fd);
	if (r == 0)
		r = kallsyms_finish(k);
	if (r < 0) {
		snprintf(facts->problem, sizeof(facts->problem), "%s",
			r == -EPERM
				? "the kernel hides its addresses: set kernel.kptr_restrict to 0 or 1, "
				  "and give agentd CAP_SYSLOG"
				: r == -ENODATA ? "the kernel lists no functions"
						: strerrordesc_np(-r));
		return r;
	}
	facts->functions = kallsyms_functions(k);
	snprintf(facts->named_by, sizeof(facts->named_by), "kallsyms");
	*ret = TAKE_PTR(k);
	return 0;
}

static int kernel_find(void *state, uint64_t address, struct found *found)
{
	const char *name, *module;
	uint64_t from, to;

	if (!kallsyms_find_range(state, address, &name, &module, &from, &to))
		return 0;
	if (found_add(found, name, "", 0, 0, false) < 0)
		return 0;
	found_holds(found, address, from, to);
	found->module = found_text(found, module);
	return 1;
}

static size_t kernel_memory(const void *state)
{
	return kallsyms_memory(state);
}

const struct resolver resolver_kernel = {
	.name = "kernel",
	.kind = SYMBOL_KIND_KALLSYMS,
	.open = kernel_open,
	.close = kernel_close,
	.find = kernel_find,
	.memory = kernel_memory,
};
