#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 400 s
"""The symbolizer as a process: what it may do, what happens while it stands still, and what is known without it."""

import fcntl
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403

REST = 11  # seconds until a file counts as at rest

# What the symbolizer may ask of the kernel, and nothing else; the second list is asked for by libraries, and refused.
ALLOWED = set("""read pread64 write mmap munmap mremap mprotect brk madvise lseek fstat newfstatat close exit_group
rt_sigreturn futex fcntl getrandom recvmsg sendmsg sysinfo setitimer clock_gettime restart_syscall""".split())  # fmt: skip
REFUSED = {"readlink", "readlinkat"}
CALL = re.compile(r"^(?:\[pid +\d+\] )?(?:\d+ +)?([a-z_0-9]+)\((.*)$")


def detail(a, key):
    details = field(a.status(), "details") or {}
    if isinstance(details, dict):
        return details.get(key)
    return next((field(d, "value") for d in details if field(d, "key") == key), None)


def state_of(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0]
    except OSError:
        return None


def symbolizer_of(a, seconds=20):
    return wait_for("a symbolizer runs", lambda: a.children("symbolizer"), seconds)[0]


def read_files(a, since=0):
    """Names of files that were handed to the symbolizer, of the log from there on."""
    return [m.group(1) for m in re.finditer(r"the symbolizer reads (.*) for \d+ addresses", a.log()[since:])]


def places(profiles):
    """Addresses of user space: {(file, address)}."""
    return {(os.path.basename(f.module), f.address) for s in profiles.samples() for f in s.frames if f.kind != "kernel"}


_rested = []


def rested():
    """A folder with copies of all programs that are at rest, made once for all cases; `program` is shares_c."""
    if not _rested:
        folder = temp_folder()
        for p in ("shares_c", "shares_cpp", "shares_go", "shares_rust"):
            if os.path.exists(os.path.join(WORKLOADS, p)):
                copy_program(p, p, folder)
        copy_program("shares_c", "program", folder)
        time.sleep(REST)
        _rested.append(folder)
    return _rested[0]


@case("a symbolizer that stands still delays nothing: fallback names go out, counted, and names come later")
def stopped():
    folder = temp_folder()
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_process("shares_c", "--service-name", "known")
        a.add_source("process", os.path.join(folder, "*"), "--service-name", "fresh")
        a.enable()
        known = Workload("shares_c")
        wait_for("names of the first", lambda: unique(receiver).flat("known")["leaf_sixty"] > 100, 20, 0.1)
        pid = symbolizer_of(a)
        before = int(detail(a, "names too late"))
        os.kill(pid, signal.SIGSTOP)
        fresh = Workload(copy_program("shares_cpp", "fresh", folder))
        named = unique(receiver).flat("known")["leaf_sixty"]

        def fallbacks():
            return {k: n for k, n in unique(receiver).flat("fresh").items() if k.startswith("fresh+0x")}

        wait_for("a profile with fallback names", fallbacks, 20, 0.05)
        # Had they waited for it, or for the next one, they would have names. It is ended when its time is up.
        state = state_of(pid)
        check(state in ("T", "Z", None), f"the symbolizer should stand still when they come, and is {state}")
        check(int(detail(a, "names too late")) > before, "what was late is not counted")
        # What is known needs no symbolizer.
        wait_for("names of the known program meanwhile", lambda: unique(receiver).flat("known")["leaf_sixty"] > named, 20, 0.1)
        wait_for("names of the fresh program, from the next symbolizer",
                 lambda: unique(receiver).flat("fresh")["geo::Circle::area"] > 0, 60, 0.1)  # fmt: skip
        check(state_of(pid) in (None, "Z"), "a symbolizer that does not answer is ended")
        known.stop(), fresh.stop()
        a.settle(receiver, "known")
        a.check_ledger()
        equal(a.ledger()["lost"], 0, "lost")


