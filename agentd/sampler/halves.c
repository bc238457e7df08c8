/* SPDX-License-Identifier: Apache-2.0 */

/* What the programs counted, taken exactly.
 *
 * A stack is sent once in each half and counted from then on. To take the counts: hand out what was
 * sent, turn the halves over, wait until every run that may have begun before is over, hand out
 * what those sent meanwhile, and only then read: so whoever is told of a count knows the stack.
 * Nothing is read while it may still be written, and nothing is cleared that was not read: no count
 * is lost, none is told twice.
 *
 * Nor is anything told while the stream is not whole up to the turn (merge.c): a mapping that it
 * has not handed out may be why a count is of no good.
 *
 * A CPU that does not leave (one that the hypervisor stopped right there) keeps its half until the
 * next time. If it is still there then, the halves are turned all the same, and what it holds is
 * told when that half's turn comes again. Runs in agentd. */

#include <time.h>
#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/sampler/internal.h"

#define SETTLE_NS NSEC_PER_MSEC /* as long as any store buffer needs, many times over */
#define LEAVE_NS  NSEC_PER_SEC
#define PAUSE_NS  (200 * 1000)

uint64_t halves_take(struct count_table *table, uint32_t half,
	void (*on_count)(void *userdata, uint64_t id, uint64_t samples, uint64_t last_ns),
	void *userdata)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < ARRAY_SIZE(table->half[0]); i++) {
		struct count_entry *e = &table->half[half & 1][i], was = *e;

		if (!was.id)
			continue;
		*e = (struct count_entry){0};
		sum += was.samples;
		if (was.samples && on_count)
			on_count(userdata, was.id, was.samples, was.last_ns);
	}
	return sum;
}

static void take(struct sampler *s, size_t cpu, uint32_t half)
{
	s->halves.collected +=
		halves_take(&s->halves.tables[cpu], half, s->ops.on_count, s->userdata);
	s->halves.left[cpu] = 0;
}

/* Halves that could not be read the last time, before they are filled again. */
static void take_left(struct sampler *s, uint32_t filled)
{
	for (size_t i = 0; i < s->n_cpus; i++)
		if (s->halves.left[i] == 2 - filled && quiet_cpu(&s->halves.quiet, i))
			take(s, i, !filled);
}

static void wait_for(struct sampler *s, size_t cpu, uint64_t until)
{
	const struct quiet *q = &s->halves.quiet;

	while (!quiet_cpu(q, cpu) && clock_monotonic_ns() < until)
		nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
}

/* False: what happened before the call is not all handed out. */
static bool drain_whole(struct sampler *s)
{
	uint64_t now = clock_monotonic_ns();

	sampler_drain(s);
	return s->merge.handed_out >= now;
}

void sampler_collect(struct sampler *s)
{
	volatile sample_u32 *half = &s->skel->data->settings.half;
	uint32_t old = *half & 1;
	uint64_t until;
	bool whole;

	if (s->merge.draining)
		return;
	if (drain_whole(s))
		take_left(s, old);
	__atomic_store_n(half, !old, __ATOMIC_RELEASE);
	quiet_mark(&s->halves.quiet);
	until = clock_monotonic_ns() + LEAVE_NS;
	nanosleep(&(struct timespec){.tv_nsec = SETTLE_NS}, NULL);
	for (size_t i = 0; i < s->n_cpus; i++)
		if (!s->halves.left[i]) /* or it kept us waiting the last time */
			wait_for(s, i, until);
	whole = drain_whole(s);
	for (size_t i = 0; i < s->n_cpus; i++) {
		if (whole && quiet_cpu(&s->halves.quiet, i)) {
			take(s, i, old);
			continue;
		}
		s->halves.left[i] = (uint8_t)(1 + old);
		log_warning("CPU %zu%s stands still within a record: its counts come the next time",
			i, whole ? "" : ", or another,");
	}
}
