/* SPDX-License-Identifier: Apache-2.0 */

/* The kernel's code changes while it runs, and its list of names is long: reading it takes 25 ms of CPU time. So
 * it is read when something is to be named for which the last reading may be too old, and what says
 * so is cheap: the sampler hands on perf's KSYMBOL records (BPF programs and trampolines), and modules
 * are the names and addresses in /proc/modules, looked at once an interval.
 *
 * A module's build id is in sysfs, in the notes that its loader found. The name to look for comes from the
 * symbolizer, which must not choose what agentd opens: it is a name as the kernel gives them, or nothing
 * is opened.
 *
 * Whether addresses are shown was decided when the list was opened: kernel.kptr_restrict 0 and
 * kernel.perf_event_paranoid at most 1: to all; 0 or 1: to those with CAP_SYSLOG; 2: to nobody.
 *
 * Source: kernel/module/procfs.c, kernel/module/sysfs.c (add_notes_attrs), kernel/ksyms_common.c
 * (kallsyms_show_value). Runs in agentd. */

#include <elf.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "agentd/base/hash.h"
#include "agentd/base/io.h"
#include "agentd/base/map.h"
#include "agentd/symbol/kernel_code.h"

#define MODULES_TEXT_MAX (1 << 20)
#define NOTES_MAX        65536
#define MODULE_NAME_MAX  64 /* the kernel's: 64 less a long, with the NUL */
#define MODULES_MAX      4096

struct kernel_code {
	int root;
	bool touched, seen;
	uint64_t state; /* a hash of what kernel_code_changed() looks at */
	char build_id[41];
	struct map *modules; /* name -> build id, char[41] */
};

int kernel_code_new(struct kernel_code **ret, const char *root)
{
	CLEANUP(kernel_code_freep) struct kernel_code *k = calloc(1, sizeof(*k));
	int r;

	if (!k)
		return -ENOMEM;
	k->root = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (k->root < 0)
		return -errno;
	r = map_new(&k->modules, 0);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(k);
	return 0;
}

struct kernel_code *kernel_code_free(struct kernel_code *k)
{
	if (k) {
		map_free_with(k->modules, free);
		closep(&k->root);
		free(k);
	}
	return NULL;
}

/* ---- changes ---------------------------------------------------------------------------------------------------- */

void kernel_code_touch(struct kernel_code *k)
{
	k->touched = true;
}

static long read_number(const struct kernel_code *k, const char *path, long otherwise)
{
	_cleanup_buf_ struct buf b = {};

	buf_init(&b, 64);
	if (io_read_file(k->root, path, &b, 63) < 0 || !b.len)
		return otherwise;
	return strtol((const char *)b.data, NULL, 10);
}

static long kptr_restrict(const struct kernel_code *k)
{
	return read_number(k, "proc/sys/kernel/kptr_restrict", 0);
}

/* "name size users by,whom Live 0xaddress (flags)": users change all the time, the rest with the module. */
static uint64_t hash_modules(const struct kernel_code *k)
{
	_cleanup_buf_ struct buf b = {};
	uint64_t hash = 0;
	char *line, *next;

	buf_init(&b, MODULES_TEXT_MAX);
	/* A kernel without modules has no such file. */
	if (io_read_file(k->root, "proc/modules", &b, MODULES_TEXT_MAX) < 0 || !b.len)
		return 0;
	for (line = (char *)b.data; *line; line = next) {
		size_t len = strcspn(line, "\n"), name = strcspn(line, " \n");
		const char *address;

		next = line + len + (line[len] == '\n');
		line[len] = '\0';
		address = strstr(line, " 0x");
		hash = hash * 31 + hash_local(line, name);
		if (address)
			hash = hash * 31 + hash_local(address, strcspn(address + 1, " ") + 1);
	}
	return hash;
}

bool kernel_code_changed(struct kernel_code *k)
{
	uint64_t state = hash_modules(k) * 31 + (uint64_t)kptr_restrict(k) + 1;
	bool changed = k->seen && (k->touched || state != k->state);

	if (state != k->state)
		map_clear_with(k->modules, free);
	k->seen = true;
	k->touched = false;
	k->state = state;
	return changed;
}

/* ---- build ids -------------------------------------------------------------------------------------------------- */

static void build_id_of_notes(const uint8_t *p, size_t len, char out[41])
{
	while (len >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr n;
		size_t name, desc;

		memcpy(&n, p, sizeof(n));
		name = ((size_t)n.n_namesz + 3) & ~(size_t)3;
		desc = ((size_t)n.n_descsz + 3) & ~(size_t)3;
		if (name > len - sizeof(n) || desc > len - sizeof(n) - name)
			return;
		if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 && n.n_descsz <= 20 &&
			memcmp(p + sizeof(n), "GNU", 4) == 0) {
			const uint8_t *id = p + sizeof(n) + name;

			for (size_t i = 0; i < n.n_descsz; i++)
				snprintf(out + 2 * i, 3, "%02x", id[i]);
			return;
		}
		p += sizeof(n) + name + desc;
		len -= sizeof(n) + name + desc;
	}
}

static void read_build_id(const struct kernel_code *k, const char *path, char out[41])
{
	_cleanup_buf_ struct buf notes = {};

	buf_init(&notes, NOTES_MAX);
	if (io_read_file(k->root, path, &notes, NOTES_MAX) == 0)
		build_id_of_notes(notes.data, notes.len, out);
}

static bool is_module_name(const char *name)
{
	size_t len =
		strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-");

	return len && len < MODULE_NAME_MAX && !name[len];
}

const char *kernel_code_build_id(struct kernel_code *k, const char *module)
{
	char path[128], *id;

	if (!module) {
		if (!k->build_id[0])
			read_build_id(k, "sys/kernel/notes", k->build_id);
		return k->build_id;
	}
	if (!is_module_name(module))
		return "";
	id = map_get_str(k->modules, module);
	if (id)
		return id;
	if (map_size(k->modules) >= MODULES_MAX)
		return "";
	id = calloc(1, sizeof(k->build_id));
	if (!id || map_put_str(k->modules, module, id, NULL) < 0) {
		free(id);
		return "";
	}
	snprintf(path, sizeof(path), "sys/module/%s/notes/.note.gnu.build-id", module);
	read_build_id(k, path, id);
	return id;
}

/* ---- why not ---------------------------------------------------------------------------------------------------- */

static bool may_read_addresses(void)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}};

	return syscall(SYS_capget, &head, data) == 0 &&
		data[CAP_SYSLOG / 32].effective & (1U << (CAP_SYSLOG % 32));
}

void kernel_code_explain(struct kernel_code *k, struct err_text *why, struct err_text *remedy)
{
	long restricted = kptr_restrict(k);

	why->text[0] = remedy->text[0] = '\0';
	if (restricted >= 2) {
		err_set(why, -EPERM,
			"the kernel hides its addresses from everybody (kernel.kptr_restrict is %ld)",
			restricted);
		err_set(remedy, -EPERM,
			"sysctl -w kernel.kptr_restrict=1; and in /etc/sysctl.d, to keep it");
	} else if (!may_read_addresses() &&
		(restricted == 1 || read_number(k, "proc/sys/kernel/perf_event_paranoid", 2) > 1)) {
		err_set(why, -EPERM,
			"the kernel shows its addresses to those only who have CAP_SYSLOG, and agentd "
			"does not");
		err_set(remedy, -EPERM,
			"systemctl edit odi: AmbientCapabilities=CAP_SYSLOG; or start it as "
			"root");
	}
}
