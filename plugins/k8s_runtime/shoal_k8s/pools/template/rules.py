"""Rules for the values of a pod template, and the walk that applies them."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import Struct

from shoal.errors import InvalidRequest
from shoal.models import codes
from shoal_k8s.pods import storage

EVERY: Final = "*"
"""In a list of the configuration: whatever the name."""
SECTION: Final = "kubernetes.pool_templates"
_INDEX: Final = re.compile(r"\[\d+\]")


class Permits(Struct, frozen=True):
    """What the configuration permits beyond the rules.

    Attributes:
        names: key of ``[kubernetes.pool_templates]`` → names that are permitted.
        fields: paths, without indexes, below which nothing is looked at.
    """

    names: Mapping[str, Sequence[str]]
    fields: frozenset[str]
    host_paths: Sequence[str]

    def has(self, key: str, name: Any) -> bool:
        """Whether the configuration lists it."""
        listed = self.names[key]
        return isinstance(name, str) and (name in listed or EVERY in listed)


class Rule(ABC):
    """What a value may be. A null is no value, and always allowed."""

    @abstractmethod
    def check(self, path: str, value: Any, permits: Permits) -> None:
        """Raise InvalidRequest that names ``path``, or the path of a part of it."""


class Free(Rule):
    """Anything."""

    def check(self, path: str, value: Any, permits: Permits) -> None:
        return


class Object(Rule):
    """These fields and no others."""

    def __init__(self, **fields: Rule) -> None:
        self._fields = fields

    def check(self, path: str, value: Any, permits: Permits) -> None:
        if not isinstance(value, dict):
            raise refused(path, "is not an object")
        for name, part in value.items():
            rule = self._fields.get(name)
            below = f"{path}.{name[:64]}"
            if rule is not None:
                walk(below, part, rule, permits)
            elif part is not None and not permitted(below, permits):
                raise refused(below, f"is not a field that a pool's template may set ({SECTION}.fields permits more)")


class Each(Rule):
    """A list of such values."""

    def __init__(self, rule: Rule) -> None:
        self._rule = rule

    def check(self, path: str, value: Any, permits: Permits) -> None:
        if not isinstance(value, list):
            raise refused(path, "is not a list")
        for index, part in enumerate(value):
            walk(f"{path}[{index}]", part, self._rule, permits)


class OneOf(Rule):
    """One of these values."""

    def __init__(self, *values: Any) -> None:
        self._values = values

    def check(self, path: str, value: Any, permits: Permits) -> None:
        if not any(value is known or (type(value) is type(known) and value == known) for known in self._values):
            said = " or ".join(repr(known) if known != "" else "empty" for known in self._values)
            raise refused(path, f"may only be {said}")


class Named(Rule):
    """A name that the configuration lists under ``key``, or that is one of ``free``."""

    def __init__(self, key: str, *free: str) -> None:
        self._key = key
        self._free = free

    def check(self, path: str, value: Any, permits: Permits) -> None:
        if value not in self._free and not permits.has(self._key, value):
            raise refused(path, f"names what {SECTION}.{self._key} does not list")


class Keys(Rule):
    """Labels or annotations: keys without a prefix, or with one that the configuration or the rule lists."""

    def __init__(self, *prefixes: str, values: Mapping[str, Rule] | None = None) -> None:
        self._prefixes = prefixes
        self._values = values or {}

    def check(self, path: str, value: Any, permits: Permits) -> None:
        if not isinstance(value, dict):
            raise refused(path, "is not an object")
        for key, text in value.items():
            prefix = f"{key.partition('/')[0]}/" if "/" in key else ""
            rule = self._values.get(prefix) or self._values.get(key)
            if rule is not None:
                walk(f"{path}[{key[:80]!r}]", text, rule, permits)
            elif prefix and prefix not in self._prefixes and not self._listed(key, prefix, permits):
                raise refused(f"{path}[{key[:80]!r}]", f"has a prefix that {SECTION}.metadata does not list")

    def _listed(self, key: str, prefix: str, permits: Permits) -> bool:
        return permits.has("metadata", key) or permits.has("metadata", prefix)


class HostPath(Rule):
    """A path of the node below ``storage.allowed_host_paths``."""

    def check(self, path: str, value: Any, permits: Permits) -> None:
        try:
            storage.check_host(str(value), permits.host_paths)
        except InvalidRequest as error:
            raise InvalidRequest(error.code, f"{path}: {error.message}") from None


class Toleration(Rule):
    """A taint of the cluster's own making (a control plane, a node that is not well) is not tolerated."""

    def check(self, path: str, value: Any, permits: Permits) -> None:
        if not isinstance(value, dict):
            raise refused(path, "is not an object")
        key = value.get("key") or ""
        system = key.partition("/")[0].endswith("kubernetes.io")
        if not key or system:
            raise refused(f"{path}.key", "may name no taint of kubernetes.io, nor leave the taint open")


def walk(path: str, value: Any, rule: Rule, permits: Permits) -> None:
    """Apply the rule, unless there is no value or the configuration permits whatever is there."""
    if value is not None and not permitted(path, permits):
        rule.check(path, value, permits)


def permitted(path: str, permits: Permits) -> bool:
    """Whether ``[kubernetes.pool_templates] fields`` lists it."""
    return _INDEX.sub("", path).removeprefix("template.") in permits.fields


def refused(path: str, why: str) -> InvalidRequest:
    """The failure of one field."""
    return InvalidRequest(codes.INVALID_PARAMETER, f"{path} {why}.")
