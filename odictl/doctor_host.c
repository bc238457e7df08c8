/* SPDX-License-Identifier: Apache-2.0 */

/* The host as a profiler meets it. Everything is read, nothing tried: a look never changes what it looks at, and works
 * for a user without rights. What cannot be read is no finding but for what odi cannot do without.
 *
 * Source: Documentation/admin-guide/sysctl/kernel.rst (perf_event_paranoid, kptr_restrict,
 * perf_event_max_sample_rate), kernel_lockdown(7), cgroups(7). */

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/timex.h>

#include "agentd/base/text.h"
#include "odictl/doctor.h"

#define MIN_MAJOR  5
#define MIN_MINOR  10
#define MAX_PIDS   200000
#define DISK_FLOOR 5 /* percent */

void finding_add(struct findings *f, const char *what, enum finding_level level, const char *remedy,
	const char *format, ...)
{
	struct finding *x = &f->list[f->n];
	va_list ap;

	if (f->n == ARRAY_SIZE(f->list)) {
		f->dropped++;
		return;
	}
	f->n++;
	*x = (struct finding){.what = what, .level = level};
	snprintf(x->remedy, sizeof(x->remedy), "%s", remedy);
	va_start(ap, format);
	vsnprintf(x->text, sizeof(x->text), format, ap);
	va_end(ap);
	text_clean(x->text);
	text_clean(x->remedy);
}

