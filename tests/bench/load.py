# SPDX-License-Identifier: Apache-2.0
"""The benchmark's parts that put the host under a load: CPU, run time of the BPF programs, memory."""

import statistics
import threading

from cost import *  # noqa: F403

CPP = """
#include <map>
#include <string>
#include <vector>
#include <regex>
template <int N> struct deep { static int f(std::vector<std::string> &v) { v.push_back("x"); return deep<N - 1>::f(v); } };
template <> struct deep<0> { static int f(std::vector<std::string> &v) { return v.size(); } };
int main() { std::vector<std::string> v; std::map<std::string, std::regex> m; m["a"] = std::regex("a+b*"); return deep<200>::f(v); }
"""


# ---- the walk itself ---------------------------------------------------------------------------------------------


def yardstick():
    r = subprocess.run([program("yardstick"), program("yardstick.bpf.o"), str(CPUS - 1), "997", str(max(int(seconds(3)), 1))],
                       capture_output=True, text=True, check=True)  # fmt: skip
    return json.loads(r.stdout)


def walk_windows(agentd, n, length):
    """Run time of the sampling program in ns a run, for each of n windows."""
    found = []
    for _ in range(n):
        ns, runs = agentd.cost.sampling()
        time.sleep(length)
        after = agentd.cost.sampling()
        found.append((after[0] - ns) / max(after[1] - runs, 1))
    return found


def walk(table):
    """One program of so many frames on each CPU, so that each sample is such a stack; 997 Hz; the median of windows."""
    bpf_stats(True)
    beside = yardstick()
    yard = f"an empty program {beside['empty'] / 1000:.2f} us, 128 random reads of 1 MiB {beside['reads'] / 1000:.2f} us"
    for kind, title, bar in (("fixed", "counted in the kernel", 5.0), ("varied", "sent, each another stack", None)):
        for depth in (104, 60, 30, 10):
            with Measured() as a:
                load = Deep([depth], kind)
                a.all_on(rate=997)
                time.sleep(seconds(2.5))
                before = a.unwinding()
                windows = walk_windows(a, 8, seconds(0.5))
                after = a.unwinding()
                load.stop()
                took = statistics.median(windows) / 1000
                delta = {k: int(after.get(k, 0)) - int(before.get(k, 0)) for k in ("sent", "counted", "slices", "table_full")}
                whole = a.stacks()
            share = 100 * int(whole.get("to_root", 0)) / max(int(whole.get("samples", 0)), 1)
            applies = bar is not None and depth == 104
            table.add(f"BPF time of a warm {depth}-frame user stack, {title}", f"{took:.2f} us",
                      "<= 5 us" if applies else "", took <= bar if applies else None,
                      (yard + "; lightswitch 12.2 us") if applies else f"{share:.1f} % to the root, {delta['sent']} sent, "
                      f"{delta['counted']} counted", windows_ns=windows, **delta)  # fmt: skip
            yard = yard if depth == 104 else ""
    bpf_stats(False)


# ---- loads -------------------------------------------------------------------------------------------------------


def cost_row(table, what, row, bar, peer):
    total = row["cpu_percent"] + row["bpf_percent"]
    roles = ", ".join(f"{k} {v:.2f}" for k, v in sorted(row["roles_percent"].items(), key=lambda r: -r[1]) if v >= 0.01)
    table.add(what, f"{row['cpu_percent']:.2f} + {row['bpf_percent']:.2f} = {total:.2f} %; {row['pss_mb']:.0f} + "
              f"{row['maps_mb']:.0f} MB, peak {row['peak_mb']:.0f}", f"<= {bar} %" if bar else "",
              total <= bar if bar else None, f"{peer}{row['samples']} samples, {row['bpf_us']:.1f} us each; {roles}", **row)  # fmt: skip


def steady(table, what, load, bar, peer):
    bpf_stats(True)
    with Measured() as a:
        running = load()
        a.all_on()
        time.sleep(seconds(12))  # past the first interval
        w = Window(a)
        peak = watch(a, seconds(30), 5)
        row = w.close(peak)
        running.stop()
    bpf_stats(False)
    cost_row(table, what, row, bar, peer)


class Nothing:
    def stop(self):
        pass


def busy(table):
    steady(table, f"{CPUS} CPUs busy with a 104-frame and a 6-frame stack", lambda: Deep([104, 6]), 0.2, "OpenTelemetry 0.88 %; ")


def idle(table):
    steady(table, "idle host", Nothing, 0.1, "OpenTelemetry 0.40 %; ")


class Compiling:
    """A loop of compiler runs on each CPU, a new process each second or so."""

    def __init__(self):
        self.compiler = shutil.which("clang++") or shutil.which("g++")
        folder, self.done = temp_folder(), threading.Event()
        self.source = os.path.join(folder, "x.cpp")
        with open(self.source, "w") as f:
            f.write(CPP)
        self.threads = [threading.Thread(target=self.loop, args=(os.path.join(folder, f"{n}.o"),)) for n in range(CPUS)]
        for t in self.threads:
            t.start()

    def loop(self, out):
        while not self.done.is_set():
            subprocess.run([self.compiler, "-O1", "-c", "-o", out, self.source], check=False)

    def stop(self):
        self.done.set()
        for t in self.threads:
            t.join()


def compiling(table):
    bpf_stats(True)
    with Measured() as a:
        load = Compiling()
        try:
            time.sleep(seconds(2))
            w = Window(a)
            a.all_on()
            first = w.close(watch(a, seconds(30), 3))
            w = Window(a)
            later = w.close(watch(a, seconds(30), 5))
            stacks = a.stacks()
        finally:
            load.stop()
    bpf_stats(False)
    what = f"{CPUS} x {os.path.basename(load.compiler)} -O1 in a loop"
    cost_row(table, f"{what}, the first 30 s", first, None, "")
    cost_row(table, f"{what}, after them", later, 1.0,
             f"OpenTelemetry 2.97 %; to the root {100 * int(stacks.get('to_root', 0)) / max(int(stacks.get('samples', 0)), 1):.2f} %; ")  # fmt: skip


def memory(table):
    """Steady, and while a binary of 100 MB without debug information is met for the first time."""
    fresh = os.path.join(temp_folder(), "large")
    shutil.copy(program("large"), fresh)
    with Measured() as a:
        load = Deep([104, 6])
        a.all_on()
        time.sleep(seconds(12))
        steady_pss, steady_maps = a.cost.memory()
        large = spawn([fresh])
        peak = watch(a, seconds(25), 0.2)
        after_pss, after_maps = a.cost.memory()
        end(large)
        load.stop()
    total = (steady_pss + steady_maps) / 1e6
    table.add("memory of all processes (PSS) and BPF maps, busy host", f"{steady_pss / 1e6:.1f} + {steady_maps / 1e6:.1f} = {total:.1f} MB",
              "<= 40 MB", total <= 40, "OpenTelemetry 57 + 45 MB")  # fmt: skip
    table.add("peak, while a binary of 100 MB without debug information is met", f"{peak / 1e6:.1f} MB", "<= 60 MB", peak / 1e6 <= 60,
              f"afterwards {(after_pss + after_maps) / 1e6:.1f} MB; OpenTelemetry up to 293 MB")  # fmt: skip
