/* SPDX-License-Identifier: Apache-2.0 */

/* How names and facts look on the disk. The same build on the same machine reads them, so integers are as they lie
 * in memory; keys carry the version, and every row a seal. Still every length is checked here, since a bug of an
 * earlier run must not be one of this.
 *
 * A chain: {u16 n}, then per function {u32 line, u32 start line, u8 inlined} and three texts (name, system name, file);
 * then the module. Where no name was found but the beginning of its function: {u16 0, u64 where it begins}. A text is {u16 length, bytes, NUL}, or {0xffff, u16 where} for one that is already there: the
 * functions of a chain are mostly of one source file, and a name in C is its system name. Runs in agentd. */

#include "agentd/base/text.h"
#include "agentd/symbol/diskcache.h"

#define SAME_AS 0xffff

struct writer {
	uint8_t *out;
	size_t len;
	bool failed;
	size_t n_texts;
	struct {
		const char *text;
		uint16_t at;
	} texts[64];
};

static void put(struct writer *w, const void *data, size_t len)
{
	if (w->failed || len > DISK_VALUE_MAX - w->len) {
		w->failed = true;
		return;
	}
	memcpy(w->out + w->len, data, len);
	w->len += len;
}

static void put_u16(struct writer *w, size_t value)
{
	uint16_t v = (uint16_t)value;

	put(w, &v, sizeof(v));
}

/* Interned texts: equal pointers are equal texts. */
static void put_text(struct writer *w, const char *text)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < w->n_texts; i++) {
		if (w->texts[i].text != text)
			continue;
		put_u16(w, SAME_AS);
		put_u16(w, w->texts[i].at);
		return;
	}
	if (len >= SYMBOL_NAME_MAX) {
		w->failed = true;
		return;
	}
	if (w->n_texts < ARRAY_SIZE(w->texts)) {
		w->texts[w->n_texts].text = text;
		w->texts[w->n_texts++].at = (uint16_t)w->len;
	}
	put_u16(w, len);
	put(w, text, len + 1);
}

int disk_encode_chain(
	const struct symbol_chain *chain, const char *module, uint8_t out[static DISK_VALUE_MAX])
{
	struct writer w = {.out = out};

	put_u16(&w, chain->n);
	for (size_t i = 0; i < chain->n; i++) {
		const struct symbol_function *f = &chain->functions[i];
		uint8_t inlined = f->inlined;

		put(&w, &f->line, sizeof(f->line));
		put(&w, &f->start_line, sizeof(f->start_line));
		put(&w, &inlined, sizeof(inlined));
		put_text(&w, f->name);
		put_text(&w, f->system_name);
		put_text(&w, f->file);
	}
	put_text(&w, streq(chain->module, module) ? "" : chain->module);
	return w.failed ? -E2BIG : (int)w.len;
}

int disk_encode_bare(uint64_t start, uint8_t out[static DISK_VALUE_MAX])
{
	struct writer w = {.out = out};

	put_u16(&w, 0);
	put(&w, &start, sizeof(start));
	return (int)w.len;
}

bool disk_decode_bare(const void *data, size_t len, uint64_t *start)
{
	uint16_t n;

	if (len != sizeof(n) + sizeof(*start))
		return false;
	memcpy(&n, data, sizeof(n));
	memcpy(start, (const uint8_t *)data + sizeof(n), sizeof(*start));
	return n == 0;
}

struct reader {
	const uint8_t *data;
	size_t len, at;
	bool failed;
};

static void get(struct reader *r, void *to, size_t len)
{
	if (r->failed || len > r->len - r->at) {
		r->failed = true;
		memset(to, 0, len);
		return;
	}
	memcpy(to, r->data + r->at, len);
	r->at += len;
}

static size_t get_u16(struct reader *r)
{
	uint16_t v;

	get(r, &v, sizeof(v));
	return v;
}

static const char *get_text(struct reader *r)
{
	size_t len = get_u16(r);
	struct reader earlier = {.data = r->data, .len = r->at};
	struct reader *from = r;
	const char *text;

	if (len == SAME_AS) {
		earlier.at = get_u16(r);
		earlier.failed = earlier.at > earlier.len;
		from = &earlier;
		len = get_u16(from);
	}
	if (from->failed || len >= SYMBOL_NAME_MAX || len + 1 > from->len - from->at) {
		r->failed = true;
		return "";
	}
	text = (const char *)from->data + from->at;
	from->at += len + 1;
	if (text[len] || !text_is_clean(text, len) || strlen(text) != len) {
		r->failed = true;
		return "";
	}
	return text;
}

