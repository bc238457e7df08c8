/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Names for frames. agentd's side: a cache of names by (file, offset) and a client of the symbolizer, the
 * sandboxed child that alone parses ELF. It is handed descriptors and addresses and answers flat tables;
 * it may die, hang or lie at any time and costs only the file it was at: that file's frames then get their
 * fallback name, the event is counted, and the file is not tried again before a back-off.
 *
 * A frame without a name is `libfoo.so+0x1234`, the offset into the file, at which its function begins where that
 * is known; an address for the kernel
 * (`vmlinux+0xffffffff81001234`) and for memory without a file. It is never empty. */

#include <systemd/sd-event.h>
#include "agentd/base/err.h"
#include "agentd/symbol/demangle.h"

#define SYMBOL_FILE_KERNEL 1 /* FILE_ID_KERNEL and FILE_ID_VDSO of the process room */
#define SYMBOL_FILE_VDSO   2

/* Of open_debug (struct symbol_ops): the last place where a debug file may be. */
#define SYMBOL_DEBUG_LAST_PLACE 250

/* One function of the chain that an address stands for: innermost (inlined) first, the last is the
 * function that holds the code. Strings are interned by the symbolizer client: equal pointers are equal
 * texts; they live until the next symbol_trim() or symbol_free(). "" where not known, name never. */
struct symbol_function {
	const char *name;        /* demangled */
	const char *system_name; /* as in the symbol table */
	const char *file;        /* source file */
	uint32_t line, start_line;
	bool inlined;
};

struct symbol_chain {
	uint16_t n;
	bool fallback; /* made of module and offset (of its function, where known): no source named it */
	const char *
		module; /* basename of the file, "vmlinux", a kernel module's name, "[vdso]", "[anon]" */
	const struct symbol_function *functions;
};

/* What is known of a file once the symbolizer looked at it. */
struct symbol_file_facts {
	bool seen;         /* the symbolizer answered for it at least once */
	char build_id[41]; /* GNU build id, lower-case hex; "" none */
	char go_build_id[97];
	char htlhash[33]; /* first 16 bytes of SHA-256, reference/otlp-profiles.md */
	/* "DWARF", ".symtab", ".gnu_debugdata", ".dynsym", "kallsyms", "perf map", "jitdump", "none"; those of a separate debug file are
	 * "DWARF (debug file)", ".symtab (debug file)" */
	const char *named_by;
	bool has_debug_info;   /* DWARF of its own */
	bool has_symtab;       /* .symtab of its own */
	bool has_debug_file;   /* a separate debug file was found and is read */
	const char *debuglink; /* what it calls its debug file; "" none */
	bool has_alt_file;     /* the alternate file was found and is read */
	const char *altlink;   /* what its debug information calls the alternate file; "" none */
	uint64_t asked, named; /* distinct addresses */
	uint64_t cpu_us;       /* spent on it in the symbolizer */
	uint32_t crashes, timeouts;
	const char *last_problem; /* "" none */
	/* PT_LOAD segments: file offset to the ELF's own virtual addresses (OTLP mappings need them). */
	struct symbol_segment {
		uint64_t offset, file_size, vaddr, mem_size;
		bool executable;
	} segments[8];
	uint8_t n_segments;
};

/* What to name. Files are named by the id of agentd's process room; descriptors are asked for on first need. */
struct symbol_query {
	uint32_t file;       /* struct file id */
	bool return_address; /* names the call before it: look up offset - 1 */
	uint64_t offset;     /* file offset; kernel: address */
};

/* Names kept over restarts: keys, facts and values are bytes, made and checked here. All of it has to be quick (tens
 * of microseconds), and whatever fails costs a parse only. Bytes answered are borrowed until the next call. */
struct symbol_disk {
	/* What a file's names may be kept by; -errno: they may not. */
	int (*key)(void *userdata, uint32_t file, uint8_t ret[static 32]);
	/* 1: the file has not changed for ten seconds, more than any reading of it takes. */
	int (*at_rest)(void *userdata, uint32_t file);
	int (*find)(void *userdata, const uint8_t key[static 32], uint64_t *id, const void **facts,
		size_t *len);
	int (*put_file)(void *userdata, const uint8_t key[static 32], const void *facts, size_t len,
		uint64_t *id);
	int (*get)(void *userdata, uint64_t id, uint64_t address, const void **value, size_t *len);
	int (*begin)(void *userdata);
	/* -ESTALE: the file has to be put again. */
	int (*put)(void *userdata, uint64_t id, uint64_t address, const void *value, size_t len);
	int (*commit)(void *userdata);
	int (*tidy)(void *userdata); /* 1: there is more to do */
};

