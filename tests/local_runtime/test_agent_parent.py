"""The parent that agents are forked from: what they are, what they share, and who ends with whom."""

from __future__ import annotations

import asyncio
import ctypes
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from tests.local_runtime.agents import TOKEN, agents, ask, parents, shell, wanted
from tests.local_runtime.machine import ROOT, eventually, ignore, let_pass, local, processes_of, settings, there

from shoal.plugin.interfaces import AGENT_PORT, Agent, AgentFiles, ForkedAgent
from shoal_local.agent import parent, starter
from shoal_local.agent.placement import FOLDER
from shoal_local.run.process import parents as all_parents
from shoal_local.runtime import LocalRuntime

PR_SET_CHILD_SUBREAPER = 36
MAX_OWN_MEMORY = 8 * 1024
"""KiB of an idle agent that nothing else shares."""
needs_root = pytest.mark.skipif(not ROOT, reason="only root may look into an agent")


class Given(Agent):
    """The real one, with a digest and a way of starting of its own."""

    name = "given"
    takes_token = True

    def __init__(self, agent: Agent, digest: str = "", forked: ForkedAgent | None = None) -> None:
        self._agent, self._digest, self._forked = agent, digest, forked

    async def files(self, platform: str) -> AgentFiles | None:
        files = await self._agent.files(platform)
        return None if files is None else AgentFiles(files.folder, self._digest or files.digest)

    def command(self, folder: str) -> list[str]:
        return self._agent.command(folder)

    def forked(self, folder: Path) -> ForkedAgent | None:
        return self._forked

    def environment(self, token: str) -> dict[str, str]:
        return self._agent.environment(token)


class Late(Given):
    """One whose files are still being made."""

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent)
        self.ready = asyncio.Event()

    async def files(self, platform: str) -> AgentFiles | None:
        await self.ready.wait()
        return await super().files(platform)


def made(base: Path, isolation: str, agent: Agent) -> LocalRuntime:
    return LocalRuntime(settings(base), local(isolation=isolation, network="none"), None, agent)


@pytest.fixture
async def runtime(tmp_path: Path, isolation: str, agent: Agent) -> AsyncIterator[LocalRuntime]:
    runtime = made(tmp_path, isolation, agent)
    await runtime.start()
    yield runtime
    for workload in await runtime.list():
        await runtime.delete(workload.id)
    await runtime.stop()


async def started(runtime: LocalRuntime, token: str = TOKEN, **more: object) -> tuple[str, int]:
    """A new sandbox, and the process of its agent."""
    plan = wanted(token, **more)
    await runtime.create(plan, ignore)
    assert (await ask(runtime, plan.id, "/ping")).startswith(b"HTTP/1.1 200")
    (pid,) = agents(plan.id)
    return plan.id, pid


def forked(pid: int) -> bool:
    """Does it run what the parent executed, and not a file of the sandbox?"""
    return str(Path(f"/proc/{pid}/exe").readlink()).startswith("/memfd:")


def text(pid: int, name: str) -> str:
    """A file of a process in /proc."""
    return Path(f"/proc/{pid}/{name}").read_text()


def opened(pid: int) -> dict[str, str]:
    """What its descriptors lead to."""
    return {entry.name: str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}


async def test_a_create_says_that_it_waits_for_the_agents_files(tmp_path: Path, isolation: str, agent: Agent) -> None:
    late = Late(agent)
    runtime = made(tmp_path, isolation, late)
    await runtime.start()
    said: asyncio.Queue[str] = asyncio.Queue()
    plan = wanted(TOKEN)
    creating = asyncio.create_task(runtime.create(plan, lambda reason, _: said.put_nowait(reason)))
    assert await said.get() == "AGENT_PREPARING"
    assert not creating.done()
    late.ready.set()
    await creating
    assert said.empty()
    await runtime.delete(plan.id)
    await runtime.stop()


async def test_there_is_no_parent_before_a_sandbox(runtime: LocalRuntime) -> None:
    assert parents(os.getpid()) == []
    await started(runtime)
    assert len(parents(os.getpid())) == 1


