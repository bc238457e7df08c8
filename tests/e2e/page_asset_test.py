#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 720 s
"""The page of a flame graph by itself: odictl/assets/flamegraph.html filled as odictl fills it, with profiles made
here whose every sum is known, in headless Chromium.

    page_asset_test.py --write KIND FILE      writes such a page to look at: usual, large, hostile, deep, empty
"""

import json
import os
import random
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403
from webdriver import Browser  # noqa: E402

ASSET = os.path.join(ROOT, "odictl/assets/flamegraph.html")
PERIOD = 10101010
FROM = 1767225600000
NONE, NATIVE, KERNEL, GO, JVM, PYTHON, JS, UNKNOWN = range(8)
HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!--<script>",
    "<svg/onload=document.title='owned'>",
    "' onmouseover='window.owned=1' \" onfocus=\"window.owned=1",
    "javascript:window.owned=1",
    "/*ODI_DATA*/ ODI_TITLE ${7*7} {{7*7}} %s%n",
    "\u202egpj.exe\u202c\u200b\u0000\u001b[31m",
    "__proto__",
    "constructor",
    "\U0001f680" * 40,
    "a" * 16000,
]
ESCAPE, ENTER = "\ue00c", "\ue007"
ARROW_DOWN, ARROW_UP, ARROW_RIGHT, HOME = "\ue015", "\ue013", "\ue014", "\ue011"


# ---- profiles whose sums are known -----------------------------------------------------------------------------


class Profile:
    """Built of stacks: add("web", [("main", "app", "main.c", NATIVE)], samples)."""

    def __init__(self, title="CPU of all", seconds=60):
        self.title, self.seconds = title, seconds
        self.functions, self.function_index = [], {}
        self.nodes, self.node_index = [[0, 0, 0, 0]], {}

    def function(self, f):
        f = (*f, 0) if len(f) == 4 else tuple(f)
        if f not in self.function_index:
            self.function_index[f] = len(self.functions)
            self.functions.append(list(f))
        return self.function_index[f]

    def node(self, parent, what):
        key = (parent, what)
        if key not in self.node_index:
            self.node_index[key] = len(self.nodes)
            self.nodes.append([parent, what, 0, 0])
        return self.node_index[key]

    def add(self, service, stack, samples):
        path = [0, self.node(0, service)]
        for f in stack:
            path.append(self.node(path[-1], self.function(f)))
        for i in path:
            self.nodes[i][3] += samples * PERIOD
        self.nodes[path[-1]][2] += samples * PERIOD
        return path[-1]

    def data(self):
        return {
            "title": self.title, "host": "db-1.example.org", "type": "cpu", "unit": "nanoseconds", "from": FROM,
            "to": FROM + self.seconds * 1000, "period_ns": PERIOD, "total_ns": self.nodes[0][3],
            "total_samples": self.nodes[0][3] // PERIOD, "cut_nodes": 0, "functions": self.functions,
            "nodes": self.nodes,
        }  # fmt: skip

    def share(self, matches):
        """Of all time, what is in frames whose name matches; frames under a matching one count once."""
        covered, total = [False] * len(self.nodes), 0
        for i, (parent, what, _, ns) in enumerate(self.nodes[1:], 1):
            name = what if isinstance(what, str) else self.functions[what][0]
            covered[i] = covered[parent] or matches(name)
            total += ns if covered[i] and not covered[parent] else 0
        return total / self.nodes[0][3]


def page(data):
    """As odictl writes it: the first of each mark, the title first, every '<' of the data escaped."""
    with open(ASSET, encoding="ascii") as f:
        asset = f.read()
    title = data["title"].replace("&", "&amp;").replace("<", "&lt;")
    head, tail = asset.split("ODI_TITLE", 1)
    body, end = tail.split("/*ODI_DATA*/", 1)
    return head + title + body + json.dumps(data, ensure_ascii=False).replace("<", "\\u003c") + end


