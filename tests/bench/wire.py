# SPDX-License-Identifier: Apache-2.0
"""What goes over the wire: bytes an hour of a busy host with 16 services, raw and packed, and what lines and inlined
functions are of it.

The programs are those that hosts have: interpreters, compilers, compressors, sort, git, and ours in C++, Go and Rust
(which have debug information, unlike most packages). Every one is a service of its own and runs all the time, so both
CPUs are always busy. What would go out without lines, or without inlined functions, is what did go out without them,
packed at the same level; the rest of each request stays."""

import gzip
import zlib

from cost import *  # noqa: F403
from odi_harness import OtlpReceiver

PYTHON = {
    "json": "import json\nx={str(i):[i,{'k':str(i)*3}] for i in range(500)}\nwhile True: json.loads(json.dumps(x, indent=1))",
    "regex": "import re\np=re.compile(r'(a+|b+)*c[0-9]{2,5}(x|y)')\ns='aabbab'*3+'c1234y'\nwhile True: p.findall(s*20)",
    "sqlite": "import sqlite3\nwhile True:\n c=sqlite3.connect(':memory:')\n c.execute('create table t(a,b)')\n"
    " c.executemany('insert into t values(?,?)',((i,str(i)) for i in range(2000)))\n"
    " c.execute('select b,count(*) from t group by b order by 2').fetchall()",
    "web": "from http.server import *\nimport threading,urllib.request as u\nclass H(SimpleHTTPRequestHandler):\n"
    " def log_message(self,*a): pass\n def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b'x'*9999)\n"
    "s=ThreadingHTTPServer(('127.0.0.1',0),H)\nthreading.Thread(target=s.serve_forever,daemon=True).start()\n"
    "while True: u.urlopen(f'http://127.0.0.1:{s.server_port}/').read()",
}


def programs(folder):
    """16 (service, argv)."""
    data, code = os.path.join(folder, "data"), os.path.join(folder, "x.cpp")
    with open(data, "w") as f:
        f.writelines(f"{i * 7919 % 100003} line {i} of text that compresses a little\n" for i in range(60000))
    with open(code, "w") as f:
        f.write("#include <map>\n#include <regex>\n#include <string>\nint main() { std::map<std::string, std::regex> m; "
                'm["a"] = std::regex("a+b*"); return m.size(); }\n')  # fmt: skip
    loop = lambda words: ["sh", "-c", f"while :; do {words}; done"]  # noqa: E731
    found = [(f"python-{k}", ["python3", "-c", v]) for k, v in PYTHON.items()]
    for name, needs, words in (
        ("g++", "g++", f"g++ -O1 -c -o {folder}/g.o {code}"), ("clang", "clang++", f"clang++ -O1 -c -o {folder}/c.o {code}"),
        ("gzip", "gzip", f"gzip -9 -c {data} >/dev/null"), ("xz", "xz", f"xz -3 -c {data} >/dev/null"),
        ("sort", "sort", f"sort -n {data} >/dev/null"), ("awk", "awk", f"awk '{{a[$1]+=NR}} END {{print length(a)}}' {data} >/dev/null"),
        ("openssl", "openssl", f"openssl dgst -sha512 {data} >/dev/null"), ("git", "git", f"git -C {os.getcwd()} log -p -n 200 >/dev/null"),
        ("perl", "perl", f"perl -ne '$h{{$1}}++ if /(\\d+) of/' {data}")):  # fmt: skip
        if shutil.which(needs):
            found.append((name, loop(words)))
    workloads = os.path.join(BUILD, "workloads")
    for n in range(64):
        name = ("shares_cpp", "shares_go", "shares_rust", "shares_c")[n % 4]
        path = os.path.join(workloads, name)
        if len(found) < 16 and os.path.exists(path):
            found.append((f"{name}-{n}", [path, "100000"]))
    if len(found) < 16:
        raise CannotRun(f"only {len(found)} programs: make the workloads")
    return found[:16]


