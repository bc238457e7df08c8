# SPDX-License-Identifier: Apache-2.0
"""The exporter alone, driven by lines: see feeder.c."""

import json
import os
import subprocess

from odi_harness import BUILD, end, spawn, temp_folder, wait_for


class Feeder:
    """`with Feeder() as f: f.destination("a", "otlphttp", url=...); f.apply(); f.send(); f.rows()`"""

    def __init__(self, inside=()):
        """inside: what its command line begins with."""
        program = os.path.join(BUILD, "feeder")
        if not os.path.exists(program):
            raise AssertionError(f"{program} is not built: make {program}")
        self.log_path = os.path.join(temp_folder(), "feeder.log")
        with open(self.log_path, "wb") as log:
            self.process = spawn([*inside, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.process.stdin.close()
        end(self.process)
        with open(self.log_path, errors="replace") as f:
            log = f.read()
        if kind:
            print("\n".join("#   " + line[:300] for line in log.splitlines()[-40:]))
        assert "Sanitizer" not in log and "runtime error:" not in log, log[-3000:]

    def log(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            with open(self.log_path, errors="replace") as f:
                raise AssertionError(f"the feeder ended at {line!r}: {f.read()[-2000:]}")
        return json.loads(answer)

    def destination(self, name, kind, **options):
        """Options: `_` for `-`; a value `@PATH` is what that file holds."""
        words = []
        for key, value in options.items():
            key, value = key.replace("_", "-"), str(value)
            words.append(f"{key}@={value[1:]}" if value.startswith("@") else f"{key}={value}")
        return self.say(" ".join(["destination", name, kind, *words]))

    def apply(self):
        return self.say("apply")

    def send(self, batches=1, rows=10, name_length=8):
        return self.say(f"send {batches} {rows} {name_length}")

    def rows(self):
        answer = self.say("rows")
        for d in answer["destinations"]:
            parts = sum(d[k] for k in ("delivered", "held", "evicted", "rejected", "shaped"))
            assert d["routed"] == parts, d
        return {d["name"]: d for d in answer["destinations"]}

    def sent(self):
        return self.say("rows")["sent"]

    def test(self, name):
        return self.say(f"test {name}")["test"]

    def wait(self, what, function, seconds=20):
        return wait_for(what, lambda: function(self.rows()), seconds, 0.05)
