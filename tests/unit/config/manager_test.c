/* SPDX-License-Identifier: Apache-2.0 */

/* The transaction: plan, prepare, commit, swap, and what each failure leaves. A real store lies underneath. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "agentd/base/io.h"
#include "agentd/config/config_private.h"
#include "agentd/store/store.h"
#include "tests/unit/config/fakes.h"

static char folder[64], db[96], file[96];

static struct {
	char calls[64];               /* "p", "a", "s" in order */
	int prepare;                  /* what it answers */
	struct config_manager *again; /* ask for a change from within a hook */
	int again_result;
	unsigned rate; /* of the last swap */
	uint64_t revision;
	unsigned old_rate;
	const struct config *next;
} hooks;

static struct store *store;
static struct config_manager *m;
static struct err_text err;

static int on_prepare(
	void *userdata, const struct config *current, const struct config *next, struct err_text *e)
{
	strcat(hooks.calls, "p");
	if (hooks.again) {
		struct config_change change = {.path = "profiling/rate", .set = "7"};
		struct config_request q = {
			.layer = LAYER_LOCAL, .changes = &change, .n_changes = 1};

		hooks.again_result = config_apply(hooks.again, &q, NULL, NULL, e);
	}
	return hooks.prepare ? err_set(e, hooks.prepare, "prepare said no") : 0;
}

static void on_abandon(void *userdata)
{
	strcat(hooks.calls, "a");
}

static void on_swap(void *userdata, const struct config *next)
{
	strcat(hooks.calls, "s");
	hooks.old_rate = config_current(m)->profiling.rate_hz;
	hooks.rate = next->profiling.rate_hz;
	hooks.revision = next->revision;
	hooks.next = next;
}

static const struct config_hooks all_hooks = {on_prepare, on_abandon, on_swap};

static void write_config(const char *text)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(io_write_all(fd, text, strlen(text)), 0);
	close(fd);
}

static int start_result(bool with_file)
{
	int r = store_open(&store, db, &err);

	if (r < 0)
		fail_msg("%s", err.text);
	memset(&hooks, 0, sizeof(hooks));
	err.text[0] = 0;
	return config_manager_new(&m, store,
		&(struct config_places){.file = with_file ? file : NULL}, &all_hooks, NULL, &err);
}

static void start(bool with_file)
{
	if (start_result(with_file) < 0)
		fail_msg("%s", err.text);
}

static void stop(void)
{
	m = config_manager_free(m);
	store = store_close(store);
}

