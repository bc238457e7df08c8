/* SPDX-License-Identifier: Apache-2.0 */

/* What a child role loses when it enters its sandbox.
 *
 * Every parser of what a profiled user wrote runs in here, on the assumption that one day it is
 * taken over. Then this file is what is left: no new privileges, no capability, no path, no
 * network, limits on what may be used up, and a list of system calls.
 *
 * Invariants. The order of the header holds; the filter comes last since the steps before it need
 * calls that it forbids. All that needs a descriptor or writes a file (compiling the filter, making
 * the Landlock rules) is done ahead of the limits, which may be 0. A step that was asked for and
 * failed is an error and the role must not go on; the exceptions are a kernel without Landlock
 * (landlock_abi() says so) and dropping what a user who is not root never had. The death
 * signal is set again after the identity changed, because the kernel clears it then
 * (commit_creds()).
 *
 * Builds with AddressSanitizer map terabytes of address space and make calls of their own: there
 * RLIMIT_AS and RLIMIT_DATA are left alone, the calls in `sanitizer_calls` are allowed on top of
 * the list, and the leak check at exit (which starts a thread to trace its own process) is turned
 * off. Everything else, denials included, is as in other builds, so that tests of it mean the same.
 *
 * Source: seccomp(2), landlock(7), capabilities(7), prctl(2). The symbolizer, the exporter, the
 * readers. */

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/capability.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <grp.h>

#include "agentd/base/capability.h"
#include "agentd/base/landlock.h"
#include "agentd/base/sandbox.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

#define FILTER_MAX 4096 /* instructions: the kernel's own bound */
#define NOBODY     65534

/* What ending takes, in order: exit(), return from a signal's handler, abort(). */
static const int always[] = {SYS_exit, SYS_exit_group, SYS_rt_sigreturn, SYS_restart_syscall,
	SYS_clock_gettime, SYS_rt_sigprocmask, SYS_getpid, SYS_gettid, -1};

#ifdef SANITIZED
static const int sanitizer_calls[] = {SYS_mmap, SYS_munmap, SYS_mremap, SYS_mprotect, SYS_madvise,
	SYS_brk, SYS_futex, SYS_write, SYS_sigaltstack, SYS_rt_sigaction, SYS_prctl,
	SYS_sched_getaffinity, SYS_sched_yield, SYS_getrusage, SYS_sysinfo, -1};

/* Asked by the leak check before it starts. */
int __lsan_is_turned_off(void);
static bool entered;
int __lsan_is_turned_off(void)
{
	return entered;
}
#else
static const int sanitizer_calls[] = {-1};
#endif

struct prepared {
	struct sock_filter filter[FILTER_MAX];
	unsigned short n_filter; /* 0: none */
	int ruleset;             /* -1: none */
};

static bool has(const int *list, int nr)
{
	for (; list && *list != -1; list++)
		if (*list == nr)
			return true;
	return false;
}

/* Comparisons. An argument is compared whole (64 bits), also where the kernel looks at an int only:
 * what has rubbish above is not equal, and none of these lets through what is not equal. */
static const struct scmp_arg_cmp without_exec = {
	.arg = 2, .op = SCMP_CMP_MASKED_EQ, .datum_a = PROT_EXEC, .datum_b = 0};
static const struct scmp_arg_cmp with_exec = {
	.arg = 2, .op = SCMP_CMP_MASKED_EQ, .datum_a = PROT_EXEC, .datum_b = PROT_EXEC};
static const struct scmp_arg_cmp is_unix = {.arg = 0, .op = SCMP_CMP_EQ, .datum_a = AF_UNIX};
static const struct scmp_arg_cmp is_not_unix = {.arg = 0, .op = SCMP_CMP_NE, .datum_a = AF_UNIX};

static bool maps_memory(int nr)
{
	return nr == SYS_mmap || nr == SYS_mprotect || nr == SYS_pkey_mprotect;
}

/* One rule, with a comparison or (op 0) without. A rule that an earlier one covers is fine. */
static int rule(scmp_filter_ctx ctx, uint32_t action, int nr, const struct scmp_arg_cmp *cmp)
{
	int r = seccomp_rule_add_array(ctx, action, nr, cmp ? 1 : 0, cmp);

	return r == -EEXIST ? 0 : r;
}

