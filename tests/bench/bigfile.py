# SPDX-License-Identifier: Apache-2.0
"""A program with a gigabyte of debug information, named for the first time: the real symbolizer in its sandbox is asked for
2,000 addresses spread over all of its code, and watched; beside it llvm-symbolizer and addr2line with the same addresses.

    bigfile.py [PROGRAM]        by itself; default: the one that is built here"""

import array
import random
import re
import subprocess
import threading

from cost import *  # noqa: F403

ADDRESSES = 2000
BAR_S, BAR_BYTES, BACK_S = 2.0, 150e6, 10
BACK_BYTES = 32e6  # what it may keep when left alone
PEER_TIMEOUT_S = 300
SANDBOX_FD = 3
PROTOCOL, REQUEST, READY, FACTS, NAMES, DONE = 1, 1, 2, 3, 4, 5
HEADER = struct.Struct("<HHIQ")
FACTS_NAMED_BY = slice(16 + 48 + 104 + 40, 16 + 48 + 104 + 40 + 24)


class Symbolizer:
    """agentd's side of agentd/symbol/protocol.h, as far as it is needed here."""

    def __init__(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # The shell moves the socket to where a role has it.
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", f'exec "$0" --role symbolizer {SANDBOX_FD}<&{theirs.fileno()} {theirs.fileno()}<&-', AGENTD],
            pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self.socket, self.serial = ours, 0
        self.socket.settimeout(60)
        if self.receive()[0] != READY:
            raise RuntimeError("the symbolizer is not ready")
        self.peak, self.watching = 0, True
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()

    def receive(self):
        data = self.socket.recv(1 << 16)
        if not data:
            raise RuntimeError(f"the symbolizer ended: {self.process.wait()}")
        return HEADER.unpack_from(data)[1], data

    def anonymous(self):
        with open(f"/proc/{self.process.pid}/status") as f:
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("RssAnon:"))

    def watch(self):
        while self.watching:
            self.peak = max(self.peak, self.anonymous())
            time.sleep(0.002)

    def ask(self, fd, offsets):
        """One request: the rows (index, chain of raw names), how many were looked at, and by what."""
        self.serial += 1
        body = struct.pack("<IIHHI", 7, 0, 1, 0, len(offsets)) + array.array("Q", offsets).tobytes()
        message = HEADER.pack(PROTOCOL, REQUEST, HEADER.size + len(body), self.serial) + body
        rights = [] if fd is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        self.socket.sendmsg([message], rights)
        rows, named_by = [], ""
        while True:
            kind, data = self.receive()
            if kind == DONE:
                return rows, struct.unpack_from("<I", data, 16)[0], named_by
            if kind == FACTS:
                named_by = data[FACTS_NAMED_BY].split(b"\0")[0].decode()
            if kind == NAMES:
                rows += self.rows(data)

    @staticmethod
    def rows(data):
        n_rows, n_functions = struct.unpack_from("<II", data, 16)
        at, functions = 32, 32 + n_rows * 16
        strings = functions + n_functions * 40
        for _ in range(n_rows):
            index, n = struct.unpack_from("<IH", data, at)
            chain = []
            for i in range(functions, functions + n * 40, 40):
                offset, length = struct.unpack_from("<II", data, i + 8)
                chain.append(data[strings + offset : strings + offset + length].decode())
            yield index, chain
            at, functions = at + 16, functions + n * 40

    def close(self):
        self.watching = False
        self.watcher.join()
        self.socket.close()
        self.process.wait(10)


def text_of(path):
    """Address, offset and size of .text, and the bytes of debug information."""
    with open(path, "rb") as f:
        header = f.read(64)
        start, = struct.unpack_from("<Q", header, 40)
        size, count, names = struct.unpack_from("<HHH", header, 58)
        f.seek(start)
        sections = [struct.unpack("<IIQQQQIIQQ", f.read(size)) for _ in range(count)]
        f.seek(sections[names][4])
        strings = f.read(sections[names][5])
    text, debug = None, 0
    for s in sections:
        name = strings[s[0] : strings.index(b"\0", s[0])]
        if name == b".text":
            text = s[3], s[4], s[5]
        debug += s[5] if name.startswith(b".debug_") else 0
    return *text, debug