struct symbol_ops {
	const struct symbol_disk *disk; /* NULL: names are not kept */
	/* A borrowed descriptor for the file (the vDSO's memfd, /proc/kallsyms for FILE_ID_KERNEL is opened here), or
	 * -errno: then fallback names. -EBADF: there is no such thing yet (code of a runtime that writes no map),
	 * which is no problem of the file's. */
	int (*open_file)(void *userdata, uint32_t file);
	/* enum symbol_file_kind of protocol.h; NULL: all are ELF (the kernel and the vDSO are known here). */
	uint16_t (*file_kind)(void *userdata, uint32_t file);
	/* Basename for fallbacks ("libfoo.so", "[anon]"); kernel and vDSO are known here. Borrowed. */
	const char *(*module_name)(void *userdata, uint32_t file);
	/* The separate debug file of a file that has no debug information: a descriptor that the client closes, from the
	 * n-th place on where it may be (*n: the place it was found at); -ENOENT: nowhere from there on. build_id: hex, or
	 * ""; debuglink: a name without folders, or "". What they say is the file's own claim; whether
	 * what was found is the right one is found out in the sandbox, and if it is not, the next place is
	 * asked for, also behind the last (SYMBOL_DEBUG_LAST_PLACE). May be NULL. */
	int (*open_debug)(void *userdata, uint32_t file, const char *build_id,
		const char *debuglink, unsigned *n);
	/* The same of the alternate file (of dwz) that its debug information refers to by a path; its build id may be
	 * "". */
	int (*open_alt)(
		void *userdata, uint32_t file, const char *build_id, const char *path, unsigned *n);
	/* What was opened at the n-th place says that this is its build id. May be NULL. */
	void (*on_debug)(void *userdata, uint32_t file, unsigned n, const char *build_id);
	/* Facts arrived or changed (build id, segments). */
	void (*on_facts)(void *userdata, uint32_t file, const struct symbol_file_facts *facts);
};

struct symbol_config {
	size_t max_entries; /* names cached; 0: 131,072 */
	size_t max_string_bytes; /* 0: 24 MiB; beyond, the least recently used half is dropped at an interval's end */
	unsigned file_deadline_ms; /* for one request; 0: 5,000 */
	uint64_t idle_exit_ns;     /* end the child when nothing was asked for so long; 0: 60 s */
};

struct symbol_counters {
	uint64_t asked, cached, named, fallback;
	uint64_t from_disk, to_disk, not_to_disk; /* the last: no room, or an error */
	uint64_t requests, restarts, crashes, timeouts,
		refused; /* refused: an answer that broke the contract */
	uint64_t entries, string_bytes;
};

struct symbolizer;

int symbol_new(struct symbolizer **ret, sd_event *loop, const struct symbol_config *config,
	const struct symbol_ops *ops, void *userdata, struct err_text *err);
/* What is under way is dropped, its done not called. */
struct symbolizer *symbol_free(struct symbolizer *s);
DEFINE_FREEP(symbol_freep, struct symbolizer *, symbol_free)

/* Sees to it that every query has an entry in the cache, calling done exactly once: at once (before returning)
 * if all are there, else when the last answer came or at the deadline (CLOCK_MONOTONIC ns; what is missing then
 * stays unnamed for this caller, counts as late, and still arrives in the cache later). Several may be under way;
 * n may be 0. done may call anything here but symbol_free(). -ENOMEM: done is not called. */
int symbol_resolve(struct symbolizer *s, const struct symbol_query *queries, size_t n,
	uint64_t deadline_ns, void (*done)(void *userdata, size_t late), void *userdata);
/* Drops the calls under way with this userdata: their done will not be called. */
void symbol_cancel(struct symbolizer *s, void *userdata);
/* The chain of one address: from the cache, else a fallback. Never NULL; borrowed until the next
 * symbol_trim() or symbol_free(). */
const struct symbol_chain *symbol_chain(struct symbolizer *s, const struct symbol_query *query);
const struct symbol_file_facts *symbol_facts(struct symbolizer *s, uint32_t file); /* never NULL */
/* Brings the cache within its bounds; called between intervals, when no chain is borrowed. */
void symbol_trim(struct symbolizer *s);
void symbol_forget_file(struct symbolizer *s, uint32_t file);
/* A debug file of it may be had now that could not before: its names are looked up afresh. */
void symbol_debug_changed(struct symbolizer *s, uint32_t file);
/* The places where debug files may be are others now: the same for all files. */
void symbol_debug_places_changed(struct symbolizer *s);
/* A file that is written while it is read (perf map, jitdump) has changed: its names are asked for anew by who
 * resolves them next, and hold until then. replaced: it is another file now. */
void symbol_file_changed(struct symbolizer *s, uint32_t file, bool replaced);
/* How names are written from now on. Those that are there are asked for afresh when they are needed again, and stay
 * until their answer comes. */
void symbol_set_demangle(struct symbolizer *s, enum symbol_demangle mode);
/* Modules, BPF programs and trampolines come and go: names of kernel addresses are looked up afresh, but those of
 * the kernel proper. */
void symbol_forget_kernel(struct symbolizer *s);
void symbol_counters(struct symbolizer *s, struct symbol_counters *ret);
pid_t symbol_child_pid(struct symbolizer *s); /* -1: none runs */

/* The role (`--role symbolizer`). 0 at the end of the socket, or -errno. */
int symbol_role_main(void);
