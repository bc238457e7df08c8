/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by the files of the config room and by its tests. */

#include "agentd/config/config.h"

/* ---- paths --------------------------------------------------------------------------------------- */

enum path_kind {
	PATH_GROUP,              /* "profiling", "sources", "host/labels": something is below it */
	PATH_SETTING,            /* of config_schema() */
	PATH_HOST_LABEL,         /* host/labels/KEY */
	PATH_SOURCE,             /* sources/NAME */
	PATH_SOURCE_GROUP,       /* sources/NAME/options, sources/NAME/labels */
	PATH_SOURCE_FIELD,       /* sources/NAME/kind */
	PATH_SOURCE_OPTION,      /* sources/NAME/options/KEY */
	PATH_SOURCE_LABEL,       /* sources/NAME/labels/KEY */
	PATH_DESTINATION,        /* destinations/NAME */
	PATH_DESTINATION_GROUP,  /* destinations/NAME/options */
	PATH_DESTINATION_FIELD,  /* destinations/NAME/type */
	PATH_DESTINATION_OPTION, /* destinations/NAME/options/KEY[/SUBKEY] */
};

struct config_path {
	enum path_kind kind;
	char name[65];   /* of the source or destination; "" else */
	const char *key; /* last part: field, option (with its subkey), label; borrowed */
	const struct config_setting *setting; /* PATH_SETTING */
};

/* What a path means; -EINVAL with "did you mean" where it means nothing. */
int config_path_parse(const char *path, struct config_path *ret, struct err_text *err);
bool config_path_is_leaf(enum path_kind kind);
/* "sources/web/..." -> length of "sources/web"; 0: not of a named object. */
size_t config_object_len(const char *path);

/* Names of profile types, comma-separated, as bits. */
int config_parse_types(const char *value, uint32_t *ret, struct err_text *err);
/* "2", "0.5 %" as millionths. */
int config_parse_percent(const char *value, uint32_t *ret_ppm, struct err_text *err);
/* "URL URL...": 1 to CONFIG_MAX_URLS that option_check() takes, without query and without '/' at their ends. */
int config_parse_urls(const char *value, char ***ret, size_t *ret_n, struct err_text *err);
/* "PATH:PATH...", which may be "": absolute, without "." and "..". */
int config_parse_paths(const char *value, char ***ret, size_t *ret_n, struct err_text *err);
void config_list_free(char **list, size_t n);
/* What is known of the value alone: option_check(), and the settings with a form of their own. */
int config_check_setting(
	const struct config_setting *setting, const char *value, struct err_text *err);

/* The value as it may be shown: secrets become "(secret)". d tells the type of the destination; where it does not
 * (or is NULL), all its options are hidden. */
const char *config_reference(const struct config_doc *d, const char *path, const char *value);
const char *config_shown(const struct config_doc *d, const char *path, const char *value);

/* ---- documents ----------------------------------------------------------------------------------- */

#define CONFIG_MAX_BYTES (4U << 20) /* of a document's encoded text */
#define CONFIG_MAX_FILE  (1U << 20) /* bytes of a YAML file */
#define CONFIG_MAX_FILES 500        /* of one layer */

/* Index of the first entry that is not before path. */
size_t config_doc_lower(const struct config_doc *d, const char *path);
/* The run of entries below path (without its own): [*from, *to). */
void config_doc_below(const struct config_doc *d, const char *path, size_t *from, size_t *to);
/* The first entry (by line) at or below path; NULL none. */
const struct config_entry *config_doc_first(const struct config_doc *d, const char *path);
/* "path" or below it? */
bool config_path_within(const char *path, const char *prefix);

/* Lines as config_apply() documents; the age of objects is left out. Returns how many entries differ. */
size_t config_diff(const struct config_doc *from, const struct config_doc *to, struct buf *out);

/* ---- the effective configuration ------------------------------------------------------------------- */

#define CONFIG_MAX_SOURCES      1000
#define CONFIG_MAX_DESTINATIONS 64

struct merged_value { /* borrowed from the documents */
	const struct config_entry *entry;
	enum config_layer layer;
};

struct merged {
	struct merged_value *values; /* sorted by path */
	size_t n;
};

void merged_deinit(struct merged *m);
const struct merged_value *merged_find(const struct merged *m, const char *path);
bool merged_has(const struct merged *m, const char *path); /* at or below */

/* docs[i] may be NULL. */
int config_merge(const struct config_doc *const docs[LAYERS], struct merged *ret);
int config_build(const struct config_doc *const docs[LAYERS], const struct merged *m,
	uint64_t revision, struct config **ret, struct err_text *err);
struct config *config_free(struct config *c);
DEFINE_FREEP(config_freep, struct config *, config_free)
int config_built_in(struct config_doc **ret);

/* What an entry's path means; -EINVAL: it means nothing, or is not one of a value. */
int config_leaf(const struct config_entry *e, struct config_path *ret, struct err_text *err);

/* What one document says of a named object. Strings are borrowed from it, lists are owned. */
struct source_draft {
	struct source_spec spec;
	struct option_value *options, *labels;
};
int source_draft_make(struct source_draft *ret, const struct config_doc *d, const char *name,
	struct err_text *err);
void source_draft_deinit(struct source_draft *draft);

struct destination_draft {
	const char *type;
	bool enabled;
	uint64_t order;
	struct option_value *options; /* name: behind options/, so maps are NAME/KEY */
	size_t n_options;
};
int destination_draft_make(struct destination_draft *ret, const struct config_doc *d,
	const char *name, struct err_text *err);
void destination_draft_deinit(struct destination_draft *draft);

/* ---- files (files.c, paths.c) ------------------------------------------------------------------------ */

/* What was found wrong, file by file; more than fit are counted. */
struct config_wrongs {
	struct err_text list[16];
	size_t n, more;
};
void config_wrong_add(struct config_wrongs *w, const char *text);

/* All files of a layer (LAYER_PACKAGED, LAYER_FILES) as one document; files that are wrong are left out and said.
 * *n_files: how many there are. -ENOMEM alone is an error. */
int config_read_files(const struct config_places *places, enum config_layer layer,
	struct config_doc **ret, size_t *n_files, struct config_wrongs *wrongs);

/* Puts what one file says to what others said; -EEXIST where both have a source or destination of that name. */
int config_add_file(struct config_doc *all, const struct config_doc *of_file, struct err_text *err);

/* The folders in which something changes when path leads elsewhere: that of each symbolic link on the way, and that of
 * the last part, or of the first that is not there. */
void config_path_way(const char *path,
	void (*visit)(void *userdata, const char *folder, const char *name), void *userdata);
/* The ways of the files in a folder that are symbolic links. */
void config_each_link(const char *folder,
	void (*visit)(void *userdata, const char *folder, const char *name), void *userdata);
