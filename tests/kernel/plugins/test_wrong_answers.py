"""What a plugin returns or raises in flight that it must not: named, contained, and ending in a definite state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs
from tests.support.waiting import until

from shoal.models.plan import WorkloadPlan
from shoal.models.workload import Phase, Workload
from shoal.plugin import hookimpl
from shoal.plugin.interfaces import Capabilities, LogQuery, Networking, Progress, Runtime
from shoal.testing import server_with
from shoal.testing.pretend import PretendRuntime

BODY = {"image": {"uri": "any"}, "entrypoint": ["true"], "resourceLimits": {}, "timeout": 600}
OTHER = Workload(id="another", phase=Phase.RUNNING)


class Odd(PretendRuntime):
    """Answers ``answers[method]`` where there is one, and raises it if it is an exception."""

    capabilities = Capabilities(pause=True, snapshots=True)

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, Any] = {}

    def _odd(self, method: str, answer: Any) -> Any:
        if method not in self.answers:
            return answer
        if isinstance(self.answers[method], BaseException):
            raise self.answers[method]
        return self.answers[method]

    async def create(self, plan: WorkloadPlan, progress: Progress) -> Workload:
        return self._odd("create", await super().create(plan, progress))  # type: ignore[no-any-return]

    async def pause(self, sandbox_id: str) -> Workload:
        return self._odd("pause", self._known(sandbox_id))  # type: ignore[no-any-return]

    async def logs(self, sandbox_id: str, query: LogQuery) -> str:
        return self._odd("logs", "")  # type: ignore[no-any-return]

    async def snapshot(self, sandbox_id: str, snapshot_id: str) -> str:
        return self._odd("snapshot", "image")  # type: ignore[no-any-return]


class Meddler(Networking):
    """Amends and releases as a test says."""

    name = "meddler"

    def __init__(self) -> None:
        self.amends: Callable[[WorkloadPlan], Any] = lambda plan: plan
        self.failing: BaseException | None = None
        self.let_go: list[str] = []

    async def amend(self, plan: WorkloadPlan) -> WorkloadPlan:
        return self.amends(plan)  # type: ignore[no-any-return]

    async def released(self, sandbox_id: str) -> None:
        if self.failing is not None:
            raise self.failing
        self.let_go.append(sandbox_id)


class Reef:
    def __init__(self) -> None:
        self.runtime, self.networking = Odd(), Meddler()

    @hookimpl
    def shoal_register_runtimes(self) -> list[Runtime]:
        return [self.runtime]

    @hookimpl
    def shoal_register_networking(self) -> list[Networking]:
        return [self.networking]


async def create(client: httpx.AsyncClient) -> Any:
    made = (await client.post("/v1/sandboxes", json=BODY)).json()["id"]
    return (await client.get(f"/v1/sandboxes/{made}?wait=Running&timeout=30")).json()


CREATES = [
    (None, "the runtime 'pretend' returned from create a NoneType, and not a Workload"),
    ("running", "the runtime 'pretend' returned from create a str, and not a Workload"),
    (OTHER, "the runtime 'pretend' returned from create the workload of another sandbox"),
    (ValueError("no coral"), "the runtime 'pretend' failed in an unforeseen way: ValueError: no coral"),
    (SystemExit(3), "the runtime 'pretend' tried to end the server: SystemExit: 3"),
    (asyncio.CancelledError(), "the runtime 'pretend' cancelled its own work: CancelledError"),
]


@pytest.mark.parametrize(("answer", "line"), CREATES, ids=[line.rpartition("' ")[2] for _, line in CREATES])
async def test_a_create_that_answers_wrongly_has_failed_and_is_cleaned_up(answer: object, line: str) -> None:
    reef = Reef()
    reef.runtime.answers["create"] = answer
    with capture_logs() as logs:
        async with server_with(reef=reef) as server, httpx.AsyncClient(base_url=server.url) as client:
            seen = await create(client)
            assert (seen["status"]["state"], seen["status"]["reason"]) == ("Failed", "INTERNAL_ERROR")
            assert "coral" not in seen["status"]["message"]
            assert await reef.runtime.list() == []
            del reef.runtime.answers["create"]
            assert (await create(client))["status"]["state"] == "Running"
    assert [entry["error"] for entry in logs if entry.get("plugin") == "reef" and "error" in entry] == [
        f"plugin 'reef': {line}"
    ]


@pytest.mark.parametrize("answer", [None, OTHER, KeyError("coral"), SystemExit(3)])
async def test_a_pause_that_answers_wrongly_leaves_the_sandbox_running(answer: object) -> None:
    reef = Reef()
    reef.runtime.answers["pause"] = answer
    with capture_logs() as logs:
        async with server_with(reef=reef) as server, httpx.AsyncClient(base_url=server.url) as client:
            seen = await create(client)
            refused = await client.post(f"/v1/sandboxes/{seen['id']}/pause")
            assert (refused.status_code, refused.json()["code"]) == (500, "GENERAL::INTERNAL_ERROR")
            assert (await client.get(f"/v1/sandboxes/{seen['id']}")).json()["status"]["state"] == "Running"
    assert len([entry for entry in logs if entry.get("plugin") == "reef" and "error" in entry]) == 1


async def test_diagnostics_and_snapshots_that_are_no_text_are_named() -> None:
    reef = Reef()
    reef.runtime.answers |= {"logs": None, "snapshot": None}
    with capture_logs() as logs:
        async with server_with(reef=reef) as server, httpx.AsyncClient(base_url=server.url) as client:
            seen = await create(client)
            told = await client.get(f"/v1/sandboxes/{seen['id']}/diagnostics/logs")
            assert told.status_code == 500
            snapshot = (await client.post(f"/v1/sandboxes/{seen['id']}/snapshots", json={})).json()["id"]
            while (await client.get(f"/v1/snapshots/{snapshot}")).json()["status"]["state"] == "Creating":
                pass
            assert (await client.get(f"/v1/snapshots/{snapshot}")).json()["status"]["state"] == "Failed"
    assert [entry["error"] for entry in logs if entry.get("plugin") == "reef" and "error" in entry] == [
        "plugin 'reef': the runtime 'pretend' returned from logs a NoneType, and not a text",
        "plugin 'reef': the runtime 'pretend' returned from snapshot NoneType, and not a reference",
    ]


AMENDS: list[tuple[Callable[[WorkloadPlan], object], str]] = [
    (lambda plan: None, "returned from amend a NoneType, and not a WorkloadPlan"),
    (lambda plan: replace(plan, id="another"), "returned from amend a plan of another sandbox or runtime"),
    (lambda plan: replace(plan, runtime="another"), "returned from amend a plan of another sandbox or runtime"),
    (lambda plan: replace(plan, command=[]), "returned from amend a plan without a command"),
    (lambda plan: replace(plan, command=[1]), "returned from amend a plan without a command"),
    (lambda plan: 1 / 0, "failed in an unforeseen way: ZeroDivisionError: division by zero"),
]


@pytest.mark.parametrize(("amends", "line"), AMENDS, ids=range(len(AMENDS)))
async def test_a_plan_that_is_no_plan_of_this_sandbox_is_refused(
    amends: Callable[[WorkloadPlan], object], line: str
) -> None:
    reef = Reef()
    reef.networking.amends = amends
    with capture_logs() as logs:
        async with server_with(reef=reef) as server, httpx.AsyncClient(base_url=server.url) as client:
            refused = await client.post("/v1/sandboxes", json=BODY)
            assert (refused.status_code, refused.json()["code"]) == (500, "GENERAL::INTERNAL_ERROR")
            assert (await client.get("/v1/sandboxes")).json()["pagination"]["totalItems"] == 0
    told = [entry["error"] for entry in logs if entry.get("plugin") == "reef" and "error" in entry]
    assert told == [f"plugin 'reef': the networking 'meddler' {line}"]


@pytest.mark.parametrize("error", [ValueError("no coral"), SystemExit(3), asyncio.CancelledError()])
async def test_a_sandbox_is_gone_whatever_released_raises_and_it_is_told_again(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shoal.lifecycle.networks.BACKOFF_FIRST", 0.01)
    reef = Reef()
    with capture_logs() as logs:
        async with server_with(reef=reef) as server, httpx.AsyncClient(base_url=server.url) as client:
            seen = await create(client)
            reef.networking.failing = error
            assert (await client.delete(f"/v1/sandboxes/{seen['id']}")).status_code == 204
            assert (await client.get(f"/v1/sandboxes/{seen['id']}")).status_code == 404
            reef.networking.failing = None
            await until(lambda: reef.networking.let_go == [seen["id"]])
    [line] = [entry["error"] for entry in logs if entry.get("plugin") == "reef" and "error" in entry]
    assert line.startswith(f"plugin 'reef': the networking 'meddler' failed in released: {type(error).__name__}")
