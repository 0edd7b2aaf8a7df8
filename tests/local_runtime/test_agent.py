"""The agent in local sandboxes: the real one, out of its bundle, started with the first need of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.local_runtime.agents import TOKEN, agents, ask, shell, wanted
from tests.local_runtime.machine import eventually, ignore, link, local, processes_of, settings

from shoal.plugin.interfaces import AGENT_PORT, Agent
from shoal_local.runtime import LocalRuntime


def made(base: Path, isolation: str, agent: Agent | None) -> LocalRuntime:
    return LocalRuntime(settings(base), local(isolation=isolation, network="none"), None, agent)


@pytest.fixture
async def runtime(tmp_path: Path, isolation: str, agent: Agent) -> AsyncIterator[LocalRuntime]:
    runtime = made(tmp_path, isolation, agent)
    await runtime.start()
    yield runtime
    for workload in await runtime.list():
        await runtime.delete(workload.id)
    await runtime.stop()


async def test_it_starts_with_the_first_need_and_once(runtime: LocalRuntime) -> None:
    plan = wanted()
    await runtime.create(plan, ignore)
    assert agents(plan.id) == []
    answers = await asyncio.gather(*(ask(runtime, plan.id, "/ping") for _ in range(8)))
    assert {answer.split(b"\r\n")[0] for answer in answers} == {b"HTTP/1.1 200 OK"}
    assert len(agents(plan.id)) == 1


async def test_commands_run_inside(runtime: LocalRuntime) -> None:
    plan = wanted()
    await runtime.create(plan, ignore)
    first = await shell(runtime, plan.id, 'id -u; echo "$GREETING"; pwd; readlink /proc/self/ns/net')
    assert first.splitlines()[:4] == ["0", "good 'morning'", "to you", "/root"]
    assert first.splitlines()[4] != link("/proc/self/ns/net")
    await shell(runtime, plan.id, "echo mine >/root/file")
    assert await shell(runtime, plan.id, "cat /root/file; touch /.opensandbox/x || echo kept") == "mine\nkept"


async def test_it_is_as_confined_as_the_sandboxs_command(runtime: LocalRuntime) -> None:
    plan = wanted()
    await runtime.create(plan, ignore)
    look = "for p in $(pidof sleep) self; do grep -E 'Seccomp:|NoNew|Cap' /proc/$p/status; done"
    inside = await shell(runtime, plan.id, look)
    lines = inside.splitlines()
    command, child = lines[: len(lines) // 2], lines[len(lines) // 2 :]
    assert len(command) >= 6
    assert child == command
    for kind in ("user", "mnt", "pid", "ipc", "uts", "net"):
        both = await shell(runtime, plan.id, f"readlink /proc/self/ns/{kind} /proc/$(pidof sleep)/ns/{kind}")
        assert len(set(both.splitlines())) == 1, kind


async def test_all_signals_are_at_their_defaults(runtime: LocalRuntime) -> None:
    """Python ignores some, and `posix_spawn` two of the C library's own."""
    plan = wanted()
    await runtime.create(plan, ignore)
    assert await shell(runtime, plan.id, "grep SigIgn /proc/self/status") == "SigIgn:\t0000000000000000"
    ignored = await shell(runtime, plan.id, "grep SigIgn /proc/$(pidof sleep)/status")
    assert int(ignored.split()[1], 16) & 0x7FFFFFFF == 0


async def test_a_terminal_is_as_plain_as_in_a_container(runtime: LocalRuntime) -> None:
    """Without a TERM shells write no sequences for terminals that may not be there."""
    plan = wanted()
    await runtime.create(plan, ignore)
    assert await shell(runtime, plan.id, "env | grep ^TERM= || echo none") == "none"


async def test_nobody_without_the_token(runtime: LocalRuntime) -> None:
    plan = wanted()
    await runtime.create(plan, ignore)
    refused = await ask(runtime, plan.id, "/command", {"command": "echo x"}, token="wrong")
    assert refused.startswith(b"HTTP/1.1 401")
    assert TOKEN not in await shell(runtime, plan.id, "cat /proc/*/environ | tr '\\0' '\\n'")


