/* SPDX-License-Identifier: Apache-2.0 */

/* Where runtimes keep a container's state, and how such a file is opened.
 *
 * The places are root's own (the rootless ones belong to the user who may write there: such
 * containers are found by id only). A symbolic link on the way is followed, since /var/lib/docker
 * often is one, but not as the last step, and never out of the root or through /proc's magic.
 * Opened so that nothing blocks: a fifo or a device put there answers at once and is refused. '@'
 * stands for the id; one part may be a glob. Source: Docker's daemon/container state, containerd's
 * runtime v2 bundles, containers/storage's layout. Runs in agentd. */

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include "agentd/base/text.h"
#include "agentd/container/private.h"

#define ENTRIES_MAX 512 /* of a folder, looked at for a glob */

struct place {
	const char *runtime, *pattern;
	bool added; /* below an added root; else from the root of the file system */
};

static const struct place places[] = {
	{"docker", "containers/@/config.v2.json", true},
	{"docker", "*/containers/@/config.v2.json", true},
	{"docker", "var/lib/docker/containers/@/config.v2.json", false},
	{"docker", "var/snap/docker/common/var-lib-docker/containers/@/config.v2.json", false},
	/* With userns-remap: /var/lib/docker/100000.100000/... */
	{"docker", "var/lib/docker/*.*/containers/@/config.v2.json", false},

	{"containerd", "*/@/config.json", true},
	{"containerd", "run/containerd/io.containerd.runtime.v2.task/*/@/config.json", false},
	{"containerd", "run/k3s/containerd/io.containerd.runtime.v2.task/*/@/config.json", false},
	{"containerd",
		"var/snap/microk8s/common/run/containerd/io.containerd.runtime.v2.task/*/@/config.json",
		false},
	{"containerd", "run/containerd/io.containerd.runtime.v1.linux/*/@/config.json", false},

	{"podman", "*-containers/containers.json", true},
	{"podman", "*-containers/volatile-containers.json", true}, /* podman run --rm */
	{"podman", "var/lib/containers/storage/*-containers/containers.json", false},
	{"podman", "var/lib/containers/storage/*-containers/volatile-containers.json", false},
	{"podman", "run/containers/storage/*-containers/containers.json", false},
	{"podman", "run/containers/storage/*-containers/volatile-containers.json", false},
	{"podman", "run/containers/storage/*-containers/@/userdata/config.json", false},
	{"podman", "var/lib/containers/storage/*-containers/@/userdata/config.json", false},

	{"crio", "*-containers/@/userdata/config.json", true},
	{"crio", "run/containers/storage/*-containers/@/userdata/config.json", false},
	{"crio", "var/lib/containers/storage/*-containers/@/userdata/config.json", false},
	{"crio", "var/lib/containers/storage/*-containers/containers.json", false},
};

void container_paths_deinit(struct container_paths *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->list[i]);
	p->n = 0;
}

static int open_in(int root_fd, const char *path, uint64_t flags)
{
	struct open_how how = {
		.flags = flags | O_CLOEXEC | O_NONBLOCK | O_NOCTTY,
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
	};
	long fd = syscall(SYS_openat2, root_fd, path, &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

int container_open(int root_fd, const char *path)
{
	_cleanup_close_ int fd = open_in(root_fd, path, O_RDONLY | O_NOFOLLOW);
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if ((st.st_uid != 0 && st.st_uid != geteuid()) || (st.st_mode & S_IWOTH))
		return -EPERM;
	if (st.st_size > (off_t)CONTAINER_FILE_MAX)
		return -EFBIG;
	return TAKE_FD(fd);
}

static int add(struct container_paths *p, const char *path)
{
	char *copy;

	if (p->n == CONTAINER_PLACES_MAX)
		return 0;
	copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	p->list[p->n++] = copy;
	return 0;
}

static void close_dir(DIR **d)
{
	if (*d)
		closedir(*d);
}

/* path has a glob in the part that begins at `part`: one path for each folder there that fits. */
static int add_glob(struct container_paths *p, int root_fd, const char *path, size_t part)
{
	CLEANUP(close_dir) DIR *d = NULL;
	char folder[PATH_MAX], pattern[NAME_MAX + 1], whole[PATH_MAX];
	const char *rest = path + part + strcspn(path + part, "/");
	struct dirent *e;
	int fd, r = 0;

	if (rest - (path + part) > NAME_MAX)
		return 0;
	snprintf(pattern, sizeof(pattern), "%.*s", (int)(rest - (path + part)), path + part);
	snprintf(folder, sizeof(folder), "%.*s", part ? (int)part : 1, part ? path : ".");
	fd = open_in(root_fd, folder, O_RDONLY | O_DIRECTORY);
	if (fd < 0)
		return 0;
	d = fdopendir(fd);
	if (!d) {
		close(fd);
		return -ENOMEM;
	}
	for (size_t n = 0; n < ENTRIES_MAX && r == 0 && (e = readdir(d)); n++) {
		if (e->d_name[0] == '.' || e->d_type == DT_REG || !text_glob(pattern, e->d_name))
			continue;
		if (snprintf(whole, sizeof(whole), "%.*s%s%s", (int)part, path, e->d_name, rest) <
			(int)sizeof(whole))
			r = add(p, whole);
	}
	return r;
}

static int add_place(struct container_paths *p, int root_fd, const struct place *place,
	const char *base, const char *id)
{
	const char *at = strchr(place->pattern, '@'), *star;
	char path[PATH_MAX];
	size_t start = base ? strspn(base, "/") : 0, prefix, part;
	int n;

	/* The base is an administrator's words: no patterns in there. */
	n = snprintf(path, sizeof(path), "%s%s", base ? base + start : "", base ? "/" : "");
	if (n < 0 || (size_t)n >= sizeof(path))
		return 0;
	prefix = n;
	n = snprintf(path + prefix, sizeof(path) - prefix, "%.*s%s%s",
		(int)(at ? at - place->pattern : (long)strlen(place->pattern)), place->pattern,
		at ? id : "", at ? at + 1 : "");
	if (n < 0 || (size_t)n >= sizeof(path) - prefix)
		return 0;
	star = strchr(path + prefix, '*');
	if (!star)
		return add(p, path);
	for (part = star - path; part > 0 && path[part - 1] != '/'; part--)
		;
	return add_glob(p, root_fd, path, part);
}

int container_paths_add(struct container_paths *p, int root_fd, const char *runtime,
	const char *base, const char *id)
{
	bool known = false;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		known |= streq(places[i].runtime, runtime);
	for (size_t i = 0; i < ARRAY_SIZE(places) && r == 0; i++)
		if (places[i].added == (base != NULL) &&
			(!known || streq(places[i].runtime, runtime)))
			r = add_place(p, root_fd, &places[i], base, id);
	return r;
}
