"""One command in a sandbox, with the bytes that it wrote.

The API streams output by lines and does not say how they ended, so a command writes to files, which are then read.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import NamedTuple
from uuid import uuid4

from opensandbox import Sandbox
from opensandbox.models.execd import RunCommandOpts

from inspect_opensandbox.accounts import Account

KILLED = -1
"""The exit code of a command whose whole process group was killed: what the server does when its time is over."""
_CAPTURE = """
directory=$(mktemp -d /tmp/inspect.XXXXXX) || exit 125
echo "$directory"
exec <"$1"
shift
"$@" >"$directory/out" 2>"$directory/err"
"""


class Output(NamedTuple):
    """What came of a command; output is cut one byte after the limit."""

    exit_code: int
    stdout: bytes
    stderr: bytes


class Command(NamedTuple):
    """A program with its arguments, and what it runs with."""

    words: list[str]
    directory: str
    env: dict[str, str]
    account: Account | None = None
    stdin: bytes = b""
    seconds: int | None = None


async def execute(sandbox: Sandbox, command: Command, *, limit: int) -> Output:
    """Run the command and wait for its end.

    Args:
        limit: bytes of each stream that are read.

    Raises:
        TimeoutError: it was not done in time, and has been killed.
        SandboxApiException: the server refuses to start it.
    """
    given = await _store_input(sandbox, command.stdin)
    leftovers = [] if given == "/dev/null" else [given]
    try:
        done = await sandbox.commands.run(["sh", "-c", _CAPTURE, "sh", given, *command.words], opts=_options(command))
        streams = [b"", b""]
        if done.logs.stdout:
            directory = done.logs.stdout[0].text
            leftovers.append(directory)
            if done.exit_code == KILLED and command.seconds is not None:
                raise TimeoutError(f"not done within {command.seconds} s: {command.words}")
            streams = await asyncio.gather(*(_read(sandbox, f"{directory}/{name}", limit) for name in ("out", "err")))
        else:  # the shell could not even make the directory
            streams[1] = "".join(message.text for message in done.logs.stderr).encode()
    finally:
        if leftovers:
            await asyncio.shield(sandbox.files.delete_directories(leftovers))
    return Output(done.exit_code if done.exit_code is not None else 1, *streams)


async def _store_input(sandbox: Sandbox, content: bytes) -> str:
    if not content:
        return "/dev/null"
    path = f"/tmp/inspect-{uuid4().hex}"  # noqa: S108  # the name cannot be guessed
    await sandbox.files.write_file(path, content, mode=644)
    return path


def _options(command: Command) -> RunCommandOpts:
    account = command.account
    home = {"HOME": account.home} if account is not None and account.home else {}
    return RunCommandOpts(
        working_directory=command.directory,
        envs={**home, **command.env},
        timeout=timedelta(seconds=command.seconds) if command.seconds is not None else None,
        uid=account.uid if account is not None else None,
        gid=account.gid if account is not None else None,
    )


async def _read(sandbox: Sandbox, path: str, limit: int) -> bytes:
    content = bytearray()
    async for chunk in await sandbox.files.read_bytes_stream(path):
        content += chunk
        if len(content) > limit:
            break
    return bytes(content[: limit + 1])
