/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The process table: what every image on the host is, what it has mapped, and how long it is needed.
 *
 * It eats the sampler's event stream and gives out samples whose frames are resolved to files. An image
 * is read once (by the /proc reader, a killable child with a deadline: maps, cmdline and environ wait for
 * the target's own lock, and opening a file of FUSE may never return); samples that arrive before that is
 * done wait in the image's queue. An image that ended keeps its entry until its last samples are through.
 * Bounded: images, mappings an image, waiting samples, open files; least recently used out first.
 * Runs in agentd. */

#include <sys/types.h>
#include <systemd/sd-event.h>
#include "agentd/base/err.h"
#include "agentd/sampler/sampler.h"

/* ---- files: HOUSE, File identity ------------------------------------------------------------------ */

struct file_identity {
	uint64_t device, inode, size;
	int64_t mtime_ns, ctime_ns;
};

enum file_kind {
	FILE_ELF = 1, /* a regular file; what it holds is for the sandbox to say */
	FILE_VDSO, /* the kernel's own; one for the host (fd: a memfd copy of agentd's own vDSO) */
	FILE_ANON, /* executable memory without a file that is no FILE_JIT: [heap], [stack], [unmapped] */
	FILE_UNOPENED, /* has a file but could not be opened: names come from its path and offset only */
	FILE_KERNEL, /* kernel addresses; id FILE_ID_KERNEL */
	FILE_JIT, /* code that one image made for itself: its FRAME_JIT frames, offset the address; [jit] */
};

/* What names the code of a FILE_JIT. */
enum file_jit {
	FILE_JIT_NONE,
	FILE_JIT_MAP,  /* /tmp/perf-PID.map */
	FILE_JIT_DUMP, /* jit-PID.dump */
};

/* What made it. */
enum file_runtime {
	RUNTIME_NONE, /* not known */
	RUNTIME_JVM,
	RUNTIME_V8,
	RUNTIME_DOTNET,
	RUNTIME_PYTHON,
	RUNTIME_RUBY,
	RUNTIME_PHP,
	RUNTIME_BEAM,
	RUNTIME_LUAJIT,
};

#define FILE_ID_KERNEL 1
#define FILE_ID_VDSO   2

struct file {
	uint32_t id; /* never reused in this process; 0 is no file */
	enum file_kind kind;
	struct file_identity identity;
	uid_t owner;
	bool shared_by_build_id; /* root owns it, nobody else may write it */
	int fd;                  /* -1 once closed by the bound on open files or not opened */
	char *path;              /* as its first image saw it, " (deleted)" stripped; clean text */
	char *reason; /* FILE_UNOPENED: why; FILE_JIT: why what would name it is not used, NULL */
	enum file_jit jit;         /* FILE_JIT: what fd is; it is written to while it is read */
	enum file_runtime runtime; /* FILE_JIT */
	bool jit_replaced;         /* FILE_JIT: fd is another file than it was */
	uint64_t jit_looked_ns;    /* FILE_JIT: for the daemon */
	char build_id[41];         /* hex, "" until the symbolizer said it */
	char go_build_id[97];
	char htlhash[33];
	uint64_t last_used_ns;
};

/* ---- images --------------------------------------------------------------------------------------- */

struct attribute {
	const char *key, *value;
};

enum image_state {
	IMAGE_NEW,     /* asked for, not read yet: samples wait */
	IMAGE_READY,   /* facts as /proc said */
	IMAGE_PARTIAL, /* gone or unreadable before it was read: what events and its parent said */
};

struct image {
	struct sample_image key;
	enum image_state state;
	bool ended, kernel_thread;
	pid_t ppid;
	struct sample_image parent; /* zero where not known */
	uid_t uid;
	char comm[SAMPLE_COMM + 1];
	char *exe;   /* path of the executable, " (deleted)" stripped; "" not known */
	char *argv0; /* "" not known */
	char *cmdline; /* all of argv, blank-separated, bounded 4 KiB: for matching on this host only */
	char *cgroup;            /* path in the hierarchy that says most: see cgroup_best() */
	char *unit;              /* "nginx.service"; "" none */
	char *slice;             /* innermost slice; "" none */
	char *container_id;      /* 64 (or 32) hex digits; "" none */
	char *container_runtime; /* "docker", "containerd", "podman", "crio"; "" */
	char *container_name;    /* "" until/unless known */
	char *container_image;   /* container_facts.image; "" or NULL until/unless known */
	struct attribute *k8s;   /* k8s.* from OCI annotations */
	size_t n_k8s;
	char *otel_service_name; /* OTEL_SERVICE_NAME; "" none; checked */
	struct attribute
		*otel; /* OTEL_RESOURCE_ATTRIBUTES; checked for count, length, characters */
	size_t n_otel;
	uint64_t start_unix_ns;
	uint64_t mapping_epoch; /* goes up when executable mappings change */
	uint32_t exe_file;      /* struct file id; 0 not known */
	/* For the owner of the table's callbacks (the daemon): whose it is. */
	void *assignment;
	uint32_t assignment_generation;
	uint64_t samples, last_sample_ns;
	uint64_t cpu_ns; /* sum of value * count of its samples (candidates) */
};

/* One frame resolved. Kernel frames: file FILE_ID_KERNEL, offset the address. Native: offset into the file
 * (for FILE_ANON: the address). JIT: the image's FILE_JIT and the address. Return addresses are kept as they are, flags say so. */
struct process_sample {
	uint64_t time_ns;
	pid_t tid;
	const char *comm; /* of the thread; NUL-terminated */
	uint16_t type;    /* enum sample_type */
	uint64_t value;
	uint32_t count, cpu;
	uint64_t context;
	uint64_t id; /* record_sample.id: more of these are counted in the kernel; 0: not */
	uint64_t
		files; /* unless id is 0: those that the kernel met in its walk, PROCESS_FILE_BIT() */
	uint8_t end;   /* enum walk_end, final */
	uint16_t guessed;  /* frames */
	uint32_t end_file; /* where it ended; 0 none */
	const struct sample_frame *frames;
	size_t n_frames;
};

/* Sets of files, small and certain in one direction: what is not in one is none of its files. */
#define PROCESS_FILE_BIT(id) (1ULL << (((id)*0x9e3779b97f4a7c15ULL) >> 58))

struct process_ops {
	/* Facts are there (state READY or PARTIAL), or changed (cgroup move, container name came later):
	 * decide whose it is. Called before its first on_sample. */
	void (*on_facts)(void *userdata, struct image *image);
	void (*on_sample)(void *userdata, struct image *image, const struct process_sample *sample);
	/* The entry goes away; drop assignment. */
	void (*on_gone)(void *userdata, struct image *image);
	/* Whether a sample could not be kept and why: "queue full", "table full", "image evicted". */
	void (*on_lost)(void *userdata, const char *cause, uint64_t samples);
	/* The same sample's record_sample.id, right before on_lost, where it is not 0: counts of it will
	 * never find their stack. May be NULL. */
	void (*on_lost_id)(void *userdata, uint64_t id);
	/* Whether its samples are wanted at all: user frames of others are neither walked nor looked up, and are
	 * left out. Called after on_facts. May be NULL: all are. */
	bool (*wanted)(void *userdata, struct image *image);
	/* Rows of a page of a file, for the walk of a sample that the kernel could not finish: 0 and *ret
	 * (borrowed until the next call), -EAGAIN: asked for, process_rows_ready() tells when it is worth
	 * another try; -ENOENT: there never will be any. NULL: such samples end where they are. */
	int (*rows)(void *userdata, uint32_t file, uint32_t page, const struct rows_slot **ret);
	/* For a moment in which the loop does not run (process_flush()): waits for rows that were asked for, at
	 * most so long, and calls process_rows_ready() for those that came. Whether more may come. May be NULL. */
	bool (*wait_rows)(void *userdata, unsigned ms);
	/* The image's mappings, or the files behind them, are not what process_space() said last (or never
	 * said). Called back from within an event or a drain: ask later. May come before on_facts: the sooner
	 * the kernel knows, the fewer samples need a slice. May be NULL. */
	void (*on_space)(void *userdata, struct image *image);
	/* A file's entry goes away, and its id with it. May be NULL. */
	void (*on_file_gone)(void *userdata, uint32_t file);
	/* Addresses of the image were given to another file (dlclose, dlopen) at that time: what the kernel
	 * counted by an older space after it is not to be believed. May be NULL. */
	void (*on_reused)(void *userdata, struct image *image, uint64_t time_ns, uint64_t files);
	/* May be NULL. Samples wait until the event stream has passed a moment that lies behind us: draining
	 * soon (not from within this call) lets them go at once instead of with the next drain. */
	void (*on_waiting)(void *userdata);
};

struct process_config {
	size_t max_images;         /* 0: 16,384 */
	size_t max_mappings;       /* an image; 0: 4,096 executable ranges */
	size_t max_queued;         /* samples waiting over all images; 0: 8,192 */
	size_t max_files;          /* 0: 16,384 */
	size_t max_open_files;     /* 0: 1,024 */
	unsigned read_deadline_ms; /* 0: 2,000 */
	unsigned name_wait_ms;     /* samples wait so long for a container's name; 0: 1,000 */
	unsigned hold_max_ms;      /* an answer waits for the event stream to catch up; 0: 1,000 */
	unsigned rows_wait_ms;     /* a sample waits for rows; 0: 2,000 */
	unsigned max_user_frames;  /* of a walk; 0: SAMPLE_DEFAULT_USER */
	const char *proc_root;     /* NULL: "/proc" */
	const char *host_root;     /* where the container runtimes' state files are; NULL: "/" */
};

struct process_counters {
	uint64_t images, files, open_files, queued;
	uint64_t reads, reads_failed, reads_timed_out, reader_restarts;
	uint64_t frames, frames_unmapped; /* native frames without a mapping */
	uint64_t walks, walks_waited;     /* of user space; those that waited for rows */
	uint64_t walks_late;              /* of those: given out without the rows */
	uint64_t slices_dropped;          /* for want of room: their samples end there */
	uint64_t reused; /* samples whose user frames were cut: addresses went to another file */
	uint64_t opens, known; /* mappings whose file was looked at; those known without a look */
	uint64_t evicted_images, evicted_files;
	uint64_t mappings_refused; /* an image had more executable ranges than are kept */
	uint64_t
		otel_refused; /* attributes of processes that were dropped: too many, too long, not text */
};

struct process_table;

int process_table_new(struct process_table **ret, sd_event *loop,
	const struct process_config *config, const struct process_ops *ops, void *userdata,
	struct err_text *err);
struct process_table *process_table_free(struct process_table *t);
DEFINE_FREEP(process_table_freep, struct process_table *, process_table_free)

void process_on_event(struct process_table *t, const struct sampler_event *event);
/* The sampler's on_drained: every event up to then was handed in. Without it answers of the reader wait for
 * the next event (or a second). */
void process_on_drained(struct process_table *t, uint64_t up_to_ns);
/* Waits (bounded by the read deadline) until no sample waits in a queue: before a swap, at a stop. */
void process_flush(struct process_table *t);
/* Visits every image whose facts are known, from events, samples or a survey. The visitor must not hand in events. */
void process_each(struct process_table *t, void (*visit)(void *userdata, struct image *image),
	void *userdata);
struct image *process_find(struct process_table *t, const struct sample_image *key);
struct image *process_find_pid(struct process_table *t, pid_t tgid); /* the newest of that pid */
/* Whether ancestor (by walking parents) is above image. */
bool process_descends(
	struct process_table *t, const struct image *image, const struct sample_image *ancestor);
/* The image's executable mappings as they are now, sorted, for the kernel. Their number (at most max,
 * the first ones); 0 when none is known, they are being read afresh or wait behind samples: on_space is
 * called again when that is over. Files that nobody asked for yet and whose look-up key is not known are
 * SPACE_UNKNOWN. */
size_t process_space(
	struct process_table *t, struct image *image, struct space_map *maps, size_t max);
/* The kernel walks by this from now on: samples carry tag. A later mapping event that gives addresses
 * to another file distrusts samples that carry an older one. */
void process_space_set(struct process_table *t, struct image *image, uint32_t tag);
/* Rows that were asked for by ops.rows have come, or never will. */
void process_rows_ready(struct process_table *t);
/* Borrowed; NULL when evicted or never there. */
struct file *process_file(struct process_table *t, uint32_t id);
/* A file's frames are in use by an interval that is not closed yet: it must not be evicted before. */
void process_file_hold(struct process_table *t, uint32_t id);
void process_file_release(struct process_table *t, uint32_t id);
/* Whether what names the code of a FILE_JIT is not what it was when this was asked last: longer, written anew, or
 * (*replaced) another file. Costs one fstat. */
bool process_jit_changed(struct process_table *t, uint32_t id, bool *replaced);
/* Living images that map a file, those in use first, at most max: their number. Borrowed. */
size_t process_file_users(
	struct process_table *t, uint32_t id, const struct image **ret, size_t max);
/* Opens it again if its descriptor was closed by the bound and an image still maps it. Borrowed fd or -errno. */
int process_file_open(struct process_table *t, uint32_t id);
void process_counters(struct process_table *t, struct process_counters *ret);
/* What runs now, for `source candidates`: reads /proc once in the reader child (all pids), CPU time from stat.
 * done(ready images borrowed) is called back; -EBUSY when one is under way. */
struct process_candidate {
	struct image *image;
	uint64_t cpu_time_ns; /* since the process began, utime + stime */
};
int process_survey(struct process_table *t,
	void (*done)(void *userdata, const struct process_candidate *list, size_t n),
	void *userdata);

/* Where a Docker engine that does not use /var/lib/docker keeps its state; "" or NULL: nowhere else. Copied. */
void process_set_docker_root(struct process_table *t, const char *root);
void process_set_max_user_frames(struct process_table *t, unsigned max); /* of walks from now on */
pid_t process_reader_pid(struct process_table *t);                       /* -1: none runs */

/* The role (`--role proc`): reads /proc for agentd; keeps its capabilities, may be killed at any time. */
int process_reader_main(void);

/* ---- cgroup paths (agentd/process/cgroup.c): pure text, no I/O ---------------------------------------- */

struct cgroup_facts {
	char unit[256], slice[256];
	char container_id[65];
	char runtime[16];
};
/* From /proc/PID/cgroup's text (v1, hybrid, v2) chooses the path that says most: a container's or unit's
 * path of name=systemd, v2 ("0::") or memory, in that order; never NULL, "/" at least. Bounded by size. */
void cgroup_best(const char *proc_cgroup_text, char *path, size_t size);
/* What a path says: unit (template instances kept: "app@1.service"; \x2d unescaped not), slice, container id and
 * runtime as Docker, containerd, Podman, CRI-O, kubelet (cgroupfs and systemd drivers) name them. */
void cgroup_parse(const char *path, struct cgroup_facts *ret);
