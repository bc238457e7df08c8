/* SPDX-License-Identifier: Apache-2.0 */

/* From folders of files to the document of a layer.
 *
 * Which files there are is decided by their names alone: NAME.yaml or NAME.yml, not hidden, so that what editors, package
 * managers and version control leave beside them (x.yaml~, .x.yaml.swp, x.yaml.dpkg-new, ..data) is none. They are read
 * in one fixed order: agentd.yaml, conf.d, sources.d, destinations.d, each folder by name. A setting may be set again
 * by a later file, as everywhere with drop-in folders; a source or destination may not, since half of one file's and
 * half of another's is nothing that anybody meant.
 *
 * Every file is read, whatever is wrong with others, so that all that is wrong can be said at once; whether anything
 * takes effect is the manager's to decide (it does not while one is wrong). What a file says is done with root's rights,
 * so only root may be able to write it, or to put another in its place. Runs in agentd. */

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/stat.h>

#include "agentd/base/io.h"
#include "agentd/base/text.h"
#include "agentd/base/trusted.h"
#include "agentd/config/config_private.h"

#define ORDERS_OF_A_FILE 10000 /* more than a file can hold */

struct reading {
	struct config_doc *doc;
	struct config_wrongs *wrongs;
	size_t n_files;
	bool no_memory;
};

void config_wrong_add(struct config_wrongs *w, const char *text)
{
	if (w->n < ARRAY_SIZE(w->list))
		snprintf(w->list[w->n++].text, sizeof(w->list[0].text), "%s", text);
	else
		w->more++;
}

static void failed(struct reading *r, const struct err_text *err, int code)
{
	if (code == -ENOMEM)
		r->no_memory = true;
	else
		config_wrong_add(r->wrongs, err->text);
}

/* Takes over what one file says. */
int config_add_file(struct config_doc *all, const struct config_doc *of_file, struct err_text *err)
{
	char object[CONFIG_PATH_MAX + 1];
	int code = 0;

	for (size_t i = 0; i < config_doc_size(of_file) && code == 0; i++) {
		const struct config_entry *e = config_doc_at(of_file, i), *first;
		size_t len = config_object_len(e->path);

		snprintf(object, sizeof(object), "%.*s", (int)len, e->path);
		first = len ? config_doc_first(all, object) : NULL;
		if (first && first->file && !streq(first->file, e->file)) {
			e = config_doc_first(of_file, object);
			return err_set(err, -EEXIST,
				"%s:%" PRIu32 ": %s is in %s:%" PRIu32
				" already: take it out of one of them",
				e->file, e->line, object, first->file, first->line);
		}
		code = config_doc_set_at(all, e->path, e->value, e->file, e->line);
	}
	if (code == -E2BIG)
		return err_set(err, code, "the files hold more than %d settings or %u MB",
			CONFIG_MAX_ENTRIES, CONFIG_MAX_BYTES >> 20);
	return code;
}

static int read_text(const char *path, struct buf *text, struct err_text *err)
{
	_cleanup_close_ int fd = trusted_open(path, err);
	int r;

	/* What is wrong may be a folder above it, or what a link leads to. */
	if (fd < 0)
		return strstr(err->text, path) ? fd : err_prefix(err, fd, "%s", path);
	r = io_read_fd(fd, text, CONFIG_MAX_FILE);
	if (r == -EFBIG)
		return err_set(err, r, "%s is larger than %u KB", path, CONFIG_MAX_FILE >> 10);
	return r < 0 ? err_set(err, r, "cannot read %s: %s", path, strerrordesc_np(-r)) : 0;
}

static void read_file(struct reading *r, enum config_shape shape, const char *path, bool required)
{
	CLEANUP(config_doc_freep) struct config_doc *doc = NULL;
	_cleanup_buf_ struct buf text;
	struct err_text err = {};
	struct stat st;
	int code;

	buf_init(&text, 0);
	code = read_text(path, &text, &err);
	/* Taken away since its folder was listed. A link that leads nowhere is a mistake. */
	if (code == -ENOENT && !required && lstat(path, &st) < 0)
		return;
	r->n_files++;
	if (code == 0)
		code = config_doc_from_yaml_as(shape, path, text.len ? (const char *)text.data : "",
			text.len, (uint64_t)r->n_files * ORDERS_OF_A_FILE, &doc, &err);
	if (code == 0)
		code = config_add_file(r->doc, doc, &err);
	if (code < 0)
		failed(r, &err, code);
}

