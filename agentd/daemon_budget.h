/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* How fast to sample, by what it costs: the decision alone, from figures. Pure. Runs in agentd. */

#include <stdbool.h>
#include <stdint.h>

#define BUDGET_WINDOW_NS    10000000000ULL  /* of the cost that is judged */
#define BUDGET_WARM_UP_NS   30000000000ULL  /* everything is met for the first time */
#define BUDGET_WARM_UP      5               /* the limit is so many times as high then */
#define BUDGET_CALM_WINDOWS 3               /* before the rate goes up */
#define BUDGET_PROBE_NS     300000000000ULL /* of quiet, before one more step is tried */
#define BUDGET_PROBE_MAX_NS 3600000000000ULL

enum budget_move { BUDGET_STAY, BUDGET_DOWN, BUDGET_UP };

struct budget {
	unsigned wanted_hz;
	unsigned halvings;          /* the rate is wanted_hz, halved so often */
	uint64_t started_ns;        /* of sampling */
	uint64_t since_ns;          /* of this rate */
	uint64_t calm_ns, quiet_ns; /* since when; 0: not now */
	uint64_t probe_ns;          /* quiet that is wanted of the next try */
	bool probing;               /* the last move was a try */
	bool over; /* at the last look; at the lowest rate nothing more can be done */
	uint64_t downs, ups;
};

/* At the wanted rate, as of now. */
void budget_start(struct budget *b, unsigned wanted_hz, uint64_t now_ns);
unsigned budget_rate(const struct budget *b);
/* The wanted rate was changed by people: it holds at once. */
void budget_want(struct budget *b, unsigned wanted_hz, uint64_t now_ns);
/* cost: share of the host's CPU time over the last window, or since the rate's last change if that is
 * less; limit: the same that may be spent, 0: any. Not called before BUDGET_WINDOW_NS have passed since
 * then it stays. DOWN and UP: budget_rate() is another one now. */
enum budget_move budget_judge(struct budget *b, uint64_t now_ns, double cost, double limit);
