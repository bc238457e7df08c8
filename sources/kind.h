/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the kinds of sources share; not for other rooms. */

#include "sources/source.h"

#define SOURCE_MATCH_MAX 1024 /* bytes of MATCH */

extern const struct source_kind source_kind_systemd;
extern const struct source_kind source_kind_process;
extern const struct source_kind source_kind_container;
extern const struct source_kind source_kind_cgroup;
extern const struct source_kind source_kind_host;

/* What the source sets, else the kind's default, else NULL. Borrowed. */
const char *source_option(const struct source *source, const char *name);
bool source_option_bool(const struct source *source, const char *name);

/* A pattern for text_glob() or a plain string? Backslashes do not count: unit names carry them. */
bool source_is_glob(const char *pattern);
/* Glob if it is one, else the same string. */
bool source_matches(const char *pattern, const char *s);

/* A pattern whose backslashes mean themselves (unit names and cgroup paths hold "\\x2d"), for
 * text_glob(). out takes at most twice the length. */
void source_escape(const char *pattern, char *out, size_t size);

/* The part after the last '/'; s itself without one. */
const char *source_basename(const char *s);

/* Unit, container or executable name, "kernel" for kernel threads; "" where nothing is known. */
void source_default_service(
	const struct source *source, const struct image *image, char *out, size_t size);
/* The container's name as people know it, or "container-<12 hex digits>"; false: not in a
 * container. */
bool source_container_service(const struct image *image, char *out, size_t size);
/* "nginx.service" -> "nginx", "app@1.service" -> "app@1"; false: no unit that names a service. */
bool source_unit_service(const char *unit, char *out, size_t size);

/* One of the image's k8s.* facts, "" where not known. */
const char *source_k8s(const struct image *image, const char *key);

/* Image fields are "" where not known; a caller's own image may leave them NULL. */
static inline const char *or_empty(const char *s)
{
	return s ? s : "";
}
