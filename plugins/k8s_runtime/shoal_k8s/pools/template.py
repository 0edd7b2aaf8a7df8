"""What no pool's pod template may ask for.

A template that comes through the API is a caller's, and becomes pods with this server's rights: it must not reach
further than a sandbox may (contract/kubernetes.md, "Tenancy holes"). Pools that an operator makes on the cluster are
not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from shoal.errors import InvalidRequest
from shoal.models import codes
from shoal_k8s.pods import storage

_HOST: Final = ("hostNetwork", "hostPID", "hostIPC")
_LISTS: Final = ("containers", "initContainers", "ephemeralContainers")


def check(template: dict[str, Any], allowed_host_paths: Sequence[str]) -> None:
    """Raise InvalidRequest that names the first field that is malformed, or reaches onto the node."""
    spec = template.get("spec")
    if not isinstance(spec, dict) or not _rows(spec, "containers"):
        raise _refused("template.spec.containers is needed: a pool on Kubernetes is made of a pod template.")
    for field in _HOST:
        if spec.get(field):
            raise _refused(f"template.spec.{field} is not allowed.")
    for path, container in _containers(spec):
        security = container.get("securityContext")
        if isinstance(security, dict) and security.get("privileged"):
            raise _refused(f"{path}.securityContext.privileged is not allowed.")
        if any(isinstance(port, dict) and port.get("hostPort") for port in _rows(container, "ports")):
            raise _refused(f"{path}.ports: hostPort is not allowed.")
    for volume in _rows(spec, "volumes"):
        host = volume.get("hostPath") if isinstance(volume, dict) else None
        if isinstance(host, dict):
            storage.check_host(str(host.get("path", "")), allowed_host_paths)


def _containers(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in _LISTS:
        for index, container in enumerate(_rows(spec, kind)):
            if not isinstance(container, dict):
                raise _refused(f"template.spec.{kind}[{index}] is not a container.")
            yield f"template.spec.{kind}[{index}]", container


def _rows(thing: dict[str, Any], field: str) -> list[Any]:
    found = thing.get(field)
    return found if isinstance(found, list) else []


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(codes.INVALID_PARAMETER, message)
