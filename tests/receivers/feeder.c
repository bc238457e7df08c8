/* SPDX-License-Identifier: Apache-2.0 */

/* The exporter without the rest of agentd, driven by lines: for tests of delivery that want no BPF.
 *
 *	destination NAME TYPE KEY=VALUE ...   adds or replaces one (KEY@=FILE: the value is what the file holds)
 *	apply                                 hands the configuration over
 *	send N ROWS [NAME_LENGTH]             N batches, of the services service-1, service-2, ... in turn
 *	rows                                  prints {"destinations": [...], "sent": SAMPLES}
 *	test NAME                             prints {"test": {...}}
 *	run MILLISECONDS                      lets time pass
 *	quit
 *
 * Each command is answered by one line of JSON; {"ok": true} where it says nothing else. It is agentd's own side of the
 * exporter (destinations/link.h) and the real, sandboxed role: this program again. */

#include <poll.h>
#include <stdarg.h>

#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/sandbox.h"
#include "agentd/base/text.h"
#include "destinations/link.h"

#define MAX_DESTINATIONS 64
#define MAX_OPTIONS      32
#define TEST_MS          8000

static struct config_destination list[MAX_DESTINATIONS];
static size_t n_list;
static sd_event *loop;
static struct link *link_;
static uint64_t serial, sent;
static struct link_test_result tested;
static bool test_done;

static void die(const char *format, ...) PRINTF(1, 2);
static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

static void run_for(unsigned ms)
{
	uint64_t end = clock_monotonic_ns() + ms * NSEC_PER_MSEC;

	while (clock_monotonic_ns() < end)
		if (sd_event_run(loop, 5000) < 0)
			die("the loop failed");
}

/* ---- destinations -------------------------------------------------------------------------------- */

static char *file_text(const char *path)
{
	_cleanup_buf_ struct buf b;

	buf_init(&b, 1 << 20);
	if (io_read_file(-100, path, &b, 1 << 20) < 0)
		die("%s cannot be read", path);
	return buf_take_str(&b);
}

static void set_destination(char *words[], size_t n)
{
	struct config_destination *d = NULL;

	if (n < 2)
		die("destination NAME TYPE KEY=VALUE ...");
	for (size_t i = 0; i < n_list; i++)
		if (streq(list[i].name, words[0]))
			d = &list[i];
	if (!d) {
		if (n_list == MAX_DESTINATIONS)
			die("too many destinations");
		d = &list[n_list++];
		d->options = calloc(MAX_OPTIONS, sizeof(*d->options));
	}
	d->name = strdup(words[0]);
	d->type = strdup(words[1]);
	d->enabled = true;
	d->n_options = 0;
	for (size_t i = 2; i < n && d->n_options < MAX_OPTIONS; i++) {
		char *value = strchr(words[i], '=');
		bool file = value && value > words[i] && value[-1] == '@';

		if (!value)
			die("%s: expected KEY=VALUE", words[i]);
		value[file ? -1 : 0] = 0;
		d->options[d->n_options++] = (struct option_value){
			strdup(words[i]), file ? file_text(value + 1) : strdup(value + 1)};
	}
}

/* ---- batches ------------------------------------------------------------------------------------- */

static uint32_t text(struct batch *b, const char *s)
{
	return (uint32_t)batch_string(b, s);
}

