"""What a create may say about idleness, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.kernel.lifecycle.fakes import MemoryRuntime
from tests.support.sites import site

from shoal.plugin.interfaces import Capabilities
from shoal_idle.policy import ACTION, MAX_SECONDS, MIN_SECONDS, RESUME, TIMEOUT, IdlePolicy, read


@pytest.mark.parametrize("text", [str(MIN_SECONDS), str(MAX_SECONDS), " 900 ", "+900", "1_000"])
def test_a_timeout_within_its_bounds_is_read(text: str) -> None:
    assert read({TIMEOUT: text}) == IdlePolicy(timeout=float(int(text)))


@pytest.mark.parametrize("text", ["59", str(MAX_SECONDS + 1), "-900", "", "soon", "900.0", "9" * 5000])
def test_a_timeout_out_of_its_bounds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="between 60 and 2592000"):
        read({TIMEOUT: text})


@pytest.mark.parametrize(
    ("extensions", "policy"),
    [
        ({}, IdlePolicy()),
        ({"other": "x"}, IdlePolicy()),
        ({TIMEOUT: "60", ACTION: "delete"}, IdlePolicy(timeout=60.0)),
        (
            {TIMEOUT: "60", ACTION: "pause", RESUME: "on-access"},
            IdlePolicy(timeout=60.0, action="pause", on_access=True),
        ),
        ({RESUME: "on-access"}, IdlePolicy(on_access=True)),
        ({RESUME: "manual"}, IdlePolicy()),
    ],
)
def test_what_extensions_mean(extensions: dict[str, str], policy: IdlePolicy) -> None:
    assert read(extensions) == policy


@pytest.mark.parametrize(
    "extensions",
    [
        {TIMEOUT: "59"},
        {TIMEOUT: "60", ACTION: "stop"},
        {ACTION: "pause"},
        {RESUME: "yes"},
        {"access.idle.timeout": "900"},
        {"access.idle.actions": "pause"},
    ],
)
async def test_nonsense_is_a_400_that_makes_nothing(extensions: dict[str, str], tmp_path: Path) -> None:
    async with site(tmp_path, "idle_timeout") as here:
        answer = await here.create(extensions)
        assert (answer.status_code, answer.json()["code"]) == (400, "SANDBOX::INVALID_PARAMETER")
        assert (await here.http.get("/v1/sandboxes")).json()["items"] == []


@pytest.mark.parametrize(
    ("extensions", "status"),
    [({TIMEOUT: "60", ACTION: "pause"}, 400), ({RESUME: "on-access"}, 400), ({TIMEOUT: "60"}, 202)],
)
async def test_a_runtime_that_cannot_pause_is_not_asked_to(
    extensions: dict[str, str], status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryRuntime, "capabilities", Capabilities())
    async with site(tmp_path, "idle_timeout") as here:
        assert (await here.create(extensions)).status_code == status


async def test_without_the_plugin_its_extensions_are_refused_and_not_ignored(tmp_path: Path) -> None:
    async with site(tmp_path) as here:
        answer = await here.create({TIMEOUT: "900"})
        assert (answer.status_code, answer.json()["code"]) == (400, "SANDBOX::INVALID_PARAMETER")
        assert TIMEOUT in answer.json()["message"]
        assert (await here.create({"anything.else": "900", "access.renew.extend.seconds": "300"})).status_code == 202
