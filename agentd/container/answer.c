/* SPDX-License-Identifier: Apache-2.0 */

/* Whether an answer of the sandboxed side may be believed to be one. It was written by a process
 * that has read a stranger's words, so every length, every text and every key is looked at. Pure;
 * runs in agentd. */

#include "agentd/base/text.h"
#include "agentd/container/private.h"

/* Terminated within its room, and clean. */
static bool is_text(const char *s, size_t size)
{
	return memchr(s, 0, size) && text_is_clean(s, size - 1);
}

static bool is_key(const char *key, size_t size)
{
	return is_text(key, size) && text_starts(key, "k8s.") &&
		strspn(key, "abcdefghijklmnopqrstuvwxyz0123456789._-") == strlen(key);
}

static bool is_facts(const struct container_facts *f)
{
	if (!is_text(f->name, sizeof(f->name)) || !is_text(f->image, sizeof(f->image)) ||
		f->n_k8s > ARRAY_SIZE(f->k8s))
		return false;
	for (size_t i = 0; i < f->n_k8s; i++)
		if (!is_key(f->k8s[i].key, sizeof(f->k8s[i].key)) ||
			!is_text(f->k8s[i].value, sizeof(f->k8s[i].value)))
			return false;
	return true;
}

int container_answer_check(
	const struct container_answer *a, size_t len, const struct container_request *request)
{
	static const int results[] = {0, -ENOENT, -EBADMSG, -ENOMEM, -EFBIG, -EIO};
	bool known = false;

	if (len != sizeof(*a) || a->magic != CONTAINER_MAGIC || a->serial != request->serial)
		return -EBADMSG;
	for (size_t i = 0; i < ARRAY_SIZE(results); i++)
		known |= a->result == results[i];
	if (!known)
		return -EBADMSG;
	if (a->result < 0)
		return 0; /* nothing else of it is read */
	if (request->kind == CONTAINER_REQUEST_DOCKER_ROOT)
		return memchr(a->path, 0, sizeof(a->path)) && container_is_path(a->path) ? 0
											 : -EBADMSG;
	return is_facts(&a->facts) ? 0 : -EBADMSG;
}
