/* SPDX-License-Identifier: Apache-2.0 */

/* Which files the exporter can open, asked of a real one (this program again): on SIGUSR1 it tries some and writes what
 * came of it into a file that it had opened before. As on every host, it is nobody where the test is root, so what it
 * is to be kept from are files that every user can open. Waits are bounds for a test that went wrong. */

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/base/landlock.h"
#include "agentd/base/log.h"
#include "agentd/base/sandbox.h"
#include "destinations/destination.h"
#include "destinations/link.h"

#define WAIT_MS 30000

static char folder[64] = "/tmp/odi-confine-test-XXXXXX", self[256], copy[96];

/* ---- inside ---- */

static const struct {
	const char *name;
	int flags;
	int error; /* that is to come of it; 0: it opens. -1: as it would without, if it is there */
} tries[] = {
	{"/etc/passwd", O_RDONLY, EACCES},
	{"/proc/self/status", O_RDONLY, EACCES},
	{"/proc/version", O_RDONLY, EACCES},
	{"/", O_RDONLY | O_DIRECTORY, EACCES},
	{"/etc", O_RDONLY | O_DIRECTORY, EACCES},
	{"/dev/null", O_WRONLY, EACCES},
	{"readable", O_RDONLY, EACCES},
	{"writable", O_WRONLY, EACCES},
	{"made", O_WRONLY | O_CREAT, EACCES},
	{"a/../readable", O_RDONLY, EACCES},
	{"a/files/made", O_WRONLY | O_CREAT, 0},
	{"/etc/ssl", O_RDONLY | O_DIRECTORY, -1},
	{"/etc/ssl/certs/ca-certificates.crt", O_RDONLY, -1},
	{"/etc/resolv.conf", O_RDONLY, -1},
	{"/etc/hosts", O_RDONLY, -1},
	{"/etc/nsswitch.conf", O_RDONLY, -1},
	{"/usr/lib", O_RDONLY | O_DIRECTORY, 0},
};

static int answer = -1;

static const char *path_of(size_t i, char out[256])
{
	snprintf(out, 256, "%s%s%s", tries[i].name[0] == '/' ? "" : folder,
		tries[i].name[0] == '/' ? "" : "/", tries[i].name);
	return out;
}

static void on_signal(int sig)
{
	int errors[ARRAY_SIZE(tries) + 1];
	char path[256];

	for (size_t i = 0; i < ARRAY_SIZE(tries); i++) {
		int fd = open(path_of(i, path), tries[i].flags | O_CLOEXEC, 0600);

		errors[i] = fd < 0 ? errno : 0;
		if (fd >= 0)
			close(fd);
	}
	errors[ARRAY_SIZE(tries)] = 1; /* all is there */
	(void)!pwrite(answer, errors, sizeof(errors), 0);
}

static int role(const char *name)
{
	char path[300];

	snprintf(folder, sizeof(folder), "%.*s", (int)(strrchr(self, '/') - self), self);
	sandbox_close_from(SANDBOX_FD + 1);
	log_init(name, LOG_LEVEL_INFO);
	snprintf(path, sizeof(path), "%s/answer", folder);
	answer = open(path, O_RDWR | O_CLOEXEC);
	signal(SIGUSR1, on_signal);
	return exporter_main() < 0;
}

/* ---- outside ---- */

struct world {
	sd_event *loop;
	struct link *link;
	struct config_destination list[2];
	struct option_value options[2];
	char folders[2][96];
	struct link_test_result result;
	bool done;
};

static int set_up(void **state)
{
	struct world *w = calloc(1, sizeof(*w));
	struct link_config config = {.hang_ms = WAIT_MS};
	struct err_text err;

	assert_non_null(w);
	assert_true(sd_event_new(&w->loop) >= 0);
	assert_int_equal(link_new(&w->link, w->loop, &config, &err), 0);
	for (size_t i = 0; i < 2; i++) {
		snprintf(w->folders[i], sizeof(w->folders[i]), "%s/%c", folder, (char)('a' + i));
		w->options[i] = (struct option_value){"folder", w->folders[i]};
		w->list[i] = (struct config_destination){.name = (char *)"files",
			.type = (char *)"file",
			.enabled = true,
			.options = &w->options[i],
			.n_options = 1};
	}
	*state = w;
	return 0;
}

static int tear_down(void **state)
{
	struct world *w = *state;

	link_free(w->link);
	sd_event_unref(w->loop);
	free(w);
	return 0;
}