async def test_it_looks_as_if_it_had_been_executed(runtime: LocalRuntime, agent: Agent) -> None:
    _, pid = await started(runtime)
    assert forked(pid)
    assert text(pid, "cmdline").rstrip("\0").split("\0") == agent.command(FOLDER)
    assert text(pid, "comm") == "execd\n"


async def test_what_is_imported_later_is_found_in_the_sandbox(runtime: LocalRuntime) -> None:
    """The parent's own files are out of sight; code runs with drivers, and in a module of the standard library."""
    sandbox_id, _ = await started(runtime)
    body = {"code": "print(6 * 7)", "context": {"language": "python"}}
    assert b"42" in await ask(runtime, sandbox_id, "/code", body)


@needs_root
async def test_it_inherits_nothing(runtime: LocalRuntime) -> None:
    _, pid = await started(runtime)
    (above,) = parents(os.getpid())
    links = opened(pid)
    assert {links.pop(number) for number in "012"} == {"/dev/null"}
    kinds = {re.sub(r"\d+", "", target) for target in links.values()}
    assert kinds <= {"socket:[]", "anon_inode:[eventpoll]"}
    assert set(links.values()).isdisjoint(opened(above).values())
    status = text(pid, "status")
    assert re.search(r"^SigBlk:\t0+$", status, re.MULTILINE)
    assert re.search(r"^Groups:\t\s*$", status, re.MULTILINE)
    assert re.search(r"^Max core file size +0 +0 ", text(pid, "limits"), re.MULTILINE)


LOOK = """
import ctypes, os, sys
pid = int(sys.argv[1])
for name in ("mem", "maps", "environ", "auxv", "exe", "cwd", "root", "fd", "map_files", "ns/net", "task/%d/fd" % pid):
    path = f"/proc/{pid}/{name}"
    try:
        found = os.readlink(path) if name in ("exe", "cwd", "root", "ns/net") else (
            os.listdir(path) if name.endswith(("fd", "files")) else open(path, "rb").read(1))
        print("open", name)
    except OSError:
        pass
libc = ctypes.CDLL(None, use_errno=True)
for request in (16, 0x4206):  # PTRACE_ATTACH, PTRACE_SEIZE
    print("ptrace", libc.ptrace(request, pid, None, None))
print("write", open(f"/proc/{pid}/mem", "wb") if os.access(f"/proc/{pid}/mem", os.W_OK) else -1)
"""


async def test_nobody_inside_looks_into_it(runtime: LocalRuntime) -> None:
    """It comes from outside, as does what it has in memory."""
    if not there("/usr/bin/python3"):
        pytest.skip("needs python3 in /usr/bin")
    sandbox_id, _ = await started(runtime)
    find = f"for p in /proc/[0-9]*; do grep -qs ^{FOLDER}/ $p/cmdline && echo ${{p#/proc/}}; done"
    inside = (await shell(runtime, sandbox_id, find)).split()
    assert len(inside) == 1
    await ask(runtime, sandbox_id, "/command", {"command": f"cat >/tmp/look.py <<'E'\n{LOOK}\nE"})
    said = await shell(runtime, sandbox_id, f"/usr/bin/python3 /tmp/look.py {inside[0]}")
    assert said.splitlines() == ["ptrace -1", "ptrace -1", "write -1"]


async def test_the_way_to_what_was_executed_changes_nothing(runtime: LocalRuntime, bundle: Path) -> None:
    """The agent itself may follow its /proc/self/exe, whoever asks it to."""
    sandbox_id, _ = await started(runtime)
    program = bundle / "agent/ld"
    before, mode = hashlib.sha256(program.read_bytes()).digest(), program.stat().st_mode
    await ask(runtime, sandbox_id, "/files/permissions", {"/proc/self/exe": {"mode": 0}})
    await ask(runtime, sandbox_id, "/files/replace", {"/proc/self/exe": {"old": "E", "new": "X"}})
    assert hashlib.sha256(program.read_bytes()).digest() == before
    assert program.stat().st_mode == mode
    assert (await started(runtime))[0] != sandbox_id


