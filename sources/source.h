/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Sources say which workloads are profiled and what their service is called. A kind is one file here: a
 * struct of functions and a table of options. A set of sources is immutable: a reload builds a new one.
 * Runs in agentd. */

#include "agentd/base/err.h"
#include "agentd/process/process.h"

/* ---- options: one table a kind; --help, validation and documentation come from it. Destinations use the
 * same description (their YAML becomes one). */
enum option_type {
	OPTION_STRING,
	OPTION_BOOL,
	OPTION_UINT,
	OPTION_DURATION,
	OPTION_SIZE,
	OPTION_ENUM,
	OPTION_URL,
	OPTION_HOSTPORT,
	OPTION_SECRET, /* a reference: "secret:ID" (kept by agentd), "file:/PATH", "cred:NAME" (systemd's); never the value itself */
	OPTION_MAP, /* key=value list; stored as NAME/KEY entries; option_check() takes one KEY=VALUE */
	OPTION_ENDPOINT,   /* HOST:PORT, or a URL */
	OPTION_FILE,       /* a file's contents (PEM), by the same references as a secret */
	OPTION_SECRET_MAP, /* as OPTION_MAP, but each value is a secret's reference */
};

struct option_desc {
	const char *name; /* as in YAML and `--name` */
	enum option_type type;
	bool required;
	const char *fallback;      /* NULL: none */
	const char *help;          /* one line */
	const char *const *values; /* OPTION_ENUM: NULL-terminated */
	uint64_t min, max;         /* OPTION_UINT; max 0: no bound */
};

struct option_value {
	const char *name, *value;
};

/* A reference to a secret or file as above. */
bool option_is_reference(const char *value);
/* Checks one value against its description; 0 or -EINVAL with what was expected. */
int option_check(const struct option_desc *desc, const char *value, struct err_text *err);
const struct option_desc *option_find(
	const struct option_desc *table, const char *name); /* table ends with name NULL */

/* ---- names and labels --------------------------------------------------------------------------------- */

#define SOURCE_SERVICE_MAX     255 /* bytes of a service's name */
#define SOURCE_LABEL_KEY_MAX   128
#define SOURCE_LABEL_VALUE_MAX 256
#define SOURCE_OWN_PREFIX      "odi." /* attributes that only we make */

/* A label of a source or of the host: key [A-Za-z_][A-Za-z0-9_.-/]*, value clean UTF-8, not empty;
 * "service_name", "service.name" and "odi.*" are refused. -EINVAL with what to do. */
int source_label_check(const char *key, const char *value, struct err_text *err);
bool source_label_key_ok(const char *key); /* the pattern alone */
int source_service_check(const char *name, struct err_text *err);

/* ---- kinds ----------------------------------------------------------------------------------------- */

struct source;

/* Most specific first: the order in which claims of several sources are settled. */
enum source_rank {
	SOURCE_RANK_PID,
	SOURCE_RANK_PROCESS,
	SOURCE_RANK_CONTAINER,
	SOURCE_RANK_SYSTEMD,
	SOURCE_RANK_CGROUP,
	SOURCE_RANK_HOST,
};

struct source_kind {
	const char *name;       /* "systemd" */
	const char *summary;    /* one line */
	const char *example;    /* "odictl source add systemd nginx" */
	const char *match_help; /* what MATCH is: "unit, glob, template instance or slice" */
	bool match_required;
	const struct option_desc *options;
	size_t rule_size; /* bytes of the kind's own rule in struct source; zeroed */
	/* Fills source->rule from match and options. */
	int (*parse)(struct source *source, struct err_text *err);
	void (*deinit)(struct source *source); /* may be NULL */
	enum source_rank (*rank)(const struct source *source);
	bool (*match)(const struct source *source, struct process_table *table,
		const struct image *image);
	/* The service's name where the source gives none and the process names none; into out, may be "". */
	void (*default_service)(
		const struct source *source, const struct image *image, char *out, size_t size);
};

/* All kinds, NULL-terminated, in the order of `source add --help`. */
extern const struct source_kind *const source_kinds[];
const struct source_kind *source_kind_find(const char *name);

struct source {
	char *name; /* unique */
	const struct source_kind *kind;
	char *match; /* "" for host */
	bool enabled;
	char *service_name;           /* "" none given */
	struct option_value *options; /* the kind's, as set */
	size_t n_options;
	struct option_value *labels;
	size_t n_labels;
	uint32_t types; /* 1 << enum sample_type; 0: the global ones */
	bool per_process, per_thread,
		per_cpu; /* pid and executable, thread, CPU as attributes: only on request */
	uint64_t order;  /* age: smaller is older */
	void *rule;
	/* Run-time figures, kept over reloads by name (source_set_inherit). */
	uint64_t samples, last_sample_unix_ns;
};

struct source_spec { /* what the configuration says of one */
	const char *name, *kind, *match, *service_name;
	bool enabled;
	const struct option_value *options;
	size_t n_options;
	const struct option_value *labels;
	size_t n_labels;
	uint64_t order;
};

/* Options every kind has: service-name, label.*, types, per-process, per-thread, per-cpu. */
extern const struct option_desc source_common_options[];

struct source_set;
int source_set_new(struct source_set **ret);
struct source_set *source_set_free(struct source_set *set);
DEFINE_FREEP(source_set_freep, struct source_set *, source_set_free)
/* Validates wholly: unknown kind (with "did you mean"), match, options, labels. Strings are copied. */
int source_set_add(struct source_set *set, const struct source_spec *spec, struct err_text *err);
size_t source_set_size(const struct source_set *set);
struct source *source_set_at(struct source_set *set, size_t i);
struct source *source_set_find(struct source_set *set, const char *name);
void source_set_inherit(struct source_set *set, const struct source_set *old);
/* The source that takes the image (enabled ones only): most specific, then oldest; NULL none. claims, if
 * asked for, gets all enabled sources that match, winner first (at most max). */
struct source *source_set_match(struct source_set *set, struct process_table *table,
	const struct image *image, struct source **claims, size_t max, size_t *n_claims);

/* ---- the resource of a sample ------------------------------------------------------------------------- */

struct resource_attribute {
	char *key, *value;
	bool is_int;
};

struct host_facts {
	char *name, *id; /* host.name; host.id from /etc/machine-id, hashed as machine-id(5) asks */
	struct option_value *labels; /* `odictl host label k=v` */
	size_t n_labels;
};

/* Builds the attributes of (source, image), sorted by key, each key once: service.name (the source's, else
 * OTEL_SERVICE_NAME, service.name within OTEL_RESOURCE_ATTRIBUTES, unit, container or executable name), all of
 * OTEL_RESOURCE_ATTRIBUTES (but service.instance.id), source labels, host labels, host.name, host.id,
 * container.id, container.name, k8s.*, systemd.unit; process.pid, process.executable.name/path only if
 * source->per_process. Labels of the source win over the process's attributes, those over the host's. Never a
 * key "service_name" or one of "odi.*". Caller frees with resource_attributes_free(). */
int source_resource(const struct source *source, const struct image *image,
	const struct host_facts *host, struct resource_attribute **ret, size_t *n);
void resource_attributes_free(struct resource_attribute *list, size_t n);
