#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 400 s
"""What was sampled arrives, through kills and outages, or the ledger says where it went."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403

KILLS = int(os.environ.get("ODI_KILLS", "20"))
RATE = 499


def spool(a):
    return a.ctl("spool", "show")


def waiting(a):
    return a.ctl("spool", "list")["waiting"]


def all_through(a):
    """Its row of the ledger, once the last interval is closed and nothing is held."""
    l = a.ledger()
    row = l["destinations"]["backend"]
    return row if not l["open"] and row["held"] == 0 and waiting(a) == 0 else None


@case(f"agentd and its exporter killed {KILLS} times at intervals of a second: what was kept arrives, the ledger closes")
def kills():
    rng = seed()
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_process("shares_c", "--service-name", "steady")
        a.enable(rate=RATE)
        work = Workload("shares_c")
        agents = 0
        for i in range(KILLS):
            time.sleep(0.8 + rng.random())
            exporters = a.children("exporter")
            if i % 2 and exporters:
                os.kill(exporters[0], signal.SIGKILL)
            else:
                a.kill()
                a.start()
                agents += 1
                gap = a.status()["gap"]
                equal(gap["count"], agents, "gaps")
                check(gap["from"] and gap["from"] < gap["to"], f"a gap without its ends: {gap}")
        work.stop()
        a.run("profiling", "disable")
        row = wait_for("nothing waits", lambda: all_through(a), 60, 0.2)
        arrived = unique(receiver).total()
        say(f"# {agents} kills of agentd, {KILLS - agents} of its exporter; ledger {row}; {repeats(receiver)} repeats; "
            f"{arrived} samples arrived, repeats left out")  # fmt: skip
        equal(row["delivered"], arrived, "what the ledger says was delivered")
        check(row["delivered"] > 0, "nothing was delivered")
        equal(row["routed"], row["delivered"] + row["evicted"] + row["rejected"] + row["shaped"], "routed")
        equal(row["evicted"] + row["rejected"], 0, "given up")
        check(repeats(receiver) <= KILLS, f"{repeats(receiver)} requests came twice")


@case("an outage is waited out on the disk, over restarts; odictl shows it and drops what is old")
def outage():
    with OtlpReceiver() as receiver, Agentd() as a:
        receiver.behave(status=503)
        a.add_receiver(receiver)
        a.add_process("shares_c", "--service-name", "steady")
        a.enable(rate=RATE)
        work = Workload("shares_c")
        wait_for("batches wait", lambda: waiting(a) >= 4, 30)
        state = spool(a)
        check(state["on"] and state["batches"] >= 3 and state["bytes"] > 0, f"spool: {state}")
        batches = a.ctl("spool", "list")["batches"]
        check(all(b["destinations"] == ["backend"] for b in batches), f"{batches}")
        wait_for("the oldest is on the disk", lambda: a.ctl("spool", "list")["batches"][0]["durable"], 10)
        work.stop()
        a.run("profiling", "disable")

        def all_held():
            l = a.ledger()
            row = l["destinations"]["backend"]
            return row["held"] if not l["open"] and row["held"] == row["routed"] == l["profiled"] else None

        held = wait_for("all is held", all_held, 20)
        equal(a.stop(), 0, "the stop")
        a.start()
        wait_for("it is there after the restart", lambda: waiting(a) > 0, 20)
        wait_for("as much is held", lambda: a.ledger()["destinations"]["backend"]["held"] == held, 20)
        equal(a.status()["gap"]["count"], 0, "a stop is no gap")
        r = a.run("spool", "drop", "--older-than", "1h", "--yes")
        equal(r.returncode, 0, r.stderr)
        check("0 batches" in r.stdout, r.stdout)
        dropped = 0

        def drop():
            nonlocal dropped
            dropped += a.ctl("spool", "drop", "--older-than", "0s", "--yes")["samples"]
            return dropped >= held

        wait_for("all is dropped; a batch that is just being sent stays until it is refused", drop, 20, 0.2)
        equal(dropped, held, "dropped")
        row = a.ledger()["destinations"]["backend"]
        equal(row["evicted"], held, "evicted")
        equal(row["held"], 0, "held")
        equal(waiting(a), 0, "waiting")
        # over one more restart the account stays
        equal(a.stop(), 0, "the stop")
        a.start()
        wait_for("totals", lambda: a.ledger()["destinations"]["backend"]["evicted"] == held, 20)


@case("what is configured holds: bytes of the spool")
def bounds():
    with OtlpReceiver() as receiver, Agentd() as a:
        receiver.behave(status=503)
        a.add_receiver(receiver)
        for key, value in (("spool-bytes", "1MB"), ("min-free", "0"), ("spool-age", "1h")):
            r = a.run("config", "set", f"exporter/{key}", value)
            equal(r.returncode, 0, r.stdout + r.stderr)
        a.add_process("shares_c", "--service-name", "steady")
        a.enable(rate=RATE)
        work = Workload("shares_c")
        wait_for("the bounds are in force", lambda: 0 < spool(a)["max_bytes"] <= 1 << 20, 20)
        equal(spool(a)["max_age_ns"], 3600 * 10**9, "age")
        work.stop()


class Unit:
    """The exporter as the service manager runs it: one listening socket, one folder."""

    def __init__(self):
        self.folder = temp_folder()
        self.path = os.path.join(self.folder, "exporter.sock")
        self.state = os.path.join(self.folder, "state")
        os.mkdir(self.state)
        os.chown(self.state, 65534, 65534)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(self.path)
        self.listener.listen(4)
        self.process = None
        self.start()

    def start(self):
        script = f'exec 3<&{self.listener.fileno()}; export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" --role exporter'
        with open(os.path.join(self.folder, "log"), "ab") as log:
            self.process = spawn(["bash", "-c", script, AGENTD], pass_fds=[self.listener.fileno()], stdin=subprocess.DEVNULL,
                                 stdout=log, stderr=log, env={**os.environ, "STATE_DIRECTORY": self.state})  # fmt: skip

    def kill(self):
        self.process.kill()
        self.process.wait()


class WithUnit(Agentd):
    def __init__(self, unit):
        self.unit = unit
        super().__init__()

    def argv(self):
        return super().argv() + ["--exporter-socket", self.unit.path]


@case("an exporter that is a unit of its own outlives agentd, and agentd it")
def unit():
    u = Unit()
    with OtlpReceiver() as receiver, WithUnit(u) as a:
        a.add_receiver(receiver)
        a.add_process("shares_c", "--service-name", "steady")
        a.enable(rate=RATE)
        work = Workload("shares_c")
        wait_for("a batch is delivered", lambda: a.ledger()["destinations"]["backend"]["delivered"] > 0, 30)
        check(not a.children("exporter"), "agentd started one of its own")
        check(os.listdir(u.state), "the unit's folder is empty")
        receiver.behave(status=503)
        wait_for("batches wait", lambda: waiting(a) >= 2, 30)
        a.kill()
        receiver.behave()
        # What waited is delivered while there is no agentd.
        before = len(receiver.messages)
        wait_for("it goes on without agentd", lambda: len(receiver.messages) > before, 90)
        a.start()
        time.sleep(2)
        u.kill()
        time.sleep(1)
        u.start()
        time.sleep(2)
        work.stop()
        a.run("profiling", "disable")
        row = wait_for("nothing waits", lambda: spool(a)["known"] and all_through(a), 60, 0.2)
        equal(row["delivered"], unique(receiver).total(), "what the ledger says was delivered")
        equal(row["routed"], row["delivered"], "routed")
    u.kill()


main()
