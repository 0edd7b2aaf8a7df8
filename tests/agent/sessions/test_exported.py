"""What shells print for their exported variables is read back exactly."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal_agent.sessions.exported import Malformed, parse

SHELLS = [
    pytest.param(command, marks=pytest.mark.skipif(shutil.which(command[0]) is None, reason=f"no {command[0]} here"))
    for command in (["bash", "--norc", "--noprofile"], ["dash"], ["busybox", "sh"], ["bash", "--posix"])
]


def exported(shell: list[str], environment: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The environment as the shell prints it, read back."""
    printed = subprocess.run([*shell, "-c", "export -p"], env=environment, capture_output=True, check=True).stdout
    return parse(printed)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("locale", [b"C", b"C.UTF-8"])
@settings(max_examples=25, deadline=None)
@given(value=st.binary(max_size=40).filter(lambda value: b"\0" not in value))
def test_any_value_survives(shell: list[str], locale: bytes, value: bytes) -> None:
    seen = exported(shell, {b"PATH": b"/usr/bin:/bin", b"LC_ALL": locale, b"VALUE": value})
    assert seen[b"VALUE"] == value


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "value",
    [b"it's", b'"$HOME" `x` \\', b"a\nb\n", b"\xc3\xa9\xe2\x98\x83", b"\x1b[0m\t\x01\x7f\xff", b"", b"' \\' \""],
)
def test_known_hard_values_survive(shell: list[str], value: bytes) -> None:
    assert exported(shell, {b"PATH": b"/usr/bin:/bin", b"VALUE": value})[b"VALUE"] == value


def test_a_name_without_a_value_is_left_out() -> None:
    assert parse(b'declare -x A\nexport B\ndeclare -rx C="1"\n') == {b"C": b"1"}


@pytest.mark.parametrize("text", [b"nonsense\n", b'export A="x', b"export A='x", b"export A=$'x", b"export A=1"])
def test_anything_else_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed):
        parse(text)
