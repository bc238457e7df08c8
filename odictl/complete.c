/* SPDX-License-Identifier: Apache-2.0 */

/* Completion. What can stand at the cursor is found here, from the command table and from what agentd has at this
 * moment (sources, destinations, kinds, types, candidates), so that no list of words can be out of date. The shells'
 * scripts (odictl/assets/complete.*) only hand over the words before the cursor and show what comes back: one word a
 * line, then a tab and what it is; ":files" where a file name is to be typed.
 *
 * Nothing is said on errors: without agentd there are just fewer words. */

#include "agentd/base/text.h"
#include "odictl/assets/complete.bash.embed.h"
#include "odictl/assets/complete.fish.embed.h"
#include "odictl/assets/complete.zsh.embed.h"
#include "odictl/kinds.h"

#define MAX_WORDS      64
#define MAX_CANDIDATES 200

struct completion {
	struct cli *cli;
	const char *words
		[MAX_WORDS]; /* before the one at the cursor, without options of all commands */
	size_t n;
	const char *current; /* what is typed of it */
	const char *prefix;  /* that goes before each offer: "--format=" */
	size_t prefix_len;
};

static void offer(const struct completion *x, const char *word, const char *what)
{
	const char *typed = x->current + x->prefix_len;

	if (text_starts(word, typed))
		printf("%.*s%s\t%s\n", (int)x->prefix_len, x->prefix ? x->prefix : "", word,
			what ? what : "");
}

/* "html svg folded" */
static void offer_list(const struct completion *x, const char *list)
{
	char word[64];

	for (size_t n; *list; list += n + strspn(list + n, " ")) {
		n = strcspn(list, " ");
		snprintf(word, sizeof(word), "%.*s", (int)n, list);
		offer(x, word, NULL);
	}
}

/* ---- what agentd has ---- */

static Control__Reply *ask(const struct completion *x, Control__Request *request)
{
	Control__Reply *reply = NULL;

	return cli_call(x->cli, request, &reply) == 0 ? reply : NULL;
}

static void offer_sources(const struct completion *x)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetSources get = CONTROL__GET_SOURCES__INIT;
	Control__Reply *reply;

	request.verb_case = CONTROL__REQUEST__VERB_GET_SOURCES;
	request.get_sources = &get;
	reply = ask(x, &request);
	if (reply && reply->body_case == CONTROL__REPLY__BODY_SOURCES)
		for (size_t i = 0; i < reply->sources->n_sources; i++)
			offer(x, reply->sources->sources[i]->name,
				reply->sources->sources[i]->kind);
	api_reply_free(reply);
}

static Control__Reply *ask_destinations(const struct completion *x)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetDestinations get = CONTROL__GET_DESTINATIONS__INIT;
	Control__Reply *reply;

	request.verb_case = CONTROL__REQUEST__VERB_GET_DESTINATIONS;
	request.get_destinations = &get;
	reply = ask(x, &request);
	if (reply && reply->body_case == CONTROL__REPLY__BODY_DESTINATIONS)
		return reply;
	api_reply_free(reply);
	return NULL;
}

static void offer_destinations(const struct completion *x)
{
	Control__Reply *reply = ask_destinations(x);

	for (size_t i = 0; reply && i < reply->destinations->n_destinations; i++)
		offer(x, reply->destinations->destinations[i]->name,
			reply->destinations->destinations[i]->type);
	api_reply_free(reply);
}

/* What runs here and could be a source of that kind. */
static void offer_candidates(const struct completion *x, const char *kind)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetCandidates get = CONTROL__GET_CANDIDATES__INIT;
	Control__Reply *reply;

	get.limit = MAX_CANDIDATES;
	request.verb_case = CONTROL__REQUEST__VERB_GET_CANDIDATES;
	request.get_candidates = &get;
	reply = ask(x, &request);
	if (reply && reply->body_case == CONTROL__REPLY__BODY_CANDIDATES)
		for (size_t i = 0; i < reply->candidates->n_candidates; i++) {
			const Control__Candidate *c = reply->candidates->candidates[i];

			if (streq(c->kind, kind))
				offer(x, c->match, c->service);
		}
	api_reply_free(reply);
}

static void offer_kinds(const struct completion *x, int which)
{
	if (kinds_load(x->cli, which) != 0)
		return;
	for (size_t i = 0; i < x->cli->kinds->n; i++)
		offer(x, x->cli->kinds->list[i].name, x->cli->kinds->list[i].summary);
}

/* ---- options ---- */

/* The kind or type that the line names, with its options; NULL: none. */
static const struct kind *kind_of(
	const struct completion *x, const struct command *c, size_t words, const char *name)
{
	if (!c->kinds || kinds_load(x->cli, c->kinds) != 0)
		return NULL;
	if (!name)
		name = args_first_word(
			c, NULL, (int)(x->n - words), (char **)(uintptr_t)(x->words + words));
	return name ? kinds_find(x->cli->kinds, name) : NULL;
}

