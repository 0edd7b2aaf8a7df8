"""``deploy/compose.yaml``, run for real: the server as a container of the engine that its sandboxes are on."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import docker
import httpx
import pytest
from tests.support.servers import free_port

ROOT = Path(__file__).resolve().parents[2]
KEY = {"OPEN-SANDBOX-API-KEY": "compose-test-key-0123456789"}

pytestmark = [pytest.mark.needs("docker"), pytest.mark.needs("debian"), pytest.mark.needs("compose")]


def packages(where: Path) -> None:
    """What the image holds, taken from this environment, for a build has no network: shoal, and what it needs."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(where)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=100)
    (wheel,) = where.glob("shoal-*.whl")
    pip = [sys.executable, "-m", "pip", "--quiet", "install", "--no-deps", "--target", str(where / "site"), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True, timeout=100)
    pinned = [line.partition("==")[0] for line in (ROOT / "constraints-image.txt").read_text().splitlines()]
    for name in (name for name in pinned if name and name[0].isalnum()):
        _copy(name, where / "site")


def _copy(name: str, site: Path) -> None:
    try:
        files = distribution(name).files or []
    except ModuleNotFoundError:  # a pin for another Python or another system
        return
    purelib = Path(sysconfig.get_path("purelib"))
    for file in files:
        source = Path(str(file.locate()))
        if source.is_relative_to(purelib) and source.suffix != ".pyc" and source.is_file():
            target = site / source.relative_to(purelib)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image as `deploy/Containerfile` makes it, on a base that is at hand."""
    home = tmp_path_factory.mktemp("image")
    with contextlib.closing(docker.from_env(timeout=120)) as engine:
        version = f"import sys; sys.exit(sys.version_info[:2] != {sys.version_info[:2]})"
        try:
            engine.containers.run("shoal-test/debian:latest", ["python3", "-c", version], remove=True)
        except docker.errors.ContainerError:
            pytest.skip("the image's Python is another one than this one, whose compiled packages it gets")
        packages(home)
        (home / "Dockerfile").write_text(
            "FROM shoal-test/debian:latest\nCOPY site /opt/shoal\nENV PYTHONPATH=/opt/shoal PYTHONUNBUFFERED=1\n"
            "RUN python3 -m shoal_agent.bundle /usr/share/shoal/agent\n"
            'USER 10001:10001\nENTRYPOINT ["python3", "-m", "shoal.cli.main"]\nCMD ["serve"]\n'
        )
        tag = f"shoal-test/compose:{uuid.uuid4().hex[:8]}"
        engine.images.build(path=str(home), tag=tag)
        yield tag
        engine.images.remove(tag, force=True)


class Composed:
    """The project of ``deploy/compose.yaml``."""

    def __init__(self, image: str, home: Path) -> None:
        self.port = free_port()
        self.name = f"shoaltest{uuid.uuid4().hex[:8]}"
        config = home / "compose.toml"
        text = (ROOT / "deploy" / "compose.toml").read_text()
        config.write_text(text)
        self.env = {
            **os.environ,
            "SHOAL_IMAGE": image,
            "SHOAL_PORT": str(self.port),
            "SHOAL_CONFIG": str(config),
            "SHOAL_API_KEY": KEY["OPEN-SANDBOX-API-KEY"],
            "SHOAL_DOCKER_SOCKET": os.environ["DOCKER_HOST"].removeprefix("unix://"),
        }

    def run(self, *arguments: str) -> str:
        """One command of compose's; what it says. Raises AssertionError if it fails."""
        by = ["docker", "compose"] if not shutil.which("docker-compose") else ["docker-compose"]
        command = [*by, "-p", self.name, "-f", str(ROOT / "deploy" / "compose.yaml"), *arguments]
        ended = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False, timeout=100)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    def wait(self) -> None:
        """Until the engine finds the container healthy."""
        (container,) = self.run("ps", "-q").split()
        with contextlib.closing(docker.from_env()) as engine:
            while engine.api.inspect_container(container)["State"]["Health"]["Status"] != "healthy":
                state = engine.api.inspect_container(container)["State"]
                assert state["Running"], self.run("logs")


@pytest.fixture
def composed(image: str, tmp_path: Path) -> Iterator[Composed]:
    project = Composed(image, tmp_path)
    try:
        yield project
    finally:
        project.run("down", "--volumes")


def test_a_sandbox_is_made_reached_and_kept_over_a_new_container(composed: Composed) -> None:
    composed.run("up", "-d")
    composed.wait()
    with httpx.Client(base_url=f"http://127.0.0.1:{composed.port}", headers=KEY, timeout=60) as http:
        assert httpx.get(f"{http.base_url}/v1/sandboxes").status_code == 401
        body = {
            "image": {"uri": "shoal-test/busybox"},
            "entrypoint": ["httpd", "-f", "-p", "8000", "-h", "/etc"],
            "resourceLimits": {},
            "timeout": 600,
        }
        made = http.post("/v1/sandboxes", json=body).json()["id"]
        try:
            seen = http.get(f"/v1/sandboxes/{made}", params={"wait": "Running", "timeout": 50}).json()
            assert seen["status"]["state"] == "Running", seen
            while (page := http.get(f"/v1/sandboxes/{made}/proxy/8000/passwd")).status_code == 502:
                pass
            assert "root" in page.text
            assert http.get(f"/v1/sandboxes/{made}/proxy/44772/ping").status_code == 200
            composed.run("up", "-d", "--force-recreate")
            composed.wait()
            assert http.get(f"/v1/sandboxes/{made}").json()["expiresAt"] == seen["expiresAt"]
        finally:
            assert http.delete(f"/v1/sandboxes/{made}").status_code == 204


def test_without_a_key_it_does_not_start(composed: Composed) -> None:
    del composed.env["SHOAL_API_KEY"]
    with pytest.raises(AssertionError, match="SHOAL_API_KEY"):
        composed.run("up", "-d")
    composed.env["SHOAL_API_KEY"] = "x"
