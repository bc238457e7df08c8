/* SPDX-License-Identifier: Apache-2.0 */

/* `odictl symbols`: what names each binary, and what to do where names are missing.
 *
 * Advice is made of what is known anyway: where the file lies, what it has, whether its debug file may be fetched,
 * and which distribution this is. No package manager's database is read: it is asked by the reader, whom the
 * command is given. Runs in agentd. */

#include <fcntl.h>
#include <sys/stat.h>

#include "agentd/base/io.h"
#include "agentd/base/text.h"
#include "agentd/daemon_fetch.h"
#include "agentd/daemon_verbs.h"

#define OS_RELEASE_MAX 65536
/* Of its frames, in thousandths: fewer without a name than this are no reason to do anything. */
#define MISSING_PERMILLE 5

enum distribution {
	DISTRIBUTION_OTHER,
	DISTRIBUTION_DEBIAN,
	DISTRIBUTION_RPM,
};

/* A line of os-release, "ID=debian" or "ID_LIKE=\"rhel fedora\"", and whether it has that word. */
static bool line_has(const char *line, size_t len, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = line; p + n <= line + len; p++)
		if (strncmp(p, word, n) == 0 && strchr("=\"' ", p[-1]) &&
			(p + n == line + len || strchr("\"' ", p[n])))
			return true;
	return false;
}

static enum distribution distribution(void)
{
	static const struct {
		const char *id;
		enum distribution is;
	} known[] = {
		{"debian", DISTRIBUTION_DEBIAN},
		{"ubuntu", DISTRIBUTION_DEBIAN},
		{"fedora", DISTRIBUTION_RPM},
		{"rhel", DISTRIBUTION_RPM},
		{"centos", DISTRIBUTION_RPM},
		{"amzn", DISTRIBUTION_RPM},
	};
	_cleanup_buf_ struct buf b;

	buf_init(&b, OS_RELEASE_MAX);
	if (io_read_file(AT_FDCWD, "/etc/os-release", &b, OS_RELEASE_MAX) < 0 || !b.len)
		return DISTRIBUTION_OTHER;
	for (const char *line = (const char *)b.data; *line; line += strspn(line, "\n")) {
		size_t len = strcspn(line, "\n");
		bool id = text_starts(line, "ID=") || text_starts(line, "ID_LIKE=");
		size_t start = id ? strcspn(line, "=") + 1 : 0;

		for (size_t i = 0; id && i < ARRAY_SIZE(known); i++)
			if (line_has(line + start, len - start, known[i].id))
				return known[i].is;
		line += len;
	}
	return DISTRIBUTION_OTHER;
}

/* Whether a package of the distribution may have brought it. */
static bool is_packaged(const char *path)
{
	static const char *const folders[] = {"/usr/", "/lib/", "/lib64/", "/bin/", "/sbin/"};

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		if (text_starts(path, folders[i]))
			return !text_starts(path, "/usr/local/");
	return false;
}

static const char *fetch_word(enum fetch_state state)
{
	switch (state) {
	case FETCH_STATE_WANTED:
		return "wanted";
	case FETCH_STATE_UNDER_WAY:
		return "fetching";
	case FETCH_STATE_HERE:
		return "fetched";
	case FETCH_STATE_NOT_FOUND:
		return "not found";
	case FETCH_STATE_FAILED:
		return "failed";
	case FETCH_STATE_REFUSED:
		return "refused";
	default:
		return "";
	}
}

static const char *named_by(const struct figure *x, enum fetch_state fetch)
{
	static const struct {
		const char *is, *shown;
	} words[] = {
		{".symtab", "symbol table"},
		{".symtab (debug file)", "symbol table (debug file)"},
		{".dynsym", "dynamic symbols"},
		{".gnu_debugdata", "mini debug info"},
		{".gopclntab", "gopclntab"},
	};

	if (x->has_debug_file && fetch == FETCH_STATE_HERE)
		return "debuginfod";
	for (size_t i = 0; i < ARRAY_SIZE(words); i++)
		if (streq(x->named_by, words[i].is))
			return words[i].shown;
	/* What a program begins with has a name in any case. */
	return streq(x->named_by, "none") && x->named ? "entry point" : x->named_by;
}

