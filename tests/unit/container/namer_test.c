/* SPDX-License-Identifier: Apache-2.0 */

/* The whole way: a folder that looks like a host's, the real child in its real sandbox, and children that
 * hang, die and lie. The test's program is its own child: as which, the name it is executed by says. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "agentd/base/fdpass.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/sandbox.h"
#include "agentd/container/private.h"

#define ID(c) #c #c #c #c #c #c #c #c #c #c #c #c #c #c #c #c
#define A     ID(aaaa)
#define B     ID(bbbb)
#define C     ID(cccc)
#define D     ID(dddd)

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

struct answer {
	int calls;
	bool named;
	char id[CONTAINER_ID_MAX + 1];
	struct container_facts facts;
};

struct test {
	char dir[64], root[80];
	sd_event *loop;
	struct container_namer *namer;
};

static const char docker_file[] =
	"{\"ID\":\"%s\",\"Name\":\"/%s\",\"Config\":{\"Image\":\"nginx:1.25\",\"Labels\":{}}}";

/* ---- the child ---- */

/* Takes files as the real one does, and answers as no real one would. */
static int lie(const char *how)
{
	for (;;) {
		struct container_request request;
		struct container_answer a = {.magic = CONTAINER_MAGIC};
		int fd = -1;
		size_t n_fds = 1;

		if (fdpass_recv(SANDBOX_FD, &request, sizeof(request), &fd, &n_fds) <= 0)
			return 0;
		closep(&fd);
		a.serial = request.serial;
		snprintf(a.facts.name, sizeof(a.facts.name), "liar");
		if (streq(how, "lie-serial"))
			a.serial++;
		else if (streq(how, "lie-unterminated"))
			memset(a.facts.name, 'x', sizeof(a.facts.name));
		else if (streq(how, "lie-unclean"))
			snprintf(a.facts.name, sizeof(a.facts.name), "a\nb");
		else if (streq(how, "lie-count"))
			a.facts.n_k8s = SIZE_MAX;
		else if (streq(how, "lie-key")) {
			a.facts.n_k8s = 1;
			snprintf(a.facts.k8s[0].key, sizeof(a.facts.k8s[0].key), "service.name");
		} else if (streq(how, "lie-result"))
			a.result = 7;
		else if (streq(how, "hang"))
			pause();
		else if (streq(how, "die"))
			abort();
		(void)fdpass_send(
			SANDBOX_FD, &a, streq(how, "lie-short") ? 20 : sizeof(a), NULL, 0);
	}
}

static int role_main(void)
{
	const char *path = (const char *)getauxval(AT_EXECFN), *name = strrchr(path, '/');

	name = name ? name + 1 : path;
	return streq(name, "real") ? container_role_main() : lie(name);
}

/* ---- the host ---- */

