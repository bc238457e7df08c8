/* SPDX-License-Identifier: Apache-2.0 */

/* Files as a destination: one a request, OTLP or pprof, the oldest removed beyond a number or a size.
 *
 * The folder comes as a descriptor that agentd opened below what the administrator allows (see link_folder.c); no path
 * is followed here. A file is written under a hidden name, synced and renamed, so that whoever looks sees whole ones
 * only; the hidden name is always the same, so that ends amid a file leave one behind, not many. Names are the time of
 * writing and a number, so that they sort as they came. Only files that are named so are counted and removed: what else
 * lies there is not ours.
 *
 * A disk that is full may have room later, so what was sampled waits; a folder that cannot be written to waits for
 * somebody to mend it. Runs in the exporter. */

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

#include "agentd/base/clock.h"
#include "agentd/base/io.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "destinations/at_once.h"
#include "destinations/transports.h"

#define STEM_LEN  24 /* 20260102T030405Z-0000001: see file_name() */
#define TEMPORARY ".odi-new"

struct kept {
	char name[48];
	uint64_t bytes;
};

struct files {
	struct at_once at_once; /* first */
	char endpoint[PROTOCOL_TEXT];
	int folder;
	enum shape_form form;
	enum shape_packing packing;
	uint64_t max_files, max_bytes;
	struct kept *kept; /* oldest first */
	size_t n, room;
	uint64_t bytes, serial;
};

/* ---- what is there ------------------------------------------------------------------------------- */

static const char *extension(const struct files *f)
{
	if (f->form == SHAPE_PPROF)
		return ".pb.gz";
	return f->packing == SHAPE_GZIP    ? ".otlp.gz"
		: f->packing == SHAPE_ZSTD ? ".otlp.zst"
					   : ".otlp";
}

/* One of ours, whatever was set when it was written. */
static bool is_ours(const char *name)
{
	static const char pattern[] = "00000000T000000Z-0000000";
	static const char *const ends[] = {".pb.gz", ".otlp", ".otlp.gz", ".otlp.zst"};

	_Static_assert(sizeof(pattern) - 1 == STEM_LEN, "the length of a stem");
	for (size_t i = 0; i < STEM_LEN; i++)
		if (pattern[i] == '0' ? name[i] < '0' || name[i] > '9' : name[i] != pattern[i])
			return false;
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		if (streq(name + STEM_LEN, ends[i]))
			return true;
	return false;
}

static int keep(struct files *f, const char *name, uint64_t bytes)
{
	if (f->n == f->room) {
		size_t room = MAX(2 * f->room, (size_t)64);
		struct kept *longer = reallocarray(f->kept, room, sizeof(*longer));

		if (!longer)
			return -ENOMEM;
		f->kept = longer;
		f->room = room;
	}
	snprintf(f->kept[f->n].name, sizeof(f->kept[f->n].name), "%.47s", name);
	f->kept[f->n++].bytes = bytes;
	f->bytes += bytes;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct kept *)a)->name, ((const struct kept *)b)->name);
}

