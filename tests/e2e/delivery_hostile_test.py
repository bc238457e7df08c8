#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 720 s
"""Receivers that refuse, hang, lie and never end: what is counted, which sentence is shown, and that nothing is lost.

All of them at once, each a destination of one exporter, so that none may hold up another.
"""

import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403
from certificates import Authority  # noqa: E402
from feeder import Feeder  # noqa: E402
from hostile import Hostile  # noqa: E402

HELD, REJECTED, DELIVERED = "held", "rejected", "delivered"

# name, behaviour, what becomes of the batch, words that the sentence has
HTTP = [
    ("refuse", "refuse", HELD, ["refused", "nothing listens there"]),
    ("accept", "hang in accept", HELD, ["did not answer within 1 s"]),
    ("head", "hang in head", HELD, ["did not answer within 1 s"]),
    ("body", "hang in body", DELIVERED, ["its answer broke off"]),
    ("reset-request", "reset in request", HELD, ["closed the connection"]),
    ("reset-answer", "reset in answer", HELD, ["closed the connection"]),
    ("drip", "drip", HELD, []),
    ("endless", "endless", DELIVERED, ["more than an answer can be"]),
    ("bomb", "bomb", DELIVERED, ["is this a receiver of profiles?"]),
    ("elsewhere", "redirect", HELD, ["sends us elsewhere: http://elsewhere.invalid/x", "same host"]),
    ("loop", "loop", HELD, ["answered 307"]),
    ("garbage", "garbage", DELIVERED, ["not as a receiver of OTLP"]),
    ("bad-request", 400, REJECTED, ["answered 400", "another version"]),
    ("unauthorized", 401, HELD, ["answered 401", "credentials", "wait meanwhile"]),
    ("not-found", 404, HELD, ["does not know the path /v1development/profiles", "4318", "(profiles wait meanwhile)"]),
    ("path", 404, HELD, ["does not know the path /v1/traces", "leave the path out of the url: /v1development/profiles"]),
    ("unsupported", 415, HELD, ["does not take protobuf"]),
    ("too-many", 429, HELD, ["answered 429"]),
    ("internal", 500, REJECTED, ["answered 500"]),
    ("unavailable", 503, HELD, ["answered 503"]),
    ("partial", "partial", REJECTED, ["rejected 1 of its profiles: too old"]),
]


