/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by the commands about destinations. */

#include "odictl/cli.h"

/* Those of that name (NULL: all); 0 or an exit code. */
int destination_get(struct cli *cli, const char *name, Control__Reply **ret);
/* One of a list, wherever it is listed. */
void destination_json(struct json *j, const Control__DestinationState *d);
void destination_ledger_json(struct json *j, const char *key, const Control__DestinationLedger *l);