static int allow(scmp_filter_ctx ctx, const struct sandbox_policy *policy, const int *list)
{
	int r = 0;

	for (; list && *list != -1 && r >= 0; list++) {
		if (has(policy->refused, *list))
			continue;
		if (maps_memory(*list) && !policy->exec_mappings)
			r = rule(ctx, SCMP_ACT_ALLOW, *list, &without_exec);
		else if (*list == SYS_socket && policy->deny_network)
			r = rule(ctx, SCMP_ACT_ALLOW, *list, &is_unix);
		else
			r = rule(ctx, SCMP_ACT_ALLOW, *list, NULL);
	}
	return r;
}

/* A list: all that is not on it kills. */
static int add_list(scmp_filter_ctx ctx, const struct sandbox_policy *policy)
{
	const struct scmp_arg_cmp itself = {
		.arg = 0, .op = SCMP_CMP_EQ, .datum_a = (unsigned)getpid()};
	int r = allow(ctx, policy, policy->syscalls);

	if (r >= 0)
		r = allow(ctx, policy, always);
	if (r >= 0)
		r = allow(ctx, policy, sanitizer_calls);
	/* abort() signals itself; it may signal nobody else of its uid. */
	if (r >= 0 && !has(policy->refused, SYS_tgkill) && !has(policy->syscalls, SYS_tgkill))
		r = rule(ctx, SCMP_ACT_ALLOW, SYS_tgkill, &itself);
	if (r >= 0 && policy->deny_network && has(policy->syscalls, SYS_socket))
		r = rule(ctx, SCMP_ACT_ERRNO(EACCES), SYS_socket, &is_not_unix);
	return r;
}

/* No list: all is allowed but what the policy's flags name. */
static int add_denials(scmp_filter_ctx ctx, const struct sandbox_policy *policy)
{
	static const int mapping[] = {SYS_mmap, SYS_mprotect, SYS_pkey_mprotect};
	const uint32_t no = SCMP_ACT_ERRNO(EACCES);
	int r = 0;

	if (policy->deny_network) {
		r = rule(ctx, no, SYS_socket, &is_not_unix);
		/* A ring makes sockets without the call. */
		if (r >= 0)
			r = rule(ctx, no, SYS_io_uring_setup, NULL);
	}
	for (size_t i = 0; i < ARRAY_SIZE(mapping) && !policy->exec_mappings && r >= 0; i++)
		if (!has(policy->refused, mapping[i]))
			r = rule(ctx, no, mapping[i], &with_exec);
	return r;
}

static void release_filter(scmp_filter_ctx *ctx)
{
	if (*ctx)
		seccomp_release(*ctx);
}

/* The filter as the kernel wants it. Compiled ahead, so that loading is one call with nothing after
 * it: freeing the library's memory may need calls that the filter forbids. */
static int compile_filter(const struct sandbox_policy *policy, struct prepared *p)
{
	CLEANUP(release_filter)
	scmp_filter_ctx ctx =
		seccomp_init(policy->syscalls ? SCMP_ACT_KILL_PROCESS : SCMP_ACT_ALLOW);
	_cleanup_close_ int fd = -1;
	ssize_t n;
	int r;

	if (!ctx)
		return -ENOMEM;
	/* Calls by another ABI's numbers (32-bit, x32) must not pass as other calls. */
	r = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	/* A tree instead of a chain, where the library can: the filter runs at every call. */
	(void)seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	for (const int *nr = policy->refused; nr && *nr != -1 && r >= 0; nr++)
		r = rule(ctx, SCMP_ACT_ERRNO(EACCES), *nr, NULL);
	if (r >= 0)
		r = policy->syscalls ? add_list(ctx, policy) : add_denials(ctx, policy);
	if (r < 0)
		return r;
	fd = memfd_create("filter", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = seccomp_export_bpf(ctx, fd);
	if (r < 0)
		return r;
	n = pread(fd, p->filter, sizeof(p->filter), 0);
	if (n < 0)
		return -errno;
	if (n == 0 || (size_t)n % sizeof(p->filter[0]) || lseek(fd, 0, SEEK_END) != n)
		return -E2BIG;
	p->n_filter = (unsigned short)((size_t)n / sizeof(p->filter[0]));
	return 0;
}

/* Rules that allow nothing; none on a kernel without. */
static int make_ruleset(const struct sandbox_policy *policy, struct prepared *p)
{
	int fd = landlock_new(policy->deny_network);

	if (fd < 0)
		return fd == -EOPNOTSUPP ? 0 : fd;
	p->ruleset = fd;
	return 0;
}

/* Lowers both limits, never raises one. */
static int limit(int resource, rlim_t value)
{
	struct rlimit now;

	if (value == RLIM_INFINITY)
		return 0;
	if (getrlimit(resource, &now) < 0)
		return -errno;
	/* Two steps for CPU time: SIGXCPU says why, SIGKILL a second later for who ignores it. */
	now.rlim_max = MIN(now.rlim_max, resource == RLIMIT_CPU ? value + 1 : value);
	now.rlim_cur = MIN(value, now.rlim_max);
	return setrlimit(resource, &now) < 0 ? -errno : 0;
}

static int set_limits(const struct sandbox_policy *policy)
{
	const struct {
		int resource;
		rlim_t value;
	} limits[] = {
		{RLIMIT_CORE, 0}, /* memory of users' files must not land on the disk */
		{RLIMIT_NOFILE, policy->nofile},
		{RLIMIT_NPROC, policy->nproc},
		{RLIMIT_FSIZE, policy->fsize},
		{RLIMIT_CPU, policy->cpu_s},
#ifndef SANITIZED
		{RLIMIT_DATA, policy->data},
		{RLIMIT_AS, policy->as},
#endif
	};
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(limits) && r == 0; i++)
		r = limit(limits[i].resource, limits[i].value);
	return r;
}

