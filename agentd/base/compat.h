/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What libc has on the newest of the systems that odi runs on, for those that build it with an older one. Packages
 * are built with glibc 2.31, so that one build runs everywhere: no function that came later may be linked
 * to. With a libc that has them, nothing here is used. Included by macros.h. */

#include <features.h>

#if defined(__GLIBC__) && !__GLIBC_PREREQ(2, 32)
#define strerrordesc_np compat_strerrordesc
#define sigabbrev_np    compat_sigabbrev
/* Never NULL, unlike the real one: an unknown number is named as such. Valid until the next call. */
const char *compat_strerrordesc(int error);
/* "SEGV" for SIGSEGV; NULL for a number that is none of the standard signals. */
const char *compat_sigabbrev(int signal);
#endif

#if defined(__GLIBC__) && !__GLIBC_PREREQ(2, 34)
#include <sys/syscall.h>

/* Calls have had the same numbers on all architectures since kernel 5.1. */
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_openat2
#define SYS_openat2 437
#endif
#ifndef SYS_faccessat2
#define SYS_faccessat2 439
#endif
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule       445
#define SYS_landlock_restrict_self  446
#endif

#define close_range compat_close_range
#define closefrom   compat_closefrom
/* close_range(2), kernel 5.9: 0 or -1 and errno. Both may be called between fork and exec. */
int compat_close_range(unsigned first, unsigned last, int flags);
void compat_closefrom(int from);
#endif

#if defined(__GLIBC__) && !__GLIBC_PREREQ(2, 33)
/* mallinfo() counts in int; the process that asks may have some hundred megabytes at most (elf/dwarf_file.c). */
#define mallinfo2 mallinfo
#endif
