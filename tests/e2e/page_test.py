#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 450 s
"""flamegraph.html as a person meets it: opened from a file in a browser, searched, zoomed and reset by mouse and keys.
The page's own window.odi says where a frame lies; what happens comes from clicks."""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403
from webdriver import Browser  # noqa: E402

ESCAPE, ENTER = "\ue00c", "\ue007"
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
PAGE = {}


def page():
    """One profile for all cases: made once."""
    if "path" not in PAGE:
        out = os.path.join(temp_folder(), "flame graph.html")
        with Agentd() as a:
            a.add_process("shares_c", "--service-name", "web")
            a.add_process("shares_cpp", "--service-name", HOSTILE)
            a.add_process("kernel_work", "--service-name", "disk")
            a.enable(rate=997)
            running = [Workload("shares_c"), Workload("shares_cpp"), Workload("kernel_work zero")]
            for w in running:
                w.work(2)
            a.ctl("profiling", "disable")
            wait_for("the last interval is closed", lambda: not a.ledger()["open"], 20, 0.2)
            r = a.run("flamegraph", "-o", out)
            equal(r.returncode, 0, r.stderr)
            check(out in r.stdout + r.stderr, f"it does not say where the page is: {r.stdout}")
        PAGE["path"] = out
    return "file://" + PAGE["path"].replace(" ", "%20")


def save(browser, name):
    folder = os.path.join(BUILD, "screenshots")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, f"{name}.png")
    png = browser.screenshot(path)
    say(f"# {path}")
    return png


def settle(browser):
    """Zooming slides for 180 ms from where its event is handled: waits until it has ended, and draws."""
    time.sleep(0.35)
    browser.script("return odi.drawn()")


def wait_page(browser, what, wanted):
    wait_for(f"{what} is {wanted!r}", lambda: browser.script(f"return odi.{what}") == wanted)


def click(browser, name):
    node = browser.script("return odi.find(arguments[0])", name)
    check(node >= 0, f"{name} is not in the page")
    r = browser.script("return odi.rect(arguments[0])", node)
    check(r, f"{name} is outside of what is shown")
    browser.pointer(r["x"] + r["width"] / 2, r["y"] + r["height"] / 2, click=True)
    wait_page(browser, "zoomed()", node)
    settle(browser)
    return node


@case("the page opens from a file, without errors and without a network")
def opens():
    url = page()
    with open(PAGE["path"]) as f:
        text = f.read()
    loads = re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)[^"']+""", re.sub(r"<script.*?</script>", "", text, flags=re.S))
    equal(loads, [], "what the page loads")
    check(len(text) < 3 << 20, f"the page has {len(text)} bytes")
    with Browser() as b:
        b.open(url)
        settle(b)
        equal(b.console(), [], "errors of the page's script")
        check(b.script("return odi.drawn().frames") > 10, "hardly anything is drawn")
        shown = b.script("return document.body.innerText")
        check("samples" in shown and "CPU seconds" in shown, f"the head of the page: {shown[:300]}")
        save(b, "flamegraph")


@case("widths are the shares that are true, towers are the call chains")
def widths():
    with Browser() as b:
        b.open(page())
        settle(b)
        width = {n: (b.script("return odi.rect(odi.find(arguments[0]))", n) or {"width": 0})["width"]
                 for n in ("web", *TRUTH["shares_c"]["shares"])}  # fmt: skip
        # of 2 CPU seconds at 997 Hz there are so many samples of it
        total_ns, n = b.script("""const d = JSON.parse(document.getElementById("odi-data").textContent);
                                  return [d.nodes[odi.find("web")][3], d.nodes[odi.find("web")][3] / d.period_ns];""")  # fmt: skip
        check(n > 1000, f"{n} samples, {total_ns} ns")
        for name, share in TRUTH["shares_c"]["shares"].items():
            seen = width[name] / width["web"]
            check(abs(seen - share) < tolerance(share, n) + 0.01, f"{name} is {seen:.3f} of its service, true is {share}")
        rows = b.script("""const at = (n) => odi.rect(odi.find(n)).y; return arguments[0].map(at)""",
                        ["main", "run_round", "outer_sixty", "mid_sixty", "leaf_sixty"])  # fmt: skip
        equal(rows, sorted(rows), "rows of a call chain, from the root down")
        equal(len(set(rows)), 5, "rows of a call chain")


