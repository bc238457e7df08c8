/* SPDX-License-Identifier: Apache-2.0 */

/* Which image belongs to which source, kind by kind, in tables; then who wins where several claim it. */

#include "tests/unit/sources/image.h"
#include "agentd/base/text.h"

/* ---- the table of processes: what the sources ask of it ---- */

static struct image *table[32];
static size_t n_table;

struct image *process_find(struct process_table *t, const struct sample_image *key)
{
	for (size_t i = 0; i < n_table; i++)
		if (memcmp(&table[i]->key, key, sizeof(*key)) == 0)
			return table[i];
	return NULL;
}

struct image *process_find_pid(struct process_table *t, pid_t tgid)
{
	for (size_t i = n_table; i > 0; i--)
		if (table[i - 1]->key.tgid == (unsigned)tgid)
			return table[i - 1];
	return NULL;
}

static struct process_table *const a_table = (struct process_table *)table;

static bool matches_with(
	const char *kind, const char *match, const char *const *options, const struct image *image)
{
	CLEANUP(source_set_freep) struct source_set *set = NULL;
	struct err_text err = {0};

	assert_int_equal(source_set_new(&set), 0);
	if (add_source(set, "s", kind, match, 1, options, &err) < 0)
		fail_msg("%s %s: %s", kind, match, err.text);
	return source_set_match(set, a_table, image, NULL, 0, NULL) != NULL;
}

static bool matches(const char *kind, const char *match, const struct image *image)
{
	return matches_with(kind, match, NULL, image);
}

struct row {
	const char *match, *cgroup;
	bool expected;
};

static void check_cgroups(const char *kind, const struct row *rows, size_t n)
{
	struct made_image m;

	for (size_t i = 0; i < n; i++)
		if (matches(kind, rows[i].match, made(&m, 10, "/usr/bin/x", rows[i].cgroup)) !=
			rows[i].expected)
			fail_msg("%s %s: wrong for %s", kind, rows[i].match, rows[i].cgroup);
}

/* ---- kinds ---- */

static void systemd(void **state)
{
	static const struct row rows[] = {
		{"nginx", "/system.slice/nginx.service", true},
		{"nginx.service", "/system.slice/nginx.service", true},
		{"nginx", "/system.slice/nginx-extra.service", false},
		{"nginx", "/system.slice/xnginx.service", false},
		{"nginx", "/nginx", false},
		{"nginx", "/", false},
		{"NGINX", "/system.slice/nginx.service", false},
		/* templates */
		{"app@1", "/system.slice/system-app.slice/app@1.service", true},
		{"app@1", "/system.slice/system-app.slice/app@10.service", false},
		{"app@", "/system.slice/system-app.slice/app@10.service", true},
		{"app@.service", "/system.slice/system-app.slice/app@10.service", true},
		{"app@*", "/system.slice/system-app.slice/app@10.service", true},
		{"app@*.service", "/system.slice/system-app.slice/app@10.service", true},
		{"app", "/system.slice/system-app.slice/app@10.service", false},
		{"app@", "/system.slice/app.service", false},
		{"app@[12]", "/system.slice/app@2.service", true},
		{"app@[12]", "/system.slice/app@3.service", false},
		/* globs */
		{"ngin?", "/system.slice/nginx.service", true},
		{"*", "/system.slice/nginx.service", true},
		{"*", "/user.slice/user-0.slice/session-1.scope", false},
		{"*.scope", "/user.slice/user-0.slice/session-1.scope", true},
		/* slices */
		{"system.slice", "/system.slice/nginx.service", true},
		{"system.slice", "/user.slice/user-0.slice/session-1.scope", false},
		{"user.slice", "/user.slice/user-1000.slice/user@1000.service/app.slice/a.service",
			true},
		{"user-1000.slice", "/user.slice/user-1000.slice/session-2.scope", true},
		{"user-1*.slice", "/user.slice/user-1000.slice/session-2.scope", true},
		{"-.slice", "/anything", true},
		/* below a unit: delegation, a user's own units */
		{"worker", "/system.slice/worker.service/part/1", true},
		{"user@1000", "/user.slice/user-1000.slice/user@1000.service/app.slice/a.service",
			true},
		{"a", "/user.slice/user-1000.slice/user@1000.service/app.slice/a.service", true},
		/* names as systemd escapes them, also in a pattern */
		{"dev\\x2dserver", "/system.slice/dev\\x2dserver.service", true},
		{"dev\\x2d*", "/system.slice/dev\\x2dserver.service", true},
		{"dev\\x2d*", "/system.slice/devx2dserver.service", false},
		{"cpu", "/system.slice/_cpu.service", true},
		{"cpu.slice", "/_cpu.slice/cpu-a.slice/x.service", true},
		/* above a container, not within it */
		{"web", "/system.slice/web.service/libpod-payload-" CONTAINER_ID, true},
		{"docker-*.scope", "/system.slice/docker-" CONTAINER_ID ".scope", true},
		{"nginx", "/docker/" CONTAINER_ID "/system.slice/nginx.service", false},
		{"system.slice", "/docker/" CONTAINER_ID "/system.slice/nginx.service", false},
		{"session-1.scope", "/user.slice/user-0.slice/session-1.scope", true},
	};

	check_cgroups("systemd", rows, ARRAY_SIZE(rows));
}

