"""A headless Chromium, driven by its DevTools protocol: opens pages, runs JavaScript in them, hears their errors."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from websockets.sync.client import ClientConnection, connect

PATIENCE = 60.0
"""Seconds after which a wait is given up; no test passes or fails by how long it takes below that."""
PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome")
_LISTENING = re.compile(r"DevTools listening on (ws://\S+)")


def program() -> str | None:
    """The browser's path; None if there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Page:
    """One tab."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self._session: str | None = None
        self.failures: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go there; returns once `evaluate` would run on that page."""
        answer = self._call("Page.navigate", url=url)
        assert "errorText" not in answer, answer

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited if it is a promise."""
        answer = self._call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """The value of an expression once it is true; survives navigation. Raises AssertionError at the bound."""
        deadline = time.monotonic() + PATIENCE
        value = None
        while time.monotonic() < deadline:
            with contextlib.suppress(AssertionError):  # the page is just being exchanged for the next one
                value = self.evaluate(expression)
            if value:
                return value
            time.sleep(0.05)
        raise AssertionError(f"{expression} stayed {value!r}; the page said: {self.failures}")

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._connection.send(json.dumps(message))
        while True:
            answer = json.loads(self._connection.recv(timeout=PATIENCE))
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def _note(self, event: dict[str, Any]) -> None:
        """Keep what a person would see in red in the console."""
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.failures.append(str(params["exceptionDetails"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.failures.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Network.loadingFailed" if not params.get("canceled"):
                self.failures.append(params["errorText"])


@contextlib.contextmanager
def chromium() -> Iterator[ClientConnection]:
    """A browser with a profile of its own, and the connection by which `Page`s are opened."""
    path = program()
    assert path is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # Without its own sandbox, which root cannot have; it opens nothing but this test's pages.
        flags = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run"]
        command = [path, "--headless", *flags, f"--user-data-dir={profile}", "--remote-debugging-port=0", "about:blank"]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=Path(profile), start_new_session=True
        )
        assert process.stderr is not None
        drain = threading.Thread(target=process.stderr.read, daemon=True)
        try:
            address = _address(process.stderr)
            drain.start()  # or it fills the pipe and stands still
            with connect(address, max_size=None, proxy=None) as connection:
                yield connection
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # the program may be a script around the browser
            process.wait()
            if drain.ident is not None:
                drain.join()
            process.stderr.close()


def _address(stderr: IO[bytes]) -> str:
    said = []
    for line in stderr:
        said.append(line.decode(errors="replace"))
        found = _LISTENING.search(said[-1])
        if found is not None:
            return found[1]
    raise AssertionError("Chromium did not start:\n" + "".join(said))
