"""Flags and variables of the program."""

from __future__ import annotations

import pytest

from shoal_agent.options import Options, duration, parse


def test_a_flag_beats_its_variable() -> None:
    env = {"EXECD_ACCESS_TOKEN": "v", "JUPYTER_HOST": "http://v", "EXECD_API_GRACE_SHUTDOWN": "3s"}
    assert parse(["-access-token=f", "--jupyter-host", "http://f"], env) == Options(
        access_token="f", jupyter_host="http://f", graceful_shutdown=3.0
    )


def test_what_stands_after_init_is_the_command() -> None:
    assert parse(["--init", "--", "sleep", "--help"], {}).init == ("sleep", "--help")
    assert parse([], {}).init is None


@pytest.mark.parametrize(("text", "seconds"), [("1s", 1), ("200ms", 0.2), ("1m30s", 90), ("0", 0), ("1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "1s2", "-1s", "1 s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        duration(text)


def test_the_secrets_are_not_in_its_repr() -> None:
    assert "s3cret" not in repr(Options(access_token="s3cret", jupyter_token="s3cret"))


@pytest.mark.parametrize("text", ["x", "A" * 64, "a" * 63])
def test_what_is_no_digest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="hex"):
        parse([], {"EXECD_ACCESS_TOKEN_SHA256": text})
