/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by catalogue.c (the files) and types.c (what is built in, options). */

#include "agentd/base/macros.h"

#define CATALOGUE_MAX_FIELDS 64

/* A token of RFC 9110, at most 128 bytes. */
bool catalogue_is_header_name(const char *s);
