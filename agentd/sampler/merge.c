/* SPDX-License-Identifier: Apache-2.0 */

/* One stream out of many rings, in the order of time.
 *
 * Samples and process records come through the BPF ring, which all CPUs share, mappings through one
 * ring of perf a CPU. A sample must be seen after the mapping that explains it, and before the one
 * that takes its place or the exec that ends it: one that is not would be given another file's
 * names. So a drain copies out what is there, sorts it by time, and hands out what is not younger
 * than a moment at which the stream is known to be whole (merge.whole).
 *
 * What makes it whole is not a time that is waited but the order of cause: a record is in its ring
 * before the code that caused it goes on. A mapping's record is there before anything can run in
 * that mapping, and a sample is there before the thread that it stopped can map or unmap anything,
 * or let another one do so. Therefore:
 *
 *   the rings of perf are read after the BPF ring: whatever explains a sample that was taken is
 *   there to be found, however long we were stopped between the two;
 *
 *   nothing is handed out that is younger than the moment before the BPF ring was read, and that
 *   only if all was taken that had been reserved there by then. A record that another CPU has not
 *   finished, or too many at once, leave some behind: those were reserved after everything that was
 *   taken, so that the newest of it is as far as the stream is whole.
 *
 * SLACK_NS does nothing for that. It keeps records of several CPUs, that have no cause in each
 * other, in order: between taking the time and being readable lie some microseconds, more when the
 * hypervisor stops that CPU in between. One that comes later all the same is handed out late and
 * counted (out_of_order). Who asks for everything there is does not wait for those.
 *
 * Bounded: BPF_TAKE_MAX bytes of the BPF ring at once, and the rings of perf. When there was more,
 * the next round takes the rest. Memory that a burst took is given back. Every record's lengths are
 * checked here, so that readers may trust them.
 *
 * Some samples carry a slice of a stack, which holds whatever a program was working on: its bytes
 * are wiped as soon as what was due was handed out, also where the store moved or shrank. (What the
 * kernel's ring still holds of it is overwritten by what comes next.) Runs in agentd. */

#include <time.h>
#include <bpf/libbpf.h>
#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/sampler/internal.h"

#define ROUNDS        4           /* of gathering in one drain, before the loop gets its turn */
#define ROUNDS_ALL    256         /* the same where everything is asked for */
#define PAUSE_NS      (50 * 1000) /* for a record that is being written */
#define PAUSES_NS     (20 * NSEC_PER_MSEC) /* all of them in one drain */
#define STORE_FIRST   (size_t)(64U << 10)
#define STORE_KEEP    (256U << 10) /* bytes kept between drains */
#define ENTRIES_FIRST 256
#define PADDED(size)  (((size) + 7) & ~(size_t)7) /* records are aligned as in the rings */

static bool has_slice(const void *record, bool perf)
{
	const struct record_sample *sample = record;

	return !perf && sample->header.kind == RECORD_SAMPLE && sample->stack;
}

/* Gives the store another size; what slices it held is nowhere else afterwards. */
static int resize(struct buf *b, size_t size)
{
	uint8_t *data = malloc(size);

	if (!data)
		return -ENOMEM;
	if (b->len)
		memcpy(data, b->data, b->len);
	if (b->data)
		explicit_bzero(b->data, b->len);
	free(b->data);
	b->data = data;
	b->size = size;
	return 0;
}

static void *reserve(struct merge *m, size_t len)
{
	struct buf *b = &m->store;
	size_t need = b->len + len + 1, size = MAX(b->size, STORE_FIRST);

	if (need > b->cap)
		return NULL;
	while (size < need)
		size *= 2;
	if (need > b->size && resize(b, MIN(size, b->cap)) < 0)
		return NULL;
	return b->data + b->len;
}

void stream_merge_lost(struct sampler *s)
{
	s->lost_perf++;
	s->merge.lost++;
}

int stream_merge_add(struct sampler *s, uint64_t time, const void *record, size_t size, bool perf)
{
	struct merge *m = &s->merge;
	size_t offset = m->store.len, padded = PADDED(size);
	struct stream_merge_entry *entries;
	void *to;

	if (m->n == m->size) {
		size_t more = m->size ? 2 * m->size : ENTRIES_FIRST;

		entries = reallocarray(m->entries, more, sizeof(*entries));
		if (!entries)
			return -ENOMEM;
		m->entries = entries;
		m->size = more;
	}
	to = reserve(m, padded);
	if (!to)
		return -ENOMEM; /* the next, smaller one may fit */
	memcpy(to, record, size);
	m->store.len += padded;
	if (time <= m->handed_out)
		m->out_of_order++;
	m->entries[m->n] = (struct stream_merge_entry){
		.time = time,
		.offset = (uint32_t)offset,
		.size = (uint32_t)size,
		.perf = perf,
	};
	m->slices = m->slices || has_slice(record, perf);
	m->n++;
	return 0;
}

