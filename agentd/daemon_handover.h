/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* From what the configuration says of destinations to what the exporter gets: policy, secrets, types. */

#include "agentd/daemon.h"

/* Policy, types of operators and secrets; before the configuration is read. */
int daemon_handover_open(struct daemon *d, struct err_text *err);
/* Begins to look for changes of the files that are named. */
int daemon_handover_begin(struct daemon *d);
void daemon_handover_close(struct daemon *d);
/* Reads the types and the policy again; what is wrong is said (log, status). */
void daemon_handover_reload(struct daemon *d);
/* Hands next's destinations to the exporter, those that the policy forbids left out. */
void daemon_hand_over(struct daemon *d, const struct config *next);
/* One destination as the exporter gets it. -EPERM: the policy forbids it. Free with daemon_handed_free(). */
struct handed {
	struct config_destination destination;
	char problem[600]; /* it cannot be used: why; "" none */
};
int daemon_hand(struct daemon *d, const struct config_destination *c, struct handed *ret,
	struct err_text *err);
void daemon_handed_free(struct handed *h);
/* Why it is not handed over: the policy. NULL: it is. */
const char *daemon_handover_forbidden(struct daemon *d, const struct config_destination *c);
const struct policy *daemon_policy(const struct daemon *d);
const char *daemon_policy_file(const struct daemon *d);
/* struct control_ops (daemon_policy.c). */
void daemon_get_policy(void *userdata, struct control_reply *r);

/* struct control_ops: what a change names by descriptor. value: "" to keep it, "file:/PATH" to name it. *ret_value is
 * what the document gets (free() it). */
int daemon_keep_file(void *userdata, const char *path, const char *value, int fd, char **ret_value,
	struct err_text *err);
/* After a change: secrets that nothing refers to are removed. */
void daemon_forget_files(void *userdata);