async def test_it_outlives_the_server_and_ends_with_the_sandbox(tmp_path: Path, isolation: str, agent: Agent) -> None:
    plan = wanted()
    first = made(tmp_path, isolation, agent)
    await first.start()
    await first.create(plan, ignore)
    await shell(first, plan.id, "sleep 1000 & echo $! >/root/pid")
    (before,) = agents(plan.id)
    await first.stop()
    second = made(tmp_path, isolation, agent)
    await second.start()
    assert await shell(second, plan.id, "echo again") == "again"
    assert agents(plan.id) == [before]
    await second.delete(plan.id)
    assert processes_of(plan.id) == []
    await second.stop()


async def test_a_killed_agent_is_started_again(runtime: LocalRuntime) -> None:
    plan = wanted()
    await runtime.create(plan, ignore)
    await ask(runtime, plan.id, "/ping")
    (before,) = agents(plan.id)
    os.kill(before, signal.SIGKILL)

    async def gone() -> bool | None:
        return before not in agents(plan.id) or None

    await eventually(gone)
    assert await shell(runtime, plan.id, "echo back") == "back"
    assert agents(plan.id) != [before]


async def test_it_is_paused_with_the_sandbox(runtime: LocalRuntime) -> None:
    plan = wanted()
    await runtime.create(plan, ignore)
    await ask(runtime, plan.id, "/ping")
    await runtime.pause(plan.id)
    asking = asyncio.create_task(ask(runtime, plan.id, "/ping"))
    await asyncio.sleep(0.3)
    assert not asking.done()
    await runtime.resume(plan.id)
    assert (await asking).startswith(b"HTTP/1.1 200")


async def test_a_sandbox_from_before_has_none(tmp_path: Path, isolation: str, agent: Agent) -> None:
    plan = wanted()
    first = made(tmp_path, isolation, None)
    await first.start()
    await first.create(plan, ignore)
    await first.stop()
    second = made(tmp_path, isolation, agent)
    await second.start()
    with pytest.raises(ConnectionRefusedError):
        await second.connect(plan.id, AGENT_PORT)
    await second.delete(plan.id)
    await second.stop()


def bare_image(image: Path) -> Path | None:
    """A root file system of busybox alone; None where there is none."""
    busybox = next((path for path in ("/bin/busybox", "/usr/bin/busybox") if Path(path).exists()), None)
    if busybox is None:
        return None
    (image / "bin").mkdir(parents=True)
    for folder in ("proc", "dev", "tmp", "etc", "root"):
        (image / folder).mkdir()
    (image / "bin/busybox").write_bytes(Path(busybox).read_bytes())
    (image / "bin/busybox").chmod(0o755)
    for name in ("sh", "sleep", "echo"):
        (image / "bin" / name).symlink_to("busybox")
    return image


@pytest.mark.parametrize("overlay", ["auto", "off"])
async def test_an_image_without_anything(tmp_path: Path, isolation: str, agent: Agent, overlay: str) -> None:
    """One static program is all that it has."""
    image = bare_image(tmp_path / "image")
    if image is None:
        pytest.skip("needs busybox")
    chosen = local(isolation=isolation, overlay=overlay, network="none", image_roots=[str(image.parent)])
    runtime = LocalRuntime(settings(tmp_path), chosen, None, agent)
    await runtime.start()
    plan = wanted(image=f"dir:{image}")
    await runtime.create(plan, ignore)
    assert await shell(runtime, plan.id, "echo from busybox") == "from busybox"
    await runtime.delete(plan.id)
    await runtime.stop()


async def test_an_environment_may_be_large(runtime: LocalRuntime) -> None:
    env = {f"V{number}": "x" * 60_000 for number in range(6)}
    large = replace(wanted(), env=env)
    await runtime.create(large, ignore)
    assert await shell(runtime, large.id, "echo ${#V0} ${#V5}") == "60000 60000"
