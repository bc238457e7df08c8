# SPDX-License-Identifier: Apache-2.0
"""The benchmark's part that measures how much slower sampled programs run.

One program is pinned to each CPU and counts its work. Time is cut into slices of a tenth of a second, in pairs with
sampling on and off, which first at random. Off: the sampling events are disabled (through their descriptors, borrowed
from agentd) and all of agentd's processes are stopped; on: both go on. So a pair lies within a moment in which the
machine does not change, and thousands of pairs fit into minutes, where enabling and disabling by command would take
longer than a slice.

The slow-down is the sum of two things that are measured apart, so that others on the host and theft by the hypervisor are
in neither: work a second of the programs' own CPU time (the sampling interrupt runs on it, and what it does to caches
shows), and what agentd's processes took of all CPUs. Beside it the same by the wall clock, and a control that is off in
both slices of a pair."""

import ctypes
import fcntl
import random
import statistics

from cost import *  # noqa: F403

SLICE = 0.1
SETTLE = 0.01
PERF_EVENT_IOC_ENABLE = 0x2400
PERF_EVENT_IOC_DISABLE = 0x2401
SYS_PIDFD_OPEN, SYS_PIDFD_GETFD = 434, 438
libc = ctypes.CDLL(None, use_errno=True)


class Switch:
    """Sampling on and off without telling agentd."""

    def __init__(self, agentd):
        self.agentd = agentd
        pidfd = libc.syscall(SYS_PIDFD_OPEN, agentd.pid, 0)
        self.events = []
        for fd in os.listdir(f"/proc/{agentd.pid}/fd"):
            if os.readlink(f"/proc/{agentd.pid}/fd/{fd}") == "anon_inode:[perf_event]":
                self.events.append(libc.syscall(SYS_PIDFD_GETFD, pidfd, int(fd), 0))
        os.close(pidfd)
        check(self.events and min(self.events) >= 0, "agentd's events could not be borrowed")
        self.pids = [agentd.pid, *descendants(agentd.pid)]

    def set(self, on):
        for fd in self.events:
            fcntl.ioctl(fd, PERF_EVENT_IOC_ENABLE if on else PERF_EVENT_IOC_DISABLE, 0)
        for pid in self.pids if on else reversed(self.pids):
            try:
                os.kill(pid, signal.SIGCONT if on else signal.SIGSTOP)
            except ProcessLookupError:
                pass
        time.sleep(SETTLE)

    def close(self):
        self.set(True)
        for fd in self.events:
            os.close(fd)


def one_slice(load, agentd):
    """(work a second, work a second of own CPU time, agentd's share of all CPUs)."""
    work, t, used = load.work(), time.monotonic_ns(), agentd.cost.cpu_ns()
    time.sleep(SLICE)
    after, took, used = load.work(), time.monotonic_ns() - t, agentd.cost.cpu_ns() - used
    done = [(b[0] - a[0], max(b[1] - a[1], 1)) for a, b in zip(work, after)]
    return sum(d[0] for d in done) / took, sum(d[0] / d[1] for d in done), used / took / CPUS


def pairs(load, switch, agentd, n, states):
    """The loss in percent of each pair: by the wall clock, by the programs' own CPU time, and what agentd used."""
    wall, own, used = [], [], []
    for _ in range(n):
        got = {}
        for i in random.sample((0, 1), 2):
            switch.set(states[i])
            got[i] = one_slice(load, agentd)
        wall.append(100 * (1 - got[0][0] / max(got[1][0], 1e-9)))
        own.append(100 * (1 - got[0][1] / max(got[1][1], 1e-9)))
        used.append(100 * (got[0][2] - got[1][2]))
    return wall, own, used


def slowdown(table):
    with Measured() as a:
        load = Deep([104, 6])
        a.all_on()
        time.sleep(seconds(12))
        switch = Switch(a)
        before = a.ledger().get("taken", 0)
        rounds = int(seconds(50) / (2 * (SLICE + SETTLE)))
        wall, own, used = pairs(load, switch, a, rounds, (True, False))
        switch.set(True)
        taken = a.ledger().get("taken", 0) - before
        empty_wall, empty_own, _ = pairs(load, switch, a, rounds, (False, False))
        switch.close()
        load.stop()
    rate = taken / (rounds * (SLICE + SETTLE)) / CPUS
    # What agentd used comes in bursts (an interval's end), so no slice of it is left out.
    agent = statistics.mean(used)
    inside, half = robust(own)
    total = inside + agent
    empty, empty_half = robust(empty_own)
    table.add("slow-down of the sampled programs", f"{total:+.3f} % ± {half:.3f}", "<= 0.25 %, ± <= 0.25", total <= 0.25 and half <= 0.25,
              f"within their own CPU time {inside:+.3f}, CPU time of agentd {agent:+.3f}; off against off {empty:+.3f} % ± {empty_half:.3f}; "
              f"{rounds} pairs, 95 %; {rate:.0f} samples a second and CPU while on; OpenTelemetry 0.5 to 1 %",
              pairs=own, agentd=used, control=empty_own)  # fmt: skip
    mean, half = robust(wall)
    empty, empty_half = robust(empty_wall)
    table.add("the same by the wall clock, all that happens on the host included", f"{mean:+.3f} % ± {half:.3f}", "", None,
              f"off against off {empty:+.3f} % ± {empty_half:.3f}", pairs=wall, control=empty_wall)  # fmt: skip
