"""`server_with`: a real server for plugin tests, that keeps to its test."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from shoal.errors import ConfigError
from shoal.plugin import hookimpl
from shoal.plugin.interfaces import Observer, Transition
from shoal.testing import server_with

BODY = {"image": {"uri": "any"}, "entrypoint": ["true"], "resourceLimits": {}, "timeout": 600}


class Witness(Observer):
    """A plugin without a runtime."""

    name = "witness"

    def __init__(self) -> None:
        self.states: list[str | None] = []

    def transition(self, event: Transition) -> None:
        self.states.append(event.after)

    @hookimpl
    def shoal_register_observers(self) -> list[Observer]:
        return [self]


async def test_a_plugin_without_a_runtime_gets_one_in_memory() -> None:
    witness = Witness()
    async with server_with(witness=witness) as server, httpx.AsyncClient(base_url=server.url) as client:
        assert (await client.get("/ready")).json()["components"] == {
            "pretend_runtime/runtime/pretend": "ok",
            "sqlite_store/store/sqlite": "ok",
            "witness/observer/witness": "ok",
        }
        made = (await client.post("/v1/sandboxes", json=BODY)).json()["id"]
        assert (await client.get(f"/v1/sandboxes/{made}?wait=Running")).json()["status"]["state"] == "Running"
        for operation, state in (("pause", "Paused"), ("resume", "Running")):
            await client.post(f"/v1/sandboxes/{made}/{operation}")
            assert (await client.get(f"/v1/sandboxes/{made}?wait={state}")).json()["status"]["state"] == state
        assert (await client.delete(f"/v1/sandboxes/{made}")).status_code == 204
        home = server.home
        assert (home / "shoal.db").exists()
    assert witness.states == ["Pending", "Running", "Pausing", "Paused", "Resuming", "Running", "Stopping", None]
    assert not home.exists()


async def test_nothing_of_the_users_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    before = signal.getsignal(signal.SIGTERM)
    async with server_with(witness=Witness()):
        assert signal.getsignal(signal.SIGTERM) is before
    assert content(tmp_path) == []


def content(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def test_a_second_server_finds_what_the_first_one_left(tmp_path: Path) -> None:
    async with server_with(home=tmp_path, witness=Witness()):
        pass
    assert (tmp_path / "shoal.db").exists()
    config = {"server": {"max_sandbox_timeout_seconds": 60}}
    async with server_with(config, home=tmp_path) as server, httpx.AsyncClient(base_url=server.url) as client:
        assert (await client.post("/v1/sandboxes", json=BODY)).status_code == 400


async def test_a_wrong_configuration_is_told_as_at_a_start() -> None:
    with pytest.raises(ConfigError, match=r"^\[witness\]: no enabled plugin owns this section"):
        async with server_with({"witness": {}}, witness=Witness()):
            pass


def test_the_pytest_plugin_does_not_import_the_server() -> None:
    code = "import shoal.testing.pytest_plugin, sys; print('shoal.app' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
