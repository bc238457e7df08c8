# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share: a private agentd, odictl, workloads, control groups, Docker.

Everything made here lies in one temporary folder, listens on private sockets and loopback ports, and is ended by
process id at the end, whatever happens. The binaries are those of ODI_BUILD (default: build/ of the tree, or the
folder whose virtual environment runs this).
"""

import atexit
import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "../../.."))
sys.path[:0] = [os.path.join(ROOT, "tests/lib"), os.path.join(ROOT, "tests/receivers")]

from cases import CannotRun, case, check, equal, main, say  # noqa: E402,F401
import check_otlp  # noqa: E402
from otlp_receiver import OtlpReceiver  # noqa: E402,F401


def find_build():
    if os.environ.get("ODI_BUILD"):
        return os.path.realpath(os.environ["ODI_BUILD"])
    beside = os.path.dirname(sys.prefix)  # BUILD/venv/bin/python
    if os.path.exists(os.path.join(beside, "bin/agentd")):
        return beside
    return os.path.join(ROOT, "build")


BUILD = find_build()
WORKLOADS = os.environ.get("ODI_WORKLOADS") or os.path.join(BUILD, "workloads")
AGENTD = os.path.join(BUILD, "bin/agentd")
ODICTL = os.path.join(BUILD, "bin/odictl")
SIGMA = 5
# Deadlines are there for what hangs, not for what is slow: where tests say 10 s, a busy machine may take longer.
PATIENCE = 5

with open(os.path.join(ROOT, "tests/workloads/truth.json")) as f:
    TRUTH = json.load(f)
for name, truth in list(TRUTH.items()):
    if isinstance(truth, dict) and "same_as" in truth:
        TRUTH[name] = TRUTH[truth["same_as"]]


# ---- the temporary folder, and ending what was started -------------------------------------------------------

_processes = []
_folders = []
_cleanups = []


def on_end(function):
    """Run at the end, last one first."""
    _cleanups.append(function)


def temp_folder():
    if not _folders:
        _folders.append(tempfile.mkdtemp(prefix="odi-test-"))
        os.chmod(_folders[0], 0o755)
    return tempfile.mkdtemp(dir=_folders[0])


def spawn(argv, **options):
    """Popen that is ended with the test."""
    p = subprocess.Popen(argv, **options)
    _processes.append(p)
    return p


def end(p, seconds=10):
    """SIGTERM, then SIGKILL after so long, with patience. Answers the exit status."""
    if p.poll() is None:
        p.terminate()
        try:
            p.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            say(f"# {p.args[0]} ({p.pid}) did not end within {seconds} s of SIGTERM")
            p.kill()
            p.wait()
    return p.returncode


def _clean_up():
    for p in reversed(_processes):
        if p.poll() is None:
            p.terminate()
    for p in reversed(_processes):
        end(p, 5)
    for function in reversed(_cleanups):
        try:
            function()
        except Exception as e:
            say(f"# at the end: {e}")
    for folder in _folders:
        if os.environ.get("ODI_KEEP"):
            say(f"# kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


atexit.register(_clean_up)
signal.signal(signal.SIGTERM, lambda *a: sys.exit(143))


def wait_for(what, function, seconds=10.0, pause=0.05, patience=PATIENCE):
    """Polls until function() is true, and answers what it answered."""
    end_time = time.monotonic() + seconds * patience
    while True:
        late = time.monotonic() > end_time  # asked once more after it: the question itself may take long
        value = function()
        if value:
            return value
        if late:
            raise AssertionError(f"not within {seconds * patience} s: {what}")
        time.sleep(pause)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


# ---- odictl's JSON: the one place that knows its shape -----------------------------------------------------


def plain(key):
    return key.lower().replace("-", "_")


def field(record, *names, default=None):
    """The first of these fields that a JSON object has, whichever way its words are joined."""
    keys = {plain(k): k for k in record}
    for name in names:
        if plain(name) in keys:
            return record[keys[plain(name)]]
    return default


def rows(answer):
    """The list in an answer: the answer itself, or the one list that the object holds."""
    if isinstance(answer, list):
        return answer
    lists = [v for v in answer.values() if isinstance(v, list)]
    return lists[0] if lists else []


def for_user(path, user):
    """The program where that user can run it: a clone in root's home is closed to others."""
    if user is None:
        return path
    folder = temp_folder()
    os.chmod(folder, 0o755)
    copy = os.path.join(folder, os.path.basename(path))
    shutil.copy2(path, copy)
    os.chmod(copy, 0o755)
    return copy


