#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 720 s
"""Hostile ELF files among the profiled programs: each runs, since the kernel looks at its program headers only, and
tells lies everywhere else. The profile still comes: with names where some could be had, with file and offset else."""

import lzma
import os
import struct
import sys
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403

SHT_SYMTAB, SHT_STRTAB, SHT_NOTE, SHT_DYNSYM = 2, 3, 7, 11
SHF_COMPRESSED = 1 << 11


class Elf:
    """A 64-bit little-endian ELF file as bytes, with its header and section headers."""

    def __init__(self, data):
        self.data = bytearray(data)
        self.shoff = struct.unpack_from("<Q", self.data, 40)[0]
        self.shentsize, self.shnum, self.shstrndx = struct.unpack_from("<HHH", self.data, 58)

    def header(self, offset, form, value):
        struct.pack_into(form, self.data, offset, value)

    def at(self, section):
        return self.shoff + section * self.shentsize

    def sections(self, kind):
        return [i for i in range(self.shnum) if struct.unpack_from("<I", self.data, self.at(i) + 4)[0] == kind]

    def set(self, section, flags=None, offset=None, size=None, link=None, info=None, entsize=None, name=None):
        at = self.at(section)
        for form, where, value in (("<I", 0, name), ("<Q", 8, flags), ("<Q", 24, offset), ("<Q", 32, size),
                                   ("<I", 40, link), ("<I", 44, info), ("<Q", 56, entsize)):  # fmt: skip
            if value is not None:
                struct.pack_into(form, self.data, at + where, value)

    def extent(self, section):
        return struct.unpack_from("<QQ", self.data, self.at(section) + 24)

    def named(self, name):
        """The section of that name."""
        names = self.extent(self.shstrndx)[0]
        for i in range(1, self.shnum):
            at = names + struct.unpack_from("<I", self.data, self.at(i))[0]
            if self.data[at : self.data.index(0, at)] == name.encode():
                return i
        raise AssertionError(f"the good program has no section {name}")

    def fill(self, name, make):
        """Other bytes of the same length in a section."""
        offset, size = self.extent(self.named(name))
        self.data[offset : offset + size] = (make(size) + bytes(size))[:size]

    def replace(self, name, data, flags=None):
        """Another section's data, of any length, behind the end."""
        offset = len(self.data)
        self.data += data
        self.set(self.named(name), offset=offset, size=len(data), flags=flags)

    def rename(self, name, new):
        """Gives a section another name, written over its own: not a longer one."""
        assert len(new) <= len(name)
        names = self.extent(self.shstrndx)[0]
        at = names + struct.unpack_from("<I", self.data, self.at(self.named(name)))[0]
        self.data[at : at + len(name)] = new.encode().ljust(len(name), b"\0")


def symtab_huge(e):
    e.set(e.sections(SHT_SYMTAB)[0], size=4 << 30)


def symtab_everything(e):
    for i in range(1, e.shnum):
        e.set(i, size=(1 << 64) - 1)


def offsets_wrap(e):
    for i in range(1, e.shnum):
        e.set(i, offset=(1 << 64) - 4096, size=8192)


def cyclic_links(e):
    for i in range(1, e.shnum):
        e.set(i, link=i)


def links_outside(e):
    for i in range(1, e.shnum):
        e.set(i, link=0xFFFFFFF0, info=0xFFFFFFF0)


def entry_size_0(e):
    e.set(e.sections(SHT_SYMTAB)[0], entsize=0)


def entry_size_1(e):
    e.set(e.sections(SHT_SYMTAB)[0], entsize=1)


def strings_unterminated(e):
    for i in e.sections(SHT_STRTAB):
        offset, size = e.extent(i)
        e.data[offset : offset + size] = b"A" * size


def symbol_names_outside(e):
    offset, size = e.extent(e.sections(SHT_SYMTAB)[0])
    for at in range(offset, offset + size, 24):
        struct.pack_into("<I", e.data, at, 0xFFFFFF00)


def symbols_huge(e):
    offset, size = e.extent(e.sections(SHT_SYMTAB)[0])
    for at in range(offset, offset + size, 24):
        struct.pack_into("<QQ", e.data, at + 8, 0, (1 << 64) - 1)


