/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* odictl: one command table (commands.c), from which dispatch, --help and "did you mean" come. A command gets its
 * words as struct args and answers with an exit code.
 *
 * Nothing that came from agentd or from argv reaches a terminal raw: replies are cleaned where they arrive
 * (cli_call, cli_next), messages where they are printed (cli_fail), cells where they enter a table. */

#include "agentd/api/api.h"
#include "agentd/base/buf.h"
#include "agentd/base/err.h"

enum exit_code {
	EXIT_DONE = 0,
	EXIT_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_UNREACHABLE = 3,
	EXIT_NOT_PERMITTED = 4
};

/* SWITCH: as FLAG, but --x=no is said as well (the yes/no options of kinds and types). */
enum { FLAG = 0, VALUE = 1, REPEAT = 2, SWITCH = 3 };
enum { KINDS_NONE = 0, KINDS_SOURCE, KINDS_DESTINATION };

struct option_spec {
	const char *name;  /* without the dashes; NULL ends a table */
	int kind;          /* FLAG, VALUE, REPEAT (a value, may come again) */
	const char *value; /* what stands in the help: "HZ" */
	const char *help;
	char letter;         /* -n beside --lines; 0: none */
	const char *stored;  /* of a kind: what agentd calls it, where that is not name */
	bool map;            /* of a kind: key=value, kept as stored/key */
	const char *choices; /* the words it may be, with spaces between; NULL: others */
	/* Of a kind, where the word names a file and not a value: how it goes to agentd (files.h). */
	enum { FROM_WORD = 0, FROM_COPY, FROM_PATH, FROM_EITHER, FROM_NOWHERE } from;
	const char *secret_of; /* the secret that --X-file, --X-path and --X are about */
	bool hidden;           /* not in the help */
};

struct given {
	const struct option_spec *spec;
	const char *name, *value; /* value NULL: a flag */
};

struct args {
	const struct command *command;
	const char *positional[64];
	size_t n_positional;
	struct given given[64];
	size_t n_given;
};

struct cli {
	const char *socket;
	bool json, yes, help, version, color, color_errors;
	int last_error;            /* of the last cli_call(): why it failed, for a hint */
	struct api_client *client; /* connected on first use by cli_client() */
	struct kinds *kinds;       /* kinds.h: what agentd knows, once it was asked */
};

struct command {
	const char *words;      /* "source add" */
	const char *positional; /* "KIND [MATCH]" */
	size_t min, max;        /* of positional words */
	const char *summary, *details, *example;
	const struct option_spec *options;
	const struct option_spec *setting_options; /* KEY=VALUE words are named as these */
	bool by_group;                             /* its group alone ("symbols") means it */
	bool minor; /* named in one line with the others of its kind by `odictl --help` */
	int kinds;  /* its first word is a kind or type, which has options of its own (kinds.h) */
	int (*run)(struct cli *cli, struct args *args);
};

extern const struct command commands[];
extern const size_t n_commands;

/* ---- args.c: words and options; prints what is wrong and returns EXIT_USAGE ---- */
/* Takes the options that every command has out of argv, wherever they stand before "--". */
int args_globals(struct cli *cli, int *argc, char **argv);
/* The command that argv names; the words it takes in *n_words. NULL: unknown (said). */
const struct command *args_find(struct cli *cli, int argc, char **argv, int *n_words);
/* extra: further options, known only at run time; its last has name NULL; may be NULL. args borrows argv and extra. */
int args_parse(struct cli *cli, struct args *args, const struct command *c,
	const struct option_spec *extra, int argc, char **argv);
/* The first word that is no option, nor an option's value; NULL: none. */
const char *args_first_word(
	const struct command *c, const struct option_spec *extra, int argc, char **argv);
const char *args_value(const struct args *args, const char *name);
bool args_flag(const struct args *args, const char *name);
/* A number in [min, max] of option name; *ret stays as it is when it was not given. 0 or EXIT_USAGE. */
int args_number(struct cli *cli, const struct args *args, const char *name, uint64_t min,
	uint64_t max, uint64_t *ret);
/* key=value options (labels): splits at the first '='; EXIT_USAGE and a message when there is none. *key: free() it. */
int args_key_value(struct cli *cli, const char *text, char **key, const char **value);

