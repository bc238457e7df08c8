# SPDX-License-Identifier: Apache-2.0
"""A request that keeps every rule, to be broken by tests."""

from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service

NOW = 1_700_000_000


def good():
    """A request that keeps every rule: one service, two stacks, a kernel and a native frame."""
    m = service.ExportProfilesServiceRequest()
    d = m.dictionary
    strings = [""]

    def string(text):
        if text not in strings:
            strings.append(text)
        return strings.index(text)

    d.mapping_table.add()
    d.location_table.add()
    d.function_table.add()
    d.link_table.add()
    d.attribute_table.add()
    d.stack_table.add()
    for kind in ("native", "kernel"):
        a = d.attribute_table.add(key_strindex=string("profile.frame.type"))
        a.value.string_value = kind
    d.mapping_table.add(memory_start=0x1000, memory_limit=0x9000, filename_strindex=string("/usr/bin/web"))
    d.mapping_table.add(filename_strindex=string("vmlinux"))
    for i, (name, mapping, kind) in enumerate([("main", 1, 1), ("work", 1, 1), ("vfs_read", 2, 2)]):
        d.function_table.add(name_strindex=string(name))
        location = d.location_table.add(mapping_index=mapping, address=0x2000 + i, attribute_indices=[kind])
        location.lines.add(function_index=i + 1)
    d.stack_table.add(location_indices=[2, 1])
    d.stack_table.add(location_indices=[3, 2, 1])
    r = m.resource_profiles.add()
    r.resource.attributes.add(key="service.name").value.string_value = "web"
    scope = r.scope_profiles.add()
    scope.scope.name = "odi"
    p = scope.profiles.add(time_unix_nano=NOW * 10**9, duration_nano=10**10, period=10101010, profile_id=bytes(15) + b"x")
    p.sample_type.type_strindex, p.sample_type.unit_strindex = string("samples"), string("count")
    p.period_type.type_strindex, p.period_type.unit_strindex = string("cpu"), string("nanoseconds")
    p.samples.add(stack_index=1, values=[60])
    p.samples.add(stack_index=2, timestamps_unix_nano=[NOW * 10**9 + 5, NOW * 10**9 + 6])
    d.string_table.extend(strings)
    return m


def profile(m):
    return m.resource_profiles[0].scope_profiles[0].profiles[0]
