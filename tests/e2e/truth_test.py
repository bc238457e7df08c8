#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 480 s
"""The main job: workloads whose profile is known, in the OTLP that arrives at independent receivers."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403

RATE = 499
CPU_SECONDS = 3  # of each program that may be ended: so many samples, on a busy host, too
# Where everything is busy names may take a second; an interval waits for them no longer than it lasts.
INTERVAL = "5s"


def take(names, cpu_seconds=CPU_SECONDS, source=(), rate=RATE, enable=()):
    """Profiles these workloads at the same time, each as a service of its own name; answers what arrived, what each
    reported, and how many samples were late."""
    reports = {}
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        for name in names:
            a.add_process(name, "--service-name", name.replace(" ", "-"), *source)
        a.enable(*enable, rate=rate, interval=INTERVAL)
        running = [Workload(name, 0 if ends_when_asked(name) else cpu_seconds + 1) for name in names]
        for w in running:
            reports[w.name] = w.work(cpu_seconds) if ends_when_asked(w.name) else w.wait()
        profiles, ledger = a.finish(receiver)
        check_messages(receiver)
        equal(repeats(receiver), 0, "profiles that came twice")
    return profiles, reports, ledger["late"]


def ends_when_asked(name):
    """Go's and Rust's know no SIGTERM, and plugin has halves: they end by themselves."""
    return name not in ("shares_go", "shares_rust", "plugin")


def check_amount(profiles, service, cpu_ns, rate, what, late, slack=0.05):
    check_count(profiles.total(service), expected_samples(cpu_ns, rate), what, slack, late)


def truth_case(group, title):
    @case(f"shares, chains and names: {title}")
    def run():
        for name in group:
            if not os.path.exists(os.path.join(WORKLOADS, name.split()[0])):
                raise CannotRun(f"{name} was not built on this machine")
        profiles, reports, late = take(group)
        for name in group:
            service, truth = name.replace(" ", "-"), TRUTH[name]
            say(f"# {name}: {profiles.total(service)} samples, {reports[name]}")
            check_shares(profiles.flat(service), truth["shares"], name)
            check_chains(profiles, service, truth, name)
            check_amount(profiles, service, reports[name]["cpu_ns"], RATE, name, late)
            for leaf, module in truth.get("modules", {}).items():
                found = {os.path.basename(s.frames[0].module) for s in profiles.samples(service)
                         if s.user and s.user[0] == leaf and s.frames[0].kind != "kernel"}  # fmt: skip
                equal(found, {module}, f"{name}: module of {leaf}")


truth_case(["shares_c", "shares_c_nopie"], "C, PIE and not")
truth_case(["shares_cpp", "shares_c_static"], "C++ and a static C program")
truth_case(["shares_rust"], "Rust")
truth_case(["shares_go"], "Go")
truth_case(["shared", "plugin"], "a library of its own, linked and opened later")


@case("threads: shares and chains of three, names where asked for")
def threads():
    profiles, reports, late = take(["threads"], source=["--per-thread"])
    truth = TRUTH["threads"]
    check_shares(profiles.flat("threads"), truth["shares"], "threads")
    check_chains(profiles, "threads", truth, "threads")
    check_amount(profiles, "threads", reports["threads"]["cpu_ns"], RATE, "threads", late)
    for s in profiles.samples("threads"):
        if s.user and s.user[0] in truth["threads"]:
            equal(s.attributes.get("thread.name"), truth["threads"][s.user[0]], f"thread of {s.user[0]}")


@case("threads: no thread ids or names where nobody asked")
def no_threads():
    profiles, _, _ = take(["threads"], 1)
    check(profiles.total("threads") > 200, "no samples")
    keys = {k for s in profiles.samples("threads") for k in s.attributes}
    check(not keys & {"thread.name", "thread.id", "cpu.logical_number"}, f"sample attributes: {keys}")


@case("kernel frames on top of the user's, and off on request")
def kernel():
    for name in ("kernel_work zero", "kernel_work random"):
        profiles, _, _ = take([name])
        service, truth = name.replace(" ", "-"), TRUTH[name]
        n = profiles.total(service)
        inside = sum(s.count for s in profiles.samples(service) if s.kernel)
        right = sum(s.count for s in profiles.samples(service) if any(truth["kernel"] in f for f in s.kernel))
        check(inside / n >= truth["kernel_share_at_least"], f"{name}: {inside} of {n} samples in the kernel")
        check(right / n >= truth["kernel_share_at_least"] - 0.03, f"{name}: {right} of {n} samples below {truth['kernel']}")
        check_chains(profiles, service, truth, name)
        unnamed = {f for s in profiles.samples(service) for f in s.kernel if "+0x" in f}
        check(not unnamed, f"{name}: kernel frames without a name: {sorted(unnamed)[:5]}")
    profiles, _, _ = take(["kernel_work zero"], 1, enable=["--no-kernel-frames"])
    check(profiles.total("kernel_work-zero") > 200, "no samples")
    check(not any(s.kernel for s in profiles.samples("kernel_work-zero")), "kernel frames although they are off")
    check_chains(profiles, "kernel_work-zero", TRUTH["kernel_work zero"], "without kernel frames")


@case("a program that executes another in place: each half under its own executable")
def exec_in_place():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_process("exec_first", "--service-name", "first")
        a.add_process("exec_second", "--service-name", "second")
        a.enable(interval=INTERVAL)
        report = Workload("exec_first", 4).wait()
        profiles, ledger = a.finish(receiver)
        check_messages(receiver)
    equal(set(profiles.flat("first")) & {"after_exec"}, set(), "functions of the second program in the first")
    equal(set(profiles.flat("second")) & {"before_exec"}, set(), "functions of the first program in the second")
    check_shares(profiles.flat("first"), {"before_exec": 1.0}, "first", others=0.05)
    check_shares(profiles.flat("second"), {"after_exec": 1.0}, "second", others=0.05)
    check_chains(profiles, "first", TRUTH["exec_first"], "first")
    check_chains(profiles, "second", TRUTH["exec_first"], "second")
    check_amount(profiles, None, report["cpu_ns"], RATE, "both", ledger["late"])


@case("processes of 100 ms: attributed, named, none missing")
def brief():
    program = os.path.join(WORKLOADS, "brief")
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_process("brief", "--service-name", "brief")
        a.enable(interval=INTERVAL)
        report = Workload(f"launch 30 20 {program}", seconds=None).wait()
        # What a process costs that does no work: of 100 ms a busy host gives little more to some.
        starts = Workload(f"launch 30 20 {program} 0.000001", seconds=None).wait()
        profiles, ledger = a.finish(receiver)
    found = profiles.flat("brief")
    n = sum(found.values())
    outside, wanted = n - found["brief_work"], expected_samples(2 * starts["cpu_ns"], RATE)
    say(f"# {n} samples, {outside} of them of starts and ends, of which {wanted:.0f} are expected")
    check(outside <= 0.08 * n + wanted + SIGMA * wanted**0.5, f"brief: {outside} of {n} are not of brief_work: {found.most_common(8)}")
    check_chains(profiles, "brief", TRUTH["brief"], "brief")
    check_amount(profiles, "brief", report["cpu_ns"] + starts["cpu_ns"], RATE, "brief", ledger["late"], slack=0.1)


@case("a stripped program keeps file and offset, never an empty name")
def stripped():
    profiles, _, _ = take(["shares_c_stripped"], 1)
    names = {f.name for s in profiles.samples("shares_c_stripped") for f in s.frames if f.kind == "native"}
    own = {n for n in names if n.startswith("shares_c_stripped+0x")}
    check(own, f"no frame of the form shares_c_stripped+0x...: {sorted(names)[:5]}")
    check("leaf_sixty" not in names, "a stripped program with names")


@case("what no source selects is never exported; the host source takes the rest")
def selection():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_process("shares_c", "--service-name", "chosen")
        a.enable(interval=INTERVAL)
        chosen, other = Workload("shares_c"), Workload("shares_c_nopie")
        chosen.work(1)
        other.work(1)
        a.settle(receiver, "chosen")
        equal(unique(receiver).services(), ["chosen"], "services that were exported")
        check(a.ledger()["ignored"] > 0, "nothing counted as ignored")
        a.add_source("host")
        chosen, other = Workload("shares_c"), Workload("kernel_work zero")
        path = os.path.join(temp_folder(), "written")

        def kernels_own():
            """Gives the kernel's own threads something to do."""
            with open(path, "wb") as f:
                f.write(bytes(16 << 20))
                os.fsync(f.fileno())
            return unique(receiver).total("kernel")

        wait_for("samples of the kernel's own threads", kernels_own, 60)
        chosen.work(1)
        other.work(1)
        profiles, _ = a.finish(receiver)
        check(profiles.total("shares_c") == 0, "the host source took what the process source claims")
        check_shares(profiles.flat("chosen"), TRUTH["shares_c"]["shares"], "chosen")
        # the outermost functions of every idle CPU; others may call their own as they like
        idle = [s.kernel for s in profiles.samples() if {"do_idle", "cpu_startup_entry"} & set(s.kernel)]
        check(not idle, f"idle was exported: {idle[:2]}")
        check_messages(receiver)


