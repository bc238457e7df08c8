/* SPDX-License-Identifier: Apache-2.0 */
/* What a cgroup path says of a process: its unit, its slice, its container.
 *
 * Why paths: they are the one thing that systemd, every container runtime and the kubelet agree to
 * write down for each process, on cgroup v1, v2 and both at once, and they need no daemon to be
 * asked. Pure text: no I/O, no allocation; anything that is not understood is left empty.
 *
 * The unit is the outermost component below the slices (as sd_pid_get_unit(3) reads it), since that is
 * what the host's administrator started; only below a user's manager (user@UID.service) the unit of that
 * manager is taken, which says more. A container's own scope is no unit: the container says it better.
 * The container is the innermost one, so that a container in a container is itself.
 *
 * Sources: systemd's CGROUP_DELEGATION.md and cgroup-util; runc's and crun's systemd drivers; the
 * kubelet's cgroup manager; Podman's and CRI-O's cgroup names. Runs in agentd and its /proc reader. */

#include "agentd/process/process.h"

#include <ctype.h>
#include <string.h>
#include "agentd/base/text.h"

struct part {
	const char *s;
	size_t len;
};

static bool part_is(struct part p, const char *text)
{
	return p.len == strlen(text) && memcmp(p.s, text, p.len) == 0;
}

static bool part_starts(struct part p, const char *text)
{
	size_t len = strlen(text);

	return p.len >= len && memcmp(p.s, text, len) == 0;
}

static bool part_ends(struct part p, const char *text)
{
	size_t len = strlen(text);

	return p.len > len && memcmp(p.s + p.len - len, text, len) == 0;
}

/* Components between slashes, empty ones skipped; false at the end. */
static bool next_part(const char **at, struct part *ret)
{
	while (**at == '/')
		(*at)++;
	if (!**at)
		return false;
	ret->s = *at;
	ret->len = strcspn(*at, "/");
	*at += ret->len;
	return true;
}

static size_t hex_len(const char *s, size_t max)
{
	size_t n = 0;

	while (n < max && (isdigit((unsigned char)s[n]) || (s[n] >= 'a' && s[n] <= 'f')))
		n++;
	return n;
}

static bool is_hex64(const char *s, size_t len)
{
	return len == 64 && hex_len(s, len) == 64;
}

/* AWS Fargate: 32 hex digits, a dash, decimal digits. */
static bool is_fargate(struct part p)
{
	if (p.len < 34 || p.len > 64 || hex_len(p.s, 32) != 32 || p.s[32] != '-')
		return false;
	for (size_t i = 33; i < p.len; i++)
		if (!isdigit((unsigned char)p.s[i]))
			return false;
	return true;
}

static void copy(char *to, size_t size, const char *s, size_t len)
{
	if (len >= size)
		len = size - 1;
	memcpy(to, s, len);
	to[len] = 0;
}

static void set_container(struct cgroup_facts *f, struct part id, const char *runtime)
{
	copy(f->container_id, sizeof(f->container_id), id.s, id.len);
	copy(f->runtime, sizeof(f->runtime), runtime, strlen(runtime));
}

/* PREFIX<64 hex digits>[.scope]: the systemd drivers, and cgroupfs ones that prefix, too. The monitors'
 * own scopes (libpod-conmon-, crio-conmon-) do not match, and so are not the container. */
static bool prefixed_container(struct part p, struct cgroup_facts *f)
{
	static const struct {
		const char *prefix, *runtime;
	} known[] = {
		{"docker-", "docker"},
		{"cri-containerd-", "containerd"},
		{"crio-", "crio"},
		{"libpod-", "podman"},
		{"libpod-payload-", "podman"},
		{"nerdctl-", "containerd"},
		{"containerd-", "containerd"},
	};

	if (part_ends(p, ".scope"))
		p.len -= strlen(".scope");
	for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
		size_t skip = strlen(known[i].prefix);

		if (part_starts(p, known[i].prefix) && is_hex64(p.s + skip, p.len - skip)) {
			set_container(f, (struct part){p.s + skip, p.len - skip}, known[i].runtime);
			return true;
		}
	}
	return false;
}

/* SLICE:cri-containerd:ID, what runc makes of a systemd-style path with the cgroupfs driver. */
static bool colon_container(struct part p, struct cgroup_facts *f)
{
	const char *last = memrchr(p.s, ':', p.len);
	size_t rest;

	if (!last || last == p.s)
		return false;
	rest = p.len - (size_t)(last + 1 - p.s);
	if (!is_hex64(last + 1, rest))
		return false;
	set_container(f, (struct part){last + 1, rest},
		memmem(p.s, p.len, ":crio:", 6)             ? "crio"
			: memmem(p.s, p.len, ":docker:", 8) ? "docker"
							    : "containerd");
	return true;
}

