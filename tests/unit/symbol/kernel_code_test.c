/* SPDX-License-Identifier: Apache-2.0 */

/* What agentd reads of the kernel's code, from a folder that looks like the kernel's: changes of modules, their build
 * ids whatever name is asked for, and why addresses are hidden. */

#include <elf.h>

#include "tests/unit/symbol/support.h"
#include "agentd/symbol/kernel_code.h"

static struct kernel_code *make(void)
{
	struct kernel_code *k = NULL;

	assert_int_equal(shell("rm -rf %s && mkdir -p %s %s", work_path("root"),
				 work_path("root/proc/sys/kernel"),
				 work_path("root/sys/module/alpha/notes")),
		0);
	assert_int_equal(kernel_code_new(&k, work_path("root")), 0);
	return k;
}

static void write_note(const char *path, uint32_t type, const char *name, size_t len)
{
	Elf64_Nhdr n = {.n_namesz = 4, .n_descsz = (Elf64_Word)len, .n_type = type};
	FILE *f = fopen(path, "ae");

	assert_non_null(f);
	fwrite(&n, sizeof(n), 1, f);
	fwrite(name, 4, 1, f);
	for (size_t i = 0; i < (len + 3) / 4 * 4; i++)
		fputc((int)(0xa0 + i), f);
	fclose(f);
}

static void test_changes(void **state)
{
	CLEANUP(kernel_code_freep) struct kernel_code *k = make();
	const char *modules = work_path("root/proc/modules");

	/* Without modules; the first look is no change. */
	assert_false(kernel_code_changed(k));
	assert_false(kernel_code_changed(k));
	kernel_code_touch(k);
	assert_true(kernel_code_changed(k));
	assert_false(kernel_code_changed(k));
	write_file(modules,
		"alpha 100 1 beta, Live 0xffffffffc0001000\n"
		"beta 200 0 - Live 0xffffffffc0002000 (O)\n");
	assert_true(kernel_code_changed(k));
	/* Users come and go. */
	write_file(modules,
		"alpha 100 7 beta,gamma, Live 0xffffffffc0001000\n"
		"beta 200 3 - Live 0xffffffffc0002000 (OE)\n");
	assert_false(kernel_code_changed(k));
	/* Unloaded and loaded again. */
	write_file(modules,
		"alpha 100 7 beta,gamma, Live 0xffffffffc0001000\n"
		"beta 200 3 - Live 0xffffffffc0004000 (OE)\n");
	assert_true(kernel_code_changed(k));
	write_file(modules, "alpha 100 7 - Live 0xffffffffc0001000");
	assert_true(kernel_code_changed(k));
	assert_false(kernel_code_changed(k));
	write_file(work_path("root/proc/sys/kernel/kptr_restrict"), "2\n");
	assert_true(kernel_code_changed(k));
	assert_false(kernel_code_changed(k));
}

static void test_build_ids(void **state)
{
	CLEANUP(kernel_code_freep) struct kernel_code *k = make();
	const char *alpha = work_path("root/sys/module/alpha/notes/.note.gnu.build-id");

	assert_false(kernel_code_changed(k));
	assert_string_equal(kernel_code_build_id(k, NULL), "");
	assert_string_equal(kernel_code_build_id(k, "alpha"), "");
	/* That there is none is remembered as long as modules are the same. */
	write_note(alpha, 5, "GNU", 20);
	write_note(alpha, NT_GNU_BUILD_ID, "GNU", 20);
	assert_string_equal(kernel_code_build_id(k, "alpha"), "");
	write_file(work_path("root/proc/modules"), "alpha 1 0 - Live 0xffffffffc0001000\n");
	assert_true(kernel_code_changed(k));
	assert_string_equal(
		kernel_code_build_id(k, "alpha"), "a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1b2b3");
	/* Where the symbolizer would like agentd to look. */
	assert_string_equal(kernel_code_build_id(k, "../module/alpha"), "");
	assert_string_equal(kernel_code_build_id(k, "alpha/../alpha"), "");
	assert_string_equal(kernel_code_build_id(k, "."), "");
	assert_string_equal(kernel_code_build_id(k, ".."), "");
	assert_string_equal(kernel_code_build_id(k, ""), "");
	assert_string_equal(kernel_code_build_id(k, "[bpf]"), "");
	assert_string_equal(
		kernel_code_build_id(
			k, "a234567890123456789012345678901234567890123456789012345678901234"),
		"");
	assert_int_equal(shell("mkdir -p %s", work_path("root/sys/kernel")), 0);
	write_note(work_path("root/sys/kernel/notes"), NT_GNU_BUILD_ID, "GNU", 8);
	assert_string_equal(kernel_code_build_id(k, NULL), "a0a1a2a3a4a5a6a7");
}

