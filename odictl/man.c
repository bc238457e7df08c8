/* SPDX-License-Identifier: Apache-2.0 */

/* Manual pages, from the same table as --help: odictl(1), and one for each group and command, odictl-source(1). The
 * language is man(7); every text of ours is escaped, so that a leading dot or a backslash stays what it is. */

#include "odictl/cli.h"

/* Text as man(7) shows it. */
static void put(FILE *f, const char *text)
{
	for (const char *p = text; *p; p++) {
		if (*p == '\\')
			fputs("\\e", f);
		else if (*p == '-')
			fputs("\\-", f);
		else if ((*p == '.' || *p == '\'') && (p == text || p[-1] == '\n'))
			fprintf(f, "\\&%c", *p);
		else
			fputc(*p, f);
	}
}

static void line(FILE *f, const char *request, const char *text)
{
	fputs(request, f);
	put(f, text);
	fputc('\n', f);
}

static void head(FILE *f, const char *page, const char *summary)
{
	char title[80];
	size_t i = 0;

	for (; page[i] && i + 1 < sizeof(title); i++)
		title[i] = (char)(page[i] >= 'a' && page[i] <= 'z' ? page[i] - 'a' + 'A' : page[i]);
	title[i] = '\0';
	fputs(".\\\" made from odictl's command table\n", f);
	fprintf(f, ".TH \"%s\" 1 \"\" \"odi " ODI_VERSION "\" \"odi\"\n.SH NAME\n", title);
	put(f, page);
	fputs(" \\- ", f);
	put(f, summary);
	fputs("\n", f);
}

static void put_option(FILE *f, const struct option_spec *o)
{
	fputs(".TP\n", f);
	if (o->letter)
		fprintf(f, "\\fB\\-%c\\fR, ", o->letter);
	fputs("\\fB\\-\\-", f);
	put(f, o->name);
	fputs("\\fR", f);
	if (o->value) {
		fputs(" \\fI", f);
		put(f, o->value);
		fputs("\\fR", f);
	}
	fputc('\n', f);
	line(f, "", o->help);
}

static void usage(FILE *f, const struct command *c)
{
	fputs("\\fBodictl ", f);
	put(f, c->words);
	fputs("\\fR", f);
	if (c->positional[0]) {
		fputs(" \\fI", f);
		put(f, c->positional);
		fputs("\\fR", f);
	}
	fputs(c->options || c->kinds ? " [options]\n" : "\n", f);
}

static void put_command(FILE *f, const struct command *c)
{
	fputs(".SS ", f);
	usage(f, c);
	line(f, "", c->summary);
	if (c->details) {
		fputs(".PP\n", f);
		line(f, "", c->details);
	}
	for (const struct option_spec *o = c->options; o && o->name; o++)
		put_option(f, o);
	fputs(".PP\nExample:\n.PP\n.RS 4\n.nf\n", f);
	line(f, "", c->example);
	fputs(".fi\n.RE\n", f);
}

/* What every page ends with. */
static void tail(FILE *f)
{
	fputs(".SH \"OPTIONS OF EVERY COMMAND\"\n", f);
	fputs(".TP\n\\fB\\-\\-json\\fR\nthe answer, or the error, as JSON on standard output\n", f);
	fputs(".TP\n\\fB\\-y\\fR, \\fB\\-\\-yes\\fR\nask nothing\n", f);
	fputs(".TP\n\\fB\\-\\-no\\-color\\fR\nwithout colours, also where the output is a terminal\n",
		f);
	fputs(".TP\n\\fB\\-\\-socket\\fR \\fIPATH\\fR\nwhere agentd listens (default ", f);
	put(f, API_DEFAULT_SOCKET);
	fputs(")\n.SH \"EXIT STATUS\"\n0 done, 1 failed, 2 wrong usage, 3 agentd is not reachable, "
	      "4 not permitted.\n",
		f);
	fputs(".SH ENVIRONMENT\n.TP\n\\fBODI_SOCKET\\fR\nas \\-\\-socket\n.TP\n\\fBNO_COLOR\\fR\nnot "
	      "empty: without colours\n",
		f);
}

