/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the commands about configuration share. */

#include "odictl/cli.h"

#define CONFIG_KEY_MAX 520

/* "profiling.rate" becomes "profiling/rate". */
void config_key(const char *typed, char *out, size_t size);
/* The age of a source or destination, which keeps them in order and says nothing to people. */
bool config_is_age(const char *path);
/* The effective values at and below prefix. 0 or an exit code. */
int config_get(struct cli *cli, const char *prefix, Control__Reply **ret);
/* Effective values that are no defaults, as YAML that agentd reads; secrets as references, or "(secret)". */
void config_yaml(const Control__Config *c, struct buf *out);
