/* SPDX-License-Identifier: Apache-2.0 */

/* pprof profiles, read by Go's own tool: what it prints is what went in. */

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/profile/fixture.h"
#include "agentd/base/compress.h"
#include "agentd/profile/pprof.h"

static char folder[] = "/tmp/odi-pprof-XXXXXX";

static void write_profile(const struct batch *b, const uint32_t *parts, size_t n,
	const struct pprof_options *options, const char *path)
{
	_cleanup_buf_ struct buf raw, packed;
	FILE *f = fopen(path, "w");

	buf_init(&raw, 0);
	buf_init(&packed, 0);
	assert_non_null(f);
	assert_int_equal(profile_pprof(b, parts, n, options, &raw), 0);
	assert_int_equal(compress_gzip(raw.data, raw.len, 6, &packed), 0);
	assert_int_equal(fwrite(packed.data, 1, packed.len, f), packed.len);
	assert_int_equal(fclose(f), 0);
}

/* The output of `go tool pprof ARGUMENTS PROFILE`; freed by the caller. */
static char *pprof(const char *arguments, const char *profile)
{
	_cleanup_buf_ struct buf out;
	char command[512], chunk[4096];
	size_t n;
	FILE *p;

	buf_init(&out, 0);
	snprintf(command, sizeof(command), "TZ=UTC HOME=%s go tool pprof %s %s 2>&1", folder,
		arguments, profile);
	p = popen(command, "r");
	assert_non_null(p);
	while ((n = fread(chunk, 1, sizeof(chunk), p)) > 0)
		buf_add(&out, chunk, n);
	n = (size_t)pclose(p);
	if (n)
		print_message("%s: %.*s\n", command, (int)out.len, (char *)out.data);
	assert_int_equal(n, 0);
	return buf_take_str(&out);
}

static void assert_has(const char *text, const char *what)
{
	if (strstr(text, what))
		return;
	print_message("'%s' is not in:\n%s\n", what, text);
	fail();
}

static uint32_t add_location(struct batch *b, const char *path, uint64_t start, uint64_t address,
	uint8_t type, const char *const *names, size_t n)
{
	struct profile_mapping m = {.start = start, .limit = start + 0x1000, .file_offset = 0x2000};
	struct profile_location l = {.address = address, .frame_type = type, .n_lines = n};
	struct profile_line lines[4];

	m.filename = (uint32_t)batch_string(b, path);
	m.build_id = (uint32_t)batch_string(b, "0123456789abcdef");
	l.mapping = (uint32_t)batch_mapping(b, &m);
	for (size_t i = 0; i < n; i++) {
		struct profile_function f = {.name = (uint32_t)batch_string(b, names[i]),
			.system_name = (uint32_t)batch_string(b, names[i]),
			.filename = (uint32_t)batch_string(b, "/src/work.go"),
			.start_line = 10 * (uint32_t)(i + 1)};

		lines[i] = (struct profile_line){
			(uint32_t)batch_function(b, &f), 10 * (uint32_t)(i + 1) + 3};
	}
	return (uint32_t)batch_location(b, &l, lines);
}

static struct batch *known_batch(void)
{
	static const char *const leaf[] = {"inlined", "outer"}, *const root[] = {"main.main"},
				 *const lib[] = {"memcpy"};
	struct profile_resource_attribute service;
	struct profile_attribute thread, id;
	struct profile_part *part = NULL;
	uint32_t stack[3], attributes[4] = {0};
	struct batch *b = NULL;

	assert_int_equal(batch_new(&b), 0);
	stack[0] =
		add_location(b, "/usr/lib/libc.so.6", 0x5000, 0x5040, PROFILE_FRAME_NATIVE, lib, 1);
	stack[1] = add_location(b, "/opt/app", 0x1000, 0x1010, PROFILE_FRAME_GO, leaf, 2);
	stack[2] = add_location(b, "/opt/app", 0x1000, 0x1020, PROFILE_FRAME_GO, root, 1);
	service = (struct profile_resource_attribute){(uint32_t)batch_string(b, "service.name"),
		(uint32_t)batch_string(b, "shop"), false, 0};
	thread = (struct profile_attribute){(uint32_t)batch_string(b, "thread.name"),
		(uint32_t)batch_string(b, "worker"), false, 0};
	id = (struct profile_attribute){(uint32_t)batch_string(b, "thread.id"), 0, true, 77};
	attributes[0] = (uint32_t)batch_attribute(b, &thread);
	attributes[1] = (uint32_t)batch_attribute(b, &id);
	assert_int_equal(batch_part(b, (uint32_t)batch_resource(b, &service, 1), 0, 10000000,
				 1700000000ULL * NSEC_PER_SEC, 10 * NSEC_PER_SEC, &part),
		0);
	assert_int_equal(batch_add(b, part, (uint32_t)batch_stack(b, stack, 3), attributes, 5), 0);
	assert_int_equal(
		batch_add(b, part, (uint32_t)batch_stack(b, stack + 1, 2), attributes, 2), 0);
	return b;
}

