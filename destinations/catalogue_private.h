/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by catalogue*.c (the files), common.c (options that many have) and types.c (which types there are, options). */

#include "agentd/base/macros.h"
#include "sources/source.h"

#define CATALOGUE_MAX_FIELDS  64  /* of a file */
#define CATALOGUE_MAX_OPTIONS 128 /* with the groups' and the common ones */
#define CATALOGUE_MAX_TYPES   128
#define CATALOGUE_MAX_FILE    (64U << 10) /* bytes */

struct destination_group {
	const char *name;
	const struct option_desc *options;
};
extern const struct destination_group destination_groups[]; /* ends with name NULL */

/* A token of RFC 9110, at most 128 bytes. */
bool catalogue_is_header_name(const char *s);
