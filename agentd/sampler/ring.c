/* SPDX-License-Identifier: Apache-2.0 */

/* The rings of perf: one a CPU, filled by a dummy software event with what BPF cannot see, that is
 * which executable ranges are mapped, and where an exec begins.
 *
 * perf_event_open(2) says how such a ring is read: the kernel moves data_head, we move data_tail,
 * and both only grow. Records are copied out whole (they may wrap around the end) and every length
 * is checked against the record's own size before anything is believed. With sample_id_all and
 * sample_type TIME alone, each record ends in its time.
 *
 * One kind does not: perf_event_ksymbol_output() adds that trailer's size to the header once for
 * each event that listens, and never takes it back (kernel/events/core.c, 5.10 to 6.18). Where
 * another profiler listens, too, the record is larger than what was written, and its end is whatever
 * the ring held before. So the time of such a record is not read; and no time is believed that has not come
 * yet, since one such would hold up, or carry away, all that follows. Runs in agentd. */

#include <linux/perf_event.h>
#include <sys/mman.h>
#include "agentd/base/clock.h"
#include "agentd/base/log.h"
#include "agentd/sampler/internal.h"

struct mmap2_record {
	struct perf_event_header header;
	uint32_t pid, tid;
	uint64_t start, len, pgoff;
	uint32_t major, minor;
	uint64_t inode, generation;
	uint32_t prot, flags;
	char path[]; /* NUL-terminated, padded to 8; then the time */
};

struct comm_record {
	struct perf_event_header header;
	uint32_t pid, tid;
};

struct lost_record {
	struct perf_event_header header;
	uint64_t id, lost;
};

#define TRAILER sizeof(uint64_t) /* the time */

int perf_ring_init(struct perf_ring *r, int fd)
{
	size_t size = (size_t)sysconf(_SC_PAGESIZE) + PERF_RING_BYTES;
	void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (map == MAP_FAILED)
		return -errno;
	*r = (struct perf_ring){.map = map, .map_size = size};
	return 0;
}

void perf_ring_deinit(struct perf_ring *r)
{
	if (r->map)
		munmap(r->map, r->map_size);
	*r = (struct perf_ring){0};
}

bool perf_record_check(const void *record, size_t size, uint64_t *time)
{
	const struct perf_event_header *header = record;
	size_t least;

	if (size < sizeof(*header) + TRAILER || header->size != size || size % 8)
		return false;
	switch (header->type) {
	case PERF_RECORD_MMAP2:
		if (header->misc & PERF_RECORD_MISC_MMAP_BUILD_ID)
			return false; /* was not asked for */
		least = sizeof(struct mmap2_record) + 8;
		break;
	case PERF_RECORD_COMM:
		if (!(header->misc & PERF_RECORD_MISC_COMM_EXEC))
			return false; /* a thread's new name */
		least = sizeof(struct comm_record);
		break;
	case PERF_RECORD_LOST:
		least = sizeof(struct lost_record);
		break;
	case PERF_RECORD_KSYMBOL: /* that it came is all that we want to know */
		*time = 0;
		return true;
	default:
		return false;
	}
	if (size < least + TRAILER)
		return false;
	if (header->type == PERF_RECORD_MMAP2 &&
		!memchr(((const struct mmap2_record *)record)->path, '\0',
			size - sizeof(struct mmap2_record) - TRAILER))
		return false;
	memcpy(time, (const char *)record + size - TRAILER, sizeof(*time));
	return true;
}

void perf_record_event(const void *record, size_t size, struct sampler_event *event)
{
	const struct perf_event_header *header = record;
	const struct mmap2_record *m = record;
	const struct comm_record *comm = record;

	switch (header->type) {
	case PERF_RECORD_MMAP2:
		event->kind = SAMPLER_MMAP;
		event->mmap = (struct sampler_mmap){
			.pid = m->pid,
			.tid = m->tid,
			.start = m->start,
			.len = m->len,
			.pgoff = m->pgoff,
			.major = m->major,
			.minor = m->minor,
			.inode = m->inode,
			.generation = m->generation,
			.prot = m->prot,
			.flags = m->flags,
			.path = m->path,
		};
		return;
	case PERF_RECORD_COMM:
		event->kind = SAMPLER_EXEC_BEGIN;
		event->mmap = (struct sampler_mmap){.pid = comm->pid, .tid = comm->tid, .path = ""};
		return;
	case PERF_RECORD_KSYMBOL:
		event->kind = SAMPLER_KERNEL_CODE;
		return;
	default:
		event->kind = SAMPLER_LOST_EVENTS;
		event->lost = ((const struct lost_record *)record)->lost;
	}
}

/* Copies out what may wrap around the ring's end. */
static void copy_out(const uint8_t *data, uint64_t at, void *to, size_t len)
{
	size_t offset = at & (PERF_RING_BYTES - 1), first = MIN(len, PERF_RING_BYTES - offset);

	memcpy(to, data + offset, first);
	memcpy((uint8_t *)to + first, data, len - first);
}

/* now: when head was read. */
static bool gather_one(struct sampler *s, const uint8_t *data, uint64_t tail, uint64_t head,
	uint64_t now, size_t *size)
{
	uint8_t record[65536] __attribute__((aligned(8)));
	struct perf_event_header header;
	struct sampler_event event;
	uint64_t time;

	if (head - tail < sizeof(header))
		return false;
	copy_out(data, tail, &header, sizeof(header));
	if (header.size < sizeof(header) || header.size > head - tail)
		return false;
	*size = header.size;
	copy_out(data, tail, record, header.size);
	if (!perf_record_check(record, header.size, &time))
		return true;
	if (header.type == PERF_RECORD_LOST) {
		perf_record_event(record, header.size, &event);
		s->lost_perf += event.lost;
	}
	time = time ? MIN(time, now) : now;
	if (stream_merge_add(s, time, record, header.size, true) < 0)
		stream_merge_lost(s);
	return true;
}

void perf_ring_gather(struct sampler *s, struct perf_ring *r)
{
	struct perf_event_mmap_page *page = r->map;
	const uint8_t *data;
	uint64_t head, tail, now;
	size_t size;

	if (!page)
		return;
	data = (const uint8_t *)page + sysconf(_SC_PAGESIZE);
	head = __atomic_load_n(&page->data_head, __ATOMIC_ACQUIRE);
	if (page->data_tail == head)
		return;
	now = clock_monotonic_ns();
	for (tail = page->data_tail; tail < head; tail += size) {
		if (gather_one(s, data, tail, head, now, &size))
			continue;
		/* Nothing behind it can be found. */
		log_warning("a ring of perf holds a malformed record; what was in it is lost");
		s->merge.malformed++;
		stream_merge_lost(s);
		tail = head;
		break;
	}
	__atomic_store_n(&page->data_tail, tail, __ATOMIC_RELEASE);
}
