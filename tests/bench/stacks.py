# SPDX-License-Identifier: Apache-2.0
"""The benchmark's parts about what is seen: stacks to the root, first samples, short lives, storms of exec."""

import threading

from cost import *  # noqa: F403
from load import CPP

SCRIPT = """
import json, re
while True:
    j = json.dumps(sorted([(str(i * 7919 % 101), i / 3) for i in range(300)], key=lambda x: x[0]))
    re.sub("[0-9]+", lambda m: m[0] + "x", repr(json.loads(j)))
"""
JAVASCRIPT = """
for (let i = 0; ; i++) {
  const a = [];
  for (let k = 0; k < 300; k++) a.push({ k: (k * 7919) % 101, s: "x" + k });
  a.sort((x, y) => x.k - y.k);
  JSON.parse(JSON.stringify(a)).map((x) => x.s.replace(/x(.)/, "$1"));
}
"""
QUERY = ("with recursive c(x) as (select 1 union all select x+1 from c where x<1e12) "
         "select max(abs(x)), group_concat(printf('%d', x)) from c group by x % 1000 order by 1")  # fmt: skip


def share(part, whole):
    return 100 * int(part) / max(int(whole), 1)


# ---- stacks to the root -------------------------------------------------------------------------------------------


class Loop:
    """A command again and again."""

    def __init__(self, argv):
        self.done = threading.Event()
        self.argv = argv
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.done.is_set():
            subprocess.run(self.argv, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self):
        self.done.set()
        self.thread.join()


