/* SPDX-License-Identifier: Apache-2.0 */

/* Every row of real files against readelf's reading of the same file.
 *
 * readelf (binutils) shares no code with us. For each row that it prints, our rule for the same
 * address is applied to a machine on paper, and pc, stack pointer, frame pointer and aux of the
 * caller have to be what readelf's words make there; expressions are evaluated from its text by a
 * small stack machine of our own here. What we call unsupported is counted by kind and printed;
 * all else has to agree.
 *
 * A few files in a normal run; UNWIND_ALL_FILES=1 in the environment: all of them. Further files
 * can be named as arguments. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <ctype.h>
#include <fcntl.h>
#include <glob.h>

#include "tests/unit/unwind/model.h"
#include "agentd/elf/elf_file.h"

#define MAX_COLUMNS 24

struct span { /* of one expression, from readelf's raw dump */
	uint64_t from, to;
	char what[8]; /* cfa, ra, rbp, rbx, rsp */
	char text[200];
};

struct reading {
	const char *path;
	struct elf_file *elf;
	struct unwind_file *file;
	struct unwind_rules rules;
	struct unwind_page **pages;
	size_t n_pages;
	struct span *spans;
	size_t n_spans, size_spans;
	bool debug_frame; /* the section that is being read */
	/* The function that is being read. */
	uint64_t start, end;
	char columns[MAX_COLUMNS][8];
	size_t n_columns;
	/* What CIEs begin with: readelf prints no row for a function that stays so. */
	struct {
		unsigned long long offset;
		size_t n_columns;
		char columns[MAX_COLUMNS][8], cells[MAX_COLUMNS + 1][40];
	} cies[64];
	size_t n_cies;
	bool in_cie, any_row;
	/* A row waits for the next to know its end. */
	bool waiting;
	uint64_t row;
	char cells[MAX_COLUMNS + 1][40];
	/* Sums. */
	uint64_t functions, rows, points, disagreements, unsupported, lost, runtime, elsewhere;
};

static const char *const names[] = {"rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", "r8",
	"r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip"};

static int number_of(const char *name, size_t len)
{
	for (int i = 0; i < (int)ARRAY_SIZE(names); i++) {
		if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0)
			return i;
	}
	return -1;
}

/* ---- our side
 * -------------------------------------------------------------------------------------------- */

static int keep_page(void *userdata, const struct unwind_page *page)
{
	struct reading *r = userdata;
	struct unwind_page *copy = calloc(1, sizeof(*copy));

	assert_non_null(copy);
	*copy = *page;
	if (page->page >= r->n_pages) {
		r->pages = realloc(r->pages, (page->page + 1) * sizeof(*r->pages));
		assert_non_null(r->pages);
		while (r->n_pages <= page->page)
			r->pages[r->n_pages++] = NULL;
	}
	r->pages[page->page] = copy;
	return 0;
}

/* Rows as they have to be, whatever the file. */
static void check_page(struct reading *r, const struct unwind_page *p)
{
	assert_true(p->n > 0 && p->n <= UNWIND_PAGE_ROWS && p->pc[0] == 0);
	for (uint32_t i = 0; i < p->n; i++) {
		assert_true(p->rule[i] < r->rules.n);
		if (i > 0)
			assert_true(p->pc[i] > p->pc[i - 1] && p->rule[i] != p->rule[i - 1]);
	}
}

static const struct unwind_rule *find_rule(struct reading *r, uint64_t vaddr)
{
	size_t n;
	const struct elf_segment *s = elf_file_segments(r->elf, &n);

	for (size_t i = 0; i < n; i++) {
		uint64_t offset = s[i].offset + (vaddr - s[i].vaddr);

		if (!s[i].executable || vaddr < s[i].vaddr || vaddr - s[i].vaddr >= s[i].file_size)
			continue;
		assert_true(offset >> 16 < r->n_pages && r->pages[offset >> 16]);
		return &r->rules.rules[unwind_page_find(r->pages[offset >> 16], offset)];
	}
	return NULL;
}

/* ---- readelf's side
 * --------------------------------------------------------------------------------------- */

