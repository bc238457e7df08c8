#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 540 s
"""Delivery to real receivers: the collector's over HTTP and gRPC with TLS and client certificates, a server of
grpcio's that checks as Parca does, nginx as a proxy that wants a password, files that Go's pprof reads, the log."""

import glob
import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403
from certificates import Authority  # noqa: E402
from feeder import Feeder  # noqa: E402
from hostile import Hostile  # noqa: E402
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service  # noqa: E402
from parca import Parca  # noqa: E402


class Collector:
    def __init__(self, *more):
        program = os.path.join(BUILD, "go-receiver")
        if not os.path.exists(program):
            raise CannotRun("the collector's receiver was not built (see build/receiver)")
        self.out, self.http, self.grpc = os.path.join(temp_folder(), "received.json"), free_port(), free_port()
        self.process = spawn([program, "-http", f"127.0.0.1:{self.http}", "-grpc", f"127.0.0.1:{self.grpc}",
                              "-out", self.out, *more], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             text=True)  # fmt: skip
        equal(self.process.stdout.readline().strip(), "ready", "the collector's receiver")

    def got(self):
        with open(self.out) as f:
            return json.load(f)

    def total(self):
        return sum(sum(s.values()) for s in self.got()["services"].values())


def all_delivered(f, names):
    for name in names:
        d = f.wait(f"{name}: all", lambda rows: rows[name] if rows[name]["delivered"] == f.sent() and
                   rows[name]["state"] != "idle" else None)  # fmt: skip
        equal((d["state"], d["error"], d["failures"]), ("ok", "", 0), f"{name}: {d}")


@case("the collector, HTTP and gRPC: plain, TLS, client certificates, and each packing")
def collector():
    a = Authority(temp_folder())
    cert, key = a.leaf("server")
    ours, our_key = a.leaf("client", ["DNS:client.example"])
    plain, tls = Collector(), Collector("-cert", cert, "-key", key)
    mutual = Collector("-cert", cert, "-key", key, "-client-ca", a.ca)
    ways = [(c, s, m) for c, s, m in [(plain, "http", {}), (tls, "https", {"ca": "@" + a.ca}),
            (mutual, "https", {"ca": "@" + a.ca, "cert": "@" + ours, "key": "@" + our_key})]]  # fmt: skip
    names = []
    with Feeder() as f:
        for i, (c, scheme, more) in enumerate(ways):
            for packing in ("gzip", "zstd", "none"):
                f.destination(f"http-{i}-{packing}", "otlphttp", url=f"{scheme}://127.0.0.1:{c.http}",
                              compression=packing, **more)  # fmt: skip
                names.append(f"http-{i}-{packing}")
            for packing in ("gzip", "none"):
                f.destination(f"grpc-{i}-{packing}", "otlp", url=f"{scheme}://127.0.0.1:{c.grpc}",
                              compression=packing, **more)  # fmt: skip
                names.append(f"grpc-{i}-{packing}")
        f.apply()
        for _ in range(2):
            f.send(1, 50)
            all_delivered(f, names)
        for c in (plain, tls, mutual):
            wait_for("all of it", lambda: c.total() == 5 * f.sent(), 5)
            equal(c.got()["problems"], [], "problems")
        # Without a certificate the server refuses, and the profiles wait.
        f.destination("none", "otlphttp", url=f"https://127.0.0.1:{mutual.http}", ca="@" + a.ca)
        f.apply()
        f.send()
        d = f.wait("an answer", lambda rows: rows["none"] if rows["none"]["error"] else None)
        check(d["held"] > 0 and "a certificate of ours" in d["error"], d)
        f.destination("none", "otlphttp", url=f"https://127.0.0.1:{mutual.http}", ca="@" + a.ca, cert="@" + ours,
                      key="@" + our_key)  # fmt: skip
        f.apply()
        f.wait("delivered", lambda rows: not rows["none"]["held"] and rows["none"]["delivered"])
        t = f.test("grpc-2-gzip")
        check(t["ok"] and t["steps"][2]["name"] == "tls" and "HTTP/2, OK" in t["steps"][3]["detail"], t)


