"""Key files that change while the server runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from shoal.plugin.interfaces import Principal
from shoal_apikey import authenticator as watching
from shoal_apikey.authenticator import ApiKeyAuthenticator
from shoal_apikey.digests import digest
from shoal_apikey.keyring import Keyring, KeyringEntry
from shoal_apikey.sources import FileSource, FixedSource

PATIENCE_SECONDS = 60


class Files:
    """Two names with a file each, and one fixed key."""

    def __init__(self, folder: Path) -> None:
        self.first = folder / "first"
        self.second = folder / "second"
        self.first.write_text("old\n")
        self.second.write_text("other\n")
        self.keyring = Keyring(
            [
                KeyringEntry(FixedSource(frozenset({digest("fixed")})), Principal(name="server")),
                KeyringEntry(FileSource(self.first), Principal(name="first")),
                KeyringEntry(FileSource(self.second), Principal(name="second")),
            ]
        )
        self.keyring.load()

    def whose(self, *keys: str) -> list[str | None]:
        principals = [self.keyring.find(digest(key)) for key in keys]
        return [principal.name if principal else None for principal in principals]

    def refresh(self) -> list[str]:
        """Look once; returns the lines logged, by severity and text."""
        with capture_logs() as logs:
            self.keyring.refresh()
        return [f"{line['log_level']}: {line['event']}" for line in logs]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


UNUSABLE = ["error: API key file cannot be used"]
REPLACED = ["info: API keys replaced"]


def test_old_and_new_key_are_in_force_together_during_a_rotation(files: Files) -> None:
    files.first.write_text("old\nnew\n")
    assert files.refresh() == REPLACED
    assert files.whose("old", "new") == ["first", "first"]
    files.first.write_text("new\n")
    files.refresh()
    assert files.whose("old", "new") == [None, "first"]


def test_a_file_replaced_by_renaming(files: Files, tmp_path: Path) -> None:
    fresh = tmp_path / "fresh"
    fresh.write_text("new")
    fresh.rename(files.first)
    files.refresh()
    assert files.whose("old", "new", "other", "fixed") == [None, "first", "second", "server"]


def test_a_change_of_the_same_size_at_the_same_instant_is_seen(files: Files) -> None:
    for key in ("aaa", "bbb", "ccc"):
        files.first.write_text(key)
        files.refresh()
        assert files.whose(key) == ["first"]


def test_nothing_is_said_when_nothing_changed(files: Files) -> None:
    assert files.refresh() == []


@pytest.mark.parametrize("bad", [b"new\nsha256:short\n", b"\xff\xfe\x00", b"n" * 70_000])
def test_a_malformed_file_changes_nothing_and_is_reported_once(files: Files, bad: bytes) -> None:
    files.first.write_bytes(bad)
    assert files.refresh() == UNUSABLE
    assert files.refresh() == []
    assert files.whose("old", "new") == ["first", None]
    files.first.write_text("new")
    assert files.refresh() == REPLACED
    assert files.whose("old", "new") == [None, "first"]


def test_an_unreadable_file_changes_nothing(files: Files) -> None:
    files.first.unlink()
    files.first.mkdir()
    assert files.refresh() == UNUSABLE
    assert files.refresh() == []
    assert files.whose("old") == ["first"]


@pytest.mark.parametrize("empty", [None, b"", b"# revoked\n"])
def test_a_file_without_keys_revokes_them_at_the_second_look(files: Files, empty: bytes | None) -> None:
    files.first.unlink()
    if empty is not None:
        files.first.write_bytes(empty)
    assert files.refresh() == []
    assert files.whose("old", "other", "fixed") == ["first", "second", "server"]
    assert files.refresh() == [*REPLACED, *UNUSABLE]
    assert files.whose("old", "other", "fixed") == [None, "second", "server"]
    assert files.refresh() == []
    files.first.write_text("old")
    assert files.refresh() == REPLACED
    assert files.whose("old") == ["first"]


def test_a_file_that_was_absent_for_an_instant_keeps_its_keys(files: Files) -> None:
    for _ in range(3):
        files.first.unlink()
        files.refresh()
        files.first.write_text("old")
        files.refresh()
    assert files.whose("old") == ["first"]


def test_two_files_may_swap_their_keys(files: Files) -> None:
    files.first.write_text("other")
    files.second.write_text("old")
    assert files.refresh() == REPLACED * 2
    assert files.whose("old", "other") == ["second", "first"]


def test_a_key_of_two_names_belongs_to_the_first_and_is_reported_once(files: Files) -> None:
    files.second.write_text("other\nold\n")
    assert files.refresh() == [*REPLACED, *UNUSABLE]
    assert files.refresh() == []
    assert files.whose("old", "other") == ["first", "second"]
    files.second.write_text("other\n")
    assert files.refresh() == REPLACED


def test_no_key_shows_in_a_log_line(files: Files) -> None:
    files.first.write_text("old-secret\nsha256:secret\n")
    files.second.write_text("new-secret\n")
    with capture_logs() as logs:
        files.keyring.refresh()
    assert len(logs) == 2
    assert "secret" not in repr(logs)


async def until_known(files: Files, key: str) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while files.keyring.find(digest(key)) is None:  # noqa: ASYNC110 - a thread changes it, and tells nobody
            await asyncio.sleep(0.01)


async def test_a_running_server_takes_over_a_changed_file(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "REFRESH_SECONDS", 0.01)
    authenticator = ApiKeyAuthenticator(files.keyring)
    await authenticator.start()
    files.first.write_text("new")
    await until_known(files, "new")
    files.first.write_text("newer")
    await until_known(files, "newer")
    await authenticator.stop()
    await authenticator.stop()


async def test_a_bug_in_a_look_does_not_end_the_watch(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "REFRESH_SECONDS", 0.01)
    authenticator = ApiKeyAuthenticator(files.keyring)
    await authenticator.start()
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def broken() -> None:
        loop.call_soon_threadsafe(failed.set)
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(files.keyring, "refresh", broken)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await failed.wait()
    files.first.write_text("new")
    await until_known(files, "new")
    await authenticator.stop()


async def test_fixed_keys_are_not_watched() -> None:
    keyring = Keyring([KeyringEntry(FixedSource(frozenset({digest("fixed")})), Principal(name="server"))])
    authenticator = ApiKeyAuthenticator(keyring)
    await authenticator.start()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "shoal-apikey-watch"]
    await authenticator.stop()
