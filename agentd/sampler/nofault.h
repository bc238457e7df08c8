/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Whether this kernel can freeze when BPF reads user memory. Pure text in, verdict out. */

#include <stdbool.h>
#include <stddef.h>

enum nofault {
	NOFAULT_SAFE,
	NOFAULT_FREEZES, /* 5.19 to 6.3 without the fix */
	NOFAULT_UNKNOWN, /* a vendor's kernel in that range that hides its patch level */
};

struct nofault_version {
	unsigned major, minor, patch;
};

/* release and version as uname(2) gives them; signature is /proc/version_signature's text, NULL
 * where there is none. used (may be NULL) is the version that decided. */
enum nofault nofault_judge(const char *release, const char *version, const char *signature,
	struct nofault_version *used);
