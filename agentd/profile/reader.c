/* SPDX-License-Identifier: Apache-2.0 */

/* The reader role: one query, or one roll-up, then it ends. It decodes what came from the names
 * in profiled programs, so it runs with nothing: no capability, no path, no network, a list of
 * system calls, bounded memory and CPU time; what it may read and write are the descriptors that
 * it was handed.
 *
 * A block is read, decompressed, decoded, used and forgotten before the next one: memory does
 * not grow with the time that is asked for, only with the tree. A block that is damaged costs
 * itself and is counted.
 *
 * A profile for other tools (pprof) does hold all that was asked for at once, with equal samples as
 * one, since its tables come behind its samples; past JOIN_MEMORY it is refused.
 *
 * A roll-up joins the blocks of one segment over shared dictionaries: parts of one slot of time
 * (a minute, ten minutes) and one key become one. A part belongs to the slot that the middle of
 * its time lies in, and takes the slot's time. Values are conserved exactly; agentd compares the
 * sums of the headers. */

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "agentd/base/compress.h"
#include "agentd/base/io.h"
#include "agentd/base/sandbox.h"
#include "agentd/profile/batch_private.h"
#include "agentd/profile/pprof.h"
#include "agentd/profile/reader_wire.h"
#include "agentd/profile/tree.h"

/* A new block is begun past this: bounds the memory of whoever reads it. */
#define ROLL_MEMORY (8U << 20)
/* Of what is asked for as a pprof profile, unpacked. */
#define JOIN_MEMORY (192U << 20)

struct reader {
	struct tree *tree;
	struct reader_query query;
	struct batch *joined; /* for query.pprof */
	struct buf raw;
	uint64_t damaged;
	uint8_t *message; /* FDPASS_MAX_MESSAGE */
};

static int send_message(struct reader *rd, uint32_t kind, uint32_t count, size_t payload)
{
	struct reader_head head = {kind, count};

	memcpy(rd->message, &head, sizeof(head));
	return fdpass_send(SANDBOX_FD, rd->message, sizeof(head) + payload, NULL, 0);
}

static void *payload_of(struct reader *rd)
{
	return rd->message + sizeof(struct reader_head);
}

static int fail(struct reader *rd, int code, const char *what)
{
	int n = snprintf(payload_of(rd), READER_PAYLOAD, "%s: %s", what, strerror(-code));

	(void)send_message(rd, READER_FAILED, 0, (size_t)n);
	return code;
}

/* ---- queries ---- */

/* Whether an error is of this block alone. */
static bool is_damage(int r)
{
	return r == -EBADMSG || r == -EFBIG || r == -ENODATA || r == -EIO;
}

/* Times are the whole query's, so that equal stacks of different intervals are one. */
static int join(struct reader *rd, const struct batch *b)
{
	CLEANUP(merge_deinit) struct merge m = {0};
	int r = rd->joined ? 0 : batch_new(&rd->joined);

	if (r >= 0)
		r = merge_init(&m, rd->joined, b);
	for (size_t i = 0; i < batch_parts(b) && r >= 0; i++) {
		if (tree_wants(&rd->query.query, b, batch_part_at(b, i)))
			r = merge_part(&m, i, 1, 1);
	}
	if (r >= 0 && batch_memory(rd->joined) > JOIN_MEMORY)
		r = -E2BIG;
	return r;
}

static int add_bytes(struct reader *rd, const void *data, size_t len)
{
	CLEANUP(batch_freep) struct batch *b = NULL;
	int r = profile_decode(data, len, &b, NULL);

	if (r >= 0)
		r = tree_add(rd->tree, b);
	return r < 0 || !rd->query.query.pprof ? r : join(rd, b);
}

static int add_file(struct reader *rd, int fd, uint64_t bytes)
{
	struct segment_scan scan = {.end = bytes};
	struct segment_block block;
	int r;

	while ((r = segment_next(fd, &scan, &block)) > 0) {
		if (block.header.from_unix_ns >= rd->query.query.to_unix_ns ||
			block.header.to_unix_ns < rd->query.query.from_unix_ns)
			continue;
		r = segment_read(fd, &block, &rd->raw);
		if (r >= 0)
			r = add_bytes(rd, rd->raw.data, rd->raw.len);
		if (is_damage(r))
			rd->damaged++;
		else if (r < 0)
			return r;
	}
	rd->damaged += scan.damaged;
	/* A file that cannot be read further costs the rest of itself. */
	if (is_damage(r)) {
		rd->damaged++;
		return 0;
	}
	return r;
}

