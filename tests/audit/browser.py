"""A real browser for tests: Chromium without a window, spoken to through two pipes, so that no socket is opened.

The DevTools protocol: messages of JSON, each ended by a zero byte, on the file descriptors 3 and 4 of the browser.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """One page of one browser."""

    def __init__(self, process: subprocess.Popen, write: int, read: int) -> None:
        self.process, self._write, self._read = process, write, read
        self._buffer, self._next, self.events = b"", 0, []
        target = self.call("Target.createTarget", {"url": "about:blank"}, session=False)["targetId"]
        self.session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True}, session=False)[
            "sessionId"
        ]
        for domain in ("Page", "Network", "Log", "Runtime", "Audits"):
            self.call(f"{domain}.enable")

    def _message(self) -> dict:
        while b"\0" not in self._buffer:
            found = os.read(self._read, 2**20)
            assert found, "the browser has gone"
            self._buffer += found
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method: str, parameters: dict | None = None, *, session: bool = True) -> dict:
        self._next += 1
        message = {"id": self._next, "method": method, "params": parameters or {}}
        message |= {"sessionId": self.session} if session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._message()
            if found.get("id") == self._next:
                assert "error" not in found, found
                return found["result"]
            self.events.append(found)

    def show(self, page: Path, *, width: int = 1024, height: int = 768, scheme: str = "light", media: str = "") -> None:
        """Load a file in a window of a size, in a colour scheme."""
        self.events.clear()
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", {"media": media, "features": features})
        self.call("Page.navigate", {"url": page.as_uri()})
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._message())

    def value(self, script: str) -> object:
        """What a script gives; it is the tester's, and the page's own policy does not stop it."""
        found = self.call("Runtime.evaluate", {"expression": script, "returnByValue": True, "awaitPromise": True})
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def requested(self) -> list[str]:
        """The addresses of everything that the page asked for."""
        return [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]

    def blocked(self) -> list[str]:
        """Why requests were stopped before they left."""
        failed = [e["params"] for e in self.events if e.get("method") == "Network.loadingFailed"]
        return [found["blockedReason"] for found in failed if "blockedReason" in found]

    def complaints(self) -> list[str]:
        """Errors, warnings and violations of the page's policy."""
        self.value("1")  # what was reported before it has arrived
        found = []
        for event in self.events:
            method, parameters = event.get("method"), event.get("params", {})
            if method == "Log.entryAdded" and parameters["entry"]["level"] in {"error", "warning"}:
                found.append(parameters["entry"]["text"])
            elif method in {"Runtime.exceptionThrown", "Audits.issueAdded"}:
                found.append(json.dumps(parameters))
        return found

    def pdf(self) -> bytes:
        """The page as it prints, on the paper that its style sheet asks for."""
        done = self.call(
            "Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True, "generateTaggedPDF": True}
        )
        return base64.b64decode(done["data"])

    def picture(self, path: Path) -> None:
        done = self.call("Page.captureScreenshot", {"captureBeyondViewport": True, "format": "png"})
        path.write_bytes(base64.b64decode(done["data"]))


@contextmanager
def chromium(folder: Path) -> Iterator[Browser]:
    """A browser with a profile of its own in a folder; skips where there is none."""
    name = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if name is None:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    there, write = os.pipe()
    read, back = os.pipe()

    process = subprocess.Popen(
        [
            "bash",
            "-c",
            f'exec "$@" 3<&{there} 4>&{back}',
            "bash",
            name,
            *OPTIONS,
            f"--user-data-dir={folder / 'profile'}",
        ],
        pass_fds=(there, back),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(there)
    os.close(back)
    try:
        yield Browser(process, write, read)
    finally:
        process.terminate()
        process.wait(timeout=20)
        os.close(write)
        os.close(read)
