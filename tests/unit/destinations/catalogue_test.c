/* SPDX-License-Identifier: Apache-2.0 */

/* Destination types: what is built in, what a file may say, what options are refused and how it is said. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agentd/base/text.h"
#include "destinations/destination.h"

static void test_built_in(void **state)
{
	const struct destination_type *const *types = destination_types();
	const struct destination_type *t = destination_type_find("pyroscope");
	size_t n = 0;

	for (; types[n]; n++) {
		assert_true(*types[n]->display_name && *types[n]->summary && *types[n]->example);
		assert_string_equal(types[n]->signals[0], "PROFILES");
		assert_true(text_starts(types[n]->example, "odictl destination add "));
		assert_non_null(option_find(types[n]->options, types[n]->endpoint_option));
	}
	assert_true(n >= 2);
	assert_non_null(t);
	assert_string_equal(t->default_endpoint, "http://localhost:4040");
	assert_string_equal(t->path, "/v1development/profiles");
	assert_string_equal(t->content_type, "application/x-protobuf");
	assert_int_equal(t->max_profile_bytes, 2000000);
	assert_int_equal(t->max_profile_samples, 16000);
	assert_int_equal(t->max_age_ns, 3600 * NSEC_PER_SEC);
	for (size_t i = 0; t->options[i].name; i++)
		if (streq(t->options[i].name, "tenant"))
			assert_string_equal(t->option_headers[i], "X-Scope-OrgID");
		else
			assert_null(t->option_headers[i]);
	assert_null(destination_type_find("otlphtp"));
}

struct refusal {
	const char *type, *name, *value, *says;
};

static void test_options(void **state)
{
	static const struct refusal refusals[] = {
		{"pyroscop", "url", "http://x", "did you mean \"pyroscope\"?"},
		{"xxxxxxxx", "url", "http://x", "destination types"},
		{"pyroscope", "ulr", "http://x", "did you mean \"url\"?"},
		{"pyroscope", "zzzzzzzzz", "x", "it has: url, tenant"},
		{"pyroscope", "url", "ftp://x", "http or https"},
		{"pyroscope", "url", "localhost:4040", "did you mean \"http://localhost:4040\"?"},
		{"pyroscope", "compression", "gzp", "did you mean \"gzip\"?"},
		{"pyroscope", "timeout", "1ms", "from 100 ms to"},
		{"pyroscope", "timeout", "soon", "a time such as"},
		{"pyroscope", "tenant/x", "y", "takes one value"},
		{"pyroscope", "headers", "y", "takes KEY=VALUE"},
		{"pyroscope", "headers/", "y", "headers"},
		{"pyroscope", "headers/a b", "y", "headers"},
		{"pyroscope", "headers/Content-Type", "y", "set by odi itself"},
		{"pyroscope", "headers/content-LENGTH", "5", "set by odi itself"},
		{"pyroscope", "headers/X", "secret\r\nY: z", "clean text"},
		{"pyroscope", "tenant", "a\nb", "control characters"},
	};
	struct err_text err;

	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		struct option_value o = {refusals[i].name, refusals[i].value};

		assert_int_equal(destination_check(refusals[i].type, &o, 1, &err), -EINVAL);
		if (!strstr(err.text, refusals[i].says))
			fail_msg("%s: %s", refusals[i].name, err.text);
		assert_null(strstr(err.text, "secret"));
	}
}

static void test_endpoint(void **state)
{
	static const char *const rows[][2] = {
		{"http://localhost:4040", "http://localhost:4040/v1development/profiles"},
		{"https://profiles.example", "https://profiles.example:443/v1development/profiles"},
		{"http://a.b/", "http://a.b:80/v1development/profiles"},
		{"https://a.b/tenant/x", "https://a.b:443/tenant/x"},
		{"http://[::1]", "http://[::1]:80/v1development/profiles"},
		{"http://[::1]:99/x", "http://[::1]:99/x"},
		/* Refused by the option's check; never shown, should it come in another way. */
		{"http://user:secret@a.b:1", "http://a.b:1/v1development/profiles"},
	};
	const struct destination_type *t = destination_type_find("pyroscope");
	char out[512];

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct option_value url = {"url", rows[i][0]};

		destination_endpoint(t, &url, 1, out, sizeof(out));
		assert_string_equal(out, rows[i][1]);
	}
	destination_endpoint(t, NULL, 0, out, sizeof(out));
	assert_string_equal(out, rows[0][1]);
}

