#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 720 s
"""Programs as the distribution has them, at their own work: nearly every stack reaches its root. What arrived at an
independent receiver is judged, and has to be what status says."""

import collections
import http.client
import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403
from unwind_truth import INTERVAL, NO_BUDGET, finish  # noqa: E402

SECONDS = 20
# Stacks deeper than the slice of one that a sample can carry are cut as long as rows are missing; a compiler has such.
WARM = 4.5  # s, less than one interval
# Of those that are not as deep as the limit.
WANTED = 0.995

CPP = """
#include <map>
#include <regex>
#include <string>
#include <vector>
template <int N> struct deep { static int f(std::vector<std::string> &v) { v.push_back("x"); return deep<N - 1>::f(v); } };
template <> struct deep<0> { static int f(std::vector<std::string> &v) { return v.size(); } };
int main() { std::vector<std::string> v; std::map<std::string, std::regex> m; m["a"] = std::regex("a+b*"); return deep<200>::f(v); }
"""
SQL = """
CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, c REAL);
WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 20000) INSERT INTO t SELECT x, 'name ' || (x * 7919 % 10007), x / 3.0 FROM n;
CREATE INDEX i ON t(b);
SELECT count(*), sum(length(b)) FROM t WHERE b LIKE '%9%' ORDER BY b;
SELECT b, avg(c) FROM t GROUP BY b HAVING avg(c) > 10 ORDER BY 2 DESC LIMIT 3;
DROP TABLE t;
"""
PYTHON = """
import json, re, time, zlib
end = time.time() + {seconds}
while time.time() < end:
    rows = [dict(n=i, s=str(i) * 3) for i in range(500)]
    text = json.dumps(sorted(rows, key=lambda r: r["s"]))
    json.loads(text); zlib.compress(text.encode()); re.findall(r"(\\d)\\1+", text)
"""
NODE = """
const end = Date.now() + {seconds} * 1000, zlib = require('zlib'), crypto = require('crypto');
while (Date.now() < end) {{
  const rows = [...Array(500).keys()].map(n => ({{n, s: String(n).repeat(3)}})).sort((a, b) => a.s < b.s ? -1 : 1);
  const text = JSON.stringify(rows); JSON.parse(text); zlib.deflateSync(text);
  crypto.createHash('sha256').update(text).digest(); text.match(/(\\d)\\1+/g);
}}
"""


def find(*names):
    for name in names:
        path = name if "/" in name else shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/sbin")
        if path and os.path.exists(path):
            return os.path.realpath(path)
    raise CannotRun(f"no {names[0]} on this machine")


def again(argv, seconds, **options):
    """The same command until the time is up, as a shell's loop."""
    end_time = time.monotonic() + seconds

    def loop():
        while time.monotonic() < end_time:
            subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True, **options)

    t = threading.Thread(target=loop)
    t.start()
    return t.join


def once(argv, **options):
    return spawn(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options).wait


def compiler(command, program):
    folder = temp_folder()
    with open(os.path.join(folder, "a.cpp"), "w") as f:
        f.write(CPP)
    path = find(program) if program else find(subprocess.run([command, "-print-prog-name=cc1plus"], capture_output=True, text=True).stdout.strip())
    return path, lambda: again([find(command), "-std=c++17", "-O1", "-c", "-o", "a.o", "a.cpp"], SECONDS, cwd=folder)


