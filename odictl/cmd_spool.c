/* SPDX-License-Identifier: Apache-2.0 */

/* spool: what waits for destinations, on the disk and in memory. */

#include "agentd/base/clock.h"
#include "agentd/base/text.h"
#include "odictl/cli.h"

#define LIST_LINES 20

static const char *size_text(uint64_t bytes, char *out, size_t size)
{
	text_format_size(bytes, out, size);
	return out;
}

static int get_spool(struct cli *cli, uint32_t limit, Control__Reply **ret)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__GetSpool get = CONTROL__GET_SPOOL__INIT;

	get.limit = limit;
	request.verb_case = CONTROL__REQUEST__VERB_GET_SPOOL;
	request.get_spool = &get;
	return cli_call(cli, &request, ret);
}

static const char *join(const Control__SpoolBatch *b, char *out, size_t size)
{
	size_t at = 0;

	out[0] = '\0';
	for (size_t i = 0; i < b->n_destinations && at < size; i++)
		at += (size_t)snprintf(
			out + at, size - at, "%s%s", i ? ", " : "", b->destinations[i]);
	return out;
}

static void add_row(struct table *t, const Control__SpoolBatch *b)
{
	char from[40], age[32], bytes[32], samples[32], names[512];

	table_row(t,
		(const char *const[]){out_time(b->from_unix_ns, from, sizeof(from)),
			out_ago(b->to_unix_ns, age, sizeof(age)),
			size_text(b->bytes, bytes, sizeof(bytes)),
			out_number(b->samples, samples, sizeof(samples)),
			b->durable ? "disk" : "memory", join(b, names, sizeof(names))});
}

static void json_batch(struct json *j, const Control__SpoolBatch *b)
{
	json_open(j, NULL, '{');
	json_uint(j, "serial", b->serial);
	json_time(j, "from", b->from_unix_ns);
	json_time(j, "to", b->to_unix_ns);
	json_uint(j, "bytes", b->bytes);
	json_uint(j, "samples", b->samples);
	json_bool(j, "durable", b->durable);
	json_open(j, "destinations", '[');
	for (size_t i = 0; i < b->n_destinations; i++)
		json_str(j, NULL, b->destinations[i]);
	json_close(j, ']');
	json_close(j, '}');
}

