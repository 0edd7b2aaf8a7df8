"""The agent `builtin`, for runtimes: its bundle, built on the first need and kept. Runs in the server."""

from __future__ import annotations

import asyncio
import hashlib
import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import ClassVar, Final

import structlog

from shoal.config.settings import DEFAULT_AGENT, Section
from shoal.errors import ConfigError, EngineFailure
from shoal.plugin.interfaces import Agent, AgentFiles, ForkedAgent
from shoal_agent.bundle.build import command, digest_of, inputs, interpreter, told_digest

log = structlog.get_logger("shoal.agent")

FAILED: Final = "AGENT::BUNDLE_FAILED"
PREBUILT: Final = Path(sys.prefix) / "share/shoal/agent"
"""Where an installation may have a bundle, as shoal's own image does."""
TOKEN_VARIABLE: Final = "EXECD_ACCESS_TOKEN_SHA256"  # noqa: S105 - a variable's name
PORT_VARIABLE: Final = "EXECD_LISTEN_PORT"
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_UNUSED_SECONDS: Final = 30 * 86400


class AgentSettings(Section):
    """``[agent]``: the agent that runtimes put into sandboxes."""

    bundle: str | None = None
    """A folder that ``python -m shoal_agent.bundle`` built; unset = build one when it is needed."""
    cache: str = "~/.cache/shoal/agent"
    """Where bundles are built."""


class BuiltinAgent(Agent):
    """The program of this package, for the architecture of this machine."""

    name: ClassVar[str] = DEFAULT_AGENT
    takes_token = True
    keeps_connections = True

    def __init__(self, settings: AgentSettings) -> None:
        self._given = None if settings.bundle is None else Path(settings.bundle).expanduser()
        self._cache = Path(settings.cache).expanduser()
        self._found: AgentFiles | None = None
        self._finding = asyncio.Lock()

    def check_config(self) -> None:
        """Raises ConfigError for a folder that holds no bundle."""
        if self._given is not None and told_digest(self._given) is None:
            raise ConfigError(f"agent.bundle: {self._given} holds no bundle of the agent")

    def command(self, folder: str) -> list[str]:
        return command(folder)

    def forked(self, folder: Path) -> ForkedAgent | None:
        return ForkedAgent(tuple(interpreter(folder)), "shoal_agent.forked")

    def environment(self, token: str) -> dict[str, str]:
        """The token's digest: whoever reads it cannot present it."""
        return {TOKEN_VARIABLE: hashlib.sha256(token.encode()).hexdigest()}

    def listening(self, port: int) -> dict[str, str]:
        """The variable for the option ``--port``."""
        return {PORT_VARIABLE: str(port)}

    async def files(self, platform: str) -> AgentFiles | None:
        """The bundle; None for another platform than this machine's. Raises EngineFailure if it cannot be built."""
        if platform != this_platform():
            return None
        async with self._finding:
            if self._found is None:
                self._found = await self._find()
        return self._found

    async def _find(self) -> AgentFiles:
        folder = self._given or (PREBUILT if told_digest(PREBUILT) is not None else None)
        if folder is None:
            folder = self._cache / (await asyncio.to_thread(inputs))[:32]
        if await asyncio.to_thread(_intact, folder):
            return AgentFiles(folder, told_digest(folder) or "")
        if folder == self._given:
            raise EngineFailure(FAILED, f"The bundle in {folder} is not as it was built.")
        await self._build(folder)
        return AgentFiles(folder, told_digest(folder) or "")

    async def _build(self, folder: Path) -> None:
        """In a process of its own, for it takes seconds of work."""
        started = time.monotonic()
        await asyncio.to_thread(_make_room, folder)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "shoal_agent.bundle", str(folder)),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, said = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if not await asyncio.to_thread(_intact, folder):  # another server may have been faster
            reason = said.decode(errors="replace").strip()[-500:]
            raise EngineFailure(FAILED, f"The agent could not be bundled: {reason}")
        log.info("the agent is bundled", folder=str(folder), seconds=round(time.monotonic() - started, 1))


def this_platform() -> str:
    """``linux/amd64``."""
    machine = platform.machine()
    return f"linux/{_ARCHITECTURES.get(machine, machine)}"


def _intact(folder: Path) -> bool:
    """Whether there is a bundle, as it was built; says by its date that it is in use."""
    told = told_digest(folder)
    if told is None or digest_of(folder) != told:
        return False
    if os.access(folder, os.W_OK):
        os.utime(folder)
    return True


def _make_room(folder: Path) -> None:
    """Remove what is in the way, and bundles that nobody has used for a month."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for other in folder.parent.iterdir():
        old = time.time() - other.lstat().st_mtime > _UNUSED_SECONDS
        if other.is_dir() and (other == folder or old):
            shutil.rmtree(other, ignore_errors=True)
