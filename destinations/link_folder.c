/* SPDX-License-Identifier: Apache-2.0 */

/* Folders for destinations that write files.
 *
 * The exporter opens no path and may write nowhere. For a destination of files agentd opens FOLDER/NAME, makes it where
 * it is missing and gives it to the exporter's user, and hands the descriptor over before the configuration that needs
 * it. Whether FOLDER is allowed is the policy's to say (agentd/config), before it comes here.
 *
 * agentd is root here and the path is a person's word, so no symbolic link is followed in its last two parts, and a
 * folder that is somebody else's is refused: whoever can write to FOLDER could have put it there. Runs in agentd. */

#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>

#include "agentd/base/fdpass.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "destinations/destination.h"
#include "destinations/link_private.h"

#define UNIT_USER "odi-exporter" /* of an exporter that is a unit of its own (packaging/) */

struct owner {
	uid_t uid;
	gid_t gid;
};

/* Whose the folder has to be. */
static struct owner exporter_user(const struct link *l)
{
	const struct passwd *p = l->config.exporter_socket ? getpwnam(UNIT_USER) : NULL;

	if (p)
		return (struct owner){p->pw_uid, p->pw_gid};
	if (geteuid() == 0 && !l->config.exporter_socket)
		return (struct owner){LINK_EXPORTER_UID, LINK_EXPORTER_UID};
	return (struct owner){geteuid(), getegid()};
}

/* The descriptor of FOLDER/NAME, the exporter's to write in. */
static int open_folder(
	struct owner user, const char *folder, const char *name, struct err_text *err)
{
	_cleanup_close_ int parent = -1, fd = -1;
	struct stat st;
	int r;

	if (*folder != '/')
		return err_set(err, -EINVAL, "the folder %.300s is no whole path", folder);
	r = io_mkdir_p(folder, 0755, err);
	if (r < 0)
		return r;
	parent = open(folder, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (parent < 0)
		return err_set(err, -errno, "the folder %.300s could not be opened: %s", folder,
			strerrordesc_np(errno));
	if (mkdirat(parent, name, 0750) < 0 && errno != EEXIST)
		return err_set(err, -errno, "the folder %.300s/%s could not be made: %s", folder,
			name, strerrordesc_np(errno));
	fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return err_set(err, -errno, "the folder %.300s/%s could not be opened: %s", folder,
			name, strerrordesc_np(errno));
	if (st.st_uid != 0 && st.st_uid != user.uid && st.st_uid != geteuid())
		return err_set(err, -EPERM,
			"the folder %.300s/%s belongs to user %u, who is neither root nor odi's exporter",
			folder, name, st.st_uid);
	if (st.st_uid != user.uid && fchown(fd, user.uid, user.gid) < 0)
		return err_set(err, -errno,
			"the folder %.300s/%s could not be given to odi's exporter: chown %u:%u it",
			folder, name, user.uid, user.gid);
	return TAKE_FD(fd);
}

/* Its folder, or -1 for a destination that needs none or has none. */
static int folder_of(const struct link *l, const struct destination_spec *s)
{
	struct err_text err = {};
	const struct destination_type *t =
		destination_adopt(s->type, s->options, s->n_options, &err);
	int fd;

	if (!t || !streq(t->transport, "file"))
		return -1;
	fd = open_folder(exporter_user(l),
		destination_option(t, s->options, s->n_options, t->endpoint_option), s->name, &err);
	if (fd < 0)
		log_warning("destination %s: %s", s->name, err.text);
	return fd;
}

int link_send_folder(struct link *l, const struct buf *spec, uint64_t key)
{
	struct message_folder m = {
		.header = protocol_header(MESSAGE_FOLDER, sizeof(m)), .key = key};
	struct destination_spec *specs = NULL;
	_cleanup_close_ int fd = -1;
	size_t n = 0;
	int r = protocol_get_specs((const char *)spec->data, spec->len, &specs, &n);

	if (r < 0)
		return r;
	if (n == 1) {
		fd = folder_of(l, &specs[0]);
		m.key = key ? key : specs[0].id;
	}
	protocol_free_specs(specs, n);
	return fd < 0 ? 0 : fdpass_send(l->child.sock, &m, sizeof(m), &fd, 1);
}