/* The file's first bytes, without the newline at the end. False: it cannot be read. */
static bool read_text(int root, const char *path, char *out, size_t size)
{
	_cleanup_close_ int fd = openat(root, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	ssize_t n = fd < 0 ? -1 : read(fd, out, size - 1);

	if (n < 0)
		return false;
	out[n] = '\0';
	while (n > 0 && out[n - 1] == '\n')
		out[--n] = '\0';
	return true;
}

static bool read_number(int root, const char *path, long *ret)
{
	char text[64], *end;

	if (!read_text(root, path, text, sizeof(text)))
		return false;
	errno = 0;
	*ret = strtol(text, &end, 10);
	return end != text && !errno;
}

static bool exists(int root, const char *path)
{
	return faccessat(root, path, F_OK, 0) == 0;
}

static void look_kernel(struct findings *f, int root, const char *release)
{
	unsigned major = 0, minor = 0;

	if (sscanf(release, "%u.%u", &major, &minor) == 2 &&
		(major < MIN_MAJOR || (major == MIN_MAJOR && minor < MIN_MINOR)))
		finding_add(f, "kernel", FINDING_FAILURE, "",
			"Linux %s is too old: odi needs 5.10 or later", release);
	else
		finding_add(f, "kernel", FINDING_OK, "", "Linux %s", release);
	if (exists(root, "sys/kernel/btf/vmlinux"))
		finding_add(f, "btf", FINDING_OK, "", "the kernel describes its types (BTF)");
	else
		finding_add(f, "btf", FINDING_FAILURE,
			"boot a kernel that was built with CONFIG_DEBUG_INFO_BTF=y: all current "
			"distributions' own are",
			"the kernel does not describe its types: /sys/kernel/btf/vmlinux is not there, "
			"and without it programs cannot be fitted to it");
}

static void look_sysctls(struct findings *f, int root, unsigned rate_hz)
{
	long paranoid, kptr, rate, jit;

	if (read_number(root, "proc/sys/kernel/perf_event_paranoid", &paranoid))
		finding_add(f, "perf_event_paranoid", FINDING_OK, "",
			"kernel.perf_event_paranoid is %ld%s", paranoid,
			paranoid > 2 ? ": agentd needs CAP_SYS_ADMIN to sample, which root has"
				     : "");
	else
		finding_add(f, "perf_event_paranoid", FINDING_FAILURE, "",
			"the kernel has no performance events, by which CPUs are sampled");
	if (read_number(root, "proc/sys/kernel/kptr_restrict", &kptr)) {
		if (kptr > 1)
			finding_add(f, "kptr_restrict", FINDING_WARNING,
				"sysctl kernel.kptr_restrict=1",
				"kernel.kptr_restrict is %ld: the kernel hides its addresses from root, "
				"too, so its functions have no names",
				kptr);
		else
			finding_add(f, "kptr_restrict", FINDING_OK, "",
				"kernel.kptr_restrict is %ld: kernel functions have names", kptr);
	}
	if (read_number(root, "proc/sys/kernel/perf_event_max_sample_rate", &rate) &&
		rate < (long)rate_hz)
		finding_add(f, "max_sample_rate", FINDING_FAILURE,
			"sysctl kernel.perf_event_max_sample_rate=100000",
			"kernel.perf_event_max_sample_rate is %ld, less than the %u Hz that are set",
			rate, rate_hz);
	if (read_number(root, "proc/sys/net/core/bpf_jit_enable", &jit) && jit == 0)
		finding_add(f, "bpf_jit", FINDING_WARNING, "sysctl net.core.bpf_jit_enable=1",
			"net.core.bpf_jit_enable is 0: programs in the kernel are interpreted, which "
			"costs several times as much");
}

static void look_lockdown(struct findings *f, int root)
{
	char text[128];

	if (!read_text(root, "sys/kernel/security/lockdown", text, sizeof(text)))
		return;
	if (strstr(text, "[confidentiality]"))
		finding_add(f, "lockdown", FINDING_FAILURE,
			"boot with lockdown=integrity, which Secure Boot alone asks for",
			"the kernel is locked down for confidentiality: no program may read memory, so "
			"nothing can be sampled");
	else
		finding_add(f, "lockdown", FINDING_OK, "", "lockdown: %s", text);
}

/* Only in a container: its own processes would be all that is seen. */
static void look_container(struct findings *f, int root)
{
	char kind[64] = "";

	if (exists(root, ".dockerenv"))
		snprintf(kind, sizeof(kind), "docker");
	else if (exists(root, "run/.containerenv"))
		snprintf(kind, sizeof(kind), "podman");
	else
		(void)read_text(root, "run/systemd/container", kind, sizeof(kind));
	if (kind[0])
		finding_add(f, "container", FINDING_WARNING, "install odi on the host itself",
			"this is a container (%s): odi is for hosts; here it sees, at best, what the "
			"container may see",
			kind);
	else
		finding_add(f, "container", FINDING_OK, "", "this is a host, not a container");
}

static void look_cgroups(struct findings *f, int root)
{
	if (exists(root, "sys/fs/cgroup/cgroup.controllers"))
		finding_add(f, "cgroups", FINDING_OK, "", "control groups: version 2");
	else if (exists(root, "sys/fs/cgroup/unified/cgroup.procs"))
		finding_add(
			f, "cgroups", FINDING_OK, "", "control groups: both versions side by side");
	else if (exists(root, "sys/fs/cgroup/cpu") || exists(root, "sys/fs/cgroup/systemd"))
		finding_add(f, "cgroups", FINDING_OK, "", "control groups: version 1");
	else
		finding_add(f, "cgroups", FINDING_WARNING, "mount -t cgroup2 none /sys/fs/cgroup",
			"no control groups at /sys/fs/cgroup: sources by unit, container or control "
			"group match nothing; by process and host they do");
}

static void look_clock(struct findings *f)
{
	struct timex t = {0};
	int state = adjtimex(&t);

	if (state == TIME_ERROR || (t.status & STA_UNSYNC))
		finding_add(f, "clock", FINDING_WARNING,
			"timedatectl set-ntp true (or install chrony)",
			"the clock is not synchronized: a backend refuses profiles from too far in the "
			"past or future");
	else if (state >= 0)
		finding_add(f, "clock", FINDING_OK, "", "the clock is synchronized");
}

static void look_disk(struct findings *f, int root)
{
	_cleanup_close_ int fd = openat(root, "var/lib/odi", O_PATH | O_CLOEXEC);
	struct statvfs s;
	char size[32];
	double percent;

	if (fd < 0)
		fd = openat(root, "var/lib", O_PATH | O_CLOEXEC);
	if (fd < 0 || fstatvfs(fd, &s) < 0 || !s.f_blocks)
		return;
	percent = 100.0 * (double)s.f_bavail / (double)s.f_blocks;
	text_format_size((uint64_t)s.f_bavail * s.f_frsize, size, sizeof(size));
	if (percent < DISK_FLOOR)
		finding_add(f, "disk", FINDING_WARNING, "make room there",
			"only %s (%.0f %%) are free at /var/lib/odi: profiles are not kept for long",
			size, percent);
	else if (s.f_flag & ST_RDONLY)
		finding_add(f, "disk", FINDING_FAILURE, "mount it for writing",
			"/var/lib/odi is on a file system that is mounted read-only");
	else
		finding_add(f, "disk", FINDING_OK, "", "%s (%.0f %%) free at /var/lib/odi", size,
			percent);
}

/* Two profilers cost twice, and the budget of one knows nothing of the other. */
static void look_profilers(struct findings *f, int root)
{
	static const char *const names[] = {"parca-agent", "ebpf-profiler", "otel-ebpf-profi",
		"lightswitch", "alloy", "pyroscope", "pf-host-agent", "elastic-universa", "perf",
		"gprofiler", "beyla"};
	_cleanup_close_ int fd = openat(root, "proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	char list[200] = "", path[64], comm[32];
	size_t at = 0, n = 0;
	struct dirent *e;

	if (!dir)
		return;
	fd = -1;
	while ((e = readdir(dir)) && n < MAX_PIDS) {
		if (e->d_name[0] < '1' || e->d_name[0] > '9')
			continue;
		n++;
		snprintf(path, sizeof(path), "proc/%.20s/comm", e->d_name);
		if (!read_text(root, path, comm, sizeof(comm)))
			continue;
		for (size_t i = 0; i < ARRAY_SIZE(names) && at < sizeof(list); i++)
			if (streq(comm, names[i]))
				at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s (%.20s)",
					at ? ", " : "", comm, e->d_name);
	}
	closedir(dir);
	if (at)
		finding_add(f, "profilers", FINDING_WARNING, "",
			"another profiler runs here: %s; each costs for itself", list);
	else
		finding_add(
			f, "profilers", FINDING_OK, "", "no other profiler was found by its name");
}

void doctor_host(struct findings *f, int root, const char *release, unsigned rate_hz)
{
	look_kernel(f, root, release);
	look_lockdown(f, root);
	look_sysctls(f, root, rate_hz);
	look_container(f, root);
	look_cgroups(f, root);
	look_clock(f);
	look_disk(f, root);
	look_profilers(f, root);
}
