#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 400 s
"""agentd under everything at once: what it does stays right, nothing of it grows, and it ends when asked."""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403

RATE = 499
SANITIZED = "asan" in open(AGENTD, "rb").read(1 << 20).decode("latin-1")


def descriptors(pid):
    """What a process holds, by kind; but for the files that are profiled, of which it may keep so many open."""
    held = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            kind = os.readlink(f"/proc/{pid}/fd/{fd}").split(":[")[0]
        except OSError:
            continue
        if not kind.startswith("/") or kind.startswith("/memfd:odi"):
            held[kind] = held.get(kind, 0) + 1
    return held


def bpf_held(pid):
    return {k: n for k, n in descriptors(pid).items() if "bpf" in k or "perf_event" in k}


def pss(pid):
    """But for the kernel's memory that is mapped: that fills up to its bound as the host's programs are met."""
    total, counts = 0, False
    with open(f"/proc/{pid}/smaps") as f:
        for line in f:
            if re.match(r"[0-9a-f]+-", line):
                counts = "bpf-map" not in line
            elif line.startswith("Pss:") and counts:
                total += int(line.split()[1]) * 1024
    return total


def at_once(a, commands):
    """odictl so many times in parallel; answers (exit status, both outputs) of each."""
    env = dict(os.environ, ODI_SOCKET=a.socket)
    running = [spawn([ODICTL, *c], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                     text=True, env=env) for c in commands]  # fmt: skip
    return [(p.communicate(timeout=60 * PATIENCE)[0], p.returncode) for p in running]