def ours(path, offsets):
    s = Symbolizer()
    rows, done = {}, 0
    try:
        with open(path, "rb") as f:
            started = time.monotonic()
            while done < len(offsets):
                got, n, by = s.ask(f.fileno(), offsets[done:])
                rows.update((done + i, chain) for i, chain in got)
                done += n
            took = time.monotonic() - started
        peak = s.peak
        back = None
        while time.monotonic() - started - took < BACK_S:
            time.sleep(0.1)
            if back is None and s.anonymous() < BACK_BYTES:
                back = time.monotonic() - started - took
        return {"rows": rows, "s": took, "peak": peak, "by": by, "requests": s.serial, "back": back, "left": s.anonymous()}
    finally:
        s.close()


def peer(*command, addresses):
    """Seconds and peak memory (its own and what it mapped) of a peer, and its answers."""
    given = "".join(f"{a:#x}\n" for a in addresses)
    with tempfile.TemporaryFile("w+") as questions, tempfile.TemporaryFile("w+") as answers:
        questions.write(given)
        questions.seek(0)
        started = time.monotonic()
        p = subprocess.Popen(command, stdin=questions, stdout=answers, stderr=subprocess.DEVNULL)
        timer = threading.Timer(PEER_TIMEOUT_S, p.kill)
        timer.start()
        _, status, used = os.wait4(p.pid, 0)
        timer.cancel()
        p.returncode = status
        took = time.monotonic() - started
        answers.seek(0)
        text = answers.read()
    name = os.path.basename(command[0])
    if status:
        return f"{name} not done after {took:.0f} s", None
    return f"{name} {took:.1f} s, {used.ru_maxrss / 1024:.0f} MB", text


def outermost(text):
    """llvm-symbolizer's outermost names, by address: two lines a function, an empty line behind each address."""
    return [block.split("\n")[-2] for block in text.strip().split("\n\n")]


def plain(name):
    """Without a suffix (f.cold), and constructors whose variants share their code alike."""
    return re.sub(r"([CD])[0-5]", r"\1", name.split(".")[0])


def bigfile(table, path=None):
    if not path:
        path = os.path.join(PROGRAMS, "bigfile")
        generator = os.path.join(os.path.dirname(os.path.abspath(__file__)), "programs/bigfile.py")
        if not os.path.exists(path) or os.path.getmtime(path) < os.path.getmtime(generator):
            print("building a program with 1 GB of debug information", file=sys.stderr)
            subprocess.run([sys.executable, generator, path], check=True)
    address, offset, size, debug = text_of(path)
    spots = sorted(random.Random(1).sample(range(size), ADDRESSES))
    us = ours(path, [offset + s for s in spots])
    addresses = [address + s for s in spots]
    llvm, text = peer("llvm-symbolizer", "--inlines", "--no-demangle", "--output-style=LLVM", "-e", path, addresses=addresses)
    a2l, _ = peer("addr2line", "-i", "-f", "-e", path, addresses=addresses)
    same = of = 0
    if text:
        for i, name in enumerate(outermost(text)):
            of += name != "??"
            same += name != "??" and i in us["rows"] and plain(us["rows"][i][-1]) == plain(name)
    met = us["s"] <= BAR_S and us["peak"] <= BAR_BYTES and us["back"] is not None and same >= 0.99 * of
    back = f"given back after {us['back']:.0f} s" if us["back"] is not None else f"{us['left'] / 1e6:.0f} MB kept after {BACK_S} s"
    table.add(f"first naming of {ADDRESSES:,} addresses in a program with {debug / 1e9:.2f} GB of debug information",
              f"{us['s']:.2f} s, {us['peak'] / 1e6:.0f} MB at the peak, {back}; {same} of the {of} that llvm-symbolizer names",
              f"<= {BAR_S:.0f} s, <= {BAR_BYTES / 1e6:.0f} MB, back within {BACK_S} s", met, f"{llvm}; {a2l}",
              requests=us["requests"], named_by=us["by"], left=us["left"])


if __name__ == "__main__":
    bigfile(Table(), sys.argv[1] if len(sys.argv) > 1 else None)