static uint32_t stack(struct batch *b, unsigned i, size_t name_len)
{
	_cleanup_free_ char *name = calloc(1, name_len + 32);
	struct profile_function f = {.start_line = 1};
	struct profile_mapping m = {.start = 0x1000, .limit = 0x900000};
	struct profile_line line = {.line = i + 1};
	struct profile_location l = {.n_lines = 1, .frame_type = PROFILE_FRAME_NATIVE};
	uint32_t at[2];

	snprintf(name, 32, "function_%u_", i);
	for (size_t k = strlen(name), n = k + name_len; k < n; k++)
		name[k] = (char)('a' + (k * 7 + i * 13 + k * k * i) % 26);
	for (unsigned k = 0; k < 2; k++) {
		/* A library first, so that the program's mapping has to be moved to the front of a pprof. */
		m.filename = text(b, k ? "/usr/bin/program" : "/usr/lib/liblibrary.so");
		l.mapping = (uint32_t)batch_mapping(b, &m);
		f.name = f.system_name = text(b, k ? "main" : name);
		f.filename = text(b, "program.c");
		line.function = (uint32_t)batch_function(b, &f);
		l.address = 0x2000 + i + k * 0x10000;
		at[k] = (uint32_t)batch_location(b, &l, &line);
	}
	return (uint32_t)batch_stack(b, at, 2);
}

static void send_one(unsigned rows, size_t name_len)
{
	CLEANUP(batch_freep) struct batch *b = NULL;
	_cleanup_buf_ struct buf bytes;
	struct batch_header header = {.serial = ++serial};
	uint64_t totals[PROFILE_TYPES];
	struct profile_resource_attribute name;
	struct profile_part *p = NULL;
	char service[32];
	int64_t resource;
	int fd;

	if (batch_new(&b) < 0)
		die("out of memory");
	header.to_unix_ns = clock_unix_ns();
	header.from_unix_ns = header.to_unix_ns - NSEC_PER_SEC;
	snprintf(service, sizeof(service), "service-%llu", (unsigned long long)serial);
	name = (struct profile_resource_attribute){
		text(b, "service.name"), text(b, service), false, 0};
	resource = batch_resource(b, &name, 1);
	for (unsigned i = 0; i < rows; i++) {
		uint32_t at = stack(b, i, name_len);

		if (batch_part(b, (uint32_t)resource, 0, NSEC_PER_SEC / 99, header.from_unix_ns,
			    NSEC_PER_SEC, &p) < 0 ||
			batch_add(b, p, at, (uint32_t[4]){0}, 1 + i % 3) < 0)
			die("a batch could not be made");
	}
	batch_totals(b, totals);
	memcpy(header.samples, totals, MIN(sizeof(totals), sizeof(header.samples)));
	buf_init(&bytes, 0);
	if (profile_encode(b, &header, NULL, 0, &bytes) < 0)
		die("a batch could not be encoded");
	fd = io_sealed_memfd("feeder", bytes.data, bytes.len);
	if (fd < 0 || link_send(link_, &header, fd) < 0)
		die("a batch could not be sent");
	sent += totals[0];
}

/* ---- what it says -------------------------------------------------------------------------------- */

static void put_text(const char *key, const char *s)
{
	printf("\"%s\": \"", key);
	for (; *s; s++)
		if (*s == '"' || *s == '\\')
			printf("\\%c", *s);
		else if ((unsigned char)*s >= ' ')
			putchar(*s);
	printf("\", ");
}

static void say_rows(void)
{
	const struct link_destination *rows;
	size_t n = link_destinations(link_, &rows);

	printf("{\"sent\": %llu, \"restarts\": %u, \"destinations\": [", (unsigned long long)sent,
		link_restarts(link_));
	for (size_t i = 0; i < n; i++) {
		const struct link_destination *d = &rows[i];

		printf("%s{", i ? ", " : "");
		put_text("name", d->name);
		put_text("state", d->state);
		put_text("endpoint", d->endpoint);
		put_text("error", d->last_error);
		printf("\"requests\": %llu, \"failures\": %llu, \"routed\": %llu, \"delivered\": %llu, "
		       "\"held\": %llu, \"evicted\": %llu, \"rejected\": %llu, \"shaped\": %llu}",
			(unsigned long long)d->requests, (unsigned long long)d->failures,
			(unsigned long long)d->ledger[0].routed,
			(unsigned long long)d->ledger[0].delivered,
			(unsigned long long)d->ledger[0].held,
			(unsigned long long)d->ledger[0].evicted,
			(unsigned long long)d->ledger[0].rejected,
			(unsigned long long)d->ledger[0].shaped);
	}
	printf("]}\n");
}

