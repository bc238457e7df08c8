/* SPDX-License-Identifier: Apache-2.0 */

/* Folders of files: what is read and in which order, who may have written it, what is said of what is wrong, and where a
 * change of it would show. Real files, a real store, a real event loop. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sys/stat.h>

#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/config/config_private.h"
#include "agentd/config/policy.h"
#include "agentd/config/watch.h"
#include "agentd/store/store.h"
#include "tests/unit/config/fakes.h"

static char folder[64], dir[96], packaged[96], db[96];
static struct store *store;
static struct config_manager *m;
static struct err_text err;
static char said[8192]; /* by visits */
static size_t n_said;

static void put(const char *name, const char *text)
{
	char path[200], *slash;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	slash = strrchr(path, '/');
	*slash = '\0';
	assert_int_equal(io_mkdir_p(path, 0755, &err), 0);
	*slash = '/';
	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
	assert_true(fd >= 0);
	assert_int_equal(io_write_all(fd, text, strlen(text)), 0);
	close(fd);
}

static void shell(const char *format, ...)
{
	char command[600], whole[700];
	va_list ap;

	va_start(ap, format);
	vsnprintf(command, sizeof(command), format, ap);
	va_end(ap);
	snprintf(whole, sizeof(whole), "cd %s && %s", folder, command);
	assert_int_equal(system(whole), 0);
}

static void start(void)
{
	struct config_places places = {.packaged = packaged, .dir = dir};

	if (store_open(&store, db, &err) < 0 ||
		config_manager_new(&m, store, &places, NULL, NULL, &err) < 0)
		fail_msg("%s", err.text);
}

static void stop(void)
{
	m = config_manager_free(m);
	store = store_close(store);
}

