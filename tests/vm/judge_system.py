#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Judges from outside what a guest of system.sh received and logged: judge_system.py FOLDER NAME CONSOLE"""

import functools
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
# Each time that it begins to profile, agentd has to read a program before it can follow its stacks: of so many first
# intervals (of 10 s, on an emulated machine) a stack may lack its callers, if it says so. Later each is whole.
BEGINNING = 3


def read(name):
    with open(os.path.join(FOLDER, name), errors="replace") as f:
        return f.read()


@functools.cache
def bodies():
    """(time of receipt, message, its profiles), in order"""
    out = []
    for path in sorted(glob.glob(os.path.join(FOLDER, "received", "*.pb"))):
        m = check_otlp.read(path)
        out.append((float(os.path.basename(path).split("-")[0]), m, check_otlp.Profiles([m]).profiles))
    return out


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
    problems = [p for when, m, _ in bodies() for p in check_otlp.check(m, now=when)]
    check(not problems, len(problems), "problems:", *problems[:5])


def intervals_since_start(x, times):
    """How many intervals before that of the profile x began since agentd began to profile."""
    end = x.time + x.duration
    start = max((float(t) * 1e9 for t in read("starts").split() if float(t) * 1e9 < end), default=0)
    return sum(start < t < x.time for t in times)


@case("the workload's profile is its known one, whole from the root to the leaf")
def shares():
    profiles = [x for _, _, list in bodies() for x in list if x.service == "known-work"]
    times = sorted({x.time for x in profiles})
    counts = {chain: 0 for chain in CHAINS}
    cut = wrong = total = 0
    for x in profiles:
        for s in x.samples:
            if not s.user:
                continue  # in exec or exit, without a stack of user space
            total += s.count
            match = next((c for c in CHAINS if s.user[: len(c)] == c), None)
            if s.user[-1] == "_start" and (match or not s.user[0].startswith("leaf_")):
                counts[match] = counts.get(match, 0) + s.count
            elif s.user_frames[-1].name.startswith("[") and intervals_since_start(x, times) < BEGINNING:
                cut += s.count
            else:
                wrong += s.count
                say(f"# {s.count} at {x.time / 1e9:.1f}: {';'.join(f.name for f in reversed(s.user_frames))}")
    elsewhere = counts.pop(None, 0)
    say(f"# {counts}, {elsewhere} elsewhere; {cut} of {total} cut at a beginning, {wrong} wrong")
    check(total > 500, total, "samples are too few")
    check(wrong == 0, wrong, "of", total, "are not whole")
    for chain, share in CHAINS.items():
        got = counts[chain] / sum(counts.values())
        check(abs(got - share) < 0.08, f"{chain[0]}: {got:.3f}, not {share}")


@case("labels say where it comes from")
def labels():
    resources = [x.resource for _, _, profiles in bodies() for x in profiles if x.service == "known-work"]
    check(resources, "no profile of the service")
    equal({r.get("team") for r in resources}, {"edge"}, "the source's label")
    check(any(r.get("vm") == "reloaded-while-running" for r in resources), "the label of the host")
    check(re.fullmatch("[0-9a-f]{32}", str(resources[-1].get("host.id"))), "host.id is", resources[-1].get("host.id"))
    equal(len({r["host.id"] for r in resources}), 1, "ids of the host, over the reboot")
    say(f"# {resources[-1]}")


def samples(profiles, wanted):
    return sum(s.count for x in profiles if wanted(x) for s in x.samples)


@case("what was sampled before the reboot arrived after it, and nothing twice that was answered")
def survived():
    boot, unsent = second_boot(), float(read("unsent_from"))
    # A request is sent again where its answer was lost: one each time that the exporter or the receiver was ended, since
    # one is under way at a time. When that was is known from one time to another.
    ends = [tuple(map(float, line.split())) for line in read("ends").splitlines()] + [(boot, boot)]
    first, late, again = {}, 0, 0
    for when, _, profiles in bodies():
        known = [x.id for x in profiles if x.id in first]
        check(len(known) in (0, len(profiles)), f"{len(known)} of the {len(profiles)} profiles of a request came before")
        if known:
            again += 1
            then = first[known[0]]
            say(f"# the request of {when} came before, at {then}")
            later = min((t for t in first.values() if t > then), default=when)
            end = next((x for x in ends if then <= x[1] and x[0] <= later), None)
            check(end, "it was answered: nothing ended then")
            ends.remove(end)
            continue
        first.update((x.id, when) for x in profiles)
        if when > boot:
            late += samples(profiles, lambda x: unsent - 60 < x.time / 1e9 < boot - 1)
    held = json.loads(read("status-held.json"))["ledger"]["destinations"]["inside"]["held"]
    say(f"# {late} samples of before the reboot arrived after it; {held} were held when last asked; {again} requests twice")
    check(late >= held > 0, f"{late} of {held} samples")


@case("the ledger of the destination, over an upgrade and a reboot, is what arrived")
def ledger():
    once = {x.id: sum(s.count for s in x.samples) for _, _, profiles in bodies() for x in profiles}
    arrived = sum(once.values())
    x = json.loads(read("status-stopped.json"))["ledger"]["destinations"]["inside"]
    say(f"# {arrived} samples arrived; {x}")
    check(x["routed"] == sum(x[k] for k in ("delivered", "held", "evicted", "rejected", "shaped")), "it does not close")
    # What arrived and was not answered is held still.
    check(x["delivered"] <= arrived <= x["delivered"] + x["held"], f"{arrived} samples arrived")
    check(x["evicted"] == x["rejected"] == 0, "something was thrown away")


@case("what was sampled while the clock was a day off arrived, as seconds and not as days")
def clock():
    since = os.path.getmtime(os.path.join(FOLDER, "clock-set"))
    day = {-1: 0, 1: 0}
    for when, _, profiles in bodies():
        for x in profiles:
            check(not x.samples or 0 < x.duration < 600e9, f"a profile of {x.duration / 1e9} s")
            off = round((x.time / 1e9 - since) / 86400)
            if when > since and off in day:
                day[off] += sum(s.count for s in x.samples)
    say(f"# samples by days that the clock was off: {day}")
    check(all(n > 0 for n in day.values()), day)


@case("no child was killed for what it did")
def children():
    killed = [x for n in ("journal.1", "journal.2") for x in re.findall(r".*(?:killed by|type=1326).*", read(n))]
    check(not killed, len(killed), "lines:", *killed[:4])


main()
