/* SPDX-License-Identifier: Apache-2.0 */

/* What goes out: JSON, cleaning, widths, tables, exit codes, changes, names. */

#include "tests/unit/odictl/capture.h"

#include "agentd/base/text.h"
#include "odictl/source.h"

static struct cli cli;

/* ---- JSON ---- */

static const char *escaped(const char *s)
{
	static char text[1000];
	struct buf b;

	buf_init(&b, 0);
	json_escape(&b, s);
	snprintf(text, sizeof(text), "%s", (const char *)b.data);
	buf_deinit(&b);
	return text;
}

static void test_escape(void **state)
{
	assert_string_equal(escaped(""), "\"\"");
	assert_string_equal(escaped("a\"b\\c/d"), "\"a\\\"b\\\\c/d\"");
	assert_string_equal(escaped("\t\n\033[31m\x7f"), "\"\\u0009\\u000a\\u001b[31m\\u007f\"");
	assert_string_equal(escaped("</script>"), "\"\\u003c/script>\"");
	assert_string_equal(escaped("grün … 函数"), "\"grün … 函数\"");
	/* Invalid UTF-8 would make the whole document unreadable. */
	assert_string_equal(escaped("a\xff\xc3"), "\"a\\ufffd\\ufffd\"");
	assert_string_equal(
		escaped("\xc0\xaf\xed\xa0\x80"), "\"\\ufffd\\ufffd\\ufffd\\ufffd\\ufffd\"");
	/* C1 controls (U+009B begins a sequence) and JavaScript's line ends. */
	assert_string_equal(escaped("\xc2\x9b\xe2\x80\xa8"), "\"\\u009b\\u2028\"");
}

static void write_all(struct json *j)
{
	json_open(j, NULL, '{');
	json_str(j, "s", "x");
	json_str(j, "null", NULL);
	json_uint(j, "u", UINT64_MAX);
	json_num(j, "n", 0.25);
	json_num(j, "bad", 0.0 / 0.0);
	json_bool(j, "b", true);
	json_time(j, "t", 1774688400250000000ULL);
	json_time(j, "never", 0);
	json_open(j, "list", '[');
	json_str(j, NULL, "a");
	json_open(j, NULL, '{');
	json_close(j, '}');
	json_close(j, ']');
	json_close(j, '}');
}

static void test_json(void **state)
{
	struct json j;

	json_init(&j);
	write_all(&j);
	assert_int_equal(CAPTURE(json_print(&j, stdout)), EXIT_DONE);
	assert_string_equal(captured_out,
		"{\n  \"s\": \"x\",\n  \"null\": \"\",\n  \"u\": 18446744073709551615,\n  \"n\": 0.25,\n"
		"  \"bad\": 0,\n  \"b\": true,\n  \"t\": \"2026-03-28T09:00:00.250Z\",\n"
		"  \"never\": null,\n  \"list\": [\n    \"a\",\n    {}\n  ]\n}\n");
	json_init_compact(&j);
	write_all(&j);
	assert_int_equal(CAPTURE(json_print(&j, stdout)), EXIT_DONE);
	assert_ptr_equal(strchr(captured_out, '\n'), captured_out + strlen(captured_out) - 1);
	assert_says(captured_out, "\"list\": [\"a\", {}]}");
}

/* ---- cleaning ---- */

static Control__Reply *hostile_sources(void)
{
	Control__Reply *reply = calloc(1, sizeof(*reply));
	Control__Sources *body = calloc(1, sizeof(*body));
	Control__SourceState *s = calloc(1, sizeof(*s));
	Control__KeyValue *kv = calloc(1, sizeof(*kv));

	control__reply__init(reply);
	control__sources__init(body);
	control__source_state__init(s);
	control__key_value__init(kv);
	kv->key = strdup("k\033]0;title\a");
	kv->value = strdup("\xc2\x9b"
			   "31m");
	s->name = strdup("web\r\033[2J");
	s->labels = calloc(1, sizeof(*s->labels));
	s->labels[s->n_labels++] = kv;
	body->sources = calloc(1, sizeof(*body->sources));
	body->sources[body->n_sources++] = s;
	reply->body_case = CONTROL__REPLY__BODY_SOURCES;
	reply->sources = body;
	return reply;
}

