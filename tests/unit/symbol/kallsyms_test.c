/* SPDX-License-Identifier: Apache-2.0 */

/* Names of the kernel: crafted lists; the real one, read by another reader; and a BPF program that comes later. */

#include <inttypes.h>
#include <linux/bpf.h>
#include <sys/syscall.h>

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
			     "ffffffffc0300000 t bpf_prog_00112233445566ff_tc\t[bpf]\n"
			     "ffffffffc0400000 t ftrace_trampoline\t[__builtin__ftrace]\n"
			     "ffffffffc0500000 t ftrace_trampoline\t[__builtin__ftrace]\n"
			     "ffffffffc0600000 t kprobe_insn_page\t[__builtin__kprobes]\n"
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
		check(k, 0xffffffffc0200004, "bpf_prog_0123456789abcdef_xdp", "[bpf]");
		/* Programs are longer than two pages; and what lies between them is not theirs. */
		check(k, 0xffffffffc0210000, "bpf_prog_0123456789abcdef_xdp", "[bpf]");
		check(k, 0xffffffffc0280000, "-", "-");
		check(k, 0xffffffffc0310000, "bpf_prog_00112233445566ff_tc", "[bpf]");
		check(k, 0xffffffffc0400123, "ftrace_trampoline", "[__builtin__ftrace]");
		check(k, 0xffffffffc0403000, "-", "-");
		check(k, 0xffffffffc0500000, "ftrace_trampoline", "[__builtin__ftrace]");
		check(k, 0xffffffffc0600010, "kprobe_insn_page", "[__builtin__kprobes]");
		check(k, UINT64_MAX, "-", "-");
		assert_int_equal(kallsyms_functions(k), 13);
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

/* ---- the real list ------------------------------------------------------------------------------------------- */

static bool addresses_are_hidden(const char *path)
{
	return shell("awk '$1 !~ /^0*$/ { found = 1; exit } END { exit found }' %s", path) == 0;
}

/* Another reading, by awk and sort alone: "address end name module", one a line and address. The same choice of
 * names, and the same ends, said anew. */
static const char read_again[] =
	"awk '{ m = $4 == \"\" ? \"vmlinux\" : $4; gsub(/\\t/, \"\", m);\n"
	"  if (m ~ /^\\[/ && m !~ /^\\[(bpf|__builtin__.*)\\]$/) m = substr(m, 2, length(m) - 2);\n"
	"  code = $2 ~ /^[tTwW]$/; u = match($3, /[^_]/) ? RSTART - 1 : length($3);\n"
	"  rank = (u > 7 ? 7 : u) * 4 + ($2 == \"T\" ? 0 : $2 == \"t\" ? 1 : 2);\n"
	"  print $1, code ? 0 : 1, sprintf(\"%%02d\", rank), sprintf(\"%%04d\", length($3)), $3, m }' %s |\n"
	"LC_ALL=C sort -s -k1,1 -k2,2 -k3,3 -k4,4 -k5,5 | awk '$1 != last { print $1, $2, $5, $6; last = $1 }' |\n"
	"tac | awk '{ print $1, NR == 1 ? \"-\" : next_at, $2, NR == 1 ? \"-\" : next_module, $3, $4; next_at = $1; next_module = $4 }' |\n"
	"tac | awk '$3 == 0 { print $1, $2, $4 == $6 ? 1 : 0, $5, $6 }' > %s";

static struct kallsyms *read_file(const char *path)
{
	struct kallsyms *k = NULL;
	FILE *f = fopen(path, "re");
	char chunk[4096];
	size_t n;

	assert_non_null(f);
	assert_int_equal(kallsyms_new(&k), 0);
	while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
		assert_int_equal(kallsyms_add(k, chunk, n), 0);
	fclose(f);
	return k;
}

