# SPDX-License-Identifier: Apache-2.0
"""Stacks against what a program is known to have called (tests/workloads/unwind/truth.json says how it is written).

It reads what arrived at an independent receiver, and knows a program's functions by `nm` where the names were
stripped. judge() sorts samples: whole (a chain to its root), outside (none of the program's own functions: its start,
its end), cut (right as far as it goes), wrong (anything else).
"""

import bisect
import collections
import json
import os
import subprocess

from odi_harness import ROOT, WORKLOADS, check, few, say

with open(os.path.join(ROOT, "tests/workloads/unwind/truth.json")) as f:
    STACKS = json.load(f)

LOST, TRUNCATED = "[callers not found]", "[truncated]"
# Go's own work on a stack of the system, after whose outermost frame nothing is known; and it says so.
SWITCHES = ("runtime.mcall", "runtime.systemstack", "runtime.morestack")
MARKERS = (LOST, TRUNCATED, "[user stack unreadable]")
HELPERS = {"step_now", "step_on", "step_begin", "step_report", "step_on_signal"}  # of step.h, where they are not inlined
START = ("_init", "_start", "_fini", "__libc_start_main", "__libc_csu_init", "frame_dummy", "register_tm_clones",
         "deregister_tm_clones", "__do_global_dtors_aux", "_dl_relocate_static_pie")  # fmt: skip


# Sampled as often as may be: what it costs is not the question here.
NO_BUDGET = "profiling:\n  budget: 0\n"
# Where everything is busy names may take a second; an interval waits for them no longer than it lasts.
INTERVAL = "5s"


def finish(a, receiver, lost=0):
    return a.finish(receiver, lost)


class Names:
    """Functions by address, from an unstripped twin."""

    def __init__(self, program):
        out = subprocess.run(["nm", "-n", "--defined-only", program], capture_output=True, text=True, check=True).stdout
        found = [(int(a, 16), n) for a, t, n in (line.split() for line in out.splitlines()) if t in "tTwW"]
        self.starts, self.names = [a for a, _ in found], [n for _, n in found]

    def find(self, address):
        i = bisect.bisect_right(self.starts, address) - 1
        return self.names[i] if i >= 0 else "?"


def linkage(program):
    """The ranges of a program's procedure linkage table: its entries have no names of their own."""
    out = subprocess.run(["readelf", "-SW", program], capture_output=True, text=True, check=True).stdout
    words = [line.split("]", 1)[1].split() for line in out.splitlines() if "]" in line and " .plt" in line]
    return [(int(w[2], 16), int(w[2], 16) + int(w[4], 16)) for w in words]


def expand(chain):
    out = []
    for word in chain:
        name, star, n = word.rpartition("*")
        out += [name] * int(n) if star and n.isdigit() else [word]
    return out


