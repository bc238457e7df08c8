/* SPDX-License-Identifier: Apache-2.0 */

/* Names of JIT-compiled code from a perf map: lines "START SIZE NAME", numbers in hex, with or without 0x.
 *
 * The runtime appends a line for each piece of code that it makes; of two that overlap the later one holds. The
 * file is read once, and later only what is new; names stay in it and are read one by one. One that was written
 * anew (jcmd Compiler.perfmap does) is seen by its size, or by its bytes before the place where we stopped,
 * and is read afresh. A last line without its end is still being written and waits for it.
 *
 * Bounds: the last PERFMAP_READ_MAX bytes of a longer one, JIT_RANGES_MAX pieces; a line of any length costs its
 * bytes and no memory. Source: perf's documentation, tools/perf/Documentation/jit-interface.txt. Runs in the
 * symbolizer. */

#include <sys/stat.h>

#include "agentd/base/io.h"
#include "agentd/symbol/jitname.h"
#include "agentd/symbol/jitranges.h"

#define PERFMAP_READ_MAX (256ULL << 20)
#define CHUNK            (256 << 10)
#define SIGNATURE        64

struct perfmap {
	int fd;
	struct jit_ranges ranges;
	uint64_t read_up_to; /* whole lines, or within one that is skipped */
	uint64_t n_lines, n_bad;
	int64_t mtime_ns;
	bool skipping; /* to the end of a line that was too long, or began before us */
	bool began_late;
	uint8_t head[SIGNATURE], tail[SIGNATURE]; /* the first bytes; those before read_up_to */
};

/* ---- lines --------------------------------------------------------------------------------------------------- */

/* A number in hex and the blank behind it. */
static bool take_hex(const char **at, const char *end, uint64_t *ret)
{
	const char *p = *at;
	uint64_t v = 0;
	unsigned digits = 0;

	if (end - p > 2 && p[0] == '0' && (p[1] == 'x' || p[1] == 'X'))
		p += 2;
	for (; p < end && digits < 17; p++, digits++) {
		unsigned c = (unsigned char)*p;

		if (c - '0' <= 9)
			v = v << 4 | (c - '0');
		else if ((c | 32) - 'a' <= 5)
			v = v << 4 | ((c | 32) - 'a' + 10);
		else
			break;
	}
	if (!digits || digits > 16 || p == end || (*p != ' ' && *p != '\t'))
		return false;
	*at = p + 1;
	*ret = v;
	return true;
}

/* [line, end) without the newline, at that offset of the file. */
static int take_line(struct perfmap *p, const char *line, const char *end, uint64_t offset)
{
	const char *at = line;
	uint64_t start, len;

	if (!take_hex(&at, end, &start) || !take_hex(&at, end, &len) || at == end) {
		p->n_bad += at != end || at != line;
		return 0;
	}
	p->n_lines++;
	return jit_ranges_add(&p->ranges, start, len, offset + (uint64_t)(at - line), 0);
}

/* Lines of a chunk; *used: bytes that need not be read again. */
static int take_chunk(
	struct perfmap *p, const char *chunk, size_t len, uint64_t offset, size_t *used)
{
	const char *at = chunk, *end = chunk + len;

	while (at < end) {
		const char *newline = memchr(at, '\n', (size_t)(end - at));
		int r = 0;

		if (!newline)
			break;
		if (!p->skipping)
			r = take_line(p, at, newline, offset + (uint64_t)(at - chunk));
		if (r < 0)
			return r;
		p->skipping = false;
		at = newline + 1;
	}
	if (at == chunk && len == CHUNK)
		p->skipping = true;
	*used = p->skipping ? len : (size_t)(at - chunk);
	return 0;
}

/* ---- the file ------------------------------------------------------------------------------------------------- */

static size_t signature_len(uint64_t at)
{
	return (size_t)MIN(at, (uint64_t)SIGNATURE);
}

static void sign(struct perfmap *p)
{
	size_t n = signature_len(p->read_up_to);

	if (io_pread_all(p->fd, p->head, n, 0) < 0)
		memset(p->head, 0, n);
	if (io_pread_all(p->fd, p->tail, n, p->read_up_to - n) < 0)
		memset(p->tail, 0, n);
}

/* Whether what was read is still what lies before. */
static bool is_signed(const struct perfmap *p)
{
	size_t n = signature_len(p->read_up_to);
	uint8_t bytes[SIGNATURE];

	return io_pread_all(p->fd, bytes, n, 0) == 0 && memcmp(bytes, p->head, n) == 0 &&
		io_pread_all(p->fd, bytes, n, p->read_up_to - n) == 0 &&
		memcmp(bytes, p->tail, n) == 0;
}

