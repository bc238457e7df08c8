/* SPDX-License-Identifier: Apache-2.0 */

/* Native frames: a file and an offset into it.
 *
 * The file's own segments turn the offset into the address that its tables speak of; then its sources of names
 * are asked, best first, and the first that knows the address answers. A source that cannot read the file is
 * left out and said in the facts; a file that no source can read has facts all the same. An address that none
 * knows is still known by the beginning of its function, where unwind tables tell. Sources behind one
 * that knows nearly all of a file (Go's own table) are opened when they are needed, most often never. Runs in
 * the symbolizer.
 *
 * A separate debug file is believed to be this file's when both have the same build id, or, where one has none, when
 * its CRC is the one that .gnu_debuglink says; where it was found proves nothing. */

#include <elf.h>

#include "agentd/elf/elf_file.h"
#include "agentd/elf/extent.h"
#include "agentd/elf/view.h"
#include "agentd/symbol/resolver.h"

#define CRC_FILE_MAX (256 << 20) /* bytes of a debug file that are read for its CRC */
#define DYNAMIC_MAX  256

/* Best first. */
static const struct native_source *const sources[] = {
	&source_go, &source_dwarf, &source_symtab, &source_plt};

struct native {
	struct native_files files;
	uint16_t flags;                   /* SYMBOL_REQUEST_* */
	void *state[ARRAY_SIZE(sources)]; /* NULL: it has nothing for this file */
	size_t n_opened;
	/* Where functions begin, and those that a program begins with; asked when there is no name. */
	struct elf_extents *extents;
	uint64_t entry, main; /* 0: it is no program; not known */
	bool looked;          /* at these */
};

static void *native_close(void *state)
{
	struct native *n = state;

	if (n) {
		for (size_t i = 0; i < ARRAY_SIZE(sources); i++)
			if (n->state[i])
				sources[i]->close(n->state[i]);
		elf_extents_close(n->extents);
		elf_file_close(n->files.mini);
		elf_file_close(n->files.debug);
		elf_file_close(n->files.own);
		free(n);
	}
	return NULL;
}
DEFINE_FREEP(native_closep, struct native *, native_close)

static void set_segments(const struct elf_file *elf, struct symbol_facts_message *facts)
{
	size_t n;
	const struct elf_segment *s = elf_file_segments(elf, &n);

	/* Code first, in case there are more than fit. */
	for (int executable = 1; executable >= 0; executable--)
		for (size_t i = 0; i < n && facts->n_segments < SYMBOL_SEGMENTS_MAX; i++)
			if (s[i].executable == (executable != 0))
				facts->segments[facts->n_segments++] =
					(struct symbol_wire_segment){.offset = s[i].offset,
						.file_size = s[i].file_size,
						.vaddr = s[i].vaddr,
						.mem_size = s[i].mem_size,
						.executable = (uint32_t)executable};
}

/* ---- the separate debug file ---- */

/* Two build ids that are equal prove more than the CRC, and without reading all of it. */
static const char *debug_mismatch(const struct elf_file *debug, const struct elf_ids *own,
	const struct elf_debuglink *link, char debug_build_id[static 41])
{
	struct elf_ids ids;
	uint32_t crc;
	int r;

	elf_file_ids(debug, &ids);
	memcpy(debug_build_id, ids.gnu, sizeof(ids.gnu));
	if (*own->gnu && *ids.gnu)
		return streq(own->gnu, ids.gnu) ? NULL : "it has another build id";
	if (!*link->name)
		return "it has no build id";
	r = elf_file_crc(debug, CRC_FILE_MAX, &crc);
	if (r < 0)
		return r == -EFBIG ? "it is too long for its CRC to be checked"
				   : "it cannot be read";
	return crc == link->crc ? NULL : "it has another CRC";
}

/* Takes the debug file that came, if it is this file's. RESOLVER_WANTS_DEBUG: there may be another. */
static int take_debug(struct native *n, const struct resolver_input *in,
	struct symbol_facts_message *facts, const struct elf_ids *ids)
{
	struct err_text err = {0};
	const char *mismatch = NULL;
	struct elf_debuglink link;

