/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the administrator of this host allows, whoever asks: /etc/odi/policy.yaml. No layer passes it; it is looked at
 * when a destination is set or changed, and again when destinations are handed to the exporter. Runs in agentd.
 *
 *   destinations:
 *     allow: ["*.example.com:443", "10.1.2.*"]     # hosts, or host:port; without it: any
 *     require-tls-verification: true               # no insecure-skip-verify; without TLS only to this host itself
 *   files:
 *     folders: [/srv/profiles]                     # below which `file` destinations may write */

#include "agentd/base/err.h"
#include "agentd/config/config.h"

#define POLICY_DEFAULT_FILE   "/etc/odi/policy.yaml"
#define POLICY_DEFAULT_FOLDER "/var/lib/odi/files" /* where there is no files: */

struct merged;

struct policy {
	bool found;        /* there is a file */
	char problem[600]; /* it is refused, so that the strictest is in force; "" */
	char **hosts;      /* patterns, lower case */
	size_t n_hosts;
	bool hosts_bound, require_verify;
	char **folders;
	size_t n_folders;
};

/* There is always one: without a file all is allowed (files: below the default folder); of a file that others than root can
 * write, or that is wrong, nothing is (and what is wrong is said). -ENOMEM. */
int policy_load(struct policy *p, const char *file);
void policy_deinit(struct policy *p);
/* The one in force in this process, for plans; borrowed. NULL: none yet, all is allowed. */
void policy_install(const struct policy *p);

/* 0, or -EPERM and what forbids it and where. */
int policy_check(const struct policy *p, const char *type, const struct option_value *options,
	size_t n, struct err_text *err);
bool policy_folder_allowed(const struct policy *p, const char *folder);
/* Files that changed names (file:/PATH) for agentd to read: root may name any, others those that they have shown to be
 * able to read, and those that are named already in docs (of LAYERS; may hold NULL). */
int policy_check_files(const struct config_doc *const docs[LAYERS],
	const struct config_doc *changed, const struct config_request *q, struct err_text *err);
/* Every destination of next that is not in current as it is: against the policy in force, and for secrets in the
 * clear. The text says which and, of a file, where (m is what next was built from). current NULL (at start): nothing is
 * checked. */
int policy_check_changed(const struct config *current, const struct config *next,
	const struct merged *m, struct err_text *err);
