#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Judges what a guest sent: judge.py FOLDER KERNEL. The folder is what tests/vm/guest/run.sh wrote."""

import json
import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../lib"))
from cases import case, check, equal, main, say  # noqa: E402

FOLDER, KERNEL = sys.argv[1:3]
del sys.argv[1:3]

# Leaf last, from the outermost function that has a name everywhere. What lies before main and thread_main is
# libc's (its start, clone), which has no names for them here.
CHAINS = {
    "shares_nofp": [
        ["main", "run_round", "outer_sixty", "mid_sixty", "leaf_sixty"],
        ["main", "run_round", "outer_thirty", "leaf_thirty"],
        ["main", "run_round", "outer_ten", "mid_ten", "inner_ten", "leaf_ten"],
    ],
    "shares_static": [
        ["main", "run_round", "outer_sixty", "mid_sixty", "leaf_sixty"],
        ["main", "run_round", "outer_thirty", "leaf_thirty"],
        ["main", "run_round", "outer_ten", "mid_ten", "inner_ten", "leaf_ten"],
    ],
    "threads_nofp": [
        ["thread_main", "alpha_call", "alpha_work"],
        ["thread_main", "beta_work"],
        ["thread_main", "gamma_call", "gamma_inner", "gamma_work"],
    ],
}
WHOLE = 0.995  # of a workload's samples


def read(*path):
    with open(os.path.join(FOLDER, *path), errors="replace") as f:
        return f.read()


def show(*path, lines=40):
    for line in read(*path).splitlines()[-lines:]:
        say("#   " + line[:300])


def folded():
    """[frames, outermost first], samples"""
    out = []
    for line in read("stacks.folded").splitlines():
        stack, _, n = line.rpartition(" ")
        out.append((stack.split(";"), int(n)))
    return out


# ---- the kernel ----------------------------------------------------------------------------------------------


@case("this is the kernel")
def release():
    say(f"# {read('release').strip()} {read('version').strip()}, {read('uptime').strip()} s")
    check(KERNEL == "newest" or read("release").startswith(KERNEL + "."), read("release"))


@case("nothing in the kernel's log")
def kernel_log():
    bad = [
        line
        for line in read("dmesg").splitlines()
        if re.search(r"BUG:|Oops|WARNING:|soft lockup|rcu.*stall|Call Trace|general protection|segfault|trap ", line)
    ]
    check(not bad, *bad)


# ---- unit tests ----------------------------------------------------------------------------------------------


def unit(test):
    """The cases of one unit test, as the test said them, and one that it came to its end."""
    text = read(test + ".tap")
    found = re.findall(r"^(not ok|ok) \d+ (?:- )?(.*)$", text, re.M)
    for verdict, name in found:
        skipped = "# SKIP" in name

        @case(f"{test}: {name.split(' # ')[0]}")
        def one(verdict=verdict, skipped=skipped, name=name):
            if verdict != "ok" or skipped:
                say(text)
                show(test + ".log")
            check(not skipped, "skipped by the test itself: ", name)
            equal(verdict, "ok")

    @case(f"{test}: came to its end")
    def whole():
        status = read(test + ".status").strip()
        planned = sum(int(n) for n in re.findall(r"^1\.\.(\d+)", text, re.M))
        if status != "0" or not found or planned != len(found):
            say(text)
            show(test + ".log")
        check(found and planned == len(found), f"{len(found)} of {planned} cases ran")
        equal(status, "0", "exit status")


for test in sorted(f[: -len(".tap")] for f in os.listdir(FOLDER) if f.endswith(".tap")):
    unit(test)


# ---- agentd --------------------------------------------------------------------------------------------------


def root_is(name, user, start):
    """What lies outside of the first known function is the process's or the thread's start."""
    if start is None:  # before main, or after it; the dynamic linker's own start has no name here
        return user[0] == "_start" or user[0].startswith("ld-linux")
    if name == "threads_nofp":
        return user[:1] == ["_start"] or start in (2, 3)  # start_thread and clone3 in libc
    return user[0] == "_start" and start in (2, 3, 4)


