#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300 s
"""Names of the kernel's code while it changes: BPF programs that are loaded while agentd samples, one after the other,
so that the list of names that it read for the first does not have the second."""

import os
import shutil
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403

# Loads a program that adds up numbers, and runs it for so many seconds of CPU time.
RUNNER = """
import ctypes, platform, struct, sys, time
SYS_bpf = {"x86_64": 321, "aarch64": 280}[platform.machine()]
libc = ctypes.CDLL(None, use_errno=True)
def bpf(command, attr):
    r = libc.syscall(SYS_bpf, command, attr, len(attr))
    if r < 0:
        sys.exit(f"bpf({command}): errno {ctypes.get_errno()}")
    return r
def insn(code, registers, offset=0, immediate=0):
    return struct.pack("<BBhi", code, registers, offset, immediate)
code = insn(0xb7, 0) + insn(0xb7, 1, 0, 2000) + insn(0x0f, 0x10) + insn(0x07, 1, 0, -1) + insn(0x55, 1, -3) + insn(0x95, 0)
text, licence, data = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL"), ctypes.create_string_buffer(64)
at = ctypes.addressof
fd = bpf(5, struct.pack("<IIQQIIQII16sI", 1, len(code) // 8, at(text), at(licence), 0, 0, 0, 0, 0, sys.argv[1].encode(), 0) + bytes(48))
while time.process_time() < float(sys.argv[2]):
    bpf(10, struct.pack("<IIIIQQII", fd, 0, 64, 0, at(data), 0, 20000, 0) + bytes(40))
print("{}")
"""


NAMES = ("odi_first", "odi_second", "odi_third")


def run(a, receiver, program, name):
    """One program's samples: the innermost frames of all that spent its time in BPF."""
    earlier = unique(receiver)
    before, total = len(list(earlier.samples("bpf"))), earlier.total("bpf")
    w = Workload(program, argv=[program, "-S", "-c", RUNNER, name, "2"])
    w.wait()
    a.settle(receiver, "bpf", total + 500)
    found = {}
    for s in list(unique(receiver).samples("bpf"))[before:]:
        f = s.frames[0]
        if f.kind == "kernel" and f.module != "vmlinux":
            found[f.name, f.module] = found.get((f.name, f.module), 0) + s.count
    return found


@case("BPF programs have their own names, also those that come while others are known")
def programs():
    with OtlpReceiver() as receiver, Agentd() as a:
        program = os.path.join(temp_folder(), "bpf_runner")
        shutil.copy(os.path.realpath("/usr/bin/python3"), program)
        a.add_receiver(receiver)
        a.add_process(program, "--service-name", "bpf")
        a.enable()
        for name in NAMES:
            found = run(a, receiver, program, name)
            say(f"# {found}")
            mine = {k: n for k, n in found.items() if k[0].startswith("bpf_prog_") and k[0].endswith("_" + name)}
            equal(len(mine), 1, f"names of {name} in {found}")
            (got, module), n = mine.popitem()
            check(len(got) == len("bpf_prog_0123456789abcdef_") + len(name), f"not as the kernel calls it: {got}")
            equal(module, "[bpf]", f"module of {name}")
            # Programs of whoever else watches this host may run here, too, but by no name of ours and not without one.
            others = {k for k in found if k[1] == "[bpf]" and (not k[0].startswith("bpf_prog_") or k[0].endswith(NAMES))}
            equal(others, {(got, module)}, "programs that ran")
            check(n > 200, f"only {n} samples in {name}: {found}")
        a.check_ledger()


class WithoutSyslog(Agentd):
    """As where its service was not given the capability that the kernel shows its addresses for."""

    def argv(self):
        return ["setpriv", "--bounding-set", "-syslog", "--inh-caps", "-syslog", *super().argv()]


@case("status says why kernel frames have no names, and what to type")
def hidden():
    with open("/proc/sys/kernel/kptr_restrict") as f, open("/proc/sys/kernel/perf_event_paranoid") as g:
        if int(f.read()) == 0 and int(g.read()) < 2:
            raise CannotRun("the kernel shows its addresses to everybody here (kernel.perf_event_paranoid)")
    with OtlpReceiver() as receiver, WithoutSyslog() as a:
        a.add_receiver(receiver)
        a.add_process("kernel_work", "--service-name", "work")
        a.enable()
        Workload("kernel_work zero").work(2)
        profiles = a.settle(receiver, "work", 500)
        names = {f.name for s in profiles.samples("work") for f in s.frames if f.kind == "kernel"}
        check(names and all(n.startswith("vmlinux+0x") for n in names), f"{sorted(names)[:5]}")
        text = " ".join(a.run("status").stdout.split())
        for wanted in ("kernel frames have no names", "CAP_SYSLOG", "AmbientCapabilities=CAP_SYSLOG"):
            check(wanted in text, f"{wanted} is not in: {text}")
        a.check_ledger()
    with Agentd() as a:
        source = a.add_process("kernel_work", "--service-name", "work")
        a.enable()
        w = Workload("kernel_work zero")
        a.wait_sampled(source, 300)
        w.stop()
        check("kernel frames have no names" not in a.run("status").stdout, "a problem that is none")


if __name__ == "__main__":
    main()
