#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 1200 s
"""Stacks to the root: programs of known call chains, built in every way that hides callers, as they arrive at an
independent receiver. No frame may be wrong; nearly all stacks must be whole (what is let go by is the first
instants of a process and the end of one: 1 %)."""

import collections
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403
from unwind_truth import INTERVAL, NO_BUDGET, STACKS, Stacks, check_stacks, finish  # noqa: E402

RATE = 997


class Program:
    """A program that is run under a name of its own: a file that was never seen before."""

    def __init__(self, workload, truth, *argv, name=None, beside=(), **judge):
        self.workload, self.truth, self.argv, self.judge = workload, truth, argv, judge
        self.name = name or "-".join([workload, *(a for a in argv if "/" not in a)])
        if not os.path.exists(os.path.join(WORKLOADS, workload)):
            raise CannotRun(f"{workload} was not built on this machine")
        self.path = copy_program(workload, self.name, temp_folder())
        for library in beside:
            shutil.copy(os.path.join(WORKLOADS, library), os.path.dirname(self.path))

    def start(self):
        """Goes on until it is ended."""
        return Workload(" ".join([self.path, *self.argv]), 3600)

    @property
    def reports(self):
        """Go's and Rust's know no SIGTERM: it ends them without a word."""
        return self.workload not in ("pure_go", "cgo_go", "tower_rust")

    def check(self, profiles, enough=40):
        truth = STACKS[self.truth] if isinstance(self.truth, str) else self.truth
        return check_stacks(profiles, self.name, truth, self.path, self.name, enough=enough, **self.judge)


def there(programs):
    """Those of (workload, truth, arguments..., options) that could be built here; the others are said by the build."""
    return [Program(*p[:-1], **p[-1]) if len(p) > 2 and isinstance(p[-1], dict) else Program(*p)
            for p in programs if os.path.exists(os.path.join(WORKLOADS, p[0]))]  # fmt: skip


def run(programs, seconds, enable=(), rate=RATE, config=NO_BUDGET):
    """All at the same time, each as a service, until each has had the CPU time that it gets in so many seconds on two
    CPUs that nobody else wants: so there are as many samples on a busy host. Answers the profiles, what each said, and
    the status."""
    said, cpu_seconds = {}, seconds * min(1, 2 / len(programs))
    with OtlpReceiver() as receiver, Agentd(config=config) as a:
        a.add_receiver(receiver)
        for p in programs:
            a.add_process(p.path, "--service-name", p.name)
        a.enable(*enable, rate=rate, interval=INTERVAL)
        running = [(p, p.start()) for p in programs]
        for p, w in running:
            said[p.name] = w.work(cpu_seconds, p.reports)
        profiles, _ = finish(a, receiver)
        status = a.status()
        say(f"# how stacks ended: {json.dumps(field(status, 'stacks', default=None))}")
        check_messages(receiver)
    return profiles, said, status


def check_all(programs, seconds, at_once=5, **options):
    """Every program is judged, then the first failure is told. At most so many run at once, or names would wait."""
    failures = []
    for group in (programs[i : i + at_once] for i in range(0, len(programs), at_once)):
        profiles, said, status = run(group, seconds, **options)
        for p in group:
            try:
                p.check(profiles)
            except AssertionError as e:
                failures.append(str(e))
    check(not failures, f"{len(failures)} of {len(programs)} programs:", "\n  ".join(["", *failures]))
    return profiles, said, status


GCC = [f"chain_{c}_o{level}" for c in ("gcc", "clang") for level in range(4)]
OTHER = ["chain_gcc_fp", "chain_clang_fp", "chain_gcc_lto", "chain_clang_lto", "chain_nopie", "chain_debug_frame"]
STATIC = ["chain_static", "chain_static_pie"]


def chain_programs(mode, truth):
    more = [mode] if mode else []
    programs = [(name, truth, *more) for name in GCC + OTHER]
    musl = dict(STACKS[truth])
    # musl does not describe its own functions, nor has it frame pointers: below them are guesses
    musl.update(chains=[*musl["chains"], ["sort_leaf", "~", "@lost"]], share=0.95)
    programs += [(name, truth, *more, {"open_": True}) for name in STATIC]
    programs += [("chain_stripped", truth, *more, {"twin": "chain_gcc_o2"}),
                 ("chain_static_stripped", truth, *more, {"twin": "chain_static", "open_": True}),
                 ("chain_musl", musl, *more, {"root": "@musl"}),
                 ("chain_musl_static", musl, *more, {"root": "@musl", "open_": True})]  # fmt: skip
    return programs