static void cgroup(void **state)
{
	static const struct row rows[] = {
		{"/batch", "/batch", true},
		{"/batch", "/batch/a/b", true},
		{"/batch", "/batches", false},
		{"/batch", "/a/batch", false},
		{"/batch", "/", false},
		{"/batch/", "/batch/a", true},
		{"//batch///a", "/batch/a", true},
		{"/", "/", true},
		{"/", "/a/b", true},
		{"/sys/fs/cgroup/batch", "/batch/a", true},
		{"/sys/fs/cgroup/unified/batch", "/batch/a", true},
		{"/sys/fs/cgroup/systemd/batch", "/batch/a", true},
		{"/sys/fs/cgroup/unifiedx", "/unifiedx", true},
		{"/sys/fs/cgroup", "/a", true},
		{"/batch/job-*", "/batch/job-1", true},
		{"/batch/job-*", "/batch/job-1/deep", true},
		{"/batch/job-?", "/batch/job-12", false},
		{"/batch/job-?", "/batch/job-1/deep", true},
		{"/a.slice/x\\x2dy", "/a.slice/x\\x2dy/z", true},
		{"/a.slice/x\\x2d*", "/a.slice/x\\x2dy", true},
	};
	struct made_image m;

	check_cgroups("cgroup", rows, ARRAY_SIZE(rows));
	made(&m, 1, "/x", "/batch/a");
	assert_false(matches_with("cgroup", "/batch", OPTIONS("exact=yes"), &m.image));
	assert_true(matches_with("cgroup", "/batch/a", OPTIONS("exact=yes"), &m.image));
	assert_true(matches_with("cgroup", "/batch/?", OPTIONS("exact=yes"), &m.image));
	made(&m, 1, "/x", "/batch/a/deep");
	assert_false(matches_with("cgroup", "/batch/?", OPTIONS("exact=yes"), &m.image));
	assert_true(matches_with("cgroup", "/", NULL, made(&m, 1, "/x", "/")));
	assert_true(matches_with("cgroup", "/", OPTIONS("exact=yes"), made(&m, 1, "/x", "/")));
	assert_false(matches_with("cgroup", "/", OPTIONS("exact=yes"), made(&m, 1, "/x", "/a")));
}

