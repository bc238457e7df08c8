/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Shared by the files of the cache of names: its database as such (names_open.c), and what is kept in it (names.c). */

#include <sqlite3.h>

#include "agentd/store/names.h"

#define NAMES_PAGE 4096

enum statement {
	BEGIN,
	COMMIT,
	ROLLBACK,
	FILE_FIND,
	FILE_USED,
	FILE_ALIVE,
	FILE_ADD,
	FILE_KILL_KEY,
	FILE_KILL_OLDEST,
	FILE_KILL_AGE,
	FILE_DEAD,
	FILE_REMOVE,
	NAME_GET,
	NAME_PUT,
	NAME_REMOVE,
	STATEMENTS
};

struct names {
	char *path;
	struct names_config config;
	sqlite3 *db; /* NULL: off */
	sqlite3_stmt *statements[STATEMENTS];
	uint64_t life;
	int64_t writing; /* row id that was seen alive in this transaction; 0 none */
	bool in_transaction;
	uint64_t age_checked_s;
	struct names_counters counters;
	uint8_t bytes[NAMES_VALUE_MAX];
};

/* The first column of the first row; -1 where there is none. An SQLite code. */
int names_scalar(struct names *n, const char *sql, int64_t *ret);
/* What is there goes, and a new one takes its place; -EIO: it was damaged too often, and stays off. */
int names_rebuild(struct names *n, const char *why);
