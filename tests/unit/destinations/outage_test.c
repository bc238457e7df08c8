/* SPDX-License-Identifier: Apache-2.0 */

/* Spool, exporter and agentd's side of it, killed at any moment.
 *
 * A child plays agentd: it makes a batch every few milliseconds, each of a service of its own, hands it over, and notes
 * in shared memory which of them it was told are kept. Its exporter is the real one, in its sandbox, with a real spool;
 * the store is shared memory. The parent kills either of them with SIGKILL, again and again, and at the end asks the
 * receiver, which stands apart: every batch that was acknowledged is there, none again more often than
 * somebody was killed (which may hit one batch at each of its tries), and the ledger of the last agentd is, to the sample, what arrived. */

#include "tests/unit/destinations/receiver.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/sandbox.h"
#include "destinations/link.h"

#define BATCHES  20000 /* at most */
#define EVERY_NS (4 * NSEC_PER_MSEC)
#define WAIT_NS  (60 * NSEC_PER_SEC)
#define VALUES   256

struct play { /* shared by parent and child */
	_Atomic unsigned made;
	_Atomic uint8_t kept[BATCHES];
	_Atomic int quiet; /* no more batches */
	_Atomic pid_t exporter;
	_Atomic uint64_t beats;
	_Atomic uint32_t restarts;
	struct {
		uint64_t routed, delivered, held, other;
	} ledger;
	_Atomic unsigned waiting;
	_Atomic int ready; /* the exporter told what its spool has */
	struct {
		char key[192];
		uint64_t value;
		bool used;
	} values[VALUES];
};

static struct play *play;
static struct receiver receiver;
static char folder[64];
static uint64_t rng;

static uint64_t random_number(uint64_t bound)
{
	rng ^= rng << 13, rng ^= rng >> 7, rng ^= rng << 17;
	return rng % bound;
}

/* ---- the child ----------------------------------------------------------------------------------- */

static int find_value(const char *key)
{
	for (int i = 0; i < VALUES; i++)
		if (play->values[i].used && streq(play->values[i].key, key))
			return i;
	return -1;
}

static int get_value(void *userdata, const char *key, uint64_t *value)
{
	int i = find_value(key);

	if (i < 0)
		return -ENOENT;
	*value = play->values[i].value;
	return 0;
}

