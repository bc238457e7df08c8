/* SPDX-License-Identifier: Apache-2.0 */

/* The policy of the host and the secrets of destinations: what is taken, what is refused, and what the texts say. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "agentd/base/io.h"
#include "agentd/base/text.h"
#include "agentd/config/policy.h"
#include "agentd/config/secrets.h"

static char folder[64], file[100];
static struct err_text err;

static struct policy load(const char *yaml, mode_t mode)
{
	struct policy p = {};

	unlink(file);
	if (yaml) {
		assert_int_equal(io_write_atomic(AT_FDCWD, file, yaml, strlen(yaml), mode), 0);
	}
	assert_int_equal(policy_load(&p, file), 0);
	return p;
}

static int check(const struct policy *p, const char *type, const char *name, const char *value)
{
	struct option_value o[] = {{name, value}};

	err.text[0] = 0;
	return policy_check(p, type, o, 1, &err);
}

static void test_none(void **state)
{
	struct policy p = load(NULL, 0);

	assert_false(p.found);
	assert_int_equal(check(&p, "otlphttp", "url", "http://anywhere.example"), 0);
	assert_int_equal(check(&p, "file", "folder", "/var/lib/odi/files/x"), 0);
	assert_int_equal(check(&p, "file", "folder", "/var/lib/odi"), -EPERM);
	policy_deinit(&p);
}

static void test_hosts(void **state)
{
	static const struct {
		const char *type, *url;
		int expected;
	} rows[] = {
		{"otlphttp", "https://a.example.com", 0},
		{"otlphttp", "https://A.EXAMPLE.com:443/x", 0},
		{"otlphttp", "https://a.example.com:8443", -EPERM},
		{"otlphttp", "https://a.example.com.evil.org", -EPERM},
		{"otlphttp", "https://evil.org/a.example.com:443", -EPERM},
		{"otlphttp", "https://example.com@evil.org", -EPERM},
		{"otlphttp", "http://10.1.2.3:99", -EPERM}, /* without TLS */
		{"otlphttp", "http://127.0.0.1:4318", 0},
		{"otlphttp", "http://127.evil.org", -EPERM}, {"otlp", "10.1.2.3:4317", 0},
		{"otlp", "http://10.1.2.3:4317", -EPERM}, {"otlp", "[::1]:4317", 0},
		{"polarsignals", "", -EPERM}, /* the type's own address */
	};
	struct policy p = load("destinations:\n  allow: ['*.example.com:443', '10.1.2.*', '127.*', "
			       "'[::1]']\n  require-tls-verification: yes\n",
		0644);

	assert_string_equal(p.problem, "");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (check(&p, rows[i].type, "url", rows[i].url) != rows[i].expected)
			fail_msg("%s: %s", rows[i].url, err.text);
	policy_deinit(&p);
}

static void test_folders(void **state)
{
	static const struct {
		const char *folder;
		bool allowed;
	} rows[] = {{"/srv/a", true}, {"/srv/a/b", true}, {"/srv/ab", false}, {"/srv", false},
		{"/srv/a/../b", false}, {"/srv/a/..", false}, {"srv/a", false},
		{"/srv/a/./b", false}, {"/data/x", true}, {"", false}};
	struct policy p = load("files: {folders: [/srv/a, /data/]}\n", 0644);

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (policy_folder_allowed(&p, rows[i].folder) != rows[i].allowed)
			fail_msg("%s", rows[i].folder);
	policy_deinit(&p);
}

