#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 300 s
"""Configuration in files and by odictl: layers, origins, reloading, documents; doctor and support-bundle."""

import ctypes
import http.server
import os
import re
import sys
import tarfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403

DONE, FAILED, USAGE = 0, 1, 2


def put(a, name, text):
    """A file of the configuration, put in its place at once, as editors do."""
    path = os.path.join(a.etc, name)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open(path + ".new", "w") as f:
        f.write(text)
    os.rename(path + ".new", path)
    return path


def config(a, *prefix):
    """path -> (value, origin), without what is default."""
    values = a.ctl("config", "show", *prefix)["values"]
    return {v["path"]: (v["value"], v["origin"]) for v in values if not v["default"]}


def says(a, code, *args, out=(), err=(), input=None):
    r = a.run(*args, input=input)
    equal(r.returncode, code, f"odictl {' '.join(args)}: {r.stdout} {r.stderr}")
    for text in out:
        check(text in r.stdout, f"odictl {' '.join(args)} does not say '{text}': {r.stdout}")
    for text in err:
        check(text in r.stderr, f"odictl {' '.join(args)} does not say '{text}': {r.stderr}")
    return r.stdout


@case("files: Odigos' own shapes profile and deliver; a new file acts without a word, and a removed one")
def files_act():
    with OtlpReceiver() as receiver, Agentd(start=False) as a:
        put(a, "agentd.yaml", "profiling: {enabled: true, rate: 499, interval: 1s, budget: 0}\n")
        put(a, "destinations.d/backend.yaml", "- name: backend\n  type: otlphttp\n  signals: [PROFILES]\n"
            f"  config: {{OTLPHTTP_URL: '{receiver.url}'}}\n")  # fmt: skip
        a.start()
        w = Workload("shares_c")
        put(a, "sources.d/web.yaml", f"- {{name: web, enabled: true, serviceName: fromfile, kind: process, match: shares_c}}\n")
        wait_for("the source of the file", lambda: "web" in a.sources(), 5)
        wait_for("its samples", lambda: field(a.sources()["web"], "samples") > 200, 20)
        w.stop()
        profiles = a.settle(receiver, "fromfile")
        check(profiles.total("fromfile") > 200, f"{profiles.total('fromfile')} samples arrived")
        os.unlink(os.path.join(a.etc, "sources.d/web.yaml"))
        wait_for("the source to go with its file", lambda: "web" not in a.sources(), 5)
        a.check_ledger()


@case("what a file manages every verb refuses to change, with the file and the line; what it does not, is free")
def managed():
    with Agentd(start=False) as a:
        main = put(a, "agentd.yaml", "profiling:\n  enabled: false\n  rate: 49\nsymbols:\n  fetch: off\n  paths: []\n"
                   "host:\n  labels:\n    region: eu-1\n")  # fmt: skip
        web = put(a, "sources.d/web.yaml", "\n- {name: web, kind: process, match: web}\n")
        backend = put(a, "destinations.d/b.yaml", "\n\n- {name: backend, type: pyroscope, url: 'http://127.0.0.1:9'}\n")
        a.start()
        equal(config(a, "profiling")["profiling/rate"], ("49", main + ":3"), "the origin of the rate")
        equal(config(a, "sources")["sources/web/match"], ("web", web + ":2"), "the origin of the source")
        for place, *words in [
            (main + ":2", "profiling", "enable"),
            (main + ":3", "profiling", "set", "rate=99"),
            (main + ":3", "profiling", "set", "budget=3", "rate=99"),
            (main + ":5", "symbols", "fetch", "on"),
            (main + ":6", "symbols", "add", "/opt"),
            (main + ":9", "host", "label", "region=us"),
            (main + ":9", "host", "label", "region-"),
            (main + ":3", "config", "set", "profiling/rate", "99"),
            (main + ":3", "config", "unset", "profiling.rate"),
            (web + ":2", "source", "disable", "web"),
            (web + ":2", "source", "remove", "web", "--yes"),
            (web + ":2", "source", "add", "process", "x", "--name", "web"),
            (web + ":2", "config", "set", "sources/web/labels/a", "b"),
            (backend + ":3", "destination", "disable", "backend"),
            (backend + ":3", "destination", "remove", "backend", "--yes"),
            (backend + ":3", "destination", "set", "backend", "url=http://x"),
        ]:
            r = a.run(*words)
            check(r.returncode == FAILED and place in r.stderr, f"odictl {' '.join(words)}: {r.returncode} {r.stdout} {r.stderr}")
        says(a, FAILED, "config", "apply", "-f", "-", input="profiling:\n  rate: 99\n", err=["standard input:2: ", main + ":3"])
        check("budget" not in str(config(a)), "a part of a refused change was applied")
        says(a, DONE, "profiling", "set", "budget=3")
        says(a, DONE, "host", "label", "zone=a")
        says(a, DONE, "source", "add", "host", "--name", "all")
        equal(config(a, "profiling/budget")["profiling/budget"], ("3", "odictl (uid 0)"), "a free setting")


