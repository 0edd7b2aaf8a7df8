"""What holds for every source file, and what no linter looks at."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _found(pattern: str, *folders: str) -> Iterator[tuple[str, str]]:
    """Each match at the beginning of a line of a Python file: its first group, and the file."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for match in re.finditer(rf"(?m)^[ \t]*{pattern}", path.read_text()):
                yield match[1], str(path.relative_to(ROOT))


def test_no_class_name_occurs_twice() -> None:
    files = defaultdict(list)
    for name, file in _found(r"class (\w+)[(:]", "kernel", "plugins"):
        files[name].append(file)
    assert len(files) > 500
    assert {name: found for name, found in files.items() if len(found) > 1} == {}


def test_no_test_imports_from_a_conftest() -> None:
    assert list(_found(r"from ([\w.]*\bconftest) import", "tests", "examples")) == []
