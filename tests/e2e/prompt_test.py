#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A secret that is typed: odictl asks for it on a terminal of its own, which does not show it and is as before
afterwards, also where the question is not answered."""

import os
import pty
import select
import signal
import sys
import termios

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lib"))
from odi_harness import *  # noqa: E402,F403
from hostile import Hostile  # noqa: E402

SECRET = "hunter2-0f9c"


def echoes(fd):
    return bool(termios.tcgetattr(fd)[3] & termios.ECHO)


class Terminal:
    """odictl with a terminal as its standard input, output and error, which it leads the session of."""

    def __init__(self, a, *words):
        self.fd, self.other = pty.openpty()
        self.shown = ""

        def lead():
            os.setsid()
            os.ttyname(0) and os.open(os.ttyname(0), os.O_RDWR)  # becomes the controlling one

        self.process = spawn([os.path.join(BUILD, "bin/odictl"), *words], stdin=self.other, stdout=self.other,
                             stderr=self.other, env={**os.environ, "ODI_SOCKET": a.socket}, preexec_fn=lead)  # fmt: skip

    def read(self, words):
        """Until these are shown."""

        def there():
            while select.select([self.fd], [], [], 0.05)[0]:
                self.shown += os.read(self.fd, 4096).decode()
            return words in self.shown

        wait_for(f"the terminal shows {words!r}", there, 20)

    def type(self, text):
        os.write(self.fd, text.encode())

    def end(self):
        wait_for("odictl ends", lambda: self.process.poll() is not None, 20)
        return self.process.returncode


@case("a secret that is typed is not shown, is kept, and goes to the backend")
def typed():
    web = Hostile("ok")
    with Agentd() as a:
        t = Terminal(a, "destination", "add", "otlphttp", "typed", "--url", web.url, "--bearer-token-file", "-")
        t.read("bearer-token-file: ")
        check(not echoes(t.other), "the terminal shows what is typed")
        t.type(SECRET + "\n")
        equal(t.end(), 0, t.shown)
        t.read("typed")
        check(SECRET not in t.shown, t.shown)
        check(echoes(t.other), "the terminal stays silent")
        equal(a.run("destination", "test", "typed").returncode, 0, "the test")
        equal(web.requests[-1][2].get("authorization"), f"Bearer {SECRET}", "what the backend got")


@case("a question that is not answered changes nothing, and leaves the terminal as it was")
def unanswered():
    with Agentd() as a:
        words = ["destination", "add", "otlphttp", "d", "--url", "http://127.0.0.1:9", "--bearer-token-file", "-"]
        t = Terminal(a, *words)
        t.read("bearer-token-file: ")
        t.type("half\x03")
        equal(t.end(), -signal.SIGINT, t.shown)
        check(echoes(t.other), "the terminal stays silent after Ctrl-C")
        t = Terminal(a, *words)
        t.read("bearer-token-file: ")
        t.type("\n")
        equal(t.end(), 1, t.shown)
        t.read("nothing was changed")
        check(echoes(t.other), "the terminal stays silent")
        equal(a.ctl("destination", "list")["destinations"], [], "destinations")


if __name__ == "__main__":
    main()