	elf_file_debuglink(n->files.own, &link);
	memcpy(facts->debuglink, link.name, sizeof(link.name));
	facts->debuglink_crc = link.crc;
	if (elf_file_has_debug_info(n->files.own)) {
		facts->has |= SYMBOL_HAS_DEBUG_INFO;
		return 0;
	}
	if (in->debug_fd >= 0) {
		if (elf_file_open(&n->files.debug, in->debug_fd, &err) < 0)
			mismatch = err.text;
		else
			mismatch =
				debug_mismatch(n->files.debug, ids, &link, facts->debug_build_id);
		if (!mismatch) {
			facts->has |= SYMBOL_HAS_DEBUG_FILE;
			return 0;
		}
		snprintf(facts->problem, sizeof(facts->problem), "a debug file was not used: %.96s",
			mismatch);
		n->files.debug = elf_file_close(n->files.debug);
	}
	return (in->flags & SYMBOL_REQUEST_MAY_ASK) && (*ids->gnu || *link.name)
		? RESOLVER_WANTS_DEBUG
		: 0;
}

/* The alternate file that came, if it is the one that the debug information refers to. RESOLVER_WANTS_ALT: there may be
 * another. Without it names that lie there are not known, which is said. */
static int take_alt(
	struct native *n, const struct resolver_input *in, struct symbol_facts_message *facts)
{
	const struct elf_file *debug =
		facts->has & SYMBOL_HAS_DEBUG_INFO ? n->files.own : n->files.debug;
	CLEANUP(elf_file_closep) struct elf_file *alt = NULL;
	struct elf_altlink link;

	if (!debug || (in->flags & SYMBOL_REQUEST_CHEAP))
		return 0;
	elf_file_altlink(debug, &link);
	if (!*link.path)
		return 0;
	memcpy(facts->altlink, link.path, sizeof(link.path));
	memcpy(facts->alt_build_id, link.build_id, sizeof(link.build_id));
	if (in->alt_fd >= 0 && elf_file_open(&alt, in->alt_fd, NULL) == 0 &&
		elf_file_is_alternate(alt, &link)) {
		n->files.alt_fd = in->alt_fd;
		facts->has |= SYMBOL_HAS_ALT_FILE;
		return 0;
	}
	if (in->flags & SYMBOL_REQUEST_MAY_ASK_ALT)
		return RESOLVER_WANTS_ALT;
	snprintf(facts->problem, sizeof(facts->problem),
		"a part of its debug information is in %.60s, which was not found", link.path);
	return 0;
}

/* ---- */

static int open_source(
	struct native *n, size_t i, const char **by, uint64_t *functions, struct err_text *problem)
{
	const struct native_source *source = sources[i];

	if (source->costly && (n->flags & SYMBOL_REQUEST_CHEAP))
		return 0;
	if (source->open_files)
		return source->open_files(&n->state[i], &n->files, by, functions, problem);
	return source->open(&n->state[i], n->files.own, by, functions, problem);
}

static int open_files(struct native *n, const struct resolver_input *in,
	struct symbol_facts_message *facts, struct err_text *problem)
{
	struct elf_ids ids;
	int r;

	if (elf_file_htlhash(in->fd, facts->htlhash) < 0)
		facts->htlhash[0] = '\0';
	r = elf_file_open(&n->files.own, in->fd, problem);
	if (r < 0) {
		snprintf(facts->problem, sizeof(facts->problem), "%.120s", problem->text);
		return r;
	}
	elf_file_ids(n->files.own, &ids);
	memcpy(facts->build_id, ids.gnu, sizeof(ids.gnu));
	memcpy(facts->go_build_id, ids.go, sizeof(ids.go));
	set_segments(n->files.own, facts);
	if (elf_file_find_type(n->files.own, SHT_SYMTAB, NULL))
		facts->has |= SYMBOL_HAS_SYMTAB;
	r = take_debug(n, in, facts, &ids);
	if (r == 0)
		r = take_alt(n, in, facts);
	if (r != 0)
		return r;
	/* The debug file's table has all of it. */
	if (!(in->flags & SYMBOL_REQUEST_CHEAP) && !(facts->has & SYMBOL_HAS_SYMTAB) &&
		!n->files.debug) {
		r = elf_file_open_debugdata(&n->files.mini, n->files.own, problem);
		facts->has |= n->files.mini || r < 0 ? SYMBOL_HAS_DEBUGDATA : 0;
	}
	return r == -ENOMEM ? r : 0;
}

