"""An engine that stops, hangs or has no room left: clear answers meanwhile, definite states, nothing lost or left."""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from tests.docker_runtime.engines import IMAGE
from tests.docker_runtime.own_engine import OwnEngine, own_engine
from tests.support.servers import ServerProcess
from tests.support.waiting import eventually

pytestmark = [pytest.mark.needs("docker", "dockerd"), pytest.mark.timeout(300)]

Serve = Callable[..., ServerProcess]
PATIENCE = 60.0
RETURN_SECONDS = 5.0
"""How soon after an engine's return the view must be right."""
COMMAND = ["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done"]
BODY = {"image": {"uri": IMAGE}, "entrypoint": COMMAND, "timeout": 3600, "resourceLimits": {}}
SETTLED = {"Running", "Failed", "Terminated"}


class Api:
    """Requests to one server, and a look at its engine."""

    def __init__(self, server: ServerProcess, engine: OwnEngine) -> None:
        self.http = httpx.Client(base_url=server.base, timeout=60)
        self.engine = engine

    def create(self, *wanted: str) -> Any:
        """A new sandbox, once it is in one of those states."""
        answer = self.http.post("/v1/sandboxes", json=BODY)
        assert answer.status_code == 202, answer.text
        return self.until(answer.json()["id"], *wanted)

    def until(self, sandbox_id: str, *wanted: str) -> Any:
        deadline = time.monotonic() + PATIENCE
        while (item := self.http.get(f"/v1/sandboxes/{sandbox_id}").json())["status"]["state"] not in wanted:
            assert time.monotonic() < deadline, item
            time.sleep(0.05)
        return item

    def view(self) -> dict[str, str]:
        """State by id, as the server shows it."""
        items = self.http.get("/v1/sandboxes?pageSize=200").json()["items"]
        return {item["id"]: item["status"]["state"] for item in items}

    def truth(self) -> dict[str, str]:
        """The same, as the engine's containers have it."""
        with docker_client(self.engine) as client:
            found = client.api.containers(all=True, filters={"label": "opensandbox.io/id"})
        return {each["Labels"]["opensandbox.io/id"]: each["State"] for each in found}

    def agrees(self) -> bool:
        """Whether every container is shown as it is, and nothing that has none as if it ran."""
        shown, there = self.view(), self.truth()
        as_it_is = all(shown.get(each) == {"running": "Running", "exited": "Failed"}.get(there[each]) for each in there)
        return as_it_is and {each for each in shown if shown[each] == "Running"} <= set(there)


@contextmanager
def docker_client(engine: OwnEngine) -> Iterator[Any]:
    client = docker.DockerClient(base_url=engine.host, timeout=60)
    try:
        yield client
    finally:
        client.close()


class Load:
    """Clients that create and read until they are told to stop."""

    def __init__(self, server: ServerProcess, read: str) -> None:
        self.accepted: set[str] = set()
        self.refused: Counter[str] = Counter()
        self.reads: Counter[int] = Counter()
        self.slowest = 0.0
        self._base, self._read = server.base, read
        self._over = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._creates, self._creates, self._gets)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _creates(self) -> None:
        with httpx.Client(base_url=self._base, timeout=60) as http:
            while not self._over.wait(0.2):
                answer = http.post("/v1/sandboxes", json=BODY)
                if answer.status_code == 202:
                    self.accepted.add(answer.json()["id"])
                else:
                    self.refused[f"{answer.status_code} {answer.json()['code']}"] += 1

    def _gets(self) -> None:
        with httpx.Client(base_url=self._base, timeout=60) as http:
            for path in itertools.cycle((f"/v1/sandboxes/{self._read}", "/v1/sandboxes", "/health")):
                begun = time.monotonic()
                self.reads[http.get(path).status_code] += 1
                self.slowest = max(self.slowest, time.monotonic() - begun)
                if self._over.wait(0.02):
                    return


@pytest.mark.parametrize("live_restore", [True, False], ids=["sandboxes-live-on", "sandboxes-end"])
def test_stopped_and_started_again_under_load(docker_server: Serve, *, live_restore: bool) -> None:
    with own_engine(live_restore=live_restore) as engine:
        server = docker_server(host=engine.host, network_mode="none")
        api = Api(server, engine)
        lived = api.create("Running")["id"]
        with Load(server, lived) as load:
            eventually(lambda: len(load.accepted) >= 4)
            engine.stop()
            eventually(lambda: load.refused.total() > 0)
            assert api.http.post(f"/v1/sandboxes/{lived}/pause").status_code in (409, 503)
        assert set(load.refused) == {"503 DOCKER::ENGINE_UNAVAILABLE"}
        assert set(load.reads) == {200}, "reads are answered from memory"
        engine.start()
        begun = time.monotonic()
        eventually(api.agrees)
        assert time.monotonic() - begun < RETURN_SECONDS
        assert api.view()[lived] == ("Running" if live_restore else "Failed")
        for sandbox_id in load.accepted:
            assert api.until(sandbox_id, *SETTLED), "what was accepted is not lost"
        api.create("Running")
        assert api.agrees()
        remove_all(api)
        server.stop()


def test_one_that_hangs(docker_server: Serve) -> None:
    with own_engine() as engine:
        server = docker_server(host=engine.host, network_mode="none", api_timeout=2)
        api = Api(server, engine)
        lived = api.create("Running")["id"]
        engine.hang()
        with Load(server, lived) as load:
            frozen = api.http.post(f"/v1/sandboxes/{lived}/pause")
            assert (frozen.status_code, frozen.json()["code"]) == (503, "DOCKER::ENGINE_TIMEOUT")
            eventually(lambda: load.refused.total() + len(load.accepted) >= 4)
        assert set(load.reads) == {200}
        assert load.slowest < 2, "nothing that reads waits for the engine"
        engine.go_on()
        for sandbox_id in (lived, *load.accepted):
            api.until(sandbox_id, "Paused", *SETTLED)
        api.create("Running")
        remove_all(api)
        server.stop()


def test_no_room_left(docker_server: Serve, tmp_path: Path) -> None:
    """Neither for execd's files, nor for a sandbox's."""
    with own_engine(megabytes=64) as engine:
        server = docker_server(host=engine.host, network_mode="none")
        api = Api(server, engine)
        for _ in range(2):
            with filled(engine):
                failed = api.create("Failed")
                assert "no space left on device" in failed["status"]["message"]
                assert api.truth() == {}
            api.http.delete(f"/v1/sandboxes/{failed['id']}").raise_for_status()
            made = api.create("Running")
            api.http.delete(f"/v1/sandboxes/{made['id']}").raise_for_status()
        remove_all(api)
        server.stop()


@contextmanager
def filled(engine: OwnEngine) -> Iterator[None]:
    """Not a block is free in the engine's store."""
    filler = engine.log.with_name("filler")
    try:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        assert shutil.disk_usage(filler.parent).free == 0
        yield
    finally:
        filler.unlink()


def remove_all(api: Api) -> None:
    """Through the server: the engine then has no container of ours, and no volume but execd's."""
    for sandbox_id in api.view():
        assert api.http.delete(f"/v1/sandboxes/{sandbox_id}").status_code in (204, 404)
    eventually(lambda: api.truth() == {})
    with docker_client(api.engine) as client:
        volumes = client.api.volumes()["Volumes"] or []
        assert all(volume["Name"].startswith("opensandbox-execd-") for volume in volumes)
    api.http.close()