def memory(pid: int) -> bytes:
    """All that it may write to, or has written to."""
    found = []
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as file:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
            if line.split()[1].startswith("rw"):
                with suppress(OSError):
                    file.seek(start)
                    found.append(file.read(end - start))
    return b"".join(found)


@needs_root
async def test_none_holds_what_another_was_told(runtime: LocalRuntime) -> None:
    secrets = [f"secret-of-{number}-{os.urandom(6).hex()}" for number in range(2)]
    pids = [(await started(runtime, env={"SECRET": secret}))[1] for secret in secrets]
    held = [memory(pid) for pid in pids]
    (above,) = parents(os.getpid())
    for number, secret in enumerate(secrets):
        assert secret.encode() in held[number]
        assert secret.encode() not in held[1 - number]
        assert secret.encode() not in memory(above)


async def test_an_idle_one_has_little_memory_of_its_own(runtime: LocalRuntime) -> None:
    _, pid = await started(runtime)
    if not os.access(f"/proc/{pid}/smaps_rollup", os.R_OK):
        pytest.skip("only root may look")
    rows = text(pid, "smaps_rollup").splitlines()
    own = sum(int(row.split()[1]) for row in rows if row.startswith("Private_"))
    assert own <= MAX_OWN_MEMORY


async def test_a_killed_parent_takes_nobody_with_it(runtime: LocalRuntime) -> None:
    first, pid = await started(runtime)
    (above,) = parents(os.getpid())
    os.kill(above, signal.SIGKILL)
    assert await shell(runtime, first, "echo well") == "well"
    assert agents(first) == [pid]
    _, other = await started(runtime)
    assert forked(other)
    (again,) = parents(os.getpid())
    assert again != above


async def test_a_killed_agent_comes_again_out_of_the_parent(runtime: LocalRuntime) -> None:
    sandbox_id, pid = await started(runtime)
    os.kill(pid, signal.SIGKILL)

    async def gone() -> bool | None:
        return pid not in agents(sandbox_id) or None

    await eventually(gone)
    assert await shell(runtime, sandbox_id, "echo back") == "back"
    (again,) = agents(sandbox_id)
    assert forked(again)


async def test_the_sandbox_reaps_it(runtime: LocalRuntime) -> None:
    """Its first process does, and nobody outside: here that is this process, which waits for none of them."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        sandbox_id, pid = await started(runtime)
        assert re.search(r"^PPid:\t1$", await shell(runtime, sandbox_id, "cat /proc/$PPID/status"), re.MULTILINE)
        os.kill(pid, signal.SIGKILL)

        async def gone() -> bool | None:
            return pid not in all_parents() or None

        await eventually(gone)
        await ask(runtime, sandbox_id, "/ping")
        await runtime.delete(sandbox_id)
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


async def test_many_at_once(runtime: LocalRuntime) -> None:
    found = await asyncio.gather(*(started(runtime) for _ in range(12)))
    assert len({pid for _, pid in found}) == 12
    assert all(forked(pid) for _, pid in found)


async def test_other_files_than_those_of_the_sandbox_are_executed(tmp_path: Path, isolation: str, agent: Agent) -> None:
    """After an upgrade: what the parent has imported is not what is in the sandbox."""
    plan = wanted()
    first = made(tmp_path, isolation, Given(agent, "sha256:old"))
    await first.start()
    await first.create(plan, ignore)
    await first.stop()
    second = made(tmp_path, isolation, agent)
    await second.start()
    assert await shell(second, plan.id, "echo well") == "well"
    (pid,) = agents(plan.id)
    assert not forked(pid)
    assert forked((await started(second))[1])
    for workload in await second.list():
        await second.delete(workload.id)
    await second.stop()


@pytest.mark.parametrize("interpreter", ["/bin/false", "/nonexistent"])
async def test_one_that_cannot_be_forked_is_executed(
    tmp_path: Path, isolation: str, agent: Agent, interpreter: str
) -> None:
    runtime = made(tmp_path, isolation, Given(agent, forked=ForkedAgent((interpreter,), "x")))
    await runtime.start()
    sandbox_id, pid = await started(runtime)
    assert not forked(pid)
    limits = await shell(runtime, sandbox_id, "grep -E 'NoNewPrivs|Seccomp:' /proc/self/status")
    assert limits.split() == ["NoNewPrivs:", "1", "Seccomp:", "2"]
    await runtime.delete(sandbox_id)
    await runtime.stop()


async def test_what_leads_into_a_sandbox_is_not_inherited(runtime: LocalRuntime) -> None:
    """Neither by another sandbox nor by any program that the server starts."""
    sandbox_id, _ = await started(runtime)
    with await runtime.connect(sandbox_id, AGENT_PORT) as sock:
        assert not sock.get_inheritable()


def test_the_variables_of_a_program_that_is_just_being_executed() -> None:
    """It shows none at that moment, or the first of many; an agent without them would not have the sandbox's."""
    again = "import os; os.execve('/bin/sh', ['sh', '-c', 'exec sh -c \"$AGAIN\"'], os.environ)"
    env = {"AGAIN": 'exec sh -c "$AGAIN"', "GREETING": "hello", **{f"V{number}": "x" * 60_000 for number in range(6)}}
    whole = {os.fsencode(f"{name}={value}") for name, value in env.items()}
    process = subprocess.Popen([sys.executable, "-c", again], env=env)
    try:
        assert all(whole <= set(starter._variables(process.pid).split(b"\0")) for _ in range(300))
    finally:
        process.kill()
        process.wait()


