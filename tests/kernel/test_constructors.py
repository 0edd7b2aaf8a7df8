"""No constructor of the kernel has more than six parameters: collaborators that travel together are one object."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import shoal

MOST = 6


def constructors() -> Iterator[tuple[str, int]]:
    """``file: class`` and the number of its constructor's parameters, without ``self``."""
    kernel = Path(shoal.__file__).parent
    for path in sorted(kernel.rglob("*.py")):
        for kind in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for part in kind.body if isinstance(kind, ast.ClassDef) else ():
                if isinstance(kind, ast.ClassDef) and isinstance(part, ast.FunctionDef) and part.name == "__init__":
                    given = part.args
                    count = len(given.posonlyargs) + len(given.args) + len(given.kwonlyargs) - 1
                    yield f"{path.relative_to(kernel)}: {kind.name}", count


def test_no_constructor_has_more_than_six_parameters() -> None:
    counted = dict(constructors())
    assert len(counted) > 50
    assert {name: count for name, count in counted.items() if count > MOST} == {}
