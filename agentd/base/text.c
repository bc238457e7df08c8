/* SPDX-License-Identifier: Apache-2.0 */

/* Small text things: what a person types becomes numbers, what a stranger wrote becomes safe to
 * show.
 *
 * Parsers here take the whole string or refuse it: a number that is followed by something
 * unexpected is a mistake that its writer wants to hear of. Nothing depends on the locale, nothing
 * allocates, and every loop is bounded by the lengths of its arguments (the glob goes back to the
 * last star only, which is all that is ever needed, so that no pattern and no name takes
 * exponential time).
 *
 * UTF-8 is held to RFC 3629: no overlong forms, no surrogates, nothing past U+10FFFF. Control
 * characters are Unicode's class Cc: C0, DEL and C1 (the last includes an 8-bit CSI, which
 * terminals obey). All roles. */

#include <ctype.h>
#include <strings.h>

#include "agentd/base/text.h"

#define NEAREST_MAX 255 /* longest string that is compared for "did you mean" */

int text_u64(const char *s, uint64_t min, uint64_t max, uint64_t *ret)
{
	uint64_t value = 0;
	bool over = false;

	if (!*s)
		return -EINVAL;
	for (; *s; s++) {
		if (*s < '0' || *s > '9')
			return -EINVAL;
		over |= __builtin_mul_overflow(value, 10, &value);
		over |= __builtin_add_overflow(value, (uint64_t)(*s - '0'), &value);
	}
	if (over || value < min || value > max)
		return -ERANGE;
	*ret = value;
	return 0;
}

/* "12", "12.5": in billionths, so that fractions of any unit below stay exact enough. Moves *s on.
 */
static int take_decimal(const char **s, unsigned __int128 *ret)
{
	unsigned __int128 value = 0;
	uint64_t digit = NSEC_PER_SEC;
	const char *p = *s;

	if (*p < '0' || *p > '9')
		return -EINVAL;
	for (; *p >= '0' && *p <= '9'; p++) {
		value = value * 10 + (unsigned)(*p - '0');
		if (value > UINT64_MAX)
			return -ERANGE;
	}
	value *= NSEC_PER_SEC;
	if (*p == '.') {
		p++;
		if (*p < '0' || *p > '9')
			return -EINVAL;
		for (; *p >= '0' && *p <= '9'; p++) {
			digit /= 10;
			value += digit * (unsigned)(*p - '0');
		}
	}
	*s = p;
	*ret = value;
	return 0;
}

/* billionths * unit, added to *sum. */
static int add_units(uint64_t *sum, unsigned __int128 billionths, uint64_t unit)
{
	unsigned __int128 whole = billionths / NSEC_PER_SEC, rest = billionths % NSEC_PER_SEC;
	unsigned __int128 value = whole * unit + rest * unit / NSEC_PER_SEC;

	if (value > UINT64_MAX || __builtin_add_overflow(*sum, (uint64_t)value, sum))
		return -ERANGE;
	return 0;
}

static const struct duration_unit {
	const char *name;
	uint64_t ns;
} duration_units[] = {
	{"w", 7 * 24 * 3600 * NSEC_PER_SEC},
	{"d", 24 * 3600 * NSEC_PER_SEC},
	{"h", 3600 * NSEC_PER_SEC},
	{"m", 60 * NSEC_PER_SEC},
	{"s", NSEC_PER_SEC},
	{"ms", NSEC_PER_MSEC},
	{"us", 1000},
	{"ns", 1},
};

int text_duration(const char *s, uint64_t *ret_ns)
{
	size_t next_unit = 0;
	uint64_t sum = 0;
	bool first = true;

	do {
		unsigned __int128 number;
		size_t len, u;
		int r = take_decimal(&s, &number);

		if (r < 0)
			return r;
		len = strspn(s, "abcdefghijklmnopqrstuvwxyz");
		if (!len && first && !*s) {
			u = 4; /* a bare number is seconds */
		} else {
			/* Each unit once, larger ones first: "30m1h" is more likely a slip than
			 * meant. */
			for (u = next_unit; u < ARRAY_SIZE(duration_units); u++)
				if (strlen(duration_units[u].name) == len &&
					memcmp(s, duration_units[u].name, len) == 0)
					break;
			if (u == ARRAY_SIZE(duration_units))
				return -EINVAL;
		}
		r = add_units(&sum, number, duration_units[u].ns);
		if (r < 0)
			return r;
		next_unit = u + 1;
		s += len;
		first = false;
	} while (*s);
	*ret_ns = sum;
	return 0;
}

/* "12.5 s", "12 s". Rounds to a tenth. */
static void format_tenths(uint64_t value, uint64_t unit, const char *name, char *out, size_t size)
{
	uint64_t tenths = (value + unit / 20) / (unit / 10);

	if (tenths % 10)
		snprintf(out, size, "%llu.%llu %s", (unsigned long long)tenths / 10,
			(unsigned long long)tenths % 10, name);
	else
		snprintf(out, size, "%llu %s", (unsigned long long)tenths / 10, name);
}

