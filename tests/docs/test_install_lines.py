"""No page or message installs shoal by name, which is on no index; what the README says instead works from a clone."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.pages import ROOT

EXTRAS = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
COMMAND = re.compile(r"pip install ([^`\n#]*)")


def texts() -> Iterator[Path]:
    for folder in ("kernel", "plugins", "docs", "examples", "deploy"):
        yield from (path for path in (ROOT / folder).rglob("*") if path.suffix in (".md", ".py", ".toml", ".yaml"))
    yield from ROOT.glob("*.md")


def arguments(path: Path) -> list[str]:
    commands = COMMAND.findall(path.read_text(encoding="utf-8"))
    return [word.strip("').\";") for command in commands for word in command.split() if not word.startswith("-")]


@pytest.mark.parametrize("path", sorted(texts()), ids=lambda path: str(path.relative_to(ROOT)))
def test_shoal_is_not_installed_by_name(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [word for word in arguments(path) if re.fullmatch(r"shoal(\[.*)?", word)] == []
    assert re.findall(r"shoal\[(?:docker|kubernetes|redis)", text) == []


def test_every_extra_that_a_page_names_exists() -> None:
    named = {
        extra
        for path in texts()
        for found in re.findall(r"'\.\[([\w,]+)\]'", path.read_text())
        for extra in found.split(",")
    }
    assert named == EXTRAS


@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="the build backend hatchling is missing")
def test_the_readmes_line_installs_from_a_clone(tmp_path: Path) -> None:
    [line] = re.findall(r"^pip install .*", (ROOT / "README.md").read_text(), re.MULTILINE)
    [_, _, *what] = shlex.split(line, comments=True)
    assert what == ["."]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", tmp_path, *what], cwd=ROOT, check=True, timeout=100)
    assert (tmp_path / "bin" / "shoal").is_file()