static int setup(void **state)
{
	umask(022);
	strcpy(folder, "/tmp/files_test.XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(dir, sizeof(dir), "%s/etc", folder);
	snprintf(packaged, sizeof(packaged), "%s/packaged", folder);
	snprintf(db, sizeof(db), "%s/state.db", folder);
	assert_int_equal(mkdir(dir, 0755), 0);
	return 0;
}

static int teardown(void **state)
{
	char command[100];

	stop();
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

struct wanted {
	const char *path;
	const char *value;
	char origin[300];
	bool found;
};

static void on_value(void *userdata, const struct config_value *v)
{
	struct wanted *w = userdata;

	if (!streq(v->path, w->path))
		return;
	w->found = streq(v->value, w->value);
	snprintf(w->origin, sizeof(w->origin), "%s", v->origin);
}

/* origin: its end. */
static void is(const char *path, const char *value, const char *origin)
{
	struct wanted w = {.path = path, .value = value};
	size_t len, n = strlen(origin);

	config_each_value(m, path, on_value, &w);
	len = strlen(w.origin);
	if (!w.found || len < n || !streq(w.origin + len - n, origin))
		fail_msg("%s is not %s from %s (%s)", path, value, origin, w.origin);
}

static void reload(int expected)
{
	uint64_t revision;
	int r = config_reload_files(m, &revision, &err);

	if (r != expected)
		fail_msg("%d instead of %d: %s", r, expected, err.text);
}

static void wrong(const char *text)
{
	const char *w = config_files_wrong(m);

	if (!w || !strstr(w, text))
		fail_msg("\"%s\" does not say \"%s\"", w ? w : "(nothing)", text);
}

static void on_finding(void *userdata, bool warning, const char *text)
{
	size_t at = strlen(said);

	n_said++;
	snprintf(said + at, sizeof(said) - at, "%s%s\n", warning ? "warning: " : "", text);
}

static size_t check(void)
{
	said[0] = '\0';
	n_said = 0;
	return config_check_files(m, on_finding, NULL);
}

/* ---- what is read ---------------------------------------------------------------------------------- */

static void test_order(void **state)
{
	put("packaged/10.yaml", "local: {max-age: 3d}\nprofiling: {rate: 10, budget: 1}\n");
	put("etc/agentd.yaml", "profiling: {rate: 20, max-frames: 20}\n");
	put("etc/conf.d/b.yml", "\nprofiling: {rate: 31}\n");
	put("etc/conf.d/a.yaml", "profiling: {rate: 30, interval: 3s}\n");
	/* None of these is one. */
	put("etc/conf.d/c.yaml~", "profiling: {rate: 40}\n");
	put("etc/conf.d/.d.yaml", "profiling: {rate: 41}\n");
	put("etc/conf.d/e.yaml.dpkg-old", "profiling: {rate: 42}\n");
	put("etc/conf.d/.yaml", "profiling: {rate: 43}\n");
	put("etc/other/f.yaml", "profiling: {rate: 44}\n");
	start();
	assert_null(config_files_wrong(m));
	is("profiling/rate", "31", "etc/conf.d/b.yml:2");
	is("profiling/interval", "3s", "etc/conf.d/a.yaml:1");
	is("profiling/max-frames", "20", "etc/agentd.yaml:1");
	is("profiling/budget", "1", "packaged/10.yaml:2");
	is("local/max-age", "3d", "packaged/10.yaml:1");
	is("profiling/kernel-frames", "true", "default");
	assert_int_equal(check(), 4);
	assert_int_equal(n_said, 0);
	/* Packages' values may be changed, files' may not. */
	{
		struct config_change change = {.path = "profiling/budget", .set = "3"};
		struct config_request q = {.layer = LAYER_LOCAL,
			.changes = &change,
			.n_changes = 1,
			.origin = "odictl"};

		assert_int_equal(config_apply(m, &q, NULL, NULL, &err), 0);
		change.path = "profiling/interval";
		change.set = "4s";
		assert_int_equal(config_apply(m, &q, NULL, NULL, &err), -EACCES);
		assert_non_null(strstr(err.text, "etc/conf.d/a.yaml:1; change it there"));
	}
	/* All files gone: what they said is over, what odictl said is not. */
	shell("rm -r etc packaged");
	reload(0);
	is("profiling/rate", "99", "default");
	is("profiling/budget", "3", "odictl (uid 0)");
}

/* A package's source would still be there under its old name: it does not become two. */
static void test_packaged_rename(void **state)
{
	struct config_change change = {.path = "sources/new", .move = "sources/web"};
	struct config_request q = {
		.layer = LAYER_LOCAL, .changes = &change, .n_changes = 1, .origin = "odictl"};
	struct config_change off = {.path = "sources/web/enabled", .set = "false"};

	put("packaged/10.yaml", "sources: [{name: web, kind: host}]\n");
	start();
	assert_int_equal(config_apply(m, &q, NULL, NULL, &err), -EACCES);
	assert_non_null(strstr(err.text, "packaged/10.yaml"));
	/* Nor when it was taken over. */
	q.changes = &off;
	assert_int_equal(config_apply(m, &q, NULL, NULL, &err), 0);
	q.changes = &change;
	assert_int_equal(config_apply(m, &q, NULL, NULL, &err), -EACCES);
	assert_null(source_set_find(config_current(m)->sources, "new"));
}

/* What the policy forbids is said with file and line, and taken once the policy allows it. */
static void test_policy(void **state)
{
	struct policy none = {.hosts_bound = true};

	policy_install(&none);
	start();
	put("etc/destinations.d/p.yaml",
		"\n- {name: far, type: pyroscope, url: \"http://far.example:4040\"}\n");
	reload(-EINVAL);
	wrong("etc/destinations.d/p.yaml:2: destination far: the policy of this host");
	policy_install(NULL);
	reload(0);
	is("destinations/far/type", "pyroscope", "etc/destinations.d/p.yaml:2");
}

static void test_shapes(void **state)
{
	put("etc/sources.d/list.yaml",
		"- {name: nginx, enabled: true, serviceName: web, kind: systemd}\n"
		"- {name: pg, kind: docker, match: postgres}\n");
	put("etc/sources.d/map.yaml", "db:\n  kind: process\n  match: mysqld\n");
	put("etc/sources.d/one.yaml", "name: all\nkind: host\n");
	put("etc/sources.d/word.yaml", "sources:\n  - {name: w, kind: process, match: w}\n");
	put("etc/sources.d/empty.yaml", "# nothing yet\n");
	put("etc/destinations.d/p.yaml",
		"- name: pyroscope\n  type: pyroscope\n  signals: [PROFILES]\n"
		"  config: {PYROSCOPE_URL: \"localhost:4040\", PYROSCOPE_TLS_ENABLED: \"false\"}\n");
	start();
	if (config_files_wrong(m))
		fail_msg("%s", config_files_wrong(m));
	is("sources/nginx/match", "nginx", "sources.d/list.yaml:1");
	is("sources/nginx/service-name", "web", "sources.d/list.yaml:1");
	is("sources/pg/kind", "container", "sources.d/list.yaml:2");
	is("sources/db/match", "mysqld", "sources.d/map.yaml:3");
	is("sources/all/kind", "host", "sources.d/one.yaml:2");
	is("sources/w/match", "w", "sources.d/word.yaml:2");
	is("destinations/pyroscope/options/url", "http://localhost:4040",
		"destinations.d/p.yaml:4");
	assert_int_equal(source_set_size(config_current(m)->sources), 5);
	/* Settings have no place there. */
	put("etc/sources.d/x.yaml", "profiling: {rate: 3}\n");
	reload(-EINVAL);
	wrong("x.yaml:1:1");
}

static void test_twice(void **state)
{
	put("etc/agentd.yaml", "sources:\n  - {name: web, kind: host}\n");
	put("etc/sources.d/web.yaml", "\n- {name: web, kind: process, match: x}\n");
	start();
	wrong("etc/sources.d/web.yaml:2: sources/web is in ");
	wrong("etc/agentd.yaml:2 already: take it out of one of them");
	/* Nothing acts by halves. */
	assert_int_equal(source_set_size(config_current(m)->sources), 0);
	shell("rm etc/sources.d/web.yaml");
	reload(0);
	assert_null(config_files_wrong(m));
	assert_int_equal(source_set_size(config_current(m)->sources), 1);
}

/* ---- what is wrong --------------------------------------------------------------------------------- */

static void test_last_good(void **state)
{
	put("etc/agentd.yaml", "profiling: {rate: 20}\n");
	put("etc/conf.d/a.yaml", "host: {labels: {a: b}}\n");
	start();
	put("etc/agentd.yaml", "profiling:\n  rate: 21\n  intervl: 3s\n");
	put("etc/conf.d/b.yaml", "profiling: [\n");
	put("etc/conf.d/c.yaml", "host: {labels: {c: d}}\n");
	reload(-EINVAL);
	wrong("etc/agentd.yaml:3:3: profiling has no setting \"intervl\": did you mean "
	      "\"interval\"?");
	wrong("(and 1 more: odictl config validate)");
	is("profiling/rate", "20", "etc/agentd.yaml:1");
	is("host/labels/a", "b", "etc/conf.d/a.yaml:1");
	assert_int_equal(check(), 4);
	assert_int_equal(n_said, 2);
	assert_non_null(strstr(said, "etc/agentd.yaml:3:3: "));
	assert_non_null(strstr(said, "etc/conf.d/b.yaml:2:1: not valid YAML"));
	/* Over a restart as well, though nobody knows the lines any more. */
	stop();
	start();
	wrong("etc/agentd.yaml:3:3");
	is("profiling/rate", "20", "files, as last read");
	put("etc/agentd.yaml", "profiling: {rate: 21}\n");
	put("etc/conf.d/b.yaml", "");
	reload(0);
	assert_null(config_files_wrong(m));
	is("profiling/rate", "21", "etc/agentd.yaml:1");
	is("host/labels/c", "d", "etc/conf.d/c.yaml:1");
	/* The same settings on other lines. */
	put("etc/agentd.yaml", "\n\nprofiling: {rate: 21}\n");
	reload(CONFIG_UNCHANGED);
	is("profiling/rate", "21", "etc/agentd.yaml:3");
}

static void test_many_wrong(void **state)
{
	char name[64];

	start();
	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "etc/conf.d/%02d.yaml", i);
		put(name, "profiling: [\n");
	}
	assert_int_equal(check(), 20);
	assert_int_equal(n_said, 17);
	assert_non_null(strstr(said, "etc/conf.d/15.yaml:2:1: not valid YAML"));
	assert_null(strstr(said, "etc/conf.d/16.yaml"));
	assert_non_null(strstr(said, "\nand 4 more: correct these, then ask again\n"));
}

