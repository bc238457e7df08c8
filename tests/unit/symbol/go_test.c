/* SPDX-License-Identifier: Apache-2.0 */

/* Names from Go's table of functions: tables of every layout written here by the byte, whole and damaged; and
 * programs that Go builds, against two other readers (llvm-symbolizer of the debug information, with
 * inlined functions; `go tool addr2line`) at thousands of addresses, and stripped ones against their twins.
 *
 * What differs by rule: the symbol table's names end in .abi0 for assembly, and have the types of generic
 * functions, which are [...] in tables before 1.21; debug information has no line for the beginning of
 * generated code, puts that in a folder, does not know where wrappers begin, has a full stop for the
 * middle dot in names of local types, and is read with ./ before a path that is relative. */

#include <glob.h>

#include "agentd/elf/elf_file.h"
#include "agentd/elf/gopclntab.h"
#include "agentd/symbol/resolver.h"
#include "tests/unit/symbol/support.h"
#include "tests/unit/unwind/fixture.h"

#define FUNCTION    128 /* bytes of text of each */
#define ALLOWED_PPM 5000

static struct found found;

/* ---- tables by the byte
 * ----------------------------------------------------------------------------------- */

struct step {
	int value;
	unsigned pcs;
};

struct call {
	unsigned name, parent, line;
};

struct function {
	unsigned name; /* index of names[] */
	unsigned line;
	const struct step *files, *lines, *calls_at; /* end with pcs 0; NULL none */
	const struct call *calls;
	size_t n_calls;
};

static const char *const names[] = {"runtime.first", "main.outer", "main.middle", "main.deep[...]",
	"main.plain", "main.cycle", "_cgo_c", "main.last"};
static const char *const files[] = {"/src/a.go", "/src/b.go", "/src/c.go"};

static const struct step outer_files[] = {{0, 16}, {1, 16}, {2, 16}, {0, 56}, {0, 0}};
static const struct step outer_lines[] = {{11, 16}, {101, 16}, {201, 16}, {12, 56}, {0, 0}};
static const struct step outer_calls_at[] = {{-1, 16}, {0, 16}, {1, 16}, {-1, 56}, {0, 0}};
static const struct call outer_calls[] = {{2, 4, 100}, {3, 20, 200}};
static const struct step plain_files[] = {{1, 100}, {0, 0}};
static const struct step plain_lines[] = {{21, 50}, {19, 50}, {0, 0}};
static const struct step cycle_calls_at[] = {{0, 50}, {1, 50}, {0, 0}};
static const struct call cycle_calls[] = {{2, 60, 100}, {3, 10, 200}};

static const struct function functions[] = {
	{1, 10, outer_files, outer_lines, outer_calls_at, outer_calls, 2},
	{4, 20, plain_files, plain_lines, NULL, NULL, 0},
	{5, 30, plain_files, plain_lines, cycle_calls_at, cycle_calls, 2},
	{6, 0, NULL, NULL, NULL, NULL, 0},
	{7, 40, plain_files, plain_lines, NULL, NULL, 0},
};

struct tables {
	int layout;
	struct bytes table, gofunc;
	uint64_t names_at;
};

static uint8_t text[ARRAY_SIZE(functions) * FUNCTION];

static uint32_t put_steps(struct bytes *b, const struct step *steps)
{
	uint32_t at = (uint32_t)b->len;
	int value = -1;

	if (!steps)
		return 0;
	for (; steps->pcs; steps++) {
		int delta = steps->value - value;

		put_uleb(b, delta < 0 ? ((uint64_t)(-delta - 1) << 1) | 1 : (uint64_t)delta << 1);
		put_uleb(b, steps->pcs);
		value = steps->value;
	}
	put8(b, 0);
	return at;
}

static void pad_to(struct bytes *b, size_t align)
{
	while (b->len % align)
		put8(b, 0);
}

static void put_calls(struct bytes *b, int layout, const struct function *f, const uint32_t *name)
{
	for (size_t i = 0; i < f->n_calls; i++) {
		put32(b, 0);
		if (layout != 120) {
			put32(b, 0);
			put32(b, 0);
		}
		put32(b, name[f->calls[i].name]);
		put32(b, f->calls[i].parent);
		if (layout == 120)
			put32(b, f->calls[i].line);
	}
}

static void put_word(struct bytes *b, int layout, uint64_t v)
{
	if (layout == 116)
		put64(b, v);
	else
		put32(b, v);
}

