"""Which containers are sandboxes, and what the engine's lists do not show of them.

A whole list costs three calls of the engine, whatever the number of sandboxes; one sandbox costs one. A container is
looked at by itself only when it has ended, or when this server has no record of it, and then once: what it says does
not change. A container that vanishes or cannot be described meanwhile never fails the list.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import structlog
from msgspec import Struct

from shoal.errors import Unavailable
from shoal.models.workload import Adoption, Workload
from shoal_docker import labels
from shoal_docker.adoption import adopt, read_loose_files
from shoal_docker.engine import Engine, EngineError
from shoal_docker.integrity import Integrity
from shoal_docker.observe import (
    ContainerEnd,
    Family,
    HostAddresses,
    Summary,
    agent_port,
    has_ended,
    labels_of,
    name_of,
    on_host,
    parse_ended,
    sandbox_of,
    workload,
)

log = structlog.get_logger("shoal.docker")

_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_POD: Final = "io.kubernetes.pod.uid"
_FILTERS: Final = (labels.ID, labels.SIDECAR_FOR, labels.EGRESS_SIDECAR_FOR)


class ImageFacts(Struct, frozen=True):
    """What a container has of its image and not of its maker."""

    labels: dict[str, str] = {}
    tag: str | None = None


class Census:
    """The sandboxes of one engine.

    Args:
        known: whether this server has a record of a sandbox; what it has none of is described for adoption.
    """

    def __init__(self, engine: Engine, surroundings: HostAddresses, known: Callable[[str], bool]) -> None:
        self._engine = engine
        self._surroundings = surroundings
        self._known = known
        self._integrity = Integrity(engine)
        self._ended: dict[str, ContainerEnd] = {}
        self._adoptions: dict[str, tuple[Adoption, str | None]] = {}
        self._images: dict[str, ImageFacts] = {}
        self._one_image = asyncio.Lock()

    async def all(self) -> list[Family]:
        """Every sandbox, and every sidecar without one as a family without ``main``."""
        answers = await asyncio.gather(*(self._list({"label": [key]}) for key in _FILTERS))
        found = {str(summary["Id"]): summary for answer in answers for summary in answer}
        families = await self._families(found.values())
        self._forget_all_but(found.keys())
        self._integrity.forget_all_but({family.id for family in families}, found.keys())
        return families

    async def one(self, sandbox_id: str) -> Family:
        """One sandbox; without ``main`` if there is none."""
        found = await self._list({"name": [sandbox_id]})
        for family in await self._families(found):
            if family.id == sandbox_id and family.main is not None:
                return family
        found += await self._list({"label": [f"{labels.ID}={sandbox_id}"]})  # it may bear another name
        unique = {str(summary["Id"]): summary for summary in found}
        families = {family.id: family for family in await self._families(unique.values())}
        return families.get(sandbox_id) or Family(id=sandbox_id)

    async def shares_host(self, port: int) -> bool:
        """Whether the agent of a sandbox on the host's own network has this port. Raises EngineError, Unavailable."""
        found = [each for each in await self._list({"label": [labels.ID]}) if not has_ended(each)]
        return any(on_host(summary) and agent_port(summary) == port for summary in found)

    async def workloads(self, families: Iterable[Family]) -> list[Workload]:
        """The workloads of those that have a container of their own."""
        seen = await asyncio.gather(*(self.workload(family) for family in families if family.main is not None))
        return [each for each in seen if each is not None]

    async def workload(self, family: Family) -> Workload | None:
        """The workload of one; None if it vanished meanwhile."""
        if family.main is None:
            return None
        for summary in family.all:
            await self._note_end(summary)
        container = str(family.main["Id"])
        failure = None if has_ended(family.main) else await self._integrity.failure(family, self._ended)
        adoption = warning = None
        if self._known(family.id):
            self._adoptions.pop(container, None)
        else:
            try:
                adoption, warning = await self._adoption(family.id, family.main)
            except EngineError as error:
                if error.status == 404:
                    return None
                log.warning("container cannot be described", sandbox_id=family.id, error=error.explanation)
        return workload(family, self._surroundings, self._ended, adoption, warning, failure)

    def restarted(self, container: str) -> None:
        """How it ended counts no more, nor when it was started before."""
        self._ended.pop(container, None)
        self._integrity.restarted(container)

    async def settled(self, container: str) -> None:
        """Return once the engine's lists show what it has just reported: it sends an event before it updates them.

        Describing a container waits for whoever is changing it, which is what is needed here.
        """
        try:
            inspected = await self._engine.call("inspect_container", container)
        except EngineError:
            return
        if str((inspected.get("State") or {}).get("Status")) in ("exited", "dead"):
            self._ended[container] = parse_ended(inspected)

    async def carried(self, image: str) -> ImageFacts:
        """The labels and first tag of an image, by its id; nothing if the engine does not have it any more."""
        if image not in self._images:
            async with self._one_image:  # hundreds of containers of one image ask at once
                return await self._look_up(image)
        return self._images[image]

    async def _look_up(self, image: str) -> ImageFacts:
        if image not in self._images:
            try:
                described = await self._engine.call("inspect_image", image)
            except EngineError:
                return ImageFacts()
            config = described.get("Config") or {}
            tags = described.get("RepoTags") or []
            tag = str(tags[0]) if tags else "sha256:" + image.removeprefix("sha256:")[:12]
            self._images[image] = ImageFacts(labels=dict(config.get("Labels") or {}), tag=tag)
        return self._images[image]

    async def _list(self, filters: dict[str, list[str]]) -> list[Summary]:
        found: list[Summary] = await self._engine.call("containers", all=True, filters=filters)
        return found

    async def _families(self, summaries: Iterable[Summary]) -> list[Family]:
        families: dict[str, Family] = {}
        for summary in summaries:
            owner, sandbox_id = sandbox_of(summary), labels_of(summary).get(labels.ID, "")
            if owner is not None:
                families.setdefault(owner, Family(id=owner)).sidecars.append(summary)
            elif _UUID.fullmatch(sandbox_id) and await self._is_sandbox(sandbox_id, summary):
                family = families.setdefault(sandbox_id, Family(id=sandbox_id))
                if family.main is None or name_of(summary) == labels.sandbox_name(sandbox_id):
                    family.main = summary
        return list(families.values())

    async def _is_sandbox(self, sandbox_id: str, summary: Summary) -> bool:
        """Whether the label is the container's own: somebody may run an image that was made of a sandbox.

        A pod's is not either: a kubelet on this engine gives containers the labels of their pod.
        """
        if _POD in labels_of(summary):
            return False
        if name_of(summary) == labels.sandbox_name(sandbox_id):
            return True
        facts = await self.carried(str(summary.get("ImageID") or ""))
        return facts.labels.get(labels.ID) != sandbox_id

    async def _note_end(self, summary: Summary) -> None:
        container = str(summary["Id"])
        if not has_ended(summary):
            self._ended.pop(container, None)
        elif container not in self._ended:
            try:
                self._ended[container] = parse_ended(await self._engine.call("inspect_container", container))
            except (EngineError, Unavailable) as error:
                log.debug("ended container cannot be described", container=container[:12], error=str(error))

    async def _adoption(self, sandbox_id: str, main: Summary) -> tuple[Adoption, str | None]:
        container = str(main["Id"])
        if container not in self._adoptions:
            inspected: dict[str, Any] = await self._engine.call("inspect_container", container)
            facts = await self.carried(str(inspected.get("Image") or ""))
            files = await asyncio.to_thread(read_loose_files, sandbox_id)
            self._adoptions[container] = adopt(inspected, facts.labels, facts.tag, files)
        return self._adoptions[container]

    def _forget_all_but(self, containers: Iterable[str]) -> None:
        there = set(containers)
        self._ended = {container: how for container, how in self._ended.items() if container in there}
        self._adoptions = {container: found for container, found in self._adoptions.items() if container in there}
        if len(self._images) > len(there) + 100:
            self._images.clear()