static const struct option_spec *find(const struct option_spec *table, const char *name, size_t len)
{
	for (const struct option_spec *o = table; o && o->name; o++)
		if ((strlen(o->name) == len && strncmp(o->name, name, len) == 0) ||
			(len == 1 && o->letter == *name))
			return o;
	return NULL;
}

static bool takes_value(const struct option_spec *o)
{
	return o->kind == VALUE || o->kind == REPEAT;
}

static void offer_value(
	const struct completion *x, const struct option_spec *o, const struct kind *kind)
{
	if (o->choices)
		offer_list(x, o->choices);
	else if (streq(o->name, "source"))
		offer_sources(x);
	else if (o->value && streq(o->value, "FILE"))
		puts(":files");
	for (size_t i = 0; kind && i < kind->n_options; i++) {
		const Control__OptionInfo *info = kind->options[i];

		for (size_t v = 0;
			streq(info->name, o->stored ? o->stored : o->name) && v < info->n_values;
			v++)
			offer(x, info->values[v], NULL);
	}
}

static void offer_options(
	const struct completion *x, const struct command *c, const struct kind *kind)
{
	static const struct option_spec everywhere[] = {
		{.name = "json", .help = "the answer as JSON"},
		{.name = "yes", .help = "ask nothing"},
		{.name = "no-color", .help = "without colours"},
		{.name = "socket", .help = "where agentd listens"},
		{.name = "help", .help = "what this command takes"},
		{},
	};
	const struct option_spec *tables[] = {c->options, kind ? kind->specs : NULL, everywhere};
	char word[80];

	for (size_t t = 0; t < ARRAY_SIZE(tables); t++)
		for (const struct option_spec *o = tables[t]; o && o->name; o++) {
			if (o->from == FROM_NOWHERE)
				continue;
			snprintf(word, sizeof(word), "--%s", o->name);
			offer(x, word, o->help);
		}
}

/* The option whose value stands at the cursor: "--format h", "--format=h", "-o f"; NULL: none. */
static const struct option_spec *option_at(
	struct completion *x, const struct command *c, const struct kind *kind)
{
	const char *last = x->n ? x->words[x->n - 1] : "", *eq = strchr(x->current, '=');
	const struct option_spec *o = NULL;

	if (text_starts(x->current, "--") && eq) {
		size_t len = (size_t)(eq - x->current) - 2;

		o = find(c->options, x->current + 2, len);
		if (!o && kind)
			o = find(kind->specs, x->current + 2, len);
		x->prefix = x->current;
		x->prefix_len = (size_t)(eq - x->current) + 1;
		return o;
	}
	if (last[0] == '-' && last[1] && !strchr(last, '=')) {
		const char *name = last[1] == '-' ? last + 2 : last + 1;

		o = find(c->options, name, strlen(name));
		if (!o && kind)
			o = find(kind->specs, name, strlen(name));
	}
	return o && takes_value(o) ? o : NULL;
}

/* ---- words ---- */

/* The commands whose first words these are: their next ones, each once. */
static void offer_commands(const struct completion *x, size_t from)
{
	char before[200] = "", word[64], last[64] = "";
	size_t n = 0;

	for (size_t i = from; i < x->n && n < sizeof(before); i++)
		n += (size_t)snprintf(before + n, sizeof(before) - n, "%s ", x->words[i]);
	n = strlen(before);
	for (size_t i = 0; i < n_commands; i++) {
		const char *rest = commands[i].words + n;

		if (!text_starts(commands[i].words, before))
			continue;
		snprintf(word, sizeof(word), "%.*s", (int)strcspn(rest, " "), rest);
		if (streq(word, last))
			continue;
		snprintf(last, sizeof(last), "%s", word);
		offer(x, word, strchr(rest, ' ') ? "" : commands[i].summary);
	}
}

/* The n-th of "NAME KEY=VALUE ...", without brackets; the last one again where it may come again. */
static void positional(const struct command *c, size_t n, char out[32])
{
	*out = '\0';
	for (const char *p = c->positional + strspn(c->positional, " []"); *p;) {
		size_t len = strcspn(p, " []");

		if (text_starts(p, "..."))
			return; /* out is the one before */
		snprintf(out, 32, "%.*s", (int)len, p);
		if (!n--)
			return;
		p += len + strspn(p + len, " []");
	}
	*out = '\0';
}

static void offer_keys(const struct completion *x, const struct option_spec *options)
{
	char key[80];

	for (const struct option_spec *o = options; o && o->name; o++) {
		if (text_starts(o->name, "no-") || o->from == FROM_NOWHERE)
			continue;
		snprintf(key, sizeof(key), "%s=", o->stored ? o->stored : o->name);
		offer(x, key, o->help);
	}
}

/* destination set NAME KEY=: the options of its type */
static void offer_destination_keys(const struct completion *x, const char *name)
{
	Control__Reply *reply = ask_destinations(x);
	const struct kind *kind = NULL;

	for (size_t i = 0; reply && i < reply->destinations->n_destinations; i++) {
		const Control__DestinationState *d = reply->destinations->destinations[i];

		if (streq(d->name, name) && kinds_load(x->cli, KINDS_DESTINATION) == 0)
			kind = kinds_find(x->cli->kinds, d->type);
	}
	if (kind)
		offer_keys(x, kind->specs);
	api_reply_free(reply);
}

