#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 600 s
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
        say(f"# {CHANGES} changes took {time.monotonic() - start:.0f} s")
        report = steady.stop()
        beside.stop()
        a.ctl("profiling", "disable")
        wait_for("the last interval is closed", lambda: not a.ledger()["open"], 30, 0.2)
        wait_for("all of it arrives", lambda: not a.ledger()["destinations"]["untouched-backend"]["held"], 30, 0.2)
        profiles = unique(receiver)
        n, wanted = profiles.total("untouched"), expected_samples(report["cpu_ns"], RATE)
        say(f"# {n} samples arrived, {wanted:.0f} expected of {report}")
        equal(repeats(receiver), 0, "profiles that came twice")
        check_count(n, wanted, "untouched", late=a.ledger()["late"])
        check_shares(profiles.flat("untouched"), TRUTH["shares_c"]["shares"], "untouched")
        check_messages(receiver)
        ledger = a.check_ledger()
        equal(ledger["lost"], 0, "lost")
        row = ledger["destinations"]["untouched-backend"]
        equal(row["delivered"], profiles.total(), "delivered by the ledger, against what arrived")
        equal(row["routed"], row["delivered"], "routed and delivered")
        equal(field(a.sources()[untouched], "samples"), n, "samples of the source, against what arrived")


@case("each change acts at once: rate, sources, enable and disable")
def quick():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        name = a.add_process("shares_c", "--service-name", "web")
        a.enable(rate=99)
        w = Workload("shares_c")

        def sampled():
            return field(a.sources()[name], "samples")

        def in_cpu_time(seconds):
            """Samples while the program uses so much of its CPU time, not of the clock's: others want the CPUs, too."""
            before, cpu = sampled(), w.cpu_seconds()
            wait_for(f"{seconds} s of CPU time", lambda: w.cpu_seconds() > cpu + seconds, 60)
            return sampled() - before

        wait_for("samples after enable", sampled)
        a.ctl("source", "disable", name)
        in_cpu_time(0.1)
        equal(in_cpu_time(0.5), 0, "samples of a disabled source")
        a.ctl("source", "enable", name)
        check(in_cpu_time(1) > 40, "an enabled source is not sampled at 99 Hz")
        a.ctl("profiling", "enable", "--rate", "499")
        # The questions take time, in which the program goes on: it had from `least` to `most` between the two answers.
        first = w.cpu_seconds()
        before = sampled()
        second = w.cpu_seconds()
        wait_for("CPU time", lambda: w.cpu_seconds() > second + 2, 60)
        third = w.cpu_seconds()
        n = sampled() - before
        fourth = w.cpu_seconds()
        least, most = 499 * (third - second), 499 * (fourth - first)
        say(f"# {n} samples of {least:.0f} to {most:.0f}")
        late = a.ledger()["late"]
        check(0.8 * least - late <= n <= 1.2 * most, f"{n} samples in {third - second:.2f} to {fourth - first:.2f} s of CPU time at 499 Hz")
        a.ctl("profiling", "disable")
        in_cpu_time(0.1)
        equal(in_cpu_time(0.5), 0, "samples while profiling is off")
        wait_for("no BPF program is held while profiling is off", lambda: loaded_programs(a.pid) == 0)
        a.ctl("profiling", "enable")
        check(loaded_programs(a.pid) > 0, "no BPF program while profiling is on")
        check(in_cpu_time(1) > 200, "profiling is on again at 499 Hz, no samples")
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
        said = len(a.log())
        with open(a.config, "a") as f:
            f.write("  - [broken\n")
        os.kill(a.pid, signal.SIGHUP)
        wait_for("the log names the place in the file", lambda: "agentd.yaml:" in a.log()[said:])
        check(a.alive(), "agentd ended")
        equal(sorted(a.sources()), ["from-file", "second"], "sources after a broken file")


if __name__ == "__main__":
    main()
