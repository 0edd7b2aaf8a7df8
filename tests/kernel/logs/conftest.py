"""Logging set up for one test, into files that the test reads back."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from shoal import logs
from shoal.config.settings import LogSettings
from shoal.web.seam import AccessEntry


class Output:
    """What came out of the two streams. Reading shuts logging down, so that nothing is on its way."""

    def __init__(self, home: Path) -> None:
        self.stdout = (home / "stdout").open("w+")
        self.stderr = (home / "stderr").open("w+")

    def configure(self, **settings: Any) -> None:
        logs.configure(LogSettings(**settings), stdout=self.stdout, stderr=self.stderr)

    def text(self) -> str:
        logs.shutdown(60)
        return Path(self.stderr.name).read_text()

    def lines(self) -> list[dict[str, Any]]:
        """The application's JSON lines."""
        return [json.loads(line) for line in self.text().splitlines()]

    def access_text(self) -> str:
        logs.shutdown(60)
        return Path(self.stdout.name).read_text()

    def access_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.access_text().splitlines()]


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Output]:
    output = Output(tmp_path)
    yield output
    logs.shutdown(60)
    structlog.contextvars.clear_contextvars()
    output.stdout.close()
    output.stderr.close()


@pytest.fixture
def access_entry() -> Callable[..., AccessEntry]:
    """One request, with changes."""

    def make(**changes: Any) -> AccessEntry:
        usual: dict[str, Any] = {
            "request_id": "0123456789abcdef",
            "client": "127.0.0.1",
            "principal": "ci",
            "method": "GET",
            "route": "/v1/sandboxes/{sandbox_id}",
            "path": "/v1/sandboxes/s1",
            "sandbox_id": "s1",
            "status": 200,
            "duration": 0.0123456,
            "complete": True,
        }
        return AccessEntry(**{**usual, **changes})

    return make
