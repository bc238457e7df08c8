/* SPDX-License-Identifier: Apache-2.0 */

/* Separate debug files, from the places where distributions put them to the names: programs by gcc, taken apart by
 * binutils, in a root folder of this test's own. Then what must not be opened or believed; mini debug information,
 * made as Fedora makes it; and files that are too much with their debug information. */

#include <sys/stat.h>

#include "agentd/base/fdpass.h"
#include "agentd/elf/elf_file.h"
#include "agentd/symbol/protocol.h"
#include "tests/unit/symbol/support.h"

static const char source[] =
	"#include <stdio.h>\n"
	"static inline __attribute__((always_inline)) int inner(int x) { __asm__(\"nop\"); return x * 7; }\n"
	"static __attribute__((noinline)) int hidden(int x) { __asm__(\"\"); return inner(x) + 3; }\n"
	"__attribute__((noinline)) int shown(int x) { __asm__(\"\"); return hidden(x) + 1; }\n"
	"int main(int c, char **v) { printf(\"%d\\n\", shown(c)); return 0; }\n";

static char self[256];

PRINTF(1, 2) static void must(const char *format, ...)
{
	char command[1600];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	work_path("");
	if (shell("cd %s && { %s; } >log 2>&1", work_dir, command) != 0) {
		shell("cat %s/log >&2", work_dir);
		fail_msg("failed: %s", command);
	}
}

/* One line of a command's output, in the work folder. */
static const char *line_of(const char *command)
{
	static char line[512];
	char all[1024];
	FILE *f;

	snprintf(all, sizeof(all), "cd %s && %s", work_dir, command);
	f = popen(all, "re");
	assert_non_null(f);
	assert_non_null(fgets(line, sizeof(line), f));
	pclose(f);
	line[strcspn(line, "\n")] = '\0';
	return line;
}

/* Makes NAME (stripped, with a debug link), NAME.whole and NAME.debug anew, and an empty root folder. */
static void make_program(const char *name, const char *options)
{
	write_file(work_path("p.c"), source);
	must("rm -rf root && mkdir -p root/usr/lib/debug root/opt/app/.debug");
	must("gcc -O1 -g -rdynamic %s -o %s.whole p.c && objcopy --only-keep-debug %s.whole %s.debug && "
	     "strip -o %s %s.whole && objcopy --add-gnu-debuglink=%s.debug %s",
		options, name, name, name, name, name, name, name);
}

static uint64_t offset_in(const char *whole, const char *symbol)
{
	_cleanup_close_ int fd = open(work_path(whole), O_RDONLY | O_CLOEXEC);
	CLEANUP(elf_file_closep) struct elf_file *elf = NULL;
	const struct elf_segment *s;
	char command[256];
	uint64_t address;
	size_t n;

	snprintf(command, sizeof(command), "nm %s | sed -n 's/ [tT] %s$//p'", whole, symbol);
	address = strtoull(line_of(command), NULL, 16);
	assert_int_equal(elf_file_open(&elf, fd, NULL), 0);
	s = elf_file_segments(elf, &n);
	for (size_t i = 0; i < n; i++)
		if (address >= s[i].vaddr && address - s[i].vaddr < s[i].file_size)
			return address - s[i].vaddr + s[i].offset;
	fail();
	return 0;
}

/* .build-id/xx/yyyy.debug of a program in the root folder, made with its folder. */
static const char *build_id_path(const char *program)
{
	static char path[128];
	char command[256], id[64];

	snprintf(command, sizeof(command), "readelf -n %s | sed -n 's/.*Build ID: //p'", program);
	snprintf(id, sizeof(id), "%.63s", line_of(command));
	snprintf(path, sizeof(path), "root/usr/lib/debug/.build-id/%.2s/%.61s.debug", id, id + 2);
	must("mkdir -p $(dirname %s)", path);
	return path;
}

