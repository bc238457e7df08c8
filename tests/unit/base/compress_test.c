/* SPDX-License-Identifier: Apache-2.0 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/wait.h>

#include "agentd/base/compress.h"
#include "agentd/base/io.h"

struct codec {
	int (*pack)(const void *data, size_t len, int level, struct buf *out);
	int (*unpack)(const void *data, size_t len, size_t max, struct buf *out);
	int highest;
	const char *tool; /* another implementation's reader: standard input to output */
};

static const struct codec codecs[] = {
	{compress_gzip, decompress_gzip, 9,
		"python3 -c 'import sys,gzip;"
		"sys.stdout.buffer.write(gzip.decompress(sys.stdin.buffer.read()))'"},
	{compress_zstd, decompress_zstd, 19, NULL},
};

#define FOREACH_CODEC(c) for (const struct codec *c = codecs; c < codecs + ARRAY_SIZE(codecs); c++)

/* Half noise, half repetition. */
static uint8_t *sample(size_t len)
{
	uint8_t *data = malloc(len ? len : 1);
	uint32_t random = 1;

	assert_non_null(data);
	for (size_t i = 0; i < len; i++) {
		random = random * 1664525 + 1013904223;
		data[i] = i / 1000 % 2 ? (uint8_t)(random >> 24) : (uint8_t)i;
	}
	return data;
}

static void test_round_trip(void **s)
{
	static const size_t lens[] = {0, 1, 1000, 16384, 300000};

	FOREACH_CODEC(c)
	for (size_t i = 0; i < ARRAY_SIZE(lens); i++) {
		_cleanup_free_ uint8_t *data = sample(lens[i]);
		_cleanup_buf_ struct buf packed, back;

		buf_init(&packed, 0);
		buf_init(&back, 0);
		buf_str(&packed, "ab");
		buf_str(&back, "cd");
		for (int level = 1; level <= c->highest; level += 8)
			assert_int_equal(c->pack(data, 0, level, &packed), 0);
		buf_reset(&packed);
		buf_str(&packed, "ab");
		assert_int_equal(c->pack(data, lens[i], 1, &packed), 0);
		assert_memory_equal(packed.data, "ab", 2);
		/* The bound itself is allowed, one less is not. */
		assert_int_equal(c->unpack(packed.data + 2, packed.len - 2, lens[i], &back), 0);
		assert_int_equal(back.len, lens[i] + 2);
		assert_memory_equal(back.data, "cd", 2);
		assert_memory_equal(back.data + 2, data, lens[i]);
		if (!lens[i])
			continue;
		assert_int_equal(
			c->unpack(packed.data + 2, packed.len - 2, lens[i] - 1, &back), -EFBIG);
		assert_int_equal(back.len, lens[i] + 2);
	}
}

static void test_levels(void **s)
{
	_cleanup_buf_ struct buf out;

	buf_init(&out, 0);
	FOREACH_CODEC(c)
	{
		assert_int_equal(c->pack("x", 1, 0, &out), -EINVAL);
		assert_int_equal(c->pack("x", 1, c->highest + 1, &out), -EINVAL);
		assert_int_equal(c->pack("x", 1, c->highest, &out), 0);
	}
}

/* A megabyte of zeros in a few bytes, for which the caller has little room. */
static void test_bomb(void **s)
{
	_cleanup_free_ uint8_t *zeros = calloc(1, 64 << 20);

	assert_non_null(zeros);
	FOREACH_CODEC(c)
	{
		_cleanup_buf_ struct buf packed, out;

		buf_init(&packed, 0);
		buf_init(&out, 0);
		assert_int_equal(c->pack(zeros, 64 << 20, 1, &packed), 0);
		assert_true(packed.len < 1 << 20);
		assert_int_equal(c->unpack(packed.data, packed.len, 100000, &out), -EFBIG);
		assert_int_equal(out.len, 0);
		assert_true(out.size < 300000); /* it never took much more than it was allowed */
	}
}

