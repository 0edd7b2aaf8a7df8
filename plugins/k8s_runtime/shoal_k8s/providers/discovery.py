"""From the configured name to a provider."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Final

from shoal.errors import ConfigError
from shoal_k8s.providers.interface import WorkloadProvider

GROUP: Final = "shoal.k8s.providers"


def provider(name: str) -> type[WorkloadProvider]:
    """The provider of that name, whatever its case. Raises ConfigError with the known ones."""
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    entry = found.get(name.strip().lower())
    if entry is None:
        known = ", ".join(sorted(found)) or "none"
        raise ConfigError(f"kubernetes.workload_provider: no provider {name!r} is installed; known: {known}")
    kind = entry.load()
    if not (isinstance(kind, type) and issubclass(kind, WorkloadProvider)):
        raise ConfigError(f"kubernetes.workload_provider: {entry.value} is not a WorkloadProvider")
    return kind
