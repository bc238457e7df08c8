/* SPDX-License-Identifier: Apache-2.0 */

/* What only agentd knows: the kinds of sources, the types of destinations, and which options each has.
 *
 * The line `source add process foo --children bar` cannot be read without knowing whether --children takes a value,
 * so agentd is asked before the line is taken apart. Which kind is meant stands in the line itself: it is found with
 * the options of all kinds together, and the line is then read with those of that one. */

#include "agentd/base/text.h"
#include "odictl/kinds.h"

struct kinds *kinds_free(struct kinds *k)
{
	if (!k)
		return NULL;
	for (size_t i = 0; i < k->n; i++)
		free(k->list[i].specs);
	for (size_t i = 0; i < k->n_texts; i++)
		free(k->texts[i]);
	free(k->texts);
	free(k->list);
	api_reply_free(k->reply);
	free(k);
	return NULL;
}

/* The first len bytes of name with a suffix, kept as long as k is; NULL without memory. */
static const char *with_suffix(struct kinds *k, const char *name, size_t len, const char *suffix)
{
	char **grown = reallocarray(k->texts, k->n_texts + 1, sizeof(*grown));

	if (!grown)
		return NULL;
	k->texts = grown;
	if (asprintf(&grown[k->n_texts], "%.*s%s", (int)len, name, suffix) < 0)
		return NULL;
	return grown[k->n_texts++];
}

/* "headers" is a list of pairs: on the command line it is --header K=V, as often as needed. */
static const char *singular(struct kinds *k, const char *name)
{
	size_t n = strlen(name);
	const char *one = n < 3 || name[n - 1] != 's' ? NULL : with_suffix(k, name, n - 1, "");

	return one ? one : name;
}

/* Options of which the line only names the file: --X-file is copied, --X-path is read by agentd again and again, and
 * --X itself would be a secret for all to see. Returns how many. */
static size_t secret_specs(struct kinds *k, const Control__OptionInfo *o, struct option_spec *to)
{
	struct option_spec s = {.kind = VALUE, .help = o->help, .stored = o->name, .value = "FILE"};

	if (streq(o->type, "file")) {
		s.name = o->name;
		s.from = FROM_EITHER;
		to[0] = s;
		return 1;
	}
	if (streq(o->type, "key=secret")) {
		s.name = singular(k, o->name);
		s.kind = REPEAT;
		s.map = true;
		s.value = "K=FILE";
		s.from = FROM_COPY;
		to[0] = s;
		return 1;
	}
	s.stored = NULL;
	s.secret_of = o->name;
	s.name = with_suffix(k, o->name, strlen(o->name), "-file");
	s.from = FROM_COPY;
	to[0] = s;
	s.name = with_suffix(k, o->name, strlen(o->name), "-path");
	s.from = FROM_PATH;
	s.hidden = true;
	to[1] = s;
	s.name = o->name;
	s.from = FROM_NOWHERE;
	to[2] = s;
	return to[0].name && to[1].name ? 3 : 0;
}

static bool is_secret(const Control__OptionInfo *o)
{
	return streq(o->type, "secret") || streq(o->type, "file") || streq(o->type, "key=secret");
}

static struct option_spec spec_of(struct kinds *k, const Control__OptionInfo *o)
{
	struct option_spec s = {.name = o->name, .kind = VALUE, .help = o->help};

	if (streq(o->type, "yes/no")) {
		s.kind = SWITCH;
	} else if (streq(o->type, "key=value")) {
		s.kind = REPEAT;
		s.map = true;
		s.stored = o->name;
		s.name = singular(k, o->name);
		s.value = "K=V";
	} else {
		s.value = streq(o->type, "number")    ? "N"
			: streq(o->type, "url")       ? "URL"
			: streq(o->type, "duration")  ? "TIME"
			: streq(o->type, "size")      ? "SIZE"
			: streq(o->type, "host:port") ? "HOST:PORT"
			: o->n_values                 ? "WORD"
						      : "TEXT";
	}
	return s;
}

static bool is_own(const struct command *c, const char *name)
{
	for (const struct option_spec *o = c->options; o && o->name; o++)
		if (streq(o->name, name))
			return true;
	return false;
}

