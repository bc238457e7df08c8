# SPDX-License-Identifier: Apache-2.0
"""A name server that tells what it is told to, and a folder to be /etc of a process that asks it.

`r = Resolver(); r.names["x.test"] = "127.0.0.1"; Feeder(r.inside())`. A name's value is an address, or "nxdomain",
"garbage" (bytes that are no answer), "loop" (a name that points at itself), "other" (an answer to another question),
"silence" (no answer); or a list of these, one for each server. A name that it does not know does not exist. Servers
answer at port 53 of loopback addresses of their own.
"""

import os
import shutil
import socket
import struct
import threading

from odi_harness import temp_folder

WITH = ["hosts", "nsswitch.conf", "host.conf", "gai.conf", "machine-id", "ld.so.cache", "passwd", "group", "services",
        "ssl", "pki"]  # fmt: skip


class Resolver:
    made = 0

    def __init__(self, servers=1):
        self.names, self.asked, self.lock = {}, [], threading.Lock()
        self.sockets = []
        for i in range(servers):
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            Resolver.made += 1
            s.bind((f"127.53.{os.getpid() % 250 + 1}.{Resolver.made}", 53))
            self.sockets.append(s)
            threading.Thread(target=self.serve, args=(s, i), daemon=True).start()
        self.etc = temp_folder()
        os.chmod(self.etc, 0o755)
        for name in WITH:
            path = os.path.join("/etc", name)
            if os.path.isdir(path):
                shutil.copytree(path, os.path.join(self.etc, name), symlinks=True)
            elif os.path.exists(path):
                shutil.copy(path, self.etc)
        self.write([s.getsockname()[0] for s in self.sockets])

    def write(self, servers):
        """Another resolv.conf takes the place of the one that is there, as a DHCP client does it."""
        new = os.path.join(self.etc, "resolv.conf.new")
        with open(new, "w") as f:
            f.write("".join(f"nameserver {s}\n" for s in servers))
        os.chmod(new, 0o644)
        os.rename(new, os.path.join(self.etc, "resolv.conf"))

    def inside(self):
        """What a command line is to begin with."""
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c",
                'mount --bind "$0" /etc && exec "$@"', self.etc]  # fmt: skip

    def count(self, name):
        with self.lock:
            return self.asked.count(name)

    def serve(self, s, i):
        while True:
            query, peer = s.recvfrom(4096)
            answer = self.answer(query, i)
            if answer is not None:
                s.sendto(answer, peer)

    def answer(self, query, i):
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += 1 + query[at]
        question, kind = query[12 : at + 5], struct.unpack(">H", query[at + 1 : at + 3])[0]
        name = ".".join(labels).lower()
        with self.lock:
            self.asked.append(name)
        what = self.names.get(name, "nxdomain")
        if isinstance(what, list):
            what = what[i]

        def head(code, answers):
            return query[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, answers, 0, 0)

        if what == "silence":
            return None
        if what == "nxdomain":
            return head(3, 0) + question
        if what == "garbage":
            return query[:2] + os.urandom(200)
        if what == "loop":
            return head(0, 1) + b"\xc0\x0c" + question[-4:] + b"\xc0\x0c\xff\xff"
        if what == "other":
            return head(0, 1) + b"\x05where\x04test\x00" + question[-4:] + b"\xc0\x0c" + question[-4:] + bytes(4) + b"\x00\x04\x7f\x00\x00\x01"  # fmt: skip
        if kind != 1:
            return head(0, 0) + question
        return head(0, 1) + question + b"\xc0\x0c" + question[-4:] + bytes(4) + b"\x00\x04" + socket.inet_aton(what)
