"""The engines that tests run on, and the images that they need there."""

from __future__ import annotations

import os

import docker
import docker.errors

IMAGE = "shoal-test/busybox:latest"
EXECD = "shoal-test/execd:latest"
DOCKER_HOST = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")


def bring_images(host: str | None) -> None:
    """Have Podman hold the test images, out of Docker's store: no registry has them."""
    target = docker.DockerClient(base_url=host, timeout=120)
    try:
        missing = [image for image in (IMAGE, EXECD) if not _has(target, image)]
        if missing:
            source = docker.DockerClient(base_url=DOCKER_HOST, timeout=120)
            for image in missing:
                target.images.load(b"".join(source.images.get(image).save(named=True)))
            source.close()
    finally:
        target.close()


def _has(client: docker.DockerClient, image: str) -> bool:
    try:
        client.images.get(image)
    except docker.errors.ImageNotFound:
        return False
    return True