static int setup(void **state)
{
	strcpy(folder, "/tmp/config_test.XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(db, sizeof(db), "%s/state.db", folder);
	snprintf(file, sizeof(file), "%s/agentd.yaml", folder);
	return 0;
}

static int teardown(void **state)
{
	char command[100];

	stop();
	umount2(folder, MNT_DETACH);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

static char diff[4096];
static uint64_t revision;

static int apply_request(struct config_request *q)
{
	_cleanup_buf_ struct buf b;
	int r;

	buf_init(&b, sizeof(diff) - 1);
	hooks.calls[0] = 0;
	err.text[0] = 0;
	r = config_apply(m, q, &revision, &b, &err);
	snprintf(diff, sizeof(diff), "%s", b.len ? (char *)b.data : "");
	return r;
}

static int apply_list(const struct config_change *changes, size_t n)
{
	struct config_request q = {.layer = LAYER_LOCAL,
		.changes = changes,
		.n_changes = n,
		.uid = 1000,
		.origin = "odictl",
		.reason = "a test"};

	return apply_request(&q);
}

#define apply(...)                                                                                 \
	apply_list((const struct config_change[]){__VA_ARGS__},                                    \
		ARRAY_SIZE(((const struct config_change[]){__VA_ARGS__})))

static void says(const char *words)
{
	if (!strstr(err.text, words))
		fail_msg("\"%s\" does not say \"%s\"", err.text, words);
}

static char seen_value[CONFIG_VALUE_MAX + 1], seen_origin[300];
static size_t seen;

static void see(void *userdata, const struct config_value *v)
{
	seen++;
	snprintf(seen_value, sizeof(seen_value), "%s", v->shown);
	snprintf(seen_origin, sizeof(seen_origin), "%s", v->origin);
}

static void is(const char *path, const char *value, const char *origin)
{
	seen = 0;
	config_each_value(m, path, see, NULL);
	assert_int_equal(seen, 1);
	assert_string_equal(seen_value, value);
	assert_string_equal(seen_origin, origin);
}

static void test_defaults(void **state)
{
	const struct config *c;

	start(false);
	c = config_current(m);
	assert_false(c->profiling.enabled);
	assert_int_equal(c->profiling.rate_hz, 99);
	assert_int_equal(c->profiling.types, 1U << SAMPLE_TYPE_CPU);
	assert_true(c->profiling.interval_ns == 10 * NSEC_PER_SEC);
	assert_true(c->profiling.kernel_frames);
	assert_true(c->local.max_bytes == 256U << 20);
	assert_true(c->local.max_age_ns == 7 * 24 * 3600 * NSEC_PER_SEC);
	assert_string_equal(c->docker_root, "/var/lib/docker");
	assert_int_equal(source_set_size(c->sources), 0);
	assert_int_equal(c->n_destinations, 0);
	is("profiling/rate", "99", "default");
	assert_string_equal(hooks.calls, "");
	seen = 0;
	config_each_value(m, "profiling", see, NULL);
	assert_int_equal(seen, 9);
	assert_int_equal(c->profiling.max_frames, 256);
	assert_true(c->profiling.unwind_memory == 8U << 20);
	assert_int_equal(c->profiling.budget_ppm, 20000);
	assert_int_equal(c->profiling.demangle, SYMBOL_DEMANGLE_TEMPLATES);
	assert_false(c->symbols.fetch);
	assert_int_equal(c->symbols.n_urls, 1);
	assert_string_equal(c->symbols.urls[0], "https://debuginfod.elfutils.org");
	assert_int_equal(c->symbols.n_paths, 0);
}

static void test_names(void **state)
{
	static const struct {
		const char *path, *value, *words;
	} bad[] = {
		{"profiling/demangle", "ful", "did you mean \"full\""},
		{"profiling/demangle", "", "templates"},
		{"symbols/fetch", "maybe", "yes or no"},
		{"symbols/urls", "", "at least one"},
		{"symbols/urls", " ", "at least one"},
		{"symbols/urls", "ftp://a.example", "http or https"},
		{"symbols/urls", "https://a.example/?x=1", "nothing stands behind"},
		{"symbols/urls", "https://u:p@a.example", "do not belong into a URL"},
		{"symbols/urls",
			"http://a http://b http://c http://d http://e http://f http://g "
			"http://h http://i",
			"at most 8"},
		{"symbols/paths", "usr/lib/debug", "must be absolute"},
		{"symbols/paths", "/usr/lib/debug:other", "must be absolute"},
		{"symbols/paths", "/usr/lib/../debug", "without \".\" and \"..\""},
		{"symbols/paths", "/usr/./debug", "without \".\" and \"..\""},
		{"symbols/path", "/usr", "did you mean \"symbols/paths\""},
	};
	char many[8 * (CONFIG_MAX_PATHS + 1) + 1] = "";
	const struct config *c;

	start(false);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (apply({.path = bad[i].path, .set = bad[i].value}) != -EINVAL)
			fail_msg("taken: %s = %s", bad[i].path, bad[i].value);
		says(bad[i].words);
	}
	for (unsigned i = 0; i <= CONFIG_MAX_PATHS; i++)
		snprintf(many + 8 * i, 9, "/f%05u:", i);
	assert_int_equal(apply({.path = "symbols/paths", .set = many}), -EINVAL);
	says("at most 64");
	many[8 * CONFIG_MAX_PATHS] = '\0';
	assert_int_equal(apply({.path = "symbols/paths", .set = many}), 0);
	assert_int_equal(config_current(m)->symbols.n_paths, CONFIG_MAX_PATHS);
	assert_int_equal(apply({.path = "symbols/fetch", .set = "on"},
				 {.path = "symbols/urls",
					 .set = "http://a.example:8002/x/  https://b.example "
						"http://a.example:8002/x"},
				 {.path = "symbols/paths", .set = "/a b/:/...:/.hidden/..x:/"},
				 {.path = "profiling/demangle", .set = "simple"}),
		0);
	c = config_current(m);
	assert_true(c->symbols.fetch);
	assert_int_equal(c->symbols.n_urls, 2);
	assert_string_equal(c->symbols.urls[0], "http://a.example:8002/x");
	assert_string_equal(c->symbols.urls[1], "https://b.example");
	assert_int_equal(c->symbols.n_paths, 4);
	assert_string_equal(c->symbols.paths[0], "/a b");
	assert_string_equal(c->symbols.paths[1], "/...");
	assert_string_equal(c->symbols.paths[2], "/.hidden/..x");
	assert_string_equal(c->symbols.paths[3], "/");
	assert_int_equal(c->profiling.demangle, SYMBOL_DEMANGLE_SIMPLE);
}

static void test_unwinding_and_budget(void **state)
{
	static const struct {
		const char *text;
		uint32_t ppm;
	} good[] = {{"0", 0}, {"100", 1000000}, {"0.5", 5000}, {"2 %", 20000}, {"1.25%", 12500},
		{"0.0001", 1}, {"007", 70000}};
	static const char *const bad[] = {"", "%", "-1", "100.0001", "1000", "99999999999999999999",
		"1e2", ".5", "5.", "0.00001", "2%%", "2 x", "two"};
	static const struct {
		const char *text;
		uint64_t bytes;
	} sizes[] = {{"1MB", 1 << 20}, {"10MB", 8 << 20}, {"16MiB", 16 << 20}, {"1GB", 1 << 30}};

	start(false);
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		assert_true(apply({.path = "profiling/budget", .set = good[i].text}) >= 0);
		assert_int_equal(config_current(m)->profiling.budget_ppm, good[i].ppm);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (apply({.path = "profiling/budget", .set = bad[i]}) != -EINVAL)
			fail_msg("taken: %s", bad[i]);
		says("percentage");
	}
	assert_int_equal(config_current(m)->profiling.budget_ppm, 70000);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		assert_int_equal(
			apply({.path = "profiling/unwind-memory", .set = sizes[i].text}), 0);
		assert_true(config_current(m)->profiling.unwind_memory == sizes[i].bytes);
	}
	assert_int_equal(apply({.path = "profiling/unwind-memory", .set = "512k"}), -EINVAL);
	assert_int_equal(apply({.path = "profiling/unwind-memory", .set = "2GB"}), -EINVAL);
	assert_int_equal(apply({.path = "profiling/max-frames", .set = "1024"}), 0);
	assert_int_equal(config_current(m)->profiling.max_frames, 1024);
	assert_int_equal(apply({.path = "profiling/max-frames", .set = "1025"}), -EINVAL);
	assert_int_equal(apply({.path = "profiling/max-frames", .set = "0"}), -EINVAL);
	assert_int_equal(apply({.path = "profiling/max-frames"}, {.path = "profiling/budget"}), 0);
	assert_int_equal(config_current(m)->profiling.max_frames, 256);
	assert_int_equal(config_current(m)->profiling.budget_ppm, 20000);
}

