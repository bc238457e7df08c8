/* SPDX-License-Identifier: Apache-2.0 */

/* The entries of .eh_frame and .debug_frame: what they share (CIE) and one function each (FDE).
 *
 * Both sections hold the same kind of entries with small differences: what a CIE's id looks like,
 * how an FDE says which CIE is its own, and how addresses are written. A CIE's instructions are
 * run once; the result is where each of its functions begins. Few CIEs serve a file, so a small
 * cache by offset does.
 *
 * Invariants: an entry lies within its section; nothing refers to a window of the section longer
 * than until the next view_get(); a CIE in the cache owns its bytes.
 *
 * Source: DWARF 5, 6.4.1 and 7.4; LSB 5.0, 10.6 (the id field of .eh_frame stays 4 bytes long,
 * also behind a length of 64 bits); DWARF for the Arm 64-bit Architecture on the augmentation 'B',
 * LLVM on 'G'. Sandbox only. */

#include "agentd/unwind/unwind_private.h"

/* A number in the encoding; field: the address of the number itself. */
uint64_t cfi_pointer(const struct cfi *c, struct cursor *in, uint8_t encoding, uint8_t address_size,
	uint64_t field)
{
	uint64_t v;

	switch (encoding & PE_FORMAT) {
	case PE_ABSPTR:
		v = address_size == 4 ? cursor_u32(in) : cursor_u64(in);
		break;
	case PE_ULEB:
		v = cursor_uleb(in);
		break;
	case PE_UDATA2:
		v = cursor_u16(in);
		break;
	case PE_UDATA4:
		v = cursor_u32(in);
		break;
	case PE_UDATA8:
	case PE_SDATA8:
		v = cursor_u64(in);
		break;
	case PE_SLEB:
		v = (uint64_t)cursor_sleb(in);
		break;
	case PE_SDATA2:
		v = (uint64_t)(int64_t)(int16_t)cursor_u16(in);
		break;
	case PE_SDATA4:
		v = (uint64_t)(int64_t)(int32_t)cursor_u32(in);
		break;
	default:
		in->bad = true;
		return 0;
	}
	if ((encoding & PE_APPLICATION) == PE_PCREL)
		v += field;
	return v;
}

/* Where a function begins must be a number that the file itself gives. */
static bool usable_encoding(uint8_t encoding)
{
	uint8_t how = encoding & PE_APPLICATION;

	return !(encoding & PE_INDIRECT) && (how == 0 || how == PE_PCREL);
}

/* The letters behind 'z'. False: one that is not known. */
static bool read_augmentation(
	const struct cfi *c, struct cfi_cie *cie, const char *letters, struct cursor *in)
{
	uint64_t len = cursor_uleb(in);
	const uint8_t *data = cursor_take(in, len);
	struct cursor a = {data, data ? data + len : NULL, !data};

	for (const char *l = letters; *l && !a.bad; l++) {
		uint8_t encoding;

		switch (*l) {
		case 'L':
			(void)cursor_u8(&a);
			break;
		case 'P':
			encoding = cursor_u8(&a);
			if ((encoding & PE_APPLICATION) ==
				0x50) /* aligned: the rest cannot be found */
				return false;
			(void)cfi_pointer(c, &a, encoding & PE_FORMAT, cie->address_size, 0);
			break;
		case 'R':
			cie->encoding = cursor_u8(&a);
			break;
		case 'S':
			cie->signal = true;
			break;
		case 'B': /* signed with the B key */
		case 'G': /* memory tags on the stack */
			break;
		default:
			return false;
		}
	}
	if (a.bad)
		in->bad = true;
	return true;
}

/* in: behind the id. 0 or problem + 1. */
static int parse_cie(struct cfi *c, struct cfi_cie *cie, struct cursor *in)
{
	const char *augmentation;
	uint8_t version = cursor_u8(in);
	const uint8_t *zero;
	uint64_t ra;

	if (version != 1 && version != 3 && version != 4)
		return UNWIND_PROBLEM_AUGMENTATION + 1;
	zero = memchr(in->at, 0, (size_t)(in->end - in->at));
	if (in->bad || !zero)
		return UNWIND_PROBLEM_DAMAGED + 1;
	augmentation = (const char *)in->at;
	in->at = zero + 1;
	cie->address_size = 8;
	if (version == 4) {
		cie->address_size = cursor_u8(in);
		if (cursor_u8(in) != 0 || (cie->address_size != 8 && cie->address_size != 4))
			return UNWIND_PROBLEM_ENCODING + 1;
	}
	if (strcmp(augmentation, "eh") == 0) /* gcc 2: a pointer to its own tables */
		(void)cursor_u64(in);
	cie->code_align = cursor_uleb(in);
	cie->data_align = cursor_sleb(in);
	ra = version == 1 ? cursor_u8(in) : cursor_uleb(in);
	if (augmentation[0] == 'z') {
		cie->augmented = true;
		if (!read_augmentation(c, cie, augmentation + 1, in))
			return UNWIND_PROBLEM_AUGMENTATION + 1;
	} else if (augmentation[0] && strcmp(augmentation, "eh") != 0) {
		return UNWIND_PROBLEM_AUGMENTATION + 1;
	}
	if (in->bad)
		return UNWIND_PROBLEM_DAMAGED + 1;
	if (ra != c->machine->ra)
		return UNWIND_PROBLEM_RETURN_RULE + 1;
	if (!usable_encoding(cie->encoding))
		return UNWIND_PROBLEM_ENCODING + 1;
	return cfi_run_initial(c, cie, in->at, (size_t)(in->end - in->at));
}

