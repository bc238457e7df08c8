/* SPDX-License-Identifier: Apache-2.0 */

/* Questions about configuration that are not about a value: whether the files are right, and what may be set.
 * Runs in agentd. */

#include "agentd/control/control_private.h"

#define MAX_FINDINGS 1000
#define MAX_KEYS     4000

static const char no_memory[] = "out of memory";

/* ---- files ----------------------------------------------------------------------------------------- */

struct findings {
	struct control_reply *reply;
	Control__FilesChecked *checked;
};

static void on_finding(void *userdata, bool warning, const char *text)
{
	struct findings *f = userdata;
	Control__FileFinding *x;

	x = f->checked->n_findings < MAX_FINDINGS ? control_alloc(f->reply, sizeof(*x)) : NULL;
	if (!x) {
		f->checked->more++;
		return;
	}
	control__file_finding__init(x);
	x->warning = warning;
	x->text = control_strdup(f->reply, text);
	f->checked->findings[f->checked->n_findings++] = x;
}

void verb_check_files(
	struct control_server *s, struct control_reply *r, const Control__CheckFiles *q)
{
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__FilesChecked checked = CONTROL__FILES_CHECKED__INIT;
	struct findings f = {r, &checked};

	checked.findings = control_alloc(r, MAX_FINDINGS * sizeof(*checked.findings));
	if (!checked.findings) {
		reply_fail_code(r, CONTROL__CODE__INTERNAL, no_memory);
		return;
	}
	if (q->document_name[0]) {
		checked.files = 1;
		config_check_document(s->ops->config, q->document_name, q->document,
			strlen(q->document), on_finding, &f);
	} else {
		checked.files = (uint32_t)config_check_files(s->ops->config, on_finding, &f);
	}
	reply.body_case = CONTROL__REPLY__BODY_FILES_CHECKED;
	reply.files_checked = &checked;
	control_send(r, &reply, true);
}

/* ---- keys ------------------------------------------------------------------------------------------ */

struct keys {
	struct control_reply *reply;
	Control__Keys *keys;
};

static void on_key(void *userdata, const struct config_key *key)
{
	struct keys *k = userdata;
	Control__Key *x;

	if (k->keys->n_keys == MAX_KEYS)
		return;
	x = control_alloc(k->reply, sizeof(*x));
	if (!x)
		return;
	control__key__init(x);
	x->path = control_strdup(k->reply, key->path);
	x->of = control_strdup(k->reply, key->of);
	x->type = control_strdup(k->reply, key->type);
	x->fallback = control_strdup(k->reply, key->fallback);
	x->allowed = control_strdup(k->reply, key->allowed);
	x->help = control_strdup(k->reply, key->help);
	x->required = key->required;
	k->keys->keys[k->keys->n_keys++] = x;
}

void verb_get_keys(struct control_reply *r)
{
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__Keys keys = CONTROL__KEYS__INIT;
	struct keys k = {r, &keys};

	keys.keys = control_alloc(r, MAX_KEYS * sizeof(*keys.keys));
	if (!keys.keys) {
		reply_fail_code(r, CONTROL__CODE__INTERNAL, no_memory);
		return;
	}
	config_each_key(on_key, &k);
	reply.body_case = CONTROL__REPLY__BODY_KEYS;
	reply.keys = &keys;
	control_send(r, &reply, true);
}
