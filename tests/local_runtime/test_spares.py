"""Networks made in advance: each goes to one sandbox, and none is left behind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.local_runtime.machine import Start, eventually, ignore, local, plan, processes_of, run

from shoal_local.network import modes, outward
from shoal_local.network.client import Broker
from shoal_local.network.spares import Spares
from shoal_local.run.launch import Launcher
from shoal_local.run.process import stat_fields
from shoal_local.runtime import LocalRuntime
from shoal_local.state.box import Box

PASTA = shutil.which("pasta", path=modes.SEARCH)
pytestmark = pytest.mark.skipif(PASTA is None, reason="pasta is not installed")
CLOSED = """
import socket
try: socket.create_connection(("10.1.2.3", 80), 5)
except OSError as error: print(error.errno)
print(open("/proc/net/dev").read().count("eth0"))
"""


@pytest.fixture
async def runtime(start: Start, isolation: str) -> LocalRuntime:
    try:
        return await start(local(isolation=isolation, network="internet", spare_networks=1))
    except Exception as error:
        pytest.skip(f"sandboxes get no way to the internet here: {error}")


def over(pid: int) -> bool:
    """Has it ended? Whoever inherited it may not have collected it yet."""
    fields = stat_fields(pid)
    return fields is None or fields[0] in ("Z", "X")


async def spare(runtime: LocalRuntime) -> int:
    """The process of the network that is in stock."""

    async def there() -> int | None:
        stock = runtime._keeper._spares._stock
        return stock[0].process.pid if stock else None

    return await eventually(there)


def network_of(runtime: LocalRuntime, sandbox_id: str) -> tuple[int | None, int]:
    """The process that connects the sandbox, and its namespace."""
    started = runtime._keeper.started(sandbox_id)
    process = None if started.net is None else started.net.pid
    return process, os.stat(f"/proc/{started.top.pid}/ns/net").st_ino  # noqa: PTH116


async def sleeping(runtime: LocalRuntime) -> str:
    wanted = plan("sleep", "600")
    await runtime.create(wanted, ignore)
    return wanted.id


async def test_each_sandbox_takes_another_one(runtime: LocalRuntime) -> None:
    first = await sleeping(runtime)
    ready = await spare(runtime)
    second = await sleeping(runtime)
    assert network_of(runtime, second)[0] == ready
    again = await spare(runtime)
    third = await sleeping(runtime)
    found = [network_of(runtime, each) for each in (first, second, third)]
    assert found[2][0] == again
    assert len({process for process, _ in found}) == len({inode for _, inode in found}) == 3


async def test_two_at_once_share_nothing(runtime: LocalRuntime) -> None:
    await sleeping(runtime)
    await spare(runtime)
    both = await asyncio.gather(sleeping(runtime), sleeping(runtime))
    found = [network_of(runtime, each) for each in both]
    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]


async def test_it_is_connected_and_closed_before_anybody_runs_in_it(runtime: LocalRuntime) -> None:
    await sleeping(runtime)
    ready = await spare(runtime)
    wanted = plan("python3", "-c", CLOSED)
    _, said = await run(runtime, wanted)
    assert said.split() == ["113", "1"], said  # no route to host: prohibited
    assert runtime._keeper.started(wanted.id).net == runtime._keeper.state.box(wanted.id).net()
    assert runtime._keeper.state.box(wanted.id).net().pid == ready  # type: ignore[union-attr]


async def test_it_ends_with_its_sandbox(runtime: LocalRuntime) -> None:
    await sleeping(runtime)
    ready = await spare(runtime)
    sandbox_id = await sleeping(runtime)
    assert network_of(runtime, sandbox_id)[0] == ready
    await runtime.delete(sandbox_id)
    assert over(ready)


async def test_it_is_found_with_a_sandbox_that_was_never_recorded_as_started(runtime: LocalRuntime) -> None:
    await sleeping(runtime)
    ready = await spare(runtime)
    sandbox_id = await sleeping(runtime)
    assert network_of(runtime, sandbox_id)[0] == ready
    (runtime._keeper.state.box(sandbox_id).path / "started").unlink()
    await runtime.delete(sandbox_id)
    assert over(ready)


async def test_none_is_left_when_the_server_stops(runtime: LocalRuntime, start: Start, isolation: str) -> None:
    await sleeping(runtime)
    ready = await spare(runtime)
    await start(local(isolation=isolation, network="internet", spare_networks=0))  # stops the one before
    assert over(ready)
    assert entries(runtime._keeper.state.spares) == []


async def test_none_is_made_where_none_is_wanted(start: Start, isolation: str) -> None:
    runtime = await start(local(isolation=isolation, network="none"))
    await sleeping(runtime)
    runtime._keeper.stock()
    assert runtime._keeper._spares._stock == []


async def test_one_that_has_ended_or_has_another_address_to_close_is_not_used(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sleeping(runtime)
    ready = await spare(runtime)
    os.kill(ready, signal.SIGKILL)

    async def gone() -> bool | None:
        return over(ready) or None

    await eventually(gone)
    assert network_of(runtime, await sleeping(runtime))[0] != ready
    ready = await spare(runtime)
    closed = [*outward.closed(), "8.8.4.4/32"]
    monkeypatch.setattr(outward, "closed", lambda: closed)
    assert network_of(runtime, await sleeping(runtime))[0] != ready
    assert over(ready)


async def test_a_sandbox_starts_without_the_launcher(runtime: LocalRuntime) -> None:
    await sleeping(runtime)
    await spare(runtime)
    os.kill(runtime._keeper._launcher._pid, signal.SIGKILL)
    assert network_of(runtime, await sleeping(runtime))[0] is not None


def test_what_fails_is_not_tried_for_ever(tmp_path: Path) -> None:
    launcher, broker = Launcher(), Broker()
    spares = Spares(tmp_path, 1, launcher)
    broken = modes.Network("internet", broker, "/bin/false")
    with capture_logs() as logs:
        for _ in range(5):
            spares.fill(broken, shutil.which("unshare", path=modes.SEARCH))
    assert [line["again"] for line in logs if line["log_level"] == "warning"] == [True, True, False]
    assert entries(tmp_path) == []
    spares.close()
    launcher.close()
    broker.close()


SERVER = """
import sys, time
from pathlib import Path
from shoal_local.network.client import Broker
from shoal_local.run.launch import Launcher
from tests.local_runtime.test_spares import stocked
kept = stocked(Path(sys.argv[1]), Launcher(), Broker())
print("ready", flush=True)
time.sleep(600)
"""


def stocked(folder: Path, launcher: Launcher, broker: Broker) -> Spares:
    """A stock of one."""
    spares = Spares(folder, 1, launcher)
    spares.fill(modes.Network("internet", broker, PASTA), shutil.which("unshare", path=modes.SEARCH))
    assert len(spares._stock) == 1
    return spares


def entries(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir()]


def killed_server(folder: Path) -> list[int]:
    """A server with a network in stock, ended by SIGKILL; returns the processes that held it."""
    with subprocess.Popen([sys.executable, "-c", SERVER, str(folder)], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "ready\n"
            (name,) = entries(folder)
            net = Box(folder / name).net()
            assert net is not None
            assert net.alive()
            # An ordinary user may not see the variables of pasta.
            held = {net.pid, *processes_of(f"SHOAL_SANDBOX={name}")}
            assert len(held) == 2
        finally:
            server.kill()
    return list(held)


async def test_none_is_left_by_a_server_that_was_killed(tmp_path: Path) -> None:
    held = killed_server(tmp_path)

    async def gone() -> bool | None:
        return all(over(pid) for pid in held) or None

    await eventually(gone)
    Spares(tmp_path, 1, Launcher()).sweep()
    assert entries(tmp_path) == []


def test_what_no_shell_ended_is_swept(tmp_path: Path) -> None:
    launcher, broker = Launcher(), Broker()
    spares = stocked(tmp_path, launcher, broker)
    (left,) = spares._stock
    os.kill(left.holder[0], signal.SIGKILL)
    assert left.process.alive()
    Spares(tmp_path, 1, Launcher()).sweep()
    assert not left.process.alive()
    assert entries(tmp_path) == []
    spares.close()
    launcher.close()
    broker.close()