static void start(struct room *room, const char *program)
{
	room_init(room, &(struct symbol_config){});
	room->debug_root = open(work_path("root"), O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert_true(room->debug_root > 0);
	room_set_path(room, 3, work_path(program));
	snprintf(room->files[3].path, sizeof(room->files[3].path), "/opt/app/%s", program);
}

static const struct symbol_chain *chain_at(struct room *room, uint64_t offset)
{
	struct symbol_query q = {.file = 3, .offset = offset};

	assert_int_equal(room_resolve(room, &q, 1), 0);
	return symbol_chain(room->s, &q);
}

/* The names, inlined functions and lines of debug information. */
static void check_dwarf(struct room *room, const char *whole)
{
	const struct symbol_chain *chain;
	uint64_t at = offset_in(whole, "hidden");
	bool inlined = false;

	for (uint64_t i = 0; i < 8; i++) {
		chain = chain_at(room, at + i);
		assert_string_equal(chain->functions[chain->n - 1].name, "hidden");
		if (chain->n == 2) {
			inlined = true;
			assert_string_equal(chain->functions[0].name, "inner");
			assert_true(chain->functions[0].inlined);
			assert_int_equal(chain->functions[0].line, 2);
			assert_int_equal(chain->functions[1].line, 3);
		}
	}
	assert_true(inlined);
	assert_string_equal(symbol_facts(room->s, 3)->named_by, "DWARF (debug file)");
	assert_true(symbol_facts(room->s, 3)->has_debug_file);
	assert_int_equal(room_counters(room).crashes, 0);
}

/* Only .dynsym names it: hidden() is not known. */
static void check_poor(struct room *room, const char *whole)
{
	assert_true(chain_at(room, offset_in(whole, "hidden") + 1)->fallback);
	assert_string_equal(
		chain_at(room, offset_in(whole, "shown") + 1)->functions[0].name, "shown");
	assert_string_equal(symbol_facts(room->s, 3)->named_by, ".dynsym");
	assert_false(symbol_facts(room->s, 3)->has_debug_file);
}

/* ---- places ---- */

static void test_by_build_id(void **state)
{
	struct room room;

	make_program("a", "");
	must("cp a.debug %s", build_id_path("a.whole"));
	start(&room, "a");
	check_dwarf(&room, "a.whole");
	assert_int_equal(room_counters(&room).requests, 2 + 7);
	assert_string_equal(symbol_facts(room.s, 3)->debuglink, "a.debug");
	/* The next child gets it again. */
	assert_int_equal(kill(symbol_child_pid(room.s), SIGKILL), 0);
	assert_string_equal(
		chain_at(&room, offset_in("a.whole", "main") + 1)->functions[0].name, "main");
	assert_string_equal(symbol_facts(room.s, 3)->named_by, "DWARF (debug file)");
	room_deinit(&room);
}

static void test_own_debug_info_comes_first(void **state)
{
	struct room room;

	make_program("a", "");
	must("cp a.debug %s", build_id_path("a.whole"));
	start(&room, "a.whole");
	assert_string_equal(
		chain_at(&room, offset_in("a.whole", "hidden"))->functions[0].name, "inner");
	assert_string_equal(symbol_facts(room.s, 3)->named_by, "DWARF");
	assert_true(symbol_facts(room.s, 3)->has_debug_info);
	assert_int_equal(room.debug_asked, 0);
	room_deinit(&room);
}

static void test_symbols_of_a_debug_file(void **state)
{
	struct room room;

	make_program("a", "");
	must("strip -g -o %s a.debug", build_id_path("a.whole"));
	start(&room, "a");
	assert_string_equal(
		chain_at(&room, offset_in("a.whole", "hidden") + 1)->functions[0].name, "hidden");
	assert_string_equal(symbol_facts(room.s, 3)->named_by, ".symtab (debug file)");
	room_deinit(&room);
}

static void test_by_link(void **state)
{
	static const char *const folders[] = {
		"root/opt/app", "root/opt/app/.debug", "root/usr/lib/debug/opt/app"};

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		struct room room;

		make_program("b", "-Wl,--build-id=none");
		must("mkdir -p %s && cp b.debug %s/", folders[i], folders[i]);
		start(&room, "b");
		check_dwarf(&room, "b.whole");
		room_deinit(&room);
	}
}

static void test_none(void **state)
{
	struct room room;

	make_program("a", "");
	start(&room, "a");
	check_poor(&room, "a.whole");
	assert_string_equal(symbol_facts(room.s, 3)->last_problem, "");
	/* It is not looked for at each question. */
	assert_int_equal(room.debug_asked, 1);
	room_deinit(&room);
}