/* A transaction, unlike SQLite's, is no more than this here: a kill in between is the store's own test. */
static int set_values(void *userdata, const struct link_value *list, size_t n)
{
	sigset_t all, before;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	for (size_t k = 0; k < n; k++) {
		int i = find_value(list[k].key);

		for (int f = 0; i < 0 && !list[k].drop && f < VALUES; f++)
			if (!play->values[f].used)
				i = f;
		if (i < 0)
			continue;
		memcpy(play->values[i].key, list[k].key, sizeof(list[k].key));
		play->values[i].value = list[k].value;
		play->values[i].used = !list[k].drop;
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	return 0;
}

static uint64_t samples_of(unsigned serial)
{
	return 10 + serial % 7;
}

static void make_batch(struct link *l, unsigned serial)
{
	CLEANUP(batch_freep) struct batch *b = NULL;
	_cleanup_buf_ struct buf bytes;
	struct batch_header header = {.serial = serial, .boot_id = {4}};
	struct profile_resource_attribute attribute = {0};
	struct profile_location location = {.address = 0x1000};
	struct profile_part *p = NULL;
	uint32_t at, stack;
	char service[32];
	int fd;

	if (batch_new(&b) < 0)
		abort();
	snprintf(service, sizeof(service), "service-%u", serial);
	attribute.key = (uint32_t)batch_string(b, "service.name");
	attribute.value = (uint32_t)batch_string(b, service);
	at = (uint32_t)batch_location(b, &location, NULL);
	stack = (uint32_t)batch_stack(b, &at, 1);
	header.to_unix_ns = clock_unix_ns();
	header.from_unix_ns = header.to_unix_ns - EVERY_NS;
	header.samples[0] = samples_of(serial);
	if (batch_part(b, (uint32_t)batch_resource(b, &attribute, 1), 0, NSEC_PER_SEC / 99,
		    header.from_unix_ns, EVERY_NS, &p) < 0 ||
		batch_add(b, p, stack, (uint32_t[4]){0}, samples_of(serial)) < 0)
		abort();
	buf_init(&bytes, 0);
	if (profile_encode(b, &header, NULL, 0, &bytes) < 0)
		abort();
	fd = io_sealed_memfd("test", bytes.data, bytes.len);
	if (fd < 0 || link_send(l, &header, fd) < 0)
		abort();
}

static void note_kept(void *userdata, const struct link_waiting *w)
{
	unsigned *waiting = userdata;

	(*waiting)++;
	if (w->durable && w->header->serial < BATCHES)
		play->kept[w->header->serial] = 1;
}

static void report(struct link *l)
{
	const struct link_destination *list;
	size_t n = link_destinations(l, &list);
	unsigned waiting = 0;

	link_spool_each(l, note_kept, &waiting);
	play->waiting = waiting;
	play->ready = link_newest_unix_ns(l) > 0;
	play->exporter = link_child_pid(l);
	play->restarts = link_restarts(l);
	if (n != 1)
		abort();
	play->ledger.routed = list[0].ledger[0].routed;
	play->ledger.delivered = list[0].ledger[0].delivered;
	play->ledger.held = list[0].ledger[0].held;
	play->ledger.other =
		list[0].ledger[0].evicted + list[0].ledger[0].rejected + list[0].ledger[0].shaped;
	if (play->ledger.routed != play->ledger.delivered + play->ledger.held + play->ledger.other)
		abort();
	play->beats++;
}

static _Noreturn void be_agentd(void)
{
	static const struct link_store store = {get_value, set_values};
	struct option_value options[] = {{"url", receiver.url}, {"compression", "none"}};
	struct config_destination d = {.name = (char *)(uintptr_t) "p",
		.type = (char *)(uintptr_t) "otlphttp",
		.enabled = true,
		.options = options,
		.n_options = ARRAY_SIZE(options)};
	struct link_config config = {
		.hang_ms = 30000, .spool_folder = folder, .boot_id = {4}, .store = &store};
	struct err_text err = {};
	struct link *l = NULL;
	sd_event *loop = NULL;
	uint64_t next = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (sd_event_new(&loop) < 0 || link_new(&l, loop, &config, &err) < 0 ||
		link_configure(l, &d, 1, &err) < 0)
		abort();
	for (;;) {
		if (!play->quiet && clock_monotonic_ns() >= next && play->made + 2 < BATCHES) {
			make_batch(l, ++play->made);
			next = clock_monotonic_ns() + EVERY_NS;
		}
		if (sd_event_run(loop, 2000) < 0)
			abort();
		report(l);
	}
}

/* ---- the parent ---------------------------------------------------------------------------------- */

static pid_t start_agentd(void)
{
	pid_t pid = fork();

	if (pid == 0)
		be_agentd();
	assert_true(pid > 0);
	return pid;
}

static void kill_agentd(pid_t pid)
{
	int status;

	/* It must have lived until now: an abort() is a failure. */
	assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	play->exporter = 0;
	play->ready = 0;
}

static unsigned long number_of(const char *name, unsigned long otherwise)
{
	const char *set = getenv(name);

	return set ? strtoul(set, NULL, 10) : otherwise;
}

static void judge(unsigned kills)
{
	uint64_t arrived = 0;
	unsigned again = 0, kept = 0;

	for (unsigned i = 1; i <= play->made; i++) {
		uint32_t got = receiver.shared->got[i];

		if (got % samples_of(i))
			fail_msg("batch %u arrived with %u samples of %llu", i, got,
				(unsigned long long)samples_of(i));
		if (play->kept[i] && !got)
			fail_msg("batch %u was acknowledged and never arrived", i);
		kept += play->kept[i];
		again += got ? got / (uint32_t)samples_of(i) - 1 : 0;
		arrived += got ? samples_of(i) : 0;
	}
	printf("%u batches, %u seen as kept, %u kills, %u requests arrived again\n", play->made,
		kept, kills, again);
	if (again > kills)
		fail_msg("%u requests arrived again with %u kills", again, kills);
	assert_int_equal(play->ledger.held, 0);
	assert_int_equal(play->ledger.other, 0);
	assert_int_equal(play->ledger.delivered, arrived);
}

static void wait_until_through(void)
{
	uint64_t end = clock_monotonic_ns() + WAIT_NS, beats;
	unsigned taken = receiver.shared->taken;

	play->quiet = 1;
	beats = play->beats;
	while (play->beats < beats + 3 || !play->ready || play->waiting || play->ledger.held) {
		/* As long as some arrive, the others may. */
		if (receiver.shared->taken != taken) {
			taken = receiver.shared->taken;
			end = clock_monotonic_ns() + WAIT_NS;
		}
		if (clock_monotonic_ns() > end)
			fail_msg("%u batches still wait", play->waiting);
		usleep(5000);
	}
}

static void test_killed_at_any_moment(void **state)
{
	unsigned long kills = number_of("ODI_TEST_KILLS", 300), agents = 0;
	uint64_t seed = number_of("ODI_TEST_SEED", clock_monotonic_ns());
	pid_t agentd;

	printf("seed %llu (ODI_TEST_SEED), %lu kills (ODI_TEST_KILLS)\n", (unsigned long long)seed,
		kills);
	rng = seed | 1;
	agentd = start_agentd();
	for (unsigned long i = 0; i < kills; i++) {
		pid_t exporter;

		/* Some live for a moment, some come to work. */
		usleep((useconds_t)(random_number(8) ? random_number(40000) : 150000));
		/* Room for all kills: what is made waits where there are too many. */
		play->quiet = play->made > BATCHES / (kills + 1) * (i + 1) + 200;
		receiver.shared->status = random_number(10) ? 200 : 503;
		exporter = play->exporter;
		if (random_number(3) && exporter > 0) {
			kill(exporter, SIGKILL);
		} else {
			kill_agentd(agentd);
			agentd = start_agentd();
			agents++;
		}
	}
	receiver.shared->status = 503;
	/* Where every agentd died before it came to work, this one does: what it keeps, the next one finds. */
	for (play->quiet = 0; play->made <= 50 || !memchr(play->kept, 1, sizeof(play->kept));)
		usleep(5000);
	kill_agentd(agentd);
	agentd = start_agentd();
	agents++;
	kills++;
	receiver.shared->status = 200;
	wait_until_through();
	kill_agentd(agentd);
	printf("%lu kills of agentd, %lu of its exporter\n", agents, kills - agents);
	judge((unsigned)kills);
}

/* A backend that is away for long, and three agentd after each other meanwhile. */
static void test_outage(void **state)
{
	pid_t agentd;

	receiver.shared->status = 503;
	agentd = start_agentd();
	for (int i = 0; i < 3; i++) {
		unsigned made = play->made;

		while (play->made < made + 60)
			usleep(1000);
		kill_agentd(agentd);
		agentd = start_agentd();
	}
	while (play->waiting < 100)
		usleep(1000);
	assert_int_equal(receiver.shared->samples, 0);
	receiver.shared->status = 200;
	wait_until_through();
	kill_agentd(agentd);
	judge(3);
}

static int set_up(void **state)
{
	play = mmap(NULL, sizeof(*play), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_true(play != MAP_FAILED);
	snprintf(folder, sizeof(folder), "/tmp/odi-outage-test-XXXXXX");
	assert_non_null(mkdtemp(folder));
	strcat(folder, "/spool");
	receiver.pid = -1;
	receiver_start(&receiver, 0);
	return 0;
}

static int tear_down(void **state)
{
	char command[128];

	receiver_free(&receiver);
	munmap(play, sizeof(*play));
	*strrchr(folder, '/') = '\0';
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_outage, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_killed_at_any_moment, set_up, tear_down),
	};

	if (argc >= 3 && streq(argv[1], "--role")) {
		log_init("exporter", LOG_LEVEL_ERROR);
		return exporter_main() < 0 ? 1 : 0;
	}
	log_init("agentd", LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
