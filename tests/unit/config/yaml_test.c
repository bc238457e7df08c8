/* SPDX-License-Identifier: Apache-2.0 */

/* Files as administrators write them: what they mean, and where the mistake is. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "agentd/config/config_private.h"
#include "tests/unit/config/fakes.h"

static void means(const char *yaml, const char *expected)
{
	CLEANUP(config_doc_freep) struct config_doc *d = NULL;
	_cleanup_buf_ struct buf b;
	struct err_text err = {""};

	buf_init(&b, 0);
	if (config_doc_from_yaml("agentd.yaml", yaml, strlen(yaml), &d, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(config_doc_encode(d, &b), 0);
	assert_string_equal(b.len ? (char *)b.data : "", expected);
}

static void fails(const char *yaml, const char *start, const char *words)
{
	struct config_doc *d = NULL;
	struct err_text err = {""};

	if (config_doc_from_yaml("agentd.yaml", yaml, strlen(yaml), &d, &err) >= 0)
		fail_msg("taken: %s", yaml);
	assert_null(d);
	if (strncmp(err.text, start, strlen(start)) != 0 || !strstr(err.text, words))
		fail_msg("\"%s\" is not \"%s...%s\"", err.text, start, words);
}

static void test_empty(void **state)
{
	means("", "");
	means("# nothing\n", "");
	means("---\n...\n", "");
	means("{}", "");
	means("sources:\nprofiling:\n", "");
	means("sources: []\ndestinations: {}\n", "");
}

static void test_settings(void **state)
{
	means("profiling: {maxFrames: 500, budget: 0.5 %, unwind-memory: 16MB}",
		"profiling/budget=0.5 %\nprofiling/max-frames=500\nprofiling/unwind-memory=16MB\n");
	means("profiling: {demangle: full}\n"
	      "symbols: {fetch: on, urls: [http://a.example, 'https://b.example/x'], paths: [/a, /b c]}",
		"profiling/demangle=full\nsymbols/fetch=on\nsymbols/paths=/a:/b c\n"
		"symbols/urls=http://a.example https://b.example/x\n");
	means("symbols: {paths: []}", "symbols/paths=\n");
	fails("symbols:\n  urls: []\n", "agentd.yaml:2:9: ", "at least one");
	fails("symbols:\n  paths: [/a, b]\n", "agentd.yaml:2:10: ", "absolute");
	fails("profiling: {demangle: ful}", "agentd.yaml:1:23: ", "did you mean \"full\"");
	means("profiling:\n  enabled: yes\n  rate: 49\n  types: [cpu]\n  kernelFrames: false\n"
	      "local: {max-size: 1GB, max_age: 2d}\n"
	      "host:\n  labels: {region: eu-1, \"topology/zone\": a}\n"
	      "containers: {docker-root: /data/docker}\n",
		"containers/docker-root=/data/docker\n"
		"host/labels/region=eu-1\nhost/labels/topology/zone=a\n"
		"local/max-age=2d\nlocal/max-size=1GB\n"
		"profiling/enabled=yes\nprofiling/kernel-frames=false\n"
		"profiling/rate=49\nprofiling/types=cpu\n");
}

static void test_sources(void **state)
{
	means("sources:\n"
	      "  - name: web\n    kind: systemd\n    match: nginx\n    service-name: shop\n"
	      "    labels: {team: blue}\n    per-process: true\n"
	      "  - {name: all, kind: host, enabled: false}\n",
		"sources/all/enabled=false\nsources/all/kind=host\nsources/all/order=1\n"
		"sources/web/kind=systemd\nsources/web/labels/team=blue\nsources/web/match=nginx\n"
		"sources/web/order=0\nsources/web/per-process=true\nsources/web/service-name=shop\n");
	means("sources:\n  web: {kind: systemd, match: nginx}\n",
		"sources/web/kind=systemd\nsources/web/match=nginx\nsources/web/order=0\n");
}

/* As its documentation shows them. */
static void test_odigos_spellings(void **state)
{
	means("sources:\n- {name: nginx, enabled: true, serviceName: web, kind: systemd}\n"
	      "- {name: db, kind: docker}\n",
		"sources/db/kind=container\nsources/db/match=db\nsources/db/order=1\n"
		"sources/nginx/enabled=true\nsources/nginx/kind=systemd\nsources/nginx/match=nginx\n"
		"sources/nginx/order=0\nsources/nginx/service-name=web\n");
	means("destinations:\n- name: pyroscope\n  type: pyroscope\n  signals: [PROFILES]\n"
	      "  config: {PYROSCOPE_URL: \"localhost:4040\", PYROSCOPE_TLS_ENABLED: \"false\"}\n",
		"destinations/pyroscope/options/url=http://localhost:4040\n"
		"destinations/pyroscope/order=0\ndestinations/pyroscope/type=pyroscope\n");
	means("destinations:\n- name: p\n  type: pyroscope\n"
	      "  config: {PYROSCOPE_TLS_ENABLED: true, PYROSCOPE_URL: \"p:443\"}\n",
		"destinations/p/options/url=https://p:443\n"
		"destinations/p/order=0\ndestinations/p/type=pyroscope\n");
}

