/* SPDX-License-Identifier: Apache-2.0 */

/* The client against an unwinder that dies, hangs, or breaks each rule of the protocol, once: this
 * program under another name. The page that it is asked for says what it does. */

#include "tests/unit/unwind/room.h"
#include <sys/auxv.h>
#include <sys/socket.h>
#include "agentd/base/fdpass.h"

#define GOOD_PAGE 9000 /* and beyond: the liar is honest */

enum lie {
	LIE_EXIT = 1,
	LIE_EXIT_ONCE, /* writes into its file that it did */
	LIE_HANG,
	LIE_CLOSE,
	LIE_GARBAGE,
	LIE_SHORT,
	LIE_TOO_LONG,
	LIE_BAD_SLOT,
	LIE_WRONG_INDEX,
	LIE_WRONG_PART,
	LIE_SMALL_PARTS,
	LIE_TWICE,
	LIE_DONE_TOO_MUCH,
	LIE_DONE_NOTHING,
	LIE_DONE_HALF_A_SLOT,
	LIE_UNKNOWN_FILE,
	LIE_UNKNOWN_FLAG,
	LIE_WRONG_REQUEST,
	LIE_WRONG_VERSION,
	LIE_READY_AGAIN,
	LIE_TEXT,
	LIE_TEXT_WITHOUT_END,
	LIE_DESCRIPTORS,
	LIES
};

static struct rows_header liar_header(uint64_t request, unsigned message, size_t size)
{
	return (struct rows_header){ROWS_PROTOCOL, (uint16_t)message, (uint32_t)size, request};
}

static void liar_send(const void *data, size_t len)
{
	(void)fdpass_send(SANDBOX_FD, data, len, NULL, 0);
}

static union {
	struct rows_slot_message m;
	uint8_t bytes[80000];
} liar_out;

/* A page of one row that says END. */
static size_t liar_slot(uint64_t request, uint32_t index)
{
	static union {
		struct rows_slot slot;
		uint8_t bytes[256];
	} s;
	size_t size = rows_slot_empty(&s.slot, UNWIND_CFA_END), len = sizeof(liar_out.m) + size;

	liar_out.m =
		(struct rows_slot_message){.header = liar_header(request, ROWS_MESSAGE_SLOT, len),
			.index = index,
			.total = (uint32_t)size};
	memcpy(liar_out.m.bytes, s.bytes, size);
	return len;
}