static void test_apply(void **state)
{
	start(false);
	assert_int_equal(apply({.path = "profiling/rate", .set = "49"},
				 {.path = "profiling/enabled", .set = "true"}),
		0);
	assert_string_equal(hooks.calls, "ps");
	assert_int_equal(hooks.old_rate, 99);
	assert_int_equal(hooks.rate, 49);
	assert_int_equal(hooks.revision, 1);
	assert_int_equal(revision, 1);
	assert_ptr_equal(hooks.next, config_current(m));
	assert_string_equal(diff, "+profiling/enabled = true\n+profiling/rate = 49\n");
	is("profiling/rate", "49", "odictl (uid 1000)");
	/* Nothing to do is said, and nothing is done. */
	assert_int_equal(apply({.path = "profiling/rate", .set = "49"}), CONFIG_UNCHANGED);
	assert_string_equal(hooks.calls, "");
	assert_int_equal(revision, 1);
	/* Back to the default. */
	assert_int_equal(apply({.path = "profiling/rate"}), 0);
	assert_string_equal(diff, "-profiling/rate\n");
	is("profiling/rate", "99", "default");
	assert_int_equal(apply({.path = "profiling/rate"}), -ENOENT);
	stop();
	start(false);
	assert_true(config_current(m)->profiling.enabled);
	assert_int_equal(config_current(m)->revision, 2);
	/* Who set it outlives the process. */
	is("profiling/enabled", "true", "odictl (uid 1000)");
}

