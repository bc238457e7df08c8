#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 600 s
"""Names of JIT-compiled code: a program that writes its own jitdump or perf map, Node and Java; what others wrote for
them is not believed; in a container by the number that the process knows itself by."""

import collections
import contextlib
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403

MADE = {"hot_one", "hot_two", "hot_three"}
SHARES = {"hot_one": 0.6, "hot_two": 0.3, "hot_three": 0.1}
ENOUGH = 1000  # samples before shares are judged
LONG = 900  # seconds: programs run until the test has seen enough

HOT_JS = """
'use strict';
function spin(n) { let s = 0; for (let i = 0; i < n; i++) s = (s + i * i) % 1000003; return s; }
class Worker { turn(n) { return spin(n) + spin(n); } }
const worker = new Worker();
for (const end = Date.now() + 1000 * Number(process.argv[2]); Date.now() < end;) worker.turn(200000);
"""

HOT_JAVA = """
public class Hot {
    static volatile int sink;
    static int spin(int n) { int s = 1; for (int i = 0; i < n; i++) s = s * 31 + (s ^ i) % 7; return s; }
    public static void main(String[] a) {
        long end = System.currentTimeMillis() + Long.parseLong(a[0]) * 1000;
        while (System.currentTimeMillis() < end) sink = spin(3000000);
    }
}
"""


@contextlib.contextmanager
def agent(**config):
    with OtlpReceiver() as receiver, Agentd(**config) as a:
        a.add_receiver(receiver)
        yield a, receiver


def forget_map(pid):
    """Perf maps lie in /tmp, whoever writes them."""
    for end_of_name in ("", ".x"):
        on_end(lambda e=end_of_name: remove(f"/tmp/perf-{pid}.map{e}"))


def remove(path):
    with contextlib.suppress(FileNotFoundError):
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        else:
            os.unlink(path)


def program(*args):
    p = spawn([os.path.join(WORKLOADS, "jit"), *map(str, args)], stdout=subprocess.PIPE, text=True)
    forget_map(p.pid)
    return p


def leaves(profiles, service):
    """{name: samples} of the innermost frames in user space that a JIT made; with them their frames."""
    counts, frames = collections.Counter(), {}
    for s in profiles.samples(service):
        if s.user_frames:
            f = s.user_frames[0]
            counts[f.name] += s.count
            frames.setdefault(f.name, f)
    return counts, frames


def after(receiver, since, service):
    """What was sampled later than a moment (of time.time())."""
    kept = check_otlp.Profiles()
    kept.profiles = [p for p in unique(receiver).profiles if p.time / 1e9 > since and p.service == service]
    return kept


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        words = f.read().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def check_made(counts, what):
    n = sum(counts.values())
    made = sum(counts.get(name, 0) for name in MADE)
    check(n >= ENOUGH, f"{what}: {n} samples")
    check(made >= 0.95 * n, f"{what}: {n - made} of {n} samples in none of {sorted(MADE)}:", counts)


def wait_samples(receiver, since, service, at_least, leaf=None):
    """Until so many samples (of this leaf) arrived that were taken later than `since`."""

    def enough():
        counts, _ = leaves(after(receiver, since, service), service)
        return (counts.get(leaf, 0) if leaf else sum(counts.values())) >= at_least

    wait_for(f"{at_least} samples of {leaf or service}", enough, 40, 0.3)


def run_program(mode, folder):
    with agent() as (a, receiver):
        service = f"jit-{mode}"
        a.add_process("jit", "--service-name", service)
        a.enable()
        time.sleep(0.5)
        p = program(LONG, mode, folder)
        equal(p.stdout.readline(), "ready\n", "what the program says")
        since = time.time() + 1.0  # of an interval in which code moved, either name may be told
        wait_samples(receiver, since, service, ENOUGH)
        p.terminate()
        equal(p.wait(), -signal.SIGTERM, "exit status")
        a.settle(receiver, service, ENOUGH)
        profiles = after(receiver, since, service)
        counts, frames = leaves(profiles, service)
        check_messages(receiver)
        a.check_ledger()
    check_made(counts, mode)
    check_shares(counts, SHARES, mode)
    return frames, p.pid, profiles


@case("a program that writes a jitdump: names, lines and moves; the last of it, too, when it is gone")
def jitdump():
    frames, pid, profiles = run_program("dump", temp_folder())
    for name in MADE:
        f = frames[name]
        equal(f.system_name, name, "system name")
        equal(f.file, "demo.src", f"file of {name}")
        equal(f.kind, "native", "frame type")
        equal(f.module, f"jit-{pid}.dump", "mapping")
    lines = {s.user_frames[0].line for s in profiles.samples() if s.user_frames and s.user_frames[0].name in MADE}
    check(9 in lines and lines <= {7, 9}, f"lines {lines}")
    # The callers are there. Such code has no rules for unwinding, only its frame pointer: until its second instruction
    # has set that, and after the last but one has given it back, it is its caller's, and the walk goes from the caller's
    # caller on (hot_two < main, without turn). That is a few instructions of a loop of hundreds of thousands; but where
    # programs are put off the CPU, interrupts fall upon a call more often: 3 of 2,100 samples were seen.
    chains = collections.Counter({c: n for c, n in profiles.chains().items() if c and c[0] in MADE})
    bad = sum(n for c, n in chains.items() if c[1:3] != ("turn", "main"))
    n = sum(chains.values())
    check(bad <= few(0.01, n), f"{bad} of {n} samples with another chain:", chains.most_common(8))


