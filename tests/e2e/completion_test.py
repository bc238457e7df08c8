#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 240 s
"""What is made from the command table besides --help: completion in real shells (bash, zsh and fish) with what a
running agentd has, and manual pages."""

import os
import pty
import re
import select
import shlex
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403


def environment(a, **more):
    path = f"{os.path.dirname(ODICTL)}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "ODI_SOCKET": a.socket, "HOME": a.folder, "TERM": "dumb", **more}


def in_bash(a, line):
    """What bash would put in, as its completion sees the line."""
    script = """
    source <(odictl completion bash)
    COMP_LINE=$1 COMP_POINT=${#1} COMP_WORDS=() COMP_CWORD=0
    _odictl 2>/dev/null
    printf '%s\\n' "${COMPREPLY[@]}"
    """
    r = subprocess.run(["bash", "--norc", "-c", script, "bash", line], env=environment(a), capture_output=True,
                       text=True, timeout=20 * PATIENCE)  # fmt: skip
    check(not [w for w in r.stderr.splitlines() if "compopt" not in w], r.stderr)
    return r.stdout.split()


def in_fish(a, line):
    script = f"odictl completion fish | source; complete -C {shlex.quote(line)}"
    r = subprocess.run(["fish", "--no-config", "-c", script], env=environment(a), capture_output=True, text=True,
                       timeout=20 * PATIENCE)  # fmt: skip
    equal(r.stderr, "")
    return [w.split("\t")[0] for w in r.stdout.splitlines()]


class Zsh:
    """An interactive zsh on a terminal, since only its line editor completes."""

    def __init__(self, a):
        pid, self.fd = pty.fork()
        if pid == 0:
            os.execvpe("zsh", ["zsh", "-f", "-i"], environment(a, PS1="> "))
        self.pid = pid
        self.type("unsetopt beep zle_bracketed_paste; autoload -U compinit; compinit -D -u; "
                  "source <(odictl completion zsh); echo rea''dy\n", "ready")  # fmt: skip

    def type(self, keys, until):
        os.write(self.fd, keys.encode())
        seen, end = "", time.monotonic() + 15 * PATIENCE
        while time.monotonic() < end and not re.search(until, seen):
            if select.select([self.fd], [], [], 0.2)[0]:
                seen += os.read(self.fd, 65536).decode(errors="replace")
        check(re.search(until, seen), f"zsh shows no {until!r} after {keys!r}: {seen!r}")
        return seen

    def end(self):
        os.write(self.fd, b"\x15exit\n")
        os.close(self.fd)
        os.waitpid(self.pid, 0)


def started():
    a = Agentd()
    a.ctl("source", "add", "host", "--name", "everything")
    a.ctl("destination", "add", "pyroscope", "grafana", "--url", "http://127.0.0.1:9")
    return a


# line, what must be offered, what must not
LINES = [
    ("odictl so", {"source"}, {"status"}),
    ("odictl source ", {"add", "list", "remove"}, {"types"}),
    ("odictl source add ", {"systemd", "process", "container", "cgroup", "host"}, {"pyroscope"}),
    ("odictl source show ", {"everything"}, {"grafana"}),
    ("odictl destination remove g", {"grafana"}, {"everything"}),
    ("odictl destination add ", {"pyroscope", "otlphttp"}, {"host"}),
    ("odictl destination add pyroscope --u", {"--url"}, {"--rate"}),
    ("odictl profiling enable --r", {"--rate"}, {"--url"}),
    ("odictl top --source ", {"everything"}, {"grafana"}),
    ("odictl --json flamegraph --format ", {"html", "svg", "folded", "json", "pprof"}, {"html,"}),
    ("odictl top --by m", {"module"}, {"function"}),
    ("odictl help des", {"destination"}, {"status"}),
]


@case("bash: commands, options, values, names of what is there")
def bash():
    a = started()
    for line, wanted, unwanted in LINES + [
        ("odictl profiling set ra", {"rate="}, {"interval="}),
        ("odictl destination set grafana u", {"url="}, {"rate="}),
        ("odictl top --by=mod", {"module"}, {"--by=module"}),
    ]:
        words = set(in_bash(a, line))
        check(wanted <= words and not unwanted & words, f"{line!r}: {words}")
    equal(in_bash(a, "odictl flamegraph -o "), [], "a file's name is left to bash")


@case("fish: the same")
def fish():
    a = started()
    for line, wanted, unwanted in LINES + [("odictl top --by=mod", {"--by=module"}, {"function"})]:
        words = set(in_fish(a, line))
        check(wanted <= words and not unwanted & words, f"{line!r}: {words}")


@case("zsh: words are put in, lists are shown")
def zsh():
    a = started()
    z = Zsh(a)
    z.type("odictl fla\t", r"flamegraph ")
    z.type("\x15odictl source sh\t", r"show ")
    z.type("every\t", r"everything ")
    z.type("\x15odictl destination rem\t", r"remove ")
    z.type("gra\t", r"grafana ")
    z.type("\x15odictl flamegraph --format=s\t", r"--format=svg")
    z.type("\x15odictl profiling \t", r"(?s)(?=.*enable)(?=.*disable)(?=.*start sampling every CPU)")
    z.end()


@case("without agentd the words of the table are still there, and nothing is said")
def alone():
    a = Agentd(start=False)
    check({"source", "status"} <= set(in_bash(a, "odictl s")), "commands")
    equal(in_bash(a, "odictl source show "), [])
    r = a.run("completion", "tcsh")
    equal(r.returncode, 2)
    check("bash, zsh, fish" in r.stderr, r.stderr)


def text(a, *args):
    r = a.run(*args)
    equal((r.returncode, r.stderr), (0, ""), args)
    return r.stdout


@case("manual pages: every command and option, and nothing that a formatter complains of")
def manual():
    a = Agentd(start=False)
    names = text(a, "help", "--man-pages").split()
    check({"source", "destination", "profiling", "status", "top", "flamegraph"} <= set(names), names)
    for name in [""] + names:
        page = text(a, "help", "--man", *name.split())
        r = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-P-c"], input=page, capture_output=True, text=True)
        equal((r.returncode, r.stderr), (0, ""), f"odictl-{name}")
        shown = re.sub(".\x08", "", r.stdout).replace("\u2010", "-").replace("\u2212", "-")
        help_text = text(a, *name.split(), "--help") if name not in ("help", "") else ""
        for option in re.findall(r"^ +(?:-\w,)? *(--[a-z-]+)", help_text, re.M):
            check(option in shown, f"odictl-{name}: {option}")
        for command in re.findall(r"^  (\w+) ", help_text, re.M) if "COMMAND" in help_text else []:
            check(f"odictl {name} {command}" in shown, f"odictl-{name}: {command}")
    with open(os.path.join(os.path.dirname(__file__), "../../packaging/man/agentd.8")) as f:
        page = f.read()
    r = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-P-c"], input=page, capture_output=True, text=True)
    equal((r.returncode, r.stderr), (0, ""), "agentd.8")
    usage = subprocess.run([AGENTD, "--help"], capture_output=True, text=True).stdout
    for option in re.findall(r"(?:^  |, )(--[a-z-]+)", usage, re.M):
        check(option.replace("-", "\\-") in page, f"agentd.8: {option}")


if __name__ == "__main__":
    main()
