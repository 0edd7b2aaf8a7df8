"""The table of routes: what every group of resources declares, checked once, for the router and for the document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

from shoal.errors import ConfigError
from shoal.plugin.components import NO_PLUGINS, Part, part_of
from shoal.plugin.interfaces import Operation, Resources, Route
from shoal.plugin.interfaces.auth import READ, WRITE
from shoal.web.resources.pages import FILES

MOUNTS: Final = ("", "/v1")
DOCUMENT: Final = "/openapi.json"
_RESERVED: Final = frozenset({DOCUMENT, *FILES})
_PROXIED: Final = "/sandboxes/{sandbox_id}/proxy/"


class Row(Struct, frozen=True):
    """One documented operation: where it is, and its declaration."""

    method: str
    path: str
    public: bool
    operation: Operation
    parameters: Mapping[str, str]


class RouteTable:
    """Every route of one server.

    Args:
        groups: the server's own and the plugins'.
        plugins: whose a group is, by its ``id()``; the server's own are nobody's.

    Attributes:
        mounted: route by the template under which Falcon has it.
        rows: every declared operation, in the order of the groups.
        public: paths that need no credential; compared whole, so that nothing else opens by beginning like one.

    Raises ConfigError for two of one path or operation, and for a path that is not free or no path.
    """

    def __init__(self, groups: Iterable[Resources], plugins: Mapping[int, str] = NO_PLUGINS) -> None:
        self._parts: dict[str, Part] = {}
        self.mounted: dict[str, Route] = {}
        self.rows: list[Row] = []
        self._owners: dict[str, str] = {}
        self._operations: dict[tuple[str | None, str], Operation] = {}
        for group in groups:
            of = plugins.get(id(group))
            label = f"{group.name!r}" if of is None else f"{group.name!r} of the plugin {of!r}"
            for route in _routes(group, label):
                self._add(label, route)
                if of is not None:
                    part = part_of("resources", group, plugins)
                    self._parts.update((mount + route.path, part) for mount in MOUNTS)
        bare = (path for path, route in self.mounted.items() if route.public)
        self.public = frozenset({*_RESERVED, *bare})

    def scope(self, template: str | None, method: str) -> str:
        """What a credential must hold for a method of a route, or of a path that is no route (None)."""
        operation = self._operations.get((template, method))
        declared = None if operation is None else operation.scope
        return declared or (READ if method in ("GET", "HEAD") else WRITE)

    def part(self, template: str | None) -> Part | None:
        """The plugin's group that a route belongs to; None for the server's own."""
        return self._parts.get(template or "")

    def operation(self, template: str | None, method: str) -> Operation | None:
        """The declaration of a method of a route, if it has one."""
        return self._operations.get((template, method))

    def _add(self, group: str, route: Route) -> None:
        if not route.path.startswith("/") or (route.public and "{" in route.path):
            raise ConfigError(f"resources {group}: {route.path!r} is no path for a route")
        for mount in MOUNTS[:1] if route.public else MOUNTS:
            self._claim(group, "path", mount + route.path)
            self.mounted[mount + route.path] = route
        for method, operation in route.responders():
            if operation is not None:
                self._claim(group, "operation", operation.name)
                self.rows.append(Row(method, route.path, route.public, operation, route.parameters))
                for mount in MOUNTS:
                    self._operations[mount + route.path, method.upper()] = operation

    def _claim(self, group: str, what: str, name: str) -> None:
        if name in _RESERVED or f"{name}/".startswith((_PROXIED, f"{MOUNTS[1]}{_PROXIED}")):
            raise ConfigError(f"resources {group}: the {what} {name!r} is the server's own")
        if name in self._owners:
            both = f"{self._owners[name]} and {group}"
            raise ConfigError(f"resources {both} both have the {what} {name!r}")
        self._owners[name] = group


def _routes(group: Resources, label: str) -> list[Route]:
    """What a group lists. Raises ConfigError if that fails, or is no list of routes."""
    try:
        found = list(group.routes())
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(f"resources {label} failed in routes: {type(error).__name__}: {error}") from error
    if not all(isinstance(route, Route) for route in found):
        raise ConfigError(f"resources {label}: routes must return a list of Route")
    return found