static void test_hidden(void **state)
{
	struct config_change changes[] = {{.path = "profiling/rate", .set = "50"},
		{.path = "sources/web/kind", .set = "host"}};
	struct config_request q = {
		.layer = LAYER_LOCAL, .changes = changes, .n_changes = 2, .origin = "odictl"};

	start();
	assert_int_equal(config_apply(m, &q, NULL, NULL, &err), 0);
	put("etc/agentd.yaml",
		"profiling: {rate: 20, interval: 3s}\nsources:\n  web: {kind: process, match: x}\n");
	assert_int_equal(check(), 1);
	assert_int_equal(n_said, 2);
	assert_non_null(strstr(said, "warning: "));
	assert_non_null(strstr(said,
		"etc/agentd.yaml:1: profiling/rate has no effect: odictl set it "
		"before this file did; 'odictl config unset profiling/rate'"));
	assert_non_null(strstr(said, "etc/agentd.yaml:3: sources/web has no effect"));
	reload(0);
	is("profiling/rate", "50", "odictl (uid 0)");
	/* Given up, the file's counts. */
	changes[0] = (struct config_change){.path = "profiling/rate"};
	q.n_changes = 1;
	assert_int_equal(config_apply(m, &q, NULL, NULL, &err), 0);
	is("profiling/rate", "20", "etc/agentd.yaml:1");
}

