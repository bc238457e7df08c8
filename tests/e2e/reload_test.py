#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240 s
"""Changes take effect at once, and what stays selected loses and doubles nothing."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403

RATE = 499
CHANGES = 100
SECONDS = 60


@case("100 source and destination changes in 60 s: an untouched source loses and doubles nothing")
def hundred_changes():
    rng = seed()
    with OtlpReceiver() as receiver, OtlpReceiver() as other, Agentd() as a:
        a.add_receiver(receiver, "untouched-backend")
        untouched = a.add_process("shares_c", "--service-name", "untouched")
        a.enable(rate=RATE)
        steady, beside = Workload("shares_c"), Workload("shares_c_nopie")
        start, changes, sources, destinations = time.monotonic(), 0, {}, {}

        def change():
            """One random change of what may change; answers what was done."""
            kind = rng.choice(["add", "remove", "toggle", "add-destination", "remove-destination", "toggle-destination"])
            if kind == "add" or (kind in ("remove", "toggle") and not sources):
                name = a.add_process("shares_c_nopie", "--name", f"s{changes}", "--service-name", f"s{changes}")
                sources[name] = True
                return "source add"
            if kind == "remove":
                name = rng.choice(sorted(sources))
                del sources[name]
                a.ctl("source", "remove", name, "--yes")
                return "source remove"
            if kind == "toggle":
                name = rng.choice(sorted(sources))
                sources[name] = not sources[name]
                a.ctl("source", "enable" if sources[name] else "disable", name)
                return "source toggle"
            if kind == "add-destination" or not destinations:
                name = f"d{changes}"
                a.ctl("destination", "add", "otlphttp", name, "--url", rng.choice([other.url, "http://127.0.0.1:9"]))
                destinations[name] = True
                return "destination add"
            name = rng.choice(sorted(destinations))
            if kind == "remove-destination":
                del destinations[name]
                a.ctl("destination", "remove", name, "--yes")
                return "destination remove"
            destinations[name] = not destinations[name]
            a.ctl("destination", "enable" if destinations[name] else "disable", name)
            return "destination toggle"

        while changes < CHANGES:
            wait = start + (changes + rng.random()) * SECONDS / CHANGES - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            change()
            changes += 1
        took = time.monotonic() - start
        check(took < SECONDS + 15, f"{CHANGES} changes took {took:.0f} s")
        report = steady.stop()
        beside.stop()
        profiles = a.settle(receiver, "untouched", seconds=30)
        n, wanted = profiles.total("untouched"), expected_samples(report["cpu_ns"], RATE)
        say(f"# {n} samples arrived, {wanted:.0f} expected of {report}")
        equal(repeats(receiver), 0, "profiles that came twice")
        check(abs(n - wanted) <= max(0.02 * wanted, 5 * wanted**0.5), f"{n} samples arrived, {wanted:.0f} expected")
        check_shares(profiles.flat("untouched"), TRUTH["shares_c"]["shares"], "untouched")
        check_messages(receiver)
        ledger = a.check_ledger()
        equal(ledger["lost"], 0, "lost")
        row = ledger["destinations"]["untouched-backend"]
        equal(row["delivered"], profiles.total(), "delivered by the ledger, against what arrived")
        equal(row["routed"], row["delivered"], "routed and delivered")
        equal(field(a.sources()[untouched], "samples"), n, "samples of the source, against what arrived")


@case("each change acts within a second: rate, sources, enable and disable")
def quick():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        name = a.add_process("shares_c", "--service-name", "web")
        a.enable(rate=99)
        w = Workload("shares_c")

        def sampled():
            return field(a.sources()[name], "samples")

        def runs():
            before = sampled()
            time.sleep(0.5)
            return sampled() > before

        wait_for("samples after enable", runs, 5)
        a.ctl("source", "disable", name)
        time.sleep(1)
        check(not runs(), "a disabled source is sampled a second later")
        a.ctl("source", "enable", name)
        time.sleep(1)
        check(runs(), "an enabled source is not sampled a second later")
        a.ctl("profiling", "enable", "--rate", "499")
        time.sleep(1)
        # Of its CPU time, not of the clock's: other programs may want the CPUs, too.
        before, cpu = sampled(), w.cpu_seconds()
        wait_for("a second of CPU time", lambda: w.cpu_seconds() > cpu + 1, 60)
        rate = (sampled() - before) / (w.cpu_seconds() - cpu)
        check(350 < rate < 650, f"{rate:.0f} samples a CPU second at 499 Hz")
        a.ctl("profiling", "disable")
        time.sleep(1)
        check(not runs(), "profiling is off, samples go on")
        equal(loaded_programs(a.pid), 0, "BPF programs held while profiling is off")
        a.ctl("profiling", "enable")
        time.sleep(1)
        check(runs(), "profiling is on again, no samples")
        check(loaded_programs(a.pid) > 0, "no BPF program while profiling is on")
        w.stop()
        a.check_ledger()


def loaded_programs(pid):
    """BPF programs and links that a process holds."""
    held = 0
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            held += os.readlink(f"/proc/{pid}/fd/{fd}").startswith(("anon_inode:bpf-prog", "anon_inode:bpf_link"))
        except OSError:
            pass
    return held


@case("the configuration file is read again; a broken one changes nothing")
def configuration_file():
    text = "sources:\n  - name: from-file\n    kind: process\n    match: shares_c\n"
    with Agentd(config=text) as a:
        check("from-file" in a.sources(), f"sources: {sorted(a.sources())}")
        r = a.run("source", "remove", "from-file", "--yes")
        equal(r.returncode, 1, "removing what a file sets")
        check("agentd.yaml:" in r.stderr, f"the message names no file and line: {r.stderr}")
        with open(a.config, "a") as f:
            f.write("  - name: second\n    kind: host\n")
        os.kill(a.pid, signal.SIGHUP)
        wait_for("the second source", lambda: "second" in a.sources(), 5)
        with open(a.config, "a") as f:
            f.write("  - [broken\n")
        os.kill(a.pid, signal.SIGHUP)
        time.sleep(1)
        check(a.alive(), "agentd ended")
        equal(sorted(a.sources()), ["from-file", "second"], "sources after a broken file")
        check("agentd.yaml:" in a.log(), "the log does not name the place in the file")


if __name__ == "__main__":
    main()