static void test_clean(void **state)
{
	Control__Reply *reply = hostile_sources(), *logs = calloc(1, sizeof(*logs));
	const Control__SourceState *s = reply->sources->sources[0];

	out_clean(&reply->base);
	assert_string_equal(s->name, "web??[2J");
	assert_string_equal(s->labels[0]->key, "k?]0;title?");
	assert_true(text_is_clean(s->labels[0]->value, 100));
	assert_string_equal(s->kind, "");
	api_reply_free(reply);
	/* Repeated strings, and another member of the same oneof. */
	control__reply__init(logs);
	logs->body_case = CONTROL__REPLY__BODY_APPLIED;
	logs->applied = calloc(1, sizeof(*logs->applied));
	control__applied__init(logs->applied);
	logs->applied->warnings = calloc(2, sizeof(char *));
	logs->applied->warnings[logs->applied->n_warnings++] = strdup("fine …");
	logs->applied->warnings[logs->applied->n_warnings++] = strdup("a\nb\xff");
	out_clean(&logs->base);
	assert_string_equal(logs->applied->warnings[0], "fine …");
	assert_string_equal(logs->applied->warnings[1], "a?b?");
	api_reply_free(logs);
}

static void test_quote(void **state)
{
	char buf[16];

	assert_string_equal(out_quote("short", buf, sizeof(buf)), "short");
	assert_string_equal(out_quote("fifteen bytes !", buf, sizeof(buf)), "fifteen bytes !");
	assert_string_equal(out_quote("sixteen bytes !!", buf, sizeof(buf)), "sixteen byte…");
	/* The cut falls before the character that does not fit, and not inside it. */
	assert_string_equal(out_quote("elevenbytesüüüü", buf, sizeof(buf)), "elevenbytes…");
	assert_string_equal(out_quote("a\033[1m", buf, sizeof(buf)), "a?[1m");
}

static void test_fail(void **state)
{
	char wide[5000];

	memset(wide, 'w', sizeof(wide) - 1);
	wide[sizeof(wide) - 1] = '\0';
	assert_int_equal(CAPTURE(cli_fail(&cli, 4, "no '%s'", "\033[31m\n")), 4);
	assert_string_equal(captured_err, "odictl: no '?[31m?'\n");
	assert_string_equal(captured_out, "");
	CAPTURE(cli_fail(&cli, 1, "%s", wide));
	assert_true(strlen(captured_err) < 2000);
	cli.json = true;
	CAPTURE(cli_fail(&cli, 1, "no \"x\""));
	cli.json = false;
	assert_string_equal(
		captured_out, "{\n  \"error\": \"no \\\"x\\\"\",\n  \"exit_code\": 1\n}\n");
}

static void test_exit_codes(void **state)
{
	assert_int_equal(cli_exit_of(0), 0);
	assert_int_equal(cli_exit_of(-EINVAL), 2);
	assert_int_equal(cli_exit_of(-ECONNREFUSED), 3);
	assert_int_equal(cli_exit_of(-EACCES), 4);
	/* Refused for what it is, managed by a file, busy, gone meanwhile, broken: all plain failures. */
	for (const int *e = (const int[]){-ENOENT, -EEXIST, -ESTALE, -EPERM, -EOPNOTSUPP, -EBUSY,
		     -EIO, -ECANCELED, -ETIMEDOUT, -EPROTO, -ENOMEM, 0};
		*e; e++)
		assert_int_equal(cli_exit_of(*e), 1);
	cli.socket = "/nonexistent/socket";
	assert_int_equal(CAPTURE(cmd_status(&cli, &(struct args){})), EXIT_UNREACHABLE);
	assert_says(captured_err, "/nonexistent/socket");
}

/* ---- widths and tables ---- */

static void test_width(void **state)
{
	char text[64];

	assert_int_equal(out_columns("abc"), 3);
	assert_int_equal(out_columns("grün"), 4);
	assert_int_equal(out_columns("函数"), 4);
	assert_int_equal(out_columns("e\xcc\x81"), 1);
	assert_int_equal(out_columns("\033[31mred\033[0m"), 3);
	assert_int_equal(out_columns("a\xff"), 2);
	assert_int_equal(out_columns("\033[31"), 0);
	for (size_t width = 0; width <= 12; width++) {
		strcpy(text, "ab函数üüxyz");
		out_cut(text, width);
		assert_true(out_columns(text) <= width);
		assert_true(width < 1 || width >= 11 || out_columns(text) + 1 >= width);
		assert_true(text_is_clean(text, sizeof(text)));
		assert_int_equal(strstr(text, "…") != NULL, width > 0 && width < 11);
	}
}

static void test_wrap(void **state)
{
	capture_start();
	out_wrap(stdout, "head", 6, "one two three four five six seven eight", 30);
	out_wrap(stdout, "a long head", 6, "text", 30);
	out_wrap(stdout, "", 0, "no  limit to it", 0);
	out_wrap(stdout, "n:", 3, "averyveryverylongwordthatcannotbewrapped x", 30);
	out_wrap(stdout, "empty", 6, "", 30);
	capture_end();
	assert_string_equal(captured_out,
		"head  one two three four five\n      six seven eight\n"
		"a long head\n      text\n"
		"no  limit to it\n"
		"n: averyveryverylongwordthatcannotbewrapped\n   x\n"
		"empty \n");
}

