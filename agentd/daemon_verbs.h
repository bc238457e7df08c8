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

/* One handler a verb, for struct control_ops. */
void daemon_get_sources(
	void *userdata, struct control_reply *r, const Control__GetSources *request);
void daemon_source_kinds(void *userdata, struct control_reply *r);
void daemon_get_destinations(
	void *userdata, struct control_reply *r, const Control__GetDestinations *request);
void daemon_destination_types(void *userdata, struct control_reply *r);
void daemon_test_destination(
	void *userdata, struct control_reply *r, const Control__TestDestination *request);
void daemon_candidates(
	void *userdata, struct control_reply *r, const Control__GetCandidates *request);
void daemon_get_symbols(
	void *userdata, struct control_reply *r, const Control__GetSymbols *request);
void daemon_query(void *userdata, struct control_reply *r, const Control__RunQuery *request);
