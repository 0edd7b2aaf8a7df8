"""The file services of the unmodified Python SDK, against the real program."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from opensandbox.adapters.filesystem_adapter import FilesystemAdapter
from opensandbox.adapters.isolated_adapter import IsolatedSessionsAdapter
from opensandbox.adapters.metrics_adapter import MetricsAdapter
from opensandbox.config import ConnectionConfig
from opensandbox.config.connection_sync import ConnectionConfigSync
from opensandbox.exceptions import SandboxApiException
from opensandbox.models.filesystem import (
    ContentReplaceEntry,
    DirectoryListEntry,
    MoveEntry,
    SearchEntry,
    SetPermissionEntry,
    WriteEntry,
)
from opensandbox.models.sandboxes import SandboxEndpoint
from opensandbox.sync.adapters.filesystem_adapter import FilesystemAdapterSync
from tests.agent.files.place import Place


def endpoint(place: Place) -> SandboxEndpoint:
    return SandboxEndpoint(endpoint=f"127.0.0.1:{place.agent.port}")


@pytest.fixture
async def config() -> AsyncIterator[ConnectionConfig]:
    """The SDK leaves a transport that it was given to whoever gave it."""
    async with httpx.AsyncHTTPTransport() as transport:
        yield ConnectionConfig(domain="127.0.0.1", request_timeout=timedelta(seconds=60), transport=transport)


async def test_a_day_of_files(place: Place, config: ConnectionConfig) -> None:
    files = FilesystemAdapter(config, endpoint(place))
    one, two = place.path("a/one.txt"), place.path("a/two.txt")
    await files.write_file(one, "first\nsecond\né\n", mode=644)
    await files.write_files(
        [WriteEntry(path=two, data=io.BytesIO(b"xx"), mode=600), WriteEntry(path=place.path("b"), data="")]
    )
    assert await files.read_file(one) == "first\nsecond\né\n"
    assert await files.read_file(one, offset=2, limit=1) == "second"
    assert await files.read_bytes(one, range_header="bytes=0-4") == b"first"
    info = (await files.get_file_info([one]))[one]
    assert (info.path, info.entry_type, info.mode, info.size) == (one, "file", 644, 16)
    assert abs(info.modified_at - info.created_at) < timedelta(seconds=2)
    await files.create_directories([WriteEntry(path=place.path("c/d"), mode=700)])
    assert stat.S_IMODE((place.folder / "c/d").stat().st_mode) == 0o700
    await files.set_permissions([SetPermissionEntry(path=two, mode=755)])
    await files.move_files([MoveEntry(source=two, destination=place.path("c/d/two"))])
    found = await files.replace_contents_detailed(
        [
            ContentReplaceEntry(path=place.path("c/d/two"), old_content="x", new_content="y"),
            ContentReplaceEntry(path=one, old_content="none", new_content="y"),
        ]
    )
    assert {result.path: result.replaced_count for result in found} == {place.path("c/d/two"): 2, one: 0}
    assert [entry.path for entry in await files.search(SearchEntry(path=str(place.folder), pattern="*o*"))] == [
        one,
        place.path("c/d/two"),
    ]
    listed = await files.list_directory(DirectoryListEntry(path=str(place.folder), depth=2))
    assert [entry.path for entry in listed] == [place.path(name) for name in ("a", "a/one.txt", "b", "c", "c/d")]
    await files.delete_files([one])
    with pytest.raises(SandboxApiException) as missing:
        await files.read_file(one)
    assert missing.value.status_code == 404
    await files.delete_directories([place.path("c")])
    assert place.names() == ["a", "b"]


async def test_large_content_both_ways(place: Place, config: ConnectionConfig) -> None:
    files = FilesystemAdapter(config, endpoint(place))
    content = os.urandom(20_000_000)
    await files.write_file(place.path("big"), content)
    pieces = await files.read_bytes_stream(place.path("big"))
    assert b"".join([piece async for piece in pieces]) == content


async def test_errors_say_what_is_wrong(place: Place, config: ConnectionConfig) -> None:
    files = FilesystemAdapter(config, endpoint(place))
    (place.folder / "d").mkdir()
    with pytest.raises(SandboxApiException, match="directory") as refused:
        await files.write_file(place.path("d"), "x")
    assert refused.value.status_code == 400
    assert refused.value.error.code == "INVALID_FILE"
    with pytest.raises(SandboxApiException, match="exists already"):
        await files.move_files([MoveEntry(source=place.path("d"), destination=place.path("d"))])
    if place.uid:
        with pytest.raises(SandboxApiException, match="Permission denied"):
            await files.read_file("/etc/shadow")


async def test_as_an_account(place: Place, config: ConnectionConfig) -> None:
    files = FilesystemAdapter(config, endpoint(place)).with_identity(place.uid, place.uid)
    await files.write_file(place.path("new"), "content", mode=640)
    assert await files.read_file(place.path("new")) == "content"
    assert (place.folder / "new").stat().st_uid == place.uid


def test_the_synchronous_one(place: Place) -> None:
    with httpx.HTTPTransport() as transport:
        files = FilesystemAdapterSync(ConnectionConfigSync(domain="127.0.0.1", transport=transport), endpoint(place))
        files.write_file(place.path("new"), "content")
        assert files.read_file(place.path("new")) == "content"
        assert list(files.get_file_info([place.path("new")])) == [place.path("new")]


async def test_metrics_and_isolation(place: Place, config: ConnectionConfig) -> None:
    found = await MetricsAdapter(config, endpoint(place)).get_metrics("sandbox")
    assert found.cpu_count >= 1
    assert 0 < found.memory_used_in_mib <= found.memory_total_in_mib
    assert not (await IsolatedSessionsAdapter(config, endpoint(place)).capabilities()).available
