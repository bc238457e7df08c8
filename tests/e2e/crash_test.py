#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 600 s
"""kill -9 of agentd at random moments during changes: what was acknowledged is back, wholly."""

import os
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403

ROUNDS = 20


@case("what was acknowledged is there after kill -9, and nothing half done")
def acknowledged():
    rng = seed()
    with Agentd() as a:
        wanted, serial = {}, 0
        for round in range(ROUNDS):
            pending = None
            killer = threading.Timer(rng.random() * 0.6, a.process.kill)
            killer.start()
            while True:
                name, label = f"s{serial}", f"v{serial}"
                serial += 1
                if wanted and rng.random() < 0.4:
                    name = rng.choice(sorted(wanted))
                    pending = ("remove", name, None)
                    r = a.run("source", "remove", name, "--yes")
                else:
                    pending = ("add", name, label)
                    r = a.run("source", "add", "process", f"/nonexistent/{name}", "--name", name, "--label",
                              f"a={label}", "--label", f"b={label}")  # fmt: skip
                if r.returncode != 0:
                    break
                if pending[0] == "add":
                    wanted[name] = label
                else:
                    del wanted[name]
                pending = None
            killer.join()
            a.process.wait()
            check(a.process.returncode == -signal.SIGKILL, f"agentd ended by itself: {a.process.returncode}")
            check(r.returncode == 3, f"odictl's exit status when agentd dies: {r.returncode} {r.stderr}")
            a.start()
            found = a.sources()
            missing = set(wanted) - set(found) - ({pending[1]} if pending and pending[0] == "remove" else set())
            extra = set(found) - set(wanted) - ({pending[1]} if pending and pending[0] == "add" else set())
            check(not missing and not extra, f"round {round}: missing {missing}, not acknowledged {extra}, last {pending}")
            for name, record in found.items():
                labels = field(record, "labels", default={})
                if isinstance(labels, list):
                    labels = {field(l, "key", "name"): field(l, "value") for l in labels}
                equal(labels, {"a": f"v{name[1:]}", "b": f"v{name[1:]}"}, f"labels of {name}")
            wanted = {n: f"v{n[1:]}" for n in found}
        say(f"# {serial} changes, {len(wanted)} sources at the end")


@case("profiling goes on after kill -9 and a start")
def goes_on():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.add_receiver(receiver)
        a.add_process("shares_c", "--service-name", "web")
        a.enable()
        w = Workload("shares_c")
        wait_for("samples", lambda: unique(receiver).total("web"), 15)
        a.kill()
        receiver.reset()
        a.start()
        wait_for("samples after the restart", lambda: unique(receiver).total("web"), 15)
        w.stop()
        a.check_ledger()


@case("a database that it cannot use stops it with a sentence, and stays as it is")
def broken_database():
    a = Agentd()
    a.stop()
    files = [os.path.join(d, f) for d, _, fs in os.walk(a.state) for f in fs if f.endswith((".db", ".sqlite", ".sqlite3"))]
    check(files, f"no database below {a.state}")
    for f in files:
        with open(f, "wb") as out:
            out.write(b"this is no database, but it is mine\n" * 200)
        for extra in ("-wal", "-shm"):
            if os.path.exists(f + extra):
                os.unlink(f + extra)
    before = {f: open(f, "rb").read() for f in files}
    r = subprocess.run(a.argv(), capture_output=True, text=True, timeout=120)
    check(r.returncode != 0, "agentd started on a broken database")
    check(any(os.path.basename(f) in r.stderr for f in files), f"the message does not name the file: {r.stderr}")
    equal({f: open(f, "rb").read() for f in files}, before, "the database files")


@case("a full disk while committing: refused with a sentence, nothing half done")
def full_disk():
    folder = temp_folder()
    r = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "odi-test", folder], capture_output=True, text=True)
    if r.returncode:
        raise CannotRun(f"no tmpfs can be mounted: {r.stderr}")
    on_end(lambda: subprocess.run(["umount", "-l", folder], capture_output=True))
    a = Agentd(start=False)
    a.state = os.path.join(folder, "state")
    a.start()
    a.ctl("source", "add", "process", "/nonexistent/kept", "--name", "kept")
    filler = os.open(os.path.join(folder, "filler"), os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(filler, bytes(4096))
    except OSError:
        os.close(filler)
    failed = None
    for i in range(200):
        r = a.run("source", "add", "process", f"/nonexistent/{i}", "--name", f"s{i}", "--label", f"x={'y' * 200}")
        if r.returncode:
            failed = r
            break
    check(failed is not None, "200 changes were committed on a full disk")
    equal(failed.returncode, 1, "exit status")
    check(any(w in failed.stderr for w in ("space", "full", "room")), f"the message does not say why: {failed.stderr}")
    check(a.alive(), "agentd ended")
    names = set(a.sources())
    check("kept" in names and f"s{i}" not in names, f"sources: {sorted(names)[:5]}")
    os.unlink(os.path.join(folder, "filler"))
    a.ctl("source", "add", "process", "/nonexistent/after", "--name", "after")
    a.kill()
    a.start()
    equal(set(a.sources()), names | {"after"}, "sources after the disk had room again and a restart")
    a.stop()


@case("a second agentd on the same socket or database is refused, and the first goes on")
def second():
    with Agentd() as a:
        r = subprocess.run(a.argv(), capture_output=True, text=True, timeout=120)
        check(r.returncode != 0, "a second agentd started")
        check("agentd" in r.stderr and ("already" in r.stderr or "another" in r.stderr), f"the message: {r.stderr}")
        b = Agentd(start=False)
        b.state = a.state
        r = subprocess.run(b.argv(), capture_output=True, text=True, timeout=120)
        check(r.returncode != 0, "a second agentd started on the same database")
        check(a.run("status").returncode in (0, 1), "the first does not answer any more")


if __name__ == "__main__":
    main()
