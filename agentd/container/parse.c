/* SPDX-License-Identifier: Apache-2.0 */

/* One state file's JSON into flat facts; the only file here that knows json-c.
 *
 * The shapes, as the runtimes write them: Docker's config.v2.json is an object with ID, Name
 * ("/web") and Config {Image, Labels}; OCI's config.json (runtime-spec, config.md) is an object
 * whose annotations carry what containerd's CRI plugin (io.kubernetes.cri.*), CRI-O
 * (io.kubernetes.cri-o.*, and the kubelet's own labels io.kubernetes.pod.* and
 * io.kubernetes.container.name) or nerdctl say; containers/storage's containers.json is an array of
 * {id, names, metadata}, metadata being JSON in a string. The shape decides, not the runtime's
 * name, since one may run on top of another.
 *
 * The files are root's, but labels, names and images in them are a user's words. Depth and size are
 * bounded (so is the process's memory, by its sandbox); a text that is not clean or does not fit is
 * as if it were not there. Runs in the sandbox only. */

#include <json-c/json.h>
#include "agentd/base/text.h"
#include "agentd/container/private.h"

#define DEPTH_MAX    32
#define METADATA_MAX 65536

static void put_json(struct json_object **o)
{
	if (*o)
		json_object_put(*o);
}

static void put_tokener(struct json_tokener **t)
{
	if (*t)
		json_tokener_free(*t);
}

static int parse_text(const void *data, size_t len, struct json_object **ret)
{
	CLEANUP(put_tokener) struct json_tokener *tokener = json_tokener_new_ex(DEPTH_MAX);
	CLEANUP(put_json) struct json_object *o = NULL;

	if (!tokener)
		return -ENOMEM;
	if (len == 0 || len > CONTAINER_FILE_MAX)
		return -EBADMSG;
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	o = json_tokener_parse_ex(tokener, data, (int)len);
	/* A top-level number may still go on at its end; none of our shapes is one. */
	if (!o || json_tokener_get_error(tokener) != json_tokener_success)
		return -EBADMSG;
	*ret = TAKE_PTR(o);
	return 0;
}

static struct json_object *member(struct json_object *o, const char *key)
{
	struct json_object *value = NULL;

	if (!o || !json_object_is_type(o, json_type_object) ||
		!json_object_object_get_ex(o, key, &value))
		return NULL;
	return value;
}

/* A clean string of at most max bytes, else "". Borrowed from o. */
static const char *text_of(struct json_object *o, size_t max)
{
	const char *s;

	if (!o || !json_object_is_type(o, json_type_string))
		return "";
	s = json_object_get_string(o);
	/* Not one with a NUL inside: what follows it would pass unseen. */
	if (!s || strlen(s) != (size_t)json_object_get_string_len(o) || !text_is_clean(s, max))
		return "";
	return s;
}

static const char *string(struct json_object *o, const char *key)
{
	return text_of(member(o, key), sizeof(((struct container_facts *)0)->name) - 1);
}

static void set(char *to, size_t size, const char *value)
{
	if (!*to && *value)
		snprintf(to, size, "%s", value);
}

/* The first that says something wins. */
static void set_k8s(struct container_facts *f, const char *key, const char *value)
{
	if (!*value || f->n_k8s == ARRAY_SIZE(f->k8s))
		return;
	for (size_t i = 0; i < f->n_k8s; i++)
		if (streq(f->k8s[i].key, key))
			return;
	snprintf(f->k8s[f->n_k8s].key, sizeof(f->k8s[0].key), "%s", key);
	snprintf(f->k8s[f->n_k8s].value, sizeof(f->k8s[0].value), "%s", value);
	f->n_k8s++;
}