/* One function's record and the tables behind it. */
static void put_record(struct bytes *b, const struct tables *t, const struct function *f,
	uint64_t pc, const uint32_t tables[3], uint32_t name, uint64_t tree)
{
	put_word(b, t->layout, pc);
	put32(b, name);
	for (int i = 0; i < 3; i++)
		put32(b, 0); /* size of arguments, deferreturn, pcsp */
	put32(b, tables[0]);
	put32(b, tables[1]);
	put32(b, f->calls ? 3 : 0);
	put32(b, 1); /* the unit's files begin behind one of another */
	if (t->layout == 120)
		put32(b, f->line);
	put32(b, f->calls ? 4U << 24 : 0);
	if (!f->calls)
		return;
	put32(b, 0);
	put32(b, 0);
	put32(b, tables[2]);
	if (t->layout == 116)
		pad_to(b, 8);
	for (int i = 0; i < 4; i++)
		put_word(b, t->layout, i == 3 ? tree : t->layout == 116 ? 0 : UINT32_MAX);
}

/* text_at: what the header says. calls_at: the address of the calls, 1.16. */
static void make_tables(struct tables *t, int layout, uint64_t text_at, uint64_t calls_at)
{
	struct bytes name_bytes = {0}, unit_bytes = {0}, file_bytes = {0}, tab = {0}, records = {0};
	const size_t n = ARRAY_SIZE(functions), word = layout == 116 ? 8 : 4;
	uint32_t name[ARRAY_SIZE(names)];
	uint64_t at = layout == 116 ? 64 : 72, base = layout == 116 ? FIXTURE_PC : 0;
	struct bytes *b = &t->table;

	*t = (struct tables){.layout = layout, .names_at = at};
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		name[i] = (uint32_t)bytes_put(&name_bytes, names[i], strlen(names[i]) + 1);
	pad_to(&name_bytes, 8);
	put32(&unit_bytes, UINT32_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		put32(&unit_bytes, bytes_put(&file_bytes, files[i], strlen(files[i]) + 1));
	pad_to(&file_bytes, 8);
	put8(&tab, 0);
	put32(&t->gofunc, 0x01020304); /* of something else */
	put32(&t->gofunc, 0x7fffffff);
	/* Records begin at a multiple of 8, behind the index. */
	for (size_t i = 0; i < 2 * n + 1; i++)
		put_word(&records, layout, 0);
	pad_to(&records, 8);
	for (size_t i = 0; i < n; i++) {
		const struct function *f = &functions[i];
		uint32_t tables[3] = {put_steps(&tab, f->files), put_steps(&tab, f->lines),
			put_steps(&tab, f->calls_at)};
		uint64_t pc = base + i * FUNCTION, record;

		pad_to(&records, 8);
		record = records.len;
		memcpy(records.data + 2 * i * word, &pc, word);
		memcpy(records.data + (2 * i + 1) * word, &record, word);
		put_record(&records, t, f, pc, tables, name[f->name],
			(layout == 116 ? calls_at : 0) + t->gofunc.len);
		put_calls(&t->gofunc, layout, f, name);
	}
	base += n * FUNCTION;
	memcpy(records.data + 2 * n * word, &base, word);
	pad_to(&tab, 8);
	put32(b, layout == 116 ? 0xfffffffa : layout == 118 ? 0xfffffff0 : 0xfffffff1);
	put32(b, 1U << 16 | 8U << 24);
	put64(b, n);
	put64(b, ARRAY_SIZE(files));
	if (layout != 116)
		put64(b, text_at);
	put64(b, at);
	put64(b, at += name_bytes.len);
	put64(b, at += unit_bytes.len);
	put64(b, at += file_bytes.len);
	put64(b, at + tab.len);
	bytes_put(b, name_bytes.data, name_bytes.len);
	bytes_put(b, unit_bytes.data, unit_bytes.len);
	bytes_put(b, file_bytes.data, file_bytes.len);
	bytes_put(b, tab.data, tab.len);
	bytes_put(b, records.data, records.len);
	bytes_deinit(&name_bytes);
	bytes_deinit(&unit_bytes);
	bytes_deinit(&file_bytes);
	bytes_deinit(&tab);
	bytes_deinit(&records);
}

static void tables_deinit(struct tables *t)
{
	bytes_deinit(&t->table);
	bytes_deinit(&t->gofunc);
}

/* ---- files with them
 * -------------------------------------------------------------------------------------- */

enum place {
	MODULE_NOWHERE,
	MODULE_SECTION,     /* .go.module */
	MODULE_DATA,        /* somewhere in data */
	MODULE_RELOCATIONS, /* nothing in data, relocations say it */
	PLACES,
};

struct opened {
	int fd;
	struct elf_file *elf;
	void *state;
	uint64_t functions;
};

/* Where sections will be; their sizes do not change by what is in them. */
static uint64_t section_address(const struct fixture *f, size_t i)
{
	return FIXTURE_BASE + fixture_offset(f, i);
}

static void put_rela(struct bytes *b, uint64_t at, uint64_t value)
{
	put64(b, at);
	put64(b, 8 /* R_X86_64_RELATIVE */);
	put64(b, value);
}

/* Text in one segment, all else in another; section number i is of relocations. */
static void fix_headers(int fd, const struct fixture *f, size_t i)
{
	uint64_t data = fixture_offset(f, 1), end = fixture_offset(f, FIXTURE_SECTIONS);
	Elf64_Phdr p[2] = {{.p_type = PT_LOAD,
				   .p_flags = PF_R | PF_X,
				   .p_vaddr = FIXTURE_BASE,
				   .p_filesz = data,
				   .p_memsz = data},
		{.p_type = PT_LOAD,
			.p_flags = PF_R | PF_W,
			.p_offset = data,
			.p_vaddr = FIXTURE_BASE + data,
			.p_filesz = end - data,
			.p_memsz = end - data}};
	uint32_t rela = SHT_RELA;
	Elf64_Ehdr h;

	assert_int_equal(pread(fd, &h, sizeof(h), 0), sizeof(h));
	h.e_phnum = 2;
	assert_int_equal(pwrite(fd, &h, sizeof(h), 0), sizeof(h));
	assert_int_equal(pwrite(fd, p, sizeof(p), sizeof(h)), sizeof(p));
	if (i)
		assert_int_equal(pwrite(fd, &rela, sizeof(rela),
					 (off_t)(h.e_shoff + i * sizeof(Elf64_Shdr) +
						 offsetof(Elf64_Shdr, sh_type))),
			sizeof(rela));
}

/* gofunc: which word of the module says where calls are. */
static void open_table(struct opened *o, struct tables *t, enum place place, size_t gofunc)
{
	struct bytes module = {0}, rela = {0};
	uint64_t words[48] = {0};
	const char *by = NULL;
	struct err_text err = {0};
	struct fixture f = {
		.sections = {{".text", text, sizeof(text), SHF_ALLOC | SHF_EXECINSTR, 0},
			{".gopclntab", t->table.data, t->table.len, SHF_ALLOC, 0},
			{".rodata", t->gofunc.data, t->gofunc.len, SHF_ALLOC, 0},
			{place == MODULE_SECTION ? ".go.module" : ".data", NULL, sizeof(words) + 8,
				SHF_ALLOC | SHF_WRITE, 0},
			{".rela.dyn", NULL, 0, SHF_ALLOC, 0}}};

	words[0] = section_address(&f, 1);
	words[1] = words[0] + t->names_at;
	words[2] = 77;
	words[22] = FIXTURE_PC;
	words[37] = section_address(&f, 2) + 4; /* others, that lead to nothing sensible */
	words[39] = FIXTURE_PC;
	if (gofunc)
		words[gofunc] = section_address(&f, 2);
	if (place != MODULE_SECTION)
		put64(&module, words[0]); /* not the one */
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		put64(&module,
			place == MODULE_NOWHERE || place == MODULE_RELOCATIONS ? 0 : words[i]);
		if (place == MODULE_RELOCATIONS && words[i] > 77)
			put_rela(&rela, section_address(&f, 3) + 8 + i * 8, words[i]);
	}
	put64(&module, 0);
	module.len = sizeof(words) + 8;
	f.sections[3].data = module.data;
	f.sections[4].data = rela.data;
	f.sections[4].len = rela.len;
	*o = (struct opened){.fd = fixture_fd(&f)};
	fix_headers(o->fd, &f, 5);
	assert_int_equal(elf_file_open(&o->elf, o->fd, &err), 0);
	assert_int_equal(source_go.open(&o->state, o->elf, &by, &o->functions, &err), 0);
	if (o->state)
		assert_string_equal(by, "gopclntab");
	bytes_deinit(&module);
	bytes_deinit(&rela);
}

