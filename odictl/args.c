/* SPDX-License-Identifier: Apache-2.0 */

/* The command line: --name value, --name=value and -n value anywhere after the command's words, "--" ends options,
 * and a word close to a known one gets "did you mean". The options that every command has (--json, --socket, --yes,
 * --help, --no-color) may stand anywhere and are taken out first.
 *
 * An option's value never begins with "--" unless it is joined by "=": `--rate --types cpu` is a forgotten value,
 * not a rate called "--types". A switch never takes the next word. */

#include "agentd/base/text.h"
#include "odictl/cli.h"

#define MAX_NEAR 64

static size_t count_words(const char *words)
{
	size_t n = 1;

	for (; *words; words++)
		n += *words == ' ';
	return n;
}

/* Whether argv starts with the command's words. */
static bool names(const struct command *c, int argc, char **argv)
{
	const char *p = c->words;

	for (int i = 0; *p; i++) {
		size_t n = strcspn(p, " ");

		if (i >= argc || strlen(argv[i]) != n || strncmp(argv[i], p, n) != 0)
			return false;
		p += n;
		p += *p == ' ';
	}
	return true;
}

/* ---- options of every command ---- */

static bool global_flag(struct cli *cli, const char *word)
{
	if (streq(word, "--json"))
		cli->json = true;
	else if (streq(word, "--yes") || streq(word, "-y"))
		cli->yes = true;
	else if (streq(word, "--help") || streq(word, "-h"))
		cli->help = true;
	else if (streq(word, "--version"))
		cli->version = true;
	else if (streq(word, "--no-color"))
		cli->color = cli->color_errors = false;
	else
		return false;
	return true;
}

int args_globals(struct cli *cli, int *argc, char **argv)
{
	bool ended = false, no_value = false;
	int n = 0;

	for (int i = 0; i < *argc; i++) {
		ended = ended || streq(argv[i], "--");
		if (!ended && global_flag(cli, argv[i]))
			continue;
		if (!ended && text_starts(argv[i], "--socket=")) {
			cli->socket = argv[i] + strlen("--socket=");
		} else if (!ended && streq(argv[i], "--socket")) {
			no_value = i + 1 == *argc;
			if (!no_value)
				cli->socket = argv[++i];
		} else {
			argv[n++] = argv[i];
		}
	}
	*argc = n;
	if (no_value || !cli->socket[0])
		return cli_fail(cli, EXIT_USAGE, "--socket needs a value: PATH");
	return 0;
}

/* ---- which command ---- */

/* The words that could have been meant: the first words of all commands, or the second words of a group. */
static size_t collect_words(const char *group, char words[][32], const char **ret)
{
	size_t n = 0;

	for (size_t i = 0; i < n_commands && n < MAX_NEAR; i++) {
		const char *space = strchr(commands[i].words, ' ');
		size_t first = strcspn(commands[i].words, " ");

		if (group &&
			(!space || strlen(group) != first ||
				strncmp(group, commands[i].words, first) != 0))
			continue;
		if (group)
			snprintf(words[n], 32, "%s", space + 1);
		else
			snprintf(words[n], 32, "%.*s", (int)first, commands[i].words);
		ret[n] = words[n];
		n++;
	}
	return n;
}

static void say_unknown(struct cli *cli, int argc, char **argv)
{
	const char *candidates[MAX_NEAR], *near;
	char words[MAX_NEAR][32], quoted[80];
	const char *group = help_is_group(argv[0]) ? argv[0] : NULL;
	const char *wrong = group && argc > 1 ? argv[1] : argv[0];

	if (wrong[0] == '-') {
		cli_fail(cli, EXIT_USAGE,
			"there is no option %s here: options stand after the command's words; odictl --help",
			out_quote(wrong, quoted, sizeof(quoted)));
		return;
	}
	if (group && argc < 2) {
		if (cli->json)
			cli_fail(cli, EXIT_USAGE, "odictl %s needs a command: odictl %s --help",
				group, group);
		else
			help_group(stderr, group);
		return;
	}
	near = text_nearest(wrong, candidates, collect_words(group, words, candidates));
	cli_fail(cli, EXIT_USAGE,
		"there is no command '%s%s%s'%s%s%s%s%s odictl %s%s--help lists %s",
		group ? group : "", group ? " " : "", out_quote(wrong, quoted, sizeof(quoted)),
		near ? ": did you mean '" : "", near && group ? group : "",
		near && group ? " " : "", near ? near : "", near ? "'?" : ";", group ? group : "",
		group ? " " : "", group ? "those there are" : "all");
}

