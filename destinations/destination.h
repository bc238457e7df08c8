/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Destination types: described by YAML alone. destinations/catalogue/NAME.yaml (built in) gives display name, summary,
 * signals, transport (one of a few written in C), encoder settings, limits, and fields; from it come `destination add
 * --help`, validation and documentation. A new type that speaks a known protocol needs no C. */

#include "agentd/base/err.h"
#include "sources/source.h" /* struct option_desc, option_value */

struct destination_type {
	const char *name, *display_name, *summary;
	const char *transport;        /* "otlphttp" */
	const char *const *signals;   /* NULL-terminated; "PROFILES" */
	const char *default_endpoint; /* of the field that says where; "" none */
	const char *endpoint_option;  /* "url" */
	const char *path; /* appended to a URL without a path: "/v1development/profiles" */
	const char *content_type, *compression;
	const char *not_found_hint;                                  /* "is this a Pyroscope?" */
	uint64_t max_profile_bytes, max_profile_samples, max_age_ns; /* 0: no bound */
	const char *example;
	struct option_desc *options; /* ends with name NULL */
	const char *const *
		option_headers; /* one an option: HTTP header it becomes ("X-Scope-OrgID"), or NULL */
};

/* Parsed on first use from what is built in; NULL-terminated; owned by the room. */
const struct destination_type *const *destination_types(void);
const struct destination_type *destination_type_find(const char *name);
/* Checks a destination's options against its type: unknown (with "did you mean"), wrong, missing. */
int destination_check(
	const char *type, const struct option_value *options, size_t n, struct err_text *err);
/* The value in force: set, else the field's default, else "". */
const char *destination_option(const struct destination_type *type,
	const struct option_value *options, size_t n, const char *name);
/* Parses one catalogue file; for tests and operators' own types later. Errors say name:line and what was expected. */
int destination_type_parse(const char *name, const char *yaml, size_t len,
	struct destination_type **ret, struct err_text *err);
struct destination_type *destination_type_free(struct destination_type *t);
/* Where a destination sends to, as people read it: scheme, host, port and path, and nothing of a user in the URL. Said
 * by the options alone: the exporter need not run. */
void destination_endpoint(const struct destination_type *type, const struct option_value *options,
	size_t n, char *out, size_t size);
