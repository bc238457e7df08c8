/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Destination types: described by YAML alone. destinations/catalogue/NAME.yaml (built in) gives display name, summary,
 * signals, transport (one of a few written in C), limits, and fields; from it come `destination add --help`,
 * validation and documentation. A new type that speaks a known protocol needs no C; operators add theirs as files.
 *
 * A destination's options are said in three forms. In documents a secret or file is a reference (OPTION_SECRET). For the
 * exporter agentd puts the contents in its place, makes the endpoint's option a whole URL, turns `secret-headers/X` into
 * `headers/X`, and adds options of its own, whose names begin with '.': `.type` (the YAML of a type that is not built
 * in) and `.problem` (why the destination cannot be used now, in words). */

#include "agentd/base/buf.h"
#include "agentd/base/err.h"
#include "sources/source.h" /* struct option_desc, option_value */

struct destination_type {
	const char *name, *display_name, *summary;
	const char *transport;      /* "otlphttp", "otlpgrpc", "parca", "file", "debug", "local" */
	const char *const *signals; /* NULL-terminated; "PROFILES" */
	const char *default_endpoint; /* of the field that says where; "" none */
	const char *endpoint_option;  /* "url"; "": it goes nowhere */
	/* appended to a URL without a path: "/v1development/profiles"; {field} stands for that field's value */
	const char *path;
	const char *content_type, *compression;
	const char *not_found_hint; /* "is this a Pyroscope?" */
	const char *cost;           /* what it takes that others do not; "" */
	bool timestamps;            /* its samples go unaggregated, each with its time */
	uint64_t max_profile_bytes, max_profile_samples, max_age_ns; /* 0: no bound */
	const char *example;
	struct option_desc *options; /* ends with name NULL; own ones, groups', common ones */
	size_t n_own;                /* of them before the common ones */
	const char *const *
		option_headers; /* one an option: HTTP header it becomes ("X-Scope-OrgID"), or NULL */
	const char *const *with; /* groups of fields, as the file has them; NULL none */
	const char *yaml;        /* an operator's: what its file holds; NULL: built in */
};

/* Options that every type has: how what goes there is shaped. Ends with name NULL. */
extern const struct option_desc destination_common_options[];

/* Those built in, parsed on first use, and those that were added; NULL-terminated; owned by the room. */
const struct destination_type *const *destination_types(void);
const struct destination_type *destination_type_find(const char *name);
/* Reads an operator's types, *.yaml in folder, anew; none there: none. Each must be root's (or the caller's own) and
 * writable by nobody else, and so must the folder. One that is refused is left out (an older one of its name stays):
 * how many; the text says of the first. */
int destination_types_load(const char *folder, struct err_text *err);
/* The type of what agentd handed over: one that came with it (.type) is added first. NULL and why: there is none, or
 * the destination cannot be used (.problem). */
const struct destination_type *destination_adopt(
	const char *type, const struct option_value *options, size_t n, struct err_text *err);
bool destination_is_remote(const struct destination_type *t); /* it is reached over the network */
/* "basic, bearer, client certificate" */
const char *destination_auth(const struct destination_type *t, char *out, size_t size);
/* Checks a destination's options against its type: unknown (with "did you mean"), wrong, missing. */
int destination_check(
	const char *type, const struct option_value *options, size_t n, struct err_text *err);
/* Refuses what looks like a secret where a reference belongs: a header such as Authorization. The text says how it is
 * set; it never holds the value. For what is new, not for what is stored already. */
int destination_check_secrets(
	const char *type, const struct option_value *options, size_t n, struct err_text *err);
/* The value in force: set, else the field's default, else "". */
const char *destination_option(const struct destination_type *type,
	const struct option_value *options, size_t n, const char *name);
bool destination_flag(const struct destination_type *type, const struct option_value *options,
	size_t n, const char *name);
/* Parses one catalogue file. Errors say name:line and what was expected. */
int destination_type_parse(const char *name, const char *yaml, size_t len,
	struct destination_type **ret, struct err_text *err);
struct destination_type *destination_type_free(struct destination_type *t);
/* The whole URL, with scheme, port and path; for types that are remote. -EINVAL: the endpoint is none. */
int destination_url(const struct destination_type *type, const struct option_value *options,
	size_t n, struct buf *out);
/* Where a destination sends to, as people read it: scheme, host, port and path, and nothing of a user in the URL, nor
 * its query. Said by the options alone: the exporter need not run. */
void destination_endpoint(const struct destination_type *type, const struct option_value *options,
	size_t n, char *out, size_t size);
