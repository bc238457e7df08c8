/* SPDX-License-Identifier: Apache-2.0 */

/* Which kernels are refused: real strings of real kernels, as uname(2) and /proc give them. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "agentd/base/macros.h"
#include "agentd/sampler/nofault.h"

static const struct {
	const char *release, *version, *signature;
	enum nofault expected;
} kernels[] = {
	/* upstream and kernels that keep its numbers */
	{"5.10.0", "#1 SMP Mon Dec 14 00:00:00 UTC 2020", NULL, NOFAULT_SAFE},
	{"5.18.19", "#1 SMP PREEMPT_DYNAMIC", NULL, NOFAULT_SAFE},
	{"5.19.0", "#1 SMP PREEMPT_DYNAMIC", NULL, NOFAULT_FREEZES},
	{"6.0.19", "#1 SMP PREEMPT_DYNAMIC", NULL, NOFAULT_FREEZES},
	{"6.1.35", "#1 SMP PREEMPT_DYNAMIC", NULL, NOFAULT_FREEZES},
	{"6.1.36", "#1 SMP PREEMPT_DYNAMIC", NULL, NOFAULT_SAFE},
	{"6.2.16", "#1 SMP PREEMPT_DYNAMIC", NULL, NOFAULT_FREEZES},
	{"6.3.9", "#1 SMP PREEMPT_DYNAMIC", NULL, NOFAULT_FREEZES},
	{"6.3.10", "#1 SMP PREEMPT_DYNAMIC", NULL, NOFAULT_SAFE},
	{"6.4.0", "#1 SMP PREEMPT_DYNAMIC", NULL, NOFAULT_SAFE},
	{"6.4.0-rc1", "#1 SMP PREEMPT_DYNAMIC", NULL, NOFAULT_SAFE},
	{"6.3.0-rc7", "#1 SMP PREEMPT_DYNAMIC", NULL, NOFAULT_FREEZES},
	{"6.18.44-fc-v669", "#1 SMP PREEMPT_DYNAMIC @0", NULL, NOFAULT_SAFE},
	/* Arch, Fedora, Amazon: the patch level is in the release */
	{"6.1.31-2-lts", "#1 SMP PREEMPT_DYNAMIC Fri, 02 Jun 2023 13:58:22 +0000", NULL,
		NOFAULT_FREEZES},
	{"6.3.8-200.fc38.x86_64", "#1 SMP PREEMPT_DYNAMIC Thu Jun 15 02:15:40 UTC 2023", NULL,
		NOFAULT_FREEZES},
	{"6.3.11-200.fc38.x86_64", "#1 SMP PREEMPT_DYNAMIC Sun Jul  2 13:17:31 UTC 2023", NULL,
		NOFAULT_SAFE},
	{"6.1.29-50.88.amzn2023.x86_64", "#1 SMP PREEMPT_DYNAMIC Mon Jun 12 19:22:10 UTC 2023",
		NULL, NOFAULT_FREEZES},
	{"6.1.115-126.197.amzn2023.x86_64", "#1 SMP PREEMPT_DYNAMIC Tue Nov  5 17:36:57 UTC 2024",
		NULL, NOFAULT_SAFE},
	/* Debian: the release says 6.1.0 for ever */
	{"5.10.0-30-amd64", "#1 SMP Debian 5.10.218-1 (2024-06-01)", NULL, NOFAULT_SAFE},
	{"6.1.0-9-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.27-1 (2023-05-08)", NULL,
		NOFAULT_FREEZES},
	{"6.1.0-10-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.38-1 (2023-07-14)", NULL,
		NOFAULT_SAFE},
	{"6.1.0-32-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.129-1 (2025-03-06)", NULL,
		NOFAULT_SAFE},
	{"6.3.0-1-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.3.7-1 (2023-06-12)", NULL,
		NOFAULT_FREEZES},
	{"6.12.43+deb13-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.12.43-1 (2025-08-27)", NULL,
		NOFAULT_SAFE},
	/* Ubuntu: the signature's last word */
	{"5.15.0-119-generic", "#129-Ubuntu SMP Fri Aug 2 19:25:20 UTC 2024",
		"Ubuntu 5.15.0-119.129-generic 5.15.160", NOFAULT_SAFE},
	{"5.19.0-50-generic", "#50-Ubuntu SMP PREEMPT_DYNAMIC Mon Jul 10 18:24:29 UTC 2023",
		"Ubuntu 5.19.0-50.50-generic 5.19.17", NOFAULT_FREEZES},
	{"6.2.0-39-generic", "#40~22.04.1-Ubuntu SMP PREEMPT_DYNAMIC Thu Nov 16 10:53:04 UTC 2",
		"Ubuntu 6.2.0-39.40~22.04.1-generic 6.2.16", NOFAULT_FREEZES},
	{"6.1.0-1036-oem", "#36-Ubuntu SMP PREEMPT_DYNAMIC Fri Feb 23 00:00:00 UTC 2024",
		"Ubuntu 6.1.0-1036.36-oem 6.1.75", NOFAULT_SAFE},
	{"6.8.0-41-generic", "#41-Ubuntu SMP PREEMPT_DYNAMIC Fri Aug  2 20:41:06 UTC 2024",
		"Ubuntu 6.8.0-41.41-generic 6.8.12", NOFAULT_SAFE},
	/* Red Hat and kin: older base, out of the range */
	{"4.18.0-553.el8_10.x86_64", "#1 SMP Fri May 24 13:05:10 UTC 2024", NULL, NOFAULT_SAFE},
	{"5.14.0-427.13.1.el9_4.x86_64", "#1 SMP PREEMPT_DYNAMIC Wed May 1 19:11:28 UTC 2024", NULL,
		NOFAULT_SAFE},
	{"6.12.0-55.9.1.el10_0.x86_64", "#1 SMP PREEMPT_DYNAMIC", NULL, NOFAULT_SAFE},
	/* in the range, patch level hidden, no other word of it */
	{"6.1.0-1036-oem", "#36-Ubuntu SMP PREEMPT_DYNAMIC Fri Feb 23 00:00:00 UTC 2024", NULL,
		NOFAULT_UNKNOWN},
	{"6.2.0-26-generic", "#26-Ubuntu SMP PREEMPT_DYNAMIC", "", NOFAULT_UNKNOWN},
	{"6.1.0-vendor", "#1 SMP", NULL, NOFAULT_UNKNOWN},
	/* nonsense */
	{"", "", NULL, NOFAULT_UNKNOWN},
	{"linux", "Debian", "Ubuntu", NOFAULT_UNKNOWN},
	{NULL, NULL, NULL, NOFAULT_UNKNOWN},
};

static void test_kernels(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(kernels); i++) {
		enum nofault got = nofault_judge(
			kernels[i].release, kernels[i].version, kernels[i].signature, NULL);

		if (got != kernels[i].expected)
			fail_msg("%s (%s): %d, not %d", kernels[i].release, kernels[i].version, got,
				kernels[i].expected);
	}
}

static void test_what_decided(void **state)
{
	struct nofault_version v;

	nofault_judge(
		"6.1.0-9-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.27-1 (2023-05-08)", NULL, &v);
	assert_int_equal(v.major, 6);
	assert_int_equal(v.minor, 1);
	assert_int_equal(v.patch, 27);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kernels),
		cmocka_unit_test(test_what_decided),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
