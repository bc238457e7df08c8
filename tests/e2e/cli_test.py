#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 720 s
"""odictl as a person and a script use it: every command, its errors, its exit status."""

import os
import re
import shlex
import struct
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403

DONE, FAILED, USAGE, UNREACHABLE, FORBIDDEN = range(5)


def expect(a, status, *args, words=(), out=(), **options):
    """Runs odictl and checks its exit status and what its messages hold."""
    r = a.run(*args, **options)
    shown = f"odictl {' '.join(map(str, args))[:200]}: exit {r.returncode}, {r.stdout[:400]!r} {r.stderr[:400]!r}"
    equal(r.returncode, status, shown)
    for w in [words] if isinstance(words, str) else words:
        check(w.lower() in (r.stderr + r.stdout).lower(), f"{w!r} is not in the message; {shown}")
    for w in [out] if isinstance(out, str) else out:
        check(w.lower() in r.stdout.lower(), f"{w!r} is not in the output; {shown}")
    if status not in (DONE,):
        check(r.stderr.strip() or r.stdout.strip(), f"failed without a word; {shown}")
    check("Traceback" not in r.stderr and "Assertion" not in r.stderr, shown)
    return r


COMMANDS = [
    "status", "profiling enable", "profiling disable", "profiling status", "source add", "source list", "source show",
    "source enable", "source disable", "source remove", "source candidates", "destination types", "destination add",
    "destination test", "destination list", "destination show", "destination enable", "destination disable",
    "destination remove", "top", "flamegraph", "history", "logs", "version", "host label", "doctor",
]  # fmt: skip


@case("--help fits one screen and names every group; each command has help with an example")
def help_pages():
    a = Agentd(start=False)
    text = expect(a, DONE, "--help").stdout
    check(len(text.splitlines()) <= 40, f"--help has {len(text.splitlines())} lines")
    check(max(map(len, text.splitlines())) <= 100, "--help is wider than 100 columns")
    for word in {c.split()[0] for c in COMMANDS}:
        check(re.search(rf"\b{word}\b", text), f"--help does not name {word}")
    for command in COMMANDS:
        page = expect(a, DONE, *command.split(), "--help").stdout
        check(f"odictl {command.split()[0]}" in page, f"{command} --help: {page}")
        check("example" in page.lower(), f"{command} --help has no example: {page}")
        equal(expect(a, DONE, "help", *command.split()).stdout, page, f"help {command}")
    expect(a, DONE, "source", "--help", out=["add", "candidates"])


@case("what does not need agentd works without it; all else says that it is not reachable")
def unreachable():
    a = Agentd(start=False)
    expect(a, DONE, "version", out="0.")
    for command in (["status"], ["source", "list"], ["profiling", "enable"], ["top"]):
        expect(a, UNREACHABLE, *command, words="agentd")
    r = subprocess.run([ODICTL, "--socket", "/nonexistent/socket", "status"], capture_output=True, text=True)
    equal(r.returncode, UNREACHABLE, "--socket")
    check("/nonexistent/socket" in r.stderr, f"the message does not name the socket: {r.stderr}")


@case("wrong use: exit status 2, with the nearest known word")
def usage():
    with Agentd() as a:
        expect(a, USAGE, "sorce", "list", words=["did you mean", "source"])
        expect(a, USAGE, "source", "lst", words=["did you mean", "list"])
        expect(a, USAGE, "profiling", "enable", "--raet", "99", words=["did you mean", "--rate"])
        expect(a, USAGE, "source", "show")
        expect(a, USAGE, "destination", "remove")
        expect(a, USAGE)
        expect(a, DONE, "help")
        r = a.run("source", "add", "sytemd", "nginx")
        check(r.returncode in (FAILED, USAGE) and "did you mean" in r.stderr and "systemd" in r.stderr, f"{r}")
        r = a.run("destination", "add", "pyroscop")
        check(r.returncode in (FAILED, USAGE) and "did you mean" in r.stderr and "pyroscope" in r.stderr, f"{r}")
        r = a.run("source", "add")
        equal(r.returncode, USAGE, "source add, bare, without a terminal")
        check("usage" in (r.stderr + r.stdout).lower(), f"no usage: {r.stdout} {r.stderr}")


