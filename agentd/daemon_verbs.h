/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by the files that answer the control socket's verbs. Everything returned lives in the
 * reply's arena. */

#include "agentd/daemon.h"

Control__KeyValue **daemon_key_values(
	struct control_reply *r, const struct option_value *list, size_t n, size_t *ret_n);
Control__OptionInfo **daemon_options(struct control_reply *r,
	const struct option_desc *const *tables, size_t n_tables, size_t *ret_n);
void daemon_fail(struct control_reply *r, int error, const char *text);
void daemon_candidates(
	void *userdata, struct control_reply *r, const Control__GetCandidates *request);
void daemon_query(void *userdata, struct control_reply *r, const Control__RunQuery *request);
