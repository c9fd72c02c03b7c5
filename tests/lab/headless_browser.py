"""A headless Chromium that is told what to do over a pipe (the DevTools protocol).

Without a network: whatever name a page asks for resolves to nothing. Everything that the page says
or asks for is kept.
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from netns.errors import WaitTimeout
from netns.wait import wait_until

PATIENCE_S = 180.0


def program() -> str | None:
    """Return the browser; None: there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


class Browser:
    """One page. ``requests``: addresses it asked for; ``said``: its console and its errors."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._rest = b""
        self._count = 0
        self._session = ""
        self.requests: list[str] = []
        self.said: list[str] = []
        self._loaded = False

    def attach(self) -> None:
        """Open a page and listen to it."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        # Else that the empty page was loaded could be told while another one is waited for.
        self.until("document.readyState === 'complete'")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method and return its result."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._count:
                assert "error" not in found, found
                return dict(found["result"])

    def show(self, path: Path) -> None:
        """Load a file, and wait until it is there."""
        self.go(path.absolute().as_uri())

    def go(self, url: str) -> None:
        """Load what is there, and wait for it."""
        self._loaded = False
        self.call("Page.navigate", url=url)
        while not self._loaded:
            self._next()

    def value(self, expression: str) -> Any:
        """Return the value of an expression of the page's; of a promise, what it comes to."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, expression: str) -> None:
        """Wait until an expression is true."""
        try:
            wait_until(lambda: self.value(expression), PATIENCE_S, expression, interval=0.05)
        except WaitTimeout as error:
            error.add_note(f"{self.said}")
            raise

    def sized(self, width: int, height: int, *, dark: bool) -> None:
        """Set the size of the window and the theme of the system."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self) -> bytes:
        """Return what is to be seen, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], PATIENCE_S)
            assert ready, "the browser does not answer"
            data = os.read(self._answers, 1 << 16)
            assert data, "the browser has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        self._note(found.get("method", ""), found.get("params", {}))
        return found

    def _note(self, method: str, told: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(told["request"]["url"])
            case "Runtime.consoleAPICalled":
                texts = (str(one.get("value", one.get("description"))) for one in told["args"])
                self.said.append(f"{told['type']}: {' '.join(texts)}")
            case "Runtime.exceptionThrown":
                self.said.append(f"exception: {told['exceptionDetails']}")
            case "Log.entryAdded":
                self.said.append(f"{told['entry']['level']}: {told['entry']['text']}")


def _pipe() -> tuple[int, int]:
    """Return a pipe whose ends are not the numbers that the browser's are to be."""
    ends = os.pipe()
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


@contextlib.contextmanager
def opened(*reachable: str) -> Iterator[Browser]:
    """Start a browser with an empty profile; it is gone in the end.

    ``reachable``: addresses that it may ask all the same.
    """
    name = program()
    assert name is not None
    to_read, commands = _pipe()
    answers, to_write = _pipe()

    rules = ["MAP * ~NOTFOUND", *(f"EXCLUDE {address}" for address in reachable)]

    def as_the_browser_wants_them() -> None:
        os.dup2(to_read, 3)
        os.dup2(to_write, 4)

    with tempfile.TemporaryDirectory() as profile:
        process = subprocess.Popen(
            [
                name,
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-background-networking",
                f"--host-resolver-rules={','.join(rules)}",
                "--remote-debugging-pipe",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            pass_fds=(3, 4),
            preexec_fn=as_the_browser_wants_them,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        browser = Browser(commands, answers)
        try:
            browser.attach()
            yield browser
            with contextlib.suppress(AssertionError):
                browser._session = ""
                browser.call("Browser.close")
        finally:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
            os.close(commands)
            os.close(answers)