@case("a wrong file: the last good state stays, over a restart too; named with line and column, logged once")
def wrong_file():
    with Agentd(start=False) as a:
        put(a, "agentd.yaml", "profiling: {rate: 49}\n")
        a.start()
        bad = put(a, "conf.d/10-bad.yaml", "profiling:\n  rate: 50\n  intervl: 3s\n")
        text = f"{bad}:3:3: profiling has no setting \"intervl\": did you mean \"interval\"?"
        wait_for("it to be read", lambda: text in a.log(), 5)
        for _ in range(2):
            os.utime(bad)
            put(a, "conf.d/20-more.yaml", "{}\n")
            time.sleep(1.3)
        equal(a.log().count(text), 1, "how often it was logged")
        says(a, FAILED, "status", out=[text.split(" ")[0], "odictl config validate"])
        found = json.loads(says(a, FAILED, "config", "validate", "--json"))
        equal([(f["file"], f["line"], f["column"]) for f in found["findings"]], [(bad, 3, 3)], "what validate finds")
        equal(says(a, DONE, "config", "get", "profiling/rate"), "49\n", "the rate that is in force")
        os.kill(a.pid, signal.SIGHUP)
        wait_for("to be told again, having asked", lambda: a.log().count(text) == 2, 5)
        a.stop()
        a.start()
        equal(says(a, DONE, "config", "get", "profiling/rate"), "49\n", "the rate after a restart")
        says(a, FAILED, "config", "set", "profiling/rate", "99", err=["config validate"])
        put(a, "conf.d/10-bad.yaml", "profiling:\n  rate: 50\n")
        wait_for("the mended file", lambda: says(a, DONE, "config", "get", "profiling/rate") == "50\n", 5)
        says(a, DONE, "status")
        os.chmod(bad, 0o666)
        wait_for("the open file to be refused", lambda: "chmod go-w " + bad in a.log(), 5)
        os.chmod(bad, 0o644)
        wait_for("it to be taken again", lambda: a.run("status").returncode == DONE, 5)


@case("links of configuration managers, and files that change all the time")
def links():
    with Agentd(start=False) as a:
        for version in ("1", "2"):
            os.makedirs(os.path.join(a.folder, "mount", "..v" + version), mode=0o755)
            with open(os.path.join(a.folder, "mount", "..v" + version, "web.yaml"), "w") as f:
                f.write(f"- {{name: web{version}, kind: host}}\n")
        os.symlink("..v1", os.path.join(a.folder, "mount", "..data"))
        os.symlink("..data/web.yaml", os.path.join(a.folder, "mount", "web.yaml"))
        os.makedirs(a.etc, mode=0o755)
        os.symlink("../mount", os.path.join(a.etc, "sources.d"))
        a.start()
        equal(sorted(a.sources()), ["web1"], "sources")
        os.symlink("..v2", os.path.join(a.folder, "mount", "..new"))
        os.rename(os.path.join(a.folder, "mount", "..new"), os.path.join(a.folder, "mount", "..data"))
        wait_for("the other version", lambda: sorted(a.sources()) == ["web2"], 5)
        # A writer who does not stop: bounded, and the last word counts.
        # Files are looked at once in a second at most, so that many changes become few revisions.
        begin = time.monotonic()
        revision = a.status()["revision"]
        n = 0
        while n < 400 or time.monotonic() < begin + 4:
            n += 1
            put(a, "agentd.yaml", f"profiling: {{rate: {n % 900 + 1}}}\n")
            time.sleep(0.002)
        wait_for("the last one", lambda: says(a, DONE, "config", "get", "profiling/rate") == f"{n % 900 + 1}\n", 5)
        revisions, took = a.status()["revision"] - revision, time.monotonic() - begin
        check(revisions <= took + 2, f"{revisions} revisions of {n} files in {took:.1f} s")