class Ctl(Exception):
    """odictl failed where the test wanted it to succeed."""


class Agentd:
    """A private daemon. `with Agentd() as a: a.ctl("status")`"""

    def __init__(self, config=None, start=True, env=None, folder=None, user=None):
        self.folder = folder or temp_folder()
        self.socket = os.path.join(self.folder, "agentd.sock")
        self.state = os.path.join(self.folder, "state")
        # Never the host's own configuration.
        self.etc = os.path.join(self.folder, "etc")
        self.packaged = os.path.join(self.folder, "packaged")
        self.log_path = os.path.join(self.folder, "agentd.log")
        self.config = None
        self.env = env
        self.user = user
        self.process = None
        if config is not None:
            self.config = os.path.join(self.folder, "agentd.yaml")
            with open(self.config, "w") as out:
                out.write(config)
        if start:
            self.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.stop()
        if kind:
            self.show_log()
        found = [line for line in self.log().splitlines() if "Sanitizer" in line or "runtime error:" in line]
        check(not found, f"sanitizers found: {found[:5]}; see the log above")

    def argv(self):
        out = [for_user(AGENTD, self.user), "--socket", self.socket, "--state-dir", self.state, "--log-level", "debug"]
        out += ["--config-dir", self.etc, "--packaged-dir", self.packaged]
        return out + (["--config", self.config] if self.config else [])

    def start(self, seconds=20):
        if not os.path.exists(AGENTD):
            raise AssertionError(f"{AGENTD} is not built")
        with open(self.log_path, "ab") as log:
            self.process = spawn(self.argv(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.env,
                                 user=self.user)  # fmt: skip

        def ready():
            if self.process.poll() is not None:
                self.show_log()
                raise AssertionError(f"agentd ended with {self.process.returncode}")
            return self.run("status", "--json").returncode in (0, 1)

        wait_for("agentd answers", ready, seconds)
        return self

    def stop(self):
        """Answers the exit status."""
        return end(self.process, 20) if self.process else None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def alive(self):
        return self.process.poll() is None

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def show_log(self, lines=60):
        say("# agentd's log ends so:")
        for line in self.log().splitlines()[-lines:]:
            say("#   " + line[:300])

    # -- odictl --

    def run(self, *args, input=None, env=None, timeout=60 * PATIENCE, user=None):
        """odictl as it is: exit status and both outputs."""
        e = dict(os.environ if env is None else env, ODI_SOCKET=self.socket)
        return subprocess.run([for_user(ODICTL, user), *map(str, args)], capture_output=True, text=True, input=input,
                              stdin=None if input is not None else subprocess.DEVNULL, env=e, timeout=timeout,
                              user=user)  # fmt: skip

    def ctl(self, *args, codes=(0,), timeout=60 * PATIENCE):
        """odictl ... --json, decoded; fails the test on another exit status."""
        r = self.run(*args, "--json", timeout=timeout)
        if r.returncode not in codes:
            raise Ctl(f"odictl {' '.join(map(str, args))}: exit status {r.returncode}: {r.stdout} {r.stderr}")
        try:
            return json.loads(r.stdout) if r.stdout.strip() else {}
        except json.JSONDecodeError as e:
            raise Ctl(f"odictl {' '.join(map(str, args))} --json printed no JSON: {e}: {r.stdout[:300]!r}") from e

    def status(self):
        return self.ctl("status", "--verbose", codes=(0, 1))

    def ledger(self, kind="cpu"):
        """One type's row, with `destinations` as {name: row}."""
        ledger = field(self.status(), "ledger", default={})
        if isinstance(ledger, dict):
            row = ledger.get(kind, ledger)
            if "due" not in row:
                row = next((r for r in rows(ledger) if field(r, "type") == kind), {})
        else:
            row = next((r for r in ledger if field(r, "type") == kind), {})
        row = {plain(k): v for k, v in row.items()}
        found = row.get("destinations", [])
        if isinstance(found, dict):
            found = [{"name": k, **v} for k, v in found.items()]
        row["destinations"] = {field(d, "name"): {plain(k): v for k, v in d.items()} for d in found}
        return row

    def check_ledger(self, ledger=None):
        """Both equations, recomputed here; what is in flight to the open interval is `open`."""
        l = ledger or wait_for("the ledger closes", self._closed_ledger, 20, 0.3)
        gap = ledger_gap(l)
        check(not gap, gap, json.dumps(l))
        return l

    def _closed_ledger(self):
        l = self.ledger()
        return l if l and not ledger_gap(l) else None

    def children(self, role):
        """Process ids of agentd's children of one role."""
        found = []
        for pid in descendants(self.pid):
            argv = cmdline(pid)
            if "--role" in argv and argv[argv.index("--role") + 1 :][:1] == [role]:
                found.append(pid)
        return found

    def sources(self):
        return {field(r, "name"): r for r in rows(self.ctl("source", "list"))}

    def destinations(self):
        return {field(r, "name"): r for r in rows(self.ctl("destination", "list"))}

    def add_source(self, kind, *args):
        """Adds one and answers its name."""
        return field(rows(self.ctl("source", "add", kind, *args))[0], "name")

    def add_process(self, workload, *args):
        """The executable of a workload as a source."""
        path = workload if workload.startswith("/") else os.path.join(WORKLOADS, workload.split()[0])
        return self.add_source("process", path, *args)

    def add_receiver(self, receiver, name="backend", kind="otlphttp"):
        self.ctl("destination", "add", kind, name, "--url", receiver.url)
        return name

    def enable(self, *args, rate=499, interval="1s", budget=0):
        """Without a budget, unless the test asks for one: what it costs to sample so often is not its question."""
        if not (self.config and "budget" in open(self.config).read()):
            args = ("--budget", budget, *args)
        self.ctl("profiling", "enable", "--rate", rate, "--interval", interval, *args)

    def settle(self, receiver, service, at_least=1, seconds=20):
        """Waits until what was sampled up to now has arrived, while profiling goes on: the interval that is open now is
        closed and delivered (or rejected) where the receiver listens, and so many samples of the service are there."""
        names = self._destinations_at(receiver)

        def booked():
            """Samples of all sources since agentd started: asking for them collects what the kernel has counted."""
            return sum(field(s, "samples") for s in self.sources().values())

        def closed(wanted):
            l = self.ledger()
            return l if l["profiled"] + l["lost"] >= wanted else None

        for _ in range(2):  # what still waited for facts about its program is booked when the first interval is closed
            wanted = booked()
            l = wait_for("the open interval closes", lambda: closed(wanted), seconds, 0.2)
        routed = {n: d["routed"] for n, d in l["destinations"].items()}

        def through():
            found = self.ledger()["destinations"]
            done = all(found[n]["routed"] - found[n]["held"] >= routed[n] for n in names if n in found and n in routed)
            return done and unique(receiver).total(service) >= at_least

        wait_for(f"samples of {service} arrive ({at_least} or more)", through, seconds, 0.2)
        return unique(receiver)

    def _destinations_at(self, receiver):
        return [n for n, d in self.destinations().items() if receiver.url in json.dumps(d)]

    def finish(self, receiver, lost=0):
        """Ends profiling; answers all that was profiled, as it arrived, and the ledger."""
        self.ctl("profiling", "disable")
        wait_for("the last interval is closed", lambda: not self.ledger()["open"], 20, 0.2)
        ledger = self.check_ledger()
        names = self._destinations_at(receiver)
        wait_for("all that was profiled arrives", lambda: not any(self.ledger()["destinations"][n]["held"] for n in names), 20, 0.1)
        profiles = unique(receiver)
        equal(profiles.total(), ledger["profiled"], "samples that arrived, those of the ledger")
        if lost is not None:
            equal(ledger["lost"], lost, f"samples lost: {ledger.get('lost_by')}")
        return profiles, self.check_ledger()

    def sampled(self, source):
        """Samples of a source up to now."""
        return field(self.sources()[source], "samples")

    def wait_sampled(self, source, more, seconds=30):
        """Until so many more samples were taken of it."""
        before = self.sampled(source)
        wait_for(f"{more} samples of {source}", lambda: self.sampled(source) >= before + more, seconds, 0.1)

    def settle_running(self, receiver, service, at_least=500, seconds=30):
        """The same while the workload goes on: waits for so many samples only."""
        wait_for(f"{at_least} samples of {service}", lambda: unique(receiver).total(service) >= at_least, seconds, 0.2)
        return unique(receiver)


def ledger_gap(l):
    """What does not close, in words; empty where all does."""
    need = ("due", "taken", "late", "idle", "ignored", "lost", "profiled")
    missing = [n for n in need if n not in l]
    if missing:
        return f"the ledger has no {', '.join(missing)}"
    if l["due"] != l["taken"] + l["late"]:
        return f"due {l['due']} is not taken {l['taken']} + late {l['late']}"
    parts = l["idle"] + l["ignored"] + l["lost"] + l["profiled"] + l.get("open", 0)
    if l["taken"] != parts:
        return f"taken {l['taken']} is not idle, ignored, lost, profiled and open: {parts}"
    by_cause = l.get("lost_by")
    if isinstance(by_cause, dict) and sum(by_cause.values()) != l["lost"]:
        return f"lost {l['lost']} is not the sum of its causes {by_cause}"
    for name, d in l["destinations"].items():
        parts = sum(d.get(k, 0) for k in ("delivered", "held", "evicted", "rejected", "shaped"))
        if d.get("routed", 0) != parts:
            return f"destination {name}: routed {d.get('routed')} is not the sum of the others {parts}"
    return ""


# ---- processes ----------------------------------------------------------------------------------------------


def cmdline(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return [a.decode(errors="replace") for a in f.read().split(b"\0")][:-1]
    except OSError:
        return []


def parent(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return int(f.read().rsplit(")", 1)[1].split()[1])
    except (OSError, IndexError, ValueError):
        return -1


def descendants(pid):
    parents = {int(p): parent(p) for p in os.listdir("/proc") if p.isdigit()}
    found, queue = [], [pid]
    while queue:
        at = queue.pop()
        below = [p for p, up in parents.items() if up == at]
        found += below
        queue += below
    return found


class Workload:
    """A program of known shape; report() has what it says of itself at its end."""

    def __init__(self, name, seconds=0, env=None, cgroups=(), cwd=None, argv=None):
        words = name.split()
        path = words[0] if words[0].startswith("/") else os.path.join(WORKLOADS, words[0])
        if not os.path.exists(path):
            raise CannotRun(f"{words[0]} was not built on this machine")
        self.name = name

        def enter():
            for group in cgroups:
                with open(os.path.join(group, "cgroup.procs"), "w") as f:
                    f.write(str(os.getpid()))

        self.process = spawn(argv or [path, *words[1:], *([str(seconds)] if seconds is not None else [])],
                             stdout=subprocess.PIPE, text=True, cwd=cwd, env={**os.environ, **(env or {})},
                             preexec_fn=enter if cgroups else None)  # fmt: skip
        self.pid = self.process.pid

    def cpu_seconds(self):
        """Of its own, and of the children that it has waited for."""
        with open(f"/proc/{self.pid}/stat") as f:
            words = f.read().rsplit(")", 1)[1].split()
        return sum(map(int, words[11:15])) / os.sysconf("SC_CLK_TCK")

    def work(self, cpu_seconds, reports=True):
        """Ends it when it has used so much CPU time, however long that takes. Answers its report, if it knows SIGTERM."""
        wait_for(f"{cpu_seconds} s of CPU time of {self.name}", lambda: self.process.poll() is not None or
                 self.cpu_seconds() >= cpu_seconds, 20 + 10 * cpu_seconds)  # fmt: skip
        if reports:
            return self.stop()
        self.process.kill()
        self.process.communicate()
        return None

    def wait(self, seconds=60):
        out, _ = self.process.communicate(timeout=seconds * PATIENCE)
        check(self.process.returncode == 0, f"{self.name} ended with {self.process.returncode}")
        return json.loads(out.splitlines()[-1])

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        return self.wait()


def copy_program(name, new_name, folder=None):
    """A workload under another name: another executable, another file."""
    folder = folder or temp_folder()
    path = os.path.join(folder, new_name)
    shutil.copy(os.path.join(WORKLOADS, name), path)
    return path


# ---- statistics -----------------------------------------------------------------------------------------------


def unique(receiver):
    """What arrived, without repeats: a profile that came twice has the same profile_id."""
    p = check_otlp.Profiles(receiver.messages)
    seen, kept = set(), []
    for profile in p.profiles:
        if profile.id not in seen:
            seen.add(profile.id)
            kept.append(profile)
    p.profiles = kept
    return p


def repeats(receiver):
    ids = check_otlp.Profiles(receiver.messages).ids()
    return len(ids) - len(set(ids))


def tolerance(share, n, sigma=SIGMA):
    """So many standard deviations of a binomial share; 0.001 more for the work between the leaves."""
    return sigma * math.sqrt(max(share * (1 - share), 1e-4) / max(n, 1)) + 0.001


def check_shares(got, shares, what, others=0.02):
    """Counts by name against the shares that are true of the work itself; at most `others` of all lies outside of it
    (starting, ending, waiting)."""
    n = sum(got.values())
    known = sum(got.get(name, 0) for name in shares)
    shown = dict(got.most_common(12))
    check(n > 0, f"{what}: no samples")
    check((n - known) / n <= others + tolerance(others, n), f"{what}: {n - known} of {n} samples in none of {sorted(shares)}:", shown)
    for name, share in shares.items():
        seen = got.get(name, 0) / known
        check(abs(seen - share) <= tolerance(share, known),
              f"{what}: {name} has {seen:.3f} of {known} samples, true is {share} +- {tolerance(share, known):.3f};", shown)  # fmt: skip


def few(share, n):
    """So many of n samples may be of a kind of which there is this share: three standard deviations more, since a
    small profile has a sample of it more or less by chance. None where there is to be none."""
    return share * n + 3 * math.sqrt(share * (1 - share) * n)


def check_count(n, wanted, what, slack=0.02, late=0):
    """As many samples as CPU time: none lost, none doubled. `late`: the ledger's ticks that a busy host had no time for;
    whose time they were is not known, so that all of them may be missing here."""
    margin = max(slack * wanted, SIGMA * wanted**0.5, 3)
    check(wanted - margin - late <= n <= wanted + margin,
          f"{what}: {n} samples, not {wanted:.0f} +- {margin:.0f}; {late} ticks of the host were late")  # fmt: skip


def check_chains(profiles, service, truth, what, wrong=0.01):
    """Every sample in a known leaf has the leaf's whole chain; a few may fall into a prologue or an epilogue."""
    bad, n, examples = 0, 0, []
    for chain, count in profiles.chains(service).items():
        if not chain or chain[0] not in truth["chains"]:
            continue
        wanted = tuple(truth["chains"][chain[0]])
        n += count
        if chain[: len(wanted)] != wanted:
            bad += count
            examples.append(chain)
    check(n > 0, f"{what}: no sample in a known leaf")
    check(bad <= max(2, few(wrong, n)), f"{what}: {bad} of {n} samples with another chain, such as {examples[:3]}")


def check_messages(receiver, pyroscope=True):
    """All dictionary rules on all that arrived."""
    check(receiver.messages, "nothing arrived")
    for i, r in enumerate(receiver.requests):
        problems = check_otlp.check(r.message, pyroscope=pyroscope, now=r.time)
        check(not problems, f"request {i} of {len(receiver.requests)} breaks rules: {problems[:5]}")
    turned_away = [r.status for r in receiver.all_requests() if r.status in (400, 404, 415, 500)]
    check(not turned_away, f"requests were turned away: {turned_away}")


def expected_samples(cpu_ns, rate):
    return cpu_ns * rate / 1e9


# ---- control groups -------------------------------------------------------------------------------------------


def cgroup_roots():
    """Mount points by hierarchy: "v2", "systemd" (named v1), others of v1 by controller."""
    found = {}
    with open("/proc/mounts") as f:
        for line in f:
            _, where, kind, options = line.split()[:4]
            if kind == "cgroup2":
                found["v2"] = where
            elif kind == "cgroup":
                words = options.split(",")
                name = next((w[5:] for w in words if w.startswith("name=")), None)
                found[name or os.path.basename(where)] = where
    return found


def make_cgroup(path, hierarchies=("v2", "systemd")):
    """Makes real folders such as system.slice/web.service; answers them. Removed at the end."""
    made = []
    roots = cgroup_roots()
    for h in hierarchies:
        if h not in roots:
            continue
        at = roots[h]
        for part in path.strip("/").split("/"):
            at = os.path.join(at, part)
            try:
                os.mkdir(at)
            except FileExistsError:
                continue
            except OSError as e:
                raise CannotRun(f"no control group can be made at {at}: {e.strerror}") from e
            on_end(lambda at=at: remove_cgroup(at))
        made.append(at)
    if not made:
        raise CannotRun(f"none of the hierarchies {', '.join(hierarchies)} is mounted")
    return made


def remove_cgroup(path):
    for _ in range(50):
        try:
            os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.05)


# ---- Docker ------------------------------------------------------------------------------------------------------


class Docker:
    """A real engine with everything of its own under the temporary folder, without a network."""

    def __init__(self):
        self.dockerd = shutil.which("dockerd") or shutil.which("dockerd", path="/usr/sbin")
        self.client = next((p for p in ("/usr/bin/docker", shutil.which("docker")) if p and os.path.exists(p)), None)
        if not self.dockerd or not self.client:
            raise CannotRun("no Docker engine on this machine")
        self.folder = temp_folder()
        self.data = os.path.join(self.folder, "data")
        self.sock = os.path.join(self.folder, "docker.sock")
        self.log = open(os.path.join(self.folder, "dockerd.log"), "wb")
        before = {h: set(os.listdir(at)) for h, at in cgroup_roots().items()}
        on_end(lambda: self.remove_cgroups(before))
        self.process = spawn([self.dockerd, "--iptables=false", "--bridge=none", "--storage-driver=vfs",
                              "--data-root", self.data, "--exec-root", os.path.join(self.folder, "exec"),
                              "--pidfile", os.path.join(self.folder, "pid"), "-H", f"unix://{self.sock}"],
                             stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)  # fmt: skip
        wait_for("dockerd answers", self.answers, 60, 0.2)

    def answers(self):
        if self.process.poll() is not None:
            with open(self.log.name, errors="replace") as f:
                raise CannotRun(f"dockerd does not run here: {f.read()[-300:]}")
        return self.docker("version", codes=None).returncode == 0

    def remove_cgroups(self, before):
        """The engine leaves its (empty) parent groups behind."""
        for h, at in cgroup_roots().items():
            if "docker" not in before.get(h, {"docker"}) and os.path.isdir(os.path.join(at, "docker")):
                remove_cgroup(os.path.join(at, "docker"))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def docker(self, *args, codes=(0,), input=None):
        r = subprocess.run([self.client, "-H", f"unix://{self.sock}", *args], capture_output=True, input=input,
                           timeout=120)  # fmt: skip
        if codes is not None and r.returncode not in codes:
            raise AssertionError(f"docker {' '.join(args)}: {r.stderr.decode()}")
        return r

    def image(self, name, programs):
        """An image that holds these workloads at its root (static ones: there is nothing else in it)."""
        folder = temp_folder()
        for program in programs:
            shutil.copy(os.path.join(WORKLOADS, program), folder)
        tar = subprocess.run(["tar", "-C", folder, "-c", "."], capture_output=True, check=True).stdout
        self.docker("import", "-", name, input=tar)

    def start(self, image, name, *argv, options=()):
        """Answers the container's id."""
        r = self.docker("run", "-d", "--name", name, "--network", "none", "--ulimit", "nofile=1024:1024", *options,
                        image, *argv)  # fmt: skip
        return r.stdout.decode().strip()

    def pid(self, name):
        return int(self.docker("inspect", "-f", "{{.State.Pid}}", name).stdout)

    def remove(self, name):
        self.docker("rm", "-f", name, codes=None)

    def close(self):
        ids = self.docker("ps", "-aq", codes=None).stdout.decode().split()
        if ids:
            self.docker("rm", "-f", *ids, codes=None)
        end(self.process, 30)
        self.log.close()


# ---- small things ------------------------------------------------------------------------------------------------


def seed():
    """A seed for this run's random choices: printed, and taken from ODI_SEED to repeat one."""
    s = int(os.environ.get("ODI_SEED") or random.SystemRandom().randrange(1 << 32))
    say(f"# seed {s} (repeat with ODI_SEED={s})")
    return random.Random(s)