/* Each function, at its first byte, in its middle and at its last: as another reader has it. */
static void test_real(void **state)
{
	CLEANUP(kallsyms_freep) struct kallsyms *k = NULL;
	const char *text = work_path("kallsyms"), *again = work_path("again");
	char line[1024], name[512], module[128], end_text[32];
	unsigned long long address;
	unsigned wrong = 0;
	size_t n = 0;
	int same;
	FILE *f;

	assert_int_equal(shell("cat /proc/kallsyms >%s", text), 0);
	if (addresses_are_hidden(text)) {
		print_message("not compared: kernel addresses are hidden here\n");
		return;
	}
	assert_int_equal(shell(read_again, text, again), 0);
	k = read_file(text);
	assert_int_equal(kallsyms_finish(k), 0);
	f = fopen(again, "re");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		unsigned long long at[3], end;

		assert_int_equal(sscanf(line, "%llx %31s %d %511s %127s", &address, end_text, &same,
					 name, module),
			5);
		if (!address)
			continue;
		end = streq(end_text, "-") ? address + 1 : strtoull(end_text, NULL, 16);
		if (!same || module[0] == '[') /* at least so far */
			end = MIN(end, (address & ~4095ULL) + 8192);
		at[0] = address;
		at[1] = address + (end - address) / 2;
		at[2] = end - 1;
		for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
			const char *got = "-", *in = "-", *other, *of;
			uint64_t from = 0, to = 0, next;

			kallsyms_find_range(k, at[i], &got, &in, &from, &to);
			/* One answer for the whole function, and for nothing behind it. */
			assert_true(streq(got, "-") || (from == address && to >= end));
			assert_true(!to || !kallsyms_find_range(k, to, &other, &of, &next, &to) ||
				next > address);
			if ((!streq(got, name) || !streq(in, module)) && ++wrong <= 5)
				print_message("%llx: %s of %s instead of %s of %s\n", at[i], got,
					in, name, module);
		}
		n++;
	}
	fclose(f);
	print_message("%zu kernel functions, %zu bytes\n", n, kallsyms_memory(k));
	assert_true(n > 10000);
	assert_int_equal(kallsyms_functions(k), n);
	assert_int_equal(wrong, 0);
}

/* ---- BPF programs -------------------------------------------------------------------------------------------- */

static uint64_t pointer(const void *p)
{
	return (uint64_t)(uintptr_t)p;
}

static int load_program(const char *name)
{
	struct bpf_insn code[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 7},
		{.code = BPF_JMP | BPF_EXIT}};
	union bpf_attr attr = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
		.insns = pointer(code),
		.insn_cnt = ARRAY_SIZE(code),
		.license = pointer("GPL")};

	memcpy(attr.prog_name, name, strlen(name));
	return (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));
}

/* Where it is, and what the kernel calls it. */
static uint64_t find_program(int fd, const char *name, char *symbol, size_t size)
{
	struct bpf_prog_info info = {.nr_jited_ksyms = 1};
	union bpf_attr attr = {.info.bpf_fd = (uint32_t)fd, .info.info_len = sizeof(info)};
	uint64_t address = 0;

	info.jited_ksyms = pointer(&address);
	attr.info.info = pointer(&info);
	assert_int_equal(syscall(SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, &attr, sizeof(attr)), 0);
	snprintf(symbol, size, "bpf_prog_%02x%02x%02x%02x%02x%02x%02x%02x_%s", info.tag[0],
		info.tag[1], info.tag[2], info.tag[3], info.tag[4], info.tag[5], info.tag[6],
		info.tag[7], name);
	return address;
}

/* Through the real symbolizer: a program that was loaded after the list was read has its name once the list is read
 * afresh, and what the kernel itself has does not have to be asked for again. */
static void test_program(void **state)
{
	struct symbol_query q = {.file = SYMBOL_FILE_KERNEL}, core = q;
	const struct symbol_chain *chain;
	_cleanup_close_ int fd = -1;
	struct room room;
	char symbol[128];
	uint64_t asked;
	FILE *f;

	if (geteuid() != 0 || addresses_are_hidden("/proc/kallsyms")) {
		print_message("not run here: takes root and the kernel's addresses\n");
		return;
	}
	f = popen("awk '$3 == \"vfs_read\" { print \"0x\" $1; exit }' /proc/kallsyms", "re");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%" SCNx64, &core.offset), 1);
	pclose(f);
	room_init(&room, &(struct symbol_config){});
	assert_string_equal(room_name(&room, SYMBOL_FILE_KERNEL, core.offset), "vfs_read");
	fd = load_program("odi_test_name");
	assert_true(fd >= 0);
	q.offset = find_program(fd, "odi_test_name", symbol, sizeof(symbol));
	if (!q.offset) {
		print_message("not run here: the kernel does not compile BPF programs\n");
		room_deinit(&room);
		return;
	}
	room_name(&room, SYMBOL_FILE_KERNEL, q.offset);
	assert_true(symbol_chain(room.s, &q)->fallback ||
		!streq(symbol_chain(room.s, &q)->functions[0].name, symbol));
	symbol_forget_kernel(room.s);
	asked = room_counters(&room).requests;
	assert_string_equal(room_name(&room, SYMBOL_FILE_KERNEL, core.offset), "vfs_read");
	assert_int_equal(room_counters(&room).requests, asked);
	assert_string_equal(room_name(&room, SYMBOL_FILE_KERNEL, q.offset), symbol);
	chain = symbol_chain(room.s, &q);
	assert_string_equal(chain->module, "[bpf]");
	assert_false(chain->fallback);
	room_deinit(&room);
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
		cmocka_unit_test(test_program),
	};

	dispatch_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
