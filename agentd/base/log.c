/* SPDX-License-Identifier: Apache-2.0 */

/* Log lines for people: to stderr at once, and the last of them kept for `odictl logs`.
 *
 * A daemon that logs what strangers make it see can be made to fill a disk, so each call site has a
 * budget, and what it held back is said by its next line: nothing is dropped silently. Text is
 * escaped, never trusted: a line is one line, and no terminal is driven by a file name.
 *
 * Invariants: a line is at most LINE_MAX_BYTES of text; memory is at most LOG_KEEP of them; errno
 * survives a log call. Nothing here opens a file or asks for the time zone (UTC, computed by hand:
 * gmtime_r() reads /etc/localtime once), so that sandboxed roles can log as well. One process, no
 * threads. All roles. */

#include <inttypes.h>
#include <stdarg.h>
#include <sys/stat.h>

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"

#define LINE_MAX_BYTES 1024
#define BURST          10
#define WINDOW_NS      (30 * NSEC_PER_SEC)

struct kept {
	uint64_t serial, time_unix_ns;
	enum log_level level;
	char *text;
};

static struct {
	const char *role;
	enum log_level level;
	bool journal;
	struct kept ring[LOG_KEEP]; /* of serial s: at s % LOG_KEEP */
	uint64_t serial;            /* of the last line */
	uint64_t unwritten;         /* lines that stderr did not take */
	void (*on_line)(void *userdata, const struct log_line *line);
	void *userdata;
} state = {.role = "agentd", .level = LOG_LEVEL_INFO};

static const struct {
	const char *name;
	enum log_level level;
} levels[] = {
	{"error", LOG_LEVEL_ERROR},
	{"warning", LOG_LEVEL_WARN},
	{"info", LOG_LEVEL_INFO},
	{"debug", LOG_LEVEL_DEBUG},
};

/* JOURNAL_STREAM names the socket that the service manager put there; when stderr is another one by
 * now (a shell's redirection), prefixes would only be noise. */
static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	uintmax_t dev, ino;
	struct stat st;

	return stream && sscanf(stream, "%ju:%ju", &dev, &ino) == 2 &&
		fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

void log_init(const char *role, enum log_level level)
{
	state.role = role;
	state.level = level;
	state.journal = stderr_is_journal();
}

void log_set_level(enum log_level level)
{
	state.level = level;
}

enum log_level log_get_level(void)
{
	return state.level;
}

int log_level_parse(const char *text, enum log_level *ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
		const char digit[] = {(char)('0' + levels[i].level), '\0'};

		if (streq(text, levels[i].name) || streq(text, digit)) {
			*ret = levels[i].level;
			return 0;
		}
	}
	return -EINVAL;
}

const char *log_level_name(enum log_level level)
{
	for (size_t i = 0; i < ARRAY_SIZE(levels); i++)
		if (levels[i].level == level)
			return levels[i].name;
	return "unknown";
}

/* Whether the site may log now. *say: how many of its lines were held back before this one. */
static bool allowed(struct log_site *site, uint32_t *say)
{
	uint64_t now = clock_monotonic_ns();

	*say = 0;
	if (!site)
		return true;
	if (!site->in_window || now - site->window_start_ns >= WINDOW_NS) {
		site->window_start_ns = now;
		site->in_window = 0;
	}
	if (site->in_window >= BURST) {
		site->held_back += site->held_back < UINT32_MAX;
		return false;
	}
	site->in_window++;
	*say = site->held_back;
	site->held_back = 0;
	return true;
}

/* One character of s, escaped if need be, into one (at least 5 bytes); returns how many bytes of s
 * it was. */
static size_t escape_one(const char *s, char *one, size_t *len)
{
	uint32_t c;
	size_t n = text_utf8(s, &c);

	if (n && c >= 0x20 && (c < 0x7f || c > 0x9f)) {
		memcpy(one, s, n);
		*len = n;
		return n;
	}
	if (*s == '\n' || *s == '\t')
		*len = (size_t)sprintf(one, "\\%c", *s == '\n' ? 'n' : 't');
	else
		*len = (size_t)sprintf(one, "\\x%02x", (unsigned)(unsigned char)*s);
	return 1;
}

/* Copies what may be shown and writes the rest as escapes; what does not fit ends in "...". */
static void escape(char *out, size_t size, const char *s)
{
	size_t len = 0, mark = 0;

	while (*s) {
		char one[8];
		size_t n;

		s += escape_one(s, one, &n);
		if (len + n >= size) {
			memcpy(out + mark, "...", 4);
			return;
		}
		memcpy(out + len, one, n);
		len += n;
		/* The last end of a character that leaves room for the dots. */
		if (len + 4 <= size)
			mark = len;
	}
	out[len] = '\0';
}

