/* SPDX-License-Identifier: Apache-2.0 */
/* Cgroup paths as they are found on hosts: every runtime and driver, systemd, v1, hybrid and v2. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "agentd/process/process.h"

#define ID  "4c01db0b339c1a8fd2a3c0f5b86ad2a9d6e6a4e0b9d4b7d0ff3f0a9b7c6d5e4f"
#define ID2 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define POD "pod1f3c2b1e_5a6b_4c7d_8e9f_a0b1c2d3e4f5"

static const struct {
	const char *path, *unit, *slice, *id, *runtime;
} paths[] = {
	{"/", "", "", "", ""},
	{"", "", "", "", ""},
	{"/init.scope", "init.scope", "", "", ""},
	{"/system.slice/nginx.service", "nginx.service", "system.slice", "", ""},
	{"/system.slice/system-app.slice/app@1.service", "app@1.service", "system-app.slice", "",
		""},
	{"/system.slice/postgresql@15-main.service/main", "postgresql@15-main.service",
		"system.slice", "", ""},
	{"/system.slice/dev-hugepages.mount", "dev-hugepages.mount", "system.slice", "", ""},
	{"/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service",
		"system-getty.slice", "", ""},
	{"/system.slice/foo\\x2dbar.service", "foo\\x2dbar.service", "system.slice", "", ""},
	{"/system.slice/_cgroup.procs.service", "cgroup.procs.service", "system.slice", "", ""},
	{"/user.slice/user-1000.slice/session-2.scope", "session-2.scope", "user-1000.slice", "",
		""},
	{"/user.slice/user-1000.slice/user@1000.service/app.slice/app-foo.service",
		"app-foo.service", "app.slice", "", ""},
	{"/user.slice/user-1000.slice/user@1000.service/init.scope", "user@1000.service",
		"user-1000.slice", "", ""},
	{"/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome\\x2dterminal.slice/vte-spawn-1.scope",
		"vte-spawn-1.scope", "app-gnome\\x2dterminal.slice", "", ""},
	/* no unit: what only looks like one */
	{"/.service", "", "", "", ""},
	{"/batch/job17", "", "", "", ""},
	/* Docker */
	{"/system.slice/docker-" ID ".scope", "", "system.slice", ID, "docker"},
	{"/docker/" ID, "", "", ID, "docker"},
	{"/docker/" ID "/init.scope", "", "", ID, "docker"},
	{"/docker/" ID "/docker/" ID2, "", "", ID2, "docker"},
	{"/system.slice/docker-" ID ".scope/system.slice/nginx.service", "", "system.slice", ID,
		"docker"},
	{"/mygroup/" ID, "", "", ID, ""},
	{"/system.slice/docker.service", "docker.service", "system.slice", "", ""},
	{"/ecs/3f1c8f0e2a6b4d5c9e7f/" ID, "", "", ID, "docker"},
	{"/ecs/0a1b2c3d4e5f60718293a4b5c6d7e8f9/0a1b2c3d4e5f60718293a4b5c6d7e8f9-1234567890", "",
		"", "0a1b2c3d4e5f60718293a4b5c6d7e8f9-1234567890", ""},
	/* containerd, nerdctl */
	{"/system.slice/nerdctl-" ID ".scope", "", "system.slice", ID, "containerd"},
	{"/default/" ID, "", "", ID, "containerd"},
	{"/k8s.io/" ID, "", "", ID, "containerd"},
	/* the kubelet */
	{"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-" POD
	 ".slice/cri-containerd-" ID ".scope",
		"", "kubepods-burstable-" POD ".slice", ID, "containerd"},
	{"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-" POD ".slice/crio-" ID
	 ".scope",
		"", "kubepods-besteffort-" POD ".slice", ID, "crio"},
	{"/kubepods.slice/kubepods-" POD ".slice/docker-" ID ".scope", "", "kubepods-" POD ".slice",
		ID, "docker"},
	{"/kubepods/burstable/" POD "/" ID, "", "", ID, ""},
	{"/kubepods/" POD "/crio-" ID, "", "", ID, "crio"},
	{"/kubepods.slice/kubepods-" POD ".slice/crio-" ID ".scope/container", "",
		"kubepods-" POD ".slice", ID, "crio"},
	{"/system.slice/containerd.service/kubepods-burstable-" POD ".slice:cri-containerd:" ID, "",
		"system.slice", ID, "containerd"},
	{"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-" POD ".slice/cri-containerd-" ID
	 ".scope",
		"", "kubelet-kubepods-" POD ".slice", ID, "containerd"},
	/* CRI-O's and Podman's monitors are not the container */
	{"/kubepods.slice/kubepods-" POD ".slice/crio-conmon-" ID ".scope",
		"crio-conmon-" ID ".scope", "kubepods-" POD ".slice", "", ""},
	{"/machine.slice/libpod-conmon-" ID ".scope", "libpod-conmon-" ID ".scope", "machine.slice",
		"", ""},
	/* Podman */
	{"/machine.slice/libpod-" ID ".scope", "", "machine.slice", ID, "podman"},
	{"/machine.slice/libpod-" ID ".scope/container", "", "machine.slice", ID, "podman"},
	{"/libpod_parent/libpod-" ID, "", "", ID, "podman"},
	{"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" ID ".scope/container",
		"", "user.slice", ID, "podman"},
	{"/system.slice/web.service/libpod-payload-" ID, "web.service", "system.slice", ID,
		"podman"},
	{"/user.slice/user-1000.slice/user@1000.service/app.slice/web.service/libpod-payload-" ID,
		"web.service", "app.slice", ID, "podman"},
	/* not an id: one digit short, one long, capitals */
	{"/docker/"
	 "4c01db0b339c1a8fd2a3c0f5b86ad2a9d6e6a4e0b9d4b7d0ff3f0a9b7c6d5e4",
		"", "", "", ""},
	{"/docker/" ID "0", "", "", "", ""},
	{"/docker/4C01db0b339c1a8fd2a3c0f5b86ad2a9d6e6a4e0b9d4b7d0ff3f0a9b7c6d5e4f", "", "", "",
		""},
};

