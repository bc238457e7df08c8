/* SPDX-License-Identifier: Apache-2.0 */

/* What the child writes is understood, and what differs from it in one place is refused. */

#include "tests/unit/symbol/support.h"
#include "agentd/symbol/resolver.h"

struct fixture {
	struct symbol_writer writer;
	struct found found;
	uint64_t message[SYMBOL_MESSAGE_MAX / 8];
	size_t len;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->writer.request = 99;
	for (uint32_t address = 2; address < 5; address++) {
		found_reset(&f->found);
		found_add(&f->found, "_ZN3foo3barEv", "foo.cc", 12, 10, true);
		found_add(&f->found, "main", "", 0, 0, false);
		f->found.module = address == 3 ? "mod" : "";
		assert_int_equal(symbol_writer_add(&f->writer, address, &f->found), 0);
	}
	f->len = symbol_writer_take(&f->writer);
	memcpy(f->message, f->writer.message, f->len);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	free(*state);
	return 0;
}

static int decode(struct fixture *f, struct symbol_names_view *view)
{
	uint32_t next = 0;

	return symbol_decode(f->message, f->len, 99, 5, &next, view);
}

static void test_round_trip(void **state)
{
	struct fixture *f = *state;
	struct symbol_names_view v;

	assert_int_equal(decode(f, &v), 0);
	assert_int_equal(v.n_rows, 3);
	assert_int_equal(v.n_functions, 6);
	assert_int_equal(v.rows[1].address, 3);
	assert_string_equal(symbol_view_text(&v, &v.rows[1].module), "mod");
	assert_string_equal(symbol_view_text(&v, &v.rows[0].module), "");
	assert_string_equal(symbol_view_text(&v, &v.functions[0].name), "foo::bar");
	assert_string_equal(symbol_view_text(&v, &v.functions[0].system_name), "_ZN3foo3barEv");
	assert_string_equal(symbol_view_text(&v, &v.functions[0].file), "foo.cc");
	assert_int_equal(v.functions[0].line, 12);
	assert_int_equal(v.functions[0].start_line, 10);
	assert_int_equal(v.functions[0].flags, SYMBOL_FUNCTION_INLINED);
	assert_string_equal(symbol_view_text(&v, &v.functions[1].system_name), "main");
	/* Nothing is left in the writer. */
	assert_int_equal(symbol_writer_take(&f->writer), 0);
}

static void test_framing(void **state)
{
	struct fixture *f = *state;
	struct symbol_header *h = (void *)f->message;
	struct symbol_names_view v;
	uint32_t next = 0;

	for (size_t len = 0; len < f->len; len++) {
		next = 0;
		assert_int_equal(symbol_decode(f->message, len, 99, 5, &next, &v), -EBADMSG);
	}
	next = 0;
	assert_int_equal(symbol_decode(f->message, f->len, 98, 5, &next, &v), -EBADMSG);
	/* Asked for fewer addresses; or for these before. */
	assert_int_equal(symbol_decode(f->message, f->len, 99, 4, &next, &v), -EBADMSG);
	next = 3;
	assert_int_equal(symbol_decode(f->message, f->len, 99, 5, &next, &v), -EBADMSG);
	next = 0;
	assert_int_equal(symbol_decode(f->message, f->len, 99, 5, &next, &v), 0);
	assert_int_equal(next, 5);
	h->version++;
	assert_int_equal(decode(f, &v), -EBADMSG);
	h->version--;
	h->message = SYMBOL_MESSAGE_REQUEST;
	assert_int_equal(decode(f, &v), -EBADMSG);
}

#define REFUSED(member, value)                                                                     \
	do {                                                                                       \
		__typeof__(member) was_ = member;                                                  \
		member = value;                                                                    \
		assert_int_equal(decode(f, &v), -EBADMSG);                                         \
		member = was_;                                                                     \
		assert_int_equal(decode(f, &v), 0);                                                \
	} while (0)

static void test_each_field(void **state)
{
	struct fixture *f = *state;
	struct symbol_names_message *m = (void *)f->message;
	struct symbol_row *rows = (void *)(m + 1);
	struct symbol_wire_function *functions = (void *)(rows + 3);
	char *strings = (char *)(functions + 6);
	struct symbol_names_view v;

	REFUSED(m->header.size, m->header.size + 1);
	REFUSED(m->n_rows, 0);
	REFUSED(m->n_rows, 2);
	REFUSED(m->n_rows, 0xffffffff);
	REFUSED(m->n_functions, 5);
	REFUSED(m->n_functions, 0xffffffff);
	REFUSED(m->string_bytes, m->string_bytes - 1);
	REFUSED(m->string_bytes, 0xffffffff);
	REFUSED(rows[0].address, 5);
	REFUSED(rows[2].address, 3);
	REFUSED(rows[1].n, 0);
	REFUSED(rows[1].n, 1);
	REFUSED(rows[1].n, 3);
	REFUSED(rows[1].n, 65535);
	REFUSED(rows[1].module.offset, 1);
	REFUSED(rows[1].module.len, 0);
	REFUSED(functions[5].name.len, 0);
	REFUSED(functions[5].name.len, functions[5].name.len - 1);
	REFUSED(functions[5].name.len, 0xffffffff);
	REFUSED(functions[5].name.offset, m->string_bytes);
	REFUSED(functions[5].name.offset, 0xffffffff);
	REFUSED(functions[0].system_name.len, 4095);
	REFUSED(functions[0].file.len, 70000);
	REFUSED(functions[0].flags, 2);
	REFUSED(strings[0], '\0');
	REFUSED(strings[0], '\n');
	REFUSED(strings[0], '\xff');
	REFUSED(strings[functions[0].name.len], 'x');
}