def test_a_job_that_was_cut_off_starts_nothing() -> None:
    """Without its last variables, an agent might be open to everybody."""
    mine, theirs = socket.socketpair()
    with mine, theirs, Path("/dev/null").open() as null:
        socket.send_fds(mine, [json.dumps({"size": 9}).encode() + b"\nA=1\0"], [null.fileno()])
        mine.shutdown(socket.SHUT_WR)
        with pytest.raises(ValueError, match="cut off"):
            parent.receive(theirs)


@contextmanager
def server(
    base: Path, isolation: str, bundle: Path, uid: int, sandbox_id: str = ""
) -> Iterator[tuple[int, dict[str, str]]]:
    """Another process with a runtime: its pid and what it says of its sandbox, which it removes in the end."""
    words = [str(base), isolation, str(bundle), str(uid), sandbox_id]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.local_runtime.agent_life", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    with process:
        told = next((line for line in process.stdout if line.startswith("{")), None)
        assert told is not None, "it failed"
        yield process.pid, json.loads(told)
        if process.poll() is None:
            process.communicate("\n", timeout=60)


@needs_root
@pytest.mark.parametrize("uid", [0, 12345])
def test_it_outlives_a_killed_server(tmp_path: Path, isolation: str, bundle: Path, uid: int) -> None:
    """Also where the server is no root: then it and its agents are one user on the outside."""
    home = tmp_path / "home"
    home.mkdir()
    for folder in (tmp_path, bundle.parent):
        let_pass(folder)
    os.chown(home, uid, uid)
    with server(home, isolation, bundle, uid) as (pid, first):
        sandbox_id = first["id"]
        assert first["said"].splitlines()[:2] == ["0", "mine"]
        (above,), (agent,) = parents(pid), agents(sandbox_id)
        handle = os.pidfd_open(above)
        os.kill(pid, signal.SIGKILL)
    asyncio.run(ended(handle))
    assert agents(sandbox_id) == [agent]
    with server(home, isolation, bundle, uid, sandbox_id) as (_, second):
        assert second["said"].splitlines()[:3] == ["0", "mine", "mine"]
        assert agents(sandbox_id) == [agent]
    assert processes_of(sandbox_id) == []


async def ended(handle: int) -> None:
    """Wait for the end of a process."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, done.set)
    async with asyncio.timeout(30):
        await done.wait()
    loop.remove_reader(handle)
    os.close(handle)