/* ---- help.c ---- */
void help_all(FILE *f);
void help_command(FILE *f, const struct command *c);
void help_group(FILE *f, const char *group);
bool help_is_group(const char *word);
/* What is known about these words: all, a group, a command, a kind of one. An exit code. */
int help_words(struct cli *cli, int argc, char **argv);
/* ---- man.c: manual pages, as man(7). word: a group or command, NULL: odictl(1). An exit code. ---- */
int man_page(struct cli *cli, const char *word);
int man_list(void); /* the words that have pages */
#define HELP_INDENT 28
#define HELP_WIDTH  80
/* One option's lines; what: its text, NULL: its own. */
void help_option(FILE *f, const struct option_spec *o, const char *what);

/* ---- cli.c: talking to agentd, printing ---- */
struct api_client *cli_client(struct cli *cli, int *exit_code);
/* Sends; on failure prints the error and returns the exit code, else 0 with *ret (api_reply_free), cleaned. */
int cli_call(struct cli *cli, Control__Request *request, Control__Reply **ret);
/* The same with descriptors beside it, which are borrowed. */
int cli_call_with(struct cli *cli, Control__Request *request, const int *fds, size_t n_fds,
	Control__Reply **ret);
/* The next part of a stream (api_next); *ret NULL after the last one or a signal. 0 or an exit code. */
int cli_next(struct cli *cli, int timeout_ms, Control__Reply **ret);
/* Prints "odictl: ..." on stderr (and, with --json, an object on stdout) and returns exit_code. */
int cli_fail(struct cli *cli, int exit_code, const char *format, ...) PRINTF(3, 4);
/* One more line on stderr after cli_fail(): what to type. Not with --json. */
void cli_hint(struct cli *cli, const char *format, ...) PRINTF(2, 3);
int cli_exit_of(int error);
/* At the end: what was printed must have got out. Returns exit_code, or EXIT_FAILED with a message; a reader who
 * went away early (EPIPE) had enough. */
int cli_finish_output(struct cli *cli, int exit_code);

struct change_list {
	Control__Change *changes[256];
	size_t n;
	int fds[16]; /* that changes refer to, from 1; owned */
	size_t n_fds;
	uint64_t revision; /* that they were made for; 0: whatever is current */
};
/* Paths and values are copied. set NULL: remove. */
Control__Change *change_add(struct change_list *l, const char *set, const char *path_format, ...)
	PRINTF(3, 4);
void change_free(struct change_list *l);
/* Applies to the local layer, prints warnings; 0 or an exit code. *applied for callers who show more (may be NULL). */
int cli_apply(struct cli *cli, struct change_list *l, const char *reason, Control__Reply **reply);
/* Whether it would work; changes nothing. */
int cli_apply_dry(struct cli *cli, struct change_list *l);
/* 0 yes; EXIT_FAILED no; EXIT_USAGE where nobody can be asked and --yes was not given. */
int cli_confirm(struct cli *cli, const char *question);
bool cli_on_terminal(void);

/* ---- table.c ---- */
/* Columns line up; a NULL cell is empty. On a terminal the widest left-aligned columns are cut with an ellipsis
 * until a row fits the window; elsewhere everything is printed in full. */
struct table;
struct table *table_new(const char *const *headers, const char *align /* "l" or "r" a column */);
void table_row(struct table *t, const char *const *cells);
void table_print(struct table *t, FILE *f); /* and frees it */
void table_fit(
	struct table *t, FILE *f, size_t columns); /* the same for a window of that width; 0: any */
void table_free(struct table *t);

/* ---- out.c ---- */
size_t out_width(FILE *f); /* columns of the terminal that f is; 0: it is none */
size_t out_columns(
	const char *s); /* columns that a terminal shows of s; our own colour codes take none */
/* Cuts s in place to so many columns, the last one an ellipsis; s must have 3 bytes of room after its end. */
void out_cut(char *s, size_t columns);
/* A clean copy of what a stranger gave, cut to fit, for messages. */
const char *out_quote(const char *s, char *buf, size_t size);
/* "head  text": text starts at column indent and is wrapped there between words to width columns (0: not). */
void out_wrap(FILE *f, const char *head, size_t indent, const char *text, size_t width);
/* The same for stdout, wrapped to its window. */
void out_line(const char *head, size_t indent, const char *format, ...) PRINTF(3, 4);
/* All text in a message becomes clean (text_clean): no control characters, valid UTF-8. */
void out_clean(ProtobufCMessage *message);
const char *out_ago(uint64_t unix_ns, char *buf, size_t size);            /* "3 s ago", "never" */
const char *out_duration_since(uint64_t unix_ns, char *buf, size_t size); /* "1h 30m" */
const char *out_time(uint64_t unix_ns, char *buf, size_t size);           /* local time */
const char *out_number(uint64_t n, char *buf, size_t size);               /* 12,345 */
const char *out_batches(uint64_t n, char *buf, size_t size);  /* "1 batch", "12 batches" */
const char *out_seconds(uint64_t ns, char *buf, size_t size); /* "12.3 s" */
const char *out_bold(const struct cli *cli), *out_red(const struct cli *cli),
	*out_dim(const struct cli *cli), *out_plain(const struct cli *cli);

