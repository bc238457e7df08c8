#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The receiver and the checker themselves: each rule is broken once, to see that it is held."""

import gzip
import http.client
import json
import os
import sys

sys.path[:0] = [os.path.dirname(__file__), os.path.join(os.path.dirname(__file__), "../lib")]
from cases import case, check, equal, main  # noqa: E402
import check_otlp  # noqa: E402
from fixture import NOW, good, profile  # noqa: E402
from otlp_receiver import PATH, OtlpReceiver  # noqa: E402
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service  # noqa: E402

def broken(name, change, words, pyroscope=False):
    @case(f"rule: {name}")
    def run():
        m = good()
        change(m)
        problems = check_otlp.check(m, pyroscope=pyroscope, now=NOW)
        check(any(words in p for p in problems), f"{words!r} is not in {problems}")


@case("a request that keeps every rule passes")
def passes():
    equal(check_otlp.check(good(), pyroscope=True, now=NOW), [], "problems")


def mapping_in_front(m):
    m.dictionary.mapping_table[0].memory_start = 5


def drop_table(name):
    def change(m):
        del getattr(m.dictionary, name)[:]

    return change


broken("zero entry of strings", lambda m: m.dictionary.string_table.__setitem__(0, "x"), "string 0 is")
broken("zero entry of mappings", mapping_in_front, "mapping 0 is not the zero entry")
broken("an empty link is there", drop_table("link_table"), "link table is empty")
broken("attributes are there", drop_table("attribute_table"), "attribute table is empty")
broken("orphan string", lambda m: m.dictionary.string_table.append("lonely"), "string table: 1 orphans")
broken("orphan stack", lambda m: m.dictionary.stack_table.add(location_indices=[1]), "stack table: 1 orphans")
broken("orphan link", lambda m: m.dictionary.link_table.add(trace_id=b"1" * 16, span_id=b"2" * 8), "link table: 1 orphans")
broken("duplicate string", lambda m: m.dictionary.string_table.append("main"), "is there 2 times")
broken("duplicate stack", lambda m: m.dictionary.stack_table.add(location_indices=[2, 1]), "stack table: entry 1 is there 2")
broken("duplicate function", lambda m: m.dictionary.function_table.append(m.dictionary.function_table[1]), "function table")
broken("stack out of range", lambda m: setattr(profile(m).samples[0], "stack_index", 9), "stack 9 of 3")
broken("negative index", lambda m: setattr(profile(m).samples[0], "stack_index", -1), "stack -1 of 3")
broken("location out of range", lambda m: m.dictionary.stack_table[1].location_indices.append(77), "location 77 of 4")
broken("no stack", lambda m: setattr(profile(m).samples[0], "stack_index", 0), "no stack")
broken("empty stack", lambda m: m.dictionary.stack_table[1].ClearField("location_indices"), "stack 1 is empty")
broken("location without a line", lambda m: m.dictionary.location_table[1].ClearField("lines"), "has no line")
broken("function without a name", lambda m: setattr(m.dictionary.function_table[1], "name_strindex", 0), "has no name")
broken("mangled name", lambda m: m.dictionary.string_table.__setitem__(
    list(m.dictionary.string_table).index("work"), "_ZN3geo6Circle4areaEm"), "not demangled")  # fmt: skip
broken("address outside of its mapping", lambda m: setattr(m.dictionary.location_table[1], "address", 0x9999), "outside of")
broken("frame type", lambda m: m.dictionary.location_table[1].ClearField("attribute_indices"), "profile.frame.type")
broken("key_strindex", lambda m: setattr(m.resource_profiles[0].resource.attributes[0], "key_strindex", 1), "key_strindex")
broken("string_value_strindex", lambda m: setattr(
    m.resource_profiles[0].resource.attributes[0].value, "string_value_strindex", 1), "string_value_strindex")  # fmt: skip
broken("service.name", lambda m: m.resource_profiles[0].resource.ClearField("attributes"), "service.name is None")
broken("service_name", lambda m: setattr(m.resource_profiles[0].resource.attributes.add(key="service_name").value,
                                         "string_value", "x"), "named service_name")  # fmt: skip
broken("resource is set", lambda m: m.resource_profiles[0].ClearField("resource"), "resource is not set")
broken("scope has a name", lambda m: m.resource_profiles[0].scope_profiles[0].ClearField("scope"), "scope without a name")
broken("sample type", lambda m: profile(m).ClearField("sample_type"), "sample_type or period_type is not set")
broken("period type", lambda m: profile(m).ClearField("period_type"), "sample_type or period_type is not set")
broken("period", lambda m: setattr(profile(m), "period", 0), "period 0")
broken("profile id", lambda m: setattr(profile(m), "profile_id", b""), "profile_id")
broken("time", lambda m: setattr(profile(m), "time_unix_nano", 0), "no time")
broken("values and timestamps", lambda m: profile(m).samples[1].values.append(2), "1 values and 2 timestamps")
broken("two values", lambda m: profile(m).samples[0].values.append(2), "2 values")
broken("value 0", lambda m: profile(m).samples[0].values.__setitem__(0, 0), "value 0")
broken("timestamp before", lambda m: profile(m).samples[1].timestamps_unix_nano.append(5), "outside of the interval")
broken("timestamp after", lambda m: profile(m).samples[1].timestamps_unix_nano.append((NOW + 11) * 10**9), "outside of")
broken("the same sample twice", lambda m: profile(m).samples.add(stack_index=1, values=[1]), "twice")
broken("a field of another numbering", lambda m: m.MergeFromString(b"\x9a\x06\x01x"), "unknown field 99")
broken("age for Pyroscope", lambda m: setattr(profile(m), "time_unix_nano", (NOW - 4000) * 10**9), "s old", True)


