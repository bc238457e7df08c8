/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Child roles of the one binary: how they start, what they may do, how they end. A child is
 * /proc/self/exe again with `--role NAME`, a SOCK_SEQPACKET socket at SANDBOX_FD, an empty environment
 * (but for the sanitizers' variables and JOURNAL_STREAM), standard input from /dev/null, standard output
 * joined to standard error, no other descriptor. It enters its sandbox itself, first thing, and dies when
 * the thread that started it does. */

#include <sys/resource.h>
#include <systemd/sd-event.h>
#include "agentd/base/err.h"

#define SANDBOX_FD 3

struct sandbox_child {
	pid_t pid; /* -1 none */
	int pidfd; /* readable when it has ended */
	int sock;  /* our end, non-blocking */
};
#define SANDBOX_CHILD_NONE ((struct sandbox_child){.pid = -1, .pidfd = -1, .sock = -1})

/* The path that is executed; /proc/self/exe by default. Tests set their own program. */
void sandbox_set_program(const char *path);

/* Starts a role. extra: NULL-terminated arguments after --role NAME, or NULL. */
int sandbox_spawn(struct sandbox_child *ret, const char *role, const char *const *extra,
	struct err_text *err);
/* SIGKILL, reaps, closes; *c becomes SANDBOX_CHILD_NONE. Safe on an empty one. Waits at most 100 ms: a child
 * that cannot die at once (it waits in the kernel) is reaped by a later sandbox_spawn() or sandbox_kill(). */
void sandbox_kill(struct sandbox_child *c);
/* Reaps an ended child (pidfd readable): 0 and its wait status, -EAGAIN if it still runs. Leaves sock and pidfd open:
 * drop the event sources on them, then sandbox_kill(). The other way round, epoll would go on to report a descriptor
 * that a child just forked still has a copy of, with a source that is gone. */
int sandbox_reap(struct sandbox_child *c, int *status);
/* "exited with 1", "killed by SIGSYS (a system call outside its list)". */
void sandbox_describe_status(int status, char *out, size_t size);

/* What a role keeps. Everything else is gone after sandbox_enter(). */
struct sandbox_policy {
	const char *name;
	/* Allowed calls (SYS_x); -1 ends; NULL: no list. Calls outside a list kill the process, but for those
	 * in `refused`, which answer EACCES (also without a list). What ending takes (exit, clock_gettime,
	 * tgkill of itself, ...) is always allowed. */
	const int *syscalls;
	const int *refused; /* -1 ends; may be NULL; wins over syscalls */
	/* false: mmap and mprotect with PROT_EXEC kill; without a list they answer EACCES, which also stops
	 * dlopen(). */
	bool exec_mappings;
	bool keep_caps; /* keep those of agentd's that looking at others takes (the /proc reader) */
	/* Landlock: no path may be opened; where the kernel has none (landlock_abi() 0) this rests on the filter alone. */
	bool deny_paths;
	/* No socket(2) but AF_UNIX: others answer EACCES. With a list that lacks socket(2), any kills. */
	bool deny_network;
	uid_t uid; /* (uid_t)-1: leave */
	gid_t gid;
	rlim_t nofile, nproc, fsize, data, as, cpu_s; /* RLIM_INFINITY: leave */
};

/* Sets no_new_privs, dumpable 0, limits, groups, uid, capabilities, Landlock, the filter; in that order.
 * Non-zero means: do not go on. As a user who is not root, what cannot be dropped is not there to drop. */
int sandbox_enter(const struct sandbox_policy *policy, struct err_text *err);

/* What the kernel says of a process. */
struct sandbox_seen {
	uint64_t capabilities; /* permitted or inheritable, by bits */
	uid_t uid;             /* real */
	bool filtered, no_new_privileges;
};
/* 0; -ENOENT or -ESRCH: it has ended; another -errno. */
int sandbox_look(pid_t pid, struct sandbox_seen *ret);

/* The id of nobody for uid and gid of a policy, where it can be taken (by root, or with CAP_SETUID and CAP_SETGID); else
 * (uid_t)-1: the role stays who agentd is. */
uid_t sandbox_nobody(void);

/* Called atop main() of every role: closes all descriptors from `from` on. */
void sandbox_close_from(int from);
