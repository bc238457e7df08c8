/* SPDX-License-Identifier: Apache-2.0 */

/* The symbolizer's answers, made and checked.
 *
 * The writer runs in the child, the checker in agentd. The child parses hostile files, so on the day that one
 * of them takes it over its author holds the other end of this socket: the checker is the wall. It proves a
 * message wholly sound before anything of it is used (so that half an answer is never believed), and its
 * caller then reads without further checks.
 *
 * Invariants of a sound NAMES message: the sizes add up to its length exactly; rows' addresses were asked for
 * and rise, so each is answered once; rows use up the functions exactly; only a bare row has none; every function has a name; every
 * string lies in the string bytes, ends there with its NUL, has no other, and is clean UTF-8. */

#include "agentd/base/text.h"
#include "agentd/symbol/protocol.h"
#include "agentd/symbol/resolver.h"

/* ---- agentd: the wall ----------------------------------------------------------------------------------- */

static bool string_is_sound(
	const struct symbol_names_view *v, uint32_t bytes, const struct symbol_wire_string *s)
{
	if (s->len == 0)
		return s->offset == 0;
	if (s->len >= SYMBOL_NAME_MAX || s->offset >= bytes || s->len >= bytes - s->offset)
		return false;
	return strnlen(v->strings + s->offset, s->len + 1) == s->len &&
		text_is_clean(v->strings + s->offset, SYMBOL_NAME_MAX);
}

static bool function_is_sound(
	const struct symbol_names_view *v, uint32_t bytes, const struct symbol_wire_function *f)
{
	return f->name.len > 0 && string_is_sound(v, bytes, &f->name) &&
		string_is_sound(v, bytes, &f->system_name) && string_is_sound(v, bytes, &f->file) &&
		!(f->flags & ~SYMBOL_FUNCTION_INLINED);
}

static bool place_is_sound(const struct symbol_row *row, uint32_t n, uint32_t next)
{
	if (row->flags == SYMBOL_ROW_EXTRA)
		return next && row->address == next - 1 && row->distance >= -SYMBOL_EXTRA_FAR &&
			row->distance <= SYMBOL_EXTRA_FAR;
	return (!row->flags || row->flags == SYMBOL_ROW_BARE) && !row->distance &&
		row->address < n && row->address >= next;
}

static bool size_is_sound(const struct symbol_row *row)
{
	if (row->flags == SYMBOL_ROW_BARE)
		return row->n == 0 && row->behind == 0 && row->module.len == 0;
	return row->n > 0 && row->n <= SYMBOL_CHAIN_MAX;
}

static int decode_names(const struct symbol_names_message *m, uint32_t n, uint32_t *next,
	struct symbol_names_view *view)
{
	uint64_t size = sizeof(*m);
	uint32_t functions = 0;

	if (m->n_rows == 0 || m->n_rows > SYMBOL_ADDRESSES_MAX ||
		m->n_functions > SYMBOL_MESSAGE_MAX || m->string_bytes > SYMBOL_MESSAGE_MAX)
		return -EBADMSG;
	size += (uint64_t)m->n_rows * sizeof(struct symbol_row);
	size += (uint64_t)m->n_functions * sizeof(struct symbol_wire_function);
	if (size + m->string_bytes != m->header.size)
		return -EBADMSG;
	view->rows = (const void *)(m + 1);
	view->n_rows = m->n_rows;
	view->functions = (const void *)(view->rows + m->n_rows);
	view->n_functions = m->n_functions;
	view->strings = (const void *)(view->functions + m->n_functions);
	for (uint32_t i = 0; i < m->n_rows; i++) {
		const struct symbol_row *row = &view->rows[i];

		if (!place_is_sound(row, n, *next) || !size_is_sound(row) ||
			row->n > m->n_functions - functions ||
			!string_is_sound(view, m->string_bytes, &row->module))
			return -EBADMSG;
		if (row->flags != SYMBOL_ROW_EXTRA)
			*next = row->address + 1;
		functions += row->n;
	}
	if (functions != m->n_functions)
		return -EBADMSG;
	for (uint32_t i = 0; i < m->n_functions; i++)
		if (!function_is_sound(view, m->string_bytes, &view->functions[i]))
			return -EBADMSG;
	return 0;
}

static bool text_is_sound(const char *s, size_t used)
{
	return strnlen(s, used) < used && text_is_clean(s, used);
}

static bool is_hex(const char *s)
{
	return s[strspn(s, "0123456789abcdef")] == '\0';
}

static int decode_facts(const struct symbol_facts_message *m)
{
	if (!text_is_sound(m->build_id, 41) || !is_hex(m->build_id) ||
		!text_is_sound(m->go_build_id, 97) || !text_is_sound(m->htlhash, 33) ||
		!is_hex(m->htlhash) || !text_is_sound(m->named_by, sizeof(m->named_by)) ||
		!text_is_sound(m->problem, sizeof(m->problem)) ||
		!text_is_sound(m->debuglink, sizeof(m->debuglink)) || strchr(m->debuglink, '/') ||
		!text_is_sound(m->altlink, sizeof(m->altlink)) ||
		!text_is_sound(m->alt_build_id, 41) || !is_hex(m->alt_build_id) ||
		!text_is_sound(m->debug_build_id, 41) || !is_hex(m->debug_build_id) ||
		(m->has & ~SYMBOL_HAS_ALL) || m->n_segments > SYMBOL_SEGMENTS_MAX)
		return -EBADMSG;
	return 0;
}