static int scan(struct files *f)
{
	int fd = openat(f->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *e;

	if (!d) {
		r = -errno;
		if (fd >= 0)
			close(fd);
		return r;
	}
	while (r == 0 && (e = readdir(d))) {
		struct stat st;
		uint64_t serial;
		char number[8];

		if (!is_ours(e->d_name) ||
			fstatat(f->folder, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
			!S_ISREG(st.st_mode))
			continue;
		r = keep(f, e->d_name, (uint64_t)st.st_size);
		snprintf(number, sizeof(number), "%.7s", e->d_name + STEM_LEN - 7);
		if (text_u64(number, 0, UINT64_MAX, &serial) == 0)
			f->serial = MAX(f->serial, serial);
	}
	closedir(d);
	if (f->n)
		qsort(f->kept, f->n, sizeof(*f->kept), by_name);
	return r;
}

/* Removes the oldest until `more` bytes and one file have room. */
static void rotate(struct files *f, uint64_t more)
{
	size_t gone = 0;

	while (gone < f->n && (f->n - gone >= f->max_files || f->bytes + more > f->max_bytes)) {
		if (unlinkat(f->folder, f->kept[gone].name, 0) < 0 && errno != ENOENT)
			break;
		f->bytes -= f->kept[gone++].bytes;
	}
	f->n -= gone;
	if (gone)
		memmove(f->kept, f->kept + gone, f->n * sizeof(*f->kept));
}

/* ---- writing ------------------------------------------------------------------------------------- */

static void file_name(struct files *f, char out[48])
{
	time_t now = (time_t)(clock_unix_ns() / NSEC_PER_SEC);
	struct tm tm;
	char stamp[24];

	gmtime_r(&now, &tm);
	strftime(stamp, sizeof(stamp), "%Y%m%dT%H%M%SZ", &tm);
	f->serial = (f->serial + 1) % 10000000;
	snprintf(out, 48, "%s-%07llu%s", stamp, (unsigned long long)f->serial, extension(f));
}

/* A new file under the hidden name; one that a predecessor left is nobody's. */
static int begin_file(const struct files *f)
{
	int fd;

	if (unlinkat(f->folder, TEMPORARY, 0) < 0 && errno != ENOENT)
		return -errno;
	fd = openat(
		f->folder, TEMPORARY, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0640);
	return fd < 0 ? -errno : fd;
}

static int write_file(struct files *f, const void *body, size_t len)
{
	char name[48];
	_cleanup_close_ int fd = -1;
	int r;

	rotate(f, len);
	fd = begin_file(f);
	if (fd < 0)
		return fd;
	file_name(f, name);
	r = io_write_all(fd, body, len);
	if (r == 0 && fdatasync(fd) < 0)
		r = -errno;
	if (r == 0 && renameat(f->folder, TEMPORARY, f->folder, name) < 0)
		r = -errno;
	if (r < 0) {
		(void)unlinkat(f->folder, TEMPORARY, 0);
		return r;
	}
	/* Not remembered for want of memory: it is there, and counted from the next start on. */
	(void)keep(f, name, len);
	/* What counts as delivered survives a loss of power; its name is on the disk when the folder is. */
	if (fsync(f->folder) < 0 && errno != EINVAL)
		log_warning("the folder %.300s could not be synced: %s", f->endpoint,
			strerrordesc_np(errno));
	return 0;
}

/* A test writes nothing that stays. */
static int try_folder(struct files *f)
{
	int fd = begin_file(f);

	if (fd < 0)
		return fd;
	close(fd);
	return unlinkat(f->folder, TEMPORARY, 0) < 0 ? -errno : 0;
}

static void say_failure(struct files *f, int error, struct send_result *result)
{
	bool full = error == -ENOSPC || error == -EDQUOT;

	result->outcome =
		full || error == -ENOMEM || error == -EIO || error == -ENFILE || error == -EMFILE
		? SEND_AGAIN
		: SEND_BLOCKED;
	snprintf(result->reason, sizeof(result->reason), "no file could be written in %.300s: %s",
		f->endpoint, strerrordesc_np(-error));
	snprintf(result->remedy, sizeof(result->remedy), "%s",
		full ? "make room on that disk, or set a smaller max-bytes"
		     : "is the folder still there, and may odi's exporter write there?");
}

static int files_send(
	struct sender *s, const void *body, size_t len, send_done_fn *done, void *userdata)
{
	struct files *f = (struct files *)s;
	uint64_t start = clock_monotonic_ns();
	int r;

	if (s->busy)
		return -EBUSY;
	f->at_once.result = (struct send_result){.sent_bytes = len};
	r = f->at_once.test ? try_folder(f) : write_file(f, body, len);
	if (r < 0)
		say_failure(f, r, &f->at_once.result);
	at_once_end(&f->at_once, start, done, userdata);
	return 0;
}

/* ---- opening ------------------------------------------------------------------------------------- */

static struct sender *files_close(struct sender *s)
{
	struct files *f = (struct files *)s;

	if (!f)
		return NULL;
	if (s->busy)
		transport_forget(&s->job);
	if (f->folder >= 0)
		close(f->folder);
	free(f->kept);
	free(f);
	return NULL;
}
DEFINE_FREEP(files_freep, struct sender *, files_close)

static int files_open(struct sender **ret, const struct sender_setup *u, struct err_text *err)
{
	struct files *f = calloc(1, sizeof(*f));
	CLEANUP(files_freep) struct sender *s = (struct sender *)f;
	const struct destination_type *t = u->type;
	bool pprof;
	int r;

	if (!f)
		return err_set(err, -ENOMEM, "out of memory");
	f->folder = -1;
	f->at_once.test = u->test;
	snprintf(f->endpoint, sizeof(f->endpoint), "%.400s/%.80s",
		sender_option(u, t->endpoint_option), u->name);
	pprof = streq(sender_option(u, "format"), "pprof");
	f->form = pprof ? SHAPE_PPROF : SHAPE_OTLP;
	f->packing = pprof ? SHAPE_GZIP : sender_packing(u);
	if (text_u64(sender_option(u, "max-files"), 1, 1000000, &f->max_files) < 0)
		f->max_files = 100;
	if (text_size(sender_option(u, "max-bytes"), &f->max_bytes) < 0 || !f->max_bytes)
		f->max_bytes = 256ULL << 20;
	r = transport_folder(u->folder);
	if (r < 0)
		return err_set(err, -ENOENT,
			"the folder %.300s cannot be used; agentd's log says why", f->endpoint);
	f->folder = fcntl(r, F_DUPFD_CLOEXEC, 3);
	r = f->folder < 0 ? -errno : scan(f);
	if (r < 0)
		return err_set(err, r, "the folder %.300s cannot be read: %s", f->endpoint,
			strerrordesc_np(-r));
	*ret = TAKE_PTR(s);
	return 0;
}

static const char *files_endpoint(const struct sender *s)
{
	return ((const struct files *)s)->endpoint;
}

static void files_shape(const struct sender *s, struct shape_limits *limits)
{
	const struct files *f = (const struct files *)s;

	limits->form = f->form;
	limits->packing = f->packing;
}

const struct transport transport_file = {
	.name = "file",
	.open = files_open,
	.close = files_close,
	.endpoint = files_endpoint,
	.shape = files_shape,
	.send = files_send,
};