int cmd_spool_list(struct cli *cli, struct args *args)
{
	static const char *const headers[] = {
		"FROM", "ENDED", "BYTES", "SAMPLES", "HELD ON", "WAITS FOR"};
	Control__Reply *reply = NULL;
	uint64_t lines = cli->json ? 1000 : LIST_LINES;
	struct table *t;
	struct json j;
	int r = args_number(cli, args, "lines", 1, 1000, &lines);

	if (r == 0)
		r = get_spool(cli, (uint32_t)lines, &reply);
	if (r)
		return r;
	if (cli->json) {
		json_init(&j);
		json_open(&j, NULL, '{');
		json_uint(&j, "waiting", reply->spool->waiting);
		json_open(&j, "batches", '[');
		for (size_t i = 0; i < reply->spool->n_batches; i++)
			json_batch(&j, reply->spool->batches[i]);
		json_close(&j, ']');
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else if (!reply->spool->waiting) {
		puts("nothing waits");
	} else {
		t = table_new(headers, "llrrll");
		for (size_t i = 0; i < reply->spool->n_batches; i++)
			add_row(t, reply->spool->batches[i]);
		table_print(t, stdout);
		if (reply->spool->waiting > reply->spool->n_batches)
			printf("%llu more, which are newer\n",
				(unsigned long long)(reply->spool->waiting -
					reply->spool->n_batches));
	}
	api_reply_free(reply);
	return r;
}

static int json_state(const Control__Spool *spool)
{
	const Control__SpoolState *s = spool->state;
	struct json j;

	json_init(&j);
	json_open(&j, NULL, '{');
	json_str(&j, "folder", s->folder);
	json_bool(&j, "known", s->known);
	json_bool(&j, "on", s->on);
	json_str(&j, "problem", s->problem);
	json_uint(&j, "waiting", spool->waiting);
	json_uint(&j, "batches", s->batches);
	json_uint(&j, "bytes", s->bytes);
	json_uint(&j, "max_bytes", s->max_bytes);
	json_uint(&j, "max_age_ns", s->max_age_ns);
	json_uint(&j, "segments", s->segments);
	json_uint(&j, "memory_batches", s->memory_batches);
	json_uint(&j, "memory_bytes", s->memory_bytes);
	json_uint(&j, "disk_free_bytes", s->free_bytes);
	json_uint(&j, "disk_bytes", s->disk_bytes);
	json_uint(&j, "damaged", s->damaged);
	json_uint(&j, "write_errors", s->write_errors);
	json_uint(&j, "recovery_ns", s->recovery_ns);
	json_close(&j, '}');
	return json_print(&j, stdout);
}

static void print_state(struct cli *cli, const Control__Spool *spool)
{
	const Control__SpoolState *s = spool->state;
	const Control__SpoolBatch *oldest = spool->n_batches ? spool->batches[0] : NULL;
	char a[48], b[48], c[48];

	out_line("folder", 14, "%s", s->folder);
	if (!s->known)
		out_line("state", 14, "no exporter runs: it does while a destination is enabled");
	else
		out_line("state", 14, "%s%s%s", s->on ? "" : out_red(cli),
			s->on ? "new batches go to the disk" : "batches are held in memory",
			s->on ? "" : out_plain(cli));
	if (s->problem[0])
		out_line("problem", 14, "%s", s->problem);
	out_line("waiting", 14, "%s%s%s", out_batches(spool->waiting, a, sizeof(a)),
		oldest ? ", the oldest began " : "",
		oldest ? out_ago(oldest->from_unix_ns, b, sizeof(b)) : "");
	if (!s->known)
		return;
	text_format_duration(s->max_age_ns, c, sizeof(c));
	out_line("disk", 14, "%s of %s in %u file%s, kept for %s at most",
		size_text(s->bytes, a, sizeof(a)), size_text(s->max_bytes, b, sizeof(b)),
		s->segments, s->segments == 1 ? "" : "s", c);
	if (s->disk_bytes)
		out_line("", 14, "%s of %s are free there", size_text(s->free_bytes, a, sizeof(a)),
			size_text(s->disk_bytes, b, sizeof(b)));
	if (s->memory_batches)
		out_line("memory", 14, "%s, %s", out_batches(s->memory_batches, b, sizeof(b)),
			size_text(s->memory_bytes, a, sizeof(a)));
	if (s->damaged)
		out_line("damaged", 14, "%s batches or stretches of bytes could not be read",
			out_number(s->damaged, a, sizeof(a)));
	if (s->write_errors)
		out_line("errors", 14, "%s times writing failed",
			out_number(s->write_errors, a, sizeof(a)));
}

int cmd_spool_show(struct cli *cli, struct args *args)
{
	Control__Reply *reply = NULL;
	int r = get_spool(cli, 1, &reply);

	if (r)
		return r;
	if (!reply->spool->state)
		r = cli_fail(cli, EXIT_FAILED, "agentd did not say how its spool is");
	else if (cli->json)
		r = json_state(reply->spool);
	else
		print_state(cli, reply->spool);
	api_reply_free(reply);
	return r;
}

int cmd_spool_drop(struct cli *cli, struct args *args)
{
	Control__Request request = CONTROL__REQUEST__INIT;
	Control__DropSpool drop = CONTROL__DROP_SPOOL__INIT;
	Control__Reply *reply = NULL;
	const char *age = args_value(args, "older-than");
	char question[160], a[32], b[32];
	struct json j;
	int r;

	if (!age)
		return cli_fail(cli, EXIT_USAGE,
			"say what may go: odictl spool drop --older-than 1h (0s: everything)");
	if (text_duration(age, &drop.older_than_ns) < 0)
		return cli_fail(cli, EXIT_USAGE, "'%s' is no time: 90s, 30m, 1h or 2d is one", age);
	snprintf(question, sizeof(question),
		"Give up, at all destinations, what waits and is older than %.40s?", age);
	r = cli_confirm(cli, question);
	if (r)
		return r;
	request.verb_case = CONTROL__REQUEST__VERB_DROP_SPOOL;
	request.drop_spool = &drop;
	r = cli_call(cli, &request, &reply);
	if (r)
		return r;
	if (cli->json) {
		json_init(&j);
		json_open(&j, NULL, '{');
		json_uint(&j, "batches", reply->spool_dropped->batches);
		json_uint(&j, "samples", reply->spool_dropped->samples);
		json_close(&j, '}');
		r = json_print(&j, stdout);
	} else {
		printf("given up: %s, %s samples, which the ledger counts as evicted\n",
			out_batches(reply->spool_dropped->batches, a, sizeof(a)),
			out_number(reply->spool_dropped->samples, b, sizeof(b)));
	}
	api_reply_free(reply);
	return r;
}
