/* SPDX-License-Identifier: Apache-2.0 */

/* Files, whole and bounded.
 *
 * Two promises: no read takes more memory than its caller said, whatever the file claims to be or
 * grows to meanwhile; and a file that was written atomically is, after any crash, the old one or
 * the new one and never a part of either. Sealed memfds are how bytes go from one role to another:
 * the seals mean that the sender cannot change or cut them under the reader (no SIGBUS, no double
 * fetch).
 *
 * Source: memfd_create(2), fcntl(2) on seals, fsync(2). All roles; in the sandboxed ones only the
 * functions that take descriptors work. */

#include <fcntl.h>
#include <inttypes.h>
#include <linux/limits.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "agentd/base/clock.h"
#include "agentd/base/io.h"

#define CHUNK 16384
#define SEALS (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8U
#endif

/* IO_NO_FD stands for the current folder. */
static int at(int dirfd)
{
	return dirfd < 0 ? AT_FDCWD : dirfd;
}

int io_read_fd(int fd, struct buf *out, size_t max)
{
	size_t before = out->len, got = 0;
	uint8_t chunk[CHUNK];
	int r = buf_error(out);

	while (r == 0) {
		/* One byte more than is allowed shows that there is more. fstat() would not do:
		 * files of /proc have no size, and others grow. */
		size_t want = MIN(sizeof(chunk), max - got < SIZE_MAX ? max - got + 1 : SIZE_MAX);
		ssize_t n = read(fd, chunk, want);

		if (n < 0 && errno == EINTR)
			continue;
		if (n == 0)
			return 0;
		if (n < 0) {
			r = -errno;
		} else if ((size_t)n > max - got) {
			r = -EFBIG;
		} else {
			got += (size_t)n;
			buf_add(out, chunk, (size_t)n);
			r = buf_error(out);
		}
	}
	/* Half a file is nobody's wish. */
	if (out->len > before) {
		out->len = before;
		out->data[before] = '\0';
	}
	return r;
}

int io_read_file(int dirfd, const char *path, struct buf *out, size_t max)
{
	/* O_NONBLOCK: a FIFO put in the file's place must not stop the daemon. */
	_cleanup_close_ int fd =
		openat(at(dirfd), path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);

	return fd < 0 ? -errno : io_read_fd(fd, out, max);
}

int io_write_all(int fd, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len) {
		ssize_t n = write(fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int io_pread_all(int fd, void *data, size_t len, uint64_t offset)
{
	uint8_t *p = data;

	while (len) {
		ssize_t n;

		if (offset > INT64_MAX)
			return -ENODATA;
		n = pread(fd, p, len, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENODATA;
		p += n;
		offset += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* Opens the folder of name, and points *base at its last part. */
static int open_folder(int dirfd, const char *name, const char **base)
{
	const char *slash = strrchr(name, '/');
	char folder[PATH_MAX] = ".";
	int fd;

	*base = slash ? slash + 1 : name;
	if (!**base || streq(*base, ".") || streq(*base, ".."))
		return -EINVAL;
	if (slash) {
		size_t len = slash == name ? 1 : (size_t)(slash - name);

		if (len >= sizeof(folder))
			return -ENAMETOOLONG;
		memcpy(folder, name, len);
		folder[len] = '\0';
	}
	fd = openat(at(dirfd), folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int write_and_rename(int folder, const char *temporary, const char *base, const void *data,
	size_t len, unsigned mode)
{
	_cleanup_close_ int fd = openat(
		folder, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	int r;

	if (fd < 0)
		return -errno;
	r = io_write_all(fd, data, len);
	/* The mode comes last, and by fchmod: the umask has no say, and no half is ever readable.
	 */
	if (r == 0 && (fchmod(fd, (mode_t)mode) < 0 || fsync(fd) < 0))
		r = -errno;
	/* close() is where some file systems say that the disk is full. */
	if (close(TAKE_FD(fd)) < 0 && r == 0 && errno != EINTR)
		r = -errno;
	if (r == 0 && renameat(folder, temporary, folder, base) < 0)
		r = -errno;
	if (r < 0)
		(void)unlinkat(folder, temporary, 0);
	return r;
}

int io_write_atomic(int dirfd, const char *name, const void *data, size_t len, unsigned mode)
{
	const char *base;
	_cleanup_close_ int folder = open_folder(dirfd, name, &base);
	char temporary[48];
	uint64_t random;
	int r;

	if (folder < 0)
		return folder;
	/* The name is not derived from base, which may be as long as a name can be. */
	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != (ssize_t)sizeof(random))
		random = clock_boottime_ns() ^ (uint64_t)getpid() << 44;
	snprintf(temporary, sizeof(temporary), ".odi-%016" PRIx64 ".tmp", random);
	r = write_and_rename(folder, temporary, base, data, len, mode);
	if (r < 0)
		return r;
	/* The rename is on the disk only when the folder is. Some file systems have no fsync there.
	 */
	if (fsync(folder) < 0 && errno != EINVAL && errno != EROFS)
		return -errno;
	return 0;
}

int io_sealed_memfd(const char *name, const void *data, size_t len)
{
	_cleanup_close_ int fd =
		memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);
	int r;

	/* Kernels before 6.3 do not know the flag; hosts with vm.memfd_noexec=2 insist on it. */
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	r = io_write_all(fd, data, len);
	if (r < 0)
		return r;
	if (lseek(fd, 0, SEEK_SET) < 0 || fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int io_check_sealed(int fd, size_t max, size_t *size)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	/* Seals first: before they are known to hold, the size means nothing. */
	if (seals < 0 || (seals & SEALS) != SEALS)
		return -EPERM;
	if (fstat(fd, &st) < 0 || st.st_size < 0 || (uint64_t)st.st_size > max)
		return -EPERM;
	*size = (size_t)st.st_size;
	return 0;
}

static int make_folder(const char *path, unsigned mode, struct err_text *err)
{
	struct stat st;

	if (mkdir(path, (mode_t)mode) == 0) {
		/* The umask has no say. */
		if (chmod(path, (mode_t)mode) < 0)
			return err_set(
				err, -errno, "cannot set the mode of the folder %s: %m", path);
		return 0;
	}
	/* EEXIST, but also EROFS or EACCES of a folder that is there already. */
	if (errno != EEXIST) {
		int saved = errno;

		if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
			return 0;
		errno = saved;
		return err_set(err, -errno, "cannot make the folder %s: %m", path);
	}
	if (stat(path, &st) < 0)
		return err_set(err, -errno, "cannot look at %s: %m", path);
	if (!S_ISDIR(st.st_mode))
		return err_set(
			err, -ENOTDIR, "%s is there, but is not a folder; move it away", path);
	return 0;
}

int io_mkdir_p(const char *path, unsigned mode, struct err_text *err)
{
	char part[PATH_MAX];
	size_t len = strlen(path);
	int r;

	while (len > 1 && path[len - 1] == '/')
		len--;
	if (!len)
		return err_set(err, -EINVAL, "the name of a folder is empty");
	if (len >= sizeof(part))
		return err_set(err, -ENAMETOOLONG, "the name of the folder is too long: %s", path);
	memcpy(part, path, len);
	part[len] = '\0';
	for (char *p = part + 1; *p; p++) {
		if (*p != '/' || p[-1] == '/')
			continue;
		*p = '\0';
		r = make_folder(part, 0755, err);
		if (r < 0)
			return r;
		*p = '/';
	}
	return make_folder(part, mode, err);
}
