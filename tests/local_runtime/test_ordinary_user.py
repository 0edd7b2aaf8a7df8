"""The same runtime without root: nothing may need it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local_runtime.machine import can_bubblewrap, can_unshare, let_pass


@pytest.fixture
def closed_mount(tmp_path: Path) -> Iterator[None]:
    """A mount to which ordinary users have no way, as container engines have many."""
    if os.geteuid() != 0:
        yield
        return
    point = tmp_path / "closed" / "point"
    point.mkdir(parents=True)
    point.parent.chmod(0o700)
    subprocess.run(["mount", "-t", "tmpfs", "none", str(point)], check=True)
    yield
    subprocess.run(["umount", "--lazy", str(point)], check=True)


@pytest.mark.parametrize(
    ("method", "overlay", "way"),
    [
        ("unshare", "auto", ""),
        ("unshare", "off", ""),
        ("bubblewrap", "auto", "staged"),
        ("bubblewrap", "off", "direct"),
        ("none", "off", ""),
    ],
)
@pytest.mark.usefixtures("closed_mount")
def test_a_whole_life(tmp_path: Path, method: str, overlay: str, way: str) -> None:
    if method == "unshare" and not can_unshare():
        pytest.skip("user namespaces do not work here")
    if method == "bubblewrap" and not can_bubblewrap():
        pytest.skip("bubblewrap is not installed, or does not work here")
    uid = 12345 if os.geteuid() == 0 else os.geteuid()
    home = tmp_path / "home"
    home.mkdir()
    if os.geteuid() == 0:
        let_pass(tmp_path)
        os.chown(home, uid, uid)
    done = subprocess.run(
        [sys.executable, "-m", "tests.local_runtime.whole_life", str(home), method, overlay, way, str(uid)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
        timeout=300,
    )
    assert done.stdout.splitlines()[-1:] == ["all well"], done.stdout + done.stderr