@case("bad values are refused with a sentence, and change nothing")
def bad_values():
    with Agentd() as a:
        a.ctl("source", "add", "systemd", "nginx", "--name", "web")
        a.ctl("destination", "add", "pyroscope")
        before = settings(a)
        bad = [
            ["profiling", "enable", "--rate", "0"],
            ["profiling", "enable", "--rate", "10000"],
            ["profiling", "enable", "--rate", "abc"],
            ["profiling", "enable", "--rate", "-5"],
            ["profiling", "enable", "--types", "gpu"],
            ["profiling", "enable", "--interval", "soon"],
            ["profiling", "enable", "--interval", "0s"],
            ["source", "add", "nonsense", "x"],
            ["source", "add", "systemd", "other", "--name", "web"],
            ["source", "add", "systemd", ""],
            ["source", "add", "systemd", "x", "--label", "novalue"],
            ["source", "add", "systemd", "x", "--label", "=v"],
            ["source", "add", "systemd", "x", "--label", "bad key=v"],
            ["source", "add", "systemd", "x", "--label", "service_name=v"],
            ["source", "add", "systemd", "x", "--service-name", "tab\there"],
            ["source", "add", "systemd", "x", "--service-name", "n" * 10000],
            ["source", "add", "systemd", "x", "--name", "new\nline"],
            ["source", "add", "systemd", "x", "--name", "n" * 10000],
            ["source", "add", "systemd", "x", "--name", "esc\x1b[31m"],
            ["source", "add", "systemd", "n" * 10000],
            ["source", "remove", "nothing", "--yes"],
            ["source", "enable", "nothing"],
            ["source", "show", "nothing"],
            ["destination", "add", "nonsense"],
            ["destination", "add", "pyroscope", "--url", "not a url"],
            ["destination", "add", "pyroscope", "x", "--url", "ftp://host/"],
            ["destination", "add", "pyroscope", "x", "--url", "http://"],
            ["destination", "add", "pyroscope", "x", "--url", "http://host:99999"],
            ["destination", "add", "pyroscope", "x", "--nonsense", "1"],
            ["destination", "add", "otlphttp", "pyroscope", "--url", "http://127.0.0.1:1"],
            ["destination", "remove", "nothing", "--yes"],
            ["destination", "test", "nothing"],
            ["host", "label", "bad key=1"],
            ["host", "label", "x=" + "y" * 10000],
            ["top", "--since", "yesterdayish"],
            ["top", "--from", "25:99"],
            ["top", "--by", "colour"],
            ["top", "-n", "-3"],
            ["flamegraph", "--format", "jpeg"],
            ["top", "--from", "03:20", "--to", "03:12"],
        ]
        for args in bad:
            r = a.run(*args)
            shown = f"{' '.join(args)[:100]!r}: exit {r.returncode}, {r.stdout[:200]!r} {r.stderr[:300]!r}"
            check(r.returncode in (FAILED, USAGE), shown)
            check(10 < len(r.stderr.strip()) < 2000, f"no sentence, or far too much; {shown}")
            check("\x1b" not in r.stderr and "new\nline" not in r.stderr, f"control characters went through; {shown}")
        equal(settings(a), before, "after all that")
        r = expect(a, FAILED, "source", "remove", "wbe", "--yes", words="web")


def revision(a):
    return len(rows(a.ctl("history")))


def settings(a):
    """What commands may change."""
    destinations = a.ctl("destination", "list")
    for d in destinations["destinations"]:
        del d["sent_lately"]  # how long its window is grows with time
    return a.ctl("source", "list"), destinations, revision(a)


