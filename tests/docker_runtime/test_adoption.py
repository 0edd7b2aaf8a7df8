"""In the place of opensandbox-server: its containers are found, and their labels are believed within reason."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.support.bench import LONG, Bench, Make, create, listed

from shoal.models.requests import PlatformSpec
from shoal.models.workload import Adoption, Phase
from shoal_docker.engine import Engine

pytestmark = pytest.mark.needs("docker")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the loose files of opensandbox-server are looked for."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / ".opensandbox" / "metadata"


def unknown(sandbox_id: str) -> bool:
    return False


async def adopted(bench: Bench, make: Make, labels: dict[str, str]) -> tuple[Adoption, str]:
    """What is made of a container with those labels, and its status message."""
    sandbox_id = bench.new_id()
    bench.run(sandbox_id, labels)
    return await _adopted(make, sandbox_id)


async def _adopted(make: Make, sandbox_id: str) -> tuple[Adoption, str]:
    async with make(known=unknown) as runtime:
        found = await listed(runtime, sandbox_id)
    assert found is not None
    assert found.phase is Phase.RUNNING
    assert found.adoption is not None
    return found.adoption, found.message or ""


async def test_everything_that_opensandbox_server_writes(bench: Bench, make: Make) -> None:
    expires = datetime.now(UTC) + timedelta(hours=1)
    labels = {
        "team": "red",
        "opensandbox.io/expires-at": expires.isoformat(),
        "opensandbox.io/platform-os": "linux",
        "opensandbox.io/platform-arch": "amd64",
        "opensandbox.io/access-renew-extend-seconds": "600",
        "opensandbox.io/extensions.colour": "blue",
        "com.docker.compose.project": "x",
    }
    adoption, _ = await adopted(bench, make, labels)
    assert adoption.expires_at == expires
    assert adoption.metadata == {"team": "red"}
    assert adoption.platform == PlatformSpec(os="linux", arch="amd64")
    assert adoption.extensions == {"access.renew.extend.seconds": "600", "opensandbox.extensions.colour": "blue"}
    assert adoption.entrypoint == LONG
    assert adoption.image == "shoal-test/busybox:latest"
    assert abs((adoption.created_at - datetime.now(UTC)).total_seconds()) < 60


async def test_many_of_one_image_describe_it_once(bench: Bench, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        bench.run(bench.new_id(), {"opensandbox.io/manual-cleanup": "true"})
    described: list[object] = []
    real = Engine.call

    async def call(engine: Engine, method: str, /, *args: object, **kwargs: object) -> object:
        described.extend(args if method == "inspect_image" else ())
        return await real(engine, method, *args, **kwargs)

    async with make(known=unknown) as runtime:
        monkeypatch.setattr(Engine, "call", call)
        await runtime.list()
    assert len(described) == len(set(described)) > 0


async def test_manual_clean_up(bench: Bench, make: Make) -> None:
    adoption, message = await adopted(bench, make, {"opensandbox.io/manual-cleanup": "True"})
    assert adoption.expires_at is None
    assert "expiry" not in message


@pytest.mark.parametrize("label", [{}, {"opensandbox.io/expires-at": "soon"}, {"opensandbox.io/expires-at": ""}])
async def test_an_expiry_that_cannot_be_read_ends_nothing_and_says_so(
    bench: Bench, make: Make, label: dict[str, str]
) -> None:
    adoption, message = await adopted(bench, make, label)
    assert adoption.expires_at is None
    assert "expiry cannot be read" in message


async def test_its_loose_files_are_newer_than_labels(bench: Bench, make: Make, home: Path) -> None:
    sandbox_id = bench.new_id()
    later = datetime.now(UTC) + timedelta(hours=5)
    bench.run(sandbox_id, {"a": "1", "opensandbox.io/expires-at": datetime.now(UTC).isoformat()})
    (home / "_expiration").mkdir(parents=True)
    (home / "_expiration" / f"{sandbox_id}.json").write_text(json.dumps({"expires_at": later.isoformat()}))
    (home / f"{sandbox_id}.json").write_text(json.dumps({"b": "2"}))
    adoption, _ = await _adopted(make, sandbox_id)
    assert (adoption.expires_at, adoption.metadata) == (later, {"b": "2"})
    async with make(known=unknown) as runtime:
        await runtime.delete(sandbox_id)
    assert list(filter(os.path.isfile, map(str, home.rglob("*")))) == []  # noqa: ASYNC240 - a test may block


async def test_files_that_are_no_json_are_as_good_as_none(bench: Bench, make: Make, home: Path) -> None:
    sandbox_id = bench.new_id()
    expires = datetime.now(UTC) + timedelta(hours=1)
    bench.run(sandbox_id, {"a": "1", "opensandbox.io/expires-at": expires.isoformat()})
    (home / "_expiration").mkdir(parents=True)
    (home / "_expiration" / f"{sandbox_id}.json").write_text("{")
    (home / f"{sandbox_id}.json").write_text('{"a": 1}')
    adoption, _ = await _adopted(make, sandbox_id)
    assert (adoption.expires_at, adoption.metadata) == (expires, {"a": "1"})


async def test_a_sandbox_that_bears_another_name(bench: Bench, make: Make) -> None:
    sandbox_id = bench.new_id()
    bench.run(sandbox_id, {"opensandbox.io/manual-cleanup": "true"}, name=f"renamed-{bench.new_id()}")
    await _adopted(make, sandbox_id)
    async with make(known=unknown) as runtime:
        assert (await runtime.pause(sandbox_id)).phase is Phase.PAUSED
        await runtime.delete(sandbox_id)
        assert await listed(runtime, sandbox_id) is None


async def test_a_lost_store(bench: Bench, make: Make) -> None:
    """What this server itself wrote is enough to begin anew, and says the image as the caller wrote it."""
    expires = datetime.now(UTC) + timedelta(hours=1)
    plan = bench.plan(metadata={"team": "red"}, expires_at=expires, labels={"plugin": "x", "opensandbox.io/tok": "y"})
    async with make() as runtime:
        made = await create(runtime, plan)
        assert made.adoption is None
        assert made.labels["plugin"] == "x"
        assert made.labels["opensandbox.io/tok"] == "y"
    adoption, _ = await _adopted(make, plan.id)
    assert (adoption.expires_at, adoption.metadata, adoption.image) == (expires, {"team": "red"}, plan.image)
    assert adoption.entrypoint == plan.command


# --- Labels that an image brings -------------------------------------------------------------------------------------

EVIL = """
LABEL opensandbox.io/id=00000000-0000-4000-8000-000000000000 \
      opensandbox.io/expires-at=2001-01-01T00:00:00+00:00 opensandbox.io/manual-cleanup=true \
      opensandbox.io/egress-auth-token=stolen opensandbox.io/volume-managed-by='["somebodys"]' \
      opensandbox.io/snapshot-id=other opensandbox.io/extensions.x=y opensandbox.io/http-port=22 \
      opensandbox.io/sidecar-for=00000000-0000-4000-8000-000000000000 \
      opensandbox.io/egress-sidecar-for=00000000-0000-4000-8000-000000000000 \
      opensandbox.io/anything=else maintainer=somebody
