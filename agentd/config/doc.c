/* SPDX-License-Identifier: Apache-2.0 */

/* Documents: a sorted set of (path, value).
 *
 * Flat, since that makes every question about a change small: what differs, what is below, who set
 * it; and the text form, a line an entry, is the same for the same content, so that its hash names
 * it. Decoding takes only what encoding makes (sorted, unique, escaped one way).
 *
 * Invariants: entries are sorted by strcmp() of their paths, so that what lies below "a/" is one
 * run; paths and values are clean UTF-8 (no control characters), paths without '=' and blanks;
 * count and bytes are bounded. Runs in agentd. */

#include "agentd/base/text.h"
#include "agentd/config/config_private.h"

struct config_doc {
	struct config_entry *entries;
	size_t n, size;
	size_t bytes; /* of the encoded text, about */
	char **files; /* that entries came from, each once */
	size_t n_files;
};

static const char *const layer_names[LAYERS] = {
	[LAYER_BUILT_IN] = "built-in",
	[LAYER_PACKAGED] = "packaged",
	[LAYER_FILES] = "files",
	[LAYER_LOCAL] = "local",
	[LAYER_REMOTE] = "remote",
};

const char *config_layer_name(enum config_layer layer)
{
	return layer < LAYERS ? layer_names[layer] : "unknown";
}

int config_layer_parse(const char *name, enum config_layer *ret)
{
	for (size_t i = 0; i < LAYERS; i++)
		if (streq(name, layer_names[i])) {
			*ret = (enum config_layer)i;
			return 0;
		}
	return -EINVAL;
}

int config_doc_new(struct config_doc **ret)
{
	struct config_doc *d = calloc(1, sizeof(*d));

	if (!d)
		return -ENOMEM;
	*ret = d;
	return 0;
}

static void entry_deinit(struct config_entry *e)
{
	free((char *)e->path);
	free((char *)e->value);
}

struct config_doc *config_doc_free(struct config_doc *d)
{
	if (!d)
		return NULL;
	for (size_t i = 0; i < d->n; i++)
		entry_deinit(&d->entries[i]);
	free(d->entries);
	for (size_t i = 0; i < d->n_files; i++)
		free(d->files[i]);
	free(d->files);
	free(d);
	return NULL;
}

int config_doc_copy(const struct config_doc *d, struct config_doc **ret)
{
	CLEANUP(config_doc_freep) struct config_doc *copy = NULL;
	int r = config_doc_new(&copy);

	for (size_t i = 0; r == 0 && d && i < d->n; i++)
		r = config_doc_set_at(copy, d->entries[i].path, d->entries[i].value,
			d->entries[i].file, d->entries[i].line);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(copy);
	return 0;
}