@case("a program that writes a perf map: code over code has the later name")
def perf_map():
    frames, pid, _ = run_program("map", "/tmp")
    equal(frames["hot_one"].module, f"perf-{pid}.map", "mapping")
    equal(frames["hot_one"].file, "", "file")


@case("without a map: [jit], and nowhere [unknown]; a map that comes late is found")
def late_map():
    with agent() as (a, receiver):
        a.add_process("jit", "--service-name", "late")
        a.enable()
        p = program(LONG, "none")
        equal(p.stdout.readline(), "ready\n", "what the program says")
        a.settle_running(receiver, "late", 300)
        counts, frames = leaves(unique(receiver), "late")
        check(counts.get("[jit]", 0) >= 0.9 * sum(counts.values()), "named [jit]:", counts)
        equal((frames["[jit]"].module, frames["[jit]"].kind, frames["[jit]"].system_name), ("[jit]", "native", ""),
              "mapping, type and system name")  # fmt: skip
        check(frames["[jit]"].address > 4096, "the address is kept")
        names = {f.name for s in unique(receiver).samples() for f in s.frames}
        check(not any("[unknown]" in n for n in names), "unknown names", names)
        # its code is in the one executable mapping that has no file
        with open(f"/proc/{p.pid}/maps") as f:
            start = next(line.split("-")[0] for line in f if "rwxp" in line)
        with open(f"/tmp/perf-{p.pid}.map", "w") as f:
            f.write(f"{start} 1000 late_name\n")
        wait_for("the late map's name", lambda: unique(receiver).flat("late").get("late_name"), 40, 0.5)
        p.terminate()
        p.wait()
        a.check_ledger()


@case("maps that somebody else made for a process are not believed, and do not stop anything")
def not_believed():
    with agent() as (a, receiver):
        a.add_process("jit", "--service-name", "victim")
        ways = {
            "link": lambda path: os.symlink(make(path + ".x"), path),
            "two names": lambda path: os.link(make(path + ".x"), path),
            "owner": lambda path: os.chown(make(path), 65534, 65534),
            "fifo": lambda path: os.mkfifo(path),
            "folder": lambda path: os.mkdir(path),
        }

        def make(path):
            with open(path, "w") as f:
                start = [line.split("-")[0] for line in open(f"/proc/{pid}/maps") if "rwxp" in line][0]
                f.write(f"{start} 1000 planted\n")
            return path

        programs = []
        for what, plant in ways.items():
            p = program(LONG, "none")
            equal(p.stdout.readline(), "ready\n", "what the program says")
            pid = p.pid
            plant(f"/tmp/perf-{pid}.map")
            programs.append(p)
        a.enable()
        a.settle_running(receiver, "victim", 600, 60)
        # A map that is looked at later would name what comes later.
        since = time.time()
        wait_samples(receiver, since, "victim", 600)
        counts, _ = leaves(unique(receiver), "victim")
        check("planted" not in counts, "a planted name:", counts)
        check(counts.get("[jit]", 0) > 0.9 * sum(counts.values()), "named [jit]:", counts)
        # The same by its owner, under one name, is.
        remove(f"/tmp/perf-{programs[0].pid}.map")
        pid = programs[0].pid
        make(f"/tmp/perf-{pid}.map")
        wait_for("the owner's map", lambda: unique(receiver).flat("victim").get("planted"), 60, 0.5)
        for p in programs:
            p.terminate()
            p.wait()
            remove(f"/tmp/perf-{p.pid}.map.x")
            remove(f"/tmp/perf-{p.pid}.map")
        check(a.alive(), "the agent lives")
        a.check_ledger()


@case("two programs with the same addresses keep their own names")
def apart():
    with agent() as (a, receiver):
        a.add_process("jit", "--service-name", "apart")
        a.enable()
        programs = [spawn(["setarch", "-R", os.path.join(WORKLOADS, "jit"), str(LONG), "none"], stdout=subprocess.PIPE,
                          text=True) for _ in range(2)]  # fmt: skip
        starts = []
        for i, p in enumerate(programs):
            equal(p.stdout.readline(), "ready\n", "what the program says")
            forget_map(p.pid)
            with open(f"/proc/{p.pid}/maps") as f:
                starts.append(next(line.split("-")[0] for line in f if "rwxp" in line))
            with open(f"/tmp/perf-{p.pid}.map", "w") as f:
                f.write(f"{starts[-1]} 1000 of_{i}\n")
        equal(starts[0], starts[1], "addresses")
        wait_for("both names", lambda: {"of_0", "of_1"} <= set(unique(receiver).flat("apart")), 40, 0.5)
        # Each has as many as it has CPU time: on a busy host that need not be half of it.
        since, before = time.time(), [cpu_seconds(p.pid) for p in programs]
        for i in range(2):
            wait_samples(receiver, since, "apart", 600, f"of_{i}")
        flat = after(receiver, since, "apart").flat("apart")
        each = [flat[f"of_{i}"] / (cpu_seconds(p.pid) - before[i]) for i, p in enumerate(programs)]
        check(0.5 < each[0] / each[1] < 2, f"samples by second of CPU time: {each};", flat)
        for p in programs:
            p.terminate()
            p.wait()
        a.check_ledger()