static void close_table(struct opened *o)
{
	if (o->state)
		source_go.close(o->state);
	elf_file_close(o->elf);
	close(o->fd);
}

/* The chain as text: "name file:line start\n" for each function, "+" before an inlined one. */
static const char *chain_text(void)
{
	static char out[65536];
	size_t len = 0;

	out[0] = '\0';
	for (size_t i = 0; i < found.n; i++) {
		const struct found_function *f = &found.functions[i];

		assert_ptr_equal(f->name, f->system_name);
		len += (size_t)snprintf(out + len, sizeof(out) - len, "%s%s %s:%u %u\n",
			f->inlined ? "+" : "", f->name, f->file, f->line, f->start_line);
		assert_true(len < sizeof(out));
	}
	return out;
}

static const char *chain_at(const struct opened *o, uint64_t vaddr)
{
	int r;

	found_reset(&found);
	r = source_go.find(o->state, vaddr, &found);
	assert_int_equal(r, found.n > 0);
	return chain_text();
}

static void expect(const struct opened *o, unsigned function, unsigned pc, const char *expected)
{
	assert_string_equal(chain_at(o, FIXTURE_PC + function * FUNCTION + pc), expected);
}

static void expect_all(const struct opened *o, int layout, bool inlines)
{
	bool line = layout == 120;

	assert_int_equal(o->functions, ARRAY_SIZE(functions));
	expect(o, 0, 0, line ? "main.outer /src/a.go:11 10\n" : "main.outer /src/a.go:11 0\n");
	if (!inlines)
		expect(o, 0, 40,
			line ? "main.outer /src/c.go:201 10\n" : "main.outer /src/c.go:201 0\n");
	else if (line)
		expect(o, 0, 40,
			"+main.deep[...] /src/c.go:201 200\n+main.middle /src/b.go:101 100\n"
			"main.outer /src/a.go:11 10\n");
	else
		expect(o, 0, 40,
			"+main.deep[...] /src/c.go:201 0\n+main.middle /src/b.go:101 0\n"
			"main.outer /src/a.go:11 0\n");
	if (inlines && line)
		expect(o, 0, 16, "+main.middle /src/b.go:101 100\nmain.outer /src/a.go:11 10\n");
	expect(o, 0, 103, line ? "main.outer /src/a.go:12 10\n" : "main.outer /src/a.go:12 0\n");
	/* Behind its code: padding. */
	expect(o, 0, 127, line ? "main.outer :0 10\n" : "main.outer :0 0\n");
	expect(o, 1, 49, line ? "main.plain /src/b.go:21 20\n" : "main.plain /src/b.go:21 0\n");
	expect(o, 1, 50, line ? "main.plain /src/b.go:19 20\n" : "main.plain /src/b.go:19 0\n");
	/* Parents that lead back: the function itself is still true. */
	expect(o, 2, 0, line ? "main.cycle /src/b.go:21 30\n" : "main.cycle /src/b.go:21 0\n");
	/* C's: left to others, and then taken. */
	expect(o, 3, 5, "");
	found_reset(&found);
	assert_int_equal(source_go.find_bare(o->state, FIXTURE_PC + 3 * FUNCTION + 5, &found), 1);
	assert_string_equal(chain_text(), "_cgo_c :0 0\n");
	expect(o, 4, 0, line ? "main.last /src/b.go:21 40\n" : "main.last /src/b.go:21 0\n");
	expect(o, 5, 0, "");
	assert_string_equal(chain_at(o, FIXTURE_PC - 1), "");
	assert_string_equal(chain_at(o, 0), "");
	assert_string_equal(chain_at(o, UINT64_MAX), "");
	assert_true(source_go.memory(o->state) <= GOPCLNTAB_MEMORY);
}

