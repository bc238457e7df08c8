#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# timeout: 400 s
"""What names each binary, and what to do where names are missing; modes of demangling; settings of debug files."""

import os
import stat
import sys

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403

CPP = r"""
#include <cstdlib>
#include <vector>
template <typename T, typename U> struct shelf {
	std::vector<T> all;
	__attribute__((noinline)) U rummage(T from, const U &by)
	{
		U sum = by;
		for (volatile int i = 0; i < 20000; i++)
			sum += static_cast<U>(from) * i;
		return sum;
	}
};
int main(int, char **argv)
{
	shelf<int, unsigned long> s;
	unsigned long x = 0;
	for (;;)
		x += s.rummage(atoi(argv[1]), x);
}
"""

C = r"""
static volatile unsigned long sum;
__attribute__((noinline)) static void grind(void) { for (int i = 0; i < 100000; i++) sum += i; }
int main(void) { for (;;) grind(); }
"""

# Code that neither its debug information nor its symbols have: behind the end of a function.
PARTLY = r"""
__asm__(".text\n.globl known\n.type known, %function\nknown: nop\n.size known, 1\n.balign 4\n.Lhidden:\n"
#ifdef __x86_64__
	"mov $100000, %eax\n1: dec %eax\n jnz 1b\n ret\n"
#else
	"mov w0, #50000\n1: subs w0, w0, #1\n b.ne 1b\n ret\n"
#endif
	".pushsection .data\n.globl hidden\nhidden: .quad .Lhidden\n.popsection\n");
extern void (*volatile hidden)(void);
int main(void) { for (;;) hidden(); }
"""

GO = """
package main

var sum uint64

//go:noinline
func churn(n uint64) {
	for i := uint64(0); i < n; i++ {
		sum += i
	}
}

func main() {
	for {
		churn(100000)
	}
}
"""


def build(name, text, ending, *compiler):
    folder = temp_folder()
    source, out = os.path.join(folder, name + ending), os.path.join(folder, name)
    with open(source, "w") as f:
        f.write(text)
    if shutil.which(compiler[0]) is None:
        raise CannotRun(f"{compiler[0]} is not installed")
    subprocess.run([*compiler, "-o", out, source], check=True, cwd=folder, env={**os.environ, "GO111MODULE": "off"})
    return out


def rows_of(a, *args):
    return a.ctl("symbols", *args)


def row(a, path):
    found = [f for f in rows_of(a, "--all")["files"] if f["path"] == path]
    return found[0] if found else None


def wait_row(a, path, ready=lambda f: f["frames"] > 200 and f["named_by"] != "none", seconds=30):
    return wait_for(f"figures of {path}", lambda: (lambda f: f if f and ready(f) else None)(row(a, path)), seconds)


def folded(a, service, since="5s"):
    return a.run("flamegraph", "--service", service, "--since", since, "--format", "folded", "-o", "-").stdout