/* Notes that are cut at any length, or say more than there is, are no build id. */
static void test_damaged_notes(void **state)
{
	char path[192];

	snprintf(path, sizeof(path), "%s", work_path("root/sys/kernel/notes"));
	for (int len = 0; len < 36; len++) {
		CLEANUP(kernel_code_freep) struct kernel_code *k = make();

		assert_int_equal(shell("mkdir -p %s", work_path("root/sys/kernel")), 0);
		write_note(path, NT_GNU_BUILD_ID, "GNU", 20);
		assert_int_equal(truncate(path, len), 0);
		assert_string_equal(kernel_code_build_id(k, NULL), "");
	}
	for (size_t len = 21; len < 30; len++) {
		CLEANUP(kernel_code_freep) struct kernel_code *k = make();

		assert_int_equal(shell("mkdir -p %s", work_path("root/sys/kernel")), 0);
		write_note(path, NT_GNU_BUILD_ID, "GNU", len);
		assert_string_equal(kernel_code_build_id(k, NULL), "");
	}
}

static void test_explained(void **state)
{
	CLEANUP(kernel_code_freep) struct kernel_code *k = make();
	struct err_text why, remedy;

	write_file(work_path("root/proc/sys/kernel/kptr_restrict"), "2\n");
	kernel_code_explain(k, &why, &remedy);
	assert_non_null(strstr(why.text, "kernel.kptr_restrict is 2"));
	assert_non_null(strstr(remedy.text, "sysctl -w kernel.kptr_restrict=1"));
	write_file(work_path("root/proc/sys/kernel/kptr_restrict"), "1\n");
	kernel_code_explain(k, &why, &remedy);
	if (geteuid() == 0)
		assert_string_equal(why.text, "");
	assert_int_equal(!*why.text, !*remedy.text);
}

/* Without the capability; in a process of its own. */
static void test_no_capability(void **state)
{
	CLEANUP(kernel_code_freep) struct kernel_code *k = make();
	struct err_text why, remedy;
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		bool ok;

		if (geteuid() == 0 && setresuid(65534, 65534, 65534) < 0)
			_exit(2);
		kernel_code_explain(k, &why, &remedy);
		ok = !*why.text; /* shown to all */
		_exit(ok ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 1);
}

/* This host's own, as another reader has it. */
static void test_real(void **state)
{
	CLEANUP(kernel_code_freep) struct kernel_code *k = NULL;
	char expected[64] = "";
	FILE *f;

	assert_int_equal(kernel_code_new(&k, "/"), 0);
	assert_false(kernel_code_changed(k));
	f = popen("od -An -v -tx1 /sys/kernel/notes | tr -d ' \\n' |"
		  "sed -nE 's/.*040000001400000003000000474e5500(.{40}).*/\\1/p'",
		"re");
	assert_non_null(f);
	if (!fgets(expected, sizeof(expected), f))
		print_message("this kernel has no build id\n");
	pclose(f);
	expected[strcspn(expected, "\n")] = '\0';
	assert_string_equal(kernel_code_build_id(k, NULL), expected);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_build_ids),
		cmocka_unit_test(test_damaged_notes),
		cmocka_unit_test(test_explained),
		cmocka_unit_test(test_no_capability),
		cmocka_unit_test(test_real),
	};

	dispatch_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