const struct command *args_find(struct cli *cli, int argc, char **argv, int *n_words)
{
	const struct command *best = NULL;
	size_t best_words = 0;

	for (size_t i = 0; i < n_commands; i++) {
		size_t n = count_words(commands[i].words);

		if (names(&commands[i], argc, argv) && n > best_words) {
			best = &commands[i];
			best_words = n;
		}
	}
	for (size_t i = 0; i < n_commands && !best; i++)
		if (commands[i].by_group && (argc < 2 || argv[1][0] == '-') && argc &&
			text_starts(commands[i].words, argv[0]) &&
			commands[i].words[strlen(argv[0])] == ' ') {
			best = &commands[i];
			best_words = 1;
		}
	if (!best)
		say_unknown(cli, argc, argv);
	*n_words = (int)best_words;
	return best;
}

/* ---- options of one command ---- */

static bool is_called(const struct option_spec *o, const char *name, size_t len)
{
	return (strlen(o->name) == len && strncmp(o->name, name, len) == 0) ||
		(o->stored && strlen(o->stored) == len && strncmp(o->stored, name, len) == 0);
}

/* word: "--name", "--name=value", "-n", "-nvalue". Where the value is joined to it, *joined points there. */
static const struct option_spec *find_option(const struct command *c,
	const struct option_spec *extra, const char *word, const char **joined)
{
	const struct option_spec *tables[] = {c->options, extra};
	bool is_long = word[1] == '-';
	size_t len = is_long ? strcspn(word + 2, "=") : 1;

	*joined = NULL;
	if (is_long && word[2 + len] == '=')
		*joined = word + 2 + len + 1;
	else if (!is_long && word[2])
		*joined = word + 2 + (word[2] == '=');
	for (size_t t = 0; t < ARRAY_SIZE(tables); t++)
		for (const struct option_spec *o = tables[t]; o && o->name; o++)
			if (is_long ? is_called(o, word + 2, len) : o->letter == word[1])
				return o;
	return NULL;
}

static bool is_option(const char *word)
{
	return word[0] == '-' && word[1];
}

static bool takes_value(const struct option_spec *o)
{
	return o->kind == VALUE || o->kind == REPEAT;
}

const char *args_first_word(
	const struct command *c, const struct option_spec *extra, int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		const struct option_spec *o;
		const char *joined;

		if (streq(argv[i], "--"))
			return i + 1 < argc ? argv[i + 1] : NULL;
		if (!is_option(argv[i]))
			return argv[i];
		o = find_option(c, extra, argv[i], &joined);
		if (o && takes_value(o) && !joined && i + 1 < argc &&
			!text_starts(argv[i + 1], "--"))
			i++;
	}
	return NULL;
}

/* kind: of a command that has kinds, the one that was named; NULL: none */
static int unknown_option(struct cli *cli, const struct command *c, const struct option_spec *extra,
	const char *word, const char *kind)
{
	static const char *const globals[] = {"json", "socket", "yes", "help", "no-color"};
	const struct option_spec *tables[] = {c->options, extra};
	const char *candidates[MAX_NEAR], *near = NULL;
	char quoted[80], name[80];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(globals); i++)
		candidates[n++] = globals[i];
	for (size_t t = 0; t < ARRAY_SIZE(tables); t++)
		for (const struct option_spec *o = tables[t]; o && o->name && n < MAX_NEAR; o++)
			candidates[n++] = o->name;
	out_quote(word, quoted, sizeof(quoted));
	quoted[strcspn(quoted, "=")] = '\0';
	snprintf(name, sizeof(name), "%s", quoted + strspn(quoted, "-"));
	if (text_starts(word, "--") || strlen(name) > 1)
		near = text_nearest(name, candidates, n);
	return cli_fail(cli, EXIT_USAGE,
		"%s%s%s: there is no option %s%s%s%s odictl %s%s%s --help shows those there are",
		c->words, kind ? " " : "", kind ? kind : "", quoted,
		near ? ": did you mean --" : "", near ? near : "", near ? "?" : ";", c->words,
		kind ? " " : "", kind ? kind : "");
}

