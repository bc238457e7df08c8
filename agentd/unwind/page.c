/* SPDX-License-Identifier: Apache-2.0 */

/* One page of rows out of all that describes it.
 *
 * The sources are asked in order of trust, each for what the ones before it left open: fill() goes
 * through a source's functions within a range and hands each gap between them to the next source.
 * Rows are so made in rising order, and neighbours with the same rule become one row as they are
 * made.
 *
 * Between functions there is padding. It is never executed, so it needs no row: the row before
 * goes on over it, and most often the next function begins with the rule that the last one ended
 * with. That it is padding is read from the bytes; anything else in a gap is code, and nothing is
 * known of it.
 *
 * Return addresses are looked up one byte before (bpf/unwind.h), but the return address of a
 * signal handler is the trampoline's first instruction: its rule begins a byte early, as glibc's
 * own description does.
 *
 * Invariants: the first row's pc is 0; pcs rise; neighbours differ; at most UNWIND_PAGE_ROWS rows,
 * and where they do not suffice, the rest of the page has no information. Sandbox only. */

#include "agentd/unwind/page.h"

#define TEXT_AHEAD  64  /* read behind the page, to see a trampoline there */
#define ENTRY_BYTES 256 /* of the entry point's code, where nothing describes it */
#define RECENT      64
#define ENTRY_WORK  512 /* what finding a function takes, in bytes of instructions */

enum level { LEVEL_EH, LEVEL_GO, LEVEL_DEBUG, LEVEL_BYTES };

struct build {
	struct unwind_file *file;
	struct unwind_rules *rules;
	struct unwind_page *page;
	uint64_t text_start; /* vaddr of text[0] */
	size_t text_len;
	uint64_t to_offset; /* vaddr + this = file offset */
	uint64_t work;
	bool full;
	int error;
	/* Of the function whose rows are made. */
	const struct cfi *cfi;
	const struct cfi_cie *cie;
	uint64_t entry_offset;
	uint64_t covered; /* its rows are made up to here */
	/* Rules met lately, by a cheap hash: what is not here is looked up in the dictionary. */
	struct {
		struct unwind_rule rule;
		uint32_t index; /* + 1; 0: empty */
	} recent[RECENT];
};

/* ---- rows
 * -------------------------------------------------------------------------------------------- */

static void append_at(struct build *b, uint32_t pc, uint16_t rule)
{
	struct unwind_page *p = b->page;

	if (p->n && p->pc[p->n - 1] == pc)
		p->n--;
	if (p->n && p->rule[p->n - 1] == rule)
		return;
	if (p->n == 0 && pc != 0) {
		p->pc[0] = 0;
		p->rule[0] = UNWIND_CFA_NONE;
		p->n = 1;
		if (rule == UNWIND_CFA_NONE)
			return;
	}
	if (p->n == UNWIND_PAGE_ROWS) {
		/* The last row gives way to one that covers the rest. */
		p->rule[p->n - 1] = UNWIND_CFA_NONE;
		b->full = true;
		unwind_count(&b->file->counts, UNWIND_PROBLEM_ROWS_FULL, 0, p->page, 1);
		return;
	}
	p->pc[p->n] = (uint16_t)pc;
	p->rule[p->n++] = rule;
}

static void append(struct build *b, uint64_t vaddr, uint16_t rule)
{
	if (!b->full)
		append_at(b, (uint32_t)(vaddr + b->to_offset) & (UNWIND_PAGE_SIZE - 1), rule);
}

static uint16_t index_of(struct build *b, const struct unwind_rule *rule, uint64_t vaddr)
{
	uint64_t words[2];
	unsigned at;
	int r;

	memcpy(words, rule, sizeof(words));
	at = (unsigned)(((words[0] ^ words[1]) * 0x9e3779b97f4a7c15ULL) >> 58) % RECENT;
	if (b->recent[at].index && memcmp(rule, &b->recent[at].rule, sizeof(*rule)) == 0)
		return (uint16_t)(b->recent[at].index - 1);
	r = unwind_rules_add(b->rules, rule);
	if (r < 0) {
		if (r == -ENOSPC)
			unwind_count(&b->file->counts, UNWIND_PROBLEM_RULES_FULL, vaddr,
				b->entry_offset, 1);
		else
			b->error = r;
		return UNWIND_CFA_NONE;
	}
	b->recent[at].rule = *rule;
	b->recent[at].index = (uint32_t)r + 1;
	return (uint16_t)r;
}

