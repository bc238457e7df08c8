#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A receiver of OTLP profiles with nothing but Python's own library: receiver.py PORT FOLDER

Each body that it takes lies in the folder, unpacked, as TIME-NUMBER.pb, before the sender is answered. What is in
them is judged outside of the guest, by tests/vm/judge_system.py.
"""

import gzip
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, FOLDER = int(sys.argv[1]), sys.argv[2]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    count = 0

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = 200
        if self.path != "/v1development/profiles":
            status = 404
        elif self.headers["Content-Type"] != "application/x-protobuf":
            status = 415
        else:
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            Handler.count += 1
            name = os.path.join(FOLDER, "%.3f-%04d.pb" % (time.time(), Handler.count))
            with open(name + ".new", "wb") as f:
                f.write(body)
                f.flush()
                os.fsync(f.fileno())
            os.rename(name + ".new", name)
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()


os.makedirs(FOLDER, exist_ok=True)
ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
