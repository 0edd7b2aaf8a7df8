"""Reading container images from disk: OCI image layouts and ``docker save`` archives.

Sources: the OCI image specification (image-layout.md, image-index.md, manifest.md, config.md) and the layout of
``docker save`` (manifest.json with Config, RepoTags and Layers). Every blob is checked against its SHA-256 digest.
"""

from __future__ import annotations

import gzip
import hashlib
import platform
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any, Final, TypeVar, cast

import msgspec
from msgspec import Struct, field

from shoal.errors import EngineFailure
from shoal_local.image.bounds import CODE, Budget, Member, Metered, open_regular
from shoal_local.image.catalog import Kind, Source

ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "ppc64le": "ppc64le", "s390x": "s390x"}
REF_NAME: Final = "org.opencontainers.image.ref.name"
_DOCUMENT_LIMIT: Final = 4 * 1024 * 1024
"""Manifests and configs are kept below this size by registries (OCI distribution specification)."""
_INDEX_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)


T = TypeVar("T")


def architecture() -> str:
    """This machine's architecture in the words of OCI and Go."""
    return ARCHITECTURES.get(platform.machine(), platform.machine())


class Platform(Struct):
    architecture: str = ""
    os: str = ""


class Descriptor(Struct, rename="camel"):
    digest: str
    media_type: str = ""
    size: int = 0
    annotations: dict[str, str] = {}
    platform: Platform | None = None


class Index(Struct):
    manifests: list[Descriptor] = []


class Manifest(Struct):
    config: Descriptor
    layers: list[Descriptor] = []


class RunConfig(Struct):
    """The part of an image's configuration that a sandbox honours."""

    env: list[str] | None = field(default=None, name="Env")
    working_dir: str = field(default="", name="WorkingDir")


class LayerIds(Struct):
    diff_ids: list[str] = []


class ImageConfig(Struct):
    architecture: str = ""
    os: str = ""
    config: RunConfig | None = None
    rootfs: LayerIds = field(default_factory=LayerIds)


class ArchiveEntry(Struct):
    config: str = field(name="Config")
    repo_tags: list[str] | None = field(default=None, name="RepoTags")
    layers: list[str] = field(default_factory=list, name="Layers")


class Image(ABC):
    """One image, ready to be unpacked.

    Attributes:
        key: SHA-256 in hex that names its content.
        config: its configuration document.
    """

    key: str
    config: ImageConfig

    @abstractmethod
    def layers(self) -> Iterator[IO[bytes]]:
        """Uncompressed tar streams from the lowest layer up, each verified when the next one is asked for."""


class LayoutImage(Image):
    """An image of an OCI layout; its key is the manifest's digest."""

    def __init__(self, source: Source) -> None:
        self._blobs = source.path / "blobs"
        descriptor = self._choose(_document(source.path / "index.json", Index).manifests, source.ref)
        while descriptor.media_type in _INDEX_TYPES:
            descriptor = self._choose(self._read(descriptor, Index).manifests, None)
        manifest = self._read(descriptor, Manifest)
        self.key = descriptor.digest.partition(":")[2]
        self.config = self._read(manifest.config, ImageConfig)
        self._layers = manifest.layers

    def layers(self) -> Iterator[IO[bytes]]:
        for descriptor in self._layers:
            with open_regular(self._blob(descriptor)) as stream:
                checked = _Hashing(stream)
                with _decompressed(checked) as layer:
                    yield layer
                checked.verify(descriptor.digest)

    def _choose(self, manifests: list[Descriptor], ref: str | None) -> Descriptor:
        if ref is not None:
            named = [m for m in manifests if ref in (m.annotations.get(REF_NAME), m.digest)]
            if not named:
                known = ", ".join(sorted(m.annotations.get(REF_NAME, m.digest) for m in manifests))
                raise EngineFailure(CODE, f"the layout has no image {ref!r}; it has {known}")
            manifests = named
        fitting = [m for m in manifests if m.platform is None or _runs_here(m.platform.os, m.platform.architecture)]
        if not fitting:
            raise EngineFailure(CODE, f"the layout has no image for linux/{architecture()}")
        if ref is None and len(fitting) > 1 and fitting[0].platform is None:
            raise EngineFailure(CODE, "the layout has several images; name one with oci-layout:/path:ref")
        return fitting[0]

    def _read(self, descriptor: Descriptor, kind: type[T]) -> T:
        path = self._blob(descriptor)
        content = _small(path)
        if hashlib.sha256(content).hexdigest() != path.name:
            raise EngineFailure(CODE, f"{path.name} does not have the digest that its name says")
        return _decode(content, kind, path.name)

    def _blob(self, descriptor: Descriptor) -> Path:
        return self._blobs / "sha256" / _hex(descriptor.digest)