/* The head of any entry. */
struct head {
	uint64_t body;    /* offset of the id field */
	uint64_t end;     /* offset behind the entry */
	uint64_t id;      /* as it stands there */
	uint64_t id_size; /* 0: an entry of length 0 (a terminator) */
	bool cie;
};

static int read_head(struct cfi *c, uint64_t offset, struct head *h)
{
	const uint8_t *p;
	uint32_t len32;
	uint64_t len;

	p = view_get(&c->view, offset, 4);
	if (!p)
		return -EBADMSG;
	memcpy(&len32, p, 4);
	*h = (struct head){.body = offset + 4, .end = offset + 4};
	if (len32 == 0)
		return 0;
	len = len32;
	h->id_size = 4;
	if (len32 == UINT32_MAX) {
		p = view_get(&c->view, offset + 4, 8);
		if (!p)
			return -EBADMSG;
		memcpy(&len, p, 8);
		h->body += 8;
		if (!c->eh)
			h->id_size = 8;
	} else if (len32 >= 0xfffffff0) {
		return -EBADMSG;
	}
	if (len < h->id_size || len > c->view.size - h->body)
		return -EBADMSG;
	h->end = h->body + len;
	p = view_get(&c->view, h->body, h->id_size);
	if (!p)
		return -EBADMSG;
	memcpy(&h->id, p, h->id_size);
	if (c->eh)
		h->cie = h->id == 0;
	else
		h->cie = h->id == (h->id_size == 4 ? UINT32_MAX : UINT64_MAX);
	return 0;
}

static const struct cfi_cie *find_cie(struct cfi *c, uint64_t offset)
{
	struct cfi_cie *cie = &c->cies[(offset >> 3) % CFI_CIES];
	const uint8_t *p;
	struct cursor in;
	struct head h;

	if (cie->offset == offset)
		return cie;
	*cie = (struct cfi_cie){.offset = offset, .problem = UNWIND_PROBLEM_DAMAGED + 1};
	if (read_head(c, offset, &h) < 0 || !h.cie || h.end - h.body > CFI_CIE_BYTES)
		return cie;
	p = view_get(&c->view, h.body, h.end - h.body);
	if (!p)
		return cie;
	memcpy(cie->bytes, p, h.end - h.body);
	in = (struct cursor){cie->bytes + h.id_size, cie->bytes + (h.end - h.body), false};
	cie->problem = parse_cie(c, cie, &in);
	return cie;
}

/* Behind the id of a function's entry. */
static int parse_fde(struct cfi *c, struct cfi_entry *e, const struct head *h)
{
	const struct cfi_cie *cie = e->cie;
	const uint8_t *p = view_get(&c->view, h->body, h->end - h->body);
	struct cursor in;
	uint64_t field, len;

	if (!p)
		return UNWIND_PROBLEM_DAMAGED + 1;
	in = (struct cursor){p + h->id_size, p + (h->end - h->body), false};
	field = c->view.addr + h->body + h->id_size;
	e->start = cfi_pointer(c, &in, cie->encoding, cie->address_size, field);
	len = cfi_pointer(c, &in, cie->encoding & PE_FORMAT, cie->address_size, 0);
	if (cie->augmented)
		(void)cursor_take(&in, cursor_uleb(&in));
	if (in.bad || len > UINT64_MAX - e->start)
		return UNWIND_PROBLEM_DAMAGED + 1;
	e->end = e->start + len;
	e->code = in.at;
	e->len = (size_t)(in.end - in.at);
	return 0;
}

int cfi_entry_at(
	struct cfi *c, uint64_t offset, struct cfi_entry *ret, uint64_t *next, int *problem)
{
	struct head h;
	uint64_t at;

	*next = 0;
	*problem = UNWIND_PROBLEM_DAMAGED;
	if (read_head(c, offset, &h) < 0)
		return -EBADMSG;
	*next = h.end;
	if (h.cie || h.id_size == 0)
		return 0;
	/* .eh_frame: how far back from the field; .debug_frame: an offset in the section. */
	at = h.id;
	if (c->eh) {
		if (h.id > h.body)
			return -EBADMSG;
		at = h.body - h.id;
	}
	*ret = (struct cfi_entry){.offset = offset, .cie = find_cie(c, at)};
	*problem = ret->cie->problem;
	if (*problem == 0)
		*problem = parse_fde(c, ret, &h);
	if (*problem == 0)
		return 1;
	*problem -= 1;
	return -EBADMSG;
}