static int add_open(struct reader *rd, int fd, uint64_t len)
{
	void *data;
	int r;

	if (len > PROFILE_MAX_ENCODED)
		return -EFBIG;
	data = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, 0); /* sealed: cannot be cut short */
	if (data == MAP_FAILED)
		return -errno;
	r = add_bytes(rd, data, len);
	munmap(data, len);
	if (is_damage(r)) {
		rd->damaged++;
		return 0;
	}
	return r;
}

static int send_array(struct reader *rd, uint32_t kind, const void *array, size_t n, size_t element)
{
	size_t at_once = READER_PAYLOAD / element;
	int r = 0;

	for (size_t i = 0; i < n && r >= 0; i += at_once) {
		size_t now = MIN(at_once, n - i);

		memcpy(payload_of(rd), (const char *)array + i * element, now * element);
		r = send_message(rd, kind, (uint32_t)now, now * element);
	}
	return r;
}

static int send_strings(struct reader *rd, const struct query_result *q)
{
	uint8_t *out = payload_of(rd);
	size_t used = 0;
	uint32_t count = 0;
	int r = 0;

	for (size_t i = 0; i < q->n_strings && r >= 0; i++) {
		uint32_t len = (uint32_t)strlen(q->strings[i]); /* at most PROFILE_MAX_STRING */

		if (used + sizeof(len) + len > READER_PAYLOAD) {
			r = send_message(rd, READER_STRINGS, count, used);
			used = count = 0;
		}
		memcpy(out + used, &len, sizeof(len));
		memcpy(out + used + sizeof(len), q->strings[i], len);
		used += sizeof(len) + len;
		count++;
	}
	return r < 0 || !count ? r : send_message(rd, READER_STRINGS, count, used);
}

static int make_pprof(struct reader *rd, const struct query_result *q, struct buf *out)
{
	const struct pprof_options options = {
		PPROF_RESOURCE_LABELS, q->from_unix_ns, q->to_unix_ns - q->from_unix_ns};
	int r = rd->joined ? 0 : batch_new(&rd->joined);

	buf_reset(&rd->raw);
	if (r >= 0)
		r = profile_pprof(rd->joined, NULL, 0, &options, &rd->raw);
	rd->joined = batch_free(rd->joined);
	return r < 0 ? r : compress_gzip(rd->raw.data, rd->raw.len, 6, out);
}

static int answer(struct reader *rd)
{
	_cleanup_buf_ struct buf pprof;
	struct query_result q;
	struct reader_answer a;
	int r = tree_finish(rd->tree, &q);

	buf_init(&pprof, PROFILE_MAX_ENCODED);
	if (r < 0)
		return fail(rd, r, "cannot make the call tree");
	if (rd->query.query.pprof)
		r = make_pprof(rd, &q, &pprof);
	if (r < 0)
		return fail(rd, r, "cannot make the profile");
	a = (struct reader_answer){.n_strings = q.n_strings,
		.n_functions = q.n_functions,
		.n_nodes = q.n_nodes,
		.n_rows = q.n_rows,
		.from = q.from_unix_ns,
		.to = q.to_unix_ns,
		.total_ns = q.total_ns,
		.total_samples = q.total_samples,
		.cut_nodes = q.cut_nodes,
		.damaged = rd->damaged,
		.period_ns = q.period_ns,
		.pprof_len = pprof.len};
	for (size_t i = 0; i < q.n_strings; i++)
		a.string_bytes += strlen(q.strings[i]) + 1;
	memcpy(payload_of(rd), &a, sizeof(a));
	r = send_message(rd, READER_BEGIN, 1, sizeof(a));
	if (r >= 0)
		r = send_strings(rd, &q);
	if (r >= 0)
		r = send_array(
			rd, READER_FUNCTIONS, q.functions, q.n_functions, sizeof(*q.functions));
	if (r >= 0)
		r = send_array(rd, READER_NODES, q.nodes, q.n_nodes, sizeof(*q.nodes));
	if (r >= 0)
		r = send_array(rd, READER_ROWS, q.rows, q.n_rows, sizeof(*q.rows));
	if (r >= 0)
		r = send_array(rd, READER_PPROF, pprof.data, pprof.len, 1);
	return r < 0 ? r : send_message(rd, READER_DONE, 0, 0);
}