size_t config_doc_lower(const struct config_doc *d, const char *path)
{
	size_t low = 0, high = d->n;

	/* Documents are mostly built in order. */
	if (high && strcmp(d->entries[high - 1].path, path) < 0)
		return high;
	while (low < high) {
		size_t middle = (low + high) / 2;

		if (strcmp(d->entries[middle].path, path) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool path_ok(const char *path)
{
	size_t len = strlen(path);

	return len > 0 && len < CONFIG_PATH_MAX && text_is_clean(path, len) && path[0] != '/' &&
		path[len - 1] != '/' && !strpbrk(path, "= ") && !strstr(path, "//");
}

static int grow(struct config_doc *d)
{
	size_t size = d->size ? d->size * 2 : 16;
	struct config_entry *entries;

	if (d->n < d->size)
		return 0;
	entries = reallocarray(d->entries, size, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	d->entries = entries;
	d->size = size;
	return 0;
}

static size_t entry_bytes(const char *path, const char *value)
{
	return strlen(path) + strlen(value) + 2;
}

/* The document's own copy of a file's name. Files come one after the other: mostly it is the last. */
static const char *intern(struct config_doc *d, const char *file)
{
	char **files;

	for (size_t i = d->n_files; i-- > 0;)
		if (streq(d->files[i], file))
			return d->files[i];
	files = reallocarray(d->files, d->n_files + 1, sizeof(*files));
	if (!files)
		return NULL;
	d->files = files;
	files[d->n_files] = strdup(file);
	return files[d->n_files] ? files[d->n_files++] : NULL;
}

int config_doc_set_at(
	struct config_doc *d, const char *path, const char *value, const char *file, uint32_t line)
{
	_cleanup_free_ char *new_path = NULL, *new_value = NULL;
	size_t at, bytes;
	bool there;
	int r;

	if (!path_ok(path) || !text_is_clean(value, CONFIG_VALUE_MAX))
		return -EINVAL;
	at = config_doc_lower(d, path);
	there = at < d->n && streq(d->entries[at].path, path);
	bytes = d->bytes + entry_bytes(path, value);
	if (there)
		bytes -= entry_bytes(path, d->entries[at].value);
	if (bytes > CONFIG_MAX_BYTES || (!there && d->n >= CONFIG_MAX_ENTRIES))
		return -E2BIG;
	if (file) {
		file = intern(d, file);
		if (!file)
			return -ENOMEM;
	}
	new_value = strdup(value);
	new_path = there ? NULL : strdup(path);
	if (!new_value || (!there && !new_path))
		return -ENOMEM;
	if (there) {
		free((char *)d->entries[at].value);
	} else {
		r = grow(d);
		if (r < 0)
			return r;
		memmove(d->entries + at + 1, d->entries + at, (d->n - at) * sizeof(*d->entries));
		d->entries[at].path = TAKE_PTR(new_path);
		d->n++;
	}
	d->entries[at].value = TAKE_PTR(new_value);
	d->entries[at].file = file;
	d->entries[at].line = line;
	d->bytes = bytes;
	return 0;
}

int config_doc_set(struct config_doc *d, const char *path, const char *value, uint32_t line)
{
	return config_doc_set_at(d, path, value, NULL, line);
}

bool config_path_within(const char *path, const char *prefix)
{
	size_t len = strlen(prefix);

	return strncmp(path, prefix, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

/* The run of entries below path: [*from, *to). "a-b" sorts between "a" and "a/b", so path's own
 * entry is not part of the run. */
void config_doc_below(const struct config_doc *d, const char *path, size_t *from, size_t *to)
{
	char first[CONFIG_PATH_MAX + 1];
	size_t len = (size_t)snprintf(first, sizeof(first), "%s/", path);

	*from = *to = d->n;
	if (len >= sizeof(first))
		return;
	*from = *to = config_doc_lower(d, first);
	while (*to < d->n && strncmp(d->entries[*to].path, first, len) == 0)
		++*to;
}

static void remove_run(struct config_doc *d, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++) {
		d->bytes -= entry_bytes(d->entries[i].path, d->entries[i].value);
		entry_deinit(&d->entries[i]);
	}
	if (from < to)
		memmove(d->entries + from, d->entries + to, (d->n - to) * sizeof(*d->entries));
	d->n -= to - from;
}

size_t config_doc_remove(struct config_doc *d, const char *path)
{
	size_t before = d->n, from, to;

	config_doc_below(d, path, &from, &to);
	remove_run(d, from, to);
	from = config_doc_lower(d, path);
	if (from < d->n && streq(d->entries[from].path, path))
		remove_run(d, from, from + 1);
	return before - d->n;
}

const struct config_entry *config_doc_get(const struct config_doc *d, const char *path)
{
	size_t at = config_doc_lower(d, path);

	return at < d->n && streq(d->entries[at].path, path) ? &d->entries[at] : NULL;
}

const struct config_entry *config_doc_first(const struct config_doc *d, const char *path)
{
	const struct config_entry *found = config_doc_get(d, path);
	size_t from, to;

	config_doc_below(d, path, &from, &to);
	for (size_t i = from; i < to; i++)
		if (!found || d->entries[i].line < found->line)
			found = &d->entries[i];
	return found;
}

bool config_doc_has(const struct config_doc *d, const char *path)
{
	return config_doc_first(d, path) != NULL;
}

size_t config_doc_size(const struct config_doc *d)
{
	return d->n;
}

const struct config_entry *config_doc_at(const struct config_doc *d, size_t i)
{
	return &d->entries[i];
}

static void encode_text(struct buf *out, const char *s)
{
	for (; *s; s++) {
		size_t n = strcspn(s, "\\\n");

		buf_add(out, s, n);
		s += n;
		if (!*s)
			break;
		buf_str(out, *s == '\n' ? "\\n" : "\\\\");
	}
}

int config_doc_encode(const struct config_doc *d, struct buf *out)
{
	for (size_t i = 0; i < d->n; i++) {
		encode_text(out, d->entries[i].path);
		buf_str(out, "=");
		encode_text(out, d->entries[i].value);
		buf_str(out, "\n");
	}
	return buf_error(out);
}

/* In place; -EINVAL for an escape that encoding does not make. */
static int decode_text(char *s)
{
	char *to = s;

	for (; *s; s++) {
		char c = *s;

		if (c == '\\') {
			s++;
			if (*s != '\\' && *s != 'n')
				return -EINVAL;
			c = *s == 'n' ? '\n' : '\\';
		}
		*to++ = c;
	}
	*to = '\0';
	return 0;
}

static int decode_line(struct config_doc *d, char *line)
{
	char *value = strchr(line, '=');
	int r;

	if (!value)
		return -EINVAL;
	*value++ = '\0';
	r = decode_text(line);
	if (r == 0)
		r = decode_text(value);
	if (r == 0 && d->n && strcmp(d->entries[d->n - 1].path, line) >= 0)
		r = -EINVAL; /* not sorted, or twice */
	return r == 0 ? config_doc_set(d, line, value, 0) : r;
}

int config_doc_decode(const char *text, size_t len, struct config_doc **ret, struct err_text *err)
{
	CLEANUP(config_doc_freep) struct config_doc *d = NULL;
	_cleanup_free_ char *copy = NULL;
	unsigned line = 1;
	int r;

	if (len > 2 * (size_t)CONFIG_MAX_BYTES)
		return err_set(err, -E2BIG, "the stored document is larger than any that is made");
	copy = malloc(len + 1);
	if (!copy || config_doc_new(&d) < 0)
		return err_set(err, -ENOMEM, "out of memory");
	if (len)
		memcpy(copy, text, len);
	copy[len] = '\0';
	for (char *p = copy, *end; p < copy + len; p = end + 1, line++) {
		end = memchr(p, '\n', (size_t)(copy + len - p));
		if (!end || memchr(p, '\0', (size_t)(end - p)))
			return err_set(
				err, -EINVAL, "line %u of the stored document is broken", line);
		*end = '\0';
		r = decode_line(d, p);
		if (r == -ENOMEM)
			return err_set(err, r, "out of memory");
		if (r < 0)
			return err_set(err, r, "line %u of the stored document is broken", line);
	}
	*ret = TAKE_PTR(d);
	return 0;
}