static bool fill(struct kinds *k, struct kind *kind, const struct command *c)
{
	size_t n = 0;

	kind->specs = calloc(3 * kind->n_options + 1, sizeof(*kind->specs));
	if (!kind->specs)
		return false;
	for (size_t i = 0; i < kind->n_options; i++)
		if (is_secret(kind->options[i]))
			n += secret_specs(k, kind->options[i], &kind->specs[n]);
		else if (*kind->options[i]->name && !is_own(c, kind->options[i]->name))
			kind->specs[n++] = spec_of(k, kind->options[i]);
	return true;
}

struct kinds *kinds_new(Control__Reply *reply, const struct command *c, int which)
{
	struct kinds *k = calloc(1, sizeof(*k));
	bool source = which == KINDS_SOURCE;
	size_t n = 0;

	if (reply->body_case ==
		(source ? CONTROL__REPLY__BODY_SOURCE_KINDS
			: CONTROL__REPLY__BODY_DESTINATION_TYPES))
		n = source ? reply->source_kinds->n_kinds : reply->destination_types->n_types;
	if (k)
		k->list = calloc(n + 1, sizeof(*k->list));
	if (!k) {
		api_reply_free(reply);
		return NULL;
	}
	k->reply = reply;
	if (!k->list)
		return kinds_free(k);
	for (; k->n < n; k->n++) {
		struct kind *kind = &k->list[k->n];

		if (source) {
			const Control__SourceKind *s = reply->source_kinds->kinds[k->n];

			*kind = (struct kind){s->name, s->name, s->summary, s->example,
				s->match_help, s->match_required, s->options, s->n_options, NULL};
		} else {
			const Control__DestinationType *d = reply->destination_types->types[k->n];

			*kind = (struct kind){d->name, d->display_name, d->summary, d->example, "",
				false, d->options, d->n_options, NULL};
		}
		if (!fill(k, kind, c))
			return kinds_free(k);
	}
	return k;
}

static int load(struct cli *cli, const struct command *c, int which)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetSourceKinds kinds = CONTROL__GET_SOURCE_KINDS__INIT;
	Control__GetDestinationTypes types = CONTROL__GET_DESTINATION_TYPES__INIT;
	Control__Reply *reply = NULL;
	int r;

	if (cli->kinds)
		return 0;
	if (which == KINDS_SOURCE) {
		request.verb_case = CONTROL__REQUEST__VERB_GET_SOURCE_KINDS;
		request.get_source_kinds = &kinds;
	} else {
		request.verb_case = CONTROL__REQUEST__VERB_GET_DESTINATION_TYPES;
		request.get_destination_types = &types;
	}
	r = cli_call(cli, &request, &reply);
	if (r)
		return r;
	cli->kinds = kinds_new(reply, c, which);
	return cli->kinds ? 0 : cli_fail(cli, EXIT_FAILED, "out of memory");
}

int kinds_load(struct cli *cli, int which)
{
	static const struct command none;

	return load(cli, &none, which);
}

const struct kind *kinds_find(const struct kinds *k, const char *name)
{
	for (size_t i = 0; i < k->n; i++)
		if (streq(k->list[i].name, name))
			return &k->list[i];
	return NULL;
}

static int unknown_kind(struct cli *cli, const struct command *c, const char *word)
{
	const struct kinds *k = cli->kinds;
	bool source = c->kinds == KINDS_SOURCE;
	const char *names[64], *near;
	char quoted[80], list[400] = "";
	size_t n = MIN(k->n, ARRAY_SIZE(names)), at = 0;

	for (size_t i = 0; i < n; i++) {
		names[i] = k->list[i].name;
		if (at < sizeof(list))
			at += (size_t)snprintf(
				list + at, sizeof(list) - at, "%s%s", i ? ", " : "", names[i]);
	}
	near = text_nearest(word, names, n);
	return cli_fail(cli, EXIT_USAGE, "there is no %s '%s'%s%s%s there is: %s",
		source ? "source kind" : "destination type",
		out_quote(word, quoted, sizeof(quoted)), near ? ": did you mean '" : "",
		near ? near : "", near ? "'?" : ";", list);
}

/* The options of all kinds, for finding the kind; the caller frees it. */
static struct option_spec *all_specs(const struct kinds *k)
{
	size_t n = 0;
	struct option_spec *all;

	for (size_t i = 0; i < k->n; i++)
		for (const struct option_spec *o = k->list[i].specs; o->name; o++)
			n++;
	all = calloc(n + 1, sizeof(*all));
	n = 0;
	for (size_t i = 0; all && i < k->n; i++)
		for (const struct option_spec *o = k->list[i].specs; o->name; o++)
			all[n++] = *o;
	return all;
}

