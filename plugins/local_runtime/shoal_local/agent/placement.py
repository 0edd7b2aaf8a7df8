"""Where the agent's files lie in a sandbox."""

from __future__ import annotations

from typing import Final

FOLDER: Final = "/.opensandbox"
"""Read-only. At the top, where every image's root takes a new directory."""
