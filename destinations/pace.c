/* SPDX-License-Identifier: Apache-2.0 */

/* When the next request goes.
 *
 * What may be taken later is tried again with exponential back-off and full jitter (a uniformly random part of a
 * bound that doubles), or when the backend said. After some failures in a row the circuit is open: a small, empty
 * request is tried instead of a batch, so that a backend that comes back is not met by all that waits at once, and
 * one that does not costs next to nothing. When it takes that, a batch follows; when it fails that, the circuit is open
 * again, and the bound goes on to grow. A destination that is blocked (a wrong path, a token that ran out) is
 * tried more slowly from the beginning, since it takes a person.
 *
 * A fleet fails and recovers as one. What hosts do at the same moment is spread: by chance in the jitter, and by a hash
 * of the machine's id where a time is the same for all (what Retry-After asks for, the end of an outage, a start), so
 * that a host that is unlucky is always the same and the load has no waves. What waited through an outage goes at a
 * bounded rate; what is sampled meanwhile is not held up by it.
 *
 * Source: OTLP specification on retries; "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015); M. Nygard,
 * "Release It!" on circuit breakers; machine-id(5). Runs in the exporter. */

#include <fcntl.h>
#include <sys/random.h>

#include "agentd/base/clock.h"
#include "agentd/base/hash.h"
#include "destinations/pace.h"

#define BACK_OFF_MIN_NS (500 * NSEC_PER_MSEC)
#define BACK_OFF_MAX_NS (60 * NSEC_PER_SEC)
#define BLOCKED_MIN_NS  (5 * NSEC_PER_SEC)
#define BLOCKED_MAX_NS  (300 * NSEC_PER_SEC)
#define SPREAD_MAX_NS   (30 * NSEC_PER_SEC)

/* The same in every version: a host keeps its place. */
static const struct hash_key spread_key = {{0x6f64692073707265ULL, 0x6164206f66206964ULL}};

static uint64_t random_below(uint64_t bound)
{
	uint64_t x;

	if (getrandom(&x, sizeof(x), 0) != (ssize_t)sizeof(x))
		x = clock_monotonic_ns();
	return bound ? x % bound : 0;
}

/* Everybody may read it; without one (containers) chance has to do. */
static uint64_t host_number(void)
{
	static uint64_t number;
	char id[64];
	_cleanup_close_ int fd = -1;
	ssize_t n;

	if (number)
		return number;
	fd = open("/etc/machine-id", O_RDONLY | O_CLOEXEC | O_NOCTTY);
	n = fd >= 0 ? read(fd, id, sizeof(id)) : -1;
	number = n > 0 ? hash_bytes(&spread_key, id, (size_t)n) : random_below(UINT64_MAX);
	number |= 1;
	return number;
}

/* This host's place in [0, bound). */
static uint64_t place(const struct pace *p, uint64_t bound)
{
	return bound ? p->spread % bound : 0;
}

void pace_init(struct pace *p, const char *name)
{
	uint64_t seed[2] = {host_number(), hash_bytes(&spread_key, name, strlen(name))};

	p->spread = hash_bytes(&spread_key, seed, sizeof(seed));
	pace_reset(p);
}

void pace_reset(struct pace *p)
{
	p->failures = 0;
	p->blocked = p->tried = false;
	p->next_try_ns = 0;
}

/* The outage is over: its backlog begins at this host's place in the crowd. */
static void recover(struct pace *p, uint64_t now_ns)
{
	uint64_t lasted = now_ns - MIN(p->outage_ns, now_ns);

	p->next_drain_ns = now_ns + place(p, MIN(lasted / 4, SPREAD_MAX_NS));
}

void pace_answered(struct pace *p, uint64_t now_ns)
{
	if (p->failures)
		recover(p, now_ns);
	pace_reset(p);
}

void pace_tried(struct pace *p, uint64_t now_ns)
{
	p->tried = true;
	p->blocked = false;
	p->next_try_ns = now_ns;
}

void pace_failed(struct pace *p, bool blocked, uint64_t asked_ns, uint64_t now_ns)
{
	unsigned doublings = MIN(p->failures, 16U);
	uint64_t bound = blocked ? MIN(BLOCKED_MIN_NS << doublings, BLOCKED_MAX_NS)
				 : MIN(BACK_OFF_MIN_NS << doublings, BACK_OFF_MAX_NS);
	uint64_t wait = blocked ? bound / 2 + random_below(bound / 2) : random_below(bound);

	if (!p->draining) {
		p->draining = true;
		p->outage_ns = now_ns;
	}
	p->failures++;
	p->blocked = blocked;
	p->tried = false;
	p->next_try_ns = now_ns + MAX(asked_ns + place(p, asked_ns / 10), wait + NSEC_PER_MSEC);
}

bool pace_wants_try(const struct pace *p)
{
	return !p->tried && (p->blocked || p->failures >= PACE_CIRCUIT);
}

void pace_found_backlog(struct pace *p, uint64_t age_ns, uint64_t now_ns)
{
	if (p->draining)
		return;
	p->draining = true;
	p->outage_ns = now_ns - MIN(age_ns, now_ns);
	recover(p, now_ns);
}

void pace_drained(struct pace *p, uint64_t bytes, uint64_t now_ns)
{
	if (p->draining && p->drain_rate)
		p->next_drain_ns = MAX(p->next_drain_ns, now_ns) +
			(uint64_t)((__uint128_t)bytes * NSEC_PER_SEC / p->drain_rate);
}

void pace_drain_end(struct pace *p)
{
	if (!p->failures)
		p->draining = false;
}