@case("export and apply are inverse; diff, rollback, validate FILE and keys")
def documents():
    with Agentd() as a:
        a.ctl("profiling", "set", "rate=49", "budget=1.5")
        a.ctl("source", "add", "process", "nginx", "--name", "web", "--service-name", "we b", "--label", "a/b=c: 'd'")
        a.ctl("destination", "add", "otlphttp", "backend", "--url", "http://127.0.0.1:9")
        a.ctl("destination", "disable", "backend")
        a.ctl("host", "label", "team=no", "order=first")
        says(a, DONE, "config", "show", out=["host/labels/order"])
        says(a, DONE, "config", "diff", out=["+host/labels/order = first"])
        text = says(a, DONE, "config", "export")
        values = {p: v for p, (v, _) in config(a).items()}
        says(a, DONE, "config", "apply", "-f", "-", input=text, out=["nothing to change"])
        revision = a.status()["revision"]
        for group in ("profiling/rate", "profiling/budget", "sources/web", "destinations/backend", "host/labels/team", "host/labels/order"):
            says(a, DONE, "config", "unset", group)
        equal(says(a, DONE, "config", "export"), "{}\n", "an empty configuration")
        says(a, DONE, "config", "diff", str(revision), out=["+profiling/rate = 49", "+sources/web/match = nginx"])
        path = os.path.join(a.folder, "x.yaml")
        with open(path, "w") as f:
            f.write(text)
        says(a, DONE, "config", "apply", "-f", path, "--dry-run", out=["+profiling/rate = 49"])
        equal(says(a, DONE, "config", "export"), "{}\n", "after a dry run")
        says(a, DONE, "config", "apply", "-f", path, out=["odictl config rollback"])
        now = {p: v for p, (v, _) in config(a).items()}
        order = lambda d: {p: v for p, v in d.items() if not p.endswith("/order")}  # noqa: E731
        equal(order(now), order(values), "after export and apply")
        says(a, DONE, "config", "unset", "sources/web")
        says(a, DONE, "config", "rollback", str(revision))
        equal({p: v for p, (v, _) in config(a).items()}, values, "after the rollback")
        says(a, FAILED, "config", "rollback", "100000", err=["there is no revision 100000"])
        says(a, USAGE, "config", "rollback", "yesterday", err=["no revision"])
        # More findings than an answer lists: how many more there are.
        many = os.path.join(a.folder, "many.yaml")
        with open(many, "w") as f:
            f.write("sources:\n" + "".join(f"- {{name: s{i}, kind: process, match: x, enabled: false}}\n" for i in range(990)))
            f.write("host:\n  labels:\n" + "".join(f"    l{i}: x\n" for i in range(60)))
        before = a.status()["revision"]
        says(a, DONE, "config", "apply", "-f", many)
        listed = says(a, DONE, "config", "validate", many, out=["warning  and 50 more, which are not listed"])
        equal(len(listed.splitlines()), 1002, "lines of validate")
        found = json.loads(says(a, DONE, "config", "validate", many, "--json"))
        equal((len(found["findings"]), found["more"], found["valid"]), (1000, 50, True), "findings, and how many more")
        says(a, DONE, "config", "rollback", str(before))
        with open(path, "a") as f:
            f.write("  - {name: other, type: pyroscop}\n")
        found = json.loads(says(a, FAILED, "config", "validate", path, "--json"))["findings"][0]
        equal((found["file"], found["severity"]), (path, "error"), "where")
        check(found["line"] == len(text.splitlines()) + 1 and found["column"] > 20 and "pyroscope" in found["text"], found)
        says(a, USAGE, "config", "set", "profiling/rate", "many", err=["number"])
        says(a, USAGE, "config", "set", "profiling/rat", "1", err=["did you mean"])
        says(a, FAILED, "config", "get", "profiling/rat", err=["profiling/rate"])
        keys = {k["path"]: k for k in a.ctl("config", "keys")["keys"]}
        equal((keys["profiling/rate"]["default"], keys["profiling/rate"]["allowed"]), ("99", "1 to 1000"), "a key")
        # Whatever has a value is in the list, and the daemon's own list is the same.
        listed = subprocess.run([AGENTD, "--config-keys"], capture_output=True, text=True, timeout=20).stdout
        equal({line.split("\t")[0] for line in listed.splitlines()}, set(keys), "agentd --config-keys")
        for v in a.ctl("config", "show")["values"]:
            if not v["path"].startswith(("sources/", "destinations/", "host/")):
                check(v["path"] in keys, f"{v['path']} is in no list")