/* A document as if it were among the files. */
static void test_document(void **state)
{
	static const char good[] = "- {name: web, kind: host}\n",
			  bad[] = "- {name: web, kind: hst}\n";
	char path[200];

	put("etc/sources.d/web.yaml", good);
	start();
	snprintf(path, sizeof(path), "%s/sources.d/web.yaml", dir);
	said[0] = '\0';
	n_said = 0;
	/* In place of itself, not beside. */
	config_check_document(m, path, good, strlen(good), on_finding, NULL);
	assert_int_equal(n_said, 0);
	config_check_document(m, path, bad, strlen(bad), on_finding, NULL);
	assert_non_null(strstr(said, "sources.d/web.yaml:1:21: "));
	snprintf(path, sizeof(path), "%s/sources.d/other.yaml", dir);
	config_check_document(m, path, good, strlen(good), on_finding, NULL);
	assert_non_null(strstr(said, "sources/web is in "));
	assert_int_equal(source_set_size(config_current(m)->sources), 1);
}

/* ---- who may have written it ----------------------------------------------------------------------- */

static void test_trust(void **state)
{
	if (geteuid() != 0) {
		print_message("not root: owners cannot be tried\n");
		skip();
	}
	put("etc/agentd.yaml", "profiling: {rate: 20}\n");
	start();
	put("etc/agentd.yaml", "profiling: {rate: 21}\n");
	shell("chmod 646 etc/agentd.yaml");
	reload(-EINVAL);
	wrong("chmod go-w ");
	shell("chmod 664 etc/agentd.yaml && chgrp 12345 etc/agentd.yaml");
	reload(-EINVAL);
	wrong("chmod g");
	shell("chmod 644 etc/agentd.yaml && chown 12345 etc/agentd.yaml");
	reload(-EINVAL);
	wrong("chown root ");
	/* A folder in which others may put another in its place. */
	shell("chown 0:0 etc/agentd.yaml && chmod 777 etc");
	reload(-EINVAL);
	wrong("etc");
	shell("chmod 755 etc && chown 12345 etc");
	reload(-EINVAL);
	wrong("chown root ");
	shell("chown 0 etc");
	is("profiling/rate", "20", "agentd.yaml:1");
	reload(0);
	is("profiling/rate", "21", "agentd.yaml:1");
	/* By a link to a folder of somebody else's. */
	shell("mkdir -m 755 theirs && mv etc/agentd.yaml theirs && chown 12345 theirs && "
	      "ln -s ../theirs/agentd.yaml etc/agentd.yaml && "
	      "echo 'profiling: {rate: 22}' > theirs/agentd.yaml");
	reload(-EINVAL);
	wrong("theirs");
	shell("chown 0 theirs");
	reload(0);
	is("profiling/rate", "22", "etc/agentd.yaml:1");
}