static bool evaluate(const char *text, uint64_t pc, uint64_t *ret)
{
	uint64_t stack[16], n = 0;

	while (*text) {
		size_t len = strcspn(text, ";)");
		long value;
		unsigned reg;

		/* "DW_OP_breg7 (rsp): 8" has a bracket inside. */
		if (sscanf(text, "DW_OP_breg%u (%*[a-z0-9]): %ld", &reg, &value) == 2) {
			len = strcspn(text, ")") + 1;
			len += strcspn(text + len, ";)");
			stack[n++] = (reg == 16 ? pc : model_reg(reg)) + (uint64_t)value;
		} else if (sscanf(text, "DW_OP_lit%u", &reg) == 1) {
			stack[n++] = reg;
		} else if (sscanf(text, "DW_OP_plus_uconst: %ld", &value) == 1 && n) {
			stack[n - 1] += (uint64_t)value;
		} else if (len == 12 && !strncmp(text, "DW_OP_deref", 11)) {
			return false;
		} else if (len == 11 && !strncmp(text, "DW_OP_deref", len) && n) {
			stack[n - 1] = model_word(stack[n - 1]);
		} else if (n >= 2 && len == 9 && !strncmp(text, "DW_OP_and", len)) {
			n--;
			stack[n - 1] &= stack[n];
		} else if (n >= 2 && len == 8 && !strncmp(text, "DW_OP_ge", len)) {
			n--;
			stack[n - 1] = (int64_t)stack[n - 1] >= (int64_t)stack[n];
		} else if (n >= 2 && len == 9 && !strncmp(text, "DW_OP_shl", len)) {
			n--;
			stack[n - 1] <<= stack[n];
		} else if (n >= 2 && len == 9 && !strncmp(text, "DW_OP_mul", len)) {
			n--;
			stack[n - 1] *= stack[n];
		} else if (n >= 2 && len == 10 && !strncmp(text, "DW_OP_plus", len)) {
			n--;
			stack[n - 1] += stack[n];
		} else {
			return false;
		}
		text += len;
		text += strspn(text, "; )\n");
		if (n == ARRAY_SIZE(stack))
			return false;
	}
	*ret = n ? stack[n - 1] : 0;
	return n == 1;
}

static const struct span *find_span(const struct reading *r, const char *what, uint64_t pc)
{
	for (size_t i = 0; i < r->n_spans; i++) {
		if (pc >= r->spans[i].from && pc < r->spans[i].to && streq(r->spans[i].what, what))
			return &r->spans[i];
	}
	return NULL;
}

static const char *cell(const struct reading *r, const char *column)
{
	for (size_t i = 0; i < r->n_columns; i++) {
		if (streq(r->columns[i], column))
			return r->cells[i + 1];
	}
	return "u";
}

enum known { KNOWN, UNCHANGED, NOWHERE, ODD };

/* Where a register is saved or what it is, as a value of the caller's. */
static enum known value_of(
	const struct reading *r, const char *column, uint64_t cfa, uint64_t pc, uint64_t *ret)
{
	const char *text = cell(r, column);
	long offset;
	int number;

	if (streq(text, "u"))
		return NOWHERE;
	if (streq(text, "s"))
		return UNCHANGED;
	if (sscanf(text, "c%ld", &offset) == 1) {
		*ret = model_word(cfa + (uint64_t)offset);
		return KNOWN;
	}
	if (streq(text, "exp")) {
		const struct span *s = find_span(r, column, pc);
		uint64_t at;

		if (!s || !evaluate(s->text, pc, &at))
			return ODD;
		*ret = model_word(at);
		return KNOWN;
	}
	number = number_of(text, strlen(text));
	if (number < 0 || streq(column, "rbp") || streq(column, "rbx"))
		return ODD;
	*ret = model_reg((unsigned)number);
	return KNOWN;
}

static bool cfa_of(const struct reading *r, uint64_t pc, uint64_t *ret)
{
	const char *text = r->cells[0];
	size_t len = strcspn(text, "+-");
	int number = number_of(text, len);

	if (streq(text, "exp")) {
		const struct span *s = find_span(r, "cfa", pc);

		return s && evaluate(s->text, pc, ret);
	}
	if (number < 0)
		return false;
	*ret = model_reg((unsigned)number) + (uint64_t)strtol(text + len, NULL, 10);
	return true;
}

/* ---- both
 * ---------------------------------------------------------------------------------------------- */

static void disagree(
	struct reading *r, uint64_t pc, const char *what, uint64_t ours, uint64_t theirs)
{
	if (r->disagreements++ < 10)
		print_error("%s: at %#llx (function %#llx) %s: ours %#llx, readelf %#llx (%s)\n",
			r->path, (unsigned long long)pc, (unsigned long long)r->start, what,
			(unsigned long long)ours, (unsigned long long)theirs, r->cells[0]);
}