static void on_tested(void *userdata, const struct link_test_result *result)
{
	tested = *result;
	test_done = true;
}

static void test(const char *name)
{
	const struct config_destination *d = NULL;

	for (size_t i = 0; i < n_list; i++)
		if (streq(list[i].name, name))
			d = &list[i];
	if (!d)
		die("no destination %s", name);
	test_done = false;
	if (link_test(link_, d, TEST_MS, on_tested, NULL) < 0)
		die("the test could not be started");
	while (!test_done)
		run_for(5);
	printf("{\"test\": {");
	put_text("endpoint", tested.endpoint);
	put_text("reason", tested.reason);
	put_text("remedy", tested.remedy);
	printf("\"ok\": %s, \"status\": %u, \"steps\": [", tested.ok ? "true" : "false",
		tested.http_status);
	for (size_t i = 0; i < tested.n_steps; i++) {
		printf("%s{", i ? ", " : "");
		put_text("name", tested.steps[i].name);
		put_text("detail", tested.steps[i].detail);
		printf("\"ok\": %s, \"ns\": %llu}", tested.steps[i].ok ? "true" : "false",
			(unsigned long long)tested.steps[i].duration_ns);
	}
	printf("]}}\n");
}

/* ---- commands ------------------------------------------------------------------------------------ */

static unsigned number(char *words[], size_t n, size_t i, unsigned otherwise)
{
	uint64_t v;

	if (i >= n)
		return otherwise;
	if (text_u64(words[i], 0, 10000000, &v) < 0)
		die("%s is no number", words[i]);
	return (unsigned)v;
}

static bool command(char *line)
{
	char *words[MAX_OPTIONS + 4], *state = NULL;
	struct err_text err = {};
	size_t n = 0;

	for (char *w = strtok_r(line, " \n", &state); w && n < ARRAY_SIZE(words);
		w = strtok_r(NULL, " \n", &state))
		words[n++] = w;
	if (!n || streq(words[0], "quit"))
		return false;
	if (streq(words[0], "destination"))
		set_destination(words + 1, n - 1);
	else if (streq(words[0], "apply") && link_configure(link_, list, n_list, &err) < 0)
		die("%s", err.text);
	else if (streq(words[0], "send"))
		for (unsigned i = number(words, n, 1, 1); i > 0; i--)
			send_one(number(words, n, 2, 10), number(words, n, 3, 8));
	else if (streq(words[0], "run"))
		run_for(number(words, n, 1, 10));
	if (streq(words[0], "rows")) {
		run_for(20);
		say_rows();
	} else if (streq(words[0], "test") && n > 1) {
		test(words[1]);
	} else {
		puts("{\"ok\": true}");
	}
	fflush(stdout);
	return true;
}

int main(int argc, char **argv)
{
	static char line[1 << 16];
	struct link_config config = {.hang_ms = 20000};
	struct err_text err = {};

	if (argc >= 3 && streq(argv[1], "--role")) {
		sandbox_close_from(SANDBOX_FD + 1);
		log_init(argv[2], LOG_LEVEL_INFO);
		return exporter_main() < 0 ? 1 : 0;
	}
	log_init("feeder", LOG_LEVEL_INFO);
	if (sd_event_new(&loop) < 0 || link_new(&link_, loop, &config, &err) < 0)
		die("%s", err.text);
	/* What is not read yet must be seen by poll(). */
	setvbuf(stdin, NULL, _IONBF, 0);
	for (;;) {
		struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};

		if (poll(&p, 1, 0) <= 0)
			run_for(2);
		else if (!fgets(line, sizeof(line), stdin) || !command(line))
			break;
	}
	link_free(link_);
	sd_event_unref(loop);
	return 0;
}