static void test_destinations(void **state)
{
	means("destinations:\n  main:\n    type: pyroscope\n    url: http://p:4040\n"
	      "    options:\n      tenant: t\n      token: file:/etc/odi/t\n"
	      "      headers: {X-A: b, X-C: d}\n",
		"destinations/main/options/headers/X-A=b\ndestinations/main/options/headers/X-C=d\n"
		"destinations/main/options/tenant=t\ndestinations/main/options/token=file:/etc/odi/t\n"
		"destinations/main/options/url=http://p:4040\ndestinations/main/order=0\n"
		"destinations/main/type=pyroscope\n");
}

static void test_lines(void **state)
{
	static const char yaml[] =
		"profiling:\n\n  rate: 49\nsources:\n  - name: web\n    kind: host\n";
	CLEANUP(config_doc_freep) struct config_doc *d = NULL;
	struct err_text err;

	assert_int_equal(config_doc_from_yaml("f", yaml, strlen(yaml), &d, &err), 0);
	assert_int_equal(config_doc_get(d, "profiling/rate")->line, 3);
	assert_int_equal(config_doc_get(d, "sources/web/kind")->line, 6);
	assert_int_equal(config_doc_first(d, "sources/web")->line, 5);
}

static void test_mistakes(void **state)
{
	fails("profiling:\n  rate: ten\n", "agentd.yaml:2:9: profiling: rate must be",
		"from 1 to 1000, not \"ten\"");
	fails("profiling: {budget: much}", "agentd.yaml:1:21: profiling: ", "percentage");
	fails("profiling: {unwindMemory: 1k}", "agentd.yaml:1:27: ", "unwind-memory");
	fails("profiling: {rate: 0}", "agentd.yaml:1:19: ", "from 1 to 1000");
	fails("profiling: {rate: 10000}", "agentd.yaml:1:19: ", "from 1 to 1000");
	fails("profiling: {rate: [1]}", "agentd.yaml:1:19: ", "expected a value, got a list");
	fails("profiling: {rate: }", "agentd.yaml:1:19: ", "got nothing");
	fails("profiling: {rat: 1}", "agentd.yaml:1:13: ", "did you mean \"rate\"");
	fails("profiling: {rate: 1, rate: 2}", "agentd.yaml:1:28: ", "given twice");
	fails("profiling: 7", "agentd.yaml:1:12: ", "expected a map");
	fails("profiling: {types: [cpu, heap]}", "agentd.yaml:1:20: ", "\"heap\"");
	fails("profiling: {types: []}", "agentd.yaml:1:20: ", "at least one");
	fails("profiling: {interval: 0.5s}", "agentd.yaml:1:23: ", "interval must be");
	fails("profilng: {}", "agentd.yaml:1:1: ", "did you mean \"profiling\"");
	fails("host: {label: x}", "agentd.yaml:1:8: ", "there is: labels");
	fails("host: {labels: {\"1x\": y}}", "agentd.yaml:1:17: ", "cannot be a label's key");
	fails("[]", "agentd.yaml:1:1: ", "expected a map");
	fails("sources: 3", "agentd.yaml:1:10: ", "expected a list or a map");
	fails("sources:\n- kind: host\n", "agentd.yaml:2:3: ", "no name");
	fails("sources:\n- name: x\n", "agentd.yaml:2:9: ", "source x has no kind");
	fails("sources:\n- {name: x, kind: sytemd, unit: y}\n",
		"agentd.yaml:2:19: source x: unknown", "did you mean \"systemd\"");
	fails("sources:\n- {name: x, kind: host}\n- {name: x, kind: host}\n",
		"agentd.yaml:3:10: ", "there twice");
	fails("sources:\n- {name: \"a b\", kind: host}\n",
		"agentd.yaml:2:10: ", "cannot be the name");
	fails("sources:\n- {name: /usr/bin/x, kind: process}\n",
		"agentd.yaml:2:10: ", "cannot be a name");
	fails("sources:\n- {name: x, kind: host, enabld: no}\n",
		"agentd.yaml:2:25: ", "did you mean \"enabled\"");
	fails("sources:\n- {name: x, kind: host, enabled: maybe}\n",
		"agentd.yaml:2:34: ", "must be true or false");
	fails("sources:\n- {name: x, kind: host, options: {nope: 1}}\n",
		"agentd.yaml:2:10: ", "nope");
	fails("destinations:\n- {name: p, type: pyroscop, url: x}\n",
		"agentd.yaml:2:19: ", "pyroscop");
	fails("destinations:\n- {name: p, type: pyroscope, url: \"a b\"}\n",
		"agentd.yaml:2:35: ", "url");
	fails("destinations:\n- {name: p, type: pyroscope}\n", "agentd.yaml:2:10: destination p",
		"url is required");
	fails("destinations:\n- {name: p}\n", "agentd.yaml:2:10: ", "has no type");
	fails("destinations:\n- {name: p, type: pyroscope, signals: [TRACES]}\n",
		"agentd.yaml:2:39: ", "PROFILES");
	fails("destinations:\n- {name: p, type: pyroscope, headers: x}\n",
		"agentd.yaml:2:39: ", "expected a map");
}