static int take_query(struct reader *rd, size_t len, const int *fds, size_t n_fds)
{
	int r;

	if (len != sizeof(rd->query) || rd->tree)
		return -EPROTO;
	memcpy(&rd->query, payload_of(rd), sizeof(rd->query));
	if (n_fds != (rd->query.open_len ? 1U : 0U))
		return -EPROTO;
	r = tree_new(&rd->tree, &rd->query.query);
	return r < 0 || !n_fds ? r : add_open(rd, fds[0], rd->query.open_len);
}

static int take_files(struct reader *rd, uint32_t count, size_t len, const int *fds, size_t n_fds)
{
	uint64_t bytes[FDPASS_MAX_FDS];
	int r = 0;

	if (!rd->tree || count != n_fds || len != count * sizeof(*bytes))
		return -EPROTO;
	memcpy(bytes, payload_of(rd), len);
	for (uint32_t i = 0; i < count && r >= 0; i++)
		r = add_file(rd, fds[i], bytes[i]);
	return r;
}

/* ---- roll-ups ---- */

struct roll {
	struct reader_roll order;
	struct batch *joined;
	struct batch_header header; /* of the block that is being joined */
	struct reader_rolled done;
	struct buf out;
	int fd;
};

static void roll_deinit(struct roll *x)
{
	batch_free(x->joined);
	buf_deinit(&x->out);
}

static int roll_flush(struct roll *x)
{
	_cleanup_buf_ struct buf raw;
	uint64_t totals[PROFILE_TYPES];
	int r;

	buf_init(&raw, 0);
	if (!x->joined || !batch_parts(x->joined))
		return 0;
	batch_totals(x->joined, totals);
	for (size_t i = 0; i < PROFILE_TYPES; i++) {
		x->header.samples[i] = totals[i];
		x->done.samples[i] += totals[i];
	}
	r = profile_encode(x->joined, &x->header, NULL, 0, &raw);
	x->joined = batch_free(x->joined);
	buf_reset(&x->out);
	if (r >= 0)
		r = segment_put(&x->out, &x->header, x->order.level, raw.data, raw.len);
	if (r >= 0)
		r = io_write_all(x->fd, x->out.data, x->out.len);
	return r;
}

static int roll_batch(struct roll *x, const struct segment_block *block, const struct batch *b)
{
	CLEANUP(merge_deinit) struct merge m = {0};
	int r = x->joined ? 0 : batch_new(&x->joined);

	if (r < 0)
		return r;
	if (!batch_parts(x->joined)) {
		x->header = block->header;
	} else {
		x->header.from_unix_ns = MIN(x->header.from_unix_ns, block->header.from_unix_ns);
		x->header.to_unix_ns = MAX(x->header.to_unix_ns, block->header.to_unix_ns);
	}
	r = merge_init(&m, x->joined, b);
	for (size_t i = 0; i < batch_parts(b) && r >= 0; i++) {
		const struct profile_part *p = batch_part_at(b, i);
		uint64_t middle = p->time_unix_ns + p->duration_ns / 2;

		r = merge_part(&m, i, middle - middle % x->order.slot_ns, x->order.slot_ns);
	}
	if (r >= 0 && batch_memory(x->joined) > ROLL_MEMORY)
		r = roll_flush(x);
	return r;
}

static int roll_block(struct reader *rd, struct roll *x, int fd, const struct segment_block *block)
{
	CLEANUP(batch_freep) struct batch *b = NULL;
	int r = segment_read(fd, block, &rd->raw);

	if (r >= 0)
		r = profile_decode(rd->raw.data, rd->raw.len, &b, NULL);
	if (is_damage(r)) {
		x->done.damaged++;
		return 0;
	}
	if (r < 0)
		return r;
	x->done.blocks++;
	return roll_batch(x, block, b);
}

