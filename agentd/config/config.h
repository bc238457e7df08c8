/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Configuration: layered documents, each value with its origin, and the one transaction by which they change.
 *
 * A document is a flat, sorted set of (path, value) pairs. Paths are segments joined by '/':
 *   profiling/{enabled,rate,types,interval,kernel-frames,max-frames,unwind-memory,budget,demangle}
 *   symbols/{fetch,urls,paths}   urls are separated by blanks, paths by colons
 *   local/{max-size,max-age}   exporter/{spool-bytes,spool-age,min-free}   host/labels/KEY
 *   shaping/NAME               options that all types of destinations have, for all that do not set them
 *   metrics/listen             containers/docker-root
 *   sources/NAME/{kind,match,enabled,service-name,types,per-process,per-thread,per-cpu,order}
 *   sources/NAME/options/KEY   sources/NAME/labels/KEY
 *   destinations/NAME/{type,enabled,order}   destinations/NAME/options/KEY[/SUBKEY for maps]
 * A KEY in the last segment may itself hold '/' in a label (everything after labels/ is the key). `order` is set when
 * a named object is added (unix ns; the index for files), smaller is older. config_schema() lists all with default and
 * help. Layers, weakest first: built in < packaged < files < local < remote. A named object (source, destination)
 * belongs wholly to the strongest layer that has it. What `files` sets no Apply may change: refused with path:line. */

#include "agentd/base/buf.h"
#include "agentd/base/err.h"
#include "agentd/symbol/demangle.h"
#include "sources/source.h"

enum config_layer {
	LAYER_BUILT_IN,
	LAYER_PACKAGED,
	LAYER_FILES,
	LAYER_LOCAL,
	LAYER_REMOTE,
	LAYERS
};
const char *config_layer_name(enum config_layer layer);
int config_layer_parse(const char *name, enum config_layer *ret);

/* ---- documents ---------------------------------------------------------------------------------------- */

#define CONFIG_PATH_MAX    512
#define CONFIG_VALUE_MAX   4096
#define CONFIG_MAX_ENTRIES 20000
#define CONFIG_MAX_URLS    8
#define CONFIG_MAX_PATHS   64

struct config_entry {
	const char *path, *value;
	const char *file; /* that it came from; NULL none (or read before the last start) */
	uint32_t line;    /* in it; 0 none */
};

struct config_doc;
int config_doc_new(struct config_doc **ret);
struct config_doc *config_doc_free(struct config_doc *d);
DEFINE_FREEP(config_doc_freep, struct config_doc *, config_doc_free)
int config_doc_copy(const struct config_doc *d, struct config_doc **ret);
int config_doc_set(struct config_doc *d, const char *path, const char *value, uint32_t line);
/* file: copied; NULL none. */
int config_doc_set_at(
	struct config_doc *d, const char *path, const char *value, const char *file, uint32_t line);
/* Removes path and everything below it; returns how many entries went. */
size_t config_doc_remove(struct config_doc *d, const char *path);
const struct config_entry *config_doc_get(const struct config_doc *d, const char *path);
bool config_doc_has(const struct config_doc *d, const char *path); /* at or below */
size_t config_doc_size(const struct config_doc *d);
const struct config_entry *config_doc_at(const struct config_doc *d, size_t i); /* sorted by path */
/* Canonical text, a line an entry (path, '=', value; \n, \\ escaped), as the store keeps it. */
int config_doc_encode(const struct config_doc *d, struct buf *out);
int config_doc_decode(const char *text, size_t len, struct config_doc **ret, struct err_text *err);
/* YAML: profiling:, local:, host: {labels:}, sources: and destinations: as lists of {name, ...} or as maps by name;
 * Odigos' spellings serviceName, kind, config accepted. Errors say path:line:column and what was expected. */
int config_doc_from_yaml(const char *file_name, const char *text, size_t len,
	struct config_doc **ret, struct err_text *err);
enum config_shape {
	CONFIG_SHAPE_SETTINGS,     /* the whole, as above */
	CONFIG_SHAPE_SOURCES,      /* of sources.d: a list of sources, one, or a map by name */
	CONFIG_SHAPE_DESTINATIONS, /* of destinations.d: the same */
};
/* first_order: of its first source or destination. */
int config_doc_from_yaml_as(enum config_shape shape, const char *file_name, const char *text,
	size_t len, uint64_t first_order, struct config_doc **ret, struct err_text *err);