int kinds_parse(struct cli *cli, struct args *args, const struct command *c, int argc, char **argv)
{
	_cleanup_free_ struct option_spec *all = NULL;
	const struct option_spec *extra = NULL;
	const struct kind *kind;
	const char *word;
	int r;

	if (c->kinds && argc) {
		r = load(cli, c, c->kinds);
		if (r)
			return r;
		all = all_specs(cli->kinds);
		word = args_first_word(c, all, argc, argv);
		kind = word ? kinds_find(cli->kinds, word) : NULL;
		if (word && !kind)
			return unknown_kind(cli, c, word);
		extra = kind ? kind->specs : NULL;
	}
	return args_parse(cli, args, c, extra, argc, argv);
}

/* ---- help ---- */

static const Control__OptionInfo *info_of(const struct kind *kind, const struct option_spec *o)
{
	const char *name = o->secret_of ? o->secret_of : o->stored ? o->stored : o->name;

	for (size_t i = 0; i < kind->n_options; i++)
		if (streq(kind->options[i]->name, name))
			return kind->options[i];
	return NULL;
}

static void option_help(const struct kind *kind, const struct option_spec *o)
{
	const Control__OptionInfo *info = info_of(kind, o);
	_cleanup_buf_ struct buf text;

	buf_init(&text, 0);
	buf_str(&text, o->help);
	for (size_t v = 0; info && v < info->n_values; v++)
		buf_printf(&text, "%s%s", v ? ", " : ": ", info->values[v]);
	if (info && info->required)
		buf_str(&text, " (required)");
	else if (info && info->fallback[0])
		buf_printf(&text, " (default %s)", info->fallback);
	if (o->kind == REPEAT)
		buf_str(&text, "; may come again");
	help_option(stdout, o, buf_error(&text) ? NULL : (const char *)text.data);
}

/* What every type has stands in one paragraph; it would be most of the page. */
static void common_help(const struct kind *kind)
{
	_cleanup_buf_ struct buf text;
	size_t n = 0;

	buf_init(&text, 0);
	for (const struct option_spec *o = kind->specs; o->name; o++) {
		const Control__OptionInfo *info = info_of(kind, o);

		if (info && info->common && !o->hidden)
			buf_printf(&text, "%s--%s", n++ ? ", " : "", o->name);
	}
	if (n && !buf_error(&text))
		out_wrap(stdout, "shaping of what goes there (man odictl-destination):", 2,
			(const char *)text.data, HELP_WIDTH);
}

static void kind_help(const struct command *c, const struct kind *kind)
{
	bool source = c->kinds == KINDS_SOURCE;
	char head[300];

	printf("usage: odictl %s %s%s [options]\n\n", c->words, kind->name,
		!source                        ? " [WHERE] [--name NAME]"
			: !*kind->match_help   ? ""
			: kind->match_required ? " MATCH"
					       : " [MATCH]");
	snprintf(head, sizeof(head), "%s%s%s", streq(kind->title, kind->name) ? "" : kind->title,
		streq(kind->title, kind->name) ? "" : ": ", kind->summary);
	out_wrap(stdout, "", 0, head, HELP_WIDTH);
	if (source && *kind->match_help)
		out_wrap(stdout, "MATCH:", 7, kind->match_help, HELP_WIDTH);
	if (kind->specs[0].name)
		puts("");
	for (const struct option_spec *o = kind->specs; o->name; o++) {
		const Control__OptionInfo *info = info_of(kind, o);

		if (!o->hidden && !(info && info->common))
			option_help(kind, o);
	}
	common_help(kind);
	puts("");
	for (const struct option_spec *o = c->options; o && o->name; o++)
		help_option(stdout, o, NULL);
	printf("\nalso: --json, --socket PATH, --yes, --no-color\n");
	if (*kind->example)
		printf("example: %s\n", kind->example);
	else
		printf("example: odictl %s %s\n", c->words, kind->name);
}

int kinds_help(struct cli *cli, const struct command *c, int argc, char **argv)
{
	const struct kind *kind;
	int r;

	if (!c->kinds || !argc || argv[0][0] == '-') {
		help_command(stdout, c);
		return EXIT_DONE;
	}
	r = load(cli, c, c->kinds);
	if (r)
		return r;
	kind = kinds_find(cli->kinds, argv[0]);
	if (!kind)
		return unknown_kind(cli, c, argv[0]);
	kind_help(c, kind);
	return EXIT_DONE;
}
