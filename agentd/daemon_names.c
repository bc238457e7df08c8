/* SPDX-License-Identifier: Apache-2.0 */

/* From frames to names: what agentd asks the symbolizer for, and how an answer, a file's segments and its build
 * ids become a location of the batch. Addresses are those of the ELF's own address space, since run-time
 * addresses cannot be merged across processes; return addresses lose 1, so that they lie in the call. Runs in
 * agentd; nothing is parsed here. */

#include <fcntl.h>

#include "agentd/daemon_fetch.h"
#include "agentd/daemon_disknames.h"
#include "agentd/daemon_jit.h"
#include "agentd/daemon_names.h"
#include "agentd/daemon_debugfiles.h"

/* ---- names ---- */

static int open_file(void *userdata, uint32_t file)
{
	struct daemon *d = userdata;

	return process_file_open(d->processes, file);
}

static const char *module_name(void *userdata, uint32_t file)
{
	struct daemon *d = userdata;
	const struct file *f = process_file(d->processes, file);
	const char *slash;

	if (!f || !f->path || !f->path[0])
		return "[unknown]";
	slash = strrchr(f->path, '/');
	return slash && slash[1] ? slash + 1 : f->path;
}

static void on_file_facts(void *userdata, uint32_t file, const struct symbol_file_facts *facts)
{
	struct daemon *d = userdata;
	struct file *f = process_file(d->processes, file);

	if (!f)
		return;
	snprintf(f->build_id, sizeof(f->build_id), "%s", facts->build_id);
	snprintf(f->go_build_id, sizeof(f->go_build_id), "%s", facts->go_build_id);
	snprintf(f->htlhash, sizeof(f->htlhash), "%s", facts->htlhash);
	daemon_fetch_on_facts(d, file, facts);
	figures_facts(d->figures,
		file == FILE_ID_KERNEL        ? FIGURES_KERNEL
			: f->path && *f->path ? f->path
					      : "[unknown]",
		file, facts);
}

const struct symbol_ops daemon_symbol_ops = {
	.disk = &daemon_disknames,
	.open_file = open_file,
	.file_kind = daemon_file_kind,
	.open_debug = daemon_open_debug,
	.open_alt = daemon_open_alternate,
	.on_debug = daemon_on_debug,
	.module_name = module_name,
	.on_facts = on_file_facts,
};

void daemon_frames_add(void *userdata, const struct sample_frame *frame)
{
	struct daemon_frames *l = userdata;

	if (frame->kind != FRAME_KERNEL && frame->kind != FRAME_NATIVE && frame->kind != FRAME_JIT)
		return;
	if (l->n == l->room) {
		size_t room = MAX(l->room * 2, (size_t)256);
		struct symbol_query *q = reallocarray(l->queries, room, sizeof(*q));

		if (!q) {
			l->failed = true;
			return;
		}
		l->queries = q;
		l->room = room;
	}
	l->queries[l->n++] = (struct symbol_query){
		.file = frame->kind == FRAME_KERNEL ? FILE_ID_KERNEL : frame->file,
		.return_address = frame->flags & FRAME_RETURN,
		.offset = frame->offset,
	};
}

/* ---- from frames to locations ---- */

static const char *marker_name(uint64_t marker)
{
	switch (marker) {
	case MARKER_TRUNCATED:
		return "[truncated]";
	case MARKER_NO_USER:
		return "[user stack unreadable]";
	case MARKER_LOST:
		return "[callers not found]";
	case MARKER_KERNEL:
		return "[kernel]";
	default:
		return "[unknown]";
	}
}

static void locate_native(
	struct daemon *d, const struct sample_frame *frame, struct aggregate_location *ret)
{
	const struct symbol_file_facts *facts = symbol_facts(d->symbols, frame->file);
	const struct file *f = process_file(d->processes, frame->file);

	ret->type = PROFILE_FRAME_NATIVE;
	ret->map_file = f && f->path ? f->path : "[unknown]";
	ret->build_id = facts->build_id;
	ret->go_build_id = facts->go_build_id;
	ret->htlhash = facts->htlhash;
	for (size_t i = 0; i < facts->n_segments; i++) {
		const struct symbol_segment *s = &facts->segments[i];

		if (!s->executable || frame->offset < s->offset ||
			frame->offset - s->offset >= s->file_size)
			continue;
		ret->address = frame->offset - s->offset + s->vaddr;
		ret->map_start = s->vaddr;
		ret->map_limit = s->vaddr + s->mem_size;
		ret->map_offset = s->offset;
		return;
	}
	ret->address = frame->offset;
}