@case("sources: add, list, show, disable, enable, remove")
def sources():
    with Agentd() as a:
        expect(a, DONE, "source", "add", "systemd", "odi-none", out="matches nothing yet")
        expect(a, DONE, "source", "add", "process", "shares_c", "--name", "p1", "--service-name", "web", "--label", "k=v")
        r = expect(a, DONE, "source", "list")
        check("p1" in r.stdout and "process" in r.stdout and "web" in r.stdout, r.stdout)
        expect(a, DONE, "source", "show", "p1", out=["shares_c", "web", "k", "v"])
        expect(a, DONE, "source", "disable", "p1")
        equal(field(a.sources()["p1"], "enabled"), False, "enabled")
        expect(a, DONE, "source", "enable", "p1")
        equal(field(a.sources()["p1"], "enabled"), True, "enabled")
        expect(a, FAILED, "source", "add", "process", "other", "--name", "p1", words="p1")
        r = a.run("source", "remove", "p1")
        check(r.returncode != DONE and "--yes" in r.stderr, f"removing without a terminal and without --yes: {r}")
        check("p1" in a.sources(), "it was removed nevertheless")
        expect(a, DONE, "source", "remove", "p1", "--yes")
        check("p1" not in a.sources(), "it is still there")
        for kind, match in (("container", "db"), ("cgroup", "/odi-group"), ("host", None)):
            expect(a, DONE, "source", "add", kind, *([match] if match else []))
        equal(len(a.sources()), 4, "sources")


@case("candidates are what uses CPU, ready to add")
def candidates():
    with Agentd() as a:
        w = Workload("shares_c")

        def found():
            return [c for c in rows(a.ctl("source", "candidates")) if "shares_c" in json.dumps(c)]

        c = wait_for("the workload among the candidates", found, 10, 0.5)[0]
        command = field(c, "command", default="")
        check(command.startswith("odictl source add "), f"command to type: {c}")

        expect(a, DONE, *shlex.split(command)[1:])
        a.enable()
        name = list(a.sources())[0]
        wait_for("its samples", lambda: field(a.sources()[name], "samples"), 10, 0.3)
        w.stop()
        r = a.run("source", "add")
        check(r.returncode == USAGE, "source add, bare")


@case("destinations: types, add with the default said, list, show, disable, enable, remove")
def destinations():
    with Agentd() as a:
        expect(a, DONE, "destination", "types", out=["pyroscope", "otlphttp"])
        expect(a, DONE, "destination", "add", "pyroscope", out="http://localhost:4040")
        check("pyroscope" in a.destinations(), f"{a.destinations()}")
        expect(a, DONE, "destination", "add", "otlphttp", "mine", "--url", "http://127.0.0.1:1/x")
        expect(a, FAILED, "destination", "add", "otlphttp", "mine", "--url", "http://127.0.0.1:1", words="mine")
        expect(a, DONE, "destination", "show", "mine", out=["127.0.0.1:1", "otlphttp"])
        expect(a, DONE, "destination", "list", out=["mine", "pyroscope"])
        expect(a, DONE, "destination", "disable", "mine")
        equal(field(a.destinations()["mine"], "enabled"), False, "enabled")
        expect(a, DONE, "destination", "enable", "mine")
        expect(a, DONE, "destination", "remove", "mine", "--yes")
        check("mine" not in a.destinations(), "it is still there")
        expect(a, DONE, "destination", "add", "pyroscope", "--help", out=["--url", "--tenant"])


@case("destination test says what is wrong, so that one knows what to do")
def destination_test():
    with OtlpReceiver() as receiver, Agentd() as a:
        def add(name, url, kind="pyroscope"):
            a.ctl("destination", "add", kind, name, "--url", url)

        add("good", receiver.url)
        expect(a, DONE, "destination", "test", "good")
        check(receiver.messages, "nothing arrived")
        equal(check_otlp.Profiles(receiver.messages).total(), 0, "samples in a test")
        add("refused", f"http://127.0.0.1:{free_port()}")
        expect(a, FAILED, "destination", "test", "refused", words="refused")
        add("name", "http://no-such-host.invalid:4040")
        expect(a, FAILED, "destination", "test", "name", words="no-such-host.invalid")
        add("tls", receiver.url.replace("http:", "https:"))
        expect(a, FAILED, "destination", "test", "tls", words="tls")
        for status, word in ((401, "401"), (404, "pyroscope"), (415, "415"), (500, "500"), (503, "503")):
            receiver.behave(status=status)
            r = expect(a, FAILED, "destination", "test", "good", words=word)
        receiver.behave()
        r = a.ctl("destination", "test", "good")
        check(field(r, "ok") is True or field(rows(r)[0] if rows(r) else r, "ok") is True, f"--json: {r}")