static void test_layout(void **state)
{
	int layout = (int)(intptr_t)*state;
	/* where gofunc is: 1.18, 1.20 to 1.26, 1.27 */
	static const size_t words[] = {38, 40, 43};

	for (enum place place = 0; place < PLACES; place++) {
		for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
			struct tables t;
			struct opened o;
			uint64_t calls_at;

			make_tables(&t, layout, FIXTURE_PC, 0);
			calls_at = FIXTURE_PC + sizeof(text) + ((t.table.len + 15) & ~15ULL);
			tables_deinit(&t);
			/* In turns the header does not say where the text begins. */
			make_tables(&t, layout, i == 1 && place != MODULE_NOWHERE ? 0 : FIXTURE_PC,
				calls_at);
			open_table(&o, &t, place, words[i]);
			assert_non_null(o.state);
			expect_all(&o, layout, layout == 116 || place != MODULE_NOWHERE);
			close_table(&o);
			/* No word leads to calls. */
			open_table(&o, &t, place, 0);
			assert_non_null(o.state);
			expect_all(&o, layout, layout == 116);
			close_table(&o);
			tables_deinit(&t);
		}
	}
}

/* A program of 1.16 whose addresses are relocations that nobody applied. */
static void test_no_addresses(void **state)
{
	const size_t n = ARRAY_SIZE(functions);
	struct tables t;
	struct opened o;
	uint64_t pcln;

	make_tables(&t, 116, 0, 0);
	memcpy(&pcln, t.table.data + 56, 8);
	for (size_t i = 0; i <= n; i++)
		memset(t.table.data + pcln + i * 16, 0, 8);
	open_table(&o, &t, MODULE_DATA, 40);
	assert_null(o.state);
	close_table(&o);
	tables_deinit(&t);
}