def mangled_monsters(e):
    """Names that a demangler may choke on, in place of the strings."""
    for i in e.sections(SHT_STRTAB):
        offset, size = e.extent(i)
        monster = (b"_Z" + b"N" * 200 + b"S_" * 200 + b"I" * 400 + b"1a" * 100 + b"E" * 300 + b"\0") * (size // 1000 + 1)
        e.data[offset + 1 : offset + size] = monster[: size - 2] + b"\0"


def sections_outside(e):
    e.header(40, "<Q", len(e.data) + (1 << 40))


def sections_at_the_end(e):
    e.header(40, "<Q", len(e.data) - 10)


def many_sections(e):
    e.header(60, "<H", 0)  # e_shnum 0: the number is in section 0
    e.set(0, size=1 << 40)
    e.header(62, "<H", 0xFFFF)  # and the index of the names in its link
    e.set(0, link=0x7FFFFFFF)


def entry_size_of_sections(e):
    e.header(58, "<H", 7)


def compressed_bomb(e):
    """Sections that say they are compressed, to a terabyte."""
    for i in range(1, e.shnum):
        offset, size = e.extent(i)
        if size >= 24 and i in e.sections(SHT_STRTAB) + e.sections(SHT_SYMTAB):
            e.set(i, flags=SHF_COMPRESSED)
            struct.pack_into("<IIQQ", e.data, offset, 1, 0, 1 << 40, 1)


def truncated(e):
    del e.data[e.shoff + 100 :]


def notes_lie(e):
    for i in e.sections(SHT_NOTE):
        offset, size = e.extent(i)
        if size >= 12:
            struct.pack_into("<II", e.data, offset, 0xFFFFFFFF, 0xFFFFFFFF)


def another_machine_behind(e):
    """A second file header after the end: nothing may be taken for one."""
    e.data += b"\x7fELF" + b"\xff" * 4096


def random_sections(e):
    rng = random.Random(7)
    for at in range(e.shoff, min(len(e.data), e.shoff + e.shnum * e.shentsize)):
        if rng.random() < 0.3:
            e.data[at] = rng.randrange(256)


HOSTILE = [symtab_huge, symtab_everything, offsets_wrap, cyclic_links, links_outside, entry_size_0, entry_size_1,
           strings_unterminated, symbol_names_outside, symbols_huge, mangled_monsters, sections_outside,
           sections_at_the_end, many_sections, entry_size_of_sections, compressed_bomb, truncated, notes_lie,
           another_machine_behind, random_sections]  # fmt: skip


def hostile_programs(folder):
    made = []
    with open(os.path.join(WORKLOADS, "shares_c_static"), "rb") as f:
        good = f.read()
    for change in HOSTILE:
        e = Elf(good)
        change(e)
        path = os.path.join(folder, change.__name__)
        with open(path, "wb") as f:
            f.write(e.data)
        os.chmod(path, 0o755)
        made.append(path)
    return made


@case("twenty hostile files: all are profiled, a good program keeps its names, agentd stays up")
def hostile():
    folder = temp_folder()
    programs = hostile_programs(folder)
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_process("shares_c", "--service-name", "good")
        for p in programs:
            a.add_process(p, "--service-name", os.path.basename(p))
        a.enable(rate=997)
        good = Workload("shares_c")
        before, wanted = a.pid, {}
        for p in programs:
            try:
                report = Workload(p).work(0.7)
            except OSError as e:
                raise AssertionError(f"{p} does not run, so it tests nothing: {e}") from e
            check(a.alive(), f"agentd ended at {p}")
            say(f"# {os.path.basename(p)}: {report}")
            wanted[p] = 0.9 * expected_samples(report["cpu_ns"], 997) - 5
        late_ticks = a.ledger()["late"]
        for p in programs:
            a.settle_running(receiver, os.path.basename(p), wanted[p] - late_ticks, 60)
        # a new good program, never seen before, is named after all that
        late = copy_program("shares_cpp", "late", folder)
        a.add_process(late, "--service-name", "late")

        def named():
            Workload(late).work(0.5)
            a.settle(receiver, None)
            return unique(receiver).flat("late")["geo::Circle::area"] > 0

        wait_for("a good file gets its names after the hostile ones", named, 60, 0.1)
        good.stop()
        profiles = a.settle(receiver, "good")
        equal(a.pid, before, "agentd's process")
        check_shares(profiles.flat("good"), TRUTH["shares_c"]["shares"], "the good program")
        for p in programs:
            name = os.path.basename(p)
            empty = [s for s in profiles.samples(name) if any(not f.name for f in s.frames)]
            check(not empty, f"{name}: frames without a name")
            longest = max(len(f.name) for s in profiles.samples(name) for f in s.frames)
            check(longest <= 4096, f"{name}: a name of {longest} bytes")
        # where no name could be had, the three leaves are still three places
        places = profiles.flat("symtab_huge")
        offsets = {k: v for k, v in places.items() if k.startswith("symtab_huge+0x")}
        check(offsets or "leaf_sixty" in places, f"frames of symtab_huge: {places.most_common(5)}")
        a.check_ledger()
        equal(a.ledger()["lost"], 0, "lost")
        for r in receiver.requests:
            problems = [x for x in check_otlp.check(r.message, now=r.time) if "not demangled" not in x]
            check(not problems, f"rules broken: {problems[:5]}")


BOMB = 1 << 28  # bytes that a bomb says and has


def only(e, name):
    """In place of all other sources of names: the section of the build id gets this name."""
    e.rename(".note.gnu.build-id", name)
    at = e.at(e.named(name))
    struct.pack_into("<I", e.data, at + 4, 1)
    for other in (".debug_info", ".debug_line", ".symtab"):
        struct.pack_into("<I", e.data, e.at(e.named(other)) + 4, 0)  # SHT_NULL


def dwarf_random(e):
    rng = random.Random(11)
    for name in (".debug_info", ".debug_abbrev", ".debug_line"):
        e.fill(name, rng.randbytes)


def dwarf_lengths_huge(e):
    e.fill(".debug_info", lambda n: struct.pack("<IQ", 0xFFFFFFFF, 1 << 63) * (n // 12 + 1))
    e.fill(".debug_line", lambda n: struct.pack("<IQ", 0xFFFFFFFF, (1 << 64) - 1) * (n // 12 + 1))


def dwarf_units_of_nothing(e):
    """A hundred thousand headers of units, each its own."""
    unit = struct.pack("<IHBBI", 8, 5, 1, 8, 0)
    e.replace(".debug_info", unit * 100000)


def dwarf_abbrev_cycle(e):
    """Each code stands for an entry with children, which has the same: nests as deep as the section is long."""
    e.replace(".debug_abbrev", bytes([1, 0x11, 1, 0, 0, 2, 0x1D, 1, 0, 0, 0]))
    body = struct.pack("<HBBI", 5, 1, 8, 0) + b"\1" + b"\2" * 2000000
    e.replace(".debug_info", struct.pack("<I", len(body)) + body)


def dwarf_line_bomb(e):
    """A line program that is one long row of special opcodes."""
    e.replace(".debug_line", bytes(e.data[slice(e.extent(e.named(".debug_line"))[0], e.extent(e.named(".debug_line"))[0] + 60)]) + b"\xff" * 8000000)


def dwarf_references_itself(e):
    """Every four bytes that may be a reference point at the first entry."""
    e.fill(".debug_info", lambda n: bytes(e.data[slice(e.extent(e.named(".debug_info"))[0], e.extent(e.named(".debug_info"))[0] + 12)])
           + struct.pack("<I", 12) * (n // 4))  # fmt: skip


def dwarf_zlib_bomb(e):
    packed = zlib.compress(bytes(BOMB), 1)
    e.replace(".debug_info", struct.pack("<IIQQ", 1, 0, BOMB, 1) + packed, SHF_COMPRESSED)


def dwarf_zstd_lie(e):
    e.replace(".debug_info", struct.pack("<IIQQ", 2, 0, 1 << 62, 1) + b"\x28\xb5\x2f\xfd" + b"\xff" * 4096, SHF_COMPRESSED)


def debugdata_bomb(e):
    only(e, ".gnu_debugdata")
    e.replace(".gnu_debugdata", lzma.compress(bytes(BOMB), preset=0), 0)


def debugdata_garbage(e):
    only(e, ".gnu_debugdata")
    e.replace(".gnu_debugdata", b"\xfd7zXZ\0" + b"\xff" * 100000)


def debuglink_escapes(e):
    only(e, ".gnu_debuglink")
    e.replace(".gnu_debuglink", b"../../../../../../etc/shadow\0" + bytes(3) + b"\1\2\3\4")


def pclntab_lies(e):
    only(e, ".gopclntab")
    head = struct.pack("<IHBB", 0xFFFFFFF1, 0, 1, 8) + struct.pack("<8Q", 1 << 63, 1 << 62, (1 << 64) - 1, 72, 72, 72, 72, 72)
    e.replace(".gopclntab", head + b"\xff" * 65536)


HOSTILE_DEBUG = [dwarf_random, dwarf_lengths_huge, dwarf_units_of_nothing, dwarf_abbrev_cycle, dwarf_line_bomb,
                 dwarf_references_itself, dwarf_zlib_bomb, dwarf_zstd_lie, debugdata_bomb, debugdata_garbage,
                 debuglink_escapes, pclntab_lies]  # fmt: skip


@case("hostile debug information: each file is named some way, a good one keeps its names, the cost is bounded and shown")
def hostile_debug():
    folder = temp_folder()
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_process("shares_cpp", "--service-name", "good")
        a.add_source("process", os.path.join(folder, "*"), "--service-name", "bad")
        a.enable()
        good, before = Workload("shares_cpp"), a.pid
        for change in HOSTILE_DEBUG:
            path = copy_program("shares_c", change.__name__, folder)
            with open(path, "rb") as f:
                e = Elf(f.read())
            change(e)
            with open(path, "wb") as f:
                f.write(e.data)
            Workload(path).work(0.5)
            check(a.alive(), f"agentd ended at {change.__name__}")

        def seen():
            return {os.path.basename(f.module) for s in unique(receiver).samples("bad") for f in s.frames}

        wanted = {c.__name__ for c in HOSTILE_DEBUG}
        wait_for("samples of every hostile file", lambda: wanted <= seen(), 60, 0.3)
        late = copy_program("shares_cpp", "late", folder)
        wait_for("a good file is named after them", lambda: Workload(late).work(0.5) and unique(receiver).flat("bad")["geo::Circle::area"] > 0, 60, 1)
        good.stop()
        profiles = a.settle(receiver, "good")
        equal(a.pid, before, "agentd's process")
        check_shares(profiles.flat("good"), TRUTH["shares_cpp"]["shares"], "the good program")
        check(not [s for s in profiles.samples() if any(not f.name for f in s.frames)], "frames without a name")
        # What each cost, and what went wrong at it, is said.
        told = {os.path.basename(field(r, "path")): r for r in rows(a.ctl("symbols", "list"))}
        for name in sorted(wanted):
            row = told.get(name)
            check(row is not None, f"odictl symbols does not know {name}: {sorted(told)}")
            say(f"# {name}: {field(row, 'named_by')}, {field(row, 'cpu_seconds')} s, {field(row, 'problem')}")
            check(float(field(row, "cpu_seconds", default=99)) < 15, f"{name} cost {field(row, 'cpu_seconds')} s")
        for name in ("dwarf_zlib_bomb", "debugdata_bomb", "dwarf_random"):
            # No event without a word: what could not be used is named as a problem, or its names come from elsewhere.
            row = told[name]
            check(field(row, "problem") or field(row, "named_by") != "DWARF", f"{name}: {row}")
        a.check_ledger()
        equal(a.ledger()["lost"], 0, "lost")


@case("a file that is truncated while it runs, and one that is replaced")
def changes_below():
    folder = temp_folder()
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_source("process", os.path.join(folder, "*"), "--service-name", "web")
        a.enable()
        path = copy_program("shares_c", "replaced", folder)
        w = Workload(path)
        time.sleep(0.3)
        os.rename(copy_program("shares_cpp", "replacement"), path)  # the old file lives on, deleted
        a.settle_running(receiver, "web", 800)
        report = w.stop()
        profiles = a.settle(receiver, "web")
        check_shares(profiles.flat("web"), TRUTH["shares_c"]["shares"], f"a deleted file {report}")
        # overwritten in place where the kernel allows it: a library may be
        library = os.path.join(folder, "libwork.so")
        shutil.copy(os.path.join(WORKLOADS, "libwork.so"), library)
        program = copy_program("shared", "uses", folder)
        w = Workload(program)
        wait_for("it is at work", lambda: w.cpu_seconds() > 0.2)
        with open(library, "r+b") as f:
            f.truncate(16384)  # its text stays, the symbols behind it are gone
        time.sleep(3)
        a.settle(receiver, None)
        check(a.alive(), "agentd ended")
        w.process.kill()
        w.process.communicate()
        a.check_ledger()


if __name__ == "__main__":
    main()
