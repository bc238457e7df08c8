/* SPDX-License-Identifier: Apache-2.0 */

/* Any bytes as a destination type's file: parsing ends, within its bounds, and what it takes can be used. libFuzzer;
 * the first corpus is destinations/catalogue. */

#include "destinations/destination.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct destination_type *t = NULL;
	struct err_text err = {};

	if (destination_type_parse("fuzz", (const char *)data, size, &t, &err) < 0) {
		/* Whatever was wrong is said. */
		if (!err.text[0])
			abort();
		return 0;
	}
	if (!option_find(t->options, t->endpoint_option))
		abort();
	for (const struct option_desc *d = t->options; d->name; d++)
		if (d->fallback && option_check(d, d->fallback, &err) < 0)
			abort();
	destination_type_free(t);
	return 0;
}
