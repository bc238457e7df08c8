/* SPDX-License-Identifier: Apache-2.0 */

/* Which folders tell that a path leads elsewhere: configuration managers place files by symbolic links (to a store of
 * versions, or a mounted folder whose "..data" is exchanged), and a change of any of these is a change of the
 * configuration. Runs in agentd. */

#include "agentd/base/way.h"
#include "agentd/config/config_private.h"

struct visitor {
	void (*visit)(void *userdata, const char *folder, const char *name);
	void *userdata;
};

static int on_step(void *userdata, const struct way_step *s)
{
	const struct visitor *v = userdata;

	if (!s->st || S_ISLNK(s->st->st_mode) || s->last)
		v->visit(v->userdata, s->folder, s->name);
	return 0;
}

void config_path_way(const char *path,
	void (*visit)(void *userdata, const char *folder, const char *name), void *userdata)
{
	(void)way_walk(path, on_step, &(struct visitor){visit, userdata});
}
