/* SPDX-License-Identifier: Apache-2.0 */

/* JIT-compiled code on its way to names: what the process room has found of it (a perf map or a jitdump) is read
 * by the symbolizer as any file, but it grows, and an address may mean other code by the end of the next
 * interval. So it is looked at (one fstat) whenever names are asked for.
 *
 * Code that nothing names is `[jit]`, all of it: its addresses say nothing to a reader, differ in each process, and
 * would make a name of their own each; they are in the location. Runs in agentd. */

#include "agentd/daemon_jit.h"

#include "agentd/base/clock.h"
#include "agentd/symbol/protocol.h"

#define LOOK_GAP_NS (50 * NSEC_PER_MSEC)

uint16_t daemon_file_kind(void *userdata, uint32_t file)
{
	struct daemon *d = userdata;
	const struct file *f = process_file(d->processes, file);

	if (!f || f->kind != FILE_JIT)
		return SYMBOL_KIND_ELF;
	return f->jit == FILE_JIT_DUMP ? SYMBOL_KIND_JITDUMP : SYMBOL_KIND_PERFMAP;
}

void daemon_jit_refresh(struct daemon *d, const struct daemon_frames *l)
{
	uint64_t now = clock_monotonic_ns();

	for (size_t i = 0; i < l->n; i++) {
		struct file *f = process_file(d->processes, l->queries[i].file);
		bool replaced;

		if (!f || f->kind != FILE_JIT || now - f->jit_looked_ns < LOOK_GAP_NS)
			continue;
		f->jit_looked_ns = now;
		if (process_jit_changed(d->processes, f->id, &replaced))
			symbol_file_changed(d->symbols, f->id, replaced);
	}
}

static enum profile_frame_type frame_type(const struct file *f)
{
	static const enum profile_frame_type types[] = {
		[RUNTIME_NONE] = PROFILE_FRAME_NATIVE,
		[RUNTIME_JVM] = PROFILE_FRAME_JVM,
		[RUNTIME_V8] = PROFILE_FRAME_V8JS,
		[RUNTIME_DOTNET] = PROFILE_FRAME_DOTNET,
		[RUNTIME_PYTHON] = PROFILE_FRAME_CPYTHON,
		[RUNTIME_RUBY] = PROFILE_FRAME_RUBY,
		[RUNTIME_PHP] = PROFILE_FRAME_PHP,
		[RUNTIME_BEAM] = PROFILE_FRAME_BEAM,
		[RUNTIME_LUAJIT] = PROFILE_FRAME_LUAJIT,
	};

	return f && f->runtime < ARRAY_SIZE(types) ? types[f->runtime] : PROFILE_FRAME_NATIVE;
}

void daemon_jit_locate(struct daemon *d, const struct sample_frame *frame, bool named,
	struct aggregate_name *names, struct aggregate_location *ret)
{
	const struct file *f = process_file(d->processes, frame->file);
	const char *path = f && f->path ? f->path : "[jit]", *slash = strrchr(path, '/');

	ret->type = frame_type(f);
	ret->map_file = slash ? slash + 1 : path;
	ret->address = frame->offset;
	if (named)
		return;
	ret->n = 1;
	names[0] = (struct aggregate_name){.name = "[jit]", .system_name = "", .file = ""};
}
