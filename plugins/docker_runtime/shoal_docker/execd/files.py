"""The files of execd: which ones, how they are read from an image and written into a volume, and their digest."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable
from typing import Final

from docker import APIClient
from msgspec import Struct

from shoal_docker.engine import refuse

INSIDE: Final = "/opensandbox-execd"
"""Where a container that reads or fills a volume has it mounted."""


class Part(Struct, frozen=True):
    """A file of the image, and its name in the directory."""

    source: str
    name: str
    optional: bool = False


LINUX: Final = (
    Part("/execd", "execd"),
    Part("/bootstrap.sh", "bootstrap.sh"),
    Part("/usr/local/bin/bwrap", "bwrap", optional=True),
    Part("/usr/local/libexec/opensandbox-session-gate", "opensandbox-session-gate", optional=True),
    Part("/usr/local/libexec/opensandbox-launcher", "opensandbox-launcher", optional=True),
)
WINDOWS: Final = (Part("/install.bat", "install.bat"), Part("/execd.exe", "execd.exe"))


class File(Struct, frozen=True):
    """A file with its mode and content."""

    name: str
    mode: int
    content: bytes


def taken(client: APIClient, container: str, parts: Iterable[Part]) -> list[File]:
    """The files of an image that a container is made of. Raises LookupError for one that the image must have."""
    found = []
    for part in parts:
        read = _read(client, container, part.source)
        if read is not None:
            found.append(File(part.name, *read))
        elif not part.optional:
            raise LookupError(part.source)
    return found


def put(client: APIClient, container: str, files: Iterable[File]) -> None:
    """Write files into the volume that a container has mounted."""
    for file in files:
        _write(client, container, file)


def kept(client: APIClient, container: str, names: Iterable[str]) -> list[File]:
    """Those of the files that are in the volume; a link is no file."""
    read = ((name, _read(client, container, f"{INSIDE}/{name}")) for name in names)
    return [File(name, *found) for name, found in read if found is not None]


def digest(files: Iterable[File]) -> str:
    """Names, modes and contents, as one number."""
    sums = (f"{file.name} {file.mode:o} {hashlib.sha256(file.content).hexdigest()}\n" for file in files)
    return "sha256:" + hashlib.sha256("".join(sums).encode()).hexdigest()


def _read(client: APIClient, container: str, path: str) -> tuple[int, bytes] | None:
    """Mode and content of a file; None if there is none. Links within the image are followed by the engine."""
    response = client.get(_url(client, container), params={"path": path})
    with response:
        if response.status_code == 404 and "no such container" not in response.text.lower():
            return None
        if not response.ok:
            refuse(response)
        with tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                if content is not None:
                    return member.mode & 0o777, content.read()
    return None


def _write(client: APIClient, container: str, file: File) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo(file.name)
        member.size, member.mode = len(file.content), file.mode
        archive.addfile(member, io.BytesIO(file.content))
    response = client.put(_url(client, container), params={"path": INSIDE}, data=packed.getvalue())
    with response:
        if not response.ok:
            refuse(response)


def _url(client: APIClient, container: str) -> str:
    return f"{client.base_url}/v{client.api_version}/containers/{container}/archive"