static void on_rule(void *userdata, uint64_t from, uint64_t to, const struct unwind_rule *rule)
{
	struct build *b = userdata;

	b->file->counts.rows_read++;
	b->covered = to;
	append(b, from, index_of(b, rule, from));
}

static void on_go_rule(void *userdata, uint64_t from, uint64_t to, const struct unwind_rule *rule)
{
	struct build *b = userdata;

	if (rule->cfa == UNWIND_CFA_UNSUPPORTED)
		unwind_count(&b->file->counts, UNWIND_PROBLEM_OFFSET, from, b->entry_offset, 1);
	on_rule(b, from, to, rule);
}

static void on_state(void *userdata, uint64_t from, uint64_t to, const struct cfi_state *state)
{
	struct build *b = userdata;
	struct unwind_rule rule;
	bool lost;
	int problem = cfi_rule(b->cfi, b->cie, state, &rule, &lost);

	if (problem) {
		unwind_count(&b->file->counts, problem - 1, from, b->entry_offset, 1);
		rule = (struct unwind_rule){.cfa = UNWIND_CFA_UNSUPPORTED};
	} else if (lost) {
		unwind_count(&b->file->counts, UNWIND_PROBLEM_SAVED_RULE, from, b->entry_offset, 1);
	}
	on_rule(b, from, to, &rule);
}

/* ---- what the bytes say
 * ----------------------------------------------------------------------------------- */

/* len bytes of code at vaddr, or NULL. */
static const uint8_t *code_at(const struct build *b, uint64_t vaddr, size_t len)
{
	uint64_t at = vaddr - b->text_start;

	if (vaddr < b->text_start || at > b->text_len || len > b->text_len - at)
		return NULL;
	return b->file->text + at;
}

static bool is_trampoline(const struct build *b, uint64_t vaddr)
{
	const struct unwind_machine *m = b->file->machine;
	const uint8_t *p = code_at(b, vaddr, m->trampoline_len);

	return p && memcmp(p, m->trampoline, m->trampoline_len) == 0;
}

static void put_trampoline(struct build *b, uint64_t vaddr, uint64_t lo)
{
	if (vaddr > lo)
		vaddr--;
	append(b, vaddr, index_of(b, &b->file->machine->signal, vaddr));
}

/* Jumps through a table in [from, to); *at and behind is looked at at multiples of 8, where PLTs
 * have their slots. False: none there. */
static bool put_stub(struct build *b, const uint8_t *code, uint64_t from, uint64_t to, uint64_t *at)
{
	const struct unwind_machine *m = b->file->machine;
	size_t len = unwind_stub(m, code + (*at - from), (size_t)(to - *at));
	uint64_t behind = *at + len, next = MIN((behind + 7) & ~7ULL, to);

	if (!len)
		return false;
	append(b, *at, index_of(b, &unwind_stub_rule, *at));
	if (unwind_is_padding(m, code + (behind - from), (size_t)(next - behind)))
		behind = next;
	append(b, behind, UNWIND_CFA_NONE);
	*at = next;
	return true;
}

/* Code that nothing describes: [from, to). */
static void fill_bytes(struct build *b, uint64_t from, uint64_t to)
{
	const struct unwind_machine *m = b->file->machine;
	const uint8_t *code = code_at(b, from, to - from);
	uint64_t entry = b->file->entry, at;

	append(b, from, UNWIND_CFA_NONE);
	if (!code)
		return;
	for (at = from; at < to;) {
		size_t left = (size_t)(to - at);

		/* The program's first code has no caller; musl's does not say so. */
		if (at == entry) {
			append(b, at, UNWIND_CFA_END);
			at = MIN(at + ENTRY_BYTES, to);
			append(b, at, UNWIND_CFA_NONE);
		} else if (left >= m->trampoline_len && code[at - from] == m->trampoline[0] &&
			memcmp(code + (at - from), m->trampoline, m->trampoline_len) == 0) {
			put_trampoline(b, at, from);
			at += m->trampoline_len;
			append(b, at, UNWIND_CFA_NONE);
		} else if ((at & 7) || !put_stub(b, code, from, to, &at)) {
			at++;
		}
	}
}

