/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* What may be a secret in a text of any form is replaced by "(secret)". */

#include "agentd/base/buf.h"

/* Appends text to out; returns how many places were replaced. */
size_t redact(const char *text, struct buf *out);
/* The same for JSON, string by string: it stays JSON. */
size_t redact_json(const char *text, struct buf *out);
