/* SPDX-License-Identifier: Apache-2.0 */

/* Which destination types there are: those built in, and those of operators.
 *
 * A type of an operator is read by root's daemon and says where profiles go, so its file must be one that nobody but
 * root can change: file and folder are looked at by descriptor, not by name. The exporter cannot read the folder: the
 * file's text goes to it with the destination that uses it. A type that is exchanged is not freed, since a destination
 * may still be at it; how often that can happen in one run is bounded.
 *
 * Runs in agentd and in the exporter. */

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "destinations/catalogue_private.h"
#include "destinations/destination.h"
#include "destinations/catalogue.inc"

#define MAX_EXCHANGES 256

#define ROW(name, text) {name, text, sizeof(text) - 1},
static const struct {
	const char *name, *text;
	size_t len;
} built_in[] = {CATALOGUE_BUILT_IN(ROW)};

static struct {
	const struct destination_type *types[CATALOGUE_MAX_TYPES + 1]; /* by name */
	size_t n;
	unsigned exchanges;
} registry;

static void load_built_in(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(built_in); i++) {
		struct destination_type *t = NULL;
		struct err_text err = {};

		if (destination_type_parse(
			    built_in[i].name, built_in[i].text, built_in[i].len, &t, &err) < 0) {
			log_error(
				"a destination type that is built in cannot be read: %s", err.text);
			abort();
		}
		registry.types[registry.n++] = t;
	}
}

const struct destination_type *const *destination_types(void)
{
	if (!registry.n)
		load_built_in();
	return registry.types;
}

const struct destination_type *destination_type_find(const char *name)
{
	for (const struct destination_type *const *t = destination_types(); *t; t++)
		if (streq((*t)->name, name))
			return *t;
	return NULL;
}

/* Consumes t. */
static int put(struct destination_type *t, struct err_text *err)
{
	size_t at = 0;

	destination_types();
	while (at < registry.n && strcmp(registry.types[at]->name, t->name) < 0)
		at++;
	if (at < registry.n && streq(registry.types[at]->name, t->name)) {
		if (++registry.exchanges > MAX_EXCHANGES) {
			destination_type_free(t);
			return err_set(err, -ENOSPC,
				"types were changed too often: restart agentd to take this one");
		}
		registry.types[at] = t;
		return 0;
	}
	if (registry.n == CATALOGUE_MAX_TYPES) {
		destination_type_free(t);
		return err_set(err, -ENOSPC, "there are more than %d types", CATALOGUE_MAX_TYPES);
	}
	memmove(&registry.types[at + 1], &registry.types[at],
		(registry.n - at) * sizeof(registry.types[0]));
	registry.types[at] = t;
	registry.n++;
	return 0;
}

/* yaml: text that ends with NUL. file: where it is from, for messages; NULL: it came with a destination. */
static int add(const char *name, const char *yaml, const char *file, struct err_text *err)
{
	const struct destination_type *old = destination_type_find(name);
	struct destination_type *t = NULL;
	int r;

	if (old && !old->yaml)
		return err_set(err, -EEXIST, "%s: the type %s is built in: give yours another name",
			file ? file : name, name);
	if (old && streq(old->yaml, yaml))
		return 0;
	r = destination_type_parse(name, yaml, strlen(yaml), &t, err);
	if (r < 0)
		return r;
	t->yaml = strdup(yaml);
	if (!t->yaml) {
		destination_type_free(t);
		return err_set(err, -ENOMEM, "out of memory");
	}
	return put(t, err);
}

/* ---- an operator's files --------------------------------------------------------------------------- */

