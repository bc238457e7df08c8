/* SPDX-License-Identifier: Apache-2.0 */

/* What an option may hold, type by type, and that errors lead on without giving a secret away. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "sources/source.h"

static int check(enum option_type type, const char *value, struct err_text *err)
{
	const struct option_desc desc = {.name = "opt", .type = type, .help = "what it is"};

	return option_check(&desc, value, err);
}

static void all(enum option_type type, const char *const *values, size_t n, int expected)
{
	struct err_text err;

	for (size_t i = 0; i < n; i++) {
		err.text[0] = 0;
		if (check(type, values[i], &err) != expected)
			fail_msg("\"%s\": another answer than %d (%s)", values[i], expected,
				err.text);
		if (expected < 0 && !*err.text)
			fail_msg("\"%s\": no text", values[i]);
	}
}
#define GOOD(type, ...)                                                                            \
	all(type, (const char *const[]){__VA_ARGS__},                                              \
		sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *), 0)
#define BAD(type, ...)                                                                             \
	all(type, (const char *const[]){__VA_ARGS__},                                              \
		sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *), -EINVAL)

static void says(enum option_type type, const char *value, const char *part)
{
	struct err_text err = {0};

	assert_int_equal(check(type, value, &err), -EINVAL);
	if (!strstr(err.text, part))
		fail_msg("\"%s\" does not say \"%s\"", err.text, part);
}

static void urls(void **state)
{
	char longer[3000] = "http://h/";

	GOOD(OPTION_URL, "http://localhost:4040", "https://profiles.example:443",
		"https://profiles.example/a/b?c=d&e", "http://10.0.0.1", "http://[::1]:4040/x",
		"HTTPS://Example.COM", "http://a_b.internal:1", "http://h/%20",
		"https://example.com.", "http://h:65535/", "http://h?q=1", "http://x-y.z");
	BAD(OPTION_URL, "", "localhost:4040", "ftp://h", "http://", "http:///path", "http://h:0",
		"http://h:65536", "http://h:", "http://h:80a", "http://h:-1", "http://h:000080",
		"http://-h", "http://h-/", "http://h..x", "http://.h", "http://10.0.0.256",
		"http://10.0.0", "http://[::1", "http://[::g]:1", "http://[::1]x", "http://::1:80",
		"http://user@h", "http://user:pw@h/x", "http://h/#frag", "http://h/a b",
		"http://h/%2", "http://h/%zz", "http://h/\xc3\xa9", "http://h\n", "http://h\tx",
		"://h", "http//h", "http:h", "https://h/<x>", "h", "/path", "http://h\x80");
	memset(longer + strlen(longer), 'x', 2500);
	BAD(OPTION_URL, longer);
	says(OPTION_URL, "localhost:4040", "did you mean \"http://localhost:4040\"");
	says(OPTION_URL, "ftp://h", "http or https");
}

static void hostports(void **state)
{
	GOOD(OPTION_HOSTPORT, "collector:4317", "10.0.0.1:1", "[::1]:4317", "a.b.c:65535");
	BAD(OPTION_HOSTPORT, "", "collector", "collector:", ":4317", "::1:4317", "[::1]",
		"[::1]4317", "http://h:1", "h:1/x", "h:0", "h:99999", "h h:1", "h:1 ", "user@h:1",
		"1.2.3:80");
	says(OPTION_HOSTPORT, "http://h:1", "without a scheme");
	says(OPTION_HOSTPORT, "collector", "port is missing");
}

static void secrets(void **state)
{
	struct err_text err = {0};

	GOOD(OPTION_SECRET, "file:/etc/odi/token", "secret:0123456789abcdef0123456789abcdef",
		"cred:token.1");
	BAD(OPTION_SECRET, "", "hunter2", "file:token", "file:", "secret:", "secret:0123",
		"secret:0123456789ABCDEF0123456789abcdef", "cred:a b", "FILE:/x");
	GOOD(OPTION_FILE, "file:/etc/odi/ca.pem", "cred:ca");
	BAD(OPTION_FILE, "/etc/odi/ca.pem", "-----BEGIN CERTIFICATE-----");
	GOOD(OPTION_ENDPOINT, "collector:4317", "[::1]:4317", "http://collector",
		"https://c:4317/x");
	BAD(OPTION_ENDPOINT, "", "collector", "collector:0", "ftp://collector:1", "a:b@c:4317");
	/* The value may be the secret itself: it is not said again. */
	assert_int_equal(check(OPTION_SECRET, "glc_hunter2", &err), -EINVAL);
	assert_null(strstr(err.text, "hunter2"));
	assert_int_equal(check(OPTION_FILE, "hunter2", &err), -EINVAL);
	assert_null(strstr(err.text, "hunter2"));
	assert_int_equal(check(OPTION_ENDPOINT, "user:hunter2@h:4317", &err), -EINVAL);
	assert_null(strstr(err.text, "hunter2"));
	assert_int_equal(check(OPTION_URL, "http://user:hunter2@h", &err), -EINVAL);
	assert_null(strstr(err.text, "hunter2"));
	assert_int_equal(check(OPTION_URL, "user:hunter2@h", &err), -EINVAL);
	assert_null(strstr(err.text, "hunter2"));
	assert_int_equal(check(OPTION_URL, "https:/user:hunter2@h", &err), -EINVAL);
	assert_null(strstr(err.text, "hunter2"));
}

