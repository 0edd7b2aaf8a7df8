"""Sandboxes start while mounts of this machine come and go, as they do beside a container engine."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local_runtime.machine import ignore, plan

from shoal.models.workload import Phase
from shoal_local.runtime import LocalRuntime


@pytest.fixture
def churn(tmp_path: Path) -> Iterator[None]:
    """Mounts and unmounts without a pause, outside the state directory."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    point = tmp_path / "comes-and-goes"
    point.mkdir()
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            subprocess.run(["mount", "-t", "tmpfs", "none", str(point)], check=False, capture_output=True)
            subprocess.run(["umount", "--lazy", str(point)], check=False, capture_output=True)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join()
    while subprocess.run(["umount", str(point)], check=False, capture_output=True).returncode == 0:
        pass


@pytest.mark.usefixtures("churn")
async def test_starts_beside_mounts_that_come_and_go(runtime: LocalRuntime) -> None:
    for _ in range(25):
        made = await runtime.create(plan("sleep", "1000"), ignore)
        assert made.phase is Phase.RUNNING
        await runtime.delete(made.id)
