/* SPDX-License-Identifier: Apache-2.0 */

/* The local policy.
 *
 * It caps all layers, so it is read from one file that only root can change, never from the store, and nothing that
 * comes over a socket can reach it. A file that others could have written, or that cannot be understood, says nothing
 * reliable: then nothing is allowed, which is loud and safe. Hosts are compared as they are written in the destination,
 * without asking DNS, which others may answer. Runs in agentd. */

#include <arpa/inet.h>
#include <ctype.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "agentd/base/io.h"
#include "agentd/base/text.h"
#include "agentd/base/trusted.h"
#include "agentd/config/config_private.h"
#include "agentd/config/policy.h"
#include "agentd/config/ytree.h"
#include "destinations/destination.h"

#define MAX_FILE (64U << 10)
#define MAX_LIST 1000

static const struct policy *in_force;

void policy_install(const struct policy *p)
{
	in_force = p;
}

static void free_list(char **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i]);
	free(list);
}

void policy_deinit(struct policy *p)
{
	free_list(p->hosts, p->n_hosts);
	free_list(p->folders, p->n_folders);
	if (in_force == p)
		in_force = NULL;
	*p = (struct policy){};
}

/* ---- reading --------------------------------------------------------------------------------------- */

struct reading {
	struct policy *policy;
	const char *file;
	struct err_text *err;
};

static int wrong(struct reading *r, const struct ytree_node *at, const char *what)
{
	return err_set(r->err, -EINVAL, "%s:%u: %s", r->file, at->line, what);
}

static int take_list(
	struct reading *r, const struct ytree_node *node, bool folders, char ***ret, size_t *ret_n)
{
	char **list;

	if (node->kind != YTREE_LIST || node->n > MAX_LIST)
		return wrong(r, node, "expected a list of at most 1000, such as [a, b]");
	list = calloc(node->n + 1, sizeof(*list));
	if (!list)
		return -ENOMEM;
	*ret = list;
	for (size_t i = 0; i < node->n; i++) {
		const struct ytree_node *item = node->items[i];

		if (item->kind != YTREE_TEXT || !*item->text || !text_is_clean(item->text, 512))
			return wrong(r, item, "expected a text");
		if (folders && (item->text[0] != '/' || strstr(item->text, "..")))
			return wrong(r, item, "expected an absolute folder without ..");
		if (!folders && strpbrk(item->text, "/@ "))
			return wrong(r, item,
				"expected a host or HOST:PORT, without scheme and path; * stands for any "
				"text");
		list[i] = strdup(item->text);
		if (!list[i])
			return -ENOMEM;
		for (char *c = list[i]; !folders && *c; c++)
			*c = (char)tolower((unsigned char)*c);
		*ret_n = i + 1;
	}
	return 0;
}

static int unknown(
	struct reading *r, const struct ytree_node *key, const char *const *known, size_t n)
{
	const char *near = text_nearest(key->text, known, n);
	char what[200];

	snprintf(what, sizeof(what), "there is no \"%.64s\" here%s%s%s", key->text,
		near ? ": did you mean \"" : "", near ? near : "", near ? "\"?" : "");
	return wrong(r, key, what);
}

static int take_destinations(struct reading *r, const struct ytree_node *map)
{
	static const char *const known[] = {"allow", "require-tls-verification"};
	int result = 0;

	for (size_t i = 0; i < map->n && result == 0; i += 2) {
		const struct ytree_node *key = map->items[i], *value = map->items[i + 1];

		if (streq(key->text, "allow") && !r->policy->hosts_bound) {
			r->policy->hosts_bound = true;
			result = take_list(r, value, false, &r->policy->hosts, &r->policy->n_hosts);
		} else if (streq(key->text, "require-tls-verification")) {
			if (value->kind != YTREE_TEXT ||
				text_bool(value->text, &r->policy->require_verify) < 0)
				result = wrong(r, value, "expected true or false");
		} else {
			result = unknown(r, key, known, ARRAY_SIZE(known));
		}
	}
	return result;
}

static int take_files(struct reading *r, const struct ytree_node *map)
{
	static const char *const known[] = {"folders"};
	int result = 0;

	for (size_t i = 0; i < map->n && result == 0; i += 2) {
		if (!streq(map->items[i]->text, "folders") || r->policy->folders)
			return unknown(r, map->items[i], known, ARRAY_SIZE(known));
		result = take_list(
			r, map->items[i + 1], true, &r->policy->folders, &r->policy->n_folders);
	}
	return result;
}

