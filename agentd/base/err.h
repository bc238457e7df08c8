/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Text for people that travels beside an error code. The caller owns it and may pass NULL. It says
 * what happened, to what, and what to do next; it never contains a secret. */

#include "agentd/base/macros.h"

struct err_text {
	char text[768];
};

/* Sets the text (replacing what was there) and returns code, so that
 * `return err_set(err, -EINVAL, "...")` reads well. %m is errno at the call. Control characters are
 * replaced by '?': the text may quote what a stranger sent. */
int err_set(struct err_text *err, int code, const char *format, ...) PRINTF(3, 4);

/* Puts "format: " before the text that is there. Returns code. */
int err_prefix(struct err_text *err, int code, const char *format, ...) PRINTF(3, 4);