static void ask_everywhere(const struct opened *o)
{
	for (uint64_t at = 0; o->state && at < sizeof(text) + 8; at += 7) {
		int r;

		found_reset(&found);
		r = source_go.find(o->state, FIXTURE_PC + at, &found);
		if (r == 0)
			r = source_go.find_bare(o->state, FIXTURE_PC + at, &found);
		assert_true(r == 0 || r == 1);
		assert_true(found.n <= SYMBOL_CHAIN_MAX && (found.n > 0) == (r == 1));
		for (size_t i = 0; i < found.n; i++)
			assert_true(*found.functions[i].name &&
				found.functions[i].inlined == (i + 1 < found.n));
	}
	if (o->state)
		assert_true(source_go.memory(o->state) <= GOPCLNTAB_MEMORY);
}

/* Cut at every length and changed at every byte, of the table and of the calls: it ends, within its bounds. */
static void test_every_damage(void **state)
{
	int layout = (int)(intptr_t)*state;
	static const uint8_t changes[] = {0xff, 0x01, 0x80};
	struct tables t;
	struct opened o;

	make_tables(&t, layout, FIXTURE_PC, 0);
	for (size_t i = 0; i < t.table.len; i++) {
		size_t len = t.table.len;

		for (size_t k = 0; k < ARRAY_SIZE(changes); k++) {
			t.table.data[i] ^= changes[k];
			open_table(&o, &t, MODULE_DATA, 40);
			ask_everywhere(&o);
			close_table(&o);
			t.table.data[i] ^= changes[k];
		}
		t.table.len = i;
		open_table(&o, &t, MODULE_DATA, 40);
		ask_everywhere(&o);
		close_table(&o);
		t.table.len = len;
	}
	for (size_t i = 0; i < t.gofunc.len; i++) {
		t.gofunc.data[i] ^= 0x81;
		open_table(&o, &t, MODULE_DATA, 40);
		ask_everywhere(&o);
		close_table(&o);
		t.gofunc.data[i] ^= 0x81;
	}
	tables_deinit(&t);
}

/* Every number of the header, and every word of records, as big as it gets. */
static void test_huge_numbers(void **state)
{
	static const uint64_t values[] = {1ULL << 63, UINT64_MAX, UINT64_MAX - 7, 1ULL << 32,
		INT64_MAX, UINT32_MAX, (uint64_t)INT32_MAX + 1};
	int layout = (int)(intptr_t)*state;
	struct tables t;
	struct opened o;

	make_tables(&t, layout, FIXTURE_PC, 0);
	for (size_t at = 8; at + 8 <= t.table.len; at += 4) {
		for (size_t k = 0; k < ARRAY_SIZE(values); k++) {
			uint64_t before;

			memcpy(&before, t.table.data + at, 8);
			memcpy(t.table.data + at, &values[k], at < 72 ? 8 : 4);
			open_table(&o, &t, MODULE_SECTION, 40);
			ask_everywhere(&o);
			close_table(&o);
			memcpy(t.table.data + at, &before, 8);
		}
	}
	tables_deinit(&t);
}

/* ---- programs
 * --------------------------------------------------------------------------------------------- */

static const char go_source[] =
	"package main\n"
	"import (\n\"encoding/json\"\n\"fmt\"\n\"os\"\n\"regexp\"\n\"sort\"\n\"strings\"\n)\n"
	"type shape interface{ area() int }\n"
	"type sq struct{ a int }\n"
	"func (s sq) area() int { return mul(s.a, s.a) }\n"
	"func mul(a, b int) int { return a*b + one(a) }\n"
	"func one(a int) int    { return a ^ 1 }\n"
	"func sum[T int | float64](v []T) (r T) {\n"
	" for _, x := range v { r += x }\n return }\n"
	"type pair[K comparable, V any] struct { k K; v V }\n"
	"func (p *pair[K, V]) get() (K, V) { defer func() { p.v = *new(V) }(); return p.k, p.v }\n"
	"func main() {\n v := []int{}\n"
	" for i := range os.Args { v = append(v, mul(i, 3)) }\n"
	" sort.Slice(v, func(i, j int) bool { return mul(v[i], 2) < v[j] })\n"
	" var s shape = sq{len(v)}\n p := pair[string, []int]{\"a\", v}\n k, w := p.get()\n"
	" c := make(chan int)\n go func() { c <- s.area() }()\n"
	" b, _ := json.Marshal(map[string]any{k: w})\n"
	" fmt.Println(sum(v), <-c, strings.Repeat(\"x\", len(v)), sum([]float64{1}), string(b),\n"
	"  regexp.MustCompile(\"a(b|c)*d+\").MatchString(os.Args[0])) }\n";

