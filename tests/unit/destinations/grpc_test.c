/* SPDX-License-Identifier: Apache-2.0 */

/* gRPC's status and framing from whatever a stranger sends. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agentd/base/compress.h"
#include "destinations/grpc.h"

static void take(struct grpc_status *s, const char *line)
{
	grpc_take_header(s, line, strlen(line));
}

static void test_status(void **state)
{
	static const struct {
		const char *line;
		int code;
		enum send_outcome outcome;
	} lines[] = {
		{"grpc-status: 0\r\n", 0, SEND_TAKEN},
		{"Grpc-Status:14\r\n", 14, SEND_AGAIN},
		{"grpc-status: 1", 1, SEND_AGAIN},
		{"grpc-status: 4", 4, SEND_AGAIN},
		{"grpc-status: 10", 10, SEND_AGAIN},
		{"grpc-status: 11", 11, SEND_AGAIN},
		{"grpc-status: 15", 15, SEND_AGAIN},
		{"grpc-status: 8", 8, SEND_REFUSED},
		{"grpc-status: 2", 2, SEND_REFUSED},
		{"grpc-status: 3", 3, SEND_REFUSED},
		{"grpc-status: 12", 12, SEND_BLOCKED},
		{"grpc-status: 13", 13, SEND_REFUSED},
		{"grpc-status: 77", 77, SEND_REFUSED},
		{"grpc-status: 18446744073709551615", 2, SEND_REFUSED},
		{"grpc-status: -1", 2, SEND_REFUSED},
		{"grpc-status:", 2, SEND_REFUSED},
		{"grpc-statuses: 0", -1, SEND_BLOCKED},
		{"no colon", -1, SEND_BLOCKED},
		{"", -1, SEND_BLOCKED},
	};

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		struct grpc_status s = GRPC_STATUS_NONE;
		char reason[PROTOCOL_TEXT], remedy[PROTOCOL_TEXT];

		take(&s, lines[i].line);
		assert_int_equal(s.code, lines[i].code);
		assert_int_equal(grpc_outcome(&s), lines[i].outcome);
		if (lines[i].code == 0)
			continue;
		grpc_say(&s, "host", "4317", "hint", reason, remedy);
		assert_non_null(strstr(reason, "host port 4317"));
		assert_true(*remedy);
		assert_int_equal(
			strstr(remedy, "tried again") != NULL, lines[i].outcome == SEND_AGAIN);
	}
}

static void test_message(void **state)
{
	struct grpc_status s = GRPC_STATUS_NONE;
	char longer[3000];

	take(&s, "grpc-message: 100%25 f%C3%BCr %zz%4 a%1b[31m%00b \r\n");
	assert_null(strchr(s.message, '\033'));
	assert_non_null(strstr(s.message, "100% f\xc3\xbcr %zz%4 a"));
	memset(longer, '%', sizeof(longer) - 1);
	memcpy(longer, "grpc-message:", 13);
	longer[sizeof(longer) - 1] = 0;
	take(&s, longer);
	assert_int_equal(strlen(s.message), sizeof(s.message) - 1);
}

/* How servers in Go, Java, C++, C# and Rust say that a message is too big; and what only sounds like it. */
static void test_too_big(void **state)
{
	static const struct {
		int code;
		const char *message;
		bool big;
	} said[] = {
		{8, "grpc: received message larger than max (5242885 vs. 4194304)", true},
		{8, "gRPC message exceeds maximum size 4194304: 5242880", true},
		{8, "Received message larger than max (5242880 vs. 4194304)", true},
		{8, "Received message exceeds the maximum configured message size.", true},
		{11, "Error, message length too large: found 5242880 bytes, the limit is: 4194304 bytes",
			true},
		{8, "too many requests", false},
		{11, "no more", false},
		{3, "received message larger than max", false},
		{8, "", false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(said); i++) {
		struct grpc_status s = {.code = said[i].code};

		snprintf(s.message, sizeof(s.message), "%s", said[i].message);
		assert_int_equal(grpc_outcome(&s) == SEND_TOO_BIG, said[i].big);
		s.has_retry_info = true;
		assert_int_not_equal(grpc_outcome(&s), SEND_TOO_BIG);
	}
}

/* As grpc-go writes them: code 8, RetryInfo of 2.5 s; and what is none. */
static void test_retry_info(void **state)
{
	static const char good[] =
		"grpc-status-details-bin: CAgSBGZ1bGwaNgoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBj"
		"LlJldHJ5SW5mbxIKCggIAhCAyrXuAQ==";
	struct grpc_status s = {.code = 8};
	char longer[9000];

	take(&s, good);
	assert_true(s.has_retry_info);
	assert_int_equal(s.retry_after_ns, 2500 * NSEC_PER_MSEC);
	assert_int_equal(grpc_outcome(&s), SEND_AGAIN);
	s = (struct grpc_status){.code = 8};
	for (size_t len = 0; len + 1 < sizeof(good); len++) {
		/* any beginning of it, in memory of its own, is harmless */
		char *part = malloc(len + 1);

		memcpy(part, good, len);
		grpc_take_header(&s, part, len);
		free(part);
	}
	s = (struct grpc_status){.code = 8};
	take(&s, "grpc-status-details-bin: ////");
	assert_false(s.has_retry_info);
	memset(longer, 'A', sizeof(longer) - 1);
	memcpy(longer, good, 24);
	longer[sizeof(longer) - 1] = 0;
	take(&s, longer);
	assert_false(s.has_retry_info);
	assert_int_equal(grpc_outcome(&s), SEND_REFUSED);
}

static void test_framing(void **state)
{
	_cleanup_buf_ struct buf out, packed, bomb;
	uint8_t message[300] = {0}, *big = calloc(1, 1 << 20);

	buf_init(&out, 1000);
	buf_init(&packed, 0);
	buf_init(&bomb, 0);
	grpc_prefix(message, false, 3);
	memcpy(message + GRPC_PREFIX, "abc", 3);
	assert_int_equal(grpc_message(message, 8, &out), 0);
	assert_int_equal(out.len, 3);
	buf_reset(&out);
	assert_int_equal(grpc_message("", 0, &out), 0);
	for (size_t n = 1; n < 8; n++)
		assert_int_equal(grpc_message(message, n, &out), -EBADMSG);
	assert_int_equal(grpc_message(message, 9, &out), -EBADMSG);
	message[0] = 2;
	assert_int_equal(grpc_message(message, 8, &out), -EBADMSG);
	grpc_prefix(message, true, 3);
	assert_int_equal(grpc_message(message, 8, &out), -EBADMSG);
	buf_reset(&out);
	assert_int_equal(compress_gzip("hello", 5, 6, &packed), 0);
	grpc_prefix(message, true, packed.len);
	memcpy(message + GRPC_PREFIX, packed.data, packed.len);
	assert_int_equal(grpc_message(message, GRPC_PREFIX + packed.len, &out), 0);
	assert_memory_equal(out.data, "hello", 5);
	/* A megabyte in a kilobyte is more than an answer may be. */
	buf_reset(&packed);
	assert_int_equal(compress_gzip(big, 1 << 20, 9, &packed), 0);
	buf_add(&bomb, message, GRPC_PREFIX);
	grpc_prefix(bomb.data, true, packed.len);
	buf_add(&bomb, packed.data, packed.len);
	buf_reset(&out);
	assert_int_equal(grpc_message(bomb.data, bomb.len, &out), -EBADMSG);
	assert_true(out.len <= 1000);
	free(big);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_status),
		cmocka_unit_test(test_message),
		cmocka_unit_test(test_retry_info),
		cmocka_unit_test(test_too_big),
		cmocka_unit_test(test_framing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
