/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What agentd and the symbolizer say to each other: flat messages of at most 64 KiB over one
 * SOCK_SEQPACKET socket, both ends the same binary. The child says READY once its sandbox is closed. Then, one
 * request at a time: REQUEST (with the file's descriptor, unless agentd has none, and perhaps those of its separate debug file and of
 * the alternate file that these refer to) is answered by any number
 * of NAMES, one FACTS (not for a file unknown), and one DONE. Integers are of the host's byte order; strings end with a NUL, are clean
 * (text.h) and at most SYMBOL_NAME_MAX bytes with it; {0, 0} is no string.
 *
 * agentd believes nothing of an answer: symbol_decode() checks every count, offset and text, and an answer
 * that breaks a rule ends the child. */

#include "agentd/base/macros.h"

#define SYMBOL_PROTOCOL      3
#define SYMBOL_MESSAGE_MAX   65536
#define SYMBOL_ADDRESSES_MAX 2048
#define SYMBOL_NAME_MAX      4096
#define SYMBOL_CHAIN_MAX     64
#define SYMBOL_REPLY_MAX     (4 << 20) /* bytes of NAMES for one request */
#define SYMBOL_SEGMENTS_MAX  8

enum symbol_message {
	SYMBOL_MESSAGE_REQUEST = 1,
	SYMBOL_MESSAGE_READY,
	SYMBOL_MESSAGE_FACTS,
	SYMBOL_MESSAGE_NAMES,
	SYMBOL_MESSAGE_DONE,
};

enum symbol_file_kind {
	SYMBOL_KIND_ELF = 1,
	SYMBOL_KIND_KALLSYMS, /* the text of /proc/kallsyms */
	SYMBOL_KIND_PERFMAP, /* what a runtime says of the code that it made: addresses of its process */
	SYMBOL_KIND_JITDUMP,
};

struct symbol_header {
	uint16_t version, message;
	uint32_t size;    /* of the whole message */
	uint64_t request; /* READY: 0 */
};
_Static_assert(sizeof(struct symbol_header) == 16, "header");

#define SYMBOL_REQUEST_MAY_ASK 1 /* SYMBOL_DONE_WANTS_DEBUG is a welcome answer */
#define SYMBOL_REQUEST_CHEAP   2 /* debug information was too much once: not read */
#define SYMBOL_REQUEST_DEMANGLE(flags)                                                             \
	(((flags) >> 8) & 3) /* enum symbol_demangle, whatever is kept of the file */
#define SYMBOL_REQUEST_DEMANGLED(mode) ((uint16_t)((mode) << 8))
/* Descriptors behind the file's own, in this order. */
#define SYMBOL_REQUEST_HAS_DEBUG   4
#define SYMBOL_REQUEST_HAS_ALT     8
#define SYMBOL_REQUEST_MAY_ASK_ALT 16 /* SYMBOL_DONE_WANTS_ALT is a welcome answer */
#define SYMBOL_REQUEST_FDS         3

struct symbol_request {
	struct symbol_header header;
	uint32_t file, generation; /* the child keeps what it read of (file, generation) */
	uint16_t kind;             /* enum symbol_file_kind */
	uint16_t flags;            /* SYMBOL_REQUEST_* */
	uint32_t n;
	uint64_t addresses[]; /* file offsets; kernel: addresses. At most SYMBOL_ADDRESSES_MAX */
};
_Static_assert(sizeof(struct symbol_request) == 32, "request");

struct symbol_ready {
	struct symbol_header header;
};

struct symbol_wire_segment {
	uint64_t offset, file_size, vaddr, mem_size;
	uint32_t executable, pad;
};
_Static_assert(sizeof(struct symbol_wire_segment) == 40, "segment");

#define SYMBOL_HAS_DEBUG_INFO 1 /* DWARF of its own */
#define SYMBOL_HAS_SYMTAB     2
#define SYMBOL_HAS_DEBUGDATA  4  /* .gnu_debugdata, looked at if there is nothing better */
#define SYMBOL_HAS_DEBUG_FILE 8  /* the descriptor that came is its debug file */
#define SYMBOL_HAS_ALT_FILE   16 /* the alternate file came, and is the right one */
#define SYMBOL_HAS_ALL        31

