"""Asking the agents of sandboxes, and finding their processes."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.local_runtime.machine import PATIENCE, ROOT, plan, processes_of

from shoal.models.plan import WorkloadPlan
from shoal.plugin.interfaces import AGENT_PORT, AGENT_TOKEN_LABEL
from shoal_local.agent.placement import FOLDER
from shoal_local.agent.spawner import PROGRAM
from shoal_local.run.process import parents as all_parents
from shoal_local.runtime import LocalRuntime

TOKEN = "t0k3n"


def wanted(token: str = TOKEN, **more: object) -> WorkloadPlan:
    """A sandbox whose agent has this token."""
    found = plan("sleep", "1000", **{"env": {"GREETING": "good 'morning'\nto you"}, **more})  # type: ignore[arg-type]
    return replace(found, labels={AGENT_TOKEN_LABEL: token})


async def ask(runtime: LocalRuntime, sandbox_id: str, path: str, body: object = None, token: str = TOKEN) -> bytes:
    """The raw answer to one request."""
    loop = asyncio.get_running_loop()
    data = b"" if body is None else json.dumps(body).encode()
    method = "GET" if body is None else "POST"
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-EXECD-ACCESS-TOKEN: {token}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    with await runtime.connect(sandbox_id, AGENT_PORT) as sock:
        await loop.sock_sendall(sock, head.encode() + data)
        found = b""
        async with asyncio.timeout(PATIENCE):
            while piece := await loop.sock_recv(sock, 65536):
                found += piece
    return found


async def shell(runtime: LocalRuntime, sandbox_id: str, command: str, token: str = TOKEN) -> str:
    """The standard output of a command that the agent runs."""
    answer = await ask(runtime, sandbox_id, "/command", {"command": command}, token)
    events = [json.loads(line) for line in answer.decode().splitlines() if line.startswith("{")]
    return "\n".join(event["text"].rstrip("\n") for event in events if event["type"] == "stdout")


def agents(sandbox_id: str) -> list[int]:
    """Processes of the agent in a sandbox, which nobody but root sees."""
    if not ROOT:
        pytest.skip("only root may look into an agent")
    found = []
    for pid in processes_of(sandbox_id):
        with suppress(OSError):
            if Path(f"/proc/{pid}/cmdline").read_text().startswith(f"{FOLDER}/"):
                found.append(pid)
    return found


def parents(server: int) -> list[int]:
    """Processes of a server that agents come from."""
    found = []
    for pid, above in all_parents().items():
        with suppress(OSError):
            if above == server and str(PROGRAM) in Path(f"/proc/{pid}/cmdline").read_text():
                found.append(pid)
    return found
