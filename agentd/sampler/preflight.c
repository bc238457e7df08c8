/* SPDX-License-Identifier: Apache-2.0 */

/* Why sampling cannot begin here, in a sentence with a remedy.
 *
 * The kernel answers EPERM to a dozen causes. What can be known beforehand (pid namespace,
 * capabilities, BTF, lockdown, a kernel that would freeze) is looked at first; what only shows at
 * the call is explained from its errno and the settings that decide it. Runs in agentd, once a
 * start of profiling. */

#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include "agentd/base/capability.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/privilege.h"
#include "agentd/sampler/internal.h"
#include "agentd/sampler/nofault.h"

#define INIT_PID_NAMESPACE 0xEFFFFFFCU /* PROC_PID_INIT_INO */

/* The last complaint of libbpf, which says more than its return value. */
static char complaint[256];

static int on_libbpf(enum libbpf_print_level level, const char *format, va_list args)
{
	char line[512];

	vsnprintf(line, sizeof(line), format, args);
	line[strcspn(line, "\n")] = '\0';
	if (level == LIBBPF_WARN) {
		snprintf(complaint, sizeof(complaint), "%.*s", (int)sizeof(complaint) - 1, line);
		log_debug("%s", line);
	}
	return 0;
}

void preflight_catch_libbpf(void)
{
	complaint[0] = '\0';
	libbpf_set_print(on_libbpf);
}

/* The first line of a small file, "" when it cannot be read. */
static void first_line(const char *path, char *out, size_t size)
{
	_cleanup_buf_ struct buf b;

	buf_init(&b, 4096);
	out[0] = '\0';
	if (io_read_file(AT_FDCWD, path, &b, 4096) < 0 || !b.len)
		return;
	snprintf(out, size, "%.*s", (int)strcspn((char *)b.data, "\n"), (char *)b.data);
}

static bool have_capability(unsigned cap)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}};

	if (syscall(SYS_capget, &head, data) < 0)
		return false;
	return data[cap / 32].effective & (1U << (cap % 32));
}

static bool lockdown_forbids(void)
{
	char text[128];

	first_line("/sys/kernel/security/lockdown", text, sizeof(text));
	return strstr(text, "[confidentiality]");
}

static int check_privileges(struct err_text *err)
{
	struct stat st;
	bool bpf = have_capability(CAP_BPF), perfmon = have_capability(CAP_PERFMON);

	if (!have_capability(CAP_SYS_ADMIN) && (!bpf || !perfmon))
		return err_set(err, -EPERM,
			"profiling needs root, or the capabilities CAP_BPF and CAP_PERFMON (missing:%s%s): "
			"start agentd with sudo, or add them to AmbientCapabilities= of its unit",
			bpf ? "" : " CAP_BPF", perfmon ? "" : " CAP_PERFMON");
	if (stat("/proc/self/ns/pid", &st) == 0 && st.st_ino != INIT_PID_NAMESPACE)
		return err_set(err, -EPERM,
			"agentd runs in a pid namespace of its own and would not know the host's processes: "
			"start it on the host, or its container with --pid=host");
	if (lockdown_forbids())
		return err_set(err, -EPERM,
			"kernel lockdown is in confidentiality mode, which forbids BPF to read kernel memory: "
			"boot with lockdown=integrity or none");
	return 0;
}

static int check_freeze(struct sampler *s, struct err_text *err)
{
	char signature[256];
	struct nofault_version v;
	struct utsname u;
	enum nofault verdict;

	if (uname(&u) < 0)
		return err_set(err, -errno, "cannot read the kernel's version: %m");
	first_line("/proc/version_signature", signature, sizeof(signature));
	verdict = nofault_judge(u.release, u.version, signature[0] ? signature : NULL, &v);
	preflight_feature(s, "kernel: %.60s", u.release);
	if (verdict == NOFAULT_FREEZES)
		return err_set(err, -EOPNOTSUPP,
			"kernel %u.%u.%u can freeze the host when BPF reads user memory (fixed in 6.1.36, 6.3.10 "
			"and 6.4: copy_from_user_nofault): update the kernel and reboot",
			v.major, v.minor, v.patch);
	if (verdict == NOFAULT_SAFE) {
		preflight_feature(s, "reads of user memory: safe, as of upstream's %u.%u.%u",
			v.major, v.minor, v.patch);
		return 0;
	}
	if (!s->config.accept_unknown_kernel)
		return err_set(err, -EOPNOTSUPP,
			"cannot tell whether kernel %.60s has the copy_from_user_nofault fix (upstream 6.1.36, "
			"6.3.10, 6.4), without which sampling can freeze the host: update the kernel, or, if its "
			"vendor says that it has the fix, start agentd with --accept-unknown-kernel",
			u.release);
	preflight_feature(s, "reads of user memory: whether they are safe is not known");
	log_warning(
		"kernel %s may lack the copy_from_user_nofault fix; sampling because it was asked for",
		u.release);
	return 0;
}