/* Each damage is noticed and leaves out as it was: cut at every place, each byte turned, rubbish behind. */
static void test_damage(void **s)
{
	_cleanup_free_ uint8_t *data = sample(3000);

	FOREACH_CODEC(c)
	{
		_cleanup_buf_ struct buf packed, out;
		size_t silent = 0;

		buf_init(&packed, 0);
		buf_init(&out, 0);
		buf_str(&out, "kept");
		assert_int_equal(c->pack(data, 3000, c->highest, &packed), 0);
		for (size_t len = 0; len < packed.len; len++) {
			assert_int_equal(c->unpack(packed.data, len, 1 << 20, &out), -EBADMSG);
			assert_string_equal((char *)out.data, "kept");
		}
		for (size_t i = 0; i < packed.len; i++) {
			int r;

			packed.data[i] ^= 0x55;
			r = c->unpack(packed.data, packed.len, 1 << 20, &out);
			packed.data[i] ^= 0x55;
			if (r == 0) {
				/* A byte that says nothing of the contents (gzip's time and system). */
				assert_memory_equal(out.data + 4, data, 3000);
				out.len = 4;
				out.data[4] = '\0';
				silent++;
			}
			assert_true(r == 0 || r == -EBADMSG || r == -EFBIG);
			assert_string_equal((char *)out.data, "kept");
		}
		assert_true(silent < 10);
		buf_str(&packed, "rubbish");
		assert_int_equal(c->unpack(packed.data, packed.len, 1 << 20, &out), -EBADMSG);
	}
}

static void test_members(void **s)
{
	FOREACH_CODEC(c)
	{
		_cleanup_buf_ struct buf packed, out;

		buf_init(&packed, 0);
		buf_init(&out, 0);
		assert_int_equal(c->pack("one, ", 5, 1, &packed), 0);
		assert_int_equal(c->pack("", 0, 1, &packed), 0);
		assert_int_equal(c->pack("two", 3, 1, &packed), 0);
		assert_int_equal(c->unpack(packed.data, packed.len, 8, &out), 0);
		assert_string_equal((char *)out.data, "one, two");
		/* The bound is on all of them. */
		assert_int_equal(c->unpack(packed.data, packed.len, 7, &out), -EFBIG);
	}
}

static void test_full_buffer(void **s)
{
	_cleanup_free_ uint8_t *data = sample(100000);

	FOREACH_CODEC(c)
	{
		_cleanup_buf_ struct buf packed, small;

		buf_init(&packed, 0);
		buf_init(&small, 20000);
		assert_int_equal(c->pack(data, 100000, 1, &packed), 0);
		assert_int_equal(c->unpack(packed.data, packed.len, 1 << 20, &small), -E2BIG);
		assert_int_equal(small.len, 0);
		/* A failed buffer stays failed. */
		assert_int_equal(c->pack("x", 1, 1, &small), -E2BIG);
		buf_reset(&small);
		assert_int_equal(c->pack(data, 100000, 1, &small), -E2BIG);
		assert_int_equal(small.len, 0);
	}
}

/* A frame that asks for a window of 128 MiB before it has said anything. */
static void test_window(void **s)
{
	static const uint8_t frame[] = {
		0x28, 0xb5, 0x2f, 0xfd, 0x00, (27 - 10) << 3, 0x01, 0x00, 0x00};
	_cleanup_buf_ struct buf out;

	buf_init(&out, 0);
	assert_int_equal(decompress_zstd(frame, sizeof(frame), 1 << 20, &out), -EFBIG);
	/* With room for as much output it is a window like others. */
	assert_int_equal(decompress_zstd(frame, sizeof(frame), 1 << 27, &out), 0);
	assert_int_equal(out.len, 0);
}

/* What we write is what others read: Python's gzip is another reader of RFC 1952's header and trailer. */
static void test_other_reader(void **s)
{
	_cleanup_free_ uint8_t *data = sample(50000);
	char name[] = "/tmp/odi-compress-test-XXXXXX", command[400];
	_cleanup_close_ int fd = mkstemp(name);
	_cleanup_buf_ struct buf packed, back;
	FILE *pipe;
	int c;

	buf_init(&packed, 0);
	buf_init(&back, 0);
	assert_int_equal(codecs[0].pack(data, 50000, 6, &packed), 0);
	assert_int_equal(io_write_all(fd, packed.data, packed.len), 0);
	snprintf(command, sizeof(command), "%s <%s", codecs[0].tool, name);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	while ((c = getc(pipe)) != EOF)
		buf_add(&back, &(uint8_t){(uint8_t)c}, 1);
	assert_int_equal(pclose(pipe), 0);
	unlink(name);
	assert_int_equal(back.len, 50000);
	assert_memory_equal(back.data, data, 50000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_bomb),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_members),
		cmocka_unit_test(test_full_buffer),
		cmocka_unit_test(test_window),
		cmocka_unit_test(test_other_reader),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
