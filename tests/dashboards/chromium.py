"""A headless Chromium that tests drive over its DevTools pipe: no server, no port, no further package."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
SECONDS = 45.0
"""Until a test gives up: a machine may be busy."""


class Tab:
    """One page; what it asked for and what it logged is kept."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._waiting = b""
        self._last = 0
        self._session: str | None = None
        self.requests: list[str] = []
        """Every address that was asked for, the page's own too."""
        self.problems: list[str] = []
        """Errors and warnings of the console, and exceptions that nobody caught."""

    def start(self) -> Self:
        """Attach to a new page."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        return self

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A DevTools command's result; RuntimeError if it has none."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session and not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._outgoing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                result: dict[str, Any] = answer["result"]
                return result

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """The window's size in CSS pixels, and its colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str, ready: str = "document.readyState === 'complete'") -> None:
        """Go to an address and wait until the expression `ready` is true."""
        self.call("Page.navigate", url=address)
        self.wait(ready)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, as JSON can hold it."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(f"{script}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def wait(self, condition: str) -> Any:
        """The first true value of a JavaScript expression."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            with contextlib.suppress(RuntimeError):  # the page is being replaced
                if value := self.run(condition):
                    return value
            time.sleep(0.05)
        raise TimeoutError(f"never true: {condition}; problems: {self.problems[:3]}")

    def hover(self, x: float, y: float) -> None:
        """Move the mouse, in CSS pixels of the window."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, file: Path, *, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._waiting:
            ready, _, _ = select.select([self._incoming], [], [], SECONDS)
            part = os.read(self._incoming, 1 << 20) if ready else b""
            if not part:
                raise TimeoutError("chromium does not answer")
            self._waiting += part
        text, _, self._waiting = self._waiting.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, params: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            thrown = params["exceptionDetails"]
            self.problems.append(thrown.get("exception", {}).get("description", thrown["text"])[:500])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(json.dumps(params["args"])[:500])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(json.dumps(params["entry"])[:500])


@contextlib.contextmanager
def tab() -> Iterator[Tab]:
    """A browser with one tab, which ends with the block."""
    assert PROGRAM, "chromium is not installed"
    to_browser, commands = os.pipe()
    answers, from_browser = os.pipe()
    # Chromium reads commands from descriptor 3 and answers on 4; copies above them cannot be overwritten meanwhile.
    source, sink = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (to_browser, from_browser))

    def plug() -> None:
        os.dup2(source, 3)
        os.dup2(sink, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [PROGRAM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        browser = subprocess.Popen(command, preexec_fn=plug, close_fds=False, stderr=subprocess.DEVNULL)
        for fd in (to_browser, from_browser, source, sink):
            os.close(fd)
        try:
            yield Tab(answers, commands).start()
        finally:
            os.close(commands)
            os.close(answers)
            browser.terminate()
            try:
                browser.wait(10)
            except subprocess.TimeoutExpired:
                browser.kill()
                browser.wait()
