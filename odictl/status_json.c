/* SPDX-License-Identifier: Apache-2.0 */

/* `odictl status --json`: all that agentd says, under names that stay. */

#include "odictl/destination.h"
#include "odictl/named.h"
#include "odictl/profiling.h"

static void json_ledger(struct json *j, const Control__Ledger *l)
{
	json_open(j, "ledger", '{');
	json_str(j, "type", l->type);
	json_uint(j, "due", l->due);
	json_uint(j, "taken", l->taken);
	json_uint(j, "late", l->late);
	json_uint(j, "idle", l->idle);
	json_uint(j, "ignored", l->ignored);
	json_uint(j, "lost", l->lost);
	json_open(j, "lost_by", '{');
	for (size_t i = 0; i < l->n_lost_by; i++)
		json_uint(j, l->lost_by[i]->cause, l->lost_by[i]->samples);
	json_close(j, '}');
	json_uint(j, "profiled", l->profiled);
	json_uint(j, "open", l->open);
	json_bool(j, "closes", l->closes);
	json_str(j, "gap", l->gap);
	json_open(j, "destinations", '{');
	for (size_t i = 0; i < l->n_destinations; i++)
		destination_ledger_json(j, l->destinations[i]->name, l->destinations[i]);
	json_close(j, '}');
	json_close(j, '}');
}

static void json_lists(struct json *j, const Control__Status *s)
{
	json_open(j, "sources", '[');
	for (size_t i = 0; i < s->n_sources; i++) {
		const Control__SourceState *x = s->sources[i];

		json_open(j, NULL, '{');
		json_str(j, "name", x->name);
		json_str(j, "kind", x->kind);
		json_str(j, "match", x->match);
		json_bool(j, "enabled", x->enabled);
		json_uint(j, "processes", x->images_now);
		json_uint(j, "taken_by_others", x->claimed_by_others);
		json_uint(j, "samples", x->samples);
		json_close(j, '}');
	}
	json_close(j, ']');
	json_open(j, "destinations", '[');
	for (size_t i = 0; i < s->n_destinations; i++)
		destination_json(j, s->destinations[i]);
	json_close(j, ']');
}

static void json_state(struct json *j, const Control__Status *s)
{
	json_open(j, "problems", '[');
	for (size_t i = 0; i < s->n_problems; i++) {
		json_open(j, NULL, '{');
		json_str(j, "severity", s->problems[i]->severity);
		json_str(j, "text", s->problems[i]->text);
		json_str(j, "remedy", s->problems[i]->remedy);
		json_close(j, '}');
	}
	json_close(j, ']');
	json_open(j, "processes", '[');
	for (size_t i = 0; i < s->n_processes; i++) {
		const Control__ProcessCost *p = s->processes[i];

		json_open(j, NULL, '{');
		json_str(j, "role", p->role);
		json_uint(j, "pid", p->pid);
		json_uint(j, "cpu_ns", p->cpu_ns);
		json_uint(j, "memory_bytes", p->memory_bytes);
		json_uint(j, "restarts", p->restarts);
		json_close(j, '}');
	}
	json_close(j, ']');
}

static void json_words(struct json *j, const char *name, char *const *words, size_t n)
{
	json_open(j, name, '[');
	for (size_t i = 0; i < n; i++)
		json_str(j, NULL, words[i]);
	json_close(j, ']');
}

static void json_sandboxes(struct json *j, const Control__Status *s)
{
	json_open(j, "sandboxes", '[');
	for (size_t i = 0; i < s->n_sandboxes; i++) {
		const Control__Sandbox *x = s->sandboxes[i];

		json_open(j, NULL, '{');
		json_str(j, "role", x->role);
		json_uint(j, "pid", x->pid);
		json_words(j, "has", x->has, x->n_has);
		json_words(j, "lacks", x->lacks, x->n_lacks);
		json_close(j, '}');
	}
	json_close(j, ']');
}

static void json_profiling(struct json *j, const Control__Status *s)
{
	json_open(j, "profiling", '{');
	profiling_json(j, s);
	json_uint(j, "cpus_online", s->cpus_online);
	json_uint(j, "cpus_sampled", s->cpus_sampled);
	json_close(j, '}');
}

static void json_stacks(struct json *j, const Control__Stacks *s)
{
	static const Control__Stacks none = CONTROL__STACKS__INIT;

	s = s ? s : &none;
	json_open(j, "stacks", '{');
	json_time(j, "since", s->since_unix_ns);
	json_uint(j, "samples", s->samples);
	json_uint(j, "to_root", s->to_root);
	json_num(j, "to_root_percent",
		s->samples ? 100.0 * (double)s->to_root / (double)s->samples : 0);
	json_uint(j, "guessed_samples", s->guessed_samples);
	json_uint(j, "guessed_frames", s->guessed_frames);
	json_open(j, "ended", '{');
	for (size_t i = 0; i < s->n_ends; i++)
		json_uint(j, s->ends[i]->key, s->ends[i]->samples);
	json_close(j, '}');
	json_open(j, "files", '[');
	for (size_t i = 0; i < s->n_files; i++) {
		json_open(j, NULL, '{');
		json_str(j, "file", s->files[i]->file);
		json_str(j, "ended", s->files[i]->key);
		json_uint(j, "samples", s->files[i]->samples);
		json_str(j, "problem", s->files[i]->problem);
		json_close(j, '}');
	}
	json_close(j, ']');
	json_uint(j, "other_files", s->other_files);
	json_close(j, '}');
}