/* OpenTelemetry's names for what kubelet, containerd and CRI-O write. */
static void take_kubernetes(struct container_facts *f, struct json_object *o)
{
	static const struct {
		const char *from, *to;
	} names[] = {
		{"io.kubernetes.pod.name", "k8s.pod.name"},
		{"io.kubernetes.cri.sandbox-name", "k8s.pod.name"},
		{"io.kubernetes.cri-o.KubeName", "k8s.pod.name"},
		{"io.kubernetes.pod.namespace", "k8s.namespace.name"},
		{"io.kubernetes.cri.sandbox-namespace", "k8s.namespace.name"},
		{"io.kubernetes.cri-o.Namespace", "k8s.namespace.name"},
		{"io.kubernetes.container.name", "k8s.container.name"},
		{"io.kubernetes.cri.container-name", "k8s.container.name"},
		{"io.kubernetes.pod.uid", "k8s.pod.uid"},
		{"io.kubernetes.cri.sandbox-uid", "k8s.pod.uid"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		set_k8s(f, names[i].to, string(o, names[i].from));
}

static bool is_id(const char *theirs, const char *id)
{
	return strncmp(theirs, id, strlen(id)) == 0;
}

static int take_docker(struct json_object *o, const char *id, struct container_facts *f)
{
	struct json_object *config = member(o, "Config");
	const char *name = string(o, "Name");

	if (!is_id(string(o, "ID"), id))
		return -ENOENT;
	set(f->name, sizeof(f->name), name + (*name == '/'));
	set(f->image, sizeof(f->image), string(config, "Image"));
	take_kubernetes(f, member(config, "Labels"));
	return 0;
}

static int take_oci(struct json_object *o, const char *id, struct container_facts *f)
{
	static const char *const names[] = {"io.kubernetes.container.name",
		"io.kubernetes.cri.container-name", "nerdctl/name",
		"io.kubernetes.cri-o.ContainerName"};
	static const char *const images[] = {"io.kubernetes.cri.image-name",
		"io.kubernetes.cri-o.ImageName", "io.kubernetes.cri-o.Image"};
	static const char *const ids[] = {"io.kubernetes.cri-o.ContainerID"};
	struct json_object *annotations = member(o, "annotations");

	for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
		if (*string(annotations, ids[i]) && !is_id(string(annotations, ids[i]), id))
			return -ENOENT;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		set(f->name, sizeof(f->name), string(annotations, names[i]));
	for (size_t i = 0; i < ARRAY_SIZE(images); i++)
		set(f->image, sizeof(f->image), string(annotations, images[i]));
	take_kubernetes(f, annotations);
	return 0;
}

/* What containers/storage's users keep beside a container: CRI-O its pod, Podman the image's name.
 */
static void take_metadata(struct json_object *o, struct container_facts *f)
{
	CLEANUP(put_json) struct json_object *m = NULL;
	const char *text = text_of(member(o, "metadata"), METADATA_MAX), *name;

	if (!*text || parse_text(text, strlen(text), &m) < 0)
		return;
	set(f->image, sizeof(f->image), string(m, "image-name"));
	if (!*string(m, "pod-name"))
		return;
	name = string(m, "metadata-name");
	if (*name && *string(m, "namespace") && *string(m, "container-name")) {
		snprintf(f->name, sizeof(f->name), "%s", name);
		set_k8s(f, "k8s.container.name", name);
	}
	set_k8s(f, "k8s.namespace.name", string(m, "namespace"));
	set_k8s(f, "k8s.pod.uid", string(m, "uid"));
}

static int take_storage(struct json_object *o, const char *id, struct container_facts *f)
{
	size_t n = json_object_array_length(o);

	for (size_t i = 0; i < n; i++) {
		struct json_object *c = json_object_array_get_idx(o, i),
				   *names = member(c, "names");

		if (!is_id(string(c, "id"), id))
			continue;
		if (names && json_object_is_type(names, json_type_array) &&
			json_object_array_length(names) > 0)
			set(f->name, sizeof(f->name),
				text_of(json_object_array_get_idx(names, 0), sizeof(f->name) - 1));
		take_metadata(c, f);
		return 0;
	}
	return -ENOENT;
}

bool container_is_id(const char *id)
{
	size_t len = strlen(id);

	return len >= CONTAINER_ID_MIN && len <= CONTAINER_ID_MAX &&
		strspn(id, "0123456789abcdef") == len;
}

int container_parse(const char *runtime, const char *id, const void *data, size_t len,
	struct container_facts *ret)
{
	CLEANUP(put_json) struct json_object *o = NULL;
	struct container_facts facts = {0};
	int r;

	(void)runtime;
	if (!container_is_id(id))
		return -ENOENT;
	r = parse_text(data, len, &o);
	if (r < 0)
		return r;
	if (json_object_is_type(o, json_type_array))
		r = take_storage(o, id, &facts);
	else if (member(o, "Config") && member(o, "ID"))
		r = take_docker(o, id, &facts);
	else if (member(o, "ociVersion"))
		r = take_oci(o, id, &facts);
	else
		r = -EBADMSG;
	if (r < 0)
		return r;
	if (!*facts.name && !*facts.image && !facts.n_k8s)
		return -ENOENT;
	*ret = facts;
	return 0;
}

bool container_is_path(const char *path)
{
	size_t len = strlen(path);

	if (*path != '/' || !text_is_clean(path, CONTAINER_PATH_MAX - 1))
		return false;
	return !strstr(path, "/../") && !(len >= 3 && streq(path + len - 3, "/.."));
}

int container_parse_docker_root(const void *data, size_t len, char *ret, size_t size)
{
	CLEANUP(put_json) struct json_object *o = NULL;
	const char *path;
	int r = parse_text(data, len, &o);

	if (r < 0)
		return r;
	if (!json_object_is_type(o, json_type_object))
		return -EBADMSG;
	path = text_of(member(o, "data-root"), CONTAINER_PATH_MAX - 1);
	if (!*path) /* its name until 17.05 */
		path = text_of(member(o, "graph"), CONTAINER_PATH_MAX - 1);
	if (!*path)
		return -ENOENT;
	if (!container_is_path(path) || strlen(path) >= size)
		return -EBADMSG;
	snprintf(ret, size, "%s", path);
	return 0;
}