static void test_no_files(void **state)
{
	put("etc/agentd.yaml", "profiling: {rate: 20}\n");
	start();
	shell("mkfifo etc/conf.d || mkdir etc/conf.d && true");
	shell("rm etc/conf.d; mkdir etc/conf.d; mkfifo etc/conf.d/a.yaml");
	reload(-EINVAL);
	wrong("not a regular file");
	shell("rm etc/conf.d/a.yaml; ln -s nowhere etc/conf.d/a.yaml");
	reload(-EINVAL);
	wrong("conf.d/a.yaml");
	shell("rm etc/conf.d/a.yaml; ln -s a.yaml etc/conf.d/a.yaml");
	reload(-EINVAL);
	wrong("conf.d/a.yaml");
	shell("rm etc/conf.d/a.yaml; head -c 1100000 /dev/zero | tr '\\0' '#' > etc/conf.d/a.yaml");
	reload(-EINVAL);
	wrong("larger than 1024 KB");
	shell("rm etc/conf.d/a.yaml; mkdir etc/conf.d/a.yaml");
	reload(-EINVAL);
	wrong("not a regular file");
	shell("rmdir etc/conf.d/a.yaml; for i in $(seq 501); do echo '{}' > etc/conf.d/$i.yaml; done");
	reload(-EINVAL);
	wrong("more than 500 files");
	shell("rm -r etc/conf.d; touch etc/conf.d");
	reload(-EINVAL);
	wrong("conf.d");
	is("profiling/rate", "20", "agentd.yaml:1");
}

/* ---- documents as changes -------------------------------------------------------------------------- */

static int apply_yaml(const char *text, bool dry_run)
{
	struct config_request q = {.layer = LAYER_LOCAL,
		.origin = "odictl",
		.yaml_name = "x.yaml",
		.yaml = text,
		.yaml_len = strlen(text),
		.dry_run = dry_run};
	struct buf _cleanup_buf_ diff;
	int r;

	buf_init(&diff, 0);
	r = config_apply(m, &q, NULL, &diff, &err);
	snprintf(said, sizeof(said), "%s", diff.len ? (const char *)diff.data : "");
	return r;
}

static int roll_back(uint64_t revision)
{
	struct config_request q = {.layer = LAYER_LOCAL, .origin = "odictl", .rollback = revision};

	return config_apply(m, &q, NULL, NULL, &err);
}