def usual():
    """What a small host looks like: a few services in several languages."""
    p, r = Profile("CPU of all services"), random.Random(7)
    sys_read = [("entry_SYSCALL_64_after_hwframe", "[kernel]", "", KERNEL), ("do_syscall_64", "[kernel]", "", KERNEL),
                ("ksys_read", "[kernel]", "", KERNEL), ("vfs_read", "[kernel]", "", KERNEL)]  # fmt: skip
    net = [("entry_SYSCALL_64_after_hwframe", "[kernel]", "", KERNEL), ("do_syscall_64", "[kernel]", "", KERNEL),
           ("__x64_sys_sendto", "[kernel]", "", KERNEL), ("tcp_sendmsg", "[kernel]", "", KERNEL),
           ("__tcp_push_pending_frames", "[kernel]", "", KERNEL), ("tcp_write_xmit", "[kernel]", "", KERNEL),
           ("__ip_queue_xmit", "[kernel]", "", KERNEL), ("dev_hard_start_xmit", "[kernel]", "", KERNEL)]  # fmt: skip

    def native(names, module, file=""):
        return [(n, module, file, NATIVE) for n in names.split()]

    nginx = native("_start __libc_start_main", "libc.so.6") + native(
        "main ngx_master_process_cycle ngx_worker_process_cycle ngx_process_events_and_timers", "nginx")  # fmt: skip
    epoll = nginx + native("ngx_epoll_process_events ngx_http_wait_request_handler", "nginx")
    p.add("nginx", epoll + native("ngx_http_process_request_line ngx_http_process_request_headers", "nginx"), 90)
    for leaf, n in (("ngx_http_parse_header_line", 120), ("ngx_http_variable_request", 40), ("ngx_http_log_handler", 66)):
        p.add("nginx", epoll + native("ngx_http_process_request ngx_http_handler ngx_http_core_run_phases", "nginx")
              + native(leaf, "nginx", "src/http/ngx_http_core.c"), n)  # fmt: skip
    p.add("nginx", epoll + native("ngx_ssl_recv SSL_read ssl3_read_bytes tls_get_record", "libssl.so.3")
          + native("EVP_DecryptUpdate aesni_gcm_decrypt", "libcrypto.so.3"), 410)  # fmt: skip
    p.add("nginx", epoll + native("ngx_unix_recv", "nginx") + native("__libc_recv", "libc.so.6") + sys_read, 95)
    p.add("nginx", epoll + native("ngx_http_writev ngx_linux_sendfile_chain", "nginx") + net, 230)

    go = [("runtime.goexit", "checkout", "asm_amd64.s", GO), ("net/http.(*conn).serve", "checkout", "server.go", GO),
          ("net/http.HandlerFunc.ServeHTTP", "checkout", "server.go", GO),
          ("github.com/example/checkout/internal/cart.(*Handler).Total", "checkout", "cart.go", GO)]  # fmt: skip
    p.add("checkout", go, 30)
    js = go + [("encoding/json.Marshal", "checkout", "encode.go", GO)]
    p.add("checkout", js, 44)
    for n, leaf in enumerate(("encoding/json.structEncoder.encode", "encoding/json.stringEncoder", "reflect.Value.Field")):
        p.add("checkout", js + [("encoding/json.(*encodeState).reflectValue", "checkout", "encode.go", GO, 1),
                                (leaf, "checkout", "encode.go", GO)], 210 - 60 * n)  # fmt: skip
    p.add("checkout", go + [("runtime.mallocgc", "checkout", "malloc.go", GO), ("runtime.gcAssistAlloc", "checkout", "mgcmark.go", GO),
                            ("runtime.scanobject", "checkout", "mgcmark.go", GO)], 260)  # fmt: skip
    p.add("checkout", [("runtime.gcBgMarkWorker", "checkout", "mgc.go", GO), ("runtime.gcDrain", "checkout", "mgcmark.go", GO),
                       ("runtime.scanobject", "checkout", "mgcmark.go", GO)], 350)  # fmt: skip

    py = [("<module>", "worker.py", "/srv/worker.py", PYTHON), ("run", "worker.py", "/srv/worker.py", PYTHON),
          ("handle", "tasks.py", "/srv/tasks.py", PYTHON)]  # fmt: skip
    p.add("celery-worker", py + [("resize", "images.py", "/srv/images.py", PYTHON)]
          + native("ImagingResample ImagingResampleHorizontal_8bpc", "_imaging.cpython-311.so"), 520)  # fmt: skip
    p.add("celery-worker", py + [("loads", "__init__.py", "/usr/lib/python3.11/json/__init__.py", PYTHON),
                                 ("scan_once", "scanner.py", "", PYTHON)], 150)  # fmt: skip
    for depth in range(2, 26):
        p.add("celery-worker", py + [("walk", "tree.py", "/srv/tree.py", PYTHON)] * depth, 9)

    java = [("java.lang.Thread.run", "rt.jar", "Thread.java", JVM),
            ("org.apache.kafka.clients.consumer.KafkaConsumer.poll", "kafka-clients.jar", "KafkaConsumer.java", JVM)]
    for n in range(14):
        p.add("search", java + [(f"org.example.search.Index{n}.merge", f"index-{n % 4}.jar", "Index.java", JVM),
                                ("java.util.HashMap.getNode", "rt.jar", "HashMap.java", JVM, 1)], 12 + n * 4)  # fmt: skip
    p.add("search", native("start_thread", "libc.so.6") + native("G1ParTask::work G1ParScanThreadState::trim_queue", "libjvm.so"), 188)
    p.add("frontend", [("processTicksAndRejections", "node:internal", "task_queues.js", JS), ("render", "app.js", "/srv/app.js", JS),
                       ("renderToString", "react-dom.js", "", JS)], 240)  # fmt: skip
    p.add("frontend", [("[unknown]", "[unknown]", "", UNKNOWN)], 20)
    for n in range(300):
        p.add("nginx", nginx + native(f"ngx_module_{n % 40}_handler", "nginx") + native(f"leaf_{n}", f"mod_{n % 9}.so"), r.choice((1, 1, 1, 2)))
    p.add("kernel threads", [("ret_from_fork", "[kernel]", "", KERNEL), ("kthread", "[kernel]", "", KERNEL),
                             ("worker_thread", "[kernel]", "", KERNEL), ("process_one_work", "[kernel]", "", KERNEL)], 61)  # fmt: skip
    p.add("nginx", [("[other]", "", "", NONE)], 35)
    return p


