"""The env file: `docs/wire/execd.md` section 13."""

from __future__ import annotations

import re
from collections.abc import Mapping

_ENTRY = re.compile(
    r"""^[ \t]*(?:export[ \t]+)?(?P<name>[^\s=#'"][^\s=]*)[ \t]*=[ \t]*
    (?: "(?P<double>(?:[^"\\]|\\.)*)"[ \t]*(?:\#[^\n]*)?(?=\r?$)
      | '(?P<single>[^']*)'[ \t]*(?:\#[^\n]*)?(?=\r?$)
      | (?P<plain>[^\n]*)
    )""",
    re.MULTILINE | re.DOTALL | re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(.)|\$(?:\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$"}


def parse(text: str, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of an env file; `$NAME` stands for what `environ` holds, or nothing.

    `K=v` is trimmed and expands, `"…"` knows escapes and expands, `'…'` is literal; quoted values may go over lines.
    The last entry of a name wins. What is no entry is skipped.
    """
    found: dict[str, str] = {}
    for entry in _ENTRY.finditer(text):
        value = _value(entry, environ)
        if "\0" not in value and "\0" not in entry["name"]:
            found[entry["name"]] = value
    return found


def _value(entry: re.Match[str], environ: Mapping[str, str]) -> str:
    def variable(match: re.Match[str]) -> str:
        return environ.get(match[match.lastindex or 0], "")

    def escape(match: re.Match[str]) -> str:
        if match[1] is None:
            return variable(match)
        return _ESCAPED.get(match[1], match[0])

    if entry["single"] is not None:
        return entry["single"]
    if entry["double"] is not None:
        return _ESCAPE.sub(escape, entry["double"])
    return _VARIABLE.sub(variable, entry["plain"].strip())
