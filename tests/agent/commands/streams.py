"""Streams of events, read as clients read them."""

from __future__ import annotations

import json
from typing import Any

import httpx

Event = dict[str, Any]
ENDS = ("execution_complete", "error")


def parse(body: bytes) -> list[Event]:
    """The events of a whole body. Raises AssertionError for anything else in it."""
    *frames, rest = body.decode("ascii").split("\n\n")
    assert rest == ""
    return [json.loads(frame) for frame in frames]


class Run:
    """A finished run: its events, checked for their order, by kind."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.events = [event for event in parse(body) if event["type"] != "ping"]
        assert self.events[0]["type"] == "init"
        assert [event["type"] for event in self.events if event["type"] in ENDS] == [self.events[-1]["type"]]
        assert all(isinstance(event["timestamp"], int) for event in self.events)

    @property
    def id(self) -> str:
        return str(self.events[0]["text"])

    def texts(self, kind: str = "stdout") -> list[str]:
        return [event["text"] for event in self.events if event["type"] == kind]

    @property
    def error(self) -> Event | None:
        """The error it ended with: (name, value, traceback)."""
        return self.events[-1].get("error")

    @property
    def value(self) -> str | None:
        return None if self.error is None else self.error["evalue"]


def run(client: httpx.Client, command: str | None = None, /, **fields: Any) -> Run:
    """Runs a command to its end."""
    return post(client, "/command", fields if command is None else {"command": command, **fields})


def post(client: httpx.Client, path: str, body: dict[str, Any]) -> Run:
    """The run that a request begins, to its end."""
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "text/event-stream"
    return Run(answer.content)