@case("every binary is listed with what names it, and with what to do where nothing does")
def listed():
    cpp = build("shelves", CPP, ".cc", "c++", "-O1", "-g")
    plain = build("plain", C, ".c", "cc", "-O1")
    bare = build("bare_grind", C, ".c", "cc", "-O1", "-s", "-Wl,--build-id=sha1")
    nameless = build("nameless_grind", C, ".c", "cc", "-O1", "-s", "-Wl,--build-id=none")
    partly = build("partly", PARTLY, ".c", "cc", "-O1", "-g")
    go = build("churner", GO, ".go", "go", "build", "-ldflags=-s -w")
    with Agentd() as a:
        r = a.run("symbols")
        equal(r.returncode, 0, r.stderr)
        check("nothing was profiled yet" in r.stdout, r.stdout)
        equal(rows_of(a)["files"], [], "files before anything")
        a.add_source("host")
        a.enable()
        for p in (cpp, plain, bare, nameless, partly, go):
            Workload(p, None, argv=[p, "3"])
        # On a busy host the first are late; so many that are not are waited for that nothing is to be done.
        f = wait_row(a, cpp, lambda f: f["frames"] > 200 and f["named_percent"] > 99 and not f["advice"])
        equal(f["named_by"], "DWARF", f"{f}")
        check(f["build_id"] and not f["problem"], f"{f}")
        check(0 < f["samples_percent"] < 100 and f["cpu_seconds"] > 0, f"{f}")
        equal(wait_row(a, plain)["named_by"], "symbol table", "plain")
        equal(wait_row(a, go)["named_by"], "gopclntab", "go")
        f = wait_row(a, bare, lambda f: f["frames"] > 200 and f["build_id"] and f["advice"] and f["named_by"] == "entry point")
        check(f["frames_named"] < f["frames"], f"{f}")
        # what it begins with is known all the same, and a function without a name is one frame
        def stacks():
            found = [s.rsplit(" ", 1)[0].split(";")[1:] for s in folded(a, "bare_grind", "2s").splitlines()]
            return [*{(s[0], *s[-2:]) for s in found if s[-1].startswith("bare_grind+0x")}]

        # the first may be late, and then have a frame each
        (tower,) = wait_for("one frame a function", lambda: (lambda s: s if len(s) == 1 else None)(stacks()), 30, 0.5)
        equal(tower[:2], ("_start", "main"), f"{tower}")
        check("odictl symbols fetch on" in f["advice"] and "odictl symbols add" in f["advice"], f["advice"])
        f = wait_row(a, partly, lambda f: f["frames"] > 200 and "debug information does not have" in f["advice"])
        equal(f["named_by"], "DWARF", f"{f}")
        wait_row(a, nameless, lambda f: f["frames"] > 200 and "build id" in f["advice"])
        f = wait_row(a, "[kernel]", lambda f: f["frames"] > 20)
        equal(f["named_by"], "kallsyms", "kernel")
        got = rows_of(a, "--all")
        order = [f["samples"] for f in got["files"]]
        equal(order, sorted(order, reverse=True), "order")
        # Sums agree with the status's own.
        check(got["frames"] == sum(f["frames"] for f in got["files"]), "frames add up")
        check(got["frames_named"] == sum(f["frames_named"] for f in got["files"]), "named frames add up")
        two = rows_of(a, "--limit", 2)
        equal(len(two["files"]), 2, "--limit 2")
        check(two["files_left_off"] >= 3, f"{two['files_left_off']}")
        equal(rows_of(a, "-n", "2")["files"][0].keys(), rows_of(a, "--all")["files"][0].keys(), "keys")
        text = a.run("symbols", "--all").stdout
        for word in ("SAMPLES", "NAMED BY", "shelves", "DWARF", "fetch", "odictl symbols fetch on", "-> "):
            check(word in text, f"{word}: {text}")
        equal(a.run("symbols", "list", "--all", "--limit", "2").returncode, 2, "both")
        equal(a.run("symbols", "--limit", "0").returncode, 2, "limit 0")


@case("modes of demangling: set at once, kept over a restart, raw names stay")
def demangling():
    cpp = build("shelves", CPP, ".cc", "c++", "-O1")
    with Agentd() as a:
        a.add_source("process", cpp, "--service-name", "shelves")
        a.enable("--demangle", "full")
        Workload(cpp, None, argv=[cpp, "3"])
        shown = {
            "full": "shelf<int, unsigned long>::rummage(int, unsigned long const&)",
            "templates": "shelf<int, unsigned long>::rummage",
            "simple": "shelf::rummage",
            "none": "_ZN5shelfIimE7rummageEiRKm",
        }

        def frames():
            return {w for l in folded(a, "shelves", "2s").splitlines() for w in l.rsplit(" ", 1)[0].split(";")}

        wait_for("full", lambda: shown["full"] in frames(), 30)
        for mode in ("simple", "none", "templates", "full"):
            a.ctl("profiling", "set", f"demangle={mode}")
            equal(rows_of(a)["demangle"], mode, "mode")
            others = set(shown.values()) - {shown[mode]}
            wait_for(mode, lambda: shown[mode] in frames() and not others & frames(), 30)
        a.ctl("profiling", "set", "demangle=simple")
        a.stop()
        a.start()
        wait_for("simple after a restart", lambda: shown["simple"] in frames() and shown["full"] not in frames(), 30)
        r = a.run("profiling", "set", "demangle=ful")
        equal(r.returncode, 2, "a wrong mode")
        check('did you mean "full"' in r.stderr, r.stderr)
        a.ctl("profiling", "set", "demangle-")
        equal(rows_of(a)["demangle"], "templates", "the default")