@case("Node with --perf-basic-prof: functions by their names, with script and line")
def node():
    path = shutil.which("node") or shutil.which("nodejs")
    if not path:
        raise CannotRun("node is not installed")
    # of a name of its own: others' may run on this machine
    path = shutil.copy(os.path.realpath(path), os.path.join(temp_folder(), "node"))
    script = os.path.join(temp_folder(), "hot app.js")
    with open(script, "w") as f:
        f.write(HOT_JS)
    with agent() as (a, receiver):
        a.add_source("process", path, "--service-name", "node")
        a.enable()
        time.sleep(0.3)
        p = spawn([path, "--perf-basic-prof", "--interpreted-frames-native-stack", script, str(LONG)])
        forget_map(p.pid)
        a.settle_running(receiver, "node", 2000)  # many, for there is some work before the loop
        p.terminate()
        p.wait()
        profiles = a.settle(receiver, "node", 2000)
        a.check_ledger()
    spin = [f for s in profiles.samples("node") for f in s.user_frames if f.name == "spin"]
    flat = profiles.flat("node")
    check(flat["spin"] >= 0.8 * sum(flat.values()), "most of it is in spin:", flat.most_common(8))
    check(spin[0].system_name.startswith("JS:") and script in spin[0].system_name, f"raw name {spin[0].system_name}")
    equal((spin[0].file, spin[0].kind, spin[0].module), (script, "v8js", f"perf-{p.pid}.map"), "file, type, mapping")
    chains = collections.Counter({c: n for c, n in profiles.chains("node").items() if c and c[0] == "spin"})
    good = sum(n for c, n in chains.items() if c[1:2] == ("turn",) and "Module._compile" in c and "node::Start" in c)
    check(good >= 0.5 * sum(chains.values()), f"callers: {good} of {sum(chains.values())}", chains.most_common(3))


@case("Java told to write its map by jcmd: names from then on")
def java():
    if not shutil.which("javac") or not shutil.which("jcmd"):
        raise CannotRun("no JDK on this machine")
    folder = temp_folder()
    with open(os.path.join(folder, "Hot.java"), "w") as f:
        f.write(HOT_JAVA)
    subprocess.run(["javac", "Hot.java"], cwd=folder, check=True)
    with agent() as (a, receiver):
        a.add_source("process", os.path.realpath(shutil.which("java")), "--service-name", "java")
        a.enable()
        p = spawn(["java", "-XX:+PreserveFramePointer", "-cp", folder, "Hot", str(LONG)])
        forget_map(p.pid)
        started = time.time()
        wait_for("the loop is compiled, and unnamed", lambda: leaves(unique(receiver), "java")[0]["[jit]"] > 300, 40, 0.3)
        wait_samples(receiver, started, "java", 600)
        counts, frames = leaves(unique(receiver), "java")
        check(not any("spin" in name for name in counts), "named before it was asked for:", counts)
        equal(frames["[jit]"].kind, "jvm", "frame type")
        subprocess.run(["jcmd", str(p.pid), "Compiler.perfmap"], check=True, stdout=subprocess.DEVNULL)
        wait_for("names of Java's functions", lambda: leaves(unique(receiver), "java")[0]["int Hot.spin(int)"], 40, 0.5)
        since = time.time() + 1.0
        wait_samples(receiver, since, "java", ENOUGH)
        counts, frames = leaves(after(receiver, since, "java"), "java")
        check(counts["int Hot.spin(int)"] > 0.8 * sum(counts.values()), "most of it is in spin:", counts)
        equal((frames["int Hot.spin(int)"].kind, frames["int Hot.spin(int)"].module), ("jvm", f"perf-{p.pid}.map"),
              "type, mapping")  # fmt: skip
        p.terminate()
        p.wait()
        a.check_ledger()


@case("in a container, by the number that the process knows itself by")
def container():
    with Docker() as docker:
        docker.image("odi-test/jit:1", ["jit"])
        with agent(config=f"containers:\n  docker-root: {docker.data}\n") as (a, receiver):
            a.add_source("container", "odi-jit")
            a.enable()
            docker.start("odi-test/jit:1", "odi-jit", "/jit", str(LONG), "map", "/tmp",
                         options=("--tmpfs", "/tmp:exec"))  # fmt: skip
            wait_for("names", lambda: unique(receiver).flat("odi-jit").get("hot_three", 0) > 20, 30, 0.5)
            _, frames = leaves(unique(receiver), "odi-jit")
            equal(frames["hot_three"].module, "perf-1.map", "mapping")
            docker.remove("odi-jit")
            a.check_ledger()


if __name__ == "__main__":
    main()
