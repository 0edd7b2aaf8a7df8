"""How a missing extra is installed: from where its distribution came from, as its name alone may be on no index."""

from __future__ import annotations

from importlib.metadata import Distribution
from typing import Any

import msgspec


def install_hint(distribution: Distribution, extra: str) -> str:
    """What installs ``extra`` of a distribution: a pip command where pip noted the source, else a sentence."""
    name = distribution.metadata["Name"]
    source = _source(distribution)
    url = source.get("url")
    if not isinstance(url, str):
        return f"install {name} with its extra {extra!r}"
    directory = source.get("dir_info")
    if isinstance(directory, dict) and directory.get("editable") and url.startswith("file://"):
        return f"pip install --editable '{url.removeprefix('file://')}[{extra}]'"
    return f"pip install '{name}[{extra}] @ {_requirement(source, url)}'"


def _source(distribution: Distribution) -> dict[str, Any]:
    """What the installer noted in ``direct_url.json`` (PEP 610); empty if nothing, or nothing that can be read."""
    try:
        found = msgspec.json.decode(distribution.read_text("direct_url.json") or "{}")
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _requirement(source: dict[str, Any], url: str) -> str:
    """The URL as a requirement names it: a repository by its commit, a project by its folder in an archive."""
    vcs = source.get("vcs_info")
    if isinstance(vcs, dict):
        url = f"{vcs.get('vcs')}+{url}@{vcs.get('commit_id')}"
    folder = source.get("subdirectory")
    return f"{url}#subdirectory={folder}" if folder else url
