#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300 s
"""What a destination is sent of a batch: by its own options, and by settings for all."""

import concurrent.futures
import os
import signal
import sys
import time

import grpc
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403


def through(a, name, seconds=20):
    """Its row of the ledger, once the last interval is closed, all that was profiled went to it, and nothing waits."""

    def all_of_it():
        l = a.check_ledger()
        d = l["destinations"][name]
        return d if not l["open"] and d["routed"] == l["profiled"] > 0 and d["held"] == 0 else None

    return wait_for(f"{name} has all", all_of_it, seconds, 0.1)


@case("frames, attributes, sources and samples: each destination has what it wants, and the ledger says what it has not")
def rules():
    with OtlpReceiver() as plain, OtlpReceiver() as cut, OtlpReceiver() as few, OtlpReceiver() as one, Agentd() as a:
        for name, r in (("plain", plain), ("cut", cut), ("few", few), ("one", one)):
            a.add_receiver(r, name)
        a.add_process("shares_c", "--service-name", "c", "--name", "mine", "--label", "team=edge")
        a.add_process("shares_go", "--service-name", "go", "--name", "other")
        a.ctl("destination", "set", "cut", "kernel=off", "attributes=drop team; add env=prod; rename host.name=node")
        a.ctl("destination", "set", "few", "sample=5")
        a.ctl("destination", "set", "one", "keep-sources=mine")
        a.enable()
        both = Workload("shares_c", 4), Workload("shares_go", 4)
        for w in both:
            w.wait()
        a.ctl("profiling", "disable")
        rows = {name: through(a, name) for name in ("plain", "cut", "few", "one")}
        p = unique(plain)
        equal((rows["plain"]["shaped"], rows["plain"]["delivered"]), (0, p.total()), "plain")
        # Frames of the kernel: their time is their callers'.
        c = unique(cut)
        equal((rows["cut"]["shaped"], c.total("c")), (0, p.total("c")), "cut")
        check(not any(s.kernel and s.kernel != ("[kernel]",) for s in c.samples()), "kernel frames in cut")
        for attributes in (x.resource for x in c.profiles):
            check("team" not in attributes and "host.name" not in attributes, attributes)
            equal((attributes["env"], bool(attributes["node"])), ("prod", True), attributes)
        # One of five: as if the rate were lower.
        f = unique(few)
        equal(rows["few"]["delivered"], f.total(), "few: delivered")
        equal(rows["few"]["delivered"] + rows["few"]["shaped"], rows["plain"]["delivered"], "few: all")
        equal({x.period for x in f.profiles}, {5 * x.period for x in p.profiles}, "its period")
        # Of each stack of a profile every fifth from a random offset on: one more or less, with a deviation of a half
        # at most.
        stacks = sum(1 for _ in p.samples("c"))
        off = f.total("c") - p.total("c") / 5
        check(abs(off) <= SIGMA * 0.5 * math.sqrt(stacks), f"{f.total('c')} of {p.total('c')} samples of {stacks} stacks")
        # One source.
        o = unique(one)
        equal((o.services(), o.total(), rows["one"]["shaped"]), (["c"], p.total("c"), p.total("go")), "one source")
        check("leaf_sixty" in p.cumulative("c"), p.cumulative("c"))


def several(receiver, each):
    """Profiles that cover the begins of more than one of those that another receiver has, which is sent each batch."""
    begins = sorted({p.time for p in unique(each).profiles})
    return [p for p in unique(receiver).profiles if sum(p.time <= t < p.time + p.duration for t in begins) > 1]


@case("settings for all, from a file and by command; a destination's own come first; a change amid the work loses nothing")
def for_all():
    config = "shaping:\n  exclude: [\"leaf_*\", \"module:libnothing.so\"]\n  kernel: off\n"
    with OtlpReceiver() as all_, OtlpReceiver() as own, Agentd(config=config) as a:
        a.add_receiver(all_, "all")
        a.add_receiver(own, "own")
        a.ctl("destination", "set", "own", "exclude=none", "kernel=on")
        a.add_process("shares_c", "--service-name", "c")
        a.enable()
        w = Workload("shares_c")
        chain = a.settle_running(own, "c", 200).chains("c").most_common(1)[0][0]
        # The hottest function, whatever it is called, is to go from now on.
        r = a.run("config", "set", "shaping/exclude", "x")
        check(r.returncode == 1 and "agentd.yaml" in r.stderr, f"what a file sets: {r}")
        a.ctl("destination", "set", "all", f"exclude={chain[0]}", "upload-interval=4s")
        wait_for("an upload of several batches", lambda: several(all_, own), 20, 0.3)
        w.stop()
        a.ctl("profiling", "disable")
        equal(through(a, "own")["shaped"], 0, "own")
        row = through(a, "all")
        got, whole = unique(all_), unique(own)
        equal((row["delivered"], row["shaped"], got.total("c")), (whole.total("c"), 0, whole.total("c")), "all")
        late = [s for p in several(all_, own) for s in p.samples]
        check(not any(chain[0] in s.names for s in late), f"{chain[0]} is there")
        check(any(chain[1] == s.user[0] for s in late), f"its time is not {chain[1]}'s")
        check(len(got.profiles) < len(whole.profiles), (len(got.profiles), len(whole.profiles)))
        equal(len(got.ids()), len(set(got.ids())), "ids")