def large(wanted=50000):
    """Many services, all kinds, as many nodes as odictl writes at most."""
    p, r = Profile("CPU of all services", 3600), random.Random(11)
    names = [(f"ns{r.randrange(40)}::function_{i}", f"lib{r.randrange(60)}.so", f"src/file{i % 97}.cc",
              r.choice((NATIVE,) * 5 + (KERNEL, GO, JVM, PYTHON, JS)), int(i % 11 == 0)) for i in range(6000)]  # fmt: skip
    while len(p.nodes) < wanted - 60:
        stack, at = [], r.randrange(40)
        for _ in range(r.randrange(3, 45)):
            stack.append(names[at])
            at = (at * 7 + int(r.paretovariate(1.2))) % len(names)
        p.add(f"service-{min(int(r.paretovariate(0.8)), 30)}", stack, int(r.paretovariate(1.1)) % 500 + 1)
    for i in range(wanted - len(p.nodes)):
        p.add("service-1", [(f"start_{i}", "app", "", NATIVE)], 1)
    return p


def hostile():
    p = Profile(HOSTILE[0] + " & " + HOSTILE[6])
    for i, service in enumerate(HOSTILE):
        stack = [(name, HOSTILE[(i + k) % len(HOSTILE)], HOSTILE[k], k % 8) for k, name in enumerate(HOSTILE)]
        p.add(service, stack, 10 + i)
        p.add(service, stack[3:], 5)
    return p


