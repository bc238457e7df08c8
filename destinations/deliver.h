/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* One destination in the exporter: its queue, its sender, when it is tried again, and what it tells agentd. */

#include "destinations/queue.h"
#include "destinations/transport.h"

struct deliver;

/* Sends a message to agentd; the exporter ends when that fails. */
typedef void deliver_tell_fn(const void *message, size_t len);

/* spec is copied. Options that cannot be used make a destination that only queues and says why. */
int deliver_new(struct deliver **ret, const struct destination_spec *spec, deliver_tell_fn *tell);
struct deliver *deliver_free(struct deliver *d); /* without an answer for what it holds */
uint32_t deliver_id(const struct deliver *d);
/* Takes other options, keeps the queue; without a difference nothing happens. Also calls back one that was leaving. */
int deliver_configure(struct deliver *d, const struct destination_spec *spec, uint64_t queue_bytes);
int deliver_push(
	struct deliver *d, struct held_batch *b, uint64_t row, const struct message_counts *counts);
/* Gives the batch up, for want of room. false: a request of it is under way. Held by nobody else it is gone then. */
bool deliver_evict(struct deliver *d, const struct held_batch *b);
/* Where the batch is in its queue; NULL: it is not. */
const struct queue_item *deliver_find(struct deliver *d, const struct held_batch *b);
bool deliver_busy(const struct deliver *d); /* a request is under way */
/* It was removed or disabled: what is under way may end, within a bound; all else is evicted, at once. */
void deliver_leave(struct deliver *d);
bool deliver_gone(const struct deliver *d); /* has left: free it */
/* Evicts what is too much or too old, starts what can be started. *wake_ns (monotonic) becomes the time when it
 * wants to be called again, if that is sooner. */
void deliver_run(struct deliver *d, uint64_t now_ns, uint64_t *wake_ns);