def storm(seconds, each=20):
    """Short-lived processes, so many at a time, in a process of its own; answers Popen."""
    script = f"""
import os, subprocess, time
end = time.monotonic() + {seconds}
n = 0
while time.monotonic() < end:
    pids = []
    for _ in range({each}):
        pid = os.posix_spawn("/bin/true", ["true"], {{}})
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    n += {each}
print(n)
"""
    return spawn([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


@case("profiling on and off 30 times: no program, descriptor or memory stays; every sample is accounted for")
def on_and_off():
    with Agentd() as a:
        a.add_process("shares_c")  # not the host: of all that a busy one runs agentd gets to know more and more
        w = Workload("shares_c")
        a.ctl("profiling", "enable", "--rate", RATE, "--interval", "1s")
        time.sleep(1.2)
        wait_for("all children at work", lambda: a.run("top") and a.children("symbolizer") and a.children("proc"), 20)
        a.ctl("profiling", "disable")
        equal(bpf_held(a.pid), {}, "held while profiling is off")
        time.sleep(1)
        for i in range(38):
            if i == 8:  # the first rounds fill what is kept for good
                before, memory = descriptors(a.pid), pss(a.pid)
            a.ctl("profiling", "enable")
            check(bpf_held(a.pid), "nothing is loaded while profiling is on")
            if i % 10 == 9:
                time.sleep(0.3)
            a.ctl("profiling", "disable")
            equal(bpf_held(a.pid), {}, f"held while profiling is off, round {i}")
        w.stop()
        grown = pss(a.pid) - memory
        say(f"# descriptors {before} and {descriptors(a.pid)}; memory {memory >> 10} KB, {grown >> 10} KB more")
        wait_for("no more descriptors than before", lambda: sum(descriptors(a.pid).values()) <= sum(before.values()), 10)
        if not SANITIZED:
            check(grown < 4 << 20, f"30 rounds cost {grown >> 10} KB")
        a.check_ledger()


@case("500 times status: no descriptor and no memory stays")
def many_status():
    with Agentd() as a:
        a.add_process("shares_c")  # not the host, as above
        a.enable()
        w = Workload("shares_c")
        wait_for("all children at work", lambda: a.run("top") and a.children("symbolizer") and a.children("proc"), 20)
        time.sleep(1.5)
        before, memory = sum(descriptors(a.pid).values()), pss(a.pid)
        for _ in range(25):
            for out, status in at_once(a, [["status", "--json"]] * 20):
                check(status in (0, 1), f"status: {status}: {out[:300]}")
        grown = pss(a.pid) - memory
        say(f"# descriptors {before}, then {descriptors(a.pid)}; memory {memory >> 10} KB, {grown >> 10} KB more")
        wait_for("no more descriptors than before, but for two children's that come and go",
                 lambda: sum(descriptors(a.pid).values()) <= before + 4, 10)  # fmt: skip
        if not SANITIZED:
            check(grown < 8 << 20, f"500 answers cost {grown >> 10} KB")
        w.stop()


@case("rate, interval and kernel frames change while sampling: nothing is lost")
def settings():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        source = a.add_process("shares_c", "--service-name", "steady")
        a.enable(rate=199)
        w = Workload("shares_c")
        rng = seed()
        for _ in range(24):
            a.ctl("profiling", "enable", "--rate", rng.choice([49, 199, 499, 997]), "--interval",
                  rng.choice(["1s", "2s", "10s"]))  # fmt: skip
            time.sleep(0.05 + 0.15 * rng.random())
        a.ctl("profiling", "enable", "--rate", 199, "--interval", "1s")
        report = w.stop()
        profiles, ledger = a.finish(receiver)
        equal(field(a.sources()[source], "samples"), profiles.total("steady"), "samples of the source, against what arrived")
        # Each sample says what it stands for, whatever the rate was when.
        counts = [(p.period, sum(x.count for x in p.samples)) for p in profiles.profiles if p.service == "steady"]
        took, n = sum(period * count for period, count in counts), profiles.total("steady")
        # Where others run, too, it is by chance whose a tick is; of a late one it is not known.
        margin = max(0.08 * report["cpu_ns"], SIGMA * math.sqrt(sum(period * period * count for period, count in counts)))
        late = ledger["late"] * took / n
        say(f"# {n} samples, {took / 1e9:.3f} s of {report}, +- {margin / 1e9:.3f} s; {ledger['late']} late")
        check(-margin - late < took - report["cpu_ns"] < margin, f"{took / 1e9:.3f} s arrived of {report}")
        check_messages(receiver)


@case("a storm of short processes, with questions from ten clients at once: all are answered, nothing is lost")
def storms():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_source("host")
        a.enable()
        s = storm(5)
        for _ in range(3):
            commands = [["top"], ["flamegraph", "-o", "-", "--format", "folded"], ["top", "--by", "service"], ["source", "candidates"],
                        ["source", "candidates"], ["source", "list"], ["source", "show", "host"], ["status"], ["top"],
                        ["flamegraph", "-o", "-", "--format", "json"]]  # fmt: skip
            for c, (out, status) in zip(commands, at_once(a, commands)):
                check(status == 0 or c == ["status"] and status == 1, f"odictl {' '.join(c)}: {status}: {out[:400]}")
        n = int(s.communicate(timeout=30 * PATIENCE)[0])
        ledger = a.check_ledger()
        say(f"# {n} processes; {json.dumps(ledger)[:600]}")
        equal(ledger["lost"], 0, "lost")


@case("clients that go away in the middle leave their places to others")
def gone_clients():
    with Agentd() as a:
        a.add_source("host")
        a.enable(interval="60s")
        time.sleep(0.5)
        env = dict(os.environ, ODI_SOCKET=a.socket)
        for _ in range(6):
            running = [spawn([ODICTL, *c], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
                       for c in [["top"], ["source", "candidates"], ["flamegraph", "-o", "/dev/null"]] * 3]  # fmt: skip
            time.sleep(0.03)
            for p in running:
                p.kill()
                p.wait()
        for c in (["top"], ["source", "candidates"], ["status"]):
            good = (0, 1) if c == ["status"] else (0,)
            wait_for(f"odictl {' '.join(c)} is answered", lambda: at_once(a, [c])[0][1] in good, 10, 0.2)


@case("a child that stands still is replaced; the ledger closes")
def stopped_children():
    with Agentd() as a:
        a.add_source("host")
        a.enable()
        w = Workload("shares_c")
        a.run("top")
        for role in ("proc", "symbolizer"):
            pid = wait_for(f"the {role}", lambda: a.children(role), 20)[0]
            os.kill(pid, signal.SIGSTOP)
            fresh = [Workload(copy_program("brief", f"still{role}{i}"), 0.1) for i in range(5)]
            for f in fresh:
                f.wait()
            a.run("top")  # something to do for whoever stands still
            wait_for(f"another {role}", lambda: a.alive() and pid not in a.children(role), 30, 0.2)
            a.run("top")
            a.check_ledger()
        w.stop()


@case("children killed at random while everything changes: the ledger closes, and a stop in the middle is clean")
def chaos():
    rng = seed()
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_process("shares_c", "--service-name", "steady")
        a.enable(rate=RATE)
        w = Workload("shares_c")
        s = storm(6, 8)
        end_time, n, changes = time.monotonic() + 5, 0, 0
        while time.monotonic() < end_time:
            for pid in a.children(rng.choice(["symbolizer", "proc", "exporter", "reader"])):
                try:
                    os.kill(pid, signal.SIGKILL)
                    n += 1
                except ProcessLookupError:
                    pass
            name = f"s{changes}"
            a.ctl("source", "add", "process", "true", "--name", name)
            a.ctl("source", rng.choice(["disable", "remove"]), name, *(["--yes"] if rng.random() < 2 else []))
            a.run("top")
            changes += 2
        check(a.alive(), "agentd ended")
        say(f"# {n} kills, {changes} changes")
        a.check_ledger()
        running = [spawn([ODICTL, *c], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                         env=dict(os.environ, ODI_SOCKET=a.socket))
                   for c in [["top"], ["source", "candidates"], ["destination", "test", "backend"], ["source", "list"]] * 2]  # fmt: skip
        time.sleep(0.05)
        equal(a.stop(), 0, "exit status of a stop in the middle of everything")
        for p in running:
            p.wait(20 * PATIENCE)
        s.kill()
        w.stop()


@case("a full disk below the state folder: profiling goes on, and status says it")
def full_disk():
    folder = temp_folder()
    disk = os.path.join(folder, "state")
    os.mkdir(disk)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        raise CannotRun("no tmpfs can be mounted here")
    on_end(lambda: subprocess.run(["umount", disk], capture_output=True))
    with OtlpReceiver() as receiver, Agentd(folder=folder) as a:
        a.add_receiver(receiver)
        a.add_process("shares_c", "--service-name", "web")
        a.enable()
        w = Workload("shares_c")
        filler = os.path.join(disk, "filler")
        with open(filler, "wb", buffering=0) as f:
            try:
                while True:
                    f.write(b"x" * 4096)
            except OSError:
                pass
        before = unique(receiver).total("web")
        wait_for("status says that the disk is full", lambda: "No space left" in a.run("status").stdout, 20, 0.3)
        r = a.run("source", "add", "host")
        equal(r.returncode, 1, f"a change that cannot be kept: {r.stdout} {r.stderr}")
        check("host" not in a.sources(), "a refused change is in force")
        wait_for("samples arrive all the same", lambda: unique(receiver).total("web") > before + 500, 20, 0.3)
        os.unlink(filler)
        a.ctl("source", "add", "host")
        w.stop()
        a.check_ledger()
        a.stop()
    subprocess.run(["umount", disk], capture_output=True)


class Weak(Agentd):
    """An agentd that may not load programs."""

    def argv(self):
        return ["setpriv", "--bounding-set=-sys_admin,-bpf,-perfmon", "--", *super().argv()]


@case("profiling that cannot start is said, refuses no other change, and starts where it can")
def cannot_start():
    if not shutil.which("setpriv"):
        raise CannotRun("no setpriv on this machine")
    with Agentd() as a:
        a.add_source("host")
        a.enable()
        folder = a.folder
    with Weak(folder=folder) as a:
        r = a.run("status")
        equal(r.returncode, 1, "status of an agentd that should profile and cannot")
        check("cannot start" in r.stdout, f"status does not say why: {r.stdout}")
        a.ctl("host", "label", "region=here")
        a.ctl("source", "add", "process", "nothing", "--name", "later")
        check("later" in a.sources(), "a change is not in force")
        a.ctl("profiling", "disable")
        r = a.run("status")
        check("cannot start" not in r.stdout, f"profiling is off, and status still says why it cannot start: {r.stdout}")
        r = a.run("profiling", "enable")
        equal(r.returncode, 1, f"enabling what cannot start: {r.stdout} {r.stderr}")
    with Agentd(folder=folder) as a:
        check("later" in a.sources(), "what was changed meanwhile is lost")
        a.ctl("profiling", "enable")
        check(bpf_held(a.pid), "nothing is loaded")


@case("the command of a candidate is one word of a shell, whatever the program calls itself")
def quoted_candidate():
    folder = temp_folder()
    evil = copy_program("shares_c", "a'b $(touch pwned); c", folder)
    with Agentd() as a:
        w = Workload("shares_c", argv=[evil, "0"])
        found = [c for c in rows(a.ctl("source", "candidates", "-n", "200")) if "pwned" in field(c, "match", default="")]
        check(found, "the program is no candidate")
        command = field(found[0], "command")
        say(f"# {command}")
        env = dict(os.environ, ODI_SOCKET=a.socket, PATH=os.path.dirname(ODICTL) + ":" + os.environ["PATH"])
        r = subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True, cwd=folder)
        equal(r.returncode, 0, f"the command as it was offered: {r.stdout} {r.stderr}")
        check(not os.path.exists(os.path.join(folder, "pwned")), "the program's name was run by the shell")
        a.enable()
        name = next(iter(a.sources()))
        wait_for("samples of the program", lambda: field(a.sources()[name], "samples") > 50, 10)
        w.stop()


if __name__ == "__main__":
    main()