class ArchiveImage(Image):
    """An image of a ``docker save`` archive; its key is the digest of its configuration."""

    def __init__(self, source: Source, budget: Budget) -> None:
        self._path = source.path
        self._budget = budget
        with self._open() as archive:
            entries = _decode(self._file(archive, "manifest.json"), list[ArchiveEntry], "manifest.json")
            entry = self._choose(entries, source.ref)
            content = self._file(archive, entry.config)
        self.key = hashlib.sha256(content).hexdigest()
        self.config = _decode(content, ImageConfig, entry.config)
        self._layers = entry.layers
        if len(self._layers) != len(self.config.rootfs.diff_ids):
            raise EngineFailure(CODE, "the archive's layers do not match its configuration")

    def layers(self) -> Iterator[IO[bytes]]:
        with self._open() as archive:
            for name, digest in zip(self._layers, self.config.rootfs.diff_ids, strict=True):
                stream = archive.extractfile(self._member(archive, name))
                if stream is None:
                    raise EngineFailure(CODE, f"{name} in the archive is not a file")
                with stream, _decompressed(stream) as plain:
                    checked = _Hashing(plain)
                    yield cast("IO[bytes]", checked)
                    checked.verify(digest)

    @contextmanager
    def _open(self) -> Iterator[tarfile.TarFile]:
        try:
            with open_regular(self._path) as file:
                metered = cast("IO[bytes]", Metered(file, self._budget, sized=False))
                with tarfile.open(fileobj=metered, mode="r:*", tarinfo=Member) as archive:
                    yield archive
        except (tarfile.TarError, EOFError) as error:
            raise EngineFailure(CODE, f"{self._path.name} is not a readable tar archive: {error}") from None

    def _member(self, archive: tarfile.TarFile, name: str) -> tarfile.TarInfo:
        for member in archive:
            self._budget.entry()
            if member.name == name:
                return member
        raise EngineFailure(CODE, f"the archive has no {name}")

    def _file(self, archive: tarfile.TarFile, name: str) -> bytes:
        member = self._member(archive, name)
        stream = archive.extractfile(member)
        if stream is None or member.size > _DOCUMENT_LIMIT:
            raise EngineFailure(CODE, f"{name} in the archive is not a small file")
        return stream.read()

    def _choose(self, entries: list[ArchiveEntry], ref: str | None) -> ArchiveEntry:
        fitting = [entry for entry in entries if ref is None or ref in (entry.repo_tags or [])]
        if len(fitting) != 1:
            known = ", ".join(tag for entry in entries for tag in entry.repo_tags or [])
            raise EngineFailure(CODE, f"the archive has {len(fitting)} images for {ref or 'any name'}; it has {known}")
        return fitting[0]


def open_image(source: Source, budget: Budget) -> Image:
    """The image behind a source. Raises EngineFailure if it is damaged, ambiguous, too large or for another machine."""
    image: Image = LayoutImage(source) if source.kind is Kind.OCI_LAYOUT else ArchiveImage(source, budget)
    if not _runs_here(image.config.os, image.config.architecture):
        made_for = f"{image.config.os}/{image.config.architecture}"
        raise EngineFailure(CODE, f"the image is for {made_for}, not for this machine")
    return image


class _Hashing:
    """A readable stream that hashes what passes; `verify` reads the rest and compares."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._digest.update(data)
        return data

    def verify(self, digest: str) -> None:
        while self.read(1 << 20):
            pass  # behind the end of the archive: digests cover it, and files do not
        if self._digest.hexdigest() != _hex(digest):
            raise EngineFailure(CODE, f"a layer does not have the digest {digest}")


@contextmanager
def _decompressed(stream: Any) -> Iterator[Any]:
    """The stream as plain tar, whatever its compression; the media type is not asked, as archives lie about it."""
    peek = _Peeking(stream)
    if peek.head[:2] == b"\x1f\x8b":
        try:
            with gzip.GzipFile(fileobj=cast("IO[bytes]", peek)) as plain:
                yield plain
        except (gzip.BadGzipFile, EOFError) as error:
            raise EngineFailure(CODE, f"a layer is damaged: {error}") from None
    elif peek.head == b"\x28\xb5\x2f\xfd":
        try:
            zstd = import_module("compression.zstd")
        except ImportError:
            raise EngineFailure(CODE, "a layer is compressed with zstd, which needs Python 3.14") from None
        with zstd.ZstdFile(peek) as plain:
            yield plain
    else:
        yield peek


class _Peeking:
    """A readable stream whose first four bytes are known before it is read."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.head = stream.read(4)
        self._rest = self.head

    def read(self, size: int = -1) -> bytes:
        if not self._rest:
            return self._stream.read(size)
        if 0 <= size < len(self._rest):
            part, self._rest = self._rest[:size], self._rest[size:]
            return part
        part, self._rest = self._rest, b""
        return part + self._stream.read(size if size < 0 else size - len(part))


def _runs_here(system: str, machine: str) -> bool:
    return system in ("", "linux") and machine in ("", architecture())


def _hex(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise EngineFailure(CODE, f"{digest[:80]!r} is not a sha256 digest")
    return value


def _small(path: Path) -> bytes:
    with open_regular(path) as file:
        content = file.read(_DOCUMENT_LIMIT + 1)
    if len(content) > _DOCUMENT_LIMIT:
        raise EngineFailure(CODE, f"{path.name} is too large for a manifest")
    return content


def _document(path: Path, kind: type[T]) -> T:
    return _decode(_small(path), kind, path.name)


def _decode(content: bytes, kind: type[T], name: str) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise EngineFailure(CODE, f"{name} of the image is not valid: {error}") from None