@case("tenant and user agent are sent, connections are kept")
def headers():
    with OtlpReceiver() as receiver, Agentd() as a:
        a.ctl("destination", "add", "pyroscope", "p", "--url", receiver.url, "--tenant", "team-a")
        a.add_process("shares_c")
        a.enable()
        w = Workload("shares_c")
        wait_for("some requests", lambda: len(receiver.requests) >= 4, 20)
        w.stop()
        a.settle(receiver, None)
        for r in receiver.requests:
            h = {k.lower(): v for k, v in r.headers.items()}
            equal(h.get("x-scope-orgid"), "team-a", "tenant")
            check(re.match(r"odi/\d", h.get("user-agent", "")), f"user agent {h.get('user-agent')}")
            equal(h.get("content-encoding"), "gzip", "content encoding")
        check(len({r.peer for r in receiver.requests}) <= 2, "each request came by a connection of its own")
        check_messages(receiver)


@case("doctor: the host, agentd, sources and destinations, each with what to do; it changes nothing")
def doctor():
    a = Agentd(start=False)
    r = expect(a, FAILED, "doctor", out=["failure", "agentd is not", "Linux", "BTF"])
    check(r.stderr == "", r.stderr)
    a = Agentd()
    report = json.loads(expect(a, DONE, "doctor", "--json").stdout)
    equal((report["ok"], report["failures"]), (True, 0), report)
    found = {f["what"]: f for f in report["findings"]}
    check({"kernel", "btf", "agentd", "profiling", "sources", "cgroups"} <= set(found), found)
    equal(found["profiling"]["remedy"], "odictl profiling enable --all")
    a.ctl("source", "add", "process", "/no/such/program", "--name", "nobody")
    a.ctl("destination", "add", "pyroscope", "away", "--url", "http://127.0.0.1:9")
    a.enable()
    before = a.ctl("history")
    expect(a, FAILED, "doctor", out=["source nobody", "matches no process", "destination away", "refused"])
    equal(a.ctl("history"), before, "doctor changed something")
    equal(json.loads(expect(a, FAILED, "doctor", "--json").stdout)["ok"], False)


@case("profiling: enable without a source says what is missing; status; disable")
def profiling():
    with Agentd() as a:
        r = a.run("status")
        check(r.returncode in (DONE, FAILED), f"status: {r}")
        r = expect(a, DONE, "profiling", "enable")
        check("odictl source add" in r.stdout + r.stderr, f"no command to type next: {r.stdout} {r.stderr}")
        check("no source" in a.run("status").stdout, "status does not say that there is no source")
        expect(a, DONE, "profiling", "enable", "--all", "--rate", "199", "--types", "cpu")
        s = a.ctl("profiling", "status")
        check("199" in json.dumps(s), f"{s}")
        wait_for("a healthy status", lambda: a.run("status").returncode == DONE, 10, 0.3)
        r = expect(a, DONE, "status", out=["199"])
        check(len(r.stdout.splitlines()) <= 40, f"status is longer than a screen: {r.stdout}")
        expect(a, DONE, "status", "--verbose")
        # Which processes there are changes with what there is to do.
        words = ("\nsandbox ", "system call filter, no capabilities, ")
        wait_for("the sandboxes", lambda: (lambda t: all(w in t for w in words))(a.run("status").stdout), 20, 0.3)
        closed = lambda: [x for x in a.status()["sandboxes"] if "no capabilities" in x["has"]]  # noqa: E731
        wait_for("the sandboxes as JSON", closed, 20, 0.3)
        ledger = field(a.status(), "ledger")
        check(isinstance(ledger, (dict, list)) and ledger, f"ledger: {ledger}")
        expect(a, DONE, "profiling", "disable")
        equal(field(a.ctl("profiling", "status"), "enabled"), False, "enabled")