static void check_register(struct reading *r, const char *column, uint64_t pc, uint64_t cfa,
	uint64_t before, uint64_t now, uint64_t at, bool lost)
{
	uint64_t value = before;
	enum known known = value_of(r, column, cfa, pc, &value);

	if (lost) {
		/* Said, not guessed; "u" is also what readelf prints for undefined. aux is
		 * followed where it is needed (test_dynamic_linker). */
		r->lost += streq(column, "rbp");
		return;
	}
	if (known == ODD) {
		disagree(r, pc, column, at, 0);
		return;
	}
	if (at)
		now = model_word(at);
	if (now != value)
		disagree(r, pc, column, now, value);
}

static void check_point(struct reading *r, uint64_t pc)
{
	const struct unwind_rule *rule = find_rule(r, pc);
	struct unwind_regs regs, before;
	uint64_t cfa = 0, ra = 0;
	enum known known;
	bool go, ok;
	int result;

	if (!rule) {
		r->elsewhere++;
		return;
	}
	r->points++;
	if (rule->cfa == UNWIND_CFA_UNSUPPORTED) {
		if (getenv("UNWIND_SHOW"))
			print_message("    unsupported: %#llx in %#llx: %s\n",
				(unsigned long long)pc, (unsigned long long)r->start, r->cells[0]);
		r->unsupported++;
		return;
	}
	/* What Go's runtime functions mean is said by its own table. */
	go = r->debug_frame && (unwind_file_sources(r->file) & UNWIND_SOURCE_GO);
	if (go &&
		(rule->cfa == UNWIND_CFA_END || rule->cfa == UNWIND_CFA_SWITCH ||
			rule->flags & (UNWIND_APPROXIMATE | UNWIND_SIGNAL))) {
		r->runtime++;
		return;
	}
	model_regs(&regs, pc);
	before = regs;
	result = unwind_step(&regs, rule, NULL);
	known = value_of(r, "ra", 0, pc, &ra);
	if (known == NOWHERE || result == UNWIND_ENDED) {
		if (known != NOWHERE || result != UNWIND_ENDED)
			disagree(r, pc, "end", (uint64_t)result, known);
		return;
	}
	ok = cfa_of(r, pc, &cfa);
	known = value_of(r, "ra", cfa, pc, &ra);
	if (!ok || known != KNOWN || result != UNWIND_OK) {
		disagree(r, pc, "result", (uint64_t)result, known);
		return;
	}
	if (regs.sp != cfa)
		disagree(r, pc, "CFA", regs.sp, cfa);
	if (regs.pc != ra)
		disagree(r, pc, "return address", regs.pc, ra);
	if (value_of(r, "rsp", cfa, pc, &ra) == KNOWN && ra != cfa)
		disagree(r, pc, "rsp", cfa, ra);
	if (go)
		return; /* its DWARF does not follow the frame pointer */
	check_register(r, "rbp", pc, cfa, before.fp, regs.fp, regs.fp_at,
		regs.flags & UNWIND_REGS_FP_LOST);
	check_register(r, "rbx", pc, cfa, before.aux, regs.aux, regs.aux_at,
		regs.flags & UNWIND_REGS_AUX_LOST);
}

static void finish_row(struct reading *r, uint64_t end)
{
	if (r->waiting && end > r->row) {
		r->rows++;
		check_point(r, r->row);
		if (end - r->row > 1)
			check_point(r, end - 1);
		/* Within a PLT each address of a slot is its own case. */
		if (streq(r->cells[0], "exp"))
			for (uint64_t pc = r->row + 1; pc + 1 < end && pc < r->row + 64; pc++)
				check_point(r, pc);
	}
	r->waiting = false;
}

static size_t split(char *line, char *words[], size_t max)
{
	size_t n = 0;
	char *save = NULL;

	for (char *w = strtok_r(line, " \n", &save); w && n < max; w = strtok_r(NULL, " \n", &save))
		words[n++] = w;
	return n;
}

