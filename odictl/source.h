/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the commands for sources share. */

#include "odictl/cli.h"

/* One source by name, or all (NULL). 0 or an exit code. */
int source_get(struct cli *cli, const char *name, bool images, Control__Reply **ret);
/* "3 processes", "matches nothing yet", "disabled" */
void source_describe_matches(const Control__SourceState *s, char *out, size_t size);
void source_json(struct json *j, const Control__SourceState *s);
/* What a source is called when nobody says: out is a valid name (size > 64). */
void source_default_name(const char *kind, const char *match, char *out, size_t size);
