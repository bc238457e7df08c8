/* SPDX-License-Identifier: Apache-2.0 */

/* What of the files the exporter may open, by Landlock.
 *
 * It is nobody, so without this it could still read all that every user can: homes, /srv, /proc, whatever an
 * administrator did not think of. What it needs is its spool, folders of destinations that write files, and what libc
 * and the TLS library read: how names are resolved, which authorities are trusted, modules that are loaded late.
 *
 * Rules are about files, not names, and can never be widened. So the process is confined when its configuration has come
 * for the first time, with the folders of that; and when a folder comes later, or one of those files in /etc was replaced
 * (a lease of DHCP writes another resolv.conf and renames it), it ends in an orderly way and agentd starts the next one,
 * which takes over what waits. Where resolv.conf leads out of /etc, as with systemd-resolved, its folder is let in and
 * it may be replaced at will.
 *
 * Source: landlock(7), resolv.conf(5), nsswitch.conf(5), update-ca-certificates(8), update-ca-trust(8). Runs in the
 * exporter. */

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "agentd/base/clock.h"
#include "agentd/base/landlock.h"
#include "destinations/confine.h"
#include "destinations/protocol.h"

#define LOOK_EVERY_NS (2 * NSEC_PER_SEC)
#define MAX_FOLDERS   (2 * PROTOCOL_DESTINATIONS + 1)

struct identity {
	dev_t device;
	ino_t inode; /* 0: there was none */
};

/* Replaced while this runs, and then no more covered. */
static const char *const files[] = {
	"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf"};

static const char *const others[] = {
	/* libc: services by name, where libraries are; the host's number (pace.c) */
	"/etc/services", "/etc/ld.so.cache", "/etc/machine-id", "/dev/urandom",
	/* modules of the name service switch and of the TLS library */
	"/usr/lib", "/usr/lib64", "/usr/local/lib", "/lib", "/lib64",
	/* authorities and settings of TLS: Debian, Fedora, SUSE, Arch */
	"/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/crypto-policies", "/etc/gnutls",
	"/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
	"/usr/share/crypto-policies", "/usr/share/pki", "/var/lib/ca-certificates"};

static struct {
	bool entered;
	struct identity files[ARRAY_SIZE(files)];
	struct identity folders[MAX_FOLDERS];
	size_t n_folders;
	uint64_t looked_ns;
} c;

static struct identity look(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? (struct identity){0} : (struct identity){st.st_dev, st.st_ino};
}

/* The folder that a link out of /etc leads to, unless it is one that holds much else ("/run"). */
static int read_target(int rules, const char *path)
{
	char target[PATH_MAX], *end;

	if (!realpath(path, target))
		return 0;
	end = strrchr(target, '/');
	*end = '\0';
	if (streq(target, "/etc") || !*target || !strchr(target + 1, '/'))
		return 0;
	return landlock_read(rules, target);
}

static int read_files(int rules)
{
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(files) && r == 0; i++) {
		c.files[i] = look(files[i]);
		r = landlock_read(rules, files[i]);
		if (r == 0)
			r = read_target(rules, files[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(others) && r == 0; i++)
		r = landlock_read(rules, others[i]);
	return r;
}

static int write_folder(int rules, int folder)
{
	struct stat st;

	if (c.n_folders == ARRAY_SIZE(c.folders))
		return -ENOSPC;
	if (fstat(folder, &st) < 0)
		return -errno;
	c.folders[c.n_folders++] = (struct identity){st.st_dev, st.st_ino};
	return landlock_write(rules, folder);
}

int confine_enter(const int *folders, size_t n, struct err_text *err)
{
	_cleanup_close_ int rules = landlock_new(false);
	int r;

	if (rules == -EOPNOTSUPP)
		return 1;
	r = rules < 0 ? rules : read_files(rules);
	for (size_t i = 0; i < n && r == 0; i++)
		if (folders[i] >= 0)
			r = write_folder(rules, folders[i]);
	if (r == 0)
		r = landlock_enter(rules);
	if (r < 0)
		return err_set(err, r, "the exporter cannot be confined to its files: %s",
			strerrordesc_np(-r));
	c.entered = true;
	return 0;
}

bool confine_has(int folder)
{
	struct stat st;

	if (!c.entered || fstat(folder, &st) < 0)
		return true;
	for (size_t i = 0; i < c.n_folders; i++)
		if (c.folders[i].device == st.st_dev && c.folders[i].inode == st.st_ino)
			return true;
	return false;
}

const char *confine_outdated(uint64_t now_ns)
{
	static char why[80];

	if (!c.entered || now_ns - c.looked_ns < LOOK_EVERY_NS)
		return NULL;
	c.looked_ns = now_ns;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		struct identity now = look(files[i]);

		/* While it is missing there is nothing to read. */
		if (!now.inode ||
			(now.inode == c.files[i].inode && now.device == c.files[i].device))
			continue;
		snprintf(why, sizeof(why), "%s was replaced", files[i]);
		return why;
	}
	return NULL;
}