/* ---- sources
 * --------------------------------------------------------------------------------------------- */

static void fill(struct build *b, enum level level, uint64_t from, uint64_t to, uint64_t lo);

/* Looking at one more function. */
static bool spend(struct build *b, uint64_t vaddr, uint64_t offset)
{
	if (b->work > ENTRY_WORK) {
		b->work -= ENTRY_WORK;
		return true;
	}
	if (b->work) {
		b->work = 0;
		unwind_count(&b->file->counts, UNWIND_PROBLEM_WORK, vaddr, offset, 1);
	}
	return false;
}

static void fill_gap(struct build *b, enum level level, uint64_t from, uint64_t to, uint64_t lo)
{
	const uint8_t *code;

	if (from >= to)
		return;
	/* Padding behind a function; at the very beginning there is no row to go on. */
	code = code_at(b, from, to - from);
	if (from > lo && code && unwind_is_padding(b->file->machine, code, to - from))
		return;
	fill(b, level, from, to, lo);
}

/* The rows of the entry at this offset that lie in [*at, to), and the gap before them; *at moves
 * behind them. next: where the following entry begins. False: no entry to trust there. */
static void fill_entry(struct build *b, struct cfi *c, enum level level, uint64_t start,
	uint64_t offset, uint64_t next, uint64_t *at, uint64_t to, uint64_t lo)
{
	struct cfi_entry e;
	uint64_t behind, end, first;
	int problem, r = cfi_entry_at(c, offset, &e, &behind, &problem);

	/* The entry's own words count, but it has to be where the index says. */
	if (r <= 0 || e.start != start) {
		unwind_count(&b->file->counts, r < 0 ? problem : UNWIND_PROBLEM_DAMAGED, start,
			offset, 1);
		return;
	}
	first = MAX(e.start, *at);
	end = MIN(MIN(e.end, next), to);
	if (first >= end)
		return;
	fill_gap(b, level + 1, *at, first, lo); /* by other sections: e stays valid */
	b->cfi = c;
	b->cie = e.cie;
	b->entry_offset = offset;
	b->file->counts.functions++;
	b->covered = first;
	problem = cfi_run(c, &e, first, end, &b->work, on_state, b);
	if (problem)
		unwind_count(&b->file->counts, problem - 1, b->covered, offset, 1);
	if (b->covered < end) /* the rows up to there stand */
		append(b, b->covered, UNWIND_CFA_UNSUPPORTED);
	*at = end;
}

static void fill_cfi(
	struct build *b, struct cfi *c, enum level level, uint64_t from, uint64_t to, uint64_t lo)
{
	uint64_t i = cfi_index_seek(c, from), at = from, start, offset, next, next_offset;

	if (c->n == 0 || cfi_index_get(c, i, &start, &offset) < 0) {
		fill_gap(b, level + 1, from, to, lo);
		return;
	}
	for (;; i++, start = next, offset = next_offset) {
		bool more = i + 1 < c->n && cfi_index_get(c, i + 1, &next, &next_offset) == 0;

		if (start >= to || !spend(b, start, offset))
			break;
		/* Equal ones: the last is taken. Falling ones: the table is damaged. */
		if (more && next < start) {
			unwind_count(&b->file->counts, UNWIND_PROBLEM_DAMAGED, start, offset, 1);
			break;
		}
		if (!more || next > start)
			fill_entry(
				b, c, level, start, offset, more ? next : UINT64_MAX, &at, to, lo);
		if (!more)
			break;
	}
	fill_gap(b, level + 1, at, to, lo);
}

static void fill_go(struct build *b, uint64_t from, uint64_t to, uint64_t lo)
{
	struct gopclntab *g = b->file->go;
	uint64_t at = from, i = 0, start, end;

	if (gopclntab_find(g, at, &i) < 0)
		i = UINT64_MAX;
	for (; at < to && gopclntab_range(g, i, &start, &end) == 0 && start < to &&
		spend(b, start, i);
		i++) {
		uint64_t first = MAX(start, at), last = MIN(end, to);
		int problem = 0;

		if (first >= last)
			continue;
		fill_gap(b, LEVEL_GO + 1, at, first, lo);
		b->entry_offset = i;
		b->file->counts.functions++;
		b->covered = first;
		if (is_trampoline(b, start)) {
			put_trampoline(b, first, lo);
			b->covered = MIN(start + b->file->machine->trampoline_len, last);
		} else {
			problem = gorows_run(
				g, b->file->machine, i, first, last, &b->work, on_go_rule, b);
		}
		if (problem)
			unwind_count(&b->file->counts, problem - 1, b->covered, i, 1);
		/* A function ends where the next begins; its table ends before the padding. */
		at = b->covered;
		if (problem) {
			append(b, at, UNWIND_CFA_NONE);
			at = last;
		}
	}
	fill_gap(b, LEVEL_GO + 1, at, to, lo);
}

