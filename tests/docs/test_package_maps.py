"""The map in a package's docstring names what lies in its folder, and nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^::\n\n((?:    .*\n?|\n)+)", re.MULTILINE)
_ENTRY = re.compile(r"^    (\w+)(?:\.py|/)?(?= |$)", re.MULTILINE)


def _maps() -> dict[Path, set[str]]:
    found = {}
    for file in sorted([*ROOT.glob("kernel/**/__init__.py"), *ROOT.glob("plugins/**/__init__.py")]):
        block = _BLOCK.search(ast.get_docstring(ast.parse(file.read_text())) or "")
        if block is not None:
            found[file.parent] = set(_ENTRY.findall(block[1]))
    return found


MAPS = _maps()


@pytest.mark.parametrize("folder", MAPS, ids=lambda folder: str(folder.relative_to(ROOT)))
def test_map_is_true(folder: Path) -> None:
    """Modules and packages, but for the package's own ``__init__``."""
    there = {
        entry.stem
        for entry in folder.iterdir()
        if (entry.suffix == ".py" and entry.name != "__init__.py") or (entry / "__init__.py").exists()
    }
    assert MAPS[folder] == there


def test_maps_are_found() -> None:
    assert len(MAPS) >= 9
