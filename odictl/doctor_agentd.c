/* SPDX-License-Identifier: Apache-2.0 */

/* agentd as the kernel sees it: what it may do, what it may lock, how much room it has; and who else samples CPUs here.
 * As everywhere in the doctor things are read and none is tried.
 *
 * Another profiler is known by what it must hold: perf events (a descriptor each CPU) and BPF programs of the type that
 * runs on them, whatever it calls itself. Descriptors of other users are only shown to root.
 * Source: capabilities(7), proc(5), bpf(2); prog_type in fdinfo since Linux 4.14, enum bpf_prog_type. */

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/statvfs.h>

#include "agentd/base/capability.h"
#include "agentd/base/text.h"
#include "odictl/doctor.h"

#define MAX_PIDS       200000
#define MAX_FDS        1000000 /* in all */
#define MEMLOCK_NEEDED (64ULL << 20)
#define BPF_PERF_EVENT 7 /* BPF_PROG_TYPE_PERF_EVENT */
#define LISTED         5

/* The text behind a field of a file of /proc ("CapPrm:"), without blanks before it. */
static bool read_field(int root, const char *path, const char *field, char *out, size_t size)
{
	_cleanup_close_ int fd = openat(root, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	char text[8192];
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	const char *p;

	if (n <= 0)
		return false;
	text[n] = '\0';
	p = text_starts(text, field) ? text : NULL;
	for (const char *at = text; !p && (at = strchr(at, '\n'));) {
		at++;
		p = text_starts(at, field) ? at : NULL;
	}
	if (!p)
		return false;
	p += strlen(field);
	p += strspn(p, " \t");
	snprintf(out, size, "%.*s", (int)strcspn(p, "\n"), p);
	return true;
}

/* ---- what it may ----------------------------------------------------------------------------------- */

static bool has(uint64_t caps, unsigned cap)
{
	return caps & (1ULL << cap);
}

static void look_capabilities(struct findings *f, int root, unsigned pid)
{
	static const struct {
		unsigned cap;
		const char *name, *without;
	} wanted[] = {
		{CAP_SYS_PTRACE, "CAP_SYS_PTRACE", "programs of other users have no names"},
		{CAP_DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH",
			"programs and perf maps that only their owner may read have no names"},
	};
	char path[64], text[64];
	uint64_t caps;
	bool admin;

	snprintf(path, sizeof(path), "proc/%u/status", pid);
	if (!read_field(root, path, "CapPrm:", text, sizeof(text)))
		return;
	caps = strtoull(text, NULL, 16);
	admin = has(caps, CAP_SYS_ADMIN);
	if (!admin && !(has(caps, CAP_BPF) && has(caps, CAP_PERFMON))) {
		finding_add(f, "capabilities", FINDING_FAILURE,
			"start it as its unit does: systemctl restart odi",
			"agentd has neither CAP_BPF and CAP_PERFMON nor CAP_SYS_ADMIN: it cannot sample");
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		if (!has(caps, wanted[i].cap) && !admin) {
			finding_add(f, "capabilities", FINDING_WARNING,
				"start it as its unit does: systemctl restart odi",
				"agentd has no %s: %s", wanted[i].name, wanted[i].without);
			return;
		}
	finding_add(f, "capabilities", FINDING_OK, "",
		"agentd may load programs and read what it names (%s)",
		admin ? "CAP_SYS_ADMIN" : "CAP_BPF, CAP_PERFMON");
}

/* From 5.11 on the memory of programs and maps is counted by control group, and this limit has no meaning for it. */
static void look_memlock(struct findings *f, int root, unsigned pid, const char *release)
{
	unsigned major = 0, minor = 0;
	char path[64], text[128], size[32];
	uint64_t limit;

	if (sscanf(release, "%u.%u", &major, &minor) != 2)
		return;
	snprintf(path, sizeof(path), "proc/%u/limits", pid);
	if (!read_field(root, path, "Max locked memory", text, sizeof(text)))
		return;
	limit = text_starts(text, "unlimited") ? UINT64_MAX : strtoull(text, NULL, 10);
	text_format_size(limit, size, sizeof(size));
	if (limit >= MEMLOCK_NEEDED)
		finding_add(f, "memlock", FINDING_OK, "", "agentd may lock %s%s",
			limit == UINT64_MAX ? "any amount of" : size,
			limit == UINT64_MAX ? " memory" : "");
	else if (major > 5 || (major == 5 && minor >= 11))
		finding_add(f, "memlock", FINDING_OK, "",
			"agentd may lock %s of memory, which this kernel does not ask for", size);
	else
		finding_add(f, "memlock", FINDING_FAILURE,
			"systemctl edit odi: LimitMEMLOCK=infinity; systemctl restart odi",
			"agentd may lock %s of memory only: this kernel counts programs and maps by it, "
			"and they do not fit",
			size);
}

void doctor_agentd(struct findings *f, int root, unsigned pid, const char *release)
{
	look_capabilities(f, root, pid);
	look_memlock(f, root, pid, release);
}

/* ---- who else samples ------------------------------------------------------------------------------ */

struct holders {
	char list[300];
	size_t at, n, fds;
	bool closed; /* descriptors of some process may not be seen */
};

/* Whether it is a perf event, or a program that runs on them. */
static bool is_of_profiler(int proc, const char *pid, const char *fd, const char *target)
{
	char path[300], text[32];

	if (streq(target, "anon_inode:[perf_event]"))
		return true;
	if (!streq(target, "anon_inode:bpf-prog"))
		return false;
	snprintf(path, sizeof(path), "%.20s/fdinfo/%.20s", pid, fd);
	return read_field(proc, path, "prog_type:", text, sizeof(text)) &&
		strtoul(text, NULL, 10) == BPF_PERF_EVENT;
}

/* How many such descriptors a process has. */
static size_t held(struct holders *h, int proc, const char *pid)
{
	char path[64], target[64];
	int fd;
	DIR *dir;
	struct dirent *e;
	size_t n = 0;

	snprintf(path, sizeof(path), "%.20s/fd", pid);
	fd = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		h->closed = h->closed || errno == EACCES || errno == EPERM;
		return 0;
	}
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return 0;
	}
	while ((e = readdir(dir)) && h->fds++ < MAX_FDS) {
		ssize_t len = readlinkat(dirfd(dir), e->d_name, target, sizeof(target) - 1);

		if (len <= 0)
			continue;
		target[len] = '\0';
		n += is_of_profiler(proc, pid, e->d_name, target);
	}
	closedir(dir);
	return n;
}