static void test_refused(void **state)
{
	static const struct {
		const char *yaml;
		mode_t mode;
		const char *says;
	} rows[] = {
		{"destinations: {}\n", 0666, "chmod go-w"},
		{"destinations: {}\n", 0620, "chmod go-w"},
		{"destination: {}\n", 0644, ":1: there is no \"destination\" here: did you mean"},
		{"destinations: {allow: x}\n", 0644, ":1: expected a list"},
		{"destinations:\n  allow: ['http://x']\n", 0644, ":2: expected a host"},
		{"destinations: {require-tls-verification: perhaps}\n", 0644, "true or false"},
		{"files: {folders: [srv]}\n", 0644, "absolute folder"},
		{"files: {folders: [/a/../b]}\n", 0644, "absolute folder"},
		{"files: {folders: [/srv], foldres: [/etc]}\n", 0644, "there is no \"foldres\""},
		{"files: {folders: [/srv], folders: [/etc]}\n", 0644, ":1: "},
		{"[", 0644, "not valid YAML"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct policy p = load(rows[i].yaml, rows[i].mode);

		if (!strstr(p.problem, rows[i].says))
			fail_msg("%s: %s", rows[i].yaml, p.problem);
		assert_int_equal(check(&p, "otlphttp", "url", "https://a"), -EPERM);
		assert_int_equal(check(&p, "debug", "max-lines", "1"), -EPERM);
		assert_int_equal(check(&p, "file", "folder", "/var/lib/odi/files"), -EPERM);
		assert_int_equal(check(&p, "local", "x", ""), 0);
		policy_deinit(&p);
	}
}

/* Taken away from behind a link: nobody said that all is allowed now. */
static void test_leads_nowhere(void **state)
{
	struct policy p = {};

	unlink(file);
	assert_int_equal(symlink("gone.yaml", file), 0);
	assert_int_equal(policy_load(&p, file), 0);
	assert_true(p.found);
	assert_non_null(strstr(p.problem, "gone.yaml"));
	assert_int_equal(check(&p, "otlphttp", "url", "https://a"), -EPERM);
	policy_deinit(&p);
}

/* Only root names files for agentd to read, and who has shown to be able to read them. */
static void test_named_files(void **state)
{
	const char *path = "destinations/d/options/bearer-token";
	struct config_change change = {.path = path, .set = "file:/etc/shadow"};
	struct config_request q = {.changes = &change, .n_changes = 1, .uid = 1000};
	const struct config_doc *docs[LAYERS] = {};
	CLEANUP(config_doc_freep) struct config_doc *d = NULL;

	assert_int_equal(config_doc_new(&d), 0);
	assert_int_equal(config_doc_set(d, path, "file:/etc/shadow", 0), 0);
	assert_int_equal(policy_check_files(docs, d, &q, &err), -EINVAL);
	change.shown = true;
	assert_int_equal(policy_check_files(docs, d, &q, &err), 0);
	change.set = "file:/etc/other";
	assert_int_equal(policy_check_files(docs, d, &q, &err), -EINVAL);
	docs[LAYER_LOCAL] = d;
	assert_int_equal(policy_check_files(docs, d, &q, &err), 0);
	docs[LAYER_LOCAL] = NULL;
	q.uid = 0;
	assert_int_equal(policy_check_files(docs, d, &q, &err), 0);
}

/* ---- secrets ---- */

static int keep(struct secrets *s, const char *bytes, size_t len, char id[SECRET_ID])
{
	int fd = io_sealed_memfd("test", bytes, len), r;

	assert_true(fd >= 0);
	r = secrets_keep(s, fd, id, &err);
	close(fd);
	return r;
}

static int read_back(struct secrets *s, const char *scheme, const char *what, bool text, char *out)
{
	_cleanup_buf_ struct buf b = {0};
	char reference[300];
	int r;

	buf_init(&b, SECRET_MAX_BYTES + 2);
	snprintf(reference, sizeof(reference), "%s%s", scheme, what);
	r = secrets_read(s, reference, text, &b, &err);
	if (r == 0)
		snprintf(out, 100, "%s", (const char *)b.data);
	return r;
}

static void test_secrets(void **state)
{
	struct secrets *s = NULL;
	char id[SECRET_ID], path[200], out[100];
	struct stat st;
	int fd;

	assert_int_equal(secrets_open(&s, folder, &err), 0);
	assert_int_equal(keep(s, "hunter2\r\n", 9, id), 0);
	snprintf(path, sizeof(path), "%s/secrets/%s", folder, id);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(read_back(s, "secret:", id, true, out), 0);
	assert_string_equal(out, "hunter2");
	assert_int_equal(read_back(s, "secret:", id, false, out), -EINVAL);
	assert_non_null(strstr(err.text, "PEM"));
	assert_null(strstr(err.text, "hunter2"));
	secrets_drop(s, id);
	assert_int_equal(read_back(s, "secret:", id, true, out), -ENOENT);
	assert_non_null(strstr(err.text, "set it again"));
	assert_int_equal(keep(s, "a\nb", 3, id), 0);
	assert_int_equal(read_back(s, "secret:", id, true, out), -EINVAL);
	assert_int_equal(keep(s, "a\0b", 3, id), 0);
	assert_int_equal(read_back(s, "secret:", id, true, out), -EINVAL);
	/* Names that are none of ours, and what is not a sealed memory file. */
	assert_int_equal(read_back(s, "secret:", "../odi.db", true, out), -EINVAL);
	assert_int_equal(read_back(s, "cred:", "../x", true, out), -ENOENT);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, "x", 1), 1);
	assert_int_equal(secrets_keep(s, fd, id, &err), -EINVAL);
	close(fd);
	unlink(path);
	fd = memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(write(fd, "x", 1), 1);
	assert_int_equal(secrets_keep(s, fd, id, &err), -EINVAL);
	close(fd);
	secrets_close(s);
}

/* The descriptor has to be of that very file, and to be read from. */
static void test_may_name(void **state)
{
	char one[200], other[200];
	int fd;

	snprintf(one, sizeof(one), "%s/one", folder);
	snprintf(other, sizeof(other), "%s/other", folder);
	assert_int_equal(io_write_atomic(AT_FDCWD, one, "1", 1, 0600), 0);
	assert_int_equal(io_write_atomic(AT_FDCWD, other, "2", 1, 0600), 0);
	fd = open(one, O_RDONLY | O_CLOEXEC);
	assert_int_equal(secrets_may_name(one, fd, &err), 0);
	assert_int_equal(secrets_may_name(other, fd, &err), -EACCES);
	close(fd);
	fd = open(one, O_PATH | O_CLOEXEC);
	assert_int_equal(secrets_may_name(one, fd, &err), -EACCES);
	close(fd);
	fd = open(one, O_WRONLY | O_CLOEXEC);
	assert_int_equal(secrets_may_name(one, fd, &err), -EACCES);
	close(fd);
	assert_int_equal(chmod(one, 0666), 0);
	fd = open(one, O_RDONLY | O_CLOEXEC);
	assert_int_equal(secrets_may_name(one, fd, &err), -EPERM);
	close(fd);
}

static int setup(void **state)
{
	strcpy(folder, "/tmp/odi-policy-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(file, sizeof(file), "%s/policy.yaml", folder);
	return 0;
}

static int teardown(void **state)
{
	char command[100];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_none),
		cmocka_unit_test(test_hosts),
		cmocka_unit_test(test_folders),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_leads_nowhere),
		cmocka_unit_test(test_named_files),
		cmocka_unit_test(test_secrets),
		cmocka_unit_test(test_may_name),
	};

	return cmocka_run_group_tests_name("config/policy", tests, setup, teardown);
}
