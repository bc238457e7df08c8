/* SPDX-License-Identifier: Apache-2.0 */

/* The command line: which command, which options, what is wrong; with the options of kinds as agentd tells them. */

#include "tests/unit/odictl/capture.h"

#include "odictl/kinds.h"

#define MAX_WORDS 100

static struct cli cli;
static struct args args;
static char line_text[4096];
static char *line_words[MAX_WORDS];
static int n_line_words;

/* A line as a shell would split it, without quoting: "_" stands for an empty word. */
static void split(const char *line)
{
	char *save = NULL;

	n_line_words = 0;
	snprintf(line_text, sizeof(line_text), "%s", line);
	for (char *w = strtok_r(line_text, " ", &save); w; w = strtok_r(NULL, " ", &save))
		line_words[n_line_words++] = streq(w, "_") ? w + 1 : w;
	line_words[n_line_words] = NULL;
}

/* What main() does before it calls agentd; kinds are there already where a test made them. */
static int parse(const char *line)
{
	const struct command *c;
	int words, r;

	cli = (struct cli){.socket = "/none/such", .kinds = cli.kinds};
	split(line);
	capture_start();
	r = args_globals(&cli, &n_line_words, line_words);
	if (!r) {
		c = args_find(&cli, n_line_words, line_words, &words);
		r = !c ? EXIT_USAGE
		       : kinds_parse(&cli, &args, c, n_line_words - words, line_words + words);
	}
	capture_end();
	return r;
}

static void refuse(const char *line, const char *part)
{
	assert_int_equal(parse(line), EXIT_USAGE);
	assert_says(captured_err, part);
	assert_string_equal(captured_out, "");
}

/* ---- kinds as agentd would tell them ---- */

static Control__OptionInfo *option(const char *name, const char *type)
{
	Control__OptionInfo *o = malloc(sizeof(*o));

	control__option_info__init(o);
	o->name = strdup(name);
	o->type = strdup(type);
	o->help = strdup("what it does");
	return o;
}

static Control__Reply *source_kinds(void)
{
	Control__Reply *reply = malloc(sizeof(*reply));
	Control__SourceKinds *body = malloc(sizeof(*body));

	control__reply__init(reply);
	control__source_kinds__init(body);
	reply->body_case = CONTROL__REPLY__BODY_SOURCE_KINDS;
	reply->source_kinds = body;
	body->kinds = calloc(2, sizeof(*body->kinds));
	for (; body->n_kinds < 2; body->n_kinds++) {
		Control__SourceKind *k = malloc(sizeof(*k));

		control__source_kind__init(k);
		k->name = strdup(body->n_kinds ? "process" : "host");
		k->options = calloc(4, sizeof(*k->options));
		if (body->n_kinds) {
			k->options[k->n_options++] = option("children", "yes/no");
			k->options[k->n_options++] = option("pid", "number");
			k->options[k->n_options++] = option("tags", "key=value");
			k->options[k->n_options++] = option("name", "text"); /* the command's own */
		}
		body->kinds[body->n_kinds] = k;
	}
	return reply;
}

static int setup_kinds(void **state)
{
	const struct command *c = NULL;

	for (size_t i = 0; i < n_commands; i++)
		if (streq(commands[i].words, "source add"))
			c = &commands[i];
	cli.kinds = kinds_new(source_kinds(), c, KINDS_SOURCE);
	assert_non_null(cli.kinds);
	return 0;
}

static int teardown_kinds(void **state)
{
	cli.kinds = kinds_free(cli.kinds);
	return 0;
}

/* ---- tests ---- */

static void test_words(void **state)
{
	assert_int_equal(parse("source show web"), 0);
	assert_string_equal(args.command->words, "source show");
	assert_string_equal(args.positional[0], "web");
	assert_int_equal(args.n_positional, 1);
	refuse("sorce show web", "did you mean 'source'?");
	refuse("source shw web", "did you mean 'source show'?");
	refuse("xyzzyplugh", "no command 'xyzzyplugh'; odictl --help");
	refuse("source", "usage: odictl source COMMAND");
	refuse("source show", "usage: odictl source show NAME");
	refuse("source show web more", "'more' is one word too many");
	refuse("-x status", "there is no option -x here");
}