static void test_sources(void **state)
{
	const struct config_destination *d;
	const struct source *s;

	start(false);
	assert_int_equal(
		apply({.path = "sources/web/kind", .set = "systemd", .must_not_exist = true},
			{.path = "sources/web/match", .set = "nginx"},
			{.path = "sources/web/labels/team", .set = "blue"},
			{.path = "sources/web/per-process", .set = "true"}),
		0);
	s = source_set_find(config_current(m)->sources, "web");
	assert_non_null(s);
	assert_true(s->enabled);
	assert_true(s->per_process);
	assert_true(s->order > 1600000000 * NSEC_PER_SEC);
	assert_int_equal(s->n_labels, 1);
	assert_null(strstr(diff, "order"));
	assert_int_equal(apply({.path = "sources/web/kind", .set = "host", .must_not_exist = true}),
		-EEXIST);
	says("there is a source 'web' already");
	assert_int_equal(apply({.path = "sources/wbe/enabled", .set = "false", .must_exist = true}),
		-ENOENT);
	says("did you mean 'web'");
	assert_int_equal(
		apply({.path = "sources/web/enabled", .set = "false", .must_exist = true}), 0);
	assert_false(source_set_find(config_current(m)->sources, "web")->enabled);
	assert_int_equal(apply({.path = "sources/nope", .must_exist = true}), -ENOENT);
	says("there is no source 'nope'");
	assert_int_equal(
		apply({.path = "destinations/p/type", .set = "pyroscope", .must_not_exist = true},
			{.path = "destinations/p/options/url", .set = "http://p:4040"},
			{.path = "destinations/p/options/token",
				.set = "secret:00112233445566778899aabbccddeeff"},
			{.path = "destinations/p/options/headers/X-A", .set = "b"}),
		0);
	assert_non_null(strstr(diff, "+destinations/p/options/token = (secret)\n"));
	is("destinations/p/options/token", "(secret)", "odictl (uid 1000)");
	assert_int_equal(config_current(m)->n_destinations, 1);
	d = config_current(m)->destinations;
	assert_string_equal(d->name, "p");
	assert_true(d->enabled);
	assert_int_equal(d->n_options, 3);
	assert_string_equal(d->options[0].name, "headers/X-A");
	assert_string_equal(d->options[1].value, "secret:00112233445566778899aabbccddeeff");
	assert_int_equal(apply({.path = "sources/web", .must_exist = true}), 0);
	assert_null(source_set_find(config_current(m)->sources, "web"));
	assert_int_equal(source_set_size(config_current(m)->sources), 0);
}

static void test_refusals(void **state)
{
	char long_path[700], value[CONFIG_VALUE_MAX + 2];

	start(false);
	assert_int_equal(apply({.path = "profiling/rate", .set = "10000"}), -EINVAL);
	says("from 1 to 1000");
	assert_int_equal(apply({.path = "profiling/rate", .set = "0"}), -EINVAL);
	assert_int_equal(apply({.path = "profiling/rat", .set = "9"}), -EINVAL);
	says("did you mean");
	assert_int_equal(apply({.path = "profiling", .set = "9"}), -EINVAL);
	says("is no setting");
	assert_int_equal(apply({.path = "profiling/types", .set = "cpu,heap"}), -EINVAL);
	says("heap");
	assert_int_equal(apply({.path = "containers/docker-root", .set = "here"}), -EINVAL);
	says("absolute");
	assert_int_equal(apply({.path = "host/labels/service_name", .set = "x"}), -EINVAL);
	assert_int_equal(apply({.path = "sources/web/kind", .set = "nope"}), -EINVAL);
	says("source web: unknown source kind \"nope\"");
	assert_int_equal(apply({.path = "sources/web/match", .set = "x"}), -EINVAL);
	says("source web has no kind");
	assert_int_equal(apply({.path = "sources/web/kind", .set = "host"},
				 {.path = "sources/web/enabled", .set = "perhaps"}),
		-EINVAL);
	says("must be true or false");
	assert_int_equal(apply({.path = "destinations/p/type", .set = "pyroscope"}), -EINVAL);
	says("destination p: url is required");
	assert_int_equal(apply({.path = "sources/a\nb/kind", .set = "host"}), -EINVAL);
	memset(long_path, 'x', sizeof(long_path));
	long_path[sizeof(long_path) - 1] = 0;
	assert_int_equal(apply({.path = long_path, .set = "x"}), -EINVAL);
	assert_int_equal(apply({.path = NULL, .set = "x"}), -EINVAL);
	memset(value, 'x', sizeof(value));
	value[sizeof(value) - 1] = 0;
	assert_int_equal(apply({.path = "host/labels/a", .set = value}), -EINVAL);
	/* All or nothing: a good change beside a bad one. */
	assert_int_equal(apply({.path = "profiling/rate", .set = "50"},
				 {.path = "profiling/interval", .set = "never"}),
		-EINVAL);
	assert_int_equal(config_current(m)->profiling.rate_hz, 99);
	assert_string_equal(hooks.calls, "");
	assert_int_equal(store_head(store), 0);
}