static bool names_are_missing(const struct figure *x)
{
	return x->frames && (x->frames - x->named) * 1000 > x->frames * MISSING_PERMILLE;
}

/* As one word of a shell's: it may be pasted, and a path is anybody's choice. */
static char *quoted(struct control_reply *r, const char *path)
{
	struct buf _cleanup_buf_ b;

	buf_init(&b, 5 * 4096);
	if (path[strspn(path,
		    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._+-@:")] ==
		'\0')
		return control_strdup(r, path);
	buf_str(&b, "'");
	for (; *path; path++) {
		if (*path == '\'')
			buf_str(&b, "'\\''");
		else
			buf_add(&b, path, 1);
	}
	buf_str(&b, "'");
	return buf_error(&b) ? control_strdup(r, "FILE") : control_strdup(r, (const char *)b.data);
}

static char *package_advice(
	struct control_reply *r, const char *path, enum distribution distribution)
{
	switch (distribution) {
	case DISTRIBUTION_DEBIAN:
		return control_printf(r,
			"install the -dbgsym package of the package that has it (dpkg -S %s)",
			quoted(r, path));
	case DISTRIBUTION_RPM:
		return control_printf(
			r, "dnf debuginfo-install \"$(rpm -qf %s)\"", quoted(r, path));
	default:
		return control_strdup(r, "install the debug symbols of the package that has it");
	}
}

static char *build_id_advice(struct daemon *d, struct control_reply *r, const struct figure *x,
	enum fetch_state fetch, enum distribution distribution)
{
	const char *more = is_packaged(x->path)
		? package_advice(r, x->path, distribution)
		: "build it with symbols, or name its debug file: odictl symbols add FILE";

	if (!d->in_force->symbols.fetch && !x->has_debug_info && !x->has_debug_file)
		return control_printf(
			r, "%s, or let it be fetched: odictl symbols fetch on", more ? more : "");
	if (x->has_debug_info || x->has_debug_file)
		return control_strdup(r,
			"its debug information does not have all of its code, or names came too late");
	switch (fetch) {
	case FETCH_STATE_WANTED:
	case FETCH_STATE_UNDER_WAY:
		return control_strdup(r, "its debug file is being fetched");
	case FETCH_STATE_NOT_FOUND:
		return control_printf(r, "no server has its debug file: %s", more ? more : "");
	case FETCH_STATE_FAILED:
		return control_printf(r,
			"its debug file could not be fetched, and is tried again; or %s",
			more ? more : "");
	case FETCH_STATE_REFUSED:
		return control_printf(
			r, "what the server has is not its debug file: %s", more ? more : "");
	default:
		return (char *)more;
	}
}

static char *advice(struct daemon *d, struct control_reply *r, const struct figure *x,
	enum fetch_state fetch, enum distribution distribution)
{
	if (!names_are_missing(x))
		return control_strdup(r, "");
	if (streq(x->path, FIGURES_KERNEL))
		return control_strdup(r, "sysctl kernel.kptr_restrict must not be 2");
	if (x->path[0] == '[' && strstr(x->path, "jit"))
		return control_strdup(r,
			"let the runtime write a perf map: node --perf-basic-prof, or jcmd PID "
			"Compiler.perfmap");
	if (x->path[0] != '/')
		return control_strdup(r, "");
	if (x->build_id[0])
		return build_id_advice(d, r, x, fetch, distribution);
	return is_packaged(x->path)
		? package_advice(r, x->path, distribution)
		: control_strdup(r, "build it with symbols and with a build id (-Wl,--build-id)");
}

static Control__SymbolFile *symbol_file(struct daemon *d, struct control_reply *r,
	const struct figure *x, enum distribution distribution)
{
	enum fetch_state fetch = FETCH_STATE_NONE;
	Control__SymbolFile *f = control_alloc(r, sizeof(*f));

	if (!f)
		return NULL;
	if (x->build_id[0])
		fetch = daemon_fetch_state(d, x->build_id);
	control__symbol_file__init(f);
	f->path = control_strdup(r, x->path);
	f->build_id = control_strdup(r, x->build_id);
	f->samples = x->samples;
	f->frames = x->frames;
	f->frames_named = x->named;
	f->named_by = control_strdup(r, named_by(x, fetch));
	f->cpu_us = x->cpu_us;
	f->problem = control_strdup(r, x->problem);
	f->advice = advice(d, r, x, fetch, distribution);
	f->fetch = control_strdup(r, fetch_word(fetch));
	return f->path && f->build_id && f->named_by && f->problem && f->advice && f->fetch ? f
											    : NULL;
}

static Control__SymbolFetch *symbol_fetch(struct daemon *d, struct control_reply *r)
{
	Control__SymbolFetch *f = control_alloc(r, sizeof(*f));
	struct fetch_figures now = {};
	const struct config *c = d->in_force;

	if (!f)
		return NULL;
	daemon_fetch_figures(d, &now);
	control__symbol_fetch__init(f);
	f->on = now.on;
	f->urls = control_alloc(r, (c->symbols.n_urls + 1) * sizeof(*f->urls));
	for (size_t i = 0; f->urls && i < c->symbols.n_urls; i++)
		f->urls[f->n_urls++] = control_strdup(r, c->symbols.urls[i]);
	f->wanted = now.wanted;
	f->asked = now.asked;
	f->found = now.found;
	f->not_found = now.not_found;
	f->failed = now.failed;
	f->refused = now.refused;
	f->bytes = now.bytes;
	f->cached_files = now.cached_files;
	f->cached_bytes = now.cached_bytes;
	f->under_way = control_strdup(r, now.under_way);
	f->last_error = control_strdup(r, now.last_error);
	f->last_error_unix_ns = now.last_error_unix_ns;
	f->paused = control_strdup(r, now.paused);
	return f;
}

/* Why a place that an administrator named is of no use; "" it is. It is asked for by name only: what is
 * opened is looked at again when it is. */
static const char *path_problem(const char *path)
{
	struct stat st;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? "is not there" : "cannot be looked at";
	if (S_ISLNK(st.st_mode) && stat(path, &st) < 0)
		return "points to nothing";
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return "is neither a file nor a folder";
	if (st.st_uid != 0)
		return "is not root's";
	if (st.st_mode & (S_IWGRP | S_IWOTH))
		return "may be written to by others";
	return "";
}

static void list_paths(struct daemon *d, struct control_reply *r, Control__Symbols *body)
{
	const struct config *c = d->in_force;

	body->paths = control_alloc(r, (c->symbols.n_paths + 1) * sizeof(*body->paths));
	for (size_t i = 0; body->paths && i < c->symbols.n_paths; i++) {
		Control__SymbolPath *p = control_alloc(r, sizeof(*p));

		if (!p)
			return;
		control__symbol_path__init(p);
		p->path = control_strdup(r, c->symbols.paths[i]);
		p->problem = control_strdup(r, path_problem(c->symbols.paths[i]));
		body->paths[body->n_paths++] = p;
	}
}

void daemon_get_symbols(void *userdata, struct control_reply *r, const Control__GetSymbols *request)
{
	struct daemon *d = userdata;
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__Symbols body = CONTROL__SYMBOLS__INIT;
	_cleanup_free_ const struct figure **list = NULL;
	const struct figures_totals *totals = figures_totals(d->figures);
	enum distribution here = distribution();
	size_t n = 0, limit;

	if (figures_list(d->figures, &list, &n) < 0) {
		daemon_fail(r, -ENOMEM, "out of memory");
		return;
	}
	limit = request->limit ? MIN((size_t)request->limit, n) : n;
	body.files = control_alloc(r, (limit + 1) * sizeof(*body.files));
	for (size_t i = 0; body.files && i < limit; i++) {
		Control__SymbolFile *f = symbol_file(d, r, list[i], here);

		if (f)
			body.files[body.n_files++] = f;
	}
	body.files_left_off = n - body.n_files;
	body.samples = totals->samples;
	body.frames = totals->frames;
	body.frames_named = totals->named;
	body.other_files = totals->other_files;
	body.other_frames = totals->other_frames;
	body.other_frames_named = totals->other_named;
	body.since_unix_ns = d->started_unix_ns;
	body.demangle = control_strdup(r, config_demangle_names[d->in_force->profiling.demangle]);
	body.fetch = symbol_fetch(d, r);
	list_paths(d, r, &body);
	reply.body_case = CONTROL__REPLY__BODY_SYMBOLS;
	reply.symbols = &body;
	control_send(r, &reply, true);
}
