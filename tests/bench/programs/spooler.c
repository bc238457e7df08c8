/* SPDX-License-Identifier: Apache-2.0 */

/* What the spool and the exporter cost, without BPF:
 *
 *	spooler fill FOLDER BYTES    batches of 200 KB until the spool is at its bound
 *	spooler open FOLDER          how long opening takes, and memory then
 *	spooler deliver FOLDER URL COUNT
 *	                             COUNT batches of 200 KB through the real exporter; its CPU time and memory, and
 *	                             the CPU time of decompressing and packing the same bytes alone
 *
 * Figures on standard output, a line each: name and number. */

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "agentd/base/clock.h"
#include "agentd/base/compress.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "destinations/link.h"
#include "destinations/spool.h"

#define RAW   200000
#define KINDS 8

static _Noreturn void fail(const char *what, int error)
{
	fprintf(stderr, "spooler: %s: %s\n", what, strerror(-error));
	exit(1);
}

static uint64_t random_state = 88172645463325252ULL;

static uint64_t next_random(void)
{
	random_state ^= random_state << 13, random_state ^= random_state >> 7;
	return random_state ^= random_state << 17;
}

/* As a host's batch is: names of functions, stacks of them, a few services. */
static void make_batch(struct batch_header *header, struct buf *out)
{
	CLEANUP(batch_freep) struct batch *b = NULL;
	uint32_t locations[900];
	uint64_t totals[PROFILE_TYPES];

	if (batch_new(&b) < 0)
		fail("a batch", -ENOMEM);
	for (size_t i = 0; i < ARRAY_SIZE(locations); i++) {
		char name[96];
		struct profile_function f = {0};
		struct profile_line line = {.line = (uint32_t)i};
		struct profile_location l = {.n_lines = 1, .address = 0x1000 + 16 * i};

		snprintf(name, sizeof(name), "project::module_%llu::Type%zu::function_%llx",
			(unsigned long long)(next_random() % 50), i % 40,
			(unsigned long long)(next_random() % 0xffffff));
		f.name = f.system_name = (uint32_t)batch_string(b, name);
		line.function = (uint32_t)batch_function(b, &f);
		locations[i] = (uint32_t)batch_location(b, &l, &line);
	}
	for (unsigned service = 0; service < 16; service++) {
		char name[32];
		struct profile_resource_attribute a = {
			.key = (uint32_t)batch_string(b, "service.name")};
		int64_t resource;

		snprintf(name, sizeof(name), "service-%u", service);
		a.value = (uint32_t)batch_string(b, name);
		resource = batch_resource(b, &a, 1);
		for (unsigned i = 0; i < 120; i++) {
			uint32_t stack[24];
			struct profile_part *p = NULL;
			int64_t at;

			for (size_t k = 0; k < ARRAY_SIZE(stack); k++)
				stack[k] = locations[next_random() % ARRAY_SIZE(locations)];
			at = batch_stack(b, stack, ARRAY_SIZE(stack));
			if (batch_part(b, (uint32_t)resource, 0, NSEC_PER_SEC / 99,
				    header->from_unix_ns, header->to_unix_ns - header->from_unix_ns,
				    &p) < 0 ||
				batch_add(b, p, (uint32_t)at, (uint32_t[4]){0},
					1 + next_random() % 9) < 0)
				fail("a batch", -ENOMEM);
		}
	}
	batch_totals(b, totals);
	header->samples[0] = totals[0];
	if (profile_encode(b, header, NULL, 0, out) < 0)
		fail("encoding", -ENOMEM);
}

static struct batch_header header_now(uint64_t serial)
{
	uint64_t now = clock_unix_ns();

	return (struct batch_header){.serial = serial,
		.boot_id = {1},
		.from_unix_ns = now - 10 * NSEC_PER_SEC,
		.to_unix_ns = now};
}

/* From /proc/PID/smaps_rollup. */
static uint64_t pss(pid_t pid)
{
	char path[64], line[128];
	_cleanup_fclose_ FILE *f = NULL;
	unsigned long kb = 0;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Pss: %lu", &kb) == 1)
			break;
	return kb << 10;
}

/* User and system time. */
static double cpu_seconds(pid_t pid)
{
	char path[64], text[1024] = "";
	unsigned long user = 0, kernel = 0;
	_cleanup_fclose_ FILE *f = NULL;
	const char *at;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "re");
	if (f && fgets(text, sizeof(text), f) && (at = strrchr(text, ')')))
		(void)sscanf(at + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
			&kernel);
	return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

static struct spool *open_spool(const char *folder, uint64_t bytes)
{
	struct spool_config config = {.instance = 1, .max_bytes = bytes};
	struct err_text err = {};
	struct spool *s = NULL;
	int fd;

	(void)mkdir(folder, 0700);
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || spool_open(&s, fd, &config, &err) < 0) {
		fprintf(stderr, "spooler: %s: %s\n", folder, err.text);
		exit(1);
	}
	close(fd);
	return s;
}