@case("symbols fetch and symbols add: kept, shown, and wrong values refused with words")
def settings():
    with Agentd() as a:
        f = rows_of(a)
        check(f["fetch"]["on"] is False, f"{f['fetch']}")
        equal(f["fetch"]["urls"], ["https://debuginfod.elfutils.org"], "urls")
        r = a.run("symbols", "fetch", "on", "--url", "http://127.0.0.1:9", "--url", "http://127.0.0.1:10/x/")
        equal(r.returncode, 0, r.stderr)
        check("build ids" in r.stdout, r.stdout)
        f = rows_of(a)["fetch"]
        check(f["on"], f"{f}")
        equal(f["urls"], ["http://127.0.0.1:9", "http://127.0.0.1:10/x"], "urls")
        check("http://127.0.0.1:9 and others" in a.run("symbols").stdout, a.run("symbols").stdout)
        for words, code, said in (
            (("fetch", "maybe"), 2, "on or off"),
            (("fetch",), 2, "symbols fetch"),
            (("fetch", "off", "--url", "http://a"), 2, "--url goes with on"),
            (("fetch", "on", "--url", "ftp://a"), 2, "http or https"),
            (("fetch", "on", "--url", "http://u:p@a"), 2, "do not belong into a URL"),
            (("add",), 2, "symbols add"),
            (("add", "/nonexistent"), 1, "No such file"),
            (("add", "/dev/null"), 2, "neither a file nor a folder"),
            (("remove", "/usr"), 1, "was not added"),
            (("fech",), 2, "did you mean"),
        ):
            r = a.run("symbols", *words)
            equal(r.returncode, code, f"{words}: {r.stdout} {r.stderr}")
            check(said in " ".join(r.stderr.split()), f"{words}: {r.stderr}")
        a.ctl("symbols", "fetch", "off")
        check(rows_of(a)["fetch"]["on"] is False, "off again")
        folder = temp_folder()
        one, two, colon = (os.path.join(folder, n) for n in ("one.debug", "two dir", "a:b"))
        for path in (one, colon):
            open(path, "w").close()
        os.mkdir(two)
        os.chmod(one, 0o666)
        r = a.run("symbols", "add", one)
        equal(r.returncode, 1, "writable by all")
        check("chmod go-w" in r.stderr, r.stderr)
        os.chmod(one, 0o644)
        equal(a.run("symbols", "add", colon).returncode, 2, "a colon")
        check(a.ctl("symbols", "add", one, two)["changed"], "added")
        check(not a.ctl("symbols", "add", two)["changed"], "added twice")
        equal([p["path"] for p in rows_of(a)["paths"]], [one, two], "paths")
        equal([p["problem"] for p in rows_of(a)["paths"]], ["", ""], "paths")
        os.unlink(one)
        equal(rows_of(a)["paths"][0]["problem"], "is not there", "gone")
        check(one + ": is not there" in a.run("symbols").stdout, "said")
        a.stop()
        a.start()
        equal(len(rows_of(a)["paths"]), 2, "over a restart")
        a.ctl("symbols", "remove", one)
        equal([p["path"] for p in rows_of(a)["paths"]], [two], "removed")
        a.ctl("symbols", "remove", two)
        equal(rows_of(a)["paths"], [], "removed")


@case("a debug file at hand names a stripped program at once")
def debug_at_hand():
    whole = build("whole_grind", C, ".c", "cc", "-O1", "-g", "-Wl,--build-id=sha1")
    folder = temp_folder()
    bare, debug = os.path.join(folder, "stripped_grind"), os.path.join(folder, "files")
    os.mkdir(debug)
    subprocess.run(["strip", "-o", bare, whole], check=True)
    subprocess.run(["objcopy", "--only-keep-debug", whole, os.path.join(debug, "some.debug")], check=True)
    os.chmod(os.path.join(debug, "some.debug"), stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
    with Agentd() as a:
        a.add_source("process", bare, "--service-name", "bare")
        a.enable()
        Workload(bare, None, argv=[bare])
        wait_row(a, bare, lambda f: f["frames"] > 200 and f["named_by"] == "entry point" and f["advice"])
        a.ctl("symbols", "add", os.path.join(debug, "some.debug"))
        wait_row(a, bare, lambda f: f["frames_named"] > 200 and f["named_by"] == "DWARF (debug file)")
        wait_for("its names", lambda: "main;grind" in folded(a, "bare", "2s"), 20)


@case("settings that a file manages are said to be the file's")
def managed():
    with Agentd(config="symbols:\n  fetch: off\n  paths: [/usr/lib/debug]\n") as a:
        r = a.run("symbols", "fetch", "on")
        check(r.returncode != 0 and "agentd.yaml:2" in r.stderr, f"{r.returncode} {r.stderr}")
        r = a.run("symbols", "add", "/usr/share")
        check(r.returncode != 0 and "agentd.yaml:3" in r.stderr, f"{r.returncode} {r.stderr}")
        equal([p["path"] for p in rows_of(a)["paths"]], ["/usr/lib/debug"], "paths")


if __name__ == "__main__":
    main()