static void print_table(size_t columns)
{
	static const char *const headers[] = {"N", "NAME", "WHERE"};
	struct table *t = table_new(headers, "rll");

	table_row(t, (const char *const[]){"1", "a", "short"});
	table_row(t,
		(const char *const[]){
			"1000", "std::vector<std::string>::push_back", "libvery-long-name.so.6"});
	table_row(t, (const char *const[]){"7", "x\033[2Jy", NULL});
	capture_start();
	table_fit(t, stdout, columns);
	capture_end();
}

static void test_table(void **state)
{
	struct table *t;

	print_table(0);
	assert_string_equal(captured_out,
		"   N  NAME                                 WHERE\n"
		"   1  a                                    short\n"
		"1000  std::vector<std::string>::push_back  libvery-long-name.so.6\n"
		"   7  x?[2Jy\n");
	/* Names give way, from the widest; numbers do not. */
	print_table(40);
	assert_says(captured_out, "1000  std::vector<std…  libvery-long-na…\n");
	for (size_t columns = 1; columns < 90; columns++) {
		print_table(columns);
		for (char *line = strtok(captured_out, "\n"); line; line = strtok(NULL, "\n"))
			if (out_columns(line) > columns)
				fail_msg("%zu: %s", columns, line);
	}
	/* Numbers stay whole as long as names have anything to give, however wide they are. */
	t = table_new((const char *const[]){"N", "NAME"}, "rl");
	table_row(t, (const char *const[]){"18,446,744,073,709", "name_of_fifteen"});
	capture_start();
	table_fit(t, stdout, 29);
	capture_end();
	assert_says(captured_out, "18,446,744,073,709  name_of_…\n");
	table_free(NULL);
	table_print(NULL, stdout);
	table_row(NULL, NULL);
}

static void test_numbers(void **state)
{
	char buf[40];

	assert_string_equal(out_number(0, buf, sizeof(buf)), "0");
	assert_string_equal(out_number(999, buf, sizeof(buf)), "999");
	assert_string_equal(out_number(1000, buf, sizeof(buf)), "1,000");
	assert_string_equal(out_number(UINT64_MAX, buf, sizeof(buf)), "18,446,744,073,709,551,615");
	assert_string_equal(out_seconds(12345678901ULL, buf, sizeof(buf)), "12.3");
	assert_string_equal(out_seconds(5000000, buf, sizeof(buf)), "0.01");
	assert_string_equal(out_ago(0, buf, sizeof(buf)), "never");
	assert_string_equal(out_ago(UINT64_MAX, buf, sizeof(buf)), "just now");
	assert_string_equal(out_time(0, buf, sizeof(buf)), "-");
}

/* ---- changes ---- */

static void test_changes(void **state)
{
	struct change_list l = {};
	char wide[10001];

	memset(wide, 'n', sizeof(wide) - 1);
	wide[sizeof(wide) - 1] = '\0';
	assert_non_null(change_add(&l, "v", "sources/%s/labels/%s", "web", wide));
	/* Cut, it would be another path. */
	assert_int_equal(strlen(l.changes[0]->path), 10000 + strlen("sources/web/labels/"));
	assert_non_null(change_add(&l, NULL, "sources/web"));
	assert_int_equal(l.changes[1]->what_case, CONTROL__CHANGE__WHAT_REMOVE);
	while (l.n < ARRAY_SIZE(l.changes))
		assert_non_null(change_add(&l, "v", "x"));
	assert_null(change_add(&l, "v", "x"));
	change_free(&l);
	assert_int_equal(l.n, 0);
}

static void test_default_names(void **state)
{
	static const struct {
		const char *kind, *match, *name;
	} cases[] = {
		{"host", "", "host"},
		{"systemd", "nginx", "nginx"},
		{"systemd", "nginx.service", "nginx"},
		{"systemd", "getty@tty1.service", "getty@tty1"},
		{"process", "/usr/sbin/nginx", "nginx"},
		{"process", "/opt/my app", "my-app"},
		{"process", "*", "process"},
		{"cgroup", "/", "cgroup"},
		{"cgroup", "/batch.slice/", "batch.slice"},
		{"process", "--x", "x"},
		{"process", ".hidden", "hidden"},
		{"process", "\033[31m函数", "31m"},
	};
	char name[80], wide[300];

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		source_default_name(cases[i].kind, cases[i].match, name, sizeof(name));
		assert_string_equal(name, cases[i].name);
		assert_true(text_is_name(name));
	}
	memset(wide, 'n', sizeof(wide) - 1);
	wide[sizeof(wide) - 1] = '\0';
	source_default_name("process", wide, name, sizeof(name));
	assert_true(text_is_name(name));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_escape),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_clean),
		cmocka_unit_test(test_quote),
		cmocka_unit_test(test_fail),
		cmocka_unit_test(test_exit_codes),
		cmocka_unit_test(test_width),
		cmocka_unit_test(test_wrap),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_default_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