static void fill(const char *folder, uint64_t bytes)
{
	struct spool *s = open_spool(folder, bytes);
	static const uint32_t destination = 1;
	struct buf raw[KINDS];
	struct batch_header headers[KINDS];
	uint64_t n = 0;

	for (size_t i = 0; i < KINDS; i++) {
		headers[i] = header_now(i);
		buf_init(&raw[i], 0);
		make_batch(&headers[i], &raw[i]);
	}
	while (spool_has_room(s, 2 * RAW)) {
		struct batch_header h = headers[n % KINDS];
		struct spool_batch *b;
		int r;

		h.serial = ++n;
		r = spool_append(
			s, &h, raw[n % KINDS].data, raw[n % KINDS].len, &destination, 1, &b);
		if (r == 0 && n % 32 == 0)
			r = spool_commit(s);
		if (r < 0)
			fail("writing", r);
	}
	(void)spool_commit(s);
	printf("batches %llu\nraw_bytes %zu\n", (unsigned long long)n, raw[0].len);
	spool_close(s);
}

static void measure_open(const char *folder)
{
	uint64_t before = pss(getpid());
	struct spool *s = open_spool(folder, 0);
	struct spool_state state;

	spool_get_state(s, &state);
	printf("recovery_ms %.1f\nbatches %u\nspool_bytes %llu\nmemory_bytes %llu\n",
		(double)state.recovery_ns / 1e6, state.batches, (unsigned long long)state.bytes,
		(unsigned long long)(pss(getpid()) - before));
	spool_close(s);
}

/* The least that delivering the same takes: unpack what lies there, pack what goes out. */
static double yardstick(const struct buf *raw, uint64_t n)
{
	struct timespec t;
	_cleanup_buf_ struct buf stored, out;
	double began;

	buf_init(&stored, 0);
	buf_init(&out, 0);
	if (compress_zstd(raw->data, raw->len, 1, &stored) < 0)
		fail("packing", -ENOMEM);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	began = (double)t.tv_sec + (double)t.tv_nsec / 1e9;
	for (uint64_t i = 0; i < n; i++) {
		buf_reset(&out);
		if (decompress_zstd(stored.data, stored.len, raw->len, &out) < 0)
			fail("unpacking", -EBADMSG);
		buf_reset(&out);
		if (compress_gzip(raw->data, raw->len, 6, &out) < 0)
			fail("packing", -ENOMEM);
	}
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9 - began;
}

static void deliver(const char *folder, const char *url, uint64_t count)
{
	struct option_value options[] = {{"url", url}};
	struct config_destination d = {.name = (char *)(uintptr_t) "bench",
		.type = (char *)(uintptr_t) "otlphttp",
		.enabled = true,
		.options = options,
		.n_options = 1};
	struct link_config config = {.spool_folder = folder, .boot_id = {1}};
	const struct link_destination *list;
	struct err_text err = {};
	struct link *l = NULL;
	sd_event *loop = NULL;
	struct buf raw[KINDS];
	struct batch_header headers[KINDS];
	uint64_t sent = 0, began, peak = 0, through = 0, requests = 0;
	double cpu = 0;

	for (size_t i = 0; i < KINDS; i++) {
		headers[i] = header_now(i);
		buf_init(&raw[i], 0);
		make_batch(&headers[i], &raw[i]);
	}
	if (sd_event_new(&loop) < 0 || link_new(&l, loop, &config, &err) < 0 ||
		link_configure(l, &d, 1, &err) < 0) {
		fprintf(stderr, "spooler: %s\n", err.text);
		exit(1);
	}
	began = clock_monotonic_ns();
	while (through < count) {
		(void)link_destinations(l, &list);
		through = list[0].sent_batches;
		requests = list[0].requests;
		if (sent < count && sent - through < 8) {
			struct batch_header h = header_now(sent + 1);
			const struct buf *bytes = &raw[sent % KINDS];

			h.from_unix_ns = headers[sent % KINDS].from_unix_ns;
			h.to_unix_ns = headers[sent % KINDS].to_unix_ns;
			h.samples[0] = headers[sent % KINDS].samples[0];
			if (link_send(l, &h, io_sealed_memfd("bench", bytes->data, bytes->len)) < 0)
				fail("handing over", -EIO);
			sent++;
		}
		if (through % 16 == 0 && link_child_pid(l) > 0) {
			uint64_t now = pss(link_child_pid(l));

			peak = now > peak ? now : peak;
		}
		if (sd_event_run(loop, 5000) < 0)
			fail("the loop", -EIO);
	}
	cpu = cpu_seconds(link_child_pid(l));
	printf("batches %llu\nrequests %llu\nraw_bytes %zu\nseconds %.3f\nexporter_cpu %.3f\n"
	       "exporter_pss %llu\nrestarts %u\n",
		(unsigned long long)count, (unsigned long long)requests, raw[0].len,
		(double)(clock_monotonic_ns() - began) / 1e9, cpu, (unsigned long long)peak,
		link_restarts(l));
	link_free(l);
	printf("yardstick_cpu %.3f\n", yardstick(&raw[0], count));
}

int main(int argc, char **argv)
{
	if (argc >= 3 && streq(argv[1], "--role")) {
		log_init("exporter", LOG_LEVEL_ERROR);
		return exporter_main() < 0 ? 1 : 0;
	}
	log_init("spooler", LOG_LEVEL_WARN);
	if (argc == 4 && streq(argv[1], "fill"))
		fill(argv[2], strtoull(argv[3], NULL, 10));
	else if (argc == 3 && streq(argv[1], "open"))
		measure_open(argv[2]);
	else if (argc == 5 && streq(argv[1], "deliver"))
		deliver(argv[2], argv[3], strtoull(argv[4], NULL, 10));
	else
		return 2;
	return 0;
}
