"""Each sandbox in a network of its own, and the server's way into it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
from pathlib import Path

import msgspec
import pytest
from tests.local_runtime.machine import PATIENCE, Start, eventually, ignore, local, plan, run

from shoal.errors import ConfigError, EngineFailure, ShoalError
from shoal.models.workload import Phase
from shoal_local.network import client, modes
from shoal_local.runtime import LocalRuntime

PYTHON = "/usr/bin/python3"
SERVE = (
    "import socket, sys\n"
    "s = socket.socket(getattr(socket, sys.argv[1])); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\n"
    "s.bind((sys.argv[2], int(sys.argv[3]))); s.listen(64)\n"
    "while True: c, _ = s.accept(); c.sendall(b'hello from ' + sys.argv[4].encode()); c.close()\n"
)

needs_python = pytest.mark.skipif(not Path(PYTHON).exists(), reason="needs python3 in /usr/bin")


@pytest.fixture
async def runtime(start: Start, isolation: str) -> LocalRuntime:
    """Without a way out, whether pasta is installed here or not."""
    return await start(local(isolation=isolation, network="none"))


async def serving(runtime: LocalRuntime, port: int, name: str = "x", *at: str) -> str:
    family, host = at or ("AF_INET", "127.0.0.1")
    wanted = plan(PYTHON, "-c", SERVE, family, host, str(port), name)
    made = await runtime.create(wanted, ignore)
    assert (made.tunnelled, made.host, made.address(port)) == (True, None, None)
    return wanted.id


async def greeting(runtime: LocalRuntime, sandbox_id: str, port: int) -> str | None:
    """What the port says; None if nothing listens."""
    try:
        sock = await runtime.connect(sandbox_id, port)
    except ConnectionRefusedError:
        return None
    with sock:
        data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 100), PATIENCE)
    return data.decode()


@needs_python
@pytest.mark.parametrize("port", [80, 8080, 44772])
async def test_two_sandboxes_listen_on_one_port(runtime: LocalRuntime, port: int) -> None:
    one, two = await serving(runtime, port, "one"), await serving(runtime, port, "two")
    for _ in range(6):  # more than are in stock
        assert await eventually(lambda: greeting(runtime, one, port)) == "hello from one"
        assert await eventually(lambda: greeting(runtime, two, port)) == "hello from two"
    with pytest.raises(ConnectionRefusedError):
        await runtime.connect(one, port + 1)


async def test_a_port_on_which_nobody_listens_is_refused_always(runtime: LocalRuntime) -> None:
    """A socket that gets the port of its destination as its own is connected to itself, without anybody there."""
    wanted = plan("sleep", "600")
    await runtime.create(wanted, ignore)
    (sock,) = await runtime._dialler._make(wanted.id, socket.AF_INET, 1)
    sock.bind(("127.0.0.1", 40_000))
    with pytest.raises(ConnectionRefusedError):
        await runtime._dialler._connect(wanted.id, sock, 40_000)


@needs_python
async def test_a_port_of_ipv6_alone(runtime: LocalRuntime) -> None:
    made = await serving(runtime, 8080, "six", "AF_INET6", "::1")
    assert await eventually(lambda: greeting(runtime, made, 8080)) == "hello from six"


@needs_python
async def test_it_is_reached_again_after_a_restart_and_after_the_broker_was_killed(
    start: Start, isolation: str
) -> None:
    runtime = await start(local(isolation=isolation))
    made = await serving(runtime, 8080, "still")
    assert await eventually(lambda: greeting(runtime, made, 8080))
    runtime = await start(local(isolation=isolation))
    assert await greeting(runtime, made, 8080) == "hello from still"
    os.kill(runtime._keeper.broker._pid, signal.SIGKILL)
    for _ in range(6):
        assert await greeting(runtime, made, 8080) == "hello from still"


@needs_python
async def test_what_has_ended_is_not_reached_and_leaves_nothing_open(runtime: LocalRuntime) -> None:
    made = await serving(runtime, 8080)
    assert await eventually(lambda: greeting(runtime, made, 8080))
    await runtime.delete(made)
    with pytest.raises((OSError, ShoalError)):
        await runtime.connect(made, 8080)
    assert runtime._dialler._stock == {}


@needs_python
async def test_many_connections_at_once(runtime: LocalRuntime) -> None:
    made = await serving(runtime, 8080)
    assert await eventually(lambda: greeting(runtime, made, 8080))
    assert set(await asyncio.gather(*(greeting(runtime, made, 8080) for _ in range(50)))) == {"hello from x"}


@needs_python
async def test_a_cancelled_connect_leaves_no_socket(runtime: LocalRuntime) -> None:
    made = await serving(runtime, 8080)
    assert await eventually(lambda: greeting(runtime, made, 8080))
    runtime._dialler.forget(made)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        task = asyncio.create_task(runtime.connect(made, 8080))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def same() -> bool | None:
        return len(os.listdir("/proc/self/fd")) <= before or None  # noqa: PTH208

    await eventually(same)


@needs_python
async def test_the_host_is_out_of_sight(runtime: LocalRuntime) -> None:
    """Its loopback, its abstract sockets, its interfaces; and there is no way to change the own network."""
    abstract = f"\0shoal-test-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(abstract)
        unix.listen()
        script = (
            "import fcntl, os, socket, struct\n"
            "def tried(name, act):\n"
            "    try: act(); print(name, 'WORKED')\n"
            "    except OSError as error: print(name, 'failed')\n"
            f"tried('loopback', lambda: socket.create_connection(('127.0.0.1', {tcp.getsockname()[1]})))\n"
            f"tried('abstract', lambda: socket.socket(socket.AF_UNIX).connect({abstract!r}))\n"
            "tried('outside', lambda: socket.create_connection(('192.0.2.1', 80), 5))\n"
            "tried('packet', lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))\n"
            "tried('raw', lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))\n"
            "down = struct.pack('16sH14x', b'lo', 0)\n"
            "tried('down', lambda: fcntl.ioctl(socket.socket(), 0x8914, down))\n"
            "print(sorted(name for _, name in socket.if_nameindex()))\n"
        )
        _, output = await run(runtime, plan(PYTHON, "-c", script))
    names = ("loopback", "abstract", "outside", "packet", "raw", "down")
    assert output.splitlines() == [*(f"{name} failed" for name in names), "['lo']"]


async def test_names_are_its_own(runtime: LocalRuntime) -> None:
    _, output = await run(runtime, plan("sh", "-c", "cat /etc/hosts; echo --; cat /etc/resolv.conf"))
    hosts, _, resolver = output.partition("--\n")
    assert hosts.splitlines()[0] == "127.0.0.1\tlocalhost"
    assert any(line.split()[-1] == socket.gethostname() for line in hosts.splitlines())
    assert "nameserver" not in resolver


async def test_names_without_an_overlay(start: Start, isolation: str) -> None:
    runtime = await start(local(isolation=isolation, overlay="off", network="none"))
    _, output = await run(runtime, plan("cat", "/etc/hosts"))
    assert output.splitlines()[0] == "127.0.0.1\tlocalhost"


@pytest.mark.parametrize("network", ["host", "none"])
async def test_the_network_is_told(start: Start, isolation: str, network: str) -> None:
    runtime = await start(local(isolation=isolation, network=network))
    wanted = plan("sleep", "600")
    made = await runtime.create(wanted, ignore)
    assert (made.host, made.tunnelled) == (("127.0.0.1", False) if network == "host" else (None, True))
    text = await runtime.inspect(wanted.id)
    assert modes.WORDS[network] in text
    assert ("network (shared with this machine)" in text) is (network == "host")


async def test_a_sandbox_from_before_goes_on_on_the_hosts_network(start: Start, isolation: str) -> None:
    """Its specification says nothing of a network."""
    runtime = await start(local(isolation=isolation, network="host"))
    wanted = plan("sleep", "600")
    await runtime.create(wanted, ignore)
    file = runtime._keeper.state.box(wanted.id).path / "spec.json"
    assert "network" not in msgspec.json.decode(file.read_bytes())
    runtime = await start(local(isolation=isolation, network="none"))
    (found,) = await runtime.list()
    assert (found.phase, found.address(8080), found.tunnelled) == (Phase.RUNNING, "127.0.0.1:8080", False)
    with pytest.raises(EngineFailure, match="no network of its own"):
        await runtime.connect(wanted.id, 8080)


@needs_python
async def test_a_paused_sandbox_is_connected_to_again(runtime: LocalRuntime) -> None:
    made = await serving(runtime, 8080)
    assert await eventually(lambda: greeting(runtime, made, 8080))
    await runtime.pause(made)
    await runtime.resume(made)
    assert await greeting(runtime, made, 8080) == "hello from x"


async def test_a_broker_that_cannot_be_started_fails_the_create(
    runtime: LocalRuntime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runtime._keeper.broker.close()
    monkeypatch.setattr(client, "PROGRAM", tmp_path / "nothing.py")
    wanted = plan("sleep", "600")
    with pytest.raises(EngineFailure, match="network"):
        await runtime.create(wanted, ignore)
    await runtime.delete(wanted.id)
    assert await runtime.list() == []


def test_without_isolation_there_is_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    assert modes.choose(local(isolation="none"), client.Broker()) is None
    with pytest.raises(ConfigError, match="needs isolation"):
        modes.choose(local(isolation="none", network="none"), client.Broker())


@pytest.mark.parametrize(
    ("wanted", "there", "expected"),
    [
        ("auto", True, "internet"),
        ("auto", False, "none"),
        ("internet", True, "internet"),
        ("none", True, "none"),
        ("host", True, None),
    ],
)
def test_which_network(monkeypatch: pytest.MonkeyPatch, wanted: str, there: bool, expected: str | None) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: f"/usr/bin/{name}" if there else None)
    settings = local(network=wanted)
    found = modes.choose(settings, client.Broker())
    assert (found.mode if found else None) == expected
    told = modes.hint(settings)
    assert (told is not None and "apt-get install passt" in told) is (wanted == "auto" and not there)


def test_internet_without_the_program_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    with pytest.raises(ConfigError, match="apt-get install passt"):
        modes.choose(local(network="internet"), client.Broker())


async def test_inspect_says_what_would_give_a_way_out(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "SEARCH", "/nonexistent")
    wanted = plan("sleep", "1000")
    for network, told in (("auto", True), ("none", False)):
        runtime = await start(local(network=network))
        await runtime.create(wanted, ignore)
        text = await runtime.inspect(wanted.id)
        assert "own, with no way out" in text
        assert ("apt-get install passt" in text) is told
        await runtime.delete(wanted.id)
