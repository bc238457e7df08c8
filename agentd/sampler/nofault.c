/* SPDX-License-Identifier: Apache-2.0 */

/* The one test by version in the house, because the defect cannot be probed: probing is freezing.
 *
 * Since 5.19 a copy from user space with page faults off could take vmap's lock in find_vmap_area()
 * (0aef499f3172 "mm/usercopy: Detect vmalloc overruns"), from interrupts too; a CPU that held it
 * then waited for itself. d319f344561d ("mm: Fix copy_from_user_nofault().") ended that in 6.4, and
 * in 6.1.36 and 6.3.10 of the stable series. 5.19, 6.0 and 6.2 never got it.
 *
 * Distributions hide the patch level that this hangs on: Debian's release says 6.1.0, Ubuntu's
 * 6.2.0. The real one is in uname's version (Debian) and in /proc/version_signature (Ubuntu). Any
 * other release whose patch level is 0 and that goes on with a name of its own tells us nothing, so
 * we say that. Runs in agentd. */

#include <stdio.h>
#include <string.h>
#include "agentd/sampler/nofault.h"

/* Returns the characters read, 0 when text does not begin with a version. */
static int parse(const char *text, struct nofault_version *v)
{
	int used = 0;

	*v = (struct nofault_version){0};
	if (sscanf(text, "%4u.%4u.%4u%n", &v->major, &v->minor, &v->patch, &used) == 3)
		return used;
	v->patch = 0;
	if (sscanf(text, "%4u.%4u%n", &v->major, &v->minor, &used) == 2)
		return used;
	return 0;
}

static bool before(const struct nofault_version *v, unsigned major, unsigned minor)
{
	return v->major < major || (v->major == major && v->minor < minor);
}

static enum nofault judge_exact(const struct nofault_version *v)
{
	if (before(v, 5, 19) || !before(v, 6, 4))
		return NOFAULT_SAFE;
	if (v->major == 6 && v->minor == 1 && v->patch >= 36)
		return NOFAULT_SAFE;
	if (v->major == 6 && v->minor == 3 && v->patch >= 10)
		return NOFAULT_SAFE;
	return NOFAULT_FREEZES;
}

enum nofault nofault_judge(const char *release, const char *version, const char *signature,
	struct nofault_version *used)
{
	struct nofault_version v;
	const char *at;
	int n;

	if (!used)
		used = &v;
	/* "Ubuntu 6.2.0-39.40~22.04.1-generic 6.2.16": the last word is upstream's version. */
	at = signature ? strrchr(signature, ' ') : NULL;
	if (at && parse(at + 1, used))
		return judge_exact(used);
	/* "#1 SMP PREEMPT_DYNAMIC Debian 6.1.129-1 (2025-03-06)" */
	at = version ? strstr(version, " Debian ") : NULL;
	if (at && parse(at + strlen(" Debian "), used))
		return judge_exact(used);
	n = release ? parse(release, used) : 0;
	if (!n) {
		*used = (struct nofault_version){0};
		return NOFAULT_UNKNOWN;
	}
	/* "6.1.0-1025-oem": a 0 that stands for any patch level. "-rc" is upstream's own. */
	if (used->patch == 0 && release[n] == '-' && strncmp(release + n, "-rc", 3) != 0 &&
		judge_exact(used) == NOFAULT_FREEZES)
		return NOFAULT_UNKNOWN;
	return judge_exact(used);
}
