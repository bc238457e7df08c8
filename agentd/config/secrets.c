/* SPDX-License-Identifier: Apache-2.0 */

/* Secrets, and what only refers to them.
 *
 * A document travels: into SQLite, into history, into what `odictl` shows, one day to a control plane. So it never holds
 * a secret. What a person gives comes as a descriptor that odictl filled with the caller's rights, is kept here in a
 * file with a random name, and the document says `secret:` and that name. A file is removed as soon as no document in
 * force refers to it: a secret that was taken back is gone, also for those who go back to an older revision, which then
 * asks for it anew.
 *
 * A file that is named instead (file:/PATH) is read again when it changes, by root, so only root may be able to change
 * what the name leads to (base/trusted.c), and a caller other than root's own files must have been able to read it at
 * the time: it shows that with a descriptor of the same file. statx() without synchronisation never waits for a file
 * system in user space. Credentials are systemd's (systemd.exec(5), LoadCredential=).
 *
 * Runs in agentd. */

#include <dirent.h>
#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "agentd/base/trusted.h"
#include "agentd/config/manager.h"
#include "agentd/config/secrets.h"

struct secrets {
	int folder;
};

int secrets_open(struct secrets **ret, const char *state_dir, struct err_text *err)
{
	_cleanup_free_ char *path = NULL;
	struct secrets *s;
	int fd, r;

	if (asprintf(&path, "%s/secrets", state_dir) < 0) {
		path = NULL;
		return err_set(err, -ENOMEM, "out of memory");
	}
	r = io_mkdir_p(path, 0700, err);
	if (r < 0)
		return r;
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return err_set(err, -errno, "cannot read %s: %m", path);
	r = trusted_fd(fd, S_IFDIR, path, err);
	s = r < 0 ? NULL : calloc(1, sizeof(*s));
	if (!s) {
		close(fd);
		return r < 0 ? r : err_set(err, -ENOMEM, "out of memory");
	}
	(void)fchmod(fd, 0700);
	s->folder = fd;
	*ret = s;
	return 0;
}

struct secrets *secrets_close(struct secrets *s)
{
	if (s) {
		closep(&s->folder);
		free(s);
	}
	return NULL;
}

void secrets_wipe(struct buf *b)
{
	if (b->data)
		explicit_bzero(b->data, b->size);
	buf_deinit(b);
}

static bool is_id(const char *s)
{
	return strlen(s) == SECRET_ID - 1 && strspn(s, "0123456789abcdef") == SECRET_ID - 1;
}

static int count(struct secrets *s)
{
	int fd = openat(s->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir) {
		closep(&fd);
		return 0;
	}
	for (const struct dirent *e; (e = readdir(dir));)
		n += is_id(e->d_name);
	closedir(dir);
	return n;
}

