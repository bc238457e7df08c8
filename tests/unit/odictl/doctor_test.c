/* SPDX-License-Identifier: Apache-2.0 */

/* Hosts that are wrong in one way each, as folders. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "odictl/doctor.h"

static char folder[] = "/tmp/odi-doctor-XXXXXX";

static void put(const char *path, const char *text)
{
	char full[300], *slash;
	FILE *f;

	snprintf(full, sizeof(full), "%s/%s", folder, path);
	for (slash = strchr(full + sizeof(folder), '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		(void)mkdir(full, 0755);
		*slash = '/';
	}
	f = fopen(full, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void take_away(const char *path)
{
	char full[300];

	snprintf(full, sizeof(full), "%s/%s", folder, path);
	assert_int_equal(remove(full), 0);
}

static void good_host(void)
{
	put("sys/kernel/btf/vmlinux", "");
	put("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
	put("sys/fs/cgroup/cgroup.controllers", "cpu\n");
	put("proc/sys/kernel/perf_event_paranoid", "2\n");
	put("proc/sys/kernel/kptr_restrict", "1\n");
	put("proc/sys/kernel/perf_event_max_sample_rate", "100000\n");
	put("proc/sys/net/core/bpf_jit_enable", "1\n");
	put("proc/1/comm", "systemd\n");
	put("var/lib/x", "");
}

static struct findings *look(const char *release)
{
	_cleanup_close_ int root = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	static struct findings f;

	assert_true(root >= 0);
	memset(&f, 0, sizeof(f));
	doctor_host(&f, root, release, 99);
	return &f;
}

static const struct finding *find(const struct findings *f, const char *what)
{
	for (size_t i = 0; i < f->n; i++)
		if (strcmp(f->list[i].what, what) == 0)
			return &f->list[i];
	return NULL;
}

/* That one thing is found, with words, and no other: the machine's own clock and disk aside. */
static void expect(const char *release, const char *what, enum finding_level level,
	const char *text, const char *remedy)
{
	const struct findings *f = look(release);
	const struct finding *x = find(f, what);

	assert_non_null(x);
	assert_int_equal(x->level, level);
	assert_non_null(strstr(x->text, text));
	assert_non_null(strstr(x->remedy, remedy));
	for (size_t i = 0; i < f->n; i++)
		if (f->list[i].level && &f->list[i] != x && strcmp(f->list[i].what, "clock") != 0 &&
			strcmp(f->list[i].what, "disk") != 0)
			fail_msg("also: %s", f->list[i].text);
}

static void test_good(void **state)
{
	expect("6.1.0-30-amd64", "kernel", FINDING_OK, "6.1.0-30-amd64", "");
	expect("5.10.0", "btf", FINDING_OK, "BTF", "");
	expect("6.1.0", "cgroups", FINDING_OK, "version 2", "");
}

static void test_kernel(void **state)
{
	expect("5.9.16", "kernel", FINDING_FAILURE, "too old", "");
	expect("4.18.0-553.el8", "kernel", FINDING_FAILURE, "5.10", "");
	take_away("sys/kernel/btf/vmlinux");
	expect("6.1.0", "btf", FINDING_FAILURE, "/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF");
	put("sys/kernel/btf/vmlinux", "");
	put("sys/kernel/security/lockdown", "none integrity [confidentiality]\n");
	expect("6.1.0", "lockdown", FINDING_FAILURE, "nothing can be sampled", "integrity");
	put("sys/kernel/security/lockdown", "[none] integrity confidentiality\n");
}

static void test_settings(void **state)
{
	put("proc/sys/kernel/kptr_restrict", "2\n");
	expect("6.1.0", "kptr_restrict", FINDING_WARNING, "no names",
		"sysctl kernel.kptr_restrict=1");
	put("proc/sys/kernel/kptr_restrict", "1\n");
	put("proc/sys/kernel/perf_event_max_sample_rate", "50\n");
	expect("6.1.0", "max_sample_rate", FINDING_FAILURE, "less than the 99 Hz", "sysctl");
	put("proc/sys/kernel/perf_event_max_sample_rate", "100000\n");
	put("proc/sys/net/core/bpf_jit_enable", "0\n");
	expect("6.1.0", "bpf_jit", FINDING_WARNING, "interpreted", "bpf_jit_enable=1");
	put("proc/sys/net/core/bpf_jit_enable", "1\n");
	put("proc/sys/kernel/perf_event_paranoid", "4\n");
	expect("6.1.0", "perf_event_paranoid", FINDING_OK, "CAP_SYS_ADMIN", "");
	take_away("proc/sys/kernel/perf_event_paranoid");
	expect("6.1.0", "perf_event_paranoid", FINDING_FAILURE, "no performance events", "");
	put("proc/sys/kernel/perf_event_paranoid", "2\n");
}

static void test_surroundings(void **state)
{
	put("run/systemd/container", "lxc\n");
	expect("6.1.0", "container", FINDING_WARNING, "lxc", "host");
	take_away("run/systemd/container");
	take_away("sys/fs/cgroup/cgroup.controllers");
	expect("6.1.0", "cgroups", FINDING_WARNING, "no control groups", "cgroup2");
	put("sys/fs/cgroup/unified/cgroup.procs", "");
	expect("6.1.0", "cgroups", FINDING_OK, "both versions", "");
	put("proc/77/comm", "parca-agent\n");
	put("proc/78/comm", "evil\033[31m\n");
	expect("6.1.0", "profilers", FINDING_WARNING, "parca-agent (77)", "");
	take_away("proc/77/comm");
	expect("6.1.0", "profilers", FINDING_OK, "no other", "");
}

