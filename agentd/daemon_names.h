/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include "agentd/daemon.h"

/* The frames of an interval as one list of questions. */
struct daemon_frames {
	struct symbol_query *queries; /* freed by the caller */
	size_t n, room;
	bool failed; /* out of memory: some are missing */
};
void daemon_frames_add(void *userdata, const struct sample_frame *frame);

/* For aggregate_build(): the names of one frame live here until the next. */
struct daemon_locate {
	struct daemon *daemon;
	struct aggregate_name names[64];
};
void daemon_locate_frame(
	void *userdata, const struct sample_frame *frame, struct aggregate_location *ret);
/* Adds a batch's frames, by sample, to the daemon's figures of how many are named. */
void daemon_count_names(struct daemon *d, const struct batch *b);
