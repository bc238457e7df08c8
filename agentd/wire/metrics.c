/* SPDX-License-Identifier: Apache-2.0 */

/* Metrics as text and as OTLP, from one set, so that both say the same.
 *
 * The set is a list of families, each a run of points. Text: a family's lines stand together, HELP and UNIT before the
 * first, counters end with _total, histograms are cumulative, and the last line is # EOF. OTLP: nested messages are
 * written inside out, each into a buffer of its own; all counters and histograms are cumulative since agentd started,
 * which a reset (agentd's restart) shows by the new start time. Runs in agentd.
 *
 * Source: OpenMetrics 1.0 (github.com/OpenObservability/OpenMetrics); opentelemetry-proto metrics/v1. */

#include <math.h>

#include "agentd/base/text.h"
#include "agentd/wire/metrics.h"

struct family {
	enum metric_type type;
	const char *name, *unit, *help;
	size_t first, n; /* points */
};

struct point {
	struct metric_label labels[METRICS_MAX_LABELS]; /* values are ours */
	size_t n_labels;
	bool is_double;
	uint64_t count;
	double number; /* or a histogram's sum */
	const double *bounds;
	uint64_t *counts;
	size_t n_bounds;
};

struct metrics {
	struct family *families;
	size_t n_families, room_families;
	struct point *points;
	size_t n_points, room_points;
	int error;
};

/* ---- the set ------------------------------------------------------------------------------------- */

int metrics_new(struct metrics **ret)
{
	struct metrics *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	*ret = m;
	return 0;
}

struct metrics *metrics_free(struct metrics *m)
{
	if (!m)
		return NULL;
	for (size_t i = 0; i < m->n_points; i++) {
		for (size_t k = 0; k < m->points[i].n_labels; k++)
			free((char *)m->points[i].labels[k].value);
		free(m->points[i].counts);
	}
	free(m->points);
	free(m->families);
	free(m);
	return NULL;
}

int metrics_error(const struct metrics *m)
{
	return m->error;
}

void metrics_family(struct metrics *m, enum metric_type type, const char *name, const char *unit,
	const char *help)
{
	if (m->n_families == m->room_families) {
		size_t room = MAX(2 * m->room_families, (size_t)32);
		struct family *grown = reallocarray(m->families, room, sizeof(*grown));

		if (!grown) {
			m->error = -ENOMEM;
			return;
		}
		m->families = grown;
		m->room_families = room;
	}
	m->families[m->n_families++] = (struct family){type, name, unit, help, m->n_points, 0};
}

static struct point *add_point(struct metrics *m, const struct metric_label *labels, size_t n)
{
	struct point *p;

	if (m->error || !m->n_families)
		return NULL;
	if (m->n_points == m->room_points) {
		size_t room = MAX(2 * m->room_points, (size_t)64);
		struct point *grown = reallocarray(m->points, room, sizeof(*grown));

		if (!grown) {
			m->error = -ENOMEM;
			return NULL;
		}
		m->points = grown;
		m->room_points = room;
	}
	p = &m->points[m->n_points++];
	*p = (struct point){0};
	m->families[m->n_families - 1].n++;
	for (size_t i = 0; i < MIN(n, (size_t)METRICS_MAX_LABELS); i++) {
		char *value = strdup(labels[i].value ? labels[i].value : "");

		if (!value) {
			m->error = -ENOMEM;
			return NULL;
		}
		text_clean(value);
		p->labels[p->n_labels++] = (struct metric_label){labels[i].key, value};
	}
	return p;
}

void metrics_count(struct metrics *m, uint64_t value, const struct metric_label *labels, size_t n)
{
	struct point *p = add_point(m, labels, n);

	if (p)
		p->count = value;
}

void metrics_number(struct metrics *m, double value, const struct metric_label *labels, size_t n)
{
	struct point *p = add_point(m, labels, n);

	if (!p)
		return;
	p->is_double = true;
	p->number = value;
}

void metrics_histogram(struct metrics *m, const double *bounds, const uint64_t *counts,
	size_t n_bounds, double sum, const struct metric_label *labels, size_t n)
{
	struct point *p = add_point(m, labels, n);

	if (!p)
		return;
	p->counts = calloc(n_bounds + 1, sizeof(*p->counts));
	if (!p->counts) {
		m->error = -ENOMEM;
		return;
	}
	memcpy(p->counts, counts, (n_bounds + 1) * sizeof(*p->counts));
	p->bounds = bounds;
	p->n_bounds = n_bounds;
	p->number = sum;
	for (size_t i = 0; i <= n_bounds; i++)
		p->count += counts[i];
}

