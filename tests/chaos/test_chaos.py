"""Clients at work while everything that can go wrong does: nothing lost, leaked, early, doubled or stuck.

Short here; ``make chaos`` runs for SHOAL_CHAOS_SECONDS on each engine (docs/reliability.md). SHOAL_CHAOS_SEED takes up
the seed of a run that failed: the same operations and faults at the same moments, as far as threads allow.
"""

from __future__ import annotations

import os
import random
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chaos.cluster import cluster_world
from tests.chaos.docker_engine import docker_world
from tests.chaos.local import local_world
from tests.chaos.play import Play
from tests.chaos.worlds import World

SECONDS = float(os.environ.get("SHOAL_CHAOS_SECONDS", "30"))

pytestmark = pytest.mark.timeout(SECONDS * 2 + 900)


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("SHOAL_CHAOS_SEED") or random.SystemRandom().randrange(2**32))


@pytest.fixture
def local(tmp_path: Path) -> Iterator[World]:
    if os.geteuid() != 0:
        pytest.skip("a disk that fills up is a mount of its own, which needs root")
    with local_world(tmp_path, uuid.uuid4().hex) as world:
        yield world


@pytest.fixture
def docker(tmp_path: Path) -> Iterator[World]:
    with docker_world(tmp_path, uuid.uuid4().hex) as world:
        yield world


def test_local(local: World, seed: int) -> None:
    play(local, seed)


# Docker's SDK leaves the socket open on which it found no engine.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.needs("docker", "dockerd")
def test_docker(docker: World, seed: int) -> None:
    play(docker, seed)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[World]:
    with cluster_world(tmp_path) as world:
        yield world


@pytest.mark.needs("k8s")
def test_kubernetes(cluster: World, seed: int) -> None:
    play(cluster, seed)


def play(world: World, seed: int) -> None:
    """Play, and print what was done, and what could not happen here."""
    print(f"SHOAL_CHAOS_SEED={seed}")
    report = Play(world, seed).run(SECONDS)
    print(report)
    for lack in world.lacking:
        print(f"  not here: {lack}")
    assert report.operations["create"] > 0