static void put(struct test *t, const char *path, const char *text)
{
	char whole[400], folder[400];
	struct err_text err;
	int fd;

	snprintf(whole, sizeof(whole), "%s/%s", t->root, path);
	snprintf(folder, sizeof(folder), "%s", whole);
	*strrchr(folder, '/') = 0;
	assert_int_equal(io_mkdir_p(folder, 0755, &err), 0);
	fd = open(whole, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(io_write_all(fd, text, strlen(text)), 0);
	close(fd);
}

static void put_docker(struct test *t, const char *root, const char *id, const char *name)
{
	char path[300], text[500];

	snprintf(path, sizeof(path), "%s/containers/%s/config.v2.json", root, id);
	snprintf(text, sizeof(text), docker_file, id, name);
	put(t, path, text);
}

static void use_child(struct test *t, const char *name)
{
	static char path[128];
	char self[400];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	assert_true(n > 0);
	self[n] = 0;
	snprintf(path, sizeof(path), "%s/%s", t->dir, name);
	assert_true(symlink(self, path) == 0 || errno == EEXIST);
	sandbox_set_program(path);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static int set_up(void **state)
{
	struct test *t = calloc(1, sizeof(*t));

	assert_non_null(t);
	snprintf(t->dir, sizeof(t->dir), "/tmp/odi-container-test-XXXXXX");
	assert_non_null(mkdtemp(t->dir));
	snprintf(t->root, sizeof(t->root), "%s/root", t->dir);
	assert_int_equal(mkdir(t->root, 0755), 0);
	assert_int_equal(sd_event_new(&t->loop), 0);
	assert_int_equal(container_namer_new(&t->namer, t->loop, t->root), 0);
	/* A loaded machine is no failure: only the tests of deadlines have short ones. */
	container_namer_tune(t->namer, 60 * NSEC_PER_SEC, 0, 0);
	use_child(t, "real");
	*state = t;
	return 0;
}

static int tear_down(void **state)
{
	struct test *t = *state;

	container_namer_free(t->namer);
	sd_event_unref(t->loop);
	assert_int_equal(nftw(t->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	free(t);
	return 0;
}

static void on_answer(void *userdata, const char *id, const struct container_facts *facts)
{
	struct answer *a = userdata;

	a->calls++;
	a->named = facts != NULL;
	snprintf(a->id, sizeof(a->id), "%.64s", id);
	if (facts)
		a->facts = *facts;
}

static void wait_for(struct test *t, const struct answer *a)
{
	for (int i = 0; i < 1000 && !a->calls; i++)
		assert_true(sd_event_run(t->loop, 100000) >= 0);
	assert_int_equal(a->calls, 1);
}

static struct answer ask(struct test *t, const char *runtime, const char *id)
{
	struct answer a = {0};

	assert_int_equal(container_ask(t->namer, runtime, id, on_answer, &a), 0);
	wait_for(t, &a);
	assert_string_equal(a.id, id);
	return a;
}

static struct container_counters counters(struct test *t)
{
	struct container_counters c;

	container_namer_counters(t->namer, &c);
	return c;
}

/* ---- names ---- */

static void named(void **state)
{
	struct test *t = *state;
	struct answer a;

	put_docker(t, "var/lib/docker", A, "web");
	a = ask(t, "docker", A);
	assert_true(a.named);
	assert_string_equal(a.facts.name, "web");
	assert_string_equal(a.facts.image, "nginx:1.25");
	/* Known now: no file is read again. */
	a = ask(t, "docker", A);
	assert_string_equal(a.facts.name, "web");
	assert_int_equal(counters(t).files, 1);
	assert_int_equal(counters(t).from_cache, 1);
	assert_int_equal(counters(t).starts, 1);
}

static void every_runtime(void **state)
{
	struct test *t = *state;

	put(t, "run/containerd/io.containerd.runtime.v2.task/k8s.io/" A "/config.json",
		"{\"ociVersion\":\"1.0.2\",\"annotations\":{\"io.kubernetes.cri.container-name\":\"a\"}}");
	put(t, "var/lib/containers/storage/overlay-containers/containers.json",
		"[{\"id\":\"" B "\",\"names\":[\"b\"]}]");
	put(t, "var/lib/containers/storage/overlay-containers/volatile-containers.json",
		"[{\"id\":\"" C "\",\"names\":[\"c\"]}]");
	put(t, "run/containers/storage/overlay-containers/" D "/userdata/config.json",
		"{\"ociVersion\":\"1.0.2\",\"annotations\":{\"io.kubernetes.container.name\":\"d\"}}");
	assert_string_equal(ask(t, "containerd", A).facts.name, "a");
	assert_string_equal(ask(t, "podman", B).facts.name, "b");
	assert_string_equal(ask(t, "podman", C).facts.name, "c");
	assert_string_equal(ask(t, "crio", D).facts.name, "d");
	assert_int_equal(counters(t).starts, 1);
}

/* The cgroup's path does not always tell the runtime. */
static void runtime_not_known(void **state)
{
	struct test *t = *state;

	put_docker(t, "var/lib/docker", A, "web");
	put(t, "run/k3s/containerd/io.containerd.runtime.v2.task/k8s.io/" B "/config.json",
		"{\"ociVersion\":\"1.0.2\",\"annotations\":{\"io.kubernetes.cri.container-name\":\"b\"}}");
	assert_string_equal(ask(t, "", A).facts.name, "web");
	assert_string_equal(ask(t, NULL, B).facts.name, "b");
}

static void other_roots(void **state)
{
	struct test *t = *state;

	put(t, "etc/docker/daemon.json", "{\"data-root\":\"/data/docker\"}");
	put_docker(t, "data/docker", A, "moved");
	put_docker(t, "srv/test", B, "added");
	put_docker(t, "var/lib/docker/100000.100000", C, "remapped");
	put(t, "srv/tasks/default/" D "/config.json",
		"{\"ociVersion\":\"1\",\"annotations\":{\"nerdctl/name\":\"n\"}}");
	assert_int_equal(container_namer_add_root(t->namer, "docker", "/srv/test"), 0);
	assert_int_equal(container_namer_add_root(t->namer, "containerd", "/srv/tasks"), 0);
	for (int i = 0; i < 100; i++)
		assert_int_equal(container_namer_add_root(t->namer, "docker", "/srv/test"), 0);
	assert_int_equal(container_namer_add_root(t->namer, "docker", "srv"), -EINVAL);
	assert_int_equal(container_namer_add_root(t->namer, "docker", "/srv/../etc"), -EINVAL);
	assert_string_equal(ask(t, "docker", A).facts.name, "moved");
	assert_string_equal(ask(t, "docker", B).facts.name, "added");
	assert_string_equal(ask(t, "docker", C).facts.name, "remapped");
	assert_string_equal(ask(t, "containerd", D).facts.name, "n");
	put_docker(t, "srv/test", ID(eeee), "added");
	container_namer_clear_roots(t->namer);
	assert_false(ask(t, "docker", ID(eeee)).named);
}

/* A daemon.json that changes is read again; one that is nonsense is as none. */
static void docker_config_changes(void **state)
{
	struct test *t = *state;

	put(t, "etc/docker/daemon.json", "{\"data-root\":");
	put_docker(t, "var/lib/docker", A, "a");
	put_docker(t, "data/docker", B, "b");
	assert_string_equal(ask(t, "docker", A).facts.name, "a");
	put(t, "etc/docker/daemon.json", "{\"data-root\":\"/data/docker\"}");
	assert_string_equal(ask(t, "docker", B).facts.name, "b");
}

static void no_name_is_asked_again(void **state)
{
	struct test *t = *state;

	assert_false(ask(t, "docker", A).named);
	put_docker(t, "var/lib/docker", A, "late");
	assert_false(ask(t, "docker", A).named);
	assert_int_equal(counters(t).from_cache, 1);
	/* From now on an answer of that kind is old at once. */
	container_namer_tune(t->namer, 0, 0, 1);
	assert_false(ask(t, "docker", B).named);
	put_docker(t, "var/lib/docker", B, "late");
	assert_string_equal(ask(t, "docker", B).facts.name, "late");
}

static void not_an_id(void **state)
{
	static const char *const ids[] = {
		"", "web", "../../../../etc/passwd", "AAAAAAAAAAAA", A "0", "aaaaaaaaaaa"};
	struct test *t = *state;

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
		struct answer a = {0};

		assert_int_equal(container_ask(t->namer, "docker", ids[i], on_answer, &a), 0);
		assert_int_equal(a.calls, 1);
		assert_false(a.named);
	}
	assert_int_equal(counters(t).refused, ARRAY_SIZE(ids));
	assert_int_equal(counters(t).starts, 0);
}

/* All who wait for one container share one reading of its file. */
static void asked_together(void **state)
{
	struct test *t = *state;
	struct answer a[3] = {0};

	put_docker(t, "var/lib/docker", A, "web");
	put_docker(t, "var/lib/docker", B, "db");
	assert_int_equal(container_ask(t->namer, "docker", A, on_answer, &a[0]), 0);
	assert_int_equal(container_ask(t->namer, "docker", B, on_answer, &a[1]), 0);
	assert_int_equal(container_ask(t->namer, "docker", A, on_answer, &a[2]), 0);
	for (int i = 0; i < 3; i++)
		wait_for(t, &a[i]);
	assert_string_equal(a[0].facts.name, "web");
	assert_string_equal(a[1].facts.name, "db");
	assert_string_equal(a[2].facts.name, "web");
	assert_int_equal(counters(t).files, 2);
	assert_int_equal(counters(t).named, 3);
}

struct chain {
	struct test *t;
	struct answer last;
};

static void ask_next(void *userdata, const char *id, const struct container_facts *facts)
{
	struct chain *c = userdata;

	assert_int_equal(container_ask(c->t->namer, "docker", B, on_answer, &c->last), 0);
}

static void asked_while_answering(void **state)
{
	struct test *t = *state;
	struct chain c = {.t = t};

	put_docker(t, "var/lib/docker", A, "web");
	put_docker(t, "var/lib/docker", B, "db");
	assert_int_equal(container_ask(t->namer, "docker", A, ask_next, &c), 0);
	wait_for(t, &c.last);
	assert_string_equal(c.last.facts.name, "db");
	/* And where the first is answered before container_ask() returns. */
	c.last = (struct answer){0};
	assert_int_equal(container_ask(t->namer, "docker", C, ask_next, &c), 0);
	wait_for(t, &c.last);
	assert_true(c.last.named);
}

static void freed_while_asked(void **state)
{
	struct test *t = *state;
	struct answer a = {0};

	put_docker(t, "var/lib/docker", A, "web");
	assert_int_equal(container_ask(t->namer, "docker", A, on_answer, &a), 0);
	t->namer = container_namer_free(t->namer);
	assert_int_equal(a.calls, 0);
}

/* ---- what is not a state file ---- */

static void not_taken(void **state)
{
	struct test *t = *state;
	char path[300], big[400];
	int fd;

	/* A link as the last step, a fifo, a folder, too much of it, one that others may write. */
	put_docker(t, "var/lib/docker", A, "web");
	put(t, "var/lib/docker/containers/" B "/x", "");
	snprintf(path, sizeof(path), "%s/var/lib/docker/containers/" B "/config.v2.json", t->root);
	assert_int_equal(symlink("../" A "/config.v2.json", path), 0);
	assert_false(ask(t, "docker", B).named);
	put(t, "var/lib/docker/containers/" C "/x", "");
	snprintf(path, sizeof(path), "%s/var/lib/docker/containers/" C "/config.v2.json", t->root);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_false(ask(t, "docker", C).named);
	put_docker(t, "var/lib/docker", D, "big");
	snprintf(big, sizeof(big), "%s/var/lib/docker/containers/" D "/config.v2.json", t->root);
	fd = open(big, O_WRONLY | O_CLOEXEC);
	assert_int_equal(ftruncate(fd, CONTAINER_FILE_MAX + 1), 0);
	close(fd);
	assert_false(ask(t, "docker", D).named);
	put_docker(t, "var/lib/docker", ID(1111), "open");
	snprintf(big, sizeof(big), "%s/var/lib/docker/containers/" ID(1111) "/config.v2.json",
		t->root);
	assert_int_equal(chmod(big, 0666), 0);
	assert_false(ask(t, "docker", ID(1111)).named);
	assert_int_equal(counters(t).starts, 0);
	if (geteuid() == 0) {
		put_docker(t, "var/lib/docker", ID(2222), "theirs");
		snprintf(big, sizeof(big),
			"%s/var/lib/docker/containers/" ID(2222) "/config.v2.json", t->root);
		assert_int_equal(chown(big, 12345, 12345), 0);
		assert_false(ask(t, "docker", ID(2222)).named);
	}
	assert_true(ask(t, "docker", A).named);
}

/* A folder on the way may be a link, as /var/lib/docker often is; it ends within the root. */
static void links_on_the_way(void **state)
{
	struct test *t = *state;
	char path[300];

	put_docker(t, "data/docker", A, "web");
	put(t, "var/lib/x", "");
	snprintf(path, sizeof(path), "%s/var/lib/docker", t->root);
	assert_int_equal(symlink("/data/docker", path), 0);
	assert_string_equal(ask(t, "docker", A).facts.name, "web");
}

/* ---- the sandboxed child ---- */

static void state_of(pid_t pid, const char *key, char *out, size_t size)
{
	char path[64], line[200];
	size_t len = strlen(key);
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	f = fopen(path, "re");
	assert_non_null(f);
	*out = 0;
	while (fgets(line, sizeof(line), f))
		if (strncmp(line, key, len) == 0)
			snprintf(out, size, "%s", line + len);
	fclose(f);
	out[strcspn(out, "\n")] = 0;
}

static char *bomb(void)
{
	size_t size = CONTAINER_FILE_MAX - 64, len = 0;
	char *text = malloc(size + 64);

	assert_non_null(text);
	len += sprintf(text, "[");
	while (len < size)
		len += sprintf(text + len, "[],{},");
	sprintf(text + len, "[]]");
	return text;
}

/* Four megabytes of nothing but small objects want more memory than the child may have. Its file costs only
 * itself, whether json-c says so or dies of it. */
static void memory_bomb(void **state)
{
	struct test *t = *state;
	_cleanup_free_ char *text = bomb();

	put(t, "var/lib/docker/containers/" A "/config.v2.json", text);
	put_docker(t, "var/lib/docker", B, "db");
	assert_false(ask(t, "docker", A).named);
#ifndef SANITIZED /* they need more than any limit */
	if (container_namer_child(t->namer) > 0) {
		char peak[100];

		state_of(container_namer_child(t->namer), "VmHWM:", peak, sizeof(peak));
		assert_in_range(strtoul(peak, NULL, 10), 1, 128 * 1024);
	}
#endif
	assert_string_equal(ask(t, "docker", B).facts.name, "db");
}

static void has_nothing(void **state)
{
	struct test *t = *state;
	char value[100];
	pid_t pid;

	put_docker(t, "var/lib/docker", A, "web");
	assert_true(ask(t, "docker", A).named);
	pid = container_namer_child(t->namer);
	assert_true(pid > 0);
	state_of(pid, "CapEff:\t", value, sizeof(value));
	assert_string_equal(value, "0000000000000000");
	state_of(pid, "CapBnd:\t", value, sizeof(value));
	if (geteuid() == 0)
		assert_string_equal(value, "0000000000000000");
	state_of(pid, "Seccomp:\t", value, sizeof(value));
	assert_string_equal(value, "2");
	state_of(pid, "NoNewPrivs:\t", value, sizeof(value));
	assert_string_equal(value, "1");
	state_of(pid, "Uid:\t", value, sizeof(value));
	if (geteuid() == 0)
		assert_string_equal(value, "65534\t65534\t65534\t65534");
}

static void ends_when_idle(void **state)
{
	struct test *t = *state;

	put_docker(t, "var/lib/docker", A, "web");
	put_docker(t, "var/lib/docker", B, "db");
	container_namer_tune(t->namer, 0, NSEC_PER_MSEC, 0);
	assert_true(ask(t, "docker", A).named);
	for (int i = 0; i < 1000 && container_namer_child(t->namer) > 0; i++)
		assert_true(sd_event_run(t->loop, 100000) >= 0);
	assert_int_equal(container_namer_child(t->namer), -1);
	assert_int_equal(counters(t).files_failed, 0);
	/* And comes back when it is needed. */
	assert_true(ask(t, "docker", B).named);
	assert_int_equal(counters(t).starts, 2);
}

static void killed_between_questions(void **state)
{
	struct test *t = *state;
	pid_t pid;

	put_docker(t, "var/lib/docker", A, "web");
	put_docker(t, "var/lib/docker", B, "db");
	assert_true(ask(t, "docker", A).named);
	pid = container_namer_child(t->namer);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_string_equal(ask(t, "docker", B).facts.name, "db");
	assert_int_equal(counters(t).starts, 2);
	assert_int_equal(counters(t).files_failed, 0);
}

/* No file's fault, and no start for each of a hundred containers. */
static void cannot_start(void **state)
{
	struct test *t = *state;

	put_docker(t, "var/lib/docker", A, "web");
	put_docker(t, "var/lib/docker", B, "db");
	sandbox_set_program("/nonexistent/program");
	put_docker(t, "var/lib/docker", C, "web");
	put_docker(t, "var/lib/docker", D, "db");
	assert_false(ask(t, "docker", A).named);
	assert_false(ask(t, "docker", B).named);
	assert_false(ask(t, "docker", C).named);
	assert_false(ask(t, "docker", D).named);
	assert_int_equal(counters(t).files_failed, 0);
	/* One that ended before its file was handed over is tried once more, at once. */
	assert_in_range(counters(t).starts, 1, 2);
}

/* Whatever it does, the question is answered, the child is gone, and the next one is as good as new. */
static void misbehaves(struct test *t, const char *how)
{
	put_docker(t, "var/lib/docker", A, "web");
	put_docker(t, "var/lib/docker", B, "db");
	use_child(t, how);
	if (streq(how, "hang"))
		container_namer_tune(t->namer, 10 * NSEC_PER_MSEC, 0, 0);
	if (ask(t, "docker", A).named)
		fail_msg("%s was believed", how);
	assert_int_equal(container_namer_child(t->namer), -1);
	assert_int_equal(counters(t).files_failed, 1);
	container_namer_tune(t->namer, 60 * NSEC_PER_SEC, 0, 0);
	use_child(t, "real");
	assert_string_equal(ask(t, "docker", B).facts.name, "db");
	/* The file that did it is left alone for a while. */
	assert_false(ask(t, "docker", A).named);
	assert_int_equal(counters(t).from_cache, 1);
}

static void hangs(void **state)
{
	misbehaves(*state, "hang");
}

static void dies(void **state)
{
	misbehaves(*state, "die");
}

static void lies(void **state)
{
	static const char *const hows[] = {"lie-serial", "lie-unterminated", "lie-unclean",
		"lie-count", "lie-key", "lie-result", "lie-short"};

	for (size_t i = 0; i < ARRAY_SIZE(hows); i++) {
		misbehaves(*state, hows[i]);
		assert_int_equal(tear_down(state), 0);
		assert_int_equal(set_up(state), 0);
	}
	/* The same child without a lie is believed: it is the lie that was found. */
	put_docker(*state, "var/lib/docker", A, "web");
	use_child(*state, "no-lie");
	assert_string_equal(ask(*state, "docker", A).facts.name, "liar");
}

/* A child that served others before may have been spoilt by them: the file gets a fresh one. */
static void second_chance(void **state)
{
	struct test *t = *state;
	struct answer a = {0};

	put_docker(t, "var/lib/docker", A, "web");
	put_docker(t, "var/lib/docker", B, "db");
	assert_true(ask(t, "docker", A).named);
	/* Stopped, so that the question is with it when it ends. */
	assert_int_equal(kill(container_namer_child(t->namer), SIGSTOP), 0);
	assert_int_equal(container_ask(t->namer, "docker", B, on_answer, &a), 0);
	assert_int_equal(a.calls, 0);
	assert_int_equal(kill(container_namer_child(t->namer), SIGKILL), 0);
	wait_for(t, &a);
	assert_string_equal(a.facts.name, "db");
	assert_int_equal(counters(t).files_failed, 0);
	assert_int_equal(counters(t).starts, 2);
}

static void count(void *userdata, const char *id, const struct container_facts *facts)
{
	++*(int *)userdata;
}

/* A child that stands still holds up so many questions and no more; when it is given up, all are answered. */
static void queue_is_bounded(void **state)
{
	struct test *t = *state;
	int answered = 0;
	char id[16];

	put_docker(t, "var/lib/docker", A, "web");
	put_docker(t, "var/lib/docker", B, "db");
	assert_true(ask(t, "docker", A).named);
	assert_int_equal(kill(container_namer_child(t->namer), SIGSTOP), 0);
	assert_int_equal(container_ask(t->namer, "docker", B, count, &answered), 0);
	for (int i = 1; i < 5000; i++) {
		snprintf(id, sizeof(id), "%012d", i);
		assert_int_equal(container_ask(t->namer, "docker", id, count, &answered), 0);
	}
	assert_int_equal(answered, 5000 - 4096);
	assert_int_equal(counters(t).refused, 5000 - 4096);
	assert_int_equal(kill(container_namer_child(t->namer), SIGKILL), 0);
	for (int i = 0; i < 1000 && answered < 5000; i++)
		assert_true(sd_event_run(t->loop, 100000) >= 0);
	assert_int_equal(answered, 5000);
	assert_int_equal(counters(t).named, 2);
}

static void cache_is_bounded(void **state)
{
	struct container_cache *c = NULL;
	struct container_facts f = {.name = "x"}, got;
	char id[16];
	bool named;

	assert_int_equal(container_cache_new(&c, 3), 0);
	for (int i = 0; i < 3; i++) {
		snprintf(id, sizeof(id), "%012d", i);
		container_cache_put(c, id, i == 1 ? NULL : &f, 100);
	}
	assert_true(container_cache_get(c, "000000000000", 50, &named, &got));
	assert_true(named);
	assert_string_equal(got.name, "x");
	assert_true(container_cache_get(c, "000000000001", 50, &named, &got));
	assert_false(named);
	container_cache_put(c, "000000000003", &f, 100);
	assert_int_equal(container_cache_size(c), 3);
	/* Number 2 was used longest ago. */
	assert_false(container_cache_get(c, "000000000002", 50, &named, &got));
	assert_true(container_cache_get(c, "000000000000", 99, &named, &got));
	assert_false(container_cache_get(c, "000000000000", 100, &named, &got));
	assert_int_equal(container_cache_size(c), 2);
	container_cache_put(c, "000000000001", &f, 200);
	assert_int_equal(container_cache_size(c), 2);
	assert_true(container_cache_get(c, "000000000001", 150, &named, &got));
	assert_true(named);
	container_cache_free(c);
}

/* The ledger of questions closes in every test. */
static int tear_down_counted(void **state)
{
	struct test *t = *state;

	if (t->namer) {
		struct container_counters c = counters(t);

		assert_int_equal(c.asked, c.from_cache + c.named + c.nameless + c.refused);
	}
	return tear_down(state);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down_counted)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(named),
		TEST(every_runtime),
		TEST(runtime_not_known),
		TEST(other_roots),
		TEST(docker_config_changes),
		TEST(no_name_is_asked_again),
		TEST(not_an_id),
		TEST(asked_together),
		TEST(asked_while_answering),
		TEST(freed_while_asked),
		TEST(not_taken),
		TEST(links_on_the_way),
		TEST(memory_bomb),
		TEST(has_nothing),
		TEST(ends_when_idle),
		TEST(killed_between_questions),
		TEST(cannot_start),
		TEST(hangs),
		TEST(dies),
		TEST(lies),
		TEST(second_chance),
		TEST(queue_is_bounded),
		cmocka_unit_test(cache_is_bounded),
	};

	if (argc > 2 && streq(argv[1], "--role"))
		return role_main();
	log_init("namer_test", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
