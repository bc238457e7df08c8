/* SPDX-License-Identifier: Apache-2.0 */

/* What a set takes, what it refuses and in what words, and what it keeps over a reload. */

#include "tests/unit/sources/image.h"

static void refuses(const char *name, const char *kind, const char *match,
	const char *const *options, const char *part)
{
	CLEANUP(source_set_freep) struct source_set *set = NULL;
	struct err_text err = {0};

	assert_int_equal(source_set_new(&set), 0);
	if (add_source(set, name, kind, match, 1, options, &err) >= 0)
		fail_msg("%s %s was taken", kind, match);
	if (!strstr(err.text, part))
		fail_msg("\"%s\" does not say \"%s\"", err.text, part);
	assert_int_equal(source_set_size(set), 0);
}

static void kinds(void **state)
{
	refuses("s", "systmd", "x", NULL,
		"unknown source kind \"systmd\": did you mean \"systemd\"? kinds: systemd, process, container, cgroup, "
		"host");
	refuses("s", "docker", "x", NULL, "did you mean \"container\"");
	refuses("s", "zzzzzzzz", "x", NULL, "kinds: systemd, process");
	refuses("s", "", "x", NULL, "kinds: systemd, process");
	assert_non_null(source_kind_find("host"));
	assert_null(source_kind_find(NULL));
	for (size_t i = 0; source_kinds[i]; i++) {
		const struct source_kind *k = source_kinds[i];

		assert_true(k->name && k->summary && k->example && k->match_help && k->parse &&
			k->rank && k->match && k->default_service);
		assert_ptr_equal(source_kind_find(k->name), k);
		/* An option of its own must not hide one that all have. */
		for (const struct option_desc *d = k->options; d && d->name; d++)
			assert_true(d->help && !option_find(source_common_options, d->name));
	}
}

static void names(void **state)
{
	char big[10001];

	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = 0;
	refuses("", "host", "", NULL, "name has 1 to 64");
	refuses("a b", "host", "", NULL, "name has 1 to 64");
	refuses("a\n", "host", "", NULL, "name has 1 to 64");
	refuses(big, "host", "", NULL, "name has 1 to 64");
	refuses("s", "systemd", big, NULL, "1024 bytes");
	refuses("s", big, "x", NULL, "unknown source kind");
	refuses("s", "process", "a\x1b[31m", NULL, "control characters");
	refuses("s", "process", "\xff", NULL, "UTF-8");
}

static void matches(void **state)
{
	refuses("s", "systemd", "", NULL, "odictl source add systemd nginx");
	refuses("s", "systemd", "/system.slice/nginx.service", NULL, "cgroup source");
	refuses("s", "systemd", "nginx.socket", NULL, "did you mean \"nginx.service\"");
	refuses("s", "systemd", "ngi nx", NULL, "is no unit name");
	refuses("s", "container", "", NULL, "odictl source add container");
	refuses("s", "container", "/web", NULL, "did you mean \"web\"");
	refuses("s", "cgroup", "batch", NULL, "path from the root");
	refuses("s", "cgroup", "/a/../b", NULL, "\"..\"");
	refuses("s", "host", "web", NULL, "no MATCH");
	refuses("s", "process", "", NULL, "--pid or --cmdline");
	refuses("s", "process", "bin/nginx", NULL, "did you mean \"nginx\"");
}

static void options(void **state)
{
	refuses("s", "process", "x", OPTIONS("pid=0"),
		"pid must be a whole number from 1 to 4194304, not \"0\"");
	refuses("s", "process", "x", OPTIONS("pid=12x"), "pid must be");
	refuses("s", "process", "x", OPTIONS("pdi=12"), "did you mean \"pid\"");
	refuses("s", "process", "x", OPTIONS("children=perhaps"), "yes or no");
	refuses("s", "container", "x", OPTIONS("runtime=dokcer"), "did you mean \"docker\"");
	refuses("s", "host", "", OPTIONS("pid=12"), "no option \"pid\"");
	refuses("s", "host", "", OPTIONS("types=gpu"), "unknown profile type \"gpu\"");
	refuses("s", "host", "", OPTIONS("per-thread=yes", "per-thread=no"), "given twice");
	refuses("s", "host", "", OPTIONS("zzzzzzzz=1"), "options: service-name");
}