static bool is_ours(const char *pid, const unsigned *own, size_t n)
{
	unsigned long number = strtoul(pid, NULL, 10);

	for (size_t i = 0; i < n; i++)
		if (own[i] == number)
			return true;
	return false;
}

static void add_holder(struct holders *h, int proc, const char *pid, size_t n)
{
	char path[64], comm[32];

	if (!n || h->n++ >= LISTED)
		return;
	snprintf(path, sizeof(path), "%.20s/status", pid);
	if (!read_field(proc, path, "Name:", comm, sizeof(comm)))
		snprintf(comm, sizeof(comm), "?");
	h->at += (size_t)snprintf(h->list + h->at, sizeof(h->list) - h->at, "%s%s (%.20s)",
		h->at ? ", " : "", comm, pid);
}

void doctor_others(struct findings *f, int root, const unsigned *own, size_t n_own)
{
	_cleanup_close_ int proc = openat(root, "proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int copy = proc < 0 ? -1 : fcntl(proc, F_DUPFD_CLOEXEC, 3);
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);
	struct holders h = {};
	struct dirent *e;
	size_t pids = 0;

	if (!dir) {
		if (copy >= 0)
			close(copy);
		return;
	}
	while ((e = readdir(dir)) && pids < MAX_PIDS) {
		if (e->d_name[0] < '1' || e->d_name[0] > '9' || is_ours(e->d_name, own, n_own))
			continue;
		pids++;
		add_holder(&h, proc, e->d_name, held(&h, proc, e->d_name));
	}
	closedir(dir);
	if (h.n)
		finding_add(f, "perf_events", FINDING_WARNING, "stop the one that is not needed",
			"%zu other process%s hold%s performance events, as profilers do: %s; each costs for "
			"itself, and odi's budget knows nothing of it",
			h.n, h.n == 1 ? "" : "es", h.n == 1 ? "s" : "", h.list);
	else if (h.closed)
		finding_add(f, "perf_events", FINDING_OK, "",
			"whether other processes hold performance events is only shown to root");
	else
		finding_add(f, "perf_events", FINDING_OK, "",
			"no other process holds performance events");
}