/* ---- text ---------------------------------------------------------------------------------------- */

static void put_escaped(struct buf *out, const char *s)
{
	for (; *s; s++) {
		if (*s == '\\' || *s == '"')
			buf_add(out, "\\", 1);
		buf_add(out, s, 1);
	}
}

static void put_name(struct buf *out, const struct family *f, const char *suffix,
	const struct point *p, const char *bound)
{
	buf_printf(out, "%s%s", f->name, suffix);
	for (size_t i = 0; i < p->n_labels; i++) {
		buf_printf(out, "%s%s=\"", i ? "," : "{", p->labels[i].key);
		put_escaped(out, p->labels[i].value);
		buf_str(out, "\"");
	}
	if (bound)
		buf_printf(out, "%sle=\"%s\"", p->n_labels ? "," : "{", bound);
	buf_str(out, p->n_labels || bound ? "} " : " ");
}

static void put_number(struct buf *out, double value)
{
	char text[40];

	/* The shortest that reads back the same. */
	for (int digits = 6; digits <= 17; digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, value);
		if (strtod(text, NULL) == value)
			break;
	}
	buf_str(out, isnan(value) ? "NaN" : isinf(value) ? (value < 0 ? "-Inf" : "+Inf") : text);
	buf_str(out, "\n");
}

static void put_histogram(struct buf *out, const struct family *f, const struct point *p)
{
	uint64_t sum = 0;

	for (size_t i = 0; i <= p->n_bounds; i++) {
		char bound[40] = "+Inf";

		if (i < p->n_bounds)
			snprintf(bound, sizeof(bound), "%.6g%s", p->bounds[i],
				p->bounds[i] == (double)(long long)p->bounds[i] ? ".0" : "");
		sum += p->counts[i];
		put_name(out, f, "_bucket", p, bound);
		buf_printf(out, "%llu\n", (unsigned long long)sum);
	}
	put_name(out, f, "_count", p, NULL);
	buf_printf(out, "%llu\n", (unsigned long long)p->count);
	put_name(out, f, "_sum", p, NULL);
	put_number(out, p->number);
}

void metrics_text(const struct metrics *m, struct buf *out)
{
	static const char *const types[] = {"counter", "gauge", "histogram", "info"};
	static const char *const suffixes[] = {"_total", "", "", "_info"};

	for (size_t i = 0; i < m->n_families; i++) {
		const struct family *f = &m->families[i];

		if (!f->n)
			continue;
		buf_printf(out, "# TYPE %s %s\n", f->name, types[f->type]);
		if (*f->unit)
			buf_printf(out, "# UNIT %s %s\n", f->name, f->unit);
		buf_printf(out, "# HELP %s %s\n", f->name, f->help);
		for (size_t k = f->first; k < f->first + f->n; k++) {
			const struct point *p = &m->points[k];

			if (f->type == METRIC_HISTOGRAM) {
				put_histogram(out, f, p);
				continue;
			}
			put_name(out, f, suffixes[f->type], p, NULL);
			if (p->is_double)
				put_number(out, p->number);
			else
				buf_printf(out, "%llu\n", (unsigned long long)p->count);
		}
	}
	buf_str(out, "# EOF\n");
}

/* ---- OTLP ---------------------------------------------------------------------------------------- */

enum { VARINT = 0, FIXED64 = 1, BYTES = 2 };

static void put_varint(struct buf *out, uint64_t v)
{
	uint8_t bytes[10];
	size_t n = 0;

	do {
		bytes[n++] = (uint8_t)(v & 0x7f) | (v > 0x7f ? 0x80 : 0);
		v >>= 7;
	} while (v);
	buf_add(out, bytes, n);
}

static void put_tag(struct buf *out, unsigned field, unsigned wire)
{
	put_varint(out, field << 3 | wire);
}

static void put_little(struct buf *out, uint64_t v)
{
	uint8_t bytes[8];

	for (size_t i = 0; i < 8; i++)
		bytes[i] = (uint8_t)(v >> (8 * i));
	buf_add(out, bytes, 8);
}

static uint64_t bits(double v)
{
	uint64_t u;

	memcpy(&u, &v, sizeof(u));
	return u;
}

static void put_fixed(struct buf *out, unsigned field, uint64_t v)
{
	put_tag(out, field, FIXED64);
	put_little(out, v);
}

static void put_bytes(struct buf *out, unsigned field, const void *data, size_t len)
{
	put_tag(out, field, BYTES);
	put_varint(out, len);
	if (len)
		buf_add(out, data, len);
}

