"""Images from a real registry that wants a password: right, wrong and none; one pull for many; who may have what."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import random
import tarfile
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from docker import APIClient
from docker.errors import ImageNotFound
from tests.docker_runtime.test_images import CountingEngine, silent

from shoal.errors import EngineFailure
from shoal.models.requests import ImageAuth
from shoal.models.secret import Secret
from shoal_docker.images import EngineImage, Images, pulls

pytestmark = [pytest.mark.needs("docker"), pytest.mark.needs("registry")]

USER, PASSWORD = "shoal", "sandbank"
RIGHT = ImageAuth(username=USER, password=Secret(PASSWORD))
WRONG = ImageAuth(username=USER, password=Secret("driftwood"))
LAYERS = 3
LAYER_BYTES = 400_000


@pytest.fixture(scope="module")
def engine_api() -> Iterator[APIClient]:
    client = APIClient(version="auto", timeout=60)
    yield client
    client.close()


@pytest.fixture(scope="module")
def pushed(engine_api: APIClient) -> str:
    """An image in the registry, under a tag of this run alone."""
    reference = f"{os.environ['SHOAL_TEST_REGISTRY']}/private/shoal-layers:{uuid.uuid4().hex[:12]}"
    for line in engine_api.build(fileobj=_context(), custom_context=True, tag=reference, rm=True, decode=True):
        assert "error" not in line, line
    repository, _, tag = reference.rpartition(":")
    auth = {"username": USER, "password": PASSWORD}
    for line in engine_api.push(repository, tag=tag, auth_config=auth, stream=True, decode=True):
        assert "error" not in line, line
    engine_api.remove_image(reference, force=True)
    return reference


@pytest.fixture
def private(engine_api: APIClient, pushed: str) -> Iterator[str]:
    """That image, which the engine does not have."""
    yield pushed
    with contextlib.suppress(ImageNotFound):
        engine_api.remove_image(pushed, force=True)


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[CountingEngine]:
    """An engine for a user who has logged in nowhere."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    engine = CountingEngine()
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
async def images(engine: CountingEngine) -> AsyncIterator[Images]:
    images = Images(engine)
    await images.start()
    yield images
    await images.stop()


async def test_the_right_password(images: Images, private: str) -> None:
    said: list[tuple[str, str]] = []
    found = await images.ensure(private, RIGHT, None, "IfNotPresent", lambda *told: said.append(told))
    assert found.reference == private
    assert said[0] == ("IMAGE_PULLING", f"Pulling {private}.")
    assert len(said) < 20


async def test_a_wrong_password_and_none(images: Images, private: str) -> None:
    with pytest.raises(EngineFailure, match="unauthorized: authentication required") as caught:
        await images.ensure(private, WRONG, None, "IfNotPresent", silent)
    assert caught.value.code == "DOCKER::SANDBOX_IMAGE_PULL_FAILED"
    assert "driftwood" not in str(caught.value)
    with pytest.raises(EngineFailure, match="no basic auth credentials"):
        await images.ensure(private, None, None, "IfNotPresent", silent)


async def test_a_tag_that_the_registry_lacks(images: Images, private: str) -> None:
    with pytest.raises(EngineFailure, match="manifest unknown"):
        await images.ensure(private + "x", RIGHT, None, "IfNotPresent", silent)


async def test_the_servers_own_credentials_are_for_who_brings_none(
    images: Images, private: str, tmp_path: Path
) -> None:
    logged_in = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    registry = private.partition("/")[0]
    (tmp_path / "config.json").write_text(json.dumps({"auths": {registry: {"auth": logged_in}}}))
    assert (await images.ensure(private, None, None, "IfNotPresent", silent)).reference == private
    assert (await images.ensure(private, WRONG, None, "IfNotPresent", silent)).reference == private


async def test_what_one_may_have_is_not_given_to_all(engine: CountingEngine, images: Images, private: str) -> None:
    await images.ensure(private, RIGHT, None, "IfNotPresent", silent)
    for auth in (None, WRONG):
        for _ in range(2):
            with pytest.raises(EngineFailure, match="is here, but its registry does not give it to these credentials"):
                await images.ensure(private, auth, None, "IfNotPresent", silent)
    before = engine.calls["inspect_distribution"]
    for _ in range(5):
        await images.ensure(private, RIGHT, None, "IfNotPresent", silent)
    assert engine.calls["inspect_distribution"] == before  # asked by pulling, once


async def test_a_restarted_server_asks_again(engine: CountingEngine, images: Images, private: str) -> None:
    await images.ensure(private, RIGHT, None, "IfNotPresent", silent)
    restarted = Images(engine)
    with pytest.raises(EngineFailure, match="no basic auth credentials"):
        await restarted.ensure(private, None, None, "IfNotPresent", silent)
    found = [await restarted.ensure(private, RIGHT, None, "IfNotPresent", silent) for _ in range(3)]
    assert found[0].reference == private
    assert engine.calls["inspect_distribution"] == 2