static void on_tested(void *userdata, const struct link_test_result *result)
{
	struct world *w = userdata;

	w->result = *result;
	w->done = true;
}

static void run_until(struct world *w, const bool *condition)
{
	uint64_t end = clock_monotonic_ns() + WAIT_MS * NSEC_PER_MSEC;

	while (!*condition) {
		if (clock_monotonic_ns() > end)
			fail_msg("it never came");
		assert_true(sd_event_run(w->loop, 20000) >= 0);
	}
}

/* That files can be written for this destination, which the exporter may not have heard of. */
static void assert_writes(struct world *w, const struct config_destination *d)
{
	w->done = false;
	assert_int_equal(link_test(w->link, d, WAIT_MS, on_tested, w), 0);
	run_until(w, &w->done);
	if (!w->result.ok)
		fail_msg("%s; %s", w->result.reason, w->result.remedy);
}

static void start(struct world *w)
{
	struct err_text err = {};

	if (link_configure(w->link, w->list, 1, &err) < 0)
		fail_msg("%s", err.text);
	assert_writes(w, &w->list[0]);
}

static void test_opens_its_own_only(void **state)
{
	struct world *w = *state;
	int errors[ARRAY_SIZE(tries) + 1] = {0}, fd;
	char path[256];

	if (!landlock_abi()) {
		print_message("this kernel has no Landlock: nothing to test\n");
		skip();
	}
	start(w);
	snprintf(path, sizeof(path), "%s/answer", folder);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(kill(link_child_pid(w->link), SIGUSR1), 0);
	for (uint64_t end = clock_monotonic_ns() + WAIT_MS * NSEC_PER_MSEC;
		!errors[ARRAY_SIZE(tries)] && clock_monotonic_ns() < end;) {
		assert_true(sd_event_run(w->loop, 20000) >= 0);
		assert_true(pread(fd, errors, sizeof(errors), 0) >= 0);
	}
	close(fd);
	assert_int_equal(errors[ARRAY_SIZE(tries)], 1);
	for (size_t i = 0; i < ARRAY_SIZE(tries); i++) {
		path_of(i, path);
		if (tries[i].error < 0 && access(path, F_OK) < 0)
			assert_int_equal(errors[i], ENOENT);
		else if (errors[i] != MAX(tries[i].error, 0))
			fail_msg("%s: %s", path, strerrordesc_np(errors[i]));
	}
}

/* Another process takes over, which counts as no failure; and once it may write there, that is that. */
static void test_takes_another_folder(void **state)
{
	struct world *w = *state;
	struct err_text err = {};
	pid_t first, second;

	start(w);
	first = link_child_pid(w->link);
	assert_writes(w, &w->list[0]);
	assert_int_equal(link_child_pid(w->link), first);
	assert_writes(w, &w->list[1]);
	second = link_child_pid(w->link);
	if (landlock_abi())
		assert_int_not_equal(second, first);
	assert_int_equal(link_configure(w->link, &w->list[1], 1, &err), 0);
	assert_writes(w, &w->list[1]);
	assert_int_equal(link_child_pid(w->link), second);
	assert_int_equal(link_restarts(w->link), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* Files and folders that every user could use. */
static void make_folder(void)
{
	static const struct {
		const char *name;
		mode_t mode;
	} files[] = {{"answer", 0666}, {"readable", 0644}, {"writable", 0666}};
	char path[256];

	assert_non_null(mkdtemp(folder));
	assert_int_equal(chmod(folder, 0777), 0);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		int fd;

		snprintf(path, sizeof(path), "%s/%s", folder, files[i].name);
		fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		assert_true(fd >= 0 && fchmod(fd, files[i].mode) == 0);
		close(fd);
	}
	/* Where it lies says inside which folder it is. */
	snprintf(copy, sizeof(copy), "%s/exporter", folder);
	snprintf(path, sizeof(path), "cp %.150s %s", self, copy);
	assert_int_equal(system(path), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(test_opens_its_own_only), TEST(test_takes_another_folder)};
	char command[128];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	int r;

	self[MAX(n, (ssize_t)0)] = 0;
	if (argc >= 3 && streq(argv[1], "--role"))
		return role(argv[2]);
	make_folder();
	sandbox_set_program(copy);
	r = cmocka_run_group_tests_name("destinations/confine", tests, NULL, NULL);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command) == 0 ? r : 1;
}
