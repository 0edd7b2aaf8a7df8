"""How lines look, and that no text from outside can pass for a line of ours."""

from __future__ import annotations

import json
import os
import pty
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from tests.kernel.logs.output import Output

from shoal import logs
from shoal.config.settings import LogSettings
from shoal.logs.render import console_line, json_line
from shoal.logs.text import tame
from shoal.web.seam import AccessEntry

AT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
ANY_TEXT = st.text(st.characters() | st.sampled_from("\n\r\x1b\x7f\x85\x9b\u2028\u2029\ud800"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary() | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT | st.integers(), inner, max_size=3),
    max_leaves=8,
)


def event(text: str, **added: Any) -> dict[str, Any]:
    return {"timestamp": AT, "level": "info", "logger": "shoal.test", "event": text, **added}


def only_printable(line: bytes) -> bool:
    return line.endswith(b"\n") and line[:-1].decode().isprintable()


@given(ANY_TEXT, st.dictionaries(ANY_TEXT, VALUES, max_size=4))
def test_any_event_is_one_line_of_json(text: str, added: dict[str, Any]) -> None:
    line = json_line(tame({**added, "event": text}))
    assert line.count(b"\n") == 1
    assert len(line.decode().splitlines()) == 1
    read = json.loads(line)
    if text.isprintable() and len(text) <= 2000:
        assert read["event"] == text


@given(ANY_TEXT, st.dictionaries(ANY_TEXT, VALUES, max_size=4))
def test_any_event_is_one_line_of_text(text: str, added: dict[str, Any]) -> None:
    added.pop("exception", None)
    line = console_line({**tame(added), **event(text)}, colours=False)
    assert only_printable(line)


def test_a_line_for_people() -> None:
    line = console_line(event("sandbox is running", sandbox_id="s1", why="had to", quote='"'), colours=False)
    assert line.decode() == (
        "2026-01-02 03:04:05.678Z INFO     shoal.test: sandbox is running sandbox_id=s1 why='had to' quote='\"'\n"
    )


def test_a_traceback_is_indented_and_cannot_look_like_a_line() -> None:
    line = console_line(event("failed", exception="Traceback\n2026-01-02 forged\x1b[0m\r\u2028x"), colours=False)
    first, *rest = line.decode().split("\n")
    assert first.endswith("failed")
    assert rest == ["    Traceback", "    2026-01-02 forged\\x1b[0m", "    ", "    x", ""]


def test_control_characters_of_a_request_cannot_forge_a_line(output: Output, access_entry: Callable[..., Any]) -> None:
    output.configure(format="console")
    nasty = "x\n2026-01-01 INFO     shoal: forged\x1b[31m\x9b"
    logs.log_access(access_entry(path=nasty, request_id=nasty, principal=nasty, sandbox_id=nasty, method=nasty))
    structlog.get_logger("t").info(nasty, value=nasty)
    for text in (output.access_text(), output.text()):
        assert text.count("\n") == 1
        assert text[:-1].isprintable()
        assert "\\n2026" in text


def test_access_line_in_json(output: Output, access_entry: Callable[..., AccessEntry]) -> None:
    output.configure(format="json")
    logs.log_access(access_entry())
    (line,) = output.access_lines()
    assert datetime.fromisoformat(line.pop("timestamp")).tzinfo is not None
    assert line == {
        "level": "info",
        "logger": "shoal.access",
        "event": "request",
        "request_id": "0123456789abcdef",
        "method": "GET",
        "path": "/v1/sandboxes/s1",
        "status": 200,
        "duration_ms": 12.346,
        "principal": "ci",
        "route": "/v1/sandboxes/{sandbox_id}",
        "sandbox_id": "s1",
        "client": "127.0.0.1",
    }
    assert output.text() == ""


def test_access_line_of_an_answer_that_was_cut_off(output: Output, access_entry: Callable[..., AccessEntry]) -> None:
    output.configure(format="json")
    logs.log_access(access_entry(complete=False, principal=None, route=None, sandbox_id=None, client=None))
    (line,) = output.access_lines()
    assert line["complete"] is False
    assert not {"principal", "route", "sandbox_id", "client"} & line.keys()


def test_access_line_for_people(output: Output, access_entry: Callable[..., AccessEntry]) -> None:
    output.configure(format="console")
    logs.log_access(access_entry(complete=False, sandbox_id=None))
    assert output.access_text().partition(" INFO     ")[2] == (
        "shoal.access: GET /v1/sandboxes/s1 200 12.3 ms (cut off) request_id=0123456789abcdef principal=ci"
        " route=/v1/sandboxes/{sandbox_id} client=127.0.0.1\n"
    )


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_a_request_brings_is_cut(output: Output, access_entry: Callable[..., AccessEntry], form: str) -> None:
    output.configure(format=form)
    logs.log_access(access_entry(request_id="r" * 1000, path="/" + "p" * 100_000, method="M" * 9999))
    assert len(output.access_text()) < 5000
    assert "r" * 129 not in output.access_text()


@pytest.mark.parametrize("settings", [{"access": False}, {"level": "WARNING"}])
def test_no_access_lines(output: Output, access_entry: Callable[..., AccessEntry], settings: dict[str, Any]) -> None:
    output.configure(format="json", **settings)
    logs.log_access(access_entry())
    assert output.access_text() == ""


def test_access_lines_need_no_configuration(access_entry: Callable[..., AccessEntry]) -> None:
    logs.log_access(access_entry())


def written_to_a_terminal(**settings: Any) -> str:
    """What a terminal on stderr gets, while stdout is a file."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal, open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a device
        logs.configure(LogSettings(**settings), stdout=nowhere, stderr=terminal)
        structlog.get_logger("t").warning("hello")
        logs.shutdown(60)
        text = os.read(master, 65536).decode()
    os.close(master)
    return text


def test_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[33mWARNING" in written_to_a_terminal()


def test_a_terminal_gets_none_where_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = written_to_a_terminal()
    assert "\x1b" not in text
    assert "WARNING  t: hello" in text


def test_a_terminal_gets_json_where_the_configuration_says_so() -> None:
    assert json.loads(written_to_a_terminal(format="json"))["event"] == "hello"


def test_what_is_no_terminal_gets_json_and_never_colours(output: Output) -> None:
    output.configure()
    structlog.get_logger("t").info("hello")
    assert output.lines()[0]["event"] == "hello"
    output.configure(format="console")
    structlog.get_logger("t").info("hello")
    assert "\x1b" not in output.text()
