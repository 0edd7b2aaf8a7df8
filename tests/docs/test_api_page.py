"""docs/api.md: each command runs, in the order of the page, against a real server on the local runtime."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
from tests.docs.pages import parts
from tests.support.servers import ServerProcess

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

KEY = "docs-api-page-key-0123456789"
ANYTHING = "…"
BLOCKS = [block for part in parts("api.md") for block in part.blocks]
MARK = "---- next block ----"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """What each block of commands wrote, by its place on the page; one shell runs them all."""
    server = ServerProcess(tmp_path_factory.mktemp("api"), env={"OPENSANDBOX_SERVER_API_KEY": KEY})
    server.start()
    places = [place for place, (language, _) in enumerate(BLOCKS) if language == "sh"]
    script = f"echo '{MARK}'\n".join(BLOCKS[place][1] + "echo\n" for place in places)
    patient = script.replace("&timeout=30", "&timeout=80")
    here = patient.replace("http://127.0.0.1:8080", server.base)
    shell = ["bash", "-euo", "pipefail", "-c", here]
    environment = {"OPEN_SANDBOX_API_KEY": KEY, "PATH": "/usr/local/bin:/usr/bin:/bin"}
    done = subprocess.run(shell, env=environment, capture_output=True, text=True, check=False, timeout=100)
    assert server.stop() == 0
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = [text.replace(server.base.removeprefix("http://"), "127.0.0.1:8080") for text in done.stdout.split(MARK)]
    return dict(zip(places, outputs, strict=True))


def fits(pattern: Any, value: Any) -> bool:
    """Whether a value is what the page shows; ``…`` stands for anything, every key is named."""
    if pattern == ANYTHING:
        return True
    if isinstance(pattern, dict) and isinstance(value, dict):
        return pattern.keys() == value.keys() and all(fits(pattern[key], value[key]) for key in pattern)
    return bool(pattern == value)


def lines(text: str) -> list[str]:
    """Lines without the ends that curl leaves open; two answers in a row count as two lines."""
    return [line for line in text.replace("}{", "}\n{").splitlines() if line]


SHOWN = [(place, language) for place, (language, _) in enumerate(BLOCKS) if language in ("json", "text")]


@pytest.mark.parametrize(("place", "language"), SHOWN, ids=[f"{place}-{language}" for place, language in SHOWN])
def test_an_answer_is_as_shown(place: int, language: str, answers: dict[int, str]) -> None:
    shown, written = BLOCKS[place][1], answers[place - 1]
    if language == "json":
        assert fits(json.loads(shown), json.loads(written)), written
        return
    expected = [".*".join(re.escape(piece) for piece in line.split(ANYTHING)) for line in lines(shown)]
    assert len(expected) == len(lines(written)), written
    assert all(map(re.fullmatch, expected, lines(written))), written


def test_every_command_shows_its_answer() -> None:
    languages = [language for language, _ in BLOCKS[1:]]
    assert set(languages[::2]) == {"sh"}
    assert set(languages[1::2]) == {"json", "text"}


def test_the_comparison_can_fail() -> None:
    assert not fits({"id": ANYTHING}, {"id": "x", "more": 1})
    assert not fits({"id": "y"}, {"id": "x"})