static void test_yaml(void **state)
{
	uint64_t order;

	put("etc/agentd.yaml", "profiling: {rate: 20}\n");
	start(); /* revision 1 */
	assert_int_equal(
		apply_yaml("host: {labels: {a: b}}\nsources:\n  web: {kind: process, match: x, "
			   "labels: {k: v}}\n  two: {kind: host}\n",
			false),
		0); /* 2 */
	is("sources/web/labels/k", "v", "odictl (uid 0)");
	order = source_set_find(config_current(m)->sources, "web")->order;
	assert_true(order > 1600000000 * NSEC_PER_SEC);
	assert_true(order < source_set_find(config_current(m)->sources, "two")->order);
	/* An object is replaced wholly; what is not named stays. */
	assert_int_equal(apply_yaml("sources:\n  web: {kind: process, match: y}\n", true), 0);
	assert_string_equal(said, "-sources/web/labels/k\n~sources/web/match: x -> y\n");
	is("sources/web/match", "x", "odictl (uid 0)");
	assert_int_equal(
		apply_yaml("sources:\n  web: {kind: process, match: y}\n", false), 0); /* 3 */
	assert_int_equal(source_set_find(config_current(m)->sources, "web")->n_labels, 0);
	assert_true(order == source_set_find(config_current(m)->sources, "web")->order);
	is("host/labels/a", "b", "odictl (uid 0)");
	assert_int_equal(apply_yaml("sources:\n  web: {kind: process, match: y}\n", false),
		CONFIG_UNCHANGED);
	/* Wholly or not at all; what a file manages is named with both places. */
	assert_int_equal(
		apply_yaml("host: {labels: {a: c}}\nprofiling:\n  rate: 30\n", false), -EACCES);
	assert_non_null(strstr(err.text, "x.yaml:3: profiling/rate is set by "));
	assert_non_null(strstr(err.text, "etc/agentd.yaml:1; change it there"));
	is("host/labels/a", "b", "odictl (uid 0)");
	assert_int_equal(apply_yaml("profiling: {rae: 3}\n", false), -EINVAL);
	assert_non_null(strstr(err.text, "x.yaml:1:13: "));
	/* Back, and back again. */
	assert_int_equal(roll_back(2), 0); /* 4 */
	is("sources/web/labels/k", "v", "odictl (uid 0)");
	assert_int_equal(roll_back(1), 0); /* 5: odictl had nothing then */
	assert_int_equal(source_set_size(config_current(m)->sources), 0);
	is("profiling/rate", "20", "agentd.yaml:1");
	assert_int_equal(roll_back(5), CONFIG_UNCHANGED);
	assert_int_equal(roll_back(6), -ENOENT);
	assert_int_equal(roll_back(4), 0); /* 6 */
	is("sources/web/match", "x", "odictl (uid 0)");
	/* What a file has taken over since. */
	assert_int_equal(
		apply_yaml("sources: {two: {kind: process, match: z}}\n", false), 0); /* 7 */
	put("etc/sources.d/two.yaml", "two: {kind: host}\n");
	reload(0); /* 8 */
	assert_int_equal(roll_back(4), -EACCES);
	assert_non_null(strstr(err.text, "two.yaml:1"));
}

static void test_secret_kept(void **state)
{
	static const char first[] =
		"destinations:\n  p: {type: pyroscope, url: 'http://p', headers: "
		"{X-Key: hunter2}}\n";

	start();
	assert_int_equal(apply_yaml(first, false), 0);
	assert_null(strstr(said, "hunter2"));
	assert_int_equal(
		apply_yaml("destinations:\n  p: {type: pyroscope, url: 'http://q', headers: "
			   "{X-Key: (secret)}}\n",
			false),
		0);
	assert_string_equal(config_current(m)->destinations[0].options[0].value, "hunter2");
	assert_string_equal(config_current(m)->destinations[0].options[1].value, "http://q");
	assert_int_equal(
		apply_yaml("destinations:\n  n: {type: pyroscope, url: 'http://q', headers: "
			   "{X-Key: (secret)}}\n",
			false),
		-EINVAL);
	assert_non_null(strstr(err.text, "x.yaml:2: "));
	assert_non_null(strstr(err.text, "put it in"));
}

