/* SPDX-License-Identifier: Apache-2.0 */

/* Help, made from the command table. `odictl --help` fits one screen. */

#include "odictl/cli.h"
#include "odictl/kinds.h"

bool help_is_group(const char *word)
{
	size_t n = strlen(word);

	for (size_t i = 0; i < n_commands; i++)
		if (strncmp(commands[i].words, word, n) == 0 && commands[i].words[n] == ' ')
			return true;
	return false;
}

/* A group is one line: its name and its verbs, but for those that are seldom typed; "" when all are. */
static size_t group_line(size_t at, char *line, size_t size)
{
	const char *words = commands[at].words;
	size_t n = strcspn(words, " "), i = at, verbs = 0;
	size_t len = (size_t)snprintf(line, size, "  %-12.*s", (int)n, words);

	for (; i < n_commands && strncmp(commands[i].words, words, n + 1) == 0; i++)
		if (!commands[i].minor && len < size)
			len += (size_t)snprintf(line + len, size - len, "%s%s", verbs++ ? ", " : "",
				commands[i].words + n + 1);
	if (!verbs)
		line[0] = '\0';
	return i;
}

static void put_minor(FILE *f, const char *words, bool *any)
{
	fprintf(f, "%s%.*s", *any ? ", " : "  and         ", (int)strcspn(words, " "), words);
	*any = true;
}

/* What is seldom typed, in one line. */
static void print_minor(FILE *f)
{
	bool any = false;
	char line[200];

	for (size_t i = 0; i < n_commands;) {
		size_t at = i++;

		if (!strchr(commands[at].words, ' ')) {
			if (commands[at].minor)
				put_minor(f, commands[at].words, &any);
			continue;
		}
		i = group_line(at, line, sizeof(line));
		if (!line[0])
			put_minor(f, commands[at].words, &any);
	}
	if (any)
		fputs("\n", f);
}

void help_all(FILE *f)
{
	char line[200];

	fputs("usage: odictl COMMAND [options]\n"
	      "odi profiles this host: which service, which function, how much CPU.\n\n",
		f);
	for (size_t i = 0; i < n_commands;) {
		if (strchr(commands[i].words, ' ')) {
			i = group_line(i, line, sizeof(line));
			if (line[0])
				fprintf(f, "%s\n", line);
		} else {
			if (!commands[i].minor)
				fprintf(f, "  %-12s%s\n", commands[i].words, commands[i].summary);
			i++;
		}
	}
	print_minor(f);
	fputs("\nevery command takes --help, --json, --yes, --no-color,\n"
	      "                    --socket PATH (or ODI_SOCKET; " API_DEFAULT_SOCKET ")\n"
	      "exit: 0 done, 1 failed, 2 usage, 3 agentd not reachable, 4 not permitted\n"
	      "start with: odictl profiling enable --all && odictl top --watch\n"
	      "            odictl flamegraph -o cpu.html\n",
		f);
}

void help_group(FILE *f, const char *group)
{
	size_t n = strlen(group);

	fprintf(f, "usage: odictl %s COMMAND [options]\n\n", group);
	for (size_t i = 0; i < n_commands; i++)
		if (strncmp(commands[i].words, group, n) == 0 && commands[i].words[n] == ' ')
			fprintf(f, "  %-12s %s\n", commands[i].words + n + 1, commands[i].summary);
	fprintf(f, "\nodictl %s COMMAND --help shows one command\n", group);
}

void help_option(FILE *f, const struct option_spec *o, const char *what)
{
	char left[200];

	char letter[8] = "   ";

	if (o->letter)
		snprintf(letter, sizeof(letter), "-%c,", o->letter);
	snprintf(left, sizeof(left), "  %s --%s%s%s", letter, o->name, o->value ? " " : "",
		o->value ? o->value : "");
	out_wrap(f, left, HELP_INDENT, what ? what : o->help, HELP_WIDTH);
}

void help_command(FILE *f, const struct command *c)
{
	fprintf(f, "usage: odictl %s%s%s%s\n\n", c->words, c->positional[0] ? " " : "",
		c->positional, c->options || c->kinds ? " [options]" : "");
	out_wrap(f, "", 0, c->summary, HELP_WIDTH);
	if (c->details)
		out_wrap(f, "", 0, c->details, HELP_WIDTH);
	if (c->options)
		fputs("\n", f);
	for (const struct option_spec *o = c->options; o && o->name; o++)
		help_option(f, o, NULL);
	fprintf(f, "\nalso: --json, --socket PATH, --yes, --no-color\nexample: %s\n", c->example);
}

int help_words(struct cli *cli, int argc, char **argv)
{
	const struct command *c;
	int words;

	if (!argc) {
		help_all(stdout);
		return EXIT_DONE;
	}
	if (help_is_group(argv[0]) && (argc == 1 || argv[1][0] == '-')) {
		help_group(stdout, argv[0]);
		return EXIT_DONE;
	}
	c = args_find(cli, argc, argv, &words);
	if (!c)
		return EXIT_USAGE;
	return kinds_help(cli, c, argc - words, argv + words);
}
