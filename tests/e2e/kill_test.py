#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 900 s
"""A process that dies costs what it was working on, nothing else."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403

KILLS = 50
RATE = 499


def kill_one(a, role, stir, seconds=40):
    """SIGKILL to agentd's child of that role, once there is one; `stir` gives it something to do meanwhile."""
    end_time = time.monotonic() + seconds
    while True:
        check(a.alive(), "agentd ended")
        for pid in a.children(role):
            try:
                os.kill(pid, signal.SIGKILL)
                return
            except ProcessLookupError:
                pass
        check(time.monotonic() < end_time, f"the {role} did not come back within {seconds} s")
        stir()
        time.sleep(0.02)


@case("symbolizer and exporter killed 50 times each while sampling: both come back, the ledger closes")
def kill_children():
    rng = seed()
    folder = temp_folder()
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_process("shares_c", "--service-name", "steady")
        a.add_source("process", os.path.join(folder, "*"), "--service-name", "fresh")
        a.enable(rate=RATE)
        steady = Workload("shares_c")
        fresh, last = [], 0.0

        def stir():
            """A file that nobody has seen yet, so that the symbolizer has work."""
            nonlocal last
            if time.monotonic() - last > 0.2:
                last = time.monotonic()
                path = copy_program("brief", f"fresh{len(fresh)}", folder)
                fresh.append(Workload(path, 0.05))

        start = time.monotonic()
        for round in range(KILLS):
            for role in ("symbolizer", "exporter"):
                stir()
                time.sleep(rng.random() * 0.4)
                kill_one(a, role, stir)
        say(f"# {KILLS} kills of each took {time.monotonic() - start:.0f} s, {len(fresh)} fresh programs")
        check(a.alive(), "agentd ended")
        wait_for("the exporter is back", lambda: a.children("exporter"), 40)
        # names work again: a program that was never seen is named, when the back-off of the restarts is over
        def named():
            path = copy_program("shares_cpp", f"after{time.monotonic_ns()}", folder)
            Workload(path).work(0.5)
            a.settle(receiver, None)
            return any(n[0] == "geo::Circle::area" for n in unique(receiver).chains("fresh") if n)

        wait_for("names of a new program", named, 60, 0.1)
        report = steady.stop()
        for w in fresh:
            w.wait()
        a.ctl("profiling", "disable")
        wait_for("the last interval is closed", lambda: not a.ledger()["open"], 60, 0.2)
        wait_for("nothing is held", lambda: not a.ledger()["destinations"]["backend"]["held"], 60, 0.2)
        profiles, ledger = unique(receiver), a.check_ledger()
        row = ledger["destinations"]["backend"]
        n = profiles.total()
        say(f"# ledger {json.dumps(ledger)}; {n} samples arrived, {repeats(receiver)} repeats")
        # What an exporter sent just before it died has no answer: it may have arrived and be counted as evicted.
        check(row["delivered"] <= n <= row["routed"], f"{n} arrived, delivered {row['delivered']}, routed {row['routed']}")
        taken = field(a.sources()[next(s for s in a.sources() if "shares_c" in s or s == "steady")], "samples")
        check_count(taken, expected_samples(report["cpu_ns"], RATE), "samples taken of the steady source", 0.03, ledger["late"])
        for r in receiver.requests:
            problems = check_otlp.check(r.message, now=r.time)
            check(not problems, f"rules broken: {problems[:5]}")
        # every frame has a name or file and offset
        own = profiles.flat("steady")
        good = sum(v for k, v in own.items() if k in TRUTH["shares_c"]["shares"] or "+0x" in k)
        check(good >= 0.97 * sum(own.values()), f"leaf functions: {own.most_common(8)}")


@case("agentd killed: its children go with it")
def orphans():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_process("shares_c")
        a.enable()
        w = Workload("shares_c")
        wait_for("symbolizer and exporter", lambda: a.children("symbolizer") and a.children("exporter"), 20)
        left = descendants(a.pid)
        a.kill()

        def gone():
            return not [p for p in left if cmdline(p)[:1] and "agentd" in cmdline(p)[0]]

        wait_for("agentd's children end", gone, 10)
        w.stop()


@case("agentd stopped: the last interval arrives before it ends")
def last_interval():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_process("shares_c", "--service-name", "last")
        a.enable(interval="60s")
        report = Workload("shares_c").work(2)
        late = a.ledger()["late"]
        equal(a.stop(), 0, "exit status")
        check_count(unique(receiver).total("last"), expected_samples(report["cpu_ns"], RATE), "of the last interval", 0.05, late)


@case("a backend that hangs, refuses or fails delays neither another nor the sampler")
def failing_backend():
    with OtlpReceiver() as good, OtlpReceiver() as bad, Agentd() as a:
        a.add_receiver(good, "good")
        a.add_receiver(bad, "bad")
        a.ctl("destination", "add", "otlphttp", "nobody", "--url", f"http://127.0.0.1:{free_port()}")
        a.add_process("shares_c", "--service-name", "web")
        a.enable(rate=RATE)
        w = Workload("shares_c")
        for behaviour in ({"hang": True}, {"refuse": True}, {"status": 503}, {"garbage": True}, {"status": 429, "retry_after": 1}):
            bad.behave(**behaviour)
            # Three times in less than one request may take (10 s): it waits for none of the other's.
            for _ in range(3):
                before = len(good.messages)
                wait_for(f"the good backend gets more while the other does {behaviour}", lambda: len(good.messages) > before, 9, patience=1)
        bad.behave()
        wait_for("the other backend gets samples again", lambda: unique(bad).total("web"), 40, 0.3)
        w.stop()
        a.settle(good, "web")
        a.check_ledger()
        r = a.run("status")
        check("nobody" in r.stdout, f"status does not name the destination that nobody answers for: {r.stdout}")


if __name__ == "__main__":
    main()
