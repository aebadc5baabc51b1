"""A headless Chromium for the tests of the page, driven over a pipe by the DevTools protocol. It needs no package."""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)

# A telephone's screen in CSS pixels.
PHONE = (390, 844)

_SECONDS = 60

# Key -> its number (windowsVirtualKeyCode) and the text it types.
_KEYS = {
    "Tab": (9, ""),
    "Enter": (13, "\r"),
    " ": (32, " "),
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
}


class Tab:
    """One page in the browser.

    Attributes:
        requests: addresses of everything that was asked for, the page itself included.
        blocked: addresses among them that the page's policy kept from being asked for.
        problems: errors and messages on the console, uncaught exceptions, and violations of the page's policy.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self.requests: list[str] = []
        self.blocked: list[str] = []
        self.problems: list[str] = []
        self._addresses: dict[str, str] = {}
        self._browser, self._session = browser, session
        self._loaded = False

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript in the page; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, *keys: str) -> None:
        """Press keys one after the other, as a person would; Shift+Tab is Tab with Shift."""
        for pressed in keys:
            key = pressed.removeprefix("Shift+")
            number, text = _KEYS[key]
            values = {"key": key, "windowsVirtualKeyCode": number} | ({"text": text} if text else {})
            if key != pressed:
                values["modifiers"] = 8
            self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **values)
            self.call("Input.dispatchKeyEvent", type="keyUp", **values)

    def write(self, text: str) -> None:
        """Type a text into the focused field."""
        self.call("Input.insertText", text=text)

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of the first element that ``selector`` names."""
        where = self.run(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)});"
            " one.scrollIntoView({block: 'center'});"
            " const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            values = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=where[0], y=where[1], **values)

    def go(self, fragment: str) -> None:
        """Follow a link to ``fragment`` of the same page."""
        self.run(
            "new Promise((done) => { addEventListener('hashchange', () => setTimeout(done), {once: true});"
            f" location.hash = {json.dumps(fragment)}; }})"
        )

    def call(self, method: str, **values: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol for this page."""
        return self._browser.call(method, session=self._session, **values)

    def load(self, address: str) -> None:
        """Open an address, and wait until all of it is there."""
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=address)
        while not self._loaded:
            self._browser.take()

    def event(self, method: str, values: dict[str, Any]) -> None:
        """Note an event of this page."""
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
            self._addresses[values["requestId"]] = self.requests[-1]
        elif method == "Network.loadingFailed" and values.get("blockedReason") == "csp":
            self.blocked.append(self._addresses[values["requestId"]])
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.problems.append(json.dumps(values))


class Browser:
    """A running Chromium; see `browser`."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._number = 0
        self._buffer = b""
        self._answers: dict[int, dict[str, Any]] = {}
        self._tabs: dict[str, Tab] = {}
        self._target = ""

    def open(self, page: Path, fragment: str = "", *, size: tuple[int, int] = (1280, 900), scripts: bool = True) -> Tab:
        """Open a file in a tab of the given size (`PHONE`: as on a telephone), and close the tab before.

        ``scripts=False``: the page's own scripts do not run, as if its reader had forbidden them.
        """
        if self._target:
            self.call("Target.closeTarget", targetId=self._target)
        self._target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]
        tab = self._tabs[session] = Tab(self, session)
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
        tab.call("Emulation.setDeviceMetricsOverride", **screen)
        tab.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        tab.load(page.resolve().as_uri() + fragment)
        return tab

    def call(self, method: str, session: str | None = None, **values: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol, and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": values}
        os.write(self._write, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while self._number not in self._answers:
            self.take()
        answer = self._answers.pop(self._number)
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def take(self) -> None:
        """Wait for a message of the browser."""
        end = time.monotonic() + _SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"Chromium said nothing for {_SECONDS} s"
            content = os.read(self._read, 1 << 20)
            assert content, "Chromium ended"
            self._buffer += content
        text, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(text)
        if "id" in message:
            self._answers[message["id"]] = message
        elif message.get("sessionId") in self._tabs:
            self._tabs[message["sessionId"]].event(message["method"], message["params"])


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """Start Chromium, whose profile is kept in ``folder``; it is ended with the context."""
    assert CHROMIUM is not None
    (read_by_it, write), (read, written_by_it) = os.pipe(), os.pipe()
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe")

    def connect() -> None:
        # The browser reads messages from descriptor 3 and writes them to 4; the copies are numbered higher than both.
        copies = [fcntl.fcntl(one, fcntl.F_DUPFD, 10) for one in (read_by_it, written_by_it)]
        for copy, number in zip(copies, (3, 4), strict=True):
            os.dup2(copy, number)

    process = subprocess.Popen(
        [CHROMIUM, *flags, f"--user-data-dir={folder / 'profile'}"],
        preexec_fn=connect,
        close_fds=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_by_it)
    os.close(written_by_it)
    found = Browser(write, read)
    try:
        yield found
    finally:
        try:
            found.call("Browser.close")
            process.wait(timeout=20)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
        os.close(write)
        os.close(read)