@case("search: typed, counted, lit; cleared by Escape")
def search():
    with Browser() as b:
        b.open(page())
        settle(b)
        before = save(b, "before-search")
        b.press("/")
        field_ = b.find("#search")[0]
        b.type(field_, "leaf_sixty")
        wait_page(b, "state().search", "leaf_sixty")
        found = b.text(b.find("#found")[0])
        share = b.script("return odi.matchedShare()")
        check(0.05 < share < 0.9, f"share of the matches: {share}")
        check(re.search(r"\d", found) and "%" in found, f"the page says {found!r}")
        settle(b)
        check(save(b, "search") != before, "the picture is the same with matches")
        b.clear(field_)
        b.type(field_, "no_such_function")
        wait_page(b, "state().search", "no_such_function")
        equal(b.script("return odi.matchedFrames()"), 0, "matches of what is not there")
        b.clear(field_)
        b.type(field_, "(")
        wait_page(b, "state().search", "(")
        check(b.text(b.find("#found")[0]).strip(), "a broken expression is not explained")
        b.press(ESCAPE)
        wait_page(b, "state().search", "")
        settle(b)
        equal(b.console(), [], "errors of the page's script")


@case("zoom by a click, the path back above it, reset by its button")
def zoom():
    with Browser() as b:
        b.open(page())
        settle(b)
        whole = save(b, "whole")
        full = b.script("return odi.rect(0)")["width"]
        node = click(b, "outer_thirty")
        equal(b.script("return odi.zoomed()"), node, "the zoomed frame")
        width = b.script("return odi.rect(arguments[0])", node)["width"]
        check(abs(width - full) < 3, f"the zoomed frame is {width} wide, the graph {full}")
        check("outer_thirty" in b.text(b.find("#crumbs")[0]), "the path does not name the zoomed frame")
        check(save(b, "zoomed") != whole, "the picture is the same when zoomed")
        click(b, "leaf_thirty")
        b.script("history.back()")
        wait_page(b, "zoomed()", node)
        settle(b)
        reset = b.find("#reset")[0]
        b.click(reset)
        wait_page(b, "zoomed()", 0)
        settle(b)
        equal(b.script("return odi.state().search"), "", "search after reset")
        b.pointer(5, 5)
        settle(b)
        equal(abs(b.script("return odi.rect(0)")["width"] - full) < 1, True, "the whole graph again")
        equal(b.console(), [], "errors of the page's script")


@case("a tooltip says name, share and samples; the table and the callers agree with it")
def details():
    with Browser() as b:
        b.open(page())
        settle(b)
        r = b.script("return odi.rect(odi.find('leaf_sixty'))")
        b.pointer(r["x"] + r["width"] / 2, r["y"] + r["height"] / 2)
        tip = wait_for("a tooltip", lambda: b.text(b.find("#tip")[0]))
        for word in ("leaf_sixty", "shares_c", "samples", "%"):
            check(word in tip, f"{word} is not in the tooltip: {tip!r}")
        b.click(b.find("[data-view=table]")[0])
        settle(b)
        check("leaf_sixty" in b.text(b.find("#tops")[0]), "the table of functions")
        save(b, "table")
        b.script("odi.choose(odi.find('leaf_sixty'))")
        b.click(b.find("[data-view=callers]")[0])
        settle(b)
        callers = b.script("return odi.sandwich().callers")
        equal([c[0] for c in callers][:1], ["mid_sixty"], "callers of leaf_sixty")
        save(b, "callers")
        equal(b.console(), [], "errors of the page's script")


@case("names with markup in them are only text")
def markup():
    with Browser() as b:
        b.open(page())
        settle(b)
        check(b.script("return odi.find(arguments[0])", HOSTILE) > 0, "the service is not in the page by its name")
        check(b.script("return document.title") != "owned", "a name was run as a script")
        equal(len(b.find("img")), 0, "images that a name brought")
        equal(b.console(), [], "errors of the page's script")


if __name__ == "__main__":
    main()