static void test_other_layers(void **state)
{
	struct config_change change = {.path = "profiling/rate", .set = "10"};
	struct config_request q = {.changes = &change, .n_changes = 1, .origin = "x"};

	start(false);
	for (q.layer = LAYER_BUILT_IN; q.layer <= LAYER_FILES; q.layer++)
		assert_int_equal(apply_request(&q), -EINVAL);
	q.layer = LAYER_REMOTE;
	assert_int_equal(apply_request(&q), 0);
	is("profiling/rate", "10", "x (uid 0)");
	/* A weaker layer's would have no effect, so it is refused. */
	assert_int_equal(apply({.path = "profiling/rate", .set = "20"}), -EACCES);
	says("layer remote");
}

static void test_revisions(void **state)
{
	struct config_change change = {.path = "profiling/rate", .set = "10"};
	struct config_request q = {.layer = LAYER_LOCAL,
		.changes = &change,
		.n_changes = 1,
		.origin = "odictl",
		.dry_run = true};

	start(false);
	assert_int_equal(apply_request(&q), 0);
	assert_string_equal(diff, "+profiling/rate = 10\n");
	assert_int_equal(revision, 0);
	assert_int_equal(store_head(store), 0);
	assert_int_equal(config_current(m)->profiling.rate_hz, 99);
	assert_string_equal(hooks.calls, "");
	q.dry_run = false;
	assert_int_equal(apply_request(&q), 0);
	change.set = "11";
	q.expected_revision = 1;
	assert_int_equal(apply_request(&q), 0);
	change.set = "12";
	assert_int_equal(apply_request(&q), -ESTALE);
	says("at revision 2, not 1");
	assert_int_equal(config_current(m)->profiling.rate_hz, 11);
}

static void test_prepare_fails(void **state)
{
	start(false);
	hooks.prepare = -EPERM;
	assert_int_equal(apply({.path = "profiling/enabled", .set = "true"}), -EOPNOTSUPP);
	says("prepare said no");
	assert_string_equal(hooks.calls, "p");
	assert_false(config_current(m)->profiling.enabled);
	assert_int_equal(store_head(store), 0);
}

static void test_no_change_from_a_hook(void **state)
{
	start(false);
	hooks.again = m;
	assert_int_equal(apply({.path = "profiling/rate", .set = "50"}), 0);
	assert_int_equal(hooks.again_result, -EBUSY);
	assert_int_equal(config_current(m)->profiling.rate_hz, 50);
}

static void test_disk_full(void **state)
{
	char filler[96];
	static char zeros[4096];
	int fd;

	if (mount("none", folder, "tmpfs", 0, "size=512k") < 0)
		fail_msg("this test mounts a tmpfs and has to run as root: %m");
	start(false);
	snprintf(filler, sizeof(filler), "%s/filler", folder);
	fd = open(filler, O_WRONLY | O_CREAT, 0600);
	while (write(fd, zeros, sizeof(zeros)) > 0)
		;
	close(fd);
	assert_int_equal(apply({.path = "profiling/rate", .set = "50"}), -ENOSPC);
	says("no room on the disk");
	assert_string_equal(hooks.calls, "pa");
	assert_int_equal(config_current(m)->profiling.rate_hz, 99);
	unlink(filler);
	assert_int_equal(apply({.path = "profiling/rate", .set = "51"}), 0);
	assert_string_equal(hooks.calls, "ps");
	assert_int_equal(hooks.revision, 1);
}

