/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

#include <stdint.h>

void library_work(uint64_t units);
void library_call(uint64_t units);