@case("top and flamegraph answer without any backend, also from the open interval")
def queries():
    with Agentd() as a:
        name = a.add_process("shares_c", "--service-name", "web")
        shop = a.add_process("shares_cpp", "--service-name", "shop")
        a.enable(interval="10s")
        w, v = Workload("shares_c"), Workload("shares_cpp")
        a.wait_sampled(name, 1000)
        a.wait_sampled(shop, 100)
        wait_for("names", lambda: "leaf_sixty" in a.run("top").stdout)
        r = expect(a, DONE, "top", "--by", "function", out="leaf_sixty")
        for by in ("service", "process", "thread", "module", "function"):
            expect(a, DONE, "top", "--by", by)
        expect(a, DONE, "top", "--by", "service", out=["web", "shop"])
        expect(a, DONE, "top", "--by", "module", out="shares_c")
        r = expect(a, DONE, "top", "--source", name, "--since", "1m", "-n", "2")
        check("geo::" not in r.stdout, f"another source's functions: {r.stdout}")
        answer = a.ctl("top", "--by", "function", "--since", "1m")
        found = {check_otlp.base_name(field(x, "function", "name", default="")): x for x in rows(answer)}
        check("leaf_sixty" in found, f"{list(found)[:10]}")
        web = a.ctl("top", "--by", "function", "--service", "web")
        n = field(web, "total_samples")
        shares = {check_otlp.base_name(field(x, "name")): field(x, "self_share") for x in rows(web)}
        for leaf, share in TRUTH["shares_c"]["shares"].items():
            check(abs(shares.get(leaf, 0) - share) < tolerance(share, n), f"top: {leaf} has {shares.get(leaf)} of {n}")
        out = os.path.join(temp_folder(), "x")
        for form, words in (("html", "<html"), ("svg", "<svg"), ("folded", "leaf_sixty"), ("json", "leaf_sixty")):
            expect(a, DONE, "flamegraph", "--format", form, "-o", out)
            with open(out) as f:
                text = f.read()
            check(words in text, f"{form}: {text[:200]}")
            check("leaf_sixty" in text, f"{form} without leaf_sixty")
            check("http://" not in re.sub(r"http://www\.w3\.org/\S*", "", text) or form != "html", "a page that loads things")
        r = expect(a, DONE, "flamegraph", "--format", "folded", "-o", "-", "--source", name)
        lines = [x for x in r.stdout.splitlines() if "leaf_sixty" in x]
        check(lines and re.search(r"main;run_round;outer_sixty;mid_sixty;leaf_sixty(;\S+)* \d+$", lines[0]), f"folded: {lines[:3]}")
        w.stop()
        v.stop()
        r = expect(a, DONE, "top", "--from", "03:12", "--to", "03:13")
        expect(a, FAILED, "flamegraph", "-o", "/nonexistent/x.html", words="/nonexistent/x.html")
        r = expect(a, DONE, "flamegraph", "--service", "nosuch", "-o", out)
        check("no samples of this service" in r.stdout and "top --by service" in r.stdout, r.stdout)


@case("history says when, who and what; logs show decisions")
def history():
    with Agentd() as a:
        a.ctl("source", "add", "systemd", "nginx", "--name", "web")
        a.ctl("source", "remove", "web", "--yes")
        r = expect(a, DONE, "history", out=["source add", "source remove", "web"])
        check("root" in r.stdout or "uid 0" in r.stdout, f"history does not say who: {r.stdout}")
        expect(a, DONE, "logs")
        check(a.run("logs").stdout.strip(), "logs are empty")


@case("other users: refused with the group to join; the view group may read only")
def permissions():
    with Agentd() as a:
        os.chmod(a.folder, 0o755)
        r = a.run("status", user=65534)
        equal(r.returncode, FORBIDDEN, f"nobody: {r.stdout} {r.stderr}")
        check("odi" in r.stderr, f"the message names no group: {r.stderr}")
        r = a.run("source", "add", "host", user=65534)
        equal(r.returncode, FORBIDDEN, f"nobody: {r.stdout} {r.stderr}")
        check(not a.sources(), "a source was added")


def frame(payload):
    return struct.pack(">I", len(payload)) + payload