static bool stack_check(const struct sample_stack *stack, size_t size)
{
	uint64_t pages;

	if (size < sizeof(*stack) || stack->len != size - sizeof(*stack) ||
		stack->len > SLICE_MAX || stack->start % 8)
		return false;
	pages = (stack->start % SAMPLE_STACK_PAGE + stack->len + SAMPLE_STACK_PAGE - 1) /
		SAMPLE_STACK_PAGE;
	return pages <= SAMPLE_STACK_PAGES && (uint64_t)stack->present >> pages == 0;
}

static bool sample_check(const struct record_sample *sample, size_t size)
{
	size_t frames;

	if (size < sizeof(*sample) || sample->n_frames > SAMPLE_MAX_FRAMES ||
		sample->end >= WALK_ENDS)
		return false;
	frames = sizeof(*sample) + sample->n_frames * sizeof(struct sample_frame);
	if (size < frames || sample->stack != size - frames)
		return false;
	return sample->stack == 0 ||
		stack_check((const void *)((const uint8_t *)sample + frames), sample->stack);
}

bool sample_record_check(const void *record, size_t size)
{
	const struct record_header *header = record;
	const struct record_process *process = record;

	if (size < sizeof(*header) || header->size != size || header->version != SAMPLE_VERSION)
		return false;
	switch (header->kind) {
	case RECORD_SAMPLE:
		return sample_check(record, size);
	case RECORD_EXEC:
	case RECORD_FORK:
	case RECORD_EXIT:
	case RECORD_CGROUP:
		return size >= sizeof(*process) && process->cgroup_len == size - sizeof(*process);
	default:
		return false;
	}
}

/* Called back by libbpf for each record of the BPF ring; a negative answer stops after this one. */
int stream_merge_on_record(void *userdata, void *data, size_t size)
{
	struct sampler *s = userdata;
	const struct record_header *header = data;

	if (!sample_record_check(data, size)) {
		log_warning("the BPF ring held a malformed record of %zu bytes", size);
		s->merge.malformed++;
		stream_merge_lost(s);
		return 0;
	}
	s->merge.newest_bpf = MAX(s->merge.newest_bpf, header->time);
	if (stream_merge_add(s, header->time, data, size, false) < 0) {
		if (header->kind == RECORD_SAMPLE)
			s->lost_memory++;
		else
			stream_merge_lost(s);
	}
	s->merge.bpf_taken += size;
	return s->merge.bpf_taken >= BPF_TAKE_MAX ? -EAGAIN : 0;
}

static int by_time(const void *a, const void *b)
{
	const struct stream_merge_entry *x = a, *y = b;

	if (x->time != y->time)
		return x->time < y->time ? -1 : 1;
	return x->offset < y->offset ? -1 : x->offset > y->offset; /* as they arrived */
}

static void hand_out(struct sampler *s, const struct stream_merge_entry *e)
{
	const void *record = s->merge.store.data + e->offset;
	const struct record_header *header = record;
	struct sampler_event event = {.time_ns = e->time};

	if (e->perf) {
		perf_record_event(record, e->size, &event);
		s->ops.on_event(s->userdata, &event);
		return;
	}
	switch (header->kind) {
	case RECORD_SAMPLE:
		event.kind = SAMPLER_SAMPLE;
		event.sample = record;
		s->received++;
		break;
	case RECORD_EXEC:
		event.kind = SAMPLER_EXEC;
		event.process = record;
		break;
	case RECORD_FORK:
		event.kind = SAMPLER_FORK;
		event.process = record;
		break;
	case RECORD_EXIT:
		event.kind = SAMPLER_EXIT;
		event.process = record;
		break;
	default:
		event.kind = SAMPLER_CGROUP;
		event.process = record;
	}
	s->ops.on_event(s->userdata, &event);
}

/* Records that found a ring full, or no memory here, leave a gap at an unknown time since the last
 * hand-out: told first. */
