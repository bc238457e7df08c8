/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What the manager is made of; for manager.c, manager_files.c and plan.c alone. */

#include "agentd/base/map.h"
#include "agentd/config/config_private.h"
#include "agentd/store/store.h"

struct author { /* who set a value, as history knows */
	char text[64];
};

struct config_manager {
	struct store *store;
	char *packaged, *dir, *file; /* of `places` */
	struct config_places places;
	struct config_hooks hooks;
	void *userdata;
	struct config_doc *docs[LAYERS];
	struct merged merged;
	struct config *current;
	struct map *authors[LAYERS]; /* path -> struct author */
	bool busy;                   /* in a transaction: hooks must not start another */
	size_t n_files;              /* at the last reading */
	struct err_text wrong;       /* with the files, at the last reading; "" nothing */
};

struct plan_layer {
	struct config_doc *doc; /* what the layer would be; NULL: it stays as it is */
	struct buf diff;
	size_t n_differences;
};

/* What a transaction would put in place. */
struct plan {
	const struct config_doc *docs[LAYERS]; /* borrowed */
	struct plan_layer changed[LAYERS];
	enum config_layer layer; /* of a request */
	struct config_doc *doc;  /* its document, in `changed` */
	struct merged merged;
	struct config *next;
};

void plan_deinit(struct plan *p);
/* The request's changes on a copy of its layer; then the whole, built and checked. */
int plan_request(const struct config_manager *m, struct plan *plan, const struct config_request *q,
	struct err_text *err);
/* Whether the request's layer may change it: -EACCES with who has it. */
int plan_check_managed(const struct config_manager *m, const struct plan *plan,
	const struct config_change *change, struct err_text *err);
/* plan_document.c: plan->doc as it was at that revision; with what a YAML document says. */
int plan_rollback(
	const struct config_manager *m, struct plan *plan, uint64_t revision, struct err_text *err);
int plan_yaml(const struct config_manager *m, struct plan *plan, const struct config_request *q,
	struct err_text *err);
/* The same for documents that are there already (plan->changed). */
int plan_documents(const struct config_manager *m, struct plan *plan, struct err_text *err);
bool plan_differs(const struct plan *plan);
/* The plan stands: prepare (first: there is nothing in force yet, so not), commit, swap. */
int config_carry_out(struct config_manager *m, struct plan *plan, const struct config_request *q,
	uint64_t *revision, struct err_text *err);
/* Reads the files and plans with them. -EINVAL: something is wrong, and *wrongs says what. */
int config_plan_files(struct config_manager *m, struct plan *plan, struct config_wrongs *wrongs);
/* One reading for all: m->wrong is its outcome. */
int config_take_files(struct config_manager *m, uint64_t *revision, struct err_text *err);
/* Puts a plan's documents in place whose settings are those in force: lines and files may differ. */
void config_put_documents(struct config_manager *m, struct plan *plan);