def without(message, lines, inlines):
    m = type(message)()
    m.CopyFrom(message)
    d = m.dictionary
    for location in d.location_table:
        if not inlines:
            del location.lines[:-1]
        for line in location.lines if not lines else ():
            line.line = line.column = 0
    for function in d.function_table if not lines else ():
        function.start_line = function.filename_strindex = 0
    kept = {line.function_index for location in d.location_table for line in location.lines}
    for i, function in enumerate(d.function_table):
        if i not in kept:
            function.Clear()
    # Texts that nothing names any more; those of attributes and types are few and short.
    used = {i for f in d.function_table for i in (f.name_strindex, f.system_name_strindex, f.filename_strindex)}
    before = {i for f in message.dictionary.function_table for i in (f.name_strindex, f.system_name_strindex, f.filename_strindex)}
    for i in before - used - {x.filename_strindex for x in d.mapping_table}:
        d.string_table[i] = ""
    return m.SerializeToString()


def packed(body):
    c = zlib.compressobj(6, zlib.DEFLATED, 31)
    return len(c.compress(body) + c.flush())


def per_hour(total, took):
    return f"{total * 3600 / took / 1e6:.1f} MB"


def wire(table):
    folder, length, group = temp_folder(), max(seconds(60), 20), f"odi-bench-{os.getpid()}"
    groups, running = make_cgroup(group, ("v2",)), []

    def enter():
        with open(os.path.join(groups[0], "cgroup.procs"), "w") as f:
            f.write(str(os.getpid()))

    with OtlpReceiver() as each, OtlpReceiver() as longer, Measured() as a:
        a.add_receiver(each, "each")
        a.add_receiver(longer, "longer")
        a.ctl("destination", "set", "longer", "upload-interval=30s")
        for name, argv in programs(folder):
            running.append(spawn(argv, env=dict(os.environ, OTEL_SERVICE_NAME=name), stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL, start_new_session=True, preexec_fn=enter))  # fmt: skip
        try:
            # These and nothing else, so that it is 16 services on a host that does more, too.
            a.add_source("cgroup", "/" + group)
            a.ctl("profiling", "enable", "--rate", 99)
            time.sleep(seconds(15))  # names of what is met first
            each.reset()
            wait_for("a whole minute's begin", lambda: time.time() % 30 < 1, 40)
            each.reset(), longer.reset()
            time.sleep(length + 1)
            requests, taken = list(each.requests), a.ledger()
            # The span that is over goes out with the last batch of it.
            wait_for("the longer uploads", lambda: longer.requests, 60)
        finally:
            for p in running:
                os.killpg(p.pid, 9)
                p.wait()
    messages = [r.message for r in requests]
    profiles = [p for m in messages for r in m.resource_profiles for s in r.scope_profiles for p in s.profiles]
    took = sum(dict((p.time_unix_nano, p.duration_nano) for p in profiles).values()) / 1e9
    raw, sent = sum(len(gzip.decompress(r.body)) for r in requests), sum(len(r.body) for r in requests)
    samples = sum(len(s.timestamps_unix_nano) or sum(s.values) for p in profiles for s in p.samples)
    services = {v.value.string_value for m in messages for r in m.resource_profiles for v in r.resource.attributes
                if v.key == "service.name"}  # fmt: skip
    parts = {}
    for what, lines, inlines in (("no inlined functions", True, False), ("no lines", False, True), ("neither", False, False)):
        bodies = [without(m, lines, inlines) for m in messages]
        parts[what] = f"{what} {per_hour(sum(map(packed, bodies)), took)} ({per_hour(sum(map(len, bodies)), took)})"
    spans = {p.time_unix_nano: p.duration_nano for r in longer.requests for x in r.message.resource_profiles
             for s in x.scope_profiles for p in s.profiles}  # fmt: skip
    merged = sum(len(r.body) for r in longer.requests) / max(sum(spans.values()) / 1e9, 1)
    table.add("bytes an hour on the wire, 16 services, 2 CPUs busy, 99 Hz", f"{per_hour(sent, took)} ({per_hour(raw, took)} raw)", "", None,
              f"{'; '.join(parts.values())}; uploads of 30 s {per_hour(merged, 1)}; {samples / max(took, 1):.0f} samples/s, "
              f"{len(services)} services", sent=sent, raw=raw, seconds=took, lost=taken.get("lost"))  # fmt: skip
