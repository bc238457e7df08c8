#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the profiler costs and how much it sees, on this machine: each figure beside its bar and a peer's or an empty run's.

    bench.py [PART...]        default: all of them; ODI_BENCH_ONLY=walk,busy chooses, too

Prints a Markdown row for each as it comes and the whole table at the end; BUILD/bench.json has the details. CPU is the
time of all of agentd's processes + the run time of its BPF programs, in % of one CPU; 99 Hz, all services of the host.
Peers' figures were measured on a like machine (2 CPUs, Linux 6.18): believe the ratios. All of it takes about
12 minutes on a host that does nothing else; ODI_BENCH_SCALE=0.1 is for trying the benchmark itself."""

from cost import *  # noqa: F403
import bigfile
import delivery
import load
import names
import slowdown
import stacks
import wire

PARTS = {
    "walk": load.walk,
    "busy": load.busy,
    "idle": load.idle,
    "compile": load.compiling,
    "memory": load.memory,
    "slowdown": slowdown.slowdown,
    "roots": stacks.roots,
    "first": stacks.first,
    "brief": stacks.brief,
    "execs": stacks.execs,
    "bigfile": bigfile.bigfile,
    "debian": names.debian,
    "naming": names.naming,
    "restart": names.restart,
    "wire": wire.wire,
    "delivery": delivery.delivery,
    "outage": delivery.outage,
}


def run_all():
    chosen = sys.argv[1:] or [w for w in os.environ.get("ODI_BENCH_ONLY", "").split(",") if w] or list(PARTS)
    unknown = set(chosen) - set(PARTS)
    if unknown:
        sys.exit(f"bench: {', '.join(unknown)}: there are {', '.join(PARTS)}")
    table, failed = Table(), []
    on_end(lambda: bpf_stats(False))
    hide_debug()
    busy = os.getloadavg()[0]
    print(f"{CPUS} CPUs, Linux {os.uname().release}, load average {busy:.2f}" + (": not quiet, figures are rough" if busy > 0.5 else ""))
    for name in chosen:
        started = time.monotonic()
        try:
            PARTS[name](table)
        except CannotRun as e:
            table.add(name, f"cannot run: {e}")
        except Exception as e:  # one part that fails takes no other with it
            failed.append(name)
            table.add(name, f"failed: {type(e).__name__}: {e}".replace("\n", " ")[:300], "", False)
        print(f"# {name}: {time.monotonic() - started:.0f} s", flush=True)
    print("\n" + table.markdown())
    with open(os.path.join(BUILD, "bench.json"), "w") as f:
        json.dump(table.rows, f, indent=1, default=str)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    run_all()
