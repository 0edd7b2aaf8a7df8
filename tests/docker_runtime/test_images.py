"""Images on a real engine: what costs a call, and what happens when one is not there."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.docker_runtime.one_container import IMAGE
from tests.support.bench import Bench

from shoal.errors import EngineFailure, InvalidRequest
from shoal_docker.engine import Engine
from shoal_docker.images import Images

pytestmark = pytest.mark.needs("docker")


class CountingEngine(Engine):
    """The real engine, and how often it was called."""

    def __init__(self) -> None:
        super().__init__(None, timeout=60, threads=8)
        self.calls: Counter[str] = Counter()

    async def call(self, method: str, /, *args: Any, **kwargs: Any) -> Any:
        self.calls[method] += 1
        return await super().call(method, *args, **kwargs)


@pytest.fixture
async def engine() -> AsyncIterator[CountingEngine]:
    engine = CountingEngine()
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
async def images(engine: CountingEngine) -> AsyncIterator[Images]:
    images = Images(engine)
    await images.start()
    await asyncio.sleep(0)  # let it begin to listen
    yield images
    await images.stop()


def silent(reason: str, message: str) -> None:
    """Progress that nobody looks at."""


async def test_what_is_known_costs_no_call(engine: CountingEngine, images: Images) -> None:
    first = await images.ensure(IMAGE, None, None, "IfNotPresent", silent)
    assert (first.reference, first.platform) == (IMAGE, f"{engine.os}/{engine.arch}")
    for spelling in (IMAGE, IMAGE.removesuffix(":latest"), "docker.io/" + IMAGE):
        # Another test may make an image meanwhile, whose event makes this one be looked up again: but not each time.
        for _ in range(20):
            assert await images.ensure(spelling, None, None, "IfNotPresent", silent) == first
    assert engine.calls["inspect_image"] < 30


async def test_events_make_it_look_again(engine: CountingEngine, images: Images, bench: Bench) -> None:
    tag = bench.image("LABEL which=first")
    first = await images.ensure(tag, None, None, "IfNotPresent", silent)
    assert first.labels["which"] == "first"
    other = bench.image("LABEL which=second")
    bench.client.images.get(other).tag(tag)
    for _ in range(1500):
        if (await images.ensure(tag, None, None, "IfNotPresent", silent)).labels["which"] == "second":
            return
        await asyncio.sleep(0.02)
    pytest.fail("no event was heard")


async def test_removed_by_force_is_noticed(images: Images, bench: Bench) -> None:
    tag = bench.image("LABEL x=y")
    await images.ensure(tag, None, None, "Never", silent)
    bench.client.images.remove(tag, force=True)
    with pytest.raises(EngineFailure, match=r"is not on the engine, and docker\.image_pull_policy is Never") as caught:
        await images.ensure_again(tag, None, None, "Never", silent)
    assert caught.value.code == "DOCKER::SANDBOX_IMAGE_PULL_FAILED"


async def test_a_missing_image_fails_in_the_registrys_own_words(images: Images) -> None:
    said: list[str] = []
    with pytest.raises(EngineFailure, match=r"could not be pulled: .*127\.0\.0\.1:9") as caught:
        await images.ensure(
            "127.0.0.1:9/nothing/here:1", None, None, "IfNotPresent", lambda reason, message: said.append(message)
        )
    assert caught.value.code == "DOCKER::SANDBOX_IMAGE_PULL_FAILED"
    assert caught.value.retry_after is None
    assert said[0] == "Pulling 127.0.0.1:9/nothing/here:1."


async def test_text_that_is_no_reference_is_refused(engine: CountingEngine, images: Images) -> None:
    with pytest.raises(InvalidRequest):
        images.check("No Such:Thing:")
    with pytest.raises(InvalidRequest):
        await images.ensure("No Such:Thing:", None, None, "IfNotPresent", silent)
    assert not engine.calls["inspect_image"]


async def test_another_platform_is_not_taken(engine: CountingEngine, images: Images) -> None:
    other = "linux/arm64" if engine.arch == "amd64" else "linux/amd64"
    with pytest.raises(EngineFailure, match=f"is for linux/{engine.arch} and not for {other}"):
        await images.ensure(IMAGE, None, other, "Never", silent)


async def test_a_snapshots_image_is_never_pulled(engine: CountingEngine, images: Images, bench: Bench) -> None:
    with pytest.raises(EngineFailure, match="not on the engine any more"):
        await images.local(f"opensandbox-snapshots:{uuid.uuid4()}")
    assert (await images.local(bench.image("LABEL a=b"))).labels["a"] == "b"


async def test_an_id_is_a_reference(images: Images, bench: Bench) -> None:
    made = bench.client.images.get(bench.image("LABEL c=d"))
    found = await images.ensure(made.id, None, None, "IfNotPresent", silent)
    assert (found.id, found.reference) == (made.id, made.id)


async def test_the_first_digits_of_an_id_are_a_reference(images: Images, bench: Bench) -> None:
    made = bench.client.images.get(bench.image("LABEL e=f"))
    digits = made.id.removeprefix("sha256:")
    for length in (12, 40):
        found = await images.ensure(digits[:length], None, None, "IfNotPresent", silent)
        assert (found.id, found.reference) == (made.id, made.id)
    bench.client.images.get(IMAGE).tag(digits[:12])
    try:
        named = await images.ensure(digits[:12], None, None, "IfNotPresent", silent)
        assert named.id == bench.client.images.get(IMAGE).id, "a name counts before an id"
    finally:
        bench.client.images.remove(digits[:12])
    with pytest.raises(EngineFailure, match="could not be pulled"):
        await images.ensure("0123456789ab", None, None, "IfNotPresent", silent)
