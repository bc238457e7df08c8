/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the manager is made of; for manager.c and plan.c alone. */

#include "agentd/base/map.h"
#include "agentd/config/config_private.h"
#include "agentd/store/store.h"

struct author { /* who set a value, as history knows */
	char text[64];
};

struct config_manager {
	struct store *store;
	char *file;
	struct config_hooks hooks;
	void *userdata;
	struct config_doc *docs[LAYERS];
	struct merged merged;
	struct config *current;
	struct map *authors[LAYERS]; /* path -> struct author */
	bool busy;                   /* in a transaction: hooks must not start another */
};

/* What a transaction would put in place. */
struct plan {
	const struct config_doc *docs[LAYERS]; /* borrowed, but for `doc` */
	enum config_layer layer;
	struct config_doc *doc; /* the changed layer; owned */
	struct merged merged;
	struct config *next;
	struct buf diff;
	size_t n_differences;
};

void plan_deinit(struct plan *p);
/* The request's changes on a copy of its layer; then the whole, built and checked. */
int plan_request(const struct config_manager *m, struct plan *plan, const struct config_request *q,
	struct err_text *err);
/* The same for a document that is there already (plan->doc of plan->layer). */
int plan_document(const struct config_manager *m, struct plan *plan, struct err_text *err);
