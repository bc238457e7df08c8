/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Capabilities by number: those that are newer than the headers of some distributions that this builds on.
 * Source: capabilities(7), kernels 5.8 and 5.9. */

#include <linux/capability.h>

#ifndef CAP_PERFMON
#define CAP_PERFMON 38
#endif
#ifndef CAP_BPF
#define CAP_BPF 39
#endif
#ifndef CAP_CHECKPOINT_RESTORE
#define CAP_CHECKPOINT_RESTORE 40
#endif