@case("the files that the README shows are taken as they stand")
def readme():
    with open(os.path.join(os.path.dirname(__file__), "../../README.md")) as f:
        blocks = re.findall(r"^```yaml\n# (\S+)\n(.*?)^```", f.read(), re.M | re.S)
    check(len(blocks) >= 3, f"{len(blocks)} files in the README")
    with Agentd(start=False) as a:
        for name, text in blocks:
            put(a, name, text.replace("enabled: true, rate", "enabled: false, rate"))
        a.start()
        says(a, DONE, "config", "validate", out=[f"{len(blocks)} files, and nothing is wrong"])
        equal(sorted(a.sources()), ["api", "web"], "sources")
        equal(sorted(a.destinations()), ["central", "pyroscope"], "destinations")
        equal(config(a)["destinations/central/options/url"][0], "http://profiles:4040", "Odigos' address")
        equal(config(a)["sources/api/kind"][0], "container", "Odigos' kind")


class Echo(http.server.BaseHTTPRequestHandler):
    """A backend that refuses, and repeats what it was sent."""

    def do_POST(self):  # noqa: N802
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = str(self.headers).encode()
        self.send_response(401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@case("support-bundle: secrets planted everywhere, and none of them in it; --list writes nothing; the file is private")
def bundle():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    with Agentd(start=False, env=dict(os.environ, ODI_TOKEN="hunter2env")) as a:
        put(a, "agentd.yaml", "host: {labels: {db-password: hunter2label}}\n"
            "destinations:\n  infile: {type: otlphttp, url: '" + url + "/?key=hunter2query', headers: {X-Key: hunter2header}}\n")  # fmt: skip
        a.start()
        token = os.path.join(a.folder, "token")
        with open(token, "w") as f:
            f.write("hunter2token-hunter2token")
        os.chmod(token, 0o600)
        r = a.run("destination", "add", "otlphttp", "direct", "--url", url, "--bearer-token-file", token)
        equal(r.returncode, DONE, f"a destination with a token: {r.stderr}")
        a.run("destination", "add", "otlphttp", "user", "--url", url.replace("//", "//user:hunter2url@"))
        a.run("config", "set", "destinations/direct/options/headers/Authorization", "Bearer hunter2typed")
        a.run("host", "label", "api-token=hunter2odictl")
        a.run("source", "add", "process", "x", "--name", "web", "--label", "secret=hunter2source")
        a.enable("--all", rate=99)
        put(a, "conf.d/bad.yaml", "profiling: {rate: 'password=hunter2wrong'}\n")
        wait_for("the wrong file", lambda: "conf.d/bad.yaml" in a.log(), 5)
        a.run("destination", "test", "direct")
        wait_for("a refusal", lambda: any(field(d, "failures", "last_error") for d in a.destinations().values()), 20)
        here = os.path.join(a.folder, "here")
        os.makedirs(here)
        listed = says(a, DONE, "support-bundle", "--list", "--no-network")
        for part in ("status.json", "doctor.json", "config.yaml", "history.json", "log.txt", "metrics.txt", "kernel/version"):
            check(part in listed, f"{part} is not in the list: {listed}")
        equal(os.listdir(here), [], "files after --list")
        out = os.path.join(here, "b.tar.gz")
        report = a.ctl("support-bundle", "-o", out, timeout=200)
        equal(os.stat(out).st_mode & 0o777, 0o600, "the bundle's mode")
        equal(a.run("support-bundle", "--no-network", "-o", out).returncode, FAILED, "over a file that is there")
        found = {}
        with tarfile.open(out) as tar:
            for member in tar.getmembers():
                found[member.name] = tar.extractfile(member).read().decode()
        equal(sorted(found), sorted(p["name"] for p in report["parts"]), "what is in it, against the list")
        for name, text in found.items():
            at = text.find("hunter2")
            check(at < 0, f"{name}: {text[max(0, at - 200):at + 60]}")
        for name in found:
            if name.endswith(".json"):
                check(isinstance(json.loads(found[name]), dict), name)
        # It is of use: what is set is in it, with where it comes from, and the failing destination is named.
        check("destinations/infile" in found["config.json"] and "agentd.yaml:3" in found["config.json"], found["config.json"])
        check("(secret)" in found["config.yaml"] and "127.0.0.1" in found["status.txt"], found["status.txt"])
    server.shutdown()


def open_perf_event():
    """A cpu-clock event on CPU 0, as a profiler has it: a descriptor of this process."""
    attr = bytearray(112)
    attr[0:4] = (1).to_bytes(4, sys.byteorder)  # PERF_TYPE_SOFTWARE
    attr[4:8] = (112).to_bytes(4, sys.byteorder)
    buf = (ctypes.c_char * len(attr)).from_buffer(attr)
    number = {"x86_64": 298, "aarch64": 241}[os.uname().machine]
    fd = ctypes.CDLL(None, use_errno=True).syscall(number, buf, -1, 0, -1, 8)
    check(fd >= 0, f"perf_event_open: {os.strerror(ctypes.get_errno())}")
    return fd


@case("doctor: another profiler by what it holds, sources that match nothing, no network where it is told so; it changes nothing")
def doctor():
    with Agentd() as a:
        a.ctl("source", "add", "process", "/no/such/program", "--name", "nobody")
        a.ctl("destination", "add", "pyroscope", "away", "--url", "http://127.0.0.1:9")
        a.enable()

        def kept():
            """What there is, but for files that are just being written."""
            return a.ctl("history"), sorted(name for name in os.listdir(a.state) if not name.startswith(".odi-"))

        before = kept()
        report = json.loads(says(a, DONE, "doctor", "--no-network", "--json"))
        found = {f["what"]: f for f in report["findings"]}
        for what in ("agentd", "capabilities", "memlock", "disk", "perf_events", "kernel", "btf", "source"):
            check(what in found, f"no finding about {what}: {sorted(found)}")
        check("away" not in str(found), f"a destination was tested: {found}")
        equal(found["capabilities"]["level"], "ok", found["capabilities"])
        check("matches no process" in found["source"]["text"], found["source"])
        others = found["perf_events"]["text"]
        check(f"({os.getpid()})" not in others, others)
        fd = open_perf_event()
        found = {f["what"]: f for f in a.ctl("doctor", "--no-network")["findings"]}
        check(found["perf_events"]["level"] == "warning" and f"({os.getpid()})" in found["perf_events"]["text"], found["perf_events"])
        for pid in [a.pid] + descendants(a.pid):
            check(f"({pid})" not in found["perf_events"]["text"], "odi counts itself as another profiler")
        os.close(fd)
        report = json.loads(says(a, FAILED, "doctor", "--json"))
        check(any(f["level"] == "failure" and "away" in f["text"] for f in report["findings"]), report)
        equal(kept(), before, "what the doctor left behind")


if __name__ == "__main__":
    main()