static void forget(struct perfmap *p)
{
	jit_ranges_deinit(&p->ranges);
	p->read_up_to = p->n_lines = p->n_bad = 0;
	p->skipping = p->began_late = false;
}

static int read_new(struct perfmap *p, uint64_t size)
{
	_cleanup_free_ char *chunk = malloc(CHUNK);

	if (!chunk)
		return -ENOMEM;
	if (size > p->read_up_to && size - p->read_up_to > PERFMAP_READ_MAX) {
		p->read_up_to = size - PERFMAP_READ_MAX;
		p->skipping = p->began_late = true;
	}
	for (uint64_t end = size; p->read_up_to < end;) {
		ssize_t n = pread(p->fd, chunk, (size_t)MIN((uint64_t)CHUNK, end - p->read_up_to),
			(off_t)p->read_up_to);
		size_t used = 0;
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		r = take_chunk(p, chunk, (size_t)n, p->read_up_to, &used);
		if (r < 0)
			return r;
		p->read_up_to += used;
		if (!used || (size_t)n < CHUNK)
			break;
	}
	return 0;
}

static void say(const struct perfmap *p, struct symbol_facts_message *facts)
{
	snprintf(facts->named_by, sizeof(facts->named_by), "perf map");
	facts->functions = p->n_lines;
	facts->problem[0] = '\0';
	if (p->began_late || p->ranges.dropped)
		snprintf(facts->problem, sizeof(facts->problem),
			"the perf map is too long: its oldest code has no names");
	else if (p->n_bad)
		snprintf(facts->problem, sizeof(facts->problem),
			"%llu lines of the perf map are not understood",
			(unsigned long long)p->n_bad);
}

static int perfmap_refresh(void *state, struct symbol_facts_message *facts)
{
	struct perfmap *p = state;
	struct stat st;
	int64_t mtime_ns;
	int r;

	if (fstat(p->fd, &st) < 0)
		return -errno;
	mtime_ns = st.st_mtim.tv_sec * (int64_t)NSEC_PER_SEC + st.st_mtim.tv_nsec;
	if ((uint64_t)st.st_size == p->read_up_to && mtime_ns == p->mtime_ns)
		return 0;
	if ((uint64_t)st.st_size <= p->read_up_to || !is_signed(p))
		forget(p);
	r = read_new(p, (uint64_t)st.st_size);
	if (r == 0)
		r = jit_ranges_settle(&p->ranges);
	if (r < 0)
		return r;
	p->mtime_ns = mtime_ns;
	sign(p);
	say(p, facts);
	return 0;
}

static void *perfmap_close(void *state)
{
	struct perfmap *p = state;

	if (p) {
		jit_ranges_deinit(&p->ranges);
		free(p);
	}
	return NULL;
}

static int perfmap_open(
	void **ret, const struct resolver_input *in, struct symbol_facts_message *facts)
{
	struct perfmap *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return -ENOMEM;
	p->fd = in->fd;
	p->mtime_ns = -1;
	say(p, facts);
	r = perfmap_refresh(p, facts);
	if (r < 0) {
		perfmap_close(p);
		return r;
	}
	*ret = p;
	return 0;
}

static int perfmap_find(void *state, uint64_t address, struct found *found)
{
	const struct perfmap *p = state;
	const struct jit_range *range = jit_ranges_find(&p->ranges, address);
	char name[SYMBOL_NAME_MAX];
	ssize_t n;

	if (!range)
		return 0;
	n = pread(p->fd, name, sizeof(name) - 1, (off_t)range->rank);
	if (n <= 0)
		return n < 0 ? -errno : 0;
	name[n] = '\0';
	name[strcspn(name, "\r\n")] = '\0';
	return *name && jitname_add(found, name, "", 0) == 0;
}

static size_t perfmap_memory(const void *state)
{
	const struct perfmap *p = state;

	return sizeof(*p) + p->ranges.room * sizeof(*p->ranges.v);
}

const struct resolver resolver_perfmap = {
	.name = "perfmap",
	.kind = SYMBOL_KIND_PERFMAP,
	.open = perfmap_open,
	.close = perfmap_close,
	.refresh = perfmap_refresh,
	.find = perfmap_find,
	.memory = perfmap_memory,
};