@case("after a restart names come from the disk: no file is read for addresses that were named before")
def restart():
    folder = rested()
    programs = ["shares_c", "shares_cpp", *[p for p in ("shares_go", "shares_rust") if os.path.exists(os.path.join(WORKLOADS, p))]]
    leaves = {"shares_c": "leaf_sixty", "shares_cpp": "geo::Circle::area", "shares_go": "main.heavy"}
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        for p in programs:
            a.add_process(os.path.join(folder, p), "--service-name", p)
        a.enable()
        running = [Workload(os.path.join(folder, p)) for p in programs]
        for p in programs:
            a.settle_running(receiver, p, 600, 60)
        first = read_files(a)
        check(set(programs) <= set(first), f"all programs are read once: {first}")
        a.stop()
        known = places(unique(receiver))
        mark, sent = len(a.log()), len(receiver.messages)
        a.start()

        def after():
            later = check_otlp.Profiles(receiver.messages[sent:])
            return later if all(later.total(p) > 200 for p in programs) else None

        later = wait_for("profiles after the restart", after, 40, 0.2)
        # An address that no sample had hit before is asked for; and nothing else. What was asked for arrives later.
        again = [f for f in read_files(a, mark) if f in programs]
        asked = {p: sum(int(n) for n in re.findall(rf"answered (\d+) addresses of {p} ", a.log()[mark:])) for p in programs}
        a.settle(receiver, programs[0])
        new = places(check_otlp.Profiles(receiver.messages[sent:])) - known
        new = {p: sum(1 for m, _ in new if m == p) for p in programs}
        say(f"# read again: {again}; asked for {asked}, new {new}")
        for p in programs:
            flat = later.flat(p)
            if p in leaves:
                check(flat[leaves[p]] > 0, f"{p} after the restart: {flat.most_common(5)}")
            check(asked[p] <= new[p], f"{asked[p]} addresses of {p} were asked for again, {new[p]} are new")
            for s in later.samples(p):
                check(all(f.name for f in s.frames), "a frame without a name")
        check(int(detail(a, "names from the disk")) > 0, "no name came from the disk")
        # Addresses, which are of the file's segments, come along though nobody opened the files.
        for p in programs:
            both = {address for m, address in places(later) if m == p} & {address for m, address in known if m == p}
            check(both, f"{p}: no address is what it was")
        # A cache that is damaged costs itself only.
        a.stop()
        with open(os.path.join(a.state, "names.db"), "r+b") as f:
            f.write(b"\xff" * 5000)
        mark, sent = len(a.log()), len(receiver.messages)
        a.start()
        later = wait_for("profiles after the damage", after, 40, 0.2)
        check("is removed and made anew" in a.log()[mark:], "the log does not say what happened to the cache")
        check(later.flat("shares_c")["leaf_sixty"] > 0, "names after the damage")
        for w in running:
            w.process.kill()
            w.process.communicate()


@case("a program that is replaced under its name does not get the old one's names")
def replaced():
    path = os.path.join(rested(), "program")
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_process(path, "--service-name", "program")
        a.enable()
        w = Workload(path)
        a.settle_running(receiver, "program", 500)
        w.stop()
        a.settle(receiver, "program")
        a.stop()
        shutil.copy(os.path.join(WORKLOADS, "shares_cpp"), path)  # the same inode
        a.start()
        w = Workload(path)
        sent = len(receiver.messages)
        wait_for("the new program's names",
                 lambda: check_otlp.Profiles(receiver.messages[sent:]).flat("program")["geo::Circle::area"] > 100, 30, 0.2)  # fmt: skip
        w.stop()
        names = check_otlp.Profiles(receiver.messages[sent:]).flat("program")
        check("leaf_sixty" not in names, f"names of the program that was there before: {names.most_common(5)}")


def calls_of(trace):
    for line in open(trace, errors="replace"):
        line = re.sub(r"^\d+ +", "", line.strip())
        if line.startswith(("+++", "---", "<...")):
            continue
        m = CALL.match(line)
        if m:
            yield m.group(1), m.group(2)