int disk_decode_chain(const void *data, size_t len, const char *module, struct symbol_chain *ret,
	struct symbol_function *functions)
{
	struct reader r = {.data = data, .len = len};
	size_t n = get_u16(&r);

	if (!n || n > SYMBOL_CHAIN_MAX)
		return -EBADMSG;
	for (size_t i = 0; i < n && !r.failed; i++) {
		struct symbol_function *f = &functions[i];
		uint8_t inlined;

		memset(f, 0, sizeof(*f));
		get(&r, &f->line, sizeof(f->line));
		get(&r, &f->start_line, sizeof(f->start_line));
		get(&r, &inlined, sizeof(inlined));
		f->inlined = inlined;
		f->name = get_text(&r);
		f->system_name = get_text(&r);
		f->file = get_text(&r);
		r.failed |= !*f->name;
	}
	*ret = (struct symbol_chain){.n = (uint16_t)n, .functions = functions};
	ret->module = get_text(&r);
	if (!*ret->module)
		ret->module = module;
	return r.failed || r.at != r.len ? -EBADMSG : 0;
}

/* ---- facts ---------------------------------------------------------------------------------------------------- */

struct flat_facts {
	uint64_t debug_files;
	struct symbol_segment segments[8];
	char build_id[41], go_build_id[97], htlhash[33];
	char named_by[24], problem[192], debuglink[256];
	uint8_t n_segments, has_debug_info, has_symtab, has_debug_file, costly;
};
_Static_assert(sizeof(struct flat_facts) <= DISK_FACTS_MAX, "facts");

size_t disk_encode_facts(const struct disk_facts *f, uint8_t out[static DISK_FACTS_MAX])
{
	struct flat_facts flat;

	memset(&flat, 0, sizeof(flat));
	flat.debug_files = f->debug_files;
	for (size_t i = 0; i < f->facts.n_segments; i++)
		flat.segments[i] = f->facts.segments[i];
	memcpy(flat.build_id, f->facts.build_id, sizeof(flat.build_id));
	memcpy(flat.go_build_id, f->facts.go_build_id, sizeof(flat.go_build_id));
	memcpy(flat.htlhash, f->facts.htlhash, sizeof(flat.htlhash));
	snprintf(flat.named_by, sizeof(flat.named_by), "%s", f->facts.named_by);
	snprintf(flat.problem, sizeof(flat.problem), "%s", f->facts.last_problem);
	snprintf(flat.debuglink, sizeof(flat.debuglink), "%s", f->facts.debuglink);
	flat.n_segments = f->facts.n_segments;
	flat.has_debug_info = f->facts.has_debug_info;
	flat.has_symtab = f->facts.has_symtab;
	flat.has_debug_file = f->facts.has_debug_file;
	flat.costly = f->costly;
	memcpy(out, &flat, sizeof(flat));
	return sizeof(flat);
}

static bool take_text(char *to, size_t size, const char *from)
{
	if (!memchr(from, '\0', size) || !text_is_clean(from, size - 1))
		return false;
	memcpy(to, from, size);
	return true;
}

int disk_decode_facts(const void *data, size_t len, struct disk_facts *ret)
{
	struct flat_facts flat;
	bool ok;

	if (len != sizeof(flat))
		return -EBADMSG;
	memcpy(&flat, data, sizeof(flat));
	memset(ret, 0, sizeof(*ret));
	ok = flat.n_segments <= ARRAY_SIZE(flat.segments);
	ok &= take_text(ret->facts.build_id, sizeof(flat.build_id), flat.build_id);
	ok &= take_text(ret->facts.go_build_id, sizeof(flat.go_build_id), flat.go_build_id);
	ok &= take_text(ret->facts.htlhash, sizeof(flat.htlhash), flat.htlhash);
	ok &= take_text(ret->named_by, sizeof(flat.named_by), flat.named_by);
	ok &= take_text(ret->problem, sizeof(flat.problem), flat.problem);
	ok &= take_text(ret->debuglink, sizeof(flat.debuglink), flat.debuglink);
	if (!ok || !*ret->named_by)
		return -EBADMSG;
	ret->debug_files = flat.debug_files;
	ret->costly = flat.costly;
	ret->facts.n_segments = flat.n_segments;
	for (size_t i = 0; i < flat.n_segments; i++)
		ret->facts.segments[i] = flat.segments[i];
	ret->facts.has_debug_info = flat.has_debug_info;
	ret->facts.has_symtab = flat.has_symtab;
	ret->facts.has_debug_file = flat.has_debug_file;
	ret->facts.named_by = ret->named_by;
	ret->facts.last_problem = ret->problem;
	ret->facts.debuglink = ret->debuglink;
	return 0;
}