static const char cgo_source[] = "package main\n"
				 "// static int twice(int a) { return a * 2; }\nimport \"C\"\n"
				 "import \"fmt\"\n"
				 "func main() { fmt.Println(C.twice(21)) }\n";

#define STEP     23
#define TEXT_MAX 65536

static void open_program(struct opened *o, const char *path)
{
	struct err_text err = {0};
	const char *by;

	*o = (struct opened){.fd = open(path, O_RDONLY | O_CLOEXEC)};
	assert_true(o->fd >= 0);
	assert_int_equal(elf_file_open(&o->elf, o->fd, &err), 0);
	assert_int_equal(source_go.open(&o->state, o->elf, &by, &o->functions, &err), 0);
	if (!o->state || *err.text)
		fail_msg("%s: no table, or half of one: %s", path, err.text);
}

static void text_range(const struct opened *o, uint64_t *start, uint64_t *end)
{
	struct gopclntab *g = o->state;
	uint64_t unused;

	assert_int_equal(gopclntab_range(g, 0, start, &unused), 0);
	assert_int_equal(gopclntab_range(g, o->functions - 1, &unused, end), 0);
}

/* What all readers agree on: types of generic functions are left out, and marks of theirs. */
static void plain_name(char *name)
{
	char *out = name;
	size_t len;
	int depth = 0;

	for (const char *in = name; *in; in++) {
		if (*in == '[' && depth++ == 0)
			*out++ = '[';
		if (*in == ']' && --depth == 0)
			*out++ = ']';
		if (depth || *in == ']')
			continue;
		if ((unsigned char)in[0] == 0xc2 && (unsigned char)in[1] == 0xb7) {
			*out++ = '.';
			in++;
		} else {
			*out++ = *in;
		}
	}
	*out = '\0';
	len = strlen(name);
	if (len > 5 && streq(name + len - 5, ".abi0"))
		name[len - 5] = '\0';
}

struct known {
	char name[1024], file[512];
	unsigned line, start;
};

/* One answer of llvm-symbolizer --verbose. */
static size_t read_answer(FILE *from, struct known *out, size_t max)
{
	char line[2048];
	size_t n = 0;

	while (fgets(line, sizeof(line), from) && line[0] != '\n') {
		struct known *last = n ? &out[n - 1] : NULL;

		line[strcspn(line, "\n")] = '\0';
		if (line[0] != ' ') {
			assert_true(n < max);
			out[n] = (struct known){0};
			snprintf(out[n++].name, sizeof(out->name), "%.1000s", line);
		} else if (last && !strncmp(line, "  Filename: ", 12)) {
			const char *generated = strstr(line, "<autogenerated>");
			const char *path = generated ? generated : line + 12;

			while (!strncmp(path, "./", 2))
				path += 2;
			snprintf(last->file, sizeof(last->file), "%.500s", path);
		} else if (last) {
			sscanf(line, "  Line: %u", &last->line);
			sscanf(line, "  Function start line: %u", &last->start);
		}
	}
	return n;
}

static bool same_as_debug_info(const struct known *theirs, size_t n)
{
	if (n != found.n)
		return false;
	for (size_t i = 0; i < n; i++) {
		const struct found_function *f = &found.functions[i];
		char ours[1024], name[1024];

		snprintf(ours, sizeof(ours), "%.1000s", f->name);
		snprintf(name, sizeof(name), "%.1000s", theirs[i].name);
		plain_name(ours);
		plain_name(name);
		if (!streq(ours, name))
			return false;
		if (theirs[i].start && f->start_line && theirs[i].start != f->start_line)
			return false;
		/* The beginning of generated code. */
		if (theirs[i].line == 0 && streq(f->file, "<autogenerated>"))
			continue;
		if (!streq(f->file, theirs[i].file) || f->line != theirs[i].line)
			return false;
	}
	return true;
}

