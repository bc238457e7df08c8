/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Our own metrics as OTLP, to the destinations that want them (metrics=on, of types that speak OTLP). */

#include "destinations/protocol.h"

/* The destinations in force; borrowed for the call. 0 or -ENOMEM. */
int metrics_push_configure(const struct destination_spec *specs, size_t n);
/* One OTLP request, borrowed. It goes to each once, and is not tried again: the next one says more. */
void metrics_push(const void *bytes, size_t len);
void metrics_push_deinit(void);
