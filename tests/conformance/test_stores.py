"""The conformance kit for stores, on SQLite and on the example of docs/writing-a-store.md."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType

import httpx
import pytest
from tests.docs.pages import parts, plugin

from shoal.errors import ConfigError
from shoal.testing import server_with
from shoal.testing.store_conformance import StoreConformance, StoreHarness
from shoal_sqlite.sqlite import SqliteStore


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """The journal of the page."""
    [part] = [part for part in parts("writing-a-store.md") if part.heading == "A complete store"]
    [(_, source)] = part.blocks
    return plugin(source)


class TestSqlite(StoreConformance):
    """The default store."""

    @pytest.fixture
    def store_conformance(self, tmp_path: Path) -> StoreHarness:
        return StoreHarness(make=lambda: SqliteStore(tmp_path / "shoal.db"))


class TestJournal(StoreConformance):
    """The example."""

    @pytest.fixture
    def store_conformance(self, tmp_path: Path, example: ModuleType) -> StoreHarness:
        return StoreHarness(make=lambda: example.JournalStore(tmp_path / "journal"))


BREAKS = {
    "test_remove_keeps_the_key_and_may_be_repeated": ('("plan", sandbox_id, None))', "*KEYS(self))"),
    "test_save_replaces_the_record_and_forgets_the_plan_only_if_told": ("if forget_plan else []", "if False else []"),
    "test_an_id_that_is_taken_is_a_conflict_that_changes_nothing": (
        'record.id not in journal.tables["sandbox"]',
        "True",
    ),
    "test_forget_keys_drops_those_before_and_no_others": ("key.expires_at < before", "True"),
    "test_what_was_answered_survives_a_kill": ("os.pwrite(self._file, line, self._size)", "len(line)"),
    "test_pools_are_inserted_replaced_and_removed": ("each.name != pool.name or each.id == pool.id", "True"),
}
"""Tests of the kit, and a change of the example that breaks the rule of each."""


@pytest.mark.parametrize("name", BREAKS)
def test_the_kit_finds_a_store_that_breaks_a_rule(tmp_path: Path, name: str) -> None:
    [part] = [part for part in parts("writing-a-store.md") if part.heading == "A complete store"]
    source, (right, wrong) = part.blocks[0][1], BREAKS[name]
    assert source.count(right) == 1
    broken = plugin(source.replace(right, wrong))
    vars(broken)["KEYS"] = lambda store: [("key", key, None) for key in store._journal.tables["key"]]
    harness = StoreHarness(make=lambda: broken.JournalStore(tmp_path / "journal"))
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        run(getattr(StoreConformance(), name), harness)


def run(test: Callable[[StoreHarness], Awaitable[None] | None], harness: StoreHarness) -> None:
    """One test of the kit, on a loop of its own."""
    outcome = test(harness)
    if inspect.iscoroutine(outcome):
        asyncio.run(outcome)


async def test_the_example_serves_and_sandboxes_outlive_a_restart(tmp_path: Path, example: ModuleType) -> None:
    body = {"image": {"uri": "any"}, "entrypoint": ["true"], "resourceLimits": {}, "timeout": 60}
    config = {"store": {"type": "journal"}}
    async with (
        server_with(config, home=tmp_path, journal_store=example) as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        assert "journal_store/store/journal" in (await client.get("/ready")).json()["components"]
        made = (await client.post("/v1/sandboxes", json=body)).json()["id"]
        await client.get(f"/v1/sandboxes/{made}?wait=Running&timeout=30")
        assert made.encode() in (tmp_path / "shoal.db").read_bytes()


async def test_a_line_that_was_cut_off_is_left_out_and_one_that_is_damaged_stops_the_start(
    tmp_path: Path, example: ModuleType
) -> None:
    journal = tmp_path / "journal"
    for content, fits in ((b'[["plan","a",nu', True), (b"[]\nrubbish\n", False)):
        journal.write_bytes(content)
        store = example.JournalStore(journal)
        if fits:
            await store.start()
        else:
            with pytest.raises(ConfigError, match="line 2 cannot be read"):
                await store.start()
        await store.stop()