@case("profiling starts, and agentd ends as it is told")
def life():
    say(read("enable.txt"), read("disable.txt"))
    for what in ("enable", "disable", "agentd"):
        if read(what + ".status").strip() != "0":
            show("agentd.log")
        equal(read(what + ".status").strip(), "0", what)


@case("programs are loaded while it profiles and not after")
def programs():
    check(int(read("programs.on")) >= 4, read("programs.on"), "programs while profiling")
    equal(int(read("programs.off")), 0, "programs after")


@case(f"status is healthy and says which kernel this is")
def status():
    s = json.loads(read("status.json"))
    say(read("status.txt"))
    check(s["healthy"], s["problems"])
    equal(s["profiling"]["cpus_sampled"], 2, "CPUs")
    check(f"kernel: {read('release').strip()}" in read("status.txt"), "no word on the kernel")


@case("stacks are walked in the kernel")
def walked():
    check("user stacks: by rows in the kernel" in read("status.txt"), "no word on it in status")
    check("refused" not in read("agentd.log"), "a program was refused")


@case("the fix that reading user memory needs is looked for in the kernel's real version")
def nofault():
    # Debian's uname -v: "... Debian 6.1.192-2 (2026-11-16)", whatever the release says
    real = re.search(r"Debian (\d+\.\d+\.\d+)", read("version"))
    check(real, "no version of Debian's in", read("version"))
    check(f"safe, as of upstream's {real[1]}\n" in read("status.txt"), "status says otherwise for", real[1])


@case("the ledger closes and nothing was lost")
def ledger():
    for name in ("status.json", "status-end.json"):
        row = json.loads(read(name))["ledger"]
        say(f"# {name}: {row}")
        check(row["closes"], row["gap"])
        equal(row["lost"], 0, f"lost {row['lost_by']}")
        check(row["taken"] > 500, "too few samples")


@case("status says how far stacks go, and why not")
def stacks():
    s = json.loads(read("status-end.json"))["stacks"]
    say(f"# {s}")
    check(s["samples"] > 500, "too few stacks")
    equal(s["samples"] - s["to_root"], sum(s["ended"].values()), "stacks that ended elsewhere")
    check(s["to_root_percent"] >= 97, f"{s['to_root_percent']} % to the root")


@case("top shows the workloads' functions")
def top():
    names = {r["name"] for r in json.loads(read("top.json"))["rows"]}
    wanted = {f for chains in CHAINS.values() for chain in chains for f in chain}
    check(wanted <= names, "not in it:", *sorted(wanted - names))
    check(read("flamegraph.svg").rstrip().endswith("</svg>"), "no picture")


for name, chains in CHAINS.items():

    @case(f"{name}, built without frame pointers, is whole from the root to the leaf")
    def whole(name=name, chains=chains):
        good = bad = 0
        seen = set()
        for frames, n in folded():
            if frames[0] != name:
                continue
            user = [f for f in frames[1:] if not f.endswith("_[k]")]
            if not user:
                continue  # in exec or exit, where there is no stack of user space
            start = next((i for i, f in enumerate(user) if f in ("main", "thread_main")), None)
            chain = user[start:] if start is not None else []
            # interrupted in the work or in what it calls at its end
            match = next((c for c in chains if chain[: len(c)] == c), None)
            leaf = chain and chain[-1] in {c[-1] for c in chains}
            if match:
                seen.add(match[-1])
            if root_is(name, user, start) and (match or not leaf):
                good += n
            else:
                bad += n
                say(f"# {n} {';'.join(frames)}")
        say(f"# {name}: {good} whole, {bad} not")
        check(good + bad > 50, "too few samples")
        check(good >= WHOLE * (good + bad), f"{bad} of {good + bad} samples are not whole")
        equal(seen, {c[-1] for c in chains}, "functions that a whole chain leads to")


main()
