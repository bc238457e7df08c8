/* SPDX-License-Identifier: Apache-2.0 */

/* What may stand in a document: every path and what it means.
 *
 * Scalar settings are one table, from which validation, help and documentation come; named objects
 * (sources, destinations) have a fixed set of fields, and options which their own rooms describe.
 * The paths that nobody knows are refused when they are set, with the nearest that is known: a
 * setting that is silently ignored is the kind of mistake that is found months later.
 * Runs in agentd. */

#include <arpa/inet.h>

#include "agentd/base/text.h"
#include "agentd/config/config_private.h"
#include "destinations/destination.h"
#include "destinations/shape_rules.h"

#define SECOND NSEC_PER_SEC
#define DAY    (24 * 3600 * NSEC_PER_SEC)
#define MIB    (1ULL << 20)

static const char *const type_names[SAMPLE_TYPE_COUNT] = {[SAMPLE_TYPE_CPU] = "cpu"};

const char *const config_demangle_names[] = {
	[SYMBOL_DEMANGLE_TEMPLATES] = "templates",
	[SYMBOL_DEMANGLE_FULL] = "full",
	[SYMBOL_DEMANGLE_SIMPLE] = "simple",
	[SYMBOL_DEMANGLE_NONE] = "none",
	NULL,
};

static const struct config_setting own_settings[] = {
	{"profiling/enabled",
		{.name = "enabled",
			.type = OPTION_BOOL,
			.fallback = "false",
			.help = "whether samples are taken; false: no BPF program is loaded"}},
	{"profiling/rate",
		{.name = "rate",
			.type = OPTION_UINT,
			.fallback = "99",
			.min = 1,
			.max = 1000,
			.help = "samples a second on each CPU"}},
	{"profiling/types",
		{.name = "types",
			.type = OPTION_STRING,
			.fallback = "cpu",
			.help = "what is profiled, comma-separated: cpu"}},
	{"profiling/interval",
		{.name = "interval",
			.type = OPTION_DURATION,
			.fallback = "10s",
			.min = SECOND,
			.max = 600 * SECOND,
			.help = "time that one profile covers"}},
	{"profiling/kernel-frames",
		{.name = "kernel-frames",
			.type = OPTION_BOOL,
			.fallback = "true",
			.help = "whether stacks have their kernel part"}},
	{"profiling/max-frames",
		{.name = "max-frames",
			.type = OPTION_UINT,
			.fallback = "256",
			.min = 1,
			.max = SAMPLE_MAX_USER,
			.help = "frames of user space in one stack; deeper ones are cut, and marked"}},
	{"profiling/unwind-memory",
		{.name = "unwind-memory",
			.type = OPTION_SIZE,
			.fallback = "8MB",
			.min = MIB,
			.max = MIB << 10,
			.help = "kernel memory for unwind information, whatever runs; the next power of two "
				"below it is used"}},
	{"profiling/budget",
		{.name = "budget",
			.type = OPTION_STRING,
			.fallback = "2",
			.help = "percent of the host's CPU time that profiling may cost; above it the rate "
				"is lowered; 0: no limit"}},
	{"profiling/demangle",
		{.name = "demangle",
			.type = OPTION_ENUM,
			.fallback = "templates",
			.values = config_demangle_names,
			.help = "how much of a C++ or Rust name is shown: full (with parameters), templates, "
				"simple (without template arguments), none (as it is mangled)"}},
	{"symbols/fetch",
		{.name = "fetch",
			.type = OPTION_BOOL,
			.fallback = "false",
			.help = "whether missing debug files are asked for at debuginfod servers, which "
				"learn the build ids of what runs here"}},
	{"symbols/urls",
		{.name = "urls",
			.type = OPTION_STRING,
			.fallback = "https://debuginfod.elfutils.org",
			.help = "debuginfod servers, separated by blanks, best first; asked only where "
				"fetch is on"}},
	{"symbols/paths",
		{.name = "paths",
			.type = OPTION_STRING,
			.fallback = "",
			.help = "more debug files and folders of them, absolute, separated by colons"}},
	{"local/max-size",
		{.name = "max-size",
			.type = OPTION_SIZE,
			.fallback = "256MB",
			.min = MIB,
			.max = MIB << 20,
			.help = "disk room of the profiles kept on this host"}},
	{"local/max-age",
		{.name = "max-age",
			.type = OPTION_DURATION,
			.fallback = "7d",
			.min = 60 * SECOND,
			.max = 3650 * DAY,
			.help = "how long profiles are kept on this host"}},
	{"exporter/spool-bytes",
		{.name = "spool-bytes",
			.type = OPTION_SIZE,
			.fallback = "512MB",
			.min = MIB,
			.max = MIB << 20,
			.help = "disk room of batches that wait for their destinations; above it the oldest "
				"are given up"}},
	{"exporter/spool-age",
		{.name = "spool-age",
			.type = OPTION_DURATION,
			.fallback = "24h",
			.min = 60 * SECOND,
			.max = 3650 * DAY,
			.help = "how long a batch waits for its destinations before it is given up"}},
	{"exporter/min-free",
		{.name = "min-free",
			.type = OPTION_UINT,
			.fallback = "5",
			.min = 0,
			.max = 90,
			.help = "percent of the disk that stay free of batches that wait, whatever else "
				"fills it"}},
	{"metrics/listen",
		{.name = "listen",
			.type = OPTION_STRING,
			.fallback = "off",
			.help = "where agentd's own metrics can be had by HTTP (GET /metrics), such as "
				"127.0.0.1:9464; off: nowhere"}},
	{"containers/docker-root",
		{.name = "docker-root",
			.type = OPTION_STRING,
			.fallback = "/var/lib/docker",
			.help = "where Docker keeps its state, for the names of containers"}},
};