/* "1h 30m", "2h": the two largest units; the rest is cut off. */
static void format_pair(uint64_t big, const char *big_name, uint64_t small, const char *small_name,
	char *out, size_t size)
{
	if (small)
		snprintf(out, size, "%llu%s %llu%s", (unsigned long long)big, big_name,
			(unsigned long long)small, small_name);
	else
		snprintf(out, size, "%llu%s", (unsigned long long)big, big_name);
}

void text_format_duration(uint64_t ns, char *out, size_t size)
{
	uint64_t s = ns / NSEC_PER_SEC;

	/* Each bound is where rounding would say "1000" or "60" of the smaller unit. */
	if (ns < 1000)
		snprintf(out, size, "%llu ns", (unsigned long long)ns);
	else if (ns < NSEC_PER_MSEC - 50)
		format_tenths(ns, 1000, "us", out, size);
	else if (ns < NSEC_PER_SEC - NSEC_PER_MSEC / 20)
		format_tenths(ns, NSEC_PER_MSEC, "ms", out, size);
	else if (ns < 60 * NSEC_PER_SEC - NSEC_PER_SEC / 20)
		format_tenths(ns, NSEC_PER_SEC, "s", out, size);
	else if (s < 3600)
		format_pair(MAX(s / 60, 1), "m", s < 60 ? 0 : s % 60, "s", out, size);
	else if (s < 24 * 3600)
		format_pair(s / 3600, "h", s / 60 % 60, "m", out, size);
	else
		format_pair(s / 86400, "d", s / 3600 % 24, "h", out, size);
}

int text_size(const char *s, uint64_t *ret_bytes)
{
	static const char prefixes[] = "kmgtp";
	unsigned __int128 number;
	uint64_t unit = 1, sum = 0;
	const char *at;
	int r = take_decimal(&s, &number);

	if (r < 0)
		return r;
	at = *s ? strchr(prefixes, tolower((unsigned char)*s)) : NULL;
	if (at) {
		unit = 1024ULL << (10 * (at - prefixes));
		s++;
		if (strcasecmp(s, "ib") == 0)
			s += 2;
	}
	if (strcasecmp(s, "b") == 0)
		s++;
	if (*s)
		return -EINVAL;
	r = add_units(&sum, number, unit);
	if (r < 0)
		return r;
	*ret_bytes = sum;
	return 0;
}

void text_format_size(uint64_t bytes, char *out, size_t size)
{
	static const char *const names[] = {"KB", "MB", "GB", "TB", "PB", "EB"};
	uint64_t unit = 1024;
	size_t u = 0;

	if (bytes < 1024) {
		snprintf(out, size, "%llu B", (unsigned long long)bytes);
		return;
	}
	/* On while a tenth more would read "1024.0" of this unit. */
	while (u + 1 < ARRAY_SIZE(names) && bytes >= unit * 1024 - unit / 20) {
		unit *= 1024;
		u++;
	}
	snprintf(out, size, "%.1f %s", (double)bytes / (double)unit, names[u]);
}

int text_bool(const char *s, bool *ret)
{
	static const char *const yes[] = {"true", "yes", "on", "1"},
				 *const no[] = {"false", "no", "off", "0"};

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		bool is_yes = strcasecmp(s, yes[i]) == 0;

		if (is_yes || strcasecmp(s, no[i]) == 0) {
			*ret = is_yes;
			return 0;
		}
	}
	return -EINVAL;
}

