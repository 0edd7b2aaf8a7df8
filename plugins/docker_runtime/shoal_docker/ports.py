"""Host ports of published sandbox ports: drawn at random from the configured range, held until the create has ended.

They are chosen here and not by the engine because they stand in the container's labels, which are written before it
starts (docs/wire/docker.md sections 3 and 7). Somebody else may still take one before the start: that is a
`is_conflict`, answered with fresh ports.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from shoal.errors import EngineFailure
from shoal_docker.config import DockerSettings

ATTEMPTS: Final = 3
"""Starts of one sandbox before a port conflict is its failure."""
_TRIES: Final = 200
_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - tried, not served on
_CONFLICTS: Final = ("port is already allocated", "ports are not available", "address already in use")


class HostPorts:
    """The configured range.

    Args:
        local: the engine publishes on this machine, so that a port can be tried by binding it.
    """

    def __init__(self, settings: DockerSettings, *, local: bool) -> None:
        self._range = range(settings.port_range_min, settings.port_range_max + 1)
        self._host = settings.publish_host
        self._local = local
        self._held: set[int] = set()
        self._random = random.SystemRandom()

    @contextmanager
    def drawn(self, wanted: Iterable[str]) -> Iterator[dict[str, int]]:
        """A host port for each of ``wanted`` (``8080/tcp``), held while the block runs. Raises EngineFailure."""
        mine: dict[str, int] = {}
        try:
            for container_port in wanted:
                number = self._draw("udp" if container_port.endswith("/udp") else "tcp")
                self._held.add(number)
                mine[container_port] = number
            yield mine
        finally:
            self._held.difference_update(mine.values())

    @contextmanager
    def kept(self, number: int) -> Iterator[bool]:
        """Hold this very TCP port while the block runs; whether it was free, on every address of this machine."""
        free = number not in self._held
        if free:
            self._held.add(number)
        try:
            yield free and (not self._local or self._is_free(number, "tcp", _EVERYWHERE))
        finally:
            if free:
                self._held.discard(number)

    def _draw(self, protocol: str) -> int:
        for _ in range(_TRIES):
            number = self._random.choice(self._range)
            if number not in self._held and (not self._local or self._is_free(number, protocol)):
                return number
        low, high = self._range[0], self._range[-1]
        raise EngineFailure("DOCKER::SANDBOX_START_FAILED", f"No host port between {low} and {high} is free.")

    def _is_free(self, number: int, protocol: str, first: str | None = None) -> bool:
        kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
        for host in (first or self._host, _EVERYWHERE):  # the second where publish_host is no address of this machine
            with socket.socket(socket.AF_INET, kind) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the engine itself binds
                try:
                    probe.bind((host, number))
                except OSError as error:
                    if error.errno != 99:  # EADDRNOTAVAIL
                        return False
                else:
                    return True
        return False


def is_conflict(explanation: str) -> bool:
    """Whether the engine refused a start because a host port is taken."""
    text = explanation.lower()
    forbidden = "bind:" in text and ("forbidden" in text or "permission denied" in text)
    return forbidden or any(words in text for words in _CONFLICTS)