static const char *const source_fields[] = {"kind", "match", "enabled", "service-name", "types",
	"per-process", "per-thread", "per-cpu", "order", "options", "labels"};
static const char *const destination_fields[] = {"type", "enabled", "order", "options"};
static const char *const groups[] = {"profiling", "symbols", "local", "exporter", "host",
	"host/labels", "shaping", "metrics", "containers", "sources", "destinations"};

#define MAX_SHAPING 16

/* Those above, and how what goes to destinations is shaped: an option of each destination, a setting for all. */
static struct config_setting settings[ARRAY_SIZE(own_settings) + MAX_SHAPING];
static size_t n_settings;

const struct config_setting *config_schema(size_t *n)
{
	static char paths[MAX_SHAPING][64];
	const struct option_desc *o = destination_common_options;

	if (!n_settings) {
		memcpy(settings, own_settings, sizeof(own_settings));
		n_settings = ARRAY_SIZE(own_settings);
		for (size_t i = 0; o[i].name && i < MAX_SHAPING; i++) {
			snprintf(paths[i], sizeof(paths[i]), "shaping/%s", o[i].name);
			settings[n_settings++] = (struct config_setting){paths[i], o[i]};
		}
	}
	*n = n_settings;
	return settings;
}

int config_parse_types(const char *value, uint32_t *ret, struct err_text *err)
{
	uint32_t types = 0;

	for (const char *p = value; *p;) {
		size_t n = strcspn(p, ","), i;

		for (i = 0; i < ARRAY_SIZE(type_names); i++)
			if (strlen(type_names[i]) == n && strncmp(type_names[i], p, n) == 0)
				break;
		if (i == ARRAY_SIZE(type_names))
			return err_set(err, -EINVAL,
				"types: there is no profile type \"%.*s\"; there is: cpu",
				(int)MIN(n, 64), p);
		types |= 1U << i;
		p += n;
		p += *p == ',';
	}
	if (!types)
		return err_set(err, -EINVAL, "types must name at least one: cpu");
	*ret = types;
	return 0;
}

/* "2", "0.5", "2 %". Strict: no sign, no exponent, at most four digits behind the point. */
int config_parse_percent(const char *value, uint32_t *ret_ppm, struct err_text *err)
{
	size_t whole = strspn(value, "0123456789"), rest = 0;
	uint64_t ppm = 0, unit = 10000;
	const char *p = value;

	for (; whole < 4 && p < value + whole; p++)
		ppm = ppm * 10 + (uint64_t)(*p - '0') * 10000;
	if (*p == '.') {
		rest = strspn(++p, "0123456789");
		for (const char *end = p + rest; rest <= 4 && p < end; p++)
			ppm += (uint64_t)(*p - '0') * (unit /= 10);
	}
	p += strspn(p, " ");
	p += *p == '%';
	if (!whole || *p || ppm > 1000000 || (strchr(value, '.') && !rest))
		return err_set(err, -EINVAL,
			"budget must be a percentage from 0 to 100 such as 2 or 0.5, not \"%.64s\"",
			value);
	*ret_ppm = (uint32_t)ppm;
	return 0;
}

