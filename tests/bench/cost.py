# SPDX-License-Identifier: Apache-2.0
"""What the parts of the benchmark share: an agentd in a control group of its own, what it costs, programs that burn CPU
time, and the table of results."""

import mmap
import os
import statistics
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e/lib"))
from odi_harness import *  # noqa: E402,F403

DEBUG_FOLDER = "/usr/lib/debug"
PROGRAMS = os.path.join(BUILD, "bench")
CPUS = os.cpu_count()
STATS = "/proc/sys/kernel/bpf_stats_enabled"
PERF_EVENT = "7"  # enum bpf_prog_type, as fdinfo has it
TICK = os.sysconf("SC_CLK_TCK")
# Shortens everything, to try the benchmark itself: figures are worth nothing then.
SCALE = float(os.environ.get("ODI_BENCH_SCALE", "1"))


def seconds(n):
    return max(n * SCALE, 0.5)


def bpf_stats(on):
    with open(STATS, "w") as f:
        f.write("1" if on else "0")


def hide_debug():
    """As on a typical host, without packages of debug information, whatever this one has: ODI_HIDE_DEBUG=0 leaves them.
    For all of the host, since they are looked for in the profiled program's root, too."""
    if os.environ.get("ODI_HIDE_DEBUG") == "0" or not os.path.isdir(DEBUG_FOLDER):
        return
    subprocess.run(["mount", "-t", "tmpfs", "none", DEBUG_FOLDER], check=True)
    on_end(lambda: subprocess.run(["umount", DEBUG_FOLDER], check=False))