@case("a message that is larger than the collector takes over gRPC goes in pieces")
def larger():
    c = Collector("-grpc-max-mib", "1")
    with Feeder() as f:
        f.destination("d", "otlp", url=f"http://127.0.0.1:{c.grpc}")
        f.apply()
        f.send(1, 1000, 2000)
        f.wait("all", lambda rows: rows["d"]["delivered"] == f.sent())
        wait_for("all of it", lambda: c.total() == f.sent(), 5)
        check(c.got()["requests"] >= 3, f"{c.got()['requests']} requests")
        equal(len(set(c.got()["profile_ids"])), len(c.got()["profile_ids"]), "no id twice")


@case("Parca's WriteRaw: a series for each profile, labels that it takes, pprofs that pass its checks")
def parca():
    a = Authority(temp_folder())
    plain, tls, small = Parca(), Parca(a.leaf("parca")), Parca(max_bytes=4000)
    with Feeder() as f:
        f.destination("plain", "parca", url=plain.url)
        f.destination("tls", "parca", url=tls.url, ca="@" + a.ca, bearer_token="abc", **{"headers/projectid": "p1"})
        f.destination("small", "parca", url=small.url)
        f.apply()
        f.send(2, 600, 60)
        all_delivered(f, ["plain", "tls"])
        f.wait("small", lambda rows: rows["small"]["delivered"] == f.sent())
        for p in (plain, tls, small):
            equal((p.problems, p.total()), ([], f.sent()), "problems, samples")
        check(small.requests > 2, f"{small.requests} requests of at most 4,000 bytes")
        equal(tls.metadata[0].get("authorization"), "Bearer abc", "metadata")
        equal(tls.metadata[0].get("projectid"), "p1", "metadata")
        labels, (profile,) = plain.series[0]
        equal((labels["__name__"], labels["service_name"][:8]), ("process_cpu", "service-"), "labels")
        equal(profile.types, [("samples", "count"), ("cpu", "nanoseconds")], "types")
        equal((profile.period_type, profile.period), (("cpu", "nanoseconds"), 10**9 // 99), "period")
        check({profile.leaf(s)[:9] for s in profile.samples} == {"function_"}, "leaves")
        t = f.test("tls")
        check(t["ok"] and not t["steps"][-1]["detail"], t)
    for p in (plain, tls, small):
        p.stop()


NGINX = """
daemon off; error_log {folder}/error.log; pid {folder}/pid; worker_processes 1;
events {{}}
http {{
  access_log off; client_max_body_size 10m;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port} ssl http2; ssl_certificate {cert}; ssl_certificate_key {key};
    location / {{ auth_basic "profiles"; auth_basic_user_file {folder}/users; proxy_pass {backend}; }}
    location /token {{ if ($http_authorization != "Bearer tok-en") {{ return 403; }}
      rewrite ^ /v1development/profiles break; proxy_pass {backend}; }}
    location /page {{ default_type text/html; return 200 "<p>sign in"; }}
    location /here {{ return 308 /token; }}
  }}
  server {{ listen 127.0.0.1:{plain}; return 301 https://127.0.0.1:{port}$request_uri; }}
}}
"""


@case("nginx: basic and bearer, HTTP/2, redirects of its own; a wrong password or path loses nothing")
def nginx():
    program = next((p for p in ("/usr/sbin/nginx", "/usr/bin/nginx") if os.path.exists(p)), None)
    if not program:
        raise CannotRun("there is no nginx here")
    a, folder, backend = Authority(temp_folder()), temp_folder(), Hostile("ok")
    os.chmod(folder, 0o777)
    cert, key = a.leaf("proxy")
    port, plain = free_port(), free_port()
    with open(os.path.join(folder, "users"), "w") as users:
        users.write("user:{PLAIN}pass word\n")
    with open(os.path.join(folder, "nginx.conf"), "w") as config:
        config.write(NGINX.format(folder=folder, port=port, plain=plain, cert=cert, key=key, backend=backend.url))
    with open(os.path.join(folder, "password"), "w") as password:
        password.write("pass word\n")
    spawn([program, "-p", folder, "-c", os.path.join(folder, "nginx.conf")], stderr=subprocess.DEVNULL)
    wait_for("nginx", lambda: os.path.exists(os.path.join(folder, "pid")))
    url, ca = f"https://127.0.0.1:{port}", "@" + a.ca
    good = {
        "basic": {"url": url, "basic_user": "user", "basic_password": "@" + os.path.join(folder, "password")},
        "bearer": {"url": url + "/token", "bearer_token": "tok-en"},
        "moved": {"url": url + "/here", "bearer_token": "tok-en"},
        "safer": {"url": f"http://127.0.0.1:{plain}/token", "bearer_token": "tok-en"},
    }
    wrong = {
        "nobody": ({"url": url}, "answered 401"),
        "password": ({"url": url, "basic_user": "user", "basic_password": "other"}, "answered 401"),
        "token": ({"url": url + "/token", "bearer_token": "another"}, "answered 403"),
        "page": ({"url": url + "/page"}, "a web page"),
    }
    with Feeder() as f:
        for name, options in [*good.items(), *((n, o) for n, (o, _) in wrong.items())]:
            f.destination(name, "otlphttp", ca=ca, **options)
        f.apply()
        f.send()
        for name in good:
            f.wait(f"{name}: all", lambda rows: rows[name]["delivered"] == f.sent())
        for name, (_, words) in wrong.items():
            d = f.wait(f"{name}: an answer", lambda rows: rows[name] if rows[name]["error"] else None)
            check(d["held"] == f.sent() and words in d["error"], f"{name}: {d}")
            check("pass" not in d["error"].replace("password", "") and "another" not in d["error"], d["error"])
        t = f.test("basic")
        check(t["ok"] and "HTTP/2" in t["steps"][3]["detail"], t)
        t = f.test("nobody")
        equal((t["steps"][-1]["name"], t["steps"][-1]["ok"]), ("auth", False), t)
        equal(backend.total(), len(good) * f.sent(), "what arrived behind it")
        for name, options in wrong.items():
            f.destination(name, "otlphttp", ca=ca, **good["basic"])
        f.apply()
        for name in wrong:
            f.wait(f"{name}: all", lambda rows: rows[name]["delivered"] == f.sent())


class Proxy:
    """An HTTP proxy that knows CONNECT and whole URLs, and wants a name and a password if told."""

    def __init__(self, authorization=None):
        self.socket, self.authorization, self.asked = socket.create_server(("127.0.0.1", 0)), authorization, []
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            threading.Thread(target=self.serve, args=(self.socket.accept()[0],), daemon=True).start()

    def serve(self, peer):
        try:
            self.forward(peer)
        except OSError:
            pass
        peer.close()

    def forward(self, peer):
        head = b""
        while b"\r\n\r\n" not in head:
            more = peer.recv(65536)
            if not more:
                return
            head += more
        first = head.split(b"\r\n")[0].decode().split()
        self.asked.append(" ".join(first[:2]))
        if self.authorization and f"proxy-authorization: basic {self.authorization}".lower() not in head.decode().lower():
            peer.sendall(b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n")
            return
        target = first[1] if first[0] == "CONNECT" else first[1].split("/")[2]
        other = socket.create_connection((target.split(":")[0], int(target.split(":")[1])))
        if first[0] == "CONNECT":
            peer.sendall(b"HTTP/1.1 200 Here\r\n\r\n")
        else:
            other.sendall(head)
        threading.Thread(target=self.copy, args=(other, peer), daemon=True).start()
        self.copy(peer, other)

    def copy(self, a, b):
        try:
            while True:
                data = a.recv(65536)
                if not data:
                    return b.shutdown(socket.SHUT_WR)
                b.sendall(data)
        except OSError:
            pass


@case("through a proxy: plain, TLS and gRPC by CONNECT, with a password; not where no-proxy says so")
def proxies():
    a = Authority(temp_folder())
    plain, tls, p = Hostile("ok"), Hostile("ok", a.leaf("backend")), Parca(a.leaf("parca"))
    open_, locked, closed = Proxy(), Proxy("dXNlcjpzZWNyZXQ="), free_port()
    with Feeder() as f:
        through = {"proxy": f"http://127.0.0.1:{open_.port}"}
        lock = {"proxy": f"http://127.0.0.1:{locked.port}"}
        f.destination("plain", "otlphttp", url=plain.url, **through)
        f.destination("tls", "otlphttp", url=tls.url, ca="@" + a.ca, **through)
        f.destination("grpc", "parca", url=p.url, ca="@" + a.ca, **through)
        f.destination("known", "otlphttp", url=tls.url, ca="@" + a.ca, proxy_user="user", proxy_password="secret", **lock)
        f.destination("around", "otlphttp", url=plain.url, no_proxy="127.0.0.1", **lock)
        f.destination("unknown", "otlphttp", url=tls.url, ca="@" + a.ca, **lock)
        f.destination("gone", "otlphttp", url=tls.url, ca="@" + a.ca, proxy=f"http://127.0.0.1:{closed}")
        f.apply()
        f.send()
        all_delivered(f, ["plain", "tls", "grpc", "known", "around"])
        equal(sorted(open_.asked), sorted([f"POST {plain.url}/v1development/profiles",
              f"CONNECT 127.0.0.1:{tls.port}", f"CONNECT 127.0.0.1:{p.port}"]), "asked of the proxy")  # fmt: skip
        for name, words in [("unknown", "answered 407"), ("gone", f"no connection to the proxy 127.0.0.1:{closed}")]:
            d = f.wait(f"{name}: an answer", lambda rows: rows[name] if rows[name]["error"] else None)
            check(d["held"] == f.sent() and words in d["error"], f"{name}: {d}")
    p.stop()


@case("files: whole, in each form, read by Go's pprof and protobuf, the oldest removed")
def files():
    if not shutil.which("go"):
        raise CannotRun("there is no go here, whose pprof reads the files")
    folder = temp_folder()

    def there(name):
        return sorted(glob.glob(os.path.join(folder, name, "*")))

    with Feeder() as f:
        f.destination("pprof", "file", folder=folder, format="pprof")
        for packing in ("gzip", "zstd", "none"):
            f.destination(packing, "file", folder=folder, compression=packing, max_files=3)
        f.destination("bytes", "file", folder=folder, compression="none", max_bytes=10000)
        f.apply()
        f.send(5, 40)
        names = ["pprof", "gzip", "zstd", "none", "bytes"]
        all_delivered(f, names)
        each = f.sent() // 5
        equal([len(there(n)) for n in ("pprof", "gzip", "zstd", "none")], [5, 3, 3, 3], "files")
        check(0 < sum(map(os.path.getsize, there("bytes"))) <= 10000 and len(there("bytes")) < 5, there("bytes"))
        for path in there("pprof"):
            out = subprocess.run(["go", "tool", "pprof", "-raw", path], capture_output=True, text=True)
            equal(out.returncode, 0, out.stderr)
            rows_ = [line.split(":")[0].split() for line in out.stdout.split("Samples:")[1].splitlines() if ":" in line]
            equal(sum(int(r[0]) for r in rows_ if len(r) == 2 and r[0].isdigit()), each, path)
            check("service.name:[service-" in out.stdout, out.stdout[-600:])
        last = service.ExportProfilesServiceRequest.FromString(open(there("none")[-1], "rb").read())
        packed = service.ExportProfilesServiceRequest.FromString(gzip.open(there("gzip")[-1]).read())
        for m in (last, packed):
            equal(sum(sum(s.values) for s in m.resource_profiles[0].scope_profiles[0].profiles[0].samples), each, "sum")
        check(open(there("zstd")[0], "rb").read(4) == b"\x28\xb5\x2f\xfd", "zstd's magic number")
        check(not [n for n in names for e in os.listdir(os.path.join(folder, n)) if e.startswith(".")], "leftovers")
        # Somebody else's files stay; one that is a link to elsewhere is not followed.
        theirs = os.path.join(folder, "none", "notes.txt")
        open(theirs, "w").close()
        f.send(4, 10)
        all_delivered(f, names)
        check(os.path.exists(theirs), "a file that is not ours")
        equal(len(there("none")), 4, there("none"))
        t = f.test("pprof")
        check(t["ok"] and len(there("pprof")) == 9, t)
    other = temp_folder()
    os.symlink(other, os.path.join(folder, "linked"))
    with Feeder() as f:
        f.destination("linked", "file", folder=folder)
        f.apply()
        f.send()
        d = f.wait("an answer", lambda rows: rows["linked"] if rows["linked"]["error"] else None)
        check(d["held"] == f.sent() and not os.listdir(other), d)


@case("the log: a few lines a batch, no more than asked for")
def log():
    with Feeder() as f:
        f.destination("d", "debug", max_lines=2)
        f.apply()
        f.send(3, 10)
        all_delivered(f, ["d"])
        lines = [line for line in f.log().splitlines() if "destination d:" in line]
        equal(len(lines), 6, lines)
        check("service-1, cpu, 19 in 1 s: function_" in "".join(lines), lines)


if __name__ == "__main__":
    main()
