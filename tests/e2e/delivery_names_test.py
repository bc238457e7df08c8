#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240 s
"""Name servers that lie, talk rubbish or say nothing: where profiles go, what is said, and that nobody else waits.

The exporter runs with an /etc of its own, whose resolv.conf names a server of ours.
"""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403
from certificates import Authority  # noqa: E402
from feeder import Feeder  # noqa: E402
from hostile import Hostile  # noqa: E402
from resolver import Resolver  # noqa: E402


@case("an answer that leads elsewhere: TLS refuses whoever is there, without TLS it is said where it went")
def elsewhere():
    a = Authority(temp_folder())
    thief, right = Hostile("ok", a.leaf("thief", ["DNS:thief.test"])), Hostile("ok", a.leaf("right", ["DNS:right.test"]))
    plain = Hostile("ok")
    r = Resolver()
    r.names.update({name: "127.0.0.1" for name in ("bank.test", "right.test", "plain.test")})
    with Feeder(r.inside()) as f:
        f.destination("bank", "otlphttp", url=f"https://bank.test:{thief.port}", ca="@" + a.ca)
        f.destination("right", "otlphttp", url=f"https://right.test:{right.port}", ca="@" + a.ca)
        f.destination("plain", "otlphttp", url=f"http://plain.test:{plain.port}")
        f.apply()
        f.send()
        for name in ("right", "plain"):
            f.wait(name, lambda rows: rows[name]["delivered"] == f.sent())
        d = f.wait("bank: an answer", lambda rows: rows["bank"] if rows["bank"]["error"] else None)
        equal(d["held"], f.sent(), d)
        check("no alternative certificate subject name" in d["error"] and "bank.test" in d["error"], d["error"])
        equal((thief.requests, thief.taken), ([], {}), "what the thief got")
        t = f.test("plain")
        check(t["ok"], t)
        equal(t["steps"][1]["detail"], f"127.0.0.1 port {plain.port}", t)


@case("a name that does not exist, and answers that are none: said, held, and delivered when the server is mended")
def wrong():
    target = Hostile("ok")
    kinds = {"missing": "nxdomain", "garbage": "garbage", "loop": "loop", "astray": "other"}
    r = Resolver()
    r.names.update({f"{name}.test": kind for name, kind in kinds.items()})
    with Feeder(r.inside()) as f:
        for name in kinds:
            f.destination(name, "otlphttp", url=f"http://{name}.test:{target.port}", timeout="8s")
        f.apply()
        f.send()
        for name in kinds:
            d = f.wait(f"{name}: an answer", lambda rows: rows[name] if rows[name]["error"] else None, 40)
            equal(d["held"], f.sent(), f"{name}: {d}")
            check(f"{name}.test" in d["error"], f"{name}: {d['error']}")
        r.names.update({f"{name}.test": "127.0.0.1" for name in kinds})
        for name in kinds:
            f.wait(f"{name}: mended", lambda rows: rows[name]["delivered"] == f.sent(), 60)
        equal(target.taken["service-1"], len(kinds) * f.sent(), "once each")
        equal(f.say("rows")["restarts"], 0, "restarts of the exporter")


@case("a server that says nothing: within the timeout, and others are delivered while the name is looked up")
def silent():
    target = Hostile("ok")
    r = Resolver(3)  # each is asked in turn, so that looking up takes long
    r.names.update({"mute.test": "silence", "quick.test": "silence", "live.test": "127.0.0.1"})
    with Feeder(r.inside()) as f:
        f.destination("mute", "otlphttp", url=f"http://mute.test:{target.port}", timeout="60s")
        f.destination("live", "otlphttp", url=f"http://live.test:{target.port}")
        f.apply()
        f.send()
        f.wait("live", lambda rows: rows["live"]["delivered"] == f.sent())
        # A loop that waits for the resolver delivers nothing between the first question and the failure.
        meanwhile = False
        for _ in range(5):
            before, asked = f.rows()["mute"]["failures"], r.count("mute.test")
            wait_for("the name is asked for", lambda: r.count("mute.test") > asked, 60, 0.02)
            f.send()
            f.wait("live, once more", lambda rows: rows["live"]["delivered"] == f.sent())
            if f.rows()["mute"]["failures"] == before:
                meanwhile = True
                break
        check(meanwhile, "live was delivered only when mute had failed")
        d = f.wait("mute: an answer", lambda rows: rows["mute"] if rows["mute"]["error"] else None, 60)
        check("mute.test" in d["error"], d["error"])
        f.destination("quick", "otlphttp", url=f"http://quick.test:{target.port}", timeout="1s")
        f.apply()
        f.send()
        d = f.wait("quick: an answer", lambda rows: rows["quick"] if rows["quick"]["error"] else None)
        check("quick.test" in d["error"] and "within 1 s" in d["error"], d["error"])
        equal((d["delivered"], d["evicted"]), (0, 0), d)


@case("another resolv.conf takes the place of the one that was there: the next request goes by it")
def replaced():
    target = Hostile("ok")
    r = Resolver(2)
    servers = [s.getsockname()[0] for s in r.sockets]
    r.names["moved.test"] = ["nxdomain", "127.0.0.1"]
    with Feeder(r.inside()) as f:
        f.destination("moved", "otlphttp", url=f"http://moved.test:{target.port}", timeout="8s")
        f.apply()
        f.send()
        f.wait("an answer", lambda rows: rows["moved"]["error"])
        r.write(servers[1:])
        f.wait("delivered", lambda rows: rows["moved"]["delivered"] == f.sent(), 60)
        equal(target.taken["service-1"], f.sent(), "once")
        equal(f.say("rows")["restarts"], 0, "restarts of the exporter")


if __name__ == "__main__":
    main()