static void taken(void **state)
{
	CLEANUP(source_set_freep) struct source_set *set = NULL;
	struct option_value labels[] = {{"env", "prod"}, {"team", "shop"}};
	struct source_spec spec = {.name = "web",
		.kind = "systemd",
		.match = "nginx",
		.service_name = "shop",
		.enabled = true,
		.order = 7,
		.labels = labels,
		.n_labels = 2};
	struct err_text err = {0};
	const struct source *s;

	assert_int_equal(source_set_new(&set), 0);
	assert_int_equal(source_set_add(set, &spec, &err), 0);
	assert_int_equal(source_set_add(set, &spec, &err), -EEXIST);
	assert_non_null(strstr(err.text, "there is a source \"web\" already"));
	assert_int_equal(
		add_source(set, "all", "host", "", 8,
			OPTIONS("types=cpu", "per-process=yes", "per-thread=on", "per-cpu=1"),
			&err),
		0);
	assert_int_equal(source_set_size(set), 2);
	s = source_set_find(set, "web");
	assert_non_null(s);
	assert_string_equal(s->service_name, "shop");
	assert_string_equal(s->match, "nginx");
	assert_true(s->enabled && s->order == 7 && s->types == 0 && !s->per_process);
	assert_int_equal(s->n_labels, 2);
	/* Copies: the caller's may go. */
	assert_ptr_not_equal(s->labels[1].value, labels[1].value);
	assert_string_equal(s->labels[1].value, "shop");
	s = source_set_find(set, "all");
	assert_true(
		s->types == 1 << SAMPLE_TYPE_CPU && s->per_process && s->per_thread && s->per_cpu);
	assert_null(source_set_find(set, "none"));
	/* Refused ones leave the set as it was. */
	labels[1].name = "env";
	spec.name = "twice";
	assert_int_equal(source_set_add(set, &spec, &err), -EINVAL);
	assert_non_null(strstr(err.text, "source twice: label \"env\" is given twice"));
	labels[1].name = "service_name";
	assert_int_equal(source_set_add(set, &spec, &err), -EINVAL);
	spec.n_labels = 1;
	spec.service_name = "a\nb";
	assert_int_equal(source_set_add(set, &spec, &err), -EINVAL);
	assert_int_equal(source_set_size(set), 2);
}

static void is_bounded(void **state)
{
	CLEANUP(source_set_freep) struct source_set *set = NULL;
	struct err_text err = {0};
	char name[16];
	int r = 0, n;

	assert_int_equal(source_set_new(&set), 0);
	for (n = 0; n < 5000 && r == 0; n++) {
		snprintf(name, sizeof(name), "s%d", n);
		r = add_source(set, name, "host", "", (uint64_t)n, NULL, &err);
	}
	assert_int_equal(r, -E2BIG);
	assert_int_equal(source_set_size(set), 1024);
}

static void inherits(void **state)
{
	CLEANUP(source_set_freep) struct source_set *old = NULL, *set = NULL;

	assert_int_equal(source_set_new(&old), 0);
	assert_int_equal(source_set_new(&set), 0);
	assert_int_equal(add_source(old, "web", "systemd", "nginx", 1, NULL, NULL), 0);
	assert_int_equal(add_source(set, "web", "systemd", "nginx2", 1, NULL, NULL), 0);
	assert_int_equal(add_source(set, "new", "host", "", 2, NULL, NULL), 0);
	source_set_find(old, "web")->samples = 42;
	source_set_find(old, "web")->last_sample_unix_ns = 9;
	source_set_inherit(set, old);
	assert_int_equal(source_set_find(set, "web")->samples, 42);
	assert_int_equal(source_set_find(set, "web")->last_sample_unix_ns, 9);
	assert_int_equal(source_set_find(set, "new")->samples, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(kinds),
		cmocka_unit_test(names),
		cmocka_unit_test(matches),
		cmocka_unit_test(options),
		cmocka_unit_test(taken),
		cmocka_unit_test(is_bounded),
		cmocka_unit_test(inherits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