/* ---- the effective configuration, typed ---------------------------------------------------------------- */

struct config_destination {
	char *name, *type;
	bool enabled;
	uint64_t order;
	struct option_value *options; /* as set; defaults are the catalogue's */
	size_t n_options;
};

struct config {
	uint64_t revision;
	struct {
		bool enabled;
		unsigned rate_hz;
		uint32_t types;       /* 1 << enum sample_type */
		uint64_t interval_ns; /* 1 s to 10 min */
		bool kernel_frames;
		unsigned max_frames; /* of user space; 1 to SAMPLE_MAX_USER */
		uint64_t
			unwind_memory; /* bytes of rows in the kernel; a power of two, 1 MiB to 1 GiB */
		uint32_t budget_ppm; /* of the host's CPU time, in millionths; 0: no budget */
		enum symbol_demangle demangle;
	} profiling;
	struct {
		bool fetch;     /* debug files are asked for by build id at urls */
		char **urls;    /* http or https, at least one; best first, each once */
		size_t n_urls;  /* at most CONFIG_MAX_URLS */
		char **paths;   /* debug files, and folders of them; absolute, each once */
		size_t n_paths; /* at most CONFIG_MAX_PATHS */
	} symbols;
	struct {
		uint64_t max_bytes, max_age_ns;
	} local;
	struct {
		uint64_t spool_bytes, spool_age_ns; /* of batches that wait for destinations */
		unsigned min_free_permille;         /* of the disk, that they leave free */
	} exporter;
	struct option_value *shaping; /* those that are not the default */
	size_t n_shaping;
	char *metrics_listen; /* IP:PORT; "" nowhere */
	char *docker_root;
	struct option_value *host_labels;
	size_t n_host_labels;
	struct source_set *sources;
	struct config_destination *destinations;
	size_t n_destinations;
};

struct config_value { /* one effective value with where it comes from */
	const char *path, *value;
	const char *shown; /* what may be seen of it: secrets are "(secret)" */
	const char *
		reference; /* where agentd has the secret from, which is none; NULL: no reference */
	enum config_layer layer;
	char origin[300]; /* "default", "/etc/odi/agentd.yaml:12", "odictl (uid 0)" */
};

extern const char *const config_demangle_names[]; /* by enum symbol_demangle; ends with NULL */

struct config_setting { /* the schema of scalar settings, for validation, help and documentation */
	const char *path;
	struct option_desc option; /* name: last segment */
};
const struct config_setting *config_schema(size_t *n);

struct config_key {           /* everything that may be set, for people and manual pages (keys.c) */
	const char *path;     /* "profiling/rate", "sources/NAME/match" */
	const char *of;       /* the kind of source or type of destination that has it; "" all */
	const char *type;     /* "number", "text", ... */
	const char *fallback; /* "" none */
	char allowed[300];    /* "1 to 1000", "full, simple"; "" whatever its type is */
	const char *help;
	bool required;
};
void config_each_key(void (*visit)(void *userdata, const struct config_key *key), void *userdata);
/* "text", "yes/no", ... */
const char *config_type_name(enum option_type type);
/* As `allowed` above. */
void config_type_allowed(const struct option_desc *d, char *out, size_t size);
/* An option's value, or "(secret)" for what it refers to or may be. Of maps nothing is known. */
const char *config_option_shown(const struct option_desc *option, const char *value);

/* ---- changes ------------------------------------------------------------------------------------------- */

struct config_change {
	const char *path;
	const char *set;  /* NULL: remove path and below */
	const char *move; /* path of a named object, which becomes path */
	bool shown;       /* of a file that set names: the caller may read it */
	bool must_not_exist, must_exist;
};

struct config_request {
	enum config_layer layer;
	/* First, where rollback is not 0: the layer becomes what it was at that revision. Then, where yaml is not NULL: the
	 * settings of a YAML document are set, and its sources and destinations put in the place of those of the same
	 * name; what it does not name stays. A value "(secret)" in it stands for the one that is there. Then the changes. */
	uint64_t rollback;
	const char *yaml_name, *yaml; /* yaml_name: for texts of errors */
	size_t yaml_len;
	const struct config_change *changes;
	size_t n_changes;
	uint64_t expected_revision; /* 0: whatever */
	bool dry_run;
	uint32_t uid;
	const char *origin; /* "odictl", "file", "remote" */
	const char *reason;
};