def deep(depth=2000):
    p = Profile("CPU of a recursion")
    p.add("deep", [("main", "app", "main.c", NATIVE)] + [("down", "app", "main.c", NATIVE)] * depth, 100)
    return p


def empty():
    return Profile("CPU of nobody")


KINDS = {"usual": usual, "large": large, "hostile": hostile, "deep": deep, "empty": empty}


def write(data, path=None):
    path = path or os.path.join(temp_folder(), "flamegraph.html")
    with open(path, "w", encoding="utf-8") as f:
        f.write(page(data))
    return path


# ---- the browser -------------------------------------------------------------------------------------------------

_browser = []


def page_case(name):
    """A case with a browser of its own: what one breaks (an alert, a lost tab) must not reach the next."""

    def register(function):
        @case(f"flame graph page: {name}")
        def run():
            with Browser() as b:
                _browser[:] = [b]
                function()

        return run

    return register


def browser():
    return _browser[0]


def show(profile, hash_=""):
    b = browser()
    b.open("about:blank")
    b.open("file://" + write(profile.data() if isinstance(profile, Profile) else profile) + hash_)
    return b


def quiet(b):
    """No errors in the console. Whatever would load from outside shows up here too, as the page forbids it."""
    equal(b.console(), [], "errors in the console")


def near(got, wanted, what):
    check(abs(got - wanted) < 1e-9, f"{what}: {got}, not {wanted}")


def odi(b, expression, *args):
    return b.script(f"return window.odi.{expression}", *args)


def middle(rect):
    return rect["x"] + rect["width"] / 2, rect["y"] + rect["height"] / 2


def find_one(b, css):
    found = b.find(css)
    equal(len(found), 1, f"elements {css}")
    return found[0]


def wait_state(b, what, wanted):
    wait_for(f"{what} is {wanted}", lambda: odi(b, what) == wanted, 10, 0.05)


# ---- cases -------------------------------------------------------------------------------------------------------


@case("flame graph page: the asset is small, plain ASCII, self-contained, its marks in order")
def asset():
    with open(ASSET, "rb") as f:
        raw = f.read()
    text = raw.decode("ascii")
    check(len(raw) < 64 * 1024, f"{len(raw)} bytes")
    title, data = text.index("ODI_TITLE"), text.index("/*ODI_DATA*/")
    check(title < data and text[:title].endswith("<title>"), "the title's mark")
    check(text[:data].endswith('id="odi-data">'), "the data's mark")
    check("default-src 'none'" in text and "unsafe-eval" not in text and "connect-src" not in text, "the policy")
    check("script-src-attr 'none'" in text and "require-trusted-types-for 'script'" in text, "the policy on strings")
    urls = set(re.findall(r"[a-z]+://[^\s'\"]*", text)) - {"http://www.w3.org/2000/svg"}
    equal(urls, set(), "addresses")
    # Texts of a profile have no way into the page but as text.
    for sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "setAttribute(\"on", ".href",
                 ".src", "DOMParser", "createContextualFragment", "srcdoc"):  # fmt: skip
        check(sink not in text, f"{sink} is used")