static int take_all(struct reading *r, const struct ytree_node *root)
{
	static const char *const known[] = {"destinations", "files"};
	int result = 0;

	if (root && root->kind != YTREE_MAP)
		return wrong(r, root, "expected destinations: and files:");
	for (size_t i = 0; root && i < root->n && result == 0; i += 2) {
		const struct ytree_node *key = root->items[i], *value = root->items[i + 1];
		bool files = streq(key->text, "files");

		if (!files && !streq(key->text, "destinations"))
			return unknown(r, key, known, ARRAY_SIZE(known));
		if (value->kind != YTREE_MAP)
			return wrong(r, value, "expected keys and values");
		result = files ? take_files(r, value) : take_destinations(r, value);
	}
	return result;
}

static int read_file(struct policy *p, const char *file, struct err_text *err)
{
	CLEANUP(ytree_freep) struct ytree_node *root = NULL;
	struct reading reading = {p, file, err};
	_cleanup_close_ int fd = trusted_open(file, err);
	_cleanup_buf_ struct buf text = {0};
	int r;

	if (fd < 0)
		return fd;
	buf_init(&text, MAX_FILE + 1);
	r = io_read_fd(fd, &text, MAX_FILE);
	if (r < 0)
		return err_set(err, r, "cannot read %s: %s", file, strerrordesc_np(-r));
	r = ytree_read(file, text.len ? (const char *)text.data : "", text.len, &root, err);
	return r < 0 ? r : take_all(&reading, root);
}

static int default_folder(struct policy *p)
{
	p->folders = calloc(2, sizeof(*p->folders));
	if (p->folders)
		p->folders[0] = strdup(POLICY_DEFAULT_FOLDER);
	p->n_folders = p->folders && p->folders[0];
	return p->n_folders ? 0 : -ENOMEM;
}

int policy_load(struct policy *p, const char *file)
{
	struct policy fresh = {};
	struct err_text err = {};
	struct stat st;
	int r;

	/* A link that leads nowhere is a policy that cannot be read, not one that nobody made. */
	if (lstat(file, &st) < 0 && errno == ENOENT) {
		*p = fresh;
		return default_folder(p);
	}
	fresh.found = true;
	r = read_file(&fresh, file, &err);
	if (r == 0 && !fresh.folders)
		r = default_folder(&fresh);
	if (r < 0) {
		policy_deinit(&fresh);
		fresh.found = fresh.hosts_bound = fresh.require_verify = true;
		snprintf(fresh.problem, sizeof(fresh.problem), "%.590s",
			err.text[0] ? err.text : "out of memory");
	}
	*p = fresh;
	return 0;
}

/* ---- judging --------------------------------------------------------------------------------------- */

bool policy_folder_allowed(const struct policy *p, const char *folder)
{
	size_t end = strlen(folder);

	if (folder[0] != '/' || strstr(folder, "/../") || strstr(folder, "/./") ||
		(end >= 3 && streq(folder + end - 3, "/..")))
		return false;
	for (size_t i = 0; i < p->n_folders; i++) {
		size_t len = strlen(p->folders[i]);

		while (len > 1 && p->folders[i][len - 1] == '/')
			len--;
		if (strncmp(folder, p->folders[i], len) == 0 &&
			(folder[len] == '/' || !folder[len]))
			return true;
	}
	return false;
}

/* "host" and "host:port" of a URL with a port, lower case. */
static void split_host(const char *url, char host[300], char hostport[310])
{
	const char *at = strstr(url, "://") + 3, *end = at + strcspn(at, "/?#"), *port;

	snprintf(hostport, 310, "%.*s", (int)(end - at), at);
	for (char *c = hostport; *c; c++)
		*c = (char)tolower((unsigned char)*c);
	port = strrchr(hostport, ':');
	if (port && strchr(port, ']'))
		port = NULL;
	snprintf(host, 300, "%.*s", (int)(port ? port - hostport : 299), hostport);
}

static bool is_this_host(const char *host)
{
	struct in_addr v4;

	return streq(host, "localhost") || streq(host, "[::1]") ||
		(text_starts(host, "127.") && inet_pton(AF_INET, host, &v4) == 1);
}

/* An address of IPv6 stands in brackets, which would be a set of characters in a pattern. */
static bool fits(const char *pattern, const char *s)
{
	return pattern[0] == '[' ? streq(pattern, s) : text_glob(pattern, s);
}

static int check_host(const struct policy *p, const char *url, struct err_text *err)
{
	char host[300], hostport[310];

	split_host(url, host, hostport);
	for (size_t i = 0; i < p->n_hosts; i++)
		if (fits(p->hosts[i], host) || fits(p->hosts[i], hostport))
			return 0;
	if (!p->hosts_bound)
		return 0;
	return err_set(err, -EPERM,
		"the policy of this host does not allow %.200s: destinations/allow in its policy.yaml "
		"names what is allowed",
		hostport);
}

