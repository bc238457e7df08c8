/* SPDX-License-Identifier: Apache-2.0 */

/* Batches as Parca's WriteRaw takes them.
 *
 * Parca's reading of OTLP names functions off by one, so what is symbolized on the host goes to it as pprof. Each part
 * of a batch is a series: its labels say whose it is, its one sample is the pprof. Parca refuses the whole request for
 * one label whose name is not a Prometheus one, or that is there twice: names are made to fit, and of two that became
 * the same the first (in the order of their keys) stays.
 *
 * Addresses are those of the ELF files, which Parca calls normalized. Runs in the exporter. Source: Parca's
 * profilestore.proto and the checks of its pkg/normalizer. */

#include "agentd/base/compress.h"
#include "agentd/profile/pprof.h"
#include "agentd/wire/parca.pb-c.h"
#include "destinations/write_raw.h"

#define GZIP_LEVEL 6
#define MAX_LABELS 64
#define MAX_NAME   128

struct series {
	Parca__RawProfileSeries message, *pointer;
	Parca__LabelSet set;
	Parca__RawSample sample, *sample_pointer;
	Parca__Label labels[MAX_LABELS], *label_pointers[MAX_LABELS];
	char names[MAX_LABELS][MAX_NAME];
	struct buf pprof;
};

static void label_name(const char *key, char out[MAX_NAME])
{
	size_t n = 0;

	if (*key >= '0' && *key <= '9')
		out[n++] = '_';
	for (; *key && n + 1 < MAX_NAME; key++)
		out[n++] = (*key >= 'a' && *key <= 'z') || (*key >= 'A' && *key <= 'Z') ||
				(*key >= '0' && *key <= '9')
			? *key
			: '_';
	out[n] = 0;
}

static void add_label(struct series *s, const char *key, const char *value)
{
	size_t n = s->set.n_labels;

	if (n == MAX_LABELS || !*value)
		return;
	label_name(key, s->names[n]);
	for (size_t i = 0; i < n; i++)
		if (streq(s->names[i], s->names[n]))
			return;
	s->labels[n] = (Parca__Label)PARCA__LABEL__INIT;
	s->labels[n].name = s->names[n];
	s->labels[n].value = (char *)(uintptr_t)value;
	s->label_pointers[n] = &s->labels[n];
	s->set.n_labels++;
}

/* Names that Parca's users know: its agents call on-CPU time so. */
static const char *series_name(const struct profile_type *type)
{
	return streq(type->name, "cpu") ? "process_cpu" : type->name;
}

static int make_series(struct series *s, const struct batch *b, uint32_t part)
{
	const struct profile_part *p = batch_part_at(b, part);
	const struct pprof_options options = {0};
	_cleanup_buf_ struct buf raw;
	size_t n;
	const struct profile_resource_attribute *a = batch_resource_at(b, p->resource, &n);
	int r;

	parca__raw_profile_series__init(&s->message);
	parca__label_set__init(&s->set);
	parca__raw_sample__init(&s->sample);
	s->set.labels = s->label_pointers;
	add_label(s, "__name__", series_name(&profile_types[p->type]));
	for (size_t i = 0; i < n; i++)
		if (!a[i].is_int)
			add_label(s, batch_string_at(b, a[i].key), batch_string_at(b, a[i].value));
	buf_init(&raw, PROFILE_MAX_ENCODED);
	buf_init(&s->pprof, 0);
	r = profile_pprof(b, &part, 1, &options, &raw);
	if (r == 0)
		r = compress_gzip(raw.data, raw.len, GZIP_LEVEL, &s->pprof);
	if (r < 0)
		return r;
	s->sample.raw_profile.data = s->pprof.data;
	s->sample.raw_profile.len = s->pprof.len;
	s->sample_pointer = &s->sample;
	s->message.labels = &s->set;
	s->message.samples = &s->sample_pointer;
	s->message.n_samples = 1;
	s->pointer = &s->message;
	return 0;
}

static int pack(const Parca__WriteRawRequest *m, struct buf *out)
{
	size_t size = parca__write_raw_request__get_packed_size(m);
	uint8_t *at;

	if (size > PROFILE_MAX_ENCODED)
		return -E2BIG;
	at = buf_reserve(out, size + 1);
	if (!at)
		return buf_error(out);
	parca__write_raw_request__pack(m, at);
	buf_commit(out, size);
	return 0;
}

int write_raw_encode(const struct batch *b, const uint32_t *parts, size_t n_parts, struct buf *out)
{
	Parca__WriteRawRequest m = PARCA__WRITE_RAW_REQUEST__INIT;
	_cleanup_free_ Parca__RawProfileSeries **pointers = calloc(n_parts + 1, sizeof(*pointers));
	_cleanup_free_ struct series **all = calloc(n_parts + 1, sizeof(*all));
	int r = pointers && all ? 0 : -ENOMEM;

	for (size_t i = 0; i < n_parts && r == 0; i++) {
		all[i] = calloc(1, sizeof(**all));
		r = all[i] ? make_series(all[i], b, parts[i]) : -ENOMEM;
		if (r == 0)
			pointers[i] = all[i]->pointer;
	}
	m.series = pointers;
	m.n_series = n_parts;
	m.normalized = true;
	if (r == 0)
		r = pack(&m, out);
	for (size_t i = 0; all && i < n_parts && all[i]; i++) {
		buf_deinit(&all[i]->pprof);
		free(all[i]);
	}
	return r;
}

int write_raw_encode_empty(struct buf *out)
{
	Parca__WriteRawRequest m = PARCA__WRITE_RAW_REQUEST__INIT;

	m.normalized = true;
	return pack(&m, out);
}
