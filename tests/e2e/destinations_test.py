#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 540 s
"""Destinations as a person meets them: every type of the catalogue added by its command and delivered to, secrets that
are nowhere to be seen, the policy of the host, and sentences that lead from each mistake to its mending."""

import glob
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403
from certificates import Authority  # noqa: E402
from hostile import Hostile  # noqa: E402
from parca import Parca  # noqa: E402

SECRET = "hunter2-0f9c"


class Host(Agentd):
    """With a folder of configuration of its own, and perhaps a policy."""

    def __init__(self, policy=None, env=None):
        folder = temp_folder()
        self.etc = os.path.join(folder, "etc")
        if policy is not None:
            self.write("policy.yaml", policy)
        super().__init__(env=env, folder=folder)

    def write(self, name, text, mode=0o644):
        path = os.path.join(self.etc, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path + ".new", "w") as f:
            f.write(text)
        os.chmod(path + ".new", mode)
        os.rename(path + ".new", path)
        return path

    def show(self, name):
        return self.ctl("destination", "show", name)["destinations"][0]

    def says(self, *args, code=None):
        """What odictl says of something that it must not do."""
        r = self.run(*args)
        check(r.returncode != 0 if code is None else r.returncode == code, f"{args}: {r.returncode} {r.stdout}")
        return " ".join(r.stderr.split())


def secret(text=SECRET + "\n", name="token"):
    path = os.path.join(temp_folder(), name)
    with open(path, "w") as f:
        f.write(text)
    return path