/* Whether an EPERM means that there was nothing to drop. */
static bool harmless(void)
{
	return errno == EPERM && geteuid() != 0;
}

/* The bounding set goes while CAP_SETPCAP is still there, that is before the uid. Without that
 * capability it stays, which no_new_privs makes harmless: nothing can be gained by execve(). */
static void drop_bounding_set(void)
{
	for (cap_value_t cap = 0; cap_get_bound(cap) >= 0; cap++)
		(void)cap_drop_bound(cap);
}

static int drop_identity(const struct sandbox_policy *policy, struct err_text *err)
{
	gid_t group = (gid_t)-1;
	int n = getgroups(1, &group); /* -1 also when there are more */

	/* Its own group again is no privilege; a root without CAP_SETGID need not fail for it. */
	if (n < 0 || (n == 1 && group != getegid()))
		if (setgroups(0, NULL) < 0 && !harmless())
			return err_set(err, -errno, "%s: cannot drop the groups: %m", policy->name);
	if (policy->keep_caps && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		return err_set(err, -errno, "%s: cannot keep the capabilities: %m", policy->name);
	if (policy->gid != (gid_t)-1 && setresgid(policy->gid, policy->gid, policy->gid) < 0 &&
		!harmless())
		return err_set(
			err, -errno, "%s: cannot take gid %u: %m", policy->name, policy->gid);
	if (policy->uid != (uid_t)-1 && setresuid(policy->uid, policy->uid, policy->uid) < 0 &&
		!harmless())
		return err_set(
			err, -errno, "%s: cannot take uid %u: %m", policy->name, policy->uid);
	return 0;
}

static void free_caps(cap_t *caps)
{
	if (*caps)
		cap_free(*caps);
}

static bool permitted(cap_t caps, cap_value_t cap)
{
	cap_flag_value_t value = CAP_CLEAR;

	return cap_get_flag(caps, cap, CAP_PERMITTED, &value) == 0 && value == CAP_SET;
}

/* What looking at other users' processes and files takes, of what there is; SYS_ADMIN only for want of
 * CHECKPOINT_RESTORE (kernel 5.9). A change of uid emptied the effective set and left the permitted one. */
static int keep_looking(cap_t caps)
{
	const cap_value_t looking[] = {CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH,
		permitted(caps, CAP_CHECKPOINT_RESTORE) ? CAP_CHECKPOINT_RESTORE : CAP_SYS_ADMIN};
	cap_value_t kept[ARRAY_SIZE(looking)];
	int n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(looking); i++)
		if (permitted(caps, looking[i]))
			kept[n++] = looking[i];
	if (cap_clear(caps) < 0)
		return -errno;
	if (n > 0 &&
		(cap_set_flag(caps, CAP_PERMITTED, n, kept, CAP_SET) < 0 ||
			cap_set_flag(caps, CAP_EFFECTIVE, n, kept, CAP_SET) < 0))
		return -errno;
	return 0;
}