def is_sealed(path):
    """Memory, such as a copy of the vDSO, that nobody can write whatever the descriptor says."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)
    except OSError:
        return False
    finally:
        os.close(fd)


@case("the symbolizer opens nothing and makes no system call outside of its list, as strace sees it")
def traced():
    strace = shutil.which("strace")
    if not strace:
        raise CannotRun("no strace on this machine")
    folder = temp_folder()
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_source("process", os.path.join(folder, "*"), "--service-name", "fresh")
        a.enable()
        first = Workload(copy_program("shares_c", "first", folder))
        a.settle_running(receiver, "fresh", 50)
        pid = symbolizer_of(a)
        first.stop()
        with open(f"/proc/{pid}/status") as f:
            status = dict(line.split(":", 1) for line in f)
        equal(status["Seccomp"].strip(), "2", "a filter of system calls")
        equal(status["NoNewPrivs"].strip(), "1", "no new privileges")
        equal(int(status["CapEff"], 16) | int(status["CapPrm"], 16) | int(status["CapBnd"], 16), 0, "capabilities")
        check("0" not in status["Uid"].split(), f"it runs as {status['Uid'].split()}")
        trace = os.path.join(temp_folder(), "trace")
        tracer = spawn([strace, "-f", "-q", "-o", trace, "-p", str(pid)], stderr=subprocess.DEVNULL)
        wait_for("strace has it", lambda: "TracerPid:\t0" not in open(f"/proc/{pid}/status").read(), 10)
        late = ["shares_cpp", "shares_c_static", "shares_c_stripped", "shares_go", "shares_rust", "pure_go"]
        late = [p for p in late if os.path.exists(os.path.join(WORKLOADS, p))]

        def named(p):
            return any(os.path.basename(f.module) == "late_" + p and (f.system_name or p == "shares_c_stripped")
                       for s in unique(receiver).samples("fresh") for f in s.frames)  # fmt: skip

        for p in late:
            w = Workload(copy_program(p, "late_" + p, folder), 900)
            wait_for(f"names of {p} under strace", lambda: named(p), 40, 0.2)
            w.process.kill()
            w.process.communicate()
        check(unique(receiver).flat("fresh")["geo::Circle::area"] > 0, "names made under strace")
        equal(symbolizer_of(a), pid, "the traced symbolizer")
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with open(f"/proc/{pid}/fdinfo/{fd}") as f:
                flags = int(re.search(r"flags:\s*(\d+)", f.read()).group(1), 8)
            target = os.readlink(f"/proc/{pid}/fd/{fd}")
            regular = target.startswith("/") and target != "/dev/null"
            check(int(fd) < 3 or not regular or flags & os.O_ACCMODE == os.O_RDONLY or is_sealed(f"/proc/{pid}/fd/{fd}"),
                  f"descriptor {fd} is open for writing: {target}")  # fmt: skip
        tracer.terminate()
        tracer.wait()
        counts = {}
        for name, arguments in calls_of(trace):
            counts[name] = counts.get(name, 0) + 1
            if name in REFUSED:
                check(re.search(r"= -1 E(ACCES|PERM|NOSYS|NOENT)", arguments), f"{name}({arguments} is not refused")
                continue
            check(name in ALLOWED, f"a system call outside of the list: {name}({arguments}")
            if name == "newfstatat":
                check('""' in arguments and "AT_EMPTY_PATH" in arguments, f"a path: {name}({arguments}")
            if name in ("mmap", "mprotect"):
                check("PROT_EXEC" not in arguments, f"memory that can be executed: {name}({arguments}")
            if name == "mmap" and "MAP_ANONYMOUS" not in arguments:
                check("PROT_WRITE" not in arguments or "MAP_PRIVATE" in arguments, f"a file that can be written: {name}({arguments}")
            if name in ("sendmsg", "recvmsg"):
                check(arguments.startswith("3,"), f"another socket than agentd's: {name}({arguments}")
            if name == "write":
                check(arguments.startswith(("1,", "2,")), f"writes to a file: {name}({arguments}")
        say(f"# {json.dumps(counts)}")
        # What shows that it was at work, so that the list was tried.
        check(counts.get("recvmsg", 0) >= 3 and counts.get("sendmsg", 0) >= 3, f"hardly any work was seen: {counts}")
        check(counts.get("pread64", 0) + counts.get("mmap", 0) > 10, f"no file was read under strace: {counts}")


if __name__ == "__main__":
    main()
