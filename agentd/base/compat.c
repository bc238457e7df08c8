/* SPDX-License-Identifier: Apache-2.0 */

/* Functions of newer versions of glibc, for the one that packages are built with (compat.h says why).
 *
 * Empty where libc has them. compat_close_range() and compat_closefrom() allocate nothing, since a forked child
 * calls them before it becomes another program. Source: close_range(2), proc(5), strerror(3). Every role. */

#include <signal.h>
#include <sys/resource.h>

#include "agentd/base/macros.h"

#if defined(__GLIBC__) && !__GLIBC_PREREQ(2, 32)
const char *compat_strerrordesc(int error)
{
	return strerror(error);
}

const char *compat_sigabbrev(int signal)
{
	static const char *const names[] = {[SIGHUP] = "HUP",
		[SIGINT] = "INT",
		[SIGQUIT] = "QUIT",
		[SIGILL] = "ILL",
		[SIGTRAP] = "TRAP",
		[SIGABRT] = "ABRT",
		[SIGBUS] = "BUS",
		[SIGFPE] = "FPE",
		[SIGKILL] = "KILL",
		[SIGUSR1] = "USR1",
		[SIGSEGV] = "SEGV",
		[SIGUSR2] = "USR2",
		[SIGPIPE] = "PIPE",
		[SIGALRM] = "ALRM",
		[SIGTERM] = "TERM",
		[SIGCHLD] = "CHLD",
		[SIGCONT] = "CONT",
		[SIGSTOP] = "STOP",
		[SIGTSTP] = "TSTP",
		[SIGXCPU] = "XCPU",
		[SIGXFSZ] = "XFSZ",
		[SIGSYS] = "SYS"};

	return signal > 0 && (size_t)signal < ARRAY_SIZE(names) ? names[signal] : NULL;
}
#endif

#if defined(__GLIBC__) && !__GLIBC_PREREQ(2, 34)
int compat_close_range(unsigned first, unsigned last, int flags)
{
	return (int)syscall(SYS_close_range, first, last, flags);
}

/* Kernels before 5.9 alone: every number up to the limit, since reading a folder would allocate. */
void compat_closefrom(int from)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur > 1 << 20)
		limit.rlim_cur = 1 << 20;
	for (int fd = from; fd < (int)limit.rlim_cur; fd++)
		(void)close(fd);
}
#endif