static int take_roll(struct reader *rd, size_t len, const int *fds, size_t n_fds)
{
	CLEANUP(roll_deinit) struct roll x = {.fd = -1};
	struct segment_scan scan = {0};
	struct segment_block block;
	int r;

	buf_init(&x.out, 0);
	if (len != sizeof(x.order) || n_fds != 2)
		return -EPROTO;
	memcpy(&x.order, payload_of(rd), sizeof(x.order));
	if (!x.order.slot_ns || x.order.level >= SEGMENT_LEVELS)
		return -EPROTO;
	x.fd = fds[1];
	scan.end = x.order.bytes;
	while ((r = segment_next(fds[0], &scan, &block)) > 0) {
		r = roll_block(rd, &x, fds[0], &block);
		if (r < 0)
			break;
	}
	if (r >= 0)
		r = roll_flush(&x);
	if (r < 0)
		return fail(rd, r, "cannot roll a segment up");
	x.done.damaged += scan.damaged;
	memcpy(payload_of(rd), &x.done, sizeof(x.done));
	return send_message(rd, READER_ROLLED, 1, sizeof(x.done));
}

/* ---- the role ---- */

/* 1: done. */
static int take_message(struct reader *rd, size_t len, const int *fds, size_t n_fds)
{
	struct reader_head head;
	int r;

	if (len < sizeof(head))
		return -EPROTO;
	memcpy(&head, rd->message, sizeof(head));
	len -= sizeof(head);
	switch (head.kind) {
	case READER_QUERY:
		r = take_query(rd, len, fds, n_fds);
		break;
	case READER_FILES:
		r = take_files(rd, head.count, len, fds, n_fds);
		break;
	case READER_GO:
		r = rd->tree ? answer(rd) : -EPROTO;
		return r < 0 ? r : 1;
	case READER_ROLL:
		r = take_roll(rd, len, fds, n_fds);
		return r < 0 ? r : 1;
	default:
		return -EPROTO;
	}
	if (r == -E2BIG)
		return fail(
			rd, r, "too much for one profile: ask for a shorter time or one service");
	return r < 0 ? fail(rd, r, "cannot read the local profiles") : 0;
}

static int run(struct reader *rd)
{
	int fds[FDPASS_MAX_FDS], r;
	size_t n_fds;
	ssize_t n;

	do {
		n_fds = ARRAY_SIZE(fds);
		n = fdpass_recv(SANDBOX_FD, rd->message, FDPASS_MAX_MESSAGE, fds, &n_fds);
		if (n <= 0)
			return n < 0 ? (int)n : -EPIPE;
		r = take_message(rd, (size_t)n, fds, n_fds);
		for (size_t i = 0; i < n_fds; i++)
			close(fds[i]);
	} while (r == 0);
	return MIN(r, 0);
}

int local_reader_main(void)
{
	static const int calls[] = {SYS_read, SYS_pread64, SYS_write, SYS_lseek, SYS_recvmsg,
		SYS_sendmsg, SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_brk, SYS_madvise,
		SYS_futex, SYS_close, SYS_fstat, SYS_newfstatat, SYS_getrandom, SYS_sysinfo,
		SYS_sched_getaffinity, -1};
	const struct sandbox_policy policy = {
		.name = "odi-reader",
		.syscalls = calls,
		.deny_paths = true,
		.deny_network = true,
		.uid = (uid_t)-1,
		.gid = (gid_t)-1,
		.nofile = 2 * FDPASS_MAX_FDS,
		.nproc = 0,
		.fsize = 1ULL << 30,
		.data = 1ULL << 30,
		.as = 2ULL << 30,
		.cpu_s = 120,
	};
	struct reader rd = {0};
	struct err_text err = {""};
	int r;

	sandbox_close_from(SANDBOX_FD + 1);
	/* Nobody waits for a roll-up, and a query must not be felt by what is profiled. */
	(void)setpriority(PRIO_PROCESS, 0, 10);
	r = sandbox_enter(&policy, &err);
	if (r < 0) {
		fprintf(stderr, "<3>%s\n", err.text);
		return EXIT_FAILURE;
	}
	buf_init(&rd.raw, 0);
	rd.message = malloc(FDPASS_MAX_MESSAGE);
	r = rd.message ? run(&rd) : -ENOMEM;
	tree_free(rd.tree);
	batch_free(rd.joined);
	buf_deinit(&rd.raw);
	free(rd.message);
	return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
