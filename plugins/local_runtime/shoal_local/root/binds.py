"""Volumes in the root of a sandbox: the mounts, and how each is known to be the right one.

Each volume is first mounted in the sandbox's own directory, where only the server has a way, and compared there with
what the server had opened. From there it goes to its place. A place that is in another volume, or in an image that is a
directory, may be changed by who writes to that one, up to the last moment: it is opened, compared, and mounted on
through that descriptor.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import join, quote

from msgspec import Struct
from msgspec.structs import replace

from shoal_local.root.mounts import BOX, Mount, Point, read_only_bind

_ASIDE = "volumes"


class Bind(Struct, frozen=True):
    """A directory or file of the host in the sandbox.

    Attributes:
        name: the volume's name in the request.
        identity: device and inode number, see `shoal.kit.walk.identity`.
        covers: the identity of what it is mounted on, where that is in another volume.
    """

    name: str
    source: Path
    target: str
    read_only: bool
    identity: str
    directory: bool = True
    covers: str | None = None

    def placed(self, covers: str) -> Bind:
        """The same, mounted on a file of another volume."""
        return replace(self, covers=covers)


def parts(path: str) -> tuple[str, ...]:
    """The names in a path, without empty ones and dots."""
    return tuple(part for part in path.split("/") if part not in ("", "."))


def mounts(binds: Sequence[Bind], known: Sequence[Point]) -> list[Mount]:
    """Every volume aside."""
    return [step for number, bind in enumerate(binds) for step in _bind(bind, f"{BOX}/{_ASIDE}/{number}", known)]


def direct(binds: Sequence[Bind], places: Sequence[str], known: Sequence[Point]) -> list[Mount]:
    """Every volume at its place at once, for a tool that mounts by name and looks for itself."""
    return [step for bind, place in zip(binds, places, strict=True) for step in _bind(bind, place, known)]


def make_aside(binds: Sequence[Bind], box: Path) -> None:
    """What the volumes are mounted on first."""
    if binds:
        (box / _ASIDE).mkdir(mode=0o700)
    for number, bind in enumerate(binds):
        point = box / _ASIDE / str(number)
        point.mkdir() if bind.directory else point.touch()


def checks(binds: Sequence[Bind], box: Path, stat: str) -> list[str]:
    """Shell commands that fail, with a reason, unless each volume is the one that was opened."""
    return [
        f"{{ {_is(stat, str(box / _ASIDE / str(number)), bind.identity)}"
        f" || {_fail(f'volume {bind.name}: {bind.source} is no longer what it was when the sandbox was asked for')}; }}"
        for number, bind in enumerate(binds)
    ]


def placements(binds: Sequence[Bind], places: Sequence[str], box: Path, root: Path, stat: str, mount: str) -> list[str]:
    """Shell commands that mount the volumes at their places in ``root``, in order; ``places`` are without links."""
    here = "/proc/self/fd/9"
    found = []
    for number, (bind, inside) in enumerate(zip(binds, places, strict=True)):
        place = f"{root}/{'/'.join(parts(inside))}"
        same = f'[ "$(readlink {here})" = {quote(place)} ]' if bind.covers is None else _is(stat, here, bind.covers)
        step = join([mount, "--no-canonicalize", "--rbind", str(box / _ASIDE / str(number)), here])
        text = f"volume {bind.name}: {bind.target} is no longer what it was when the sandbox was asked for"
        found.append(f"{{ {{ {same} && {step}; }} 9<{quote(place)} || {_fail(text)}; }}")
    return found


def _bind(bind: Bind, target: str, known: Sequence[Point]) -> list[Mount]:
    if bind.read_only:
        return read_only_bind(bind.source, target, known)
    return [Mount("bind", target, str(bind.source))]


def _is(stat: str, path: str, identity: str) -> str:
    return f'[ "$({join([stat, "-Lc", "%d:%i", path])})" = {identity} ]'


def _fail(text: str) -> str:
    return f"{{ echo {quote(text)}; false; }}"