/* A row that says where a function begins, between two that say what they are called. */
static void test_bare(void **state)
{
	struct fixture *f = *state;
	struct symbol_names_message *m = (void *)f->message;
	struct symbol_row *rows = (void *)(m + 1);
	struct symbol_names_view v;

	for (uint32_t address = 0; address < 5; address++) {
		found_reset(&f->found);
		if (address % 2)
			found_add(&f->found, "main", "", 0, 0, false);
		else
			f->found.before = 7;
		assert_int_equal(symbol_writer_add(&f->writer, address, &f->found), 0);
	}
	f->len = symbol_writer_take(&f->writer);
	memcpy(f->message, f->writer.message, f->len);
	assert_int_equal(decode(f, &v), 0);
	assert_int_equal(v.n_rows, 5);
	assert_int_equal(v.n_functions, 2);
	assert_int_equal(v.rows[0].flags, SYMBOL_ROW_BARE);
	assert_int_equal(v.rows[0].before, 7);
	REFUSED(rows[0].n, 1);
	REFUSED(rows[0].behind, 1);
	REFUSED(rows[0].flags, 0);
	REFUSED(rows[0].flags, SYMBOL_ROW_BARE | SYMBOL_ROW_EXTRA);
	REFUSED(rows[1].flags, SYMBOL_ROW_BARE);
	REFUSED(rows[1].n, 0);
	REFUSED(rows[2].address, 1);
	REFUSED(rows[2].distance, 1);
	REFUSED(rows[4].module.len, 1);
}

static void test_facts_and_done(void **state)
{
	struct symbol_facts_message m = {.header = {.version = SYMBOL_PROTOCOL,
						 .message = SYMBOL_MESSAGE_FACTS,
						 .size = sizeof(m),
						 .request = 1},
		.build_id = "0123abcd",
		.named_by = ".symtab"};
	struct symbol_done_message d = {.header = {.version = SYMBOL_PROTOCOL,
						.message = SYMBOL_MESSAGE_DONE,
						.size = sizeof(d),
						.request = 1},
		.n_done = 3};
	struct symbol_names_view v;
	uint32_t next = 0;

	assert_int_equal(symbol_decode(&m, sizeof(m), 1, 3, &next, &v), 0);
	m.n_segments = SYMBOL_SEGMENTS_MAX + 1;
	assert_int_equal(symbol_decode(&m, sizeof(m), 1, 3, &next, &v), -EBADMSG);
	m.n_segments = 0;
	strcpy(m.build_id, "no hex");
	assert_int_equal(symbol_decode(&m, sizeof(m), 1, 3, &next, &v), -EBADMSG);
	memset(m.build_id, 'a', sizeof(m.build_id));
	assert_int_equal(symbol_decode(&m, sizeof(m), 1, 3, &next, &v), -EBADMSG);
	m.build_id[40] = '\0';
	assert_int_equal(symbol_decode(&m, sizeof(m), 1, 3, &next, &v), 0);
	memset(m.problem, 'x', sizeof(m.problem));
	assert_int_equal(symbol_decode(&m, sizeof(m), 1, 3, &next, &v), -EBADMSG);

	assert_int_equal(symbol_decode(&d, sizeof(d), 1, 3, &next, &v), 0);
	next = 3;
	assert_int_equal(symbol_decode(&d, sizeof(d), 1, 3, &next, &v), 0);
	d.n_done = 2;
	assert_int_equal(symbol_decode(&d, sizeof(d), 1, 3, &next, &v), -EBADMSG);
	d.n_done = 4;
	assert_int_equal(symbol_decode(&d, sizeof(d), 1, 3, &next, &v), -EBADMSG);
	d.n_done = 3;
	d.flags = 8;
	assert_int_equal(symbol_decode(&d, sizeof(d), 1, 3, &next, &v), -EBADMSG);
}

/* A message is never longer than allowed, and the longest chain fits into one. */
static void test_writer_is_bounded(void **state)
{
	struct fixture *f = *state;
	_cleanup_free_ char *name = malloc(SYMBOL_NAME_MAX);
	struct symbol_names_view v;
	uint32_t next = 0, address = 0;

	memset(name, 'n', SYMBOL_NAME_MAX - 1);
	name[SYMBOL_NAME_MAX - 1] = '\0';
	found_reset(&f->found);
	while (found_add(&f->found, name, name, 1, 1, true) == 0)
		;
	assert_true(f->found.n >= 6);
	assert_int_equal(symbol_writer_add(&f->writer, address, &f->found), 0);
	while (symbol_writer_add(&f->writer, ++address, &f->found) == 0)
		;
	f->len = symbol_writer_take(&f->writer);
	assert_in_range(f->len, 1, SYMBOL_MESSAGE_MAX);
	assert_int_equal(symbol_decode(f->writer.message, f->len, 99, 1000, &next, &v), 0);
	found_reset(&f->found);
	found_add(&f->found, "x", "", 0, 0, false);
	for (address = 0; symbol_writer_add(&f->writer, address, &f->found) == 0; address++)
		;
	f->len = symbol_writer_take(&f->writer);
	assert_in_range(f->len, 60000, SYMBOL_MESSAGE_MAX);
	next = 0;
	assert_int_equal(symbol_decode(f->writer.message, f->len, 99, 2048, &next, &v), 0);
	assert_int_equal(v.n_rows, address);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_framing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_each_field, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bare, setup, teardown),
		cmocka_unit_test(test_facts_and_done),
		cmocka_unit_test_setup_teardown(test_writer_is_bounded, setup, teardown),
	};

	dispatch_role(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