static int check_owner(int fd, const char *path, mode_t kind, struct err_text *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return err_set(err, -errno, "cannot read %s: %m", path);
	if ((st.st_mode & S_IFMT) != kind)
		return err_set(err, -EINVAL, "%s is not a %s", path,
			kind == S_IFDIR ? "folder" : "regular file");
	if (st.st_uid != 0 && st.st_uid != geteuid())
		return err_set(err, -EPERM, "%s is refused: it belongs to uid %u; chown root %s",
			path, (unsigned)st.st_uid, path);
	if (st.st_mode & (S_IWGRP | S_IWOTH))
		return err_set(err, -EPERM,
			"%s is refused: others than its owner may write to it; chmod go-w %s", path,
			path);
	return 0;
}

static int load_file(int folder, const char *folder_name, const char *name, struct err_text *err)
{
	_cleanup_close_ int fd =
		openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	_cleanup_buf_ struct buf text;
	struct err_text why = {};
	char path[400], type[80];
	int r;

	buf_init(&text, CATALOGUE_MAX_FILE + 1);
	snprintf(path, sizeof(path), "%.250s/%.100s", folder_name, name);
	snprintf(type, sizeof(type), "%.*s", (int)(strlen(name) - strlen(".yaml")), name);
	if (fd < 0)
		return err_set(err, -errno, "cannot read %s: %m", path);
	r = check_owner(fd, path, S_IFREG, err);
	if (r < 0)
		return r;
	r = io_read_fd(fd, &text, CATALOGUE_MAX_FILE);
	if (r < 0)
		return err_set(err, r, "cannot read %s: %s", path, strerrordesc_np(-r));
	if (!text_is_name(type) || strlen(type) > 39)
		return err_set(err, -EINVAL,
			"%s: the name of a type has at most 39 letters, digits and . _ -", path);
	if (!text.len || memchr(text.data, 0, text.len))
		return err_set(err, -EINVAL, "%s:1: the file is empty or no text", path);
	r = add(type, (const char *)text.data, path, &why);
	/* Its text begins with NAME:LINE. */
	if (r < 0 && text_starts(why.text, type))
		return err_set(err, r, "%s%s", path, why.text + strlen(type));
	return r < 0 ? err_set(err, r, "%s", why.text) : 0;
}

static int is_yaml(const struct dirent *e)
{
	size_t len = strlen(e->d_name);

	return e->d_name[0] != '.' && len > 5 && streq(e->d_name + len - 5, ".yaml");
}

int destination_types_load(const char *folder, struct err_text *err)
{
	_cleanup_close_ int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent **list = NULL;
	struct err_text first = {};
	int n, refused = 0;

	if (fd < 0)
		return errno == ENOENT ? 0
				       : (err_set(err, -errno, "cannot read %s: %m", folder), 1);
	if (check_owner(fd, folder, S_IFDIR, err) < 0)
		return 1;
	n = scandirat(fd, ".", &list, is_yaml, alphasort);
	for (int i = 0; i < n; i++) {
		struct err_text why = {};

		if (i >= CATALOGUE_MAX_TYPES)
			err_set(&why, -E2BIG, "%s: more than %d types", folder,
				CATALOGUE_MAX_TYPES);
		if (i >= CATALOGUE_MAX_TYPES || load_file(fd, folder, list[i]->d_name, &why) < 0) {
			log_error("destination types: %s", why.text);
			if (!refused++)
				first = why;
		}
		free(list[i]);
	}
	free(list);
	if (refused && err)
		*err = first;
	return refused;
}

/* ---- what the exporter is handed ------------------------------------------------------------------- */

static const char *given(const struct option_value *options, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (streq(options[i].name, name))
			return options[i].value;
	return NULL;
}

const struct destination_type *destination_adopt(
	const char *type, const struct option_value *options, size_t n, struct err_text *err)
{
	const char *yaml = given(options, n, ".type"), *problem = given(options, n, ".problem");
	const struct destination_type *t;

	if (yaml && add(type, yaml, NULL, err) < 0)
		return NULL;
	t = destination_type_find(type);
	if (!t)
		err_set(err, -EINVAL, "this exporter does not know the type %.80s", type);
	if (t && problem) {
		err_set(err, -EINVAL, "%s", problem);
		return NULL;
	}
	return t;
}