static void test_file(void **state)
{
	enum config_layer layer;
	char origin[300], expected[160];

	write_config("profiling:\n  rate: 20\nsources:\n  - {name: web, kind: host}\n");
	start(true);
	assert_int_equal(config_current(m)->profiling.rate_hz, 20);
	assert_int_equal(config_current(m)->revision, 1);
	snprintf(expected, sizeof(expected), "%s:2", file);
	is("profiling/rate", "20", expected);
	/* What the file says, only the file changes. */
	assert_int_equal(apply({.path = "profiling/rate", .set = "30"}), -EACCES);
	snprintf(
		expected, sizeof(expected), "profiling/rate is set by %s:2; change it there", file);
	assert_string_equal(err.text, expected);
	assert_int_equal(apply({.path = "sources/web/enabled", .set = "false"}), -EACCES);
	snprintf(expected, sizeof(expected), "sources/web is set by %s:4; change it there", file);
	assert_string_equal(err.text, expected);
	assert_int_equal(apply({.path = "sources/web"}), -EACCES);
	assert_int_equal(apply({.path = "sources/db/kind", .set = "host"}), 0);
	assert_int_equal(config_origin(m, "sources/web", &layer, origin, sizeof(origin)), 0);
	assert_int_equal(layer, LAYER_FILES);
	assert_non_null(strstr(origin, "agentd.yaml:4"));
	assert_int_equal(config_origin(m, "sources/db", &layer, origin, sizeof(origin)), 0);
	assert_int_equal(layer, LAYER_LOCAL);
	assert_string_equal(origin, "odictl (uid 1000)");
	assert_int_equal(config_origin(m, "sources/x", &layer, origin, sizeof(origin)), -ENOENT);
	/* The older one is the file's. */
	assert_true(source_set_find(config_current(m)->sources, "web")->order <
		source_set_find(config_current(m)->sources, "db")->order);
}

static void test_reload(void **state)
{
	char expected[160];

	write_config("profiling:\n  rate: 20\n");
	start(true);
	assert_int_equal(config_reload_files(m, NULL, &err), CONFIG_UNCHANGED);
	assert_string_equal(hooks.calls, "");
	/* Only lines move. */
	write_config("\n\nprofiling:\n  rate: 20\n");
	assert_int_equal(config_reload_files(m, &revision, &err), CONFIG_UNCHANGED);
	assert_int_equal(revision, 1);
	snprintf(expected, sizeof(expected), "%s:4", file);
	is("profiling/rate", "20", expected);
	write_config("profiling:\n  rate: 21\n");
	assert_int_equal(config_reload_files(m, &revision, &err), 0);
	assert_int_equal(revision, 2);
	assert_string_equal(hooks.calls, "ps");
	assert_int_equal(config_current(m)->profiling.rate_hz, 21);
	/* A broken one changes nothing. */
	write_config("profiling:\n  rate: many\n");
	assert_int_equal(config_reload_files(m, &revision, &err), -EINVAL);
	says("agentd.yaml:2:9: ");
	assert_int_equal(config_current(m)->profiling.rate_hz, 21);
	unlink(file);
	assert_int_equal(config_reload_files(m, &revision, &err), -EINVAL);
	says("cannot read");
	assert_int_equal(config_current(m)->profiling.rate_hz, 21);
	write_config("profiling:\n  rate: 22\n");
	hooks.prepare = -EIO;
	assert_int_equal(config_reload_files(m, &revision, &err), -EIO);
	assert_int_equal(config_current(m)->profiling.rate_hz, 21);
	stop();
	/* Started without a file, what it said is over. */
	start(false);
	assert_int_equal(config_current(m)->profiling.rate_hz, 99);
}

