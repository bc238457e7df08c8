/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* A layer under SQLite that fails the operation one asks for: writes, syncs and truncations of the
 * system's own VFS are counted, and the chosen ones answer an error instead of being done. */

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

static struct {
	sqlite3_vfs vfs, *real;
	unsigned long ops;      /* so far */
	unsigned long fail_at;  /* 0: never; the first that fails */
	unsigned long fail_for; /* how many from there on */
	int code;
} faults;

struct fault_file {
	sqlite3_file base;
	sqlite3_io_methods methods;
	sqlite3_file *real;
};

static int fault_due(void)
{
	faults.ops++;
	return faults.fail_at && faults.ops >= faults.fail_at &&
		faults.ops - faults.fail_at < faults.fail_for;
}

#define REAL(f) (((struct fault_file *)(f))->real)

static int ff_close(sqlite3_file *f)
{
	int r = REAL(f)->pMethods->xClose(REAL(f));

	free(REAL(f));
	return r;
}
static int ff_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at)
{
	return REAL(f)->pMethods->xRead(REAL(f), p, n, at);
}
static int ff_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at)
{
	if (fault_due()) {
		/* Half of it reaches the disk, as a full disk has it. */
		if (n > 1)
			REAL(f)->pMethods->xWrite(REAL(f), p, n / 2, at);
		return faults.code;
	}
	return REAL(f)->pMethods->xWrite(REAL(f), p, n, at);
}
static int ff_truncate(sqlite3_file *f, sqlite3_int64 size)
{
	return fault_due() ? faults.code : REAL(f)->pMethods->xTruncate(REAL(f), size);
}
static int ff_sync(sqlite3_file *f, int flags)
{
	return fault_due() ? faults.code : REAL(f)->pMethods->xSync(REAL(f), flags);
}
static int ff_size(sqlite3_file *f, sqlite3_int64 *size)
{
	return REAL(f)->pMethods->xFileSize(REAL(f), size);
}
static int ff_lock(sqlite3_file *f, int level)
{
	return REAL(f)->pMethods->xLock(REAL(f), level);
}
static int ff_unlock(sqlite3_file *f, int level)
{
	return REAL(f)->pMethods->xUnlock(REAL(f), level);
}
static int ff_check(sqlite3_file *f, int *out)
{
	return REAL(f)->pMethods->xCheckReservedLock(REAL(f), out);
}
static int ff_control(sqlite3_file *f, int op, void *arg)
{
	return REAL(f)->pMethods->xFileControl(REAL(f), op, arg);
}
static int ff_sector(sqlite3_file *f)
{
	return REAL(f)->pMethods->xSectorSize(REAL(f));
}
static int ff_traits(sqlite3_file *f)
{
	return REAL(f)->pMethods->xDeviceCharacteristics(REAL(f));
}

static int fault_open(
	sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out_flags)
{
	struct fault_file *f = (struct fault_file *)file;
	int r;

	(void)vfs;
	memset(f, 0, sizeof(*f));
	f->real = calloc(1, (size_t)faults.real->szOsFile);
	r = faults.real->xOpen(faults.real, name, f->real, flags, out_flags);
	if (r != SQLITE_OK) {
		free(f->real);
		return r;
	}
	/* Version 1: no shared memory, which exclusive locking does not need. */
	f->methods = (sqlite3_io_methods){1, ff_close, ff_read, ff_write, ff_truncate, ff_sync,
		ff_size, ff_lock, ff_unlock, ff_check, ff_control, ff_sector, ff_traits, NULL, NULL,
		NULL, NULL, NULL, NULL};
	f->base.pMethods = &f->methods;
	return SQLITE_OK;
}

/* From here on every database of this process goes through the layer. */
static void faults_install(void)
{
	if (faults.real)
		return;
	faults.real = sqlite3_vfs_find(NULL);
	faults.vfs = *faults.real;
	faults.vfs.zName = "faults";
	faults.vfs.szOsFile = sizeof(struct fault_file);
	faults.vfs.xOpen = fault_open;
	sqlite3_vfs_register(&faults.vfs, 1);
}

static void faults_arm(unsigned long at, unsigned long how_many, int code)
{
	faults.ops = 0;
	faults.fail_at = at;
	faults.fail_for = how_many;
	faults.code = code;
}