bool text_is_name(const char *s)
{
	static const char allowed[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-@:";
	size_t len = strnlen(s, 65);

	return len >= 1 && len <= 64 && s[0] != '-' && s[0] != '.' && strspn(s, allowed) == len;
}

size_t text_utf8(const char *s, uint32_t *ret)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	const unsigned char *p = (const unsigned char *)s;
	uint32_t c;
	size_t len;

	if (p[0] < 0x80)
		len = 1, c = p[0];
	else if (p[0] >= 0xc2 && p[0] <= 0xdf)
		len = 2, c = p[0] & 0x1f;
	else if ((p[0] & 0xf0) == 0xe0)
		len = 3, c = p[0] & 0x0f;
	else if (p[0] >= 0xf0 && p[0] <= 0xf4)
		len = 4, c = p[0] & 0x07;
	else
		return 0;
	for (size_t i = 1; i < len; i++) {
		/* Also the end of the string: NUL is no continuation. */
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	if (c < least[len] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
		return 0;
	if (ret)
		*ret = c;
	return len;
}

/* Length of the character at s if it may be shown, else 0. */
static size_t clean_at(const char *s)
{
	uint32_t c;
	size_t len = text_utf8(s, &c);

	return len && c >= 0x20 && (c < 0x7f || c > 0x9f) ? len : 0;
}

bool text_is_clean(const char *s, size_t max)
{
	size_t at = 0;

	while (s[at]) {
		size_t len = clean_at(s + at);

		if (!len || len > max - at)
			return false;
		at += len;
	}
	return true;
}

void text_clean(char *s)
{
	while (*s) {
		size_t len = clean_at(s);

		if (!len)
			*s = '?';
		s += len ? len : 1;
	}
}

/* One character; a byte that is no UTF-8 is a character of its own, unlike any real one. */
static uint32_t take_char(const char **s)
{
	uint32_t c;
	size_t len = text_utf8(*s, &c);

	if (!len) {
		c = 0x110000 + (unsigned char)**s;
		len = 1;
	}
	*s += len;
	return c;
}

static const struct char_class {
	const char *name;
	int (*is)(int c);
} char_classes[] = {
	{"alnum:]", isalnum},
	{"alpha:]", isalpha},
	{"blank:]", isblank},
	{"cntrl:]", iscntrl},
	{"digit:]", isdigit},
	{"graph:]", isgraph},
	{"lower:]", islower},
	{"print:]", isprint},
	{"punct:]", ispunct},
	{"space:]", isspace},
	{"upper:]", isupper},
	{"xdigit:]", isxdigit},
};

/* The class whose name stands at *p (after "[:"); moves *p past it. */
static const struct char_class *take_class(const char **p)
{
	for (size_t i = 0; i < ARRAY_SIZE(char_classes); i++)
		if (text_starts(*p, char_classes[i].name)) {
			*p += strlen(char_classes[i].name);
			return &char_classes[i];
		}
	return NULL;
}

static uint32_t take_set_char(const char **p)
{
	if ((*p)[0] == '\\' && (*p)[1])
		(*p)++;
	return take_char(p);
}

/* Whether c is in the set whose body starts at p (after '['); *end is past its ']'. -1: there is no
 * ']', so that '[' was an ordinary character. */
static int match_set(const char *p, uint32_t c, const char **end)
{
	bool negated = *p == '!' || *p == '^', found = false;

	p += negated;
	for (bool first = true; first || *p != ']'; first = false) {
		const struct char_class *class = NULL;
		const char *after = p + 2;
		uint32_t low, high;

		if (!*p)
			return -1;
		if (p[0] == '[' && p[1] == ':')
			class = take_class(&after);
		if (class) {
			found |= c < 0x80 && class->is((int)c);
			p = after;
			continue;
		}
		low = high = take_set_char(&p);
		if (p[0] == '-' && p[1] && p[1] != ']') {
			p++;
			high = take_set_char(&p);
		}
		found |= c >= low && c <= high;
	}
	*end = p + 1;
	return found != negated;
}

/* Whether the one-character item of the pattern at *p (not a star, not the end) is c; moves *p past
 * it. */
static bool match_one(const char **p, uint32_t c, const char *last_bracket)
{
	const char *end;
	int r;

	switch (**p) {
	case '?':
		(*p)++;
		return true;
	case '[':
		/* Without this look each '[' of a pattern full of them would be read to the end. */
		r = *p < last_bracket ? match_set(*p + 1, c, &end) : -1;
		if (r >= 0) {
			*p = end;
			return r;
		}
		break;
	case '\\':
		if ((*p)[1])
			(*p)++;
		break;
	}
	return take_char(p) == c;
}

bool text_glob(const char *pattern, const char *s)
{
	const char *last_bracket = strrchr(pattern, ']'), *star = NULL, *star_s = NULL;

	while (*s) {
		const char *p = pattern, *next = s;

		if (*p == '*') {
			star = ++pattern;
			star_s = s;
			continue;
		}
		if (*p && match_one(&p, take_char(&next), last_bracket ? last_bracket : pattern)) {
			pattern = p;
			s = next;
			continue;
		}
		/* The last star takes one character more. An earlier one need never: whatever it
		 * could give up, the last one could take as well. */
		if (!star)
			return false;
		take_char(&star_s);
		s = star_s;
		pattern = star;
	}
	while (*pattern == '*')
		pattern++;
	return !*pattern;
}

bool text_starts(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours. */
static unsigned distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
	unsigned rows[3][NEAREST_MAX + 1];

	for (size_t j = 0; j <= b_len; j++)
		rows[0][j] = (unsigned)j;
	for (size_t i = 1; i <= a_len; i++) {
		const unsigned *before = rows[(i + 1) % 3], *above = rows[(i - 1) % 3];
		unsigned *row = rows[i % 3];

		row[0] = (unsigned)i;
		for (size_t j = 1; j <= b_len; j++) {
			unsigned d = above[j - 1] + (a[i - 1] != b[j - 1]);

			d = MIN(d, above[j] + 1);
			d = MIN(d, row[j - 1] + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				d = MIN(d, before[j - 2] + 1);
			row[j] = d;
		}
	}
	return rows[a_len % 3][b_len];
}

const char *text_nearest(const char *s, const char *const *candidates, size_t n)
{
	size_t len = strlen(s);
	unsigned best = 2 + (unsigned)(len / 4);
	const char *nearest = NULL;

	if (len > NEAREST_MAX)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		size_t its_len = candidates[i] ? strlen(candidates[i]) : SIZE_MAX;
		unsigned d;

		/* The lengths' difference is the least distance there can be. */
		if (its_len > NEAREST_MAX ||
			(its_len > len ? its_len - len : len - its_len) >= best)
			continue;
		d = distance(s, len, candidates[i], its_len);
		if (d < best) {
			best = d;
			nearest = candidates[i];
		}
	}
	return nearest;
}
