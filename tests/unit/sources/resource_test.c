/* SPDX-License-Identifier: Apache-2.0 */

/* The name of a service, rung by rung, and which of several says of an attribute wins. */

#include "tests/unit/sources/image.h"

struct given {
	struct source_set *set;
	struct source *source;
	struct made_image m;
	struct resource_attribute *list;
	size_t n;
};

static void give(struct given *g, const char *kind, const char *match, const char *service,
	const char *const *labels)
{
	struct option_value list[8];
	char keys[8][64];
	struct source_spec spec = {.name = "s",
		.kind = kind,
		.match = match,
		.service_name = service,
		.enabled = true,
		.labels = list};
	struct err_text err;

	for (; labels && labels[spec.n_labels]; spec.n_labels++) {
		const char *l = labels[spec.n_labels], *eq = strchr(l, '=');

		snprintf(keys[spec.n_labels], 64, "%.*s", (int)(eq - l), l);
		list[spec.n_labels] = (struct option_value){keys[spec.n_labels], eq + 1};
	}
	assert_int_equal(source_set_new(&g->set), 0);
	if (source_set_add(g->set, &spec, &err) < 0)
		fail_msg("%s", err.text);
	g->source = source_set_at(g->set, 0);
}

static void done(struct given *g)
{
	resource_attributes_free(g->list, g->n);
	source_set_free(g->set);
	memset(g, 0, sizeof(*g));
}

static const char *get(const struct given *g, const char *key)
{
	for (size_t i = 0; i < g->n; i++)
		if (streq(g->list[i].key, key))
			return g->list[i].value;
	return "";
}

static void make(struct given *g, const struct host_facts *host)
{
	resource_attributes_free(g->list, g->n);
	assert_int_equal(source_resource(g->source, &g->m.image, host, &g->list, &g->n), 0);
	for (size_t i = 0; i < g->n; i++) {
		assert_true(*g->list[i].value);
		/* Sorted, and each key once. */
		if (i > 0)
			assert_true(strcmp(g->list[i - 1].key, g->list[i].key) < 0);
	}
}

static const char *default_name(const char *kind, const char *match, const char *exe,
	const char *cgroup, const char *container, bool kernel)
{
	static char name[300];
	struct given g = {0};

	give(&g, kind, match, "", NULL);
	made(&g.m, 10, exe, cgroup);
	g.m.image.container_name = (char *)container;
	g.m.image.kernel_thread = kernel;
	make(&g, NULL);
	snprintf(name, sizeof(name), "%s", get(&g, "service.name"));
	done(&g);
	return name;
}