@case("compilers, levels, linking: every shape of frame")
def matrix():
    # Without tables it goes by frame pointers, and by a search of the stack before a function has made its frame: its first
    # instruction or two, which few samples meet. A guess may skip a caller there, and is marked as one.
    bare = dict(STACKS["chain"], wrong=0.001)
    check_all(there([*chain_programs(None, "chain"), ("chain_no_tables", bare)]), 3)


@case("compilers, levels, linking: within prologues and epilogues")
def storm():
    check_all(there(chain_programs("storm", "storm")), 3)


@case("signal handlers: on the same stack and another, at a function's first instruction, within another")
def signals():
    # the first samples on a stack of its own carry a piece of that one alone
    alternate = dict(STACKS["signals"], share=0.96)
    # musl's raise() is not described, and no frame pointer leads through it; nor is its setjmp(), which is guessed
    # through, and a few guesses are wrong
    raised = ["inner_leaf", "on_inner", "~", "on_outer", "~", "@lost"]
    musl = dict(STACKS["signals"], chains=[*STACKS["signals"]["chains"], raised], share=0.96, wrong=0.005)
    check_all(there([("signals", "signals"), ("signals_altstack", alternate),
                     ("signals_musl", musl, {"root": "@musl"})]), 3)  # fmt: skip


@case("between functions: the linkage table, its binding, the vDSO, threads")
def between():
    beside = {"beside": ("libcalls.so",)}
    lazy = os.path.join(WORKLOADS, "liblazy.so")
    programs = there([("calls", "plt", "plt", beside), ("calls_now", "plt", "plt", beside),
                      ("calls", "lazy", "lazy", lazy, beside), ("calls", "vdso", "vdso", beside),
                      ("calls", "thread", "thread", beside)])  # fmt: skip
    profiles, _, _ = check_all(programs, 6)
    clock = [s for s in profiles.samples("calls-vdso") if s.user and "clock_gettime" in s.user[0]]
    inside = [s for s in clock if s.frames and "vdso" in s.frames[0].module]
    check(inside, "no sample within the vDSO:", profiles.flat("calls-vdso").most_common(5))


@case("pieces: a split mapping, one apart, text in huge anonymous pages, text behind 4 GiB")
def pieces():
    far = move_text(os.path.join(WORKLOADS, "libpiece.so"), os.path.join(temp_folder(), "libpiece.so"), 5 << 30)
    foreign = temp_folder()
    programs = there([("pieces", "pieces", "split"), ("pieces", "pieces", "apart"),
                      ("pieces_huge", "pieces", "huge"), ("far", "far", far)])  # fmt: skip
    beyond = Program("pieces", "beyond", "beyond", foreign)
    profiles, _, _ = run([*programs, beyond], 5)
    failures = []
    for p in programs:
        try:
            p.check(profiles)
        except AssertionError as e:
            failures.append(str(e))
    # of the file that is no ELF file: its offset stands, nothing is made up, and the guess gets to the caller
    stacks = Stacks(STACKS["beyond"], beyond.path)
    chains = collections.Counter()
    for s in profiles.samples(beyond.name):
        chains[stacks.chain(s)] += s.count
    n = good = 0
    for chain, count in chains.items():
        if not chain or not chain[0][1].startswith("beyond."):
            continue
        n += count
        names = [name for name, module in chain if not module.startswith("beyond.")]
        right = (["piece_call", "run_round", "main"], ["run_round", "main"], ["main"], ["[callers not found]"])
        if any(names[: len(r)] == r for r in right):
            good += count
        else:
            failures.append(f"beyond: {count} x {chain}")
    say(f"# beyond: {n} samples, {good} right; {chains.most_common(4)}")
    check(n > 100, "no samples in the file without ELF")
    check(not failures, "\n  ".join(["", *failures]))


def move_text(source, target, by):
    """The same library with its executable segment that much further in the file."""
    with open(source, "rb") as f:
        data = bytearray(f.read())

    def number(at, size):
        return int.from_bytes(data[at : at + size], "little")

    def put(at, value):
        data[at : at + 8] = value.to_bytes(8, "little")

    phoff, shoff, phsize, phnum, shsize, shnum = (number(a, s) for a, s in
                                                   ((32, 8), (40, 8), (54, 2), (56, 2), (58, 2), (60, 2)))  # fmt: skip
    moved = []
    for ph in range(phoff, phoff + phsize * phnum, phsize):
        if number(ph, 4) == 1 and number(ph + 4, 4) & 1:
            moved.append((number(ph + 8, 8), number(ph + 32, 8)))
            put(ph + 8, moved[-1][0] + by)
    (start, size), = moved
    for sh in range(shoff, shoff + shsize * shnum, shsize):
        if start <= number(sh + 24, 8) < start + size and number(sh + 8, 8) & 4:
            put(sh + 24, number(sh + 24, 8) + by)
    with open(target, "wb") as f:
        f.write(data)
        f.seek(start + by)
        f.write(data[start : start + size])
        f.truncate((start + by + size + 4095) & ~4095)
    os.chmod(target, 0o755)
    return target


