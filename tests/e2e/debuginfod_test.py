#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 720 s
"""Debug files from a debuginfod server: elfutils' own one, serving the debug file of a program that was stripped of
everything; and servers that lie, stall or are not there, which cost the fetcher's time and nothing else."""

import http.server
import os
import shutil
import sys
import threading
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403

SOURCE = """
#include <signal.h>
#include <stdio.h>
static volatile unsigned long sink;
static volatile sig_atomic_t over;
static void on_term(int s) { (void)s; over = 1; }
static inline __attribute__((always_inline)) unsigned long mix_inline(unsigned long x)
{
	return x * 6364136223846793005UL + 1442695040888963407UL;
}
static __attribute__((noinline)) void spin_hidden(unsigned long n)
{
	for (unsigned long i = 0; i < n; i++)
		sink = mix_inline(sink);
}
int main(void)
{
	signal(SIGTERM, on_term);
	while (!over)
		spin_hidden(100000);
	puts("{}");
	return 0;
}
"""

LINES = {"spin_hidden": {13, 14}, "mix_inline": {9}, "main": {20}}  # where time passes in SOURCE


class Program:
    """A stripped program; its debug file is elsewhere. `salt` makes another build id."""

    def __init__(self, name, salt=""):
        folder = temp_folder()
        self.path = os.path.join(folder, name)
        self.debug = os.path.join(temp_folder(), name + ".debug")
        source = os.path.join(folder, "spinner.c")
        with open(source, "w") as f:
            f.write(SOURCE + f"\nconst char salt[] = \"{salt}{name}\";\n")
        run("gcc", "-g", "-O1", "-Wl,--build-id=sha1", "-o", self.path, source)
        run("objcopy", "--only-keep-debug", self.path, self.debug)
        run("strip", "--strip-all", self.path)
        notes = run("readelf", "-n", self.path)
        self.build_id = notes.split("Build ID: ")[1].split()[0]


