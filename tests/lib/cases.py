# SPDX-License-Identifier: Apache-2.0
"""Test cases of one file: each prints one line that tests/run.sh counts.

    ok - NAME          not ok - NAME          cannot run - NAME: REASON

    from cases import case, main, CannotRun
    @case("a reload keeps what stays")
    def reload(): ...
    if __name__ == "__main__": main()

Arguments of the command line choose cases by a part of their name.
"""

import sys
import time
import traceback

_cases = []


class CannotRun(Exception):
    """This machine lacks what the case needs; the reason is shown at the end of the run."""


def case(name):
    def register(function):
        _cases.append((name, function))
        return function

    return register


def say(*words):
    """For the log that is shown when something fails."""
    print(*words, file=sys.stderr, flush=True)


def check(condition, *words):
    """Fails the case, saying why."""
    if not condition:
        raise AssertionError(" ".join(str(w) for w in words) or "check failed")


def equal(got, wanted, what=""):
    if got != wanted:
        raise AssertionError(f"{what}: got {got!r}, wanted {wanted!r}")


def run_case(name, function):
    start = time.monotonic()
    say(f"# {name}")
    try:
        function()
    except CannotRun as e:
        print(f"cannot run - {name}: {' '.join(str(e).split())}", flush=True)
        return True
    except (Exception, SystemExit):
        traceback.print_exc()
        say(f"# after {time.monotonic() - start:.1f} s")
        print(f"not ok - {name}", flush=True)
        return False
    print(f"ok - {name}", flush=True)
    return True


def main():
    chosen = [(n, f) for n, f in _cases if not sys.argv[1:] or any(a in n for a in sys.argv[1:])]
    results = [run_case(n, f) for n, f in chosen]
    sys.exit(0 if results and all(results) else 1)