static void test_file_over_an_older_local(void **state)
{
	write_config("");
	start(true);
	assert_int_equal(apply({.path = "sources/web/kind", .set = "host"}), 0);
	write_config("sources:\n- {name: web, kind: systemd, match: nginx}\n");
	assert_int_equal(config_reload_files(m, NULL, &err), 0);
	/* The local one is stronger, and giving it up is the only thing that may be done to it. */
	assert_string_equal(source_set_find(config_current(m)->sources, "web")->kind->name, "host");
	assert_int_equal(apply({.path = "sources/web/enabled", .set = "false"}), -EACCES);
	assert_int_equal(apply({.path = "sources/web", .must_exist = true}), 0);
	assert_string_equal(
		source_set_find(config_current(m)->sources, "web")->kind->name, "systemd");
}

/* Started with a file that is wrong: what it said before is in force, and what is wrong is known. */
static void starts_wrong(const char *text)
{
	assert_int_equal(start_result(true), 0);
	assert_non_null(config_files_wrong(m));
	if (!strstr(config_files_wrong(m), text))
		fail_msg("%s", config_files_wrong(m));
	assert_int_equal(config_current(m)->profiling.rate_hz, 31);
	stop();
}

static void test_bad_files(void **state)
{
	write_config("profiling: {rate: 31}\n");
	start(true);
	assert_null(config_files_wrong(m));
	stop();
	unlink(file);
	starts_wrong("cannot read");
	write_config("profiling: {rate: x}\n");
	starts_wrong("agentd.yaml:1:19: ");
	write_config("");
	chmod(file, 0666);
	starts_wrong("chmod go-w");
	unlink(file);
	assert_int_equal(mkdir(file, 0755), 0);
	starts_wrong("not a regular file");
	rmdir(file);
	assert_int_equal(mkfifo(file, 0644), 0);
	starts_wrong("not a regular file");
	unlink(file);
	/* Mended: it acts, and nothing is wrong any more. */
	write_config("profiling: {rate: x}\n");
	assert_int_equal(start_result(true), 0);
	/* What a file manages is known without it, though not where. */
	assert_int_equal(apply({.path = "profiling/rate", .set = "30"}), -EACCES);
	says("odictl config validate");
	write_config("profiling: {rate: 32}\n");
	assert_int_equal(config_reload_files(m, NULL, &err), 0);
	assert_null(config_files_wrong(m));
	assert_int_equal(config_current(m)->profiling.rate_hz, 32);
}

static void test_many(void **state)
{
	struct config_change changes[CONFIG_MAX_SOURCES + 1];
	char paths[CONFIG_MAX_SOURCES + 1][32];
	int r;

	start(false);
	for (int i = 0; i <= CONFIG_MAX_SOURCES; i++) {
		snprintf(paths[i], sizeof(paths[i]), "sources/s%d/kind", i);
		changes[i] = (struct config_change){.path = paths[i], .set = "host"};
	}
	assert_int_equal(apply_list(changes, CONFIG_MAX_SOURCES + 1), -E2BIG);
	says("more than 1000 sources");
	r = apply_list(changes, CONFIG_MAX_SOURCES);
	if (r < 0)
		fail_msg("%s", err.text);
	assert_int_equal(source_set_size(config_current(m)->sources), CONFIG_MAX_SOURCES);
	for (int i = 0; i <= CONFIG_MAX_DESTINATIONS; i++) {
		char type[64], url[64];

		snprintf(type, sizeof(type), "destinations/d%d/type", i);
		snprintf(url, sizeof(url), "destinations/d%d/options/url", i);
		r = apply({.path = type, .set = "pyroscope"}, {.path = url, .set = "http://p"});
		assert_int_equal(r, i < CONFIG_MAX_DESTINATIONS ? 0 : -E2BIG);
	}
	says("more than 64 destinations");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_defaults),
		TEST(test_unwinding_and_budget),
		TEST(test_names),
		TEST(test_apply),
		TEST(test_sources),
		TEST(test_refusals),
		TEST(test_other_layers),
		TEST(test_revisions),
		TEST(test_prepare_fails),
		TEST(test_no_change_from_a_hook),
		TEST(test_disk_full),
		TEST(test_file),
		TEST(test_reload),
		TEST(test_file_over_an_older_local),
		TEST(test_bad_files),
		TEST(test_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
