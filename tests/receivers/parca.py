# SPDX-License-Identifier: Apache-2.0
"""Parca's WriteRaw as a gRPC server (grpcio), with the checks that Parca itself makes of what it is sent.

The messages are read by a few lines of protobuf's wire format, from the numbers in Parca's and pprof's .proto files, so
that nothing of odi's own reading is believed. The checks are those of Parca's pkg/normalizer: names of labels, __name__,
ids that go up, indices within their tables.
"""

import gzip
import re
import threading
from concurrent import futures

import grpc

METHOD = "/parca.profilestore.v1alpha1.ProfileStoreService/WriteRaw"


def fields(data):
    """(number, value) pairs: bytes for what has a length, else an integer."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        elif key & 7 == 2:
            n = varint()
            if at + n > len(data):
                raise ValueError("a field that is longer than its message")
            yield key >> 3, data[at : at + n]
            at += n
        else:
            raise ValueError(f"wire type {key & 7}")


def many(data, number):
    return [v for n, v in fields(data) if n == number]


def one(data, number, default=0):
    found = many(data, number)
    return found[-1] if found else default


def packed(data, number):
    """A repeated integer, packed or not."""
    out = []
    for v in many(data, number):
        if isinstance(v, int):
            out.append(v)
        else:
            out += [n for _, n in fields(b"".join(b"\x08" + part for part in split_varints(v)))]
    return out


def split_varints(data):
    part = b""
    for byte in data:
        part += bytes([byte])
        if byte < 0x80:
            yield part
            part = b""


class Pprof:
    """A profile, with every index checked. Problems raise ValueError."""

    def __init__(self, data):
        self.strings = [s.decode() for s in many(data, 6)]
        if not self.strings or self.strings[0]:
            raise ValueError("the first string is not empty")
        self.types = [(self.text(one(t, 1)), self.text(one(t, 2))) for t in many(data, 1)]
        self.functions = self.table(data, 5)
        self.locations = self.table(data, 4)
        self.mappings = self.table(data, 3)
        self.period, self.time, self.duration = one(data, 12), one(data, 9), one(data, 10)
        period_type = one(data, 11, b"")
        self.period_type = (self.text(one(period_type, 1)), self.text(one(period_type, 2)))
        for m in self.mappings:
            self.text(one(m, 5))
            self.text(one(m, 6))
        for f in self.functions:
            for number in (2, 3, 4):
                self.text(one(f, number))
        for l in self.locations:
            self.within(one(l, 2), len(self.mappings) + 1, "a location's mapping")
            for line in many(l, 4):
                self.within(one(line, 1), len(self.functions) + 1, "a line's function")
        self.samples = []
        for s in many(data, 2):
            ids, values = packed(s, 1), packed(s, 2)
            if len(values) != len(self.types):
                raise ValueError(f"{len(values)} values of {len(self.types)} types")
            for i in ids:
                self.within(i - 1, len(self.locations), "a sample's location")
            self.samples.append((ids, values))

    def within(self, index, length, what):
        if not 0 <= index < length:
            raise ValueError(f"{what}: {index} of {length}")

    def text(self, index):
        self.within(index, len(self.strings), "a string")
        return self.strings[index]

    def table(self, data, number):
        entries = many(data, number)
        for i, e in enumerate(entries):
            if one(e, 1) != i + 1:
                raise ValueError(f"id {one(e, 1)} at place {i + 1} of table {number}")
        return entries

    def leaf(self, sample):
        line = one(self.locations[sample[0][0] - 1], 4, b"")
        return self.text(one(self.functions[one(line, 1) - 1], 2))


class Parca:
    """`series`: {(labels...): Pprof list}; `problems`: what Parca would have refused."""

    def __init__(self, credentials=None, max_bytes=4 << 20):
        self.lock, self.requests, self.series, self.problems, self.metadata = threading.Lock(), 0, [], [], []
        self.server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", max_bytes)])
        handler = grpc.unary_unary_rpc_method_handler(self.write_raw)
        service, method = METHOD[1:].split("/")
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        if credentials:
            with open(credentials[1], "rb") as key, open(credentials[0], "rb") as cert:
                pair = grpc.ssl_server_credentials([(key.read(), cert.read())])
            self.port = self.server.add_secure_port("127.0.0.1:0", pair)
        else:
            self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.url = f"{'https' if credentials else 'http'}://127.0.0.1:{self.port}"
        self.server.start()

    def stop(self):
        self.server.stop(0)

    def write_raw(self, request, context):
        try:
            found = [self.read_series(s) for s in many(request, 2)]
        except (ValueError, IndexError, OSError, UnicodeDecodeError) as e:
            with self.lock:
                self.problems.append(str(e))
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(e))
        with self.lock:
            self.requests += 1
            self.metadata.append(dict(context.invocation_metadata()))
            self.series += found
            if one(request, 3) != 1:
                self.problems.append("addresses are not said to be normalized")
        return b""

    def read_series(self, data):
        labels = {}
        for label in many(one(data, 1, b""), 1):
            name, value = one(label, 1, b"").decode(), one(label, 2, b"").decode()
            if not re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", name) or name in labels:
                raise ValueError(f"a label's name: {name!r}")
            labels[name] = value
        if not labels.get("__name__"):
            raise ValueError("no __name__")
        return labels, [Pprof(gzip.decompress(one(sample, 1, b""))) for sample in many(data, 2)]

    def total(self):
        with self.lock:
            return sum(s[1][0] for _, profiles in self.series for p in profiles for s in p.samples)