/* One option at argv[*i]; may take the next word. */
static int parse_option(struct cli *cli, struct args *args, const struct option_spec *extra,
	int argc, char **argv, int *i)
{
	const struct command *c = args->command;
	const char *value;
	const struct option_spec *o = find_option(c, extra, argv[*i], &value);

	if (!o || (argv[*i][1] != '-' && value && !takes_value(o)))
		return unknown_option(cli, c, extra, argv[*i],
			extra ? args_first_word(c, extra, argc, argv) : NULL);
	if (o->kind == FLAG && value)
		return cli_fail(cli, EXIT_USAGE, "%s: --%s takes no value", c->words, o->name);
	if (takes_value(o) && !value) {
		if (*i + 1 >= argc || text_starts(argv[*i + 1], "--"))
			return cli_fail(cli, EXIT_USAGE, "%s: --%s needs a value: --%s %s",
				c->words, o->name, o->name, o->value ? o->value : "VALUE");
		value = argv[++*i];
	}
	if (o->kind != REPEAT && o->kind != FLAG && args_flag(args, o->name))
		return cli_fail(cli, EXIT_USAGE, "%s: --%s was given twice", c->words, o->name);
	if (args->n_given == ARRAY_SIZE(args->given))
		return cli_fail(cli, EXIT_USAGE, "%s: more than %zu options", c->words,
			ARRAY_SIZE(args->given));
	args->given[args->n_given++] = (struct given){o, o->name, value};
	return 0;
}

static int check_count(struct cli *cli, const struct args *args)
{
	const struct command *c = args->command;
	char quoted[80];

	if (args->n_positional > c->max)
		return cli_fail(cli, EXIT_USAGE,
			"%s: '%s' is one word too many (usage: odictl %s%s%s)", c->words,
			out_quote(args->positional[c->max], quoted, sizeof(quoted)), c->words,
			c->positional[0] ? " " : "", c->positional);
	if (args->n_positional < c->min)
		return cli_fail(cli, EXIT_USAGE, "usage: odictl %s %s; example: %s", c->words,
			c->positional, c->example);
	return 0;
}

int args_parse(struct cli *cli, struct args *args, const struct command *c,
	const struct option_spec *extra, int argc, char **argv)
{
	bool ended = false;

	*args = (struct args){.command = c};
	for (int i = 0; i < argc; i++) {
		int r;

		if (!ended && streq(argv[i], "--")) {
			ended = true;
		} else if (!ended && is_option(argv[i])) {
			r = parse_option(cli, args, extra, argc, argv, &i);
			if (r)
				return r;
		} else if (args->n_positional == ARRAY_SIZE(args->positional)) {
			return cli_fail(cli, EXIT_USAGE, "%s: more than %zu words", c->words,
				ARRAY_SIZE(args->positional));
		} else {
			args->positional[args->n_positional++] = argv[i];
		}
	}
	return check_count(cli, args);
}

/* ---- what was given ---- */

const char *args_value(const struct args *args, const char *name)
{
	for (size_t i = 0; i < args->n_given; i++)
		if (streq(args->given[i].name, name))
			return args->given[i].value;
	return NULL;
}

bool args_flag(const struct args *args, const char *name)
{
	for (size_t i = 0; i < args->n_given; i++)
		if (streq(args->given[i].name, name))
			return true;
	return false;
}

int args_number(struct cli *cli, const struct args *args, const char *name, uint64_t min,
	uint64_t max, uint64_t *ret)
{
	const char *value = args_value(args, name);
	char quoted[80];

	if (value && text_u64(value, min, max, ret) < 0)
		return cli_fail(cli, EXIT_USAGE,
			"--%s: expected a number from %llu to %llu, not '%s'", name,
			(unsigned long long)min, (unsigned long long)max,
			out_quote(value, quoted, sizeof(quoted)));
	return 0;
}

int args_key_value(struct cli *cli, const char *text, char **key, const char **value)
{
	const char *eq = strchr(text, '=');
	char quoted[80];

	*key = NULL;
	if (!eq || eq == text)
		return cli_fail(cli, EXIT_USAGE, "'%s' is not key=value, such as team=edge",
			out_quote(text, quoted, sizeof(quoted)));
	*key = strndup(text, (size_t)(eq - text));
	if (!*key)
		return cli_fail(cli, EXIT_FAILED, "out of memory");
	*value = eq + 1;
	return 0;
}
