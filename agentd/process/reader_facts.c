/* SPDX-License-Identifier: Apache-2.0 */
/* The /proc reader's answer to "what is this process, and what has it mapped".
 *
 * Bounded by what is kept, not by what is there: a command line of megabytes costs 4 KiB, maps are walked
 * line by line and only executable ranges kept, of the environment two variables, and what held the rest is
 * wiped. A file that cannot be read leaves its fact empty. Source: proc(5). Runs in the role `proc`. */

#include "agentd/process/reader.h"

#include <sys/stat.h>

#include "agentd/process/process.h"

#define ENVIRON_MAX (2u << 20) /* of it is looked at */
#define MAPS_MAX    (64u << 20)

static void add_text(
	struct reader *r, struct reader_facts *facts, int which, const void *data, size_t len)
{
	facts->len[which] = (uint32_t)len;
	buf_add(&r->body, data, len);
}

static void add_exe(struct reader *r, struct reader_facts *facts, int dir)
{
	char path[READER_PATH_MAX];
	ssize_t n = readlinkat(dir, "exe", path, sizeof(path) - 1);

	add_text(r, facts, TEXT_EXE, path, n > 0 ? (size_t)n : 0);
}

static void add_cgroup(struct reader *r, struct reader_facts *facts, int dir)
{
	char path[READER_PATH_MAX] = "";

	if (reader_text(r, dir, "cgroup", 32768) == 0)
		cgroup_best((const char *)r->text.data, path, sizeof(path));
	add_text(r, facts, TEXT_CGROUP, path, strlen(path));
}

static void add_cmdline(struct reader *r, struct reader_facts *facts, int dir)
{
	if (reader_text(r, dir, "cmdline", READER_CMDLINE_MAX) < 0)
		return;
	add_text(r, facts, TEXT_CMDLINE, r->text.data, r->text.len - 1);
}

/* Two variables; the rest is never kept, and what held it is wiped. */
static void add_environ(struct reader *r, struct reader_facts *facts, int dir)
{
	_cleanup_close_ int fd = reader_open_in(dir, "environ");
	size_t total = 0, most = 0;

	if (fd < 0)
		return;
	environ_scan_init(&r->scan);
	while (total < ENVIRON_MAX) {
		ssize_t n = read(fd, r->chunk, sizeof(r->chunk));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		total += (size_t)n;
		most = MAX(most, (size_t)n);
		environ_scan_feed(&r->scan, r->chunk, (size_t)n);
		if ((size_t)n < sizeof(r->chunk))
			break;
	}
	environ_scan_end(&r->scan);
	explicit_bzero(r->chunk, most);
	if (r->scan.have_service_name)
		facts->flags |= FACT_HAS_SERVICE_NAME;
	if (r->scan.too_long)
		facts->flags |= FACT_OTEL_TOO_LONG;
	add_text(r, facts, TEXT_SERVICE, r->scan.service_name, strlen(r->scan.service_name));
	add_text(r, facts, TEXT_ATTRIBUTES, r->scan.attributes, strlen(r->scan.attributes));
	explicit_bzero(&r->scan, sizeof(r->scan));
}

static void add_map(struct reader_walk *w, const struct procfs_map *map)
{
	size_t len = strnlen(map->path, READER_PATH_MAX);
	struct reader_map row = {.start = map->start,
		.end = map->end,
		.pgoff = map->pgoff,
		.inode = map->inode,
		.major = map->major,
		.minor = map->minor,
		.path_len = (uint32_t)len};

	if (!map->exec || w->n == w->max)
		return;
	buf_add(&w->r->body, &row, sizeof(row));
	buf_add(&w->r->body, map->path, len);
	w->n++;
}

