/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by the commands about destinations. */

#include "odictl/cli.h"

/* Those of that name (NULL: all); 0 or an exit code. */
int destination_get(struct cli *cli, const char *name, Control__Reply **ret);
