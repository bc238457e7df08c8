#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 600 s
"""What is said of stacks, settings that need other programs in the kernel, and the budget."""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403

RATE = 499


def stacks_add_up(status):
    s = status["stacks"]
    equal(s["to_root"] + sum(s["ended"].values()), s["samples"], "stacks by their end")
    by_file = {}
    for f in s["files"]:
        by_file[f["ended"]] = by_file.get(f["ended"], 0) + f["samples"]
    for end_, n in by_file.items():
        check(n <= s["ended"][end_], f"{n} samples of files that ended by {end_}, of {s['ended'][end_]} in all")
    return s


@case("status says what share of the stacks is whole, and which file ended the others")
def why():
    with Agentd() as a:
        path = os.path.join(WORKLOADS, "bare")
        a.add_process("shares_c", "--service-name", "whole")
        a.enable(rate=997)
        Workload("shares_c").work(2)
        s = stacks_add_up(a.status())
        check(s["samples"] > 500, f"stacks: {s}")
        check(s["to_root_percent"] >= 99, f"stacks: {s}")
        check(s["since"], "since when is not said")
        text = a.run("status").stdout
        check(re.search(r"^stacks +(100\.0|99\.\d) % to the root$", text, re.M), text)
        u = a.status()["unwinding"]
        equal(u["rows_bytes"], 8 << 20, "bytes of rows")
        check(0 < u["rows_used_bytes"] <= u["rows_bytes"], f"{u}")
        check(u["pages"] > 0 and u["rows_made"] > 0 and u["spaces"] > 0 and u["space_maps"] > 0, f"{u}")
        check(u["slices"] > 0 and u["walks"] > 0, f"nothing was walked here: {u}")
        check([p for p in a.status()["processes"] if p["role"] == "unwinder" and p["pid"]], "no unwinder among the processes")
        # Code that nothing describes.
        a.add_process("bare", "--service-name", "bare")
        Workload("bare").work(1)
        after = stacks_add_up(a.status())
        found = [f for f in after["files"] if f["file"] == path]
        check(found and found[0]["ended"] == "no-information", f"{path} is not named: {after}")
        check(found[0]["samples"] > 200, f"{found}")
        check(after["to_root"] - s["to_root"] < 100, f"more stacks got to a root than may: {after}")
        text = " ".join(a.run("status", "--verbose").stdout.split())
        check(re.search(rf"no unwind information for {re.escape(path)}.{{0,200}}? [\d,]{{3,}}", text), text)
        a.check_ledger()


@case("what the kernel counts arrives as what was sampled: by stack, by thread, and nothing twice")
def counted():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_process("shares_c", "--service-name", "plain")
        a.add_process("threads", "--service-name", "by-thread", "--per-thread")
        a.enable(rate=997, interval="2s")
        w, t = Workload("shares_c"), Workload("threads")
        # Questions in the midst of it: each takes the counts, and every stack is sent anew.
        for _ in range(6):
            time.sleep(1)
            a.status()
            a.run("top", "--since", "1m")
        wait_for("CPU time of both", lambda: w.cpu_seconds() > 2 and t.cpu_seconds() > 2, 60)
        status = a.status()
        reports = {"plain": w.stop(), "by-thread": t.stop()}
        profiles, ledger = a.finish(receiver)
        u = status["unwinding"]
        say(f"# sent {u['sent']}, counted {u['counted']}")
        check(u["counted"] > 0.5 * ledger["profiled"], f"hardly anything was counted in the kernel: {u}, {ledger}")
        for name, report in reports.items():
            check_count(profiles.total(name), expected_samples(report["cpu_ns"], 997), name, late=ledger["late"])
        check_shares(profiles.flat("plain"), TRUTH["shares_c"]["shares"], "plain")
        threads = {s.attributes.get("thread.id") for s in profiles.samples("by-thread")}
        check(None not in threads and len(threads) > 2, f"threads: {threads}")
        states = a.sources()
        for name, s in states.items():
            equal(field(s, "samples"), profiles.total("plain" if "shares" in field(s, "match") else "by-thread"), name)
        check_messages(receiver)