static int check_remote(const struct policy *p, const struct destination_type *t,
	const struct option_value *options, size_t n, struct err_text *err)
{
	const char *proxy = destination_option(t, options, n, "proxy");
	char endpoint[600], host[300], hostport[310];
	int r;

	destination_endpoint(t, options, n, endpoint, sizeof(endpoint));
	r = check_host(p, endpoint, err);
	if (r == 0 && strstr(proxy, "://"))
		r = check_host(p, proxy, err);
	if (r < 0 || !p->require_verify)
		return r;
	split_host(endpoint, host, hostport);
	if (destination_flag(t, options, n, "insecure-skip-verify"))
		return err_set(err, -EPERM,
			"the policy of this host forbids insecure-skip-verify: trust the backend's "
			"authority with ca instead");
	if (!text_starts(endpoint, "https:") && !is_this_host(host))
		return err_set(err, -EPERM,
			"the policy of this host wants TLS to %.200s: use https://, without insecure",
			hostport);
	return 0;
}

int policy_check(const struct policy *p, const char *type, const struct option_value *options,
	size_t n, struct err_text *err)
{
	const struct destination_type *t = destination_type_find(type);
	const char *folder;

	if (!p || !t)
		return 0;
	if (p->problem[0] && !streq(t->transport, "local"))
		return err_set(err, -EPERM,
			"nothing may be sent while the policy is refused: %.500s", p->problem);
	if (destination_is_remote(t))
		return check_remote(p, t, options, n, err);
	folder = destination_option(t, options, n, "folder");
	if (streq(t->transport, "file") && !policy_folder_allowed(p, folder))
		return err_set(err, -EPERM,
			"the policy of this host does not let files be written to %.200s; allowed: "
			"%.200s%s (files/folders in its policy.yaml)",
			folder, p->n_folders ? p->folders[0] : "nothing",
			p->n_folders > 1 ? " and others" : "");
	return 0;
}

static bool same(const struct config_destination *a, const struct config_destination *b)
{
	if (!streq(a->name, b->name) || !streq(a->type, b->type) || a->n_options != b->n_options)
		return false;
	for (size_t i = 0; i < a->n_options; i++)
		if (!streq(a->options[i].name, b->options[i].name) ||
			!streq(a->options[i].value, b->options[i].value))
			return false;
	return true;
}

/* EPERM would be that of a file that manages a value, on the way to a client. */
static int forbidden(const char *name, const struct merged *m, struct err_text *err)
{
	const struct merged_value *v;
	char path[CONFIG_PATH_MAX];

	err_prefix(err, -EPERM, "destination %s", name);
	snprintf(path, sizeof(path), "destinations/%s/type", name);
	v = merged_find(m, path);
	return v && v->entry->file
		? err_prefix(err, -EINVAL, "%s:%u", v->entry->file, v->entry->line)
		: -EINVAL;
}

int policy_check_changed(const struct config *current, const struct config *next,
	const struct merged *m, struct err_text *err)
{
	for (size_t i = 0; current && i < next->n_destinations; i++) {
		const struct config_destination *d = &next->destinations[i];
		bool known = false;
		int r;

		for (size_t k = 0; k < current->n_destinations && !known; k++)
			known = same(&current->destinations[k], d);
		if (known)
			continue;
		r = destination_check_secrets(d->type, d->options, d->n_options, err);
		if (r == 0)
			r = policy_check(in_force, d->type, d->options, d->n_options, err);
		if (r < 0)
			return forbidden(d->name, m, err);
	}
	return 0;
}

static bool is_named(const struct config_doc *const docs[LAYERS], const char *value)
{
	for (size_t layer = 0; layer < LAYERS; layer++)
		for (size_t i = 0; docs[layer] && i < config_doc_size(docs[layer]); i++)
			if (streq(config_doc_at(docs[layer], i)->value, value))
				return true;
	return false;
}

static bool is_shown(const struct config_request *q, const struct config_entry *e)
{
	for (size_t i = 0; i < q->n_changes; i++)
		if (q->changes[i].shown && streq(q->changes[i].path, e->path) &&
			streq(q->changes[i].set, e->value))
			return true;
	return false;
}

int policy_check_files(const struct config_doc *const docs[LAYERS],
	const struct config_doc *changed, const struct config_request *q, struct err_text *err)
{
	for (size_t i = 0; q->uid && i < config_doc_size(changed); i++) {
		const struct config_entry *e = config_doc_at(changed, i);

		if (text_starts(e->path, "destinations/") && text_starts(e->value, "file:/") &&
			!is_named(docs, e->value) && !is_shown(q, e))
			return err_set(err, -EINVAL,
				"%.200s names a file, which only root may do so: odictl destination set "
				"NAME OPTION-path=/PATH shows that you may read it",
				e->path);
	}
	return 0;
}