class Stacks:
    def __init__(self, truth, program, twin=None, open_=False):
        self.truth = truth
        self.module = os.path.basename(program)
        self.names = Names(os.path.join(WORKLOADS, twin)) if twin else None
        self.open = open_ or truth.get("open")
        self.linkage = linkage(program) if os.path.exists(program) else []
        self.chains = [expand(c) for c in truth["chains"]]
        self.own = {w for c in self.chains for w in c if w[0] not in "~&@"}
        self.memo = {}

    def chain(self, sample):
        """(name, module) of each frame of user space, leaf first."""
        out = []
        for name, f in zip(sample.user, sample.user_frames):
            module = os.path.basename(f.module)
            if self.names and module == self.module and "+0x" in f.name:
                name = self.names.find(f.address - (1 if out else 0))
            if module == self.module and "+0x" in name and any(a <= f.address < b for a, b in self.linkage):
                name = "@plt"
            out.append((f.name if f.name in MARKERS else name.removesuffix(".abi0"), module))
        return tuple(out)

    def foreign(self, frame):
        """A frame that is not of the program's own functions, and may be there."""
        name, module = frame
        if name in self.own or name in MARKERS:
            return False
        return self.open or module != self.module or name in HELPERS or name in START or name.endswith("@plt")

    def judge(self, chain):
        if chain not in self.memo:
            self.memo[chain] = self._judge(chain)
        return self.memo[chain]

    def _judge(self, chain):
        if not chain:
            return "cut"
        if not any(name in self.own for name, _ in chain):
            if self.open and len(chain) > 1 and chain[-1][0] == LOST and chain[-2][0] in SWITCHES:
                return "outside"
            if chain[-1][0] in MARKERS:
                return "cut"
            return "outside" if all(map(self.foreign, chain)) else "wrong"
        results = {self.follow(chain, c, i) for c in self.chains for i in range(len(c)) if c[i][0] not in "&@"}
        return next((r for r in ("whole", "cut") if r in results), "wrong")

    def follow(self, chain, words, w):
        """Whether the chain is words[w:], or ends amid it; what a function has called may lie above the first."""
        at = 0
        while words[w] in self.own and self.foreign(chain[at]):
            at += 1
        return self._words(chain, at, words, w)

    def _words(self, chain, at, words, w):
        while w < len(words):
            word, rest = words[w], chain[at:]
            if word[0] == "@":
                return self.root(word, rest)
            if not rest:
                return "wrong"  # an end where there is none, and nothing says so
            if rest[0][0] in MARKERS:
                return "cut" if len(rest) == 1 else "wrong"
            if word == "&":
                n = at
                while n < len(chain) and self.foreign(chain[n]):
                    n += 1
                return self._judge(chain[n:]) if n > at and n < len(chain) else "wrong"
            if word == "~":
                if not self.foreign(rest[0]):
                    return "wrong"
                while at < len(chain) and self.foreign(chain[at]):
                    at += 1
                    if w + 1 < len(words) and words[w + 1][0] == "@":
                        if self._words(chain, at, words, w + 1) == "whole":
                            return "whole"
            elif rest[0][0] == word:
                at += 1
            else:
                return "wrong"
            w += 1
        return "whole" if at == len(chain) else "wrong"

    def root(self, word, rest):
        frames = rest[:-1] if rest and rest[-1][0] in MARKERS else rest
        marker = rest[-1][0] if len(frames) < len(rest) else None
        if not all(map(self.foreign, frames)):
            return "wrong"
        last = frames[-1][0] if frames else ""
        if word == "@lost":
            return "whole" if marker == LOST and not frames else "wrong"
        if word == "@truncated":
            return "whole" if marker == TRUNCATED and not frames else "wrong"
        if word == "@musl":
            return "whole" if frames and (marker or last == "_start") else "cut" if marker else "wrong"
        if marker:
            return "cut"
        libc = [m.startswith(("libc.so", "libc-")) for _, m in frames]
        right = {
            "@end": not frames,
            "@start": last == "_start" and len(frames) > 1,
            "@thread": len(frames) == 2 and (self.open or all(libc)),
            "@go": last == "runtime.goexit" or "runtime.goexit" in [n for n, _ in frames],
            "@rust": len(frames) > 3 and libc[-2:] == [True, True],
        }[word]
        return "whole" if right else "wrong"


def check_stacks(profiles, service, truth, program, what, twin=None, open_=False, root=None, enough=40, starting=0, not_kept=0):
    """Fails where a frame is wrong, or too few stacks are whole; starting: samples that may be of the kernel and the
    loader, where many processes start; not_kept: stacks that were not kept, says agentd. Answers the counts."""
    if root:
        truth = dict(truth, chains=[[root if w == "@start" else w for w in c] for c in truth["chains"]])
    stacks = Stacks(truth, program, twin, open_)
    counts, examples, leaves = collections.Counter(), collections.defaultdict(collections.Counter), collections.Counter()
    for s in profiles.samples(service):
        chain = stacks.chain(s)
        # the kernel's own work: before a program's first instruction, after its last
        kind = "kernel" if not chain and s.kernel else stacks.judge(chain)
        counts[kind] += s.count
        examples[kind][" < ".join(n for n, _ in chain)] += s.count
        leaves[next((n for n, _ in chain if n in stacks.own), None)] += s.count
    n = sum(counts.values()) - counts["kernel"]
    shown = {k: [f"{c} x {e[:700]}" for e, c in examples[k].most_common(4)] for k in ("wrong", "cut") if k in examples}
    say(f"# {what}: {dict(counts)}")
    for k, lines in shown.items():
        for line in lines:
            say(f"#   {k}: {line}")
    check(n >= enough, f"{what}: {n} samples, too few to tell")
    # only where code that nothing describes is guessed through (and marked so)
    check(counts["wrong"] <= few(truth.get("wrong", 0), n), f"{what}: {counts['wrong']} of {n} stacks are wrong, such as {shown.get('wrong')}")
    wanted = truth.get("share", 0.99)
    good = counts["whole"] + counts["outside"]
    check(n - good <= few(1 - wanted, n) + not_kept, f"{what}: {good} of {n} stacks are whole, {wanted} is wanted; {shown.get('cut')}")
    missing = [leaf for leaf in truth["leaves"] if not leaves[leaf]]
    check(not missing, f"{what}: never seen innermost: {missing}")
    check(counts["kernel"] <= max(few(0.05, n), 5, starting), f"{what}: {counts['kernel']} of {n} samples without a user stack")
    check(counts["outside"] <= max(few(0.05, n), 5, starting), f"{what}: {counts['outside']} of {n} stacks show nothing of the program")
    return counts
