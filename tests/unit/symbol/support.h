/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by the tests of this room: the test program is its own symbolizer (main dispatches the role), so
 * that what is tested goes through the real sandbox; and a client with files given by descriptor. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/sandbox.h"
#include "agentd/symbol/debugfile.h"
#include "agentd/symbol/symbol.h"

#define ROOM_FILES 128

struct room {
	sd_event *loop;
	struct symbolizer *s;
	struct {
		int fd;
		char name[64];
		char path[192]; /* as seen from debug_root */
	} files[ROOM_FILES];    /* the id is the index */
	int debug_root;         /* debug files are looked for under it; 0: nowhere */
	unsigned debug_asked;
	unsigned facts_calls;
};

struct answer {
	bool done;
	size_t late;
};

static inline int room_open_file(void *userdata, uint32_t file)
{
	struct room *room = userdata;

	if (file < ROOM_FILES && room->files[file].fd < 0)
		return room->files[file].fd;
	return file < ROOM_FILES && room->files[file].fd > 0 ? room->files[file].fd : -ENOENT;
}

static inline int room_open_debug(
	void *userdata, uint32_t file, const char *build_id, const char *debuglink, unsigned *n)
{
	struct room *room = userdata;
	struct debugfile_query q = {.root = room->debug_root,
		.proc = -1,
		.path = room->files[file].path,
		.owner = geteuid(),
		.build_id = build_id,
		.debuglink = debuglink};

	if (!room->debug_root)
		return -ENOENT;
	room->debug_asked++;
	return debugfile_open(&q, n);
}

static inline int room_open_alt(
	void *userdata, uint32_t file, const char *build_id, const char *path, unsigned *n)
{
	struct room *room = userdata;
	struct debugfile_query q = {.root = room->debug_root,
		.proc = -1,
		.path = room->files[file].path,
		.owner = geteuid(),
		.build_id = build_id,
		.debuglink = "",
		.alternate = path};

	return room->debug_root ? debugfile_open(&q, n) : -ENOENT;
}

static inline const char *room_module_name(void *userdata, uint32_t file)
{
	struct room *room = userdata;

	return file < ROOM_FILES && room->files[file].name[0] ? room->files[file].name : "[anon]";
}

static inline void room_on_facts(
	void *userdata, uint32_t file, const struct symbol_file_facts *facts)
{
	((struct room *)userdata)->facts_calls++;
}

static const struct symbol_ops room_ops = {
	.open_file = room_open_file,
	.open_debug = room_open_debug,
	.open_alt = room_open_alt,
	.module_name = room_module_name,
	.on_facts = room_on_facts,
};

static inline void room_init(struct room *room, const struct symbol_config *config)
{
	struct symbol_config patient = *config;
	struct err_text err;

	/* No symbolizer is to be taken for one that hangs, however long it waits for a CPU. */
	if (!patient.file_deadline_ms)
		patient.file_deadline_ms = 60000;
	memset(room, 0, sizeof(*room));
	assert_true(sd_event_new(&room->loop) >= 0);
	assert_int_equal(symbol_new(&room->s, room->loop, &patient, &room_ops, room, &err), 0);
}

static inline void room_deinit(struct room *room)
{
	room->s = symbol_free(room->s);
	for (size_t i = 0; i < ROOM_FILES; i++)
		if (room->files[i].fd > 0)
			close(room->files[i].fd);
	if (room->debug_root > 0)
		close(room->debug_root);
	room->loop = sd_event_unref(room->loop);
}

/* Takes fd. */
static inline void room_set(struct room *room, uint32_t file, int fd, const char *name)
{
	assert_true(fd > 0);
	if (room->files[file].fd > 0)
		close(room->files[file].fd);
	room->files[file].fd = fd;
	snprintf(room->files[file].name, sizeof(room->files[file].name), "%s", name);
}

static inline void room_set_path(struct room *room, uint32_t file, const char *path)
{
	const char *slash = strrchr(path, '/');

	room_set(room, file, open(path, O_RDONLY | O_CLOEXEC), slash ? slash + 1 : path);
}

static inline void on_answer(void *userdata, size_t late)
{
	struct answer *a = userdata;

	assert_false(a->done);
	a->done = true;
	a->late = late;
}

static inline void room_run(struct room *room, struct answer *a)
{
	while (!a->done)
		assert_true(sd_event_run(room->loop, 1000000) >= 0);
}

/* Asks and waits; how many were late. */
static inline size_t room_resolve(struct room *room, const struct symbol_query *q, size_t n)
{
	struct answer a = {0};

	assert_int_equal(symbol_resolve(room->s, q, n, clock_monotonic_ns() + 300 * NSEC_PER_SEC,
				 on_answer, &a),
		0);
	room_run(room, &a);
	return a.late;
}

static inline const char *room_name(struct room *room, uint32_t file, uint64_t offset)
{
	struct symbol_query q = {.file = file, .offset = offset};

	assert_int_equal(room_resolve(room, &q, 1), 0);
	return symbol_chain(room->s, &q)->functions[0].name;
}

static inline struct symbol_counters room_counters(struct room *room)
{
	struct symbol_counters c;

	symbol_counters(room->s, &c);
	return c;
}

static inline int memfd_of(const void *data, size_t len)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd > 0);
	assert_int_equal(io_write_all(fd, data, len), 0);
	return fd;
}

/* A folder of this test alone, gone at its end. */
static char work_dir[64];

static inline void work_dir_remove(void)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", work_dir);
	if (system(command) != 0)
		fprintf(stderr, "cannot remove %s\n", work_dir);
}

static inline const char *work_path(const char *name)
{
	static char paths[4][sizeof(work_dir) + 256];
	static unsigned next;
	char *path = paths[next++ % 4];

	if (!*work_dir) {
		snprintf(work_dir, sizeof(work_dir), "/tmp/odi-symbol-XXXXXX");
		assert_non_null(mkdtemp(work_dir));
		atexit(work_dir_remove);
	}
	snprintf(path, sizeof(paths[0]), "%s/%s", work_dir, name);
	return path;
}

static inline void write_file(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");

	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	fclose(f);
}

PRINTF(1, 2) static inline int shell(const char *format, ...)
{
	char command[2048];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return system(command);
}

/* As main() of every role does. Returns only in the test itself. */
static inline void dispatch_role(int argc, char **argv)
{
	if (argc >= 3 && streq(argv[1], "--role")) {
		sandbox_close_from(SANDBOX_FD + 1);
		exit(streq(argv[2], "symbolizer") && symbol_role_main() == 0 ? 0 : 1);
	}
	sandbox_set_program("/proc/self/exe");
	log_init("test", LOG_LEVEL_ERROR);
	signal(SIGPIPE, SIG_IGN);
}
