/* SPDX-License-Identifier: Apache-2.0 */

/* What is said of the host in every profile. The machine id itself never leaves: machine-id(5) asks
 * that it be hashed with an id of the application's own. Runs in agentd. */

#include <limits.h>
#include <sys/resource.h>
#include <systemd/sd-id128.h>
#include "agentd/base/log.h"
#include "agentd/base/sha256.h"
#include "agentd/base/text.h"
#include "agentd/daemon_host.h"

#define NICE_WANTED   (-10)
#define NOFILE_WANTED 16384

/* The application id that host.id is derived with; fixed for ever, or hosts change their names. */
static const sd_id128_t odi_app_id =
	SD_ID128_MAKE(8c, 1f, 0b, 5e, 93, 4d, 4a, 6f, b2, 0e, 57, c1, 36, d8, a9, 74);

int daemon_host_facts(struct daemon *d, struct err_text *err)
{
	char name[HOST_NAME_MAX + 1] = "";
	sd_id128_t id;
	int r;

	gethostname(name, sizeof(name) - 1);
	text_clean(name);
	d->host.name = strdup(name);
	r = sd_id128_get_machine(&id);
	if (r >= 0) {
		char text[SD_ID128_STRING_MAX];

		sha256_app_id(id.bytes, odi_app_id.bytes, id.bytes);
		d->host.id = strdup(sd_id128_to_string(id, text));
	} else {
		log_info("no machine id (/etc/machine-id: %s): host.id is left out", strerror(-r));
		d->host.id = strdup("");
	}
	if (sd_id128_get_boot(&id) == 0)
		memcpy(d->boot_id, &id, sizeof(d->boot_id));
	r = kernel_code_new(&d->kernel_code, "/");
	if (r < 0)
		return err_set(err, r, "the kernel's code cannot be watched: %s", strerror(-r));
	return 0;
}

void daemon_host_free(struct daemon *d)
{
	free(d->host.name);
	free(d->host.id);
	d->host = (struct host_facts){};
	d->kernel_code = kernel_code_free(d->kernel_code);
}

void daemon_raise_limits(void)
{
	struct rlimit l = {RLIM_INFINITY, RLIM_INFINITY};

	if (setrlimit(RLIMIT_MEMLOCK, &l) < 0)
		log_debug("cannot raise RLIMIT_MEMLOCK: %m");
	if (getrlimit(RLIMIT_NOFILE, &l) == 0 && l.rlim_cur < NOFILE_WANTED) {
		l.rlim_cur = NOFILE_WANTED;
		l.rlim_max = MAX(l.rlim_max, (rlim_t)NOFILE_WANTED);
		if (setrlimit(RLIMIT_NOFILE, &l) < 0)
			log_warning("cannot raise RLIMIT_NOFILE to %d: %m", NOFILE_WANTED);
	}
	/* What agentd does on a host whose CPUs are all taken is little, but samples wait for it: with 15 busy
	 * threads on two CPUs the first whole stack came after 7 to 12 s, with this after 1 s. Its roles
	 * inherit it. Who starts agentd may have chosen another one. */
	errno = 0;
	if (getpriority(PRIO_PROCESS, 0) == 0 && errno == 0 &&
		setpriority(PRIO_PROCESS, 0, NICE_WANTED) < 0)
		log_debug("cannot raise the priority: %m");
}
