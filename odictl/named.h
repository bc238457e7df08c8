/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What sources and destinations have in common: objects with a name, pairs, a switch. `what`: "source". */

#include "odictl/cli.h"

int named_set_enabled(struct cli *cli, const char *what, const char *name, bool enabled);
/* Asks on a terminal, needs --yes elsewhere. */
int named_remove(struct cli *cli, const char *what, const char *name);
void named_json_pairs(struct json *j, const char *key, Control__KeyValue **list, size_t n);
void named_json_strings(struct json *j, const char *key, char **list, size_t n);
void named_print_pairs(const char *title, Control__KeyValue **list, size_t n);
