/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Heap sort of an array in place. qsort(3) takes as much memory again as the array, which of a big symbol
 * table is what the symbolizer's limit does not have, and (since glibc 2.37) may take quadratic time on input
 * that was made for it. Not stable: compare() must order all that differ in what matters. */

#include "agentd/base/macros.h"

#define DEFINE_SORT(name, type, less)                                                              \
	static void name##_sift(type *a, size_t at, size_t n)                                      \
	{                                                                                          \
		type moving = a[at];                                                               \
                                                                                                   \
		for (size_t child; (child = 2 * at + 1) < n; at = child) {                         \
			if (child + 1 < n && less(&a[child], &a[child + 1]))                       \
				child++;                                                           \
			if (!less(&moving, &a[child]))                                             \
				break;                                                             \
			a[at] = a[child];                                                          \
		}                                                                                  \
		a[at] = moving;                                                                    \
	}                                                                                          \
	static void name(type *a, size_t n)                                                        \
	{                                                                                          \
		size_t sorted = 1;                                                                 \
                                                                                                   \
		/* Tables often come in order. */                                                  \
		while (sorted < n && !less(&a[sorted], &a[sorted - 1]))                            \
			sorted++;                                                                  \
		if (sorted >= n)                                                                   \
			return;                                                                    \
		for (size_t i = n / 2; i-- > 0;)                                                   \
			name##_sift(a, i, n);                                                      \
		for (size_t end = n - 1; end > 0; end--) {                                         \
			type last = a[end];                                                        \
                                                                                                   \
			a[end] = a[0];                                                             \
			a[0] = last;                                                               \
			name##_sift(a, 0, end);                                                    \
		}                                                                                  \
	}
