# SPDX-License-Identifier: Apache-2.0
"""A receiver that does what receivers must not: refuses, hangs in each phase, drips, lies, never ends.

Hostile(behaviour) listens on a port of its own, a thread a connection. `behaviour` may be changed at any time: a
number is a status to answer with, a word one of the functions below, "ok" takes what comes. What was taken is decoded
by opentelemetry-proto and summed by service.
"""

import gzip
import socket
import ssl
import struct
import threading
import time
import zlib

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

TEXTS = {400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 413: "Too Large", 415: "Unsupported",
         429: "Too Many", 500: "Internal", 503: "Unavailable", 307: "Temporary Redirect"}  # fmt: skip


def bomb():
    """30 MB, gzipped."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return b"".join(packer.compress(bytes(1 << 20)) for _ in range(30)) + packer.flush()


BOMB = bomb()


def samples(message):
    """Samples by service of a request."""
    found = {}
    for r in message.resource_profiles:
        names = [a.value.string_value for a in r.resource.attributes if a.key == "service.name"]
        for scope in r.scope_profiles:
            for p in scope.profiles:
                n = sum(sum(s.values) or len(s.timestamps_unix_nano) for s in p.samples)
                found[names[0]] = found.get(names[0], 0) + n
    return found


class Hostile:
    def __init__(self, behaviour, tls=None, grpc=False):
        """tls: (certificate, key) or None."""
        self.behaviour, self.grpc = behaviour, grpc
        self.location, self.retry_after, self.rejected, self.max_body = "", None, 1, None
        self.lock, self.requests, self.taken, self.broken = threading.Lock(), [], {}, 0
        self.context = None
        if tls:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(*tls)
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        if behaviour != "refuse":
            self.listen()

    def listen(self):
        self.socket.listen(64)
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            while self.behaviour == "hang in accept":
                time.sleep(0.05)
            peer, _ = self.socket.accept()
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def total(self):
        with self.lock:
            return sum(self.taken.values())

    # -- one connection --

    def serve(self, peer):
        try:
            if self.behaviour == "hang in TLS":
                time.sleep(3600)
            if self.context:
                peer = self.context.wrap_socket(peer, server_side=True)
            if self.grpc:
                self.serve_grpc(peer)
            else:
                while self.one_request(peer):
                    pass
        except (OSError, EOFError, ValueError):
            pass
        finally:
            peer.close()

    def read(self, peer, n):
        data = b""
        while len(data) < n:
            more = peer.recv(min(65536, n - len(data)))
            if not more:
                raise EOFError
            data += more
        return data

    def one_request(self, peer):
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.read(peer, 1)
        lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:] if line)}
        if self.behaviour == "reset in request":
            return self.reset(peer)
        body = self.read(peer, int(headers.get("content-length", 0)))
        with self.lock:
            self.requests.append((time.monotonic(), lines[0].split()[1], headers, len(body)))
        return self.answer(peer, lines[0].split()[1], headers, body)

    def reset(self, peer):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    def take(self, data):
        try:
            found = samples(service.ExportProfilesServiceRequest.FromString(data))
        except DecodeError:
            with self.lock:
                self.broken += 1
            return
        with self.lock:
            for name, n in found.items():
                self.taken[name] = self.taken.get(name, 0) + n

    def say(self, peer, status, body=b"", kind="application/x-protobuf", *more):
        head = [f"HTTP/1.1 {status} {TEXTS.get(status, 'X')}", f"Content-Type: {kind}", f"Content-Length: {len(body)}",
                *more]  # fmt: skip
        peer.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        return True

    def answer(self, peer, path, headers, body):
        b = self.behaviour
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if b == "hang in head":
            time.sleep(3600)
        if b == "reset in answer":
            return self.reset(peer)
        if b == "drip":
            for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"y" * 1000:
                peer.sendall(bytes([byte]))
                time.sleep(1)
        if b == "redirect" and path != "/moved":
            more = [f"Location: {self.location}"] + ([f"Retry-After: {self.retry_after}"] if self.retry_after else [])
            return self.say(peer, 307, b"", "text/plain", *more)
        if b == "loop":
            return self.say(peer, 307, b"", "text/plain", f"Location: {self.url}/again")
        if b == 413 and self.max_body and len(body) <= self.max_body:
            b = "ok"
        if isinstance(b, int):
            more = [] if self.retry_after is None else [f"Retry-After: {self.retry_after}"]
            return self.say(peer, b, b"because of \x1b[31mthe test", "text/plain", *more)
        self.take(body)
        if b == "hang in body":
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
            time.sleep(3600)
        if b == "endless":
            peer.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            while True:
                peer.sendall(b"1000\r\n" + b"z" * 4096 + b"\r\n")
        if b == "bomb":
            return self.say(peer, 200, BOMB, "application/x-protobuf", "Content-Encoding: gzip")
        if b == "garbage":
            return self.say(peer, 200, b"\xff\xff\xff\xff")
        if b == "partial":
            m = service.ExportProfilesServiceResponse()
            m.partial_success.rejected_profiles = self.rejected
            m.partial_success.error_message = "too old"
            return self.say(peer, 200, m.SerializeToString())
        return self.say(peer, 200)

    # -- HTTP/2, as much as a unary call takes: headers of the client are passed over --

    def frame(self, kind, flags, stream, payload=b""):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    def headers(self, stream, pairs, flags):
        block = b""
        for name, value in pairs:  # literals without indexing
            block += b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        return self.frame(1, 4 | flags, stream, block)

    def serve_grpc(self, peer):
        self.read(peer, 24)  # the preface
        peer.sendall(self.frame(4, 0, 0))
        body = b""
        while True:
            head = self.read(peer, 9)
            length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
            stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
            payload = self.read(peer, length)
            if kind == 4 and not flags & 1:
                peer.sendall(self.frame(4, 1, 0))
            if kind == 0:
                body += payload
                if length:
                    peer.sendall(b"".join(self.frame(8, 0, s, struct.pack(">I", length)) for s in (0, stream)))
            if kind in (0, 1) and flags & 1:
                with self.lock:
                    self.requests.append((time.monotonic(), "", {}, len(body)))
                self.answer_grpc(peer, stream, body)
                body = b""

    def answer_grpc(self, peer, stream, body):
        start = [(":status", "200"), ("content-type", "application/grpc")]
        message = self.frame(0, 0, stream, bytes(5))
        if self.behaviour == "trailers only":
            peer.sendall(self.headers(stream, [*start, ("grpc-status", "14"), ("grpc-message", "not%20yet")], 1))
        elif self.behaviour == "no trailers":
            peer.sendall(self.headers(stream, start, 0) + self.frame(0, 1, stream, bytes(5)))
        elif self.behaviour == "cut off":
            peer.sendall(self.headers(stream, start, 0) + message)
            peer.close()
        elif self.behaviour == "unimplemented":
            peer.sendall(self.headers(stream, [*start, ("grpc-status", "12"), ("grpc-message", "unknown service")], 1))
        else:
            self.take(gzip.decompress(body[5:]) if body[0] else body[5:])
            peer.sendall(self.headers(stream, start, 0) + message + self.headers(stream, [("grpc-status", "0")], 1))
