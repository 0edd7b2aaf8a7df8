"""A wheel built from this tree installs into an empty environment, and serves from there."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

import httpx
import pytest
from tests.support.servers import free_port

from shoal.web.resources.pages import FILES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of a new environment that holds the wheel and, from here, the packages that it depends on."""
    home = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(home / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=100)
    (wheel,) = (home / "dist").glob("shoal-*.whl")
    venv.create(home / "env", with_pip=False)
    env = home / "env"
    pip = [sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--ignore-installed"]
    subprocess.run([*pip, "--prefix", str(env), str(wheel)], check=True, capture_output=True, timeout=100)
    return env / "bin"


def _environment(home: Path) -> dict[str, str]:
    """Dependencies by PYTHONPATH, where no ``.pth`` file counts: an editable shoal there stays out of sight."""
    return {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib"), "HOME": str(home)}


def _packages(installed: Path) -> list[Path]:
    site = next((installed.parent / "lib").glob("python*/site-packages"))
    return [entry for entry in site.iterdir() if not entry.name.endswith(".dist-info")]


def test_every_package_is_typed(installed: Path) -> None:
    assert [package.name for package in _packages(installed) if not (package / "py.typed").is_file()] == []


def test_nothing_generic_is_installed(installed: Path) -> None:
    tops = {entry.name for entry in _packages(installed)}
    assert tops == {"shoal", *(plugin.name for plugin in (ROOT / "plugins").glob("*/shoal_*"))}


def test_it_serves(installed: Path, tmp_path: Path) -> None:
    port = free_port()
    config = tmp_path / "shoal.toml"
    config.write_text(f'[server]\nhost = "127.0.0.1"\nport = {port}\n[store]\npath = "{tmp_path / "shoal.db"}"\n')
    environment = _environment(tmp_path)
    where = [str(installed / "python"), "-c", "import shoal; print(shoal.__file__)"]
    assert str(installed.parent) in subprocess.run(where, env=environment, capture_output=True, text=True).stdout
    process = subprocess.Popen(
        [installed / "python", "-m", "shoal.cli.main", "serve", "--config", config],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            try:
                assert httpx.get(f"http://127.0.0.1:{port}/ready").json()["status"] == "ready"
                assert [httpx.get(f"http://127.0.0.1:{port}{path}").status_code for path in FILES] == [200] * len(FILES)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
    finally:
        process.terminate()
        _, _ = process.communicate(timeout=30)
    assert process.returncode == 0
