/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What a function prints, as a string: standard output and standard error apart. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <sys/mman.h>

#include "odictl/cli.h"

static int captured_fds[2], saved_fds[2];
static char captured_out[1 << 16], captured_err[1 << 16];

static inline void capture_start(void)
{
	fflush(stdout);
	fflush(stderr);
	for (int i = 0; i < 2; i++) {
		captured_fds[i] = memfd_create("captured", MFD_CLOEXEC);
		saved_fds[i] = dup(i + 1);
		assert_true(captured_fds[i] >= 0 && saved_fds[i] >= 0);
		assert_int_equal(dup2(captured_fds[i], i + 1), i + 1);
	}
}

static inline void capture_end(void)
{
	char *const texts[] = {captured_out, captured_err};

	fflush(stdout);
	fflush(stderr);
	for (int i = 0; i < 2; i++) {
		ssize_t n = pread(captured_fds[i], texts[i], sizeof(captured_out) - 1, 0);

		dup2(saved_fds[i], i + 1);
		close(saved_fds[i]);
		close(captured_fds[i]);
		assert_true(n >= 0);
		texts[i][n] = '\0';
	}
}

#define CAPTURE(call)                                                                              \
	({                                                                                         \
		capture_start();                                                                   \
		__auto_type captured_ = (call);                                                    \
		capture_end();                                                                     \
		captured_;                                                                         \
	})

static inline void assert_says(const char *text, const char *part)
{
	if (!strstr(text, part))
		fail_msg("\"%s\" is not in \"%s\"", part, text);
}