int symbol_decode(const void *message, size_t len, uint64_t request, uint32_t n, uint32_t *next,
	struct symbol_names_view *view)
{
	const struct symbol_header *h = message;
	const struct symbol_done_message *done = message;

	if (len < sizeof(*h) || h->version != SYMBOL_PROTOCOL || h->size != len ||
		h->request != request)
		return -EBADMSG;
	switch (h->message) {
	case SYMBOL_MESSAGE_READY:
		return len == sizeof(struct symbol_ready) ? 0 : -EBADMSG;
	case SYMBOL_MESSAGE_FACTS:
		return len == sizeof(struct symbol_facts_message) ? decode_facts(message)
								  : -EBADMSG;
	case SYMBOL_MESSAGE_NAMES:
		return len >= sizeof(struct symbol_names_message)
			? decode_names(message, n, next, view)
			: -EBADMSG;
	case SYMBOL_MESSAGE_DONE:
		/* Names beyond what is said to be done would be asked for again. */
		if (len != sizeof(*done) || done->n_done > n || done->n_done < *next ||
			(done->flags &
				~(SYMBOL_DONE_UNKNOWN_FILE | SYMBOL_DONE_WANTS_DEBUG |
					SYMBOL_DONE_WANTS_ALT)))
			return -EBADMSG;
		return 0;
	default:
		return -EBADMSG;
	}
}

/* ---- the child: building --------------------------------------------------------------------------------- */

static size_t writer_size(const struct symbol_writer *w)
{
	return sizeof(struct symbol_names_message) + w->n_rows * sizeof(w->rows[0]) +
		w->n_functions * sizeof(w->functions[0]) + w->string_bytes;
}

static size_t bytes_of(const char *s)
{
	size_t len = strlen(s);

	return len ? len + 1 : 0;
}

static struct symbol_wire_string put_text(struct symbol_writer *w, const char *s)
{
	struct symbol_wire_string at = {.offset = w->string_bytes, .len = (uint32_t)strlen(s)};

	if (!at.len)
		return (struct symbol_wire_string){0};
	memcpy(w->strings + w->string_bytes, s, at.len + 1);
	w->string_bytes += at.len + 1;
	return at;
}

int symbol_writer_add(struct symbol_writer *w, uint32_t address, const struct found *found)
{
	size_t need =
		sizeof(w->rows[0]) + found->n * sizeof(w->functions[0]) + bytes_of(found->module);

	for (size_t i = 0; i < found->n; i++) {
		const struct found_function *f = &found->functions[i];

		need += bytes_of(f->name) + bytes_of(f->file);
		if (!streq(f->name, f->system_name))
			need += bytes_of(f->system_name);
	}
	if (w->n_rows == SYMBOL_ADDRESSES_MAX || writer_size(w) + need > SYMBOL_MESSAGE_MAX)
		return -ENOBUFS;
	w->rows[w->n_rows++] = (struct symbol_row){.address = address,
		.n = (uint16_t)found->n,
		.flags = found->n ? 0 : SYMBOL_ROW_BARE,
		.module = put_text(w, found->module),
		.before = found->before,
		.behind = found->behind};
	for (size_t i = 0; i < found->n; i++) {
		const struct found_function *f = &found->functions[i];
		struct symbol_wire_function *out = &w->functions[w->n_functions++];

		*out = (struct symbol_wire_function){.name = put_text(w, f->name),
			.line = f->line,
			.start_line = f->start_line,
			.flags = f->inlined ? SYMBOL_FUNCTION_INLINED : 0};
		out->system_name =
			streq(f->name, f->system_name) ? out->name : put_text(w, f->system_name);
		out->file = put_text(w, f->file);
	}
	return 0;
}

int symbol_writer_add_extra(
	struct symbol_writer *w, uint32_t address, int64_t distance, const struct found *found)
{
	int r = symbol_writer_add(w, address, found);

	if (r == 0) {
		w->rows[w->n_rows - 1].flags = SYMBOL_ROW_EXTRA;
		w->rows[w->n_rows - 1].distance = distance;
	}
	return r;
}

size_t symbol_writer_take(struct symbol_writer *w)
{
	size_t size = writer_size(w), at = sizeof(struct symbol_names_message);
	struct symbol_names_message m = {
		.header = {.version = SYMBOL_PROTOCOL,
			.message = SYMBOL_MESSAGE_NAMES,
			.size = (uint32_t)size,
			.request = w->request},
		.n_rows = w->n_rows,
		.n_functions = w->n_functions,
		.string_bytes = w->string_bytes,
	};
	uint8_t *out = (uint8_t *)w->message;

	if (!w->n_rows)
		return 0;
	memcpy(out, &m, sizeof(m));
	memcpy(out + at, w->rows, w->n_rows * sizeof(w->rows[0]));
	at += w->n_rows * sizeof(w->rows[0]);
	memcpy(out + at, w->functions, w->n_functions * sizeof(w->functions[0]));
	at += w->n_functions * sizeof(w->functions[0]);
	memcpy(out + at, w->strings, w->string_bytes);
	w->n_rows = w->n_functions = w->string_bytes = 0;
	return size;
}