@case("uploads of several batches, through an outage and an exporter that is killed amid it: each sample once")
def killed_amid():
    with OtlpReceiver() as r, OtlpReceiver() as plain, Agentd() as a:
        a.add_receiver(r, "longer")
        a.add_receiver(plain, "plain")
        a.ctl("destination", "set", "longer", "upload-interval=3s")
        a.add_process("shares_c", "--service-name", "c")
        a.enable()
        w = Workload("shares_c", 10)
        r.behave(status=503)
        for pause in (4, 2):
            time.sleep(pause)
            for pid in a.children("exporter"):
                os.kill(pid, signal.SIGKILL)
        r.behave(status=200, drop=True, times=1)  # taken, and the answer lost
        w.wait()
        a.ctl("profiling", "disable")
        row, other = through(a, "longer", 60), through(a, "plain", 60)
        equal((row["evicted"], row["rejected"], row["shaped"]), (0, 0, 0), row)
        equal((row["delivered"], unique(r).total("c")), (other["delivered"], unique(plain).total("c")), "all of it, once")
        check(repeats(r) <= len(unique(r).profiles), f"{repeats(r)} repeats")


class Elastic:
    """Takes profiles over gRPC."""

    def __init__(self):
        self.messages = []

        def export(request, context):
            self.messages.append(service.ExportProfilesServiceRequest.FromString(request))
            return service.ExportProfilesServiceResponse().SerializeToString()

        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        methods = {"Export": grpc.unary_unary_rpc_method_handler(export)}
        name = "opentelemetry.proto.collector.profiles.v1development.ProfilesService"
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
        self.url = f"http://127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()


@case("Elastic: each sample with its time, of the sources that go there; counts for all others; what that costs is said")
def elastic():
    e = Elastic()
    with OtlpReceiver() as r, Agentd() as a:
        a.add_receiver(r)
        a.add_process("shares_c", "--service-name", "timed", "--name", "timed")
        a.add_process("shares_go", "--service-name", "counted", "--name", "counted")
        said = a.run("destination", "add", "elastic", "elastic", "--url", e.url)
        check(said.returncode == 0 and "unaggregated" in said.stdout + said.stderr, said)
        a.ctl("destination", "set", "elastic", "keep-sources=timed")
        a.enable()
        both = Workload("shares_c", 3), Workload("shares_go", 3)
        for w in both:
            w.wait()
        a.ctl("profiling", "disable")
        rows = {name: through(a, name) for name in ("backend", "elastic")}
        p, x = unique(r), unique(e)
        equal((x.services(), x.total()), (["timed"], p.total("timed")), "elastic")
        equal((rows["elastic"]["delivered"], rows["elastic"]["shaped"]), (p.total("timed"), p.total("counted")), rows)
        check(not any(s.timestamps for s in p.samples()), "timestamps where counts are wanted")
        timed = 0
        for profile in x.profiles:
            for s in profile.samples:
                timed += len(s.timestamps)
                check(all(profile.time <= t <= profile.time + profile.duration for t in s.timestamps), profile.id)
        check(timed > 0.99 * x.total(), f"{timed} of {x.total()} have a time")
        equal(x.chains("timed"), p.chains("timed"), "stacks")
    e.server.stop(0)


@case("wrong rules are refused with what is right, by command and in files")
def wrong():
    with OtlpReceiver() as r, Agentd() as a:
        a.add_receiver(r)
        for rule, says in (("attributes=remove x", "add KEY=VALUE"), ("sample=0", "1 to 1000"), ("kernel=maybe", "on"),
                           ("keep-sources=-", "source"), ("upload-interval=3d", "1h"), ("min-samples=x", "number")):  # fmt: skip
            answer = a.run("destination", "set", "backend", rule)
            check(answer.returncode in (1, 2) and rule.split("=")[0] in answer.stderr, f"{rule}: {answer}")
        answer = a.run("config", "set", "shaping/attributes", "remove x")
        check(answer.returncode in (1, 2) and "add KEY=VALUE" in answer.stderr, answer)


if __name__ == "__main__":
    main()
