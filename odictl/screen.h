/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A picture drawn again and again on the terminal that standard output is. */

#include "odictl/cli.h"

/* Takes the terminal over; a signal that ends the program gives it back. */
void screen_enter(void);
void screen_leave(void); /* also after an error; harmless when it was not entered */
size_t screen_rows(void);
/* Replaces what is shown; what does not fit below is left out. */
void screen_draw(const char *text, size_t len);
/* Until a key, a changed window or so long. false: the user has had enough. */
bool screen_wait(int ms);