static void test_known(void **state)
{
	const struct pprof_options options = {.flags = PPROF_RESOURCE_LABELS};
	CLEANUP(batch_freep) struct batch *b = known_batch();
	_cleanup_free_ char *raw = NULL, *top = NULL;
	const char *app, *libc;
	char path[64];

	snprintf(path, sizeof(path), "%s/known.pb.gz", folder);
	write_profile(b, NULL, 0, &options, path);
	raw = pprof("-raw", path);
	assert_has(raw, "PeriodType: cpu nanoseconds");
	assert_has(raw, "Period: 10000000");
	assert_has(raw, "Duration: 10s");
	assert_has(raw, "samples/count cpu/nanoseconds");
	assert_has(raw, "5   50000000: 1 2 3");
	assert_has(raw, "2   20000000: 2 3");
	assert_has(raw, "service.name:[shop]");
	assert_has(raw, "thread.name:[worker]");
	assert_has(raw, "thread.id:[77]");
	assert_has(raw, "inlined /src/work.go:13");
	assert_has(raw, "outer /src/work.go:23");
	assert_has(raw, "s=20"); /* the start line, which optimisation by profile needs */
	assert_has(raw, "0x1000/0x2000/0x2000 /opt/app 0123456789abcdef [FN][FL][LN][IN]");
	/* The main program first, though a library's frame came first. */
	app = strstr(raw, "/opt/app");
	libc = strstr(raw, "/usr/lib/libc.so.6");
	assert_non_null(libc);
	assert_true(app < libc);
	top = pprof("-top -sample_index=samples -tagfocus=service.name=shop", path);
	assert_has(top, "100% of 7 total");
}

/* The caller says the service beside the profile. */
static void test_without_resources(void **state)
{
	const struct pprof_options options = {
		.time_unix_ns = 1600000000ULL * NSEC_PER_SEC, .duration_ns = 60 * NSEC_PER_SEC};
	CLEANUP(batch_freep) struct batch *b = known_batch();
	_cleanup_free_ char *raw = NULL;
	char path[64];

	snprintf(path, sizeof(path), "%s/bare.pb.gz", folder);
	write_profile(b, NULL, 0, &options, path);
	raw = pprof("-raw", path);
	assert_null(strstr(raw, "shop"));
	assert_has(raw, "thread.name:[worker]");
	assert_has(raw, "Time: 2020-09-13");
	assert_has(raw, "Duration: 1m");
}

/* Sums both values over the samples that the tool lists. */
static void sum_raw(const char *raw, uint64_t sums[2])
{
	unsigned long long count, ns;
	const char *line = strstr(raw, "samples/count cpu/nanoseconds");

	sums[0] = sums[1] = 0;
	assert_non_null(line);
	for (line = strchr(line, '\n'); line; line = strchr(line + 1, '\n')) {
		if (strncmp(line + 1, "Locations", 9) == 0)
			return;
		if (sscanf(line + 1, " %llu %llu:", &count, &ns) == 2) {
			sums[0] += count;
			sums[1] += ns;
		}
	}
	fail_msg("no locations");
}

static void test_random(void **state)
{
	const struct pprof_options options = {.flags = PPROF_RESOURCE_LABELS};

	for (uint64_t seed = 1; seed < 6; seed++) {
		struct shape shape = small_shape;
		CLEANUP(batch_freep) struct batch *b = NULL;
		_cleanup_free_ char *raw = NULL;
		uint64_t totals[PROFILE_TYPES], sums[2];
		char path[64];

		shape.samples = 40 * (unsigned)seed;
		b = random_batch(seed, &shape);
		batch_totals(b, totals);
		snprintf(path, sizeof(path), "%s/random.pb.gz", folder);
		write_profile(b, NULL, 0, &options, path);
		raw = pprof("-raw", path);
		sum_raw(raw, sums);
		assert_int_equal(sums[0], totals[0]);
		assert_int_equal(sums[1], totals[0] * shape.period);
	}
}

/* One part of several; none at all; a part that is not there. */
static void test_selection(void **state)
{
	const struct pprof_options options = {0};
	CLEANUP(batch_freep) struct batch *b = random_batch(3, &small_shape);
	_cleanup_free_ char *raw = NULL;
	_cleanup_buf_ struct buf out;
	uint32_t one = 1, many = 1000;
	uint64_t sums[2];
	char path[64];

	buf_init(&out, 0);
	assert_true(batch_parts(b) > 1);
	snprintf(path, sizeof(path), "%s/one.pb.gz", folder);
	write_profile(b, &one, 1, &options, path);
	raw = pprof("-raw", path);
	sum_raw(raw, sums);
	assert_int_equal(sums[0], batch_part_at(b, 1)->total);
	write_profile(b, &one, 0, &options, path);
	assert_int_equal(profile_pprof(b, &many, 1, &options, &out), -EINVAL);
}

static int make_folder(void **state)
{
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
	char command[96];

	snprintf(command, sizeof(command), "chmod -R u+w %s; rm -rf %s", folder, folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known),
		cmocka_unit_test(test_without_resources),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_selection),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
