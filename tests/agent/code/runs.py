"""Contexts and runs of code, as clients make them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
from tests.agent.commands.streams import Run, post


def create(client: httpx.Client, language: str, **fields: Any) -> str:
    """A new context's id."""
    answer = client.post("/code/context", json={"language": language, **fields})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def execute(client: httpx.Client, context: str, code: str) -> Run:
    """Runs `code` in a context to its end."""
    return post(client, "/code", {"code": code, "context": {"id": context}})


def results(run: Run) -> list[dict[str, Any]]:
    """The maps of media types."""
    return [event["results"] for event in run.events if event["type"] == "result"]


def value(run: Run) -> str:
    """The plain text of the one result."""
    assert run.error is None, run.error
    (result,) = results(run)
    assert result["text"] == result["text/plain"]
    return str(result["text"])


def name(run: Run) -> str | None:
    """The name of the error that it ended with."""
    return None if run.error is None else run.error["ename"]


def kinds(run: Run) -> list[str]:
    """The types of its events."""
    return [event["type"] for event in run.events]


class Background(threading.Thread):
    """A run of code whose output is awaited while it goes on."""

    def __init__(self, client: httpx.Client, context: str, code: str, language: str = "") -> None:
        super().__init__(daemon=True)
        self._client = client
        self._body = {"code": code, "context": {"id": context, "language": language}}
        self._received = bytearray()
        self._news = threading.Condition()
        self._over = False
        self.start()

    def run(self) -> None:
        with self._client.stream("POST", "/code", json=self._body) as answer:
            for chunk in answer.iter_raw():
                with self._news:
                    self._received += chunk
                    self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()

    def wait_for(self, text: str) -> None:
        """Waits until `text` is in what came."""
        with self._news:
            assert self._news.wait_for(lambda: text.encode() in self._received or self._over, 60)
            assert text.encode() in self._received, bytes(self._received)

    def identifier(self) -> str:
        """Its id, once it has begun."""
        return str(json.loads(bytes(self._received).split(b"\n")[0])["text"])

    def end(self) -> Run:
        """Waits for its end."""
        with self._news:
            assert self._news.wait_for(lambda: self._over, 60)
        return Run(bytes(self._received))


def interrupted(client: httpx.Client, context: str, code: str, ready: str = "ready") -> Run:
    """Runs `code`, interrupts it once it has printed `ready`."""
    run = Background(client, context, code)
    run.wait_for(f'"text":"{ready}')
    assert client.delete("/code", params={"id": context}).status_code == 200
    return run.end()


def contexts(client: httpx.Client, language: str, **fields: Any) -> Iterator[str]:
    """A fixture's body: a context that is deleted afterwards."""
    context = create(client, language, **fields)
    yield context
    client.delete(f"/code/contexts/{context}")