uid_t sandbox_nobody(void)
{
	CLEANUP(free_caps) cap_t caps = geteuid() == 0 ? NULL : cap_get_proc();
	cap_flag_value_t uid = CAP_CLEAR, gid = CAP_CLEAR;

	if (geteuid() == 0)
		return NOBODY;
	if (!caps || cap_get_flag(caps, CAP_SETUID, CAP_EFFECTIVE, &uid) < 0 ||
		cap_get_flag(caps, CAP_SETGID, CAP_EFFECTIVE, &gid) < 0)
		return (uid_t)-1;
	return uid == CAP_SET && gid == CAP_SET ? NOBODY : (uid_t)-1;
}

static int drop_capabilities(const struct sandbox_policy *policy)
{
	CLEANUP(free_caps) cap_t caps = policy->keep_caps ? cap_get_proc() : cap_init();
	CLEANUP(free_caps) cap_t now = NULL;

	if (!caps)
		return -errno;
	/* Kernels without the ambient set have nothing to clear. */
	if (cap_reset_ambient() < 0 && errno != EINVAL)
		return -errno;
	if (policy->keep_caps && keep_looking(caps) < 0)
		return -errno;
	if (cap_set_proc(caps) < 0)
		return -errno;
	/* Believed only when it is seen. */
	now = cap_get_proc();
	if (!now)
		return -errno;
	return cap_compare(now, caps) == 0 ? 0 : -EPERM;
}

/* Up to the capabilities. What commit_creds() undoes is done again after it. */
static int drop_privileges(const struct sandbox_policy *policy, struct err_text *err)
{
	int death_signal = 0, r;
	pid_t parent = getppid();

	(void)prctl(PR_GET_PDEATHSIG, &death_signal, 0, 0, 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_set(err, -errno, "%s: cannot set no_new_privs: %m", policy->name);
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return err_set(err, -errno, "%s: cannot become undumpable: %m", policy->name);
	r = set_limits(policy);
	if (r < 0)
		return err_set(
			err, r, "%s: cannot set its limits: %s", policy->name, strerrordesc_np(-r));
	if (!policy->keep_caps)
		drop_bounding_set();
	r = drop_identity(policy, err);
	if (r < 0)
		return r;
	r = drop_capabilities(policy);
	if (r < 0)
		return err_set(err, r, "%s: cannot drop its capabilities: %s", policy->name,
			strerrordesc_np(-r));
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ||
		(death_signal && prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) < 0))
		return err_set(
			err, -errno, "%s: cannot set its death signal again: %m", policy->name);
	if (death_signal && getppid() != parent)
		return err_set(err, -EPIPE, "%s: its parent has ended", policy->name);
	return 0;
}

static void release_prepared(struct prepared *p)
{
	closep(&p->ruleset);
}

int sandbox_enter(const struct sandbox_policy *policy, struct err_text *err)
{
	CLEANUP(release_prepared) struct prepared p = {.ruleset = -1};
	bool filtered = policy->syscalls || policy->refused || policy->deny_network ||
		!policy->exec_mappings;
	struct sock_fprog program = {.filter = p.filter};
	int r;

	/* Else `ps` shows "exe" for every role, after the link that was executed. */
	(void)prctl(PR_SET_NAME, policy->name, 0, 0, 0);
	r = filtered ? compile_filter(policy, &p) : 0;
	if (r < 0)
		return err_set(err, r, "%s: cannot make its system call filter: %s", policy->name,
			strerrordesc_np(-r));
	r = policy->deny_paths ? make_ruleset(policy, &p) : 0;
	if (r < 0)
		return err_set(err, r, "%s: cannot make its Landlock rules: %s", policy->name,
			strerrordesc_np(-r));
	r = drop_privileges(policy, err);
	if (r < 0)
		return r;
	r = p.ruleset >= 0 ? landlock_enter(p.ruleset) : 0;
	if (r < 0)
		return err_set(err, r, "%s: cannot enter its Landlock rules: %s", policy->name,
			strerrordesc_np(-r));
	closep(&p.ruleset);
#ifdef SANITIZED
	entered = true;
#endif
	program.len = p.n_filter;
	if (p.n_filter && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
		return err_set(
			err, -errno, "%s: cannot load its system call filter: %m", policy->name);
	return 0;
}