/* The pages that there are besides odictl(1): groups, and commands of one word. */
static bool begins_page(size_t i, char *page, size_t size)
{
	size_t n = strcspn(commands[i].words, " ");

	snprintf(page, size, "%.*s", (int)n, commands[i].words);
	return i == 0 || strncmp(commands[i - 1].words, commands[i].words, n) != 0 ||
		(commands[i - 1].words[n] && commands[i - 1].words[n] != ' ');
}

static void whole(FILE *f)
{
	char page[64];

	head(f, "odictl",
		"says what the profiler of this host profiles, and shows where CPU time goes");
	fputs(".SH SYNOPSIS\n\\fBodictl\\fR \\fICOMMAND\\fR [options]\n.SH DESCRIPTION\n", f);
	line(f, "",
		"odictl talks to agentd, the daemon that samples this host's CPUs. It turns profiling on and "
		"off, chooses workloads (sources) and where their profiles are sent (destinations), and draws "
		"what was sampled, also without any destination.");
	fputs(".PP\nTo begin with:\n.PP\n.RS 4\n.nf\n", f);
	line(f, "", "odictl profiling enable --all && odictl top --watch");
	line(f, "", "odictl flamegraph -o cpu.html");
	fputs(".fi\n.RE\n.SH COMMANDS\n", f);
	for (size_t i = 0; i < n_commands; i++) {
		fputs(".TP\n\\fB", f);
		put(f, commands[i].words);
		fputs("\\fR\n", f);
		line(f, "", commands[i].summary);
	}
	tail(f);
	fputs(".SH \"SEE ALSO\"\n", f);
	for (size_t i = 0; i < n_commands; i++)
		if (begins_page(i, page, sizeof(page)))
			fprintf(f, "\\fBodictl\\-%s\\fR(1),\n", page);
	fputs("\\fBagentd\\fR(8)\n", f);
}

int man_page(struct cli *cli, const char *word)
{
	size_t n = word ? strlen(word) : 0;
	char page[64], what[200];
	const struct command *first = NULL;
	char quoted[80];

	if (!word) {
		whole(stdout);
		return EXIT_DONE;
	}
	for (size_t i = 0; i < n_commands && !first; i++)
		if (strncmp(commands[i].words, word, n) == 0 &&
			(!commands[i].words[n] || commands[i].words[n] == ' '))
			first = &commands[i];
	if (!first)
		return cli_fail(cli, EXIT_USAGE,
			"there is no command '%s'; odictl --help lists all",
			out_quote(word, quoted, sizeof(quoted)));
	snprintf(page, sizeof(page), "odictl-%s", word);
	snprintf(what, sizeof(what), "%s", first->words[n] ? "commands of odictl" : first->summary);
	head(stdout, page, what);
	fputs(".SH SYNOPSIS\n.nf\n", stdout);
	for (const struct command *c = first; c < commands + n_commands; c++)
		if (strncmp(c->words, word, n) == 0 && (!c->words[n] || c->words[n] == ' '))
			usage(stdout, c);
	fputs(".fi\n.SH DESCRIPTION\n", stdout);
	for (const struct command *c = first; c < commands + n_commands; c++)
		if (strncmp(c->words, word, n) == 0 && (!c->words[n] || c->words[n] == ' '))
			put_command(stdout, c);
	tail(stdout);
	fputs(".SH \"SEE ALSO\"\n\\fBodictl\\fR(1), \\fBagentd\\fR(8)\n", stdout);
	return EXIT_DONE;
}

int man_list(void)
{
	char page[64];

	for (size_t i = 0; i < n_commands; i++)
		if (begins_page(i, page, sizeof(page)))
			puts(page);
	return EXIT_DONE;
}
