#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 900 s
"""Stacks of what is new or short: the first sample of a file that was never seen, processes of 100 ms, thousands of
executions a second; and that counting in the kernel neither loses a sample nor makes one."""

import collections
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403
from unwind_truth import INTERVAL, NO_BUDGET, STACKS, check_stacks, finish  # noqa: E402

ALL = dict(STACKS["chain"], share=1.0)


def fresh(name, workload="chain_gcc_o2"):
    """A file that no profiler has ever seen."""
    return copy_program(workload, name, temp_folder())


def run_once(path, seconds):
    """Answers the CPU time in ns that it used, by the kernel's account."""
    p = spawn([path, str(seconds)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(p.pid, 0)
    p.returncode = os.waitstatus_to_exitcode(status)
    return (used.ru_utime + used.ru_stime) * 1e9


def brief_processes(path, n, pause, seconds):
    """One every so long, whether the one before has ended or not. Answers the CPU time of all, in ns."""
    running, used = [], 0.0
    start = time.monotonic()
    for i in range(n):
        time.sleep(max(0.0, start + i * pause - time.monotonic()))
        running.append(spawn([path, str(seconds)], stdout=subprocess.DEVNULL))
    for p in running:
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
        used += (usage.ru_utime + usage.ru_stime) * 1e9
        equal(p.returncode, 0, "exit status")
    return used


def refused(a):
    """Stacks that were not kept: of processes that are not known yet so many are for each CPU and second. A host on
    which agentd itself waits for a CPU all the time meets more of them meanwhile, and says so."""
    return field(field(a.status(), "unwinding"), "slices_refused")


def unless_refused(take):
    """What take() answers, which ends with refused(): once more, with new files, where the host was that busy."""
    for _ in range(8):
        *found, n = take()
        if not n:
            break
        say(f"# {n} stacks were not kept: once more")
    return *found, n


def take_first():
    with OtlpReceiver() as receiver, Agentd(config=NO_BUDGET) as a:
        a.add_receiver(receiver)
        running, new = fresh("running"), fresh("new", "chain_clang_o2")
        a.add_process(running, "--service-name", "running")
        a.add_process(new, "--service-name", "new")
        before = Workload(running, 3600)
        wait_for("it runs", lambda: before.cpu_seconds() > 0.1)
        a.enable(rate=997, interval=INTERVAL)
        then = before.cpu_seconds()
        Workload(new, 3600).work(0.2)
        wait_for("CPU time", lambda: before.cpu_seconds() > then + 0.2, 20)
        before.process.terminate()
        before.process.wait()
        profiles, _ = finish(a, receiver)
        say(f"# how stacks ended: {json.dumps(field(a.status(), 'stacks', default=None))}")
        return profiles, running, new, refused(a)


@case("the first samples of a never-seen binary are whole")
def first():
    profiles, running, new, not_kept = unless_refused(take_first)
    truth = dict(ALL, leaves=[])
    check_stacks(profiles, "running", truth, running, "running before it was enabled", enough=20, not_kept=not_kept)
    check_stacks(profiles, "new", truth, new, "new, for 0.2 s", enough=20, not_kept=not_kept)


def take_starved():
    with OtlpReceiver() as receiver, Agentd(config=NO_BUDGET) as a:
        a.add_receiver(receiver)
        new = fresh("new")
        a.add_process(new, "--service-name", "new")
        a.add_source("host")
        busy = [Workload(fresh(f"busy{i}", ("chain_gcc_o1", "chain_clang_o3", "chain_gcc_o3")[i % 3]), 3600) for i in range(15)]
        wait_for("all of them run", lambda: all(w.cpu_seconds() > 0.02 for w in busy))
        a.enable(rate=99, interval=INTERVAL)
        time.sleep(0.1)
        Workload(new, 3600).work(0.4)
        for w in busy:
            w.process.kill()
            w.process.wait()
        profiles, _ = finish(a, receiver)
        return profiles, new, refused(a)


@case("the first samples are whole on a host that is busy, too")
def starved():
    profiles, new, not_kept = unless_refused(take_starved)
    check_stacks(profiles, "new", dict(ALL, leaves=[]), new, "one of 16", enough=8, not_kept=not_kept)
    for i in range(3):
        check_stacks(profiles, f"busy{i}", dict(ALL, leaves=[]), f"busy{i}", f"busy {i}", enough=8, not_kept=not_kept)


@case("processes of 100 ms, 20 a second: all attributed, named, whole")
def brief():
    with OtlpReceiver() as receiver, Agentd(config=NO_BUDGET) as a:
        a.add_receiver(receiver)
        path = fresh("brief100")
        a.add_process(path, "--service-name", "brief")
        a.enable(rate=199, interval=INTERVAL)
        cpu_ns = run_once(path, 0.1)
        time.sleep(1)
        cpu_ns += brief_processes(path, 200, 0.05, 0.1)
        # What a start and an end take of CPU: of 100 ms a busy host gives little more to some.
        starts_ns = brief_processes(path, 50, 0.05, 0)
        profiles, ledger = finish(a, receiver)
        not_kept = refused(a)
        check_messages(receiver)
    starting = expected_samples(starts_ns * 250 / 50, 199)
    check_stacks(profiles, "brief", ALL, path, "100 ms", starting=starting + SIGMA * starting**0.5, not_kept=not_kept)
    n, wanted = profiles.total("brief"), expected_samples(cpu_ns + starts_ns, 199)
    say(f"# {n} samples, {wanted:.0f} expected, {starting:.0f} of starts; late {ledger['late']} of {ledger['due']}")
    check_count(n, wanted, "brief", 0.1, ledger["late"])


@case("what is counted in the kernel and what is sent arrive together, to the sample")
def exact():
    with OtlpReceiver() as receiver, Agentd(config=NO_BUDGET) as a:
        a.add_receiver(receiver)
        names = ("steady", "other", "many")
        paths = [fresh("steady", "tower_cpp"), fresh("other", "chain_gcc_o2"), fresh("many", "chain_clang_o1")]
        for name, path in zip(names, paths):
            a.add_process(path, "--service-name", name)
        a.enable(rate=997, interval=INTERVAL)
        running = [Workload(f"{paths[0]} deep", 3600), Workload(paths[1], 3600), Workload(f"{paths[2]} storm", 3600)]
        wait_for("CPU time of all", lambda: all(w.cpu_seconds() > 1.3 for w in running), 60)
        a.ctl("profiling", "enable", "--rate", 499)  # what was counted at another period stays what it was
        cpu_ns = [w.work(4)["cpu_ns"] for w in running]
        status = a.status()
        profiles, ledger = finish(a, receiver)
        equal(repeats(receiver), 0, "profiles that came twice")
        check_messages(receiver)
    say(f"# {json.dumps(ledger)}")
    equal(ledger["destinations"]["backend"]["delivered"], profiles.total(), "delivered, says the ledger")
    counted = field(field(status, "unwinding"), "counted")
    check(counted > 0.2 * profiles.total(), f"only {counted} of {profiles.total()} were counted in the kernel")
    # and not only consistent but true: by CPU time, with the share of either rate
    time_of = {s: sum(p.period * sum(x.count for x in p.samples) for p in profiles.profiles if p.service == s) for s in names}
    for name, wanted in zip(names, cpu_ns):
        margin, late = 0.08 * wanted, ledger["late"] * 1e9 / 499
        check(wanted - margin - late <= time_of[name] <= wanted + margin, f"{name}: {time_of[name] / 1e9:.2f} s in its profiles, used {wanted / 1e9:.2f}")


MIB = 1 << 20


class Peaks:
    """The most memory of each role while a block runs, looked at ten times a second."""

    def __init__(self, a):
        self.a, self.most, self.over = a, collections.Counter(), threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.over.set()
        self.thread.join()

    def run(self):
        while not self.over.wait(0.1):
            for role, (whole, anonymous) in by_role(self.a).items():
                self.most[role] = max(self.most[role], whole)
                self.most[f"{role}, anonymous"] = max(self.most[f"{role}, anonymous"], anonymous)


def by_role(a):
    """{role: (bytes, of these anonymous)}, by share of pages."""
    found = {}
    for p in [a.pid, *descendants(a.pid)]:
        argv = cmdline(p)
        role = argv[argv.index("--role") + 1] if "--role" in argv[:-1] else "agentd"
        before = found.get(role, (0, 0))
        found[role] = (before[0] + pss(p), before[1] + pss(p, "Pss_Anon:"))
    return found


@case("2,000 executions a second: nothing crashes, memory of all roles is bounded, the ledger closes")
def many():
    nothing = os.path.join(WORKLOADS, "nothing")
    with OtlpReceiver() as receiver, Agentd(config=NO_BUDGET) as a:
        a.add_receiver(receiver)
        during, later = fresh("during"), fresh("later")
        a.add_process(during, "--service-name", "during")
        a.add_process(later, "--service-name", "later")
        a.add_source("host")
        a.enable(rate=199, interval=INTERVAL)
        before = {p for p in descendants(a.pid)}
        other, started = Workload(during, 3600), 0
        with Peaks(a) as peaks:
            for _ in range(10):  # a slow machine takes longer for as many
                started += Workload(f"processes many {nothing}", 10).wait()["started"]
                if started >= 5000:
                    break
        other.work(1)
        wait_for("the storm is digested", lambda: not field(field(a.status(), "unwinding"), "spaces_waiting"), 10)
        not_kept = refused(a)
        Workload(later, 3600).work(2)
        not_kept = refused(a) - not_kept
        after = {p for p in descendants(a.pid)}
        check(a.alive(), "agentd ended")
        check(before <= after, f"children of agentd ended: {[(p, cmdline(p)) for p in before - after]}")
        say(f"# at most: {({k: f'{v / MIB:.1f} MiB' for k, v in sorted(peaks.most.items())})}")
        # A process costs the symbolizer nothing, new files do: what reading one takes is held by its limit of
        # data (150 MB); what it keeps of all that this host runs is 20 MB while it is asked, and what it is made of.
        check(peaks.most["symbolizer, anonymous"] <= 150e6, f"{peaks.most}")
        wait_for("the symbolizer has given back what it read",
                 lambda: by_role(a).get("symbolizer", (0, 0))[0] <= 40 * MIB, 15, 0.5)  # fmt: skip
        each = by_role(a)
        memory = sum(peaks.most[role] for role in each if role != "symbolizer")
        say(f"# afterwards: {({k: f'{v[0] / MIB:.1f} MiB' for k, v in sorted(each.items())})}")
        profiles, ledger = finish(a, receiver, lost=None)
        say(f"# {started} executions, {memory >> 20} MiB without the symbolizer, lost {ledger['lost']} of {ledger['taken']}: {ledger.get('lost_by')}")
        check(memory < 80 * MIB, f"{memory >> 20} MiB of memory: {peaks.most}")
        check_messages(receiver)
    check(started >= 5000, f"only {started} executions in 100 s: this machine is too busy")
    # Whoever runs amid the storm may find that names and pieces of stacks are for others; not so afterwards.
    check(profiles.total("during") > 100, "the program beside it was not seen")
    check_stacks(profiles, "later", STACKS["chain"], later, "after the storm", not_kept=not_kept)


def pss(pid, key="Pss:"):
    """Bytes; 0 where it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup") as f:
            return next((1024 * int(line.split()[1]) for line in f if line.startswith(key)), 0)
    except OSError:
        return 0


if __name__ == "__main__":
    main()
