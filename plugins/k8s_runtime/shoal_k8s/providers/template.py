"""Template files: YAML that is merged under every object made here (docs/wire/kubernetes.md section 5).

The server's own values win. Where both have a list of named things (containers, init containers, volumes, mounts by
path, pull secrets), the template's others are kept; dropped capabilities are added up; any other list is the server's.
What a template adds is never dropped in silence. Sidecars, whose names are their callers', have the security context of
the template's container ``sandbox`` unless the server gives them one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]  # comes with the kubernetes package, without types

from shoal.errors import ConfigError
from shoal_k8s.pods.status import MAIN

KEYS: Final = ("mountPath", "name")
"""The key of the items of a list; a volume mount has both, and its path counts."""


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


def pod_spec(template: Mapping[str, Any], *path: str) -> dict[str, Any]:
    """The pod spec below that path; empty if there is none."""
    found: Any = template
    for key in path:
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
            merged[key] = list(dict.fromkeys([*held, *value])) if key == "drop" else _merge_lists(held, value)
        else:
            merged[key] = value
    return merged


def secured(template: Mapping[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """A pod spec of ours whose sidecars have the security context that the template's has for the sandbox."""
    named = {each.get("name"): each for each in template.get("containers") or []}
    security = (named.get(MAIN) or {}).get("securityContext")
    if not security:
        return own
    main, *beside = own["containers"]
    made = [each if each["name"] in named else {"securityContext": security, **each} for each in beside]
    return {**own, "containers": [main, *made]}


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
