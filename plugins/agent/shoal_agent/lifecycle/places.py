"""Where lifecycle hooks are described: in a variable as JSON, or in a file as TOML."""

from __future__ import annotations

import os
from collections.abc import Mapping

VARIABLE, FILE_VARIABLE = "OPENSANDBOX_LIFECYCLE", "EXECD_LIFECYCLE_CONFIG"


def named_file(environ: Mapping[str, str]) -> str | None:
    """The file that a variable names, or the usual one if it is there."""
    usual = os.path.join(environ.get("HOME") or "/root", ".execd/lifecycle.toml")
    return environ.get(FILE_VARIABLE) or (usual if os.path.exists(usual) else None)


def configured(environ: Mapping[str, str]) -> bool:
    """Whether there is any description."""
    return bool(environ.get(VARIABLE)) or named_file(environ) is not None
