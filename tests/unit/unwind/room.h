/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by the tests of the unwinder's client: one with files given by descriptor, and what came of
 * its pages. The test program is its own unwinder (main dispatches the role). */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>

#include <sys/mman.h>

#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/sandbox.h"
#include "agentd/unwind/client.h"
#include "agentd/unwind/protocol.h"
#include "agentd/unwind/slot.h"

#define LIBC     "/lib/x86_64-linux-gnu/libc.so.6"
#define FILES    64
#define GOT_MAX  4096
#define PATIENCE (60 * USEC_PER_SEC)

struct got {
	uint32_t file, page, rows;
	uint8_t cfa; /* of its first row */
	size_t size;
};

struct room {
	sd_event *loop;
	struct unwinder *u;
	int fds[FILES]; /* the id is the index; -1: cannot be opened */
	unsigned opened, idles;
	struct got got[GOT_MAX];
	size_t n;
	bool inside; /* of a call of ours */
	/* asked from within on_page, and from within on_idle */
	uint32_t ask_on_page, ask_on_idle;
	union {
		struct rows_slot slot;
		uint8_t bytes[ROWS_SLOT_MAX];
	} last;
};

static inline int open_file(void *userdata, uint32_t file)
{
	struct room *room = userdata;

	room->opened++;
	return file < FILES && room->fds[file] >= 0 ? room->fds[file] : -ENOENT;
}

static inline void on_page(
	void *userdata, uint32_t file, uint32_t page, const struct rows_slot *slot, size_t size)
{
	struct room *room = userdata;

	assert_false(room->inside);
	assert_int_equal(rows_slot_check(slot, size), 0);
	assert_true(room->n < GOT_MAX);
	room->got[room->n++] = (struct got){.file = file,
		.page = page,
		.rows = slot->n_rows,
		.cfa = rows_slot_rule(slot, 0)->cfa,
		.size = size};
	memcpy(room->last.bytes, slot, size);
	if (room->ask_on_page) {
		uint32_t next = room->ask_on_page;

		room->ask_on_page = 0;
		assert_int_equal(unwinder_ask(room->u, file, next), 0);
	}
}

static inline void on_idle(void *userdata)
{
	struct room *room = userdata;

	assert_false(room->inside);
	room->idles++;
	if (room->ask_on_idle) {
		uint32_t next = room->ask_on_idle;

		room->ask_on_idle = 0;
		assert_int_equal(unwinder_ask(room->u, 1, next), 0);
	}
}

static const char *file_name(void *userdata, uint32_t file)
{
	return file == 1 ? "a file" : "";
}

static const struct unwinder_ops ops = {
	.open_file = open_file, .on_page = on_page, .on_idle = on_idle, .file_name = file_name};

static inline void room_init(struct room *room, const struct unwinder_config *config)
{
	struct err_text err;

	memset(room, 0, sizeof(*room));
	for (size_t i = 0; i < FILES; i++)
		room->fds[i] = -1;
	assert_true(sd_event_new(&room->loop) >= 0);
	assert_int_equal(unwinder_new(&room->u, room->loop, config, &ops, room, &err), 0);
}

static inline void room_deinit(struct room *room)
{
	room->u = unwinder_free(room->u);
	for (size_t i = 0; i < FILES; i++)
		closep(&room->fds[i]);
	room->loop = sd_event_unref(room->loop);
}

static inline int ask(struct room *room, uint32_t file, uint32_t page)
{
	int r;

	room->inside = true;
	r = unwinder_ask(room->u, file, page);
	room->inside = false;
	return r;
}

static inline void turn(struct room *room, uint64_t usec)
{
	assert_true(sd_event_run(room->loop, usec) >= 0);
}

/* Until so many pages have come in all. */
static inline void run_until(struct room *room, size_t n)
{
	uint64_t end = clock_monotonic_ns() + PATIENCE * 1000;

	while (room->n < n) {
		assert_true(clock_monotonic_ns() < end);
		turn(room, 100000);
	}
}

static inline void run_for(struct room *room, uint64_t ms)
{
	uint64_t end = clock_monotonic_ns() + ms * NSEC_PER_MSEC;

	while (clock_monotonic_ns() < end)
		turn(room, 1000);
}

/* Until it holds, however busy the machine is. */
#define RUN_UNTIL(room, condition)                                                                 \
	do {                                                                                       \
		uint64_t end_ = clock_monotonic_ns() + PATIENCE * 1000;                            \
		while (!(condition)) {                                                             \
			if (clock_monotonic_ns() > end_)                                           \
				fail_msg("never came: %s", #condition);                            \
			turn(room, 10000);                                                         \
		}                                                                                  \
	} while (0)

static inline const struct got *find(const struct room *room, uint32_t file, uint32_t page)
{
	for (size_t i = room->n; i-- > 0;)
		if (room->got[i].file == file && room->got[i].page == page)
			return &room->got[i];
	fail_msg("page %u of file %u did not come", page, file);
	return NULL;
}

static inline struct unwinder_counters counters(struct room *room)
{
	struct unwinder_counters c;

	unwinder_counters(room->u, &c);
	return c;
}

static inline int memfd_of(const void *data, size_t len)
{
	int fd = memfd_create("file", MFD_CLOEXEC);

	assert_true(fd >= 0 && pwrite(fd, data, len, 0) == (ssize_t)len);
	return fd;
}
