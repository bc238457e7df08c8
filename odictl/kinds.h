/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Kinds of sources and types of destinations as agentd knows them, each with options of its own: how the rest of the
 * line is to be read, its --help, and "did you mean". For commands with .kinds; for others these are args_parse() and
 * help_command(). */

#include "odictl/cli.h"

struct kind {
	const char *name, *title, *summary, *example;
	const char *match_help; /* of a source kind, else "" */
	bool match_required;
	Control__OptionInfo **options; /* agentd's words for them */
	size_t n_options;
	struct option_spec *
		specs; /* the same for the command line, those of the command itself left out; ends with name NULL */
};

struct kinds {
	Control__Reply *reply; /* owns all text */
	struct kind *list;
	size_t n;
	char **texts; /* option names that differ from agentd's */
	size_t n_texts;
};

/* Asks agentd; 0 and cli->kinds, or an exit code. */
int kinds_load(struct cli *cli, int which);
struct kinds *kinds_free(struct kinds *k);
const struct kind *kinds_find(const struct kinds *k, const char *name);

/* args_parse() with the options of the kind that the words name. 0 or an exit code. */
int kinds_parse(struct cli *cli, struct args *args, const struct command *c, int argc, char **argv);
/* help_command(), or the kind's own page where argv names one. */
int kinds_help(struct cli *cli, const struct command *c, int argc, char **argv);

/* From a reply, for tests and kinds_load(). which: KINDS_SOURCE or KINDS_DESTINATION. Consumes reply. NULL: out of memory or
 * the wrong body. */
struct kinds *kinds_new(Control__Reply *reply, const struct command *c, int which);
