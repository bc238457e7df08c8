/* SPDX-License-Identifier: Apache-2.0 */

/* argv and roles. One binary: the daemon, and the children that it starts as `--role NAME`, each of
 * which enters its sandbox before it looks at anything (HOUSE: four roles). */

#include "agentd/base/log.h"
#include "agentd/base/sandbox.h"
#include "agentd/container/container.h"
#include "agentd/daemon.h"
#include "agentd/daemon_pages.h"
#include "agentd/process/process.h"
#include "agentd/profile/local.h"
#include "agentd/symbol/symbol.h"
#include "agentd/unwind/client.h"
#include "destinations/link.h"

static const struct {
	const char *name;
	int (*main)(void);
} roles[] = {
	{"symbolizer", symbol_role_main},
	{"unwinder", unwind_role_main},
	{"exporter", exporter_main},
	{"reader", local_reader_main},
	{"proc", process_reader_main},
	{"container", container_role_main},
};

int main(int argc, char **argv)
{
	if (argc >= 3 && streq(argv[1], "--role")) {
		sandbox_close_from(SANDBOX_FD + 1);
		for (size_t i = 0; i < ARRAY_SIZE(roles); i++) {
			if (streq(argv[2], roles[i].name)) {
				log_init(roles[i].name, LOG_LEVEL_INFO);
				return roles[i].main() < 0 ? 1 : 0;
			}
		}
		fprintf(stderr,
			"agentd: there is no role '%s'; roles are started by agentd itself\n",
			argv[2]);
		return 2;
	}
	/* Not for people, who have man(1): it makes what man shows. */
	if (argc == 3 && streq(argv[1], "--page"))
		return daemon_page(argv[2]);
	return daemon_main(argc, argv);
}