/* "r5 (rdi)" is one cell: the name is kept. */
static void take_cells(struct reading *r, char *words[], size_t n)
{
	size_t at = 0;

	for (size_t i = 1; i < n; i++) {
		size_t len = strlen(words[i]);

		if (words[i][0] == '(' && len > 2 && at > 0)
			snprintf(r->cells[at - 1], sizeof(r->cells[0]), "%.*s", (int)len - 2,
				words[i] + 1);
		else
			snprintf(r->cells[at++], sizeof(r->cells[0]), "%s", words[i]);
	}
}

static void finish_function(struct reading *r)
{
	if (r->end && !r->any_row && !r->in_cie) {
		r->row = r->start;
		r->waiting = true;
	}
	finish_row(r, r->end);
	r->end = 0;
}

static void begin_function(struct reading *r, const char *line)
{
	const char *cie = strstr(line, "FDE cie="), *pc = strstr(line, " pc=");
	unsigned long long from, to, offset;

	assert_int_equal(sscanf(pc, " pc=%llx..%llx", &from, &to), 2);
	assert_int_equal(sscanf(cie, "FDE cie=%llx", &offset), 1);
	r->start = from;
	r->end = to;
	r->in_cie = r->any_row = false;
	r->functions++;
	for (size_t i = 0; i < r->n_cies; i++) {
		if (r->cies[i].offset != offset)
			continue;
		r->n_columns = r->cies[i].n_columns;
		memcpy(r->columns, r->cies[i].columns, sizeof(r->columns));
		memcpy(r->cells, r->cies[i].cells, sizeof(r->cells));
		return;
	}
	/* A CIE that begins with nothing: its functions have rows of their own. */
	r->n_columns = 0;
	snprintf(r->cells[0], sizeof(r->cells[0]), "?");
}

static void read_cie_row(struct reading *r)
{
	if (r->n_cies == ARRAY_SIZE(r->cies))
		return;
	r->cies[r->n_cies].offset = r->start;
	r->cies[r->n_cies].n_columns = r->n_columns;
	memcpy(r->cies[r->n_cies].columns, r->columns, sizeof(r->columns));
	memcpy(r->cies[r->n_cies++].cells, r->cells, sizeof(r->cells));
}

static void read_rows(struct reading *r, char *line)
{
	char *words[2 * MAX_COLUMNS];
	uint64_t from;
	size_t n;

	if (strstr(line, "Contents of the")) {
		finish_function(r);
		r->debug_frame = strstr(line, ".debug_frame") || strstr(line, ".zdebug_frame");
		r->n_cies = 0;
		return;
	}
	if (strstr(line, "FDE cie=")) {
		finish_function(r);
		begin_function(r, line);
		return;
	}
	if (strstr(line, " CIE ") || strstr(line, "ZERO terminator")) {
		finish_function(r);
		r->in_cie = strstr(line, " CIE ");
		r->start = strtoull(line, NULL, 16);
		return;
	}
	n = split(line, words, ARRAY_SIZE(words));
	if (n < 2)
		return;
	if (streq(words[0], "LOC")) {
		r->n_columns = n - 2;
		for (size_t i = 2; i < n; i++)
			snprintf(r->columns[i - 2], sizeof(r->columns[0]), "%s", words[i]);
		return;
	}
	if (!isxdigit((unsigned char)words[0][0]) || strlen(words[0]) < 8)
		return;
	from = strtoull(words[0], NULL, 16);
	if (r->end)
		finish_row(r, MIN(from, r->end));
	take_cells(r, words, n);
	r->any_row = true;
	r->row = from;
	r->waiting = r->end && from < r->end;
	if (r->in_cie)
		read_cie_row(r);
}

/* The raw dump: which expression holds where. Saved states are followed for the CFA alone. */
struct raw {
	uint64_t pc, end;
	char cfa[200];
	char saved[8][200];
	size_t depth;
	uint64_t cfa_from;
	size_t first; /* spans of this function */
};

static void add_span(
	struct reading *r, const char *what, const char *text, uint64_t from, uint64_t to)
{
	struct span *s;

	if (from >= to || !*text)
		return;
	if (r->n_spans == r->size_spans) {
		r->size_spans = r->size_spans ? r->size_spans * 2 : 64;
		r->spans = realloc(r->spans, r->size_spans * sizeof(*r->spans));
		assert_non_null(r->spans);
	}
	s = &r->spans[r->n_spans++];
	*s = (struct span){.from = from, .to = to};
	snprintf(s->what, sizeof(s->what), "%s", what);
	snprintf(s->text, sizeof(s->text), "%s", text);
}