def run(*argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


class Debuginfod:
    """The server of elfutils, over one folder."""

    def __init__(self, folder):
        if not shutil.which("debuginfod"):
            raise CannotRun("debuginfod is not installed on this machine (tests/check/deps.sh test)")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        home = temp_folder()
        with open(os.path.join(home, "log"), "wb") as log:
            self.process = spawn(["debuginfod", "-v", "-p", str(self.port), "-d", os.path.join(home, "db"), "-F", folder],
                                 stdout=log, stderr=log, env={**os.environ, "HOME": home, "DEBUGINFOD_URLS": ""})  # fmt: skip

    def wait(self, build_id):
        """Until it has indexed the file: asked without odi."""
        def there():
            return subprocess.run(["curl", "-sf", "-o", "/dev/null", f"{self.url}/buildid/{build_id}/debuginfo"]).returncode == 0

        wait_for("debuginfod has the file", there, 60, 0.3)


class Liar:
    """A server that misbehaves as the first part of the path says; requests are counted by it."""

    def __init__(self, files):
        self.files, self.requests = files, {}
        liar = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                how = self.path.split("/")[1]
                liar.requests.setdefault(how, []).append(self.path)
                try:
                    getattr(liar, how)(self)
                except OSError:
                    pass  # the other side had enough
                self.close_connection = True

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.over = threading.Event()
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        on_end(self.close)

    def close(self):
        self.over.set()
        self.server.shutdown()

    def asked(self, how, build_id=""):
        """Requests for this program: its libraries are asked for, too."""
        return sum(build_id in path for path in self.requests.get(how, []))

    def say(self, h, status, body=b"", **headers):
        h.send_response(status)
        for k, v in headers.items():
            h.send_header(k.replace("_", "-"), v)
        h.send_header("Content-Length", str(len(body)))
        h.end_headers()
        h.wfile.write(body)

    def missing(self, h):
        self.say(h, 404, b"not here")

    def broken(self, h):
        self.say(h, 500, b"no")

    def wrong(self, h):
        """A sound debug file, but another program's."""
        with open(self.files["wrong"], "rb") as f:
            self.say(h, 200, f.read())

    def garbage(self, h):
        self.say(h, 200, b"\x7fELF" + os.urandom(100000))

    def page(self, h):
        self.say(h, 200, b"<html>hello</html>")

    def bomb(self, h):
        packed = zlib.compressobj(9, zlib.DEFLATED, 31)
        body = packed.compress(b"\x7fELF" + bytes(64 << 20)) + packed.flush()
        self.say(h, 200, body, Content_Encoding="gzip")

    def elsewhere(self, h):
        self.say(h, 302, Location=h.path.join(["http://localhost:%d" % self.server.server_port, ""]))

    def drip(self, h):
        """A byte now and then, for ever."""
        h.send_response(200)
        h.end_headers()
        h.wfile.write(b"\x7fELF")
        while not self.over.wait(0.2):
            h.wfile.write(b"x")
            h.wfile.flush()


def fetch(a, *urls):
    """Switches it on with these servers, or off."""
    a.ctl("symbols", "fetch", *(["on"] if urls else ["off"]), *[w for u in urls for w in ("--url", u)])


def figures(a):
    return field(a.ctl("symbols", "list"), "fetch")


def binary(a, program):
    """What `odictl symbols` says of a program."""
    found = [r for r in field(a.ctl("symbols", "list"), "files", "binaries") if field(r, "build_id") == program.build_id]
    equal(len(found), 1, f"rows of {program.build_id}")
    return found[0]


def cached(a):
    folder = os.path.join(a.state, "debuginfo")
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def begin(a, receiver, program):
    a.add_receiver(receiver)
    a.add_source("process", program.path, "--service-name", "spinner")
    a.enable()
    return Workload(program.path, seconds=None)


def names(receiver):
    return unique(receiver).cumulative("spinner")


def after(receiver, what, wanted, seconds=30):
    """What only comes after now."""
    receiver.reset()
    wait_for(what, lambda: wanted(names(receiver)), seconds, 0.3)
    return unique(receiver)


def is_fallback(n):
    return any(k.startswith("spinner+0x") for k in n) and "spin_hidden" not in n


@case("a stripped program is named by file and offset, and after fetching by function and line, over restarts")
def real_server():
    program = Program("spinner")
    server = Debuginfod(os.path.dirname(program.debug))
    server.wait(program.build_id)
    with OtlpReceiver() as receiver, Agentd() as a:
        w = begin(a, receiver, program)
        a.settle_running(receiver, "spinner", 1500)
        check(is_fallback(names(receiver)), f"before: {names(receiver).most_common(5)}")
        equal(cached(a), [], "fetched although it is off")
        equal((figures(a)["on"], figures(a)["asked"]), (False, 0), "figures while it is off")
        equal(binary(a, program)["fetch"], "wanted", "the state of the file while it is off")
        check("odictl symbols fetch on" in binary(a, program)["advice"], f"advice: {binary(a, program)}")
        fetch(a, server.url)
        profiles = after(receiver, "names from the debug file", lambda n: n.get("spin_hidden", 0) > 300)
        lines = {}
        for f in (f for s in profiles.samples("spinner") for f in s.frames if f.file.endswith("/spinner.c")):
            lines.setdefault(f.name, set()).add(f.line)
        for name, wanted in LINES.items():
            check(lines.get(name, set()) & wanted, f"{name} has lines {lines.get(name)}, wanted one of {wanted}: {lines}")
        # nor is it removed when names go to the disk, a second after they were made
        receiver.reset()
        a.settle_running(receiver, "spinner", 1000)
        check(program.build_id in cached(a), f"the cache: {cached(a)}")
        mode = os.stat(os.path.join(a.state, "debuginfo", program.build_id)).st_mode & 0o777
        equal(mode, 0o600, "mode of the fetched file")
        f, size = figures(a), os.path.getsize(program.debug)
        equal((f["on"], f["refused"], f["last_error"]), (True, 0, ""), f"figures: {f}")
        check(f["found"] >= 1 and f["asked"] >= f["found"] + f["not_found"] and f["bytes"] >= size, f"figures: {f}")
        equal((f["cached_files"], f["cached_bytes"]), (len(cached(a)), f["bytes"]), f"figures: {f}")
        row = binary(a, program)
        equal(row["fetch"], "fetched", f"the state of the file: {row}")
        check("debuginfod" in row["named_by"], f"named by: {row}")
        # off again: what is here stays in use
        fetch(a)
        # what is on disk is used again, with nobody to ask
        a.stop()
        end(server.process)
        receiver.reset()
        a.start()
        wait_for("names after a restart", lambda: names(receiver).get("spin_hidden", 0) > 300, 30, 0.3)
        w.process.terminate()
        w.process.wait()
        a.check_ledger()


# How the server lies, and what agentd says of it.
LIES = {
    "missing": "",
    "broken": "answered 500",
    "wrong": "is not the one of build id",
    "garbage": "is not the one of build id",
    "page": "something that is no debug file",
    "bomb": "something that is no debug file",
    "elsewhere": "answered 302 and sends us to http://localhost",
}


@case("servers that lie, fail or are not there: nothing of it is kept, and the profile goes on")
def lies():
    program, other = Program("spinner"), Program("other")
    liar = Liar({"wrong": other.debug})
    with OtlpReceiver() as receiver, Agentd() as a:
        w = begin(a, receiver, program)
        a.settle_running(receiver, "spinner", 500)
        before = a.pid
        for how, said in LIES.items():
            was = figures(a)
            fetch(a, f"{liar.url}/{how}")
            figure = {"missing": "not_found", "wrong": "refused", "garbage": "refused"}.get(how, "failed")
            word = figure.replace("_", " ")
            wait_for(f"{how} is shown as {word}", lambda: binary(a, program)["fetch"] == word, 20, 0.2)
            check(said in figures(a)["last_error"], f"{how}: {figures(a)}")
            check(figures(a)[figure] > was[figure], f"{how} is not counted as {figure}: {was} {figures(a)}")
            after(receiver, f"profiles after {how}", lambda n: n.total() > 300 and is_fallback(n))
            check(program.build_id not in cached(a), f"what is kept of {how}: {cached(a)}")
            equal(liar.asked(how, program.build_id), 1, f"requests of {how}")
        fetch(a, f"http://127.0.0.1:{free_port()}")
        after(receiver, "profiles with nobody to ask", lambda n: n.total() > 500)
        f = figures(a)
        check("Connection refused" in f["last_error"], f"a server that is not there: {f}")
        check(f["asked"] >= f["found"] + f["not_found"] + f["failed"] > len(LIES), f"requests: {f}")
        check(program.build_id not in cached(a), f"what is kept at the end: {cached(a)}")
        equal(a.pid, before, "agentd's process")
        check(a.alive(), "agentd ended")
        w.process.terminate()
        w.process.wait()
        a.check_ledger()
        equal(a.ledger()["lost"], 0, "lost")


@case("a server that sends a byte now and then holds up nothing, and is left when it is switched off")
def slow():
    program = Program("spinner")
    good = Debuginfod(os.path.dirname(program.debug))
    good.wait(program.build_id)
    liar = Liar({})
    with OtlpReceiver() as receiver, Agentd() as a:
        fetch(a, f"{liar.url}/drip")
        w = begin(a, receiver, program)
        wait_for("drip was asked", lambda: liar.asked("drip", program.build_id), 30)
        after(receiver, "profiles meanwhile", lambda n: n.total() > 1000 and is_fallback(n))
        equal(figures(a)["under_way"], program.build_id, "what is under way")
        a.check_ledger()
        # the next server's turn comes at once when the setting says so
        fetch(a, good.url)
        after(receiver, "names from the other server", lambda n: n.get("spin_hidden", 0) > 300)
        check(program.build_id in cached(a), f"the cache: {cached(a)}")
        w.process.terminate()
        w.process.wait()


if __name__ == "__main__":
    main()