/* "off", or an address of this host and a port: what is not one would have to be looked up. */
static int config_check_listen(const char *value, struct err_text *err)
{
	const struct option_desc address = {.name = "listen", .type = OPTION_HOSTPORT};
	char host[64];
	uint8_t bytes[16];
	uint64_t port;
	int r;

	if (!*value || streq(value, "off"))
		return 0;
	r = option_check(&address, value, err);
	if (r < 0)
		return r;
	snprintf(host, sizeof(host), "%.*s", (int)MIN((size_t)(strrchr(value, ':') - value), 60),
		value);
	if (host[0] == '[') {
		host[strlen(host) - 1] = '\0';
		r = inet_pton(AF_INET6, host + 1, bytes);
	} else {
		r = inet_pton(AF_INET, host, bytes);
	}
	if (r == 1 && text_u64(strrchr(value, ':') + 1, 1024, 65535, &port) < 0)
		return err_set(err, -EINVAL,
			"listen: the exporter has no right to a port below 1024; 9464 is usual");
	return r == 1
		? 0
		: err_set(err, -EINVAL,
			  "listen must be an address and a port such as 127.0.0.1:9464, or off, not "
			  "\"%.64s\"",
			  value);
}

int config_check_setting(
	const struct config_setting *setting, const char *value, struct err_text *err)
{
	char **list = NULL;
	uint32_t number;
	size_t n = 0;
	int r;

	if (streq(setting->path, "profiling/budget"))
		return config_parse_percent(value, &number, err);
	if (streq(setting->path, "symbols/urls") || streq(setting->path, "symbols/paths")) {
		r = streq(setting->option.name, "urls") ? config_parse_urls(value, &list, &n, err)
							: config_parse_paths(value, &list, &n, err);
		config_list_free(list, n);
		return r;
	}
	if (streq(setting->path, "metrics/listen"))
		return config_check_listen(value, err);
	r = option_check(&setting->option, value, err);
	return r == 0 && text_starts(setting->path, "shaping/")
		? shape_rules_check(setting->option.name, value, err)
		: r;
}

size_t config_object_len(const char *path)
{
	size_t start = text_starts(path, "sources/") ? 8
		: text_starts(path, "destinations/") ? 13
						     : 0;

	return start && path[start] ? start + strcspn(path + start, "/") : 0;
}

bool config_path_is_leaf(enum path_kind kind)
{
	return kind == PATH_SETTING || kind == PATH_HOST_LABEL || kind == PATH_SOURCE_FIELD ||
		kind == PATH_SOURCE_OPTION || kind == PATH_SOURCE_LABEL ||
		kind == PATH_DESTINATION_FIELD || kind == PATH_DESTINATION_OPTION;
}

static int unknown(const char *path, const char *near, struct err_text *err)
{
	if (near)
		return err_set(err, -EINVAL, "there is no setting \"%.128s\": did you mean \"%s\"?",
			path, near);
	return err_set(err, -EINVAL, "there is no setting \"%.128s\"", path);
}

/* A plain setting, a group of them, or a label of the host. */
static int parse_plain(const char *path, struct config_path *ret, struct err_text *err)
{
	const char *names[ARRAY_SIZE(settings) + ARRAY_SIZE(groups)];
	size_t n = 0, all;

	config_schema(&all);
	for (size_t i = 0; i < all; i++) {
		names[n++] = settings[i].path;
		if (streq(path, settings[i].path)) {
			ret->kind = PATH_SETTING;
			ret->setting = &settings[i];
			ret->key = settings[i].option.name;
			return 0;
		}
	}
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		names[n++] = groups[i];
		if (streq(path, groups[i])) {
			ret->kind = PATH_GROUP;
			return 0;
		}
	}
	if (text_starts(path, "host/labels/")) {
		ret->kind = PATH_HOST_LABEL;
		ret->key = path + strlen("host/labels/");
		return source_label_key_ok(ret->key)
			? 0
			: err_set(err, -EINVAL,
				  "\"%.64s\" cannot be a label's key: it starts with a letter or "
				  "_, then has letters, digits, _ . - or /",
				  ret->key);
	}
	return unknown(path, text_nearest(path, names, n), err);
}

/* rest: behind sources/NAME/ or destinations/NAME/. */
static int parse_field(const char *path, const char *rest, bool source, struct config_path *ret,
	struct err_text *err)
{
	const char *const *fields = source ? source_fields : destination_fields;
	size_t n = source ? ARRAY_SIZE(source_fields) : ARRAY_SIZE(destination_fields);
	size_t len = strcspn(rest, "/");
	const char *near;