def fdinfo(pid, kind):
    """The fdinfo of each BPF object of that kind which a process holds."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{fd}") != f"anon_inode:{kind}":
                continue
            with open(f"/proc/{pid}/fdinfo/{fd}") as f:
                yield {k: v.strip() for k, v in (line.split(":", 1) for line in f if ":" in line)}
        except OSError:
            continue


def pss_bytes(pid):
    """PSS without the BPF maps that are mapped: those are counted as maps."""
    total, in_map = 0, False
    with open(f"/proc/{pid}/smaps") as f:
        for line in f:
            if line.startswith("Pss:"):
                total += 0 if in_map else int(line.split()[1])
            elif "-" in line.split(" ", 1)[0]:
                in_map = "anon_inode:bpf-map" in line
    return total * 1024


class Cost:
    """CPU time and memory of an agentd in a control group of its own."""

    def __init__(self, agentd, group):
        self.agentd = agentd
        self.group = group

    def cpu_ns(self):
        with open(os.path.join(self.group, "cpu.stat")) as f:
            return 1000 * int(dict(line.split() for line in f)["usage_usec"])

    def programs(self):
        """Of our BPF programs by id: (kind, run time in ns, runs)."""
        found = {}
        for i in fdinfo(self.agentd.pid, "bpf-prog"):
            found[i["prog_id"]] = (i["prog_type"], int(i["run_time_ns"]), int(i["run_cnt"]))
        return found

    def bpf_ns(self):
        return sum(ns for _, ns, _ in self.programs().values())

    def sampling(self):
        """Run time in ns and runs of the sampling program."""
        programs = [p for p in self.programs().values() if p[0] == PERF_EVENT]
        return sum(p[1] for p in programs), max(p[2] for p in programs)

    def by_role(self):
        """CPU seconds of each living process by its role, to see where time goes (in clock ticks, so rough)."""
        found = {}
        for pid in [self.agentd.pid, *descendants(self.agentd.pid)]:
            argv = cmdline(pid)
            role = argv[argv.index("--role") + 1] if "--role" in argv[:-1] else "agentd"
            try:
                with open(f"/proc/{pid}/stat") as f:
                    words = f.read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            found[role] = found.get(role, 0) + (int(words[11]) + int(words[12])) / TICK
        return found

    def memory(self):
        """PSS of all processes and BPF maps, in bytes."""
        pss = 0
        for pid in [self.agentd.pid, *descendants(self.agentd.pid)]:
            try:
                pss += pss_bytes(pid)
            except OSError:
                pass
        maps = {i["map_id"]: int(i["memlock"]) for i in fdinfo(self.agentd.pid, "bpf-map")}
        return pss, sum(maps.values())


class Measured(Agentd):
    """An agentd in a control group of its own, as a user starts it."""

    def __init__(self, **options):
        self.group = make_cgroup(f"odi-bench-{os.getpid()}-{time.monotonic_ns()}", ("v2",))[0]
        super().__init__(**options)
        self.cost = Cost(self, self.group)

    def argv(self):
        move = f'echo $$ > {self.group}/cgroup.procs; exec "$@"'
        return ["/bin/sh", "-c", move, "sh", AGENTD, "--socket", self.socket, "--state-dir", self.state]

    def all_on(self, rate=99):
        self.ctl("profiling", "enable", "--all", "--rate", rate)

    def stacks(self):
        """How far stacks went, as numbers; {} before the first."""
        return {plain(k): v for k, v in (field(self.status(), "stacks") or {}).items()}

    def unwinding(self):
        return {plain(k): v for k, v in (field(self.status(), "unwinding") or {}).items()}

    def why_not(self, n=3):
        """The most frequent ends but the root."""
        s = self.stacks()
        ends = sorted(s.get("ended", {}).items(), key=lambda e: -int(e[1]))
        files = [f"{field(f, 'samples')} {field(f, 'ended')} in {field(f, 'file')}" for f in s.get("files", [])[:n]]
        return ", ".join([f"{samples} {key}" for key, samples in ends[:n]] + files)


class Window:
    """Cost from here to there."""

    def __init__(self, agentd):
        self.agentd = agentd
        self.start = self.now()

    def now(self):
        c = self.agentd.cost
        return {"cpu": c.cpu_ns(), "bpf": c.bpf_ns(), "taken": self.agentd.ledger().get("taken", 0), "t": time.monotonic_ns(),
                "roles": c.by_role()}  # fmt: skip

    def close(self, peak=0):
        a, b = self.start, self.now()
        took = b["t"] - a["t"]
        pss, maps = self.agentd.cost.memory()
        roles = {k: round(100 * (v - a["roles"].get(k, 0)) / (took / 1e9), 3) for k, v in b["roles"].items()}
        return {"cpu_percent": 100 * (b["cpu"] - a["cpu"]) / took, "bpf_percent": 100 * (b["bpf"] - a["bpf"]) / took,
                "samples": b["taken"] - a["taken"], "bpf_us": (b["bpf"] - a["bpf"]) / 1000 / max(b["taken"] - a["taken"], 1),
                "pss_mb": pss / 1e6, "maps_mb": maps / 1e6, "peak_mb": max(peak, pss + maps) / 1e6,
                "roles_percent": roles}  # fmt: skip


def watch(agentd, length, every=1.0):
    """Waits, and answers the most memory seen meanwhile, in bytes."""
    peak, until = 0, time.monotonic() + length
    while time.monotonic() < until:
        time.sleep(min(every, max(until - time.monotonic(), 0.01)))
        peak = max(peak, sum(agentd.cost.memory()))
    return peak


# ---- programs that burn CPU time -------------------------------------------------------------------------------


def program(name):
    path = os.path.join(PROGRAMS, name)
    if not os.path.exists(path):
        raise CannotRun(f"{name} was not built on this machine")
    return path


class Deep:
    """One stack of known depth on each CPU: depths[i] frames on CPU i, and so round. Counts work."""

    def __init__(self, depths, kind="fixed", pinned=True, how_many=CPUS):
        path = os.path.join(temp_folder(), "work")
        with open(path, "wb") as f:
            f.write(b"\0" * 4096)
        fd = os.open(path, os.O_RDWR)
        self.shared = mmap.mmap(fd, 4096)
        os.close(fd)
        self.running = []
        for i in range(how_many):
            argv = [program("deep"), str(depths[i % len(depths)]), kind, path, str(i % 64)]
            self.running.append(spawn(argv + ([str(i % CPUS)] if pinned else [])))
        self.clocks = [~p.pid << 3 | 2 for p in self.running]  # MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED)

    def work(self):
        """[(work done, CPU time in ns)] of each."""
        return [(struct.unpack_from("Q", self.shared, 64 * i)[0], time.clock_gettime_ns(c)) for i, c in enumerate(self.clocks)]

    def stop(self):
        for p in self.running:
            p.kill()
            p.wait()


# ---- results -----------------------------------------------------------------------------------------------------


class Table:
    """What was measured, its bar, whether it holds, and what is beside it."""

    def __init__(self):
        self.rows = []

    def add(self, what, value, bar="", met=None, beside="", **details):
        row = {"what": what, "value": value, "bar": bar, "met": met, "beside": beside, **details}
        self.rows.append(row)
        print(self.line(row), flush=True)

    @staticmethod
    def line(row):
        verdict = {True: "met", False: "**missed**", None: ""}[row["met"]]
        return f"| {row['what']} | {row['value']} | {row['bar']} | {verdict} | {row['beside']} |"

    def markdown(self):
        return "\n".join(["| what | measured | bar | | beside it |", "|---|---|---|---|---|", *map(self.line, self.rows)])


def robust(values):
    """The mean without the fifth at either end, and the half-width of its interval (95 %): Yuen's, by the winsorised
    deviation. Slices in which the machine did something else do not decide."""
    v = sorted(values)
    cut = len(v) // 5
    kept = v[cut : len(v) - cut]
    winsorised = [kept[0]] * cut + kept + [kept[-1]] * cut
    error = statistics.stdev(winsorised) / ((1 - 2 * cut / len(v)) * len(v) ** 0.5)
    return statistics.mean(kept), 1.96 * error
