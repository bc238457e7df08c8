/* SPDX-License-Identifier: Apache-2.0 */

/* What a support bundle is made of: texts without what may be a secret, in an archive that tar reads; and configuration
 * as YAML. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agentd/base/io.h"
#include "odictl/config.h"
#include "odictl/redact.h"
#include "odictl/tar.h"

/* ---- secrets --------------------------------------------------------------------------------------- */

static void gone(const char *text, const char *expected)
{
	_cleanup_buf_ struct buf out;
	size_t n;

	buf_init(&out, 0);
	n = redact(text, &out);
	if (!streq((const char *)out.data, expected))
		fail_msg("\"%s\" became \"%s\"", text, (const char *)out.data);
	assert_true(n > 0);
}

static void stays(const char *text)
{
	_cleanup_buf_ struct buf out;

	buf_init(&out, 0);
	if (redact(text, &out) != 0 || !streq(out.len ? (const char *)out.data : "", text))
		fail_msg("\"%s\" became \"%s\"", text, (const char *)out.data);
}

static void test_redact(void **state)
{
	gone("at https://user:hunter2@host:4040/x", "at https://(secret)@host:4040/x");
	gone("https://hunter2@host", "https://(secret)@host");
	gone("https://user:hun/ter2@host/", "https://(secret)@host/");
	gone("https://user:hun@ter2@host/", "https://(secret)@host/");
	gone("\"https://h/p?key=hunter2&x=1\",", "\"https://h/p?(secret)\",");
	gone("https://user:hun,t;er2)@host/", "https://(secret)@host/");
	gone("not \"password=hun,ter2\"; more", "not \"password=(secret) more");
	gone("Authorization: Bearer hunter2hunter2\nnext", "Authorization: (secret)\nnext");
	gone("sent Bearer hunter2hunter2, got 401", "sent Bearer (secret), got 401");
	gone("BASIC aHVudGVyMjpodW50ZXIy", "BASIC (secret)");
	gone("DB_PASSWORD=hunter2 next", "DB_PASSWORD=(secret) next");
	gone("X-Api-Key: hunter 2\nn", "X-Api-Key: (secret)\nn");
	gone("  basic-auth-password: 'hunter2'", "  basic-auth-password: '(secret)'");
	gone("+host/labels/api-token = hunter2", "+host/labels/api-token = (secret)");
	gone("k -----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY----- m",
		"k (secret)-----END RSA PRIVATE KEY----- m");
	gone("-----BEGIN PRIVATE KEY-----\nhunter2, cut", "(secret)");
	gone("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
		"(secret)");
}

static void json(const char *text, const char *expected)
{
	_cleanup_buf_ struct buf out;

	buf_init(&out, 0);
	redact_json(text, &out);
	assert_string_equal((const char *)out.data, expected);
}

static void test_json(void **state)
{
	json("{\"password\": \"hunter2\", \"a\": 1}", "{\"password\": \"(secret)\", \"a\": 1}");
	json("{\"bearer_token\": \"hun\\\"ter2\", \"b\": [\"x\", \"y\"]}",
		"{\"bearer_token\": \"(secret)\", \"b\": [\"x\", \"y\"]}");
	json("[{\"path\": \"destinations/x/options/token\", \"value\": \"hunter2\", \"origin\": \"o\"},\n"
	     " {\"path\": \"profiling/rate\", \"value\": \"99\"}]",
		"[{\"path\": \"destinations/x/options/token\", \"value\": \"(secret)\", \"origin\": \"o\"},\n"
		" {\"path\": \"profiling/rate\", \"value\": \"99\"}]");
	json("{\"text\": \"not \\\"password=hunter2\\\"; more\\n\\u003cb>\"}",
		"{\"text\": \"not \\\"password=(secret) more\\u000a\\u003cb>\"}");
	json("{\"secret\": true, \"token\": null, \"secrets\": 12, \"tokens\": [\"hunter2\", \"hunter2\"], \"b\": \"x\"}",
		"{\"secret\": true, \"token\": null, \"secrets\": 12, \"tokens\": [\"(secret)\", \"(secret)\"], \"b\": \"x\"}");
	/* Cut in the middle. */
	json("{\"a\": \"https://u:hunter2@h", "{\"a\": \"https://(secret)@h");
	json("{\"a\": \"\\u003", "{\"a\": \"\\u003");
	json("{\"password\": \"hunter2\", \"a\": \"\\u\"",
		"{\"password\": \"(secret)\", \"a\": \"u\"");
	json("no JSON", "no JSON");
}