static void json_unwinding(struct json *j, const Control__Unwinding *u)
{
	static const Control__Unwinding none = CONTROL__UNWINDING__INIT;

	u = u ? u : &none;
	json_open(j, "unwinding", '{');
	json_uint(j, "rows_bytes", u->rows_bytes);
	json_uint(j, "rows_used_bytes", u->rows_used_bytes);
	json_uint(j, "pages", u->pages);
	json_uint(j, "pages_added", u->pages_added);
	json_uint(j, "pages_evicted", u->pages_evicted);
	json_uint(j, "pages_asked", u->pages_asked);
	json_uint(j, "pages_made", u->pages_made);
	json_uint(j, "pages_refused", u->pages_refused);
	json_uint(j, "rows_made", u->rows_made);
	json_uint(j, "spaces", u->spaces);
	json_uint(j, "space_maps", u->space_maps);
	json_uint(j, "spaces_evicted", u->spaces_evicted);
	json_uint(j, "spaces_set", u->spaces_set);
	json_uint(j, "spaces_waiting", u->spaces_waiting);
	json_uint(j, "crashes", u->crashes);
	json_uint(j, "timeouts", u->timeouts);
	json_uint(j, "lies", u->lies);
	json_uint(j, "cpu_ns", u->cpu_ns);
	json_uint(j, "slices", u->slices);
	json_uint(j, "slices_refused", u->slices_refused);
	json_uint(j, "walks", u->walks);
	json_uint(j, "walks_waited", u->walks_waited);
	json_uint(j, "sent", u->sent);
	json_uint(j, "counted", u->counted);
	json_uint(j, "table_full", u->table_full);
	json_uint(j, "counts_waiting", u->counts_waiting);
	json_close(j, '}');
}

int status_print_json(const Control__Status *s)
{
	static const Control__Ledger none = CONTROL__LEDGER__INIT;
	struct json j;

	json_init(&j);
	json_open(&j, NULL, '{');
	json_bool(&j, "healthy", s->healthy);
	json_str(&j, "version", s->version);
	json_str(&j, "host", s->host);
	json_time(&j, "started", s->started_unix_ns);
	json_uint(&j, "revision", s->revision);
	json_profiling(&j, s);
	/* Always an object, and one: of the first type. */
	json_ledger(&j, s->n_ledger ? s->ledger[0] : &none);
	json_stacks(&j, s->stacks);
	json_unwinding(&j, s->unwinding);
	json_open(&j, "names", '{');
	json_uint(&j, "frames", s->frames);
	json_uint(&j, "named", s->frames_named);
	json_uint(&j, "user_frames", s->user_frames);
	json_uint(&j, "user_named", s->user_frames_named);
	json_close(&j, '}');
	json_open(&j, "local", '{');
	json_time(&j, "from", s->local_from_unix_ns);
	json_time(&j, "to", s->local_to_unix_ns);
	json_uint(&j, "bytes", s->local_bytes);
	json_uint(&j, "max_bytes", s->local_max_bytes);
	json_close(&j, '}');
	if (s->spool) {
		json_open(&j, "spool", '{');
		json_bool(&j, "on", s->spool->on);
		json_str(&j, "problem", s->spool->problem);
		json_uint(&j, "batches", s->spool->batches);
		json_uint(&j, "bytes", s->spool->bytes);
		json_uint(&j, "max_bytes", s->spool->max_bytes);
		json_uint(&j, "memory_batches", s->spool->memory_batches);
		json_uint(&j, "memory_bytes", s->spool->memory_bytes);
		json_uint(&j, "damaged", s->spool->damaged);
		json_uint(&j, "write_errors", s->spool->write_errors);
		json_uint(&j, "recovery_ns", s->spool->recovery_ns);
		json_close(&j, '}');
	}
	json_open(&j, "gap", '{');
	json_uint(&j, "count", s->gaps);
	json_time(&j, "from", s->gap_from_unix_ns);
	json_time(&j, "to", s->gap_to_unix_ns);
	json_close(&j, '}');
	json_uint(&j, "bpf_run_ns", s->bpf_run_ns);
	json_uint(&j, "images", s->images);
	json_lists(&j, s);
	json_state(&j, s);
	json_sandboxes(&j, s);
	json_open(&j, "details", '{');
	for (size_t i = 0; i < s->n_details; i++)
		json_str(&j, s->details[i]->key, s->details[i]->value);
	json_close(&j, '}');
	json_close(&j, '}');
	return json_print(&j, stdout);
}
