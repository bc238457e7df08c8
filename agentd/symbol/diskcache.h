/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Names over restarts: what symbol_ops.disk keeps for the client. Inside the symbol room only. */

#include "agentd/symbol/client.h"

/* What a file's names on the disk go with, besides struct symbol_file_facts: the debug files that there were. */
struct disk_facts {
	uint64_t debug_files; /* a hash of the identities of all that were found; 0 none */
	struct symbol_file_facts facts;
	char named_by[24], problem[192], debuglink[256];
	bool costly;
};

#define DISK_VALUE_MAX 60000 /* bytes of one chain; a longer one is made again after a restart */

/* Bytes written to out, or -E2BIG. The module is kept only where it is not `module`. */
int disk_encode_chain(
	const struct symbol_chain *chain, const char *module, uint8_t out[static DISK_VALUE_MAX]);
/* functions: room for SYMBOL_CHAIN_MAX. Strings point into data. -EBADMSG: it is nothing that was encoded. */
int disk_decode_chain(const void *data, size_t len, const char *module, struct symbol_chain *ret,
	struct symbol_function *functions);
/* The same of an address without a name, whose function begins at start. False: it is something else. */
int disk_encode_bare(uint64_t start, uint8_t out[static DISK_VALUE_MAX]);
bool disk_decode_bare(const void *data, size_t len, uint64_t *start);
#define DISK_FACTS_MAX 4096
size_t disk_encode_facts(const struct disk_facts *f, uint8_t out[static DISK_FACTS_MAX]);
/* ret's texts are its own. -EBADMSG. */
int disk_decode_facts(const void *data, size_t len, struct disk_facts *ret);

/* 1: the name of e's address was there, and e has it; 0: it has to be asked for. */
int disk_name(struct symbolizer *s, struct symbol_file *f, struct symbol_entry *e);
/* The current request was answered as far as n: its names are written when there is time. */
void disk_answered(struct symbolizer *s, struct symbol_file *f, size_t n);
/* An address got its name without being asked about: it is written, too. */
void disk_named(struct symbolizer *s, struct symbol_file *f, uint64_t address);
/* Its names from before are not good enough any more: the next that are written take their place. */
void disk_outdated(struct symbol_file *f);
/* Writes all that waits, at most a second's worth. */
void disk_deinit(struct symbolizer *s);