static const struct finding *of_agentd(
	const char *caps, const char *limit, const char *release, const char *what)
{
	_cleanup_close_ int root = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	static struct findings f;
	char text[200];

	snprintf(text, sizeof(text), "Name:\tagentd\nCapInh:\t0\nCapPrm:\t%s\nCapEff:\t0\n", caps);
	put("proc/42/status", text);
	snprintf(text, sizeof(text), "Limit  Soft  Hard\nMax locked memory         %s bytes\n",
		limit);
	put("proc/42/limits", text);
	memset(&f, 0, sizeof(f));
	doctor_agentd(&f, root, 42, release);
	assert_int_equal(f.n, 2);
	return find(&f, what);
}

static void test_agentd(void **state)
{
	static const struct {
		const char *caps, *limit, *release, *what;
		enum finding_level level;
		const char *text;
	} cases[] = {
		{"000001ffffffffff", "unlimited", "6.1.0", "capabilities", FINDING_OK, "SYS_ADMIN"},
		/* BPF, PERFMON, SYS_PTRACE, DAC_READ_SEARCH */
		{"000000c000080004", "unlimited", "6.1.0", "capabilities", FINDING_OK, "CAP_BPF"},
		{"000000c000000004", "unlimited", "6.1.0", "capabilities", FINDING_WARNING,
			"PTRACE"},
		{"000000c000080000", "unlimited", "6.1.0", "capabilities", FINDING_WARNING,
			"DAC_READ"},
		{"0000004000080004", "unlimited", "6.1.0", "capabilities", FINDING_FAILURE,
			"sample"},
		{"0", "unlimited", "5.10.0", "memlock", FINDING_OK, "any amount of memory"},
		{"0", "65536     65536", "5.10.0", "memlock", FINDING_FAILURE, "64.0 KB"},
		{"0", "65536     65536", "5.15.0", "memlock", FINDING_OK, "does not ask"},
		{"0", "134217728", "5.10.0", "memlock", FINDING_OK, "128.0 MB"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct finding *x =
			of_agentd(cases[i].caps, cases[i].limit, cases[i].release, cases[i].what);

		assert_non_null(x);
		if (x->level != cases[i].level || !strstr(x->text, cases[i].text))
			fail_msg("%zu: %d %s", i, x->level, x->text);
	}
}

static void test_others(void **state)
{
	_cleanup_close_ int root = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	static struct findings f;
	static const unsigned own[] = {42, 43};
	char path[300];

	put("proc/42/fd/x", "");
	put("proc/77/fd/x", "");
	put("proc/77/status", "Name:\tpar\033ca\n");
	put("proc/78/fd/x", "");
	put("proc/78/status", "Name:\tlight\n");
	put("proc/78/fdinfo/4", "pos:\t0\nprog_type:\t7\nprog_id:\t5\n");
	put("proc/79/fd/x", "");
	put("proc/79/fdinfo/4", "prog_type:\t6\n");
	doctor_others(&f, root, own, ARRAY_SIZE(own));
	assert_int_equal(f.list[0].level, FINDING_OK);
	snprintf(path, sizeof(path), "%s/proc/42/fd/3", folder);
	assert_int_equal(symlink("anon_inode:[perf_event]", path), 0);
	snprintf(path, sizeof(path), "%s/proc/77/fd/3", folder);
	assert_int_equal(symlink("anon_inode:[perf_event]", path), 0);
	snprintf(path, sizeof(path), "%s/proc/78/fd/4", folder);
	assert_int_equal(symlink("anon_inode:bpf-prog", path), 0);
	snprintf(path, sizeof(path), "%s/proc/79/fd/4", folder);
	assert_int_equal(symlink("anon_inode:bpf-prog", path), 0);
	memset(&f, 0, sizeof(f));
	doctor_others(&f, root, own, ARRAY_SIZE(own));
	assert_int_equal(f.n, 1);
	assert_int_equal(f.list[0].level, FINDING_WARNING);
	assert_non_null(strstr(f.list[0].text, "2 other processes hold"));
	assert_non_null(strstr(f.list[0].text, "par?ca (77)"));
	assert_non_null(strstr(f.list[0].text, "light (78)"));
	assert_null(strstr(f.list[0].text, "79"));
}

static void test_too_many(void **state)
{
	static struct findings f;

	for (size_t i = 0; i < ARRAY_SIZE(f.list) + 3; i++)
		finding_add(&f, "x", FINDING_OK, "", "a\033b");
	assert_int_equal(f.n, ARRAY_SIZE(f.list));
	assert_int_equal(f.dropped, 3);
	assert_null(strchr(f.list[0].text, '\033'));
}

static int make_host(void **state)
{
	if (!mkdtemp(folder))
		return -1;
	good_host();
	return 0;
}

static int remove_host(void **state)
{
	char command[64];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_kernel),
		cmocka_unit_test(test_settings),
		cmocka_unit_test(test_surroundings),
		cmocka_unit_test(test_agentd),
		cmocka_unit_test(test_others),
		cmocka_unit_test(test_too_many),
	};

	return cmocka_run_group_tests(tests, make_host, remove_host);
}
