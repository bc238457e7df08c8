/* SPDX-License-Identifier: Apache-2.0 */
/* The host's vDSO, as a file.
 *
 * The kernel maps the same image into every 64-bit process, so ours is theirs: a copy of it needs no
 * process's word and can be handed to the symbolizer like any file. Source: vdso(7). Runs in agentd. */

#include "agentd/base/io.h"
#include "agentd/process/files.h"
#include "agentd/process/procfs.h"

int files_copy_vdso(void)
{
	_cleanup_fclose_ FILE *maps = fopen("/proc/self/maps", "re");
	char *line = NULL;
	size_t size = 0;
	int fd = -1;

	while (maps && fd < 0 && getline(&line, &size, maps) > 0) {
		struct procfs_map map;

		line[strcspn(line, "\n")] = 0;
		if (procfs_map(line, &map) == 0 && streq(map.path, "[vdso]"))
			fd = io_sealed_memfd(
				"vdso", (const void *)(uintptr_t)map.start, map.end - map.start);
	}
	free(line);
	return fd;
}
