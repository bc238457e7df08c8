/* SPDX-License-Identifier: Apache-2.0 */

/* Destination types: what is built in, what a file may say, what options are refused and how it is said. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
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
		if (destination_is_remote(types[n]))
			assert_non_null(option_find(types[n]->options, types[n]->endpoint_option));
		if (n)
			assert_true(strcmp(types[n - 1]->name, types[n]->name) < 0);
	}
	assert_int_equal(n, 13);
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
		{"pyroscope", "basic-password", "hunter2", "--basic-password-file FILE"},
		{"pyroscope", "basic-password", "file:/x", "basic-password needs basic-user"},
		{"pyroscope", "cert", "file:/x", "cert needs key"},
		{"pyroscope", "ca", "ca.pem", "file:/PATH"},
		{"pyroscope", "secret-headers/X-Key", "hunter2", "file:/PATH"},
		{"pyroscope", "secret-headers/Host", "file:/x", "set by odi itself"},
		{"otlp", "url", "collector", "the port is missing"},
		{"grafana-cloud", "basic-user", "7", "url is required"},
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
		{"pyroscope", "headers/X", "hunter2\r\nY: z", "clean text"},
		{"pyroscope", "tenant", "a\nb", "control characters"},
	};
	struct err_text err;

	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++) {
		struct option_value o = {refusals[i].name, refusals[i].value};

		assert_int_equal(destination_check(refusals[i].type, &o, 1, &err), -EINVAL);
		if (!strstr(err.text, refusals[i].says))
			fail_msg("%s: %s", refusals[i].name, err.text);
		assert_null(strstr(err.text, "hunter2"));
	}
}

/* What must not be kept in the clear: never the value, always the way. */
static void test_secrets(void **state)
{
	static const char *const refused[][2] = {{"headers/Authorization", "Bearer s3cret"},
		{"headers/authorization", "x"}, {"headers/X-Api-Key", "s3cret"},
		{"headers/DD-API-KEY", "s3cret"}, {"headers/Cookie", "s3cret"},
		{"headers/x-auth-token", "s3cret"}, {"headers/X-Team", "Basic s3cret"}};
	static const char *const taken[][2] = {
		{"headers/X-Team", "shop"}, {"headers/X-Scope-OrgID", "a"}, {"tenant", "b"}};
	struct err_text err;

	for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
		struct option_value o = {refused[i][0], refused[i][1]};

		assert_int_equal(destination_check("pyroscope", &o, 1, &err), 0);
		assert_int_equal(destination_check_secrets("pyroscope", &o, 1, &err), -EINVAL);
		assert_null(strstr(err.text, "s3cret"));
		assert_non_null(
			strstr(err.text, i < 2 ? "--bearer-token-file" : "--secret-header"));
	}
	for (size_t i = 0; i < ARRAY_SIZE(taken); i++) {
		struct option_value o = {taken[i][0], taken[i][1]};

		assert_int_equal(destination_check_secrets("pyroscope", &o, 1, &err), 0);
	}
}

