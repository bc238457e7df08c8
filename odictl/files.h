/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Options whose word on the command line names a file: read with the rights of who types it, and handed to agentd as a
 * descriptor. Nothing of a secret is ever an argument, printed or kept here. */

#include "odictl/cli.h"

/* The change at path for what `from` (of the option's spec) makes of file, which may be "-" (ask, or standard input) and
 * "cred:NAME" as well. option: as it was written, for texts. 0 or an exit code. */
int file_change(struct cli *cli, struct change_list *l, const char *path, const char *option,
	const struct option_spec *spec, const char *file);
