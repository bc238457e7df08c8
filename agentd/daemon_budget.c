/* SPDX-License-Identifier: Apache-2.0 */

/* A profiler that costs more than it may samples less. The rate is halved while the cost of a whole
 * window is over the limit, and doubled again when even twice the cost would stay well below it for
 * some windows: the dead band between keeps it from swinging.
 *
 * Cost follows the rate only in part (processes that start are followed at any rate), so doubling it
 * is too dark a guess: after a long quiet time one step is tried all the same, and when that is over
 * the limit, the next try comes later. In the first half minute every file is met for the first time;
 * that cost passes by itself, so the limit is wider then. Runs in agentd. */

#include "agentd/daemon_budget.h"
#include "agentd/base/macros.h"

#define CALM_SHARE 0.8 /* of the limit */

void budget_start(struct budget *b, unsigned wanted_hz, uint64_t now_ns)
{
	*b = (struct budget){
		.wanted_hz = wanted_hz,
		.started_ns = now_ns,
		.since_ns = now_ns,
		.probe_ns = BUDGET_PROBE_NS,
	};
}

static unsigned rate_after(const struct budget *b, unsigned halvings)
{
	return MAX(b->wanted_hz >> MIN(halvings, 31U), 1U);
}

unsigned budget_rate(const struct budget *b)
{
	return rate_after(b, b->halvings);
}

static enum budget_move move_to(struct budget *b, unsigned halvings, uint64_t now_ns)
{
	enum budget_move move = halvings > b->halvings ? BUDGET_DOWN : BUDGET_UP;

	b->halvings = halvings;
	b->since_ns = now_ns;
	b->calm_ns = b->quiet_ns = 0;
	b->downs += move == BUDGET_DOWN;
	b->ups += move == BUDGET_UP;
	return move;
}

void budget_want(struct budget *b, unsigned wanted_hz, uint64_t now_ns)
{
	b->wanted_hz = wanted_hz;
	b->halvings = 0;
	b->since_ns = now_ns;
	b->calm_ns = b->quiet_ns = 0;
	b->probe_ns = BUDGET_PROBE_NS;
	b->probing = b->over = false;
}

/* Whether it has held for so long; *since is when it began, 0 while it does not hold. */
static bool held(uint64_t *since, bool holds, uint64_t now_ns, uint64_t wanted_ns)
{
	if (!holds) {
		*since = 0;
		return false;
	}
	if (!*since)
		*since = now_ns;
	return now_ns - *since >= wanted_ns;
}

static enum budget_move go_down(struct budget *b, uint64_t now_ns)
{
	if (budget_rate(b) == 1)
		return BUDGET_STAY;
	if (b->probing)
		b->probe_ns = MIN(b->probe_ns * 2, BUDGET_PROBE_MAX_NS);
	b->probing = false;
	return move_to(b, b->halvings + 1, now_ns);
}

enum budget_move budget_judge(struct budget *b, uint64_t now_ns, double cost, double limit)
{
	bool warm = now_ns - b->started_ns >= BUDGET_WARM_UP_NS, calm, quiet;
	double twice;

	if (limit <= 0) {
		b->over = false;
		return b->halvings ? move_to(b, 0, now_ns) : BUDGET_STAY;
	}
	if (now_ns - b->since_ns < BUDGET_WINDOW_NS)
		return BUDGET_STAY;
	b->over = cost > limit * (warm ? 1 : BUDGET_WARM_UP);
	if (b->over) {
		b->calm_ns = b->quiet_ns = 0;
		return go_down(b, now_ns);
	}
	if (!b->halvings) {
		/* Long at the full rate: what made the tries fail is over. */
		if (held(&b->quiet_ns, true, now_ns, BUDGET_PROBE_NS)) {
			b->probe_ns = BUDGET_PROBE_NS;
			b->probing = false;
		}
		return BUDGET_STAY;
	}
	twice = cost * rate_after(b, b->halvings - 1) / budget_rate(b);
	/* The first of the windows is over when it is judged. */
	calm = held(&b->calm_ns, twice < CALM_SHARE * limit, now_ns,
		(BUDGET_CALM_WINDOWS - 1) * BUDGET_WINDOW_NS);
	quiet = held(&b->quiet_ns, cost < CALM_SHARE * limit, now_ns, b->probe_ns);
	if (!calm && !quiet)
		return BUDGET_STAY;
	b->probing = !calm;
	return move_to(b, b->halvings - 1, now_ns);
}