/* A message that was written into `inner`, which is emptied. */
static void put_message(struct buf *out, unsigned field, struct buf *inner)
{
	put_bytes(out, field, inner->data, inner->len);
	if (buf_error(inner) && !buf_error(out))
		out->failed = buf_error(inner);
	buf_reset(inner);
}

/* KeyValue {key 1, value 2 {string_value 1}} as field `field` of out. */
static void put_attribute(struct buf *out, unsigned field, const struct metric_label *l)
{
	_cleanup_buf_ struct buf value, pair;

	buf_init(&value, 0);
	buf_init(&pair, 0);
	put_bytes(&value, 1, l->value, strlen(l->value));
	put_bytes(&pair, 1, l->key, strlen(l->key));
	put_message(&pair, 2, &value);
	put_message(out, field, &pair);
}

static void put_point(struct buf *out, const struct family *f, const struct point *p,
	uint64_t start_ns, uint64_t now_ns)
{
	bool histogram = f->type == METRIC_HISTOGRAM;
	_cleanup_buf_ struct buf packed;

	buf_init(&packed, 0);
	if (f->type == METRIC_COUNTER || histogram)
		put_fixed(out, 2, start_ns);
	put_fixed(out, 3, now_ns);
	if (histogram) {
		put_fixed(out, 4, p->count);
		put_fixed(out, 5, bits(p->number));
		for (size_t i = 0; i <= p->n_bounds; i++)
			put_little(&packed, p->counts[i]);
		put_message(out, 6, &packed);
		for (size_t i = 0; i < p->n_bounds; i++)
			put_little(&packed, bits(p->bounds[i]));
		put_message(out, 7, &packed);
	} else if (p->is_double) {
		put_fixed(out, 4, bits(p->number));
	} else {
		put_fixed(out, 6, p->count);
	}
	for (size_t i = 0; i < p->n_labels; i++)
		put_attribute(out, histogram ? 9 : 7, &p->labels[i]);
}

/* Units as UCUM writes them. */
static const char *ucum(const char *unit)
{
	static const char *const names[][2] = {
		{"seconds", "s"}, {"bytes", "By"}, {"hertz", "Hz"}, {"ratio", "1"}};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (streq(names[i][0], unit))
			return names[i][1];
	return unit;
}

/* Metric {name 1, description 2, unit 3, gauge 5, sum 7, histogram 9}. */
static void put_metric(struct buf *out, const struct metrics *m, const struct family *f,
	uint64_t start_ns, uint64_t now_ns)
{
	static const unsigned fields[] = {[METRIC_COUNTER] = 7,
		[METRIC_GAUGE] = 5,
		[METRIC_HISTOGRAM] = 9,
		[METRIC_INFO] = 5};
	_cleanup_buf_ struct buf data, point;

	buf_init(&data, 0);
	buf_init(&point, 0);
	put_bytes(out, 1, f->name, strlen(f->name));
	put_bytes(out, 2, f->help, strlen(f->help));
	put_bytes(out, 3, ucum(f->unit), strlen(ucum(f->unit)));
	for (size_t k = f->first; k < f->first + f->n; k++) {
		put_point(&point, f, &m->points[k], start_ns, now_ns);
		put_message(&data, 1, &point);
	}
	if (fields[f->type] != 5) {
		put_tag(&data, 2, VARINT); /* aggregation_temporality: cumulative */
		put_varint(&data, 2);
	}
	if (f->type == METRIC_COUNTER) {
		put_tag(&data, 3, VARINT); /* is_monotonic */
		put_varint(&data, 1);
	}
	put_message(out, fields[f->type], &data);
}

void metrics_otlp(const struct metrics *m, uint64_t start_unix_ns, uint64_t now_unix_ns,
	const struct metric_label *resource, size_t n_resource, const char *version,
	struct buf *out)
{
	_cleanup_buf_ struct buf inner, scope, all;

	buf_init(&inner, 0);
	buf_init(&scope, 0);
	buf_init(&all, 0);
	for (size_t i = 0; i < n_resource; i++)
		put_attribute(&inner, 1, &resource[i]);
	put_message(&all, 1, &inner); /* resource */
	put_bytes(&inner, 1, "odi", 3);
	put_bytes(&inner, 2, version, strlen(version));
	put_message(&scope, 1, &inner); /* scope */
	for (size_t i = 0; i < m->n_families; i++) {
		if (!m->families[i].n)
			continue;
		put_metric(&inner, m, &m->families[i], start_unix_ns, now_unix_ns);
		put_message(&scope, 2, &inner);
	}
	put_message(&all, 2, &scope);
	put_message(out, 1, &all);
}
