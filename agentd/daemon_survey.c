/* SPDX-License-Identifier: Apache-2.0 */

/* One survey of /proc at a time, for all who ask. The process table does one; clients come as they like,
 * and two of them at once are no reason to refuse the second. Who asks while a survey is under way gets
 * its answer: that is as good as one begun a moment later. Runs in agentd. */

#include "agentd/daemon.h"

struct survey_wait {
	struct survey_wait *next;
	void (*done)(void *userdata, const struct process_candidate *list, size_t n);
	void *userdata;
	bool ready; /* its survey is done; it is being called back */
};

/* Unlinks and answers the first that fulfils it; NULL: none. */
static struct survey_wait *take(struct daemon *d, bool ready_only, const void *userdata)
{
	for (struct survey_wait **p = &d->survey_waits; *p; p = &(*p)->next) {
		struct survey_wait *w = *p;

		if (ready_only ? !w->ready : w->userdata != userdata)
			continue;
		*p = w->next;
		return w;
	}
	return NULL;
}

static void on_survey(void *userdata, const struct process_candidate *list, size_t n)
{
	struct daemon *d = userdata;
	struct survey_wait *w;

	d->surveying = false;
	for (w = d->survey_waits; w; w = w->next)
		w->ready = true;
	/* One who is called back may ask anew, or make others go: no position is kept meanwhile. */
	while ((w = take(d, true, NULL))) {
		w->done(w->userdata, list, n);
		free(w);
	}
}

int daemon_survey(struct daemon *d,
	void (*done)(void *userdata, const struct process_candidate *list, size_t n),
	void *userdata)
{
	struct survey_wait *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	if (!d->surveying) {
		r = process_survey(d->processes, on_survey, d);
		if (r < 0) {
			free(w);
			return r;
		}
		d->surveying = true;
	}
	*w = (struct survey_wait){.next = d->survey_waits, .done = done, .userdata = userdata};
	d->survey_waits = w;
	return 0;
}

void daemon_survey_cancel(struct daemon *d, void *userdata)
{
	free(take(d, false, userdata));
}
