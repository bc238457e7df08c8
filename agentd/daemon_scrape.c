/* SPDX-License-Identifier: Apache-2.0 */

/* Who gets our own metrics unasked or over the network: the listener for scrapers, and destinations that want them.
 *
 * The exporter listens and serves. An address that cannot be had is a problem that status shows, and is tried again
 * every minute. The text is made here when it asks, without daemon_settle(): a scraper that comes every few seconds
 * must not cost what a person's look may. Runs in agentd. */

#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/base/text.h"
#include "agentd/daemon_metrics.h"

#define EVERY_US (60 * USEC_PER_SEC)

struct scrape {
	char address[80]; /* that is listened at; "" none */
	sd_event_source *timer;
};

static int make(void *userdata, bool otlp, struct buf *out)
{
	struct daemon *d = userdata;
	CLEANUP(metrics_freep) struct metrics *m = NULL;
	const struct metric_label resource[] = {{"service.name", "odi"},
		{"service.version", ODI_VERSION}, {"host.name", d->host.name},
		{"host.id", d->host.id}};
	int r = daemon_metrics_make(d, false, &m);

	if (r < 0)
		return r;
	if (otlp)
		metrics_otlp(m, d->started_unix_ns, clock_unix_ns(), resource,
			d->host.id && *d->host.id ? 4 : 3, ODI_VERSION, out);
	else
		metrics_text(m, out);
	return buf_error(out);
}

/* ---- destinations -------------------------------------------------------------------------------- */

static bool anybody_wants(const struct config *c)
{
	for (size_t i = 0; i < c->n_destinations; i++) {
		const struct config_destination *x = &c->destinations[i];
		bool on = false;

		for (size_t k = 0; k < x->n_options; k++)
			if (streq(x->options[k].name, "metrics"))
				(void)text_bool(x->options[k].value, &on);
		if (on && x->enabled)
			return true;
	}
	return false;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct daemon *d = userdata;

	if (link_metrics_problem(d->link)[0])
		link_metrics_listen(d->link, d->scrape->address);
	if (anybody_wants(d->in_force))
		link_metrics_push(d->link);
	(void)sd_event_source_set_time(source, clock_monotonic_ns() / 1000 + EVERY_US);
	return 0;
}

void daemon_scrape_configure(struct daemon *d, const struct config *next)
{
	struct scrape *s = d->scrape;
	bool wanted = anybody_wants(next);

	if (!streq(next->metrics_listen, s->address)) {
		snprintf(s->address, sizeof(s->address), "%s", next->metrics_listen);
		link_metrics_listen(d->link, s->address);
	}
	(void)sd_event_source_set_enabled(
		s->timer, wanted || *s->address ? SD_EVENT_ON : SD_EVENT_OFF);
	/* The first at once: whoever switched it on looks for it. */
	if (wanted)
		link_metrics_push(d->link);
}

int daemon_scrape_new(struct daemon *d, struct err_text *err)
{
	int r;

	d->scrape = calloc(1, sizeof(*d->scrape));
	if (!d->scrape)
		return err_set(err, -ENOMEM, "out of memory");
	link_set_metrics(d->link, make, d);
	r = sd_event_add_time(d->loop, &d->scrape->timer, CLOCK_MONOTONIC,
		clock_monotonic_ns() / 1000 + EVERY_US, USEC_PER_SEC, on_timer, d);
	if (r >= 0)
		r = sd_event_source_set_enabled(d->scrape->timer, SD_EVENT_OFF);
	return r < 0 ? err_set(err, r, "cannot make a timer: %s", strerrordesc_np(-r)) : 0;
}

void daemon_scrape_free(struct daemon *d)
{
	struct scrape *s = TAKE_PTR(d->scrape);

	if (!s)
		return;
	sd_event_source_disable_unref(s->timer);
	free(s);
}
