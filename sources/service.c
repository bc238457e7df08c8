/* SPDX-License-Identifier: Apache-2.0 */

/* The name of a service that nobody named: unit, container or executable, in that order.
 *
 * Two things keep that order honest. A unit counts only if it stands for one service: login
 * sessions and user managers hold whatever a person started there, and a container runtime's own
 * unit holds every container where cgroups are nested below it; both would lump strangers together.
 * And kernel threads are one service, `kernel`. Pure; runs in agentd. */

#include "agentd/base/text.h"
#include "sources/kind.h"

const char *source_basename(const char *s)
{
	const char *slash = strrchr(s, '/');

	return slash ? slash + 1 : s;
}

const char *source_k8s(const struct image *image, const char *key)
{
	for (size_t i = 0; i < image->n_k8s; i++)
		if (streq(image->k8s[i].key, key))
			return image->k8s[i].value;
	return "";
}

bool source_unit_service(const char *unit, char *out, size_t size)
{
	size_t len = strlen(unit);

	if (len <= strlen(".service") || !streq(unit + len - strlen(".service"), ".service"))
		return false;
	if (text_starts(unit, "user@"))
		return false;
	snprintf(out, size, "%.*s", (int)(len - strlen(".service")), unit);
	return true;
}

/* Units below which runtimes put containers of all kinds. */
static bool is_runtime_unit(const char *unit)
{
	static const char *const units[] = {
		"docker.service",
		"containerd.service",
		"crio.service",
		"kubelet.service",
		"k3s.service",
		"k3s-agent.service",
		"rke2-server.service",
		"rke2-agent.service",
		"podman.service",
		"snap.docker.dockerd.service",
		"snap.microk8s.daemon-containerd.service",
	};

	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (streq(unit, units[i]))
			return true;
	return false;
}

bool source_container_service(const struct image *image, char *out, size_t size)
{
	const char *name = or_empty(image->container_name),
		   *k8s = source_k8s(image, "k8s.container.name");

	/* The kubelet's names for Docker and CRI-O, k8s_web_web-7f9c_default_<uid>_0, are for
	 * machines. */
	if (*k8s && (!*name || text_starts(name, "k8s_")))
		name = k8s;
	if (*name)
		snprintf(out, size, "%s", name);
	else if (*or_empty(image->container_id))
		snprintf(out, size, "container-%.12s", image->container_id);
	else
		return false;
	return true;
}

void source_default_service(
	const struct source *source, const struct image *image, char *out, size_t size)
{
	const char *unit = or_empty(image->unit), *exe = source_basename(or_empty(image->exe));

	(void)source;
	if (image->kernel_thread) {
		snprintf(out, size, "kernel");
		return;
	}
	if (!(*or_empty(image->container_id) && is_runtime_unit(unit)) &&
		source_unit_service(unit, out, size))
		return;
	if (source_container_service(image, out, size))
		return;
	snprintf(out, size, "%s", *exe ? exe : image->comm);
}
