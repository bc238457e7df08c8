#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A receiver of OTLP profiles over HTTP that keeps every request and can be told to fail.

It answers as Pyroscope does where that matters: POST /v1development/profiles only, Content-Type exactly
application/x-protobuf (else 415), gzip or identity (else 400), 500 for what cannot be decoded.

By hand:   otlp_receiver.py --port 4040 --store DIR [--status 503] [--delay 2] [--partial 5]
While it runs:  POST /_admin/behaviour {"status": 503, "retry_after": 3, "delay": 0.5, "refuse": true, ...}
                GET /_admin/requests, POST /_admin/reset
In a test:  with OtlpReceiver() as r: ... r.url, r.requests, r.behave(status=503)
"""

import argparse
import gzip
import json
import os
import socket
import struct
import sys
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

PATH = "/v1development/profiles"
MAX_BODY = 64 << 20

# Everything that can be asked of the receiver, with what it does when nobody asks.
DEFAULTS = {
    "status": 200,  # answer this
    "retry_after": None,  # with this Retry-After header
    "delay": 0.0,  # after this many seconds
    "refuse": False,  # reset the connection before anything is read
    "hang": False,  # never answer (until the receiver is closed)
    "drop": False,  # take and keep the request, then reset the connection instead of an answer
    "partial": 0,  # answer 200 with this many rejected profiles ...
    "partial_message": "",  # ... and this message
    "garbage": False,  # answer 200 with a body that is no protobuf
    "authorization": None,  # answer 401 unless the Authorization header is this
    "times": None,  # go back to the defaults after this many requests
}


class Request:
    """One request that was taken (answered with 200), or turned away (`status` says how)."""

    def __init__(self, headers, body, message, status, peer):
        self.headers = headers
        self.body = body
        self.message = message
        self.status = status
        self.peer = peer
        self.time = time.time()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def setup(self):
        super().setup()
        self.server.connections += 1

    def reset(self):
        """Ends the connection with a reset, as a machine that went away does."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def answer(self, status, body=b"", kind="text/plain", extra=()):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in extra:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/_admin/requests":
            rows = [
                {"status": r.status, "bytes": len(r.body), "time": r.time, "headers": r.headers}
                for r in self.server.owner.all_requests()
            ]
            return self.answer(200, json.dumps(rows).encode(), "application/json")
        return self.answer(404, b"404 page not found\n")

    def read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while True:
                size = int(self.rfile.readline().split(b";")[0], 16)
                if size == 0:
                    self.rfile.readline()
                    return b"".join(parts)
                parts.append(self.rfile.read(size))
                self.rfile.readline()
        return self.rfile.read(min(int(self.headers.get("Content-Length", 0)), MAX_BODY))

    def do_POST(self):
        owner = self.server.owner
        if self.path.startswith("/_admin/"):
            return self.admin(self.path[len("/_admin/") :], self.read_body())
        behaviour = owner.next_behaviour()
        if behaviour["refuse"]:
            return self.reset()
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        body = self.read_body()
        if behaviour["hang"]:
            owner.closing.wait()
            return self.reset()
        if behaviour["delay"]:
            owner.closing.wait(behaviour["delay"])
        status, text, message = self.judge(behaviour, body)
        owner.keep(Request(dict(self.headers), body, message, status, self.client_address))
        if behaviour["drop"]:
            return self.reset()
        extra = [("Retry-After", str(behaviour["retry_after"]))] if behaviour["retry_after"] is not None else []
        if status != 200:
            return self.answer(status, text.encode(), extra=extra)
        response = service.ExportProfilesServiceResponse()
        if behaviour["partial"] or behaviour["partial_message"]:
            response.partial_success.rejected_profiles = behaviour["partial"]
            response.partial_success.error_message = behaviour["partial_message"]
        payload = b"\xff\xff\xff\xff" if behaviour["garbage"] else response.SerializeToString()
        return self.answer(200, payload, "application/x-protobuf", extra)

    def judge(self, behaviour, body):
        """Status, text and decoded message for a request."""
        if self.path != PATH:
            return 404, "404 page not found\n", None
        if behaviour["authorization"] is not None and self.headers.get("Authorization") != behaviour["authorization"]:
            return 401, "no credentials or the wrong ones\n", None
        if self.headers.get("Content-Type") != "application/x-protobuf":
            return 415, "unsupported content type\n", None
        if behaviour["status"] != 200:
            return behaviour["status"], "told to fail\n", None
        encoding = self.headers.get("Content-Encoding", "identity")
        try:
            if encoding == "gzip":
                body = gzip.decompress(body)
            elif encoding != "identity":
                return 400, f"unsupported encoding {encoding}\n", None
        except (OSError, EOFError, zlib.error) as e:
            return 400, f"{e}\n", None
        message = service.ExportProfilesServiceRequest()
        try:
            message.ParseFromString(body)
        except Exception as e:  # protobuf's own exception class moved between versions
            return 500, f"{e}\n", None
        return 200, "", message

    def admin(self, verb, body):
        owner = self.server.owner
        if verb == "behaviour":
            try:
                owner.behave(**json.loads(body or b"{}"))
            except (ValueError, TypeError) as e:
                return self.answer(400, f"{e}\n".encode())
        elif verb == "reset":
            owner.reset()
        else:
            return self.answer(404)
        return self.answer(200, b"ok\n")


