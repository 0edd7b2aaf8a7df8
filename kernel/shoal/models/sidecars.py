"""Rules on sidecars that their type cannot say: of a request alone, and beside those that plugins add.

The reserved names and port belong to the containers that the API itself puts into a sandbox.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from shoal.errors import FieldProblem, InvalidRequest
from shoal.models import codes
from shoal.models.opensandbox import AGENT_PORT, RESERVED_SIDECARS
from shoal.models.plan import Sidecar
from shoal.models.requests import SidecarSpec

MAX_SIDECARS: Final = 8
MAX_PORTS: Final = 64
"""Of all sidecars together."""


def sidecar_problems(sidecars: Sequence[SidecarSpec]) -> Iterator[FieldProblem]:
    """What belongs to the schema (422), in the order of the fields."""
    if len(sidecars) > MAX_SIDECARS:
        yield _problem(f"must be at most {MAX_SIDECARS}")
    names: set[str] = set()
    ports: set[int] = set()
    for index, sidecar in enumerate(sidecars):
        if "\n" in sidecar.name:  # `$` in the type's pattern also matches before a final line break
            yield _problem("must be a DNS label", index, "name")
        if sidecar.name in names:
            yield _problem("must be unique", index, "name")
        names.add(sidecar.name)
        if not sidecar.image.uri.strip():
            yield _problem("must not be blank", index, "image", "uri")
        if sidecar.command is not None and not sidecar.command[0].strip():
            yield _problem("must not be blank", index, "command", 0)
        if not all(map(_is_variable, sidecar.env or {})):
            yield _problem("the name of a variable must not be empty, nor hold '=' or a null character", index, "env")
        for place, port in enumerate(sidecar.ports or []):
            if port in ports:
                yield _problem("must be unique among all sidecars", index, "ports", place)
            ports.add(port)
    if len(ports) > MAX_PORTS:
        yield _problem(f"must have at most {MAX_PORTS} ports altogether")


def check_sidecars(sidecars: Iterable[SidecarSpec]) -> None:
    """Raise InvalidRequest for a name or a port that the server's own containers have."""
    for sidecar in sidecars:
        if sidecar.name in RESERVED_SIDECARS:
            raise InvalidRequest(codes.INVALID_PARAMETER, f"sidecars: the name {sidecar.name} is reserved.")
        if AGENT_PORT in (sidecar.ports or []):
            raise InvalidRequest(codes.INVALID_PARAMETER, f"sidecars: port {AGENT_PORT} is reserved.")


def check_neighbours(sidecars: Iterable[Sidecar]) -> None:
    """Raise InvalidRequest if two sidecars of a plan have one name or one port: they share one network."""
    names: set[str] = set()
    ports: set[int] = set()
    for sidecar in sidecars:
        if sidecar.name in names:
            message = f"sidecars: the name {sidecar.name} is taken by a sidecar of this server."
            raise InvalidRequest(codes.INVALID_PARAMETER, message)
        names.add(sidecar.name)
        taken = ports.intersection(sidecar.ports)
        if taken:
            message = f"sidecars: port {min(taken)} is taken by a sidecar of this server."
            raise InvalidRequest(codes.INVALID_PARAMETER, message)
        ports.update(sidecar.ports)


def _is_variable(name: str) -> bool:
    return name != "" and "=" not in name and "\0" not in name


def _problem(msg: str, *rest: str | int) -> FieldProblem:
    return FieldProblem(type="value_error", loc=["body", "sidecars", *rest], msg=msg)