static void set_raw_cfa(struct reading *r, struct raw *raw, const char *text)
{
	add_span(r, "cfa", raw->cfa, raw->cfa_from, raw->pc);
	snprintf(raw->cfa, sizeof(raw->cfa), "%s", text);
	raw->cfa_from = raw->pc;
}

static void read_raw(struct reading *r, struct raw *raw, char *line)
{
	const char *pc = strstr(line, " pc="), *open = strchr(line, '(');
	char *p;
	unsigned long long from, to;
	unsigned reg;

	if ((strstr(line, "FDE cie=") && pc && sscanf(pc, " pc=%llx..%llx", &from, &to) == 2) ||
		strstr(line, " CIE")) {
		if (raw->end > raw->pc)
			raw->pc = raw->end;
		set_raw_cfa(r, raw, "");
		raw->depth = 0;
		raw->first = r->n_spans;
		if (pc && !strstr(line, " CIE")) {
			raw->pc = raw->cfa_from = from;
			raw->end = to;
		}
	} else if ((p = strstr(line, " to ")) && strstr(line, "DW_CFA_advance_loc")) {
		raw->pc = strtoull(p + 4, NULL, 16);
	} else if (strstr(line, "DW_CFA_def_cfa_expression") && open) {
		p = strrchr(line, ')');
		if (p)
			*p = '\0';
		set_raw_cfa(r, raw, open + 1);
	} else if (strstr(line, "DW_CFA_def_cfa")) {
		if (!strstr(line, "_offset"))
			set_raw_cfa(r, raw, "");
	} else if (strstr(line, "DW_CFA_remember_state") && raw->depth < ARRAY_SIZE(raw->saved)) {
		snprintf(raw->saved[raw->depth++], sizeof(raw->saved[0]), "%s", raw->cfa);
	} else if (strstr(line, "DW_CFA_restore_state") && raw->depth) {
		set_raw_cfa(r, raw, raw->saved[--raw->depth]);
	} else if ((p = strstr(line, "DW_CFA_expression: r")) && sscanf(p + 20, "%u", &reg) == 1 &&
		reg < ARRAY_SIZE(names) && open) {
		char *text = strchr(strchr(p, '(') + 1, '(');

		p = text ? strrchr(text, ')') : NULL;
		if (p) {
			*p = '\0';
			add_span(r, reg == 16 ? "ra" : names[reg], text + 1, raw->pc, raw->end);
		}
	}
}

static void each_line(struct reading *r, const char *option,
	void (*take)(struct reading *r, void *userdata, char *line), void *userdata)
{
	_cleanup_free_ char *line = NULL;
	size_t size = 0;
	char command[600];
	FILE *f;

	snprintf(command, sizeof(command), "readelf %s '%s' 2>/dev/null", option, r->path);
	f = popen(command, "re");
	assert_non_null(f);
	while (getline(&line, &size, f) > 0)
		take(r, userdata, line);
	assert_int_equal(pclose(f), 0);
}

static void take_raw(struct reading *r, void *userdata, char *line)
{
	read_raw(r, userdata, line);
}

static void take_row(struct reading *r, void *userdata, char *line)
{
	read_rows(r, line);
}

static void print_sums(const struct reading *r)
{
	const struct unwind_counts *c = unwind_file_counts(r->file);

	print_message(
		"%s: %llu functions, %llu rows, %llu points: %llu disagree, %llu unsupported "
		"(%.4f %%), %llu with a lost register; %llu of Go's runtime, %llu not in code; "
		"%llu rows of ours, %u rules\n",
		r->path, (unsigned long long)r->functions, (unsigned long long)r->rows,
		(unsigned long long)r->points, (unsigned long long)r->disagreements,
		(unsigned long long)r->unsupported,
		r->points ? 100.0 * (double)r->unsupported / (double)r->points : 0.0,
		(unsigned long long)r->lost, (unsigned long long)r->runtime,
		(unsigned long long)r->elsewhere, (unsigned long long)c->rows, r->rules.n);
	for (int i = 0; i < UNWIND_PROBLEM_KINDS; i++) {
		if (c->problems[i])
			print_message("    %llu x %s\n", (unsigned long long)c->problems[i],
				unwind_problem_name(i));
	}
}

static uint64_t all_points, all_unsupported, all_files, all_rows;