/* Names were given without; then the debug package is installed. */
static void test_comes_later(void **state)
{
	struct room room;

	make_program("a", "");
	start(&room, "a");
	check_poor(&room, "a.whole");
	must("cp a.debug %s", build_id_path("a.whole"));
	assert_true(chain_at(&room, offset_in("a.whole", "hidden") + 1)->fallback);
	symbol_debug_changed(room.s, 3);
	check_dwarf(&room, "a.whole");
	/* Now that it is there, nothing is forgotten any more. */
	symbol_debug_changed(room.s, 3);
	assert_false(symbol_chain(
		room.s, &(struct symbol_query){.file = 3, .offset = offset_in("a.whole", "hidden")})
			     ->fallback);
	room_deinit(&room);
}

/* ---- what is not believed ---- */

static void test_wrong_crc(void **state)
{
	struct room room;

	make_program("b", "-Wl,--build-id=none");
	must("cp b.debug root/opt/app/ && printf x >>root/opt/app/b.debug");
	start(&room, "b");
	check_poor(&room, "b.whole");
	assert_non_null(strstr(symbol_facts(room.s, 3)->last_problem, "another CRC"));
	room_deinit(&room);
	/* A right one behind it is found. */
	must("cp b.debug root/opt/app/.debug/");
	start(&room, "b");
	check_dwarf(&room, "b.whole");
	assert_string_equal(symbol_facts(room.s, 3)->last_problem, "");
	room_deinit(&room);
}

static void test_wrong_build_id(void **state)
{
	struct room room;

	make_program("a", "");
	must("gcc -O2 -g -DX -o other p.c && cp other %s", build_id_path("a.whole"));
	start(&room, "a");
	check_poor(&room, "a.whole");
	assert_non_null(strstr(symbol_facts(room.s, 3)->last_problem, "another build id"));
	room_deinit(&room);
	must("echo not ELF >%s", build_id_path("a.whole"));
	start(&room, "a");
	check_poor(&room, "a.whole");
	assert_non_null(strstr(symbol_facts(room.s, 3)->last_problem, "not an ELF file"));
	room_deinit(&room);
}

/* What a link's section says becomes part of a path. */
static void test_spoilt_links(void **state)
{
	static const char *const bad[] = {"printf '../x\\0\\0\\0\\0CRC '", "printf '/x\\0\\0CRC '",
		"printf '..\\0\\0CRC '", "printf 'no end'", "printf 'short\\0\\0\\0CR'",
		"printf 'a\\033b\\0CRC '", "head -c 300 /dev/zero | tr '\\0' x",
		"printf '\\0\\0\\0\\0CRC '"};

	make_program("b", "-Wl,--build-id=none");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct room room;

		must("%s >link && objcopy -R .gnu_debuglink --add-section .gnu_debuglink=link b bad",
			bad[i]);
		start(&room, "bad");
		check_poor(&room, "b.whole");
		assert_string_equal(symbol_facts(room.s, 3)->debuglink, "");
		assert_int_equal(room.debug_asked, 0);
		assert_int_equal(room_counters(&room).crashes + room_counters(&room).refused, 0);
		room_deinit(&room);
	}
	must("printf 'good\\0\\0\\0\\0CRC ' >link && objcopy -R .gnu_debuglink --add-section .gnu_debuglink=link b bad");
	{
		struct room room;

		start(&room, "bad");
		check_poor(&room, "b.whole");
		assert_string_equal(symbol_facts(room.s, 3)->debuglink, "good");
		room_deinit(&room);
	}
}

/* ---- what is not opened ---- */