static void process_names(void **state)
{
	struct made_image m;

	made(&m, 10, "/usr/sbin/nginx", "/");
	assert_true(matches("process", "nginx", &m.image));
	assert_true(matches("process", "ngin*", &m.image));
	assert_false(matches("process", "ngin", &m.image));
	assert_false(matches("process", "nginx2", &m.image));
	assert_true(matches("process", "/usr/sbin/nginx", &m.image));
	assert_true(matches("process", "/usr/*/nginx", &m.image));
	assert_false(matches("process", "/usr/bin/nginx", &m.image));
	assert_false(matches("process", "/usr/sbin/ngin", &m.image));

	/* The kernel cuts comm; the executable's name is whole. */
	made(&m, 10, "/opt/a-name-of-more-than-fifteen", "/");
	assert_true(matches("process", "a-name-of-more-than-fifteen", &m.image));
	/* Gone before it was read: only comm is left. */
	m.image.exe = m.image.argv0 = (char *)"";
	assert_true(matches("process", "a-name-of-more-than-fifteen", &m.image));
	assert_false(matches("process", "a-name-of-less", &m.image));

	/* Its own name and its title. */
	made(&m, 10, "/usr/bin/python3.11", "/");
	snprintf(m.image.comm, sizeof(m.image.comm), "gunicorn");
	m.image.argv0 = (char *)"gunicorn: worker [shop]";
	assert_true(matches("process", "gunicorn", &m.image));
	assert_true(matches("process", "python3.11", &m.image));
	made(&m, 10, "/usr/sbin/sshd", "/");
	m.image.argv0 = (char *)"sshd: user@pts/0";
	assert_true(matches("process", "sshd", &m.image));
	assert_false(matches("process", "0", &m.image));
	made(&m, 10, "/usr/bin/dash", "/");
	m.image.argv0 = (char *)"-sh";
	assert_true(matches("process", "sh", &m.image));
	m.image.argv0 = (char *)"/opt/my app/run me";
	assert_true(matches("process", "run me", &m.image));
	assert_false(matches("process", "my", &m.image));
	/* What is not known is no match, not even of a star's. */
	memset(&m.image, 0, sizeof(m.image));
	assert_false(matches("process", "/*", &m.image));
	assert_false(matches("process", "nginx", &m.image));
}

static void process_options(void **state)
{
	struct made_image m;

	made(&m, 4242, "/usr/bin/python3", "/");
	m.image.cmdline = (char *)"python3 /srv/manage.py runserver --port 80";
	assert_true(matches_with("process", "", OPTIONS("pid=4242"), &m.image));
	assert_false(matches_with("process", "", OPTIONS("pid=4243"), &m.image));
	assert_true(
		matches_with("process", "", OPTIONS("cmdline=*manage.py runserver*"), &m.image));
	assert_false(matches_with("process", "", OPTIONS("cmdline=manage.py"), &m.image));
	/* All that is given has to hold. */
	assert_true(matches_with(
		"process", "python3", OPTIONS("pid=4242", "cmdline=python3 *"), &m.image));
	assert_false(matches_with("process", "ruby", OPTIONS("pid=4242"), &m.image));
	assert_false(matches_with("process", "python3", OPTIONS("cmdline=ruby*"), &m.image));
}

