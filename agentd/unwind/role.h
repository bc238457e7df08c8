/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Inside the unwinder, and for tests of its sandbox. */

#include "agentd/base/sandbox.h"

/* What the unwinder may do. Borrowed, static. */
const struct sandbox_policy *unwind_role_policy(void);
