"""Compiles a list of sources. Run by the bundle's interpreter in a process of its own, with a fixed hash seed.

Reads lines ``source TAB target TAB shown name``; an unchecked hash instead of a time makes the result a function of the
source, and lets a read-only folder be used as it is.
"""

from __future__ import annotations

import importlib.util
import marshal
import sys
from pathlib import Path

HASHED_UNCHECKED = (1).to_bytes(4, "little")


def main() -> None:
    for line in sys.stdin.read().splitlines():
        source, target, shown = line.split("\t")
        content = Path(source).read_bytes()
        code = compile(content, shown, "exec", dont_inherit=True, optimize=2)
        head = importlib.util.MAGIC_NUMBER + HASHED_UNCHECKED + importlib.util.source_hash(content)
        # Loaded once more, for which objects are shared must not depend on what else this process has compiled.
        body = marshal.dumps(marshal.loads(marshal.dumps(code)))  # noqa: S302 - it was made a moment ago
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_bytes(head + body)


if __name__ == "__main__":
    main()
