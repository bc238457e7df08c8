/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Secrets of destinations: kept by agentd in files of their own (root's, 0600, random names) below its state folder, and
 * named in documents by reference alone. Runs in agentd. */

#include "agentd/base/buf.h"
#include "agentd/base/err.h"

#define SECRET_MAX_BYTES (512U << 10) /* a host's bundle of authorities has 200 KB */
#define SECRET_ID        33           /* 32 hex digits and NUL */
#define SECRETS_MAX      512

struct config_manager;
struct secrets;

int secrets_open(struct secrets **ret, const char *state_dir, struct err_text *err);
struct secrets *secrets_close(struct secrets *s);
/* Keeps the bytes of a sealed memfd; id is what "secret:" refers to. */
int secrets_keep(struct secrets *s, int memfd, char id[SECRET_ID], struct err_text *err);
void secrets_drop(struct secrets *s, const char *id);
/* Removes what no layer's document refers to any more; a revision that is not in force keeps none. */
void secrets_prune(struct secrets *s, const struct config_manager *m);
/* What a reference ("secret:ID", "file:/PATH", "cred:NAME") leads to, appended to out, with a NUL behind it that is not
 * counted. text: one line of clean text (the newline at its end is taken off), else a PEM file. The error text never
 * holds any of it. */
int secrets_read(
	struct secrets *s, const char *reference, bool text, struct buf *out, struct err_text *err);
/* Whether the caller, who opened fd, could read the file at path: fd must be that very file, open for reading, and path one
 * that only root can change. */
int secrets_may_name(const char *path, int fd, struct err_text *err);
/* Overwrites and frees. */
void secrets_wipe(struct buf *b);