static struct cfi *debug_frame(struct unwind_file *f)
{
	if (f->has_debug && !f->debug_tried) {
		int r = cfi_open_debug_frame(&f->debug, f->elf, f->machine, &f->counts);

		f->debug_tried = true;
		if (r < 0)
			unwind_count(&f->counts, UNWIND_PROBLEM_DAMAGED, 0, 0, 1);
	}
	return f->debug;
}

static void fill(struct build *b, enum level level, uint64_t from, uint64_t to, uint64_t lo)
{
	struct unwind_file *f = b->file;

	if (level == LEVEL_EH && f->eh)
		fill_cfi(b, f->eh, level, from, to, lo);
	else if (level == LEVEL_GO && f->go)
		fill_go(b, from, to, lo);
	else if (level == LEVEL_DEBUG && debug_frame(f))
		fill_cfi(b, f->debug, level, from, to, lo);
	else if (level == LEVEL_BYTES)
		fill_bytes(b, from, to);
	else
		fill(b, level + 1, from, to, lo);
}

/* ---- the page
 * ------------------------------------------------------------------------------------------ */

/* The executable segment with the lowest byte in [from, to): its range there. */
static const struct elf_segment *next_part(
	const struct elf_file *elf, uint64_t from, uint64_t to, uint64_t *start, uint64_t *end)
{
	const struct elf_segment *found = NULL;
	size_t n;
	const struct elf_segment *s = elf_file_segments(elf, &n);

	for (size_t i = 0; i < n; i++) {
		uint64_t first = MAX(s[i].offset, from);
		uint64_t last = MIN(s[i].offset + s[i].file_size, to);

		if (!s[i].executable || first >= last || (found && first >= *start))
			continue;
		found = &s[i];
		*start = first;
		*end = last;
	}
	return found;
}

static void build_part(struct build *b, const struct elf_segment *s, uint64_t start, uint64_t end)
{
	uint64_t behind = MIN(s->offset + s->file_size, end + TEXT_AHEAD), from;

	b->to_offset = s->offset - s->vaddr;
	from = start - b->to_offset;
	b->text_start = from;
	b->text_len = (size_t)(behind - start);
	if (elf_file_read(b->file->elf, b->file->text, b->text_len, start) < 0)
		b->text_len = 0;
	append(b, from, UNWIND_CFA_NONE);
	fill(b, LEVEL_EH, from, from + (end - start), from);
	/* A handler returns to the first byte of the next page. */
	if ((end & (UNWIND_PAGE_SIZE - 1)) == 0 && is_trampoline(b, from + (end - start)))
		append(b, from + (end - start) - 1,
			index_of(b, &b->file->machine->signal, from + (end - start)));
	if (end & (UNWIND_PAGE_SIZE - 1))
		append(b, from + (end - start), UNWIND_CFA_NONE);
}

int unwind_page_build(
	struct unwind_file *f, uint32_t page, struct unwind_rules *d, struct unwind_page *ret)
{
	struct build b = {.file = f, .rules = d, .page = ret, .work = UNWIND_PAGE_WORK};
	uint64_t at = (uint64_t)page << UNWIND_PAGE_SHIFT, end = at + UNWIND_PAGE_SIZE;
	bool any = false;

	ret->page = page;
	ret->n = 0;
	for (;;) {
		uint64_t start = 0, stop = 0;
		const struct elf_segment *s = next_part(f->elf, at, end, &start, &stop);

		if (!s)
			break;
		any = true;
		build_part(&b, s, start, stop);
		at = stop;
	}
	if (b.error)
		return b.error;
	if (!any)
		return -ENOENT;
	f->counts.pages++;
	f->counts.rows += ret->n;
	return 0;
}