static void default_names(void **state)
{
	static const struct {
		const char *kind, *match, *exe, *cgroup, *container;
		bool kernel;
		const char *name;
	} rows[] = {
		{"host", "", "/usr/sbin/nginx", "/system.slice/web.service", "", false, "web"},
		{"host", "", "/app", "/system.slice/app@1.service", "", false, "app@1"},
		{"host", "", "/app", "/docker/" CONTAINER_ID, "shop", false, "shop"},
		{"host", "", "/app", "/docker/" CONTAINER_ID, "", false, "container-4f1a2b3c4d5e"},
		{"host", "", "/app", "/system.slice/docker-" CONTAINER_ID ".scope", "shop", false,
			"shop"},
		{"host", "", "/usr/bin/vim", "/user.slice/user-0.slice/session-1.scope", "", false,
			"vim"},
		{"host", "", "/usr/lib/systemd/systemd",
			"/user.slice/user-1000.slice/user@1000.service/init.scope", "", false,
			"systemd"},
		{"host", "", "/x",
			"/user.slice/user-1000.slice/user@1000.service/app.slice/own.service", "",
			false, "own"},
		{"host", "", "/usr/bin/thing", "/", "", false, "thing"},
		{"host", "", "kworker/0:1", "/", "", true, "kernel"},
		{"host", "", "", "/", "", false, "unknown"},
		{"process", "nginx", "/usr/sbin/nginx", "/system.slice/web.service", "", false,
			"web"},
		{"process", "kw*", "kworker/0:1", "/", "", true, "kernel"},
		{"systemd", "app@", "/app", "/system.slice/system-app.slice/app@b.service", "",
			false, "app@b"},
		{"systemd", "user.slice", "/usr/bin/vim",
			"/user.slice/user-0.slice/session-1.scope", "", false, "vim"},
		{"cgroup", "/batch", "/usr/bin/job", "/batch/1", "", false, "job"},
		/* A container that a unit runs: the unit to all, the container to who asked for containers. */
		{"host", "", "/app", "/system.slice/web.service/libpod-payload-" CONTAINER_ID,
			"shop", false, "web"},
		{"container", "*", "/app", "/system.slice/web.service/libpod-payload-" CONTAINER_ID,
			"shop", false, "shop"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		const char *name = default_name(rows[i].kind, rows[i].match, rows[i].exe,
			rows[i].cgroup, rows[i].container, rows[i].kernel);

		if (!streq(name, rows[i].name))
			fail_msg("%s of %s in %s: %s", rows[i].kind, rows[i].exe, rows[i].cgroup,
				name);
	}
}

static void kubernetes_names(void **state)
{
	static const struct attribute k8s[] = {
		{"k8s.container.name", "cart"}, {"k8s.pod.name", "cart-7f9c"}};
	struct given g = {0};

	give(&g, "host", "", "", NULL);
	made(&g.m, 10, "/app", "/docker/" CONTAINER_ID);
	g.m.image.container_name = (char *)"k8s_cart_cart-7f9c_shop_8f14_0";
	g.m.image.k8s = (struct attribute *)k8s;
	g.m.image.n_k8s = 2;
	make(&g, NULL);
	assert_string_equal(get(&g, "service.name"), "cart");
	assert_string_equal(get(&g, "container.name"), "k8s_cart_cart-7f9c_shop_8f14_0");
	assert_string_equal(get(&g, "k8s.pod.name"), "cart-7f9c");
	done(&g);
}

/* Source, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, what is found. */
static void service_ladder(void **state)
{
	static const struct attribute otel[] = {
		{"service.name", "from-attributes"}, {"service.version", "2"}};
	struct given g = {0};

	give(&g, "host", "", "", NULL);
	made(&g.m, 10, "/app", "/system.slice/web.service");
	make(&g, NULL);
	assert_string_equal(get(&g, "service.name"), "web");
	g.m.image.otel = (struct attribute *)otel;
	g.m.image.n_otel = 2;
	make(&g, NULL);
	assert_string_equal(get(&g, "service.name"), "from-attributes");
	assert_string_equal(get(&g, "service.version"), "2");
	g.m.image.otel_service_name = (char *)"from-name";
	make(&g, NULL);
	assert_string_equal(get(&g, "service.name"), "from-name");
	free(g.source->service_name);
	g.source->service_name = strdup("from-source");
	make(&g, NULL);
	assert_string_equal(get(&g, "service.name"), "from-source");
	done(&g);
}

static void precedence(void **state)
{
	static const struct attribute otel[] = {{"b", "process"}, {"c", "process"},
		{"host.name", "process"}, {"service.instance.id", "x"}, {"service_name", "x"},
		{"bad key", "x"}, {"odi.source", "x"}, {"process.pid", "7"}};
	struct option_value labels[] = {{"a", "host"}, {"b", "host"}, {"c", "host"},
		{"host.id", "host"}, {"systemd.unit", "host"}};
	const struct host_facts host = {.name = (char *)"vm1",
		.id = (char *)"0123",
		.labels = labels,
		.n_labels = ARRAY_SIZE(labels)};
	struct given g = {0};

	give(&g, "host", "", "", OPTIONS("c=source", "process.executable.name=source"));
	made(&g.m, 4242, "/usr/sbin/nginx", "/system.slice/web.service");
	g.m.image.otel = (struct attribute *)otel;
	g.m.image.n_otel = ARRAY_SIZE(otel);
	make(&g, &host);
	assert_string_equal(get(&g, "a"), "host");
	assert_string_equal(get(&g, "b"), "process");
	assert_string_equal(get(&g, "c"), "source");
	assert_string_equal(get(&g, "host.name"), "process");
	assert_string_equal(get(&g, "host.id"), "host");
	assert_string_equal(get(&g, "systemd.unit"), "web.service");
	assert_string_equal(get(&g, "service.instance.id"), "");
	assert_string_equal(get(&g, "service_name"), "");
	assert_string_equal(get(&g, "bad key"), "");
	assert_string_equal(get(&g, "odi.source"), "");
	assert_string_equal(get(&g, "process.pid"), "7");
	assert_string_equal(get(&g, "process.executable.path"), "");
	g.source->per_process = true;
	make(&g, &host);
	assert_string_equal(get(&g, "process.pid"), "4242");
	assert_string_equal(get(&g, "process.executable.path"), "/usr/sbin/nginx");
	assert_string_equal(get(&g, "process.executable.name"), "source");
	for (size_t i = 0; i < g.n; i++)
		assert_true(g.list[i].is_int == streq(g.list[i].key, "process.pid"));
	done(&g);
}

/* Whatever an image holds, what goes out is clean and bounded; only argv[0] and less of the process. */
static void last_gate(void **state)
{
	struct given g = {0};
	char longer[5000];

	memset(longer, 'x', sizeof(longer) - 1);
	longer[0] = '/';
	longer[sizeof(longer) - 1] = 0;
	give(&g, "host", "", "", NULL);
	made(&g.m, 10, "/bin/a\x1b[31m\xff", "/");
	g.m.image.cmdline = (char *)"secret";
	make(&g, NULL);
	assert_string_equal(get(&g, "service.name"), "a?[31m?");
	for (size_t i = 0; i < g.n; i++)
		assert_null(strstr(g.list[i].value, "secret"));
	g.m.image.exe = longer;
	g.source->per_process = true;
	make(&g, NULL);
	assert_int_equal(strlen(get(&g, "process.executable.path")), 1024);
	assert_int_equal(strlen(get(&g, "service.name")), 255);
	done(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(default_names),
		cmocka_unit_test(kubernetes_names),
		cmocka_unit_test(service_ladder),
		cmocka_unit_test(precedence),
		cmocka_unit_test(last_gate),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
