/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What sources and destinations have in common: objects with a name, pairs, a switch. `what`: "source". */

#include "odictl/cli.h"

/* 0, or EXIT_USAGE with a message when name cannot be one. */
int named_check(struct cli *cli, const char *what, const char *name);
int named_set_enabled(struct cli *cli, const char *what, const char *name, bool enabled);
/* The change for one option, as KEY=VALUE, or KEY- for the default again. 0 or an exit code. */
int named_option_pair(struct cli *cli, struct change_list *l, const char *what, const char *name,
	const char *pair);
/* Applies changes to one object and says so: "destination x is set so". */
int named_change(struct cli *cli, const char *what, const char *name, struct change_list *l,
	const char *verb, const char *done);
/* Asks on a terminal, needs --yes elsewhere. */
int named_remove(struct cli *cli, const char *what, const char *name);
/* What a change did: text and the notes, or {name, changed, revision, warnings}. name NULL: without one. */
int named_print_change(
	struct cli *cli, const Control__Applied *a, const char *name, const char *text);
void named_print_notes(const Control__Applied *a);
void named_json_pairs(struct json *j, const char *key, Control__KeyValue **list, size_t n);
void named_json_strings(struct json *j, const char *key, char **list, size_t n);
void named_print_pairs(const char *title, Control__KeyValue **list, size_t n);
/* The change for one option of a kind or type: options/NAME, or options/NAME/KEY for pairs; field: an option that is no
 * option of the kind but of every source ("types"). 0 or an exit code. */
int named_option_change(struct cli *cli, struct change_list *l, const char *what, const char *name,
	const struct given *g, bool field);