/* Whether it goes on as if nothing had been. */
static bool liar_lie(enum lie lie, uint64_t request, uint32_t index, int fd)
{
	struct rows_slot_message *m = &liar_out.m;
	struct rows_done_message done = {
		.header = liar_header(request, ROWS_MESSAGE_DONE, sizeof(done)), .n_done = index};
	struct rows_ready ready = {
		.header = liar_header(request, ROWS_MESSAGE_READY, sizeof(ready))};
	size_t len = liar_slot(request, index);
	int fds[4] = {1, 1, 2, 2};
	char byte = 0;

	switch (lie) {
	case LIE_EXIT:
		_exit(3);
	case LIE_EXIT_ONCE:
		if (pread(fd, &byte, 1, 0) == 1 && byte == 'x')
			break;
		if (pwrite(fd, "x", 1, 0) != 1)
			break;
		_exit(3);
	case LIE_HANG:
		pause();
		break;
	case LIE_CLOSE:
		close(SANDBOX_FD);
		pause();
		break;
	case LIE_GARBAGE:
		memset(&liar_out, 0xa5, 4096);
		liar_send(&liar_out, 4096);
		break;
	case LIE_SHORT:
		liar_send(&liar_out, 7);
		break;
	case LIE_TOO_LONG:
		(void)!send(SANDBOX_FD, &liar_out, 70000, MSG_NOSIGNAL);
		break;
	case LIE_BAD_SLOT:
		m->bytes[offsetof(struct rows_slot, n_rules)]++;
		liar_send(m, len);
		break;
	case LIE_WRONG_INDEX:
		m->index++;
		liar_send(m, len);
		break;
	case LIE_WRONG_PART:
		m->at = 16;
		m->header.size -= 16;
		liar_send(m, m->header.size);
		break;
	case LIE_SMALL_PARTS:
		m->header.size = sizeof(*m) + 1;
		liar_send(m, m->header.size);
		break;
	case LIE_TWICE:
		liar_send(m, len);
		break; /* and once more as an honest one */
	case LIE_DONE_TOO_MUCH:
		done.n_done++;
		liar_send(&done, sizeof(done));
		break;
	case LIE_DONE_NOTHING:
		done.n_done = 0;
		liar_send(&done, sizeof(done));
		break;
	case LIE_DONE_HALF_A_SLOT:
		m->total = 90000;
		m->header.size = ROWS_MESSAGE_MAX;
		liar_send(m, ROWS_MESSAGE_MAX);
		liar_send(&done, sizeof(done));
		break;
	case LIE_UNKNOWN_FILE:
		done.flags = ROWS_DONE_UNKNOWN_FILE;
		liar_send(&done, sizeof(done));
		return false;
	case LIE_UNKNOWN_FLAG:
		done.flags = 2;
		liar_send(&done, sizeof(done));
		break;
	case LIE_WRONG_REQUEST:
		m->header.request++;
		liar_send(m, len);
		break;
	case LIE_WRONG_VERSION:
		m->header.version++;
		liar_send(m, len);
		break;
	case LIE_READY_AGAIN:
		liar_send(&ready, sizeof(ready));
		break;
	case LIE_TEXT:
	case LIE_TEXT_WITHOUT_END:
		liar_send(m, len);
		done.n_done++;
		memset(done.problem, lie == LIE_TEXT ? 0 : 'x', sizeof(done.problem));
		if (lie == LIE_TEXT)
			snprintf(done.problem, sizeof(done.problem), "a\033[31mb");
		liar_send(&done, sizeof(done));
		pause();
		break;
	case LIE_DESCRIPTORS:
		(void)fdpass_send(SANDBOX_FD, m, len, fds, 4);
		break;
	default:
		break;
	}
	return true;
}

static _Noreturn void liar_main(void)
{
	struct rows_ready ready = {.header = liar_header(0, ROWS_MESSAGE_READY, sizeof(ready))};
	static struct rows_request q;
	int held[FILES];

	memset(held, -1, sizeof(held));
	liar_send(&ready, sizeof(ready));
	for (;;) {
		size_t n = 1, len;
		int fd = -1;
		struct rows_done_message done;
		uint32_t i;

		if (fdpass_recv(SANDBOX_FD, &q, sizeof(q), &fd, &n) <= 0)
			_exit(0);
		if (q.file >= FILES)
			_exit(4);
		if (n) {
			closep(&held[q.file]);
			held[q.file] = fd;
		}
		for (i = 0; i < q.n; i++) {
			if (q.pages[i] < LIES &&
				!liar_lie((enum lie)q.pages[i], q.header.request, i, held[q.file]))
				break;
			len = liar_slot(q.header.request, i);
			liar_send(&liar_out, len);
		}
		if (i < q.n)
			continue;
		done = (struct rows_done_message){
			.header = liar_header(q.header.request, ROWS_MESSAGE_DONE, sizeof(done)),
			.n_done = q.n};
		liar_send(&done, sizeof(done));
	}
}

static char liar_path[128];

static void liar_room(struct room *room, unsigned back_off_ms)
{
	sandbox_set_program(liar_path);
	room_init(room, &(struct unwinder_config){.deadline_ms = 3000, .back_off_ms = back_off_ms});
	for (uint32_t f = 1; f < 10; f++)
		room->fds[f] = memfd_of("-", 1);
	run_for(room, 20);
}

