"""The files of execd: which ones, how they are read from an image and written into a volume, and their digest."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from docker import APIClient
from msgspec import Struct

from shoal_docker.engine import refuse

INSIDE: Final = "/opensandbox-execd"
"""Where a container that reads or fills a volume has it mounted."""


class ImageFile(Struct, frozen=True):
    """A file of the image, and its name in the directory."""

    source: str
    name: str
    optional: bool = False


LINUX: Final = (
    ImageFile("/execd", "execd"),
    ImageFile("/bootstrap.sh", "bootstrap.sh"),
    ImageFile("/usr/local/bin/bwrap", "bwrap", optional=True),
    ImageFile("/usr/local/libexec/opensandbox-session-gate", "opensandbox-session-gate", optional=True),
    ImageFile("/usr/local/libexec/opensandbox-launcher", "opensandbox-launcher", optional=True),
)
WINDOWS: Final = (ImageFile("/install.bat", "install.bat"), ImageFile("/execd.exe", "execd.exe"))


class File(Struct, frozen=True):
    """A file with its mode and content."""

    name: str
    mode: int
    content: bytes


def taken(client: APIClient, container: str, parts: Iterable[ImageFile]) -> list[File]:
    """The files of an image that a container is made of. Raises LookupError for one that the image must have."""
    found = []
    for part in parts:
        read = _read(client, container, part.source)
        if read is not None:
            found.append(File(part.name, *read))
        elif not part.optional:
            raise LookupError(part.source)
    return found


def packed(folder: Path) -> list[File]:
    """The files of a folder, with those of the folders in it."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return [File(str(path.relative_to(folder)), path.stat().st_mode & 0o777, path.read_bytes()) for path in found]


def put(client: APIClient, container: str, files: Iterable[File]) -> None:
    """Write files into the volume that a container has mounted."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        folders: set[str] = set()
        for file in files:
            for folder in reversed(PurePosixPath(file.name).parents[:-1]):
                if str(folder) not in folders:
                    folders.add(str(folder))
                    archive.addfile(_folder(str(folder)))
            member = tarfile.TarInfo(file.name)
            member.size, member.mode = len(file.content), file.mode
            archive.addfile(member, io.BytesIO(file.content))
    response = client.put(_url(client, container), params={"path": INSIDE}, data=content.getvalue())
    with response:
        if not response.ok:
            refuse(response)


def kept(client: APIClient, container: str, names: Sequence[str]) -> list[File]:
    """The files in the volume with one of the names in its root, in their order; a link is no file."""
    response = client.get(_url(client, container), params={"path": INSIDE})
    with response:
        if not response.ok:
            refuse(response)
        found = []
        with tarfile.open(fileobj=io.BytesIO(response.content)) as archive:
            for member in archive:
                content = archive.extractfile(member) if member.isfile() else None
                inside = member.name.strip("/").partition("/")[2]
                if content is not None and inside.partition("/")[0] in names:
                    found.append(File(inside, member.mode & 0o777, content.read()))
    return sorted(found, key=lambda file: (names.index(file.name.partition("/")[0]), file.name))


def holds(client: APIClient, container: str, path: str) -> bool:
    """Whether there is something at that path in a container, which need not run."""
    response = client.head(_url(client, container), params={"path": path})
    with response:
        if response.ok:
            return True
        if response.status_code != 404:
            refuse(response)
        return False


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


def _folder(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, 0o755
    return member


def _url(client: APIClient, container: str) -> str:
    return f"{client.base_url}/v{client.api_version}/containers/{container}/archive"