@page_case("head, frames and tooltip say what the profile says")
def facts():
    p = usual()
    b = show(p)
    text = b.text(find_one(b, "header"))
    total = p.nodes[0][3] / 1e9
    check("CPU of all services" in text and "db-1.example.org" in text, text)
    check(f"{total:.2f} CPU seconds" in text and f"{total / 60:.2f} cores" in text, text)
    check(f"{p.nodes[0][3] // PERIOD:,} samples at 99 Hz" in text, text)
    equal(b.script("return document.title"), "CPU of all services", "title")
    nginx = next(i for i, n in enumerate(p.nodes) if n[1] == "nginx")
    rect = odi(b, f"rect({nginx})")
    near(rect["width"] / odi(b, "rect(0)")["width"], p.nodes[nginx][3] / p.nodes[0][3], "width of nginx")
    equal(odi(b, "nodeAt(arguments[0], arguments[1])", *middle(rect)), nginx, "node under the pointer")
    b.pointer(*middle(rect))
    tip = b.text(find_one(b, "#tip"))
    check(tip.startswith("nginx") and f"{100 * p.nodes[nginx][3] / p.nodes[0][3]:.1f}%" in tip, tip)
    # Every node lies inside its parent and beside its siblings, drawn or not.
    bad = b.script("""
        const d = JSON.parse(document.getElementById("odi-data").textContent), bad = [], ends = new Map();
        const rects = d.nodes.map((n, i) => window.odi.rect(i));
        d.nodes.forEach((n, i) => {
            const r = rects[i], p = rects[n[0]];
            if (i && (r.x < p.x - 1e-6 || r.x + r.width > p.x + p.width + 1e-6 || r.y !== p.y + r.height)) bad.push(i);
            if (i && Math.abs(r.width / rects[0].width - n[3] / d.nodes[0][3]) > 1e-9) bad.push(i);
        });
        return bad;""")
    equal(bad, [], "frames out of place")
    quiet(b)


@page_case("names that narrow frames have keep what tells them apart")
def narrow():
    names = {("java.util.HashMap.getNode", JVM): "HashMap.getNode",
             ("void java.util.Arrays.sort(java.lang.Object[], java.util.Comparator)", JVM): "Arrays.sort(Object[], Comparator)",
             ("int Work.fib(int)", JVM): "Work.fib(int)", ("Interpreter", JVM): "Interpreter", ("StubRoutines (1)", JVM): "StubRoutines (1)",
             ("java.util.Map<java.lang.String> a.b.C.d(long)", JVM): "C.d(long)",
             ("net/http.(*conn).serve", GO): "http.(*conn).serve", ("std::vector<int>::at", NATIVE): "std::vector<int>::at"}  # fmt: skip
    p = Profile("narrow", 10)
    for (name, kind), _ in names.items():
        p.add("service", [(name, "m", "", kind)], 5)
    b = show(p)
    for (name, _), wanted in names.items():
        equal(odi(b, "shorter(odi.find(arguments[0]))", name), wanted, name)
    quiet(b)


@page_case("search counts nested matches once, and says so")
def search():
    p = usual()
    b = show(p)
    box = find_one(b, "#search")
    b.press("/")
    b.type(box, "^walk$")
    wait_state(b, "state().search", "^walk$")
    near(odi(b, "matchedShare()"), p.share(lambda n: n == "walk"), "share of walk")
    equal(odi(b, "matchedFrames()"), 25, "frames of walk")
    said = b.text(find_one(b, "#found"))
    check(said.startswith(f"{100 * p.share(lambda n: n == 'walk'):.2f}% of all in 25 frames"), said)
    for text, matches in (("ngx_|^SSL", lambda n: re.search("ngx_|ssl", n, re.I)), ("SSL", lambda n: "SSL" in n),
                          ("json\\.", lambda n: "json." in n), ("^nginx$", lambda n: n == "nginx"),
                          ("nothing has this name", lambda n: False), ("all", lambda n: "all" in n.lower() and n != "all"),
                          ("(*Handler", lambda n: "(*handler" in n.lower())):  # fmt: skip
        near(odi(b, "search(arguments[0])", text), p.share(lambda n, m=matches: bool(m(n))), f"share of {text}")
    check("plain text" in b.text(find_one(b, "#found")), "a broken expression is told")
    # Modules; and of the zoomed frame, whether matches are above or below it.
    near(odi(b, "search('module:^libcrypto')"), 410 * PERIOD / p.nodes[0][3], "share of a module")
    ssl = odi(b, "find('SSL_read')")
    b.script(f"window.odi.search('^nginx$'); window.odi.zoom({ssl})")
    near(odi(b, "matchedShare('zoomed')"), 1, "share of what lies under a match")
    b.script("window.odi.search('aesni')")
    near(odi(b, "matchedShare('zoomed')"), 1, "share of what lies above")
    # Enter walks, Escape clears.
    b.script("window.odi.reset()")
    b.clear(box)
    b.type(box, "scanobject")
    wait_state(b, "state().search", "scanobject")
    b.press(ENTER)
    check("runtime.scanobject" in b.text(find_one(b, "#tip")), "Enter shows a match")
    b.press(ESCAPE)
    wait_state(b, "state().search", "")
    equal(b.text(find_one(b, "#found")), "", "what was found")
    quiet(b)


