#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the profiler costs: CPU (all its processes and the run time of its BPF programs, in % of one CPU), memory (PSS
of all its processes and its BPF maps), the slow-down of what is sampled, the time to the first flame graph.

    bench.py [busy] [compile] [idle] [slowdown] [first]      default: all

Prints Markdown rows and writes BUILD/bench.json. ODI_BENCH_SECONDS and ODI_BENCH_PAIRS change the lengths.
"""

import os
import random
import statistics
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../e2e/lib"))
from odi_harness import *  # noqa: E402,F403

SECONDS = float(os.environ.get("ODI_BENCH_SECONDS", "30"))
PAIRS = int(os.environ.get("ODI_BENCH_PAIRS", "40"))
CPUS = os.cpu_count()
STATS = "/proc/sys/kernel/bpf_stats_enabled"

CPP = """
#include <map>
#include <string>
#include <vector>
#include <regex>
template <int N> struct deep { static int f(std::vector<std::string> &v) { v.push_back("x"); return deep<N - 1>::f(v); } };
template <> struct deep<0> { static int f(std::vector<std::string> &v) { return v.size(); } };
int main() { std::vector<std::string> v; std::map<std::string, std::regex> m; m["a"] = std::regex("a+b*"); return deep<200>::f(v); }
"""


def fdinfo(pid, kind):
    """The fdinfo of each BPF object of that kind which a process holds."""
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{fd}") != f"anon_inode:{kind}":
                continue
            with open(f"/proc/{pid}/fdinfo/{fd}") as f:
                yield dict(line.rstrip("\n").split(":", 1) for line in f if ":" in line)
        except OSError:
            continue


class Cost:
    """CPU time and memory of an agentd in a control group of its own."""

    def __init__(self, agentd, group):
        self.agentd = agentd
        self.group = group

    def cpu_ns(self):
        with open(os.path.join(self.group, "cpu.stat")) as f:
            return 1000 * int(dict(line.split() for line in f)["usage_usec"])

    def bpf_ns(self):
        programs = {i["prog_id"]: int(i["run_time_ns"]) for i in fdinfo(self.agentd.pid, "bpf-prog")}
        return sum(programs.values())

    def samples(self):
        return self.agentd.ledger().get("taken", 0)

    def memory(self):
        pss = 0
        for pid in [self.agentd.pid, *descendants(self.agentd.pid)]:
            try:
                with open(f"/proc/{pid}/smaps_rollup") as f:
                    pss += next(int(line.split()[1]) for line in f if line.startswith("Pss:"))
            except (OSError, StopIteration):
                pass
        maps = {i["map_id"]: int(i["memlock"]) for i in fdinfo(self.agentd.pid, "bpf-map")}
        return pss * 1024, sum(maps.values())


class Measured(Agentd):
    """An agentd in a control group of its own, all on, as a user starts it."""

    def __init__(self, **options):
        self.group = make_cgroup(f"odi-bench-{os.getpid()}-{time.monotonic_ns()}", ("v2",))[0]
        super().__init__(**options)
        self.cost = Cost(self, self.group)

    def argv(self):
        move = f'echo $$ > {self.group}/cgroup.procs; exec "$@"'
        return ["/bin/sh", "-c", move, "sh", AGENTD, "--socket", self.socket, "--state-dir", self.state]

    def all_on(self):
        self.ctl("profiling", "enable", "--all", "--rate", "99")


def measure(title, load):
    """CPU and memory over SECONDS under a load, after ten seconds of it."""
    with open(STATS, "w") as f:
        f.write("1")
    with Measured() as a:
        stop = load()
        a.all_on()
        time.sleep(10)
        cpu, bpf, samples, t = a.cost.cpu_ns(), a.cost.bpf_ns(), a.cost.samples(), time.monotonic_ns()
        peak = 0
        while time.monotonic_ns() - t < SECONDS * 1e9:
            time.sleep(1)
            peak = max(peak, sum(a.cost.memory()))
        took = time.monotonic_ns() - t
        cpu, bpf, samples = a.cost.cpu_ns() - cpu, a.cost.bpf_ns() - bpf, a.cost.samples() - samples
        pss, maps = a.cost.memory()
        stop()
        row = {"what": title, "cpu_percent": 100 * cpu / took, "bpf_percent": 100 * bpf / took,
               "pss_mb": pss / 1e6, "maps_mb": maps / 1e6, "peak_mb": peak / 1e6, "samples": samples,
               "bpf_us_per_sample": bpf / 1000 / max(samples, 1), "ledger": a.ledger()}  # fmt: skip
    with open(STATS, "w") as f:
        f.write("0")
    print(f"| {title} | {row['cpu_percent']:.2f} + {row['bpf_percent']:.2f} = "
          f"**{row['cpu_percent'] + row['bpf_percent']:.2f} %** | {row['pss_mb']:.0f} + {row['maps_mb']:.0f} MB, "
          f"peak {row['peak_mb']:.0f} | {row['bpf_us_per_sample']:.1f} us a sample |", flush=True)  # fmt: skip
    return row


def busy():
    running = [Workload("shares_c") for _ in range(CPUS)]
    return lambda: [w.stop() for w in running]


def compiling():
    folder, done = temp_folder(), threading.Event()
    source = os.path.join(folder, "x.cpp")
    with open(source, "w") as f:
        f.write(CPP)

    def loop(n):
        while not done.is_set():
            subprocess.run(["g++", "-O1", "-c", "-o", os.path.join(folder, f"{n}.o"), source], check=True)

    threads = [threading.Thread(target=loop, args=(n,)) for n in range(CPUS)]
    for t in threads:
        t.start()

    def stop():
        done.set()
        for t in threads:
            t.join()

    return stop


def idle():
    return lambda: None


def throughput(seconds=2.0):
    """Work done a second of CPU time by one program pinned to each CPU."""
    running = []
    for cpu in range(CPUS):
        argv = ["taskset", "-c", str(cpu), os.path.join(WORKLOADS, "shares_c"), str(seconds)]
        running.append(Workload("shares_c", argv=argv))
    reports = [w.wait() for w in running]
    return sum(r["units"] for r in reports) / seconds


def slowdown():
    """Interleaved pairs with profiling on and off, in random order, and the same with nothing changed between them."""
    rows = []
    with Measured() as a:
        a.ctl("source", "add", "host")

        def switch(on):
            a.ctl("profiling", "enable", "--rate", "99") if on else a.ctl("profiling", "disable")
            time.sleep(0.3)

        throughput(1)
        for title, states in (("profiling on, against off", (True, False)), ("an empty run: off against off", (False, False))):
            losses = []
            for _ in range(PAIRS):
                order = [0, 1]
                random.shuffle(order)
                got = {}
                for i in order:
                    switch(states[i])
                    got[i] = throughput()
                losses.append(100 * (1 - got[0] / got[1]))
            mean = statistics.mean(losses)
            half = 2.02 * statistics.stdev(losses) / len(losses) ** 0.5
            rows.append({"what": title, "slowdown_percent": mean, "half_width_95": half, "pairs": PAIRS})
            print(f"| slow-down, {title} | {mean:+.2f} % +- {half:.2f} (95 %, {PAIRS} pairs) | | |", flush=True)
    return rows


def first():
    """From enable to a picture that has the workload in it."""
    w = Workload("shares_c")
    with Measured() as a:
        start = time.monotonic()
        a.all_on()

        def drawn():
            r = a.run("flamegraph", "--format", "folded", "-o", "-")
            return "leaf_sixty" in r.stdout

        wait_for("a flame graph with the workload", drawn, 30, 0.05)
        took = time.monotonic() - start
    w.stop()
    print(f"| from enable to a flame graph that shows the workload | {took:.2f} s | | |", flush=True)
    return {"what": "first flame graph", "seconds": took}


PARTS = {
    "busy": lambda: measure(f"all {CPUS} CPUs busy, 99 Hz", busy),
    "compile": lambda: measure(f"{CPUS} x g++ -O1 in a loop, 99 Hz", compiling),
    "idle": lambda: measure("idle host, 99 Hz", idle),
    "slowdown": slowdown,
    "first": first,
}


def run_all():
    chosen = sys.argv[1:] or list(PARTS)
    unknown = set(chosen) - set(PARTS)
    if unknown:
        sys.exit(f"bench: {', '.join(unknown)}: there are {', '.join(PARTS)}")
    print(f"{CPUS} CPUs, Linux {os.uname().release}, {SECONDS:.0f} s each; CPU is own processes + BPF run time, in % of one CPU")
    print("| what | CPU | memory (PSS + BPF maps) | BPF |\n|---|---|---|---|", flush=True)
    results = {name: PARTS[name]() for name in chosen}
    with open(os.path.join(BUILD, "bench.json"), "w") as f:
        json.dump(results, f, indent=1)


if __name__ == "__main__":
    run_all()
