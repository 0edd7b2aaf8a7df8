"""Image references: ``busybox`` is ``docker.io/library/busybox:latest``.

The rules are those of the distribution project (https://github.com/distribution/reference): the first part is a
registry if it holds a dot or a colon or is ``localhost``; Docker Hub and ``latest`` are what is left out.
"""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from shoal.errors import InvalidRequest
from shoal.models import codes

HUB: Final = "docker.io"
MAX_NAME_LENGTH: Final = 255
"""Characters of registry and path together."""
_OFFICIAL: Final = "library/"
_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH: Final = re.compile(rf"{_PART}(?:/{_PART})*")
_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_REGISTRY: Final = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:]+\])(?::[0-9]{{1,5}})?")
_TAG: Final = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_SHORT_ID: Final = re.compile(r"[0-9a-f]{7,63}")
_ID: Final = re.compile(r"(?:sha256:)?[0-9a-f]{64}")


class Name(Struct, frozen=True):
    """One reference, in full.

    Attributes:
        registry, path: of its repository; both empty where the reference is an image's id.
        tag: empty beside a digest.
        digest: ``sha256:…``, of a manifest, or the id itself.
    """

    registry: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        """``docker.io/library/busybox``; empty for an id."""
        return f"{self.registry}/{self.path}" if self.path else ""

    @property
    def short_id(self) -> str | None:
        """The first digits of an image's id, if that is what it may be besides a name; None else."""
        digits = self.path.removeprefix(_OFFICIAL)
        bare = self.registry == HUB and self.tag == "latest" and not self.digest
        return digits if bare and _SHORT_ID.fullmatch(digits) else None

    @property
    def is_official(self) -> bool:
        """One of Docker Hub's own images, which are everybody's."""
        return self.registry == HUB and self.path.startswith(_OFFICIAL)

    @property
    def short(self) -> str:
        """The repository as engines show it: without what is understood."""
        if self.registry != HUB:
            return self.repository
        return self.path.removeprefix(_OFFICIAL)

    def __str__(self) -> str:
        """The name for the engine."""
        if not self.path:
            return self.digest
        return f"{self.short}@{self.digest}" if self.digest else f"{self.short}:{self.tag}"


def parse(reference: str) -> Name:
    """The reference in full. Raises InvalidRequest for text that can be none."""
    text = reference.strip()
    if _ID.fullmatch(text):
        return Name("", "", digest="sha256:" + text.removeprefix("sha256:"))
    rest, _, digest = text.partition("@")
    head, slash, tail = rest.partition("/")
    if slash and (any(sign in head for sign in ".:") or head == "localhost" or head != head.lower()):
        registry, path = head, tail
    else:
        registry, path = HUB, rest
    path, colon, tag = path.partition(":")
    if registry in (HUB, "index.docker.io"):
        registry, path = HUB, path if "/" in path else _OFFICIAL + path
    name = Name(registry, path, tag="" if digest else tag or "latest", digest=digest)
    wrong = ("@" in text) != bool(digest) or (colon and not tag) or not _is_sound(name)
    if wrong or (tag and not _TAG.fullmatch(tag)):
        raise InvalidRequest(codes.INVALID_PARAMETER, f"image.uri: {text[:100]!r} is not an image reference.")
    return name


def _is_sound(name: Name) -> bool:
    return (
        len(name.repository) <= MAX_NAME_LENGTH
        and _PATH.fullmatch(name.path) is not None
        and _REGISTRY.fullmatch(name.registry) is not None
        and (not name.digest or _DIGEST.fullmatch(name.digest) is not None)
    )
