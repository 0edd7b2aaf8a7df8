"""The provider ``opensandbox``: one sandbox per sample."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import Literal, overload

from inspect_ai.util import (
    ExecResult,
    OutputLimitExceededError,
    SandboxEnvironment,
    SandboxEnvironmentConfigType,
    SandboxEnvironmentLimits,
    sandboxenv,
)
from opensandbox import Sandbox, SandboxManager
from opensandbox.config import ConnectionConfig
from opensandbox.exceptions import SandboxApiException
from opensandbox.models.filesystem import WriteEntry
from opensandbox.models.sandboxes import SandboxFilter

from inspect_opensandbox import accounts
from inspect_opensandbox.config import OpenSandboxConfig
from inspect_opensandbox.errors import file_errors
from inspect_opensandbox.execution import Command, execute

OWNER = {"made-by": "inspect"}
"""Metadata of every sandbox that this provider makes."""
NOT_EXECUTABLE = 126
"""The exit code of a shell for a program that it may not execute."""


@sandboxenv(name="opensandbox")
class OpenSandboxEnvironment(SandboxEnvironment):
    """A sandbox of an OpenSandbox server.

    Args:
        sandbox: it runs already.
        config: what it was made from.
    """

    def __init__(self, sandbox: Sandbox, config: OpenSandboxConfig) -> None:
        self._sandbox = sandbox
        self._config = config

    @classmethod
    def config_deserialize(cls, config: dict[str, object]) -> OpenSandboxConfig:
        """The configuration as it is read back from a log. Raises pydantic.ValidationError."""
        return OpenSandboxConfig.model_validate(config)

    @classmethod
    async def sample_init(
        cls, task_name: str, config: SandboxEnvironmentConfigType | None, metadata: dict[str, str]
    ) -> dict[str, SandboxEnvironment]:
        """Make one sandbox, named ``default``.

        Args:
            config: an `OpenSandboxConfig`, an image's name, or None for the defaults.

        Raises:
            TypeError: the configuration is none of these.
            SandboxException: the server refuses it, or it does not start.
        """
        wanted = _config(config)
        sandbox = await Sandbox.create(
            wanted.image,
            timeout=timedelta(seconds=wanted.lifetime),
            ready_timeout=timedelta(seconds=wanted.ready_timeout),
            env=wanted.env,
            metadata={**OWNER, "task": _label(task_name)},
            resource=wanted.resources,
            connection_config=ConnectionConfig(use_server_proxy=wanted.use_server_proxy),
        )
        try:
            await sandbox.files.create_directories([WriteEntry(path=wanted.working_dir)])
        except BaseException:
            await sandbox.kill()
            raise
        return {"default": cls(sandbox, wanted)}

    @classmethod
    async def sample_cleanup(
        cls,
        task_name: str,
        config: SandboxEnvironmentConfigType | None,
        environments: Mapping[str, SandboxEnvironment],
        interrupted: bool,
    ) -> None:
        """End the sample's sandboxes."""
        for environment in environments.values():
            if isinstance(environment, cls):
                await environment.end()

    @classmethod
    async def cli_cleanup(cls, id: str | None) -> None:  # noqa: A002  # Inspect's name
        """``inspect sandbox cleanup opensandbox [ID]``: end that sandbox, or all that evaluations left."""
        async with await SandboxManager.create(ConnectionConfig()) as manager:
            ids = [id] if id is not None else await _left(manager)
            for each in ids:
                await manager.kill_sandbox(each)

    async def end(self) -> None:
        """End the sandbox, if it has not ended by itself."""
        try:
            await self._sandbox.kill()
        except SandboxApiException as error:
            if error.status_code != HTTPStatus.NOT_FOUND:
                raise
        finally:
            await self._sandbox.close()

    async def exec(
        self,
        cmd: list[str],
        input: str | bytes | None = None,  # noqa: A002  # Inspect's name
        cwd: str | None = None,
        env: dict[str, str] | None = None,
        user: str | None = None,
        timeout: int | None = None,  # noqa: ASYNC109  # Inspect's name; the server keeps it
        timeout_retry: bool = True,
        concurrency: bool = True,
    ) -> ExecResult[str]:
        """Run a program. A user or a directory that is not there makes a failed result.

        Raises:
            TimeoutError: it was not done in time, and has been killed.
            PermissionError: the program may not be executed.
            OutputLimitExceededError: it wrote more than Inspect takes.
            UnicodeDecodeError: it wrote what is not UTF-8.
        """
        try:
            account = await accounts.find(self._sandbox, user) if user is not None else None
        except LookupError as error:
            return ExecResult(False, 1, stdout=str(error), stderr="")
        stdin = input.encode() if isinstance(input, str) else input or b""
        command = Command(cmd, self._path(cwd or ""), env or {}, account, stdin, timeout)
        limit = SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE
        try:
            done = await execute(self._sandbox, command, limit=limit)
        except SandboxApiException as error:
            if error.status_code != HTTPStatus.BAD_REQUEST:
                raise
            return ExecResult(False, 1, stdout="", stderr=str(error))
        for stream in (done.stdout, done.stderr):
            if len(stream) > limit:
                shown = stream[:limit].decode(errors="replace")
                raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_EXEC_OUTPUT_SIZE_STR, shown)
        stdout, stderr = done.stdout.decode(), done.stderr.decode()
        if done.exit_code == NOT_EXECUTABLE and "permission denied" in stderr.lower():
            raise PermissionError(stderr.strip())
        return ExecResult(done.exit_code == 0, done.exit_code, stdout, stderr)

    async def write_file(self, file: str, contents: str | bytes) -> None:
        """Write a file, and the directories above it.

        Raises:
            PermissionError: it may not be written.
            IsADirectoryError: it is a directory.
        """
        path = self._path(file)
        async with file_errors(self._sandbox, path):
            await self._sandbox.files.write_file(path, contents, mode=644)

    @overload
    async def read_file(self, file: str, text: Literal[True] = True) -> str: ...

    @overload
    async def read_file(self, file: str, text: Literal[False]) -> bytes: ...

    async def read_file(self, file: str, text: bool = True) -> str | bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: it is not there.
            PermissionError: it may not be read.
            IsADirectoryError: it is a directory.
            OutputLimitExceededError: it is larger than Inspect takes.
            UnicodeDecodeError: it is read as text, and is not UTF-8.
        """
        path = self._path(file)
        limit = SandboxEnvironmentLimits.MAX_READ_FILE_SIZE
        content = bytearray()
        async with file_errors(self._sandbox, path):
            async for chunk in await self._sandbox.files.read_bytes_stream(path):
                content += chunk
                if len(content) > limit:
                    raise OutputLimitExceededError(SandboxEnvironmentLimits.MAX_READ_FILE_SIZE_STR, None)
        return content.decode() if text else bytes(content)

    def _path(self, path: str) -> str:
        return posixpath.normpath(posixpath.join(self._config.working_dir, path))


def _config(config: SandboxEnvironmentConfigType | None) -> OpenSandboxConfig:
    if config is None:
        return OpenSandboxConfig()
    if isinstance(config, str):
        return OpenSandboxConfig(image=config)
    if isinstance(config, OpenSandboxConfig):
        return config
    raise TypeError(f"a sandbox of opensandbox takes an OpenSandboxConfig or an image's name, not {config!r}")


def _label(text: str) -> str:
    """The text as a value of metadata: at most 63 letters, digits, ``-``, ``_`` and ``.``."""
    return "".join(char if char.isascii() and char.isalnum() else "-" for char in text)[:63].strip("-") or "task"


async def _left(manager: SandboxManager) -> list[str]:
    listed = await manager.list_sandbox_infos(SandboxFilter(metadata=OWNER, page_size=200))
    return [info.id for info in listed.sandbox_infos]