@case("depth and memory can be changed while sampling: nothing is lost or doubled")
def other_programs():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        source = a.add_process("shares_c", "--service-name", "web")
        a.enable(rate=RATE)
        w, shown = Workload("shares_c"), []
        for setting in ("max-frames=3", "unwind-memory=1MB", "max-frames=1024", "unwind-memory=32MB", "max-frames-"):
            a.wait_sampled(source, 300)
            before = {p for p in programs(a.pid)}
            equal(a.run("profiling", "set", setting).returncode, 0, setting)
            check(programs(a.pid) != before and len(programs(a.pid)) == len(before), f"{setting}: the same programs")
            shown.append(a.status())
        a.wait_sampled(source, 300)
        text = a.run("profiling", "status").stdout
        check("at most 256 frames" in text and "32.0 MB" in text, text)
        equal([s["profiling"]["max_frames"] for s in shown], [3, 3, 1024, 1024, 256], "max_frames")
        equal([s["unwinding"]["rows_bytes"] >> 20 for s in shown], [8, 1, 1, 32, 32], "rows_bytes")
        check(shown[-1]["profiling"]["active_since"] == shown[0]["profiling"]["active_since"], "it began anew")
        # What is not of the programs leaves them alone.
        before = programs(a.pid)
        a.ctl("profiling", "set", "budget=3")
        a.ctl("source", "add", "process", "/nowhere")
        equal(programs(a.pid), before, "programs")
        report = w.stop()
        profiles, ledger = a.finish(receiver)
        n, wanted = profiles.total("web"), expected_samples(report["cpu_ns"], RATE)
        say(f"# {n} samples, {wanted:.0f} expected")
        check_count(n, wanted, "web", late=ledger["late"])
        cut = [s for s in profiles.samples("web") if s.user and s.user[-1] == "[truncated]"]
        equal({len(s.user) for s in cut}, {4}, "frames of a stack that is cut at three, and the marker")
        check(sum(s.count for s in cut) > 100, "hardly any stack was cut")
        ended = a.status()["stacks"]["ended"]
        equal(ended.get("depth"), sum(s.count for s in cut), "stacks that ended by their depth")
        r = a.run("profiling", "set", "max-frames=1025")
        check(r.returncode in (1, 2) and "1024" in r.stderr, r.stderr)
        r = a.run("profiling", "set", "enabled=true")
        equal(r.returncode, 2, r.stderr)


def programs(pid):
    """Ids of the BPF programs that a process holds."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            if os.readlink(f"/proc/{pid}/fd/{fd}").startswith("anon_inode:bpf-prog"):
                with open(f"/proc/{pid}/fdinfo/{fd}") as f:
                    found.add(next(line.split()[1] for line in f if line.startswith("prog_id:")))
        except OSError:
            pass
    return found


@case("above the budget the rate is halved, the profiles say so, and it goes back up")
def budget():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        source = a.add_process("shares_c", "--service-name", "web")
        # No work at all fits into that.
        a.enable(rate=RATE, budget="0.0001", interval="1s")
        w = Workload("shares_c")

        def rate():
            return a.status()["profiling"]["rate_now_hz"]

        equal(rate(), RATE, "rate at the beginning")
        # One answer is judged: on a slow host the next step may come before the next question.
        wait_for("two steps down", lambda: rate() <= 124, 60, 0.5)
        s = a.status()
        now, down = s["profiling"]["rate_now_hz"], s["profiling"]["budget"]["steps_down"]
        equal(s["profiling"]["rate_hz"], RATE, "the rate that is set")
        check(down >= 2 and now == RATE >> down, s["profiling"])
        check(s["profiling"]["budget"]["cost_percent"] >= 0 and s["profiling"]["budget"]["limit_percent"] == 0.0001, s["profiling"])
        told = [p for p in s["problems"] if "budget" in p["text"]]
        check(told and told[0]["severity"] == "warning" and f"{now} Hz" in told[0]["text"], f"problems: {s['problems']}")
        check(s["healthy"], "a rate that was lowered is no failure")
        text = a.run("status").stdout
        check(re.search(r"\b(124|62|31) Hz \(of 499 Hz", text), text)
        # A change beside it keeps the rate, one of the rate itself is people's.
        before = rate()
        a.ctl("profiling", "set", "interval=2s")
        after = rate()
        check(after in (before, before // 2), f"rate after another change: {after} Hz, {before} Hz before")
        # No work costs as much as that: what it is halved to stays.
        a.ctl("profiling", "set", "budget=50")
        s = a.status()
        down = s["profiling"]["budget"]["steps_down"]
        steps = [line for line in a.log().splitlines() if "more than the budget" in line]
        equal(len(steps), down, f"lines in the log: {steps}")
        a.ctl("profiling", "set", "budget=0")
        wait_for("the rate that is set", lambda: rate() == RATE, 10, 0.2)
        check(not [p for p in a.status()["problems"] if "budget" in p["text"]], "a problem stays")
        a.wait_sampled(source, 300)
        a.ctl("profiling", "set", "rate=199")
        equal(rate(), 199, "a rate that was set")
        a.wait_sampled(source, 100)
        report = w.stop()
        profiles, ledger = a.finish(receiver)
        by_period = {}
        for p in profiles.profiles:
            if p.service == "web":
                by_period[p.period] = by_period.get(p.period, 0) + sum(s.count for s in p.samples)
        say(f"# samples by period: {by_period}")
        rates = {RATE >> i: i for i in range(down + 1)} | {199: 0}
        seen = {hz for hz in rates if 10**9 // hz in by_period}
        check(len(seen) == len(by_period) and {hz for hz, step in rates.items() if step <= 2} <= seen, f"periods: {by_period}")
        cpu = sum(period * n for period, n in by_period.items())
        margin, late = 0.03 * report["cpu_ns"], ledger["late"] * 1e9 / (RATE >> down)
        check(report["cpu_ns"] - margin - late <= cpu <= report["cpu_ns"] + margin, f"{cpu} ns of samples, {report['cpu_ns']} ns of work")
        check_shares(profiles.flat("web"), TRUTH["shares_c"]["shares"], "web")
        check_messages(receiver)


if __name__ == "__main__":
    main()
