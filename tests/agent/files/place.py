"""A folder for the files of one test, and what its answers look like."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import httpx
from tests.agent.program import AgentProcess

_numbers = itertools.count()


class Place:
    """A folder, and a client of an agent that may use it."""

    def __init__(self, agent: AgentProcess, uid: int | None) -> None:
        self.agent = agent
        self.folder = agent.home / f"place{next(_numbers)}"
        self.folder.mkdir()
        self.uid = os.geteuid() if uid is None else uid
        self._own(self.folder)
        self.http = agent.client()

    def _own(self, path: Path) -> None:
        if self.uid != os.geteuid():
            os.chown(path, self.uid, self.uid)

    def path(self, name: str) -> str:
        """An absolute path in the folder."""
        return f"{self.folder}/{name}"

    def write(self, name: str, content: bytes = b"", mode: int = 0o644) -> Path:
        """A file of the agent's user."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(mode)
        self._own(path)
        return path

    def give(self) -> None:
        """Makes all in the folder the agent's user's."""
        for path in self.folder.rglob("*"):
            if self.uid != os.geteuid():
                os.chown(path, self.uid, self.uid, follow_symlinks=False)

    def names(self) -> list[str]:
        """All names in the folder, hidden ones too."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))


def refused(answer: httpx.Response, status: int, code: str) -> None:
    """Asserts the error body."""
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), answer.text
    assert isinstance(body["message"], str)
    assert body["message"]
