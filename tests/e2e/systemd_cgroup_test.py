#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 450 s
"""Units by the names that systemd gives their control groups, whether or not it runs here."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403


def in_unit(path, workload="shares_c", hierarchies=("v2", "systemd")):
    return Workload(workload, cgroups=make_cgroup(path, hierarchies))


@case("a unit by its name; another unit stays out; a restart is followed")
def unit():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        name = a.add_source("systemd", "odi-test-web")
        a.enable()
        web = in_unit("system.slice/odi-test-web.service")
        other = in_unit("system.slice/odi-test-webber.service", "shares_cpp")
        a.settle_running(receiver, None, 300)
        web.stop()
        remove_all("system.slice/odi-test-web.service")
        web = in_unit("system.slice/odi-test-web.service", "shares_c_nopie")
        profiles = a.settle_running(receiver, None, 900)
        web.stop()
        other.stop()
        equal(len(profiles.services()), 1, f"services {profiles.services()}")
        check("odi-test-web" in profiles.services()[0], f"service {profiles.services()}")
        equal({p.resource.get("systemd.unit") for p in profiles.profiles}, {"odi-test-web.service"}, "systemd.unit")
        check(field(a.sources()[name], "samples") > 0, "samples of the source")
        check_shares(profiles.flat(), TRUTH["shares_c"]["shares"], "unit")
        check_messages(receiver)
        a.check_ledger()


@case("a template's instance, a glob, and a slice with all below it")
def templates():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_source("systemd", "odi-test-worker@one.service", "--service-name", "instance")
        a.add_source("systemd", "odi-test-glob*", "--service-name", "glob")
        a.add_source("systemd", "odi-test.slice", "--service-name", "slice")
        a.enable(rate=997)
        running = [
            in_unit("system.slice/system-odi\\x2dtest\\x2dworker.slice/odi-test-worker@one.service"),
            in_unit("system.slice/system-odi\\x2dtest\\x2dworker.slice/odi-test-worker@two.service", "shares_cpp"),
            in_unit("system.slice/odi-test-glob-1.service", "shares_c_nopie"),
            in_unit("odi-test.slice/odi-test-inner.slice/below.service", "shares_c_static"),
        ]
        for service in ("instance", "glob", "slice"):
            a.settle_running(receiver, service, 150)
        for w in running:
            w.stop()
        profiles = a.settle(receiver, "slice")
        equal(profiles.services(), ["glob", "instance", "slice"], "services")
        check(not any("geo::" in name for name in profiles.flat()), "the other instance was taken too")
        a.check_ledger()


@case("a scope of a user's session, and one unit in v1's hierarchy alone")
def scopes():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_source("systemd", "odi-test-session.scope", "--service-name", "session")
        a.enable()
        w = in_unit("user.slice/user-1000.slice/odi-test-session.scope")
        a.settle_running(receiver, "session", 200)
        w.stop()
        if "systemd" not in cgroup_roots() or "v2" not in cgroup_roots():
            return
        a.add_source("systemd", "odi-test-v1", "--service-name", "v1-only")
        w = in_unit("system.slice/odi-test-v1.service", "shares_c_nopie", ("systemd",))
        a.settle_running(receiver, "v1-only", 200)
        w.stop()


@case("a control group by its path, with what lies below")
def cgroup():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_source("cgroup", "/odi-test-group", "--service-name", "group")
        a.enable()
        here = Workload("shares_c", cgroups=make_cgroup("odi-test-group", ("v2",)))
        below = Workload("shares_cpp", cgroups=make_cgroup("odi-test-group/inner", ("v2",)))
        outside = Workload("shares_c_nopie", cgroups=make_cgroup("odi-test-group-2", ("v2",)))
        wait_for("both", lambda: {"leaf_sixty", "geo::Circle::area"} <= set(unique(receiver).flat("group")), 20, 0.3)
        for w in (here, below, outside):
            w.stop()
        profiles = a.settle(receiver, "group")
        equal(profiles.services(), ["group"], "services")
        a.check_ledger()


@case("a process that moves between groups belongs to where it is")
def moves():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_source("systemd", "odi-test-first", "--service-name", "first")
        a.add_source("systemd", "odi-test-second", "--service-name", "second")
        a.enable()
        w = in_unit("system.slice/odi-test-first.service")
        a.settle_running(receiver, "first", 200)
        for group in make_cgroup("system.slice/odi-test-second.service"):
            with open(os.path.join(group, "cgroup.procs"), "w") as f:
                f.write(str(w.pid))
        a.settle_running(receiver, "second", 200)
        w.stop()
        a.check_ledger()


@case("the most specific source takes an image: process, then unit, then group, then host")
def precedence():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_source("host")
        group = a.add_source("cgroup", "/system.slice", "--service-name", "group")
        unit_source = a.add_source("systemd", "odi-test-who", "--service-name", "unit")
        process = a.add_process("shares_c", "--service-name", "process")
        a.enable()
        w = in_unit("system.slice/odi-test-who.service")
        for service, name in (("process", process), ("unit", unit_source), ("group", group)):
            receiver.reset()
            a.settle_running(receiver, service, 200)
            if service == "process":
                shown = a.run("source", "show", unit_source).stdout
                check(process in shown, f"source show does not say what took its image: {shown}")
            a.ctl("source", "remove", name, "--yes")
        receiver.reset()
        wait_for("the host source takes it", lambda: unique(receiver).flat()["leaf_sixty"] > 100, 20, 0.3)
        w.stop()
        a.check_ledger()


def remove_all(path):
    for root in cgroup_roots().values():
        remove_cgroup(os.path.join(root, path))


if __name__ == "__main__":
    main()
