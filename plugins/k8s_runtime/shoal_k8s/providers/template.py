"""Template files: YAML that is merged under every custom resource made here (contract/kubernetes.md section 5).

The server's own values win. Where both have a list of named things (containers, init containers, volumes, mounts by
path, pull secrets), the template's others are kept; any other list is the server's. What a template adds is never
dropped in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]  # comes with the kubernetes package, without types

from shoal.errors import ConfigError

KEYS: Final = ("mountPath", "name")
"""What tells the items of a list apart; a volume mount has both, and its path counts."""


def read(path: str | None, setting: str) -> dict[str, Any]:
    """The file's mapping; empty when there is none. Raises ConfigError for a missing or malformed file."""
    if path is None:
        return {}
    try:
        content = yaml.safe_load(Path(path).expanduser().read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{setting}: {path} cannot be read: {type(error).__name__}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{setting}: {path} is not a YAML mapping")
    return content


def pod_spec(template: Mapping[str, Any], field: str) -> dict[str, Any]:
    """The pod spec below ``spec.{field}``; empty if there is none."""
    found: Any = template
    for key in ("spec", field, "spec"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, dict) else {}


def merge(template: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """``own`` over ``template``; a null of ours is no value."""
    merged = dict(template)
    for key, value in own.items():
        if value is None:
            continue
        held = merged.get(key)
        if isinstance(held, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(held, value)
        elif isinstance(held, list) and isinstance(value, list):
            merged[key] = _merge_lists(held, value)
        else:
            merged[key] = value
    return merged


def _merge_lists(template: list[Any], own: list[Any]) -> list[Any]:
    name = next((key for key in KEYS if all(_has(item, key) for item in [*template, *own])), None)
    if name is None:
        return own
    held = {item[name]: item for item in template}
    mine = {item[name] for item in own}
    ours = [merge(held[item[name]], item) if item[name] in held else item for item in own]
    return [*ours, *(item for item in template if item[name] not in mine)]


def _has(item: Any, key: str) -> bool:
    return isinstance(item, Mapping) and key in item
