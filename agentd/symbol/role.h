/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Inside the symbolizer, and for tests of its sandbox. */

#include "agentd/base/sandbox.h"

/* What the symbolizer may do. Borrowed, static. */
const struct sandbox_policy *symbol_role_policy(void);
