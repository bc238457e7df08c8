/* SPDX-License-Identifier: Apache-2.0 */

/* The verbs about sources: which there are, what each takes and what it would take if others did not.
 * One walk over the images answers for all sources. Runs in agentd. */

#include "agentd/daemon_verbs.h"

#define MAX_LISTED_IMAGES 200 /* of each source */

struct source_walk {
	struct daemon *daemon;
	struct control_reply *reply;
	struct source_set *set;
	Control__SourceState **states; /* by the source's place in the set; NULL: not asked for */
	struct source **claims;        /* room for the whole set */
	bool images;
};

static Control__ImageState *image_state(
	struct source_walk *w, struct image *image, const struct source *winner)
{
	Control__ImageState *s = control_alloc(w->reply, sizeof(*s));
	struct resource_attribute *attributes;
	size_t n;

	if (!s)
		return NULL;
	control__image_state__init(s);
	s->pid = image->key.tgid;
	s->exe = control_strdup(w->reply, image->exe);
	s->comm = control_strdup(w->reply, image->comm);
	s->unit = control_strdup(w->reply, image->unit);
	s->cgroup = control_strdup(w->reply, image->cgroup);
	s->container = control_strdup(w->reply,
		image->container_name && image->container_name[0] ? image->container_name
								  : image->container_id);
	s->samples = image->samples;
	s->taken_by = control_strdup(w->reply, winner->name);
	s->service = control_strdup(w->reply, "");
	if (source_resource(winner, image, &w->daemon->host, &attributes, &n) == 0) {
		for (size_t i = 0; i < n; i++)
			if (streq(attributes[i].key, "service.name"))
				s->service = control_strdup(w->reply, attributes[i].value);
		resource_attributes_free(attributes, n);
	}
	return s;
}

static Control__SourceState *state_of(struct source_walk *w, const struct source *source)
{
	for (size_t i = 0; i < source_set_size(w->set); i++)
		if (source_set_at(w->set, i) == source)
			return w->states[i];
	return NULL;
}

static void add_image(struct source_walk *w, Control__ImageState **list, size_t *n,
	struct image *image, const struct source *winner)
{
	Control__ImageState *x;

	if (!w->images || *n >= MAX_LISTED_IMAGES)
		return;
	x = image_state(w, image, winner);
	if (x)
		list[(*n)++] = x;
}

static void visit_image(void *userdata, struct image *image)
{
	struct source_walk *w = userdata;
	const struct source *winner;
	size_t n = 0;

	if (image->ended || image->state == IMAGE_NEW)
		return;
	winner = source_set_match(
		w->set, w->daemon->processes, image, w->claims, source_set_size(w->set), &n);
	for (size_t i = 0; winner && i < MIN(n, source_set_size(w->set)); i++) {
		Control__SourceState *s = state_of(w, w->claims[i]);

		if (!s)
			continue;
		if (w->claims[i] == winner) {
			s->images_now++;
			add_image(w, s->images, &s->n_images, image, winner);
		} else {
			s->claimed_by_others++;
			add_image(w, s->lost_claims, &s->n_lost_claims, image, winner);
		}
	}
}

static Control__SourceState *new_state(
	struct daemon *d, struct control_reply *r, struct source *s, bool images)
{
	Control__SourceState *x = control_alloc(r, sizeof(*x));
	char path[160], origin[300] = "";
	enum config_layer layer = LAYER_BUILT_IN;

	if (!x)
		return NULL;
	control__source_state__init(x);
	x->name = control_strdup(r, s->name);
	x->kind = control_strdup(r, s->kind->name);
	x->match = control_strdup(r, s->match);
	x->enabled = s->enabled;
	x->service_name = control_strdup(r, s->service_name);
	x->options = daemon_key_values(r, s->options, s->n_options, &x->n_options);
	x->labels = daemon_key_values(r, s->labels, s->n_labels, &x->n_labels);
	snprintf(path, sizeof(path), "sources/%s", s->name);
	config_origin(d->config, path, &layer, origin, sizeof(origin));
	x->layer = control_strdup(r, config_layer_name(layer));
	x->origin = control_strdup(r, origin);
	x->samples = s->samples;
	x->last_sample_unix_ns = s->last_sample_unix_ns;
	if (images) {
		x->images = control_alloc(r, MAX_LISTED_IMAGES * sizeof(*x->images));
		x->lost_claims = control_alloc(r, MAX_LISTED_IMAGES * sizeof(*x->lost_claims));
		if (!x->images || !x->lost_claims)
			return NULL;
	}
	return x;
}