/* Line by line: the whole of it may be many megabytes, of lines that are not executable. */
int reader_walk_maps(struct reader_walk *w, int dir,
	void (*visit)(struct reader_walk *w, const struct procfs_map *map))
{
	_cleanup_close_ int fd = reader_open_in(dir, "maps");
	struct reader *r = w->r;
	size_t held = 0, total = 0;

	if (fd < 0)
		return fd;
	for (;;) {
		ssize_t n = read(fd, r->chunk + held, sizeof(r->chunk) - 1 - held);
		char *line = r->chunk, *end;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		total += (size_t)n;
		if (n == 0 || total > MAPS_MAX)
			return 0;
		held += (size_t)n;
		r->chunk[held] = 0;
		while ((end = memchr(line, '\n', held - (size_t)(line - r->chunk)))) {
			struct procfs_map map;

			*end = 0;
			if (procfs_map(line, &map) == 0)
				visit(w, &map);
			line = end + 1;
		}
		held -= (size_t)(line - r->chunk);
		memmove(r->chunk, line, held);
		if (held == sizeof(r->chunk) - 1)
			return -EBADMSG;
	}
}

static uint64_t start_of(struct reader *r, uint32_t pid)
{
	_cleanup_close_ int dir = pid ? reader_open_pid(r, pid) : -1;
	struct procfs_stat stat;

	return dir >= 0 && reader_stat(r, dir, &stat) == 0 ? stat.start : 0;
}

/* The link leads somewhere for as long as the process has its memory. */
static bool has_memory(int dir)
{
	char byte;

	return readlinkat(dir, "exe", &byte, 1) > 0;
}

/* What it runs comes last: as long as that can be told, what was read before was its own, too. */
static void add_facts(struct reader *r, struct reader_facts *facts, int dir)
{
	add_cgroup(r, facts, dir);
	add_cmdline(r, facts, dir);
	add_environ(r, facts, dir);
	add_exe(r, facts, dir);
	if (!facts->len[TEXT_EXE])
		facts->flags |= FACT_NO_MEMORY;
}

static int add_maps(
	struct reader *r, const struct reader_request *q, struct reader_facts *facts, int dir)
{
	struct reader_walk w = {.r = r, .max = q->max_mappings};
	int e = reader_walk_maps(&w, dir, add_map);

	if (e < 0)
		return e == -ENOENT ? -ESRCH : e;
	if (!w.n || !has_memory(dir))
		facts->flags |= FACT_NO_MEMORY;
	facts->n_maps = (uint32_t)w.n;
	return 0;
}

int reader_do_read(struct reader *r, const struct reader_request *q)
{
	_cleanup_close_ int dir = reader_open_pid(r, q->pid), living = -1;
	struct reader_facts facts = {.uid = UINT32_MAX};
	struct procfs_stat stat;
	struct stat st;
	bool has_owner;
	int e;

	if (dir < 0)
		return dir;
	/* The folder's owner is the effective uid, of any process (fs/proc/base.c, task_dump_owner()); before
	 * the check, since that of one that has gone is root. */
	has_owner = fstat(dir, &st) == 0;
	e = reader_check_start(r, dir, q->start_ticks, &stat);
	if (e < 0)
		return e;
	living = reader_living_folder(r, dup(dir), q, stat.state);
	if (living < 0)
		return -EMFILE;
	if (has_owner)
		facts.uid = st.st_uid;
	facts.ppid = (uint32_t)stat.ppid;
	facts.start_ticks = stat.start;
	facts.flags = stat.flags & PROCFS_KTHREAD ? FACT_KERNEL_THREAD : 0;
	if (q->flags & READER_PARENT)
		facts.parent_start_ticks = start_of(r, facts.ppid);
	buf_add(&r->body, &facts, sizeof(facts));
	add_text(r, &facts, TEXT_COMM, stat.comm, strlen(stat.comm));
	if (!(facts.flags & FACT_KERNEL_THREAD)) {
		if (q->flags & READER_FACTS)
			add_facts(r, &facts, living);
		e = q->flags & READER_MAPS ? add_maps(r, q, &facts, living) : 0;
		if (e < 0)
			return e;
	}
	if (r->body.data && !buf_error(&r->body))
		memcpy(r->body.data, &facts, sizeof(facts));
	return 0;
}