static void others(void **state)
{
	static const char *const values[] = {"docker", "podman", NULL};
	const struct option_desc number = {.name = "n", .type = OPTION_UINT, .min = 1, .max = 1000};
	const struct option_desc any = {.name = "n", .type = OPTION_UINT};
	const struct option_desc delay = {.name = "d",
		.type = OPTION_DURATION,
		.min = NSEC_PER_SEC,
		.max = 600 * NSEC_PER_SEC};
	const struct option_desc kind = {.name = "k", .type = OPTION_ENUM, .values = values};
	const struct option_desc must = {
		.name = "m", .type = OPTION_STRING, .required = true, .help = "the thing"};
	struct err_text err;
	char big[5000];

	GOOD(OPTION_BOOL, "yes", "no", "true", "0");
	BAD(OPTION_BOOL, "", "maybe", "2");
	GOOD(OPTION_SIZE, "256MB", "1GiB");
	BAD(OPTION_SIZE, "", "x", "-1");
	GOOD(OPTION_STRING, "", "anything \xc3\xa9");
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	BAD(OPTION_STRING, "a\nb", "\x1b[31m", "\xff", big);
	GOOD(OPTION_MAP, "a=b", "X-Scope=1=2", "k=", "a.b/c=x");
	BAD(OPTION_MAP, "", "a", "=b", "a b=c", "\xc3\xa9=x");
	assert_int_equal(option_check(&number, "1", &err), 0);
	assert_int_equal(option_check(&number, "1000", &err), 0);
	assert_int_equal(option_check(&number, "0", &err), -EINVAL);
	assert_int_equal(option_check(&number, "10000", &err), -EINVAL);
	assert_string_equal(err.text, "n must be a whole number from 1 to 1000, not \"10000\"");
	assert_int_equal(option_check(&any, "18446744073709551615", &err), 0);
	assert_int_equal(option_check(&any, "18446744073709551616", &err), -EINVAL);
	assert_int_equal(option_check(&delay, "10s", &err), 0);
	assert_int_equal(option_check(&delay, "1ms", &err), -EINVAL);
	assert_int_equal(option_check(&delay, "1h", &err), -EINVAL);
	assert_int_equal(option_check(&kind, "docker", &err), 0);
	assert_int_equal(option_check(&kind, "dokcer", &err), -EINVAL);
	assert_non_null(strstr(err.text, "did you mean \"docker\""));
	assert_int_equal(option_check(&must, "", &err), -EINVAL);
	assert_string_equal(err.text, "m is required: the thing");
	assert_int_equal(option_check(&must, NULL, &err), -EINVAL);
	assert_int_equal(option_check(&must, "x", NULL), 0);
}

/* A kind's own table is found by name, its end is its end. */
static void found(void **state)
{
	assert_non_null(option_find(source_common_options, "per-thread"));
	assert_null(option_find(source_common_options, "per-nothing"));
	assert_null(option_find(NULL, "x"));
}

static void labels(void **state)
{
	char key[200], value[300];
	struct err_text err;

	assert_int_equal(source_label_check("region", "eu-west-1", &err), 0);
	assert_int_equal(source_label_check("_x.y-z/a9", "v", &err), 0);
	assert_int_equal(source_label_check("", "v", &err), -EINVAL);
	assert_int_equal(source_label_check("9a", "v", &err), -EINVAL);
	assert_int_equal(source_label_check(".a", "v", &err), -EINVAL);
	assert_int_equal(source_label_check("a b", "v", &err), -EINVAL);
	assert_int_equal(source_label_check("a\n", "v", &err), -EINVAL);
	assert_int_equal(source_label_check("\xc3\xa9", "v", &err), -EINVAL);
	assert_int_equal(source_label_check("a", "", &err), -EINVAL);
	assert_int_equal(source_label_check("a", "x\ny", &err), -EINVAL);
	assert_int_equal(source_label_check("a", "\xff", &err), -EINVAL);
	assert_int_equal(source_label_check("service_name", "v", &err), -EINVAL);
	assert_non_null(strstr(err.text, "--service-name"));
	assert_int_equal(source_label_check("service.name", "v", &err), -EINVAL);
	assert_int_equal(source_label_check("odi.source", "v", &err), -EINVAL);
	assert_int_equal(source_label_check("odin", "v", &err), 0);
	memset(key, 'k', sizeof(key));
	key[128] = 0;
	assert_int_equal(source_label_check(key, "v", &err), 0);
	key[128] = 'k';
	key[129] = 0;
	assert_int_equal(source_label_check(key, "v", &err), -EINVAL);
	memset(value, 'v', sizeof(value));
	value[256] = 0;
	assert_int_equal(source_label_check("a", value, &err), 0);
	value[256] = 'v';
	value[257] = 0;
	assert_int_equal(source_label_check("a", value, &err), -EINVAL);
	assert_int_equal(source_service_check("web shop", &err), 0);
	assert_int_equal(source_service_check("", &err), -EINVAL);
	assert_int_equal(source_service_check("  ", &err), -EINVAL);
	assert_int_equal(source_service_check("a\x07", &err), -EINVAL);
	assert_int_equal(source_service_check(value, &err), -EINVAL);
	value[255] = 0;
	assert_int_equal(source_service_check(value, &err), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(urls),
		cmocka_unit_test(hostports),
		cmocka_unit_test(secrets),
		cmocka_unit_test(others),
		cmocka_unit_test(found),
		cmocka_unit_test(labels),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