static void test_paths(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		struct cgroup_facts f;

		memset(&f, 0xff, sizeof(f));
		cgroup_parse(paths[i].path, &f);
		if (strcmp(f.unit, paths[i].unit) || strcmp(f.slice, paths[i].slice) ||
			strcmp(f.container_id, paths[i].id) || strcmp(f.runtime, paths[i].runtime))
			fail_msg("%s: unit '%s' slice '%s' container '%s' runtime '%s'",
				paths[i].path, f.unit, f.slice, f.container_id, f.runtime);
	}
}

static const struct {
	const char *text, *best;
} files[] = {
	{"", "/"},
	{"0::/\n", "/"},
	{"0::/system.slice/nginx.service\n", "/system.slice/nginx.service"},
	{"0::/system.slice/nginx.service (deleted)\n", "/system.slice/nginx.service"},
	/* v1, systemd */
	{"12:pids:/system.slice/cron.service\n4:memory:/system.slice/cron.service\n1:name=systemd:/system.slice/cron.service\n",
		"/system.slice/cron.service"},
	/* hybrid: the v2 hierarchy is empty */
	{"9:name=systemd:/system.slice/cron.service\n0::/\n", "/system.slice/cron.service"},
	/* hybrid, no systemd: name=systemd is there and says nothing */
	{"9:name=systemd:/\n8:pids:/\n4:memory:/docker/" ID "\n1:cpu:/docker/" ID "\n0::/\n",
		"/docker/" ID},
	{"9:name=systemd:/\n4:cpu,memory:/docker/" ID "\n0::/\n", "/docker/" ID},
	/* order: name=systemd, v2, memory */
	{"4:memory:/c/m.service\n0::/b/v2.service\n9:name=systemd:/a/sd.service\n",
		"/a/sd.service"},
	{"4:memory:/c/m.service\n0::/b/v2.service\n9:name=systemd:/\n", "/b/v2.service"},
	{"3:cpuset:/x\n4:memory:/y\n0::/\n", "/y"},
	/* a container says more than the unit its engine lies in */
	{"9:name=systemd:/system.slice/docker.service\n4:memory:/docker/" ID
	 "\n0::/system.slice/docker.service\n",
		"/docker/" ID},
	/* a path with a colon in it */
	{"0::/system.slice/containerd.service/kubepods-x.slice:cri-containerd:" ID "\n",
		"/system.slice/containerd.service/kubepods-x.slice:cri-containerd:" ID},
	/* not what it should be */
	{"garbage\n:::\n0:\n0::relative\n", "/"},
	{"0::/no newline at the end.service", "/no newline at the end.service"},
};

static void test_files(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		char path[4096];

		cgroup_best(files[i].text, path, sizeof(path));
		assert_string_equal(path, files[i].best);
	}
}

static void test_bounds(void **state)
{
	char text[9000], path[16], *long_path = malloc(200001);
	struct cgroup_facts f;

	snprintf(text, sizeof(text), "0::/");
	memset(text + 4, 'x', 8000);
	strcpy(text + 8004, ".service\n");
	cgroup_best(text, path, sizeof(path));
	assert_int_equal(strlen(path), 15);
	for (size_t i = 0; i < 200000; i++)
		long_path[i] = i % 3 ? 'a' : '/';
	long_path[200000] = 0;
	cgroup_parse(long_path, &f);
	assert_string_equal(f.unit, "");
	/* a unit's name as long as the kernel allows */
	memset(text, 'u', 300);
	strcpy(text + 300, ".service");
	cgroup_parse(text, &f);
	assert_string_equal(f.unit, "");
	free(long_path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_files),
		cmocka_unit_test(test_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