@page_case("zoom by click, keyboard, path and reset; Back and links work")
def zoom():
    p = usual()
    b = show(p)
    target = odi(b, "find('ngx_epoll_process_events')")
    b.pointer(*middle(odi(b, f"rect({target})")), click=True)
    wait_state(b, "zoomed()", target)
    near(odi(b, f"rect({target})")["width"], odi(b, "rect(0)")["width"], "a zoomed frame has all the width")
    other = odi(b, "find('checkout')")
    equal(odi(b, f"rect({other})"), None, "a frame outside of the zoomed")
    check("ngx_epoll_process_events" in b.text(find_one(b, "#crumbs")), "path")
    check(f"z={target}" in b.script("return location.hash"), "address")
    b.do("POST", "/back", {})
    wait_state(b, "zoomed()", 0)
    b.do("POST", "/forward", {})
    wait_state(b, "zoomed()", target)
    b.click(b.find("#crumbs button")[1])
    wait_state(b, "zoomed()", odi(b, "find('nginx')"))
    b.click(find_one(b, "#reset"))
    wait_state(b, "zoomed()", 0)
    check(not b.script("return document.getElementById('reset').matches(':enabled')"), "reset is done")
    # By keyboard: down to the largest child's child, its neighbour, zoom, out again.
    b.script("document.getElementById('graph').focus()")
    for key in (HOME, ARROW_DOWN, ARROW_DOWN):
        b.press(key)
    said = b.script("return document.getElementById('live').textContent")
    largest = max((n for n in p.nodes[1:] if n[0] == 0), key=lambda n: n[3])
    under = max((n for n in p.nodes[1:] if n[0] == p.nodes.index(largest)), key=lambda n: n[3])
    check(p.functions[under[1]][0] in said, f"focus says: {said}")
    b.press(ENTER)
    wait_state(b, "zoomed()", p.nodes.index(under))
    b.press(ESCAPE)
    wait_state(b, "zoomed()", 0)
    # A link, and links that mean nothing.
    b = show(p, f"#z={target}&q=recv&l=flame")
    equal(odi(b, "zoomed()"), target, "zoom of a link")
    equal(odi(b, "state()")["search"], "recv", "search of a link")
    check(odi(b, f"rect({target})")["y"] < odi(b, "rect(0)")["y"], "the root is at the bottom")
    for nonsense in ("#z=99999999&f=-1&v=x", "#z=1e3", "#z=abc&q=%ff%00(", "#%", "#z=&l=&c=<b>", "#f=12345678"):
        b = show(p, nonsense)
        equal(odi(b, "zoomed()"), 0, nonsense)
    quiet(b)