@case("service names: the source's, else the environment's, else the executable's")
def service_names():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.ctl("host", "label", "region=north")
        for program in ("shares_c", "shares_cpp", "shares_c_nopie"):
            a.add_process(program)
        a.add_process("shares_c_static", "--service-name", "given", "--label", "team=blue")
        a.enable()
        env = {"OTEL_SERVICE_NAME": "from-env",
               "OTEL_RESOURCE_ATTRIBUTES": "service.name=ignored,service.version=1.2,deployment.environment=test%20x"}  # fmt: skip
        resource = {"OTEL_RESOURCE_ATTRIBUTES": "service.name=from-attributes"}
        running = [Workload("shares_c", 3, env=env), Workload("shares_cpp", 3, env=resource),
                   Workload("shares_c_nopie", 3), Workload("shares_c_static", 3, env={**env, "SECRET_WORD": "xyzzy-4711"})]  # fmt: skip
        for w in running:
            w.wait()
        profiles, _ = a.finish(receiver)
        check_messages(receiver)
        raw = b"".join(m.SerializeToString() for m in receiver.messages)
    equal(profiles.services(), ["from-attributes", "from-env", "given", "shares_c_nopie"], "services")
    attributes = {p.service: p.resource for p in profiles.profiles}
    equal(attributes["from-env"].get("service.version"), "1.2", "service.version")
    equal(attributes["from-env"].get("deployment.environment"), "test x", "deployment.environment")
    equal(attributes["given"].get("team"), "blue", "the source's label")
    for service, found in attributes.items():
        equal(found.get("region"), "north", f"{service}: the host's label")
        check(found.get("host.name"), f"{service}: no host.name")
        check("process.pid" not in found, f"{service}: process.pid although nobody asked")
    check(b"xyzzy" not in raw and b"SECRET_WORD" not in raw, "the environment left the host")