struct symbol_facts_message {
	struct symbol_header header;
	char build_id[48];     /* 41 used */
	char go_build_id[104]; /* 97 used */
	char htlhash[40];      /* 33 used */
	char named_by[24];     /* "DWARF (debug file)", ".symtab", "kallsyms", "none" */
	char problem[128];     /* "" none */
	char debuglink[256];   /* a name without folders, "" none */
	char altlink
		[256]; /* path of the alternate file that its debug information refers to, "" none */
	char alt_build_id[48]; /* 41 used */
	char debug_build_id
		[48]; /* 41 used: of the debug file that came, whether it was the right one or not */
	uint32_t debuglink_crc;
	uint32_t has;       /* SYMBOL_HAS_* */
	uint64_t functions; /* known by name */
	uint32_t n_segments, pad;
	struct symbol_wire_segment segments[SYMBOL_SEGMENTS_MAX];
};
_Static_assert(sizeof(struct symbol_facts_message) == 1312, "facts");

struct symbol_wire_string {
	uint32_t offset, len; /* in the message's string bytes; len without the NUL */
};

#define SYMBOL_ROW_EXTRA                                                                           \
	1 /* about addresses that nobody asked about, near the last that was answered */
#define SYMBOL_EXTRA_FAR (1 << 16)
/* Nobody knows its name, but where its function begins: so many addresses before it. Without functions. */
#define SYMBOL_ROW_BARE 2

struct symbol_row {
	uint32_t
		address; /* index into the request's addresses; rising over the whole reply, extra rows aside */
	uint16_t n; /* functions, 1 to SYMBOL_CHAIN_MAX, innermost first; 0: SYMBOL_ROW_BARE */
	uint16_t flags;
	int64_t distance; /* of an extra row: from the address of the last row that is none */
	struct symbol_wire_string module; /* kernel: the module; none: the file's own name */
	/* So many addresses before it and behind it have the same answer; SYMBOL_ROW_BARE: see there. */
	uint32_t before, behind;
};
_Static_assert(sizeof(struct symbol_row) == 32, "row");

#define SYMBOL_FUNCTION_INLINED 1

struct symbol_wire_function {
	struct symbol_wire_string name, system_name, file;
	uint32_t line, start_line, flags, pad;
};
_Static_assert(sizeof(struct symbol_wire_function) == 40, "function");

/* Rows, then the functions of all rows one after another, then string bytes. */
struct symbol_names_message {
	struct symbol_header header;
	uint32_t n_rows, n_functions, string_bytes, pad;
};
_Static_assert(sizeof(struct symbol_names_message) == 32, "names");

#define SYMBOL_DONE_UNKNOWN_FILE 1 /* no descriptor came, and nothing is kept of the file */
/* Nothing was looked up: a separate debug file would help, and none came (or another file's). The facts say how it
 * may be found. */
#define SYMBOL_DONE_WANTS_DEBUG 2
#define SYMBOL_DONE_WANTS_ALT   4 /* the same of the alternate file */

struct symbol_done_message {
	struct symbol_header header;
	uint32_t n_done; /* addresses [0, n_done) were looked up; the rest is to be asked again */
	uint32_t flags;
	uint64_t cpu_us, memory; /* of this request; bytes of all indices kept */
};
_Static_assert(sizeof(struct symbol_done_message) == 40, "done");

/* ---- agentd's side ------------------------------------------------------------------------------------- */

struct symbol_names_view {
	const struct symbol_row *rows;
	const struct symbol_wire_function *functions;
	const char *strings;
	uint32_t n_rows, n_functions;
};

/* Checks one message from the child: size, kind and everything in it. message is aligned to 8. 0, or
 * -EBADMSG: the child lies or is broken. n: addresses asked; *next: rows must be at this index or beyond, moved
 * on (start with 0). *view is set for NAMES. */
int symbol_decode(const void *message, size_t len, uint64_t request, uint32_t n, uint32_t *next,
	struct symbol_names_view *view);
/* The text of a checked string; "" for none. */
static inline const char *symbol_view_text(
	const struct symbol_names_view *view, const struct symbol_wire_string *s)
{
	return s->len ? view->strings + s->offset : "";
}

/* ---- the child's side: one NAMES message under construction --------------------------------------------- */

struct found;

struct symbol_writer {
	uint64_t request;
	uint32_t n_rows, n_functions, string_bytes;
	struct symbol_row rows[SYMBOL_ADDRESSES_MAX];
	struct symbol_wire_function
		functions[SYMBOL_MESSAGE_MAX / sizeof(struct symbol_wire_function)];
	char strings[SYMBOL_MESSAGE_MAX];
	uint64_t message[SYMBOL_MESSAGE_MAX / 8];
};

/* -ENOBUFS: does not fit any more (send what is there, reset and add again; if it is empty, never will). */
int symbol_writer_add(struct symbol_writer *w, uint32_t address, const struct found *found);
/* An extra row. */
int symbol_writer_add_extra(
	struct symbol_writer *w, uint32_t address, int64_t distance, const struct found *found);
/* Lays the message out in w->message and starts anew. Its length, 0 when there are no rows. */
size_t symbol_writer_take(struct symbol_writer *w);