@case("what a request says is read as it is")
def reading():
    p = check_otlp.Profiles([good(), good()])
    equal(p.total("web"), 124, "total")
    equal(p.sums(), {("web", "samples/count"): 124}, "sums")
    equal(dict(p.flat("web")), {"work": 124}, "flat, user space")
    equal(dict(p.flat("web", user=False)), {"work": 120, "vfs_read": 4}, "flat")
    equal(p.cumulative("web")["main"], 124, "cumulative")
    equal(dict(p.chains("web")), {("work", "main"): 124}, "chains")
    equal(p.services(), ["web"], "services")


@case("names without parameters, templates and hashes")
def names():
    for name, base in [
        ("main", "main"),
        ("geo::Circle::area(unsigned long)", "geo::Circle::area"),
        ("unsigned long geo::spin<unsigned long, 3>(unsigned long)", "geo::spin"),
        ("geo::(anonymous namespace)::hidden(unsigned long)", "geo::(anonymous namespace)::hidden"),
        ("geo::Grid<int>::Cell::fill(unsigned long)", "geo::Grid::Cell::fill"),
        ("geo::Shape::measure(unsigned long) const", "geo::Shape::measure"),
        ("<shares_rust::Square as shares_rust::Shape>::area", "<shares_rust::Square as shares_rust::Shape>::area"),
        ("<a::B as a::C>::area::h0123456789abcdef", "<a::B as a::C>::area"),
        ("shares_rust::generic::<u64>", "shares_rust::generic"),
        ("shares_rust::engine::heavy::h0123456789abcdef", "shares_rust::engine::heavy"),
        ("main.(*engine).drive", "main.(*engine).drive"),
        ("main.generic[go.shape.uint64]", "main.generic"),
        ("main.generic[...]", "main.generic"),
        ("main.square.area", "main.square.area"),
        ("libfoo.so+0x1234", "libfoo.so+0x1234"),
    ]:
        equal(check_otlp.base_name(name), base, name)


def post(receiver, body, headers=None, path=PATH):
    c = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=10)
    c.request("POST", path, body, headers if headers is not None else {"Content-Type": "application/x-protobuf"})
    r = c.getresponse()
    answer = r.status, r.read(), r.headers
    c.close()
    return answer


@case("the receiver takes identity and gzip, and turns the rest away as Pyroscope does")
def receiver_takes():
    kind = {"Content-Type": "application/x-protobuf"}
    body = good().SerializeToString()
    with OtlpReceiver() as r:
        equal(post(r, body)[0], 200, "identity")
        equal(post(r, gzip.compress(body), {**kind, "Content-Encoding": "gzip"})[0], 200, "gzip")
        equal(len(r.messages), 2, "messages")
        equal(r.messages[0], r.messages[1], "both")
        equal(post(r, body, {"Content-Type": "application/x-protobuf;charset=utf-8"})[0], 415, "charset")
        equal(post(r, body, {**kind, "Content-Encoding": "zstd"})[0], 400, "zstd")
        equal(post(r, b"no gzip", {**kind, "Content-Encoding": "gzip"})[0], 400, "bad gzip")
        equal(post(r, b"\xff\xff\xff")[0], 500, "malformed")
        equal(post(r, body, path="/v1/profiles")[0], 404, "path")
        equal(len(r.messages), 2, "messages")
        equal(len(r.all_requests()), 7, "requests")


@case("the receiver fails as it is told")
def receiver_fails():
    body = good().SerializeToString()
    with OtlpReceiver() as r:
        r.behave(status=429, retry_after=7, times=1)
        status, _, headers = post(r, body)
        equal((status, headers["Retry-After"]), (429, "7"), "status and header")
        equal(post(r, body)[0], 200, "after one time")
        r.behave(partial=3, partial_message="too old")
        response = service.ExportProfilesServiceResponse()
        response.ParseFromString(post(r, body)[1])
        equal((response.partial_success.rejected_profiles, response.partial_success.error_message), (3, "too old"), "partial")
        r.behave(refuse=True)
        try:
            post(r, body)
        except (ConnectionError, http.client.HTTPException):
            pass
        else:
            raise AssertionError("the connection was not reset")
        r.behave(authorization="Bearer x")
        equal(post(r, body)[0], 401, "authorization")
        equal(post(r, json.dumps({"status": 503}).encode(), {}, "/_admin/behaviour")[0], 200, "admin")
        equal(post(r, body)[0], 503, "told by HTTP")


if __name__ == "__main__":
    main()