static bool is_ours(const char *name)
{
	size_t len = strlen(name);

	return name[0] != '.' &&
		((len > 5 && streq(name + len - 5, ".yaml")) ||
			(len > 4 && streq(name + len - 4, ".yml")));
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names of a folder's files, sorted. The caller frees them, also after an error. */
static int list_folder(DIR *dir, char **names, size_t *n)
{
	struct dirent *e;
	int error;

	while ((errno = 0, e = readdir(dir))) {
		if (!is_ours(e->d_name))
			continue;
		if (*n == CONFIG_MAX_FILES)
			return -E2BIG;
		names[*n] = strdup(e->d_name);
		if (!names[*n])
			return -ENOMEM;
		++*n;
	}
	error = errno; /* sorting may allocate, and leave its own */
	if (*n)
		qsort(names, *n, sizeof(*names), by_name);
	return -error;
}

static void read_folder(struct reading *r, enum config_shape shape, const char *folder)
{
	char *names[CONFIG_MAX_FILES], path[PATH_MAX];
	DIR *dir = opendir(folder);
	struct err_text err = {};
	size_t n = 0;
	int code;

	if (!dir && errno == ENOENT)
		return;
	code = dir ? list_folder(dir, names, &n) : -errno;
	if (code == -E2BIG)
		err_set(&err, code, "%s holds more than %d files: put several into one", folder,
			CONFIG_MAX_FILES);
	else if (code < 0)
		err_set(&err, code, "cannot read the folder %s: %s", folder,
			strerrordesc_np(-code));
	if (code < 0)
		failed(r, &err, code);
	for (size_t i = 0; i < n; i++) {
		if (code == 0 &&
			snprintf(path, sizeof(path), "%s/%s", folder, names[i]) < (int)sizeof(path))
			read_file(r, shape, path, false);
		free(names[i]);
	}
	if (dir)
		closedir(dir);
}

void config_each_link(const char *folder,
	void (*visit)(void *userdata, const char *folder, const char *name), void *userdata)
{
	DIR *dir = opendir(folder);
	char path[PATH_MAX];
	struct dirent *e;
	struct stat st;
	size_t n = 0;

	while (dir && n < CONFIG_MAX_FILES && (e = readdir(dir))) {
		if (!is_ours(e->d_name) ||
			fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
			!S_ISLNK(st.st_mode))
			continue;
		n++;
		if (snprintf(path, sizeof(path), "%s/%s", folder, e->d_name) < (int)sizeof(path))
			config_path_way(path, visit, userdata);
	}
	if (dir)
		closedir(dir);
}

static void read_files_layer(struct reading *r, const struct config_places *places)
{
	static const struct {
		const char *folder;
		enum config_shape shape;
	} folders[] = {
		{"conf.d", CONFIG_SHAPE_SETTINGS},
		{"sources.d", CONFIG_SHAPE_SOURCES},
		{"destinations.d", CONFIG_SHAPE_DESTINATIONS},
	};
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/agentd.yaml", places->dir ? places->dir : "");
	if (places->file)
		read_file(r, CONFIG_SHAPE_SETTINGS, places->file, true);
	else if (places->dir)
		read_file(r, CONFIG_SHAPE_SETTINGS, path, false);
	for (size_t i = 0; places->dir && i < ARRAY_SIZE(folders); i++) {
		snprintf(path, sizeof(path), "%s/%s", places->dir, folders[i].folder);
		read_folder(r, folders[i].shape, path);
	}
}

int config_read_files(const struct config_places *places, enum config_layer layer,
	struct config_doc **ret, size_t *n_files, struct config_wrongs *wrongs)
{
	CLEANUP(config_doc_freep) struct config_doc *doc = NULL;
	struct reading r = {.wrongs = wrongs};

	if (config_doc_new(&doc) < 0)
		return -ENOMEM;
	r.doc = doc;
	if (layer == LAYER_FILES)
		read_files_layer(&r, places);
	else if (places->packaged)
		read_folder(&r, CONFIG_SHAPE_SETTINGS, places->packaged);
	if (r.no_memory)
		return -ENOMEM;
	*n_files = r.n_files;
	*ret = TAKE_PTR(doc);
	return 0;
}
