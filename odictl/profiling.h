/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What `profiling status` and `status` say alike of profiling's settings. */

#include "odictl/cli.h"

/* "99 Hz", or the one in force and the one that is set where they differ. */
void profiling_rate_text(const Control__Status *s, char *out, size_t size);
/* The members of the object that is open. */
void profiling_json(struct json *j, const Control__Status *s);
/* The whole status as one object on standard output. An exit code. */
int status_print_json(const Control__Status *s);
