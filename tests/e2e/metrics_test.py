#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240 s
"""Our own metrics: text that Prometheus' parser reads, with the figures of status; over HTTP, where strangers may come;
and as OTLP over HTTP and gRPC."""

import concurrent.futures
import gzip
import http.client
import os
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as service
from prometheus_client.openmetrics.parser import text_string_to_metric_families

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403


def parse(text):
    """{name: {labels: value}}; what a strict parser and the rules for units and names ask for is checked."""
    families = list(text_string_to_metric_families(text))
    out = {}
    for f in families:
        check(f.name.startswith("odi_"), f"{f.name} is not ours")
        check(f.documentation.strip().endswith("."), f"{f.name} has no HELP: {f.documentation!r}")
        check(f.type != "unknown", f"{f.name} has no TYPE")
        if f.unit:
            check(f.name.endswith("_" + f.unit), f"{f.name} does not end with its unit {f.unit}")
        for s in f.samples:
            out.setdefault(s.name, {})[tuple(sorted(s.labels.items()))] = s.value
    return out


def get(port, path="/metrics", method="GET", timeout=10):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        c.request(method, path)
        answer = c.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        c.close()


@case("a strict parser reads them, and they say what status says")
def agrees():
    with OtlpReceiver() as r, Agentd() as a:
        a.add_receiver(r, 'back"end'.replace('"', "."))
        a.ctl("destination", "set", "back.end", "min-samples=5")
        a.add_process("shares_c", "--service-name", "m")
        a.enable()
        Workload("shares_c").work(3)
        a.ctl("profiling", "disable")

        def delivered():
            l = a.check_ledger()
            d = l["destinations"]["back.end"]
            return not l["open"] and d["held"] == 0 and d["routed"] == l["profiled"] > 0

        wait_for("all is delivered", delivered, 15)
        # The ledger is told at once, the figures of sending a little later.
        wait_for("its requests are told", lambda: a.destinations()["back.end"]["requests"] == len(r.all_requests()), 15)
        status, text, later = a.status(), a.run("metrics").stdout, a.status()
        check(text.endswith("# EOF\n"), text[-100:])
        m = parse(text)
        cpu, there = (("type", "cpu"),), (("destination", "back.end"), ("type", "cpu"))
        ledger = a.ledger()
        for name in ("due", "taken", "late", "idle", "ignored", "profiled"):
            equal(m[f"odi_samples_{name}_total"][cpu], ledger[name], name)
        equal(m["odi_ledger_closes"][cpu], 1, "closes")
        d = ledger["destinations"]["back.end"]
        check(d["shaped"] > 0, f"nothing was shaped away: {d}")
        for name in ("routed", "delivered", "evicted", "rejected", "shaped"):
            equal(m[f"odi_destination_samples_{name}_total"][there], d[name], name)
        equal(m["odi_destination_samples_held"][there], 0, "held")
        equal(d["delivered"], unique(r).total("m"), "delivered, as the receiver counts")
        which = (("destination", "back.end"), ("kind", "otlphttp"))
        shown = a.destinations()["back.end"]
        equal(m["odi_destination_requests_total"][which], shown["requests"], "requests")
        equal(m["odi_destination_sent_bytes_total"][which], shown["sent_bytes"], "sent bytes")
        took = "odi_destination_send_duration_seconds_"
        taken = (("destination", "back.end"), ("result", "taken"))
        equal(m[took + "count"][taken], shown["requests"], "requests with a duration")
        equal(m[took + "bucket"][tuple(sorted((*taken, ("le", "+Inf"))))], shown["requests"], "the last bucket")
        check(0 < m[took + "sum"][taken] < 60, m[took + "sum"][taken])
        equal(m["odi_config_revision"][()], status["revision"], "revision")
        for p in status["processes"]:
            role, after = (("role", p["role"]),), [x for x in later["processes"] if x["role"] == p["role"]]
            if not after or after[0]["pid"] != p["pid"]:
                continue  # ended meanwhile, having nothing to do
            got = m["odi_process_cpu_seconds_total"][role]
            check(p["cpu_ns"] / 1e9 <= got <= after[0]["cpu_ns"] / 1e9 + 0.02, f"{got} s: {p}, then {after} CPU")
            check(0.5 < m["odi_process_memory_bytes"][role] / p["memory_bytes"] < 2, f"{p} memory")
        for name, value in (("odi_frames", "frames"), ("odi_frames_named", "named"), ("odi_user_frames_named", "user_named")):
            equal(m[name + "_total"][()], status["names"][value], name)