/* ---- json.c: a writer ---- */
struct json {
	struct buf out;
	unsigned depth;
	bool first, compact; /* compact: on one line */
};
void json_init(struct json *j);
void json_init_compact(struct json *j);
void json_open(struct json *j, const char *key, char bracket); /* '{' or '[' */
void json_close(struct json *j, char bracket);                 /* '}' or ']' */
void json_str(struct json *j, const char *key, const char *value);
void json_uint(struct json *j, const char *key, uint64_t value);
void json_num(struct json *j, const char *key, double value);
void json_bool(struct json *j, const char *key, bool value);
void json_time(struct json *j, const char *key, uint64_t unix_ns); /* RFC 3339 in UTC, null for 0 */
int json_print(struct json *j, FILE *f);                           /* a newline after it; frees */
void json_escape(struct buf *b, const char *s);

/* ---- commands ---- */
int cmd_status(struct cli *cli, struct args *args);
int cmd_profiling_enable(struct cli *cli, struct args *args);
int cmd_profiling_disable(struct cli *cli, struct args *args);
int cmd_profiling_set(struct cli *cli, struct args *args);
int cmd_profiling_status(struct cli *cli, struct args *args);
int cmd_source_add(struct cli *cli, struct args *args);
int cmd_source_list(struct cli *cli, struct args *args);
int cmd_source_show(struct cli *cli, struct args *args);
int cmd_source_enable(struct cli *cli, struct args *args);
int cmd_source_disable(struct cli *cli, struct args *args);
int cmd_source_remove(struct cli *cli, struct args *args);
int cmd_source_candidates(struct cli *cli, struct args *args);
int cmd_destination_types(struct cli *cli, struct args *args);
int cmd_destination_add(struct cli *cli, struct args *args);
int cmd_destination_test(struct cli *cli, struct args *args);
int cmd_destination_list(struct cli *cli, struct args *args);
int cmd_destination_show(struct cli *cli, struct args *args);
int cmd_destination_enable(struct cli *cli, struct args *args);
int cmd_destination_disable(struct cli *cli, struct args *args);
int cmd_destination_remove(struct cli *cli, struct args *args);
int cmd_destination_rename(struct cli *cli, struct args *args);
int cmd_destination_set(struct cli *cli, struct args *args);
int cmd_spool_list(struct cli *cli, struct args *args);
int cmd_spool_show(struct cli *cli, struct args *args);
int cmd_policy_show(struct cli *cli, struct args *args);
int cmd_spool_drop(struct cli *cli, struct args *args);
int cmd_top(struct cli *cli, struct args *args);
int cmd_flamegraph(struct cli *cli, struct args *args);
int cmd_metrics(struct cli *cli, struct args *args);
int cmd_symbols_list(struct cli *cli, struct args *args);
int cmd_symbols_fetch(struct cli *cli, struct args *args);
int cmd_symbols_add(struct cli *cli, struct args *args);
int cmd_symbols_remove(struct cli *cli, struct args *args);
int cmd_host_label(struct cli *cli, struct args *args);
int cmd_config_show(struct cli *cli, struct args *args);
int cmd_config_get(struct cli *cli, struct args *args);
int cmd_config_set(struct cli *cli, struct args *args);
int cmd_config_unset(struct cli *cli, struct args *args);
int cmd_config_apply(struct cli *cli, struct args *args);
int cmd_config_export(struct cli *cli, struct args *args);
int cmd_config_diff(struct cli *cli, struct args *args);
int cmd_config_validate(struct cli *cli, struct args *args);
int cmd_config_rollback(struct cli *cli, struct args *args);
int cmd_config_keys(struct cli *cli, struct args *args);
int cmd_support_bundle(struct cli *cli, struct args *args);
int cmd_history(struct cli *cli, struct args *args);
int cmd_logs(struct cli *cli, struct args *args);
int cmd_version(struct cli *cli, struct args *args);
int cmd_doctor(struct cli *cli, struct args *args);
int cmd_completion(struct cli *cli, struct args *args);
int cmd_help(struct cli *cli, struct args *args);
