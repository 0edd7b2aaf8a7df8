"""Image names, and what they stand for on this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from msgspec import Struct

from shoal.errors import ConfigError, InvalidRequest
from shoal.models.codes import INVALID_PARAMETER

FORMS: Final = "dir:/path, oci-layout:/path[:ref] or docker-archive:/path.tar[:ref]"


class UnknownForm(ValueError):
    """A text that names no source: most likely an image of a registry."""


class Kind(StrEnum):
    HOST = "host"
    DIRECTORY = "dir"
    OCI_LAYOUT = "oci-layout"
    DOCKER_ARCHIVE = "docker-archive"


class Source(Struct, frozen=True):
    """Where a root file system comes from; ``ref`` picks an image among several in one layout or archive."""

    kind: Kind
    path: Path = Path("/")
    ref: str | None = None


class Catalog:
    """The names that a request may use.

    Args:
        table: ``[local.images]``: exact names, or patterns that end in ``*``, to the forms of `parse`.
        private: paths of the server that no image may contain or lie in.
        roots: directories in which a request may name an image by its path.
    """

    def __init__(self, table: Mapping[str, str], private: tuple[Path, ...] = (), roots: Sequence[str] = ()) -> None:
        self._exact: dict[str, Source] = {}
        self._patterns: list[tuple[str, Source]] = []
        self._private = private
        self._roots = [Path(os.path.realpath(Path(root).expanduser())) for root in roots]
        for name, target in table.items():
            try:
                source = parse(target)
            except ValueError as error:
                raise ConfigError(f"local.images.{name}: {error}") from None
            if name.endswith("*"):
                self._patterns.append((name, source))
            else:
                self._exact[name] = source
        self._patterns.sort(key=lambda pair: -len(pair[0]))

    def resolve(self, name: str) -> Source:
        """The source that a name stands for, checked to exist. Raises InvalidRequest that says what to do."""
        source = self._exact.get(name) or next((s for p, s in self._patterns if fnmatchcase(name, p)), None)
        if source is None:
            try:
                source = self._named_by_path(parse(name))
            except UnknownForm:
                line = f'add the line {json.dumps(name)} = "host" below [local.images]'
                text = (
                    f"the local runtime pulls no images; {line} to run it on this machine's own programs, or map it to"
                )
                raise InvalidRequest(INVALID_PARAMETER, f"image {name!r}: {text} {FORMS}") from None
            except ValueError as error:
                raise InvalidRequest(INVALID_PARAMETER, f"image {name!r}: {error}") from None
        source = Source(source.kind, _real(source.path) or source.path, source.ref)
        self._check(name, source)
        return source

    def _named_by_path(self, source: Source) -> Source:
        """A source that a request itself names. Raises ValueError outside the roots, whatever is there."""
        real = _real(source.path)
        if source.kind is not Kind.HOST and not any(real and real.is_relative_to(root) for root in self._roots):
            raise ValueError(
                "images are named by path only below [local] image_roots; the administrator can add a root, "
                "or a name in [local.images]"
            )
        return source

    def _check(self, name: str, source: Source) -> None:
        if source.kind is Kind.HOST:
            return
        wants_directory = source.kind is not Kind.DOCKER_ARCHIVE
        # Unlike Path's methods these raise nothing: what cannot be looked at is not there.
        there = os.path.isdir(source.path) if wants_directory else os.path.isfile(source.path)  # noqa: PTH112, PTH113
        if not there:
            what = "directory" if wants_directory else "regular file"
            raise InvalidRequest(INVALID_PARAMETER, f"image {name!r}: there is no {what} {source.path}")
        if source.kind is Kind.OCI_LAYOUT and not os.path.isfile(source.path / "index.json"):  # noqa: PTH113
            raise InvalidRequest(INVALID_PARAMETER, f"image {name!r}: {source.path} has no index.json")
        self.check_private(name, source.path)

    def check_private(self, name: str, path: Path) -> None:
        """Raises InvalidRequest for a directory or file that would show the server's own."""
        if path == Path("/"):
            raise InvalidRequest(INVALID_PARAMETER, f"image {name!r}: this machine's own root is the image 'host'")
        if any(path.is_relative_to(secret) or secret.is_relative_to(path) for secret in self._private):
            raise InvalidRequest(INVALID_PARAMETER, f"image {name!r}: the server keeps files of its own there")


def parse(text: str) -> Source:
    """``host``, ``dir:/path``, ``oci-layout:/path[:ref]``, ``docker-archive:/path.tar[:ref]``. Raises ValueError."""
    if text == Kind.HOST:
        return Source(Kind.HOST)
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in (Kind.DIRECTORY, Kind.OCI_LAYOUT, Kind.DOCKER_ARCHIVE):
        raise UnknownForm(f"the local runtime pulls no images; use host, {FORMS}")
    if not rest.startswith("/"):
        raise ValueError(f"the path after {scheme}: must be absolute")
    if scheme == Kind.DIRECTORY:
        return Source(Kind.DIRECTORY, _path(rest))
    path, _, ref = rest.partition(":")
    return Source(Kind(scheme), _path(path), ref or None)


def _real(path: Path) -> Path | None:
    """The path without symbolic links; None where one cannot be followed, such as another process's in /proc."""
    try:
        return Path(os.path.realpath(path))
    except OSError:
        return None


def _path(text: str) -> Path:
    if ".." in text.split("/") or "\0" in text:
        raise ValueError("the path must not climb")
    return Path(text)
