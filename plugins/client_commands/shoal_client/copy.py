"""``shoal cp``: files and directories, into a sandbox and out of it."""

from __future__ import annotations

import os
import stat
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from shoal.plugin import PluginContext
from shoal.plugin.interfaces import Command
from shoal_client.agent import AgentClient
from shoal_client.connection import ClientError, ServerClient, add_arguments
from shoal_client.sandboxes import SandboxClient


class Side(NamedTuple):
    """One end of a copy; ``sandbox`` None is this machine, and ``-`` its standard input or output."""

    sandbox: str | None
    path: str


class CopyCommand(Command):
    """Copy files and directories."""

    name = "cp"
    help = "copy files between this machine and a sandbox: shoal cp notes.txt ID:/tmp/"

    def arguments(self, parser: ArgumentParser) -> None:
        """From where, to where."""
        add_arguments(parser)
        parser.add_argument("source", metavar="[ID:]SOURCE", help="- is standard input")
        parser.add_argument("target", metavar="[ID:]TARGET", help="- is standard output; a directory ends in /")

    def run(self, arguments: Namespace, context: Callable[[], PluginContext]) -> int:
        """Copies; a directory with everything below it. Symbolic links are left out and named. Raises ClientError."""
        source, target = _side(arguments.source), _side(arguments.target)
        if (source.sandbox is None) == (target.sandbox is None):
            raise ClientError("one of the two is ID:PATH, the other a path of this machine")
        server = ServerClient.of(arguments)
        agent = AgentClient(server, SandboxClient(server).find(source.sandbox or target.sandbox or ""))
        try:
            if source.sandbox is None:
                _upload(agent, source.path, target.path)
            else:
                _download(agent, source.path, target.path)
        except OSError as error:
            raise ClientError(f"{error.filename or arguments.source}: {error.strerror}") from error
        return 0


def _side(text: str) -> Side:
    """``ID:PATH``, or a path; one with a slash before its first colon is a path."""
    before, colon, after = text.partition(":")
    return Side(before, after) if colon and before and "/" not in before else Side(None, text)


def _upload(agent: AgentClient, source: str, target: str) -> None:
    if source == "-":
        agent.upload(target, 644, sys.stdin.buffer)
        return
    path = Path(source)
    place = _within(agent, target, path.name)
    if not path.is_dir():
        with path.open("rb") as file:
            agent.upload(place, _mode(path), file)
        return
    agent.make_directory(place, _mode(path))
    for entry in _below(path):
        inside = str(PurePosixPath(place, *entry.relative_to(path).parts))
        if entry.is_symlink():
            print(f"shoal: {entry}: a symbolic link, left out", file=sys.stderr)
        elif entry.is_dir():
            agent.make_directory(inside, _mode(entry))
        elif entry.is_file():
            with entry.open("rb") as file:
                agent.upload(inside, _mode(entry), file)


def _within(agent: AgentClient, target: str, name: str) -> str:
    """The target, or a place of that name in it if it is a directory."""
    found = agent.info(target)
    if target.endswith("/") or (found is not None and found.get("type") == "directory"):
        return str(PurePosixPath(target, name))
    return target


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        for name in sorted(folders) + sorted(files):
            yield Path(place, name)


def _download(agent: AgentClient, source: str, target: str) -> None:
    found = agent.info(source)
    if found is None:
        raise ClientError(f"{source}: no such file in the sandbox", 404)
    if target == "-":
        for piece in agent.download(source):
            sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    place = Path(target)
    if target.endswith("/") or place.is_dir():
        place = place / PurePosixPath(source).name
    if found.get("type") != "directory":
        _write(agent, source, place, found)
        return
    place.mkdir(parents=True, exist_ok=True)
    root = PurePosixPath(str(found["path"]))
    for entry in agent.entries(source):
        inside = place.joinpath(*_safe(PurePosixPath(str(entry["path"])), root))
        if entry.get("type") == "directory":
            inside.mkdir(parents=True, exist_ok=True)
        elif entry.get("type") == "file":
            _write(agent, str(entry["path"]), inside, entry)
        else:
            print(f"shoal: {entry['path']}: a {entry.get('type', 'special file')}, left out", file=sys.stderr)


def _safe(path: PurePosixPath, root: PurePosixPath) -> tuple[str, ...]:
    """The parts of a path below ``root``: a sandbox must not lead this machine anywhere else."""
    try:
        parts = path.relative_to(root).parts
    except ValueError:
        parts = ("..",)
    if ".." in parts:
        raise ClientError(f"the sandbox names a file outside of {root}: {path}")
    return parts


def _write(agent: AgentClient, source: str, place: Path, entry: dict[str, object]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        with draft.open("wb") as file:
            for piece in agent.download(source):
                file.write(piece)
        draft.chmod(int(str(entry.get("mode", 644)), 8) & 0o777)
        draft.replace(place)
    finally:
        draft.unlink(missing_ok=True)


def _mode(path: Path) -> int:
    """Permission bits as the agent has them: octal digits in a decimal number."""
    return int(f"{stat.S_IMODE(path.stat().st_mode) & 0o777:o}")