void daemon_locate_frame(
	void *userdata, const struct sample_frame *frame, struct aggregate_location *ret)
{
	struct daemon_locate *l = userdata;
	struct daemon *d = l->daemon;
	const struct symbol_chain *chain;
	struct symbol_query query = {
		.file = frame->kind == FRAME_KERNEL ? FILE_ID_KERNEL : frame->file,
		.return_address = frame->flags & FRAME_RETURN,
		.offset = frame->offset,
	};

	*ret = (struct aggregate_location){
		.chain = l->names, .n = 1, .build_id = "", .go_build_id = "", .htlhash = ""};
	if (frame->kind != FRAME_KERNEL && frame->kind != FRAME_NATIVE &&
		frame->kind != FRAME_JIT) {
		l->names[0] = (struct aggregate_name){
			.name = marker_name(frame->offset), .system_name = "", .file = ""};
		ret->map_file = "[marker]";
		ret->type = PROFILE_FRAME_UNKNOWN;
		ret->address = frame->offset;
		return;
	}
	chain = symbol_chain(d->symbols, &query);
	ret->n = MIN((size_t)chain->n, ARRAY_SIZE(l->names));
	for (size_t i = 0; i < ret->n; i++) {
		const struct symbol_function *f = &chain->functions[i];

		l->names[i] = (struct aggregate_name){f->name,
			chain->fallback ? "" : f->system_name, f->file, f->line, f->start_line};
	}
	if (frame->kind == FRAME_KERNEL) {
		bool core = streq(chain->module, "vmlinux");

		ret->type = PROFILE_FRAME_KERNEL;
		ret->map_file = chain->module;
		ret->build_id = kernel_code_build_id(d->kernel_code, core ? NULL : chain->module);
		ret->address = frame->offset;
	} else if (frame->kind == FRAME_JIT) {
		daemon_jit_locate(d, frame, !chain->fallback, l->names, ret);
	} else {
		locate_native(d, frame, ret);
	}
	if (query.return_address && ret->address)
		ret->address--;
}

/* By location: how many samples have it. Says which files' debug files matter most. */
static void weigh_files(struct daemon *d, const struct batch *b, const uint64_t *samples)
{
	for (uint32_t i = 0; i < batch_locations(b); i++) {
		const struct profile_location *l = batch_location_at(b, i);

		if (samples[i] && l->mapping)
			daemon_fetch_weigh(d,
				batch_string_at(b, batch_mapping_at(b, l->mapping)->build_id),
				samples[i]);
	}
}

void daemon_count_names(struct daemon *d, const struct batch *b)
{
	_cleanup_free_ uint64_t *samples = NULL;

	if (daemon_fetch_cares(d))
		samples = calloc(batch_locations(b) + 1, sizeof(*samples));
	for (size_t p = 0; p < batch_parts(b); p++) {
		const struct profile_part *part = batch_part_at(b, p);

		for (uint32_t s = 0; s < part->n_samples; s++) {
			size_t n;
			const uint32_t *stack = batch_stack_at(b, part->samples[s].stack, &n);
			uint64_t value = part->samples[s].value;

			for (size_t i = 0; i < n; i++) {
				const struct profile_location *l = batch_location_at(b, stack[i]);
				const struct profile_function *f =
					batch_function_at(b, batch_lines(b, l)->function);
				/* Fallbacks have no name of the symbol table's. */
				bool named = f->system_name != 0;
				bool user = l->frame_type != PROFILE_FRAME_KERNEL &&
					l->frame_type != PROFILE_FRAME_UNKNOWN;

				if (samples)
					samples[stack[i]] += value;
				d->frames += value;
				d->frames_named += named ? value : 0;
				d->user_frames += user ? value : 0;
				d->user_frames_named += user && named ? value : 0;
			}
		}
	}
	figures_count(d->figures, b);
	if (samples)
		weigh_files(d, b, samples);
	daemon_fetch_next(d);
}