@case("garbage, truncated and oversized frames, silent clients: agentd goes on")
def hostile_clients():
    rng = seed()
    with Agentd() as a:
        attacks = [
            b"", b"\0", b"\0\0\0", frame(b""), frame(b"\xff" * 100), struct.pack(">I", 0xFFFFFFFF) + b"x" * 1000,
            struct.pack(">I", (1 << 20) + 1) + b"x" * 5000, struct.pack(">I", 100) + b"short", b"GET / HTTP/1.1\r\n\r\n",
            *[rng.randbytes(rng.randrange(1, 3000)) for _ in range(100)],
            *[frame(rng.randbytes(rng.randrange(0, 300))) for _ in range(100)],
        ]  # fmt: skip
        for attack in attacks:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(3)
                s.connect(a.socket)
                try:
                    s.sendall(attack)
                    s.shutdown(socket.SHUT_WR)
                    while s.recv(65536):
                        pass
                except (ConnectionError, TimeoutError):
                    pass
        equal(a.run("version").returncode, DONE, "odictl version")
        check(a.alive(), "agentd ended")
        silent = []
        for _ in range(300):
            s = socket.socket(socket.AF_UNIX)
            s.settimeout(1)
            try:
                s.connect(a.socket)
                silent.append(s)
            except (ConnectionError, TimeoutError, BlockingIOError):
                s.close()
        r = a.run("status")
        check(a.alive(), "agentd ended with 300 silent clients")
        for s in silent:
            s.close()
        wait_for("it answers after the silent clients left", lambda: a.run("status").returncode in (DONE, FAILED), 10)
        check(r.returncode in (DONE, FAILED, UNREACHABLE), f"status beside silent clients: {r}")


@case("a client that asks and never reads; forty at once")
def many_clients():
    with Agentd() as a:
        a.ctl("source", "add", "host")
        stuck = socket.socket(socket.AF_UNIX)
        stuck.connect(a.socket)
        stuck.setblocking(False)
        try:
            for i in range(20000):  # Request{id, get_status{verbose}}
                stuck.send(frame(b"\x08" + bytes([1 + i % 100]) + b"\x2a\x02\x08\x01"))
        except (BlockingIOError, ConnectionError):
            pass
        failures = []

        def work(n):
            for i in range(3):
                r = a.run("source", "add", "process", f"/x/{n}-{i}", "--name", f"n{n}-{i}")
                if r.returncode:
                    failures.append(r.stderr)
                r = a.run("status")
                if r.returncode not in (DONE, FAILED):
                    failures.append(r.stderr)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
        [t.start() for t in threads]
        [t.join() for t in threads]
        check(not failures, f"{len(failures)} of 120 failed: {failures[:3]}")
        equal(len(a.sources()), 61, "sources: two clients at once were not serialised")
        stuck.close()
        check(a.alive(), "agentd ended")


@case("agentd without root says what it lacks, and what to do")
def without_root():
    a = Agentd(start=False, user=65534)
    os.chmod(a.folder, 0o777)
    a.start()
    r = a.run("profiling", "enable", "--all")
    equal(r.returncode, FAILED, f"profiling without root: {r.stdout} {r.stderr}")
    check("root" in r.stderr or "CAP_" in r.stderr, f"the message names no remedy: {r.stderr}")
    check(not a.sources(), "a part of the change was applied")
    a.stop()


@case("agentd refuses wrong options with a sentence; a broken file does not stop it, and is named")
def agentd_errors():
    r = subprocess.run([AGENTD, "--nonsense"], capture_output=True, text=True, timeout=120)
    equal(r.returncode, USAGE, f"a wrong option: {r.stderr}")
    r = subprocess.run([AGENTD, "--log-level", "loud"], capture_output=True, text=True, timeout=120)
    equal(r.returncode, USAGE, f"a wrong level: {r.stderr}")
    b = Agentd(config="sources: [\n")
    expect(b, FAILED, "status", out=["agentd.yaml:2:1: not valid YAML", "odictl config validate"])
    check("agentd.yaml:2:1: not valid YAML" in b.log(), b.log())
    b.stop()


if __name__ == "__main__":
    main()
