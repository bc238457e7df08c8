/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Parca's own request: for each profile the labels of its series and a pprof, gzipped. */

#include "agentd/profile/profile.h"

/* Appends the WriteRawRequest of the chosen parts. Labels are the text attributes of the part's resource, with names
 * that Parca takes (letters, digits, '_': "service.name" is "service_name"), and __name__, its profile's name. */
int write_raw_encode(const struct batch *b, const uint32_t *parts, size_t n_parts, struct buf *out);
/* A request without series: it is taken and stores nothing. */
int write_raw_encode_empty(struct buf *out);