static void check_members(struct sampler *s, const struct btf *btf)
{
	bool exec = false, cgroup;
	int id = btf__find_by_name_kind(btf, "task_struct", BTF_KIND_STRUCT);
	const struct btf_type *t = id > 0 ? btf__type_by_id(btf, id) : NULL;

	for (int i = 0; t && i < btf_vlen(t) && !exec; i++)
		exec = streq(btf__name_by_offset(btf, btf_members(t)[i].name_off), "self_exec_id");
	preflight_feature(s, "exec count of the kernel: %s",
		exec ? "yes" : "no; programs that replace themselves keep one identity");
	cgroup = btf__find_by_name_kind(btf, "btf_trace_cgroup_attach_task", BTF_KIND_TYPEDEF) > 0;
	preflight_feature(s, "moves between cgroups: %s",
		cgroup ? "followed" : "not followed; this kernel has no such tracepoint");
	s->has_cgroup_moves = cgroup;
}

int preflight_check(struct sampler *s, struct err_text *err)
{
	struct btf *btf;
	int r;

	r = check_privileges(err);
	if (r < 0)
		return r;
	r = check_freeze(s, err);
	if (r < 0)
		return r;
	if (access("/sys/kernel/btf/vmlinux", R_OK) < 0)
		return err_set(err, -EOPNOTSUPP,
			"this kernel has no type information (/sys/kernel/btf/vmlinux: %m): it must be built with "
			"CONFIG_DEBUG_INFO_BTF=y, as the distributions' are since Debian 11 and Ubuntu 20.10");
	btf = btf__load_vmlinux_btf();
	if (!btf)
		return err_set(err, -errno, "cannot read /sys/kernel/btf/vmlinux: %m");
	check_members(s, btf);
	btf__free(btf);
	return 0;
}

int preflight_explain_load(int code, struct err_text *err)
{
	const char *hint = "";

	if (code == -EPERM)
		hint = ": a seccomp filter or a security module may forbid bpf(2) (in a container: --privileged); "
		       "before kernel 5.11, RLIMIT_MEMLOCK must be unlimited";
	else if (code == -ENOMEM)
		hint = ": not enough memory, or the limit of agentd's cgroup is too low";
	else if (code == -EINVAL || code == -EACCES || code == -E2BIG || code == -ESRCH)
		hint = ": this kernel refuses a program (5.10 or newer is needed)";
	errno = -code;
	return err_set(err, code, "cannot load the sampling programs: %m%s%s%s", hint,
		complaint[0] ? "; " : "", complaint);
}

int preflight_explain_perf(int code, unsigned cpu, struct err_text *err)
{
	char paranoid[16];

	first_line("/proc/sys/kernel/perf_event_paranoid", paranoid, sizeof(paranoid));
	errno = -code;
	if (!paranoid[0])
		return err_set(
			err, code, "this kernel has no perf events (CONFIG_PERF_EVENTS): %m");
	if ((code == -EACCES || code == -EPERM) && atoi(paranoid) > 2 && !privilege_has_admin())
		return err_set(err, code,
			"kernel.perf_event_paranoid=%s keeps perf events from all but CAP_SYS_ADMIN: run "
			"`sysctl kernel.perf_event_paranoid=2`, or give agentd CAP_SYS_ADMIN",
			paranoid);
	if (code == -EACCES || code == -EPERM)
		return err_set(err, code,
			"the kernel forbids perf events on CPU %u (%m): a seccomp filter (in a container: "
			"--privileged), a security module, or a missing CAP_PERFMON",
			cpu);
	if (code == -EMFILE || code == -ENFILE)
		return err_set(err, code,
			"too few descriptors for the events of CPU %u: raise LimitNOFILE= (%m)",
			cpu);
	return err_set(err, code, "cannot open the events of CPU %u: %m", cpu);
}

void preflight_feature(struct sampler *s, const char *format, ...)
{
	va_list args;

	if (s->n_features == ARRAY_SIZE(s->features))
		return;
	va_start(args, format);
	vsnprintf(s->features[s->n_features++], sizeof(s->features[0]), format, args);
	va_end(args);
}