static const struct kept *keep(enum log_level level, const char *text)
{
	uint64_t serial = ++state.serial;
	struct kept *k = &state.ring[serial % LOG_KEEP];

	free(k->text);
	/* Without memory the line still went to stderr; its place in the order stays. */
	*k = (struct kept){.serial = serial,
		.time_unix_ns = clock_unix_ns(),
		.level = level,
		.text = strdup(text)};
	return k;
}

/* "2026-03-01T12:00:00.250Z". Days to a date: count years from March, so that the leap day is the
 * last. */
static void format_time(uint64_t unix_ns, char *out, size_t size)
{
	uint64_t s = unix_ns / NSEC_PER_SEC, days = s / 86400 + 719468; /* since 0000-03-01 */
	uint64_t era = days / 146097, day = days % 146097;
	uint64_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
	uint64_t of_year = day - (365 * year + year / 4 - year / 100);
	uint64_t month = (5 * of_year + 2) / 153, of_month = of_year - (153 * month + 2) / 5 + 1;

	year += era * 400 + (month >= 10);
	month = month < 10 ? month + 3 : month - 9;
	s %= 86400;
	snprintf(out, size, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ", (unsigned)year, (unsigned)month,
		(unsigned)of_month, (unsigned)(s / 3600), (unsigned)(s / 60 % 60),
		(unsigned)(s % 60), (unsigned)(unix_ns / NSEC_PER_MSEC % 1000));
}

static void emit(const struct kept *k, const char *text)
{
	/* The journal knows the daemon's own name already. */
	bool name_role = !state.journal || !streq(state.role, "agentd");
	char line[LINE_MAX_BYTES + 192], head[64];
	size_t len;
	int n = 0;

	if (state.journal)
		snprintf(head, sizeof(head), "<%d>", (int)k->level);
	else {
		format_time(k->time_unix_ns, head, sizeof(head));
		n = (int)strlen(head);
		snprintf(head + n, sizeof(head) - (size_t)n, " %s ", log_level_name(k->level));
	}
	n = snprintf(line, sizeof(line) - 1, "%s%.40s%s%s", head, name_role ? state.role : "",
		name_role ? ": " : "", text);
	len = MIN((size_t)MAX(n, 0), sizeof(line) - 2);
	if (state.unwritten) {
		n = snprintf(line + len, sizeof(line) - 1 - len,
			" (%" PRIu64 " lines before this could not be written here)",
			state.unwritten);
		len = MIN(len + (size_t)MAX(n, 0), sizeof(line) - 2);
	}
	line[len++] = '\n';
	/* One write, so that lines of several processes do not mix; a reader that is gone or slow
	 * (a pipe that does not block) costs the line here, not the daemon. */
	if (write(STDERR_FILENO, line, len) < 0)
		state.unwritten++;
	else
		state.unwritten = 0;
}

void log_write(struct log_site *site, enum log_level level, const char *format, ...)
{
	char raw[LINE_MAX_BYTES + 8], text[LINE_MAX_BYTES];
	size_t room = sizeof(text);
	int saved = errno;
	const struct kept *k;
	uint32_t held_back;
	va_list ap;

	if (level > state.level || !allowed(site, &held_back))
		return;
	if (held_back)
		room -= 64;
	va_start(ap, format);
	errno = saved; /* %m */
	/* A longer line is cut here; the NUL at the end is overwritten to make escape() see that.
	 */
	if (vsnprintf(raw, sizeof(raw), format, ap) < 0)
		raw[0] = '\0';
	va_end(ap);
	escape(text, room, raw);
	if (held_back)
		snprintf(text + strlen(text), sizeof(text) - strlen(text),
			" (%" PRIu32 " more like this were held back)", held_back);
	k = keep(level, text);
	emit(k, text);
	if (state.on_line && k->text) {
		struct log_line line = {k->serial, k->time_unix_ns, k->level, k->text};

		state.on_line(state.userdata, &line);
	}
	errno = saved;
}

size_t log_each(
	uint64_t after, void (*visit)(void *userdata, const struct log_line *line), void *userdata)
{
	uint64_t first = state.serial > LOG_KEEP ? state.serial - LOG_KEEP + 1 : 1,
		 last = state.serial;
	size_t n = 0;

	if (after >= last)
		return 0;
	for (uint64_t serial = MAX(first, after + 1); serial <= last; serial++) {
		const struct kept *k = &state.ring[serial % LOG_KEEP];
		struct log_line line = {k->serial, k->time_unix_ns, k->level, k->text};

		if (k->serial != serial || !k->text)
			continue;
		visit(userdata, &line);
		n++;
	}
	return n;
}

void log_set_hook(void (*on_line)(void *userdata, const struct log_line *line), void *userdata)
{
	state.on_line = on_line;
	state.userdata = userdata;
}
