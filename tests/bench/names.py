# SPDX-License-Identifier: Apache-2.0
"""The benchmark's parts about names: how many frames have one, what naming costs, and what a restart knows."""

import re

from cost import *  # noqa: F403
import load

DEBIAN = [["sha256sum", "/dev/zero"], ["gzip", "-9", "-c", "/dev/zero"], ["xz", "-9", "-c", "/dev/zero"],
          ["sort", "--parallel=1", "/dev/urandom"], ["perl", "-e", "my %h; for (my $i = 0;; $i++) { $h{$i % 9999} .= join ',', sort 1 .. 9; "
           "$h{$i % 9999} = '' if $i % 7 == 0 }"],
          ["python3", "-c", "import json, re, zlib\nwhile True:\n s = json.dumps([{str(i): 'x' * i} for i in range(200)])\n"
           " json.loads(s); re.findall('x+', s); zlib.compress(s.encode())"],
          ["openssl", "speed", "-seconds", "600", "rsa2048"], ["bzip2", "-c", "/dev/urandom"]]  # fmt: skip


def symbolizer_ns(pids):
    """CPU time in ns of each symbolizer by its process id: the last that was seen of it."""
    for pid in list(pids):
        try:
            with open(f"/proc/{pid}/schedstat") as f:
                pids[pid] = int(f.read().split()[0])
        except OSError:
            pass
    return sum(pids.values())


def follow(a, pids, length, every=0.1):
    """Waits, and keeps up with symbolizers that come and go."""
    until = time.monotonic() + length
    while time.monotonic() < until:
        for pid in a.children("symbolizer"):
            pids.setdefault(pid, 0)
        symbolizer_ns(pids)
        time.sleep(every)
    return symbolizer_ns(pids)


# ---- how many have a name ------------------------------------------------------------------------------------------


def reference_names(module, addresses):
    """Of these addresses, those that llvm-symbolizer, an independent reader of the same tables, knows a function for."""
    r = subprocess.run(["llvm-symbolizer", "--functions=linkage", "--no-inlines", "--output-style=GNU", f"--obj={module}"],
                       input="".join(f"{a:#x}\n" for a in addresses), capture_output=True, text=True)  # fmt: skip
    lines = r.stdout.splitlines()
    return {a for a, name in zip(addresses, lines[::2]) if name and name != "??"}


def debian(table):
    """User frames of Debian's own programs, at 997 Hz for 3 s each."""
    if not shutil.which("llvm-symbolizer"):
        raise CannotRun("no llvm-symbolizer on this machine")
    programs = [p for p in DEBIAN if shutil.which(p[0])]
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.ctl("profiling", "enable", "--all", "--rate", 997, "--interval", "1s", "--budget", 0)
        started = []
        for argv in programs:
            w = spawn(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            started.append(os.path.basename(os.path.realpath(shutil.which(argv[0]))))
            time.sleep(seconds(3))
            w.kill()
            w.wait()
        time.sleep(4)
        profiles = unique(receiver)
    frames = {}
    for s in profiles.samples():
        if not any(os.path.basename(f.module) in started for f in s.frames):
            continue
        for f in s.frames:
            if f.kind == "native" and not f.inlined:
                row = frames.setdefault((f.module, f.address), [0, False])
                row[0] += s.count
                row[1] |= f.system_name != ""
    known, both, total, named = 0, 0, sum(n for n, _ in frames.values()), sum(n for n, has in frames.values() if has)
    missed = {}
    for module in {m for m, _ in frames}:
        if not os.path.exists(module):
            continue
        reference = reference_names(module, sorted(x for m, x in frames if m == module))
        for x in reference:
            n, has = frames[(module, x)]
            known += n
            both += n if has else 0
            if not has:
                missed[module] = missed.get(module, 0) + n
    share = 100 * both / max(known, 1)
    table.add(f"user frames of {len(programs)} of Debian's programs with a name, of those that llvm-symbolizer names", f"{share:.2f} %",
              ">= 99 %", share >= 99, f"of all user frames {100 * named / max(total, 1):.1f} %; {total} frames by sample, {len(frames)} places",
              missed=missed)  # fmt: skip


# ---- what naming costs ---------------------------------------------------------------------------------------------


def naming(table):
    """clang compiling on each CPU: the symbolizer's CPU time after the first 20 s, and memory."""
    with Measured() as a:
        compiling = load.Compiling()
        pids = {}
        try:
            a.all_on()
            first = follow(a, pids, seconds(20))
            began = time.monotonic()
            later = follow(a, pids, seconds(40))
            took = time.monotonic() - began
            mine = [p for p in a.children("symbolizer")]
            pss = {"agentd": pss_bytes(a.pid), "symbolizer": sum(pss_bytes(p) for p in mine)}
            all_pss, maps = a.cost.memory()
            details = field(a.status(), "details") or {}
        finally:
            compiling.stop()
    share = 100 * (later - first) / 1e9 / took
    table.add(f"naming while {CPUS} x {os.path.basename(compiling.compiler)} compile, after the first 20 s: the symbolizer's CPU",
              f"{share:.3f} %", "<= 0.1 %", share <= 0.1,
              f"first 20 s {first / 1e6:.0f} ms in all; asked {details.get('names asked for')}, from the cache "
              f"{details.get('names from the cache')}, without a name {details.get('frames without a name')}", details=details)  # fmt: skip
    table.add("agentd + symbolizer resident (PSS), meanwhile", f"{pss['agentd'] / 1e6:.1f} + {pss['symbolizer'] / 1e6:.1f} MB", "", None,
              f"all processes and maps {all_pss / 1e6:.1f} + {maps / 1e6:.1f} MB")  # fmt: skip


# ---- a restart -----------------------------------------------------------------------------------------------------


def places(messages):
    found = {}
    for s in check_otlp.Profiles(messages).samples():
        for f in s.frames:
            if f.kind == "native":
                found.setdefault(os.path.basename(f.module), set()).add(f.address)
    return found


def restart(table):
    """Files of a steady workload that the symbolizer reads after a restart, though no new address of them came up."""
    with OtlpReceiver() as receiver, Agentd() as a:  # its log has what is read
        a.add_receiver(receiver)
        a.ctl("profiling", "enable", "--all", "--rate", 99, "--interval", "2s", "--budget", 0)
        work = Deep([104, 6])
        time.sleep(seconds(20))
        a.stop()
        known, mark, sent = places(receiver.messages), len(a.log()), len(receiver.messages)
        a.start()
        time.sleep(seconds(15))
        work.stop()
        time.sleep(3)
        after = places(receiver.messages[sent:])
        log = a.log()[mark:]
    read = [f for f in re.findall(r"the symbolizer reads (.*) for \d+ addresses", log) if f not in ("vmlinux", "[vdso]")]
    again = [f for f in read if after.get(f, set()) <= known.get(f, set())]
    table.add("files read again after a restart, for addresses named before", f"{len(again)}", "0", not again,
              f"{len(read)} for new addresses; the kernel's table is read anew; {len(after)} files in the profiles", again=again)  # fmt: skip
