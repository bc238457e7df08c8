#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Judges from outside what a guest of system.sh received and logged: judge_system.py FOLDER NAME CONSOLE"""

import glob
import json
import os
import re
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(here, "../lib"), os.path.join(here, "../receivers")]
import check_otlp  # noqa: E402
from cases import case, check, equal, main, say  # noqa: E402

FOLDER, NAME, CONSOLE = sys.argv[1:4]
del sys.argv[1:4]

# Leaf first, as what arrives has them, and their share of the workload's time.
CHAINS = {
    ("leaf_sixty", "mid_sixty", "outer_sixty", "run_round", "main"): 0.60,
    ("leaf_thirty", "outer_thirty", "run_round", "main"): 0.30,
    ("leaf_ten", "inner_ten", "mid_ten", "outer_ten", "run_round", "main"): 0.10,
}
# Of the workload's samples. What is lost here are the first seconds of four starts of agentd, each of which has to
# read the file first, on an emulated machine; judge.py holds what is whole after that to more.
WHOLE = 0.97


def read(name):
    with open(os.path.join(FOLDER, name), errors="replace") as f:
        return f.read()


def bodies():
    """(time of receipt, message), in order"""
    for path in sorted(glob.glob(os.path.join(FOLDER, "received", "*.pb"))):
        yield float(os.path.basename(path).split("-")[0]), check_otlp.read(path)


def second_boot():
    return next(float(line.split()[1]) for line in read("boots").splitlines() if line.startswith("2 "))


@case("this is the kernel")
def release():
    for line in read("boots").splitlines():
        say(f"# {read('release').strip()}: boot {line}")
    check(NAME == "newest" or read("release").startswith(NAME + "."), read("release"))


@case("nothing in the kernel's log")
def kernel_log():
    with open(CONSOLE, errors="replace") as f:
        text = read("dmesg") + f.read()
    bad = re.findall(r".*(?:BUG:|Oops|WARNING:|soft lockup|rcu.*stall|Call Trace|general protection|segfault|trap ).*", text)
    check(not bad, *bad)


@case("every profile that arrived keeps the rules")
def rules():
    problems = [p for when, m in bodies() for p in check_otlp.check(m, now=when)]
    check(not problems, len(problems), "problems:", *problems[:5])


@case("the workload's profile is its known one, whole from the root to the leaf")
def shares():
    p = check_otlp.Profiles(m for _, m in bodies())
    counts = {chain: 0 for chain in CHAINS}
    other = total = 0
    for chain, n in p.chains("known-work").items():
        if not chain:
            continue  # in exec or exit, without a stack of user space
        match = next((c for c in CHAINS if chain[: len(c)] == c and chain[-1] == "_start"), None)
        if match:
            counts[match] += n
        elif chain[0].startswith("leaf_") or "main" not in chain:
            other += n
            say(f"# {n} {';'.join(reversed(chain))}")
        total += n
    say(f"# {counts}, {other} of {total} others")
    check(total > 500, total, "samples are too few")
    check(other <= (1 - WHOLE) * total, other, "of", total, "are not whole")
    for chain, share in CHAINS.items():
        got = counts[chain] / sum(counts.values())
        check(abs(got - share) < 0.08, f"{chain[0]}: {got:.3f}, not {share}")


@case("labels say where it comes from")
def labels():
    p = check_otlp.Profiles(m for _, m in bodies())
    resources = [x.resource for x in p.profiles if x.service == "known-work"]
    check(resources, "no profile of the service")
    equal({r.get("team") for r in resources}, {"edge"}, "the source's label")
    check(any(r.get("vm") == "reloaded-while-running" for r in resources), "the label of the host")
    say(f"# {resources[-1]}")


@case("what was sampled before the reboot arrived after it, and nothing twice that was answered")
def survived():
    boot = second_boot()
    seen, late, again = set(), 0, 0
    for when, m in bodies():
        profiles = check_otlp.Profiles([m]).profiles
        known = [x.id for x in profiles if x.id in seen]
        # One request each time that the exporter ends, by the upgrade and by the reboot: its answer was lost.
        check(len(known) in (0, len(profiles)), f"{len(known)} of the {len(profiles)} profiles of a request came before")
        if known:
            again += 1
            say(f"# the request of {when} came before")
            continue
        for x in profiles:
            seen.add(x.id)
            if when > boot and x.time / 1e9 < float(read("unsent_from")) + 3600 and x.time / 1e9 < boot - 1:
                late += sum(s.count for s in x.samples)
    held = json.loads(read("status-held.json"))["ledger"]["destinations"]["inside"]["held"]
    say(f"# {late} samples of before the reboot arrived after it; {held} were held when last asked")
    check(late >= held > 0, f"{late} of {held} samples")
    check(again <= 2, f"{again} requests came twice")


main()