def nginx():
    program, folder, port = find("nginx"), temp_folder(), free_port()
    os.chmod(folder, 0o755)
    with open(os.path.join(folder, "page.txt"), "w") as f:
        f.write("".join(f"line {i} of a page that is squeezed\n" for i in range(3000)))
    with open(os.path.join(folder, "nginx.conf"), "w") as f:
        f.write(f"daemon off; master_process on; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
                f"events {{}} http {{ access_log {folder}/access.log; gzip on; gzip_types text/plain; gzip_comp_level 6;\n"
                + "".join(f"{k}_temp_path {folder}/{k};\n" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
                + f"server {{ listen 127.0.0.1:{port}; root {folder}; location / {{ rewrite ^/a/(.*)$ /$1; default_type text/plain; }} }} }}")  # fmt: skip
    p = spawn([program, "-p", folder, "-c", f"{folder}/nginx.conf"], stderr=subprocess.DEVNULL)

    def answers():
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0

    wait_for("nginx answers", answers)

    def load():
        end_time = time.monotonic() + SECONDS
        while time.monotonic() < end_time:
            c = http.client.HTTPConnection("127.0.0.1", port)
            for _ in range(50):
                c.request("GET", "/a/page.txt", headers={"Accept-Encoding": "gzip"})
                c.getresponse().read()
            c.close()

    def start():
        t = threading.Thread(target=load)
        t.start()
        return lambda: (t.join(), end(p))

    return program, start


def program(*argv, **options):
    return find(argv[0]), lambda: once([find(argv[0]), *argv[1:]], **options)


PROGRAMS = {
    "sqlite3": lambda: (find("sqlite3"), lambda: again([find("sqlite3"), ":memory:", SQL], SECONDS)),
    "python3": lambda: program("python3", "-c", PYTHON.format(seconds=SECONDS)),
    "node": lambda: program("node", "-e", NODE.format(seconds=SECONDS)),
    "openssl": lambda: program("openssl", "speed", "-seconds", "1", "sha256", "md5", "aes-128-cbc", "ecdsap256"),
    "gcc": lambda: compiler("g++", None),
    "clang": lambda: compiler("clang++", "clang"),
    "nginx": nginx,
    "rust": lambda: program(os.path.join(WORKLOADS, "tower_rust"), str(SECONDS)),
    "c++": lambda: program(os.path.join(WORKLOADS, "tower_cpp"), "deep", str(SECONDS)),
}


_entries = {}


def entries_of(module):
    """Where a program (or the dynamic linker) begins: the address, and the offset in the file, which stands for it as
    long as nobody has looked into the file."""
    if module not in _entries:
        _entries[module] = []
        try:
            with open(module, "rb") as f:
                data = f.read(4096)
        except OSError:
            data = b""
        if data[:5] == b"\x7fELF\x02":
            entry, phoff = (int.from_bytes(data[a : a + 8], "little") for a in (24, 32))
            _entries[module] = [entry]
            for at in range(phoff, phoff + 56 * int.from_bytes(data[56:58], "little"), 56):
                offset, vaddr, _, size = (int.from_bytes(data[at + i : at + i + 8], "little") for i in (8, 16, 24, 32))
                if data[at] == 1 and vaddr <= entry < vaddr + size:
                    _entries[module].append(entry - vaddr + offset)
    return _entries[module]


def root_of(frames):
    """What lies outermost, where that is a root: the entry point, or where the C library starts a thread. That has no
    exported name: it is one address, and what it called lies in the C library, too. None: the stack is cut."""
    last = frames[-1]
    if last.name in ("_start", "clone3", "__clone3", "clone", "__clone", "_dl_start_user"):
        return last.name
    if any(0 <= last.address - entry < 64 for entry in entries_of(last.module)):
        return "_start"
    both = [os.path.basename(f.module).startswith("libc.so") for f in frames[-2:]]
    return last.name if both == [True, True] and "+0x" in last.name else None


@case("stacks of the distribution's programs reach the root")
def roots():
    chosen, missing = {}, []
    for name, make in PROGRAMS.items():
        if name not in os.environ.get("ODI_PROGRAMS", name).split():
            continue
        try:
            chosen[name] = make()
        except CannotRun as e:
            missing.append(str(e))
    failures = []
    with OtlpReceiver() as receiver, Agentd(config=NO_BUDGET) as a:
        a.add_receiver(receiver)
        for name, (path, _) in chosen.items():
            a.add_process(path, "--service-name", name)
        a.enable(rate=299, interval=INTERVAL)
        for wait in [start() for _, start in chosen.values()]:
            wait()
        status = a.status()
        profiles, _ = finish(a, receiver)
        check_messages(receiver)
    ends = collections.Counter()
    begin = min(p.time for p in profiles.profiles) + WARM * 1e9
    for name in chosen:
        counts, starts, cut = {False: collections.Counter(), True: collections.Counter()}, set(), collections.Counter()
        for s in profiles.samples(name):
            frames = [f for f in s.frames if f.kind != "kernel"]
            if not frames:
                continue  # the kernel's own work in the process: before its first instruction, after its last
            root, warm = root_of(frames), s.profile.time >= begin
            kind = "whole" if root else "truncated" if frames[-1].name == "[truncated]" else "cut"
            counts[warm][kind] += s.count
            ends[frames[-1].name] += s.count
            if root:
                starts |= {root} if "+0x" in root else set()
            elif warm and kind == "cut":
                cut[" < ".join(f.name for f in frames[-12:])] += s.count
        say(f"# {name}: cold {dict(counts[False])}, warm {dict(counts[True])}")
        for chain, count in cut.most_common(8):
            say(f"#   {count} x ... {chain[:500]}")
        whole, n = counts[True]["whole"], counts[True]["whole"] + counts[True]["cut"]
        if len(starts) > 1:
            failures.append(f"{name}: threads start at {sorted(starts)}")
        if n < 40 or n - whole > few(1 - WANTED, n):
            failures.append(f"{name}: {whole} of {n} stacks reach the root")
    say(f"# outermost: {ends.most_common(12)}")
    say(f"# status: {json.dumps(field(status, 'stacks', default=None))}")
    check(not failures, "; ".join(failures))
    if missing:
        raise CannotRun("; ".join(missing))


if __name__ == "__main__":
    main()
