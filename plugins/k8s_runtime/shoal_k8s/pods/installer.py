"""The init container of a pod: brings execd, sets what needs privileges (docs/wire/kubernetes.md section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from shoal.models.plan import Sidecar
from shoal_k8s.pods import quantities, storage
from shoal_k8s.pods.defaults import RUNTIME_DIR, PodDefaults

OEM: Final = "opensandbox-win-oem"
OEM_DIR: Final = "/oem"
FOLDER: Final = "./execd.d"
"""In an image of an agent that is more than one file: all of them, ``execd`` and ``bootstrap.sh`` among them."""
_OPTIONAL: Final = ("opensandbox-session-gate", "opensandbox-launcher")
_LINUX: Final = (
    f"if [ -d {FOLDER} ]; then cp -r {FOLDER}/. {RUNTIME_DIR}/; else",
    f"cp ./execd {RUNTIME_DIR}/execd && chmod 0755 {RUNTIME_DIR}/execd",
    f"cp ./bootstrap.sh {RUNTIME_DIR}/bootstrap.sh && chmod 0755 {RUNTIME_DIR}/bootstrap.sh",
    "fi",
    f"cp /usr/local/bin/bwrap {RUNTIME_DIR}/bwrap 2>/dev/null || true",
    *(
        f"if [ -e /usr/local/libexec/{name} ]; then cp /usr/local/libexec/{name} {RUNTIME_DIR}/{name}; "
        f"chmod 0555 {RUNTIME_DIR}/{name}; fi"
        for name in _OPTIONAL
    ),
)
_WINDOWS: Final = tuple(
    f"cp ./{name} {OEM_DIR}/{name} && chmod 0644 {OEM_DIR}/{name}" for name in ("install.bat", "execd.exe")
)


Resources = Mapping[str, Mapping[str, str]]


def init_containers(
    sidecars: list[Sidecar], defaults: PodDefaults, main: Resources, *, windows: bool
) -> list[dict[str, Any]]:
    """One where there is something to bring or to set, else none.

    Args:
        main: resources of the sandbox's own container. A pod counts as much as its init containers or its containers,
            whichever is more, so the same for both costs nothing.
    """
    made = _init_containers(sidecars, defaults, windows=windows)
    same = {kind: quantities.counted(amounts) for kind, amounts in main.items()}
    resources: Resources = {kind: amounts for kind, amounts in same.items() if amounts}
    if defaults.init_resources:
        resources = {str(kind): amounts for kind, amounts in defaults.init_resources.items()}
    return [{**container, "resources": resources} for container in made] if resources else made


def _init_containers(sidecars: list[Sidecar], defaults: PodDefaults, *, windows: bool) -> list[dict[str, Any]]:
    wishes = {name: value for sidecar in sidecars for name, value in sidecar.sysctls.items()}
    if defaults.execd_image is not None:
        return [_installer(defaults, wishes, windows=windows)]
    setter = next((sidecar for sidecar in sidecars if sidecar.sysctls), None)
    if setter is None:
        return []
    return [_container("sysctls", setter.image, defaults, _settings(wishes), privileged=True)]


def _installer(defaults: PodDefaults, wishes: Mapping[str, str], *, windows: bool) -> dict[str, Any]:
    lines = [*_settings(wishes), *(_WINDOWS if windows else _LINUX)]
    container = _container("execd-installer", str(defaults.execd_image), defaults, lines, privileged=bool(wishes))
    container["volumeMounts"] = [{"name": storage.BIN, "mountPath": RUNTIME_DIR}]
    if windows:
        container["volumeMounts"].append({"name": OEM, "mountPath": OEM_DIR})
    return container


def _container(name: str, image: str, defaults: PodDefaults, lines: list[str], *, privileged: bool) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": name,
        "image": image,
        "imagePullPolicy": defaults.pull_policy,
        "command": ["/bin/sh", "-c", "\n".join(["set -e", *lines])],
    }
    if privileged:
        container["securityContext"] = {"privileged": True}
    return container


def _settings(wishes: Mapping[str, str]) -> list[str]:
    """A kernel without the setting has nothing to set; one that has it and does not take it ends the pod."""
    files = {f"/proc/sys/{name.replace('.', '/')}": value for name, value in wishes.items()}
    return [f"if [ -e {file} ]; then echo {value} >{file}; fi" for file, value in files.items()]