/* make -> sh -> cc, and a stranger. */
static void children(void **state)
{
	struct made_image make, sh, cc, other;

	made(&make, 10, "/usr/bin/make", "/");
	made(&sh, 11, "/bin/sh", "/");
	made(&cc, 12, "/usr/bin/cc", "/");
	made(&other, 13, "/usr/bin/cc", "/");
	sh.image.parent = make.image.key;
	cc.image.parent = sh.image.key;
	other.image.ppid = 1;
	table[0] = &make.image;
	table[1] = &sh.image;
	table[2] = &cc.image;
	table[3] = &other.image;
	n_table = 4;
	assert_false(matches("process", "make", &cc.image));
	assert_true(matches_with("process", "make", OPTIONS("children=yes"), &cc.image));
	assert_true(matches_with("process", "make", OPTIONS("children=yes"), &make.image));
	assert_false(matches_with("process", "make", OPTIONS("children=yes"), &other.image));
	assert_true(matches_with("process", "", OPTIONS("pid=10", "children=yes"), &cc.image));
	assert_false(matches_with("process", "cc", OPTIONS("children=yes"), &sh.image));
	/* Adopted by init: the fork is what counts. */
	sh.image.ppid = 1;
	assert_true(matches_with("process", "make", OPTIONS("children=yes"), &cc.image));
	/* The parent called exec since: still the same process. */
	cc.image.parent.exec = 7;
	assert_true(matches_with("process", "make", OPTIONS("children=yes"), &cc.image));
	/* The parent's number belongs to another process by now. */
	cc.image.parent.start_boottime++;
	assert_false(matches_with("process", "make", OPTIONS("children=yes"), &cc.image));
	/* No fork was seen: /proc's word, unless the parent is younger than its child. */
	memset(&cc.image.parent, 0, sizeof(cc.image.parent));
	cc.image.ppid = 11;
	assert_true(matches_with("process", "make", OPTIONS("children=yes"), &cc.image));
	sh.image.key.start_boottime = cc.image.key.start_boottime + 1;
	assert_false(matches_with("process", "make", OPTIONS("children=yes"), &cc.image));
	/* A circle ends. */
	sh.image.key.start_boottime = cc.image.key.start_boottime = 5;
	sh.image.parent = cc.image.key;
	cc.image.parent = sh.image.key;
	assert_false(matches_with("process", "make", OPTIONS("children=yes"), &cc.image));
	n_table = 0;
}

static void container(void **state)
{
	static const struct attribute k8s[] = {{"k8s.pod.name", "cart-7f9c"},
		{"k8s.namespace.name", "shop"}, {"k8s.container.name", "cart"}};
	struct made_image m;

	made(&m, 10, "/app", "/docker/" CONTAINER_ID);
	/* Without a name it is found by its id. */
	assert_true(matches("container", CONTAINER_ID, &m.image));
	assert_true(matches("container", "4f1a2b3c4d5e", &m.image));
	assert_true(matches("container", "4F1A2B3C4D5E6F", &m.image));
	assert_false(matches("container", "4f1a2b3c4d5f", &m.image));
	assert_false(matches("container", "4f1a2b3c4d5", &m.image)); /* too short to be one */
	assert_true(matches("container", "*", &m.image));
	assert_false(matches("container", "web", &m.image));
	assert_false(matches("container", "?*", &m.image));
	m.image.container_name = (char *)"web";
	assert_true(matches("container", "web", &m.image));
	assert_true(matches("container", "w*", &m.image));
	assert_false(matches("container", "we", &m.image));
	m.image.container_name = (char *)"deadbeefcafe";
	assert_true(matches("container", "deadbeefcafe", &m.image));
	/* Options. */
	m.image.container_image = (char *)"registry.example/nginx:1.25";
	assert_true(matches_with("container", "*", OPTIONS("runtime=docker"), &m.image));
	assert_false(matches_with("container", "*", OPTIONS("runtime=podman"), &m.image));
	assert_true(matches_with("container", "*", OPTIONS("image=*nginx:*"), &m.image));
	assert_true(
		matches_with("container", "*", OPTIONS("image=registry.example/nginx"), &m.image));
	assert_false(matches_with("container", "*", OPTIONS("image=nginx"), &m.image));
	assert_false(matches_with("container", "*", OPTIONS("namespace=shop"), &m.image));
	m.image.container_name = (char *)"k8s_cart_cart-7f9c_shop_1_0";
	m.image.k8s = (struct attribute *)k8s;
	m.image.n_k8s = ARRAY_SIZE(k8s);
	assert_true(matches_with(
		"container", "cart", OPTIONS("namespace=shop", "pod=cart-*"), &m.image));
	assert_false(matches_with("container", "cart", OPTIONS("namespace=shops"), &m.image));
	/* Not a container at all. */
	made(&m, 10, "/app", "/system.slice/web.service");
	m.image.container_name = (char *)"web";
	assert_false(matches("container", "*", &m.image));
	assert_false(matches("container", "web", &m.image));
}

