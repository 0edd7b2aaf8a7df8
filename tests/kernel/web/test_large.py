"""Large bodies: bounded, and understood on a thread, so that nobody else waits for them."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx
import pytest
from tests.kernel.web.wired import Web

from shoal.http.parse import LARGE_BODY, MAX_VALUES, BodyDecoder
from shoal.models.requests import CreateSandbox
from shoal.models.rules import MAX_ITEMS

GOOD: dict[str, Any] = {"image": {"uri": "x"}, "entrypoint": ["x"], "resourceLimits": {}}
HEADERS = {"Content-Type": "application/json"}
PADDING = {"extensions": {"padding": "x" * LARGE_BODY}}


def numbered(count: int) -> dict[str, str]:
    return {f"k{number}": "v" for number in range(count)}


@pytest.mark.parametrize(
    ("fields", "loc"),
    [
        ({"metadata": numbered(MAX_ITEMS + 1)}, ["body", "metadata"]),
        ({"env": numbered(MAX_ITEMS + 1)}, ["body", "env"]),
        ({"entrypoint": ["x"] * (MAX_ITEMS + 1)}, ["body", "entrypoint"]),
        (
            {"networkPolicy": {"egress": [{"action": "allow", "target": "x"}] * (MAX_ITEMS + 1)}},
            ["body", "networkPolicy", "egress"],
        ),
        ({"metadata": numbered(MAX_VALUES)}, ["body"]),
        ({"entrypoint": [1] * (MAX_VALUES + 1)}, ["body"]),
    ],
)
async def test_too_many_items_are_refused(
    client: httpx.AsyncClient, web: Web, fields: dict[str, Any], loc: list[str]
) -> None:
    answer = await client.post("/v1/sandboxes", json={**GOOD, **fields})
    assert answer.status_code == 422
    [found] = answer.json()["detail"]
    assert (found["type"], found["loc"]) == ("too_long", loc)
    assert "create" not in web.sandboxes.calls


async def test_too_many_items_of_a_patch_are_refused(client: httpx.AsyncClient, web: Web) -> None:
    answer = await client.patch(f"/v1/sandboxes/{web.sandboxes.add()}/metadata", json=numbered(MAX_ITEMS + 1))
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["body", "metadata"])


async def test_as_many_as_are_allowed_are_taken(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/sandboxes", json={**GOOD, "env": numbered(MAX_ITEMS)})
    assert answer.status_code == 202


@pytest.mark.parametrize(("fields", "elsewhere"), [({}, False), (PADDING, True)])
async def test_a_large_body_is_understood_on_a_thread(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], *, elsewhere: bool
) -> None:
    threads: list[threading.Thread] = []
    parse = BodyDecoder.parse

    def noted(self: BodyDecoder[CreateSandbox], raw: bytes) -> CreateSandbox | None:
        threads.append(threading.current_thread())
        return parse(self, raw)

    monkeypatch.setattr(BodyDecoder, "parse", noted)
    assert (await client.post("/v1/sandboxes", json={**GOOD, **fields})).status_code == 202
    assert (threads[-1] is not threading.main_thread()) is elsewhere


async def test_reading_ends_with_the_hundredth_problem(client: httpx.AsyncClient) -> None:
    body = json.dumps({**GOOD, "entrypoint": [1] * 50_000})
    answer = await client.post("/v1/sandboxes", content=body, headers=HEADERS)
    assert answer.status_code == 422
    assert len(answer.json()["detail"]) == 100