@case("over HTTP: one thing to have, bounded for strangers, back after a kill, off again")
def over_http():
    port = free_port()
    with Agentd() as a:
        equal(a.children("exporter"), [], "exporters before anybody needs one")
        a.ctl("config", "set", "metrics/listen", f"127.0.0.1:{port}")
        wait_for("it is served", lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0, 10)
        status, headers, text = get(port)
        equal((status, headers["Content-Type"].split(";")[0]), (200, "application/openmetrics-text"), "the answer")
        equal(set(parse(text)), set(parse(a.run("metrics").stdout)), "what there is")
        equal([get(port, "/")[0], get(port, "/metricsx")[0], get(port, "/metrics?a=b")[0], get(port, method="POST")[0]],
              [404, 404, 200, 405], "other requests")  # fmt: skip
        s = socket.create_connection(("127.0.0.1", port))
        s.sendall(b"GET /" + b"x" * 5000)
        check(s.recv(100).startswith(b"HTTP/1.1 431"), "an endless request")
        s.close()
        # Connections that say nothing keep nobody out for longer than their few seconds.
        idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(12)]
        equal(get(port, timeout=30)[0], 200, "beside idle connections")
        for s in idle:
            s.close()
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            equal({x[0] for x in pool.map(lambda _: get(port, timeout=30), range(40))}, {200}, "40 at once")
        (child,) = a.children("exporter")
        os.kill(child, signal.SIGKILL)

        def again():
            try:
                return get(port)[0] == 200
            except (OSError, http.client.HTTPException):
                return False

        wait_for("the next exporter serves", again, 15)
        check(a.alive(), "agentd ended")
        a.ctl("config", "set", "metrics/listen", "off")
        wait_for("nobody listens", lambda: socket.socket().connect_ex(("127.0.0.1", port)) != 0, 10)


@case("an address that cannot be had: refused when it cannot be one, a problem when somebody has it")
def wrong_address():
    with Agentd() as a, socket.create_server(("127.0.0.1", 0)) as taken:
        for value in ("localhost:9464", "127.0.0.1:80", "127.0.0.1", ":9464", "127.0.0.1:99999"):
            r = a.run("config", "set", "metrics/listen", value)
            check(r.returncode == 2 and "listen" in r.stderr, f"{value}: {r}")
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        a.ctl("config", "set", "metrics/listen", address)
        wait_for("status says so", lambda: [p for p in a.status()["problems"] if address in p["text"] and
                 "in use" in p["text"]], 10)  # fmt: skip


class Metrics:
    """Takes metrics (and profiles) over HTTP and gRPC."""

    def __init__(self):
        self.http, self.grpc, self.paths = [], [], set()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                owner.paths.add(self.path)
                if self.path.endswith("/v1/metrics"):
                    if self.headers.get("Content-Encoding") == "gzip":
                        body = gzip.decompress(body)
                    owner.http.append(service.ExportMetricsServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def export(request, context):
            self.grpc.append(service.ExportMetricsServiceRequest.FromString(request))
            return service.ExportMetricsServiceResponse().SerializeToString()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.rpc = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        methods = {"Export": grpc.unary_unary_rpc_method_handler(export)}
        name = "opentelemetry.proto.collector.metrics.v1.MetricsService"
        self.rpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
        self.rpc_port = self.rpc.add_insecure_port("127.0.0.1:0")
        self.rpc.start()

    def close(self):
        self.server.shutdown()
        self.rpc.stop(0)


def judge(message):
    """{name: metric}, as OTLP has them."""
    (resource,) = message.resource_metrics
    attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
    equal((attributes["service.name"], bool(attributes["host.name"])), ("odi", True), "the resource")
    (scope,) = resource.scope_metrics
    equal(scope.scope.name, "odi", "the scope")
    out = {}
    for m in scope.metrics:
        check(m.name not in out and m.description and m.WhichOneof("data"), f"{m.name}: {m}")
        out[m.name] = m
        if m.HasField("sum"):
            check(m.sum.is_monotonic and m.sum.aggregation_temporality == 2, f"{m.name} is cumulative")
        for p in (m.sum or m.gauge).data_points if not m.HasField("histogram") else ():
            check(p.WhichOneof("value") and p.time_unix_nano >= p.start_time_unix_nano, f"{m.name}: {p}")
        for p in m.histogram.data_points:
            equal(len(p.bucket_counts), len(p.explicit_bounds) + 1, f"{m.name}: buckets")
            equal(sum(p.bucket_counts), p.count, f"{m.name}: count")
    return out


@case("as OTLP, over HTTP beside a path of one's own, and over gRPC")
def as_otlp():
    m = Metrics()
    url = f"http://127.0.0.1:{m.server.server_port}"
    with Agentd() as a:
        a.add_process("shares_c", "--service-name", "m")
        a.ctl("destination", "add", "otlphttp", "plain", "--url", url)
        a.enable()
        Workload("shares_c", 1).wait()
        a.ctl("profiling", "disable")
        wait_for("the profiles", lambda: m.paths, 15)
        equal(m.http, [], "metrics that nobody wanted")
        # They go out at once where they are switched on.
        a.ctl("destination", "add", "otlphttp", "own", "--url", url + "/tenant/v1development/profiles")
        a.ctl("destination", "set", "own", "metrics=yes")
        a.ctl("destination", "add", "otlp", "rpc", "--url", f"http://127.0.0.1:{m.rpc_port}")
        a.ctl("destination", "set", "rpc", "metrics=yes")
        wait_for("both have them", lambda: m.http and m.grpc, 15)
        check("/tenant/v1/metrics" in m.paths, m.paths)
        ledger = a.ledger()
        for message in (m.http[-1], m.grpc[-1]):
            got = judge(message)
            (point,) = got["odi_samples_taken"].sum.data_points
            equal(point.as_int, ledger["taken"], "taken")
            equal(got["odi_process_cpu_seconds"].unit, "s", "unit")
            check(set(got) >= {"odi_destination_samples_delivered", "odi_destination_send_duration_seconds"}, set(got))
        a.ctl("destination", "set", "own", "metrics=no")
    m.close()


if __name__ == "__main__":
    main()
