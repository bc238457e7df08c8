/* SPDX-License-Identifier: Apache-2.0 */

/* Files against the destination types that are really built in. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "agentd/config/config_private.h"
#include "destinations/destination.h"

static struct config_doc *d;
static struct err_text err;

static int read_yaml(const char *yaml)
{
	d = config_doc_free(d);
	err.text[0] = 0;
	return config_doc_from_yaml("f", yaml, strlen(yaml), &d, &err);
}

static void is(const char *path, const char *value)
{
	const struct config_entry *e = config_doc_get(d, path);

	if (!e)
		fail_msg("there is no %s", path);
	assert_string_equal(e->value, value);
}

static void test_types(void **state)
{
	if (read_yaml("destinations:\n"
		      "- {name: p, type: pyroscope, url: \"http://localhost:4040\"}\n"
		      "- {name: o, type: otlphttp, url: \"https://collector:4318\"}\n") < 0)
		fail_msg("%s", err.text);
	is("destinations/p/options/url", "http://localhost:4040");
	is("destinations/o/type", "otlphttp");
}

/* The file of Odigos' documentation. */
static void test_odigos(void **state)
{
	if (read_yaml(
		    "destinations:\n- name: pyroscope\n  type: pyroscope\n  signals: [PROFILES]\n  config: "
		    "{PYROSCOPE_URL: \"localhost:4040\", PYROSCOPE_TLS_ENABLED: \"false\"}\n") < 0)
		fail_msg("%s", err.text);
	is("destinations/pyroscope/options/url", "http://localhost:4040");
}

static void test_mistakes(void **state)
{
	assert_int_equal(
		read_yaml("destinations:\n- {name: p, type: pyroscop, url: \"http://a\"}\n"),
		-EINVAL);
	assert_non_null(strstr(err.text, "pyroscope"));
	assert_int_equal(
		read_yaml("destinations:\n- {name: p, type: pyroscope, url: \"a b\"}\n"), -EINVAL);
	assert_true(strncmp(err.text, "f:2:35: ", 8) == 0);
	assert_int_equal(
		read_yaml("destinations:\n- {name: p, type: pyroscope, options: {tenat: x}}\n"),
		-EINVAL);
	assert_non_null(strstr(err.text, "tenat"));
}

/* Every option that a type calls secret is hidden, whatever is said of it. */
static void test_secrets(void **state)
{
	CLEANUP(config_doc_freep) struct config_doc *doc = NULL;
	const struct destination_type *const *types = destination_types();
	size_t secrets = 0;

	assert_int_equal(config_doc_new(&doc), 0);
	for (size_t i = 0; types[i]; i++) {
		assert_int_equal(config_doc_set(doc, "destinations/x/type", types[i]->name, 0), 0);
		for (const struct option_desc *o = types[i]->options; o->name; o++) {
			char path[CONFIG_PATH_MAX];
			bool hidden;

			snprintf(path, sizeof(path), "destinations/x/options/%s", o->name);
			hidden = streq(config_shown(doc, path, "value"), "(secret)");
			assert_int_equal(hidden,
				o->type == OPTION_SECRET || o->type == OPTION_MAP ||
					o->type == OPTION_FILE || o->type == OPTION_SECRET_MAP);
			secrets += hidden;
		}
	}
	assert_true(secrets > 0);
}

static int cleanup(void **state)
{
	d = config_doc_free(d);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_odigos),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_secrets),
	};

	return cmocka_run_group_tests(tests, NULL, cleanup);
}