static void host(void **state)
{
	struct made_image m;

	assert_true(matches("host", "", made(&m, 2, "", "/")));
	m.image.kernel_thread = true;
	assert_true(matches("host", "", &m.image));
}

/* ---- precedence ---- */

static const char *winner(struct source_set *set, const struct image *image)
{
	struct source *s = source_set_match(set, a_table, image, NULL, 0, NULL);

	return s ? s->name : "";
}

static void most_specific(void **state)
{
	static const struct {
		const char *name, *kind, *match, *options[2];
	} sources[] = {
		{"host", "host", "", {0}},
		{"cgroup", "cgroup", "/system.slice", {0}},
		{"unit", "systemd", "docker-*.scope", {0}},
		{"container", "container", "*", {0}},
		{"process", "process", "app", {0}},
		{"pid", "process", "", {"pid=10"}},
	};
	static const char *const expected[] = {
		"pid", "process", "container", "unit", "cgroup", "host"};
	CLEANUP(source_set_freep) struct source_set *set = NULL;
	struct source *claims[8], *last;
	struct made_image m;
	size_t n = 0;

	assert_int_equal(source_set_new(&set), 0);
	made(&m, 10, "/app", "/system.slice/docker-" CONTAINER_ID ".scope");
	/* The least specific are the oldest, so age alone would choose wrongly each time. */
	for (size_t i = 0; i < ARRAY_SIZE(sources); i++) {
		assert_int_equal(add_source(set, sources[i].name, sources[i].kind, sources[i].match,
					 i + 1, sources[i].options, NULL),
			0);
		assert_string_equal(winner(set, &m.image), sources[i].name);
	}
	assert_string_equal(source_set_match(set, a_table, &m.image, claims, 8, &n)->name, "pid");
	assert_int_equal(n, 6);
	for (size_t i = 0; i < n; i++)
		assert_string_equal(claims[i]->name, expected[i]);
	/* Disabled one after the other, the next takes it. */
	for (size_t i = 0; i < n; i++) {
		assert_string_equal(winner(set, &m.image), expected[i]);
		claims[i]->enabled = false;
	}
	assert_string_equal(winner(set, &m.image), "");
	/* No more claims than asked for, the first of them. */
	for (size_t i = 0; i < 6; i++)
		claims[i]->enabled = true;
	last = claims[2];
	assert_string_equal(source_set_match(set, a_table, &m.image, claims, 2, &n)->name, "pid");
	assert_int_equal(n, 2);
	assert_string_equal(claims[1]->name, "process");
	assert_ptr_equal(claims[2], last);
}

static void ties_to_the_older(void **state)
{
	CLEANUP(source_set_freep) struct source_set *set = NULL;
	struct made_image m;

	made(&m, 10, "/app", "/system.slice/web.service");
	assert_int_equal(source_set_new(&set), 0);
	assert_int_equal(add_source(set, "third", "systemd", "w*", 30, NULL, NULL), 0);
	assert_int_equal(add_source(set, "first", "systemd", "*", 10, NULL, NULL), 0);
	assert_int_equal(add_source(set, "second", "systemd", "web", 20, NULL, NULL), 0);
	assert_string_equal(winner(set, &m.image), "first");
	source_set_find(set, "first")->enabled = false;
	assert_string_equal(winner(set, &m.image), "second");
	/* As added, for those who list them. */
	assert_string_equal(source_set_at(set, 0)->name, "third");
	assert_string_equal(source_set_at(set, 2)->name, "second");
	assert_null(source_set_at(set, 3));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(systemd),
		cmocka_unit_test(cgroup),
		cmocka_unit_test(process_names),
		cmocka_unit_test(process_options),
		cmocka_unit_test(children),
		cmocka_unit_test(container),
		cmocka_unit_test(host),
		cmocka_unit_test(most_specific),
		cmocka_unit_test(ties_to_the_older),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