static void offer_positional(
	const struct completion *x, const struct command *c, const char *const *given, size_t n)
{
	bool source = text_starts(c->words, "source");
	char what[32];

	if (n >= c->max)
		return;
	positional(c, n, what);
	if (streq(what, "NAME") && n == 0)
		source ? offer_sources(x) : offer_destinations(x);
	else if (streq(what, "KIND") || streq(what, "TYPE"))
		offer_kinds(x, c->kinds);
	else if (streq(what, "MATCH"))
		offer_candidates(x, given[0]);
	else if (streq(what, "SHELL"))
		offer_list(x, "bash zsh fish");
	else if (strstr(what, "FILE") || strstr(what, "DIR"))
		puts(":files");
	else if (streq(what, "KEY=VALUE") && streq(c->words, "destination set"))
		offer_destination_keys(x, given[0]);
	else if (streq(what, "KEY=VALUE"))
		offer_keys(x, c->setting_options);
	else if (streq(what, "on|off"))
		offer_list(x, "on off");
}

/* ---- the line ---- */

/* Options of every command may stand anywhere: --socket is obeyed, the others are left out. False: the cursor is at
 * the value of one. */
static bool take_words(struct completion *x, const struct args *args)
{
	static const char *const flags[] = {
		"--json", "--yes", "-y", "--help", "-h", "--no-color", "--version"};

	for (size_t i = 1; i + 1 < args->n_positional; i++) {
		const char *word = args->positional[i];
		bool flag = false;

		for (size_t f = 0; f < ARRAY_SIZE(flags); f++)
			flag = flag || streq(word, flags[f]);
		if (streq(word, "--socket")) {
			if (i + 2 >= args->n_positional)
				return false;
			x->cli->socket = args->positional[++i];
		} else if (text_starts(word, "--socket=")) {
			x->cli->socket = word + strlen("--socket=");
		} else if (!flag && x->n < MAX_WORDS) {
			x->words[x->n++] = word;
		}
	}
	return true;
}

static void complete_command(struct completion *x, const struct command *c, size_t words)
{
	const struct kind *kind = kind_of(x, c, words, NULL);
	const struct option_spec *o = option_at(x, c, kind);
	const char *given[MAX_WORDS];
	size_t n = 0;

	if (o) {
		offer_value(x, o, kind);
		return;
	}
	if (x->current[0] == '-') {
		offer_options(x, c, kind);
		return;
	}
	for (size_t i = words; i < x->n; i++) {
		const char *word = x->words[i];

		if (word[0] != '-' || !word[1]) {
			given[n++] = word;
			continue;
		}
		word += word[1] == '-' ? 2 : 1;
		o = find(c->options, word, strlen(word));
		if (!o && kind)
			o = find(kind->specs, word, strlen(word));
		i += o && takes_value(o);
	}
	offer_positional(x, c, given, n);
}

static const struct command *command_of(const struct completion *x, size_t *words)
{
	const struct command *best = NULL;
	char line[400] = "";
	size_t n = 0;

	for (size_t i = 0; i < x->n && n < sizeof(line); i++)
		n += (size_t)snprintf(line + n, sizeof(line) - n, "%s ", x->words[i]);
	for (size_t i = 0; i < n_commands; i++) {
		size_t len = strlen(commands[i].words);

		if (strncmp(line, commands[i].words, len) == 0 && line[len] == ' ' &&
			(!best || len > strlen(best->words)))
			best = &commands[i];
	}
	*words = 1;
	for (const char *p = best ? best->words : ""; *p; p++)
		*words += *p == ' ';
	return best;
}

static void complete(struct cli *cli, const struct args *args)
{
	struct completion x = {.cli = cli, .current = args->positional[args->n_positional - 1]};
	const struct command *c;
	size_t words;

	if (!take_words(&x, args)) {
		puts(":files");
		return;
	}
	c = command_of(&x, &words);
	if (!c)
		offer_commands(&x, 0);
	else if (streq(c->words, "help"))
		offer_commands(&x, 1);
	else
		complete_command(&x, c, words);
}

int cmd_completion(struct cli *cli, struct args *args)
{
	const char *what = args->positional[0];
	char quoted[80];

	if (streq(what, "words") && args->n_positional > 1)
		complete(cli, args);
	else if (args->n_positional > 1)
		return cli_fail(cli, EXIT_USAGE, "usage: odictl completion SHELL");
	else if (streq(what, "bash"))
		fputs(embed_complete_bash, stdout);
	else if (streq(what, "zsh"))
		fputs(embed_complete_zsh, stdout);
	else if (streq(what, "fish"))
		fputs(embed_complete_fish, stdout);
	else
		return cli_fail(cli, EXIT_USAGE, "completion: '%s' is none of bash, zsh, fish",
			out_quote(what, quoted, sizeof(quoted)));
	return EXIT_DONE;
}
