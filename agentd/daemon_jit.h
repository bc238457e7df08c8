/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "agentd/daemon_names.h"

/* struct symbol_ops: by which reader a file's names are read. */
uint16_t daemon_file_kind(void *userdata, uint32_t file);
/* Right before names are asked for: what was written of JIT-compiled code since they were asked for last makes its
 * names old. */
void daemon_jit_refresh(struct daemon *d, const struct daemon_frames *l);
/* A FRAME_JIT as a location; its chain is there. */
void daemon_jit_locate(struct daemon *d, const struct sample_frame *frame, bool named,
	struct aggregate_name *names, struct aggregate_location *ret);
