#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks OTLP profile requests against every rule that Pyroscope, the collector and Parca hold, and reads them.

    check_otlp.py [--pyroscope] FILE.pb|DIR ...      exit status 1 where a rule is broken

check(message) answers a list of sentences, one a broken rule. Profiles(messages) is what tests ask: sums, shares,
call chains by service.
"""

import argparse
import collections
import os
import re
import sys
import time

from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

TABLES = ("mapping", "location", "function", "link", "string", "attribute", "stack")
FRAME_TYPES = {"native", "kernel", "jvm", "cpython", "v8js", "php", "ruby", "perl", "dotnet", "beam", "go", "luajit",
               "unknown"}  # fmt: skip
PYROSCOPE_SAMPLES = 16000
PYROSCOPE_BYTES = 2 << 20
PYROSCOPE_LABELS = 30


class Checker:
    """All rules for one request. Each table entry that something points to is marked as used."""

    def __init__(self, message, pyroscope=False, now=None):
        self.message = message
        self.pyroscope = pyroscope
        self.now = now if now is not None else time.time()
        self.d = message.dictionary
        self.used = {t: {0} for t in TABLES}
        self.problems = []

    def fail(self, text):
        self.problems.append(text)

    def table(self, name):
        return getattr(self.d, name + "_table")

    def use(self, table, index, what):
        """Marks an entry as used; False (and a problem) where it lies outside of its table."""
        if 0 <= index < len(self.table(table)):
            self.used[table].add(index)
            return True
        self.fail(f"{what}: {table} {index} of {len(self.table(table))}")
        return False

    def text(self, index, what):
        return self.d.string_table[index] if self.use("string", index, what) else ""

    def run(self):
        if not self.message.HasField("dictionary"):
            self.fail("no dictionary")
        self.unknown_fields(self.message, "request")
        self.zero_entries()
        self.duplicates()
        if not self.message.resource_profiles:
            self.fail("no resource profiles")
        for r, resource in enumerate(self.message.resource_profiles):
            self.resource(resource, f"resource {r}")
        self.closure()
        for t in TABLES:
            orphans = sorted(set(range(len(self.table(t)))) - self.used[t])
            if orphans:
                self.fail(f"{t} table: {len(orphans)} orphans, the first is {orphans[0]}")
        if self.pyroscope and len(self.message.SerializeToString()) > PYROSCOPE_BYTES:
            self.fail("request over 2 MB: Pyroscope answers 429 for ever")
        return self.problems

    def unknown_fields(self, message, where):
        """A field that the published classes do not know is a mix of two numberings."""
        for field in UnknownFieldSet(message):
            self.fail(f"{where}: unknown field {field.field_number}")
        for descriptor, value in message.ListFields():
            if descriptor.message_type is None:
                continue
            many = value if hasattr(value, "__len__") and not hasattr(value, "DESCRIPTOR") else [value]
            for item in many:
                self.unknown_fields(item, f"{where}.{descriptor.name}")

    def zero_entries(self):
        for t in TABLES:
            entries = self.table(t)
            if not entries:
                self.fail(f"{t} table is empty: no zero entry")
            elif t == "string":
                if entries[0] != "":
                    self.fail(f"string 0 is {entries[0]!r}")
            elif entries[0].ByteSize():
                self.fail(f"{t} 0 is not the zero entry: {str(entries[0]).split()}")

    def duplicates(self):
        for t in TABLES:
            keys = [e if t == "string" else e.SerializeToString(deterministic=True) for e in self.table(t)]
            for key, n in collections.Counter(keys).items():
                if n > 1:
                    self.fail(f"{t} table: entry {keys.index(key)} is there {n} times")

    def key_values(self, attributes, what):
        """Attributes of a resource or scope: inline keys and strings, each key once."""
        keys = collections.Counter(a.key for a in attributes)
        for a in attributes:
            if a.key_strindex:
                self.fail(f"{what}: key_strindex is used")
            self.value(a.value, f"{what} {a.key}")
            if not a.key:
                self.fail(f"{what}: an attribute without a key")
            if a.key == "service_name":
                self.fail(f"{what}: an attribute named service_name")
            if keys[a.key] > 1:
                self.fail(f"{what}: {a.key} is there {keys[a.key]} times")
        return {a.key: value_of(a.value) for a in attributes}

    def value(self, value, what):
        if value.WhichOneof("value") is None:
            self.fail(f"{what}: an attribute without a value")
        elif value.WhichOneof("value") == "string_value_strindex":
            self.fail(f"{what}: string_value_strindex is used")

    def resource(self, resource, what):
        if not resource.HasField("resource"):
            self.fail(f"{what}: resource is not set")
        attributes = self.key_values(resource.resource.attributes, what)
        name = attributes.get("service.name")
        if not isinstance(name, str) or not name:
            self.fail(f"{what}: service.name is {name!r}")
        if self.pyroscope and len(attributes) > PYROSCOPE_LABELS - 2:
            self.fail(f"{what}: {len(attributes)} attributes, Pyroscope takes 30 labels")
        if not resource.scope_profiles:
            self.fail(f"{what}: no scope profiles")
        for scope in resource.scope_profiles:
            if not scope.HasField("scope") or not scope.scope.name:
                self.fail(f"{what}: a scope without a name")
            self.key_values(scope.scope.attributes, f"{what} scope")
            if not scope.profiles:
                self.fail(f"{what}: a scope without profiles")
            for i, profile in enumerate(scope.profiles):
                self.profile(profile, f"{what} profile {i}")

    def value_type(self, value, what):
        return self.text(value.type_strindex, what), self.text(value.unit_strindex, what)

    def profile(self, p, what):
        if not p.HasField("sample_type") or not p.HasField("period_type"):
            self.fail(f"{what}: sample_type or period_type is not set")
        kind, unit = self.value_type(p.sample_type, f"{what} sample type")
        period, period_unit = self.value_type(p.period_type, f"{what} period type")
        if not kind or not unit:
            self.fail(f"{what}: sample type {kind!r}, unit {unit!r}")
        if (kind, unit) == ("samples", "count"):
            if (period, period_unit) != ("cpu", "nanoseconds") or p.period <= 0:
                self.fail(f"{what}: period {p.period} of {period!r}, {period_unit!r} for samples, count")
        elif kind == "off_cpu" and (period or period_unit or p.period):
            self.fail(f"{what}: off_cpu with a period")
        elif bool(period) != bool(period_unit):
            self.fail(f"{what}: half a period type")
        if len(p.profile_id) != 16 or p.profile_id == bytes(16):
            self.fail(f"{what}: profile_id {p.profile_id.hex()!r}")
        if p.time_unix_nano == 0:
            self.fail(f"{what}: no time")
        if p.samples and p.duration_nano == 0:
            self.fail(f"{what}: samples, but no duration")
        if p.original_payload or p.original_payload_format:
            self.fail(f"{what}: an original payload")
        for a in p.attribute_indices:
            self.use("attribute", a, what)
        self.samples(p, kind, what)
        if self.pyroscope:
            if len(p.samples) > PYROSCOPE_SAMPLES:
                self.fail(f"{what}: {len(p.samples)} samples, Pyroscope takes 16,000")
            age = self.now - p.time_unix_nano / 1e9
            if not -600 <= age <= 3600:
                self.fail(f"{what}: {age:.0f} s old, Pyroscope takes -600 to 3600")

    def samples(self, p, kind, what):
        seen = set()
        end = p.time_unix_nano + p.duration_nano
        for i, s in enumerate(p.samples):
            where = f"{what} sample {i}"
            identity = (s.stack_index, frozenset(s.attribute_indices), s.link_index)
            if identity in seen:
                self.fail(f"{where}: the same stack, attributes and link twice")
            seen.add(identity)
            if len(set(s.attribute_indices)) != len(s.attribute_indices):
                self.fail(f"{where}: an attribute twice")
            if s.stack_index == 0:
                self.fail(f"{where}: no stack")
            self.use("stack", s.stack_index, where)
            self.use("link", s.link_index, where)
            for a in s.attribute_indices:
                self.use("attribute", a, where)
            if s.values and s.timestamps_unix_nano:
                if kind == "samples" or len(s.values) != len(s.timestamps_unix_nano):
                    self.fail(f"{where}: {len(s.values)} values and {len(s.timestamps_unix_nano)} timestamps")
            elif not s.timestamps_unix_nano and len(s.values) != 1:
                self.fail(f"{where}: {len(s.values)} values and no timestamps")
            if any(v <= 0 for v in s.values):
                self.fail(f"{where}: value {min(s.values)}")
            if any(not p.time_unix_nano <= t <= end for t in s.timestamps_unix_nano):
                self.fail(f"{where}: a timestamp outside of the interval")

    def closure(self):
        """From the stacks in use to everything below them; entry 0 points nowhere."""
        for i in sorted(self.used["stack"] - {0}):
            locations = self.d.stack_table[i].location_indices
            if not locations:
                self.fail(f"stack {i} is empty")
            for index in locations:
                if index == 0:
                    self.fail(f"stack {i}: location 0")
                self.use("location", index, f"stack {i}")
        for i in sorted(self.used["location"] - {0}):
            self.location(i, self.d.location_table[i])
        for i in sorted(self.used["mapping"] - {0}):
            m = self.d.mapping_table[i]
            if not self.text(m.filename_strindex, f"mapping {i}"):
                self.fail(f"mapping {i} has no file name")
            for a in m.attribute_indices:
                self.use("attribute", a, f"mapping {i}")
        for i in sorted(self.used["function"] - {0}):
            f = self.d.function_table[i]
            name = self.text(f.name_strindex, f"function {i}")
            self.text(f.system_name_strindex, f"function {i}")
            self.text(f.filename_strindex, f"function {i}")
            if not name:
                self.fail(f"function {i} has no name")
            if name.startswith("_Z") and re.match(r"_ZN?\d+\w", name):
                self.fail(f"function {i} is not demangled: {name}")
        for i in sorted(self.used["attribute"] - {0}):
            a = self.d.attribute_table[i]
            self.value(a.value, f"attribute {i}")
            if not self.text(a.key_strindex, f"attribute {i}"):
                self.fail(f"attribute {i} has no key")
            self.text(a.unit_strindex, f"attribute {i}")

    def location(self, i, location):
        what = f"location {i}"
        if not location.lines:
            self.fail(f"{what} has no line: its frame vanishes")
        for line in location.lines:
            if line.function_index == 0:
                self.fail(f"{what}: a line without a function")
            self.use("function", line.function_index, what)
        if self.use("mapping", location.mapping_index, what) and location.mapping_index:
            m = self.d.mapping_table[location.mapping_index]
            if m.memory_limit and not m.memory_start <= location.address < m.memory_limit:
                self.fail(f"{what}: {location.address:#x} outside of {m.memory_start:#x}-{m.memory_limit:#x}")
        kinds = []
        for a in location.attribute_indices:
            if self.use("attribute", a, what) and a:
                attribute = self.d.attribute_table[a]
                if self.d.string_table[attribute.key_strindex] == "profile.frame.type":
                    kinds.append(value_of(attribute.value))
        if len(kinds) != 1 or kinds[0] not in FRAME_TYPES:
            self.fail(f"{what}: profile.frame.type is {kinds}")


def check(message, pyroscope=False, now=None):
    return Checker(message, pyroscope, now).run()


def value_of(value):
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None


def base_name(name):
    """A function's name without return type, parameters, template arguments and hash, whatever the demangler's
    style: `unsigned long geo::spin<unsigned long, 3>(unsigned long)` is geo::spin."""
    name = re.sub(r"::h[0-9a-f]{16}$", "", name)
    name = re.sub(r" \[clone [^]]*\]", "", name)
    if re.match(r"^[\w./%-]+\.(\(\*?\w+\)\.)?\w+(\.func\d+)*(\[.*\])?$", name):  # Go
        return re.sub(r"\[.*\]", "", name)
    rust_impl = name.startswith("<")
    name = name.replace("(anonymous namespace)", "{anonymous}").replace("operator()", "operator{}")
    depth, out = 0, []
    for i, ch in enumerate(name):
        if ch == "<" and not (rust_impl and i == 0):
            depth += 1
        elif ch == ">" and depth:
            depth -= 1
        elif ch == "(" and depth == 0:
            break
        elif depth == 0:
            out.append(ch)
    name = "".join(out).strip()
    if not rust_impl:
        name = name.rsplit(" ", 1)[-1]
    name = re.sub(r"::$", "", name).replace("::::", "::")
    return name.replace("{anonymous}", "(anonymous namespace)").replace("operator{}", "operator()")


Frame = collections.namedtuple("Frame", "name system_name file line module kind address inlined")


class Sample:
    def __init__(self, profile, frames, count, timestamps, attributes):
        self.profile = profile
        self.frames = frames
        self.count = count
        self.timestamps = timestamps
        self.attributes = attributes

    @property
    def names(self):
        """The whole chain, leaf first, by base name."""
        return tuple(base_name(f.name) for f in self.frames)

    @property
    def user(self):
        """The chain of user space alone, without functions that were inlined into their caller."""
        return tuple(base_name(f.name) for f in self.user_frames)

    @property
    def user_frames(self):
        return [f for f in self.frames if f.kind != "kernel" and not f.inlined]

    @property
    def kernel(self):
        return tuple(f.name for f in self.frames if f.kind == "kernel")


class Profile:
    def __init__(self, resource, scope, kind, p):
        self.resource = resource
        self.service = resource.get("service.name", "")
        self.scope = scope
        self.kind = kind  # "samples/count"
        self.id = p.profile_id.hex()
        self.time = p.time_unix_nano
        self.duration = p.duration_nano
        self.period = p.period
        self.samples = []


class Profiles:
    """What arrived, as tests ask for it. Counts are samples (a sample with timestamps counts each of them)."""

    def __init__(self, messages=()):
        self.profiles = []
        for message in messages:
            self.add(message)

    def add(self, message):
        d = message.dictionary
        text = d.string_table

        def attributes(indices):
            return {text[d.attribute_table[i].key_strindex]: value_of(d.attribute_table[i].value) for i in indices}

        def frames(location):
            m = d.mapping_table[location.mapping_index]
            kind = attributes(location.attribute_indices).get("profile.frame.type", "")
            for i, line in enumerate(location.lines):
                f = d.function_table[line.function_index]
                yield Frame(text[f.name_strindex], text[f.system_name_strindex], text[f.filename_strindex],
                            line.line, text[m.filename_strindex], kind, location.address, i + 1 < len(location.lines))  # fmt: skip

        stacks = [[f for i in s.location_indices for f in frames(d.location_table[i])] for s in d.stack_table]
        for resource in message.resource_profiles:
            labels = {a.key: value_of(a.value) for a in resource.resource.attributes}
            for scope in resource.scope_profiles:
                for p in scope.profiles:
                    kind = f"{text[p.sample_type.type_strindex]}/{text[p.sample_type.unit_strindex]}"
                    profile = Profile(labels, scope.scope.name, kind, p)
                    for s in p.samples:
                        count = sum(s.values) if s.values else len(s.timestamps_unix_nano)
                        profile.samples.append(
                            Sample(profile, stacks[s.stack_index], count, list(s.timestamps_unix_nano),
                                   attributes(s.attribute_indices)))  # fmt: skip
                    self.profiles.append(profile)

    def samples(self, service=None, kind="samples/count"):
        for p in self.profiles:
            if (service is None or p.service == service) and p.kind == kind:
                yield from p.samples

    def services(self):
        return sorted({p.service for p in self.profiles})

    def sums(self):
        """(service, type): count."""
        out = collections.Counter()
        for p in self.profiles:
            out[p.service, p.kind] += sum(s.count for s in p.samples)
        return out

    def total(self, service=None, kind="samples/count"):
        return sum(s.count for s in self.samples(service, kind))

    def flat(self, service=None, user=True):
        """Counts by innermost function (of user space, unless user is False)."""
        out = collections.Counter()
        for s in self.samples(service):
            chain = s.user if user else s.names
            out[chain[0] if chain else "(none)"] += s.count
        return out

    def cumulative(self, service=None):
        out = collections.Counter()
        for s in self.samples(service):
            for name in set(s.names):
                out[name] += s.count
        return out

    def chains(self, service=None):
        """Counts by whole user chain, leaf first."""
        out = collections.Counter()
        for s in self.samples(service):
            out[s.user] += s.count
        return out

    def ids(self):
        return [p.id for p in self.profiles]


def read(path):
    with open(path, "rb") as f:
        message = service.ExportProfilesServiceRequest()
        message.ParseFromString(f.read())
        return message


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--pyroscope", action="store_true", help="also Pyroscope's limits")
    p.add_argument("files", nargs="+")
    a = p.parse_args()
    bad = 0
    for name in a.files:
        inside = sorted(os.path.join(name, f) for f in os.listdir(name) if f.endswith(".pb")) if os.path.isdir(name) else [name]
        for path in inside:
            message = read(path)
            for problem in check(message, a.pyroscope, now=os.stat(path).st_mtime):
                print(f"{path}: {problem}")
                bad += 1
            for (svc, kind), n in sorted(Profiles([message]).sums().items()):
                print(f"{path}: {svc} {kind} {n}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
