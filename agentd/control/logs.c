/* SPDX-License-Identifier: Apache-2.0 */

/* `odictl logs`: the kept lines, and those that come.
 *
 * The log room keeps the lines; a follower is a serial number, up to which it has them. A new line
 * only wakes the followers at the end of the loop's turn, so that what logs is never in the middle
 * of sending. A follower that is too slow loses lines, and is told how many. Runs in agentd. */

#include "agentd/base/log.h"
#include "agentd/control/control_private.h"

#define LINES_DEFAULT 100

struct collection {
	struct control_reply *reply;
	uint32_t level;
	uint64_t after;
	size_t skip; /* of the matching ones, so many are left out from the front */
	size_t n;
	uint64_t first, last;     /* serials seen, whatever their level */
	Control__LogLine **lines; /* NULL: only count */
};

static void on_line(void *userdata, const struct log_line *line)
{
	struct collection *c = userdata;
	Control__LogLine *out;

	if (!c->first)
		c->first = line->serial;
	c->last = line->serial;
	if ((uint32_t)line->level > c->level)
		return;
	if (c->skip) {
		c->skip--;
		return;
	}
	if (c->lines) {
		out = control_alloc(c->reply, sizeof(*out));
		if (!out)
			return;
		control__log_line__init(out);
		out->serial = line->serial;
		out->time_unix_ns = line->time_unix_ns;
		out->level = (uint32_t)line->level;
		out->text = control_strdup(c->reply, line->text);
		c->lines[c->n] = out;
	}
	c->n++;
}

/* Lines that were gone before this client took them. */
static void tell_lost(struct collection *c)
{
	Control__LogLine *out;

	if (!c->after || !c->first || c->first == c->after + 1)
		return;
	out = control_alloc(c->reply, sizeof(*out));
	if (!out)
		return;
	control__log_line__init(out);
	out->serial = c->first - 1;
	out->level = LOG_LEVEL_WARN;
	out->text =
		control_printf(c->reply, "%llu lines are missing here: this client was too slow",
			(unsigned long long)(c->first - c->after - 1));
	memmove(c->lines + 1, c->lines, c->n * sizeof(*c->lines));
	c->lines[0] = out;
	c->n++;
}

/* Sends what is newer than `after`, at most the last `limit` lines (0: all). May end r. */
static void send_lines(struct control_reply *r, uint64_t after, size_t limit, bool even_none)
{
	struct collection counted = {.reply = r, .level = r->log_level};
	struct collection c = {.reply = r, .level = r->log_level, .after = after};
	Control__Reply reply = CONTROL__REPLY__INIT;
	Control__Logs logs = CONTROL__LOGS__INIT;

	log_each(after, on_line, &counted);
	if (counted.last)
		r->log_serial = counted.last;
	if (!counted.n && !even_none)
		return;
	c.lines = control_alloc(r, (counted.n + 2) * sizeof(*c.lines));
	if (!c.lines) {
		reply_fail_code(r, CONTROL__CODE__INTERNAL, "out of memory");
		return;
	}
	if (limit && counted.n > limit)
		c.skip = counted.n - limit;
	log_each(after, on_line, &c);
	tell_lost(&c);
	logs.lines = c.lines;
	logs.n_lines = c.n;
	reply.body_case = CONTROL__REPLY__BODY_LOGS;
	reply.logs = &logs;
	control_send(r, &reply, !r->follows_logs);
}

void logs_get(struct control_server *s, struct control_reply *r, const Control__GetLogs *request)
{
	r->log_level = request->level ? request->level : LOG_LEVEL_DEBUG;
	r->follows_logs = request->follow;
	s->n_followers += request->follow;
	send_lines(r, 0, request->lines ? MIN(request->lines, (uint32_t)LOG_KEEP) : LINES_DEFAULT,
		true);
}

static int on_logs(sd_event_source *source, void *userdata)
{
	struct control_server *s = userdata;

	for (struct connection *c = s->connections; c; c = c->next) {
		struct control_reply *next;

		/* It gets them once it has taken what waits. */
		if (c->out.len - c->out_at > s->limits.out_pause)
			continue;
		for (struct control_reply *r = c->replies; r; r = next) {
			next = r->next;
			if (r->follows_logs)
				send_lines(r, r->log_serial, 0, false);
		}
	}
	return 0;
}

static void on_new_line(void *userdata, const struct log_line *line)
{
	struct control_server *s = userdata;

	if (s->n_followers)
		sd_event_source_set_enabled(s->logs_source, SD_EVENT_ONESHOT);
}

int logs_init(struct control_server *s)
{
	int r = sd_event_add_defer(s->loop, &s->logs_source, on_logs, s);

	if (r < 0)
		return r;
	r = sd_event_source_set_enabled(s->logs_source, SD_EVENT_OFF);
	if (r < 0)
		return r;
	log_set_hook(on_new_line, s);
	return 0;
}

void logs_deinit(struct control_server *s)
{
	if (!s->logs_source)
		return;
	log_set_hook(NULL, NULL);
	s->logs_source = sd_event_source_disable_unref(s->logs_source);
}
