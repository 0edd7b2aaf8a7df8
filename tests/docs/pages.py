"""Reads the Markdown pages: headings, tables and code blocks, and makes plugins of the latter."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

ROOT = Path(__file__).resolve().parents[2]


class Part(Struct):
    """What stands below one heading, up to the next.

    Attributes:
        rows: the cells of every table row, without heads and rules.
        blocks: (language, text) of every fenced block.
    """

    heading: str
    rows: list[list[str]]
    blocks: list[tuple[str, str]]


def parts(page: str) -> Iterator[Part]:
    """The parts of ``docs/<page>``; a ``#`` inside a fenced block is no heading."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    fenced = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    blocks = [(match[1], match[2]) for match in fenced.finditer(text)]
    outside = fenced.sub("```\n", text)
    for piece in re.split(r"^#+ ", outside, flags=re.MULTILINE)[1:]:
        heading, _, body = piece.partition("\n")
        rows = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
            for line in body.splitlines()
            if line.startswith("|")
        ]
        count = body.count("```\n")
        yield Part(heading.strip(), [row for row in rows[2:] if row], blocks[:count])
        del blocks[:count]


def plugin(source: str) -> types.ModuleType:
    """A Python block as a module."""
    module = types.ModuleType("example")
    exec(compile(source, "docs", "exec"), vars(module))  # noqa: S102 - our own page
    return module
