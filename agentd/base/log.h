/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Log lines: one a decision, to stderr. With the journal behind stderr (JOURNAL_STREAM matches) lines
 * carry the <N> priority prefix; on a terminal or a file they carry time and level. A call site is
 * limited to a burst of 10 lines in 30 s; what was held back is said in the next line of that site.
 * The last LOG_KEEP lines stay in memory for `odictl logs`. Control characters are escaped. */

#include "agentd/base/macros.h"

enum log_level { LOG_LEVEL_ERROR = 3, LOG_LEVEL_WARN = 4, LOG_LEVEL_INFO = 6, LOG_LEVEL_DEBUG = 7 };

#define LOG_KEEP 1000

struct log_site {
	uint64_t window_start_ns;
	uint32_t in_window, held_back;
};

struct log_line {
	uint64_t serial; /* 1 for the first line of this process */
	uint64_t time_unix_ns;
	enum log_level level;
	const char *text; /* borrowed until the next log call */
};

/* role: "agentd", "symbolizer", ...: set before each line of a child. Borrowed for ever. */
void log_init(const char *role, enum log_level level);
void log_set_level(enum log_level level);
enum log_level log_get_level(void);
/* "error", "warning", "info", "debug" (or 3, 4, 6, 7); -EINVAL. */
int log_level_parse(const char *text, enum log_level *ret);
const char *log_level_name(enum log_level level);

void log_write(struct log_site *site, enum log_level level, const char *format, ...) PRINTF(3, 4);

/* Kept lines with serial > after, oldest first; returns how many were visited. */
size_t log_each(
	uint64_t after, void (*visit)(void *userdata, const struct log_line *line), void *userdata);
/* Called back after each kept line (for followers); must not log. NULL to stop. */
void log_set_hook(void (*on_line)(void *userdata, const struct log_line *line), void *userdata);

#define log_at(level, ...)                                                                         \
	do {                                                                                       \
		static struct log_site site_;                                                      \
		log_write(&site_, level, __VA_ARGS__);                                             \
	} while (0)
#define log_error(...)   log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)    log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)
