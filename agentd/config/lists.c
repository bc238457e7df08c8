/* SPDX-License-Identifier: Apache-2.0 */

/* Settings that hold several values in one text: servers of debug files, and places of debug files.
 *
 * One text and not a path a value, since the order of servers means something and a layer that sets them
 * means to replace them all. Blanks cannot stand in a URL; a colon can stand in a path, as in PATH, and such
 * a path is refused. Runs in agentd. */

#include "agentd/base/text.h"
#include "agentd/config/config_private.h"

void config_list_free(char **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i]);
	free(list);
}

/* The next of value, moving it on; NULL: no more, or no memory (*failed). */
static char *next_item(const char **value, const char *separators, bool *failed)
{
	size_t len;
	char *item;

	*value += strspn(*value, separators);
	len = strcspn(*value, separators);
	if (!len)
		return NULL;
	item = strndup(*value, len);
	*failed = !item;
	*value += len;
	return item;
}

static int check_url(const char *url, struct err_text *err)
{
	static const struct option_desc one = {.name = "urls", .type = OPTION_URL};

	if (strpbrk(url, "?#"))
		return err_set(err, -EINVAL,
			"urls: \"%.200s\" is not a debuginfod server's: nothing stands behind its path",
			url);
	return option_check(&one, url, err);
}

static int check_path(const char *path, struct err_text *err)
{
	if (path[0] != '/')
		return err_set(err, -EINVAL, "paths must be absolute, not \"%.200s\"", path);
	for (const char *p = path; *p; p += strcspn(p, "/")) {
		size_t len;

		p += strspn(p, "/");
		len = strcspn(p, "/");
		if ((len == 1 || len == 2) && strspn(p, ".") >= len)
			return err_set(err, -EINVAL,
				"paths must be without \".\" and \"..\", unlike \"%.200s\"", path);
	}
	return 0;
}

/* Not the root itself. */
static void strip_slashes(char *s)
{
	for (size_t len = strlen(s); len > 1 && s[len - 1] == '/'; len--)
		s[len - 1] = '\0';
}

static int parse(const char *value, const char *separators, size_t max, const char *what,
	int (*check)(const char *item, struct err_text *err), char ***ret, size_t *ret_n,
	struct err_text *err)
{
	char **list = calloc(max, sizeof(*list)), *item;
	bool failed = !list;
	size_t n = 0;
	int r = 0;

	while (!failed && r == 0 && (item = next_item(&value, separators, &failed))) {
		bool known = false;

		r = check(item, err);
		strip_slashes(item);
		for (size_t i = 0; i < n; i++)
			known = known || streq(list[i], item);
		if (r == 0 && !known && n == max)
			r = err_set(err, -EINVAL, "%s: at most %zu of them", what, max);
		if (r == 0 && !known)
			list[n++] = TAKE_PTR(item);
		free(item);
	}
	if (failed)
		r = err_set(err, -ENOMEM, "out of memory");
	if (r < 0) {
		config_list_free(list, n);
		return r;
	}
	*ret = list;
	*ret_n = n;
	return 0;
}

int config_parse_urls(const char *value, char ***ret, size_t *ret_n, struct err_text *err)
{
	int r = parse(value, " ", CONFIG_MAX_URLS, "urls", check_url, ret, ret_n, err);

	if (r == 0 && *ret_n == 0) {
		config_list_free(*ret, 0);
		*ret = NULL;
		return err_set(err, -EINVAL,
			"urls must hold at least one, such as https://debuginfod.elfutils.org");
	}
	return r;
}

int config_parse_paths(const char *value, char ***ret, size_t *ret_n, struct err_text *err)
{
	return parse(value, ":", CONFIG_MAX_PATHS, "paths", check_path, ret, ret_n, err);
}