static int try_open(const char *build_id, const char *path, const char *link)
{
	_cleanup_close_ int root = open(work_path("root"), O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct debugfile_query q = {.root = root,
		.proc = -1,
		.path = path,
		.owner = 4321,
		.build_id = build_id,
		.debuglink = link};
	unsigned n = 0;
	int fd = debugfile_open(&q, &n);

	if (fd < 0)
		return fd;
	close(fd);
	return (int)n;
}

static void test_build_id_is_hex(void **state)
{
	make_program("a", "");
	must("mkdir -p root/usr/lib/debug/.build-id/ab root/usr/lib/debug/.build-id/..");
	must("cd root/usr/lib/debug/.build-id && touch ab/cdef.debug ab/x.debug ab/cd.debug ../x.debug");
	assert_int_equal(try_open("abcdef", "", ""), 0);
	assert_int_equal(try_open("abcd", "", ""), 0);
	assert_int_equal(try_open("abx", "", ""), -ENOENT);
	assert_int_equal(try_open("ab/../ab/cdef", "", ""), -ENOENT);
	assert_int_equal(try_open("../x", "", ""), -ENOENT);
	assert_int_equal(try_open("ab", "", ""), -ENOENT);
	assert_int_equal(try_open("", "", ""), -ENOENT);
	assert_int_equal(try_open("00112233", "", ""), -ENOENT);
}

static void test_links_are_plain_names(void **state)
{
	make_program("a", "");
	must("touch root/opt/x root/opt/app/d root/opt/app/.debug/e && mkdir -p root/opt/app/f");
	assert_int_equal(try_open("", "/opt/app/a", "d"), 1);
	assert_int_equal(try_open("", "/opt/app/a", "e"), 2);
	assert_int_equal(try_open("", "/opt/app/a", "../x"), -ENOENT);
	assert_int_equal(try_open("", "/opt/app/a", ".debug/e"), -ENOENT);
	assert_int_equal(try_open("", "/opt/app/a", ".."), -ENOENT);
	assert_int_equal(try_open("", "opt/app/a", "d"), -ENOENT);
	/* A folder; the program itself. */
	assert_int_equal(try_open("", "/opt/app/a", "f"), -ENOENT);
	assert_int_equal(try_open("", "/opt/app/d", "d"), -ENOENT);
}

static void test_symbolic_links(void **state)
{
	make_program("a", "");
	/* Root's tree may have them, and they stay within the root folder. */
	must("cd root/usr/lib/debug && mkdir -p .build-id/ab && touch real && ln -s ../../real .build-id/ab/11.debug && "
	     "ln -s /etc/passwd .build-id/ab/22.debug && ln -s ../../../../../../../../../../etc/passwd "
	     ".build-id/ab/33.debug && ln -s /proc/self/exe .build-id/ab/44.debug");
	assert_int_equal(try_open("ab11", "", ""), 0);
	assert_int_equal(try_open("ab22", "", ""), -ENOENT);
	assert_int_equal(try_open("ab33", "", ""), -ENOENT);
	assert_int_equal(try_open("ab44", "", ""), -ENOENT);
	/* A program's folder may not. */
	must("cd root/opt/app && touch real && ln -s real link && ln -s real .debug/link && ln -s /opt/app ../alias");
	assert_int_equal(try_open("", "/opt/app/a", "real"), 1);
	assert_int_equal(try_open("", "/opt/app/a", "link"), -ENOENT);
	assert_int_equal(try_open("", "/opt/alias/a", "real"), -ENOENT);
}

static void test_owners(void **state)
{
	if (geteuid() != 0) {
		print_message("not run here: owners can be changed by root alone\n");
		return;
	}
	make_program("a", "");
	must("cd root/opt/app && touch root theirs foreign open && chown 4321 theirs && chown 999 foreign && chmod 666 open && "
	     "mkfifo fifo");
	assert_int_equal(try_open("", "/opt/app/a", "root"), 1);
	assert_int_equal(try_open("", "/opt/app/a", "theirs"), 1);
	assert_int_equal(try_open("", "/opt/app/a", "foreign"), -ENOENT);
	assert_int_equal(try_open("", "/opt/app/a", "open"), -ENOENT);
	assert_int_equal(try_open("", "/opt/app/a", "fifo"), -ENOENT);
	must("mkdir -p root/usr/lib/debug/.build-id/ab && cd root/usr/lib/debug/.build-id/ab && touch cd.debug && "
	     "chown 999 cd.debug");
	assert_int_equal(try_open("abcd", "", ""), -ENOENT);
}

/* ---- what an administrator named ---- */

static int try_named(const char *path, const char *build_id, const char *link)
{
	_cleanup_close_ int root = open(work_path("root"), O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct debugfile_query q = {.root = root,
		.proc = -1,
		.path = "/opt/app/a",
		.owner = 4321,
		.build_id = build_id,
		.debuglink = link};
	unsigned n = 0;
	int fd = debugfile_open_named(&q, path, &n);

	if (fd < 0)
		return fd;
	close(fd);
	return (int)n;
}

static void test_named(void **state)
{
	make_program("a", "");
	must("cd root && mkdir -p srv/.build-id/ab srv/cd sub && cd srv && touch .build-id/ab/01.debug cd/02.debug "
	     "d.debug open ../sub/out && chmod 666 open && ln -s ../sub/out link && ln -s d.debug inner");
	assert_int_equal(try_named("/srv", "ab01", ""), 0);
	assert_int_equal(try_named("/srv", "cd02", ""), 2);
	assert_int_equal(try_named("/srv", "ab02", ""), -ENOENT);
	assert_int_equal(try_named("/srv", "ab02", "d.debug"), 1);
	assert_int_equal(try_named("/srv", "", "inner"), 1);
	assert_int_equal(try_named("/srv", "", "link"), -ENOENT);
	assert_int_equal(try_named("/srv", "", "../sub/out"), -ENOENT);
	assert_int_equal(try_named("/srv", "", "open"), -ENOENT);
	assert_int_equal(try_named("/srv/d.debug", "ab01", ""), 0);
	assert_int_equal(try_named("/srv/open", "ab01", ""), -ENOENT);
	assert_int_equal(try_named("/nowhere", "ab01", ""), -ENOENT);
	/* Another file system, and not one of disks. */
	assert_int_equal(try_named("/proc/self", "ab01", ""), -ENOENT);
}

/* ---- mini debug information ---- */

static void make_mini(const char *name)
{
	make_program(name, "-Wl,--build-id=none");
	must("nm -D %s.whole --format=posix --defined-only | awk '{print $1}' | sort >dyn && "
	     "nm %s.whole --format=posix --defined-only | awk '$2 ~ /[TtD]/ {print $1}' | sort >all && "
	     "comm -13 dyn all >keep && objcopy -S --remove-section .gdb_index --remove-section .comment "
	     "--keep-symbols=keep %s.debug mini && rm -f mini.xz && xz mini",
		name, name, name);
}

static void test_mini(void **state)
{
	struct room room;

	make_mini("m");
	must("objcopy --add-section .gnu_debugdata=mini.xz m");
	start(&room, "m");
	assert_string_equal(
		chain_at(&room, offset_in("m.whole", "hidden") + 1)->functions[0].name, "hidden");
	/* It has not what .dynsym has. */
	assert_string_equal(
		chain_at(&room, offset_in("m.whole", "shown") + 1)->functions[0].name, "shown");
	assert_string_equal(symbol_facts(room.s, 3)->named_by, ".gnu_debugdata");
	assert_string_equal(symbol_facts(room.s, 3)->last_problem, "");
	room_deinit(&room);
}

static void test_mini_is_bad(void **state)
{
	static const struct {
		const char *make, *problem;
	} bad[] = {
		{"head -c 70000000 /dev/zero | xz -1 >bad.xz", "too big"},
		{"xz -1 --lzma2=dict=256MiB -c m >bad.xz", "too big"},
		{"head -c 200 mini.xz >bad.xz", "damaged"},
		{"head -c 10000 /dev/zero >bad.xz", "damaged"},
		{"echo not ELF | xz >bad.xz", "damaged"},
		{"printf '' | xz >bad.xz", "damaged"},
	};

	make_mini("m");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct room room;

		must("%s; objcopy --add-section .gnu_debugdata=bad.xz m bad", bad[i].make);
		start(&room, "bad");
		check_poor(&room, "m.whole");
		if (!strstr(symbol_facts(room.s, 3)->last_problem, bad[i].problem))
			fail_msg("%s: %s", bad[i].make, symbol_facts(room.s, 3)->last_problem);
		assert_int_equal(room_counters(&room).crashes, 0);
		room_deinit(&room);
	}
}

/* ---- too much with it ---- */

static void test_hangs_with_it(void **state)
{
	struct symbol_query q = {.file = 3};
	struct answer a = {0};
	struct room room;

	make_program("a", "");
	start(&room, "a.whole");
	room.s = symbol_free(room.s);
	assert_int_equal(
		symbol_new(&room.s, room.loop, &(struct symbol_config){.file_deadline_ms = 3000},
			&room_ops, &room, NULL),
		0);
	room_set_path(&room, 4, work_path("a"));
	room_name(&room, 4, 0x1000);
	assert_true(symbol_child_pid(room.s) > 0);
	kill(symbol_child_pid(room.s), SIGSTOP);
	q.offset = offset_in("a.whole", "hidden");
	assert_int_equal(symbol_resolve(room.s, &q, 1, clock_monotonic_ns() + 60 * NSEC_PER_SEC,
				 on_answer, &a),
		0);
	room_run(&room, &a);
	assert_string_equal(symbol_chain(room.s, &q)->functions[0].name, "hidden");
	assert_string_equal(symbol_facts(room.s, 3)->named_by, ".symtab");
	assert_int_equal(symbol_facts(room.s, 3)->timeouts, 1);
	assert_non_null(strstr(symbol_facts(room.s, 3)->last_problem,
		"without its debug information, at which the symbolizer did not answer"));
	room_deinit(&room);
}

/* A symbolizer that dies of debug information (1) or of debug files (2), and else has no names. */
static _Noreturn void fussy_main(int of)
{
	static uint64_t buffer[SYMBOL_MESSAGE_MAX / 8];
	const struct symbol_request *q = (const void *)buffer;
	struct symbol_ready ready = {.header = {.version = SYMBOL_PROTOCOL,
					     .message = SYMBOL_MESSAGE_READY,
					     .size = sizeof(ready)}};

	(void)fdpass_send(SANDBOX_FD, &ready, sizeof(ready), NULL, 0);
	for (;;) {
		struct symbol_facts_message facts = {.named_by = "fussy",
			.build_id = "abcd",
			.header = {.version = SYMBOL_PROTOCOL,
				.message = SYMBOL_MESSAGE_FACTS,
				.size = sizeof(facts)}};
		struct symbol_done_message done = {.header = {.version = SYMBOL_PROTOCOL,
							   .message = SYMBOL_MESSAGE_DONE,
							   .size = sizeof(done)}};
		int fds[2];
		size_t n = 2;

		if (fdpass_recv(SANDBOX_FD, buffer, sizeof(buffer), fds, &n) <= 0)
			_exit(0);
		if (of == 1 ? !(q->flags & SYMBOL_REQUEST_CHEAP) : n == 2)
			_exit(7);
		if (of == 2 && (q->flags & SYMBOL_REQUEST_MAY_ASK))
			done.flags = SYMBOL_DONE_WANTS_DEBUG;
		else
			done.n_done = q->n;
		facts.header.request = done.header.request = q->header.request;
		(void)fdpass_send(SANDBOX_FD, &facts, sizeof(facts), NULL, 0);
		(void)fdpass_send(SANDBOX_FD, &done, sizeof(done), NULL, 0);
		while (n)
			close(fds[--n]);
	}
}

static void test_dies_of_it(void **state)
{
	make_program("a", "");
	must("mkdir -p root/usr/lib/debug/.build-id/ab && cp a.debug root/usr/lib/debug/.build-id/ab/cd.debug");
	for (int of = 1; of <= 2; of++) {
		struct room room;
		char script[512];

		snprintf(script, sizeof(script), "#!/bin/sh\nexec %s --fussy %d\n", self, of);
		unlink(work_path("fussy"));
		write_file(work_path("fussy"), script);
		assert_int_equal(chmod(work_path("fussy"), 0700), 0);
		sandbox_set_program(work_path("fussy"));
		start(&room, "a");
		assert_true(chain_at(&room, 0x1000)->fallback);
		assert_string_equal(symbol_facts(room.s, 3)->named_by, "fussy");
		/* Twice with all; once without debug information but with the file. */
		assert_int_equal(symbol_facts(room.s, 3)->crashes, of + 1);
		assert_non_null(strstr(symbol_facts(room.s, 3)->last_problem, "exited with 7"));
		/* It stays so. */
		chain_at(&room, 0x1001);
		assert_int_equal(symbol_facts(room.s, 3)->crashes, of + 1);
		room_deinit(&room);
	}
	sandbox_set_program("/proc/self/exe");
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_by_build_id),
		cmocka_unit_test(test_own_debug_info_comes_first),
		cmocka_unit_test(test_symbols_of_a_debug_file),
		cmocka_unit_test(test_by_link),
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_comes_later),
		cmocka_unit_test(test_wrong_crc),
		cmocka_unit_test(test_wrong_build_id),
		cmocka_unit_test(test_spoilt_links),
		cmocka_unit_test(test_build_id_is_hex),
		cmocka_unit_test(test_links_are_plain_names),
		cmocka_unit_test(test_symbolic_links),
		cmocka_unit_test(test_owners),
		cmocka_unit_test(test_named),
		cmocka_unit_test(test_mini),
		cmocka_unit_test(test_mini_is_bad),
		cmocka_unit_test(test_hangs_with_it),
		cmocka_unit_test(test_dies_of_it),
	};

	if (argc == 3 && streq(argv[1], "--fussy"))
		fussy_main(atoi(argv[2]));
	dispatch_role(argc, argv);
	assert_true(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