static void compare_file(const char *path)
{
	struct reading r = {.path = path};
	struct unwind_page *page = calloc(1, sizeof(*page));
	struct raw raw = {0};
	struct err_text err = {0};
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_non_null(page);
	assert_int_equal(elf_file_open(&r.elf, fd, &err), 0);
	assert_int_equal(unwind_file_open(&r.file, r.elf, &err), 0);
	assert_int_equal(unwind_rules_init(&r.rules), 0);
	assert_int_equal(unwind_file_each_page(r.file, &r.rules, page, keep_page, &r), 0);
	for (size_t i = 0; i < r.n_pages; i++) {
		if (r.pages[i])
			check_page(&r, r.pages[i]);
	}
	each_line(&r, "-wfN", take_raw, &raw);
	if (raw.end > raw.pc)
		raw.pc = raw.end;
	set_raw_cfa(&r, &raw, "");
	each_line(&r, "-wFN", take_row, NULL);
	finish_function(&r);
	print_sums(&r);
	assert_int_equal(r.disagreements, 0);
	all_files += r.rows > 0; /* a stripped Go program has nothing to compare with */
	all_points += r.points;
	all_rows += r.rows;
	all_unsupported += r.unsupported;
	for (size_t i = 0; i < r.n_pages; i++)
		free(r.pages[i]);
	free(r.pages);
	free(r.spans);
	free(page);
	unwind_rules_deinit(&r.rules);
	unwind_file_close(r.file);
	elf_file_close(r.elf);
	close(fd);
}

/* readelf would take /proc/self/exe for its own. */
static void compare_resolved(const char *path)
{
	_cleanup_free_ char *real = realpath(path, NULL);

	assert_non_null(real);
	compare_file(real);
}

static void compare_list(const char *const *list, size_t n, unsigned at_least)
{
	all_files = all_points = all_unsupported = all_rows = 0;
	for (size_t i = 0; i < n; i++) {
		glob_t g;

		if (glob(list[i], GLOB_BRACE, NULL, &g) == 0 && g.gl_pathc)
			compare_resolved(g.gl_pathv[0]);
		else
			print_message("not on this machine: %s\n", list[i]);
		globfree(&g);
	}
	print_message("%llu files, %llu rows, %llu points, %.4f %% unsupported\n",
		(unsigned long long)all_files, (unsigned long long)all_rows,
		(unsigned long long)all_points,
		all_points ? 100.0 * (double)all_unsupported / (double)all_points : 0.0);
	assert_true(all_files >= at_least);
	/* Real code is understood but for a handful of instructions. */
	assert_true(all_unsupported * 1000 < all_points);
}

#define LIB "{/usr/lib,/lib}/{x86_64-linux-gnu,aarch64-linux-gnu}/"

static void test_some_files(void **state)
{
	static const char *const list[] = {"/proc/self/exe", LIB "libc.so.6", LIB "ld-linux-*.so.*",
		LIB "libcrypto.so.3", LIB "libstdc++.so.6", LIB "libgcc_s.so.1", LIB "libm.so.6",
		"{/usr/bin,/bin}/bash", "{/usr/bin,/bin}/ls", "/usr/bin/perl", "/usr/bin/sqlite3",
		LIB "libsqlite3.so.0", "/usr/bin/git", "/usr/bin/gcc", "/usr/bin/openssl"};

	compare_list(list, ARRAY_SIZE(list), 8);
}

/* Lazy binding: the trampoline keeps its frame in rbx, and calls functions that save it. */
static void test_dynamic_linker(void **state)
{
	struct reading r = {0};
	struct unwind_page *page = calloc(1, sizeof(*page));
	unsigned saved = 0, from = 0;
	struct err_text err;
	int fd = open("/lib64/ld-linux-x86-64.so.2", O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		print_message("not on this machine: ld-linux-x86-64.so.2\n");
		free(page);
		return;
	}
	assert_int_equal(elf_file_open(&r.elf, fd, &err), 0);
	assert_int_equal(unwind_file_open(&r.file, r.elf, &err), 0);
	assert_int_equal(unwind_rules_init(&r.rules), 0);
	assert_int_equal(unwind_file_each_page(r.file, &r.rules, page, keep_page, &r), 0);
	for (uint32_t i = 0; i < r.rules.n; i++) {
		saved += (r.rules.rules[i].flags & UNWIND_AUX_SAVED) != 0;
		from += r.rules.rules[i].cfa == UNWIND_CFA_AUX;
		if (!(r.rules.rules[i].flags & UNWIND_SIGNAL) && i >= UNWIND_FIXED_RULES)
			assert_false(r.rules.rules[i].flags & UNWIND_AUX_LOST);
	}
	assert_true(saved > 0 && from > 0);
	for (size_t i = 0; i < r.n_pages; i++)
		free(r.pages[i]);
	free(r.pages);
	free(page);
	unwind_rules_deinit(&r.rules);
	unwind_file_close(r.file);
	elf_file_close(r.elf);
	close(fd);
}

