/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The options of commands; each list ends with an empty one. */

#include "odictl/cli.h"

extern const struct option_spec enable_options[];
extern const struct option_spec source_add_options[];
extern const struct option_spec destination_add_options[];
extern const struct option_spec destination_test_options[];
extern const struct option_spec status_options[];
extern const struct option_spec top_options[];
extern const struct option_spec flamegraph_options[];
extern const struct option_spec symbols_options[];
extern const struct option_spec symbols_fetch_options[];
extern const struct option_spec lines_options[];
extern const struct option_spec spool_drop_options[];
extern const struct option_spec config_show_options[];
extern const struct option_spec config_apply_options[];
extern const struct option_spec dry_run_options[];
extern const struct option_spec doctor_options[];
extern const struct option_spec bundle_options[];
extern const struct option_spec logs_options[];
extern const struct option_spec help_options[];