@page_case("the table's sums, its order, and its choice in the graph")
def table():
    p = usual()
    b = show(p)
    b.click(find_one(b, "[data-view=table]"))
    wait_state(b, "state().view", "table")
    sums = {}
    for i, (_, what, self_ns, total) in enumerate(p.nodes[1:], 1):
        if isinstance(what, str):
            continue
        name, module = p.functions[what][:2]
        s = sums.setdefault((name, module), [0, 0])
        above, nested = p.nodes[i][0], False
        while above:
            nested = nested or p.nodes[above][1] == what
            above = p.nodes[above][0]
        s[0] += self_ns
        s[1] += 0 if nested else total
    got = {(r["name"], r["module"]): [r["self"], r["total"]] for r in odi(b, "top(100000)")}
    equal(got, sums, "self and total of functions")

    def column(k, n=20):
        return b.script(f"return [...document.querySelectorAll('#rows tr')].slice(0, {n}).map(r => r.cells[{k}].textContent)")

    names = [k[0] for k, v in sorted(sums.items(), key=lambda kv: -kv[1][0])]
    equal(column(4, 8), names[:8], "rows by self time")
    b.click(b.find("#heads button")[2])
    tops = sorted((v[1] for v in sums.values()), reverse=True)
    equal([sums[k][1] for k in zip(column(4), column(5))], tops[:20], "rows by total time")
    b.click(b.find("#heads button")[4])
    equal(column(4), sorted(k[0] for k in sums)[:20], "rows by name")
    b.click(b.find("#rows button")[0])
    wait_for("a row is chosen", lambda: odi(b, "state()")["chosen"] >= 0, 10, 0.05)
    equal(len(b.find("#rows tr.chosen")), 1, "chosen rows")
    b.script("window.odi.search('^walk$')")
    equal(column(4), ["walk"], "rows that match")
    quiet(b)


@page_case("callers and callees of a function")
def callers():
    p = usual()
    b = show(p)
    b.script("window.odi.choose(window.odi.find('walk')); window.odi.view('callers')")
    walk = 9 * PERIOD
    s = odi(b, "sandwich()")
    equal(s["callers"], [["handle", 24 * walk]], "callers of the outermost walk")
    equal(s["callees"], [["walk", 24 * walk]], "callees of the outermost walk")
    b.script("window.odi.choose(window.odi.find('runtime.scanobject'))")
    equal(odi(b, "sandwich()"), {"callers": [["runtime.gcDrain", 350 * PERIOD], ["runtime.gcAssistAlloc", 260 * PERIOD]],
                                 "callees": []}, "of runtime.scanobject")  # fmt: skip
    check("runtime.scanobject" in b.text(find_one(b, "#between")), "its name")
    quiet(b)


@page_case("hostile names stay text")
def hostile_names():
    p = hostile()
    b = show(p)
    own = set("html head meta title link style body header h1 p noscript nav input span button label select option main "
              "section table thead tbody tr th td div canvas b i strong footer kbd dialog h2 form script".split())
    for view in ("graph", "table", "callers"):
        b.script("window.odi.view(arguments[0])", view)
        b.script("for (let i = 0; i < arguments[0]; i++) { window.odi.choose(i || 1); window.odi.zoom(i); }", len(p.nodes))
        b.script("window.odi.search(arguments[0])", HOSTILE[0])
    b.script("window.odi.reset(); window.odi.view('graph')")
    for i in range(0, len(p.nodes), 5):
        rect = odi(b, f"rect({i})")
        if rect["width"] > 1:
            b.pointer(*middle(rect))
    equal(b.script("return document.querySelectorAll('img, svg, iframe, object, embed, link:not([rel=icon])').length"), 0,
          "elements that names made")  # fmt: skip
    equal(b.script("return document.querySelectorAll('script').length"), 2, "scripts")
    equal(b.script("return window.owned === undefined && !document.title.includes('owned')"), True, "nothing was run")
    tags = set(b.script("return [...document.querySelectorAll('*')].map(e => e.localName)"))
    equal(tags - own, set(), "kinds of elements that the page itself does not use")
    check(HOSTILE[0] in b.text(find_one(b, "h1")), "the title is shown as it is")
    check("\u202e" not in b.script("return document.body.innerText"), "direction characters are not shown")
    near(odi(b, "search(arguments[0])", "onerror=alert"), p.share(lambda n: "onerror=alert" in n), "share of a hostile name")
    names = {r["name"] for r in odi(b, "top(1000)")}
    check({"__proto__", "constructor", HOSTILE[0], HOSTILE[5]} <= names, f"names: {names}")
    quiet(b)


