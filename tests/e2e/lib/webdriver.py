# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, driven by the WebDriver protocol over HTTP: what one page's test needs, no more."""

import base64
import json
import os
import shutil
import signal
import subprocess
import urllib.error
import urllib.request

from odi_harness import CannotRun, cmdline, end, free_port, on_end, spawn, temp_folder, wait_for

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    def __init__(self, width=1400, height=900):
        driver = shutil.which("chromedriver") or shutil.which("chromedriver", path="/usr/lib/chromium-browser")
        binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if not driver or not binary:
            raise CannotRun("no Chromium with its driver on this machine")
        port = free_port()
        folder = self.folder = temp_folder()
        self.base = f"http://127.0.0.1:{port}"
        self.session = None
        log = os.path.join(folder, "chromedriver.log")
        env = {**os.environ, "HOME": folder, "XDG_CONFIG_HOME": folder, "XDG_CACHE_HOME": folder, "TMPDIR": folder}
        self.process = spawn([driver, f"--port={port}", f"--log-path={log}"], env=env, stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
        on_end(self.close)
        wait_for("chromedriver answers", self.ready, 30, 0.1)
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                     "--disable-background-networking", f"--user-data-dir={folder}/profile",
                     f"--window-size={width},{height}", "--force-device-scale-factor=1"]  # fmt: skip
        answer = self.call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "browserName": "chrome", "goog:chromeOptions": {"binary": binary, "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"}}}})  # fmt: skip
        self.session = answer["sessionId"]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def ready(self):
        try:
            return self.call("GET", "/status")["ready"]
        except OSError:
            return False

    def call(self, method, path, body=None, timeout=60):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as r:
                return json.load(r)["value"]
        except urllib.error.HTTPError as e:
            raise AssertionError(f"WebDriver {path}: {json.load(e)['value'].get('message', '')[:500]}") from None

    def do(self, method, path, body=None):
        return self.call(method, f"/session/{self.session}{path}", body)

    def close(self):
        if self.session:
            try:
                self.do("DELETE", "")
            except (OSError, AssertionError):
                pass
            self.session = None
        end(self.process)
        # a driver that was ended leaves its browser behind; ours are those that use our folder
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if any(self.folder in word for word in cmdline(int(pid))):
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass

    # -- what a person does --

    def open(self, url):
        self.do("POST", "/url", {"url": url})

    def script(self, text, *args):
        return self.do("POST", "/execute/sync", {"script": text, "args": list(args)})

    def find(self, css):
        return [e[ELEMENT] for e in self.do("POST", "/elements", {"using": "css selector", "value": css})]

    def click(self, element):
        self.do("POST", f"/element/{element}/click", {})

    def type(self, element, text):
        self.do("POST", f"/element/{element}/value", {"text": text})

    def clear(self, element):
        self.do("POST", f"/element/{element}/clear", {})

    def text(self, element):
        return self.do("GET", f"/element/{element}/text")

    def press(self, key):
        self.do("POST", "/actions", {"actions": [{"type": "key", "id": "k", "actions": [
            {"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]}]})  # fmt: skip

    def pointer(self, x, y, click=False):
        """Moves to a place of the page's view, and clicks there."""
        moves = [{"type": "pointerMove", "duration": 0, "x": int(x), "y": int(y)}]
        if click:
            moves += [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        self.do("POST", "/actions", {"actions": [{"type": "pointer", "id": "m", "parameters": {"pointerType": "mouse"},
                                                  "actions": moves}]})  # fmt: skip

    def screenshot(self, path):
        png = base64.b64decode(self.do("GET", "/screenshot"))
        with open(path, "wb") as f:
            f.write(png)
        return png

    def console(self):
        """Errors of the page's script since the last call."""
        rows = self.do("POST", "/se/log", {"type": "browser"})
        return [r["message"] for r in rows if r["level"] == "SEVERE"]
