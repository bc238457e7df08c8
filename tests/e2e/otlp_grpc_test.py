#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240 s
"""OTLP over gRPC into the collector's own receiver: what arrives, and what each gRPC status leads to."""

import json
import os
import socket
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403


class Collector:
    """The collector's receiver on a gRPC port, perhaps refusing all."""

    def __init__(self, refuse="", port=None):
        program = os.path.join(BUILD, "go-receiver")
        if not os.path.exists(program):
            raise CannotRun("the collector's receiver was not built (see build/receiver)")
        self.out, self.port, self.http = os.path.join(temp_folder(), "received.json"), port or free_port(), free_port()
        self.process = spawn([program, "-http", f"127.0.0.1:{self.http}", "-grpc", f"127.0.0.1:{self.port}",
                              "-refuse", refuse, "-out", self.out], stdout=subprocess.PIPE, text=True)  # fmt: skip
        equal(self.process.stdout.readline().strip(), "ready", "the collector's receiver")
        self.url = f"http://127.0.0.1:{self.port}"

    def got(self):
        with open(self.out) as f:
            return json.load(f)

    def total(self, service):
        return self.got()["services"].get(service, {}).get("samples/count", 0)


def destination(a, name="collector"):
    shown = a.ctl("destination", "show", name)
    return rows(shown)[0] if "failures" not in shown else shown


@case("what the collector has over gRPC is what a receiver over HTTP has, packed or not")
def same():
    packed, plain = Collector(), Collector()
    with OtlpReceiver() as python, Agentd() as a:
        a.add_receiver(python, "python")
        a.ctl("destination", "add", "otlp", "packed", "--url", packed.url)
        a.ctl("destination", "add", "otlp", "plain", "--url", plain.url, "--compression", "none")
        a.add_process("shares_c", "--service-name", "both")
        a.enable()
        Workload("shares_c", 3).wait()
        profiles, _ = a.finish(python)
        for c in (packed, plain):
            wait_for("the collector has as many samples", lambda: c.total("both") == profiles.total("both"), 10)
            equal(c.got()["problems"], [], "problems that the collector's data model shows")
            equal(sorted(set(c.got()["profile_ids"])), sorted(set(profiles.ids())), "profile ids")
        tested = a.ctl("destination", "test", "packed")["tests"][0]
        check(tested["ok"], tested)
        for name in ("packed", "plain"):
            d = destination(a, name)
            equal((d["failures"], d["last_error"]), (0, ""), d)


@case("a status says whether it is tried again: as OTLP has it, RESOURCE_EXHAUSTED only with a time; what blames us waits")
def statuses():
    again, refused = ["1", "4", "10", "11", "14", "15", "8:1"], ["2", "3", "8", "13"]
    blocked = ["7", "12", "16"]
    collectors = {f"status-{status.replace(':', '-')}": Collector(status) for status in again + refused + blocked}
    with Agentd() as a:
        for name, c in collectors.items():
            a.ctl("destination", "add", "otlp", name, "--url", c.url)
        a.add_process("shares_c", "--service-name", "s")
        a.enable()
        Workload("shares_c", 1).wait()
        a.ctl("profiling", "disable")
        for status, name in zip(again + refused + blocked, collectors):
            d = wait_for(f"{status}: an answer", lambda: (lambda d: d if d["failures"] else None)(destination(a, name)), 15)
            check("100% \u00fcber" in d["last_error"], f"{status}: {d['last_error']}")
            if status in refused:
                wait_for(f"{status}: given up", lambda: a.ledger()["destinations"][name]["rejected"], 15)
                check("tried again" not in d["last_error"], d["last_error"])
                continue
            ledger = a.ledger()["destinations"][name]
            equal((ledger["rejected"], ledger["held"] > 0), (0, True), f"{status}: {ledger}")
            check(("tried again" if status in again else "wait meanwhile") in d["last_error"], d["last_error"])
        a.check_ledger()
    for c in collectors.values():
        end(c.process)


@case("a backend that comes back gets what it missed, once")
def comes_back():
    port = free_port()
    c = Collector("14", port)
    with OtlpReceiver() as python, Agentd() as a:
        a.add_receiver(python, "python")
        a.ctl("destination", "add", "otlp", "collector", "--url", c.url)
        a.add_process("shares_c", "--service-name", "s")
        a.enable()
        Workload("shares_c", 2).wait()
        profiles, _ = a.finish(python)
        wait_for("a refusal", lambda: destination(a)["failures"], 15)
        end(c.process)
        c = Collector("", port)
        wait_for("all of it", lambda: c.total("s") == profiles.total("s"), 60)
        a.check_ledger()
        equal(sorted(c.got()["profile_ids"]), sorted(set(c.got()["profile_ids"])), "none twice")


@case("wrong ports and peers: a sentence that leads to the mistake")
def wrong():
    c = Collector()
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen(8)

    def tell(line):
        """A server of something else: answers at once with a line of its own."""
        s = socket.socket()
        s.bind(("127.0.0.1", 0))
        s.listen(8)

        def serve():
            while True:
                peer, _ = s.accept()
                peer.sendall(line)
                peer.recv(65536)
                peer.close()

        threading.Thread(target=serve, daemon=True).start()
        return s.getsockname()[1]

    with Agentd() as a:
        for name, url, words in [
            ("http", f"http://127.0.0.1:{c.http}", ["grpc"]),
            ("closed", f"http://127.0.0.1:{free_port()}", ["refused"]),
            ("silent", f"http://127.0.0.1:{silent.getsockname()[1]}", ["did not answer"]),
            ("ssh", f"http://127.0.0.1:{tell(b'SSH-2.0-OpenSSH_9.2' + bytes([13, 10]))}", ["grpc"]),
            ("tls", f"https://127.0.0.1:{c.port}", ["TLS"]),
        ]:
            a.ctl("destination", "add", "otlp", name, "--url", url, "--timeout", "2s" if name == "silent" else "20s")
            r = a.run("destination", "test", name, "--json")
            tested = json.loads(r.stdout)["tests"][0]
            equal((r.returncode, tested["ok"]), (1, False), f"{name}: {tested}")
            said = tested["reason"] + "; " + tested["remedy"]
            check(all(w.lower() in said.lower() for w in words), f"{name}: {said}")
        r = a.run("destination", "add", "otlp", "x", "--url", c.url, "--header", "grpc-timeout=1S")
        check(r.returncode != 0 and "cannot be changed" in r.stderr, r.stderr)


if __name__ == "__main__":
    main()
