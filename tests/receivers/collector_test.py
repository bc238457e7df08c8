#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The receiver made of the collector's module, itself: it reads what is right and sees what is broken."""

import http.client
import json
import os
import subprocess
import sys
import tempfile

sys.path[:0] = [os.path.dirname(__file__), os.path.join(os.path.dirname(__file__), "../e2e/lib")]
from odi_harness import BUILD, CannotRun, case, check, end, equal, free_port, main, spawn, wait_for  # noqa: E402
from fixture import good, profile  # noqa: E402
from otlp_receiver import PATH  # noqa: E402


def send(*messages):
    """The receiver's summary after these requests."""
    program = os.path.join(BUILD, "go-receiver")
    if not os.path.exists(program):
        raise CannotRun("it was not built here (see build/receiver)")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "received.json")
        p = spawn([program, "-http", f"127.0.0.1:{port}", "-grpc", f"127.0.0.1:{free_port()}", "-out", out],
                  stdout=subprocess.PIPE, text=True)  # fmt: skip
        equal(p.stdout.readline().strip(), "ready", "its first line")
        for m in messages:
            c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            c.request("POST", PATH, m.SerializeToString(), {"Content-Type": "application/x-protobuf"})
            equal(c.getresponse().status, 200, "status")
            c.close()

        def summary():
            with open(out) as f:
                s = json.load(f)
            return s if s["requests"] == len(messages) else None

        s = wait_for("all requests in the summary", summary)
        end(p)
        return s


@case("it reads a request as the Python classes wrote it")
def reads():
    s = send(good(), good())
    equal(s["problems"], [], "problems")
    equal(s["services"], {"web": {"samples/count": 124}}, "sums")
    equal(s["leaves"], {"web": {"work": 120, "vfs_read": 4}}, "leaves")
    equal(s["profile_ids"], [profile(good()).profile_id.hex()] * 2, "ids")


@case("it sees an index outside of its table, and a resource without a name")
def sees():
    m = good()
    m.dictionary.stack_table[1].location_indices.append(77)
    del m.resource_profiles[0].resource.attributes[:]
    s = send(m)
    check(any("77 of 4" in p for p in s["problems"]), f"{s['problems']}")
    check(any("service.name" in p for p in s["problems"]), f"{s['problems']}")


if __name__ == "__main__":
    main()
