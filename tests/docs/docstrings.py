"""Docstrings taken apart, and made into Markdown."""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from typing import Any, NamedTuple

_SECTION = re.compile(r"^(Attributes|Args|Returns):$", re.MULTILINE)
_ENTRY = re.compile(r"^    (\w[\w, ]*): ", re.MULTILINE)


class Doc(NamedTuple):
    """A docstring: its text, its attributes or arguments, and what follows those."""

    text: str
    entries: dict[str, str]
    after: str


def doc_of(thing: Any) -> Doc:
    """The docstring of a type or function. What stands below ``Returns:`` is a sentence of its own."""
    said = thing.__doc__ if isinstance(thing, type) and "__doc__" not in vars(thing) else inspect.getdoc(thing)
    pieces = _SECTION.split(said or "")
    entries: dict[str, str] = {}
    after: list[str] = []
    for kind, body in zip(pieces[1::2], pieces[2::2], strict=True):
        inside, rest = _indented(body)
        if kind == "Returns":
            after.append("Returns: " + textwrap.dedent(inside).strip())
        else:
            entries |= _entries(inside)
        after.append(rest)
    return Doc(pieces[0].strip(), entries, "\n\n".join(piece.strip() for piece in after if piece.strip()))


def _indented(body: str) -> tuple[str, str]:
    """What is indented below a section's name, and what follows it."""
    lines = body.strip("\n").split("\n")
    end = next((at for at, line in enumerate(lines) if line and not line.startswith("    ")), len(lines))
    return "\n".join(lines[:end]), "\n".join(lines[end:])


def _entries(inside: str) -> dict[str, str]:
    """``name, other: text`` below one another; the text is both names'."""
    parts = _ENTRY.split("\n" + inside)
    found: dict[str, str] = {}
    for names, said in zip(parts[1::2], parts[2::2], strict=True):
        found |= {name.strip(): " ".join(said.split()) for name in names.split(",")}
    return found


def text_of(said: str) -> str:
    """Markdown of a docstring: blocks after ``::`` become fenced ones, double backticks single."""
    out: list[str] = []
    for piece in re.split(r"\n\s*\n", said):
        if out and out[-1].endswith("::") and piece.startswith("    "):
            out[-1] = out[-1].removesuffix("::").rstrip()
            out.append(f"```text\n{textwrap.dedent(piece)}\n```")
        else:
            out.append(_inline(piece))
    return "\n\n".join(piece for piece in out if piece).strip()


def line_of(said: str) -> str:
    """The same on one line, for a cell of a table."""
    return " ".join(_inline(said).split())


def _inline(said: str) -> str:
    """Double backticks become single ones, and pages links."""
    return re.sub(r"\bdocs/([\w/-]+\.md)", r"[docs/\1](\1)", said.replace("``", "`"))


def texts_below(place: Any, value: Any, name: str) -> tuple[str, str]:
    """How a constant is written, and the text below it, in the class or module that defines it."""
    owners = [place] if isinstance(place, type) else _definers(name)
    for owner in owners:
        tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else tree.body
        for at, node in enumerate(body):
            if isinstance(node, ast.Assign | ast.AnnAssign) and name in _targets(node) and node.value is not None:
                following = body[at + 1] if at + 1 < len(body) else None
                return f"{name} = {ast.unparse(node.value)}", _text(following)
    raise KeyError(f"{name} ({value!r}) is defined nowhere")


def _definers(name: str) -> list[Any]:
    """Modules of the kernel that have the name, those of the interfaces first: their text is written for plugins."""
    found = [module for key, module in sorted(sys.modules.items()) if key.startswith("shoal.") and name in vars(module)]
    return sorted(found, key=lambda module: not module.__name__.startswith("shoal.plugin.interfaces."))


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]


def _text(node: ast.AST | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return inspect.cleandoc(node.value.value)
    return ""
