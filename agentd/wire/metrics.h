/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A set of metrics, written as OpenMetrics text and as OTLP. Names carry their unit ("odi_process_cpu_seconds") and no
 * _total: the writer adds it to counters. Label values are made valid UTF-8; keys are the caller's own.
 * Sources: OpenMetrics 1.0; opentelemetry-proto, metrics/v1/metrics.proto. */

#include "agentd/base/buf.h"

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM, METRIC_INFO };

struct metric_label {
	const char *key, *value;
};

struct metrics;

int metrics_new(struct metrics **ret);
struct metrics *metrics_free(struct metrics *m);
DEFINE_FREEP(metrics_freep, struct metrics *, metrics_free)
/* What follows is of this family. name: once in a set; unit: "" none, else also the name's end; all of static storage. */
void metrics_family(struct metrics *m, enum metric_type type, const char *name, const char *unit,
	const char *help);
#define METRICS_MAX_LABELS 4
/* At most METRICS_MAX_LABELS labels, copied. A failure shows in metrics_error(). */
void metrics_count(struct metrics *m, uint64_t value, const struct metric_label *labels, size_t n);
void metrics_number(struct metrics *m, double value, const struct metric_label *labels, size_t n);
/* counts: one a bound, and one for what is above all; not cumulative. bounds are of static storage. */
void metrics_histogram(struct metrics *m, const double *bounds, const uint64_t *counts,
	size_t n_bounds, double sum, const struct metric_label *labels, size_t n);
int metrics_error(const struct metrics *m); /* 0 or -ENOMEM */

/* Ends with "# EOF". Families without a value are left out. */
void metrics_text(const struct metrics *m, struct buf *out);
#define METRICS_CONTENT_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"
/* An ExportMetricsServiceRequest: cumulative sums since start. */
void metrics_otlp(const struct metrics *m, uint64_t start_unix_ns, uint64_t now_unix_ns,
	const struct metric_label *resource, size_t n_resource, const char *version,
	struct buf *out);
