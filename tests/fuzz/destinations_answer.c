/* SPDX-License-Identifier: Apache-2.0 */

/* Any sequence of answers of an exporter: none may break the sums of agentd's ledger. The first byte of each round picks
 * an action, what follows is the message's content. libFuzzer. */

#include "agentd/base/io.h"
#include "destinations/link_private.h"

#define SAMPLES 100

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct link *l)
{
	for (size_t i = 0; i < l->n_dests; i++) {
		const struct link_destination *row = &l->dests[i]->row;
		uint64_t settled = row->ledger[0].delivered + row->ledger[0].evicted +
			row->ledger[0].rejected + row->ledger[0].shaped;

		if (row->ledger[0].routed != settled + row->ledger[0].held ||
			settled > row->ledger[0].routed)
			abort();
	}
}

static struct link *make(void)
{
	struct link *l = calloc(1, sizeof(*l));

	if (!l)
		abort();
	l->config.max_unheld_bytes = 1 << 20;
	l->dests = calloc(2, sizeof(*l->dests));
	for (uint32_t i = 0; i < 2; i++) {
		struct link_dest *d = calloc(1, sizeof(*d));

		d->id = ++l->next_dest;
		d->configured = d->enabled = true;
		l->dests[l->n_dests++] = d;
	}
	return l;
}

static void answer(struct link *l, const uint8_t **data, size_t *size)
{
	struct message_answer a = {.header = protocol_header(MESSAGE_ANSWER, sizeof(a))};
	const char *why;
	uint8_t in[8] = {0};
	size_t n = MIN(*size, sizeof(in));

	memcpy(in, *data, n);
	*data += n;
	*size -= n;
	a.id = in[0] % 8;
	a.destination = in[1] % 4;
	a.final = in[2] & 1;
	a.row = in[3];
	for (size_t f = 0; f < FATES; f++)
		a.counts.samples[f][0] = in[4 + f] == 0xff ? UINT64_MAX : in[4 + f] % (SAMPLES + 2);
	(void)ledger_answer(l, &a, &why);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct link *l = make();

	while (size) {
		struct batch_header header = {.samples = {SAMPLES}};
		uint8_t action = *data++;

		size--;
		switch (action % 8) {
		case 0:
			(void)ledger_add(l, &header, io_sealed_memfd("fuzz", "bytes", 5));
			break;
		case 1:
			for (size_t i = 0; i < l->n_batches; i++)
				l->batches[i]->given = true;
			break;
		case 2:
			ledger_take_back(l);
			break;
		case 3:
			l->dests[action / 8 % l->n_dests]->enabled ^= true;
			ledger_evict_unrouted(l);
			break;
		case 4:
			ledger_give_up_oldest(l);
			break;
		default:
			answer(l, &data, &size);
		}
		check(l);
	}
	ledger_deinit(l);
	free(l);
	return 0;
}