enum { CONFIG_UNCHANGED = 1 };

/* Positive codes for the caller to map: 0 applied, CONFIG_UNCHANGED; errors: -EINVAL, -ENOENT (must_exist), -EEXIST,
 * -ESTALE (revision), -EACCES (managed by a file), or what prepare() or the store returned
 * (but -EACCES and -EPERM from there are -EOPNOTSUPP: the kernel said so, not a file). */

struct config_hooks {
	/* Everything that can fail: load programs, check. next is whole and valid. May be followed by abandon. */
	int (*prepare)(void *userdata, const struct config *current, const struct config *next,
		struct err_text *err);
	void (*abandon)(void *userdata);
	/* Cannot fail. Takes effect; `next` stays valid until the following swap. */
	void (*swap)(void *userdata, const struct config *next);
};

struct store;
struct config_manager;

/* The hooks' order: prepare (its failure ends it), then the commit (its failure calls abandon), then swap, during which
 * config_current() is still the old one. */

/* Where files are; each may be NULL. All are absolute.
 *   packaged: folder of NAME.yaml, the layer `packaged`
 *   dir: the layer `files`: agentd.yaml, then conf.d/NAME.yaml (whole configurations), sources.d/NAME.yaml and
 *     destinations.d/NAME.yaml (lists of them), each folder in the order of its names. Of a setting that stands in
 *     several files the last counts; a source or destination may stand in one only.
 *   file: read in place of dir/agentd.yaml, and has to be there */
struct config_places {
	const char *packaged, *dir, *file;
};

/* Loads all layers from the store, reads the files, builds the effective configuration. Does not call hooks: the
 * daemon starts from config_current(). Files with an error are no error here: what they said when they were last
 * whole stays in force, and config_files_wrong() says what is wrong. */
int config_manager_new(struct config_manager **ret, struct store *store,
	const struct config_places *places, const struct config_hooks *hooks, void *userdata,
	struct err_text *err);
struct config_manager *config_manager_free(struct config_manager *m);
DEFINE_FREEP(config_manager_freep, struct config_manager *, config_manager_free)
const struct config *config_current(const struct config_manager *m);
/* plan, prepare, commit in the store, swap: wholly or not at all. diff, if asked for, gets lines "+path = v", "-path",
 * "~path: a -> b" (secrets masked). */
int config_apply(struct config_manager *m, const struct config_request *request, uint64_t *revision,
	struct buf *diff, struct err_text *err);
/* Only `local` and `remote` are changed so. What is also set by the file is refused (-EACCES), but for giving up a value
 * that was set before the file had it. `order` of new named objects is filled in. revision and diff may be NULL. */
/* Reads the files again; a broken one leaves everything as it is. Same return as config_apply(). revision may be NULL. */
int config_reload_files(struct config_manager *m, uint64_t *revision, struct err_text *err);
/* Why the files are not in force as they are, in the words of the last reading of them; NULL: they are. */
const char *config_files_wrong(const struct config_manager *m);
/* Reads the files and judges them as a reload would, changing nothing: each thing that is wrong with them, the first of
 * each file ("path:line:column: ..."; warning: it works, but not as it looks). Returns how many files there are. */
size_t config_check_files(struct config_manager *m,
	void (*visit)(void *userdata, bool warning, const char *text), void *userdata);
/* The same for a document as if its file were among them (in place of the one of that name). */
void config_check_document(struct config_manager *m, const char *file_name, const char *text,
	size_t len, void (*visit)(void *userdata, bool warning, const char *text), void *userdata);
/* A file's value that has no effect, since a stronger layer has the value or the whole object. Once for an object. */
void config_each_hidden(const struct config_manager *m,
	void (*visit)(
		void *userdata, const char *path, const char *file_origin, const char *by_origin),
	void *userdata);
/* Every folder in which a change of the files would show: name is what would change in it (NULL: anything). */
void config_each_folder(const struct config_manager *m,
	void (*visit)(void *userdata, const char *folder, const char *name), void *userdata);
void config_each_value(const struct config_manager *m, const char *prefix,
	void (*visit)(void *userdata, const struct config_value *value), void *userdata);
/* Layer and origin of a named object, e.g. "sources/web". */
int config_origin(const struct config_manager *m, const char *path, enum config_layer *layer,
	char *origin, size_t size);