static int native_open(
	void **ret, const struct resolver_input *in, struct symbol_facts_message *facts)
{
	CLEANUP(native_closep) struct native *n = calloc(1, sizeof(*n));
	const char *named_by = NULL;
	struct err_text problem = {0};
	int r;

	if (!n)
		return -ENOMEM;
	n->flags = in->flags;
	n->files.alt_fd = -1;
	r = open_files(n, in, facts, &problem);
	if (r != 0)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(sources) && !sources[i]->late; i++) {
		uint64_t functions = 0;
		const char *by = NULL;

		r = open_source(n, i, &by, &functions, &problem);
		if (r == -ENOMEM)
			return r; /* the caller may be able to make room */
		n->n_opened = i + 1;
		if (n->state[i] && !named_by) {
			named_by = by;
			facts->functions = functions;
		}
		if (n->state[i] && sources[i]->alone)
			break;
	}
	if (*problem.text)
		snprintf(facts->problem, sizeof(facts->problem), "%.120s", problem.text);
	snprintf(facts->named_by, sizeof(facts->named_by), "%s", named_by ? named_by : "none");
	*ret = TAKE_PTR(n);
	return 0;
}

/* Those that were left for later. One that does not open now has nothing. */
static void open_up_to(struct native *n, size_t i)
{
	while (n->n_opened <= i) {
		struct err_text problem = {0};
		uint64_t functions = 0;
		const char *by = NULL;

		if (open_source(n, n->n_opened, &by, &functions, &problem) < 0)
			n->state[n->n_opened] = NULL;
		n->n_opened++;
	}
}

/* How far an answer holds is said in the file's addresses, and is the same in offsets within a segment. Where a better
 * source is open, that may know some of those addresses. */
static void limit_range(
	const struct native *n, uint64_t offset, uint64_t vaddr, bool best, struct found *found)
{
	uint64_t at;

	if (best && found->before <= offset &&
		elf_file_vaddr(n->files.own, offset - found->before, &at) == 0 &&
		at == vaddr - found->before &&
		elf_file_vaddr(n->files.own, offset + found->behind, &at) == 0 &&
		at == vaddr + found->behind)
		return;
	found->before = found->behind = 0;
}

/* The same of its function's extent, cut to what is within the segment. */
static void turn_extent(
	const struct native *n, uint64_t offset, uint64_t vaddr, struct found *found)
{
	uint64_t from = found->function_from, to = found->function_to, at;

	found->function_from = found->function_to = 0;
	if (from > vaddr || to <= vaddr || vaddr - from > offset)
		return;
	from = offset - (vaddr - from);
	to = offset + (to - vaddr);
	if (elf_file_vaddr(n->files.own, from, &at) < 0 || at != vaddr - (offset - from) ||
		elf_file_vaddr(n->files.own, to - 1, &at) < 0 || at != vaddr + (to - 1 - offset))
		return;
	found->function_from = from;
	found->function_to = to;
}

/* Of a program (a library has an entry, too, which is something else): where the kernel or the dynamic linker
 * begins, that is `_start` in every C library, named or not. */
static uint64_t entry_of(const struct elf_file *elf)
{
	const struct elf_section *dynamic = elf_file_find_type(elf, SHT_DYNAMIC, NULL);
	uint64_t n = dynamic ? MIN(dynamic->size / sizeof(Elf64_Dyn), DYNAMIC_MAX) : 0;
	Elf64_Ehdr h;
	Elf64_Dyn d;

	if (elf_file_read(elf, &h, sizeof(h), 0) < 0 || h.e_ident[EI_CLASS] != ELFCLASS64)
		return 0;
	if (h.e_type == ET_EXEC)
		return h.e_entry;
	for (uint64_t i = 0; i < n; i++) {
		if (elf_file_read(elf, &d, sizeof(d), dynamic->offset + i * sizeof(d)) < 0 ||
			d.d_tag == DT_NULL)
			break;
		if (d.d_tag == DT_FLAGS_1)
			return d.d_un.d_val & DF_1_PIE ? h.e_entry : 0;
	}
	return 0;
}

