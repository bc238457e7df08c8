/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as a file, or as the section of a file that is whole otherwise: every page is made,
 * within its bounds, and its rows are rows. The first byte says which: E .eh_frame, D
 * .debug_frame, H both .eh_frame and its header (which begins after as many bytes of 16 as the
 * second byte says), G .gopclntab; anything else: the bytes are the file. Corpus:
 * tests/fuzz/corpus/unwind_cfi. */

#include "tests/unit/unwind/fixture.h"
#include "agentd/elf/elf_file.h"
#include "agentd/unwind/unwind.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

struct look {
	const struct unwind_rules *rules;
	unsigned pages;
};

static int look_at(void *userdata, const struct unwind_page *page)
{
	struct look *l = userdata;

	check(page->n > 0 && page->n <= UNWIND_PAGE_ROWS && page->pc[0] == 0);
	for (uint32_t i = 0; i < page->n; i++) {
		check(page->rule[i] < l->rules->n);
		check(i == 0 ||
			(page->pc[i] > page->pc[i - 1] && page->rule[i] != page->rule[i - 1]));
	}
	/* A file may claim to be any number of pages of text. */
	return ++l->pages < 64 ? 0 : -ECANCELED;
}

static int make_file(const uint8_t *data, size_t size)
{
	static uint8_t text[8192];
	struct fixture f = {
		.sections = {{".text", text, sizeof(text), SHF_ALLOC | SHF_EXECINSTR, 0}}};
	size_t split = size > 1 ? MIN((size_t)data[1] * 16 + 2, size) : size;
	int fd;

	memset(text, 0x41, sizeof(text));
	switch (size ? data[0] : 0) {
	case 'E':
		f.sections[1] =
			(struct fixture_section){".eh_frame", data + 1, size - 1, SHF_ALLOC, 0};
		return fixture_fd(&f);
	case 'D':
		f.sections[1] = (struct fixture_section){".debug_frame", data + 1, size - 1, 0, 0};
		return fixture_fd(&f);
	case 'G':
		f.sections[1] =
			(struct fixture_section){".gopclntab", data + 1, size - 1, SHF_ALLOC, 0};
		return fixture_fd(&f);
	case 'H':
		if (size < 2)
			break;
		f.sections[1] =
			(struct fixture_section){".eh_frame", data + 2, split - 2, SHF_ALLOC, 0};
		f.sections[2] = (struct fixture_section){
			".eh_frame_hdr", data + split, size - split, SHF_ALLOC, 0};
		f.header = ".eh_frame_hdr";
		return fixture_fd(&f);
	default:
		break;
	}
	fd = memfd_create("fuzz", MFD_CLOEXEC);
	check(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct unwind_page page;
	CLEANUP(elf_file_closep) struct elf_file *elf = NULL;
	CLEANUP(unwind_file_closep) struct unwind_file *file = NULL;
	CLEANUP(unwind_rules_deinit) struct unwind_rules rules = {0};
	_cleanup_close_ int fd = make_file(data, size);
	struct look l = {.rules = &rules};
	struct err_text err;
	int r;

	if (elf_file_open(&elf, fd, &err) < 0 || unwind_file_open(&file, elf, &err) < 0)
		return 0;
	check(unwind_rules_init(&rules) == 0);
	r = unwind_file_each_page(file, &rules, &page, look_at, &l);
	check(r == 0 || r == -ECANCELED);
	return 0;
}