int secrets_keep(struct secrets *s, int memfd, char id[SECRET_ID], struct err_text *err)
{
	CLEANUP(secrets_wipe) struct buf bytes = {0};
	uint8_t random[(SECRET_ID - 1) / 2];
	size_t size;
	int r;

	buf_init(&bytes, SECRET_MAX_BYTES + 1);
	r = io_check_sealed(memfd, SECRET_MAX_BYTES, &size);
	if (r < 0)
		return err_set(err, -EINVAL,
			"a secret comes as a sealed memory file of at most %u KB: use the odictl that "
			"came with this agentd",
			SECRET_MAX_BYTES >> 10);
	if (!size)
		return err_set(err, -EINVAL, "the file is empty");
	if (count(s) >= SECRETS_MAX)
		return err_set(err, -ENOSPC, "there are more than %d secrets", SECRETS_MAX);
	if (!buf_reserve(&bytes, size) || io_pread_all(memfd, bytes.data, size, 0) < 0 ||
		getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
		return err_set(err, -EIO, "the secret cannot be read: %m");
	buf_commit(&bytes, size);
	for (size_t i = 0; i < sizeof(random); i++)
		snprintf(id + 2 * i, 3, "%02x", random[i]);
	r = io_write_atomic(s->folder, id, bytes.data, size, 0600);
	return r < 0 ? err_set(err, r, "the secret cannot be kept: %s", strerrordesc_np(-r)) : 0;
}

void secrets_drop(struct secrets *s, const char *id)
{
	if (is_id(id))
		(void)unlinkat(s->folder, id, 0);
}

static bool referred_to(const struct config_manager *m, const char *id)
{
	for (size_t layer = 0; layer < LAYERS; layer++)
		for (size_t i = 0; m->docs[layer] && i < config_doc_size(m->docs[layer]); i++) {
			const char *value = config_doc_at(m->docs[layer], i)->value;

			if (text_starts(value, "secret:") && streq(value + 7, id))
				return true;
		}
	return false;
}

void secrets_prune(struct secrets *s, const struct config_manager *m)
{
	int fd = openat(s->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir) {
		closep(&fd);
		return;
	}
	for (const struct dirent *e; (e = readdir(dir));)
		if (is_id(e->d_name) && !referred_to(m, e->d_name))
			(void)unlinkat(s->folder, e->d_name, 0);
	closedir(dir);
}

/* ---- reading --------------------------------------------------------------------------------------- */

static int open_credential(const char *name, struct err_text *err)
{
	const char *folder = getenv("CREDENTIALS_DIRECTORY");
	char path[400];
	int fd;

	if (!folder || !text_is_name(name))
		return err_set(err, -ENOENT,
			"there is no credential %.64s: agentd was not given any; add LoadCredential=%.64s:"
			"/PATH to its unit",
			name, name);
	snprintf(path, sizeof(path), "%.300s/%.64s", folder, name);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	return fd < 0
		? err_set(err, -errno,
			  "the credential %.64s cannot be read: %m; LoadCredential=%.64s:/PATH "
			  "in agentd's unit gives it one",
			  name, name)
		: fd;
}

static int open_reference(struct secrets *s, const char *reference, struct err_text *err)
{
	int fd;

	if (text_starts(reference, "file:"))
		return trusted_open(reference + 5, err);
	if (text_starts(reference, "cred:"))
		return open_credential(reference + 5, err);
	if (!text_starts(reference, "secret:") || !is_id(reference + 7))
		return err_set(err, -EINVAL, "that is no reference to a secret");
	fd = openat(s->folder, reference + 7, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? err_set(err, -errno, "it is not kept any more: set it again") : fd;
}

static int check_content(
	const char *reference, struct buf *b, size_t from, bool text, struct err_text *err)
{
	const char *shown = text_starts(reference, "secret:") ? "it" : reference;

	while (text && b->len > from &&
		(b->data[b->len - 1] == '\n' || b->data[b->len - 1] == '\r'))
		b->len--;
	if (b->len == from)
		return err_set(err, -EINVAL, "%.300s is empty", shown);
	if (memchr(b->data + from, 0, b->len - from))
		return err_set(err, -EINVAL, "%.300s holds a NUL byte and is no text", shown);
	b->data[b->len] = 0;
	if (text && !text_is_clean((const char *)b->data + from, 4096))
		return err_set(err, -EINVAL, "%.300s is not one line of text of at most 4096 bytes",
			shown);
	if (!text && !strstr((const char *)b->data + from, "-----BEGIN "))
		return err_set(err, -EINVAL, "%.300s is not a PEM file (-----BEGIN ...)", shown);
	return 0;
}

int secrets_read(
	struct secrets *s, const char *reference, bool text, struct buf *out, struct err_text *err)
{
	_cleanup_close_ int fd = open_reference(s, reference, err);
	size_t from = out->len;
	int r;

	if (fd < 0)
		return fd;
	r = io_read_fd(fd, out, SECRET_MAX_BYTES);
	if (r == -EFBIG)
		return err_set(
			err, r, "%.300s is larger than %u KB", reference, SECRET_MAX_BYTES >> 10);
	if (r < 0)
		return err_set(err, r, "%.300s cannot be read: %s", reference, strerrordesc_np(-r));
	buf_add(out, "", 1);
	if (buf_error(out))
		return err_set(err, buf_error(out), "out of memory");
	out->len--;
	return check_content(reference, out, from, text, err);
}

int secrets_may_name(const char *path, int fd, struct err_text *err)
{
	_cleanup_close_ int own = trusted_open(path, err);
	int flags = fcntl(fd, F_GETFL);
	struct statx a, b;

	if (own < 0)
		return own;
	if (flags < 0 || flags & O_PATH || (flags & O_ACCMODE) == O_WRONLY ||
		statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &a) < 0 ||
		statx(own, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_INO, &b) < 0 ||
		a.stx_ino != b.stx_ino || a.stx_dev_major != b.stx_dev_major ||
		a.stx_dev_minor != b.stx_dev_minor)
		return err_set(err, -EACCES,
			"%.300s is another file for agentd than for you, or you may not read it",
			path);
	return 0;
}