@case("each way of failing at once: what is held, rejected, delivered, and why; then all is mended")
def at_once():
    receivers = {name: Hostile(behaviour) for name, behaviour, _, _ in HTTP}
    receivers["elsewhere"].location = "http://elsewhere.invalid/x?token=hunter2"
    with Feeder() as f:
        for name, r in receivers.items():
            hangs = isinstance(r.behaviour, str) and (r.behaviour.startswith("hang") or r.behaviour == "drip")
            f.destination(name, "otlphttp", url=r.url + ("/v1/traces" if name == "path" else ""),
                          timeout="1s" if hangs else "15s")  # fmt: skip
        f.apply()
        f.send()
        sent = f.sent()
        for name, _, fate, words in HTTP:
            d = f.wait(f"{name}: an answer", lambda rows: rows[name] if rows[name]["error"] else None)
            if fate != HELD:
                d = f.wait(f"{name}: {fate}", lambda rows: rows[name] if not rows[name]["held"] else None)
            equal(d[fate], sent, f"{name}: {d}")
            missing = [w for w in words if w.lower() not in d["error"].lower()]
            check(not missing, f"{name}: {missing} of: {d['error']}")
            check("\x1b" not in d["error"] and "hunter2" not in d["error"], repr(d["error"]))
            equal(d["state"], "ok" if fate == DELIVERED else "failing", f"{name}: {d}")
        equal(f.say("rows")["restarts"], 0, "restarts of the exporter")
        # what comes after an answer that is odd goes there like any other
        f.send()
        for name, _, fate, _ in HTTP:
            if fate != HELD:
                f.wait(f"{name}: the second", lambda rows: not rows[name]["held"])
        for name, r in receivers.items():
            if r.behaviour == "refuse":
                r.listen()
            r.behaviour = "ok"
            f.destination(name, "otlphttp", url=r.url, timeout="14s")
        f.apply()
        sent = f.sent()
        for name, _, fate, _ in HTTP:
            d = f.wait(f"{name}: all", lambda rows: rows[name] if not rows[name]["held"] else None, 40)
            if fate == HELD:
                equal((d["delivered"], d["rejected"]), (sent, 0), f"{name}: {d}")
                r = receivers[name]
                if name == "accept":  # the kernel took its requests, and it read them when it woke up
                    check(all(n % (sent // 2) == 0 for n in r.taken.values()), f"{name}: {r.taken}")
                    continue
                # who failed five times meanwhile was tried by an empty request, which is of no service of ours
                got = {k: v for k, v in r.taken.items() if k.startswith("service-")}
                equal(got, {"service-1": sent // 2, "service-2": sent // 2}, f"{name}: what arrived")


@case("Retry-After is kept to; a redirect on the same host is followed, with the body")
def asked():
    slow, moved = Hostile(429), Hostile("redirect")
    slow.retry_after, moved.location = 3, moved.url + "/moved"
    with Feeder() as f:
        f.destination("slow", "otlphttp", url=slow.url)
        f.destination("moved", "otlphttp", url=moved.url)
        f.apply()
        f.send()
        f.wait("moved", lambda rows: rows["moved"]["delivered"] == f.sent())
        equal([r[1] for r in moved.requests], ["/v1development/profiles", "/moved"], "paths")
        equal(moved.total(), f.sent(), "samples")
        f.wait("refused", lambda rows: rows["slow"]["failures"])
        slow.behaviour = "ok"
        f.wait("slow", lambda rows: rows["slow"]["delivered"] == f.sent())
        waited = slow.requests[1][0] - slow.requests[0][0]
        check(waited >= 2.9, f"it asked for 3 s and was asked again after {waited:.2f} s")


@case("the circuit: after some failures an empty request is tried, and what waits follows it, once")
def circuit():
    r = Hostile(503)
    with Feeder() as f:
        f.destination("d", "otlphttp", url=r.url)
        f.apply()
        f.send(3, 400)
        f.wait("failures", lambda rows: rows["d"]["failures"] >= 6, 60)
        sizes = [n for _, _, _, n in r.requests]
        check(all(n > 1000 for n in sizes[:5]) and sizes[5] < 500, f"sizes of requests: {sizes}")
        r.behaviour = "ok"
        f.wait("all", lambda rows: rows["d"]["delivered"] == f.sent(), 60)
        equal(r.total(), f.sent(), "samples")
        equal({n: v for n, v in r.taken.items() if n.startswith("service-")},
              {f"service-{i}": f.sent() // 3 for i in (1, 2, 3)}, "each once")  # fmt: skip


@case("413: the request goes in halves until it fits, and later ones fit at once")
def too_big():
    r = Hostile(413)
    r.max_body = 20000
    with Feeder() as f:
        f.destination("d", "otlphttp", url=r.url)
        f.apply()
        f.send(1, 100, 2000)
        f.wait("all", lambda rows: rows["d"]["delivered"] == f.sent())
        refused = len(r.requests)
        f.send(1, 100, 2000)
        f.wait("all", lambda rows: rows["d"]["delivered"] == f.sent())
        equal(r.total(), f.sent(), "samples")
        check(len(r.requests) <= refused * 2, f"{refused} requests, then {len(r.requests)}")


@case("gRPC: trailers alone, no trailers, a cut, no such service: held, said, and delivered when it is mended")
def grpc():
    table = [
        ("only", "trailers only", ["UNAVAILABLE", "not yet", "tried again"]),
        ("none", "no trailers", ["not as gRPC does", "4317"]),
        ("cut", "cut off", []),
        ("unknown", "unimplemented", ["UNIMPLEMENTED", "unknown service", "switch profiles on", "wait meanwhile"]),
    ]
    receivers = {name: Hostile(behaviour, grpc=True) for name, behaviour, _ in table}
    with Feeder() as f:
        for name, r in receivers.items():
            f.destination(name, "otlp", url=r.url, timeout="15s")
        f.apply()
        f.send()
        for name, _, words in table:
            d = f.wait(f"{name}: an answer", lambda rows: rows[name] if rows[name]["error"] else None)
            equal(d["held"], f.sent(), f"{name}: {d}")
            missing = [w for w in words if w not in d["error"]]
            check(not missing, f"{name}: {missing} of: {d['error']}")
        for name, r in receivers.items():
            r.behaviour = "ok"
            f.destination(name, "otlp", url=r.url, timeout="14s")
        f.apply()
        for name, r in receivers.items():
            f.wait(f"{name}: all", lambda rows: rows[name]["delivered"] == f.sent())
            equal(r.taken, {"service-1": f.sent()}, name)


@case("certificates: expired, self-signed, of another name; an authority, a name and a waiver that mend it")
def certificates():
    a = Authority(temp_folder())
    servers = {
        "good": Hostile("ok", a.leaf("good")),
        "expired": Hostile("ok", a.leaf("expired", expired=True)),
        "self": Hostile("ok", a.self_signed("self")),
        "other": Hostile("ok", a.leaf("other", ["DNS:other.example"])),
        "silent": Hostile("hang in TLS", a.leaf("silent")),
    }
    wrong = {"expired": "expired", "self": "self", "other": "no alternative certificate subject name", "silent": ""}
    with Feeder() as f:
        for name, s in servers.items():
            f.destination(name, "otlphttp", url=s.url, timeout="2s" if name == "silent" else "15s", ca="@" + a.ca)
        f.destination("no-ca", "otlphttp", url=servers["good"].url)
        f.destination("named", "otlphttp", url=servers["other"].url, ca="@" + a.ca, server_name="other.example")
        f.destination("waived", "otlphttp", url=servers["expired"].url, insecure_skip_verify="true")
        f.apply()
        f.send()
        for name in ("good", "named", "waived"):
            f.wait(name, lambda rows: rows[name]["delivered"] == f.sent())
        for name in ("expired", "self", "other", "silent", "no-ca"):
            d = f.wait(f"{name}: an answer", lambda rows: rows[name] if rows[name]["error"] else None)
            equal(d["held"], f.sent(), f"{name}: {d}")
            check(wrong.get(name, "certificate").lower() in d["error"].lower(), f"{name}: {d['error']}")
        equal(servers["other"].requests[0][2]["host"], f"127.0.0.1:{servers['other'].port}", "Host with server-name")
        t = f.test("good")
        check(t["ok"], t)
        equal([s["name"] for s in t["steps"]], ["resolve", "connect", "tls", "answer", "auth", "accepted"], t)
        tls = t["steps"][2]["detail"]
        check("TLSv1" in tls and "by odi test authority, good for " in tls and tls.endswith(" more days"), tls)
        t = f.test("expired")
        equal(([s["name"] for s in t["steps"]][-1], t["steps"][-1]["ok"]), ("tls", False), t)


@case("the steps of a test end where it failed")
def steps():
    denied, silent = Hostile(401), socket.socket()
    silent.bind(("127.0.0.1", 0))
    with Feeder() as f:
        for name, url, last, ok in [
            ("name", "http://no-such-host.invalid:1", "resolve", False),
            ("port", f"http://127.0.0.1:{silent.getsockname()[1]}", "connect", False),
            ("plain", denied.url.replace("http:", "https:"), "tls", False),
            ("denied", denied.url, "auth", False),
            ("lost", Hostile(404).url, "accepted", False),
            ("good", Hostile("ok").url, "accepted", True),
        ]:
            f.destination(name, "otlphttp", url=url, timeout="2s" if name == "plain" else "30s")
            t = f.test(name)
            equal((t["steps"][-1]["name"], t["steps"][-1]["ok"], t["ok"]), (last, ok, ok), f"{name}: {t}")
            check(all(s["ok"] for s in t["steps"][:-1]), t)
            check(t["steps"][0]["ns"] > 0, t)


if __name__ == "__main__":
    main()