static void test_url(void **state)
{
	static const struct {
		const char *type;
		struct option_value options[3];
		const char *url, *shown;
	} rows[] = {
		{"otlp", {{"url", "c:4317"}},
			"https://c:4317/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
			NULL},
		{"otlp", {{"url", "c:4317"}, {"insecure", "yes"}},
			"http://c:4317/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
			NULL},
		{"openobserve", {{"url", "https://o.example/?a=b"}, {"organization", "a b/c"}},
			"https://o.example/api/a%20b%2Fc/v1/profiles?a=b",
			"https://o.example:443/api/a%20b%2Fc/v1/profiles"},
		{"openobserve", {{"url", "https://o.example/x?a=b"}}, "https://o.example/x?a=b",
			"https://o.example:443/x"},
		{"file", {{"folder", "/var/lib/odi/files"}}, NULL, "/var/lib/odi/files"},
		{"debug", {}, NULL, "the log"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct destination_type *t = destination_type_find(rows[i].type);
		_cleanup_buf_ struct buf url;
		char shown[512];
		size_t n = 0;

		while (n < 3 && rows[i].options[n].name)
			n++;
		buf_init(&url, 4096);
		destination_endpoint(t, rows[i].options, n, shown, sizeof(shown));
		if (rows[i].url) {
			assert_int_equal(destination_url(t, rows[i].options, n, &url), 0);
			assert_string_equal((const char *)url.data, rows[i].url);
		}
		assert_string_equal(shown, rows[i].shown ? rows[i].shown : rows[i].url);
	}
}

static void put_file(const char *folder, const char *name, const char *text, unsigned mode)
{
	char path[300];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(chmod(path, mode), 0);
}

#define OWN                                                                                        \
	"display-name: Mine\nsummary: s\nsignals: [PROFILES]\ntransport: otlphttp\nendpoint: url\n"

/* Operators' types: taken when only root can change them, refused with the reason else. */
static void test_own(void **state)
{
	char folder[] = "/tmp/odi-types-XXXXXX", path[300], *yaml;
	static const char *const files[] = {
		"mine.yaml", "open.yaml", "wrong.yaml", "pyroscope.yaml", "notes.txt"};
	const struct option_value none = {};
	struct option_value handed[2];
	struct err_text err = {};

	assert_int_equal(destination_types_load("/nonexistent/odi", &err), 0);
	assert_non_null(mkdtemp(folder));
	put_file(folder, "mine.yaml",
		OWN "with: [network]\nfields: [{name: url, type: url, help: w}]\n", 0644);
	put_file(folder, "notes.txt", "x", 0666);
	assert_int_equal(destination_types_load(folder, &err), 0);
	assert_string_equal(destination_type_find("mine")->display_name, "Mine");
	assert_non_null(option_find(destination_type_find("mine")->options, "proxy"));
	put_file(folder, "open.yaml", OWN "fields: []\n", 0666);
	assert_int_equal(destination_types_load(folder, &err), 1);
	assert_non_null(strstr(err.text, "open.yaml is refused"));
	assert_non_null(strstr(err.text, "chmod go-w"));
	put_file(folder, "open.yaml", OWN "fields: [{name: url, type: url, help: w}]\n", 0644);
	put_file(folder, "wrong.yaml", OWN "field: []\n", 0644);
	put_file(folder, "pyroscope.yaml", OWN "fields: [{name: url, type: url, help: w}]\n", 0644);
	assert_int_equal(destination_types_load(folder, &err), 2);
	assert_non_null(strstr(err.text, "pyroscope is built in"));
	unlink(strcat(strcpy(path, folder), "/pyroscope.yaml"));
	assert_int_equal(destination_types_load(folder, &err), 1);
	assert_non_null(strstr(err.text, "/wrong.yaml:6: "));
	assert_non_null(strstr(err.text, "did you mean \"fields\"?"));
	chmod(folder, 0777);
	assert_int_equal(destination_types_load(folder, &err), 1);
	assert_non_null(strstr(err.text, folder));
	/* What the exporter does with one that it does not know. */
	yaml = strdup(destination_type_find("mine")->yaml);
	handed[0] = (struct option_value){".type", yaml};
	handed[1] = (struct option_value){".problem", "the token cannot be read"};
	assert_non_null(destination_adopt("other", handed, 1, &err));
	assert_null(destination_adopt("other", handed, 2, &err));
	assert_string_equal(err.text, "the token cannot be read");
	assert_null(destination_adopt("unheard", &none, 0, &err));
	free(yaml);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		unlink(strcat(strcat(strcpy(path, folder), "/"), files[i]));
	rmdir(folder);
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
		cmocka_unit_test(test_secrets),
		cmocka_unit_test(test_url),
		cmocka_unit_test(test_own),
	};

	return cmocka_run_group_tests_name("destinations/catalogue", tests, NULL, NULL);
}