/* What Go's own table says against the DWARF that Go wrote for the same program. */
static void test_go_programs(void **state)
{
	static const char source[] =
		"package main\nimport (\"fmt\"; \"sort\")\nfunc main() {\n"
		"s := []string{\"b\", \"a\"}\nsort.Strings(s)\nfmt.Println(s)\n}\n";
	char folder[] = "/tmp/odi-go-XXXXXX", command[400], path[100];
	FILE *f;

	if (!getenv("UNWIND_ALL_FILES")) {
		print_message("UNWIND_ALL_FILES is not set: Go programs are built in check-long\n");
		return;
	}
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/main.go", folder);
	f = fopen(path, "we");
	assert_non_null(f);
	fputs(source, f);
	fclose(f);
	for (int pie = 0; pie < 2; pie++) {
		snprintf(command, sizeof(command),
			"cd %s && export HOME=%s PATH=$PATH:/usr/local/go/bin && go build -buildmode=%s -o out main.go",
			folder, folder, pie ? "pie" : "exe");
		assert_int_equal(system(command), 0);
		snprintf(path, sizeof(path), "%s/out", folder);
		all_files = all_points = all_unsupported = 0;
		compare_file(path);
		assert_true(all_files == 1 && all_points > 10000);
		assert_true(all_unsupported * 1000 < all_points);
	}
	snprintf(command, sizeof(command), "chmod -R u+w %s; rm -rf %s", folder, folder);
	assert_int_equal(system(command), 0);
}

static void test_all_files(void **state)
{
	static const char *const list[] = {LIB "libLLVM-14.so.1", LIB "libLLVM-15.so.1",
		LIB "libclang-cpp.so.14", "/usr/bin/node", "/usr/lib/jvm/*/lib/server/libjvm.so",
		"/usr/lib/jvm/temurin-25-*/lib/server/libjvm.so", "/usr/bin/python3.1?",
		"/usr/bin/gdb", "/usr/bin/qemu-system-x86_64", "/usr/bin/clang-14",
		"/usr/lib/postgresql/*/bin/postgres", "/usr/sbin/nginx", LIB "libicui18n.so.7?",
		LIB "libQt5Core.so.5", LIB "libssl.so.3", LIB "libcurl.so.4", LIB "libzstd.so.1",
		LIB "libpython3.1?.so.1.0", LIB "libperl.so.5.*", LIB "libavcodec.so.5?",
		LIB "libgmp.so.10", LIB "libgfortran.so.5", LIB "libgnutls.so.30",
		LIB "libglib-2.0.so.0", LIB "libxml2.so.2", LIB "libsystemd.so.0",
		"/usr/lib/gcc/x86_64-linux-gnu/1?/cc1plus", "/usr/lib/gcc/x86_64-linux-gnu/1?/lto1",
		"/usr/bin/ld.bfd", "/usr/bin/dockerd", "/usr/bin/containerd",
		"/usr/local/go/bin/go", "/usr/local/go/pkg/tool/*/compile",
		"/usr/local/go/bin/gofmt", "/root/.rustup/toolchains/*/lib/librustc_driver-*.so",
		"/root/.rustup/toolchains/*/bin/rustc", "/usr/lib/chromium/chromium",
		"/usr/libexec/valgrind/memcheck-*-linux", "/usr/sbin/mysqld"};

	if (!getenv("UNWIND_ALL_FILES")) {
		print_message(
			"UNWIND_ALL_FILES is not set: the big files are compared in check-long\n");
		return;
	}
	compare_list(list, ARRAY_SIZE(list), 12);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_some_files),
		cmocka_unit_test(test_dynamic_linker),
		cmocka_unit_test(test_go_programs),
		cmocka_unit_test(test_all_files),
	};

	for (int i = 1; i < argc; i++)
		compare_file(argv[i]);
	return argc > 1 ? 0 : cmocka_run_group_tests(tests, NULL, NULL);
}