@case("the collector's own receiver reads the same")
def collector():
    program = os.path.join(BUILD, "go-receiver")
    if not os.path.exists(program):
        raise CannotRun("the collector's receiver was not built (see build/receiver)")
    out, http = os.path.join(temp_folder(), "received.json"), free_port()
    receiver = spawn([program, "-http", f"127.0.0.1:{http}", "-grpc", f"127.0.0.1:{free_port()}", "-out", out],
                     stdout=subprocess.PIPE, text=True)  # fmt: skip
    equal(receiver.stdout.readline().strip(), "ready", "the collector's receiver")
    with OtlpReceiver() as python, Agentd() as a:
        a.add_receiver(python, "python")
        a.ctl("destination", "add", "otlphttp", "collector", "--url", f"http://127.0.0.1:{http}")
        a.add_process("shares_c", "--service-name", "both")
        a.enable()
        Workload("shares_c").work(1)
        profiles, _ = a.finish(python)

        def same():
            with open(out) as f:
                got = json.load(f)
            return got if got["services"].get("both", {}).get("samples/count") == profiles.total("both") else None

        got = wait_for("the collector has as many samples", same, 10)
    equal(got["problems"], [], "problems that the collector's data model shows")
    leaves = {check_otlp.base_name(k): v for k, v in got["leaves"]["both"].items()}
    equal(leaves.get("leaf_sixty"), profiles.flat("both", user=False)["leaf_sixty"], "samples in leaf_sixty")
    equal(sorted(set(got["profile_ids"])), sorted(set(profiles.ids())), "profile ids")


if __name__ == "__main__":
    main()