def collector():
    program = os.path.join(BUILD, "go-receiver")
    if not os.path.exists(program):
        raise CannotRun("the collector's receiver was not built (see build/receiver)")
    out, http, grpc = os.path.join(temp_folder(), "received.json"), free_port(), free_port()
    p = spawn([program, "-http", f"127.0.0.1:{http}", "-grpc", f"127.0.0.1:{grpc}", "-out", out],
              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # fmt: skip
    equal(p.stdout.readline().strip(), "ready", "the collector's receiver")
    return http, grpc


@case("every type of the catalogue is added by its command, and gets what was sampled")
def types():
    http, grpc = collector()
    web, parca, folder, token = Hostile("ok"), Parca(), temp_folder(), secret()
    basic = ["--basic-user", "7", "--basic-password-file", token]
    commands = {
        "alloy": [f"127.0.0.1:{grpc}", "--insecure"],
        "debug": [],
        "elastic": [f"127.0.0.1:{grpc}", "--insecure"],
        "file": [os.path.join(folder, "files"), "--format", "pprof"],
        "grafana-cloud": ["--url", web.url, *basic],
        "local": [],
        "odigos": [f"127.0.0.1:{grpc}", "--insecure", "--secret-header", f"X-API-Key={token}"],
        "openobserve": [web.url, *basic, "--organization", "shop"],
        "otlp": [f"127.0.0.1:{grpc}", "--insecure"],
        "otlphttp": [f"http://127.0.0.1:{http}"],
        "parca": [parca.url],
        "polarsignals": [parca.url.replace("http://", ""), "--insecure", "--bearer-token-file", token],
        "pyroscope": [f"http://127.0.0.1:{http}", "--tenant", "team-a", "--header", "X-Team=shop"],
    }
    with Host(f"files: {{folders: [{folder}]}}\n") as a:
        equal([t["name"] for t in a.ctl("destination", "types")["types"]], sorted(commands), "the catalogue")
        for kind, more in commands.items():
            a.ctl("destination", "add", kind, *more)
        tested = a.ctl("destination", "test", "--all")["tests"]
        check(len(tested) == len(commands) and all(t["ok"] for t in tested), [t for t in tested if not t["ok"]])
        a.add_process("shares_c", "--service-name", "s")
        a.enable()
        Workload("shares_c").work(1)
        a.ctl("profiling", "disable")
        wait_for("the last interval is closed", lambda: not a.ledger()["open"], 20, 0.2)

        def through():
            found = {n: a.show(n).get("ledger") for n in commands if n != "local"}
            return all(l and l["delivered"] and l["delivered"] == l["routed"] for l in found.values())

        wait_for("all is delivered everywhere", through, 20, 0.3)
        a.check_ledger()
        sent = a.show("otlp")["ledger"]["delivered"]
        equal(parca.total(), 2 * sent, "Parca's samples")
        equal(web.total(), 2 * sent, "samples over HTTP")
        paths = {r[1] for r in web.requests}
        check({"/v1development/profiles", "/api/shop/v1/profiles"} <= paths, paths)
        check(glob.glob(os.path.join(folder, "files", "**", "*.pb.gz"), recursive=True) or
              any(fs for _, _, fs in os.walk(os.path.join(folder, "files"))), "files")  # fmt: skip
        check("Bearer " + SECRET in [m.get("authorization") for m in parca.metadata], "the token of polarsignals")
    parca.stop()


@case("the README lists the catalogue as it is")
def readme():
    with open(os.path.join(os.path.dirname(__file__), "../../README.md")) as f:
        rows = [[c.strip() for c in line.strip("|\n").split("|")] for line in f.read().split("## Destinations", 1)[1]
                .split("\n## ", 1)[0].splitlines() if line.startswith("| `")]  # fmt: skip
    with Host() as a:
        there = [[f"`{t['name']}`", f"{t['display_name']}: {t['summary']}", t["transport"], t["auth"]]
                 for t in a.ctl("destination", "types")["types"]]  # fmt: skip
    equal(rows, there, "the README's table of destinations")


@case("a secret goes to the backend and is to be seen nowhere else; it goes with what refers to it")
def secrets():
    web, token = Hostile("ok"), secret()
    kept = lambda: os.listdir(os.path.join(a.state, "secrets"))  # noqa: E731
    with Host() as a:
        a.ctl("destination", "add", "otlphttp", "d", "--url", web.url, "--bearer-token-file", token)
        os.unlink(token)
        check(a.ctl("destination", "test", "d")["tests"][0]["ok"], "a test")
        equal(web.requests[-1][2].get("authorization"), "Bearer " + SECRET, "what the backend gets")
        a.ctl("destination", "set", "d", "bearer-token-", "basic-user=u", f"basic-password-file={secret()}",
              f"secret-headers/X-API-Key={secret('k-' + SECRET)}")  # fmt: skip
        check(a.ctl("destination", "test", "d")["tests"][0]["ok"], "a test")
        equal(web.requests[-1][2].get("x-api-key"), "k-" + SECRET, "the header")
        check(web.requests[-1][2].get("authorization", "").startswith("Basic "), "basic")
        equal(len(kept()), 2, "secrets that are kept")
        for name in kept():
            equal(os.stat(os.path.join(a.state, "secrets", name)).st_mode & 0o777, 0o600, "its mode")
        seen = [a.run(*w).stdout for w in (["status", "-v"], ["destination", "show", "d"], ["history"], ["logs"],
                                           ["config", "show"], ["destination", "show", "d", "--json"])]  # fmt: skip
        seen += [" ".join(cmdline(p)) for p in [a.pid, *descendants(a.pid)]] + [a.log()]
        for path in glob.glob(os.path.join(a.state, "**", "*"), recursive=True):
            if os.path.isfile(path) and "/secrets/" not in path:
                seen.append(open(path, "rb").read().decode("latin-1"))
        check(not [s for s in seen if SECRET in s], "the secret is seen")
        a.ctl("destination", "rename", "d", "e")
        check(a.ctl("destination", "test", "e")["tests"][0]["ok"], "a test under another name")
        equal(a.show("e")["options"]["basic-password"], "(secret)", "what is shown")
        a.ctl("destination", "remove", "e", "--yes")
        equal(kept(), [], "secrets that are kept for nothing")
        # From standard input; after another start.
        r = a.run("destination", "add", "otlphttp", "d", "--url", web.url, "--bearer-token-file", "-", input=SECRET)
        equal(r.returncode, 0, r.stderr)
        a.stop()
        a.start()
        check(a.ctl("destination", "test", "d")["tests"][0]["ok"], "a test after a start")
        equal(web.requests[-1][2].get("authorization"), "Bearer " + SECRET, "after a start")


@case("files that are named are read again when they change; credentials are systemd's")
def renewed():
    web, token = Hostile("ok"), secret("one")
    credentials = temp_folder()
    with open(os.path.join(credentials, "grafana"), "w") as f:
        f.write("from-systemd")
    last = lambda: web.requests[-1][2].get("authorization")  # noqa: E731

    def tested():
        return a.ctl("destination", "test", "d", codes=(0, 1))["tests"][0]

    with Host(env=dict(os.environ, CREDENTIALS_DIRECTORY=credentials)) as a:
        a.ctl("destination", "add", "otlphttp", "d", "--url", web.url, "--bearer-token-path", token)
        check(tested()["ok"] and last() == "Bearer one", last())
        with open(token, "w") as f:
            f.write("two")
        check(tested()["ok"] and last() == "Bearer two", last())
        os.unlink(token)
        d = wait_for("it says so", lambda: a.show("d") if a.show("d")["state"] == "failing" else None, 15)
        check(token in d["last_error"] and "No such file" in d["last_error"], d["last_error"])
        with open(token, "w") as f:
            f.write("three")
        wait_for("it is read again", lambda: a.show("d")["state"] != "failing", 15)
        a.ctl("destination", "set", "d", "bearer-token-file=cred:grafana")
        check(tested()["ok"] and last() == "Bearer from-systemd", last())
        a.ctl("destination", "set", "d", "bearer-token-file=cred:other")
        check("LoadCredential=other" in tested()["reason"], tested())
        # What others could exchange is copied (certificates) or refused (secrets).
        os.chmod(token, 0o666)
        said = a.says("destination", "set", "d", f"bearer-token-path={token}")
        check("chmod go-w" in said, said)


@case("secrets on the command line are refused, with what to type instead, and are not repeated")
def refused():
    with Host() as a:
        add = ["destination", "add", "otlphttp", "d", "--url", "http://127.0.0.1:9"]
        for more, words in [
            (["--bearer-token", SECRET], "--bearer-token-file FILE"),
            (["--basic-user", "u", "--basic-password=" + SECRET], "--basic-password-file FILE"),
            (["--header", "Authorization=Bearer " + SECRET], "--bearer-token-file FILE"),
            (["--header", "X-API-Key=" + SECRET], "--secret-header X-API-Key=FILE"),
            (["--proxy", f"http://u:{SECRET}@proxy:1"], "their own options"),
        ]:
            said = a.says(*add, *more)
            check(words in said and SECRET not in said, f"{more}: {said}")
        said = a.says("destination", "add", "otlphttp", f"http://u:{SECRET}@h:1")
        check("do not belong into a URL" in said and SECRET not in said, said)
        a.ctl(*add)
        for pair, words in [
            ("bearer-token=" + SECRET, "bearer-token-file=FILE"),
            ("headers/Authorization=Basic " + SECRET, "--basic-password-file"),
            ("headers/Cookie=" + SECRET, "--secret-header Cookie=FILE"),
        ]:
            said = a.says("destination", "set", "d", pair)
            check(words in said and SECRET not in said, f"{pair}: {said}")
        check(SECRET not in a.log() and SECRET not in a.run("history").stdout, "the secret is seen")
        for path in glob.glob(os.path.join(a.state, "odi.db*")):
            check(SECRET.encode() not in open(path, "rb").read(), path)


@case("the policy caps every layer, is seen where it forbids, and is refused when others can write it")
def policy():
    web, folder = Hostile("ok"), temp_folder()
    rules = "destinations: {allow: ['127.0.0.*', '*.example.com:443'], require-tls-verification: true}\n"
    with Host(rules + f"files: {{folders: [{folder}]}}\n") as a:
        add = ["destination", "add", "otlphttp"]
        for more, words in [
            (["x", "--url", "https://evil.example"], "does not allow evil.example:443"),
            (["x", "--url", "https://a.example.com:8443"], "does not allow a.example.com:8443"),
            (["x", "--url", "http://a.example.com:443"], "wants TLS to a.example.com:443"),
            (["x", "--url", "https://a.example.com", "--insecure-skip-verify"], "forbids insecure-skip-verify"),
            (["x", "--url", "https://a.example.com", "--proxy", "http://evil:1"], "does not allow evil:1"),
        ]:
            said = a.says(*add, *more)
            check(words in said, f"{more}: {said}")
        said = a.says("destination", "add", "file", "/etc/odi-files")
        check("does not let files be written to /etc/odi-files" in said and folder in said, said)
        said = a.says("destination", "add", "file", folder + "/../x")
        check("does not let files" in said, said)
        a.ctl(*add, "ok", "--url", web.url)
        a.ctl("destination", "add", "file", folder)
        said = a.says("destination", "set", "ok", "url=http://10.0.0.1:1")
        check("does not allow 10.0.0.1:1" in said, said)
        check(a.ctl("destination", "test", "ok")["tests"][0]["ok"], "what is allowed")
        p = a.ctl("policy", "show")
        equal((p["file"], p["problem"], p["any_host"]), (os.path.join(a.etc, "policy.yaml"), "", False), p)
        equal((p["hosts"], p["folders"]), (["127.0.0.*", "*.example.com:443"], [folder]), p)
        equal((p["require_tls_verification"], p["forbidden"]), (True, []), p)
        # Stricter now: what was set before gets nothing any more, and says so.
        a.write("policy.yaml", "destinations: {allow: [other]}\n")
        d = wait_for("it is forbidden", lambda: a.show("ok") if a.show("ok")["state"] == "forbidden" else None, 15)
        check("does not allow 127.0.0.1" in d["forbidden"], d)
        said = a.says("destination", "test", "ok")
        check("does not allow 127.0.0.1" in said, said)
        p = a.ctl("policy", "show")
        equal([x["destination"] for x in p["forbidden"]], ["ok", "file"], p)
        check("does not allow 127.0.0.1" in p["forbidden"][0]["why"], p)
        check(any("gets nothing" in p["text"] for p in a.status()["problems"]), a.status()["problems"])
        # What a file asks for waits until the policy allows it.
        a.write("destinations.d/f.yaml", f"\n- {{name: filed, type: otlphttp, url: '{web.url}'}}\n")
        wait_for("the file is wrong", lambda: "f.yaml:2: destination filed" in json.dumps(a.status()["problems"]), 15)
        # One that others can write says nothing that counts.
        a.write("policy.yaml", "destinations: {}\n", 0o666)
        wait_for("it is refused", lambda: "policy is refused" in json.dumps(a.status()["problems"]), 15)
        check("chmod go-w" in a.log(), "the log")
        said = " ".join(a.run("policy", "show").stdout.split())
        check("it is refused, so nothing is sent" in said and "hosts none" in said, said)
        check("while the policy is refused" in a.says(*add, "y", "--url", web.url), "an add")
        a.write("policy.yaml", "destinations: {alow: []}\n")
        wait_for("it is wrong", lambda: 'did you mean \\"allow\\"' in json.dumps(a.status()["problems"]), 15)
        os.unlink(os.path.join(a.etc, "policy.yaml"))
        wait_for("it is gone", lambda: a.show("ok")["state"] != "forbidden", 15)
        said = " ".join(a.run("policy", "show").stdout.split())
        check("there is none" in said and "hosts any" in said and "/odi/files (the default)" in said, said)
        wait_for("the file is taken", lambda: "configuration files" not in json.dumps(a.status()["problems"]), 15)
        equal(a.show("filed")["type"], "otlphttp", "of the file")
        a.stop()
        # At a start as well.
        a.write("policy.yaml", "destinations: {allow: [other]}\n")
        a.start()
        equal(a.show("ok")["state"], "forbidden", "after a start")


@case("under another name it is the same: what waits is delivered once, and its account goes on")
def renamed():
    web = Hostile(503)
    with Host() as a:
        a.ctl("destination", "add", "otlphttp", "old", "--url", web.url)
        a.add_process("shares_c", "--service-name", "s")
        a.enable()
        Workload("shares_c").work(0.5)
        a.ctl("profiling", "disable")
        wait_for("the last interval is closed", lambda: not a.ledger()["open"], 20, 0.2)
        wait_for("something waits", lambda: a.show("old")["ledger"]["held"] > 0, 15)
        before = a.show("old")["ledger"]
        check("there is a destination 'old' already" in a.says("destination", "rename", "old", "old"), "the same name")
        a.ctl("destination", "rename", "old", "new")
        check("no destination 'old'" in a.says("destination", "show", "old"), "the old name")
        ledger = a.show("new")["ledger"]
        equal((ledger["routed"], ledger["evicted"]), (before["routed"], 0), ledger)
        a.stop()
        a.start()
        wait_for("after a start", lambda: a.show("new")["ledger"]["routed"] == before["routed"], 10)
        web.behaviour = "ok"
        a.ctl("destination", "set", "new", "timeout=3s")
        wait_for("all is delivered", lambda: a.show("new")["ledger"]["delivered"] == before["routed"], 20)
        equal(web.total(), before["routed"], "samples")


@case("an operator's own type is a file, which only root may write; its mistakes have line and word")
def own():
    web = Hostile("ok")
    text = ("display-name: Mine\nsummary: ours\nsignals: [PROFILES]\ntransport: otlphttp\nendpoint: url\n"
            "path: /in/{team}\nwith: [network, tls, bearer]\nfields:\n- {name: url, type: url, help: where}\n"
            "- {name: team, type: string, required: true, help: whose}\n")  # fmt: skip
    with Host() as a:
        path = a.write("destinations.d/types/mine.yaml", text)
        a.write("destinations.d/types/wrong.yaml", text.replace("summary", "sumary"))
        a.stop()
        a.start()
        check('wrong.yaml:2: a destination type has no key "sumary": did you mean "summary"?' in a.log(), "the log")
        said = a.says("destination", "add", "mine", web.url)
        check("team is required: whose" in said, said)
        a.ctl("destination", "add", "mine", web.url, "--team", "a/b")
        check(a.ctl("destination", "test", "mine")["tests"][0]["ok"], "a test")
        equal(web.requests[-1][1], "/in/a%2Fb", "the path")
        os.chmod(path, 0o666)
        a.stop()
        a.ctl_dead = True
        a.process = spawn(a.argv(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        out = a.process.communicate(timeout=120)[0]
        check("mine.yaml is refused" in out and "chmod go-w" in out, out)


@case("wrong address, port, token, path, protocol: each a sentence that leads to the mistake")
def wrong():
    http, grpc = collector()
    authority = Authority(temp_folder())
    tls = Hostile("ok", authority.leaf("server"))
    web, denied = Hostile("ok"), Hostile(401)
    lost = f"http://127.0.0.1:{http}/wrong"
    rows = [
        ("host", "otlphttp", "http://no-such-host.invalid:4318", "was not resolved", "spelled right"),
        ("port", "otlphttp", f"http://127.0.0.1:{free_port()}", "connection refused", "correct the port"),
        ("token", "otlphttp", denied.url, "answered 401", "basic-user"),
        ("path", "otlphttp", lost, "does not know the path /wrong", "4318"),
        ("http to gRPC", "otlphttp", f"http://127.0.0.1:{grpc}", f"port {grpc}", "otlp"),
        ("gRPC to http", "otlp", f"http://127.0.0.1:{http}", f"port {http}", "gRPC"),
        ("gRPC to web", "otlp", web.url, f"port {web.port}", "gRPC"),
        ("plain to TLS", "otlphttp", tls.url.replace("https", "http"), f"port {tls.port}", "https"),
        ("gRPC plain to TLS", "otlp", tls.url.replace("https", "http"), f"port {tls.port}", "https"),
        ("TLS to plain", "otlphttp", web.url.replace("http", "https"), "TLS", "http://"),
        ("gRPC TLS to plain", "otlp", f"https://127.0.0.1:{grpc}", "TLS", "http://"),
        ("unknown authority", "otlphttp", tls.url, "certificate", "--ca"),
        ("parca to http", "parca", web.url, f"port {web.port}", "7070"),
    ]
    with Host() as a:
        for i, (what, kind, url, reason, remedy) in enumerate(rows):
            a.ctl("destination", "add", kind, f"d{i}", "--url", url, "--timeout", "3s")
            t = a.ctl("destination", "test", f"d{i}", codes=(1,))["tests"][0]
            say(f"# {what}: {t['reason']} -> {t['remedy']}")
            check(not t["ok"] and reason in t["reason"], f"{what}: {t}")
            check(remedy.lower() in t["remedy"].lower(), f"{what}: {t}")


if __name__ == "__main__":
    main()
