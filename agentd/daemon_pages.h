/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Manual pages that are made from the tables which agentd itself goes by: odi.conf(5) from the settings and the kinds of
 * sources, odi-destinations(5) from the catalogue. Written when odi is built; `agentd --page NAME`. */

/* Writes the page to standard output. 0, or the exit status: 2 for a page that there is not. */
int daemon_page(const char *name);
