/* SPDX-License-Identifier: Apache-2.0 */

/* The command line: --name value and --name=value anywhere after the command's words, "--" ends options, and a
 * word close to a known one gets "did you mean". Global options: --socket, --json, --yes, --help, --no-color. */

#include "agentd/base/text.h"
#include "odictl/cli.h"

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

static void say_unknown(int argc, char **argv)
{
	const char *candidates[64];
	static char words[64][32];
	bool group = help_is_group(argv[0]);
	const char *near, *wrong = group && argc > 1 ? argv[1] : argv[0];
	size_t n = 0;

	/* Among the first words, or among the second words of the group that was named. */
	for (size_t i = 0; i < n_commands && n < ARRAY_SIZE(candidates); i++) {
		const char *space = strchr(commands[i].words, ' ');
		size_t first = strcspn(commands[i].words, " ");

		if (group) {
			if (!space || strlen(argv[0]) != first ||
				strncmp(argv[0], commands[i].words, first) != 0)
				continue;
			snprintf(words[n], sizeof(words[n]), "%s", space + 1);
		} else {
			snprintf(words[n], sizeof(words[n]), "%.*s", (int)first, commands[i].words);
		}
		candidates[n] = words[n];
		n++;
	}
	near = text_nearest(wrong, candidates, n);
	if (group && argc < 2) {
		help_group(stderr, argv[0]);
		return;
	}
	fprintf(stderr, "odictl: there is no command '%s%s%s'", group ? argv[0] : "",
		group ? " " : "", wrong);
	if (near)
		fprintf(stderr, ": did you mean '%s%s%s'?", group ? argv[0] : "", group ? " " : "",
			near);
	fprintf(stderr, "\nodictl --help lists all commands\n");
}

const struct command *args_find(int argc, char **argv, int *n_words)
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
	if (!best)
		say_unknown(argc, argv);
	*n_words = (int)best_words;
	return best;
}

static const struct option_spec *find_option(const struct command *c, const char *name, size_t len)
{
	for (const struct option_spec *o = c->options; o && o->name; o++)
		if (strlen(o->name) == len && strncmp(o->name, name, len) == 0)
			return o;
	return NULL;
}

static int unknown_option(const struct command *c, const char *word)
{
	const char *candidates[40], *near;
	size_t n = 0;

	for (const struct option_spec *o = c->options; o && o->name && n < 36; o++)
		candidates[n++] = o->name;
	candidates[n++] = "json";
	candidates[n++] = "socket";
	candidates[n++] = "yes";
	candidates[n++] = "help";
	near = text_nearest(word, candidates, n);
	fprintf(stderr, "odictl %s: there is no option --%s", c->words, word);
	if (near)
		fprintf(stderr, ": did you mean --%s?", near);
	fprintf(stderr, "\nodictl %s --help shows what there is\n", c->words);
	return EXIT_USAGE;
}

static bool global_flag(struct cli *cli, const char *name)
{
	if (streq(name, "json"))
		cli->json = true;
	else if (streq(name, "yes"))
		cli->yes = true;
	else if (streq(name, "help"))
		cli->help = true;
	else if (streq(name, "no-color"))
		cli->color = false;
	else
		return false;
	return true;
}

/* One --option at argv[*i]; may take the next word. */
static int parse_option(
	struct args *args, const struct command *c, int argc, char **argv, int *i, struct cli *cli)
{
	char *name = argv[*i] + 2, *eq = strchr(name, '=');
	size_t len = eq ? (size_t)(eq - name) : strlen(name);
	const struct option_spec *o = find_option(c, name, len);
	const char *value = eq ? eq + 1 : NULL;
	bool socket = len == 6 && strncmp(name, "socket", 6) == 0;

	if (!o && !eq && global_flag(cli, name))
		return 0;
	if (!o && !socket && !c->open_options) {
		name[len] = '\0';
		return unknown_option(c, name);
	}
	if (o && o->kind == FLAG && value) {
		fprintf(stderr, "odictl %s: --%s takes no value\n", c->words, o->name);
		return EXIT_USAGE;
	}
	if (!value && (socket || !o || o->kind != FLAG)) {
		/* An option only the kind knows may be a switch: then no value follows. */
		if (*i + 1 < argc && !(!o && !socket && text_starts(argv[*i + 1], "--")))
			value = argv[++*i];
		else if (o || socket) {
			fprintf(stderr, "odictl %s: --%s needs a value%s%s\n", c->words, name,
				o && o->value ? ": " : "", o && o->value ? o->value : "");
			return EXIT_USAGE;
		} else {
			value = "true";
		}
	}
	if (socket) {
		cli->socket = value;
		return 0;
	}
	if (eq)
		*eq = '\0';
	if (o && o->kind == VALUE && args_value(args, o->name)) {
		fprintf(stderr, "odictl %s: --%s was given twice\n", c->words, o->name);
		return EXIT_USAGE;
	}
	if (args->n_given == ARRAY_SIZE(args->given)) {
		fprintf(stderr, "odictl: too many options\n");
		return EXIT_USAGE;
	}
	args->given[args->n_given++] = (struct given){o ? o->name : name, value};
	return 0;
}

int args_parse(struct args *args, const struct command *c, int argc, char **argv, struct cli *cli)
{
	bool ended = false;

	args->command = c;
	for (int i = 0; i < argc; i++) {
		int r;

		if (!ended && streq(argv[i], "--")) {
			ended = true;
			continue;
		}
		if (!ended && (streq(argv[i], "-h"))) {
			cli->help = true;
			continue;
		}
		/* The two short options that people's fingers know. */
		if (!ended && (streq(argv[i], "-o") || streq(argv[i], "-n"))) {
			static char output[] = "--output", lines[] = "--lines";

			argv[i] = argv[i][1] == 'o' ? output : lines;
		}
		if (!ended && text_starts(argv[i], "--")) {
			r = parse_option(args, c, argc, argv, &i, cli);
			if (r)
				return r;
			continue;
		}
		if (!ended && argv[i][0] == '-' && argv[i][1]) {
			fprintf(stderr, "odictl %s: there is no option %s\n", c->words, argv[i]);
			return EXIT_USAGE;
		}
		if (args->n_positional == ARRAY_SIZE(args->positional)) {
			fprintf(stderr, "odictl %s: too many words\n", c->words);
			return EXIT_USAGE;
		}
		args->positional[args->n_positional++] = argv[i];
	}
	if (cli->help)
		return 0;
	if (args->n_positional > c->max) {
		fprintf(stderr, "odictl %s: '%s' is one word too many\nusage: odictl %s %s\n",
			c->words, args->positional[c->max], c->words, c->positional);
		return EXIT_USAGE;
	}
	if (args->n_positional < c->min) {
		fprintf(stderr, "usage: odictl %s %s\nexample: %s\n", c->words, c->positional,
			c->example);
		return EXIT_USAGE;
	}
	return 0;
}

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

bool args_key_value(const char *text, char *key, size_t key_size, const char **value)
{
	const char *eq = strchr(text, '=');

	if (!eq || eq == text || (size_t)(eq - text) >= key_size) {
		fprintf(stderr, "odictl: '%s' is not key=value\n", text);
		return false;
	}
	snprintf(key, key_size, "%.*s", (int)(eq - text), text);
	*value = eq + 1;
	return true;
}