@page_case("50,000 nodes are drawn as what can be seen, deep stacks by scrolling")
def many():
    p = large()
    equal(len(p.nodes), 50000, "nodes")
    b = show(p)
    drawn = odi(b, "drawn()")
    say("# drawn:", drawn)
    check(0 < drawn["frames"] < 8000 and 0 < drawn["bars"] < 20000, f"drawn: {drawn}")
    near(odi(b, "search('function_1')"), p.share(lambda n: "function_1" in n), "share")
    smallest = min(range(1, len(p.nodes)), key=lambda i: p.nodes[i][3])
    odi(b, f"zoom({smallest})")
    near(odi(b, f"rect({smallest})")["width"], odi(b, "rect(0)")["width"], "the smallest frame, zoomed")
    check(odi(b, "drawn()")["frames"] > 1, "frames when zoomed to the smallest")
    b.script("window.odi.reset(); window.odi.view('callers')")
    check(odi(b, "sandwich()")["callers"], "callers of the hottest")
    quiet(b)
    p = deep()
    b = show(p)
    leaf = len(p.nodes) - 1
    odi(b, f"zoom({leaf})")
    rect = odi(b, f"rect({leaf})")
    check(0 <= rect["y"] <= 900 - rect["height"], f"the zoomed leaf is in sight: {rect}")
    equal(odi(b, "nodeAt(arguments[0], arguments[1])", *middle(rect)), leaf, "the leaf under the pointer")
    check(odi(b, "drawn()")["frames"] < 60, "rows out of sight are not drawn")
    check(b.script("return document.querySelector('#graph canvas').height") < 4096, "the canvas is no larger than the window")
    quiet(b)


@page_case("says what is wrong when there are no samples, or no profile")
def nothing():
    b = show(empty())
    check("No samples in this span" in b.text(find_one(b, "#nothing")), "empty")
    check("CPU of nobody" in b.text(find_one(b, "header")), "the head stays")
    for broken in ({"title": "broken"}, {**usual().data(), "nodes": [[0, 0, 0, 0], [5, "x", 1, 1]]},
                   {**usual().data(), "nodes": [[0, 0, 0, 9], [0, "x", 9, 9], [1, 10**6, 9, 9]]}):  # fmt: skip
        b = show({"title": "broken", **broken})
        check("cannot be read" in b.text(find_one(b, "#nothing")), b.text(find_one(b, "#nothing")))
    quiet(b)


def contrast(a, b):
    """WCAG 2.1, relative luminance."""

    def luminance(colour):
        rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        return sum(w * (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4)
                   for w, v in zip((0.2126, 0.7152, 0.0722), rgb))  # fmt: skip

    x, y = sorted((luminance(a), luminance(b)))
    return (y + 0.05) / (x + 0.05)


def emulate(b, scheme):
    b.do("POST", "/goog/cdp/execute", {"cmd": "Emulation.setEmulatedMedia",
                                       "params": {"features": [{"name": "prefers-color-scheme", "value": scheme}]}})  # fmt: skip


@page_case("texts can be read, in the light and in the dark, by kind and by module")
def readable():
    b = browser()
    seen = {}
    for scheme in ("light", "dark"):
        emulate(b, scheme)
        for colour in ("kind", "module"):
            show(large(8000), f"#c={colour}")
            pairs = {tuple(x) for x in odi(b, "colours()")}
            seen[scheme, colour] = pairs
            worst = min(pairs, key=lambda x: contrast(*x))
            say(f"# {scheme}, {colour}: {len(pairs)} pairs, the worst {worst} {contrast(*worst):.2f}")
            check(contrast(*worst) >= 4.5, f"{scheme}, {colour}: {worst} has a contrast of {contrast(*worst):.2f}")
    check(not seen["light", "kind"] & seen["dark", "kind"], "the dark has colours of its own")
    check(len(seen["light", "kind"]) > 30, "modules differ in shade")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(KINDS[sys.argv[2]]().data(), sys.argv[3])
    else:
        main()
