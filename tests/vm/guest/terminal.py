#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a line as somebody does who sits at a terminal: terminal.py SECONDS LINE [TEXT...]

The line goes to bash as it is, in a terminal of 100 columns and 60 rows. Questions are answered with yes, pagers are
left by q. What draws itself again and again is left by Ctrl-C once all the texts have been seen. Exit status: that of
the line; 98 where a text was not seen, 99 where the time ran out. What the terminal showed is printed.
"""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

SECONDS, LINE, TEXTS = float(sys.argv[1]), sys.argv[2], [t.encode() for t in sys.argv[3:]]
ESCAPES = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07]*\x07|[()].|[=>78])")
BEGUN = re.compile(rb"\x1b(?:\[[0-9;?]*[ -/]*|\][^\x07]{0,200}|[()])?$")
QUESTION = re.compile(rb"\[Y/n\] ?$")
PAGER = re.compile(rb"(?:lines \d+-\d+[^\n]*|\(END\)|press h for help or q to quit\)|\n:)\s*$")

# One by one: emulated, the next screen is seconds away, and what was typed too early goes to who asks next.
pid, terminal = pty.fork()
if pid == 0:
    for name in ("PAGER", "MANPAGER", "SYSTEMD_PAGER", "DEBIAN_FRONTEND", "ODI_COLOR", "LESS"):
        os.environ.pop(name, None)
    os.environ["TERM"] = "xterm"
    os.execvp("bash", ["bash", "-c", LINE])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 100, 0, 0))

end = time.monotonic() + SECONDS
shown = b""  # all of it, without escapes
begun = b""  # of an escape, what has come
answered = 0  # of shown, what was reacted to
redrawn = False
idle = 0
interrupted = 0.0
status = None
while time.monotonic() < end:
    if select.select([terminal], [], [], 1)[0]:
        try:
            data = os.read(terminal, 65536)
        except OSError:  # all who had it open are gone
            break
        if not data:
            break
        data = begun + data
        redrawn = redrawn or b"\x1b[H" in data
        data = ESCAPES.sub(b"", data)
        begun = (BEGUN.search(data) or [b""])[0]
        data = data[: len(data) - len(begun)]
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        shown += data
        idle = 0
        continue
    # A second without output: it waits for somebody, or for its time.
    idle += 1
    new = shown[answered:]
    if QUESTION.search(new):
        answered = len(shown)
        os.write(terminal, b"y\n")
    elif PAGER.search(new) or (TEXTS and idle % 30 == 29):  # some pager, then
        answered = len(shown)
        os.write(terminal, b"q")
    elif redrawn and all(t in shown for t in TEXTS) and time.monotonic() - interrupted > 10:
        interrupted = time.monotonic()
        os.write(terminal, b"\x03")
else:
    os.kill(pid, signal.SIGHUP)
    print("\nterminal.py: %g s were not enough" % SECONDS)
    sys.exit(99)
_, status = os.waitpid(pid, 0)
missing = [t.decode() for t in TEXTS if t not in shown]
if missing:
    print("\nterminal.py: not seen: " + ", ".join(missing))
    sys.exit(98)
sys.exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
