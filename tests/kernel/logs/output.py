"""Logging into files that a test reads back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shoal import logs
from shoal.config.settings import LogSettings


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
