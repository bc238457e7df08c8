/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What agentd itself reads of the kernel's code: whether the list of its names has to be read afresh, the build
 * ids of modules, and why the list may be of no use. Everything read is the kernel's own text, and bounded. */

#include "agentd/base/err.h"

struct kernel_code;

/* root: a folder that has proc/ and sys/, "/" but in tests; copied. */
int kernel_code_new(struct kernel_code **ret, const char *root);
struct kernel_code *kernel_code_free(struct kernel_code *k);
DEFINE_FREEP(kernel_code_freep, struct kernel_code *, kernel_code_free)

/* The kernel said that a BPF program or a trampoline came or went. */
void kernel_code_touch(struct kernel_code *k);
/* Whether code came or went since this was called last (modules are looked at here), or the list of names may be
 * read now that was hidden, or the other way round. The first time: false. */
bool kernel_code_changed(struct kernel_code *k);

/* The GNU build id of the kernel itself (module NULL) or of a module, in lower-case hex; "" if there is none, or
 * what is named is no module. Borrowed until kernel_code_changed() says yes. */
const char *kernel_code_build_id(struct kernel_code *k, const char *module);

/* Why names of the kernel cannot be read, in words, and what to type. Both are "" when nothing forbids it. */
void kernel_code_explain(struct kernel_code *k, struct err_text *why, struct err_text *remedy);