static void test_not_secret(void **state)
{
	stays("");
	stays("2026-11-21T18:34:24Z info agentd: revision 4 by uid 0: config set profiling/rate");
	stays("destination p at http://localhost:4040: connection refused");
	stays("bearer-token: file:/etc/odi/token");
	stays("password: cred:backend");
	stays("  token: \"(secret)\"");
	stays("Basic usage: see the manual");
	stays("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----");
	stays("a:b ://x = y \" ' \\ \xc3\xa9");
}

/* ---- archives -------------------------------------------------------------------------------------- */

static void test_tar(void **state)
{
	char path[] = "/tmp/odi-tar-XXXXXX", command[400];
	static const char block[512] = "a block";
	_cleanup_buf_ struct buf out;
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	buf_init(&out, 0);
	tar_add(&out, "a.txt", "hello\n", 6, 1700000000);
	tar_add(&out, "b/empty", "", 0, 1700000000);
	tar_add(&out, "b/block", block, sizeof(block), 1700000000);
	tar_end(&out);
	assert_int_equal(out.len % 512, 0);
	assert_int_equal(io_write_all(fd, out.data, out.len), 0);
	close(fd);
	snprintf(command, sizeof(command),
		"test \"$(TZ=UTC tar -tvf %s | tr -s ' ' | tr '\\n' '|')\" = "
		"'-rw------- root/root 6 2023-11-14 22:13 a.txt|-rw------- root/root 0 2023-11-14 22:13 "
		"b/empty|-rw------- root/root 512 2023-11-14 22:13 b/block|' && "
		"test \"$(tar -xOf %s a.txt)\" = hello",
		path, path);
	assert_int_equal(system(command), 0);
	unlink(path);
}

/* ---- YAML ------------------------------------------------------------------------------------------ */

static void test_yaml(void **state)
{
	static const char *const values[][2] = {{"destinations/a/options/headers/X-K", "(secret)"},
		{"destinations/a/options/url", "http://p"}, {"destinations/a/order", "9"},
		{"destinations/a/type", "otlp"}, {"destinations/b/order", "1"},
		{"destinations/b/type", "no"}, {"host/labels/a/b.c", "x: y\"#"},
		{"host/labels/on", ""}, {"profiling/enabled", "true"}, {"profiling/rate", "49"},
		{"sources/web/kind", "process"}, {"sources/web/labels/a/b", "-1"},
		{"sources/web/labels/c", "&d"}, {"sources/web/options/children", "yes"}};
	static const char expected[] = "host:\n"
				       "  labels:\n"
				       "    a/b.c: \"x: y\\\"#\"\n"
				       "    \"on\": \"\"\n"
				       "profiling:\n"
				       "  enabled: true\n"
				       "  rate: 49\n"
				       "sources:\n"
				       "  - name: \"web\"\n"
				       "    kind: process\n"
				       "    labels:\n"
				       "      a/b: \"-1\"\n"
				       "      c: \"&d\"\n"
				       "    options:\n"
				       "      children: yes\n"
				       "destinations:\n"
				       "  - name: \"b\"\n"
				       "    type: no\n"
				       "  - name: \"a\"\n"
				       "    options:\n"
				       "      headers:\n"
				       "        X-K: \"(secret)\"\n"
				       "      url: \"http://p\"\n"
				       "    type: otlp\n";
	Control__ConfigValue list[ARRAY_SIZE(values) + 1], *pointers[ARRAY_SIZE(values) + 1];
	Control__Config c = CONTROL__CONFIG__INIT;
	_cleanup_buf_ struct buf out;

	for (size_t i = 0; i <= ARRAY_SIZE(values); i++) {
		control__config_value__init(&list[i]);
		list[i].path = (char *)(i < ARRAY_SIZE(values) ? values[i][0] : "local/max-age");
		list[i].value = (char *)(i < ARRAY_SIZE(values) ? values[i][1] : "7d");
		list[i].is_default = i == ARRAY_SIZE(values);
		pointers[i] = &list[i];
	}
	c.values = pointers;
	c.n_values = ARRAY_SIZE(values) + 1;
	buf_init(&out, 0);
	config_yaml(&c, &out);
	assert_string_equal((const char *)out.data, expected);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_redact),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_not_secret),
		cmocka_unit_test(test_tar),
		cmocka_unit_test(test_yaml),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