class OtlpReceiver:
    def __init__(self, port=0, host="127.0.0.1", store=None):
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.kept = []
        self.store = store
        self.behaviour = dict(DEFAULTS)
        self.server = ThreadingHTTPServer((host, port), Handler, bind_and_activate=False)
        self.server.allow_reuse_address = True
        self.server.daemon_threads = True
        self.server.request_queue_size = 128
        self.server.owner = self
        self.server.connections = 0
        self.server.handle_error = lambda *a: None  # a peer that was killed is no error of ours
        self.server.server_bind()
        self.server.server_activate()
        self.port = self.server.server_address[1]
        self.url = f"http://{host}:{self.port}"
        if store:
            os.makedirs(store, exist_ok=True)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def connections(self):
        return self.server.connections

    def behave(self, **changes):
        """Sets what is named; everything else goes back to its default."""
        unknown = set(changes) - set(DEFAULTS)
        if unknown:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        with self.lock:
            self.behaviour = {**DEFAULTS, **changes}

    def next_behaviour(self):
        with self.lock:
            now = self.behaviour
            if now["times"] is not None:
                left = now["times"] - 1
                self.behaviour = {**now, "times": left} if left > 0 else dict(DEFAULTS)
            return now

    def keep(self, request):
        with self.lock:
            self.kept.append(request)
            if self.store:
                name = os.path.join(self.store, f"{len(self.kept):06d}")
                if request.message is not None:
                    with open(name + ".pb", "wb") as f:
                        f.write(request.message.SerializeToString())
                with open(name + ".json", "w") as f:
                    json.dump({"status": request.status, "headers": request.headers, "time": request.time}, f)

    def reset(self):
        with self.lock:
            self.kept.clear()

    def all_requests(self):
        with self.lock:
            return list(self.kept)

    @property
    def requests(self):
        """Those that were decoded and taken."""
        return [r for r in self.all_requests() if r.status == 200]

    @property
    def messages(self):
        return [r.message for r in self.requests]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--port", type=int, default=0)
    p.add_argument("--store", required=True, help="folder for what arrives")
    p.add_argument("--status", type=int, default=200)
    p.add_argument("--delay", type=float, default=0.0)
    p.add_argument("--partial", type=int, default=0)
    a = p.parse_args()
    with OtlpReceiver(port=a.port, store=a.store) as receiver:
        receiver.behave(status=a.status, delay=a.delay, partial=a.partial)
        print(receiver.url, flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0


if __name__ == "__main__":
    sys.exit(main())