/* A bare id: what is before it says whose. The kubelet's cgroupfs driver does not say. */
static bool bare_container(
	const struct part *before, size_t n, struct part p, struct cgroup_facts *f)
{
	const char *runtime = "";

	if (!is_hex64(p.s, p.len) && !(is_fargate(p) && n >= 1 && part_is(before[0], "ecs")))
		return false;
	for (size_t i = n; i-- > 0 && !*runtime;) {
		if (part_is(before[i], "docker") || part_is(before[i], "ecs"))
			runtime = "docker";
		else if (part_is(before[i], "k8s.io") || part_is(before[i], "default") ||
			part_is(before[i], "moby") || part_is(before[i], "containerd"))
			runtime = "containerd";
		else if (part_starts(before[i], "libpod"))
			runtime = "podman";
	}
	set_container(f, p, is_fargate(p) ? "" : runtime);
	return true;
}

/* Unit types that own a cgroup; slices are told apart. systemd puts '_' before names that the kernel
 * would take for its own. */
static bool is_unit(struct part *p)
{
	static const char *const suffixes[] = {".service", ".scope", ".socket", ".mount", ".swap"};

	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++)
		if (part_ends(*p, suffixes[i])) {
			if (p->s[0] == '_') {
				p->s++;
				p->len--;
			}
			return p->len > strlen(suffixes[i]) && p->len < 256;
		}
	return false;
}

#define MAX_PARTS 64

void cgroup_parse(const char *path, struct cgroup_facts *ret)
{
	struct part parts[MAX_PARTS], p;
	size_t n = 0;
	bool in_unit = false, in_user_manager = false, own = false;
	const char *at = path;

	memset(ret, 0, sizeof(*ret));
	while (n < MAX_PARTS && next_part(&at, &parts[n]))
		n++;
	for (size_t i = 0; i < n; i++) {
		bool container, colon;

		p = parts[i];
		colon = colon_container(p, ret);
		container = colon || prefixed_container(p, ret) || bare_container(parts, i, p, ret);
		if (colon || (container && (!in_unit || in_user_manager))) {
			/* With a colon it lies below containerd.service only because the driver was
			 * told a name that it took for a folder: no unit's process. */
			ret->unit[0] = 0;
			in_unit = own = true;
		}
		if (container || own)
			continue;
		if (in_unit && in_user_manager && (part_ends(p, ".slice") || is_unit(&p))) {
			if (part_ends(p, ".slice")) {
				copy(ret->slice, sizeof(ret->slice), p.s, p.len);
				continue;
			}
			/* The user manager's own processes stay with it. */
			if (!part_is(p, "init.scope"))
				copy(ret->unit, sizeof(ret->unit), p.s, p.len);
			in_user_manager = false;
		} else if (!in_unit && part_ends(p, ".slice")) {
			copy(ret->slice, sizeof(ret->slice), p.s, p.len);
		} else if (!in_unit && is_unit(&p)) {
			copy(ret->unit, sizeof(ret->unit), p.s, p.len);
			in_unit = true;
			in_user_manager = part_starts(p, "user@") && part_ends(p, ".service");
		}
	}
}

/* ---- /proc/PID/cgroup -------------------------------------------------------------------------------- */

/* Lower says more. */
static int hierarchy_rank(const char *controllers, size_t len, bool v2)
{
	struct part p = {controllers, len};
	const char *at = controllers;

	if (part_is(p, "name=systemd"))
		return 0;
	if (v2)
		return 1;
	while (at < controllers + len) {
		struct part one = {at, 0};

		while (at + one.len < controllers + len && at[one.len] != ',')
			one.len++;
		if (part_is(one, "memory"))
			return 2;
		at += one.len + 1;
	}
	return 3;
}

static int content_rank(const char *path)
{
	struct cgroup_facts f;

	cgroup_parse(path, &f);
	if (f.container_id[0])
		return 0;
	if (f.unit[0])
		return 1;
	return streq(path, "/") ? 3 : 2;
}

void cgroup_best(const char *text, char *path, size_t size)
{
	int best = 1000;
	char candidate[4096];

	if (!size)
		return;
	copy(path, size, "/", 1);
	while (*text) {
		size_t line = strcspn(text, "\n"), len;
		const char *c1 = memchr(text, ':', line);
		const char *c2 = c1 ? memchr(c1 + 1, ':', line - (size_t)(c1 + 1 - text)) : NULL;

		if (c2 && c2[1] == '/') {
			int rank;

			len = line - (size_t)(c2 + 1 - text);
			copy(candidate, sizeof(candidate), c2 + 1, len);
			len = strlen(candidate);
			if (len > 10 && streq(candidate + len - 10, " (deleted)"))
				candidate[len - 10] = 0;
			rank = content_rank(candidate) * 10 +
				hierarchy_rank(c1 + 1, (size_t)(c2 - c1 - 1),
					text[0] == '0' && c2 == c1 + 1);
			if (rank < best) {
				best = rank;
				copy(path, size, candidate, strlen(candidate));
			}
		}
		text += line;
		if (*text)
			text++;
	}
	text_clean(path);
}
