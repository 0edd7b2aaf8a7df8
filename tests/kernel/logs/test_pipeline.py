"""From a logger's call to a line: whose lines come through, with which fields, and what is kept out."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import pytest
import structlog
from tests.kernel.logs.output import Output

from shoal.config.sections import KERNEL_SECTIONS, validate
from shoal.config.settings import LogSettings
from shoal.errors import ConfigError
from shoal.logs.pipeline import StandardHandler
from shoal.logs.render import json_line
from shoal.models.secret import Secret

log = structlog.get_logger("shoal.test")


class Colour(str, Enum):  # noqa: UP042 - in whose text its own name comes first
    RED = "red"


def test_a_line_says_when_how_grave_who_and_what(output: Output) -> None:
    output.configure(format="json")
    log.info("sandbox is running", sandbox_id="s1", took=0.5, colour=Colour.RED)
    (line,) = output.lines()
    at = datetime.fromisoformat(line.pop("timestamp"))
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=5)
    assert line == {
        "level": "info",
        "logger": "shoal.test",
        "event": "sandbox is running",
        "sandbox_id": "s1",
        "took": 0.5,
        "colour": "red",
    }


def test_context_is_on_every_line(output: Output) -> None:
    output.configure(format="json")
    with structlog.contextvars.bound_contextvars(request_id="r1", sandbox_id="s1"):
        log.info("ours")
        logging.getLogger("library").warning("theirs")
    log.info("after")
    ours, theirs, after = output.lines()
    assert (ours["request_id"], ours["sandbox_id"]) == ("r1", "s1")
    assert (theirs["request_id"], theirs["sandbox_id"]) == ("r1", "s1")
    assert "request_id" not in after


@pytest.mark.parametrize("name", ["uvicorn.error", "asyncio", "some.library"])
def test_the_standard_librarys_loggers_come_through(output: Output, name: str) -> None:
    output.configure(format="json")
    logging.getLogger(name).info("started on %s:%d", "host", 80)
    (line,) = output.lines()
    assert (line["logger"], line["level"], line["event"]) == (name, "info", "started on host:80")


def test_arguments_that_do_not_fit_their_format_do_not_raise() -> None:
    lines: list[bytes] = []
    record = logging.LogRecord("library", logging.ERROR, __file__, 1, "%d things", ("many",), None)
    StandardHandler(lines.append, json_line).handle(record)
    assert b"%d things" in lines[0]


def test_warnings_come_through(output: Output) -> None:
    output.configure(format="json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old habit", UserWarning, stacklevel=1)
    (line,) = output.lines()
    assert line["logger"] == "py.warnings"
    assert "old habit" in line["event"]


def test_an_exception_is_a_field(output: Output) -> None:
    output.configure(format="json")
    try:
        raise ValueError("bad teeth")
    except ValueError as error:
        log.exception("shark failed")
        log.warning("given as a value", exc_info=error)
        logging.getLogger("library").exception("theirs")
    lines = output.lines()
    assert [line["level"] for line in lines] == ["error", "warning", "error"]
    for line in lines:
        assert line["exception"].startswith("Traceback")
        assert line["exception"].endswith("ValueError: bad teeth")
        assert "exc_info" not in line


def test_exc_info_without_an_exception(output: Output) -> None:
    output.configure(format="json")
    log.error("nothing was raised", exc_info=True)  # noqa: LOG014 - the case under test
    assert "exception" not in output.lines()[0]


@pytest.mark.parametrize("key", ["api_key", "OPEN-SANDBOX-API-KEY", "Authorization", "password", "auth_token", "dsn"])
def test_secrets_are_masked_by_the_name_of_their_key(output: Output, key: str) -> None:
    output.configure(format="json")
    log.info("call", **{key: "hunter2"}, headers={key: "hunter2", "inner": [{key: ["hunter2"]}]})
    assert "hunter2" not in output.text()
    assert Secret.MASK in output.text()


def test_a_secret_stays_one_under_any_name(output: Output) -> None:
    output.configure(format="json")
    log.info("call", harmless=Secret("hunter2"), deep={"list": [Secret("hunter2")]})
    assert "hunter2" not in output.text()


def test_counts_and_absences_are_not_secrets(output: Output) -> None:
    output.configure(format="json")
    log.info("used", tokens=5, password=None)
    assert output.lines()[0]["tokens"] == 5
    assert output.lines()[0]["password"] is None


def test_a_lines_own_keys_cannot_be_forged(output: Output) -> None:
    output.configure(format="json")
    log.info("ours", level="critical", logger="other", timestamp="never")
    (line,) = output.lines()
    assert (line["level"], line["logger"], line["level_"], line["logger_"]) == (
        "info",
        "shoal.test",
        "critical",
        "other",
    )


def test_long_texts_are_cut(output: Output) -> None:
    output.configure(format="json")
    log.info("x" * 100_000, value="y" * 100_000, request_id="z" * 1000)
    (line,) = output.lines()
    assert len(line["event"]) == len(line["value"]) == 2001
    assert len(line["request_id"]) == 129


def test_values_that_cannot_be_shown(output: Output) -> None:
    class Shy:
        def __str__(self) -> str:
            raise RuntimeError("no")

    output.configure(format="json")
    log.info("odd", shy=Shy(), at=timedelta(seconds=1), big=2**80, text="\ud800", number=float("nan"))
    (line,) = output.lines()
    assert "cannot be shown" in line["shy"]
    assert line["at"] == "0:00:01"


@pytest.mark.parametrize("level", ["WARNING", "warning", "warn"])
def test_the_level_holds_for_everyone(output: Output, level: str) -> None:
    output.configure(format="json", level=level)
    log.info("ours")
    log.debug("ours")
    logging.getLogger("library").info("theirs")
    log.warning("ours")
    logging.getLogger("library").warning("theirs")
    assert [line["event"] for line in output.lines()] == ["ours", "theirs"]


def test_an_unknown_level_is_a_problem_of_the_configuration() -> None:
    with pytest.raises(ConfigError, match=r"^log: level must be a level of Python's logging") as caught:
        validate({"log": {"level": "hunter2"}}, KERNEL_SECTIONS, {})
    assert "hunter2" not in str(caught.value)


def test_shutdown_gives_logging_back(output: Output) -> None:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    output.configure(format="json", level="DEBUG")
    assert root.handlers != handlers
    output.text()
    assert (root.handlers, root.level) == (handlers, level)
    assert not structlog.is_configured()


def test_the_last_configuration_holds(output: Output, tmp_path: Any) -> None:
    output.configure(format="json")
    log.info("first")
    output.configure(
        format="json", file_enabled=True, file_path=str(tmp_path / "a"), access_file_path=str(tmp_path / "b")
    )
    log.info("second")
    assert [line["event"] for line in output.lines()] == ["first"]
    assert "second" in (tmp_path / "a").read_text()


def test_lines_are_written_when_the_process_ends_without_a_word() -> None:
    program = """
import structlog
from shoal import logs
from shoal.config.settings import LogSettings
logs.configure(LogSettings(format="json"))
for number in range(1000):
    structlog.get_logger("t").info("line", number=number)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1000


def test_a_process_without_standard_streams() -> None:
    program = """
import sys, structlog
sys.stdout = sys.stderr = None
from shoal import logs
from shoal.config.settings import LogSettings
logs.configure(LogSettings())
structlog.get_logger("t").info("line")
logs.shutdown()
"""
    assert subprocess.run([sys.executable, "-c", program], timeout=100, check=False).returncode == 0


def test_defaults_are_the_contracts() -> None:
    settings = LogSettings()
    assert (settings.level, settings.file_enabled) == ("INFO", False)
    assert (settings.file_max_bytes, settings.file_backup_count) == (104857600, 5)