@case("libraries that take turns at the same addresses: never the other's names")
def turns():
    # visits of 5 ms: nothing may be wrong, whatever can be followed; of a second: nearly all must be whole
    quick = Program("turns", dict(STACKS["turns"], share=0.0), WORKLOADS, "5", name="turns-quick")
    slow = Program("turns", dict(STACKS["turns"], share=0.9), WORKLOADS, "1000", name="turns-slow")
    _, said, _ = check_all([quick, slow], 8)
    for p in (quick, slow):
        check(said[p.name]["reused"] > 0.8 * said[p.name]["visits"], f"addresses were not taken again: {said}")


@case("stacks that are no thread's own: coroutines by ucontext and by a few instructions")
def switches():
    check_all(there([("switches", "context", "context"), ("switches", "switched_bare", "bare"),
                     ("switches", "switched_start", "start")]), 4)  # fmt: skip


@case("code that nothing describes: assembly and generated code, with a frame pointer and without")
def assembly():
    check_all(there([("assembly", "assembly", "asm"), ("assembly", "jit", "jit")]), 4)


@case("depth: 300 frames are cut at 256 and say so; an option takes them whole")
def depth():
    beside = {"beside": ("libcalls.so",)}
    programs = there([("calls", "deep_300 of 256", "deep", "300", beside), ("calls", "deep_90", "deep", "90", beside)])
    profiles, _, _ = check_all(programs, 3)
    lengths = {len(s.user) for s in profiles.samples("calls-deep-300") if s.user and s.user[-1] == "[truncated]"}
    equal(lengths, {257}, "frames of user space and the marker")
    programs = there([("calls", "deep_300", "deep", "300", beside), ("calls", "deep_1500 of 1024", "deep", "1500", beside)])
    profiles, _, _ = check_all(programs, 3, config=NO_BUDGET + "  max-frames: 1024\n", rate=199)
    lengths = {len(s.user) for s in profiles.samples("calls-deep-1500") if s.user and s.user[-1] == "[truncated]"}
    equal(lengths, {1025}, "frames of user space and the marker")


@case("C++: a tower of 104 frames, exceptions; Rust; as they are released")
def towers():
    check_all(there([("tower_cpp", "tower_deep", "deep"), ("tower_cpp", "tower_throw", "throw"),
                     ("tower_clang", "tower_deep", "deep"), ("tower_rust", "tower_rust")]), 6)  # fmt: skip


@case("Go: leaves without a frame to goroutines' roots; C and Go through each other")
def go():
    check_all(there([("pure_go", "pure_go"), ("cgo_go", "cgo_go")]), 5)


@case("execve from a thread; children of vfork at work")
def becoming():
    with OtlpReceiver() as receiver, Agentd(config=NO_BUDGET) as a:
        first, child = Program("processes", "exec_before"), Program("processes", "vfork", "vfork")
        second = Program("exec_second", {**STACKS["exec_after"], "open": False})
        a.add_receiver(receiver)
        for p in (first, second, child):
            a.add_process(p.path, "--service-name", p.name)
        a.enable(rate=RATE, interval=INTERVAL)
        running = Workload(f"{first.path} exec {second.path}", 6)
        child.start().work(2)
        running.wait()
        profiles, _ = finish(a, receiver)
        say(f"# how stacks ended: {json.dumps(field(a.status(), 'stacks', default=None))}")
    for p in (first, second, child):
        p.check(profiles, enough=20)


@case("files without a name: a deleted program, one that lies in memory")
def nameless():
    with OtlpReceiver() as receiver, Agentd(config=NO_BUDGET) as a:
        a.add_receiver(receiver)
        gone = Program("chain_gcc_o2", "chain", name="gone")
        a.add_process(gone.path, "--service-name", "gone")
        a.add_source("host")
        before = gone.start()
        os.remove(gone.path)
        fd = os.memfd_create("chain_memory")
        with open(os.path.join(WORKLOADS, "chain_gcc_o3"), "rb") as f:
            os.write(fd, f.read())
        a.enable(rate=RATE, interval=INTERVAL)
        memory = Workload("chain_gcc_o3", None, argv=[f"/proc/{os.getpid()}/fd/{fd}", "3600"],
                          env={"OTEL_SERVICE_NAME": "memory"})  # fmt: skip
        before.work(2)
        memory.work(2)
        os.close(fd)
        profiles, _ = finish(a, receiver)
    check_stacks(profiles, "gone", STACKS["chain"], "gone", "deleted")
    check_stacks(profiles, "memory", STACKS["chain"], "chain_memory", "memfd", open_=True)


if __name__ == "__main__":
    main()