static void test_options(void **state)
{
	uint64_t n = 7;

	assert_int_equal(parse("top --lines=5 --by service --watch"), 0);
	assert_string_equal(args_value(&args, "lines"), "5");
	assert_string_equal(args_value(&args, "by"), "service");
	assert_true(args_flag(&args, "watch"));
	assert_false(args_flag(&args, "source"));
	assert_null(args_value(&args, "source"));
	assert_int_equal(args_number(&cli, &args, "lines", 1, 9, &n), 0);
	assert_int_equal(n, 5);
	assert_int_equal(parse("top -n3"), 0);
	assert_string_equal(args_value(&args, "lines"), "3");
	assert_int_equal(parse("top -n 4"), 0);
	assert_string_equal(args_value(&args, "lines"), "4");
	assert_int_equal(parse("top -n -4"), 0);
	assert_string_equal(args_value(&args, "lines"), "-4");
	assert_int_equal(CAPTURE(args_number(&cli, &args, "lines", 1, 9, &n)), EXIT_USAGE);
	assert_says(captured_err, "--lines: expected a number from 1 to 9, not '-4'");
	assert_int_equal(parse("flamegraph -o - --title="), 0);
	assert_string_equal(args_value(&args, "output"), "-");
	assert_string_equal(args_value(&args, "title"), "");
	assert_int_equal(parse("profiling enable --all --all"), 0);
}

static void test_bad_options(void **state)
{
	char line[1200] = "host label", wide[600];

	refuse("profiling enable --raet 99", "no option --raet: did you mean --rate?");
	refuse("profiling enable --raet=99", "did you mean --rate?");
	refuse("profiling enable -r 9", "there is no option -r");
	refuse("profiling enable --rate", "--rate needs a value: --rate HZ");
	refuse("profiling enable --rate --all", "--rate needs a value");
	refuse("profiling enable --all=1", "--all takes no value");
	refuse("profiling enable --rate 1 --rate 2", "--rate was given twice");
	refuse("top --jsn", "did you mean --json?");
	refuse("logs -fx", "there is no option -fx");
	for (int i = 0; i < 17; i++)
		strcat(line, " a=b");
	refuse(line, "is one word too many");
	memset(wide, 'x', sizeof(wide) - 1);
	wide[sizeof(wide) - 1] = '\0';
	snprintf(line, sizeof(line), "top --%s", wide);
	refuse(line, "xxx…");
	assert_true(strlen(captured_err) < 300);
	refuse("top --a\033[31mb", "--a?[31mb");
}

static void test_globals(void **state)
{
	assert_int_equal(parse("--json source --yes remove --socket /x web"), 0);
	assert_true(cli.json && cli.yes && !cli.help);
	assert_string_equal(cli.socket, "/x");
	assert_string_equal(args.command->words, "source remove");
	assert_int_equal(parse("status --socket=/y -y"), 0);
	assert_string_equal(cli.socket, "/y");
	assert_true(cli.yes);
	refuse("status --socket", "--socket needs a value");
	refuse("status --socket=", "--socket needs a value");
	/* After "--" everything is a word. */
	assert_int_equal(parse("source show -- --json"), 0);
	assert_false(cli.json);
	assert_string_equal(args.positional[0], "--json");
	/* With --json an error is an object, and what people read stays on stderr. */
	assert_int_equal(parse("sorce --json"), EXIT_USAGE);
	assert_says(captured_out, "\"error\": \"there is no command 'sorce'");
	assert_says(captured_out, "\"exit_code\": 2\n}\n");
	assert_int_equal(captured_out[0], '{');
}

