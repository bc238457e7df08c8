/* SPDX-License-Identifier: Apache-2.0 */

#include "tests/unit/symbol/support.h"
#include "agentd/symbol/kallsyms.h"

static struct kallsyms *read_text(const char *text, size_t piece)
{
	struct kallsyms *k = NULL;

	assert_int_equal(kallsyms_new(&k), 0);
	for (size_t at = 0, len = strlen(text); at < len; at += piece)
		assert_int_equal(kallsyms_add(k, text + at, MIN(piece, len - at)), 0);
	return k;
}

static void check(const struct kallsyms *k, uint64_t address, const char *name, const char *module)
{
	const char *got_name = "-", *got_module = "-";

	kallsyms_find(k, address, &got_name, &got_module);
	assert_string_equal(got_name, name);
	assert_string_equal(got_module, module);
}

static const char sample[] = "0000000000000000 A fixed_percpu_data\n"
			     "ffffffff81000000 T _stext\n"
			     "ffffffff81000000 T startup_64\n"
			     "ffffffff81000100 t local_one\n"
			     "ffffffff81000200 W weak_one\n"
			     "ffffffff81000200 T __strong_one\n"
			     "ffffffff81000300 T last_text\n"
			     "ffffffff81001000 D some_data\n"
			     "ffffffff81002000 d more_data\n"
			     "ffffffff81003000 T after_data\n"
			     "ffffffffc0001000 t mod_first\t[alpha]\n"
			     "ffffffffc0001040 T mod_last\t[alpha]\n"
			     "ffffffffc0100000 T other\t[beta]\n"
			     "ffffffffc0200000 t bpf_prog_0123456789abcdef_xdp\t[bpf]\n"
			     "not a line at all\n"
			     "ffffffff81004000 T\n"
			     "ffffffff81004000 T \n"
			     "zzzzffff81004000 T bad\n";

static void test_lookup(void **state)
{
	/* However the text is cut. */
	for (size_t piece = 1; piece < sizeof(sample); piece = piece * 3 + 1) {
		CLEANUP(kallsyms_freep) struct kallsyms *k = read_text(sample, piece);

		assert_int_equal(kallsyms_finish(k), 0);
		check(k, 0, "-", "-");
		check(k, 0xffffffff80ffffff, "-", "-");
		check(k, 0xffffffff81000000, "startup_64", "vmlinux");
		check(k, 0xffffffff810000ff, "startup_64", "vmlinux");
		check(k, 0xffffffff81000100, "local_one", "vmlinux");
		check(k, 0xffffffff81000210, "weak_one", "vmlinux");
		check(k, 0xffffffff81000fff, "last_text", "vmlinux");
		check(k, 0xffffffff81001000, "-", "-");
		check(k, 0xffffffff81002fff, "-", "-");
		check(k, 0xffffffff81003001, "after_data", "vmlinux");
		check(k, 0xffffffff81005000, "-", "-");
		check(k, 0xffffffffc0001001, "mod_first", "alpha");
		check(k, 0xffffffffc0001050, "mod_last", "alpha");
		check(k, 0xffffffffc0001fff, "mod_last", "alpha");
		check(k, 0xffffffffc0003000, "-", "-");
		check(k, 0xffffffffc0100000, "other", "beta");
		check(k, 0xffffffffc0200004, "bpf_prog_0123456789abcdef_xdp", "bpf");
		check(k, UINT64_MAX, "-", "-");
		assert_int_equal(kallsyms_functions(k), 9);
	}
}

static void test_hidden_addresses(void **state)
{
	CLEANUP(kallsyms_freep)
	struct kallsyms *k =
		read_text("0000000000000000 T _stext\n0000000000000000 t vfs_read\n", 100);

	assert_int_equal(kallsyms_finish(k), -EPERM);
}

static void test_nothing(void **state)
{
	CLEANUP(kallsyms_freep) struct kallsyms *k = read_text("", 100);

	assert_int_equal(kallsyms_finish(k), -ENODATA);
}

static void test_long_line(void **state)
{
	_cleanup_free_ char *text = malloc(5000);
	CLEANUP(kallsyms_freep) struct kallsyms *k = NULL;

	snprintf(text, 5000,
		"ffffffff81000000 T %04000d\nffffffff81000010 T short\nffffffff81000020 T end", 7);
	k = read_text(text, 5000);
	assert_int_equal(kallsyms_finish(k), 0);
	check(k, 0xffffffff81000000, "-", "-");
	check(k, 0xffffffff81000010, "short", "vmlinux");
	/* The last line had no end: it was cut. */
	assert_int_equal(kallsyms_functions(k), 1);
}

static void test_many_modules(void **state)
{
	CLEANUP(kallsyms_freep) struct kallsyms *k = NULL;
	char line[128];
	int r = 0;

	assert_int_equal(kallsyms_new(&k), 0);
	for (int i = 0; i < 5000 && r == 0; i++) {
		snprintf(line, sizeof(line), "ffffffffc%07x T f\t[m%d]\n", i * 4096, i);
		r = kallsyms_add(k, line, strlen(line));
	}
	assert_int_equal(r, -E2BIG);
}

/* The real list, where its addresses can be seen: each symbol is found at its own address, by its name or that of
 * another at the same one. */
static void test_real(void **state)
{
	CLEANUP(kallsyms_freep) struct kallsyms *k = NULL;
	FILE *f = fopen("/proc/kallsyms", "re");
	char line[1024], name[512], last[512] = "";
	unsigned long long address, last_address = 0;
	size_t wrong = 0, n = 0;
	char type;
	int r;

	assert_non_null(f);
	assert_int_equal(kallsyms_new(&k), 0);
	while (fgets(line, sizeof(line), f))
		assert_int_equal(kallsyms_add(k, line, strlen(line)), 0);
	r = kallsyms_finish(k);
	if (r == -EPERM) {
		print_message("kernel addresses are hidden here\n");
		fclose(f);
		return;
	}
	assert_int_equal(r, 0);
	rewind(f);
	while (fgets(line, sizeof(line), f)) {
		const char *found = "-", *module = "-";

		if (sscanf(line, "%llx %c %511s", &address, &type, name) != 3 ||
			!strchr("tT", type) || !address)
			continue;
		n++;
		if (!kallsyms_find(k, address, &found, &module))
			wrong++;
		/* Neighbours in the list at one address are aliases. */
		else if (!streq(found, name) && address == last_address && !streq(found, last))
			wrong += streq(found, "-");
		last_address = address;
		snprintf(last, sizeof(last), "%s", name);
	}
	fclose(f);
	print_message("%zu kernel functions, %zu bytes\n", n, kallsyms_memory(k));
	assert_true(n > 10000);
	assert_int_equal(wrong, 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lookup),
		cmocka_unit_test(test_hidden_addresses),
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_long_line),
		cmocka_unit_test(test_many_modules),
		cmocka_unit_test(test_real),
	};

	dispatch_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
