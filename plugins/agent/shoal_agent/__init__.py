"""The agent inside a sandbox: runs commands, sessions and code, moves files, on the wire of `docs/wire/execd.md`."""

from __future__ import annotations
