/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by the files of this folder alone. */

#include "agentd/elf/gopclntab.h"
#include "agentd/elf/view.h"
#include "agentd/unwind/dwarf.h"
#include "agentd/unwind/unwind.h"

/* DWARF's numbers of the registers that are followed. The file's machine decides, not the host's:
 * so all of this can be tested anywhere. */
struct unwind_machine {
	uint16_t elf; /* EM_ */
	uint8_t sp, fp, ra, aux;
	uint8_t leaf;    /* numbers below this are in unwind_regs.leaf */
	bool ra_is_aux;  /* the return address is in a register until it is saved */
	uint8_t padding; /* bytes of one instruction at least */
	/* The code of a signal trampoline that has no description, and what it means. */
	const uint8_t *trampoline;
	size_t trampoline_len;
	struct unwind_rule signal;
};

const struct unwind_machine *unwind_machine_find(uint16_t elf);
/* The length of a jump through a table at code, which changes nothing of the frame: PLTs for
 * IFUNCs in static programs have no description. 0: something else. */
size_t unwind_stub(const struct unwind_machine *m, const uint8_t *code, size_t len);
extern const struct unwind_rule unwind_stub_rule;
/* Bytes that are never executed: what linkers and assemblers put between functions. */
bool unwind_is_padding(const struct unwind_machine *m, const uint8_t *code, size_t len);

/* A section by name, inflated if it is compressed. -ENOENT, -EBADMSG, -EFBIG, -ENOMEM, -errno. */
int view_section(struct view *v, const struct elf_file *elf, const char *name, size_t ahead);

/* ---- call frame information
 * ------------------------------------------------------------------------------ */

enum cfi_loc_kind {
	LOC_SAME = 0, /* unchanged: nothing was said */
	LOC_UNDEFINED,
	LOC_AT_CFA,  /* saved at CFA + value */
	LOC_VAL_CFA, /* is CFA + value */
	LOC_REGISTER,
	LOC_EXPRESSION, /* saved at what it makes */
	LOC_VAL_EXPRESSION,
};

struct cfi_loc {
	uint8_t kind;
	uint32_t len;
	int64_t value;
	const uint8_t *expression;
};

enum cfi_track { TRACK_RA, TRACK_FP, TRACK_AUX, TRACK_SP, TRACKED };

struct cfi_state {
	bool has_cfa;
	uint32_t expression_len;
	uint64_t reg;
	int64_t offset;
	const uint8_t *expression; /* of the CFA; NULL: reg + offset */
	struct cfi_loc loc[TRACKED];
};

#define CFI_STATES    32  /* remembered at once; gcc nests 1 deep */
#define CFI_CIE_BYTES 512 /* real ones have 20 to 40 */
#define CFI_CIES      16

struct cfi_cie {
	uint64_t offset; /* UINT64_MAX: empty slot */
	int problem;     /* enum unwind_problem_kind + 1; 0 none */
	uint64_t code_align;
	int64_t data_align;
	uint8_t encoding, address_size;
	bool augmented, signal;
	struct cfi_state initial;
	uint8_t bytes[CFI_CIE_BYTES]; /* initial's expressions point here */
};

struct cfi_start {
	uint32_t start, offset; /* from index.base; within the section */
};

/* One section of call frame information and the order of its entries. */
struct cfi {
	const struct unwind_machine *machine;
	struct view view;
	bool eh;
	/* Rules say where aux is saved. Only the dynamic linker needs it, and it costs rows (a
	 * tenth of node's): elsewhere every rule says that aux is lost. */
	bool follow_aux;
	struct cfi_cie cies[CFI_CIES];
	/* The index: .eh_frame_hdr's table, or one of our own. */
	struct view table;
	uint64_t table_addr, n;
	uint32_t width; /* bytes of one number of the table; 0: own */
	uint64_t base;
	struct cfi_start *own;
	size_t n_own, size_own;
};

struct cfi_entry {
	uint64_t offset, start, end;
	const struct cfi_cie *cie;
	const uint8_t *code;
	size_t len;
};

struct cfi *cfi_free(struct cfi *c);
DEFINE_FREEP(cfi_freep, struct cfi *, cfi_free)
/* -ENOENT: the file has none. */
int cfi_open_eh_frame(struct cfi **ret, const struct elf_file *elf, const struct unwind_machine *m,
	struct unwind_counts *counts);
int cfi_open_debug_frame(struct cfi **ret, const struct elf_file *elf,
	const struct unwind_machine *m, struct unwind_counts *counts);
size_t cfi_memory(const struct cfi *c);

/* Entry i of the index, by address. -EBADMSG. */
int cfi_index_get(struct cfi *c, uint64_t i, uint64_t *start, uint64_t *offset);
/* The last entry that begins at vaddr or before; 0 where there is none. */
uint64_t cfi_index_seek(struct cfi *c, uint64_t vaddr);

/* Parses what lies at offset. 1: *ret is a function's entry, valid until the next call; 0:
 * something else. Either way *next is where the following one begins. -EBADMSG: cannot go on,
 * *problem says why; with *next not 0 only this one is unusable. */
int cfi_entry_at(
	struct cfi *c, uint64_t offset, struct cfi_entry *ret, uint64_t *next, int *problem);
/* Calls row for each piece of [lo, hi) that e describes, rising. *work goes down by the bytes run.
 * 0, or the enum unwind_problem_kind + 1 that ended it early. */
int cfi_run(struct cfi *c, const struct cfi_entry *e, uint64_t lo, uint64_t hi, uint64_t *work,
	void (*row)(void *userdata, uint64_t from, uint64_t to, const struct cfi_state *state),
	void *userdata);
/* The instructions of a CIE, into cie->initial. 0 or a problem + 1. */
int cfi_run_initial(struct cfi *c, struct cfi_cie *cie, const uint8_t *code, size_t len);
uint64_t cfi_pointer(const struct cfi *c, struct cursor *in, uint8_t encoding, uint8_t address_size,
	uint64_t field);

/* Whether any row of the first functions counts its CFA from aux: see cfi.follow_aux. Sections of
 * more than a few pages are not looked through. */
bool cfi_uses_aux(struct cfi *c);

/* The rule of a row. 0, or problem + 1: it cannot be told. *lost: fp or aux cannot be followed
 * over it. */
int cfi_rule(const struct cfi *c, const struct cfi_cie *cie, const struct cfi_state *state,
	struct unwind_rule *ret, bool *lost);

/* ---- Go's table of functions
 * ----------------------------------------------------------------------------- */

/* Rows of function i within [lo, hi). 0, or problem + 1. */
int gorows_run(struct gopclntab *g, const struct unwind_machine *m, uint64_t i, uint64_t lo,
	uint64_t hi, uint64_t *work,
	void (*row)(void *userdata, uint64_t from, uint64_t to, const struct unwind_rule *rule),
	void *userdata);

/* ---- counting
 * -------------------------------------------------------------------------------------------- */

void unwind_count(
	struct unwind_counts *c, int kind, uint64_t vaddr, uint64_t offset, unsigned rows);