static void test_not_yaml(void **state)
{
	fails("profiling:\n\trate: 3\n", "agentd.yaml:2:1: not valid YAML", "");
	fails("a: [", "agentd.yaml:", "not valid YAML");
	fails("a: b: c", "agentd.yaml:1:5: not valid YAML", "");
	fails("a: \xff\xfe", "agentd.yaml:1:4: not UTF-8", "");
	fails("a: \"x\\0y\"", "agentd.yaml:1:4: ", "NUL");
	fails("? [a]\n: b\n", "agentd.yaml:1:3: ", "name of a setting");
	fails("profiling: {}\n---\nprofiling: {}\n", "agentd.yaml:2:1: ", "second document");
	fails("profiling: &x {rate: 3}\n", "agentd.yaml:1:12: ", "anchors");
	fails("profiling: *x\n", "agentd.yaml:", "");
	fails("profiling: {rate: !!int 3}\n", "agentd.yaml:1:19: ", "tags");
	fails("host: {labels: {a: \"x\\ny\"}}\n", "agentd.yaml:1:17: ", "control characters");
}

static void test_bounds(void **state)
{
	_cleanup_buf_ struct buf b;
	struct config_doc *d = NULL;
	struct err_text err = {""};

	fails("a: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "agentd.yaml:1:", "nested too deeply");
	buf_init(&b, 0);
	for (int i = 0; i < 1001; i++)
		buf_printf(&b, "%s{name: s%d, kind: host}", i ? "," : "sources: [", i);
	buf_str(&b, "]");
	assert_int_equal(config_doc_from_yaml("f", (char *)b.data, b.len, &d, &err), -EINVAL);
	assert_non_null(strstr(err.text, "more than 1000 sources"));
	buf_reset(&b);
	buf_str(&b, "x: [");
	for (int i = 0; i < 70000; i++)
		buf_str(&b, "a,");
	buf_str(&b, "]");
	assert_int_equal(config_doc_from_yaml("f", (char *)b.data, b.len, &d, &err), -E2BIG);
	assert_non_null(strstr(err.text, "too many settings"));
	buf_reset(&b);
	for (int i = 0; i < 40000; i++)
		buf_str(&b, "# a comment that makes it long\n");
	assert_int_equal(config_doc_from_yaml("f", (char *)b.data, b.len, &d, &err), -E2BIG);
	assert_non_null(strstr(err.text, "larger than"));
	assert_null(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_settings),
		cmocka_unit_test(test_sources),
		cmocka_unit_test(test_odigos_spellings),
		cmocka_unit_test(test_destinations),
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_mistakes),
		cmocka_unit_test(test_not_yaml),
		cmocka_unit_test(test_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
