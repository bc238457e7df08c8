#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 600 s
"""Containers of a real Docker engine: by name and by id, in a root file system of their own."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403


def config(docker):
    return f"containers:\n  docker-root: {docker.data}\n"


@case("a container by its name: named, shares and chains right, its id among the attributes")
def by_name():
    with Docker() as docker:
        docker.image("odi-test/work:1", ["shares_c_static"])
        with OtlpReceiver() as receiver, Agentd(config=config(docker)) as a:
            a.add_receiver(receiver)
            a.add_source("container", "odi-web")
            a.enable()
            start(docker, "odi-other")
            identity = start(docker, "odi-web")
            profiles = a.settle_running(receiver, "odi-web", 1500, 60)
            check_shares(profiles.flat("odi-web"), TRUTH["shares_c"]["shares"], "container")
            check_chains(profiles, "odi-web", TRUTH["shares_c"], "container")
            equal(profiles.services(), ["odi-web"], "services")
            resource = profiles.profiles[0].resource
            equal(resource.get("container.id"), identity, "container.id")
            equal(resource.get("container.name"), "odi-web", "container.name")
            check_messages(receiver)
            # it follows a container of the same name with another id
            docker.remove("odi-web")
            again = start(docker, "odi-web")
            wait_for("samples of the new container",
                     lambda: any(p.resource.get("container.id") == again for p in unique(receiver).profiles), 20, 0.3)  # fmt: skip
            docker.remove("odi-web")
            docker.remove("odi-other")
            a.check_ledger()


@case("a container by its id, and by a part of it")
def by_id():
    with Docker() as docker:
        docker.image("odi-test/work:1", ["shares_c_static"])
        with OtlpReceiver() as receiver, Agentd(config=config(docker)) as a:
            a.add_receiver(receiver)
            identity = start(docker, "odi-by-id")
            a.add_source("container", identity[:12], "--service-name", "short-id")
            a.enable()
            a.settle_running(receiver, "short-id")
            equal(unique(receiver).services(), ["short-id"], "services")
            docker.remove("odi-by-id")
            a.check_ledger()


@case("the state files of the engine are not needed to find a container by id")
def without_state():
    with Docker() as docker:
        docker.image("odi-test/work:1", ["shares_c_static"])
        with OtlpReceiver() as receiver, Agentd(config="containers:\n  docker-root: /nonexistent\n") as a:
            a.add_receiver(receiver)
            identity = start(docker, "odi-no-state")
            a.add_source("container", identity)
            a.enable()
            wait_for("samples", lambda: unique(receiver).total(), 20, 0.3)
            check(unique(receiver).profiles[0].resource.get("container.id") == identity, "container.id")
            docker.remove("odi-no-state")


@case("candidates show the containers that run")
def candidates():
    with Docker() as docker:
        docker.image("odi-test/work:1", ["shares_c_static"])
        with Agentd(config=config(docker)) as a:
            start(docker, "odi-candidate")

            def listed():
                return [c for c in rows(a.ctl("source", "candidates"))
                        if field(c, "kind") == "container" and "odi-candidate" in json.dumps(c)]  # fmt: skip

            wait_for("the container among the candidates", listed, 15, 0.5)
            docker.remove("odi-candidate")


GRIND = """
static volatile unsigned long sum;
__attribute__((noinline)) static void grind(void) { for (int i = 0; i < 100000; i++) sum += i; }
int main(void) { for (;;) grind(); }
"""


@case("debug files within a container name its programs, and not the host's of the same build id")
def debug_files():
    folder, root = temp_folder(), os.path.join(temp_folder(), "root")
    source, whole, bare = (os.path.join(folder, name) for name in ("grind.c", "grind", "boxed_grind"))
    with open(source, "w") as f:
        f.write(GRIND)
    subprocess.run(["cc", "-O1", "-g", "-static", "-Wl,--build-id=sha1", "-o", whole, source], check=True)
    subprocess.run(["strip", "-o", bare, whole], check=True)
    notes = subprocess.run(["readelf", "-n", bare], capture_output=True, text=True, check=True).stdout
    build_id = notes.split("Build ID: ")[1].split()[0]
    at = os.path.join(root, "usr/lib/debug/.build-id", build_id[:2])
    os.makedirs(at)
    shutil.copy(bare, root)
    subprocess.run(["objcopy", "--only-keep-debug", whole, os.path.join(at, build_id[2:] + ".debug")], check=True)
    with Docker() as docker, Agentd(config=config(docker)) as a:
        tar = subprocess.run(["tar", "-C", root, "-c", "--owner=0", "--group=0", "."], capture_output=True, check=True).stdout
        docker.docker("import", "-", "odi-test/debug:1", input=tar)
        a.add_source("container", "odi-debug")
        a.add_source("process", bare, "--service-name", "outside")
        a.enable()
        docker.start("odi-test/debug:1", "odi-debug", "/boxed_grind")
        Workload(bare, None, argv=[bare])

        def stacks(service):
            return a.run("flamegraph", "--service", service, "--since", "5s", "--format", "folded", "-o", "-").stdout

        wait_for("names from within", lambda: "main;grind" in stacks("odi-debug"), 30, 0.5)
        wait_for("the program outside", lambda: "main;boxed_grind+0x" in stacks("outside"), 30, 0.5)
        # Of the last five seconds; with names of the other by then, if they were taken for the same.
        time.sleep(5)
        within, outside = stacks("odi-debug"), stacks("outside")
        check("main;grind" in within and ";grind" not in outside, f"{within}\n{outside}")
        rows_of = {f["path"]: f["named_by"] for f in a.ctl("symbols", "--all")["files"]}
        equal(rows_of.get("/boxed_grind"), "DWARF (debug file)", f"{rows_of}")
        equal(rows_of.get(bare), "entry point", f"{rows_of}")
        docker.remove("odi-debug")


def start(docker, name):
    return docker.start("odi-test/work:1", name, "/shares_c_static")


if __name__ == "__main__":
    main()
