"""POST /v1/metrics/events: what SDKs report after a create (docs/wire/api.md section 12)."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

EVENT: dict[str, Any] = {"eventType": "sandbox.create", "createDurationMs": 12, "success": True, "sandboxId": "one"}


@pytest.mark.parametrize("path", ["/metrics/events", "/v1/metrics/events"])
async def test_an_event_is_accepted_and_logged_with_its_sdk(client: httpx.AsyncClient, path: str) -> None:
    with capture_logs() as logs:
        answer = await client.post(path, json=EVENT, headers={"User-Agent": "x opensandbox-PYTHON-sdk/1.1.1"})
    assert (answer.status_code, answer.content) == (204, b"")
    told = next(line for line in logs if line["event"] == "sandbox create reported")
    assert (told["sdk"], told["sdk_version"], told["duration_ms"]) == ("python", "1.1.1", 12)


@pytest.mark.parametrize("change", [{"eventType": "other"}, {"createDurationMs": -1}, {"success": None}])
async def test_a_malformed_event_is_refused(client: httpx.AsyncClient, change: dict[str, Any]) -> None:
    assert (await client.post("/v1/metrics/events", json={**EVENT, **change})).status_code == 422
