"""A headless Chromium that is driven over a pipe, for what only a browser can show."""

import json
import os
import select
import shutil
import subprocess
import sys
import time

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--remote-debugging-pipe"]
# The browser listens on descriptor 3 and answers on 4.
LAUNCH = "import os, sys; a, b = (os.dup2(int(fd), 100 + n) for n, fd in enumerate(sys.argv[1:3])); os.dup2(a, 3); os.dup2(b, 4); " \
         "os.execv(sys.argv[3], sys.argv[3:])"
KEYS = {"ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, "Tab": 9, "Enter": 13}


def chromium():
    """The browser's path, or None."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One page. What its console says, and every error in it, is kept in `said`."""

    def __init__(self, path, profile, width=1000, height=1200):
        to_child, self.write = os.pipe()
        self.read, from_child = os.pipe()
        command = [path, *FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}", "about:blank"]
        start = [sys.executable, "-c", LAUNCH, str(to_child), str(from_child), *command]
        self.process = subprocess.Popen(start, pass_fds=(to_child, from_child), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_child)
        os.close(from_child)
        self.last, self.waiting, self.said, self.session = 0, b"", [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=20)
        os.close(self.read)
        os.close(self.write)

    def call(self, method, **parameters):
        """Ask the browser, and wait for its answer."""
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters} | ({"sessionId": self.session} if self.session else {})
        os.write(self.write, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + 90
        while True:
            while b"\0" not in self.waiting:
                if not select.select([self.read], [], [], max(0, until - time.monotonic()))[0]:
                    raise TimeoutError(method)
                block = os.read(self.read, 1 << 16)
                if not block:
                    raise EOFError("the browser has gone")
                self.waiting += block
            one, _, self.waiting = self.waiting.partition(b"\0")
            answer = json.loads(one)
            if answer.get("id") == self.last:
                assert "error" not in answer, answer
                return answer["result"]
            if answer.get("method") in ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"):
                self.said.append(answer["params"])

    def open(self, path):
        self.call("Page.navigate", url=f"file://{path}")
        until = time.monotonic() + 60
        ready = f"document.documentElement?.dataset.ready === 'yes' && location.pathname === {json.dumps(str(path))}"
        while not self.run(ready) and time.monotonic() < until:
            time.sleep(0.05)

    def run(self, code):
        """The value of an expression in the page."""
        result = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def point(self, selector, click=False):
        """Move the mouse to an element, and press it if asked."""
        place = f"(() => {{ const one = document.querySelector({json.dumps(selector)}); one.scrollIntoView({{block: 'center'}}); " \
                "const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        x, y = self.run(place)
        for kind in ("mouseMoved", *(("mousePressed", "mouseReleased") if click else ())):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left" if kind != "mouseMoved" else "none", clickCount=1)