/* ---- where changes show ---------------------------------------------------------------------------- */

static void on_changed(void *userdata)
{
	++*(unsigned *)userdata;
}

/* Runs the loop until it told, or for ms. */
static unsigned told(sd_event *loop, unsigned *count, unsigned ms)
{
	uint64_t until = clock_monotonic_ns() + ms * NSEC_PER_MSEC, now;

	*count = 0;
	while (!*count && (now = clock_monotonic_ns()) < until)
		assert_true(sd_event_run(loop, (until - now) / 1000) >= 0);
	return *count;
}

static void test_watch(void **state)
{
	static const char *const changes[] = {
		"echo '{}' > etc/agentd.yaml",
		"echo '{}' > x && mv x etc/agentd.yaml",
		"chmod 600 etc/agentd.yaml",
		"rm etc/agentd.yaml",
		"mkdir etc/conf.d",
		"echo '{}' > etc/conf.d/a.yaml",
		"mv etc/conf.d/a.yaml etc/conf.d/b.yaml",
		"mkdir packaged",
		"echo '{}' > packaged/a.yaml",
		/* Links: of a file, in two steps; the target, and a step, exchanged */
		"mkdir -p store/1 store/2 && echo '{}' > store/1/f && echo '{}' > store/2/f && "
		"ln -s 1 store/now && ln -s ../store/now/f etc/agentd.yaml",
		"echo '{}' > store/1/f",
		"ln -s 2 store/new && mv -T store/new store/now",
		"echo '{}' > store/2/f",
		/* The whole folder exchanged, and made anew */
		"mv etc old",
		"mkdir etc",
		"echo '{}' > etc/agentd.yaml",
	};
	CLEANUP(config_watch_freep) struct config_watch *w = NULL;
	sd_event *loop = NULL;
	unsigned count = 0;

	start();
	assert_true(sd_event_new(&loop) >= 0);
	assert_int_equal(config_watch_new(&w, loop, m, on_changed, &count, &err), 0);
	assert_null(config_watch_problem(w));
	assert_int_equal(told(loop, &count, 60000), 1); /* what came before it watched */
	for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
		shell("%s", changes[i]);
		if (told(loop, &count, 60000) != 1)
			fail_msg("not seen: %s", changes[i]);
	}
	/* Nothing of it. */
	shell("echo > other; mkdir -p elsewhere; echo '{}' > store/1/f");
	assert_int_equal(told(loop, &count, 1500), 0);
	config_watch_free(TAKE_PTR(w));
	sd_event_unref(loop);
}

static void on_key(void *userdata, const struct config_key *key)
{
	const char *const *wanted = userdata;

	assert_true(key->path[0] && key->type[0]);
	/* The fakes have none. */
	assert_true(key->help[0] || strncmp(key->path, "destinations/NAME/options/", 26) == 0);
	for (size_t i = 0; wanted[i]; i++)
		if (streq(key->path, wanted[i]))
			n_said++;
}

static void test_keys(void **state)
{
	static const char *const wanted[] = {"profiling/rate", "host/labels/KEY",
		"sources/NAME/kind", "sources/NAME/per-thread", "destinations/NAME/type",
		"destinations/NAME/options/url", "destinations/NAME/options/headers/KEY", NULL};

	n_said = 0;
	config_each_key(on_key, (void *)wanted);
	assert_int_equal(n_said, ARRAY_SIZE(wanted) - 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_order),
		TEST(test_packaged_rename),
		TEST(test_policy),
		TEST(test_shapes),
		TEST(test_twice),
		TEST(test_last_good),
		TEST(test_many_wrong),
		TEST(test_hidden),
		TEST(test_document),
		TEST(test_trust),
		TEST(test_no_files),
		TEST(test_yaml),
		TEST(test_secret_kept),
		TEST(test_watch),
		TEST(test_keys),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
