#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The judge of stacks: what it must let pass, and what it must not."""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "../lib"), os.path.join(HERE, "../e2e/lib")]
from cases import case, equal, main  # noqa: E402
from unwind_truth import LOST, TRUNCATED, Stacks  # noqa: E402

TRUTH = {
    "chains": [["leaf", "mid", "deep*3", "main", "@start"], ["sort", "~", "call", "main", "@start"],
               ["handler", "&"], ["work", "thread", "@thread"], ["coroutine", "@end"], ["foreign", "@lost"],
               ["cut*3", "@truncated"]],
    "leaves": [],
}  # fmt: skip
START = "libc:__libc_start_call_main libc:__libc_start_main _start"


def judge(text, open_=False):
    chain = []
    for word in text.replace(LOST, "LOST").replace(TRUNCATED, "TRUNCATED").split():
        name = {"LOST": LOST, "TRUNCATED": TRUNCATED}.get(word, word)
        module, _, function = name.rpartition(":")
        chain.append((function, {"libc": "libc.so.6", "vdso": "[vdso]"}.get(module, "" if name[0] == "[" else "program")))
    return Stacks(TRUTH, "program", open_=open_).judge(tuple(chain))


@case("whole chains, wherever they begin")
def whole():
    for text in (f"leaf mid deep deep deep main {START}", f"deep deep main {START}", f"main {START}",
                 f"libc:clock_gettime vdso:x mid deep deep deep main {START}", f"sort libc:a libc:b call main {START}",
                 f"handler libc:__restore_rt deep main {START}", f"handler libc:t libc:clock mid deep deep deep main {START}",
                 "work thread libc:start_thread libc:clone3", "coroutine", f"foreign {LOST}", f"cut cut cut {TRUNCATED}"):  # fmt: skip
        equal(judge(text), "whole", text)


@case("what is cut, and says so")
def cut():
    for text in (f"leaf mid deep {LOST}", f"leaf mid deep deep deep main libc:x {LOST}", LOST, f"libc:x {LOST}",
                 f"handler libc:t mid deep {LOST}", f"work thread {LOST}", f"main {TRUNCATED}"):  # fmt: skip
        equal(judge(text), "cut", text)
    equal(judge(""), "cut", "no frames")


@case("what is wrong: a frame left out, added, or of somebody else; an end that nothing tells of")
def wrong():
    for text in (f"leaf deep deep deep main {START}", f"leaf mid deep deep main {START}", f"leaf mid mid deep deep deep main {START}",
                 f"leaf mid deep deep deep deep main {START}", f"leaf libc:x mid deep deep deep main {START}", "leaf mid deep",
                 "leaf", f"leaf mid deep deep deep main {START} libc:x", "leaf mid deep deep deep main libc:x libc:y",
                 f"frame_of_another leaf mid deep deep deep main {START}", f"sort call main {START}", f"handler deep main {START}",
                 "handler libc:t", "coroutine libc:x", "foreign", f"leaf {LOST} mid deep deep deep main {START}",
                 f"work thread {START}", "work thread libc:clone3", f"other {START}", "program+0x10 mid deep deep deep main",
                 f"cut cut {TRUNCATED} cut", f"sort libc:a mid deep deep deep main {START}"):  # fmt: skip
        equal(judge(text), "wrong", text)


@case("a program with a runtime within")
def runtime():
    equal(judge("runtime.x leaf mid deep deep deep main libc.a _start", open_=True), "whole", "runtime above")
    equal(judge("runtime.x"), "wrong", "a function of the program that nobody knows")
    equal(judge("runtime.x _start", open_=True), "outside", "a runtime alone")


if __name__ == "__main__":
    main()
