"""What a run of the tests left on the engine that it should not have."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker.errors

from shoal_docker.volumes.pins import TOP

LABELS = ("opensandbox.io/id", "opensandbox.io/sidecar-for", "opensandbox.io/egress-sidecar-for")
EXECD_VOLUME = "opensandbox-execd-"
"""The files of one version, kept by design for the next sandbox: no leftover until the run is over."""
PATIENCE = 20.0
ALONE = "docker" in os.environ.get("SHOAL_REQUIRE", "").split(",")
"""Nobody else works on the engine (continuous integration): everything that is new was made by this run."""


def of_ours(api: Any) -> set[str]:
    """Names of containers, volumes, networks and images that servers and tests make, and of sandboxes with pins."""
    containers = [each for label in LABELS for each in api.containers(all=True, filters={"label": label})]
    volumes = [volume["Name"] for volume in api.volumes()["Volumes"] or []]
    images = [tag for image in api.images() for tag in image["RepoTags"] or []]
    return {
        *(each["Names"][0].lstrip("/") for each in containers if "io.kubernetes.pod.uid" not in each["Labels"]),
        *(name for name in volumes if name.startswith(("opensandbox-", "shoal-"))),
        *(net["Name"] for net in api.networks() if net["Name"].lower().startswith("shoal-")),
        *(tag for tag in images if tag.startswith(("shoal-test/made-", "opensandbox-snapshots:"))),
        *(folder.name for folder in Path(TOP).glob("*/*")),
    }


def left(api: Any, before: set[str], made: set[str]) -> set[str]:
    """What is new and stays; where others work too, only what bears one of the names or ids in ``made``."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = {name for name in of_ours(api) - before if not name.startswith(EXECD_VOLUME)}
        if not ALONE:
            found = {name for name in found if any(each in name for each in made)}
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def drop_execd(api: Any) -> None:
    """Remove what servers keep for later ones, where there will be none."""
    for volume in api.volumes()["Volumes"] or []:
        if ALONE and volume["Name"].startswith(EXECD_VOLUME):
            with suppress(docker.errors.APIError):  # a sandbox has it, and is told of as left
                api.remove_volume(volume["Name"])
