/* SPDX-License-Identifier: Apache-2.0 */

/* Manual pages from tables, so that they cannot say anything else than what is so.
 *
 * The language is man(7). Every text of ours is escaped, so that a leading dot or a backslash stays what it is; what is
 * to stand as it was written goes between .nf and .fi. Runs when odi is built, in no role. Source: man(7),
 * groff_char(7). */

#include "agentd/base/text.h"
#include "agentd/config/config.h"
#include "agentd/daemon_pages.h"
#include "destinations/destination.h"
#include "sources/source.h"

static void put(const char *text)
{
	for (const char *p = text; *p; p++) {
		if (*p == '\\')
			fputs("\\e", stdout);
		else if (*p == '-')
			fputs("\\-", stdout);
		else if ((*p == '.' || *p == '\'') && (p == text || p[-1] == '\n'))
			printf("\\&%c", *p);
		else
			putchar(*p);
	}
}

static void request(const char *name, const char *text)
{
	printf("%s \"", name);
	put(text);
	puts("\"");
}

static void line(const char *text)
{
	put(text);
	putchar('\n');
}

static void head(const char *title, const char *name, const char *summary)
{
	puts(".\\\" made by `agentd --page`");
	printf(".TH \"%s\" 5 \"\" \"odi " ODI_VERSION "\" \"odi\"\n.SH NAME\n", title);
	put(name);
	fputs(" \\- ", stdout);
	line(summary);
}

static void verbatim(const char *text)
{
	fputs(".PP\n.RS 4\n.nf\n", stdout);
	put(text);
	puts(".fi\n.RE");
}

/* What a value may be, in words: "number, 1 to 1000; default 99". */
static void put_value(const char *type, const char *allowed, const char *fallback, bool required)
{
	fputs(".br\n\\fI", stdout);
	put(type);
	fputs("\\fR", stdout);
	if (allowed[0]) {
		fputs(": ", stdout);
		put(allowed);
	}
	if (required) {
		fputs("; must be given", stdout);
	} else if (fallback[0]) {
		fputs("; default \\fB", stdout);
		put(fallback);
		fputs("\\fR", stdout);
	}
	putchar('\n');
}

static const char files_text[] =
	"profiling:\n"
	"  enabled: true\n"
	"  rate: 99\n"
	"host:\n"
	"  labels:\n"
	"    region: eu-1\n"
	"sources:\n"
	"  - {name: web, kind: systemd, match: nginx, serviceName: web}\n"
	"destinations:\n"
	"  - {name: pyroscope, type: pyroscope, config: {url: \"http://localhost:4040\"}}\n";

static void conf_description(void)
{
	puts(".SH SYNOPSIS\n/etc/odi/agentd.yaml\n.br\n/etc/odi/conf.d/*.yaml\n.br\n/etc/odi/sources.d/*.yaml\n"
	     ".br\n/etc/odi/destinations.d/*.yaml\n.br\n/usr/lib/odi/conf.d/*.yaml");
	puts(".SH DESCRIPTION");
	line("Settings of agentd, in YAML. No file is needed: what none sets has its default, or is set by odictl.");
	puts(".PP");
	line("They are put over each other: what is built in, the files of packages in /usr/lib/odi/conf.d, the "
	     "files in /etc/odi, and what odictl sets. What a file in /etc/odi sets, odictl refuses to change, and names "
	     "the file and its line. Files are read again when they change; while one of them is wrong, what was in "
	     "force stays.");
	puts(".PP");
	line("Files of sources.d and destinations.d hold a list of sources or destinations, or one.");
	verbatim(files_text);
	puts(".PP\n.B odictl config show \\-\\-origin\nshows what is in force and where it comes from;\n"
	     ".B odictl config validate\nchecks files before they are put there.");
}

struct walk {
	const char *prefix;
	bool inside; /* whether prefix is meant to match, or not to */
};

static void on_key(void *userdata, const struct config_key *key)
{
	const struct walk *w = userdata;
	bool matches = strncmp(key->path, w->prefix, strlen(w->prefix)) == 0;

	if (!matches ||
		(!w->inside &&
			(strncmp(key->path, "sources/", 8) == 0 ||
				strncmp(key->path, "destinations/", 13) == 0)))
		return;
	request(".TP\n.B", key->path);
	line(key->help);
	if (key->of[0]) {
		fputs("(", stdout);
		put(key->of);
		puts(")");
	}
	put_value(key->type, key->allowed, key->fallback, key->required);
}

static void put_options(const struct option_desc *options)
{
	for (const struct option_desc *o = options; o && o->name; o++) {
		char allowed[300];

		config_type_allowed(o, allowed, sizeof(allowed));
		request(".TP\n.B", o->name);
		line(o->help ? o->help : "");
		put_value(config_type_name(o->type), allowed, o->fallback ? o->fallback : "",
			o->required);
	}
}

static void conf_page(void)
{
	struct walk settings = {.prefix = "", .inside = false},
		    sources = {.prefix = "sources/", .inside = true};

	head("ODI.CONF", "odi.conf", "settings of the odi continuous profiler");
	conf_description();
	puts(".SH SETTINGS");
	line("A slash stands for a level of YAML: profiling/rate is rate below profiling.");
	config_each_key(on_key, &settings);
	puts(".SH SOURCES");
	line("Which workloads are profiled, and what their services are called. NAME is any name.");
	config_each_key(on_key, &sources);
	for (size_t i = 0; source_kinds[i]; i++) {
		request(".SS", source_kinds[i]->name);
		line(source_kinds[i]->summary);
		if (source_kinds[i]->match_help && source_kinds[i]->match_help[0]) {
			fputs("match: ", stdout);
			line(source_kinds[i]->match_help);
		}
		verbatim(source_kinds[i]->example);
		puts("");
	}
	puts(".SH SEE ALSO\n.BR odi\\-destinations (5),\n.BR odictl (1),\n.BR agentd (8)");
}

static void destination_section(const struct destination_type *t)
{
	request(".SS", t->name);
	put(t->display_name);
	fputs(": ", stdout);
	line(t->summary);
	if (t->cost && t->cost[0]) {
		puts(".PP");
		line(t->cost);
	}
	if (t->example && t->example[0]) {
		verbatim(t->example);
		puts("");
	}
	put_options(t->options);
}

static void destinations_page(void)
{
	const struct destination_type *const *types = destination_types();

	head("ODI-DESTINATIONS", "odi-destinations", "where odi sends profiles to");
	puts(".SH DESCRIPTION");
	line("A destination has a name, a type, and the options of that type. It is added by odictl destination add, or in "
	     "a file of /etc/odi/destinations.d, as a list of maps with name, type and config; config holds the "
	     "options.");
	puts(".PP");
	line("Secrets are never written there: where one is asked for, stands a reference to it, file:/PATH (a file of "
	     "root's, mode 0600) or cred:NAME (a credential of systemd's), or odictl takes it from its standard input.");
	puts(".SH TYPES");
	for (; types && *types; types++)
		destination_section(*types);
	puts(".SH SEE ALSO\n.BR odi.conf (5),\n.BR odictl\\-destination (1),\n.BR agentd (8)");
}

int daemon_page(const char *name)
{
	if (streq(name, "odi.conf")) {
		conf_page();
	} else if (streq(name, "odi-destinations")) {
		destinations_page();
	} else {
		fprintf(stderr,
			"agentd: there is no page '%s'; there are odi.conf and odi-destinations\n",
			name);
		return 2;
	}
	return fflush(stdout) == 0 ? 0 : 1;
}