static void test_options_right(void **state)
{
	const struct option_value options[] = {{"url", "https://p.example:443/sub/path"},
		{"tenant", "a"}, {"headers/Authorization", "Bearer a=b/c"}, {"timeout", "3s"},
		{"compression", "none"}};
	const struct option_value twice[] = {{"tenant", "a"}, {"tenant", "b"}};
	const struct destination_type *t = destination_type_find("pyroscope");
	struct err_text err;

	assert_int_equal(destination_check("pyroscope", options, ARRAY_SIZE(options), &err), 0);
	assert_int_equal(destination_check("pyroscope", NULL, 0, &err), 0);
	assert_int_equal(destination_check("pyroscope", twice, 2, &err), -EINVAL);
	assert_string_equal(destination_option(t, options, 5, "compression"), "none");
	assert_string_equal(destination_option(t, NULL, 0, "compression"), "gzip");
	assert_string_equal(destination_option(t, NULL, 0, "tenant"), "");
	assert_string_equal(destination_option(t, NULL, 0, "nothing"), "");
}

#define HEAD                                                                                       \
	"display-name: X\nsummary: y\nsignals: [PROFILES]\ntransport: otlphttp\nendpoint: url\n"
#define FIELDS "fields:\n  - {name: url, type: url, help: where}\n"

static void test_files(void **state)
{
	static const struct {
		const char *text, *says;
	} files[] = {
		{"", "x:1: the file is empty"},
		{"[a]", "x:1: a destination type: expected keys and values"},
		{"a: [", "x:"},
		{"sumary: x\n",
			"x:1: a destination type has no key \"sumary\": did you mean \"summary\"?"},
		{"summary: x\nsummary: y\n", "x:2: a destination type: \"summary\" is given twice"},
		{"summary: [x]\n", "x:1: summary: expected one value"},
		{HEAD FIELDS "limits: {max-profile-bytes: lots}\n",
			"x:8: max-profile-bytes: expected a size"},
		{HEAD FIELDS "limits: {max-age: 1\n}\n", NULL},
		{HEAD FIELDS "limits: {max-ages: 1h}\n", "did you mean \"max-age\"?"},
		{HEAD "fields: 7\n", "x:6: fields: expected a list"},
		{HEAD "fields:\n  - {name: url, type: ulr, help: w}\n",
			"x:7: there is no type \"ulr\": did you mean \"url\"?"},
		{HEAD "fields:\n  - {name: Url, type: url, help: w}\n",
			"x:7: a field needs a name"},
		{HEAD "fields:\n  - {name: url, type: url}\n", "x:7: the field url needs a help"},
		{HEAD "fields:\n  - {name: url, help: w}\n", "x:7: the field url needs a type"},
		{HEAD "fields:\n  - {name: url, type: url, help: w, default: nonsense}\n",
			"x:7: the default of the field url"},
		{HEAD FIELDS "  - {name: e, type: enum, help: w}\n",
			"x:8: the field e: values belong"},
		{HEAD FIELDS "  - {name: s, type: string, help: w, min: 3}\n",
			"x:8: min: only a number"},
		{HEAD FIELDS "  - {name: s, type: secret, help: w, default: a}\n",
			"x:8: the field s can have no default"},
		{HEAD FIELDS "  - {name: s, type: string, help: w, header: 'a b'}\n", "its header"},
		{HEAD FIELDS "  - {name: url, type: string, help: w}\n",
			"x:8: the field url is given twice"},
		{HEAD FIELDS "path: v1\n", "path: expected one that begins with /"},
		{"display-name: X\nsummary: y\nsignals: [TRACES]\ntransport: otlphttp\nendpoint: url\n" FIELDS,
			"there is no signal \"TRACES\""},
		{"display-name: X\nsummary: y\nsignals: [PROFILES]\ntransport: mail\nendpoint: url\n" FIELDS,
			"there is no transport \"mail\""},
		{"display-name: X\nsummary: y\nsignals: [PROFILES]\ntransport: otlphttp\nendpoint: where\n" FIELDS,
			"endpoint: expected the name of a field"},
		{"a: &a [*a]\n", "x:"},
		{HEAD FIELDS "  - {name: t, type: string, secret: true, help: w}\n", NULL},
	};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		struct destination_type *t = NULL;
		struct err_text err = {};
		int r = destination_type_parse("x", files[i].text, strlen(files[i].text), &t, &err);

		if (files[i].says ? r != -EINVAL || !strstr(err.text, files[i].says) : r != 0)
			fail_msg("%zu: %d: %s", i, r, err.text);
		if (t && option_find(t->options, "t"))
			assert_int_equal(option_find(t->options, "t")->type, OPTION_SECRET);
		destination_type_free(t);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_built_in),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_endpoint),
		cmocka_unit_test(test_options_right),
		cmocka_unit_test(test_files),
	};

	return cmocka_run_group_tests_name("destinations/catalogue", tests, NULL, NULL);
}