static void test_kinds(void **state)
{
	/* A switch never takes the next word. */
	assert_int_equal(parse("source add process --children nginx --pid 7"), 0);
	assert_int_equal(args.n_positional, 2);
	assert_string_equal(args.positional[1], "nginx");
	assert_true(args_flag(&args, "children"));
	assert_null(args_value(&args, "children"));
	assert_string_equal(args_value(&args, "pid"), "7");
	/* The kind is found behind its own options. */
	assert_int_equal(parse("source add --pid 7 --children process"), 0);
	assert_string_equal(args.positional[0], "process");
	assert_int_equal(args.n_positional, 1);
	assert_int_equal(parse("source add process x --children=no"), 0);
	assert_string_equal(args_value(&args, "children"), "no");
	/* Pairs: singular and agentd's name, any number of them. */
	assert_int_equal(parse("source add process x --tag a=1 --tags b=2"), 0);
	assert_int_equal(args.n_given, 2);
	for (size_t i = 0; i < 2; i++) {
		assert_string_equal(args.given[i].spec->stored, "tags");
		assert_true(args.given[i].spec->map);
	}
	/* What the command itself has is not the kind's. */
	assert_int_equal(parse("source add process x --name y"), 0);
	assert_null(args.given[0].spec->stored);
	refuse("source add procss x", "did you mean 'process'? there is: host, process");
	refuse("source add process --childern x", "did you mean --children?");
	refuse("source add process --childern x", "odictl source add process --help");
	refuse("source add host --pid 3", "there is no option --pid");
	refuse("source add process x --pid 1 --pid 2", "--pid was given twice");
	refuse("source add process x y", "'y' is one word too many");
}

static void test_kind_help(void **state)
{
	split("source add process");
	cli.help = true;
	assert_int_equal(CAPTURE(help_words(&cli, n_line_words, line_words)), EXIT_DONE);
	assert_says(captured_out, "usage: odictl source add process");
	assert_says(captured_out, "--children");
	assert_says(captured_out, "--tag K=V");
	assert_says(captured_out, "example: ");
	split("source add prcess");
	assert_int_equal(CAPTURE(help_words(&cli, n_line_words, line_words)), EXIT_USAGE);
}

static void test_key_value(void **state)
{
	const char *value;
	char *key;

	assert_int_equal(args_key_value(&cli, "a=b=c", &key, &value), 0);
	assert_string_equal(key, "a");
	assert_string_equal(value, "b=c");
	free(key);
	cli.json = false;
	assert_int_equal(CAPTURE(args_key_value(&cli, "=b", &key, &value)), EXIT_USAGE);
	assert_null(key);
	assert_int_equal(CAPTURE(args_key_value(&cli, "ab", &key, &value)), EXIT_USAGE);
	assert_says(captured_err, "'ab' is not key=value");
}

/* Every command: its help fits 24x80 where it is the first thing that is seen, and no line is wider. */
static void test_help(void **state)
{
	size_t lines = 0;

	capture_start();
	help_all(stdout);
	capture_end();
	for (const char *p = captured_out; (p = strchr(p, '\n')); p++)
		lines++;
	assert_in_range(lines, 10, 23);
	for (size_t i = 0; i <= n_commands; i++) {
		const char *at = captured_out;

		while (*at) {
			size_t n = strcspn(at, "\n");

			if (n > 80)
				fail_msg("%zu columns: %.*s", n, (int)n, at);
			at += n + (at[n] == '\n');
		}
		if (i == n_commands)
			break;
		capture_start();
		help_command(stdout, &commands[i]);
		capture_end();
		assert_says(captured_out, commands[i].words);
		assert_says(captured_out, "example: odictl ");
		assert_non_null(commands[i].run);
		assert_true(commands[i].max >= commands[i].min);
		assert_true(commands[i].max <= ARRAY_SIZE(args.positional));
	}
}

/* Examples are typed by people as they stand. */
static void test_examples(void **state)
{
	for (size_t i = 0; i < n_commands; i++) {
		const char *example = commands[i].example;

		assert_int_equal(strncmp(example, "odictl ", 7), 0);
		if (commands[i].kinds) /* needs agentd */
			continue;
		if (parse(example + 7))
			fail_msg("%s: %s", example, captured_err);
		assert_ptr_equal(args.command, &commands[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_bad_options),
		cmocka_unit_test(test_globals),
		cmocka_unit_test_setup_teardown(test_kinds, setup_kinds, teardown_kinds),
		cmocka_unit_test_setup_teardown(test_kind_help, setup_kinds, teardown_kinds),
		cmocka_unit_test(test_key_value),
		cmocka_unit_test(test_help),
		cmocka_unit_test(test_examples),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
