"""What all enabled plugins registered, together."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from msgspec import Struct

from shoal.plugin.interfaces import (
    Agent,
    Authenticator,
    Component,
    Ingress,
    Networking,
    Observer,
    Policy,
    Renewal,
    Resources,
    Runtime,
    Store,
)

NO_PLUGINS: Final[Mapping[int, str]] = MappingProxyType({})
"""In place of `Components.plugins`, where no plugin registered anything."""


class Part(Struct, frozen=True):
    """One component, with the plugin that registered it and the family for which it did."""

    plugin: str
    family: str
    component: Component

    @property
    def key(self) -> str:
        """``plugin/family/name``: unique in a server, as `/ready` shows it."""
        return f"{self.plugin}/{self.family}/{self.component.name}"

    def __str__(self) -> str:
        """As logs and errors name it."""
        return f"plugin {self.plugin!r}: the {self.family} {self.component.name!r}"


class Components(Struct, kw_only=True):
    """Every component by family.

    Attributes:
        store: the one that ``store.type`` names; None where there is no server, as in tests of a part.
        default_runtime: key into ``runtimes``.
        ingresses, policies: in the order in which they are asked.
        plugins: the name of the plugin that registered a component, by the component's ``id()``.
        down: ``id()`` of observers and renewals that have not started: they are not called.
    """

    runtimes: dict[str, Runtime]
    default_runtime: str
    store: Store | None = None
    agents: list[Agent] = []
    authenticators: list[Authenticator] = []
    networking: list[Networking] = []
    ingresses: list[Ingress] = []
    renewals: list[Renewal] = []
    observers: list[Observer] = []
    resources: list[Resources] = []
    policies: list[Policy] = []
    plugins: dict[int, str] = {}
    down: set[int] = set()

    def kept_store(self) -> Store:
        """The store; there is one by the time that a lifecycle is made of these."""
        assert self.store is not None  # noqa: S101 - see docstring
        return self.store

    def all(self) -> list[Part]:
        """Every component of every family, in the order in which they are started."""
        return [
            *([self.part("store", self.store)] if self.store else []),
            *(self.part("agent", each) for each in self.agents),
            *(self.part("authenticator", each) for each in self.authenticators),
            *(self.part("networking", each) for each in self.networking),
            *(self.part("ingress", each) for each in self.ingresses),
            *(self.part("observer", each) for each in self.observers),
            *(self.part("policy", each) for each in self.policies),
            *(self.part("resources", each) for each in self.resources),
            *(self.part("runtime", each) for each in self.runtimes.values()),
            *(self.part("renewal", each) for each in self.renewals),
        ]

    def part(self, family: str, component: Component) -> Part:
        """`part_of`, with these plugins."""
        return part_of(family, component, self.plugins)


def part_of(family: str, component: Component, plugins: Mapping[int, str]) -> Part:
    """A component with its plugin, by `Components.plugins`; one that no plugin registered is named after its module."""
    plugin = plugins.get(id(component), type(component).__module__)
    return Part(plugin=plugin, family=family, component=component)