async def test_an_id_is_no_way_round_it(images: Images, private: str) -> None:
    found = await images.ensure(private, RIGHT, None, "IfNotPresent", silent)
    for reference in (found.id, found.id.removeprefix("sha256:")):
        with pytest.raises(EngineFailure, match="no basic auth credentials"):
            await images.ensure(reference, None, None, "IfNotPresent", silent)
        assert (await images.ensure(reference, RIGHT, None, "IfNotPresent", silent)).id == found.id


async def test_never_asks_nobody(engine: CountingEngine, images: Images, private: str) -> None:
    await images.ensure(private, RIGHT, None, "IfNotPresent", silent)
    assert (await images.ensure(private, None, None, "Never", silent)).reference == private
    assert not engine.calls["inspect_distribution"]


async def test_always_pulls(images: Images, private: str) -> None:
    await images.ensure(private, RIGHT, None, "IfNotPresent", silent)
    with pytest.raises(EngineFailure, match="could not be pulled"):
        await images.ensure(private, None, None, "Always", silent)
    said: list[str] = []
    await images.ensure(private, RIGHT, None, "Always", lambda reason, message: said.append(message))
    assert said


async def test_one_pull_for_many(images: Images, private: str, engine_api: APIClient) -> None:
    with PullsSeen(engine_api, private) as pulled:
        waiting = [asyncio.create_task(images.ensure(private, RIGHT, None, "IfNotPresent", silent)) for _ in range(12)]
        refused = asyncio.create_task(images.ensure(private, WRONG, None, "IfNotPresent", silent))
        await asyncio.sleep(0)
        waiting[0].cancel()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        with pytest.raises(EngineFailure, match="unauthorized"):
            await refused
    assert isinstance(found[0], asyncio.CancelledError)
    there = (await images.ensure(private, RIGHT, None, "IfNotPresent", silent)).id
    assert {image.id for image in found[1:] if isinstance(image, EngineImage)} == {there}
    assert pulled == [private]


async def test_the_last_one_to_leave_ends_it(images: Images, private: str) -> None:
    began = asyncio.Event()
    waiting = asyncio.create_task(
        images.ensure(private, RIGHT, None, "IfNotPresent", lambda reason, message: began.set())
    )
    await began.wait()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    assert not images._pulls._flights
    assert (await images.ensure(private, RIGHT, None, "IfNotPresent", silent)).reference == private


async def test_who_waits_is_told_when_the_server_stops(images: Images, private: str) -> None:
    began = asyncio.Event()
    waiting = asyncio.create_task(
        images.ensure(private, RIGHT, None, "IfNotPresent", lambda reason, message: began.set())
    )
    await began.wait()
    await images._pulls.stop()
    (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
    assert "The server is stopping" in str(outcome) or not isinstance(outcome, BaseException)  # it may have been quick


async def test_a_pull_that_says_nothing_fails(images: Images, private: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pulls, "STALLED_SECONDS", 0.0)
    with pytest.raises(EngineFailure, match="nothing was heard"):
        await images.ensure(private, RIGHT, None, "IfNotPresent", silent)


async def test_another_platform_than_the_registry_has(images: Images, engine: CountingEngine, private: str) -> None:
    other = "linux/arm64" if engine.arch == "amd64" else "linux/amd64"
    with pytest.raises(
        EngineFailure, match=r"does not match the specified platform|no matching manifest|The registry has the image"
    ):
        await images.ensure(private, RIGHT, other, "IfNotPresent", silent)


async def test_a_registry_that_is_away_refuses_nobody(
    engine: CountingEngine, images: Images, engine_api: APIClient, private: str
) -> None:
    """Only those who were known to need credentials wait for it."""
    await images.ensure(private, RIGHT, None, "IfNotPresent", silent)
    access = images._access
    access._granted.clear()
    access._away[private.partition("/")[0]] = float("inf")
    with pytest.raises(EngineFailure, match="the registry does not answer"):
        await images.ensure(private, None, None, "IfNotPresent", silent)
    access._wanting.clear()
    assert (await images.ensure(private, None, None, "IfNotPresent", silent)).reference == private


def _context() -> io.BytesIO:
    """A build of a few layers that are the same each time, so that the registry keeps them once."""
    packed = io.BytesIO()
    chance = random.Random("layers")
    with tarfile.open(fileobj=packed, mode="w") as tar:
        lines = ["FROM shoal-test/busybox:latest"]
        for number in range(LAYERS):
            entry = tarfile.TarInfo(f"file{number}")
            entry.size = LAYER_BYTES
            tar.addfile(entry, io.BytesIO(chance.randbytes(LAYER_BYTES)))
            lines.append(f"COPY file{number} /")
        entry, text = tarfile.TarInfo("Dockerfile"), "\n".join(lines).encode()
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    packed.seek(0)
    return packed


class PullsSeen:
    """``with PullsSeen(api, reference) as pulled``: the pulls of it that the engine has finished."""

    def __init__(self, api: APIClient, reference: str) -> None:
        self._found: list[str] = []
        self._reference = reference
        self._stream = api.events(filters={"type": "image", "event": "pull"}, decode=True)
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> list[str]:
        self._thread.start()
        return self._found

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._thread.join(30)

    def _read(self) -> None:
        for event in self._stream:
            if event["Actor"]["ID"] == self._reference:
                self._found.append(event["Actor"]["ID"])
