/* SPDX-License-Identifier: Apache-2.0 */

/* Where a path leads: configuration managers place files by symbolic links (to a store of versions, or a mounted folder
 * whose "..data" is exchanged), and a change of any of these is a change of the configuration. Source:
 * path_resolution(7), symlink(7). Runs in agentd. */

#include <limits.h>
#include <sys/stat.h>

#include "agentd/config/config_private.h"

#define MAX_LINKS 40 /* as the kernel's */

/* `done` is real up to here; what is left of the way is in `rest`, which a link's target is put before. */
struct way {
	char done[PATH_MAX], rest[PATH_MAX];
	unsigned links;
};

/* The next part of rest into name; false: there is none. */
static bool next_part(struct way *w, char name[NAME_MAX + 1])
{
	size_t skip = strspn(w->rest, "/"), len = strcspn(w->rest + skip, "/");

	if (!len || len > NAME_MAX)
		return false;
	memcpy(name, w->rest + skip, len);
	name[len] = '\0';
	memmove(w->rest, w->rest + skip + len, strlen(w->rest + skip + len) + 1);
	return true;
}

/* False: the way is too long. */
static bool follow(struct way *w, const char *link)
{
	char target[PATH_MAX], joined[PATH_MAX];
	ssize_t n = readlink(link, target, sizeof(target) - 1);

	if (n <= 0 || ++w->links > MAX_LINKS)
		return false;
	target[n] = '\0';
	if (snprintf(joined, sizeof(joined), "%s%s", target, w->rest) >= (int)sizeof(joined))
		return false;
	if (target[0] == '/')
		w->done[0] = '\0';
	memcpy(w->rest, joined, strlen(joined) + 1);
	return true;
}

void config_path_way(const char *path,
	void (*visit)(void *userdata, const char *folder, const char *name), void *userdata)
{
	struct way *w = calloc(1, sizeof(*w));
	char name[NAME_MAX + 1], here[PATH_MAX];
	struct stat st;

	if (!w)
		return;
	snprintf(w->rest, sizeof(w->rest), "%s", path);
	while (next_part(w, name)) {
		const char *folder = w->done[0] ? w->done : "/";
		bool there;

		if (snprintf(here, sizeof(here), "%s/%s", w->done, name) >= (int)sizeof(here))
			break;
		there = lstat(here, &st) == 0;
		if (!there || S_ISLNK(st.st_mode) || !w->rest[strspn(w->rest, "/")])
			visit(userdata, folder, name);
		if (!there)
			break;
		if (!S_ISLNK(st.st_mode))
			memcpy(w->done, here, strlen(here) + 1);
		else if (!follow(w, here))
			break;
	}
	free(w);
}
