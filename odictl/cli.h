/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* odictl: one command table (main.c), from which dispatch, --help and "did you mean" come. A command gets its
 * words as struct args and answers with an exit code. */

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

enum { FLAG = 0, VALUE = 1, REPEAT = 2 };

struct option_spec {
	const char *name;  /* without the dashes; NULL ends a table */
	int kind;          /* FLAG, VALUE, REPEAT (a value, may come again) */
	const char *value; /* what stands in the help: "HZ" */
	const char *help;
};

struct given {
	const char *name, *value; /* value NULL: a flag */
};

struct args {
	const struct command *command;
	const char *positional[16];
	size_t n_positional;
	struct given given[64];
	size_t n_given;
};

struct cli {
	const char *socket;
	bool json, yes, help, color;
	struct api_client *client; /* connected on first use by cli_client() */
};

struct command {
	const char *words;      /* "source add" */
	const char *positional; /* "KIND [MATCH]" */
	size_t min, max;        /* of positional words */
	const char *summary, *details, *example;
	const struct option_spec *options;
	bool open_options; /* unknown --x are kept in given[]: the kind or type knows them */
	int (*run)(struct cli *cli, struct args *args);
	bool group_help; /* `odictl source` alone shows the group */
};

extern const struct command commands[];
extern const size_t n_commands;

/* ---- args.c ---- */
/* The command that argv names; the words it takes in *n_words. NULL: unknown (said on stderr). */
const struct command *args_find(int argc, char **argv, int *n_words);
/* extra: option tables known only at run time (kinds, types); NULL-terminated list or NULL. */
int args_parse(struct args *args, const struct command *c, int argc, char **argv, struct cli *cli);
const char *args_value(const struct args *args, const char *name);
bool args_flag(const struct args *args, const char *name);
/* key=value options (labels): splits at the first '='; false and a message when there is none. */
bool args_key_value(const char *text, char *key, size_t key_size, const char **value);

/* ---- help.c ---- */
void help_all(FILE *f);
void help_command(FILE *f, const struct command *c);
void help_group(FILE *f, const char *group);
bool help_is_group(const char *word);

/* ---- cli.c: talking to agentd, printing ---- */
struct api_client *cli_client(struct cli *cli, int *exit_code);
/* Sends; on failure prints the error and returns the exit code, else 0 with *ret (api_reply_free). */
int cli_call(struct cli *cli, Control__Request *request, Control__Reply **ret);
int cli_fail(struct cli *cli, int exit_code, const char *format, ...) PRINTF(3, 4);
int cli_exit_of(int error);

struct change_list {
	Control__Change *changes[256];
	size_t n;
};
/* Paths and values are copied. set NULL: remove. */
Control__Change *change_add(struct change_list *l, const char *set, const char *path_format, ...)
	PRINTF(3, 4);
void change_free(struct change_list *l);
/* Applies to the local layer, prints warnings; 0 or an exit code. *applied for callers who show more (may be NULL). */
int cli_apply(struct cli *cli, struct change_list *l, const char *reason, Control__Reply **reply);
bool cli_confirm(struct cli *cli, const char *question);
bool cli_on_terminal(void);

/* ---- out.c ---- */
struct table; /* columns line up; a NULL cell is empty */
struct table *table_new(const char *const *headers, const char *align /* "l" or "r" a column */);
void table_row(struct table *t, const char *const *cells);
void table_print(struct table *t, FILE *f); /* and frees it */
void table_free(struct table *t);
const char *out_ago(uint64_t unix_ns, char *buf, size_t size);  /* "3 s ago", "never" */
const char *out_time(uint64_t unix_ns, char *buf, size_t size); /* local time */
const char *out_number(uint64_t n, char *buf, size_t size);     /* 12,345 */
const char *out_seconds(uint64_t ns, char *buf, size_t size);   /* "12.3 s" */
const char *out_bold(const struct cli *cli), *out_red(const struct cli *cli),
	*out_dim(const struct cli *cli), *out_plain(const struct cli *cli);

/* ---- json.c: a writer ---- */
struct json {
	struct buf out;
	unsigned depth;
	bool first;
};
void json_init(struct json *j);
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
int cmd_top(struct cli *cli, struct args *args);
int cmd_flamegraph(struct cli *cli, struct args *args);
int cmd_host_label(struct cli *cli, struct args *args);
int cmd_history(struct cli *cli, struct args *args);
int cmd_logs(struct cli *cli, struct args *args);
int cmd_version(struct cli *cli, struct args *args);
int cmd_help(struct cli *cli, struct args *args);