/* Go's own: the outermost name, then the innermost place. */
static bool same_as_go(FILE *from)
{
	char name[2048], place[2048], ours[2048], expected[1024];

	assert_non_null(fgets(name, sizeof(name), from));
	assert_non_null(fgets(place, sizeof(place), from));
	if (!found.n)
		return true;
	name[strcspn(name, "\n")] = place[strcspn(place, "\n")] = '\0';
	plain_name(name);
	snprintf(ours, sizeof(ours), "%.1000s", found.functions[found.n - 1].name);
	plain_name(ours);
	snprintf(expected, sizeof(expected), "%.900s:%u", found.functions[0].file,
		found.functions[0].line);
	return streq(name, ours) && (!*found.functions[0].file || streq(place, expected));
}

static void print_difference(const char *path, uint64_t at, const struct known *theirs, size_t n)
{
	print_message("%s 0x%llx:\n%sinstead of\n", path, (unsigned long long)at, chain_text());
	for (size_t i = 0; i < n; i++)
		print_message("%s %s:%u %u\n", theirs[i].name, theirs[i].file, theirs[i].line,
			theirs[i].start);
}

/* A copy for `go tool addr2line`, which before 1.20 knows the table under one section name only, that which
 * programs have that are not position-independent; of others it knows nothing at all. */
static void named_for_go(const char *path)
{
	if (shell("objcopy --rename-section .data.rel.ro.gopclntab=.gopclntab %s %s", path,
		    work_path("renamed")) != 0)
		fail_msg("objcopy fails at %s", path);
}

static void compare(const char *go, const char *path)
{
	static struct known theirs[SYMBOL_CHAIN_MAX];
	uint64_t start, end, asked = 0, inlined = 0, padding = 0, wrong = 0, wrong_go = 0;
	char command[1024];
	struct opened o;
	FILE *list, *llvm, *addr2line;

	open_program(&o, path);
	text_range(&o, &start, &end);
	list = fopen(work_path("addresses"), "we");
	assert_non_null(list);
	for (uint64_t a = start; a < end; a += STEP)
		fprintf(list, "0x%llx\n", (unsigned long long)a);
	fclose(list);
	snprintf(command, sizeof(command),
		"llvm-symbolizer --no-demangle --output-style=LLVM --verbose --inlines -f -e %s <%s",
		path, work_path("addresses"));
	llvm = popen(command, "re");
	named_for_go(path);
	snprintf(command, sizeof(command), "%s tool addr2line %s <%s", go, work_path("renamed"),
		work_path("addresses"));
	addr2line = popen(command, "re");
	assert_true(llvm && addr2line);
	for (uint64_t a = start; a < end; a += STEP) {
		size_t n = read_answer(llvm, theirs, ARRAY_SIZE(theirs));

		assert_true(n > 0);
		found_reset(&found);
		source_go.find(o.state, a, &found);
		asked++;
		inlined += found.n > 1;
		if (!same_as_go(addr2line))
			wrong_go++;
		/* Between functions, where neither has a line; and C's, which is not of the table. */
		if (!found.n || (!*found.functions[0].file && theirs[0].line == 0))
			padding++;
		else if (!same_as_debug_info(theirs, n) && ++wrong <= 3)
			print_difference(path, a, theirs, n);
	}
	pclose(llvm);
	pclose(addr2line);
	print_message("%s: %llu addresses, %llu within inlined functions, %llu between functions, "
		      "%llu other than debug information, %llu other than addr2line\n",
		path, (unsigned long long)asked, (unsigned long long)inlined,
		(unsigned long long)padding, (unsigned long long)wrong,
		(unsigned long long)wrong_go);
	assert_true(asked > 5000);
	assert_true(inlined > asked / 10);
	assert_true(padding < asked / 10);
	assert_true(wrong * 1000000 <= asked * ALLOWED_PPM);
	assert_true(wrong_go * 1000000 <= asked * ALLOWED_PPM);
	assert_true(source_go.memory(o.state) <= GOPCLNTAB_MEMORY);
	close_table(&o);
}

/* What is stripped says the same, everywhere. */
static void compare_twins(const char *whole, const char *stripped)
{
	static char expected[TEXT_MAX];
	uint64_t start, end, first, last;
	struct opened a, b;

	open_program(&a, whole);
	open_program(&b, stripped);
	text_range(&a, &start, &end);
	text_range(&b, &first, &last);
	assert_int_equal(start, first);
	assert_int_equal(end, last);
	for (uint64_t at = start; at < end; at += STEP) {
		snprintf(expected, sizeof(expected), "%s", chain_at(&a, at));
		if (!streq(chain_at(&b, at), expected))
			fail_msg("%s 0x%llx: %sinstead of %s", stripped, (unsigned long long)at,
				chain_text(), expected);
	}
	close_table(&a);
	close_table(&b);
}

