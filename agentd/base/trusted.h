/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Files that only root can change, or exchange: what a root daemon may read again and again by name. */

#include "agentd/base/err.h"

/* 0: path is absolute, and each folder on its way and the file behind all links belong to root (or who we are) and can
 * be written by nobody else (a folder with the sticky bit keeps others' hands off as well). -EPERM and what is wrong. */
int trusted_path(const char *path, struct err_text *err);
/* The same of what fd is: kind is S_IFREG or S_IFDIR; shown is its name for the text. */
int trusted_fd(int fd, unsigned kind, const char *shown, struct err_text *err);
/* Opens such a regular file for reading; never waits. Descriptor or -errno. */
int trusted_open(const char *path, struct err_text *err);