/* What glibc's _start hands to __libc_start_main first: lea or mov to %rdi. 0: not found. */
static uint64_t main_of(const struct elf_file *elf, uint64_t entry)
{
	uint64_t offset, len;
	uint8_t code[40];
	int32_t v;

	if (view_vaddr(elf, entry, &offset, &len) < 0 || len < sizeof(code) ||
		elf_file_read(elf, code, sizeof(code), offset) < 0)
		return 0;
	for (size_t i = 0; i + 7 <= sizeof(code); i++) {
		memcpy(&v, code + i + 3, sizeof(v));
		if (code[i] != 0x48)
			continue;
		if (code[i + 1] == 0x8d && code[i + 2] == 0x3d)
			return entry + i + 7 + (uint64_t)(int64_t)v;
		if (code[i + 1] == 0xc7 && code[i + 2] == 0xc7)
			return (uint64_t)(int64_t)v;
	}
	return 0;
}

/* All addresses of a function without a name go by its beginning. */
static int find_beginning(struct native *n, uint64_t offset, uint64_t vaddr, struct found *found)
{
	uint64_t from, to, at;

	if (!n->looked) {
		n->looked = true;
		n->entry = entry_of(n->files.own);
		n->main = n->entry ? main_of(n->files.own, n->entry) : 0;
		if (elf_extents_open(&n->extents, n->files.own) < 0)
			n->extents = NULL; /* then without */
	}
	if (!n->extents || !elf_extents_find(n->extents, vaddr, &from, &to))
		return 0;
	if (n->entry && (from == n->entry || from == n->main))
		return found_add(found, from == n->entry ? "_start" : "main", "", 0, 0, false) == 0;
	if (vaddr - from > MIN(offset, (uint64_t)UINT32_MAX) ||
		elf_file_vaddr(n->files.own, offset - (vaddr - from), &at) < 0 || at != from)
		return 0;
	found->before = (uint32_t)(vaddr - from);
	return RESOLVER_BARE;
}

static int native_find(void *state, uint64_t offset, struct found *found)
{
	struct native *n = state;
	bool best = true;
	uint64_t vaddr;
	int r = 0, by;

	if (elf_file_vaddr(n->files.own, offset, &vaddr) < 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(sources); i++) {
		if (r < 0 || (r > 0 && !found->outermost_unqualified))
			break;
		open_up_to(n, i);
		if (!n->state[i])
			continue;
		by = sources[i]->find(n->state[i], vaddr, found);
		if (by)
			r = by;
		if (by > 0)
			limit_range(n, offset, vaddr, best, found);
		if (by > 0 && best && found->function_to)
			turn_extent(n, offset, vaddr, found);
		best = false;
	}
	for (size_t i = 0; i < ARRAY_SIZE(sources) && r == 0; i++)
		if (n->state[i] && sources[i]->find_bare)
			r = sources[i]->find_bare(n->state[i], vaddr, found);
	return r ? r : find_beginning(n, offset, vaddr, found);
}

static size_t native_memory(const void *state)
{
	const struct native *n = state;
	size_t sum = sizeof(*n) + elf_file_memory(n->files.own) + elf_extents_memory(n->extents);

	if (n->files.debug)
		sum += elf_file_memory(n->files.debug);
	if (n->files.mini)
		sum += elf_file_memory(n->files.mini);
	for (size_t i = 0; i < ARRAY_SIZE(sources); i++)
		if (n->state[i])
			sum += sources[i]->memory(n->state[i]);
	return sum;
}

const struct resolver resolver_native = {
	.name = "native",
	.kind = SYMBOL_KIND_ELF,
	.open = native_open,
	.close = native_close,
	.find = native_find,
	.memory = native_memory,
};
