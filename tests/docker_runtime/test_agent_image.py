"""An image with the agent's bundle, named as ``runtime.execd_image``: as ``deploy/Containerfile`` makes it."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import httpx
import pytest
from tests.support.bench import Bench
from tests.support.servers import ServerProcess

from shoal.plugin.interfaces import AGENT_PORT

pytestmark = [pytest.mark.needs("docker"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """On a base that is at hand."""
    home = tmp_path_factory.mktemp("image")
    bundle = [sys.executable, "-m", "shoal_agent.bundle", str(home / "execd.d"), "--single-file", str(home / "execd")]
    subprocess.run(bundle, check=True, capture_output=True)
    shutil.copy(home / "execd.d/bootstrap.sh", home / "bootstrap.sh")
    content = "FROM shoal-test/busybox:latest\nCOPY execd bootstrap.sh /\nCOPY execd.d /execd.d\n"
    (home / "Dockerfile").write_text(content)
    with contextlib.closing(docker.from_env(timeout=120)) as engine:
        tag = f"shoal-test/agent:{uuid.uuid4().hex[:8]}"
        engine.images.build(path=str(home), tag=tag)
        yield tag
        engine.images.remove(tag, force=True)


def created(client: httpx.Client, bench: Bench, image: str) -> str:
    body = {"image": {"uri": image}, "entrypoint": ["sleep", "600"], "resourceLimits": {}, "timeout": 600}
    sandbox: str = client.post("/v1/sandboxes", json=body).json()["id"]
    bench.ids.add(sandbox)
    return sandbox


@pytest.mark.parametrize("user", ["root", "1000"])
def test_a_server_that_copies_single_files_has_a_working_agent(
    image: str, bench: Bench, docker_server: Callable[..., ServerProcess], user: str
) -> None:
    server = docker_server(execd=image)
    tag = bench.image(f"USER {user}")
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=60) as client:
        sandbox = created(client, bench, tag)
        short = bench.client.images.get(image).id.rpartition(":")[2][:16]
        bench.volumes.append(f"opensandbox-execd-{short}")
        agent = f"/v1/sandboxes/{sandbox}/proxy/{AGENT_PORT}"
        assert client.get(f"{agent}/ping").status_code == 200
        events = client.post(f"{agent}/command", json={"command": "id -u"}).text
        assert ('"0"' if user == "root" else '"1000"') in events
        assert "headers" not in client.get(f"/v1/sandboxes/{sandbox}/endpoints/{AGENT_PORT}").json()


def test_an_init_container_may_copy_the_folder(image: str, bench: Bench) -> None:
    """What a pod's init container does: the same lines, with the image's own shell."""
    from shoal_k8s.pods.installer import _LINUX

    script = "\n".join(["set -e", *_LINUX])
    made = bench.client.containers.create(image, ["/bin/sh", "-c", f"mkdir -p /opt/opensandbox && {script}"])
    try:
        made.start()
        assert made.wait()["StatusCode"] == 0, made.logs()
        stream = b"".join(made.get_archive("/opt/opensandbox")[0])
    finally:
        made.remove(force=True)
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        members = {Path(member.name).relative_to("opensandbox"): member for member in archive}
    for name in ("execd", "bootstrap.sh", "agent/python", "agent/ld"):
        assert members[Path(name)].mode & 0o755 == 0o755
    assert members[Path("execd")].size < 1000