static void test_lies_cost_their_page(void **state)
{
	for (int lie = 1; lie < LIES; lie++) {
		static struct room room;
		struct unwinder_counters c;

		liar_room(&room, 60000);
		/* One page before it, others behind it, and another file. */
		assert_int_equal(ask(&room, 1, GOOD_PAGE), 0);
		run_until(&room, 1);
		assert_int_equal(ask(&room, 1, (uint32_t)lie), 0);
		assert_int_equal(ask(&room, 2, GOOD_PAGE), 0);
		run_until(&room, 3);
		/* The lie may come behind the page. */
		RUN_UNTIL(&room, (c = counters(&room), c.lies + c.crashes + c.timeouts > 0));
		run_for(&room, 30);
		assert_int_equal(find(&room, 2, GOOD_PAGE)->cfa, UNWIND_CFA_END);
		c = counters(&room);
		switch (lie) {
		case LIE_EXIT_ONCE:
			assert_int_equal(find(&room, 1, LIE_EXIT_ONCE)->cfa, UNWIND_CFA_END);
			assert_int_equal(c.crashes, 1);
			break;
		case LIE_EXIT:
			assert_int_equal(find(&room, 1, LIE_EXIT)->cfa, UNWIND_CFA_UNSUPPORTED);
			assert_int_equal(c.crashes, 2);
			break;
		case LIE_HANG:
		case LIE_CLOSE:
			assert_int_equal(
				find(&room, 1, (uint32_t)lie)->cfa, UNWIND_CFA_UNSUPPORTED);
			assert_int_equal(c.timeouts, 1);
			break;
		case LIE_TWICE:
		case LIE_TEXT:
		case LIE_TEXT_WITHOUT_END:
			/* Its page came whole. */
			assert_int_equal(find(&room, 1, (uint32_t)lie)->cfa, UNWIND_CFA_END);
			assert_int_equal(c.lies, 1);
			break;
		default:
			if (c.lies != 1)
				fail_msg("lie %d was not seen", lie);
			assert_int_equal(
				find(&room, 1, (uint32_t)lie)->cfa, UNWIND_CFA_UNSUPPORTED);
		}
		assert_int_equal(c.pending, 0);
		assert_int_equal(room.n, 3);
		room_deinit(&room);
	}
}

static void test_the_guilty_page_is_tried_last(void **state)
{
	static struct room room;

	liar_room(&room, 2000);
	/* Before and behind it. */
	assert_int_equal(ask(&room, 1, GOOD_PAGE), 0);
	assert_int_equal(ask(&room, 1, LIE_HANG), 0);
	for (uint32_t i = 1; i < 6; i++)
		assert_int_equal(ask(&room, 1, GOOD_PAGE + i), 0);
	run_until(&room, 7);
	for (uint32_t i = 1; i < 6; i++)
		assert_int_equal(find(&room, 1, GOOD_PAGE + i)->cfa, UNWIND_CFA_UNSUPPORTED);
	/* In back-off. */
	assert_int_equal(ask(&room, 1, GOOD_PAGE + 6), 0);
	run_until(&room, 8);
	assert_int_equal(find(&room, 1, GOOD_PAGE + 6)->cfa, UNWIND_CFA_UNSUPPORTED);
	run_until(&room, 15);
	assert_int_equal(find(&room, 1, LIE_HANG)->cfa, UNWIND_CFA_UNSUPPORTED);
	for (uint32_t i = 1; i <= 6; i++)
		assert_int_equal(find(&room, 1, GOOD_PAGE + i)->cfa, UNWIND_CFA_END);
	assert_int_equal(counters(&room).timeouts, 2);
	room_deinit(&room);
}

static void test_back_off_grows(void **state)
{
	static struct room room;
	uint64_t start;

	liar_room(&room, 100);
	start = clock_monotonic_ns();
	assert_int_equal(ask(&room, 1, LIE_GARBAGE), 0);
	/* 100, 200, 400 ms between the four tries at least. */
	run_until(&room, 4);
	assert_true(clock_monotonic_ns() - start >= 700 * NSEC_PER_MSEC);
	assert_int_equal(counters(&room).lies, 4);
	room_deinit(&room);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lies_cost_their_page),
		cmocka_unit_test(test_the_guilty_page_is_tried_last),
		cmocka_unit_test(test_back_off_grows),
	};
	char self[256];
	ssize_t len;
	int r;

	if (argc >= 3 && streq(argv[1], "--role")) {
		const char *name = (const char *)getauxval(AT_EXECFN);

		if (name && strstr(name, "odi-liar"))
			liar_main();
		return 2;
	}
	log_init("liar_test", getenv("LOUD") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
	len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (len < 0)
		return 1;
	self[len] = '\0';
	snprintf(liar_path, sizeof(liar_path), "/tmp/odi-liar-%d", getpid());
	(void)unlink(liar_path); /* of one that was killed, once */
	if (symlink(self, liar_path) < 0)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(liar_path);
	return r;
}