static void tell_lost(struct sampler *s)
{
	uint64_t lost = sampler_raw_counter(s, COUNT_EVENT_LOST) + s->merge.lost;
	struct sampler_event event = {
		.kind = SAMPLER_LOST_EVENTS,
		.time_ns = s->merge.handed_out,
		.lost = lost - s->lost_bpf_told,
	};

	if (!event.lost)
		return;
	s->lost_bpf_told = lost;
	log_warning("%llu process records were lost: the ring was full, or there was no memory",
		(unsigned long long)event.lost);
	s->ops.on_event(s->userdata, &event);
}

static int by_offset(const void *a, const void *b)
{
	const struct stream_merge_entry *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Moves what waits on, from the first such entry, to the front; gives back what a burst took. */
static void keep_rest(struct merge *m, size_t first)
{
	size_t len = 0;

	m->n -= first;
	if (first && m->n)
		memmove(m->entries, m->entries + first, m->n * sizeof(*m->entries));
	/* In the order in which they lie, so that no byte is overwritten before it was moved. */
	if (m->n)
		qsort(m->entries, m->n, sizeof(*m->entries), by_offset);
	for (size_t i = 0; i < m->n; i++) {
		struct stream_merge_entry *e = &m->entries[i];

		memmove(m->store.data + len, m->store.data + e->offset, e->size);
		e->offset = (uint32_t)len;
		len += PADDED(e->size);
	}
	/* What was handed out, and what moved, left its bytes behind. */
	if (m->slices)
		explicit_bzero(m->store.data + len, m->store.len - len);
	m->slices = m->slices && m->n;
	m->store.len = len;
	if (m->store.size > STORE_KEEP && len < STORE_KEEP)
		(void)resize(&m->store, STORE_KEEP);
}

/* True when the BPF ring had more than we take at once. */
static bool gather(struct sampler *s)
{
	struct merge *m = &s->merge;
	const uint8_t *positions = s->shared[SHARED_RING].at;
	const uint64_t *consumed = (const void *)positions;
	const uint64_t *produced = (const void *)(positions + sysconf(_SC_PAGESIZE));
	uint64_t now = clock_monotonic_ns(), until = __atomic_load_n(produced, __ATOMIC_ACQUIRE);
	bool more;

	m->bpf_taken = 0;
	more = ring_buffer__consume(s->ring) == -EAGAIN;
	if (__atomic_load_n(consumed, __ATOMIC_ACQUIRE) >= until)
		m->whole = MAX(m->whole, now);
	else
		m->whole = MAX(m->whole, m->newest_bpf);
	for (size_t i = 0; i < s->n_cpus; i++)
		perf_ring_gather(s, &s->cpus[i].ring);
	return more;
}

/* Hands out what is not younger than horizon; returns how many that were. */
static size_t hand_out_until(struct sampler *s, uint64_t horizon)
{
	struct merge *m = &s->merge;
	size_t i = 0;

	if (m->n)
		qsort(m->entries, m->n, sizeof(*m->entries), by_time);
	for (; i < m->n && m->entries[i].time <= horizon; i++) {
		m->handed_out = MAX(m->handed_out, m->entries[i].time);
		hand_out(s, &m->entries[i]);
	}
	keep_rest(m, i);
	return i;
}

bool stream_merge_drain(struct sampler *s, bool all)
{
	struct merge *m = &s->merge;
	uint64_t began = clock_monotonic_ns();
	bool more = true;

	if (m->draining)
		return false;
	m->draining = true;
	for (unsigned round = 0; round < (all ? ROUNDS_ALL : ROUNDS); round++) {
		uint64_t settled = clock_monotonic_ns() - SLACK_NS, horizon;

		more = gather(s);
		tell_lost(s);
		horizon = all ? m->whole : MIN(m->whole, settled);
		/* So many in so short a time: go on. */
		if ((!hand_out_until(s, horizon) || m->store.len > BPF_TAKE_MAX) && more) {
			horizon = m->whole;
			hand_out_until(s, horizon);
		}
		m->handed_out = MAX(m->handed_out, horizon);
		if (!more &&
			(!all || m->whole >= began || clock_monotonic_ns() >= began + PAUSES_NS))
			break;
		if (!more)
			nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
	}
	m->draining = false;
	if (s->ops.on_drained)
		s->ops.on_drained(s->userdata, m->handed_out);
	return more;
}

void stream_merge_init(struct merge *m, size_t n_cpus)
{
	*m = (struct merge){0};
	buf_init(&m->store, 2 * BPF_TAKE_MAX + 2 * n_cpus * PERF_RING_BYTES);
}

void stream_merge_deinit(struct merge *m)
{
	if (m->store.data)
		explicit_bzero(m->store.data, m->store.len);
	buf_deinit(&m->store);
	free(m->entries);
	*m = (struct merge){0};
}