Control__SourceState **daemon_source_states(
	struct daemon *d, struct control_reply *r, const char *only, bool images, size_t *n)
{
	struct source_set *set = d->in_force->sources;
	size_t size = source_set_size(set);
	struct source_walk w = {
		.daemon = d,
		.reply = r,
		.set = set,
		.states = control_alloc(r, (size + 1) * sizeof(*w.states)),
		.claims = control_alloc(r, (size + 1) * sizeof(*w.claims)),
		.images = images,
	};

	*n = 0;
	if (!w.states || !w.claims)
		return NULL;
	for (size_t i = 0; i < size; i++) {
		struct source *s = source_set_at(set, i);

		if (!*only || streq(only, s->name))
			w.states[i] = new_state(d, r, s, images);
	}
	process_each(d->processes, visit_image, &w);
	/* The walk is over: what was not asked for leaves no gaps. */
	for (size_t i = 0; i < size; i++)
		if (w.states[i])
			w.states[(*n)++] = w.states[i];
	return w.states;
}

/* A survey first: with profiling off, or for what has not been sampled yet, the table does not know
 * who runs. */
struct sources_request {
	struct daemon *daemon;
	struct control_reply *reply;
	char name[80];
	bool images;
};

static void on_request_cancelled(void *userdata)
{
	struct sources_request *q = userdata;

	daemon_survey_cancel(q->daemon, q);
	free(q);
}

static void answer_sources(void *userdata, const struct process_candidate *list, size_t n_list)
{
	struct sources_request *q = userdata;
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__Sources body = CONTROL__SOURCES__INIT;

	body.sources =
		daemon_source_states(q->daemon, q->reply, q->name, q->images, &body.n_sources);
	reply.body_case = CONTROL__REPLY__BODY_SOURCES;
	reply.sources = &body;
	control_send(q->reply, &reply, true);
	free(q);
}

void daemon_get_sources(void *userdata, struct control_reply *r, const Control__GetSources *request)
{
	struct daemon *d = userdata;
	struct sources_request *q;

	/* Most samples are only counted in the kernel until somebody asks. */
	daemon_settle(d);
	if (request->name[0] && !source_set_find(d->in_force->sources, request->name)) {
		struct err_text err = {};

		err_set(&err, -ENOENT, "there is no source '%s'; odictl source list shows all",
			request->name);
		control_fail(r, -ENOENT, &err);
		return;
	}
	q = calloc(1, sizeof(*q));
	if (!q) {
		daemon_fail(r, -ENOMEM, "out of memory");
		return;
	}
	*q = (struct sources_request){.daemon = d, .reply = r, .images = request->images};
	snprintf(q->name, sizeof(q->name), "%s", request->name);
	control_on_cancel(r, on_request_cancelled, q);
	/* Without one, what the table knows now has to do. */
	if (daemon_survey(d, answer_sources, q) < 0)
		answer_sources(q, NULL, 0);
}

void daemon_source_kinds(void *userdata, struct control_reply *r)
{
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__SourceKinds body = CONTROL__SOURCE_KINDS__INIT;
	size_t n = 0;

	while (source_kinds[n])
		n++;
	body.kinds = control_alloc(r, (n + 1) * sizeof(*body.kinds));
	for (size_t i = 0; body.kinds && i < n; i++) {
		const struct source_kind *k = source_kinds[i];
		const struct option_desc *tables[] = {k->options, source_common_options};
		Control__SourceKind *x = control_alloc(r, sizeof(*x));

		if (!x)
			break;
		control__source_kind__init(x);
		x->name = control_strdup(r, k->name);
		x->summary = control_strdup(r, k->summary);
		x->example = control_strdup(r, k->example);
		x->match_help = control_strdup(r, k->match_help);
		x->match_required = k->match_required;
		x->options = daemon_options(r, tables, 2, &x->n_options);
		body.kinds[body.n_kinds++] = x;
	}
	reply.body_case = CONTROL__REPLY__BODY_SOURCE_KINDS;
	reply.source_kinds = &body;
	control_send(r, &reply, true);
}