"""


@pytest.mark.parametrize("mode", ["bridge", "host"])
async def test_reserved_labels_of_an_image_are_blanked(bench: Bench, make: Make, mode: str) -> None:
    expires = datetime.now(UTC) + timedelta(hours=1)
    plan = bench.plan(image=bench.image(EVIL.strip()), expires_at=expires, metadata={"mine": "yes"})
    async with make(network_mode=mode) as runtime:
        made = await create(runtime, plan)
        assert made.id == plan.id
        assert "stolen" not in made.labels.values()
        assert "22" not in (made.public_address(8080) or "").split(":")
    bears = bench.container(plan.id).labels
    ours = ("id", "expires-at", "http-port", "embedding-proxy-port", "server", "image")
    assert {bears[key] for key in bears if key.startswith("opensandbox.io/") and key.split("/")[1] not in ours} == {""}
    adoption, _ = await _adopted(make, plan.id)
    assert (adoption.expires_at, adoption.snapshot_id, adoption.extensions) == (expires, None, {})
    assert adoption.metadata == {"mine": "yes"}, "an image's own labels are nobody's metadata"


async def test_a_container_whose_id_is_its_images_is_no_sandbox(bench: Bench, make: Make) -> None:
    source = bench.new_id()
    image = bench.image(f"LABEL opensandbox.io/id={source}")
    bench.client.containers.run(image, LONG, detach=True, name=f"by-hand-{bench.new_id()}")
    async with make(known=unknown) as runtime:
        assert await listed(runtime, source) is None


async def test_a_pod_of_a_cluster_on_the_same_engine_is_no_sandbox_here(bench: Bench, make: Make) -> None:
    pods = bench.new_id()
    bench.run(pods, {"io.kubernetes.pod.uid": pods}, name=f"k8s_POD_{pods}_0")
    async with make(known=lambda sandbox_id: False) as runtime:
        assert await listed(runtime, pods) is None
        await runtime.delete(pods)
    assert bench.client.containers.get(f"k8s_POD_{pods}_0").status == "running"


@pytest.mark.parametrize("wrong", ["../../etc/passwd", "x", ""])
async def test_an_id_that_is_no_id_is_passed_over(bench: Bench, make: Make, wrong: str) -> None:
    bench.run(bench.new_id(), {"opensandbox.io/id": wrong})
    async with make(known=unknown) as runtime:
        assert all(len(workload.id) == 36 for workload in await runtime.list())


async def test_a_record_needs_no_adoption(bench: Bench, make: Make) -> None:
    sandbox_id = bench.new_id()
    bench.run(sandbox_id, {"opensandbox.io/manual-cleanup": "true"})
    async with make(known=lambda each: True) as runtime:
        found = await listed(runtime, sandbox_id)
    assert found is not None
    assert replace(found, adoption=None) == found
