/* SPDX-License-Identifier: Apache-2.0 */

/* Where a path leads, as the kernel goes: whoever can exchange a folder or a link on the way decides what is at its end,
 * so all of them are looked at, not only what realpath(3) finds. Bounded by the length of paths and the number of
 * links. Source: path_resolution(7), symlink(7). Runs in agentd, odictl. */

#include <limits.h>

#include "agentd/base/way.h"

#define MAX_LINKS 40 /* as the kernel's */

/* `done` is real up to here; what is left of the way is in `rest`, which a link's target is put before. */
struct way {
	char done[PATH_MAX], rest[PATH_MAX];
	unsigned links;
};

/* The next part of rest into name; 0: there is none. */
static int next_part(struct way *w, char name[NAME_MAX + 1])
{
	size_t skip = strspn(w->rest, "/"), len = strcspn(w->rest + skip, "/");

	if (len > NAME_MAX)
		return -ENAMETOOLONG;
	memcpy(name, w->rest + skip, len);
	name[len] = '\0';
	memmove(w->rest, w->rest + skip + len, strlen(w->rest + skip + len) + 1);
	return len > 0;
}

static int follow(struct way *w, const char *link)
{
	char target[PATH_MAX], joined[PATH_MAX];
	ssize_t n = readlink(link, target, sizeof(target) - 1);

	if (n < 0)
		return -errno;
	if (++w->links > MAX_LINKS)
		return -ELOOP;
	target[n] = '\0';
	if (snprintf(joined, sizeof(joined), "%s%s", target, w->rest) >= (int)sizeof(joined))
		return -ENAMETOOLONG;
	if (target[0] == '/')
		w->done[0] = '\0';
	memcpy(w->rest, joined, strlen(joined) + 1);
	return 0;
}

int way_walk(
	const char *path, int (*step)(void *userdata, const struct way_step *s), void *userdata)
{
	struct way w = {};
	char name[NAME_MAX + 1], here[PATH_MAX];
	int r;

	if (snprintf(w.rest, sizeof(w.rest), "%s", path) >= (int)sizeof(w.rest))
		return -ENAMETOOLONG;
	while ((r = next_part(&w, name)) > 0) {
		struct way_step s = {
			.folder = w.done[0] ? w.done : "/", .name = name, .path = here};
		struct stat st;

		if (snprintf(here, sizeof(here), "%s/%s", w.done, name) >= (int)sizeof(here))
			return -ENAMETOOLONG;
		s.last = !w.rest[strspn(w.rest, "/")];
		s.st = lstat(here, &st) == 0 ? &st : NULL;
		r = step(userdata, &s);
		if (r != 0 || !s.st)
			return r;
		if (!S_ISLNK(st.st_mode))
			memcpy(w.done, here, strlen(here) + 1);
		else if ((r = follow(&w, here)) < 0)
			return r;
	}
	return r;
}