class Once:
    def __init__(self, argv):
        self.process = spawn(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    def stop(self):
        self.process.kill()
        self.process.wait()


class Nginx:
    """A server that compresses what it is asked for, and who asks."""

    def __init__(self, path):
        folder, port = temp_folder(), free_port()
        os.chmod(os.path.dirname(folder), 0o755)
        os.chmod(folder, 0o755)
        with open(os.path.join(folder, "page.txt"), "w") as f:
            f.writelines(f"line {i * 7919 % 10007} of the page\n" for i in range(4000))
        with open(os.path.join(folder, "nginx.conf"), "w") as f:
            f.write(f"""user root; daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{}}
http {{ access_log off; gzip on; gzip_types text/plain; default_type text/plain; keepalive_requests 1000000;
client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
server {{ listen 127.0.0.1:{port}; root {folder}; }} }}
""")
        self.server = spawn([path, "-p", folder, "-c", os.path.join(folder, "nginx.conf")], stderr=subprocess.DEVNULL)
        wait_for("nginx answers", lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        self.client = Loop(["curl", "-s", "--compressed", "--limit-rate", "1G", "-o", "/dev/null", f"http://127.0.0.1:{port}/page.txt?[1-2000]"])

    def stop(self):
        end(self.server)
        self.client.stop()


def programs_to_try():
    """(name, path of the executable or None, how to run it)."""
    source = os.path.join(temp_folder(), "x.cpp")
    with open(source, "w") as f:
        f.write(CPP)
    which = lambda name: os.path.realpath(shutil.which(name) or f"/usr/sbin/{name}")  # noqa: E731
    cc1 = subprocess.run(["g++", "-print-prog-name=cc1plus"], capture_output=True, text=True).stdout.strip()
    script = os.path.join(temp_folder(), "work.py")
    with open(script, "w") as f:
        f.write(SCRIPT)
    python = os.path.realpath("/usr/bin/python3")
    return [
        ("clang", which("clang++"), lambda p: Loop(["clang++", "-O1", "-c", "-o", "/dev/null", source])),
        ("gcc", cc1, lambda p: Loop(["g++", "-O1", "-c", "-o", "/dev/null", source])),
        ("sqlite3", which("sqlite3"), lambda p: Once([p, ":memory:", QUERY])),
        ("nginx", which("nginx"), Nginx),
        ("node", which("node"), lambda p: Once([p, "-e", JAVASCRIPT])),
        ("python3", python, lambda p: Once([p, script])),
        ("openssl speed", which("openssl"), lambda p: Loop([p, "speed", "-seconds", "1", "rsa2048", "sha256", "aes-128-cbc", "ecdhx25519"])),
        ("a Rust release program", os.path.join(PROGRAMS, "release_rust"), lambda p: Once([p])),
        ("a C++ release program", os.path.join(PROGRAMS, "release_cpp"), lambda p: Once([p])),
    ]


def roots(table):
    only = [w for w in os.environ.get("ODI_BENCH_PROGRAMS", "").split(",") if w]
    for name, path, run in programs_to_try():
        if only and name not in only:
            continue
        if not os.path.exists(path):
            table.add(f"stacks to the root: {name}", "not installed", ">= 99.5 %", None)
            continue
        with Measured() as a:
            a.add_source("process", path)
            a.enable(rate=99, interval="2s")
            load = run(path)
            try:
                time.sleep(seconds(10))
                s = a.stacks()
                why = a.why_not()
            finally:
                load.stop()
        got = share(s.get("to_root", 0), s.get("samples", 0))
        table.add(f"stacks to the root: {name}", f"{got:.2f} % of {s.get('samples', 0)}", ">= 99.5 %", got >= 99.5,
                  f"{share(s.get('guessed_samples', 0), s.get('samples', 0)):.2f} % with a guess{'; ' if why else ''}{why}", stacks=s)  # fmt: skip


# ---- first samples ------------------------------------------------------------------------------------------------


def never_seen(name):
    """A copy of a program that no one has seen: another file, other contents."""
    path = os.path.join(temp_folder(), f"{name}-{os.urandom(3).hex()}")
    shutil.copy(program(name), path)
    with open(path, "ab") as f:
        f.write(os.urandom(64))
    return path


def first(table):
    for name, argv in (("deep", ["104"]), ("large", [])):
        with Measured() as a:
            path = never_seen(name)
            a.add_source("process", path)
            a.enable(rate=99, interval="2s")
            time.sleep(seconds(1))
            p = spawn([path, *argv])
            time.sleep(seconds(5))
            p.kill()
            p.wait()
            time.sleep(0.5)
            s, why = a.stacks(), a.why_not()
        missing = int(s.get("samples", 0)) - int(s.get("to_root", 0))
        size = os.path.getsize(path) / 1e6
        table.add(f"samples of a never-seen binary ({size:.1f} MB) before whole ones", f"{missing} of {s.get('samples', 0)}", "0",
                  missing == 0 and int(s.get("samples", 0)) > 0, why or "all to the root, the first one too", stacks=s)  # fmt: skip
    starved(table)


def whole_seen(a):
    r = a.run("flamegraph", "--format", "folded", "-o", "-")
    for line in r.stdout.splitlines():
        frames = line.rsplit(" ", 1)[0].split(";")
        if any("_start" in f for f in frames) and "leaf" in frames[-1] and len(frames) >= 100:
            return True
    return False


def starved(table):
    for busy in (0, 15):
        with Measured() as a:
            load = Deep([104], pinned=False, how_many=max(busy, 1))
            time.sleep(seconds(1))
            start = time.monotonic()
            a.all_on()
            wait_for("a whole stack", lambda: whole_seen(a), 30, 0.02)
            took = time.monotonic() - start
            load.stop()
        table.add("from `profiling enable` to a flame graph with a whole stack" + (f", {busy} threads busy" if busy else ""),
                  f"{took:.2f} s", "<= 1 s" if busy else "", took <= 1 if busy else None,
                  "OpenTelemetry 16.5 s" if busy else "OpenTelemetry 3.4 s")  # fmt: skip


# ---- short lives --------------------------------------------------------------------------------------------------


def storm(rate, length, path, *argv):
    r = subprocess.run([program("storm"), str(rate), str(length), path, *argv], capture_output=True, text=True, check=True)
    return json.loads(r.stdout)


def seen(a):
    """(profiled, with a user stack, to the root)."""
    s, ledger = a.stacks(), a.ledger()
    return [int(x or 0) for x in (ledger.get("profiled", 0) + ledger.get("open", 0), s.get("samples"), s.get("to_root"))]


def named(a, path):
    """The share of samples, in percent, whose frames of this file all have names. Those of libraries without symbols keep
    file and offset."""
    total, good = 0, 0
    for line in a.run("flamegraph", "--format", "folded", "-o", "-").stdout.splitlines():
        frames, weight = line.rsplit(" ", 1)
        total += int(weight)
        good += 0 if os.path.basename(path) + "+0x" in frames else int(weight)
    return share(good, total)


def brief(table):
    with Measured() as a:
        path = never_seen("brief")
        a.add_source("process", path)
        a.enable(rate=99, interval="2s")
        time.sleep(1)
        first_run = storm(20, 1, path)
        time.sleep(5)
        begin = seen(a)
        first_names = named(a, path)
        ran = storm(20, seconds(60), path)
        time.sleep(5)
        after = seen(a)
        names = named(a, path)
        ledger = a.ledger()
        why = a.why_not()
    for title, got, run, names in (("the very first second", begin, first_run, first_names),
                                   ("a minute, the binary seen before", [x - y for x, y in zip(after, begin)], ran, names)):  # fmt: skip
        profiled, stacks, to_root = got
        expected = run["cpu_ns"] * 99 / 1e9
        attributed = 100 * profiled / max(expected, 1)
        noise = 300 * max(expected, 1) ** -0.5  # three deviations of a count
        bar = "100 %" if run is ran else ""
        met = attributed >= 100 - noise and stacks > 0 and to_root == stacks and names == 100 and ledger["lost"] == 0 if bar else None
        table.add(f"100 ms processes, 20 a second, {title}",
                  f"{attributed:.1f} % of what CPU time says (± {noise:.1f}), {names:.2f} % named, {share(to_root, stacks):.2f} % to the root",
                  bar, met, f"{run['started']} processes, {profiled} samples, {ledger['lost']} lost{'; ' if why else ''}{why}",
                  run=run, ledger=ledger)  # fmt: skip


def execs(table):
    """2,000 exec a second for 10 s."""
    bpf_stats(True)
    with Measured() as a:
        a.all_on()
        time.sleep(seconds(3))
        start = sum(a.cost.memory()) / 1e6
        result = {}
        t = threading.Thread(target=lambda: result.update(storm(2000, seconds(10), program("nothing"))))
        w = Window(a)
        t.start()
        peak = watch(a, seconds(10), 0.5)
        t.join()
        row = w.close(peak)
        try:
            ledger = wait_for("the ledger closes", a._closed_ledger, 20, 0.3)
            closes = "closes"
        except AssertionError:
            ledger, closes = a.ledger(), ledger_gap(a.ledger())
        restarts = sum(int(p.get("restarts", 0)) for p in field(a.status(), "processes", default=[]))
        alive = a.alive()
    bpf_stats(False)
    total = row["cpu_percent"] + row["bpf_percent"]
    ok = alive and closes == "closes" and row["peak_mb"] <= 60 and restarts == 0 and total <= 30
    table.add(f"{result['started'] / result['seconds']:.0f} exec a second for {result['seconds']:.0f} s",
              f"agentd {row['cpu_percent']:.1f} + {row['bpf_percent']:.1f} % of a CPU; {start:.0f} MB, peak {row['peak_mb']:.0f}; ledger {closes}",
              "no crash, <= 60 MB, <= 30 % of a CPU, ledger closes", ok,
              f"{ledger['lost']} of {ledger['taken']} samples lost, {restarts} restarts; {row['roles_percent']}", **row, ledger=ledger)  # fmt: skip