	for (size_t i = 0; i < n; i++) {
		bool group = streq(fields[i], "options") || streq(fields[i], "labels");

		if (strlen(fields[i]) != len || strncmp(fields[i], rest, len) != 0)
			continue;
		if (!rest[len]) {
			ret->kind = !group ? (source ? PATH_SOURCE_FIELD : PATH_DESTINATION_FIELD)
				: source   ? PATH_SOURCE_GROUP
					   : PATH_DESTINATION_GROUP;
			ret->key = rest;
			return 0;
		}
		if (!group || !rest[len + 1])
			return unknown(path, NULL, err);
		ret->key = rest + len + 1;
		ret->kind = streq(fields[i], "labels") ? PATH_SOURCE_LABEL
			: source                       ? PATH_SOURCE_OPTION
						       : PATH_DESTINATION_OPTION;
		return 0;
	}
	near = text_nearest(rest, fields, n);
	if (near)
		return err_set(err, -EINVAL, "a %s has no setting \"%.64s\": did you mean \"%s\"?",
			source ? "source" : "destination", rest, near);
	return err_set(err, -EINVAL, "a %s has no setting \"%.64s\"",
		source ? "source" : "destination", rest);
}

int config_path_parse(const char *path, struct config_path *ret, struct err_text *err)
{
	bool source = text_starts(path, "sources/");
	size_t len = config_object_len(path), start;

	*ret = (struct config_path){.key = ""};
	if (!len)
		return parse_plain(path, ret, err);
	start = source ? 8 : 13;
	if (len - start < sizeof(ret->name)) {
		memcpy(ret->name, path + start, len - start);
		ret->name[len - start] = '\0';
	}
	if (!text_is_name(ret->name))
		return err_set(err, -EINVAL,
			"\"%.*s\" cannot be the name of a %s: 1 to 64 letters, digits and . _ - @ "
			":, first a letter, digit, _ @ or :",
			(int)MIN(len - start, 64), path + start, source ? "source" : "destination");
	if (!path[len]) {
		ret->kind = source ? PATH_SOURCE : PATH_DESTINATION;
		return 0;
	}
	return parse_field(path, path + len + 1, source, ret, err);
}

/* The description of a destination's option; NULL: it is none, or not known by d. */
static const struct option_desc *option_of(const struct config_doc *d, const struct config_path *p)
{
	const struct destination_type *type;
	const struct config_entry *entry;
	char name[CONFIG_PATH_MAX];

	snprintf(name, sizeof(name), "destinations/%s/type", p->name);
	entry = d ? config_doc_get(d, name) : NULL;
	type = entry ? destination_type_find(entry->value) : NULL;
	if (!type)
		return NULL;
	snprintf(name, sizeof(name), "%.*s", (int)strcspn(p->key, "/"), p->key);
	return option_find(type->options, name);
}

/* Whether its values are references to secrets and files. */
static bool holds_references(const struct option_desc *option)
{
	return option->type == OPTION_SECRET || option->type == OPTION_FILE ||
		option->type == OPTION_SECRET_MAP;
}

static const char hidden[] = "(secret)";

const char *config_option_shown(const struct option_desc *option, const char *value)
{
	/* Where a secret is read from is none, unlike what agentd keeps itself. */
	if (holds_references(option) &&
		(!option_is_reference(value) || text_starts(value, "secret:")))
		return hidden;
	return value;
}

const char *config_shown(const struct config_doc *d, const char *path, const char *value)
{
	const struct option_desc *option;
	struct config_path p;

	if (config_path_parse(path, &p, NULL) < 0)
		return hidden;
	if (p.kind != PATH_DESTINATION_OPTION)
		return value;
	option = option_of(d, &p);
	/* What stands in a map (HTTP headers, mostly) is not described one by one: it may be anything. */
	if (!option || option->type == OPTION_MAP)
		return hidden;
	return config_option_shown(option, value);
}

const char *config_reference(const struct config_doc *d, const char *path, const char *value)
{
	const struct option_desc *option;
	struct config_path p;

	if (config_path_parse(path, &p, NULL) < 0 || p.kind != PATH_DESTINATION_OPTION)
		return NULL;
	option = option_of(d, &p);
	return option && holds_references(option) && option_is_reference(value) ? value : NULL;
}
