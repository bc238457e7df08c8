/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The rows of transport.c's table. */

#include "destinations/transport.h"

extern const struct transport transport_otlphttp, transport_otlpgrpc, transport_parca,
	transport_file, transport_debug;