/* As sstrip does: without section headers. */
static void drop_sections(const char *from, const char *to)
{
	int fd;
	Elf64_Ehdr h;

	assert_int_equal(shell("cp %s %s", from, to), 0);
	fd = open(to, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, &h, sizeof(h), 0), sizeof(h));
	h.e_shoff = 0;
	h.e_shnum = h.e_shstrndx = 0;
	assert_int_equal(pwrite(fd, &h, sizeof(h), 0), sizeof(h));
	close(fd);
}

static void build(const char *go, bool cgo, const char *flags, const char *source, const char *name)
{
	if (shell("cd %s && CGO_ENABLED=%d GO111MODULE=off GOFLAGS= GOTOOLCHAIN=local %s build %s "
		  "-o %s %s >log 2>&1",
		    work_dir, cgo, go, flags, name, source) != 0) {
		shell("cat %s >&2", work_path("log"));
		fail_msg("%s build %s %s fails", go, flags, source);
	}
}

static void test_toolchain(const char *go, bool cgo)
{
	static const struct {
		const char *name, *flags, *strip;
		bool cgo;
	} kinds[] = {{"plain", "", "-s -w", false}, {"trimmed", "-trimpath", "-s -w", false},
		{"pie", "-buildmode=pie", "-s -w", false}, {"cgo", "", "-s -w", true},
		{"cgopie", "-buildmode=pie", "-linkmode=external -s -w", true}};
	char whole[192], stripped[192], bare[192], flags[256];

	write_file(work_path("main.go"), go_source);
	write_file(work_path("cgo.go"), cgo_source);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		if (kinds[i].cgo && !cgo)
			continue;
		snprintf(whole, sizeof(whole), "%s", work_path(kinds[i].name));
		snprintf(stripped, sizeof(stripped), "%s", work_path("stripped"));
		snprintf(bare, sizeof(bare), "%s", work_path("bare"));
		build(go, kinds[i].cgo, kinds[i].flags, kinds[i].cgo ? "cgo.go" : "main.go", whole);
		snprintf(flags, sizeof(flags), "%s -ldflags '%s'", kinds[i].flags, kinds[i].strip);
		build(go, kinds[i].cgo, flags, kinds[i].cgo ? "cgo.go" : "main.go", stripped);
		compare(go, whole);
		compare_twins(whole, stripped);
		drop_sections(stripped, bare);
		compare_twins(whole, bare);
	}
}

static void test_programs(void **state)
{
	if (shell("go version") != 0)
		fail_msg("go is not installed: tests/check/deps.sh test");
	test_toolchain("go", true);
}

/* Layouts of before, by the toolchains of Debian that have them. */
static void test_older_toolchains(void **state)
{
	glob_t found_go;

	if (glob("/usr/lib/go-1.*/bin/go", 0, NULL, &found_go) != 0) {
		print_message("not run here: no older Go in /usr/lib\n");
		return;
	}
	/* Debian's cgo is built for its own compiler's paths; without it here. */
	for (size_t i = 0; i < found_go.gl_pathc; i++)
		test_toolchain(found_go.gl_pathv[i], false);
	globfree(&found_go);
}

/* A file that is not Go's costs nothing and has nothing. */
static void test_others(void **state)
{
	struct err_text err = {0};
	struct opened o = {.fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC)};
	const char *by = NULL;

	assert_int_equal(elf_file_open(&o.elf, o.fd, &err), 0);
	assert_int_equal(source_go.open(&o.state, o.elf, &by, &o.functions, &err), 0);
	assert_null(o.state);
	assert_int_equal(err.text[0], 0);
	close_table(&o);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(test_layout, (void *)116),
		cmocka_unit_test_prestate(test_layout, (void *)118),
		cmocka_unit_test_prestate(test_layout, (void *)120),
		cmocka_unit_test(test_no_addresses),
		cmocka_unit_test_prestate(test_every_damage, (void *)116),
		cmocka_unit_test_prestate(test_every_damage, (void *)118),
		cmocka_unit_test_prestate(test_every_damage, (void *)120),
		cmocka_unit_test_prestate(test_huge_numbers, (void *)116),
		cmocka_unit_test_prestate(test_huge_numbers, (void *)120),
		cmocka_unit_test(test_others),
		cmocka_unit_test(test_programs),
		cmocka_unit_test(test_older_toolchains),
	};

	dispatch_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
