"""What holds for every source file, and what no linter looks at."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@cache
def _parsed(*folders: str) -> dict[str, ast.Module]:
    """The Python files of these folders of the repository, by their path in it."""
    files = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in files}


def test_no_test_imports_from_a_conftest() -> None:
    importers = {
        f"{file}:{node.lineno}"
        for file, module in _parsed("tests").items()
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom)
        and ("conftest" in (node.module or "").split(".") or any(name.name == "conftest" for name in node.names))
    }
    assert importers == set()
