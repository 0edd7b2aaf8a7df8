"""Whether a sandbox is still whole: its sidecars are there, run, and share the network that it was started with.

A container joins another's network namespace when it starts. If the other is started again it gets a new namespace, and
whoever had joined is left in one that leads nowhere; both look as if they ran. The engine's lists do not say when a
container was started, so that is looked up once for each start.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

import structlog
from msgspec import Struct

from shoal.errors import Unavailable
from shoal_docker import labels
from shoal_docker.engine import Engine, EngineError
from shoal_docker.observe import ContainerEnd, Family, Summary, has_ended, joined_to, labels_of, name_of, stamp

log = structlog.get_logger("shoal.docker")

EXITED: Final = "SIDECAR_EXITED"
GONE: Final = "SIDECAR_GONE"
CUT_OFF: Final = "NETWORK_LOST"


class IntegrityOutcome(Struct, frozen=True):
    """How a sidecar ended; ``holds_network``: the others are in its network."""

    how: ContainerEnd | None
    holds_network: bool


class Integrity:
    """Judges the sandboxes of one engine; remembers what the engine forgets with a container."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._starts: dict[str, tuple[str, datetime | None]] = {}
        self._outcomes: dict[str, dict[str, IntegrityOutcome]] = {}

    async def failure(self, family: Family, ended: Mapping[str, ContainerEnd]) -> tuple[str, str] | None:
        """Reason and message, if a sandbox whose own container runs has failed all the same; None if it is whole.

        Args:
            ended: by container id, for every container of the family that has ended.
        """
        outcomes = self._outcomes.setdefault(family.id, {}) if family.sidecars else self._outcomes.get(family.id, {})
        for sidecar in family.sidecars:
            name = _name(sidecar)
            outcomes.pop(name, None)
            if has_ended(sidecar):
                outcomes[name] = IntegrityOutcome(ended.get(str(sidecar["Id"])), _holds_network(sidecar))
        return _verdict(outcomes) or self._missing(family, outcomes) or await self._cut_off(family)

    def restarted(self, container: str) -> None:
        """When it was started counts no more."""
        self._starts.pop(container, None)

    def forget_all_but(self, sandboxes: Collection[str], containers: Collection[str]) -> None:
        """Let go of what is remembered of any other."""
        self._outcomes = {key: found for key, found in self._outcomes.items() if key in sandboxes}
        self._starts = {key: found for key, found in self._starts.items() if key in containers}

    def _missing(self, family: Family, outcomes: Mapping[str, IntegrityOutcome]) -> tuple[str, str] | None:
        """A sidecar that was made for the sandbox and is not there, nor was seen to end with its work done."""
        assert family.main is not None  # noqa: S101 - the caller looked
        found = labels_of(family.main)
        there = {_name(sidecar) for sidecar in family.sidecars}
        for name in labels.json_list(found.get(labels.SIDECARS, "")):
            if name not in there and name not in outcomes:
                return GONE, f"The sidecar {name} is gone."
        guarded = any(labels_of(sidecar).get(labels.EGRESS_SIDECAR_FOR) for sidecar in family.sidecars)
        if found.get(labels.EGRESS_TOKEN) and not guarded:
            return GONE, "The sidecar of the sandbox's network policy is gone."
        return None

    async def _cut_off(self, family: Family) -> tuple[str, str] | None:
        """A container whose network was made anew after it had joined it."""
        for member in family.all:
            owner = joined_to(member, family.all)
            if owner is None or has_ended(owner) or has_ended(member):
                continue
            if await self._is_later(owner, member):
                what = "sandbox" if member is family.main else f"sidecar {_name(member)}"
                whose = f"sidecar {_name(owner)}" if member is family.main else "sandbox's container"
                return CUT_OFF, f"The {whose} was started again, and the {what} is cut off from its network."
        return None

    async def _is_later(self, owner: Summary, member: Summary) -> bool:
        """Whether the owner was started after the member; a yes is looked up, never remembered."""
        for fresh in (False, True):
            if fresh:
                self.restarted(str(owner["Id"]))
                self.restarted(str(member["Id"]))
            first, second = await self._started(owner), await self._started(member)
            if first is None or second is None or first <= second:
                return False
        return True

    async def _started(self, summary: Summary) -> datetime | None:
        """When a container was last started; None if the engine does not say."""
        container, attachment = str(summary["Id"]), _attachment(summary)
        known = self._starts.get(container)
        if known is None or known[0] != attachment:
            try:
                inspected: dict[str, Any] = await self._engine.call("inspect_container", container)
            except (EngineError, Unavailable) as error:
                log.debug("container cannot be described", container=container[:12], error=str(error))
                return None
            known = attachment, stamp(str((inspected.get("State") or {}).get("StartedAt") or ""))
            self._starts[container] = known
        return known[1]


def _verdict(outcomes: Mapping[str, IntegrityOutcome]) -> tuple[str, str] | None:
    """A sidecar that holds the network must never end; any other may, with exit code 0."""
    for name, outcome in outcomes.items():
        how = outcome.how
        if how is None or how.code != 0 or outcome.holds_network:
            with_code = "" if how is None else f" with exit code {how.code}"
            return EXITED, f"The sidecar {name} ended{with_code}."
    return None


def _holds_network(sidecar: Summary) -> bool:
    found = labels_of(sidecar)
    return bool(found.get(labels.SIDECAR_FIRST) or found.get(labels.EGRESS_SIDECAR_FOR))


def _name(sidecar: Summary) -> str:
    return labels_of(sidecar).get(labels.SIDECAR_NAME) or name_of(sidecar)


def _attachment(summary: Summary) -> str:
    """What is another after each start of a container that has a network of its own; empty for any other."""
    networks: Mapping[str, Any] = (summary.get("NetworkSettings") or {}).get("Networks") or {}
    return ",".join(sorted(str(network.get("EndpointID") or "") for network in networks.values()))
